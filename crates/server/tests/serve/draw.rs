//! Pictures drawn from words, by the tiny model of `tools/golden/diffusion.py`.

use crate::support::{Reply, Running, options, start};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::OnceLock;
use std::time::Duration;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/diffusion");

fn server() -> &'static Running {
    static SERVER: OnceLock<Running> = OnceLock::new();
    SERVER.get_or_init(|| {
        let mut all = options();
        all.preload.push(format!("{DATA}/tiny"));
        start(all)
    })
}

fn draw(body: &Value) -> Value {
    let reply = server().post("/v1/images/generations", body);
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

fn form(path: &str, fields: &[(&str, &str)], files: &[(&str, &str)]) -> Reply {
    let mut body = Vec::new();
    for (name, value) in fields {
        let part = format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend(part.bytes());
    }
    for (name, file) in files {
        let head =
            format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"x.png\"\r\n\r\n");
        body.extend(head.bytes());
        body.extend(std::fs::read(format!("{DATA}/{file}")).unwrap());
        body.extend(b"\r\n");
    }
    body.extend(b"--b--\r\n");
    server().request("POST", path, &[("Content-Type", "multipart/form-data; boundary=b")], &body)
}

#[test]
fn pictures_are_drawn_as_openai_answers() {
    let body = json!({ "prompt": "a red fox", "size": "48x32", "steps": 2, "seed": 7, "n": 2 });
    let answer = draw(&body);
    assert_eq!((&answer["size"], &answer["output_format"]), (&json!("48x32"), &json!("png")));
    assert_eq!(answer["data"].as_array().map(Vec::len), Some(2));
    assert_eq!((&answer["data"][0]["seed"], &answer["data"][1]["seed"]), (&json!(7), &json!(8)));
    assert!(answer["data"][0]["b64_json"].as_str().unwrap().starts_with("iVBORw0KGgo"));
    assert_eq!(draw(&body)["data"], answer["data"], "a seed draws its picture again");
    let named = json!({ "model": "tiny", "prompt": "a fox", "steps": 1, "size": "auto", "quality": "hd", "style": "vivid" });
    let answer = draw(&named);
    assert_eq!(answer["size"], "64x64");
    assert_eq!(answer["warnings"].as_array().map(Vec::len), Some(2), "{answer}");
    let jpeg = draw(&json!({ "prompt": "a fox", "steps": 1, "size": "16x16", "output_format": "jpeg" }));
    assert!(jpeg["data"][0]["b64_json"].as_str().unwrap().starts_with("/9j/"));
}

#[test]
fn pictures_are_changed_in_forms_and_in_json() {
    let fields = [("prompt", "a fox"), ("steps", "3"), ("seed", "5"), ("strength", "0.7"), ("size", "64x32")];
    let image = ("image", "picture.png");
    let changed = form("/v1/images/edits", &fields, &[image]);
    assert_eq!(changed.status, 200, "{}", changed.text());
    let listed = form("/v1/images/edits", &fields, &[("image[]", "picture.png")]);
    assert_eq!(listed.json()["data"], changed.json()["data"]);
    let filled = form("/v1/images/edits", &fields, &[image, ("mask", "mask.png")]);
    assert_eq!(filled.status, 200, "{}", filled.text());
    assert_ne!(filled.json()["data"], changed.json()["data"]);
    let varied = form("/v1/images/variations", &[("steps", "2"), ("n", "2")], &[image]);
    assert_eq!(varied.json()["data"].as_array().map(Vec::len), Some(2), "{}", varied.text());
    assert_eq!(form("/v1/images/edits", &fields, &[image, image]).status, 400);
    assert_eq!(form("/v1/images/variations", &[], &[image, ("mask", "mask.png")]).status, 400);
}

#[test]
fn what_is_not_drawn_is_refused_and_named() {
    for (more, code, wanted) in [
        (json!({ "size": "500x512" }), "invalid_value", "multiple of 16"),
        (json!({ "size": "4112x16" }), "invalid_value", "4096"),
        (json!({ "size": "4096x4096", "n": 8 }), "invalid_value", "megapixels"),
        (json!({ "response_format": "url" }), "invalid_value", "b64_json"),
        (json!({ "prompt": "fox ".repeat(100) }), "context_length_exceeded", "77"),
        (json!({ "model": "stories260k.q8_0" }), "model_not_supported", "pictures"),
    ] {
        let mut body = json!({ "prompt": "a fox", "steps": 1 });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let reply = server().post("/v1/images/generations", &body);
        let text = reply.text();
        assert_eq!(
            (reply.status, reply.json()["error"]["code"].as_str()),
            (400, Some(code)),
            "{more}: {text}"
        );
        assert!(text.contains(wanted), "{more}: {text}");
    }
}

/// The `event:` of each event.
fn kinds(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("content-type"), Some("text/event-stream; charset=utf-8"));
    reply.text().lines().filter_map(|line| line.strip_prefix("event: ")).map(str::to_owned).collect()
}

#[test]
fn streamed_pictures_are_those_of_one_answer() {
    let mut body = json!({ "prompt": "a red fox", "size": "48x32", "steps": 6, "seed": 7, "n": 2 });
    let whole = draw(&body);
    body.as_object_mut()
        .unwrap()
        .extend([("stream".into(), json!(true)), ("partial_images".into(), json!(2))]);
    let reply = server().post("/v1/images/generations", &body);
    let (partial, completed) = ("image_generation.partial_image", "image_generation.completed");
    assert_eq!(kinds(&reply), [partial, partial, completed, partial, partial, completed]);
    let events = reply.events();
    for (event, kind) in events.iter().zip(kinds(&reply)) {
        assert_eq!(event["type"], json!(kind));
        assert_eq!((&event["size"], &event["quality"]), (&json!("48x32"), &json!("auto")));
        assert_eq!((&event["background"], &event["output_format"]), (&json!("opaque"), &json!("png")));
        assert!(
            event["created_at"].is_u64() && event.get("error").is_none() && event.get("warnings").is_none()
        );
        assert!(event["b64_json"].as_str().unwrap().starts_with("iVBORw0KGgo"));
    }
    for (at, index) in [(2, 0), (5, 1)] {
        assert_eq!(
            events[at]["b64_json"], whole["data"][index]["b64_json"],
            "partial pictures change nothing"
        );
        assert_eq!((&events[at]["index"], &events[at]["seed"]), (&json!(index), &json!(7 + index)));
        let usage = &events[at]["usage"];
        assert!(usage["input_tokens"].as_u64().unwrap() > 3, "{usage}");
        assert_eq!(usage["input_tokens_details"]["text_tokens"], usage["total_tokens"]);
        assert_eq!(events[at - 1]["partial_image_index"], 1);
        assert_ne!(events[at - 1]["b64_json"], events[at]["b64_json"]);
    }
    body["n"] = json!(1);
    body["progress"] = json!(true);
    body["style"] = json!("vivid");
    let reply = server().post("/v1/images/generations", &body);
    let progress = "image_generation.progress";
    let passes = kinds(&reply).iter().filter(|kind| *kind == progress).count();
    let events = reply.events();
    assert_eq!(
        (&events[0]["type"], events[0]["passes"].as_u64()),
        (&json!(progress), Some(passes as u64 - 1))
    );
    assert_eq!(events[0]["warnings"].as_array().map(Vec::len), Some(1), "the first event tells them");
    assert!(events[1..].iter().all(|event| event.get("warnings").is_none()));
    assert_eq!(events.last().unwrap()["b64_json"], whole["data"][0]["b64_json"]);
}

#[test]
fn changes_are_streamed_too_and_refusals_are_not() {
    let fields = [("prompt", "a fox"), ("steps", "3"), ("seed", "5"), ("size", "64x32")];
    let files = [("image", "picture.png"), ("mask", "mask.png")];
    let whole = form("/v1/images/edits", &fields, &files).json();
    let streamed = [&fields[..], &[("stream", "true"), ("partial_images", "1")]].concat();
    let reply = form("/v1/images/edits", &streamed, &files);
    assert_eq!(kinds(&reply), ["image_edit.partial_image", "image_edit.completed"]);
    assert_eq!(reply.events()[1]["b64_json"], whole["data"][0]["b64_json"]);
    let varied = form("/v1/images/variations", &[("steps", "2"), ("stream", "true")], &files[..1]);
    assert_eq!(kinds(&varied), ["image_edit.completed"]);
    let unstreamed = draw(&json!({ "prompt": "a fox", "steps": 1, "size": "16x16", "partial_images": 2 }));
    assert!(unstreamed["warnings"][0].as_str().unwrap().contains("without `stream`"), "{unstreamed}");
    for (more, wanted) in [("size", "500x512"), ("partial_images", "4"), ("model", "stories260k.q8_0")] {
        let mut body = json!({ "prompt": "a fox", "stream": true });
        body[more] = wanted.parse().map_or(json!(wanted), |count: u8| json!(count));
        let reply = server().post("/v1/images/generations", &body);
        assert_eq!(reply.status, 400, "{}", reply.text());
        assert!(reply.json()["error"]["message"].is_string());
    }
}

/// Asks for work that takes minutes, and waits until it runs.
fn long_work(server: &Running, streamed: bool) -> TcpStream {
    let body =
        json!({ "prompt": "a fox", "steps": 150, "size": "256x256", "n": 8, "stream": streamed }).to_string();
    let head = format!(
        "POST /v1/images/generations HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        server.address,
        body.len()
    );
    let mut stream = server.connect();
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    while server.get("/v1/status").json()["in_flight"] == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    stream
}

#[test]
fn a_client_that_leaves_frees_its_place() {
    for streamed in [false, true] {
        drop(long_work(server(), streamed));
        server().wait_until_idle();
    }
}

#[test]
fn pictures_that_outlive_a_stop_end_with_an_error() {
    let mut all = options();
    all.preload.push(format!("{DATA}/tiny"));
    all.limits.drain_time = Duration::from_millis(300);
    let server = start(all);
    let (mut streamed, mut whole) = (long_work(&server, true), long_work(&server, false));
    server.stop.stop();
    for (stream, status) in [(&mut streamed, "200"), (&mut whole, "503")] {
        let mut tail = String::new();
        stream.read_to_string(&mut tail).unwrap();
        assert!(tail.starts_with(&format!("HTTP/1.1 {status}")), "{tail}");
        assert!(tail.contains("The server has stopped.") && tail.contains("\"error\""), "{tail}");
    }
}
