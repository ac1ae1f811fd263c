//! What clients get.

use crate::support::{NAME, shared};
use serde_json::{Value, json};

fn ask(more: Value) -> Value {
    let mut body = json!({ "model": NAME, "messages": [{ "role": "user", "content": "Once upon a time" }], "max_tokens": 12, "temperature": 0 });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[test]
fn a_chat_streams_what_it_answers_whole() {
    let whole = shared().post("/v1/chat/completions", &ask(json!({}))).json();
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    assert!(!text.is_empty() && whole["usage"]["completion_tokens"] == 12, "{whole}");
    let reply = shared().post(
        "/chat/completions",
        &ask(json!({ "stream": true, "stream_options": { "include_usage": true } })),
    );
    assert_eq!(reply.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert!(reply.text().ends_with("data: [DONE]\n\n"));
    let events = reply.events();
    let streamed: String =
        events.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(streamed, text);
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let last = &events[events.len() - 1];
    assert!(last["choices"] == json!([]) && last["usage"]["completion_tokens"] == 12);
    assert_eq!(events[events.len() - 2]["choices"][0]["finish_reason"], "length");
    let plain = shared().post("/v1/chat/completions", &ask(json!({ "stream": true }))).events();
    assert!(plain.iter().all(|event| event.get("usage").is_none()));
}

#[test]
fn alone_and_in_a_crowd_the_bytes_are_the_same() {
    let one = |seed: u64| {
        let body = ask(
            json!({ "temperature": 1, "seed": seed, "max_tokens": 40, "logprobs": true, "top_logprobs": 2 }),
        );
        let answer = shared().post("/v1/chat/completions", &body).json();
        answer["choices"].to_string()
    };
    let alone: Vec<String> = (0..6).map(one).collect();
    let crowd: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6).map(|seed| scope.spawn(move || one(seed))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(alone, crowd);
}

#[test]
fn a_schema_is_always_kept() {
    let schema = json!({
        "type": "object",
        "properties": { "name": { "type": "string", "maxLength": 8 }, "age": { "type": "integer", "minimum": 0, "maximum": 99 } },
        "required": ["name", "age"],
        "additionalProperties": false,
    });
    for seed in 0..5 {
        let format = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": schema } });
        let body =
            ask(json!({ "response_format": format, "temperature": 1.5, "seed": seed, "max_tokens": 200 }));
        let answer = shared().post("/v1/chat/completions", &body).json();
        let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
        let value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert!(value["name"].is_string() && value["age"].as_u64().is_some_and(|age| age <= 99), "{value}");
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    }
    type Test = fn(&str) -> bool;
    let forms: [(Value, Test); 3] = [
        (json!({ "regex": "[a-c]{3}-[0-9]{2}" }), |text: &str| text.len() == 6 && text.as_bytes()[3] == b'-'),
        (json!({ "grammar": "start: \"yes\" | \"no\"" }), |text: &str| text == "yes" || text == "no"),
        (json!({ "guided_choice": ["red", "blue"] }), |text: &str| text == "red" || text == "blue"),
    ];
    for (form, test) in forms {
        let answer = shared().post("/v1/chat/completions", &ask(form)).json();
        let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
        assert!(test(text), "{text}");
    }
}

fn tool(name: &str) -> Value {
    // Short, because the model's window is.
    let parameters = json!({ "type": "object", "properties": { "city": { "maxLength": 3, "type": "string" } }, "required": ["city"] });
    json!({ "type": "function", "function": { "name": name, "parameters": parameters } })
}

#[test]
fn a_required_tool_is_called_by_every_api() {
    // The model's window may end inside a call: what is there must be the beginning of one. Whole calls are checked
    // with real clients and a larger model (tools/clients).
    let opening = |arguments: &str| {
        let whole = "{\"city\": \"";
        let plain: String = arguments.split_whitespace().collect();
        let expected: String = whole.split_whitespace().collect();
        assert!(plain.starts_with(&expected) || expected.starts_with(&plain), "{arguments}");
    };
    let choice = json!({ "type": "function", "function": { "name": "b" } });
    let body = ask(json!({ "tools": [tool("b")], "tool_choice": choice, "max_tokens": 100 }));
    let answer = shared().post("/v1/chat/completions", &body).json();
    let message = &answer["choices"][0]["message"];
    assert_eq!(message["tool_calls"][0]["function"]["name"], "b", "{answer}");
    assert!(message["content"].is_null());
    opening(message["tool_calls"][0]["function"]["arguments"].as_str().unwrap());

    let body =
        ask(json!({ "tools": [tool("a")], "tool_choice": "required", "max_tokens": 100, "stream": true }));
    let events = shared().post("/v1/chat/completions", &body).events();
    let calls = events.iter().map(|e| &e["choices"][0]["delta"]["tool_calls"][0]);
    let deltas: Vec<&Value> = calls.filter(|d| !d.is_null()).collect();
    assert!(deltas[0]["id"].as_str().unwrap().starts_with("call_") && deltas[0]["function"]["name"] == "a");
    assert!(deltas.iter().all(|delta| delta["index"] == 0));
    opening(&deltas.iter().filter_map(|delta| delta["function"]["arguments"].as_str()).collect::<String>());
    let content = |e: &Value| e["choices"][0]["delta"]["content"].as_str().unwrap_or("").is_empty();
    assert!(events.iter().all(content));

    let schema = tool("a")["function"]["parameters"].clone();
    let body = json!({
        "model": NAME, "max_tokens": 100, "messages": [{ "role": "user", "content": "x" }],
        "tools": [{ "name": "a", "input_schema": schema }], "tool_choice": { "type": "any" },
    });
    let reply = shared().post("/v1/messages", &body);
    assert!(reply.header("request-id").is_some_and(|id| reply.header("x-request-id") == Some(id)));
    let answer = reply.json();
    assert!(answer["content"][0]["type"] == "tool_use" && answer["content"][0]["name"] == "a", "{answer}");

    let body = json!({
        "model": NAME, "input": "x", "max_output_tokens": 100, "tool_choice": "required",
        "tools": [{ "type": "function", "name": "a", "parameters": schema }, { "type": "web_search" }],
    });
    let answer = shared().post("/v1/responses", &body).json();
    assert_eq!(answer["output"][0]["name"], "a", "{answer}");
    assert!(answer["warnings"][0].as_str().unwrap().contains("web_search"));
}

#[test]
fn an_echo_scores_the_prompt() {
    let body =
        json!({ "model": NAME, "prompt": "Once upon a time", "max_tokens": 0, "echo": true, "logprobs": 2 });
    let answer = shared().post("/v1/completions", &body).json();
    let logprobs = &answer["choices"][0]["logprobs"];
    let scores = logprobs["token_logprobs"].as_array().unwrap();
    assert!(scores[0].is_null() && scores[1..].iter().all(|s| s.as_f64().unwrap() <= 0.0), "{answer}");
    assert!(logprobs["top_logprobs"][1].as_object().unwrap().len() <= 2);
    let ids = shared()
        .post("/tokenize", &json!({ "model": NAME, "content": "Once upon a time", "add_special": true }))
        .json();
    assert_eq!(ids["count"].as_u64().unwrap() as usize, scores.len());
    let by_ids =
        json!({ "model": NAME, "prompt": ids["tokens"], "max_tokens": 0, "echo": true, "logprobs": 2 });
    assert_eq!(shared().post("/v1/completions", &by_ids).json()["choices"][0]["logprobs"], *logprobs);
}

#[test]
fn a_long_prompt_is_found_in_the_cache_the_second_time() {
    let body =
        ask(json!({ "messages": [{ "role": "user", "content": "the cat sat on the mat and ".repeat(25) }] }));
    let first = shared().post("/v1/chat/completions", &body).json();
    let again = shared().post("/v1/chat/completions", &body).json();
    assert!(again["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() >= 64, "{again}");
    assert_eq!(first["choices"][0]["message"], again["choices"][0]["message"]);
}

#[test]
fn fields_without_effect_are_told() {
    let answer = shared()
        .post("/v1/chat/completions", &ask(json!({ "metadata": { "a": "b" }, "frobnicate": 1 })))
        .json();
    let warnings = answer["warnings"].to_string();
    assert!(warnings.contains("metadata") && warnings.contains("frobnicate"), "{warnings}");
}

/// What `path` says of `body` in `warnings`.
fn warned(path: &str, body: Value) -> String {
    let reply = shared().post(path, &body);
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["warnings"].to_string()
}

#[test]
fn fields_that_do_nothing_together_are_told() {
    let schema = json!({ "type": "json_object" });
    let forced = json!({ "tools": [tool("a")], "tool_choice": "required", "response_format": schema });
    let named = json!([{ "role": "user", "content": "Once", "name": "bob", "tool_call_id": "x" }]);
    for (more, field) in [
        (json!({ "stream_options": { "include_usage": true } }), "stream_options"),
        (json!({ "logprobs": false, "top_logprobs": 2 }), "top_logprobs"),
        (json!({ "reasoning_effort": "high" }), "reasoning_effort"),
        (json!({ "chat_template_kwargs": { "enable_thinking": true } }), "chat_template_kwargs"),
        (json!({ "messages": named }), "messages[0].name"),
        (json!({ "messages": named }), "messages[0].tool_call_id"),
        (forced, "response_format"),
    ] {
        let told = warned("/v1/chat/completions", ask(more));
        assert!(told.contains(&format!("`{field}` has no effect")), "{field}: {told}");
    }
    let nothing = warned("/v1/chat/completions", ask(json!({ "reasoning_effort": "none" })));
    assert_eq!(nothing, "null", "there are no thoughts, as asked");
    let told = warned("/v1/messages", ask(json!({ "thinking": { "type": "enabled" } })));
    assert!(told.contains("`thinking` has no effect"), "{told}");
    let begun =
        json!({ "messages": [{ "role": "user", "content": "x" }, { "role": "assistant", "content": "y" }] });
    assert!(warned("/v1/messages", ask(begun)).contains("not continued"));
    let body =
        json!({ "model": NAME, "input": "x", "max_output_tokens": 4, "reasoning": { "effort": "low" } });
    let told = warned("/v1/responses", body);
    assert!(told.contains("`reasoning` has no effect"), "{told}");
    let few = json!({ "num_predict": 2 });
    let body = json!({ "model": NAME, "prompt": "x", "stream": false, "think": true, "options": few });
    assert!(warned("/api/generate", body).contains("`think` has no effect"));
    let body =
        json!({ "model": NAME, "prompt": "x", "stream": false, "raw": true, "system": "y", "options": few });
    assert!(warned("/api/generate", body).contains("`system` has no effect"));
    let answer =
        shared().post("/v1/chat/completions", &ask(json!({ "logprobs": false, "top_logprobs": 2 }))).json();
    assert!(answer["choices"][0]["logprobs"].is_null());
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let schema = json!({ "type": "object" });
    let chat = "/v1/chat/completions";
    let allowed = |tool: &str, mode: &str| {
        let tools = [json!({ "type": "function", "function": { "name": tool } })];
        json!({ "type": "allowed_tools", "allowed_tools": { "mode": mode, "tools": tools } })
    };
    let raw = |more: Value| {
        let mut body = json!({ "model": NAME, "prompt": [1, 2, 3] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for (path, body, param) in [
        (chat, ask(json!({ "regex": "a", "guided_regex": "b" })), "response_format"),
        (
            chat,
            ask(json!({ "grammar": "start: \"a\"", "guided_grammar": "start: \"b\"" })),
            "response_format",
        ),
        (
            chat,
            ask(json!({ "response_format": { "type": "text", "schema": schema } })),
            "response_format.type",
        ),
        (chat, ask(json!({ "tools": [tool("a")], "tool_choice": allowed("b", "auto") })), "tool_choice"),
        (chat, ask(json!({ "tools": [tool("a")], "tool_choice": allowed("a", "maybe") })), "tool_choice"),
        (
            chat,
            ask(json!({ "messages": [{ "role": "user", "content": [{ "type": "text" }] }] })),
            "messages[0].content[0].text",
        ),
        ("/detokenize", json!({ "model": NAME, "tokens": [1, 99_999] }), "tokens"),
        ("/v1/completions", raw(json!({ "suffix": "x" })), "suffix"),
        ("/v1/completions", raw(json!({ "echo": true, "max_tokens": 0, "stream": true })), "stream"),
    ] {
        let reply = shared().post(path, &body);
        assert!(reply.status == 400 && reply.json()["error"]["param"] == param, "{body}: {}", reply.text());
    }
    let reply = shared().post("/v1/messages", &ask(json!({ "tool_choice": { "type": "any" } })));
    assert_eq!(reply.status, 400, "there is nothing to call: {}", reply.text());
}

#[test]
fn what_is_called_unknown_does_nothing() {
    let output = |more: Value| {
        let mut body =
            json!({ "model": NAME, "input": "Once upon a time", "max_output_tokens": 12, "temperature": 0 });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        shared().post("/v1/responses", &body).json()["output"][0]["content"][0]["text"].clone()
    };
    let plain = output(json!({}));
    assert!(plain.as_str().unwrap().contains(' '), "{plain}");
    assert_eq!(output(json!({ "stop": [" "], "top_k": "many" })), plain);
}

#[test]
fn a_response_calls_only_the_tools_it_may() {
    let one = |name: &str| json!({ "type": "function", "name": name });
    let ask = |choice: Value| {
        let body = json!({
            "model": NAME, "input": "x", "max_output_tokens": 40,
            "tools": [one("a"), one("b")], "tool_choice": choice,
        });
        shared().post("/v1/responses", &body).json()
    };
    let of = |tool: Value| json!({ "type": "allowed_tools", "mode": "required", "tools": [tool] });
    let answer = ask(of(one("b")));
    assert_eq!(answer["output"][0]["name"], "b", "{answer}");
    // A tool that names no parameters takes none.
    let arguments = answer["output"][0]["arguments"].as_str().unwrap();
    let arguments: String = arguments.split_whitespace().collect();
    assert!(!arguments.is_empty() && "{}".starts_with(&arguments), "{answer}");
    assert_eq!(ask(of(one("c")))["error"]["param"], "tool_choice");
    assert_eq!(ask(json!({ "type": "function" }))["error"]["param"], "tool_choice.name");
    let answer = ask(json!({ "type": "web_search" }));
    assert!(answer["warnings"].to_string().contains("web_search"), "{answer}");
}

#[test]
fn responses_are_kept_for_their_caller_and_events_are_numbered() {
    let body = json!({ "model": NAME, "input": "Once upon", "max_output_tokens": 8 });
    let first = shared().post("/v1/responses", &body).json();
    let id = first["id"].as_str().unwrap();
    assert_eq!(first["status"], "incomplete");
    let next =
        json!({ "model": NAME, "input": "And then", "previous_response_id": id, "max_output_tokens": 8 });
    let second = shared().post("/v1/responses", &next).json();
    assert!(second["usage"]["input_tokens"].as_u64() > first["usage"]["input_tokens"].as_u64());
    assert_eq!(shared().get(&format!("/v1/responses/{id}")).json()["output"], first["output"]);
    assert_eq!(shared().request("DELETE", &format!("/v1/responses/{id}"), &[], b"").status, 200);
    assert_eq!(shared().get(&format!("/v1/responses/{id}")).status, 404);
    assert_eq!(shared().post("/v1/responses", &next).status, 404);
    let mut stream = body;
    stream["stream"] = json!(true);
    let events = shared().post("/v1/responses", &stream).events();
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    let kinds: Vec<&str> = events.iter().map(|e| e["type"].as_str().unwrap()).collect();
    assert_eq!(
        kinds[..4],
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added"
        ]
    );
    assert_eq!(
        kinds[kinds.len() - 4..],
        [
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.incomplete"
        ]
    );
}

#[test]
fn anthropic_and_ollama_streams_have_their_shapes() {
    let body = json!({ "model": NAME, "max_tokens": 8, "stream": true, "messages": [{ "role": "user", "content": "Once" }] });
    let kinds: Vec<String> = shared()
        .post("/v1/messages", &body)
        .events()
        .iter()
        .map(|e| e["type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds[0], "message_start");
    assert_eq!(kinds[kinds.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
    let count = shared()
        .post(
            "/v1/messages/count_tokens",
            &json!({ "model": NAME, "messages": [{ "role": "user", "content": "Once" }] }),
        )
        .json();
    assert!(count["input_tokens"].as_u64().unwrap() > 0);
    let body = json!({ "model": NAME, "messages": [{ "role": "user", "content": "Once" }], "options": { "num_predict": 6 } });
    let text = shared().post("/api/chat", &body).text();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(
        lines[0]["done"] == false
            && lines[lines.len() - 1]["done"] == true
            && lines[lines.len() - 1]["eval_count"] == 6
    );
}

#[test]
fn anthropic_is_told_which_stop_sequence_ended_the_message() {
    let body = |stop: &str| {
        let mut body = ask(json!({ "stop_sequences": ["qq", stop] }));
        body["max_tokens"] = json!(40);
        body
    };
    let message = shared().post("/v1/messages", &body(" ")).json();
    assert!(message["stop_reason"] == "stop_sequence" && message["stop_sequence"] == " ", "{message}");
    let mut streamed = body(" ");
    streamed["stream"] = json!(true);
    let events = shared().post("/v1/messages", &streamed).events();
    let delta = &events.iter().find(|event| event["type"] == "message_delta").unwrap()["delta"];
    assert!(delta["stop_reason"] == "stop_sequence" && delta["stop_sequence"] == " ", "{delta}");
    let message = shared().post("/v1/messages", &body("zz")).json();
    assert!(message["stop_reason"] != "stop_sequence" && message["stop_sequence"].is_null(), "{message}");
}

#[test]
fn models_are_listed_and_described() {
    let list = shared().get("/v1/models").json();
    let model = list["data"].as_array().unwrap().iter().find(|m| m["id"] == NAME).unwrap().clone();
    assert!(model["status"] == "loaded" && model["context_length"].as_u64().unwrap() > 0);
    assert_eq!(shared().get(&format!("/models/{NAME}")).json()["id"], NAME);
    assert_eq!(shared().get("/v1/models/no/such%2Fmodel").status, 404);
}

#[test]
fn the_description_names_every_route_and_is_the_golden_one() {
    let served = shared().get("/openapi.json").json();
    let text = serde_json::to_string_pretty(&served).unwrap() + "\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    if std::env::var_os("KUN_BLESS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    assert!(golden == text, "openapi.json is out of date: KUN_BLESS=1 cargo test -p kun-server writes it");
}
