//! The machine: every model is a [`Graph`]; a [`Backend`] compiles the whole of it into a [`Program`].
//!
//! This crate knows no architecture by name.

pub mod backend;
pub mod builder;
pub mod graph;

pub use backend::{
    Backend, CompileError, CompileOptions, Inputs, KvOptions, KvType, MemoryReport, OutputTensor, Outputs,
    PAGE_TOKENS, Program, RunError, Sequence, TensorRef, WeightError, WeightSource,
};
pub use builder::{BuildError, Builder, Value};
pub use graph::{
    AttentionSpec, BinaryOp, Dim, Graph, Node, NodeId, Op, RopeSpec, RopeStyle, Sym, UnaryOp, ValueId,
    ValueInfo, WeightId, WeightInfo,
};
