//! A job from a bucket to a bucket, against moto's server of S3 (`pip install 'moto[server]'`), which this test starts
//! on loopback. `KUN_MOTO_SERVER` names the program where it is not on the path; without it the test says so and passes.
// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used)]

mod kills;
mod moto;

use kun_bulk::store::{Faults, StoreOptions, Stores};
use kun_bulk::{BulkError, Call, Context, Job, NoModels, Registry, Report, RunOptions, check};
use kun_engine::Engine;
use moto::Server;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn run(port: u16, job: &Job, faults: Faults) -> Result<Report, BulkError> {
    let stores = Stores::new(StoreOptions { faults, ..moto::options(port) });
    let context = Context::new(Engine::new(), Arc::new(NoModels), stores.clone(), Some(1));
    check(job, &Registry::builtin(), &context, &stores)?.run(&RunOptions::default(), &|_| {})
}

fn job(input: &str, output: &str) -> Job {
    let mut job = Job::default();
    job.input.uri = vec![input.to_owned()];
    job.output.uri = output.to_owned();
    job.map = vec![Call::parse("hash(id, text) as h").unwrap()];
    job.run.split.rows = 50;
    job.run.workers = 1;
    job
}

#[test]
fn a_bucket_is_read_and_written_and_a_crash_at_any_put_loses_nothing() {
    let Some(server) = Server::start() else { return };
    for file in 0..3 {
        let lines: String =
            (0..100).map(|i| format!("{{\"id\": {}, \"text\": \"row {i}\"}}\n", file * 100 + i)).collect();
        server.put(&format!("/bucket/in/{file}.jsonl"), lines.as_bytes());
    }
    // Parts in lines of JSON can be compared byte by byte.
    let to = |output: &str| {
        let mut job = job("s3://bucket/in/*.jsonl", output);
        job.output.format = Some(kun_bulk::job::Format::Jsonl);
        job
    };
    let puts = Arc::new(AtomicUsize::new(0));
    let counted = puts.clone();
    let count = Faults::new(move |operation| {
        counted.fetch_add(usize::from(operation == "put"), Ordering::Relaxed);
        Ok(())
    });
    let report = run(server.port, &to("s3://bucket/whole/"), count).unwrap();
    assert!(report.complete && report.status.rows == 300, "{report:?}");
    let whole = server.manifest("s3://bucket/whole/");
    let expected = server.parts("s3://bucket/whole/");
    assert_eq!(expected.concat().iter().filter(|byte| **byte == b'\n').count(), 300);
    assert!(run(server.port, &to("s3://bucket/whole/"), Faults::default()).unwrap().was_complete);

    let puts = puts.load(Ordering::Relaxed);
    assert!(puts > 10);
    for limit in 0..puts {
        let folder = format!("s3://bucket/crash-{limit}/");
        let done = AtomicUsize::new(0);
        // Before a put nothing is there; after one, it is there and nobody heard of it.
        let crash = Faults::new(move |operation| {
            let dead = operation == "put" && done.fetch_add(1, Ordering::Relaxed) >= limit;
            if dead { Err(io::Error::other("crashed")) } else { Ok(()) }
        });
        let _ = run(server.port, &to(&folder), crash);
        assert!(run(server.port, &to(&folder), Faults::default()).unwrap().complete);
        let manifest = server.manifest(&folder);
        assert_eq!((manifest.rows, manifest.parts.len()), (300, whole.parts.len()), "{limit}");
        assert!(server.parts(&folder) == expected, "{limit}");
    }
}

#[test]
fn two_coordinators_of_a_bucket_give_the_same_rows_once() {
    let Some(server) = Server::start() else { return };
    let lines: String = (0..500).map(|i| format!("{{\"id\": {i}, \"text\": \"row {i}\"}}\n")).collect();
    server.put("/bucket/in.jsonl", lines.as_bytes());
    let job = job("s3://bucket/in.jsonl", "s3://bucket/two/");
    std::thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| run(server.port, &job, Faults::default()).unwrap()));
        assert!(both.map(|one| one.join().unwrap().complete).contains(&true));
    });
    let manifest = server.manifest("s3://bucket/two/");
    // Splits are cut at bytes: about fifty rows each.
    assert!(manifest.rows == 500 && (8..=14).contains(&manifest.parts.len()), "{manifest:?}");
    // Another input under the same name is noticed by its tag.
    server.put("/bucket/in.jsonl", lines.replace("row 7", "row x").as_bytes());
    assert!(matches!(run(server.port, &job, Faults::default()), Err(BulkError::Changed { .. })));
    // One file from a bucket to this disk, and one that is not there.
    let folder = std::env::temp_dir().join(format!("kun-bulk-s3-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let local = folder.join("out.csv");
    let report =
        run(server.port, &self::job("s3://bucket/in.jsonl", &local.to_string_lossy()), Faults::default())
            .unwrap();
    assert_eq!(report.status.rows, 500);
    assert_eq!(std::fs::read_to_string(&local).unwrap().lines().count(), 501);
    std::fs::remove_dir_all(folder).unwrap();
    let gone = run(server.port, &self::job("s3://bucket/gone.jsonl", "s3://bucket/x/"), Faults::default());
    assert!(matches!(gone, Err(BulkError::Input { .. })), "{gone:?}");
}
