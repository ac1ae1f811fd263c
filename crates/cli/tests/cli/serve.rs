//! `kun serve` as a process: what it logs, how it ends; and `kun eval choice`.

use crate::support::{Ran, Scratch, stories};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStderr};

const CANARY: &str = "kanarienvogel";

fn post(address: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST {path}?q={CANARY} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A server of the null model that logs as `verbosity` says: its process, what it logs, the log until it listens, and where.
fn serving(scratch: &Scratch, verbosity: &str) -> (Child, BufReader<ChildStderr>, String, String) {
    let args = [verbosity, "--log-format", "json", "serve", "--null-model", "--port", "0"];
    let mut child = scratch.kun(&args).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let (mut log, mut address) = (String::new(), None);
    while address.is_none() {
        let mut line = String::new();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "{log}");
        address = line.trim().strip_prefix("Serving on http://").map(str::to_owned);
        log.push_str(&line);
    }
    (child, stderr, log, address.unwrap())
}

fn terminate(child: &Child) {
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    // SAFETY: `kill` reads no memory of ours, and the child has not been waited for, so the id is its own.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
}

#[test]
fn sigterm_ends_well_as_soon_as_the_address_is_told() {
    let scratch = Scratch::new();
    for _ in 0..10 {
        let (child, ..) = serving(&scratch, "-v");
        terminate(&child);
        Ran::from(child.wait_with_output().unwrap()).expect(0);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn default_memory_is_in_no_core_dump() {
    let scratch = Scratch::new();
    let (mut child, _stderr, ..) = serving(&scratch, "-v");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    let cores = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(cores.split_whitespace().collect::<Vec<_>>(), ["0", "0", "bytes"]);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Every thread that reads what others wrote is kept to the server's own files; a kernel that cannot do it is told.
#[cfg(target_os = "linux")]
#[test]
fn a_sandboxed_server_answers_and_its_threads_are_kept() {
    let scratch = Scratch::new();
    let mut child = scratch.kun(&["serve", "--null-model", "--port", "0", "--sandbox"]).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    let Some(address) = line.trim().strip_prefix("Serving on http://") else {
        assert!(line.contains("needs a Linux kernel with Landlock"), "{line}");
        child.wait().unwrap();
        return eprintln!("{line}");
    };
    let answer = post(
        address,
        "/v1/chat/completions",
        r#"{"messages":[{"role":"user","content":"Hello"}],"max_tokens":4}"#,
    );
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mut free = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap() {
        let thread = thread.unwrap().path();
        let read = |name| std::fs::read_to_string(thread.join(name));
        // One that has ended meanwhile reads as nothing.
        if let (Ok(status), Ok(name)) = (read("status"), read("comm"))
            && !status.contains("NoNewPrivs:\t1")
        {
            free.push(name.trim().to_owned());
        }
    }
    // It only hears signals.
    assert_eq!(free, ["ctrl-c"]);
    terminate(&child);
    Ran::from(child.wait_with_output().unwrap()).expect(0);
}

#[test]
fn clients_that_leave_within_a_stream_are_logged_as_499() {
    let scratch = Scratch::new();
    let (mut child, mut stderr, mut log, address) = serving(&scratch, "-v");
    let body =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"max_tokens\": 8000, \"stream\": true}";
    let mut stream = TcpStream::connect(&address).unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.read_exact(&mut [0; 16]).unwrap();
    drop(stream);
    while !log.contains("the client left") {
        assert!(stderr.read_line(&mut log).unwrap() > 0, "{log}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
    let told: Vec<(Value, Value)> = lines
        .map(|line: Value| (line["status"].clone(), line["id"].clone()))
        .filter(|(s, _)| s.is_u64())
        .collect();
    assert!(
        matches!(&told[..], [(begun, one), (left, two)] if begun == 200 && left == 499 && one == two),
        "{log}"
    );
}

#[test]
fn logs_are_objects_without_anybodys_words_and_sigterm_ends_well() {
    let scratch = Scratch::new();
    let (child, mut stderr, mut log, address) = serving(&scratch, "-vv");
    let message = format!("{{\"role\": \"user\", \"content\": \"{CANARY}\"}}");
    let good = format!("{{\"messages\": [{message}], \"max_tokens\": 3, \"user\": \"{CANARY}\"}}");
    let answer = post(&address, "/v1/chat/completions", &good);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for bad in [
        format!("{{\"messages\": \"{CANARY}\"}}"),
        CANARY.to_owned(),
        format!("{{\"model\": \"{CANARY}\", \"messages\": [{message}]}}"),
    ] {
        let answer = post(&address, "/v1/chat/completions", &bad);
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    terminate(&child);
    stderr.read_to_string(&mut log).unwrap();
    Ran::from(child.wait_with_output().unwrap()).expect(0);
    assert!(!log.contains(CANARY), "{log}");
    let requests: Vec<Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &Value| line["message"] == "request")
        .collect();
    let statuses: Vec<u64> = requests.iter().map(|line| line["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [200, 400, 400, 404], "{log}");
    assert!(requests.iter().all(|line| line["id"].is_string() && line["route"] == "/v1/chat/completions"));
}

#[test]
fn choices_are_scored_and_bad_items_are_named() {
    let scratch = Scratch::new();
    let good = r#"{"context": "Once upon a", "choices": ["time", "spoon"], "answer": 0}"#;
    let file = scratch.write("items.jsonl", &format!("{good}\n\n{good}\n"));
    let file = file.to_str().unwrap().to_owned();
    let json = scratch.run(&["eval", "choice", &stories(), "--file", &file, "--json"]).expect(0).json();
    assert_eq!((&json["accuracy"], &json["items"]), (&1.0.into(), &2.into()), "{json}");
    let sums = json["loglikelihoods"][0].as_array().unwrap();
    assert!(sums[0].as_f64() > sums[1].as_f64(), "{json}");
    for bad in [
        r#"{"context": "a", "choices": ["b"], "answer": 0}"#,
        r#"{"context": "a", "choices": ["b", "c"], "answer": 2}"#,
        "{}",
    ] {
        scratch.write("items.jsonl", bad);
        let ran = scratch.run(&["eval", "choice", &stories(), "--file", &file]);
        assert!(ran.stderr.contains("item 1") || ran.stderr.contains("line 1"), "{ran:?}");
    }
}
