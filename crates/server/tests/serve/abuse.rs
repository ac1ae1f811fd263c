//! Hostile requests: each is refused as written, quickly, in the error shape of its API, and the server still answers.

use crate::support::{NAME, Reply, shared};
use serde_json::{Value, json};

/// A row: its name, the path, the body, the status.
struct Row {
    name: String,
    path: &'static str,
    body: Vec<u8>,
    status: u16,
}

fn chat(more: Value) -> Value {
    let mut body =
        json!({ "model": NAME, "messages": [{ "role": "user", "content": "hi" }], "max_tokens": 1 });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn completion(more: Value) -> Value {
    let mut body = json!({ "model": NAME, "prompt": "hi", "max_tokens": 1 });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn messages(more: Value) -> Value {
    let mut body =
        json!({ "model": NAME, "max_tokens": 1, "messages": [{ "role": "user", "content": "hi" }] });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn nested(depth: usize) -> String {
    format!("{}1{}", "[".repeat(depth), "]".repeat(depth))
}

fn deep_schema(depth: usize) -> Value {
    (0..depth).fold(
        json!({ "type": "string" }),
        |inner, _| json!({ "type": "object", "properties": { "a": inner } }),
    )
}

fn tool(name: &str, parameters: Value) -> Value {
    json!([{ "type": "function", "function": { "name": name, "parameters": parameters } }])
}

fn format_of(schema: Value) -> Value {
    json!({ "response_format": { "type": "json_schema", "json_schema": { "name": "x", "schema": schema } } })
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |path: &'static str, body: Value, status: u16| {
        let name: String = body.to_string().chars().take(160).collect();
        rows.push(Row { name, path, body: body.to_string().into_bytes(), status });
    };
    const CHAT: &str = "/v1/chat/completions";
    const TEXT: &str = "/v1/completions";
    let huge = 1u64 << 40;
    // Numbers out of range and of the wrong type, in every numeric field.
    for field in ["n", "max_tokens", "max_completion_tokens", "top_k", "top_logprobs", "seed"] {
        for value in
            [json!(-1i64 << 62), json!(1e308), json!("5"), json!([1]), json!({}), json!(true), json!(0.5)]
        {
            if field == "seed" && value == json!(-1i64 << 62) {
                continue;
            }
            add(CHAT, chat(json!({ field: value })), 400);
        }
    }
    for field in ["n", "max_tokens", "top_logprobs"] {
        add(CHAT, chat(json!({ field: huge })), 400);
        add(CHAT, chat(json!({ field: -1 })), 400);
    }
    for field in [
        "temperature",
        "top_p",
        "min_p",
        "typical_p",
        "repetition_penalty",
        "frequency_penalty",
        "presence_penalty",
    ] {
        for value in [json!(1e308), json!(-1e9), json!("hot"), json!([]), json!(false)] {
            add(CHAT, chat(json!({ field: value })), 400);
        }
    }
    for (field, value) in [
        ("n", json!(0)),
        ("n", json!(9)),
        ("max_tokens", json!(0)),
        ("top_logprobs", json!(21)),
        ("temperature", json!(2.01)),
        ("top_p", json!(1.01)),
        ("repetition_penalty", json!(0)),
    ] {
        add(CHAT, chat(json!({ field: value })), 400);
    }
    for (field, value) in [
        ("best_of", json!(2)),
        ("best_of", json!(huge)),
        ("logprobs", json!(21)),
        ("logprobs", json!(huge)),
        ("logprobs", json!(-1)),
        ("max_tokens", json!(-1)),
        ("max_tokens", json!(0)),
        ("n", json!(1000)),
    ] {
        add(TEXT, completion(json!({ field: value })), 400);
    }
    // Lists and maps beyond their bounds.
    add(CHAT, chat(json!({ "stop": vec!["x"; 17] })), 400);
    add(CHAT, chat(json!({ "stop": vec!["x"; 100_000] })), 400);
    add(CHAT, chat(json!({ "stop": "x".repeat(257) })), 400);
    add(CHAT, chat(json!({ "stop": [1] })), 400);
    let bias: serde_json::Map<String, Value> = (0..1025).map(|id| (id.to_string(), json!(1))).collect();
    add(CHAT, chat(json!({ "logit_bias": bias })), 400);
    for bias in [
        json!({ "x": 1 }),
        json!({ "-1": 1 }),
        json!({ "99999999": 1 }),
        json!({ "1": 101 }),
        json!({ "1": "x" }),
        json!([1]),
    ] {
        add(CHAT, chat(json!({ "logit_bias": bias })), 400);
    }
    let many: Vec<Value> = (0..2049).map(|_| json!({ "role": "user", "content": "x" })).collect();
    add(CHAT, chat(json!({ "messages": many })), 400);
    let tools: Vec<Value> =
        (0..129).map(|i| json!({ "type": "function", "function": { "name": format!("t{i}") } })).collect();
    add(CHAT, chat(json!({ "tools": tools })), 400);
    add(TEXT, completion(json!({ "prompt": vec!["x"; 129] })), 400);
    // Messages of the wrong form.
    for messages in [
        json!([]),
        json!("hi"),
        json!({}),
        json!([1]),
        json!(["hi"]),
        json!([{}]),
        json!([null]),
        json!(null),
        json!([{ "role": "user" }]),
        json!([{ "role": "user", "content": null }]),
        json!([{ "role": "user", "content": 5 }]),
        json!([{ "role": "user", "content": {} }]),
        json!([{ "role": "user", "content": [{ "type": "text", "text": 5 }] }]),
        json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": "http://127.0.0.1/" } }] }]),
        json!([{ "role": "user", "content": [{ "type": "input_audio", "input_audio": {} }] }]),
        json!([{ "role": "user", "content": [{ "type": "file", "file": { "file_id": "../../etc/passwd" } }] }]),
        json!([{ "role": "root", "content": "x" }]),
        json!([{ "role": 5, "content": "x" }]),
        json!([{ "role": "system", "content": null }]),
        json!([{ "role": "tool", "content": null }]),
        json!([{ "role": "assistant", "tool_calls": 5 }]),
        json!([{ "role": "assistant", "tool_calls": [{}] }]),
        json!([{ "role": "assistant", "tool_calls": [{ "function": { "name": 1 } }] }]),
        json!([{ "role": "assistant", "tool_calls": [{ "function": { "name": "x", "arguments": "{" } }] }]),
        json!([{ "role": "assistant", "tool_calls": [{ "function": { "name": "x", "arguments": nested(500) } }] }]),
        json!([{ "role": "user", "content": "x".repeat(200_000) }]),
    ] {
        add(CHAT, chat(json!({ "messages": messages })), 400);
    }
    // Prompts of the wrong form.
    for prompt in [
        json!([]),
        json!({}),
        json!(5),
        json!([[]]),
        json!([1.5]),
        json!([-1]),
        json!([999_999_999]),
        json!([[1], "x"]),
        json!([null]),
        json!(null),
        json!([1u64 << 33]),
    ] {
        add(TEXT, completion(json!({ "prompt": prompt })), 400);
    }
    add(TEXT, completion(json!({ "suffix": "end" })), 400);
    // Models: names only, never paths.
    for model in [
        "../../etc/passwd",
        "/etc/passwd",
        "./model.gguf",
        "file:///etc/passwd",
        "http://127.0.0.1:1/x.gguf",
        "https://example.org/x.gguf",
        "..",
        "a/../../b",
        "no-such-model",
        "x\u{0}y",
        "~/x.gguf",
        "C:\\x.gguf",
        "\\\\host\\x",
        "hf.co/a/b",
        "ollama://x",
    ] {
        add(CHAT, chat(json!({ "model": model })), 404);
    }
    add(CHAT, chat(json!({ "model": 5 })), 400);
    add(CHAT, chat(json!({ "model": "x".repeat(513) })), 400);
    // Forms that cannot be held to.
    for schema in [
        deep_schema(40),
        json!({ "enum": (0..20_000).map(|i| format!("value {i}")).collect::<Vec<_>>() }),
        json!({ "type": "string", "pattern": "(((((a{1,1000}){1,1000}){1,1000}){1,1000}" }),
        json!({ "type": "string", "pattern": "((" }),
        json!({ "type": "nonsense" }),
        json!({ "$ref": "#/nowhere" }),
        json!({ "$ref": "http://127.0.0.1/schema" }),
        json!({ "type": "string", "minLength": 1_000_000_000, "maxLength": 1 }),
        json!({ "type": "object", "unevaluatedProperties": false, "dependentSchemas": { "a": false } }),
        json!("schema"),
        json!(5),
        json!([]),
    ] {
        add(CHAT, chat(format_of(schema)), 400);
    }
    for format in [
        json!({ "type": "xml" }),
        json!({}),
        json!("json"),
        json!({ "type": "json_schema" }),
        json!({ "type": "json_schema", "json_schema": {} }),
    ] {
        add(CHAT, chat(json!({ "response_format": format })), 400);
    }
    for regex in ["(", "[z-a]", "(?<=x)y", "(?P<n>x)\\1", "x".repeat(70_000).as_str()] {
        add(CHAT, chat(json!({ "regex": regex })), 400);
    }
    for grammar in [
        "start: nowhere",
        "no start",
        "start: start",
        "root ::= \"x\"",
        "start: \"unterminated",
        &format!("start: {}\"x\"{}", "(".repeat(5000), ")".repeat(5000)),
        "x".repeat(70_000).as_str(),
    ] {
        add(CHAT, chat(json!({ "grammar": grammar })), 400);
    }
    add(CHAT, chat(json!({ "regex": "a", "grammar": "start: \"a\"" })), 400);
    add(CHAT, chat(json!({ "guided_choice": [] })), 400);
    // Tools.
    for tools in [
        json!(5),
        json!([5]),
        json!([{}]),
        json!([{ "type": "web_search" }]),
        json!([{ "type": "function" }]),
        json!([{ "type": "function", "function": {} }]),
        tool("", json!({})),
        tool("a b", json!({})),
        tool("a\nb", json!({})),
        tool(&"x".repeat(65), json!({})),
        tool("a", json!("x")),
        tool("a", json!({ "type": 5 })),
        tool("a", deep_schema(40)),
        tool("a", json!({ "type": "object", "properties": { "x": { "type": "string", "pattern": "((" } } })),
        json!([{ "type": "function", "function": { "name": "a" } }, { "type": "function", "function": { "name": "a" } }]),
    ] {
        add(CHAT, chat(json!({ "tools": tools, "tool_choice": "required" })), 400);
    }
    for choice in [
        json!("required"),
        json!("maybe"),
        json!(5),
        json!({}),
        json!({ "type": "function" }),
        json!({ "type": "function", "function": { "name": "nobody" } }),
    ] {
        add(CHAT, chat(json!({ "tool_choice": choice })), 400);
    }
    // Templates, files and code cannot come with a request.
    for kwargs in [json!({ "chat_template": "{{ 1 }}" }), json!({ "enable_thinking": "yes" }), json!(5)] {
        let status = if kwargs.get("chat_template").is_some() { 200 } else { 400 };
        add(CHAT, chat(json!({ "chat_template_kwargs": kwargs })), status);
    }
    add(CHAT, chat(json!({ "modalities": ["audio"] })), 400);
    add(CHAT, chat(json!({ "stream": "yes" })), 400);
    add(CHAT, chat(json!({ "stream_options": 5 })), 400);
    add(CHAT, chat(json!({ "priority": "first" })), 400);
    add(CHAT, chat(json!({ "reasoning_effort": "huge" })), 400);
    // Other families.
    const MESSAGES: &str = "/v1/messages";
    for more in [
        json!({ "max_tokens": 0 }),
        json!({ "max_tokens": null }),
        json!({ "messages": [] }),
        json!({ "messages": "x" }),
        json!({ "system": 5 }),
        json!({ "temperature": 3 }),
        json!({ "stop_sequences": vec!["x"; 17] }),
        json!({ "messages": [{ "role": "user", "content": [{ "type": "image", "source": {} }] }] }),
        json!({ "tools": [{ "name": "x" }] }),
        json!({ "tools": [{ "type": "bash_20250124", "name": "bash" }] }),
        json!({ "tool_choice": { "type": "tool", "name": "x" }, "tools": [{ "name": "y", "input_schema": {} }] }),
        json!({ "thinking": { "type": "maybe" } }),
    ] {
        add(MESSAGES, messages(more), 400);
    }
    add(MESSAGES, messages(json!({ "model": "nobody" })), 404);
    for input in [
        json!(null),
        json!(5),
        json!([5]),
        json!([{ "type": "item_reference", "id": "x" }]),
        json!([{ "role": "nobody", "content": "x" }]),
        json!([{ "role": "user", "content": [{ "type": "input_image", "image_url": "http://127.0.0.1/" }] }]),
        json!([{ "type": "function_call", "arguments": "{" }]),
    ] {
        add("/v1/responses", json!({ "model": NAME, "input": input }), 400);
    }
    add("/v1/responses", json!({ "model": NAME, "input": "x", "previous_response_id": "resp_nothing" }), 404);
    add("/v1/responses", json!({ "model": NAME, "input": "x", "background": true }), 400);
    for more in [
        json!({ "messages": 5 }),
        json!({ "messages": [{ "role": "nobody", "content": "x" }] }),
        json!({ "options": { "temperature": "hot" } }),
        json!({ "format": "xml" }),
        json!({ "images": 5, "messages": [{ "role": "user", "content": "x", "images": ["aGk="] }] }),
    ] {
        let mut body = json!({ "model": NAME });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        add("/api/chat", body, 400);
    }
    add("/api/chat", json!({ "model": "nobody", "messages": [{ "role": "user", "content": "x" }] }), 404);
    add("/api/pull", json!({ "model": "/etc/passwd" }), 400);
    add("/api/pull", json!({ "model": "http://127.0.0.1:1/x.gguf" }), 400);
    add("/tokenize", json!({ "model": NAME, "content": 5 }), 400);
    add("/detokenize", json!({ "model": NAME, "tokens": [-1] }), 400);
    add("/detokenize", json!({ "model": NAME }), 400);
    for path in
        ["/v1/classify", "/v1/extract", "/v1/answer", "/v1/translate", "/v1/summarize", "/v1/moderations"]
    {
        for body in [
            json!({ "input": 5, "documents": 5, "question": "x", "to": "de" }),
            json!({ "input": [], "documents": [], "question": "x", "to": "de" }),
            json!({ "input": [5], "documents": [5], "question": "x", "to": "de" }),
            json!({ "input": vec!["x"; 3000], "documents": vec!["x"; 3000], "question": "x", "to": "de" }),
        ] {
            add(path, body, 400);
        }
    }
    for more in [
        json!({ "labels": [] }),
        json!({ "labels": vec!["x"; 1000] }),
        json!({ "labels": ["x".repeat(1000)] }),
        json!({ "labels": ["a", "b"], "template": "x".repeat(10_000) }),
        json!({ "top": 0, "labels": ["a", "b"] }),
    ] {
        let mut body = json!({ "model": NAME, "input": "x" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        add("/v1/classify", body, 400);
    }
    for path in
        ["/v1/detect", "/v1/segment", "/v1/depth", "/v1/pose", "/v1/faces", "/v1/ocr", "/v1/images/upscale"]
    {
        for image in [
            json!(5),
            json!({}),
            json!({ "url": 5 }),
            json!("***"),
            json!("aGVsbG8="),
            json!("data:image/png;base64,"),
            json!("http://169.254.169.254/latest/meta-data"),
            json!("file:///etc/passwd"),
        ] {
            add(path, json!({ "image": image }), 400);
        }
        add(path, json!({}), 400);
        add(path, json!({ "image": "aGVsbG8=", "threshold": 1e308, "output": "tiff" }), 400);
    }
    const DRAW: &str = "/v1/images/generations";
    for more in [
        json!({ "prompt": null }),
        json!({ "prompt": 5 }),
        json!({ "prompt": "x".repeat(32_001) }),
        json!({ "n": 0 }),
        json!({ "n": 9 }),
        json!({ "n": huge }),
        json!({ "steps": 0 }),
        json!({ "steps": 151 }),
        json!({ "steps": 1e308 }),
        json!({ "seed": -1 }),
        json!({ "guidance_scale": 1e308 }),
        json!({ "guidance_scale": "NaN" }),
        json!({ "size": "x" }),
        json!({ "size": "0x0" }),
        json!({ "size": "-512x512" }),
        json!({ "size": "99999999999999999999x1" }),
        json!({ "size": "512x512x512" }),
        json!({ "size": 512 }),
        json!({ "response_format": "url" }),
        json!({ "output_format": "gif" }),
        json!({ "background": "transparent" }),
    ] {
        let mut body = json!({ "prompt": "a fox" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        add(DRAW, body.clone(), 400);
        body["image"] = json!("aGVsbG8=");
        add("/v1/images/edits", body, 400);
    }
    add(DRAW, json!({ "prompt": "a fox", "model": NAME }), 400);
    add("/v1/images/edits", json!({ "prompt": "a fox" }), 400);
    add("/v1/images/edits", json!({ "prompt": "a fox", "image": "file:///etc/passwd", "mask": 5 }), 400);
    add("/v1/images/variations", json!({}), 400);
    add("/v1/images/variations", json!({ "image": "***", "strength": 2 }), 400);
    // Bodies that are no JSON.
    let valid = chat(json!({})).to_string();
    let bytes: Vec<(&str, Vec<u8>, u16)> = vec![
        ("empty", vec![], 415),
        ("no JSON", b"hello".to_vec(), 400),
        ("half", valid.as_bytes()[..valid.len() / 2].to_vec(), 400),
        ("trailing", format!("{valid} {valid}").into_bytes(), 400),
        ("list", b"[]".to_vec(), 400),
        ("null", b"null".to_vec(), 400),
        ("not UTF-8", b"{\"messages\":\"\xff\xfe\"}".to_vec(), 400),
        ("byte order mark", [&b"\xef\xbb\xbf"[..], valid.as_bytes()].concat(), 400),
        ("half a surrogate", b"{\"messages\":[{\"role\":\"user\",\"content\":\"\\ud800\"}]}".to_vec(), 400),
        ("NaN", b"{\"messages\":[],\"temperature\":NaN}".to_vec(), 400),
        ("duplicate names", b"{\"messages\":[],\"messages\":[]}".to_vec(), 400),
        ("128 levels", nested(128).into_bytes(), 400),
        ("100,000 levels", nested(100_000).into_bytes(), 400),
        ("a million levels", "[".repeat(1_000_000).into_bytes(), 400),
        ("deep in a field", format!("{{\"messages\":{}}}", nested(5000)).into_bytes(), 400),
        ("NUL", b"\0".to_vec(), 400),
        ("huge number", format!("{{\"n\":{}}}", "9".repeat(10_000)).into_bytes(), 400),
    ];
    rows.extend(bytes.into_iter().map(|(name, body, status)| Row {
        name: name.to_owned(),
        path: CHAT,
        body,
        status,
    }));
    rows
}

fn shaped(path: &str, reply: &Reply) -> bool {
    let body = reply.json();
    match path {
        "/v1/messages" => body["type"] == "error" && body["error"]["message"].is_string(),
        path if path.starts_with("/api/") => body["error"].is_string(),
        _ => {
            let error = &body["error"];
            error["message"].is_string()
                && error["type"].is_string()
                && (error["code"].is_string() || error["code"].is_null())
                && (error["param"].is_string() || error["param"].is_null())
        }
    }
}

#[test]
fn every_hostile_body_is_refused_as_written() {
    let rows = rows();
    assert!(rows.len() >= 200, "{} rows", rows.len());
    let mut wrong = Vec::new();
    for row in &rows {
        let reply = shared().request("POST", row.path, &[], &row.body);
        let right = reply.status == row.status && (reply.status == 200 || shaped(row.path, &reply));
        if !right {
            let text: String = reply.text().chars().take(200).collect();
            wrong.push(format!(
                "{} {}: {} instead of {}: {text}",
                row.path, row.name, reply.status, row.status
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    let after = shared().post("/v1/chat/completions", &chat(json!({})));
    assert_eq!(after.status, 200);
    shared().wait_until_idle();
}

#[test]
fn broken_requests_end_the_connection_and_nothing_else() {
    let host = shared().address;
    let post = |headers: &str, body: &str| {
        format!("POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n{body}")
    };
    let valid = chat(json!({})).to_string();
    let json = "Content-Type: application/json\r\n";
    let rows: Vec<(&str, String, &[u16])> = vec![
        ("no HTTP", "hello\r\n\r\n".to_owned(), &[400]),
        ("no host", "GET /livez HTTP/1.1\r\n\r\n".to_owned(), &[421]),
        ("two hosts", format!("GET /livez HTTP/1.1\r\nHost: {host}\r\nHost: evil.example\r\n\r\n"), &[421]),
        ("huge header", post(&format!("X: {}\r\n", "x".repeat(100_000)), ""), &[431]),
        ("a thousand headers", post(&"X: y\r\n".repeat(1000), ""), &[431]),
        (
            "huge target",
            format!("GET /{} HTTP/1.1\r\nHost: {host}\r\n\r\n", "x".repeat(100_000)),
            &[414, 431],
        ),
        ("two lengths", post(&format!("{json}Content-Length: 5\r\nContent-Length: 6\r\n"), "hello!"), &[400]),
        (
            "length and chunks",
            post(
                &format!("{json}Content-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n"),
                "0\r\n\r\n",
            ),
            &[400],
        ),
        ("bad length", post(&format!("{json}Content-Length: many\r\n"), "x"), &[400]),
        ("too long", post(&format!("{json}Content-Length: 99999999999\r\n"), ""), &[413]),
        ("bad chunk", post(&format!("{json}Transfer-Encoding: chunked\r\n"), "zz\r\n"), &[400]),
        (
            "packed body",
            post(&format!("{json}Content-Encoding: gzip\r\nContent-Length: {}\r\n", valid.len()), &valid),
            &[415],
        ),
        ("packed chunks", post(&format!("{json}Transfer-Encoding: gzip, chunked\r\n"), "0\r\n\r\n"), &[415]),
        (
            "chunks within chunks",
            post(&format!("{json}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), "0\r\n\r\n"),
            &[400],
        ),
        (
            "a form",
            post(&format!("Content-Type: text/plain\r\nContent-Length: {}\r\n", valid.len()), &valid),
            &[415],
        ),
        ("no such route", format!("GET /v1/nothing HTTP/1.1\r\nHost: {host}\r\n\r\n"), &[404]),
        (
            "wrong method",
            format!("PUT /v1/models HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"),
            &[405],
        ),
        ("bad method", format!("GE\0T / HTTP/1.1\r\nHost: {host}\r\n\r\n"), &[400]),
    ];
    for (name, bytes, statuses) in rows {
        // A connection that is simply closed is an answer too.
        if let Some(reply) = shared().raw(bytes.as_bytes()) {
            assert!(statuses.contains(&reply.status), "{name}: {} {}", reply.status, reply.text());
        }
        assert_eq!(shared().get("/livez").status, 200, "{name}");
    }
}

#[test]
fn nothing_is_smuggled_behind_a_body_of_two_lengths() {
    use std::io::{Read, Write};
    let host = shared().address;
    let body = "{\"content\": \"x\"}";
    let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let hidden = format!("GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let (length, chunked) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
    for headers in [format!("{length}{chunked}"), format!("{chunked}{length}")] {
        let mut stream = shared().connect();
        let head = format!(
            "POST /tokenize HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{headers}\r\n"
        );
        stream.write_all(format!("{head}{chunk}{hidden}").as_bytes()).unwrap();
        let mut answer = String::new();
        // Closing with bytes unread may reset the connection.
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.matches("HTTP/1.1").count() <= 1, "{answer}");
    }
}
