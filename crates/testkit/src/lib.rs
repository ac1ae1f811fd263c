//! Tolerances, golden files and tiny models for tests.
#![deny(unsafe_code)]

pub mod gguf_writer;
pub mod golden;
pub mod kills;
#[allow(unsafe_code, reason = "an allocator that counts is one line of unsafe per call")]
pub mod peak_memory;
pub mod safetensors_writer;
pub mod scratch;
pub mod tolerance;

pub use kills::kill_at_random;
pub use scratch::Scratch;
pub use tolerance::Tolerance;
