//! The machine: every model is a [`Graph`]; a [`Backend`] compiles the whole of it into a [`Program`].
//!
//! This crate knows no architecture by name. Unsafe code lives in `cpu/shared.rs` only: the memory that the threads of one
//! program share.
#![deny(unsafe_code)]

pub mod backend;
mod batch;
mod bind;
pub mod builder;
pub mod cpu;
mod einsum;
mod fast;
pub mod graph;
pub mod memory;
pub mod ops;
pub mod passes;
pub mod plain;
pub mod reference;
pub mod shape;
pub mod specialize;
pub mod tensor_program;
#[cfg(test)]
mod tests;
mod widen;

pub use backend::{
    Backend, CompileError, CompileOptions, Inputs, KvOptions, KvType, MemoryReport, OutputTensor, Outputs,
    PAGE_TOKENS, Program, RunError, Sequence, TensorRef, WeightError, WeightSource,
};
pub use builder::{BuildError, Builder, Value};
pub use cpu::{CpuBackend, CpuProgram, Pool};
pub use graph::ValueKind;
pub use graph::{
    AttentionSpec, BinaryOp, CrossAttentionSpec, Dim, DisentangledSpec, DistanceBias, Graph, Node, NodeId,
    Op, RopeSpec, RopeStyle, SelfAttentionSpec, Sym, UnaryOp, ValueId, ValueInfo, WeightId, WeightInfo,
    distance_bucket,
};
pub use kun_kernels::{Isa, peak};
pub use ops::{Fact, TensorOp};
pub use plain::Datum;
pub use reference::{ReferenceBackend, ReferenceProgram};
pub use specialize::specialize;
pub use tensor_program::{Errand, TensorOptions, TensorProgram, TensorStep};
