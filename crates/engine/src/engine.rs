//! The engine and its two verbs.

use crate::{EngineError, Event, GenerateRequest};
use kun_graph::{KvType, MemoryReport};
use kun_models::ModelInfo;
use kun_tensor::DType;
use std::path::Path;
use std::sync::Arc;

/// How a model is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Compute threads; `None`: one per physical core that this process may use.
    pub threads: Option<usize>,
    /// Context of one sequence; `None`: the model's own, or what fits.
    pub context_tokens: Option<usize>,
    /// Sequences decoded together at most; `None`: 1.
    pub max_sequences: Option<usize>,
    /// Type of the key/value cache.
    pub kv_type: KvType,
    /// Quantise float weights at load.
    pub quantize: Option<DType>,
    /// Memory budget in bytes; `None`: what the machine (or its cgroup) has free.
    pub max_memory_bytes: Option<u64>,
    /// Read files instead of mapping them.
    pub no_mmap: bool,
    /// Tokens of one prefill step; `None`: 512.
    pub prefill_tokens: Option<usize>,
}

/// What a model needs and what this machine has, before anything is loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// The model.
    pub model: ModelInfo,
    /// For `context_tokens`.
    pub memory: MemoryReport,
    /// The context that `memory` is for.
    pub context_tokens: usize,
    /// Bytes of one token in the cache, all layers.
    pub kv_bytes_per_token: u64,
    /// Free memory, or the budget.
    pub available_bytes: u64,
    /// Longest context that fits, at most the model's own; `None` if not even one page does.
    pub max_context_tokens: Option<usize>,
}

/// Progress of a load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loading {
    /// Bytes packed.
    pub done_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// Loads models and answers requests. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Engine {}

impl Engine {
    /// An engine with no model loaded.
    pub fn new() -> Engine {
        Engine {}
    }
    /// What the model at `path` would take.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn fit(&self, path: &Path, options: &LoadOptions) -> Result<Fit, EngineError> {
        let _ = (path, options);
        Err(EngineError::Unloaded)
    }
    /// Loads the model at `path` (a `.gguf` file or a folder).
    ///
    /// # Errors
    /// [`EngineError`]; [`EngineError::DoesNotFit`] before anything large is allocated.
    pub fn load(&self, path: &Path, options: &LoadOptions) -> Result<Arc<LoadedModel>, EngineError> {
        let _ = (path, options);
        Err(EngineError::Unloaded)
    }
    /// Answers a request with a loaded model. Dropping the stream cancels it.
    ///
    /// # Errors
    /// [`EngineError::ContextExceeded`], [`EngineError::Parameter`] and those of template and tokenizer, before any step runs.
    pub fn generate(
        &self,
        model: &LoadedModel,
        request: GenerateRequest,
    ) -> Result<GenerateStream, EngineError> {
        let _ = (model, request);
        Err(EngineError::Unloaded)
    }
}

/// A loaded model: its worker thread owns the compiled program.
#[derive(Debug)]
pub struct LoadedModel {}

impl LoadedModel {
    /// The description.
    pub fn info(&self) -> &ModelInfo {
        unimplemented!("filled by the engine")
    }
    /// What it takes.
    pub fn memory(&self) -> MemoryReport {
        MemoryReport::default()
    }
    /// Context of one sequence, in tokens.
    pub fn context_tokens(&self) -> usize {
        0
    }
    /// Whether the model file brings a chat template.
    pub fn has_chat_template(&self) -> bool {
        false
    }
    /// Ids of a raw prompt as [`crate::Prompt::Text`] gives them to the model.
    ///
    /// # Errors
    /// [`EngineError::Tokenizer`].
    pub fn tokenize(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        let _ = text;
        Err(EngineError::Unloaded)
    }
    /// For each of `tokens[first..]`, the natural log-probability of that token after all before it, in one sequence from position 0.
    ///
    /// # Errors
    /// [`EngineError::ContextExceeded`], [`EngineError::Run`].
    pub fn score(&self, tokens: &[u32], first: usize) -> Result<Vec<f32>, EngineError> {
        let _ = (tokens, first);
        Err(EngineError::Unloaded)
    }
}

/// The events of one answer, in order; ends after [`Event::Done`].
#[derive(Debug)]
pub struct GenerateStream {}

impl Iterator for GenerateStream {
    type Item = Result<Event, EngineError>;
    fn next(&mut self) -> Option<Self::Item> {
        None
    }
}
