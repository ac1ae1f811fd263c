//! Short forms of the load figures of docs/performance.md, over a model that computes nothing. No test knows a time.

use crate::support::{Reply, Running, options, read_reply, start};
use kun_server::{Key, Keys, Limits, ServeOptions, new_key};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

fn null(slots: usize, limits: Limits) -> Running {
    let mut options =
        ServeOptions { preload: vec![], default_model: None, null_model: true, limits, ..options() };
    options.load.max_sequences = Some(slots);
    start(options)
}

fn chat(tokens: usize, stream: bool) -> Value {
    json!({ "model": "null", "messages": [{ "role": "user", "content": "Go on" }], "max_tokens": tokens, "ignore_eos": true, "stream": stream })
}

fn send(server: &Running, body: &Value) -> TcpStream {
    send_as(server, "none", body)
}

fn send_as(server: &Running, key: &str, body: &Value) -> TcpStream {
    send_with(server, &format!("x-api-key: {key}"), body)
}

fn send_with(server: &Running, header: &str, body: &Value) -> TcpStream {
    let (mut stream, body) = (server.connect(), body.to_string());
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {}\r\n{header}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        server.address,
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// A stream whose first line has come: it has its turn.
fn running(server: &Running) -> TcpStream {
    let stream = send(server, &chat(8000, true));
    let mut line = String::new();
    BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("HTTP/1.1 200"), "{line}");
    stream
}

fn in_flight(server: &Running) -> u64 {
    server.get("/v1/status").json()["in_flight"].as_u64().unwrap()
}

fn assert_refused(reply: &Reply) {
    assert_eq!(reply.status, 429, "{}", reply.text());
    let after = reply.header("retry-after").unwrap().parse::<u64>().unwrap();
    assert!((1..=60).contains(&after));
    assert!(reply.header("retry-after-ms").unwrap().parse::<u64>().unwrap() >= 1000);
    assert_eq!(reply.json()["error"]["type"], "rate_limit_error");
}

#[test]
fn who_would_wait_too_long_is_refused_while_others_still_run() {
    // An hour of patience: an answer that waited for it would never come.
    let patient = Limits { queue_time: Duration::from_secs(3600), queue_per_slot: 1, ..options().limits };
    let server = null(2, patient);
    let held = [running(&server), running(&server)];
    let waiting: Vec<_> = (0..2).map(|_| send(&server, &chat(8, true))).collect();
    while in_flight(&server) < 4 {
        std::thread::yield_now();
    }
    // Every place is taken.
    for _ in 0..20 {
        let reply = server.post("/v1/chat/completions", &chat(1, false));
        assert_refused(&reply);
        assert!(reply.text().contains("wait already"), "{}", reply.text());
    }
    // Counting tokens takes a place too: it is work.
    for (path, body) in [
        ("/tokenize", json!({ "content": "x" })),
        ("/detokenize", json!({ "tokens": [1] })),
        ("/v1/responses/input_tokens", json!({ "input": "x" })),
        ("/v1/messages/count_tokens", json!({ "messages": [{ "role": "user", "content": "x" }] })),
    ] {
        assert_eq!(server.post(path, &body).status, 429, "{path}");
    }
    assert_eq!(in_flight(&server), 4, "nobody was let go or let in");
    drop(held);
    for stream in waiting {
        assert_eq!(read_reply(stream).unwrap().status, 200);
    }
    server.wait_until_idle();

    // No patience at all: whoever finds the slots taken goes, though there are places.
    let hasty = Limits { queue_time: Duration::ZERO, ..options().limits };
    let server = null(2, hasty);
    let held = [running(&server), running(&server)];
    for path in ["/v1/chat/completions", "/v1/messages"] {
        let reply = server.post(path, &chat(1, false));
        assert_eq!(reply.status, 429, "{}", reply.text());
        assert!(reply.text().contains("wait too long for its turn"), "{}", reply.text());
    }
    assert_eq!(in_flight(&server), 2);
    drop(held);
    server.wait_until_idle();
    assert_eq!(server.post("/v1/chat/completions", &chat(1, false)).status, 200);
}

#[test]
fn more_answers_than_there_are_places_are_an_error_of_the_client() {
    let server = null(1, Limits { queue_per_slot: 2, ..options().limits });
    let mut body = chat(1, false);
    body["n"] = json!(4);
    assert_eq!(server.post("/v1/chat/completions", &body).status, 400);
    body["n"] = json!(3);
    assert_eq!(server.post("/v1/chat/completions", &body).status, 200);
}

#[test]
fn a_crowd_beyond_all_places_is_served_in_the_end() {
    let server = null(2, Limits { queue_per_slot: 1, ..options().limits });
    let refusals: Vec<usize> = std::thread::scope(|scope| {
        let client = || {
            let mut refused = 0;
            loop {
                let reply = server.post("/v1/chat/completions", &chat(8, false));
                if reply.status == 200 {
                    assert_eq!(reply.json()["usage"]["completion_tokens"], 8);
                    return refused;
                }
                assert_refused(&reply);
                refused += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        let threads: Vec<_> = (0..24).map(|_| scope.spawn(client)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(refusals.iter().sum::<usize>() > 0, "four places never held twenty-four");
    server.wait_until_idle();
    let told = server.get("/metrics").text();
    let counted = format!("kun_refused_busy_total {}\n", refusals.iter().sum::<usize>());
    assert!(told.contains(&counted), "{counted}");
}

#[test]
fn three_hundred_leave_at_random_and_every_page_comes_back() {
    let server = null(4, Limits { queue_per_slot: 16, ..options().limits });
    let pages = |server: &Running| -> [u64; 3] {
        let status = server.get("/v1/status").json();
        ["in_use", "cached", "free"].map(|state| status["models"][0]["pages"][state].as_u64().unwrap())
    };
    let before = pages(&server);
    std::thread::scope(|scope| {
        for worker in 0..10u64 {
            let server = &server;
            scope.spawn(move || {
                for n in (0..30).map(|n| n * 10 + worker) {
                    let mut stream = send(server, &chat(400, n % 2 == 0));
                    // Somewhere between the queue and the answer; which does not matter.
                    std::thread::sleep(Duration::from_micros(n * 7919 % 40_000));
                    if n % 3 == 0 {
                        let _ = stream.set_read_timeout(Some(Duration::from_millis(1)));
                        let _ = stream.read(&mut [0; 512]);
                    }
                    if n % 5 == 0 {
                        let _ = stream.shutdown(std::net::Shutdown::Write);
                    }
                }
            });
        }
    });
    server.wait_until_idle();
    let after = pages(&server);
    assert_eq!(after[0], 0);
    assert_eq!(after.iter().sum::<u64>(), before.iter().sum::<u64>(), "{before:?} {after:?}");
    assert_eq!(in_flight(&server), 0);
}

#[test]
fn silent_connections_keep_nobody_from_an_answer() {
    let server = null(2, options().limits);
    let held: Vec<_> = (0..200).map(|_| server.connect()).collect();
    for _ in 0..20 {
        assert_eq!(server.get("/readyz").status, 200);
    }
    assert_eq!(server.post("/v1/chat/completions", &chat(4, false)).status, 200);
    drop(held);
}

#[test]
fn a_stop_under_load_cuts_no_stream() {
    let server = null(4, options().limits);
    let streams: Vec<_> = (0..12).map(|_| send(&server, &chat(40, true))).collect();
    while in_flight(&server) < 12 {
        std::thread::yield_now();
    }
    server.stop.stop();
    for stream in streams {
        let reply = read_reply(stream).unwrap();
        assert_eq!(reply.status, 200);
        let text = reply.text();
        assert!(text.ends_with("data: [DONE]\n\n"), "{}", &text[text.len().saturating_sub(200)..]);
    }
}

#[test]
fn no_key_takes_more_than_half_of_the_places() {
    let secrets = [new_key().unwrap(), new_key().unwrap()];
    let keys = Keys::new(secrets.iter().map(|secret| Key::new("k", secret).unwrap()).collect());
    let limits = Limits { queue_per_slot: 1, queue_time: Duration::from_secs(3600), ..options().limits };
    let mut own =
        ServeOptions { preload: vec![], default_model: None, null_model: true, keys, limits, ..options() };
    own.load.max_sequences = Some(2);
    let server = start(own);
    let status = |secret: &str| {
        let reply = server.request("GET", "/v1/status", &[("x-api-key", secret)], b"");
        reply.json()["in_flight"].as_u64().unwrap()
    };
    let held: Vec<_> = (0..2).map(|_| send_as(&server, &secrets[0], &chat(8000, true))).collect();
    while status(&secrets[0]) < 2 {
        std::thread::yield_now();
    }
    let more = read_reply(send_as(&server, &secrets[0], &chat(1, false))).unwrap();
    assert_eq!(more.status, 429);
    let others: Vec<_> = (0..2).map(|_| send_as(&server, &secrets[1], &chat(4, false))).collect();
    while status(&secrets[0]) < 4 {
        std::thread::yield_now();
    }
    drop(held);
    for stream in others {
        assert_eq!(read_reply(stream).unwrap().status, 200);
    }
}

#[test]
fn an_answer_ends_when_its_caller_waits_no_longer() {
    let server = null(1, Limits { queue_time: Duration::from_secs(3600), ..options().limits });
    let ask = |timeout: &str, body: &Value| {
        read_reply(send_with(&server, &format!("x-request-timeout: {timeout}"), body)).unwrap()
    };
    for bad in ["", "soon", "-1", "0", "NaN", "inf", "1e300"] {
        let reply = ask(bad, &chat(1, false));
        assert!(reply.status == 400 && reply.text().contains("x-request-timeout"), "{bad}: {}", reply.text());
    }
    assert_eq!(ask("600", &chat(1, false)).status, 200);
    let whole = ask("0.2", &chat(8000, false));
    assert_eq!((whole.status, &whole.json()["error"]["code"]), (408, &json!("timeout")));
    let stream = ask("0.2", &chat(8000, true));
    assert_eq!(stream.status, 200);
    assert_eq!(stream.events().last().unwrap()["error"]["code"], "timeout");
    // One that waits for its turn is dropped before it is read.
    server.wait_until_idle();
    let held = running(&server);
    assert_eq!(ask("0.2", &chat(1, false)).status, 408);
    assert_eq!(in_flight(&server), 1);
    drop(held);
    server.wait_until_idle();
}

#[test]
fn clients_that_leave_before_their_answer_are_counted_as_499() {
    let server = null(1, options().limits);
    drop(send(&server, &chat(8000, false)));
    let line = "kun_requests_total{route=\"/v1/chat/completions\",status=\"499\"} 1\n";
    while !server.get("/metrics").text().contains(line) {
        std::thread::sleep(Duration::from_millis(10));
    }
    server.wait_until_idle();
}
