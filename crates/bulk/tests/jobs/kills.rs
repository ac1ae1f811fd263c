//! A process that is killed again and again.

use crate::support::{Scratch, Setting, job, numbered};
use kun_bulk::Job;
use kun_bulk::store::Faults;
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

/// Kills at times that a simple generator picks, until there were `kills` of them.
fn kill(name: &str, rows: usize, kills: usize) {
    let scratch = Scratch::new(name);
    let input = scratch.write("in.jsonl", numbered(rows));
    Setting::new().run(&large(&input, &scratch.uri("whole.jsonl"))).unwrap();
    let expected = std::fs::read(scratch.path("whole.jsonl")).unwrap();
    let (mut killed, mut jobs, mut random) = (0, 0, 7_u64);
    while killed < kills {
        let output = format!("out-{jobs}.jsonl");
        loop {
            let mut child = start(&input, &scratch.uri(&output));
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            if killed < kills {
                std::thread::sleep(Duration::from_millis((random >> 33) % 120));
            } else {
                child.wait().unwrap();
            }
            match child.try_wait().unwrap() {
                Some(status) => {
                    assert!(status.success(), "{status}");
                    break;
                }
                None => {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    killed += 1;
                }
            }
        }
        assert!(std::fs::read(scratch.path(&output)).unwrap() == expected, "job {jobs} after {killed} kills");
        jobs += 1;
    }
    println!("{killed} kills over {jobs} jobs of {rows} rows: every row exactly once");
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
