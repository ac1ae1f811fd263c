//! `kun cluster` and `kun map --on`, as processes on loopback and in network namespaces.
// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used)]

mod machines;
mod namespaces;
#[allow(dead_code)]
#[path = "../cli/support.rs"]
mod support;

use machines::{Cluster, JOB, Machine, parts, rows, until};
use support::{Ran, Scratch};

/// The whole output of one machine, for comparison; says how many parts it has.
fn alone(scratch: &Scratch) -> usize {
    scratch.run(&["map", "job.toml", "-o", "alone/"]).expect(0);
    let count = parts(scratch, "alone").len();
    assert!(count > 100, "{count} parts");
    count
}

fn same(scratch: &Scratch, output: &str) {
    let (ours, theirs) = (parts(scratch, output), parts(scratch, "alone"));
    let names = |parts: &[(String, Vec<u8>)]| parts.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs));
    assert!(ours == theirs, "parts of {output} differ");
    assert!(scratch.path().join(output).join("_SUCCESS").exists());
}

#[test]
fn a_cluster_gives_the_output_of_one_machine() {
    let scratch = Scratch::new();
    scratch.write("in.jsonl", &rows());
    scratch.write("job.toml", JOB);
    let count = alone(&scratch);
    let cluster = Cluster::start(&scratch, 2);
    let on = cluster.on();
    let report = scratch.run(&["map", "job.toml", "--on", &on, "--json"]).expect(0).json();
    assert_eq!((&report["complete"], &report["splits"]), (&true.into(), &count.into()), "{report}");
    same(&scratch, "out");
    // Both had something to do, and the same command once more has nothing.
    for executor in &cluster.executors {
        assert!(executor.says().contains("begun"), "{}", executor.says());
    }
    let report = scratch.run(&["map", "job.toml", "--on", &on, "--json"]).expect(0).json();
    assert_eq!(report["was_complete"], true);
    // One file, of one machine's bytes; a function that looks at all rows first.
    for with in ["hash(id, text) as h", "duplicates(text, near = false) as twice"] {
        for (output, on) in [("one.jsonl", None), ("far.jsonl", Some(&on))] {
            let mut args = vec!["map", "in.jsonl", "--with", with, "-o", output, "--split-bytes", "40000"];
            if let Some(on) = on {
                args.extend(["--on", on]);
            }
            scratch.run(&args).expect(0);
        }
        let read = |name: &str| std::fs::read(scratch.path().join(name)).unwrap();
        assert!(read("one.jsonl") == read("far.jsonl"), "{with}");
        for name in ["one.jsonl", "far.jsonl"] {
            scratch.run(&["jobs", "clean", name]).expect(0);
            std::fs::remove_file(scratch.path().join(name)).unwrap();
        }
    }
}

#[test]
fn folders_of_files_keep_the_names_that_the_client_gave_them() {
    let scratch = Scratch::new();
    for n in 0..40 {
        scratch.write(&format!("texts/{n}.md"), &format!("text {n}"));
    }
    let cluster = Cluster::start(&scratch, 1);
    let on = cluster.on();
    for (output, on) in [("one.jsonl", None), ("far.jsonl", Some(&on))] {
        let mut args = vec!["map", "texts/", "--with", "hash(text) as h", "-o", output, "--split-rows", "7"];
        if let Some(on) = on {
            args.extend(["--on", on]);
        }
        scratch.run(&args).expect(0);
    }
    let read = |name: &str| std::fs::read_to_string(scratch.path().join(name)).unwrap();
    assert_eq!(read("one.jsonl"), read("far.jsonl"));
    assert!(read("far.jsonl").contains("\"texts/3.md\""), "{}", read("far.jsonl"));
}

#[test]
fn an_executor_that_is_killed_costs_its_splits_in_flight() {
    let scratch = Scratch::new();
    scratch.write("in.jsonl", &rows());
    scratch.write("job.toml", JOB);
    alone(&scratch);
    let mut cluster = Cluster::start(&scratch, 3);
    let client = scratch.kun(&["map", "job.toml", "--on", &cluster.on(), "--json"]).spawn().unwrap();
    until("a few parts", || parts(&scratch, "out").len() >= 3);
    cluster.executors[0].kill();
    let report = Ran::from(client.wait_with_output().unwrap()).expect(0).json();
    assert_eq!(report["complete"], true, "{report}");
    same(&scratch, "out");
}

#[test]
fn a_client_that_is_stopped_is_gone_on_with_here_or_there() {
    let scratch = Scratch::new();
    scratch.write("in.jsonl", &rows());
    scratch.write("job.toml", JOB);
    alone(&scratch);
    let cluster = Cluster::start(&scratch, 2);
    let client = scratch.kun(&["map", "job.toml", "--on", &cluster.on()]).spawn().unwrap();
    until("a part", || !parts(&scratch, "out").is_empty());
    let pid = libc::pid_t::try_from(client.id()).unwrap();
    // SAFETY: `kill` reads no memory of ours, and the child has not been waited for, so the id is its own.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGINT) }, 0);
    let ran = Ran::from(client.wait_with_output().unwrap());
    // It may have been done before the signal came.
    if ran.code != Some(0) {
        let ran = ran.expect(130);
        assert!(ran.stderr.contains("To go on") && ran.stderr.contains("--on"), "{ran:?}");
    }
    scratch.run(&["map", "job.toml", "--on", &cluster.on()]).expect(0);
    same(&scratch, "out");
    scratch.run(&["map", "job.toml", "--json"]).expect(0);
}

#[test]
fn a_scheduler_that_is_gone_is_told_and_the_same_command_goes_on() {
    let scratch = Scratch::new();
    scratch.write("in.jsonl", &rows());
    scratch.write("job.toml", JOB);
    let ran = scratch.run(&["map", "job.toml", "--on", "df://127.0.0.1:1"]).expect(5);
    assert!(ran.stderr.contains("no scheduler at 127.0.0.1:1") && ran.stderr.contains("goes on"), "{ran:?}");
    let ran = scratch.run(&["map", "job.toml", "--on", "nowhere"]).expect(2);
    assert!(ran.stderr.contains("df://HOST:PORT"), "{ran:?}");
    alone(&scratch);
    let cluster = Cluster::start(&scratch, 1);
    scratch.run(&["map", "job.toml", "--on", &cluster.on()]).expect(0);
    same(&scratch, "out");
}

#[test]
fn jobs_read_and_write_where_executors_allow_it() {
    let scratch = Scratch::new();
    scratch.write("in.jsonl", &rows());
    scratch.write("job.toml", JOB);
    std::fs::create_dir(scratch.path().join("only")).unwrap();
    let model = support::shared("models/detect/yolox_nano");
    let scheduler = Machine::scheduler(&scratch, &[]);
    let port = scheduler.port();
    let executor = Machine::executor(&scratch, port, &["--allow", "only", "--allow", &model], &[]);
    until("an executor", || executor.says().contains("Working"));
    let ran = scratch.run(&["map", "job.toml", "--on", &format!("df://127.0.0.1:{port}")]).expect(1);
    assert!(ran.stderr.contains("not allowed here") && ran.stderr.contains("/only"), "{ran:?}");
    assert!(parts(&scratch, "out").is_empty());
    // Rows that name files elsewhere are no errors of rows: another executor may read them.
    scratch.write("only/in.jsonl", "{\"file\": \"/etc/hostname\"}\n");
    let call = format!("detect(file, model = '{model}') as things");
    let args = ["map", "only/in.jsonl", "--with", &call, "-o", "only/out/"];
    let ran = scratch.run(&[&args[..], &["--on", &format!("df://127.0.0.1:{port}")]].concat()).expect(1);
    assert!(ran.stderr.contains("not allowed here"), "{ran:?}");
    assert!(parts(&scratch, "only/out").is_empty());
}

#[test]
fn jobs_are_done_for_those_who_have_the_token() {
    let scratch = Scratch::new();
    scratch.write("in.jsonl", &rows());
    scratch.write("job.toml", JOB);
    // Beyond loopback, a token is asked for.
    for verb in ["scheduler", "executor"] {
        let ran = scratch.run(&["cluster", verb, "--listen", "0.0.0.0:0"]).expect(2);
        assert!(ran.stderr.contains("KUN_CLUSTER_TOKEN"), "{ran:?}");
    }
    let ours = ("KUN_CLUSTER_TOKEN", "the secret of these machines");
    let scheduler = Machine::scheduler(&scratch, &[ours]);
    let port = scheduler.port();
    let on = format!("df://127.0.0.1:{port}");
    let executor = Machine::executor(&scratch, port, &[], &[ours]);
    until("an executor", || executor.says().contains("Working"));
    let args = ["map", "job.toml", "--on", &on];
    let ran = scratch.run(&args).expect(1);
    assert!(ran.stderr.contains("KUN_CLUSTER_TOKEN"), "{ran:?}");
    let other = scratch.kun(&args).env("KUN_CLUSTER_TOKEN", "the secret of other machines").output().unwrap();
    let ran = Ran::from(other).expect(1);
    assert!(ran.stderr.contains("another KUN_CLUSTER_TOKEN"), "{ran:?}");
    assert!(parts(&scratch, "out").is_empty());
    Ran::from(scratch.kun(&args).env(ours.0, ours.1).output().unwrap()).expect(0);
}
