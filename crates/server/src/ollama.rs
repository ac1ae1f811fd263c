//! The part of Ollama's API that its clients and editors use.

mod fields;
mod models;

pub(crate) use fields::{CHAT, GENERATE, PULL, SHOW};
pub(crate) use models::{delete, pull, running, show, tags, version};

use crate::answer::{Answers, Delivery, Step};
use crate::app::Chosen;
use crate::error::{Dialect, Kind, Refusal};
use crate::http::sse;
use crate::openai::chat::{Message, content, thoughts_need_a_model};
use crate::openai::sampling;
use crate::openai::tools::{call_id, tool_of};
use crate::routes::{Call, Reply};
use axum::response::Response;
use kun_engine::{
    ChatMessage, Constraint, FinishReason, GenerateRequest, Piece, Prompt, Role, SamplingOptions, ToolCall,
    ToolChoice, ToolUse, Usage,
};
use models::timestamp;
use serde_json::{Value, json};
use std::time::{Duration, Instant, SystemTime};

/// The version of Ollama whose API this follows.
const VERSION: &str = "0.12.0";

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

pub(crate) fn chat(mut call: Call) -> Reply {
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
        answer(&mut call, Form::Chat, request).await
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

pub(crate) fn generate(mut call: Call) -> Reply {
    Box::pin(async move {
        let Some(prompt) = call.text("prompt").filter(|prompt| !prompt.is_empty()).map(str::to_owned) else {
            return only_load(&call, Form::Generate).await;
        };
        let prompt = if call.text("suffix").is_some_and(|suffix| !suffix.is_empty()) {
            let (app, name) = (call.app.clone(), call.model());
            let suffix = call.text("suffix").unwrap_or_default().to_owned();
            let ids = call
                .in_place(move || Ok(app.decoder(&name)?.model.fill_in_the_middle(&prompt, &suffix)?))
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
        let request = request(&call, prompt);
        if !matches!(request.prompt, Prompt::Chat(_)) {
            call.without_effect(&["system", "think"], "the prompt is continued as it is");
        }
        answer(&mut call, Form::Generate, request).await
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

async fn answer(call: &mut Call, form: Form, request: GenerateRequest) -> Result<Response, Refusal> {
    let started = Instant::now();
    let (chosen, permits) = call.decoder(1).await?;
    let load_time = started.elapsed();
    thoughts_need_a_model(call, &chosen, &request, &["think"]);
    if let (Some(time), true) = (call.get("keep_alive").and_then(keep_alive), call.admin) {
        call.app.library.keep(&chosen.path, time);
    }
    let streamed = call.get("stream").and_then(Value::as_bool).unwrap_or(true);
    let delivery = Delivery::streamed(streamed);
    let mut answers = Answers::start(call, &chosen, permits, vec![request], delivery).await?;
    let times = Times { started, load_time };
    if streamed {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

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
