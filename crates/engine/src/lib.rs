//! Loaded models and the two verbs. The only owner of threads, queues, cache pages and loaded models.
#![forbid(unsafe_code)]

pub mod engine;
pub mod error;
pub mod request;

pub use engine::{Engine, Fit, GenerateStream, LoadOptions, LoadedModel, Loading};
pub use error::EngineError;
pub use kun_graph::{KvType, MemoryReport};
pub use kun_models::ModelInfo;
pub use kun_tensor::DType;
pub use kun_text::{ChatMessage, Role};
pub use request::{Event, FinishReason, GenerateRequest, Prompt, SamplingOptions, TokenLogprob, Usage};
