//! Pictures drawn from words, by the tiny model of `tools/golden/diffusion.py`.

use crate::support::{Reply, Running, options, start};
use serde_json::{Value, json};
use std::io::Write;
use std::sync::OnceLock;

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

#[test]
fn a_client_that_leaves_frees_its_place() {
    let body = json!({ "prompt": "a fox", "steps": 150, "size": "256x256", "n": 8 }).to_string();
    let head = format!(
        "POST /v1/images/generations HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        server().address,
        body.len()
    );
    let mut stream = server().connect();
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    while server().get("/v1/status").json()["in_flight"] == 0 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    drop(stream);
    server().wait_until_idle();
}
