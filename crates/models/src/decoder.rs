//! Decoders: a stack of attention and feed-forward layers that predicts the next token.
//!
//! [`DecoderConfig`] holds all that differs between architectures; an architecture is a file that fills it in.

pub mod config;
pub mod graph;
pub mod llama;
pub mod mistral;
pub mod qwen2;
pub mod qwen3;
pub mod rope;
pub mod smollm3;

pub use config::{DecoderConfig, LayerConfig};
pub use graph::build;
pub use rope::{RopeConfig, RopeScaling};
