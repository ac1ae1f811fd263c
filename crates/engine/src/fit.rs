//! What a model would take, before anything is loaded.

use crate::load::{self, Plan, total};
use crate::{EncodeOptions, Engine, EngineError, LoadOptions, budget};
use kun_graph::MemoryReport;
use kun_models::ModelInfo;
use kun_models::encoder::Head;
use std::path::Path;

/// What a model needs and what this machine has, before anything is loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// The model.
    pub model: ModelInfo,
    /// What it does.
    pub kind: ModelKind,
    /// For `context_tokens`.
    pub memory: MemoryReport,
    /// The context that `memory` is for; the longest text of a model that keeps none.
    pub context_tokens: usize,
    /// Bytes of one token in the cache, all layers; 0: there is none that grows.
    pub kv_bytes_per_token: u64,
    /// Free memory, or the budget; `u64::MAX` where the system does not tell.
    pub available_bytes: u64,
    /// Longest context that fits, at most the model's own; `None` if not even one page does.
    pub max_context_tokens: Option<usize>,
}

/// What a model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelKind {
    /// Writes on, or chats.
    Generates,
    /// Turns texts into vectors.
    Embeds,
    /// Scores how well a document answers a query.
    Ranks,
    /// Scores labels of texts.
    Classifies,
    /// Labels tokens.
    Extracts,
    /// Points at answers in a document.
    Answers,
    /// Reads a text and writes another: translations, summaries.
    Rewrites,
}

impl ModelKind {
    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            ModelKind::Generates => "generates",
            ModelKind::Embeds => "embeds",
            ModelKind::Ranks => "ranks",
            ModelKind::Classifies => "classifies",
            ModelKind::Extracts => "extracts",
            ModelKind::Answers => "answers",
            ModelKind::Rewrites => "rewrites",
        }
    }

    /// By what stands on an encoder.
    pub(crate) fn of_head(head: &Head) -> ModelKind {
        match head {
            Head::Embedding { .. } => ModelKind::Embeds,
            Head::Sequence { labels: 1 } => ModelKind::Ranks,
            Head::Sequence { .. } => ModelKind::Classifies,
            Head::Tokens { .. } => ModelKind::Extracts,
            Head::Span => ModelKind::Answers,
        }
    }
}

impl Fit {
    /// Of a model whose memory does not grow with what it has read.
    pub(crate) fn fixed(
        model: ModelInfo,
        kind: ModelKind,
        memory: MemoryReport,
        most_tokens: usize,
        budget_bytes: Option<u64>,
    ) -> Fit {
        let available_bytes = budget_bytes.or_else(budget::available_bytes).unwrap_or(u64::MAX);
        let max_context_tokens = (total(&memory) <= available_bytes).then_some(most_tokens);
        let (context_tokens, kv_bytes_per_token) = (most_tokens, 0);
        Fit { model, kind, memory, context_tokens, kv_bytes_per_token, available_bytes, max_context_tokens }
    }
}

impl Engine {
    /// What the model at `path` would take, whatever it does.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn fit(&self, path: &Path, options: &LoadOptions) -> Result<Fit, EngineError> {
        if crate::seq2seq::is_seq2seq(path) {
            return self.fit_seq2seq(path, options);
        }
        if crate::encode::is_encoder(path)? {
            let options = EncodeOptions {
                threads: options.threads,
                precision: options.quantize,
                max_memory_bytes: options.max_memory_bytes,
                no_mmap: options.no_mmap,
                ranks: true,
                ..EncodeOptions::default()
            };
            return self.fit_encoder(path, &options);
        }
        let (threads, device) = self.device(options.threads)?;
        let (files, _) = load::open(path, options)?;
        Ok(Plan::new(files, options, threads, &device)?.fit)
    }
}
