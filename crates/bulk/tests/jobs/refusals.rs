//! What is refused, and in which words.

use crate::support::{Scratch, Setting, job, numbered};
use kun_bulk::job::Dedup;
use kun_bulk::{BulkError, Job};

fn changed(setting: &Setting, job: &Job) -> String {
    match setting.run(job) {
        Err(BulkError::Changed { what }) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn going_on_with_another_input_or_function_is_refused() {
    let scratch = Scratch::new("changed");
    let setting = Setting::new();
    let input = scratch.write("in.jsonl", numbered(10));
    let first = job(&input, &["checked(text) as n"], &scratch.uri("out.jsonl"));
    assert!(setting.run(&first).unwrap().complete);

    // What does not change results may change.
    let mut faster = first.clone();
    (faster.run.workers, faster.run.split.rows, faster.run.dedup) = (5, 3, Dedup::Off);
    assert!(setting.run(&faster).unwrap().was_complete);

    let mut salted = first.clone();
    salted.map = vec![kun_bulk::Call::parse("checked(text, salt = 'x') as n").unwrap()];
    assert!(changed(&setting, &salted).contains("salt"), "{}", changed(&setting, &salted));
    let mut fewer = first.clone();
    fewer.input.columns = Some(vec!["id".to_owned()]);
    assert!(changed(&setting, &fewer).contains("columns"));
    scratch.write("in.jsonl", numbered(11));
    assert!(changed(&setting, &first).contains("input has changed"));
}

#[test]
fn an_output_that_no_job_made_is_left_alone() {
    let scratch = Scratch::new("foreign");
    let setting = Setting::new();
    let input = scratch.write("in.jsonl", numbered(10));
    let file = scratch.write("mine.csv", "precious");
    assert!(changed(&setting, &job(&input, &["hash(id)"], &file)).contains("no job of kun made it"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    scratch.write("folder/mine.txt", "precious");
    assert!(changed(&setting, &job(&input, &["hash(id)"], &scratch.uri("folder/"))).contains("mine.txt"));
}

#[test]
fn mistakes_are_told_before_any_work() {
    let scratch = Scratch::new("mistakes");
    let setting = Setting::new();
    let input = scratch.write("in.jsonl", numbered(10));
    let out = scratch.uri("out.jsonl");
    let says = |job: &Job, words: &str| {
        let error = setting.run(job).unwrap_err();
        let mut all = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            all = format!("{all}: {error}");
            cause = error.source();
        }
        assert!(all.contains(words), "{all}");
    };
    says(&job(&input, &["nothing(id)"], &out), "no function `nothing`");
    says(&job(&input, &["hash(none)"], &out), "no column `none`");
    says(&job(&input, &["hash(id) as text"], &out), "has a column `text`");
    says(&job(&input, &["hash(id, x = 1)"], &out), "no options");
    says(&job(&scratch.uri("gone.csv"), &["hash(id)"], &out), "no such file");
    says(&job(&input, &["hash(id)"], &scratch.uri("out.json")), ".json is not written");
    assert!(!scratch.path("out.json").exists());
    says(&job(&input, &["embed(text)"], &out), "needs a model");
    says(&job(&scratch.write("x.csv", "a,a\n1,2\n"), &["hash(a)"], &out), "column 2");
    says(&job(&scratch.write("empty.csv", ""), &["hash(a)"], &out), "empty");
    scratch.write("mixed/a.csv", "a\n1\n");
    scratch.write("mixed/b.png", "");
    says(&job(&scratch.uri("mixed"), &["hash(uri)"], &out), "both pictures (1) and tables (1)");
    assert!(!scratch.path("out.jsonl").exists());
}

#[test]
fn a_job_that_is_mostly_wrong_ends() {
    let scratch = Scratch::new("rate");
    let setting = Setting::new();
    let lines: String = (0..3000).map(|i| format!("{{\"text\": \"bad {i}\"}}\n")).collect();
    let input = scratch.write("in.jsonl", lines);
    let mut wrong = job(&input, &["checked(text) as n"], &scratch.uri("out.jsonl"));
    match setting.run(&wrong) {
        Err(BulkError::TooManyErrors { first, .. }) => assert!(first.starts_with("n: fatal: bad"), "{first}"),
        other => panic!("{other:?}"),
    }
    wrong.errors.max_rate = 1.0;
    let report = setting.run(&wrong).unwrap();
    assert_eq!((report.status.rows, report.status.errors), (3000, 3000));
}
