//! The machine: every model is a [`Graph`]; a [`Backend`] compiles the whole of it into a [`Program`].
//!
//! This crate knows no architecture by name. Unsafe code lives in `cpu/shared.rs` only: the memory that the threads of one
//! program share.
#![deny(unsafe_code)]

pub mod backend;
mod bind;
pub mod builder;
pub mod cpu;
pub mod graph;
pub mod memory;
pub mod passes;
pub mod reference;
pub mod shape;
#[cfg(test)]
mod tests;

pub use backend::{
    Backend, CompileError, CompileOptions, Inputs, KvOptions, KvType, MemoryReport, OutputTensor, Outputs,
    PAGE_TOKENS, Program, RunError, Sequence, TensorRef, WeightError, WeightSource,
};
pub use builder::{BuildError, Builder, Value};
pub use cpu::{CpuBackend, CpuProgram, Pool};
pub use graph::{
    AttentionSpec, BinaryOp, CrossAttentionSpec, Dim, DistanceBias, Graph, Node, NodeId, Op, RopeSpec,
    RopeStyle, SelfAttentionSpec, Sym, UnaryOp, ValueId, ValueInfo, WeightId, WeightInfo, distance_bucket,
};
pub use kun_kernels::{Isa, peak};
pub use reference::{ReferenceBackend, ReferenceProgram};
