//! A crash at every operation on the disk, a disk that is full, and two that work on one job.

use crate::support::{Scratch, Setting, job, numbered};
use kun_bulk::store::Faults;
use kun_bulk::{BulkError, Call, Job, RunOptions, Stop};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

fn small(scratch: &Scratch, input: &str, output: &str) -> Job {
    let mut job = job(input, &["checked(text) as n", "hash(id, text) as h"], &scratch.uri(output));
    job.run.split.rows = 20;
    job.run.workers = 1;
    job.run.checkpoint = Duration::ZERO;
    job
}

/// From the `limit`-th operation on, nothing is done any more: the process is as good as dead.
fn crash_at(limit: usize) -> (Faults, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let faults = Faults::new(move |operation| {
        if counter.fetch_add(1, Ordering::Relaxed) >= limit {
            return Err(io::Error::other(format!("crashed at {operation}")));
        }
        Ok(())
    });
    (faults, count)
}

fn every_crash_point(ending: &str, step: usize, more: &str) {
    let scratch = Scratch::new(&format!("crash-{ending}-{}", more.len()));
    let input = scratch.write("in.jsonl", numbered(60));
    let small = |output: &str| {
        let mut job = small(&scratch, &input, output);
        job.map.extend((!more.is_empty()).then(|| Call::parse(more).unwrap()));
        job
    };
    let whole = small(&format!("whole.{ending}"));
    let (faults, count) = crash_at(usize::MAX);
    Setting::with(faults, Duration::ZERO).run(&whole).unwrap();
    let operations = count.load(Ordering::Relaxed);
    assert!(operations > 50, "{operations}");
    let expected = std::fs::read(scratch.path(&format!("whole.{ending}"))).unwrap();
    for limit in (0..operations).step_by(step) {
        let name = format!("crash-{limit}.{ending}");
        let job = small(&name);
        let (faults, _) = crash_at(limit);
        let crashed = Setting::with(faults, Duration::ZERO).run(&job);
        let output = scratch.path(&name);
        if output.exists() {
            // An output that is there is whole.
            assert!(std::fs::read(&output).unwrap() == expected, "after a crash at {limit}");
        }
        // What could not be tidied up may be left; everything else must have failed.
        assert!(crashed.is_err() || output.exists(), "at {limit}");
        let report = Setting::new().run(&job).unwrap();
        assert!(report.complete && report.status.rows == 60, "{limit}: {report:?}");
        assert!(std::fs::read(&output).unwrap() == expected, "resumed after a crash at {limit}");
    }
}

#[test]
fn a_crash_at_any_operation_loses_and_doubles_nothing() {
    every_crash_point("jsonl", 1, "");
}

#[test]
fn a_crash_at_any_operation_loses_and_doubles_nothing_in_parquet() {
    every_crash_point("parquet", 7, "");
}

#[test]
fn a_crash_in_a_first_pass_over_all_rows_changes_nothing() {
    every_crash_point("jsonl", 3, "duplicates(text) as twice");
}

#[test]
fn a_full_disk_ends_the_job_and_room_lets_it_go_on() {
    let scratch = Scratch::new("full");
    let input = scratch.write("in.jsonl", numbered(200));
    let job = small(&scratch, &input, "out.csv");
    let room = Arc::new(AtomicUsize::new(40));
    let left = room.clone();
    let faults = Faults::new(move |operation| match operation {
        "write" if left.load(Ordering::Relaxed) == 0 => Err(ErrorKind::StorageFull.into()),
        "write" => {
            left.fetch_sub(1, Ordering::Relaxed);
            Ok(())
        }
        _ => Ok(()),
    });
    let full = Setting::with(faults, Duration::ZERO).run(&job).unwrap_err();
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&full);
    let mut told = false;
    while let Some(error) = cause {
        told |= error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::StorageFull);
        cause = error.source();
    }
    assert!(told, "{full:?}");
    assert!(!scratch.path("out.csv").exists());
    let report = Setting::new().run(&job).unwrap();
    assert!(report.complete && report.status.rows == 200);
    let text = std::fs::read_to_string(scratch.path("out.csv")).unwrap();
    assert_eq!(text.lines().count(), 201);
}

#[test]
fn a_second_coordinator_is_refused_and_shards_share_a_job() {
    let scratch = Scratch::new("two");
    let input = scratch.write("in.jsonl", numbered(400));
    let job = small(&scratch, &input, "out.jsonl");
    let slow = Setting::with(Faults::default(), Duration::from_micros(500));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| slow.run(&job));
        let state = scratch.path("out.jsonl.kun");
        while !state.join("status.json").exists() && !first.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let second = Setting::new().run(&job);
        match (&second, first.join().unwrap().unwrap().complete) {
            // The first was done before the second looked.
            (Ok(report), true) => assert!(report.was_complete),
            (Err(BulkError::Busy { .. }), true) => {}
            other => panic!("{other:?}"),
        }
    });
    let expected = std::fs::read(scratch.path("out.jsonl")).unwrap();

    let shared = small(&scratch, &input, "shards.jsonl");
    std::thread::scope(|scope| {
        for shard in 0..3 {
            let shared = &shared;
            scope.spawn(move || {
                let options = RunOptions { shard: Some((shard, 3)), stop: Stop::default() };
                Setting::new().run_with(shared, &options).unwrap();
            });
        }
    });
    // Shards that end at the same moment leave the end to one of them; whoever comes later sees it done.
    assert!(Setting::new().run(&shared).unwrap().complete);
    assert!(std::fs::read(scratch.path("shards.jsonl")).unwrap() == expected);
}

#[test]
fn a_stopped_job_keeps_its_rows_and_goes_on() {
    let scratch = Scratch::new("stopped");
    let input = scratch.write("in.jsonl", numbered(2000));
    let mut job = small(&scratch, &input, "out.jsonl");
    job.run.split.rows = 2000;
    job.run.checkpoint = Duration::from_secs(3600);
    let options = RunOptions::default();
    let slow = Setting::with(Faults::default(), Duration::from_micros(100));
    let stop = options.stop.clone();
    let checked = kun_bulk::check(&job, &slow.registry, &slow.context, &slow.stores).unwrap();
    // Stopped as soon as rows are done, in the middle of the only split.
    let ended = checked.run(&options, &|status| {
        if status.rows > 0 {
            stop.raise();
        }
    });
    assert!(matches!(ended, Err(BulkError::Stopped)) || ended.is_ok(), "{ended:?}");
    if ended.is_err() {
        // The split's rows so far, or the record of a split that was just done.
        let kept = ["log", "done"].map(|name| scratch.path("out.jsonl.kun").join(name));
        assert!(kept.iter().any(|folder| folder.read_dir().is_ok_and(|mut files| files.next().is_some())));
        let status = std::fs::read(scratch.path("out.jsonl.kun/status.json")).unwrap();
        let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
        assert!(status["state"] == "stopped" && status["rows"].as_u64() > Some(0), "{status}");
    }
    let report = Setting::new().run(&job).unwrap();
    assert!(report.complete && report.status.rows == 2000);
    let text = std::fs::read_to_string(scratch.path("out.jsonl")).unwrap();
    let ids: Vec<i64> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_i64().unwrap())
        .collect();
    assert_eq!(ids, (0..2000).collect::<Vec<_>>());
}
