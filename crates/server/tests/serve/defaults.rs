//! What holds unless the options say otherwise, line by line.

use crate::support::{NAME, Running, options, shared, start};
use kun_server::{Key, Keys, Limits, ServeOptions, new_key};
use serde_json::{Value, json};
use std::sync::OnceLock;

/// A server that was told nothing but its model: its limits are the default ones.
fn untouched() -> &'static Running {
    static SERVER: OnceLock<Running> = OnceLock::new();
    SERVER.get_or_init(|| {
        let mut options = ServeOptions { limits: Limits::default(), ..options() };
        options.load.max_sequences = None;
        start(options)
    })
}

#[test]
fn default_limits_are_told() {
    let told = untouched().get("/v1/limits").json();
    let expected = json!({
        "connections": 10_240,
        "connections_per_address": 1024,
        "header_bytes": 16_384,
        "header_fields": 64,
        "target_bytes": 8192,
        "body_bytes": 32 << 20,
        "bodies_bytes": 512 << 20,
        "json_depth": 128,
        "json_values": 1_200_000,
        "image_megapixels": 64,
        "image_side": 16_384,
        "first_byte_s": 60,
        "header_s": 10,
        "body_idle_s": 30,
        "request_s": 600,
        "write_stall_s": 60,
        "drain_s": 30,
        "queue_s": 10,
        "slots": 16,
        "queue": 64,
        "in_flight_per_key": 80,
        "n": 8,
        "logprobs": 20,
        "stop": 16,
        "stop_bytes": 256,
        "logit_bias": 1024,
        "messages": 2048,
        "tools": 128,
        "grammar_bytes": 65_536,
        "schema_bytes": 65_536,
        "schema_depth": 64,
    });
    assert_eq!(told, expected);
}

#[test]
fn default_bounds_are_in_the_text_of_the_refusal() {
    let chat = |more: Value| {
        let mut body = json!({ "model": NAME, "messages": [{ "role": "user", "content": "x" }] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let tool = json!({ "type": "function", "function": { "name": "x" } });
    let deep = (0..65).fold(json!({}), |inner, _| json!({ "items": inner }));
    for (path, body, bound) in [
        ("/v1/chat/completions", chat(json!({ "n": 9 })), "8"),
        ("/v1/chat/completions", chat(json!({ "top_logprobs": 21 })), "20"),
        ("/v1/chat/completions", chat(json!({ "stop": vec!["x"; 17] })), "16"),
        ("/v1/chat/completions", chat(json!({ "stop": "x".repeat(257) })), "256"),
        ("/v1/chat/completions", chat(json!({ "tools": vec![tool; 129] })), "128"),
        ("/v1/chat/completions", chat(json!({ "grammar": "x".repeat(65_537) })), "65536"),
        ("/v1/chat/completions", chat(json!({ "guided_json": deep })), "64"),
        (
            "/api/generate",
            json!({ "model": NAME, "prompt": "x", "options": { "stop": "x".repeat(257) } }),
            "256",
        ),
    ] {
        let reply = untouched().post(path, &body);
        assert_eq!(reply.status, 400, "{}", reply.text());
        assert!(reply.text().contains(bound), "{bound}: {}", reply.text());
    }
}

#[test]
fn default_target_and_header_are_short() {
    let ask = |target: &str, headers: &[(&str, &str)]| untouched().request("GET", target, headers, b"");
    let of = |bytes: usize| format!("/livez?{}", "x".repeat(bytes - "/livez?".len()));
    assert_eq!(ask(&of(8192), &[]).status, 200);
    let long = ask(&of(8193), &[]);
    assert!(long.status == 414 && long.text().contains("8192"), "{}", long.text());
    // The client's own are `Connection`, `Content-Length` and `Host`.
    assert_eq!(ask("/livez", &[("x", "y"); 61]).status, 200);
    assert_eq!(ask("/livez", &[("x", "y"); 62]).status, 431);
}

#[test]
fn default_answers_tell_no_version_and_allow_no_origin() {
    for path in ["/", "/livez", "/v1/models", "/nowhere"] {
        let reply = shared().get(path);
        assert!(reply.header("server").is_none(), "{path}");
        assert!(reply.headers.iter().all(|(name, _)| !name.starts_with("access-control-")), "{path}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
}

#[test]
fn default_addresses_of_pictures_are_not_followed() {
    for url in ["https://example.org/x.png", "http://127.0.0.1/x.png", "HTTPS://EXAMPLE.ORG/x.png"] {
        let reply = shared().post("/v1/detect", &json!({ "image": url }));
        assert!(reply.status == 400 && reply.text().contains("--allow-image-urls"), "{}", reply.text());
    }
}

#[test]
fn default_callers_behind_a_proxy_manage_no_models() {
    let secret = new_key().unwrap();
    let keys = Keys::new(vec![Key::new("test", &secret).unwrap()]);
    let server = start(ServeOptions { keys, ..options() });
    let admin = |header: (&str, &str)| {
        let reply = server.request("GET", "/v1/status", &[("x-api-key", &secret), header], b"");
        reply.json()["admin"].as_bool().unwrap()
    };
    assert!(admin(("x-own", "1")));
    for header in [
        ("X-Forwarded-For", "203.0.113.7"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-Host", "kun.example"),
        ("X-Real-IP", "203.0.113.7"),
        ("Forwarded", "for=203.0.113.7"),
        ("Via", "1.1 proxy"),
    ] {
        assert!(!admin(header), "{header:?}");
    }
    let headers = [("x-api-key", secret.as_str()), ("X-Forwarded-For", "203.0.113.7")];
    let body = json!({ "model": NAME }).to_string();
    for (method, path) in [
        ("POST", "/v1/models/unload"),
        ("POST", "/v1/models/load"),
        ("POST", "/api/pull"),
        ("DELETE", "/api/delete"),
    ] {
        assert_eq!(server.request(method, path, &headers, body.as_bytes()).status, 403, "{path}");
    }
}
