//! Responses kept in memory, each for the caller that made it.

use crate::App;
use crate::openai::chat::Message;
use kun_engine::{ChatMessage, Role, Tenant, ToolCall};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{MutexGuard, PoisonError};

/// Responses kept at most, and their size together.
const MOST: usize = 1024;
const MOST_BYTES: usize = 64 << 20;

/// A response and the conversation that it ends.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    id: String,
    tenant: Tenant,
    pub(super) messages: Vec<ChatMessage>,
    pub(super) document: Value,
    bytes: usize,
}

fn all(app: &App) -> MutexGuard<'_, VecDeque<Stored>> {
    app.responses.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn keep(
    app: &App,
    tenant: Tenant,
    id: &str,
    mut messages: Vec<ChatMessage>,
    answer: Message,
    document: &Value,
) {
    let mut own = ChatMessage::new(Role::Assistant, answer.text);
    own.calls = answer
        .calls
        .into_iter()
        .map(|(id, name, arguments)| ToolCall {
            id,
            name,
            arguments: serde_json::from_str(&arguments).unwrap_or_else(|_| json!({})),
        })
        .collect();
    messages.push(own);
    let bytes = messages.iter().map(|m| m.content.len() + 200).sum::<usize>() + document.to_string().len();
    let entry = Stored { id: id.to_owned(), tenant, messages, document: document.clone(), bytes };
    let mut kept = all(app);
    kept.push_back(entry);
    let mut total: usize = kept.iter().map(|entry| entry.bytes).sum();
    while kept.len() > MOST || total > MOST_BYTES {
        let Some(oldest) = kept.pop_front() else { break };
        total -= oldest.bytes;
    }
}

/// Only its own caller finds a response.
pub(super) fn find(app: &App, tenant: Tenant, id: &str) -> Option<Stored> {
    all(app).iter().find(|entry| entry.id == id && entry.tenant == tenant).cloned()
}

pub(super) fn remove(app: &App, tenant: Tenant, id: &str) -> bool {
    let mut kept = all(app);
    let before = kept.len();
    kept.retain(|entry| entry.id != id || entry.tenant != tenant);
    kept.len() < before
}
