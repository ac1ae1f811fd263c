//! Tasks of language through a model that chats.

use super::App;
use crate::args::EncodeArgs;
use kun_engine::text::softmax;
use kun_engine::{ChatMessage, Classified, EngineError, LoadOptions, LoadedModel, Role};

/// The default chat model if it is on this disk, else the default embedder.
pub fn default_model(app: &App) -> anyhow::Result<String> {
    let hub = app.hub();
    let chat = hub.catalog().default_chat();
    let name = if hub.locate(chat)?.is_some() { chat } else { hub.catalog().default_embed() };
    Ok(name.to_owned())
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

/// Labels to choose from, with how likely the model finds each when there is nothing to classify.
pub struct Labels {
    names: Vec<String>,
    bias: Vec<f32>,
}

/// What there is nothing to classify in (arXiv:2102.09690).
const NO_CONTENT: &str = "N/A";

impl Labels {
    /// Asks the model once.
    ///
    /// # Errors
    /// Those of [`LoadedModel::choose`].
    pub fn new(model: &LoadedModel, names: &[String]) -> Result<Labels, EngineError> {
        let bias = model.choose(&question(NO_CONTENT, names), names)?;
        Ok(Labels { names: names.to_vec(), bias })
    }

    /// The labels.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Their probabilities for a text: how much likelier than without content the model finds each as its answer.
    ///
    /// # Errors
    /// Those of [`LoadedModel::choose`].
    pub fn scores(&self, model: &LoadedModel, text: &str) -> Result<Classified, EngineError> {
        let chosen = model.choose(&question(text, &self.names), &self.names)?;
        let gains: Vec<f32> = chosen.iter().zip(&self.bias).map(|(score, bias)| score - bias).collect();
        Ok(Classified { scores: softmax(&gains), truncated: None })
    }
}

fn question(text: &str, names: &[String]) -> Vec<ChatMessage> {
    let content = format!(
        "Which label fits the text best? Answer with the label only.\n\nLabels: {}\n\nText: {text}\n\nLabel:",
        names.join(", ")
    );
    vec![message(content)]
}

fn message(content: String) -> ChatMessage {
    ChatMessage::new(Role::User, content)
}
