//! Readers of model files: untrusted bytes to plain structs. No network, no math, no panic, bounded depth and memory.
#![forbid(unsafe_code)]

pub mod error;
pub mod gguf;
pub mod hf_config;
pub mod open;
pub mod safetensors;
pub mod table;

pub use error::FormatError;
pub use open::{ModelFiles, open};
pub use table::{TensorInfo, TensorTable};
