//! A response as a stream of events: every item opened is closed, and exactly one terminal event comes last.

use super::{Response, items, status, stored, text_part};
use crate::answer::{Answers, Step, random_id};
use crate::error::Dialect;
use crate::http::sse::{self, Gone};
use crate::openai::chat::{Counts, Message};
use crate::openai::tools::call_id;
use crate::routes::Call;
use kun_engine::{ChatMessage, Piece};
use serde_json::{Value, json};

/// The item that is open.
enum Open {
    Message { id: String, text: String },
    Reasoning { id: String, text: String },
    Call { id: String, call_id: String, name: String, arguments: String },
}

struct Events {
    stream: sse::Stream,
    sequence: u64,
    open: Option<Open>,
    output: Vec<Value>,
}

impl Events {
    async fn send(&mut self, kind: &str, mut event: Value) -> Result<(), Gone> {
        event["type"] = json!(kind);
        event["sequence_number"] = json!(self.sequence);
        self.sequence += 1;
        self.stream.event(kind, &event).await
    }

    async fn open(&mut self, item: Value, open: Open) -> Result<(), Gone> {
        self.close().await?;
        let index = self.output.len();
        self.send("response.output_item.added", json!({ "output_index": index, "item": item })).await?;
        if let Open::Message { id, .. } = &open {
            let part =
                json!({ "item_id": id, "output_index": index, "content_index": 0, "part": text_part("") });
            self.send("response.content_part.added", part).await?;
        }
        self.open = Some(open);
        Ok(())
    }

    async fn close(&mut self) -> Result<(), Gone> {
        let index = self.output.len();
        let item = match self.open.take() {
            None => return Ok(()),
            Some(Open::Message { id, text }) => {
                let place = json!({ "item_id": id, "output_index": index, "content_index": 0 });
                let mut done = place.clone();
                done["text"] = json!(text);
                done["logprobs"] = json!([]);
                self.send("response.output_text.done", done).await?;
                let mut part = place;
                part["part"] = text_part(&text);
                self.send("response.content_part.done", part).await?;
                json!({ "type": "message", "id": id, "role": "assistant", "status": "completed", "content": [text_part(&text)] })
            }
            Some(Open::Reasoning { id, text }) => {
                let done = json!({ "item_id": id, "output_index": index, "content_index": 0, "text": text });
                self.send("response.reasoning_text.done", done).await?;
                json!({ "type": "reasoning", "id": id, "summary": [], "content": [{ "type": "reasoning_text", "text": text }] })
            }
            Some(Open::Call { id, call_id, name, arguments }) => {
                let arguments = if arguments.is_empty() { "{}".to_owned() } else { arguments };
                let done =
                    json!({ "item_id": id, "output_index": index, "name": name, "arguments": arguments });
                self.send("response.function_call_arguments.done", done).await?;
                json!({
                    "type": "function_call",
                    "id": id,
                    "call_id": call_id,
                    "name": name,
                    "arguments": arguments,
                    "status": "completed",
                })
            }
        };
        self.output.push(item.clone());
        self.send("response.output_item.done", json!({ "output_index": index, "item": item })).await
    }

    async fn piece(&mut self, piece: Piece) -> Result<(), Gone> {
        let index = self.output.len();
        match piece {
            Piece::Text(more) => {
                if !matches!(self.open, Some(Open::Message { .. })) {
                    self.message().await?;
                }
                let index = self.output.len();
                if let Some(Open::Message { id, text }) = &mut self.open {
                    text.push_str(&more);
                    let event = json!({ "item_id": id, "output_index": index, "content_index": 0, "delta": more, "logprobs": [] });
                    self.send("response.output_text.delta", event).await?;
                }
            }
            Piece::Reasoning(more) => {
                if !matches!(self.open, Some(Open::Reasoning { .. })) {
                    let id = format!("rs_{}", random_id());
                    let item = json!({ "type": "reasoning", "id": id, "summary": [], "content": [] });
                    self.open(item, Open::Reasoning { id, text: String::new() }).await?;
                }
                let index = self.output.len();
                if let Some(Open::Reasoning { id, text }) = &mut self.open {
                    text.push_str(&more);
                    let event =
                        json!({ "item_id": id, "output_index": index, "content_index": 0, "delta": more });
                    self.send("response.reasoning_text.delta", event).await?;
                }
            }
            Piece::Call { name, .. } => {
                let (id, call_id) = (format!("fc_{}", random_id()), call_id());
                let item = json!({
                    "type": "function_call",
                    "id": id,
                    "call_id": call_id,
                    "name": name,
                    "arguments": "",
                    "status": "in_progress",
                });
                self.open(item, Open::Call { id, call_id, name, arguments: String::new() }).await?;
            }
            Piece::Arguments { text, .. } => {
                if let Some(Open::Call { id, arguments, .. }) = &mut self.open {
                    arguments.push_str(&text);
                    let event = json!({ "item_id": id, "output_index": index, "delta": text });
                    self.send("response.function_call_arguments.delta", event).await?;
                }
            }
        }
        Ok(())
    }

    async fn message(&mut self) -> Result<(), Gone> {
        let id = format!("msg_{}", random_id());
        let item = json!({ "type": "message", "id": id, "role": "assistant", "status": "in_progress", "content": [] });
        self.open(item, Open::Message { id, text: String::new() }).await
    }
}

/// Starts the stream; a response that `store` has the conversation for is kept at its end.
pub(super) fn stream(
    call: &Call,
    response: Response,
    mut answers: Answers,
    store: Option<Vec<ChatMessage>>,
) -> axum::response::Response {
    let (stream, reply) = sse::events(call.app.options.limits.write_stall_time);
    let (app, tenant) = (call.app.clone(), call.tenant);
    let write = async move {
        let mut events = Events { stream, sequence: 0, open: None, output: Vec::new() };
        let begun = response.document("in_progress", &[], None, Value::Null);
        events.send("response.created", json!({ "response": begun })).await?;
        events.send("response.in_progress", json!({ "response": begun })).await?;
        let mut whole = Message::default();
        loop {
            let next = tokio::select! {
                next = answers.next() => next,
                () = events.stream.gone() => return Err(Gone),
            };
            match next {
                None => return Ok(()),
                Some((_, Ok(Step::Pieces { pieces, .. }))) => {
                    for piece in pieces {
                        whole.add(piece.clone());
                        events.piece(piece).await?;
                    }
                }
                Some((_, Ok(Step::End { reason, usage, thoughts, .. }))) => {
                    if events.open.is_none() && events.output.is_empty() {
                        events.message().await?;
                    }
                    events.close().await?;
                    let mut counts = Counts::default();
                    counts.add(&usage, thoughts);
                    let end = status(reason);
                    let document = response.document(end, &events.output, Some(&counts), Value::Null);
                    if let Some(messages) = store {
                        stored::keep(&app, tenant, &response.id, messages, whole, &document);
                    }
                    return events.send(&format!("response.{end}"), json!({ "response": document })).await;
                }
                Some((_, Err(refusal))) => {
                    let body = refusal.body(Dialect::OpenAi);
                    let error = json!({ "code": "server_error", "message": body["error"]["message"] });
                    let document = response.document("failed", &items(&whole), None, error);
                    return events.send("response.failed", json!({ "response": document })).await;
                }
            }
        }
    };
    tokio::spawn(write);
    reply
}
