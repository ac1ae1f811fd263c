//! Loaded models and the two verbs. The only owner of threads, queues, cache pages and loaded models.
#![forbid(unsafe_code)]

pub mod batcher;
pub mod budget;
pub mod chat;
pub mod choose;
pub mod constraint;
pub mod cores;
pub mod cost;
pub mod encode;
pub mod engine;
pub mod error;
pub mod fit;
pub mod kv_cache;
pub mod language;
pub mod library;
pub mod load;
pub mod machine;
pub mod null;
pub mod onnx;
pub mod pass;
pub mod queue;
pub mod request;
pub mod sampler;
pub mod seq2seq;
pub(crate) mod sequence;
pub mod speculate;
pub mod text;
pub mod tools;
pub mod vision;
pub(crate) mod vocabulary;
pub mod worker;

pub use chat::ChatFormat;
pub use choose::Labels;
pub use constraint::Constraint;
pub use cost::StepCost;
pub use encode::{
    AnswerOptions, Classified, EmbedOptions, Embedding, EncodeOptions, Encoded, ExtractOptions, Fitting,
    HeadFile, LoadedEncoder, Purpose, RankOptions, Score, Truncated, ZeroShot, is_encoder,
};
pub use engine::{Canceller, Engine, GenerateStream, LoadOptions, LoadedModel, Loading, Started};
pub use error::EngineError;
pub use fit::{Fit, ModelKind};
pub use kun_graph::{KvType, MemoryReport};
pub use kun_models::ModelInfo;
pub use kun_models::encoder::{EncoderInfo, Head, Pooling};
pub use kun_tasks as tasks;
pub use kun_tensor::storage::keep_freed_memory;
pub use kun_tensor::{DType, Tensor, Tensors};
pub use kun_text::{ChatMessage, OutputParser, Piece, Role, ToolCall, ToolFormat};
pub use kv_cache::PageCounts;
pub use library::{Library, Resident, Shelf, Use};
pub use load::DEFAULT_CONTEXT_TOKENS;
pub use pass::{Item, Pass, PassModel, Reply, Waiting};
pub use request::{
    Class, Event, EventSink, FinishReason, GenerateRequest, Prompt, SamplingOptions, Tenant, TokenLogprob,
    TokenScore, Usage,
};
pub use seq2seq::Seq2SeqModel;
pub use speculate::Speculate;
pub use tools::{Tool, ToolChoice, ToolUse};
pub use vision::{DiffusionModel, DrawPlan, DrawRequest, OcrModel, VisionModel, VisionOptions, Words};
pub use worker::StepTimes;
