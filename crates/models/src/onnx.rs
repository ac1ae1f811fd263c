//! ONNX models: every operator becomes tensor operations of the one graph.
//!
//! One file per family turns nodes into [`kun_graph::TensorOp`]s; what older versions give as attributes becomes operands,
//! as in the newest, so that the graph knows one form of each operation.

mod attention;
mod attributes;
mod call;
mod contrib;
mod control;
mod convolution;
mod elementwise;
mod gather;
mod generate;
mod import;
mod layout;
mod matmul;
mod norm;
mod quantize;
mod recurrent;
mod reduce;
mod resize;
mod text;
mod weights;

pub use import::{OnnxInfo, OnnxModel, Port, import};
pub use weights::OnnxWeights;
