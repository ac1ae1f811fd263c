//! SQL: the cases of `*.slt` beside this file, and what takes more than a query.
//!
//! A case is a line `query` or `error`, statements, a line `----`, and the rows as CSV or words of the message. Lines
//! after it may say `seen 3`, the rows that `seen(text)` was asked about, and `failed 1`, rows without a result. `$DIR`
//! is the folder of [`support::fill`].
// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used)]

mod hostile;
mod jobs;
mod models;
mod save;
mod support;

use support::{Scratch, Session};

/// Runs the cases of a file, each in a session of its own.
fn run(name: &str, text: &str) {
    let scratch = Scratch::new(name);
    support::fill(&scratch);
    let folder = scratch.uri("");
    let (mut cases, mut wrong) = (0, Vec::new());
    for case in text.split("\n\n").map(str::trim) {
        let lines: Vec<&str> = case.lines().filter(|line| !line.starts_with('#')).collect();
        let Some((kind, rest)) = lines.split_first() else { continue };
        cases += 1;
        let mark =
            rest.iter().position(|line| *line == "----").unwrap_or_else(|| panic!("no ---- in {case}"));
        let query = rest[..mark].join("\n").replace("$DIR/", &folder);
        let (checks, wanted): (Vec<&str>, Vec<&str>) = rest[mark + 1..]
            .iter()
            .partition(|line| line.starts_with("seen ") || line.starts_with("failed "));
        let session = Session::new();
        let ran = session.rows(&query);
        let mut expect = |what: &str, found: String, wanted: String| {
            if found != wanted {
                wrong.push(format!("{query}\n  {what}: {found}\n  wanted: {wanted}"));
            }
        };
        match (*kind, ran) {
            ("query", Ok(rows)) => expect("rows", format!("{rows:?}"), format!("{wanted:?}")),
            ("error", Err(error)) if error.to_string().contains(&wanted.join("\n")) => {}
            (_, ran) => expect("ran", format!("{ran:?}"), format!("{kind} {wanted:?}")),
        }
        let check =
            |word: &str| checks.iter().find_map(|line| line.strip_prefix(word)?.trim().parse::<u64>().ok());
        let failed = session.sql.take_failures().map_or(0, |failures| failures.rows);
        expect("failed", failed.to_string(), check("failed").unwrap_or(0).to_string());
        if let Some(seen) = check("seen") {
            expect("seen", session.seen().to_string(), seen.to_string());
        }
    }
    assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
    assert!(cases > 3, "{name} has cases");
}

#[test]
fn files_are_tables() {
    run("files", include_str!("files.slt"));
}

#[test]
fn functions_are_asked_once_and_about_what_is_left() {
    run("functions", include_str!("functions.slt"));
}

#[test]
fn mistakes_are_told_in_words() {
    run("mistakes", include_str!("mistakes.slt"));
}
