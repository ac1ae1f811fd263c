//! `where` of jobs.

use super::support::{Scratch, fill};
use kun_bulk::store::{StoreOptions, Stores};
use kun_bulk::{BulkError, Call, Context, Job, NoModels, Registry, Report, RunOptions, check};
use kun_engine::Engine;
use serde_json::Value;
use std::sync::Arc;

fn job(scratch: &Scratch, input: &str, condition: &str, output: &str) -> Job {
    let mut job = Job::default();
    job.input.uri = vec![scratch.uri(input)];
    job.input.condition = Some(condition.to_owned());
    job.output.uri = scratch.uri(output);
    job.map = vec![Call::parse("hash(text) as h").unwrap()];
    job
}

fn run_with(job: &Job, options: &RunOptions) -> Result<Report, BulkError> {
    let stores = Stores::new(StoreOptions::default());
    let context = Context::new(Engine::new(), Arc::new(NoModels), stores.clone(), Some(1));
    check(job, &Registry::builtin(), &context, &stores)?.run(options, &|_| {})
}

fn run(job: &Job) -> Result<Report, BulkError> {
    run_with(job, &RunOptions::default())
}

fn rows(scratch: &Scratch, output: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(scratch.path(output)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn rows_that_do_not_match_are_left_out_and_counted() {
    let scratch = Scratch::new("where");
    fill(&scratch);
    let mut job = job(&scratch, "many.parquet", "id % 100 = 7 AND text LIKE '%7'", "out.jsonl");
    // What the condition reads need not be kept.
    job.input.columns = Some(vec!["text".to_owned()]);
    job.run.split.rows = 3000;
    let report = run(&job).unwrap();
    assert_eq!((report.status.rows, report.status.dropped), (200, 19_800));
    let found = rows(&scratch, "out.jsonl");
    assert_eq!(found.len(), 200);
    assert!(found.iter().zip(0..).all(|(row, at)| row["text"] == format!("row {}", at * 100 + 7)));
    assert!(found[0].get("id").is_none() && found[0]["h"].is_string());
    assert!(run(&job).unwrap().was_complete);
    // Another condition is another job.
    job.input.condition = Some("id > 5".to_owned());
    let error = run(&job).unwrap_err();
    assert!(
        matches!(error, BulkError::Changed { .. }) && error.to_string().contains("the condition was"),
        "{error}"
    );
}

#[test]
fn texts_of_csv_are_compared_as_numbers_and_rows_on_which_the_condition_fails_say_so() {
    let scratch = Scratch::new("where-csv");
    scratch.write("in.csv", "text,n\na,9.5\nb,10\nc,x\nd,\ne,200\nf,0\n");
    for (condition, wanted) in [
        ("n > 9", "abe"),
        ("n BETWEEN 9 AND 11", "ab"),
        ("n IN (200, 9.5)", "ae"),
        ("n = '10'", "b"),
        ("n IS NOT NULL AND text < 'c'", "ab"),
    ] {
        let output = format!("{}.jsonl", condition.len());
        let _ = std::fs::remove_file(scratch.path(&output));
        let _ = std::fs::remove_dir_all(scratch.path(&format!("{output}.kun")));
        run(&job(&scratch, "in.csv", condition, &output)).unwrap();
        let texts: String =
            rows(&scratch, &output).iter().map(|row| row["text"].as_str().unwrap().to_owned()).collect();
        assert_eq!(texts, wanted, "{condition}");
    }
    scratch.write("whole.jsonl", "{\"text\": \"a\", \"n\": 2}\n{\"text\": \"b\", \"n\": 0}\n{\n");
    let report = run(&job(&scratch, "whole.jsonl", "4 / n = 2", "fails.jsonl")).unwrap();
    assert_eq!((report.status.rows, report.status.errors, report.status.dropped), (3, 2, 0));
    let found = rows(&scratch, "fails.jsonl");
    assert!(found[1]["_error"].as_str().unwrap().contains("where"), "{}", found[1]);
}

#[test]
fn a_condition_that_is_none_is_told_before_any_work() {
    let scratch = Scratch::new("where-wrong");
    fill(&scratch);
    for (condition, says) in [
        ("nothing = 1", "nothing"),
        ("id +", "where `id +`"),
        ("id + 1", "not true or false"),
        ("embed(text) IS NULL", "embed"),
        (&"(".repeat(50_000), ""),
    ] {
        let error = run(&job(&scratch, "many.parquet", condition, "out/")).unwrap_err();
        assert!(matches!(error, BulkError::Sql { .. }) && error.to_string().contains(says), "{error}");
        assert!(!scratch.path("out").exists(), "{condition}");
    }
}

#[test]
fn shards_and_stops_leave_every_matching_row_once() {
    let scratch = Scratch::new("where-shards");
    fill(&scratch);
    let mut job = job(&scratch, "many.parquet", "id % 3 = 0", "out/");
    job.run.split.rows = 1000;
    for shard in 0..3 {
        run_with(&job, &RunOptions { shard: Some((shard, 3)), ..RunOptions::default() }).unwrap();
    }
    let report = run(&job).unwrap();
    assert!(report.was_complete);
    assert_eq!((report.status.rows, report.status.dropped), (6667, 13_333));
}

#[test]
fn duplicates_are_found_among_the_rows_that_count() {
    let scratch = Scratch::new("where-duplicates");
    let line = |n: usize| {
        format!("{{\"id\": {n}, \"text\": \"{}\"}}\n", if n.is_multiple_of(2) { "same" } else { "other" })
    };
    scratch.write("in.jsonl", (0..10).map(line).collect::<String>());
    let mut job = job(&scratch, "in.jsonl", "id > 3", "out.jsonl");
    job.map = vec![Call::parse("duplicates(text, near = false) as d").unwrap()];
    run(&job).unwrap();
    let found = rows(&scratch, "out.jsonl");
    let of: Vec<Option<i64>> = found.iter().map(|row| row["d"]["of"].as_i64()).collect();
    assert_eq!(of, [None, None, Some(0), Some(1), Some(0), Some(1)]);
}

#[test]
fn the_rows_of_a_query_are_an_input() {
    let scratch = Scratch::new("query");
    fill(&scratch);
    let mut job = Job::default();
    let (people, talks) = (scratch.uri("people.csv"), scratch.uri("talks.jsonl"));
    let query =
        format!("SELECT p.Name AS who, t.text FROM '{people}' p JOIN '{talks}' t USING (id) ORDER BY p.id");
    job.input.query = Some(query.clone());
    job.input.condition = Some("who <> 'Bob'".to_owned());
    job.output.uri = scratch.uri("out.jsonl");
    job.map = vec![Call::parse("hash(who, text) as h").unwrap()];
    job.run.split.rows = 2;
    let report = run(&job).unwrap();
    assert_eq!((report.status.rows, report.status.errors, report.status.dropped), (3, 0, 1));
    let found = rows(&scratch, "out.jsonl");
    assert_eq!(
        found.iter().map(|row| row["who"].as_str().unwrap()).collect::<Vec<_>>().join(" "),
        "Ann Cid, the \"third\" Dot"
    );
    assert!(run(&job).unwrap().was_complete);
    let state = std::fs::read_dir(scratch.path("out.jsonl.kun")).unwrap();
    let kept =
        state.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("query-"));
    assert_eq!(kept.count(), 0, "the rows of the query have done their work");
    // A file that the query reads is part of the input.
    scratch.write("people.csv", "id,Name\n1,Eve\n");
    let error = run(&job).unwrap_err();
    assert!(matches!(error, BulkError::Changed { .. }), "{error}");
    for (query, says) in
        [("SELECT 1; SELECT 2", "one query"), ("DROP TABLE x", "one query"), ("SELECT x", "x")]
    {
        job.input.query = Some(query.to_owned());
        job.output.uri = scratch.uri("other.jsonl");
        let error = run(&job).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert!(!scratch.path("other.jsonl.kun").exists());
    }
}
