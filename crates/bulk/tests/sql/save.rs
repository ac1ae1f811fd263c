//! Results as files.

use super::support::{Scratch, Session, fill};
use kun_bulk::BulkError;
use kun_bulk::sql::Ended;

#[test]
fn rows_go_to_files_of_any_format_and_come_back() {
    let scratch = Scratch::new("save");
    fill(&scratch);
    let session = Session::new();
    let many = scratch.uri("many.parquet");
    let query =
        format!("SELECT a.id, a.text, b.id FROM '{many}' a JOIN '{many}' b USING (id) WHERE a.id < 5000");
    for ending in ["parquet", "jsonl", "csv", "tsv", "arrow"] {
        let output = scratch.uri(&format!("out.{ending}"));
        // The second time, the file is replaced.
        for _ in 0..2 {
            let ended = session.save(&query, Some(&output)).unwrap();
            assert_eq!(ended, Ended::Written { uri: output.clone(), rows: 5000 });
        }
        let back = session.rows(&format!("SELECT count(*), max(id_1), max(text) FROM '{output}'")).unwrap();
        assert_eq!(back, ["5000,4999,row 999"], "{ending}");
    }
    let left = std::fs::read_dir(scratch.path("")).unwrap();
    let drafts = left.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("draft"));
    assert_eq!(drafts.count(), 0);
}

#[test]
fn copy_writes_whole_files_and_leaves_others_alone() {
    let scratch = Scratch::new("copy");
    fill(&scratch);
    let session = Session::new();
    let (people, out) = (scratch.uri("people.csv"), scratch.uri("out/"));
    let copy = format!("COPY (SELECT id, \"Name\" FROM '{people}' WHERE ok) TO '{out}' STORED AS JSONL");
    for _ in 0..2 {
        let ended = session.save(&copy, None).unwrap();
        assert!(matches!(ended, Ended::Written { rows: 3, .. }), "{ended:?}");
    }
    let text = std::fs::read_to_string(scratch.path("out/part-000000.jsonl")).unwrap();
    assert_eq!(text.lines().next(), Some("{\"id\":1,\"Name\":\"Ann\"}"));
    let ended = session.save(&format!("COPY '{people}' TO '{}'", scratch.uri("all.parquet")), None).unwrap();
    assert!(matches!(ended, Ended::Written { rows: 4, .. }), "{ended:?}");
    // A query that fails half-way leaves what was there.
    let output = scratch.uri("kept.csv");
    session.save("SELECT 1 AS x", Some(&output)).unwrap();
    let fails = format!("SELECT 10 / (id - 15000) AS x FROM '{}'", scratch.uri("many.parquet"));
    let error = session.save(&fails, Some(&output)).unwrap_err();
    assert!(matches!(error, BulkError::Sql { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&output).unwrap(), "x\n1\n");
    // No rows are a file without rows.
    session
        .save(&format!("SELECT id FROM '{people}' WHERE id > 99"), Some(&scratch.uri("none.csv")))
        .unwrap();
    assert_eq!(std::fs::read_to_string(scratch.path("none.csv")).unwrap(), "id\n");
}
