//! `/v1/responses`.

mod events;
mod stored;

pub(crate) use stored::Stored;

use crate::answer::{Answers, Delivery, Step, random_id};
use crate::app::Chosen;
use crate::error::{Kind, Refusal};
use crate::openai::chat::{Counts, Message, content, thoughts_need_a_model};
use crate::openai::sampling::{self, SEED, TEMPERATURE, TOP_P};
use crate::openai::tools::{self, tool_of, word_choice};
use crate::routes::{Call, Reply, json_response};
use crate::schema::{
    COUNT, Field, MAX_MESSAGES, MAX_TOOLS, NAME, Shape, TEXT, TEXT_ALONE, accepted, ignored, optional,
    required, short,
};
use kun_engine::{
    ChatMessage, Constraint, FinishReason, GenerateRequest, Prompt, Role, ToolCall, ToolChoice, ToolUse,
};
use serde_json::{Map, Value, json};
use std::time::UNIX_EPOCH;

const INPUT: &[Field] = &[
    optional("model", NAME, "Which model; none: the default one"),
    required(
        "input",
        Shape::Either(&[&TEXT, &Shape::List { of: &Shape::AnyObject, least: 0, most: MAX_MESSAGES }]),
        "A question, or the items of a conversation",
    ),
    optional("instructions", TEXT, "Instructions before the conversation"),
    optional("previous_response_id", NAME, "Continue after this response, which was stored"),
    optional(
        "tools",
        Shape::List { of: &Shape::AnyObject, least: 0, most: MAX_TOOLS },
        "Tools; those of other types than `function` are left out",
    ),
    optional(
        "tool_choice",
        Shape::Either(&[&Shape::Word(&["none", "auto", "required"]), &Shape::AnyObject]),
        "Whether and what the model must call",
    ),
    optional("parallel_tool_calls", Shape::Bool, "Whether several tools may be called at once; default true"),
    optional(
        "text",
        Shape::Object(&[&[
            optional(
                "format",
                Shape::Object(&[&[
                    required(
                        "type",
                        Shape::Word(&["text", "json_object", "json_schema"]),
                        "The form of the answer",
                    ),
                    optional("schema", Shape::JsonSchema, "With `json_schema`"),
                    accepted("name", "Its name"),
                    accepted("description", "What it is for"),
                    accepted("strict", "Always so"),
                ]]),
                "The answer is held to this form",
            ),
            ignored("verbosity", "Ask in words"),
        ]]),
        "The form of the answer",
    ),
    optional(
        "reasoning",
        Shape::Object(&[&[
            optional(
                "effort",
                Shape::Word(&["none", "minimal", "low", "medium", "high", "xhigh"]),
                "`none` switches thinking off",
            ),
            accepted("summary", "Thoughts are given as they are"),
            accepted("generate_summary", "As above"),
        ]]),
        "Whether the model thinks first",
    ),
];
pub(crate) const COUNT_FIELDS: &[&[Field]] = &[INPUT];
pub(crate) const FIELDS: &[&[Field]] = &[
    INPUT,
    &[
        optional("stream", Shape::Bool, "Answer piece by piece, as server-sent events"),
        optional("max_output_tokens", COUNT, "Most tokens of the answer"),
        TEMPERATURE,
        TOP_P,
        SEED,
        optional("store", Shape::Bool, "Keep the response for later requests, in memory; default true"),
        optional("metadata", Shape::Map { of: &TEXT, most: 16 }, "Given back as it is"),
        optional(
            "truncation",
            Shape::Word(&["disabled", "auto"]),
            "Nothing is ever cut: too long is an error",
        ),
        optional("background", Shape::Bool, "Only false: a response ends with its request"),
        ignored("include", "Ask /v1/chat/completions for log-probabilities"),
        accepted("user", "Whoever the caller asks for"),
        accepted("safety_identifier", "Whoever the caller asks for"),
        accepted("prompt_cache_key", "Prompts are cached by themselves"),
        accepted("prompt_cache_retention", "Prompts are cached by themselves"),
        ignored("client_metadata", "Not read"),
        accepted("stream_options", "Nothing is padded"),
        ignored("service_tier", "There is one tier"),
        ignored("top_logprobs", "Ask /v1/chat/completions"),
        ignored("max_tool_calls", "No tool runs at the server"),
    ],
];

/// What every form of a response repeats.
struct Response {
    id: String,
    created: u64,
    model: String,
    echo: Map<String, Value>,
}

pub(crate) fn create(mut call: Call) -> Reply {
    Box::pin(async move {
        let (chosen, permits) = call.decoder(1).await?;
        let (mut request, messages) = request(&mut call)?;
        if call.flag("background") {
            let what = "`background` is true: a response ends with its request";
            return Err(Refusal::invalid("background", what).code("invalid_value"));
        }
        if call.text("truncation") == Some("auto") {
            call.warnings.add("`truncation` has no effect: what is too long is refused, never cut");
        }
        request.max_tokens = call.count("max_output_tokens");
        thoughts_need_a_model(&mut call, &chosen, &request, &["reasoning"]);
        if tools::overrule_form(&request) {
            call.warnings.add(format!("`text.format` has no effect: {}", tools::CALLED));
        }
        let delivery = Delivery::streamed(call.flag("stream"));
        let answers = Answers::start(&call, &chosen, permits, vec![request], delivery).await?;
        let response = Response::new(&call, &chosen);
        let store = call.get("store").and_then(Value::as_bool).unwrap_or(true);
        if call.flag("stream") {
            return Ok(events::stream(&call, response, answers, store.then_some(messages)));
        }
        let (document, message) = collect(&response, answers).await?;
        if store {
            stored::keep(&call.app, call.tenant, &response.id, messages, message, &document);
        }
        Ok(call.json(document))
    })
}

pub(crate) fn count(mut call: Call) -> Reply {
    Box::pin(async move {
        let (app, name) = (call.app.clone(), call.model());
        let (request, _) = request(&mut call)?;
        let tokens =
            call.in_place(move || Ok(app.decoder(&name)?.model.chat_tokens(&request)?.len())).await?;
        Ok(call.json(json!({ "object": "response.input_tokens", "input_tokens": tokens })))
    })
}

pub(crate) fn show(call: Call) -> Reply {
    Box::pin(async move {
        let found = stored::find(&call.app, call.tenant, &call.id).ok_or_else(|| missing(&call.id))?;
        Ok(json_response(&found.document))
    })
}

pub(crate) fn delete(call: Call) -> Reply {
    Box::pin(async move {
        if !stored::remove(&call.app, call.tenant, &call.id) {
            return Err(missing(&call.id));
        }
        Ok(json_response(&json!({ "id": call.id, "object": "response", "deleted": true })))
    })
}

/// Responses are made while their request is open: there is nothing left to cancel.
pub(crate) fn cancel(call: Call) -> Reply {
    Box::pin(async move {
        stored::find(&call.app, call.tenant, &call.id).ok_or_else(|| missing(&call.id))?;
        Err(Refusal::invalid(
            "response_id",
            "Only background responses can be cancelled, and this one has ended.",
        ))
    })
}

fn missing(id: &str) -> Refusal {
    let id: String = id.chars().take(100).collect();
    Refusal {
        kind: Kind::NotFound,
        ..Refusal::invalid("response_id", format!("No response `{id}` is stored."))
    }
}

/// The request and the conversation that it continues, the instructions left out.
fn request(call: &mut Call) -> Result<(GenerateRequest, Vec<ChatMessage>), Refusal> {
    let mut messages = match call.text("previous_response_id") {
        Some(id) => {
            let found = stored::find(&call.app, call.tenant, id);
            found
                .ok_or_else(|| Refusal { param: Some("previous_response_id".to_owned()), ..missing(id) })?
                .messages
        }
        None => Vec::new(),
    };
    let mut without_effect = Vec::new();
    match call.get("input") {
        Some(Value::String(text)) => messages.push(ChatMessage::new(Role::User, text.clone())),
        Some(Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                read_item(index, item, &mut messages)?;
                without_effect.extend(unread(index, item));
            }
        }
        _ => {}
    }
    call.warnings.extend(without_effect);
    let mut all = Vec::new();
    all.extend(
        call.text("instructions")
            .filter(|text| !text.is_empty())
            .map(|text| ChatMessage::new(Role::System, text)),
    );
    all.extend(messages.iter().cloned());
    let mut request = sampling::request(call, Prompt::Chat(all))?;
    request.tools = tool_use(call)?;
    let format = call.get("text").map_or(&Value::Null, |text| &text["format"]);
    request.constraint = match (format["type"].as_str(), format.get("schema")) {
        (Some("json_object"), _) => Some(Constraint::JsonObject),
        (Some("json_schema"), Some(schema)) => Some(Constraint::JsonSchema(schema.clone())),
        (Some("json_schema"), None) => {
            return Err(Refusal::invalid(
                "text.format.schema",
                "Missing required parameter: `text.format.schema`",
            ));
        }
        _ => None,
    };
    let effort = call.get("reasoning").and_then(|reasoning| reasoning["effort"].as_str());
    request.template_variables =
        effort.map(|effort| ("enable_thinking".to_owned(), effort != "none")).into_iter().collect();
    Ok((request, messages))
}

/// Fields of an item that have no effect.
fn unread(index: usize, item: &Value) -> Vec<String> {
    let known: &[&str] = match item["type"].as_str().unwrap_or("message") {
        "message" => &["role", "content", "phase"],
        "function_call" => &["call_id", "name", "arguments"],
        "function_call_output" => &["call_id", "output"],
        _ => &["summary", "content", "encrypted_content"],
    };
    let names = item.as_object().into_iter().flat_map(Map::keys);
    let unknown = names
        .filter(|name| !known.contains(&name.as_str()) && !["type", "id", "status"].contains(&name.as_str()));
    unknown.map(|name| format!("`input[{index}].{}` has no effect", short(name))).collect()
}

fn read_item(index: usize, item: &Value, messages: &mut Vec<ChatMessage>) -> Result<(), Refusal> {
    let at = |name: &str| format!("input[{index}].{name}");
    let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
    match item["type"].as_str().unwrap_or("message") {
        "message" => {
            let role = match item["role"].as_str() {
                Some("system" | "developer") => Role::System,
                Some("assistant") => Role::Assistant,
                Some("user") => Role::User,
                _ => {
                    return Err(Refusal::invalid(
                        &at("role"),
                        format!("`{}` must be user, assistant, system or developer", at("role")),
                    ));
                }
            };
            let parts = item["content"].as_array().map(Vec::as_slice).unwrap_or_default();
            if let Some(part) = parts.iter().find(|part| {
                !matches!(part["type"].as_str(), Some("input_text" | "output_text" | "text" | "refusal"))
            }) {
                let kind = part["type"].to_string();
                return Err(Refusal::invalid(
                    &at("content"),
                    format!("parts of type {} are not understood: {TEXT_ALONE}", short(&kind)),
                ));
            }
            let content = content(&item["content"]).ok_or_else(|| {
                Refusal::invalid(&at("content"), format!("Missing required parameter: `{}`", at("content")))
            })?;
            messages.push(ChatMessage::new(role, content));
        }
        "function_call" => {
            let arguments = text("arguments");
            let arguments = if arguments.trim().is_empty() { "{}".to_owned() } else { arguments };
            let arguments = crate::http::body::parse(arguments.as_bytes()).map_err(|_| {
                Refusal::invalid(&at("arguments"), format!("`{}` is not valid JSON", at("arguments")))
            })?;
            let call = ToolCall { id: text("call_id"), name: text("name"), arguments };
            match messages.last_mut() {
                Some(last) if last.role == Role::Assistant => last.calls.push(call),
                _ => {
                    let mut message = ChatMessage::new(Role::Assistant, "");
                    message.calls.push(call);
                    messages.push(message);
                }
            }
        }
        "function_call_output" => {
            let id = text("call_id");
            let mut calls = messages.iter().flat_map(|message| &message.calls);
            let name = calls.rfind(|call| call.id == id).map(|call| call.name.clone()).unwrap_or_default();
            let output = content(&item["output"]).unwrap_or_else(|| item["output"].to_string());
            let mut message = ChatMessage::new(Role::Tool, output);
            message.answers = Some((id, name));
            messages.push(message);
        }
        // Thoughts of earlier turns are not given to the model again.
        "reasoning" => {}
        other => {
            let what = format!("items of type `{}` are not understood", short(other));
            return Err(Refusal::invalid(&at("type"), what));
        }
    }
    Ok(())
}

fn tool_use(call: &mut Call) -> Result<Option<ToolUse>, Refusal> {
    let given = call.get("tools").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut tools = Vec::new();
    for (index, tool) in given.iter().enumerate() {
        if tool["type"] == "function" {
            if tool["name"].as_str().is_none() {
                let at = format!("tools[{index}].name");
                return Err(Refusal::invalid(&at, format!("Missing required parameter: `{at}`")));
            }
            tools.push(tool_of(tool));
        } else {
            let kind = short(tool["type"].as_str().unwrap_or("?"));
            call.warnings.add(format!("`tools[{index}]`: there is no tool of type `{kind}` here"));
        }
    }
    let choice = match call.get("tool_choice") {
        None => ToolChoice::Auto,
        Some(Value::String(word)) => word_choice(word),
        Some(value) if value["type"] == "allowed_tools" => tools::allow(&mut tools, value)?,
        Some(value) if value["type"] == "function" => match value["name"].as_str() {
            Some(name) => ToolChoice::Named(name.to_owned()),
            None => {
                let at = "tool_choice.name";
                return Err(Refusal::invalid(at, format!("Missing required parameter: `{at}`")));
            }
        },
        Some(value) => {
            let kind = short(value["type"].as_str().unwrap_or("?")).to_owned();
            call.warnings.add(format!("`tool_choice`: there is no tool of type `{kind}` here"));
            ToolChoice::Auto
        }
    };
    if tools.is_empty() && matches!(choice, ToolChoice::Auto | ToolChoice::None) {
        return Ok(None);
    }
    let parallel = call.get("parallel_tool_calls").and_then(Value::as_bool).unwrap_or(true);
    Ok(Some(ToolUse { tools, choice, parallel }))
}

impl Response {
    fn new(call: &Call, chosen: &Chosen) -> Response {
        let or = |name: &str, default: Value| call.get(name).cloned().unwrap_or(default);
        let echo = json!({
            "instructions": or("instructions", Value::Null),
            "previous_response_id": or("previous_response_id", Value::Null),
            "max_output_tokens": or("max_output_tokens", Value::Null),
            "temperature": or("temperature", json!(1.0)),
            "top_p": or("top_p", json!(1.0)),
            "tools": or("tools", json!([])),
            "tool_choice": or("tool_choice", json!("auto")),
            "parallel_tool_calls": or("parallel_tool_calls", json!(true)),
            "text": or("text", json!({ "format": { "type": "text" } })),
            "reasoning": or("reasoning", json!({ "effort": null, "summary": null })),
            "metadata": or("metadata", json!({})),
            "store": or("store", json!(true)),
            "truncation": "disabled",
            "background": false,
            "user": or("user", Value::Null),
        });
        let mut echo = match echo {
            Value::Object(echo) => echo,
            _ => Map::new(),
        };
        if !call.warnings.0.is_empty() {
            echo.insert("warnings".to_owned(), json!(call.warnings.0));
        }
        Response {
            id: format!("resp_{}", random_id()),
            created: UNIX_EPOCH.elapsed().unwrap_or_default().as_secs(),
            model: chosen.name.clone(),
            echo,
        }
    }

    fn document(&self, status: &str, output: &[Value], counts: Option<&Counts>, error: Value) -> Value {
        let usage = counts.map(|counts| {
            json!({
                "input_tokens": counts.prompt,
                "input_tokens_details": { "cached_tokens": counts.cached },
                "output_tokens": counts.completion,
                "output_tokens_details": { "reasoning_tokens": counts.reasoning },
                "total_tokens": counts.prompt + counts.completion,
            })
        });
        let incomplete = (status == "incomplete").then(|| json!({ "reason": "max_output_tokens" }));
        let mut document = json!({
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "error": error,
            "incomplete_details": incomplete,
            "model": self.model,
            "output": output,
            "usage": usage,
        });
        if let Some(document) = document.as_object_mut() {
            document.extend(self.echo.clone());
        }
        document
    }
}

fn status(reason: FinishReason) -> &'static str {
    if reason == FinishReason::Length { "incomplete" } else { "completed" }
}

fn text_part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

/// The items of a whole message.
fn items(message: &Message) -> Vec<Value> {
    let mut items = Vec::new();
    if !message.reasoning.is_empty() {
        items.push(json!({
            "type": "reasoning",
            "id": format!("rs_{}", random_id()),
            "summary": [],
            "content": [{ "type": "reasoning_text", "text": message.reasoning }],
        }));
    }
    if !message.text.trim().is_empty() || message.calls.is_empty() {
        items.push(json!({
            "type": "message",
            "id": format!("msg_{}", random_id()),
            "role": "assistant",
            "status": "completed",
            "content": [text_part(&message.text)],
        }));
    }
    for (id, name, arguments) in &message.calls {
        items.push(json!({
            "type": "function_call",
            "id": format!("fc_{}", random_id()),
            "call_id": id,
            "name": name,
            "arguments": if arguments.is_empty() { "{}" } else { arguments },
            "status": "completed",
        }));
    }
    items
}

async fn collect(response: &Response, mut answers: Answers) -> Result<(Value, Message), Refusal> {
    let mut message = Message::default();
    let (mut counts, mut end) = (Counts::default(), "completed");
    while let Some((_, step)) = answers.next().await {
        match step? {
            Step::Pieces { pieces, .. } => pieces.into_iter().for_each(|piece| message.add(piece)),
            Step::End { reason, usage, thoughts, .. } => {
                counts.add(&usage, thoughts);
                end = status(reason);
            }
        }
    }
    let document = response.document(end, &items(&message), Some(&counts), Value::Null);
    Ok((document, message))
}
