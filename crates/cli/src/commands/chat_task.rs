//! Tasks of language through a model that chats.

use super::{App, answer};
use crate::args::EncodeArgs;
use crate::exit::{INTERRUPTED, Quiet};
use anyhow::bail;
use kun_engine::text::{Entity, Quote, chunks, mentions};
use kun_engine::{
    ChatMessage, Constraint, FinishReason, GenerateRequest, LoadOptions, LoadedModel, Prompt, Role,
    SamplingOptions,
};
use serde_json::{Value, json};
use std::sync::Arc;

/// The default chat model if it is on this disk, else the default embedder.
pub fn default_model(app: &App) -> anyhow::Result<String> {
    Ok(present(app)?.unwrap_or_else(|| app.hub().catalog().default_embed().to_owned()))
}

/// The default chat model if it is on this disk.
pub fn present(app: &App) -> anyhow::Result<Option<String>> {
    let hub = app.hub();
    let chat = hub.catalog().default_chat();
    Ok(hub.locate(chat)?.map(|_| chat.to_owned()))
}

/// As for any chat model.
pub fn load_options(args: &EncodeArgs) -> LoadOptions {
    LoadOptions {
        threads: args.threads,
        max_memory_bytes: args.max_memory,
        no_mmap: args.no_mmap,
        output_rows: Some(64),
        ..LoadOptions::default()
    }
}

fn message(content: String) -> ChatMessage {
    ChatMessage::new(Role::User, content)
}

/// Kinds of things to find in texts.
pub struct Kinds {
    model: Arc<LoadedModel>,
    names: Vec<String>,
    schema: Value,
    /// Bytes of a text that are read at once.
    part_bytes: usize,
}

/// Longest part of a text that is read at once: small models lose things in longer ones.
const MOST_PART_BYTES: usize = 1500;
/// Things that are listed for one part at most.
const MOST_QUOTES: usize = 64;

impl Kinds {
    /// Things of these kinds, named by `model`.
    pub fn new(model: Arc<LoadedModel>, names: &[String]) -> Kinds {
        // Half of the context is the answer's. A token has at least a byte.
        let part_bytes = (model.context_tokens() / 4).clamp(16, MOST_PART_BYTES);
        let thing = json!({
            "type": "object",
            "properties": {
                "text": { "type": "string", "minLength": 1, "maxLength": 200 },
                "label": { "enum": names },
            },
            "required": ["text", "label"],
            "additionalProperties": false,
        });
        let schema = json!({
            "type": "object",
            "properties": { "entities": { "type": "array", "maxItems": MOST_QUOTES, "items": thing } },
            "required": ["entities"],
            "additionalProperties": false,
        });
        Kinds { model, names: names.to_vec(), schema, part_bytes }
    }

    /// Where in the text things of these kinds are named: the model says what, and their places are looked up, so that
    /// nothing is found that is not there. Long texts are read in parts.
    ///
    /// # Errors
    /// The engine's; an answer that found no end; [`Quiet`] after Ctrl-C.
    pub fn find(&self, app: &App, text: &str) -> anyhow::Result<Vec<Entity>> {
        let mut found = Vec::new();
        for part in chunks(text, self.part_bytes) {
            let quotes = self.quotes(app, &text[part.clone()])?;
            found.extend(mentions(&text[part.clone()], &quotes).into_iter().map(|entity| Entity {
                start: part.start + entity.start,
                end: part.start + entity.end,
                ..entity
            }));
        }
        Ok(found)
    }

    fn quotes(&self, app: &App, text: &str) -> anyhow::Result<Vec<Quote>> {
        let content = format!(
            "List every {} that the text names, each in the words of the text, as JSON: {{\"entities\": [{{\"text\": \
             \"...\", \"label\": \"...\"}}]}}. An empty list if there is none.\n\nText: {text}",
            one_of(&self.names)
        );
        let request = GenerateRequest {
            sampling: SamplingOptions { temperature: 0.0, ..SamplingOptions::default() },
            constraint: Some(Constraint::JsonSchema(self.schema.clone())),
            template_variables: vec![("enable_thinking".to_owned(), false)],
            ..GenerateRequest::new(Prompt::Chat(vec![message(content)]))
        };
        let answer = answer::collect(app.engine.generate(&self.model, request)?, |_| Ok(()))?;
        match answer.reason {
            FinishReason::Stop => {}
            FinishReason::Length => {
                bail!("the model's list of entities found no end within {} tokens", answer.tokens.len())
            }
            FinishReason::Cancelled => return Err(Quiet(INTERRUPTED).into()),
        }
        let listed: Value = serde_json::from_str(&answer.text)?;
        let listed = listed["entities"].as_array().map(Vec::as_slice).unwrap_or_default();
        let quote = |thing: &Value| {
            Some(Quote {
                text: thing["text"].as_str()?.to_owned(),
                label: thing["label"].as_str()?.to_owned(),
            })
        };
        Ok(listed.iter().filter_map(quote).collect())
    }
}

/// `a, b or c`.
fn one_of(names: &[String]) -> String {
    match names {
        [most @ .., last] if !most.is_empty() => format!("{} or {last}", most.join(", ")),
        _ => names.concat(),
    }
}
