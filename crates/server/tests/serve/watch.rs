//! What the server tells those who watch it, and what it does not.

use crate::support::{options, start};
use kun_server::ServeOptions;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const CANARY: &str = "kanarienvogel";

/// A collector of traces: gives the bodies of what it is sent.
fn collector() -> (String, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let (mut line, mut length) = (String::new(), 0);
            while reader.read_line(&mut line).unwrap_or(0) > 0 && line != "\r\n" {
                if line.starts_with("POST") {
                    assert!(line.starts_with("POST /v1/traces "), "{line}");
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
            if sender.send(serde_json::from_slice(&body).unwrap()).is_err() {
                return;
            }
        }
    });
    (address, receiver)
}

fn attribute<'a>(span: &'a Value, name: &str) -> &'a Value {
    let attributes = span["attributes"].as_array().unwrap();
    attributes.iter().find(|attribute| attribute["key"] == name).map_or(&Value::Null, |a| &a["value"])
}

#[test]
fn traces_tell_counts_and_times_and_nobodys_words() {
    let (address, documents) = collector();
    let null = ServeOptions { preload: vec![], default_model: None, null_model: true, ..options() };
    let server = start(ServeOptions { otlp: Some(address), ..null });
    let body = json!({ "model": "null", "messages": [{ "role": "user", "content": CANARY }], "max_tokens": 5, "user": CANARY });
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let reply = server.request(
        "POST",
        "/v1/chat/completions",
        &[("traceparent", parent)],
        body.to_string().as_bytes(),
    );
    assert_eq!(reply.status, 200);
    server.post("/v1/chat/completions", &json!({ "messages": CANARY }));
    // Stopping sends what is left.
    drop(server);
    let mut spans = Vec::new();
    while let Ok(document) = documents.recv_timeout(Duration::from_secs(30)) {
        assert!(!document.to_string().contains(CANARY), "{document}");
        spans.extend(document["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone());
        let asked = spans.iter().filter(|s| s["name"] == "POST /v1/chat/completions").count();
        if asked == 2 && spans.iter().any(|span| span["name"] == "generate") {
            break;
        }
    }
    let named = |name: &str| spans.iter().find(|span| span["name"] == name).unwrap();
    let (request, answer) = (named("POST /v1/chat/completions"), named("generate"));
    assert_eq!(request["traceId"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(request["parentSpanId"], "b7ad6b7169203331");
    assert_eq!(attribute(request, "http.response.status_code")["intValue"], "200");
    assert_eq!(answer["traceId"], request["traceId"]);
    assert_eq!(answer["parentSpanId"], request["spanId"]);
    assert_eq!(attribute(answer, "gen_ai.usage.output_tokens")["intValue"], "5");
    let time = |name: &str| answer[name].as_str().unwrap().parse::<u128>().unwrap();
    assert!(time("endTimeUnixNano") >= time("startTimeUnixNano"));
}

#[test]
fn a_collector_that_is_not_there_stops_nobody() {
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let null = ServeOptions { preload: vec![], default_model: None, null_model: true, ..options() };
    let server = start(ServeOptions { otlp: Some(format!("http://{nowhere}")), ..null });
    let body = json!({ "model": "null", "prompt": "x", "max_tokens": 2 });
    assert_eq!(server.post("/v1/completions", &body).status, 200);
}

#[test]
fn an_unused_model_is_let_go_after_its_time_and_comes_back_when_asked_for() {
    let null = ServeOptions { preload: vec![], default_model: None, null_model: true, ..options() };
    let server = start(ServeOptions { keep_alive: Some(Duration::ZERO), ..null });
    let loaded = |server: &crate::support::Running| {
        server.get("/v1/status").json()["models"].as_array().unwrap().len()
    };
    while loaded(&server) > 0 {
        std::thread::sleep(Duration::from_millis(50));
    }
    let body = json!({ "model": "null", "prompt": "x", "max_tokens": 2 });
    assert_eq!(server.post("/v1/completions", &body).status, 200);
}
