//! Ctrl-C and closed pipes.

use crate::support::{Ran, Scratch, endless, stories};
use std::io::Read;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

fn interrupt(child: &Child) {
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    // SAFETY: `kill` reads no memory of ours, and the child has not been waited for, so the id is its own.
    let sent = unsafe { libc::kill(pid, libc::SIGINT) };
    assert_eq!(sent, 0);
}

#[test]
fn the_first_ctrl_c_keeps_the_partial_answer() {
    let scratch = Scratch::new();
    let model = endless(&scratch);
    let args = ["run", &model, "Once", "--raw", "--ignore-end", "--context", "60000", "-t", "1"];
    let mut child = scratch.kun(&args).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 16];
    stdout.read_exact(&mut first).unwrap();
    interrupt(&child);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let ran = Ran::from(child.wait_with_output().unwrap()).expect(130);
    assert!(rest.ends_with('\n') && ran.stderr.contains("Stopped"), "{rest:?} {ran:?}");
}

#[test]
fn an_interrupted_json_answer_is_still_a_document() {
    let scratch = Scratch::new();
    let model = endless(&scratch);
    let args = ["run", &model, "Once", "--raw", "--ignore-end", "--context", "60000", "-t", "1", "--json"];
    let child = scratch.kun(&args).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    interrupt(&child);
    let ran = Ran::from(child.wait_with_output().unwrap()).expect(130);
    let json = ran.json();
    assert_eq!(json["finish_reason"], "cancelled");
    assert!(!json["text"].as_str().unwrap().is_empty(), "{json}");
}

#[test]
fn ctrl_c_while_nothing_can_be_kept_ends_at_once() {
    let scratch = Scratch::new();
    let mut child = scratch.kun(&["run", &stories(), "sum up"]).stdin(Stdio::piped()).spawn().unwrap();
    let open = child.stdin.take();
    std::thread::sleep(Duration::from_millis(500));
    let started = Instant::now();
    interrupt(&child);
    Ran::from(child.wait_with_output().unwrap()).expect(130);
    assert!(started.elapsed() < Duration::from_secs(5));
    drop(open);
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let scratch = Scratch::new();
    let model = endless(&scratch);
    for args in [
        &["run", &model, "Once", "--raw", "--ignore-end", "--context", "60000"][..],
        &["completions", "zsh"],
        &["help", "run"],
        &["--help"],
    ] {
        let mut child = scratch.kun(args).spawn().unwrap();
        drop(child.stdout.take());
        let ran = Ran::from(child.wait_with_output().unwrap()).expect(0);
        assert_eq!(ran.stderr, "", "{args:?}");
    }
}
