//! `/v1/chat/completions`.

use crate::answer::{Answers, Delivery, Step, random_id};
use crate::app::Chosen;
use crate::error::{Dialect, Refusal};
use crate::http::sse;
use crate::openai::sampling::{self, SAMPLING};
use crate::openai::tools;
use crate::routes::{Call, Reply};
use crate::schema::{
    COUNT, Field, MAX_LOGPROBS, MAX_MESSAGES, NAME, Shape, TEXT, TEXT_ALONE, accepted, ignored, is_empty,
    optional, required,
};
use axum::response::Response;
use kun_engine::{ChatMessage, FinishReason, GenerateRequest, Piece, Prompt, Role, TokenLogprob, Usage};
use serde_json::{Value, json};
use std::time::UNIX_EPOCH;

const PART: Shape = Shape::Object(&[&[
    required(
        "type",
        Shape::Kind {
            words: &["text", "input_text", "output_text", "refusal"],
            refused: &["image_url", "input_image", "input_audio", "input_file", "file", "video_url"],
            why: TEXT_ALONE,
        },
        "The kind of part",
    ),
    optional("text", TEXT, "Text"),
    optional("refusal", TEXT, "A refusal, as text"),
    accepted("cache_control", "Prompts are cached by themselves"),
    ignored("annotations", "Not read"),
]]);
const CONTENT: Shape = Shape::Either(&[&TEXT, &Shape::List { of: &PART, least: 0, most: 1024 }]);
const CALL: Shape = Shape::Object(&[&[
    optional("id", NAME, "What the answer to it names"),
    accepted("type", "`function`"),
    accepted("index", "Its place"),
    required(
        "function",
        Shape::Object(&[&[
            required("name", NAME, "The tool"),
            optional("arguments", Shape::Either(&[&TEXT, &Shape::AnyObject]), "A JSON object, as text"),
        ]]),
        "The call",
    ),
]]);
const MESSAGE: Shape = Shape::Object(&[&[
    required(
        "role",
        Shape::Word(&["system", "developer", "user", "assistant", "tool", "function"]),
        "Who speaks",
    ),
    optional("content", CONTENT, "What is said"),
    optional("tool_calls", Shape::List { of: &CALL, least: 0, most: 128 }, "Calls that the assistant made"),
    optional("tool_call_id", NAME, "With a tool's answer: the call that it answers"),
    optional("name", NAME, "Name of the speaker or the tool"),
    optional("reasoning_content", TEXT, "What the assistant thought"),
    optional("reasoning", TEXT, "The same"),
    ignored("function_call", "Send `tool_calls`"),
    ignored("refusal", "Not read"),
    ignored("audio", "Not read"),
    ignored("annotations", "Not read"),
]]);

pub(crate) const FIELDS: &[&[Field]] = &[
    &[
        required(
            "messages",
            Shape::List { of: &MESSAGE, least: 1, most: MAX_MESSAGES },
            "The conversation so far",
        ),
        optional("stream", Shape::Bool, "Answer piece by piece, as server-sent events"),
        optional(
            "stream_options",
            Shape::Object(&[&[
                optional("include_usage", Shape::Bool, "One more chunk with the counts"),
                accepted("include_obfuscation", "Nothing is padded"),
            ]]),
            "With `stream`",
        ),
        optional("max_tokens", COUNT, "Most tokens of an answer"),
        optional(
            "max_completion_tokens",
            COUNT,
            "Most tokens of an answer; the smaller of this and max_tokens",
        ),
        optional("logprobs", Shape::Bool, "Log-probabilities of the answer's tokens"),
        optional(
            "top_logprobs",
            Shape::Integer { least: 0, most: MAX_LOGPROBS as i64 },
            "And of so many likeliest tokens",
        ),
        optional("enable_thinking", Shape::Bool, "Whether a model that can think before it answers does so"),
        optional(
            "chat_template_kwargs",
            Shape::Object(&[&[optional("enable_thinking", Shape::Bool, "As above")]]),
            "Variables of the chat template; only these",
        ),
        optional(
            "reasoning_effort",
            Shape::Word(&["none", "minimal", "low", "medium", "high", "xhigh"]),
            "`none` switches thinking off, others switch it on, where the model has a switch",
        ),
        ignored("prediction", "Not used"),
        accepted("prompt_cache_key", "Prompts are cached by themselves"),
        accepted("safety_identifier", "Whoever the caller asks for"),
        optional("modalities", Shape::List { of: &Shape::Word(&["text"]), least: 1, most: 1 }, "Text alone"),
    ],
    tools::FIELDS,
    SAMPLING,
];

pub(crate) fn create(mut call: Call) -> Reply {
    Box::pin(async move {
        let count = call.count("n").unwrap_or(1);
        let (chosen, permits) = call.decoder(count).await?;
        let mut request = sampling::request(&call, Prompt::Chat(messages(&call)?))?;
        request.template_variables =
            thinking(&call).map(|on| ("enable_thinking".to_owned(), on)).into_iter().collect();
        request.logprobs = logprobs(&call);
        request.constraint = tools::constraint(&call)?;
        request.tools = tools::tools(&call)?;
        let switches = ["enable_thinking", "chat_template_kwargs", "reasoning_effort"];
        thoughts_need_a_model(&mut call, &chosen, &request, &switches);
        if request.logprobs.is_none() {
            call.without_effect(&["top_logprobs"], "`logprobs` is false");
        }
        if tools::overrule_form(&request) {
            call.without_effect(tools::FORMS, tools::CALLED);
        }
        if !call.flag("stream") {
            call.without_effect(&["stream_options"], sampling::WHOLE);
        }
        let unread = unread(&call);
        call.warnings.extend(unread);
        let delivery = Delivery::streamed(call.flag("stream"));
        let answers = Answers::start(&call, &chosen, permits, repeated(&request, count), delivery).await?;
        let head = Head::new("chatcmpl", &chosen);
        if call.flag("stream") {
            Ok(stream(&call, head, answers))
        } else {
            whole(&call, head, answers, count).await
        }
    })
}

/// The request `count` times. The same seed must not give the same answer every time.
pub(crate) fn repeated(request: &GenerateRequest, count: usize) -> Vec<GenerateRequest> {
    let one = |index| {
        let mut request = request.clone();
        request.sampling.seed = request.sampling.seed.map(|seed| seed.wrapping_add(index));
        request
    };
    (0..count as u64).map(one).collect()
}

/// How many likeliest tokens to tell beside each one; `None`: no log-probabilities at all.
fn logprobs(call: &Call) -> Option<usize> {
    let top = call.count("top_logprobs");
    let asked = call.get("logprobs").map_or(top.is_some(), |on| on == true);
    asked.then(|| top.unwrap_or(0))
}

/// Warns of those of `fields` that ask for thoughts, where the model has none.
pub(crate) fn thoughts_need_a_model(
    call: &mut Call,
    chosen: &Chosen,
    request: &GenerateRequest,
    fields: &[&str],
) {
    let asked = matches!(request.prompt, Prompt::Chat(_))
        && request.template_variables.iter().any(|(name, on)| name == "enable_thinking" && *on);
    if asked && !chosen.model.thinks() {
        call.without_effect(fields, "this model has no thoughts to switch on");
    }
}

/// Fields of messages that only some roles have a use for, and which.
const OF_ROLES: &[(&str, &[&str])] = &[
    ("tool_calls", &["assistant"]),
    ("reasoning_content", &["assistant"]),
    ("reasoning", &["assistant"]),
    ("tool_call_id", &["tool", "function"]),
    ("name", &["tool", "function"]),
];

/// Fields of messages that have no effect, because of the message's role.
fn unread(call: &Call) -> Vec<String> {
    let all = call.get("messages").and_then(Value::as_array).into_iter().flatten();
    let of_one = |(index, message): (usize, &Value)| {
        let role = message["role"].as_str().unwrap_or_default().to_owned();
        let here = OF_ROLES
            .iter()
            .filter(|(name, roles)| !is_empty(&message[*name]) && !roles.contains(&role.as_str()));
        here.map(|(name, _)| format!("`messages[{index}].{name}` has no effect: the role is `{role}`"))
            .collect::<Vec<_>>()
    };
    all.enumerate().flat_map(of_one).collect()
}

/// Whether the model shall think; `None`: as it likes.
pub(crate) fn thinking(call: &Call) -> Option<bool> {
    let switch = |value: Option<&Value>| value.and_then(Value::as_bool);
    let kwargs = call.get("chat_template_kwargs").and_then(|kwargs| kwargs.get("enable_thinking"));
    let effort = call.text("reasoning_effort").map(|effort| effort != "none");
    switch(call.get("enable_thinking")).or(switch(kwargs)).or(effort)
}

fn messages(call: &Call) -> Result<Vec<ChatMessage>, Refusal> {
    let all = call.get("messages").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut messages: Vec<ChatMessage> = Vec::with_capacity(all.len());
    for (index, value) in all.iter().enumerate() {
        let message = message(index, value, &messages)?;
        messages.push(message);
    }
    Ok(messages)
}

fn message(index: usize, message: &Value, before: &[ChatMessage]) -> Result<ChatMessage, Refusal> {
    let role = match message["role"].as_str() {
        Some("system" | "developer") => Role::System,
        Some("assistant") => Role::Assistant,
        Some("tool" | "function") => Role::Tool,
        _ => Role::User,
    };
    let mut parts = message["content"].as_array().into_iter().flatten();
    if let Some(part) = parts.position(|part| !part["text"].is_string() && !part["refusal"].is_string()) {
        let at = format!("messages[{index}].content[{part}].text");
        return Err(Refusal::invalid(&at, format!("Missing required parameter: `{at}`"))
            .code("missing_required_parameter"));
    }
    let content = content(&message["content"]);
    if content.is_none() && role != Role::Assistant {
        let at = format!("messages[{index}].content");
        return Err(Refusal::invalid(&at, format!("Missing required parameter: `{at}`"))
            .code("missing_required_parameter"));
    }
    let mut out = ChatMessage::new(role, content.unwrap_or_default());
    let text = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
    if role == Role::Assistant {
        out.reasoning =
            message["reasoning_content"].as_str().map_or_else(|| text("reasoning"), str::to_owned);
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            out.calls.push(tools::call(call, index)?);
        }
    }
    if role == Role::Tool {
        let id = text("tool_call_id");
        let mut calls = before.iter().flat_map(|message| &message.calls);
        let name = calls.rfind(|call| call.id == id).map_or_else(|| text("name"), |call| call.name.clone());
        out.answers = Some((id, name));
    }
    Ok(out)
}

/// The text of a content: parts stand on lines of their own.
pub(crate) fn content(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let texts: Vec<&str> = parts
                .iter()
                .filter_map(|part| part["text"].as_str().or_else(|| part["refusal"].as_str()))
                .collect();
            Some(texts.join("\n"))
        }
        _ => None,
    }
}

/// What all chunks of an answer share.
pub(crate) struct Head {
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) model: String,
}

impl Head {
    pub(crate) fn new(prefix: &str, chosen: &Chosen) -> Head {
        let created = UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        Head { id: format!("{prefix}-{}", random_id()), created, model: chosen.name.clone() }
    }

    fn chunk(&self, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }
}

pub(crate) fn reason_word(reason: FinishReason, calls: usize) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        FinishReason::Stop | FinishReason::Cancelled if calls > 0 => "tool_calls",
        FinishReason::Stop | FinishReason::Cancelled => "stop",
    }
}

/// A piece as what is added to a message.
fn delta(piece: Piece) -> Value {
    match piece {
        Piece::Text(text) => json!({ "content": text }),
        Piece::Reasoning(text) => json!({ "reasoning_content": text }),
        Piece::Call { index, name } => json!({ "tool_calls": [{
            "index": index,
            "id": tools::call_id(),
            "type": "function",
            "function": { "name": name, "arguments": "" },
        }]}),
        Piece::Arguments { index, text } => {
            json!({ "tool_calls": [{ "index": index, "function": { "arguments": text } }] })
        }
    }
}

/// Counts of several answers to one prompt.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) prompt: usize,
    pub(crate) cached: usize,
    pub(crate) completion: usize,
    /// Those of the completion that were thoughts.
    pub(crate) reasoning: usize,
}

impl Counts {
    pub(crate) fn add(&mut self, usage: &Usage, thoughts: usize) {
        self.reasoning += thoughts;
        self.prompt = usage.prompt_tokens;
        self.cached = self.cached.max(usage.cached_tokens);
        self.completion += usage.completion_tokens;
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": { "cached_tokens": self.cached },
            "completion_tokens_details": { "reasoning_tokens": self.reasoning },
        })
    }
}

fn stream(call: &Call, head: Head, mut answers: Answers) -> Response {
    let (stream, response) = sse::events(call.app.options.limits.write_stall_time);
    let include_usage = call
        .get("stream_options")
        .and_then(|options| options.get("include_usage"))
        .is_some_and(|on| on == true);
    let count = call.count("n").unwrap_or(1);
    let warnings = call.warnings.clone();
    let write = async move {
        let chunk = |choices: Value| {
            let mut chunk = head.chunk(choices);
            if include_usage {
                chunk["usage"] = Value::Null;
            }
            chunk
        };
        for index in 0..count {
            let delta = json!({ "role": "assistant", "content": "" });
            let mut first =
                chunk(json!([{ "index": index, "delta": delta, "logprobs": null, "finish_reason": null }]));
            warnings.attach(&mut first);
            stream.data(&first).await?;
        }
        let mut counts = Counts::default();
        loop {
            let next = tokio::select! {
                next = answers.next() => next,
                () = stream.gone() => return Err(sse::Gone),
            };
            let Some((index, step)) = next else { break };
            match step {
                Ok(Step::Pieces { pieces, logprob }) => {
                    let mut logprobs = logprob
                        .map(|(own, top)| json!({ "content": [token_logprob(&own, &top)], "refusal": null }));
                    let mut deltas: Vec<Value> = pieces.into_iter().map(delta).collect();
                    if deltas.is_empty() && logprobs.is_some() {
                        deltas.push(json!({ "content": "" }));
                    }
                    for delta in deltas {
                        let logprobs = logprobs.take();
                        let choice = json!([{ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": null }]);
                        stream.data(&chunk(choice)).await?;
                    }
                }
                Ok(Step::End { reason, calls, usage, thoughts }) => {
                    counts.add(&usage, thoughts);
                    let reason = reason_word(reason, calls);
                    let choice =
                        json!([{ "index": index, "delta": {}, "logprobs": null, "finish_reason": reason }]);
                    stream.data(&chunk(choice)).await?;
                }
                Err(refusal) => {
                    stream.data(&refusal.body(Dialect::OpenAi)).await?;
                    return Ok(());
                }
            }
        }
        if include_usage {
            let mut last = head.chunk(json!([]));
            last["usage"] = counts.json();
            stream.data(&last).await?;
        }
        stream.done().await
    };
    tokio::spawn(write);
    response
}

/// A message put together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    pub(crate) text: String,
    pub(crate) reasoning: String,
    /// Ids, names and arguments.
    pub(crate) calls: Vec<(String, String, String)>,
}

impl Message {
    pub(crate) fn add(&mut self, piece: Piece) {
        match piece {
            Piece::Text(text) => self.text.push_str(&text),
            Piece::Reasoning(text) => self.reasoning.push_str(&text),
            Piece::Call { name, .. } => self.calls.push((tools::call_id(), name, String::new())),
            Piece::Arguments { text, .. } => {
                if let Some((_, _, arguments)) = self.calls.last_mut() {
                    arguments.push_str(&text);
                }
            }
        }
    }

    fn json(&self) -> Value {
        let content =
            if self.text.is_empty() && !self.calls.is_empty() { Value::Null } else { json!(self.text) };
        let mut message = json!({ "role": "assistant", "content": content, "refusal": null });
        if !self.reasoning.is_empty() {
            message["reasoning_content"] = json!(self.reasoning);
        }
        if !self.calls.is_empty() {
            let calls = self.calls.iter().map(|(id, name, arguments)| {
                let arguments = if arguments.is_empty() { "{}" } else { arguments };
                json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } })
            });
            message["tool_calls"] = calls.collect();
        }
        message
    }
}

async fn whole(call: &Call, head: Head, mut answers: Answers, count: usize) -> Result<Response, Refusal> {
    let mut messages = vec![Message::default(); count];
    let mut logprobs: Vec<Vec<Value>> = vec![Vec::new(); count];
    let mut reasons = vec!["stop"; count];
    let mut counts = Counts::default();
    while let Some((index, step)) = answers.next().await {
        match step? {
            Step::Pieces { pieces, logprob } => {
                pieces.into_iter().for_each(|piece| messages[index].add(piece));
                logprobs[index].extend(logprob.map(|(own, top)| token_logprob(&own, &top)));
            }
            Step::End { reason, calls, usage, thoughts } => {
                counts.add(&usage, thoughts);
                reasons[index] = reason_word(reason, calls);
            }
        }
    }
    let asked = self::logprobs(call).is_some();
    let choices: Vec<Value> = messages
        .into_iter()
        .zip(logprobs)
        .zip(reasons)
        .enumerate()
        .map(|(index, ((message, logprobs), reason))| {
            json!({
                "index": index,
                "message": message.json(),
                "logprobs": asked.then(|| json!({ "content": logprobs, "refusal": null })),
                "finish_reason": reason,
            })
        })
        .collect();
    Ok(call.json(json!({
        "id": head.id,
        "object": "chat.completion",
        "created": head.created,
        "model": head.model,
        "choices": choices,
        "usage": counts.json(),
    })))
}

/// A token, its log-probability and those of the likeliest.
pub(crate) fn token_logprob(own: &TokenLogprob, top: &[TokenLogprob]) -> Value {
    let one = |token: &TokenLogprob| json!({ "token": String::from_utf8_lossy(&token.bytes), "logprob": token.logprob, "bytes": token.bytes });
    let mut entry = one(own);
    entry["top_logprobs"] = top.iter().map(one).collect();
    entry
}
