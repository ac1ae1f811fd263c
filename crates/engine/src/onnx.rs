//! ONNX models: loaded, run on tensors by name, and checked against expected outputs.

pub mod arrays;
pub mod check;
mod describe;
mod pass;

pub use describe::Cost;
pub use kun_models::onnx::{OnnxInfo, Port};
pub use pass::{Memory, OnnxOptions, OnnxPass, has_bf16};
