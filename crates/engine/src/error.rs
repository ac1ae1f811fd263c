//! What can go wrong in the engine.

/// One variant per thing that can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The model's files cannot be read.
    #[error("cannot open the model")]
    Format(#[from] kun_formats::FormatError),
    /// The model cannot be described.
    #[error("cannot load the model")]
    Model(#[from] kun_models::ModelError),
    /// The graph cannot be compiled.
    #[error("cannot compile the model")]
    Compile(#[from] kun_graph::CompileError),
    /// Its tokenizer cannot be built.
    #[error("cannot load the tokenizer")]
    Tokenizer(#[from] kun_text::TokenizerError),
    /// Its chat template cannot be used.
    #[error(transparent)]
    Template(#[from] kun_text::TemplateError),
    /// The model does not fit this machine's memory.
    #[error(
        "the model needs {needed_bytes} bytes ({weights_bytes} weights, {kv_bytes} KV cache, {workspace_bytes} workspace), {available_bytes} are available"
    )]
    DoesNotFit {
        /// Sum.
        needed_bytes: u64,
        /// Weights.
        weights_bytes: u64,
        /// Cache for the context asked for.
        kv_bytes: u64,
        /// Activations.
        workspace_bytes: u64,
        /// Free memory, or the budget given.
        available_bytes: u64,
    },
    /// The prompt is longer than the context: never cut.
    #[error("the prompt has {prompt_tokens} tokens, the context holds {context_tokens}")]
    ContextExceeded {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Tokens that fit.
        context_tokens: usize,
    },
    /// The files of the model disagree with each other.
    #[error("the model's files disagree: {what}")]
    Mismatch {
        /// Which, with the numbers.
        what: String,
    },
    /// The model, or the head on it, does not do what is asked of it.
    #[error("{what}")]
    Unsuitable {
        /// Which model is needed.
        what: String,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    /// A parameter is out of range.
    #[error("`{name}`: {what}")]
    Parameter {
        /// Which.
        name: &'static str,
        /// Value and limit.
        what: String,
    },
    /// The user's data or the model's outputs do not fit the task.
    #[error(transparent)]
    Task(#[from] kun_tasks::TaskError),
    /// Nothing says how to use a picture model, or it is for something else.
    #[error(transparent)]
    Describe(#[from] kun_tasks::describe::DescribeError),
    /// A step failed.
    #[error("cannot run the model")]
    Run(#[source] std::sync::Arc<kun_graph::RunError>),
    /// The model gave logits that no token can be picked from.
    #[error(transparent)]
    Logits(#[from] crate::sampler::LogitsError),
    /// The caller ended the request.
    #[error("the request was cancelled")]
    Cancelled,
    /// The model's worker thread has ended.
    #[error("the model was unloaded")]
    Unloaded,
}
