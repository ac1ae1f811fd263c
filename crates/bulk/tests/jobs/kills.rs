//! A process that is killed again and again.

use crate::support::{Scratch, Setting, job, numbered};
use kun_bulk::Job;
use kun_bulk::store::Faults;
use kun_testkit::kill_at_random;
use std::process::{Command, Stdio};
use std::time::Duration;

const INPUT: &str = "KUN_TEST_BULK_INPUT";
const OUTPUT: &str = "KUN_TEST_BULK_OUTPUT";

fn large(input: &str, output: &str) -> Job {
    let mut job = job(input, &["checked(text) as n", "hash(id, text) as h"], output);
    job.run.split.rows = 500;
    job.run.checkpoint = Duration::from_millis(20);
    job
}

/// What the killed process does: this very test, run by another.
#[test]
#[ignore = "run by other tests in a process of its own"]
fn child() {
    let (Ok(input), Ok(output)) = (std::env::var(INPUT), std::env::var(OUTPUT)) else { return };
    let slow = Setting::with(Faults::default(), Duration::from_micros(2));
    slow.run(&large(&input, &output)).unwrap();
}

fn start(input: &str, output: &str) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["kills::child", "--exact", "--ignored", "--nocapture"])
        .env(INPUT, input)
        .env(OUTPUT, output)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn kill(name: &str, rows: usize, kills: usize) {
    let scratch = Scratch::new(name);
    let input = scratch.write("in.jsonl", numbered(rows));
    Setting::new().run(&large(&input, &scratch.uri("whole.jsonl"))).unwrap();
    let expected = std::fs::read(scratch.path("whole.jsonl")).unwrap();
    let output = |job: usize| format!("out-{job}.jsonl");
    kill_at_random(
        kills,
        Duration::from_millis(120),
        |job| start(&input, &scratch.uri(&output(job))),
        |job| assert!(std::fs::read(scratch.path(&output(job))).unwrap() == expected, "job {job}"),
    );
}

#[test]
fn a_killed_job_loses_and_doubles_nothing() {
    kill("kills", 5_000, 10);
}

/// The full form: `cargo test --release -p kun-bulk -- --ignored two_hundred`.
#[test]
#[ignore = "takes minutes"]
fn two_hundred_kills_lose_and_double_nothing() {
    kill("kills-full", 100_000, 200);
}
