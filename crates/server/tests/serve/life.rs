//! Overload, leaving clients, slow clients, the end.

use crate::support::{NAME, Running, options, read_reply, shared, start};
use kun_server::{Limits, ServeOptions};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

fn long(stream: bool) -> Value {
    json!({ "model": NAME, "messages": [{ "role": "user", "content": "Once" }], "max_tokens": 400, "ignore_eos": true, "stream": stream })
}

fn send(server: &Running, body: &Value) -> std::net::TcpStream {
    let mut stream = server.connect();
    let body = body.to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        server.address,
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

#[test]
fn clients_that_leave_at_any_moment_leave_nothing_behind() {
    let server = start(options());
    let expected = server.post("/v1/chat/completions", &long(false)).json()["choices"].to_string();
    let leaving = |n: u64| {
        let mut stream = send(&server, &long(n.is_multiple_of(2)));
        std::thread::sleep(Duration::from_micros(n * 337 % 20_000));
        if n.is_multiple_of(3) {
            let mut some = [0; 64];
            let _ = stream.read_exact(&mut some);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| (0..60).for_each(leaving));
        scope.spawn(|| (60..120).for_each(leaving));
        // Someone who stays is not disturbed.
        let mut body = long(false);
        body["temperature"] = json!(0);
        let alone = scope.spawn(move || body);
        let body = alone.join().unwrap();
        let first = server.post("/v1/chat/completions", &body).json()["choices"].to_string();
        let second = server.post("/v1/chat/completions", &body).json()["choices"].to_string();
        assert_eq!(first, second);
    });
    server.wait_until_idle();
    assert!(!expected.is_empty());
}

#[test]
fn a_full_queue_refuses_at_once_and_says_when_to_come_again() {
    let mut small = options();
    small.load.max_sequences = Some(1);
    small.limits = Limits { queue_per_slot: 1, queue_time: Duration::from_millis(300), ..Limits::default() };
    let server = start(small);
    let statuses: Vec<(u16, Option<String>)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..12)
            .map(|_| {
                scope.spawn(|| {
                    let reply = server.post("/v1/chat/completions", &long(false));
                    (reply.status, reply.header("retry-after").map(str::to_owned))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(statuses.iter().any(|(status, _)| *status == 200));
    let refused: Vec<_> = statuses.iter().filter(|(status, _)| *status == 429).collect();
    assert!(refused.len() >= 5, "{statuses:?}");
    assert!(refused.iter().all(|(_, after)| {
        after.as_deref().is_some_and(|after| after.parse::<u64>().is_ok_and(|s| (1..=60).contains(&s)))
    }));
    assert!(statuses.iter().all(|(status, _)| [200, 429].contains(status)), "{statuses:?}");
    server.wait_until_idle();
    assert_eq!(server.post("/v1/chat/completions", &long(false)).status, 200);
}

#[test]
fn slow_headers_and_bodies_are_closed() {
    let limits = Limits {
        header_time: Duration::from_millis(400),
        first_byte_time: Duration::from_millis(400),
        body_idle_time: Duration::from_millis(400),
        ..options().limits
    };
    let server = start(ServeOptions { limits, ..options() });
    let started = Instant::now();
    let mut silent = server.connect();
    let mut slow_header = server.connect();
    slow_header.write_all(b"GET /livez HTTP/1.1\r\nHost:").unwrap();
    let mut slow_body = server.connect();
    let head = format!(
        "POST /tokenize HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{",
        server.address
    );
    slow_body.write_all(head.as_bytes()).unwrap();
    let mut rest = Vec::new();
    assert_eq!(silent.read_to_end(&mut rest).unwrap_or(0), 0);
    let _ = slow_header.read_to_end(&mut rest);
    let reply = read_reply(slow_body).unwrap();
    assert_eq!(reply.status, 408);
    assert!(started.elapsed() < Duration::from_secs(30));
    assert_eq!(server.get("/livez").status, 200);
}

#[test]
fn clients_that_do_not_read_lose_their_connection() {
    let limits = Limits { write_stall_time: Duration::from_millis(300), ..options().limits };
    let server = start(ServeOptions { limits, ..options() });
    let mut deaf = server.connect();
    let ask = format!("GET /app.js HTTP/1.1\r\nHost: {}\r\n\r\n", server.address);
    // Far more than sockets hold, asked for at once.
    let _ = deaf.write_all(ask.repeat(4000).as_bytes());
    let open = || {
        let figures = server.get("/metrics").text();
        figures
            .lines()
            .find_map(|line| line.strip_prefix("kun_connections "))
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    while open() > 1 {
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(deaf);
}

#[test]
fn bodies_share_their_memory() {
    // An hour of patience: the body that is held must not end by itself on a machine that stands still for a while.
    let limits = Limits {
        bodies_bytes: 1 << 20,
        body_idle_time: Duration::from_secs(3600),
        request_time: Duration::from_secs(3600),
        ..options().limits
    };
    let server = start(ServeOptions { limits, ..options() });
    let ask = |content: &str| server.post("/tokenize", &json!({ "content": content }));
    // Half a body keeps its memory until it is whole, too slow or gone.
    let head = format!(
        "POST /tokenize HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 900000\r\n\r\n",
        server.address
    );
    let half = [head.as_bytes(), &[b' '; 800_000]].concat();
    let long = "x".repeat(400_000);
    // Whichever of the two comes first has the memory; if it was the whole one, the half was refused.
    let (held, reply) = loop {
        let mut held = server.connect();
        let _ = held.write_all(&half);
        std::thread::sleep(Duration::from_millis(50));
        let reply = ask(&long);
        if reply.status != 200 {
            break (held, reply);
        }
    };
    assert_eq!(reply.status, 429, "{}", reply.text());
    assert!(reply.header("retry-after").is_some() && reply.text().contains("1048576 bytes"));
    assert_eq!(ask("x").status, 200);
    drop(held);
    while ask(&long).status != 200 {
        std::thread::sleep(Duration::from_millis(20));
    }
    // What is read out of brackets is many times as long as they are.
    let brackets = format!("{{\"content\": [{}[]]}}", "[],".repeat(10_000));
    let reply = server.request("POST", "/tokenize", &[], brackets.as_bytes());
    assert_eq!(reply.status, 429, "{}", reply.text());
}

#[test]
fn connections_beyond_the_bound_are_closed() {
    let limits = Limits { connections: 3, ..options().limits };
    let server = start(ServeOptions { limits, ..options() });
    // Those of the start may still be closing.
    std::thread::sleep(Duration::from_millis(200));
    let held: Vec<_> = (0..3).map(|_| server.connect()).collect();
    std::thread::sleep(Duration::from_millis(100));
    let mut extra = server.connect();
    let mut byte = [0];
    assert!(matches!(extra.read(&mut byte), Ok(0) | Err(_)));
    drop(held);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(server.get("/livez").status, 200);
}

#[test]
fn a_stop_lets_streams_end_and_takes_no_new_work() {
    let socket =
        cfg!(unix).then(|| std::env::temp_dir().join(format!("kun-stopping-{}", std::process::id())));
    let server = start(ServeOptions { unix_socket: socket.clone(), ..options() });
    let mut body = long(true);
    body["max_tokens"] = json!(400);
    let mut streams: Vec<_> = (0..3).map(|_| send(&server, &body)).collect();
    for stream in &mut streams {
        let mut first = [0; 16];
        stream.read_exact(&mut first).unwrap();
        assert!(first.starts_with(b"HTTP/1.1 200"));
    }
    let early = server.connect();
    server.stop.stop();
    let head = format!(
        "POST /tokenize HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n{{\"content\": \"hi\"}}",
        server.address
    );
    // Both the one that was there and newcomers are told while the streams run.
    for mut asking in [early, server.connect(), server.connect()] {
        asking.write_all(head.as_bytes()).unwrap();
        let reply = read_reply(asking).unwrap();
        assert_eq!(reply.status, 503, "{}", reply.text());
    }
    // Newcomers on a socket that has nothing to answer itself are told too.
    #[cfg(unix)]
    for _ in 0..2 {
        let mut asking = std::os::unix::net::UnixStream::connect(socket.as_ref().unwrap()).unwrap();
        asking.write_all(head.as_bytes()).unwrap();
        let mut reply = String::new();
        asking.read_to_string(&mut reply).unwrap();
        assert!(reply.starts_with("HTTP/1.1 503"), "{reply}");
    }
    for mut stream in streams {
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("data: [DONE]"), "cut: {}", &rest[rest.len().saturating_sub(200)..]);
    }
    drop(server);
}

#[test]
fn streams_that_outlive_a_stop_end_with_an_error_event() {
    let mut hasty = options();
    hasty.load.max_sequences = Some(16);
    hasty.limits.drain_time = Duration::ZERO;
    let server = start(hasty);
    let mut streams: Vec<_> = (0..2)
        .map(|_| {
            let mut body = long(true);
            body["n"] = json!(8);
            send(&server, &body)
        })
        .collect();
    for stream in &mut streams {
        let mut first = [0; 16];
        stream.read_exact(&mut first).unwrap();
        assert!(first.starts_with(b"HTTP/1.1 200"));
    }
    server.stop.stop();
    for mut stream in streams {
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        // Sixteen answers of 400 tokens take far longer than a stop.
        let tail = &rest[rest.len().saturating_sub(300)..];
        assert!(tail.contains("The server has stopped.") && tail.ends_with("0\r\n\r\n"), "{tail}");
    }
    drop(server);
}

#[test]
fn figures_are_told_without_anybodys_words() {
    let canary = "kanarienvogel";
    let body = json!({ "model": NAME, "messages": [{ "role": "user", "content": canary }], "max_tokens": 3, "user": canary });
    assert_eq!(shared().post("/v1/chat/completions", &body).status, 200);
    let text = shared().get("/metrics").text();
    for name in [
        "kun_requests_total{route=\"/v1/chat/completions\",status=\"200\"}",
        "kun_time_to_first_token_seconds_count",
        "kun_cache_pages{",
        "kun_completion_tokens_total",
        "kun_step_seconds 0",
    ] {
        assert!(text.contains(name), "{name}: {text}");
    }
    assert!(!text.contains(canary));
}
