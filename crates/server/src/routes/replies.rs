//! What every route answers, as JSON schemas for `openapi.json`. Clients read no more than this, so more may come.

use serde_json::{Map, Value, json};

fn text() -> Value {
    json!({ "type": "string" })
}

fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn number() -> Value {
    json!({ "type": "number" })
}

fn word(only: &str) -> Value {
    json!({ "const": only })
}

fn words(any: &[&str]) -> Value {
    json!({ "enum": any })
}

fn flag() -> Value {
    json!({ "type": "boolean" })
}

fn or_null(schema: Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

fn list(of: Value) -> Value {
    json!({ "type": "array", "items": of })
}

fn map(of: Value) -> Value {
    json!({ "type": "object", "additionalProperties": of })
}

/// An object that holds all of `fields`; those whose name ends with `?` may be absent.
fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, schema) in fields {
        let bare = name.trim_end_matches('?');
        if bare == name {
            required.push(bare.to_owned());
        }
        properties.insert(bare.to_owned(), schema);
    }
    json!({ "type": "object", "properties": properties, "required": required })
}

/// An object with what fields had no effect.
fn answer<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let mut schema = object(fields);
    schema["properties"]["warnings"] = list(text());
    schema
}

fn listed(of: Value) -> Value {
    answer([("object", word("list")), ("model", text()), ("data", list(of))])
}

fn usage() -> Value {
    object([
        ("prompt_tokens", count()),
        ("completion_tokens", count()),
        ("total_tokens", count()),
        ("prompt_tokens_details", object([("cached_tokens", count())])),
        ("completion_tokens_details", object([("reasoning_tokens", count())])),
    ])
}

fn chat() -> Value {
    let call = object([
        ("id", text()),
        ("type", word("function")),
        ("function", object([("name", text()), ("arguments", text())])),
    ]);
    let message = object([
        ("role", word("assistant")),
        ("content", or_null(text())),
        ("refusal", json!({ "type": "null" })),
        ("reasoning_content?", text()),
        ("tool_calls?", list(call)),
    ]);
    let choice = object([
        ("index", count()),
        ("message", message),
        ("logprobs", or_null(object([("content", list(token_logprob()))]))),
        ("finish_reason", words(&["stop", "length", "tool_calls"])),
    ]);
    answer([
        ("id", text()),
        ("object", word("chat.completion")),
        ("created", count()),
        ("model", text()),
        ("choices", list(choice)),
        ("usage", usage()),
    ])
}

fn token_logprob() -> Value {
    let one = |more: Option<Value>| {
        let mut schema = object([
            ("token", text()),
            ("logprob", number()),
            ("bytes", list(json!({ "type": "integer", "minimum": 0, "maximum": 255 }))),
        ]);
        if let Some(more) = more {
            schema["properties"]["top_logprobs"] = more;
        }
        schema
    };
    one(Some(list(one(None))))
}

fn completion() -> Value {
    let logprobs = object([
        ("tokens", list(text())),
        ("token_logprobs", list(or_null(number()))),
        ("top_logprobs", or_null(list(or_null(map(number()))))),
        ("text_offset", list(count())),
    ]);
    let choice = object([
        ("index", count()),
        ("text", text()),
        ("logprobs", or_null(logprobs)),
        ("finish_reason", words(&["stop", "length"])),
    ]);
    answer([
        ("id", text()),
        ("object", word("text_completion")),
        ("created", count()),
        ("model", text()),
        ("choices", list(choice)),
        ("usage", usage()),
    ])
}

fn response() -> Value {
    let usage = object([
        ("input_tokens", count()),
        ("input_tokens_details", object([("cached_tokens", count())])),
        ("output_tokens", count()),
        ("output_tokens_details", object([("reasoning_tokens", count())])),
        ("total_tokens", count()),
    ]);
    let item = object([("type", words(&["message", "reasoning", "function_call"])), ("id", text())]);
    answer([
        ("id", text()),
        ("object", word("response")),
        ("created_at", count()),
        ("status", words(&["completed", "incomplete", "failed", "in_progress"])),
        ("error", or_null(json!({ "type": "object" }))),
        ("incomplete_details", or_null(object([("reason", text())]))),
        ("model", text()),
        ("output", list(item)),
        ("usage", or_null(usage)),
    ])
}

fn message() -> Value {
    let block = object([("type", words(&["text", "thinking", "tool_use"]))]);
    let usage = object([
        ("input_tokens", count()),
        ("cache_read_input_tokens", count()),
        ("cache_creation_input_tokens", count()),
        ("output_tokens", count()),
    ]);
    answer([
        ("id", text()),
        ("type", word("message")),
        ("role", word("assistant")),
        ("model", text()),
        ("content", list(block)),
        ("stop_reason", words(&["end_turn", "max_tokens", "stop_sequence", "tool_use"])),
        ("stop_sequence", or_null(text())),
        ("usage", usage),
    ])
}

fn file() -> Value {
    object([
        ("id", text()),
        ("object", word("file")),
        ("bytes", count()),
        ("created_at", count()),
        ("filename", text()),
        ("purpose", words(&["batch", "batch_output"])),
    ])
}

fn batch() -> Value {
    let states = [
        "validating",
        "failed",
        "in_progress",
        "finalizing",
        "completed",
        "expired",
        "cancelling",
        "cancelled",
    ];
    object([
        ("id", text()),
        ("object", word("batch")),
        ("endpoint", text()),
        ("errors", or_null(json!({ "type": "object" }))),
        ("input_file_id", text()),
        ("completion_window", text()),
        ("status", words(&states)),
        ("output_file_id", or_null(text())),
        ("error_file_id", or_null(text())),
        ("created_at", count()),
        ("request_counts", object([("total", count()), ("completed", count()), ("failed", count())])),
        ("metadata", or_null(json!({ "type": "object" }))),
    ])
}

fn page(of: Value) -> Value {
    let id = or_null(text());
    object([
        ("object", word("list")),
        ("data", list(of)),
        ("first_id", id.clone()),
        ("last_id", id),
        ("has_more", flag()),
    ])
}

fn model() -> Value {
    object([
        ("id", text()),
        ("object", word("model")),
        ("created", count()),
        ("owned_by", text()),
        ("status", words(&["available", "loading", "loaded"])),
        ("license", or_null(text())),
        ("revision", or_null(text())),
        ("digest", or_null(text())),
        ("type?", text()),
        ("task?", or_null(text())),
        ("context_length?", count()),
        ("max_model_len?", count()),
        ("max_output_tokens?", count()),
        ("capabilities?", list(text())),
        ("architecture?", json!({ "type": "object" })),
        ("quantization?", text()),
        ("parameters?", count()),
    ])
}

fn ollama_model() -> Value {
    object([("name", text()), ("model", text()), ("modified_at", text()), ("size", count())])
}

/// The last document of an Ollama answer, which is the only one without a stream.
fn ollama(more: (&str, Value)) -> Value {
    answer([
        ("model", text()),
        ("created_at", text()),
        ("done", flag()),
        ("done_reason?", text()),
        ("eval_count?", count()),
        ("prompt_eval_count?", count()),
        more,
    ])
}

fn picture_facts() -> Value {
    answer([("model", text())])
}

fn made_picture() -> Value {
    answer([("model", text()), ("created", count()), ("data", list(object([("b64_json", text())])))])
}

fn drawn_pictures() -> Value {
    answer([
        ("model", text()),
        ("created", count()),
        ("size", text()),
        ("output_format", text()),
        ("data", list(object([("b64_json", text()), ("seed", count())]))),
    ])
}

/// Media types of the answer of a route and their schemas.
fn contents(verb: &str, path: &str) -> Option<Vec<(&'static str, Value)>> {
    const JSON: &str = "application/json";
    const EVENTS: &str = "text/event-stream";
    const LINES: &str = "application/x-ndjson";
    let json = |schema: Value| vec![(JSON, schema)];
    let events = |schema: Value| vec![(JSON, schema), (EVENTS, text())];
    let lines = |schema: Value| vec![(JSON, schema), (LINES, text())];
    let picture = |schema: Value| {
        let mut all = vec![(JSON, schema)];
        all.extend(["image/png", "image/jpeg", "image/webp"].map(|kind| (kind, text())));
        all
    };
    Some(match (verb, path) {
        ("get", "/livez" | "/readyz" | "/health") => json(object([("status", word("ok"))])),
        ("get", "/metrics") => vec![("text/plain", text())],
        ("get", "/v1/limits" | "/openapi.json") => json(json!({ "type": "object" })),
        ("get", "/v1/models") => json(object([("object", word("list")), ("data", list(model()))])),
        ("get", "/v1/models/{id}") => json(model()),
        ("post", "/v1/chat/completions") => events(chat()),
        ("post", "/v1/completions") => events(completion()),
        ("post", "/v1/embeddings") => json(answer([
            ("object", word("list")),
            ("model", text()),
            (
                "data",
                list(object([
                    ("object", word("embedding")),
                    ("index", count()),
                    ("embedding", json!({ "anyOf": [list(number()), text()] })),
                ])),
            ),
            ("usage", object([("prompt_tokens", count()), ("total_tokens", count())])),
        ])),
        ("post", "/v1/rerank" | "/v2/rerank") => json(answer([
            ("id", text()),
            ("model", text()),
            ("results", list(object([("index", count()), ("relevance_score", number())]))),
        ])),
        ("post", "/api/embed") => json(answer([("model", text()), ("embeddings", list(list(number())))])),
        ("post", "/api/embeddings") => json(answer([("embedding", or_null(list(number())))])),
        ("post", "/v1/classify") => {
            picture(answer([("model", text()), ("data?", list(json!({ "type": "object" })))]))
        }
        ("post", "/v1/detect" | "/v1/segment" | "/v1/depth" | "/v1/pose" | "/v1/faces" | "/v1/ocr") => {
            picture(picture_facts())
        }
        ("post", "/v1/images/generations" | "/v1/images/edits" | "/v1/images/variations") => {
            events(drawn_pictures())
        }
        ("post", path) if path.starts_with("/v1/images/") => picture(made_picture()),
        ("post", "/v1/extract") => json(listed(object([
            ("index", count()),
            (
                "entities",
                list(object([("label", text()), ("score", number()), ("start", count()), ("end", count())])),
            ),
        ]))),
        ("post", "/v1/answer") => json(listed(object([
            ("index", count()),
            (
                "answers",
                list(object([("answer", text()), ("score", number()), ("start", count()), ("end", count())])),
            ),
        ]))),
        ("post", "/v1/translate" | "/v1/summarize") => {
            json(listed(object([("index", count()), ("text", text())])))
        }
        ("post", "/v1/moderations") => json(answer([
            ("id", text()),
            ("model", text()),
            (
                "results",
                list(object([
                    ("flagged", flag()),
                    ("categories", map(flag())),
                    ("category_scores", map(number())),
                ])),
            ),
        ])),
        ("post", "/v1/responses") => events(response()),
        ("get", "/v1/responses/{id}") => json(response()),
        ("delete", "/v1/responses/{id}") => {
            json(object([("id", text()), ("object", word("response")), ("deleted", flag())]))
        }
        ("post", "/v1/responses/{id}/cancel") => json(response()),
        ("post", "/v1/responses/input_tokens") => {
            json(answer([("object", word("response.input_tokens")), ("input_tokens", count())]))
        }
        ("post", "/v1/files") | ("get", "/v1/files/{id}") => json(file()),
        ("get", "/v1/files") => json(page(file())),
        ("get", "/v1/files/{id}/content") => vec![("application/jsonl", text())],
        ("delete", "/v1/files/{id}") => {
            json(object([("id", text()), ("object", word("file")), ("deleted", flag())]))
        }
        ("post", "/v1/batches" | "/v1/batches/{id}/cancel") | ("get", "/v1/batches/{id}") => json(batch()),
        ("get", "/v1/batches") => json(page(batch())),
        ("post", "/v1/messages") => events(message()),
        ("post", "/v1/messages/count_tokens") => json(answer([("input_tokens", count())])),
        ("get", "/api/version") => json(object([("version", text())])),
        ("get", "/api/tags" | "/api/ps") => json(object([("models", list(ollama_model()))])),
        ("post", "/api/show") => json(answer([
            ("details", json!({ "type": "object" })),
            ("model_info", json!({ "type": "object" })),
            ("capabilities", list(text())),
        ])),
        ("post", "/api/chat") => lines(ollama(("message", object([("role", text()), ("content", text())])))),
        ("post", "/api/generate") => lines(ollama(("response", text()))),
        ("post", "/api/pull") => lines(answer([("status", text())])),
        ("delete", "/api/delete") => json(answer([("status", text())])),
        ("get", "/v1/status") => json(object([
            ("version", text()),
            ("admin", flag()),
            ("default_model", text()),
            ("in_flight", count()),
            ("slots", count()),
            ("memory", object([("used_bytes", count()), ("budget_bytes", count())])),
            ("models", list(object([("name", text()), ("progress", number()), ("memory_bytes", count())]))),
            ("catalog", list(object([("name", text()), ("task", text())]))),
        ])),
        ("post", "/v1/models/load") => {
            json(answer([("model", text()), ("status", word("loaded")), ("memory_bytes", count())]))
        }
        ("post", "/v1/models/unload") => {
            json(answer([("model", text()), ("status", word("available")), ("was_loaded", flag())]))
        }
        ("get", "/") => vec![("text/html", text())],
        ("get", path) if path.ends_with(".js") => vec![("text/javascript", text())],
        ("get", path) if path.ends_with(".css") => vec![("text/css", text())],
        ("get", path) if path.ends_with(".svg") => vec![("image/svg+xml", text())],
        ("post", "/tokenize") => {
            json(answer([("tokens", list(count())), ("count", count()), ("max_model_len", count())]))
        }
        ("get", "/tokenizer_info") => {
            json(answer([("model", text()), ("bos_token", or_null(text())), ("eos_token", or_null(text()))]))
        }
        ("post", "/detokenize") => json(answer([("content", text()), ("prompt", text())])),
        _ => return None,
    })
}

/// The `responses` of an operation.
pub(super) fn responses(verb: &str, path: &str) -> Value {
    let content: Map<String, Value> = contents(verb, path)
        .unwrap_or_default()
        .into_iter()
        .map(|(kind, schema)| (kind.to_owned(), json!({ "schema": schema })))
        .collect();
    let dialect = match super::dialect_of(path) {
        crate::error::Dialect::OpenAi => "Error",
        crate::error::Dialect::Anthropic => "AnthropicError",
        crate::error::Dialect::Ollama => "OllamaError",
    };
    json!({
        "200": { "description": "The answer", "content": content },
        "default": { "$ref": format!("#/components/responses/{dialect}") },
    })
}

/// The shapes of errors.
pub(super) fn errors() -> Value {
    let response = |schema: Value| json!({ "description": "What is wrong", "content": { "application/json": { "schema": schema } } });
    let openai = object([
        ("message", text()),
        ("type", text()),
        ("param", or_null(text())),
        ("code", or_null(text())),
    ]);
    json!({
        "Error": response(object([("error", openai)])),
        "AnthropicError": response(object([
            ("type", word("error")),
            ("error", object([("type", text()), ("message", text())])),
        ])),
        "OllamaError": response(object([("error", text())])),
    })
}

#[cfg(test)]
mod tests {
    use super::contents;
    use crate::routes::ROUTES;

    #[test]
    fn every_route_says_what_it_answers() {
        for route in ROUTES {
            assert!(contents(route.verb.word(), route.path).is_some(), "{}", route.path);
        }
    }
}
