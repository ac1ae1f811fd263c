//! A process that is killed again and again while it works on a bucket.

use crate::moto::Server;
use crate::{job, run};
use kun_bulk::Job;
use kun_bulk::job::Format;
use kun_bulk::store::Faults;
use kun_testkit::kill_at_random;
use std::process::{Command, Stdio};
use std::time::Duration;

const PORT: &str = "KUN_TEST_S3_PORT";
const JOB: &str = "KUN_TEST_S3_JOB";
/// Splits of a job.
const SPLITS: usize = 20;

fn large(name: &str, rows: usize) -> Job {
    let mut job = job("s3://bucket/in.jsonl", &format!("s3://bucket/{name}/"));
    job.output.format = Some(Format::Jsonl);
    job.run.split.rows = rows / SPLITS;
    job.run.workers = 2;
    job.run.checkpoint = Duration::from_millis(20);
    job
}

/// What the killed process does: this very test, run by another.
#[test]
#[ignore = "run by other tests in a process of its own"]
fn child() {
    let (Ok(port), Ok(job)) = (std::env::var(PORT), std::env::var(JOB)) else { return };
    let (name, rows) = job.split_once(' ').unwrap();
    run(port.parse().unwrap(), &large(name, rows.parse().unwrap()), Faults::default()).unwrap();
}

fn kill(rows: usize, kills: usize, longest: Duration) {
    let Some(server) = Server::start() else { return };
    let lines: String = (0..rows).map(|i| format!("{{\"id\": {i}, \"text\": \"row {i}\"}}\n")).collect();
    server.put("/bucket/in.jsonl", lines.as_bytes());
    run(server.port, &large("whole", rows), Faults::default()).unwrap();
    let whole = server.parts("s3://bucket/whole/");
    assert_eq!(whole.concat().iter().filter(|byte| **byte == b'\n').count(), rows);
    let start = |job: usize| {
        Command::new(std::env::current_exe().unwrap())
            .args(["kills::child", "--exact", "--ignored", "--nocapture"])
            .env(PORT, server.port.to_string())
            .env(JOB, format!("out-{job} {rows}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let check = |job: usize| assert!(server.parts(&format!("s3://bucket/out-{job}/")) == whole, "job {job}");
    kill_at_random(kills, longest, start, check);
}

#[test]
fn a_killed_job_loses_and_doubles_nothing_in_a_bucket() {
    kill(2_000, 20, Duration::from_millis(600));
}

/// The full form: `cargo test --release -p kun-bulk --features cloud --test s3 -- --ignored two_hundred`.
#[test]
#[ignore = "takes minutes"]
fn two_hundred_kills_lose_and_double_nothing_in_a_bucket() {
    kill(100_000, 200, Duration::from_secs(2));
}
