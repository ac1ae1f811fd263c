//! Queries and files that nobody means well with.

use super::support::{Scratch, Session, fill};
use kun_bulk::sql::Rows;
use kun_bulk::{BulkError, Stop};

#[test]
fn what_nests_deep_is_told_and_overflows_no_stack() {
    let session = Session::new();
    let deep = |open: &str, close: &str, times: usize| {
        format!("SELECT {}1{}", open.repeat(times), close.repeat(times))
    };
    for query in [
        deep("(", ")", 100_000),
        deep("-", "", 100_000),
        deep("NOT ", "", 50_000),
        deep("abs(", ")", 50_000),
        deep("CASE WHEN true THEN ", " END", 20_000),
        format!("SELECT {}", "(SELECT ".repeat(20_000)),
        format!("SELECT 1{}", " + 1".repeat(1_000_000)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(100_000)),
        format!("SELECT * FROM {}", "a JOIN ".repeat(100_000)),
        format!("SELECT a{}", ".a".repeat(100_000)),
        format!("SELECT x{}", "[1]".repeat(100_000)),
        format!("SELECT 1{}", "::int".repeat(100_000)),
        "x".repeat(5 << 20),
        "'".to_owned(),
        "\u{1}".to_owned(),
        "SELECT '\u{1}{}'".to_owned(),
    ] {
        let shown: String = query.chars().take(40).collect();
        let error = session.rows(&query).unwrap_err();
        assert!(matches!(error, BulkError::Sql { .. }), "{shown}: {error}");
        assert!(error.to_string().len() < 100_000, "{shown}");
    }
}

#[test]
fn long_chains_and_lists_are_worked_on() {
    let session = Session::new();
    let sum = format!("SELECT 1{}", " + 1".repeat(4_000));
    assert_eq!(session.rows(&sum).unwrap(), ["4001"]);
    let or = format!(
        "SELECT count(*) FROM (VALUES (1), (2)) AS t(x) WHERE x = 1{}",
        " OR x = x * 2".repeat(1_500)
    );
    assert_eq!(session.rows(&or).unwrap(), ["1"]);
    let list: Vec<String> = (0..50_000).map(|n| n.to_string()).collect();
    let list = format!("SELECT count(*) FROM (VALUES (1), (-1)) AS t(x) WHERE x IN ({})", list.join(", "));
    assert_eq!(session.rows(&list).unwrap(), ["1"]);
}

#[test]
fn files_that_are_damaged_are_told() {
    let scratch = Scratch::new("damaged");
    fill(&scratch);
    let whole = std::fs::read(scratch.path("many.parquet")).unwrap();
    scratch.write("cut.parquet", &whole[..whole.len() / 2]);
    scratch.write("empty.parquet", "");
    let mut flipped = whole.clone();
    for at in (4..whole.len() / 2).step_by(97) {
        flipped[at] ^= 0xff;
    }
    scratch.write("flipped.parquet", &flipped);
    scratch.write("empty.csv", "");
    scratch.write("quote.csv", "a,b\n\"1,2\n");
    scratch.write("nul.jsonl", [0_u8; 100]);
    scratch.write("zero.arrow", [0_u8; 100]);
    let session = Session::new();
    for name in ["cut.parquet", "empty.parquet", "flipped.parquet", "empty.csv", "zero.arrow"] {
        let query = format!("SELECT max(length(text)) FROM '{}'", scratch.uri(name));
        let error = session.rows(&query).map(|rows| panic!("{name}: {rows:?}")).unwrap_err();
        assert!(!error.to_string().is_empty(), "{name}");
    }
    for name in ["quote.csv", "nul.jsonl"] {
        // A row that says so, or an error: no panic, and nothing that never ends.
        let _ = session.rows(&format!("SELECT * FROM '{}'", scratch.uri(name)));
        let _ = session.sql.take_failures();
    }
    // The session goes on.
    assert_eq!(session.rows("SELECT 1").unwrap(), ["1"]);
}

#[test]
fn sorts_go_to_files_where_memory_ends_and_joins_say_so() {
    let scratch = Scratch::new("memory");
    fill(&scratch);
    let session = Session::with_memory(4 << 20);
    let many = scratch.uri("many.parquet");
    let wide = format!("SELECT id, repeat(text, 100) AS t FROM '{many}'");
    let sorted = format!(
        "SELECT count(*), min(r) FROM (SELECT row_number() OVER (ORDER BY t DESC, id) AS r FROM ({wide}))"
    );
    match session.rows(&sorted) {
        Ok(rows) => assert_eq!(rows, ["20000,1"]),
        Err(error) => assert!(error.to_string().contains("--memory"), "{error}"),
    }
    let joined = format!("SELECT count(*) FROM ({wide}) a JOIN ({wide}) b ON a.t = b.t");
    match session.rows(&joined) {
        Ok(rows) => assert_eq!(rows, ["20000"]),
        Err(error) => assert!(error.to_string().contains("--memory"), "{error}"),
    }
    assert_eq!(session.rows("SELECT 1").unwrap(), ["1"]);
}

#[test]
fn a_query_without_end_is_stopped() {
    let session = Session::new();
    // One that finds no rows, and one whose rows all come from few that were read.
    for condition in ["a.value = -b.value - 1 - a.value", "a.value * b.value % 7 = 3"] {
        let query = format!(
            "SELECT count(*) FROM generate_series(1, 1000000000) a, generate_series(1, 1000000) b WHERE {condition}"
        );
        let statement = session.sql.parse(&query).unwrap().pop().unwrap();
        let stop = Stop::default();
        // Asked to end when it says what columns it has.
        let ended = session.sql.run(statement, None, &stop, &mut |_: &Rows| {
            stop.raise();
            Ok(())
        });
        assert!(matches!(ended, Err(BulkError::Stopped)), "{ended:?}");
    }
    assert_eq!(session.rows("SELECT 1").unwrap(), ["1"]);
}
