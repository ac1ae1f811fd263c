//! Rows that an earlier row has already.

use crate::support::{Scratch, Setting, job};
use kun_bulk::{RunOptions, Stop};
use serde_json::{Value, json};
use std::path::Path;

/// A text of 100 words that no other seed has.
fn text(seed: usize) -> String {
    (0..100).map(|n| format!("w{}", seed * 1000 + n * n % 977)).collect::<Vec<_>>().join(" ")
}

/// Row by row: its text and the row that it repeats.
fn rows() -> Vec<(String, Option<usize>)> {
    let mut rows: Vec<(String, Option<usize>)> = Vec::new();
    for at in 0..600 {
        rows.push(match at {
            // The very text of row 5, then with another word in the middle, then with another case and punctuation.
            100 => (text(5), Some(5)),
            200 => (text(5).replacen(" w", " other", 1), Some(5)),
            300 => (text(5).to_uppercase().replace(' ', ", "), Some(5)),
            // Two halves of texts: alike by a third.
            400 => (format!("{} {}", &text(7)[..250], &text(8)[..250]), None),
            500 | 501 => (String::new(), (at == 501).then_some(500)),
            at => (text(at), None),
        });
    }
    rows
}

fn read(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn exact_and_near_duplicates_are_found_across_splits_and_shards() {
    let scratch = Scratch::new("duplicates");
    let rows = rows();
    let lines: Vec<String> = rows.iter().map(|(text, _)| json!({ "text": text }).to_string()).collect();
    let input = scratch.write("in.jsonl", lines.join("\n"));
    let calls = ["duplicates(text) as near", "duplicates(text, near = false) as same"];
    let mut whole = job(&input, &calls, &scratch.uri("whole.jsonl"));
    whole.run.split.rows = 70;
    let report = Setting::new().run(&whole).unwrap();
    assert_eq!((report.status.rows, report.status.errors), (600, 0));
    for (at, (found, (text, of))) in read(&scratch.path("whole.jsonl")).iter().zip(&rows).enumerate() {
        let (near, same) = (&found["near"], &found["same"]);
        assert_eq!(near["of"], json!(of), "{at}: {near}");
        let exact = of.is_some_and(|of| rows[of].0 == *text);
        assert_eq!(
            (&near["duplicate"], &near["exact"]),
            (&json!(of.is_some()), &json!(exact)),
            "{at}: {near}"
        );
        assert!(of.is_none() || near["similarity"].as_f64().unwrap() > 0.8, "{at}: {near}");
        assert_eq!(same["of"], json!(of.filter(|_| exact)), "{at}: {same}");
    }
    assert!(!scratch.path("whole.jsonl.kun/survey").exists(), "notes go when the job is done");

    let shards = whole_as(&whole, &scratch.uri("shards.jsonl"));
    std::thread::scope(|scope| {
        for shard in 0..3 {
            let shards = &shards;
            scope.spawn(move || {
                let options = RunOptions { shard: Some((shard, 3)), stop: Stop::default() };
                Setting::new().run_with(shards, &options).unwrap();
            });
        }
    });
    assert!(Setting::new().run(&shards).unwrap().complete);
    assert!(read(&scratch.path("shards.jsonl")) == read(&scratch.path("whole.jsonl")));
}

fn whole_as(job: &kun_bulk::Job, output: &str) -> kun_bulk::Job {
    let mut job = job.clone();
    output.clone_into(&mut job.output.uri);
    job
}

#[test]
fn bad_rows_are_no_duplicates_and_results_of_functions_are_refused() {
    let scratch = Scratch::new("duplicates-bad");
    let input =
        scratch.write("in.jsonl", "{\"text\": \"a b\"}\n{\n{\"text\": null}\n{\n{\"text\": \"a b\"}\n");
    let setting = Setting::new();
    let report = setting.run(&job(&input, &["duplicates(text) as d"], &scratch.uri("out.jsonl"))).unwrap();
    assert_eq!((report.status.rows, report.status.errors), (5, 3));
    let found = read(&scratch.path("out.jsonl"));
    assert_eq!(found[4]["d"]["of"], 0);
    assert!(found[1]["d"].is_null() && found[2]["d"].is_null() && found[3]["d"].is_null());

    let later = job(&input, &["repair(text) as r", "duplicates(r) as d"], &scratch.uri("later.jsonl"));
    let error = setting.run(&later).unwrap_err().to_string();
    assert!(error.contains("columns of the input"), "{error}");
    let loose = job(&input, &["duplicates(text, threshold = 0.2) as d"], &scratch.uri("loose.jsonl"));
    assert!(setting.run(&loose).unwrap_err().to_string().contains("threshold from 0.5"));
}
