//! Readers of model files: untrusted bytes to plain structs. No network, no math, no panic, bounded depth and memory.
#![forbid(unsafe_code)]
#![deny(clippy::as_conversions, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![cfg_attr(test, allow(clippy::as_conversions, clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod confine;
pub mod error;
pub mod gguf;
pub mod hf_config;
mod json;
pub mod npy;
pub mod onnx;
pub mod open;
mod reader;
pub mod safetensors;
pub mod table;

pub use error::FormatError;
pub use gguf::{Gguf, Metadata};
pub use hf_config::{HfConfig, SentenceModule};
pub use onnx::OnnxFile;
pub use open::{ModelFiles, architecture, open};
pub use table::{TensorInfo, TensorTable};
