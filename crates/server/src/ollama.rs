//! The part of Ollama's API that its clients and editors use.

use crate::answer::{Answers, Step};
use crate::app::Chosen;
use crate::error::{Dialect, Kind, Refusal};
use crate::http::sse;
use crate::openai::chat::{Message, content};
use crate::openai::sampling;
use crate::openai::tools::{call_id, tool_of};
use crate::own::models::require_admin;
use crate::routes::{Call, Reply, json_response};
use crate::schema::{Field, NAME, Shape, TEXT, accepted, ignored, optional, required};
use axum::response::Response;
use kun_engine::{
    ChatMessage, Constraint, FinishReason, GenerateRequest, LoadOptions, Piece, Prompt, Role,
    SamplingOptions, ToolCall, ToolChoice, ToolUse, Usage,
};
use kun_hub::Progress;
use serde_json::{Value, json};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The version of Ollama whose API this follows.
const VERSION: &str = "0.12.0";

const OPTIONS: Shape = Shape::Object(&[&[
    optional("temperature", Shape::Number { least: 0.0, most: 100.0 }, "Default 0.8"),
    optional("top_k", Shape::Integer { least: 0, most: 1 << 20 }, "Default 40"),
    optional("top_p", Shape::Number { least: 0.0, most: 1.0 }, "Default 0.9"),
    optional("min_p", Shape::Number { least: 0.0, most: 1.0 }, "Default 0"),
    optional("typical_p", Shape::Number { least: 0.0, most: 1.0 }, "Default 1"),
    optional("seed", Shape::Integer { least: i64::MIN, most: i64::MAX }, "Makes sampling repeatable"),
    optional("num_predict", Shape::Integer { least: -2, most: 1 << 31 }, "Most tokens; negative: no limit"),
    optional("repeat_penalty", Shape::Number { least: 0.01, most: 10.0 }, "Default 1.1"),
    optional(
        "repeat_last_n",
        Shape::Integer { least: -1, most: 1 << 20 },
        "How far the repeat penalty looks back",
    ),
    optional("presence_penalty", Shape::Number { least: -2.0, most: 2.0 }, "Subtracted once"),
    optional("frequency_penalty", Shape::Number { least: -2.0, most: 2.0 }, "Subtracted for each occurrence"),
    optional(
        "stop",
        Shape::Either(&[&TEXT, &Shape::List { of: &Shape::Text { most: 256 }, least: 0, most: 16 }]),
        "Texts that end the answer",
    ),
    ignored("num_ctx", "Set at the start of the server"),
    ignored("num_keep", "Nothing is cut"),
    ignored("num_batch", "Set at the start of the server"),
    ignored("num_thread", "Set at the start of the server"),
    ignored("num_gpu", "Set at the start of the server"),
    ignored("use_mmap", "Set at the start of the server"),
]]);
const CALL: Shape = Shape::Object(&[&[
    accepted("id", "Not used"),
    accepted("type", "`function`"),
    required(
        "function",
        Shape::Object(&[&[
            required("name", NAME, "The tool"),
            optional("arguments", Shape::AnyObject, "The arguments"),
            accepted("index", "Its place"),
            accepted("description", "Not read"),
        ]]),
        "The call",
    ),
]]);
const MESSAGE: Shape = Shape::Object(&[&[
    required("role", Shape::Word(&["system", "user", "assistant", "tool"]), "Who speaks"),
    optional("content", TEXT, "What is said"),
    optional("thinking", TEXT, "What the assistant thought"),
    optional("tool_calls", Shape::List { of: &CALL, least: 0, most: 128 }, "Calls that the assistant made"),
    optional("tool_name", NAME, "With a tool's answer: the tool"),
    optional("name", NAME, "The same, by an older name"),
    optional("images", Shape::List { of: &TEXT, least: 0, most: 0 }, "Not understood by text models"),
    accepted("tool_call_id", "Not used"),
]]);
const TOOL: Shape = Shape::Object(&[&[
    accepted("type", "`function`"),
    required(
        "function",
        Shape::Object(&[&[
            required("name", Shape::Text { most: 64 }, "The tool"),
            optional("description", TEXT, "For the model"),
            optional("parameters", Shape::JsonSchema, "JSON schema of the arguments"),
            accepted("strict", "Always so"),
        ]]),
        "The tool",
    ),
    accepted("items", "Not read"),
]]);
const SHARED: &[Field] = &[
    required("model", NAME, "Which model"),
    optional("stream", Shape::Bool, "One JSON document a line; default true"),
    optional(
        "format",
        Shape::Either(&[&Shape::Word(&["", "json"]), &Shape::JsonSchema]),
        "The form of the answer",
    ),
    optional("options", OPTIONS, "Sampling"),
    optional(
        "keep_alive",
        Shape::Either(&[&NAME, &Shape::Number { least: -1e9, most: 1e9 }]),
        "How long the model stays loaded; 0 lets it go, negative keeps it",
    ),
    optional(
        "think",
        Shape::Either(&[&Shape::Bool, &Shape::Word(&["low", "medium", "high"])]),
        "Whether a model that can think before it answers does so",
    ),
    ignored("logprobs", "Ask /v1/chat/completions"),
    ignored("top_logprobs", "Ask /v1/chat/completions"),
];
pub(crate) const CHAT: &[&[Field]] = &[
    SHARED,
    &[
        optional(
            "messages",
            Shape::List { of: &MESSAGE, least: 0, most: 2048 },
            "The conversation so far; none: only load",
        ),
        optional("tools", Shape::List { of: &TOOL, least: 0, most: 128 }, "Tools that the model may call"),
    ],
];
pub(crate) const GENERATE: &[&[Field]] = &[
    SHARED,
    &[
        optional("prompt", TEXT, "A question; none: only load"),
        optional("system", TEXT, "Instructions before it"),
        optional("raw", Shape::Bool, "Continue the prompt as it is"),
        optional("suffix", TEXT, "What follows the gap to be filled"),
        optional("images", Shape::List { of: &TEXT, least: 0, most: 0 }, "Not understood by text models"),
        ignored("template", "A request cannot bring a template"),
        ignored("context", "Send the conversation to /api/chat"),
    ],
];
pub(crate) const SHOW: &[&[Field]] = &[&[
    optional("model", NAME, "Which model"),
    optional("name", NAME, "The same, by an older name"),
    accepted("verbose", "Not read"),
]];
pub(crate) const PULL: &[&[Field]] = &[&[
    optional("model", NAME, "Which model"),
    optional("name", NAME, "The same, by an older name"),
    optional("stream", Shape::Bool, "Tell the progress, one JSON document a line; default true"),
    accepted("insecure", "Never so"),
]];

pub(crate) fn version(_call: Call) -> Reply {
    Box::pin(async { Ok(json_response(&json!({ "version": VERSION }))) })
}

pub(crate) fn tags(call: Call) -> Reply {
    Box::pin(async move {
        let models = Call::blocking(move || {
            let stored = call.app.stored();
            Ok(stored.into_iter().map(|m| entry(&m.name, m.bytes, m.modified_unix_s)).collect::<Vec<_>>())
        })
        .await?;
        Ok(json_response(&json!({ "models": models })))
    })
}

fn entry(name: &str, bytes: u64, modified_unix_s: u64) -> Value {
    json!({
        "name": name,
        "model": name,
        "modified_at": timestamp(UNIX_EPOCH + Duration::from_secs(modified_unix_s)),
        "size": bytes,
        "digest": "",
        "details": { "format": "gguf", "family": "", "families": [], "parameter_size": "", "quantization_level": "" },
    })
}

pub(crate) fn running(call: Call) -> Reply {
    Box::pin(async move {
        let names = call.app.names();
        let models: Vec<Value> = call
            .app
            .library
            .shelves()
            .into_iter()
            .filter(|shelf| shelf.model.is_some())
            .map(|shelf| {
                let name = names.get(&shelf.path).cloned().unwrap_or_default();
                let left =
                    shelf.keep_alive.map_or(Duration::from_secs(1 << 32), |t| t.saturating_sub(shelf.idle));
                let mut model = entry(&name, shelf.memory_bytes, 0);
                model["expires_at"] = json!(timestamp(SystemTime::now() + left));
                model["size_vram"] = json!(0);
                model
            })
            .collect();
        Ok(json_response(&json!({ "models": models })))
    })
}

/// The model named by either field.
fn named(call: &Call) -> Result<String, Refusal> {
    let name = call.text("model").or_else(|| call.text("name"));
    name.map(str::to_owned).ok_or_else(|| Refusal::invalid("model", "Missing required parameter: `model`"))
}

pub(crate) fn show(call: Call) -> Reply {
    Box::pin(async move {
        let name = named(&call)?;
        let app = call.app.clone();
        let answer = Call::blocking(move || {
            let found = app.locate(&name)?;
            let fit = app.library.engine().fit(&found.path, &LoadOptions::default()).ok();
            let Some(fit) = fit else {
                return Ok(
                    json!({ "details": { "format": "" }, "model_info": {}, "capabilities": ["embedding"] }),
                );
            };
            let info = fit.model;
            let architecture = info.architecture.clone();
            Ok(json!({
                "license": found.license.or(info.license),
                "modelfile": "",
                "parameters": "",
                "template": "",
                "details": {
                    "parent_model": "",
                    "format": "gguf",
                    "family": architecture,
                    "families": [architecture],
                    "parameter_size": format!("{:.1}M", info.parameters as f64 / 1e6),
                    "quantization_level": info.quantization,
                },
                "model_info": {
                    "general.architecture": architecture,
                    "general.parameter_count": info.parameters,
                    format!("{architecture}.context_length"): info.context_tokens,
                    format!("{architecture}.embedding_length"): info.width,
                },
                "capabilities": ["completion", "tools"],
                "modified_at": timestamp(UNIX_EPOCH),
            }))
        })
        .await?;
        Ok(call.json(answer))
    })
}

/// Milliseconds are enough: `2026-01-02T03:04:05.678Z`.
pub(crate) fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days to a date (Howard Hinnant's `civil_from_days`), for days since 1970.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let millis = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// A time as Ollama writes it: `5m`, `1h30m`, seconds, or negative for ever.
fn keep_alive(value: &Value) -> Option<Option<Duration>> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => {
            let (sign, text) = text.strip_prefix('-').map_or((1.0, text.as_str()), |rest| (-1.0, rest));
            let mut total = 0.0;
            let mut rest = text;
            while !rest.is_empty() {
                let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
                let number: f64 = rest[..end].parse().ok()?;
                let unit_end =
                    rest[end..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| end + at);
                total += number
                    * match &rest[end..unit_end] {
                        "" | "s" => 1.0,
                        "ms" => 0.001,
                        "m" => 60.0,
                        "h" => 3600.0,
                        _ => return None,
                    };
                rest = &rest[unit_end..];
            }
            sign * total
        }
        _ => return None,
    };
    Some((seconds >= 0.0).then(|| Duration::from_secs_f64(seconds.min(1e9))))
}

fn options(call: &Call) -> (SamplingOptions, Option<usize>, Vec<String>) {
    let empty = serde_json::Map::new();
    let given = call.get("options").and_then(Value::as_object).unwrap_or(&empty);
    let float =
        |name: &str, default: f32| given.get(name).and_then(Value::as_f64).map_or(default, |v| v as f32);
    let whole = |name: &str| given.get(name).and_then(crate::schema::integer);
    let sampling = SamplingOptions {
        temperature: float("temperature", 0.8),
        top_k: whole("top_k").map_or(40, |k| k as usize),
        top_p: float("top_p", 0.9),
        min_p: float("min_p", 0.0),
        typical_p: float("typical_p", 1.0),
        repetition_penalty: float("repeat_penalty", 1.1),
        presence_penalty: float("presence_penalty", 0.0),
        frequency_penalty: float("frequency_penalty", 0.0),
        // -1 means the whole context, which is our 0.
        penalty_window_tokens: whole("repeat_last_n").map_or(64, |n| n.max(0) as usize),
        seed: whole("seed").map(|seed| seed as u64),
        ..SamplingOptions::default()
    };
    let most = whole("num_predict").filter(|n| *n > 0).map(|n| n as usize);
    (sampling, most, sampling::texts(given.get("stop")))
}

/// The request of either route.
fn request(call: &Call, prompt: Prompt) -> GenerateRequest {
    let (sampling, max_tokens, stop) = options(call);
    let constraint = match call.get("format") {
        Some(Value::String(word)) if word == "json" => Some(Constraint::JsonObject),
        Some(schema @ Value::Object(_)) => Some(Constraint::JsonSchema(schema.clone())),
        _ => None,
    };
    let think = call.get("think").map(|think| think.as_bool().unwrap_or(true));
    let mut request = GenerateRequest {
        sampling,
        max_tokens,
        stop,
        constraint,
        tenant: call.tenant,
        ..GenerateRequest::new(prompt)
    };
    request.template_variables = think.map(|on| ("enable_thinking".to_owned(), on)).into_iter().collect();
    request
}

/// Which of two shapes an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Chat,
    Generate,
}

pub(crate) fn chat(call: Call) -> Reply {
    Box::pin(async move {
        let messages = call.get("messages").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if messages.is_empty() {
            return only_load(&call, Form::Chat).await;
        }
        let messages = messages.iter().map(message).collect();
        let mut request = request(&call, Prompt::Chat(messages));
        let tools = call.get("tools").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let tools: Vec<_> = tools.iter().map(|tool| tool_of(&tool["function"])).collect();
        request.tools =
            (!tools.is_empty()).then_some(ToolUse { tools, choice: ToolChoice::Auto, parallel: true });
        answer(&call, Form::Chat, request).await
    })
}

fn message(message: &Value) -> ChatMessage {
    let role = match message["role"].as_str() {
        Some("system") => Role::System,
        Some("assistant") => Role::Assistant,
        Some("tool") => Role::Tool,
        _ => Role::User,
    };
    let mut out = ChatMessage::new(role, content(&message["content"]).unwrap_or_default());
    out.reasoning = message["thinking"].as_str().unwrap_or_default().to_owned();
    for call in message["tool_calls"].as_array().into_iter().flatten() {
        out.calls.push(ToolCall {
            id: call_id(),
            name: call["function"]["name"].as_str().unwrap_or_default().to_owned(),
            arguments: call["function"].get("arguments").cloned().unwrap_or_else(|| json!({})),
        });
    }
    if role == Role::Tool {
        let name = message["tool_name"].as_str().or_else(|| message["name"].as_str()).unwrap_or_default();
        out.answers = Some((String::new(), name.to_owned()));
    }
    out
}

pub(crate) fn generate(call: Call) -> Reply {
    Box::pin(async move {
        let Some(prompt) = call.text("prompt").filter(|prompt| !prompt.is_empty()).map(str::to_owned) else {
            return only_load(&call, Form::Generate).await;
        };
        let prompt = if call.text("suffix").is_some_and(|suffix| !suffix.is_empty()) {
            let (app, name) = (call.app.clone(), call.model());
            let suffix = call.text("suffix").unwrap_or_default().to_owned();
            let ids =
                Call::blocking(move || Ok(app.decoder(&name)?.model.fill_in_the_middle(&prompt, &suffix)?))
                    .await?;
            Prompt::Tokens(
                ids.ok_or_else(|| Refusal::invalid("suffix", "This model was not taught to fill a gap."))?,
            )
        } else if call.flag("raw") {
            Prompt::Text(prompt)
        } else {
            let system = call.text("system").map(|text| ChatMessage::new(Role::System, text));
            Prompt::Chat(system.into_iter().chain([ChatMessage::new(Role::User, prompt)]).collect())
        };
        answer(&call, Form::Generate, request(&call, prompt)).await
    })
}

/// A request without a prompt loads the model, or lets it go.
async fn only_load(call: &Call, form: Form) -> Result<Response, Refusal> {
    let (app, name) = (call.app.clone(), call.model());
    let time = call.get("keep_alive").and_then(keep_alive);
    let admin = call.admin;
    let reason = Call::blocking(move || {
        let found = app.locate(&name)?;
        if time == Some(Some(Duration::ZERO)) {
            if admin {
                app.library.unload(&found.path);
            }
            return Ok("unload");
        }
        app.library.get(&found.path)?;
        if let (Some(time), true) = (time, admin) {
            app.library.keep(&found.path, time);
        }
        Ok("load")
    })
    .await?;
    let mut answer = json!({
        "model": call.model(),
        "created_at": timestamp(SystemTime::now()),
        "done": true,
        "done_reason": reason,
    });
    match form {
        Form::Chat => answer["message"] = json!({ "role": "assistant", "content": "" }),
        Form::Generate => answer["response"] = json!(""),
    }
    Ok(call.json(answer))
}

async fn answer(call: &Call, form: Form, request: GenerateRequest) -> Result<Response, Refusal> {
    let started = Instant::now();
    let (app, name) = (call.app.clone(), call.model());
    let chosen = Call::blocking(move || app.decoder(&name)).await?;
    let load_time = started.elapsed();
    if let (Some(time), true) = (call.get("keep_alive").and_then(keep_alive), call.admin) {
        call.app.library.keep(&chosen.path, time);
    }
    let mut answers = Answers::start(call, &chosen, vec![request]).await?;
    let times = Times { started, load_time };
    if call.get("stream").and_then(Value::as_bool).unwrap_or(true) {
        return Ok(stream(call, form, &chosen, answers, times));
    }
    let mut message = Message::default();
    while let Some((_, step)) = answers.next().await {
        match step? {
            Step::Pieces { pieces, .. } => pieces.into_iter().for_each(|piece| message.add(piece)),
            Step::End { reason, usage, .. } => {
                let mut answer = part(form, &chosen.name, &message);
                times.finish(&mut answer, reason, &usage);
                return Ok(call.json(answer));
            }
        }
    }
    Err(Refusal::new(Kind::Internal, "The answer has no end."))
}

struct Times {
    started: Instant,
    load_time: Duration,
}

impl Times {
    fn finish(&self, answer: &mut Value, reason: FinishReason, usage: &Usage) {
        let nanos = |time: Duration| time.as_nanos() as u64;
        answer["done"] = json!(true);
        answer["done_reason"] = json!(if reason == FinishReason::Length { "length" } else { "stop" });
        answer["total_duration"] = json!(nanos(self.started.elapsed()));
        answer["load_duration"] = json!(nanos(self.load_time));
        answer["prompt_eval_count"] = json!(usage.prompt_tokens);
        answer["prompt_eval_duration"] = json!(nanos(usage.prefill_time));
        answer["eval_count"] = json!(usage.completion_tokens);
        answer["eval_duration"] = json!(nanos(usage.decode_time));
    }
}

/// One document of an answer.
fn part(form: Form, model: &str, message: &Message) -> Value {
    let mut answer = json!({ "model": model, "created_at": timestamp(SystemTime::now()), "done": false });
    match form {
        Form::Generate => {
            answer["response"] = json!(message.text);
            if !message.reasoning.is_empty() {
                answer["thinking"] = json!(message.reasoning);
            }
        }
        Form::Chat => {
            let mut own = json!({ "role": "assistant", "content": message.text });
            if !message.reasoning.is_empty() {
                own["thinking"] = json!(message.reasoning);
            }
            if !message.calls.is_empty() {
                let calls = message.calls.iter().map(|(_, name, arguments)| {
                    let arguments: Value = serde_json::from_str(arguments).unwrap_or_else(|_| json!({}));
                    json!({ "function": { "name": name, "arguments": arguments } })
                });
                own["tool_calls"] = calls.collect();
            }
            answer["message"] = own;
        }
    }
    answer
}

fn stream(call: &Call, form: Form, chosen: &Chosen, mut answers: Answers, times: Times) -> Response {
    let (stream, response) = sse::lines(call.app.options.limits.write_stall_time);
    let (model, warnings) = (chosen.name.clone(), call.warnings.clone());
    let write = async move {
        // Calls go out whole: their arguments are an object here.
        let mut calls = Message::default();
        loop {
            let next = tokio::select! {
                next = answers.next() => next,
                () = stream.gone() => return Err(sse::Gone),
            };
            match next {
                None => return Ok(()),
                Some((_, Ok(Step::Pieces { pieces, .. }))) => {
                    let mut now = Message::default();
                    for piece in pieces {
                        match piece {
                            Piece::Call { .. } | Piece::Arguments { .. } => calls.add(piece),
                            piece => now.add(piece),
                        }
                    }
                    if !now.text.is_empty() || !now.reasoning.is_empty() {
                        stream.line(&part(form, &model, &now)).await?;
                    }
                }
                Some((_, Ok(Step::End { reason, usage, .. }))) => {
                    if !calls.calls.is_empty() {
                        stream.line(&part(form, &model, &calls)).await?;
                    }
                    let mut last = part(form, &model, &Message::default());
                    times.finish(&mut last, reason, &usage);
                    warnings.attach(&mut last);
                    stream.line(&last).await?;
                }
                Some((_, Err(refusal))) => {
                    stream.line(&refusal.body(Dialect::Ollama)).await?;
                    return Ok(());
                }
            }
        }
    };
    tokio::spawn(write);
    response
}

pub(crate) fn delete(call: Call) -> Reply {
    Box::pin(async move {
        require_admin(&call)?;
        let name = named(&call)?;
        let app = call.app.clone();
        Call::blocking(move || {
            let found = app.locate(&name)?;
            app.library.unload(&found.path);
            Ok(app.hub.remove(&found.name)?)
        })
        .await?;
        Ok(json_response(&json!({ "status": "success" })))
    })
}

/// Fetches a model into the store, telling how far it is.
pub(crate) fn pull(call: Call) -> Reply {
    Box::pin(async move {
        require_admin(&call)?;
        let name = named(&call)?;
        // Paths and addresses are for the command line: a page must not choose what this machine connects to.
        match kun_hub::ModelName::parse(&name)? {
            kun_hub::ModelName::Path(_) | kun_hub::ModelName::Url(_) => {
                return Err(Refusal::invalid(
                    "model",
                    "Only names of models can be fetched, not paths or addresses.",
                ));
            }
            _ => {}
        }
        let (sender, mut progress) = tokio::sync::mpsc::channel::<Value>(16);
        let app = call.app.clone();
        let fetch = tokio::task::spawn_blocking(move || {
            let (mut file, mut done, mut all) = (String::new(), 0, None);
            let mut told = Instant::now();
            app.hub.fetch(&name, &mut |event| {
                match event {
                    Progress::Note(note) => {
                        let _ = sender.blocking_send(json!({ "status": note }));
                        return;
                    }
                    Progress::Start { name, resumed_bytes, total_bytes } => {
                        (file, done, all) = (name, resumed_bytes, total_bytes)
                    }
                    Progress::Advance(bytes) => {
                        done += bytes;
                        if told.elapsed() < Duration::from_millis(100) {
                            return;
                        }
                        told = Instant::now();
                    }
                    Progress::Finish => {}
                }
                let mut step = json!({ "status": format!("pulling {file}"), "completed": done });
                if let Some(all) = all {
                    step["total"] = json!(all);
                }
                let _ = sender.blocking_send(step);
            })
        });
        let finish = |result: Result<
            Result<kun_hub::ModelPath, kun_hub::HubError>,
            tokio::task::JoinError,
        >| match result {
            Ok(Ok(_)) => Ok(json!({ "status": "success" })),
            Ok(Err(error)) => Err(Refusal::from(error)),
            Err(_) => Err(Refusal::new(Kind::Internal, "Fetching failed.")),
        };
        if call.get("stream").and_then(Value::as_bool) == Some(false) {
            let drain = async { while progress.recv().await.is_some() {} };
            let (result, ()) = tokio::join!(fetch, drain);
            return finish(result).map(|answer| call.json(answer));
        }
        let (stream, response) = sse::lines(call.app.options.limits.write_stall_time);
        tokio::spawn(async move {
            while let Some(step) = progress.recv().await {
                stream.line(&step).await?;
            }
            let last = finish(fetch.await).unwrap_or_else(|refusal| refusal.body(Dialect::Ollama));
            stream.line(&last).await
        });
        Ok(response)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written_as_ollama_does() {
        let seconds = |text: &str| keep_alive(&json!(text)).map(|time| time.map(|t| t.as_secs()));
        assert_eq!(seconds("5m"), Some(Some(300)));
        assert_eq!(seconds("1h30m"), Some(Some(5400)));
        assert_eq!(seconds("-1"), Some(None));
        assert_eq!(seconds("0"), Some(Some(0)));
        assert_eq!(seconds("5x"), None);
        assert_eq!(keep_alive(&json!(-1)), Some(None));
        let time = UNIX_EPOCH + Duration::from_millis(1_709_210_096_789);
        assert_eq!(timestamp(time), "2024-02-29T12:34:56.789Z");
    }
}
