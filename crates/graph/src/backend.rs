//! The boundary to devices: a backend gets the whole graph, once.

use crate::graph::Graph;
use kun_kernels::attention::KvLayout;
pub use kun_kernels::attention::KvType;
use kun_tensor::DType;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

/// Tokens in one page of the key/value cache.
pub const PAGE_TOKENS: usize = KvLayout::PAGE_TOKENS;

/// Why a weight cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum WeightError {
    /// The source has no tensor of this name.
    #[error("no tensor `{name}`")]
    Missing {
        /// The name asked for.
        name: String,
    },
    /// Reading or converting it failed.
    #[error("tensor `{name}`")]
    Read {
        /// The name asked for.
        name: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Gives the bytes of weights, as stored (see [`DType`]), row-major.
pub trait WeightSource: Send + Sync {
    /// Element type and dimensions (outermost first) of a tensor.
    fn info(&self, name: &str) -> Option<(DType, Vec<usize>)>;
    /// Source bytes of the rows `rows`, a row being one index of the outermost dimension (a 1-D tensor is one row).
    ///
    /// # Errors
    /// [`WeightError`] if the tensor is missing or unreadable.
    fn rows(&self, name: &str, rows: Range<usize>) -> Result<Cow<'_, [u8]>, WeightError>;
    /// Tells that the tensor's source bytes are no longer needed in memory.
    fn release(&self, name: &str);
}

/// The cache of keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvOptions {
    /// Element type.
    pub dtype: KvType,
    /// Pages of [`PAGE_TOKENS`] tokens, each covering every layer.
    pub pages: usize,
}

/// Bounds that a program is planned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileOptions {
    /// Most tokens (`T`) in one run.
    pub max_tokens: usize,
    /// Most output rows (`R`) in one run.
    pub max_rows: usize,
    /// Most sequences (`S`) in one run.
    pub max_sequences: usize,
    /// Compute threads, the caller's included; at least 1.
    pub threads: usize,
    /// The key/value cache.
    pub kv: KvOptions,
}

/// Bytes that a program takes, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryReport {
    /// Packed weights.
    pub weights_bytes: usize,
    /// Key/value cache.
    pub kv_bytes: usize,
    /// Activations and scratch.
    pub workspace_bytes: usize,
}

/// Why a graph cannot be compiled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The backend lacks operations; every such node is named.
    #[error("this backend cannot run: {}", nodes.join(", "))]
    Unsupported {
        /// `node name (operation)`, one per node.
        nodes: Vec<String>,
    },
    /// A weight is missing or unreadable.
    #[error("cannot load weights")]
    Weight(#[from] WeightError),
    /// A node's shapes do not fit.
    #[error("node `{node}`: {what}")]
    Node {
        /// Its name.
        node: String,
        /// What is wrong.
        what: String,
    },
    /// Memory for weights, cache or workspace was refused.
    #[error("the system refused {bytes} bytes for {what}")]
    Memory {
        /// Bytes asked for.
        bytes: usize,
        /// What for.
        what: &'static str,
    },
}

/// Tensor operations run as a [`crate::TensorProgram`], not as a program with a cache.
pub(crate) fn refuse_tensor_ops(graph: &Graph) -> Result<(), CompileError> {
    let nodes: Vec<String> = graph
        .nodes
        .iter()
        .filter(|node| matches!(node.op, crate::Op::Tensor(_)))
        .map(|node| node.name.clone())
        .collect();
    if nodes.is_empty() { Ok(()) } else { Err(CompileError::Unsupported { nodes }) }
}

/// Why a run failed. Except for [`RunError::Failed`], nothing was computed, and the cache is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// An input is missing or has the wrong type or shape.
    #[error("input `{name}`: {what}")]
    Input {
        /// Its name.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// A length is beyond what the program was planned for.
    #[error("{what}: {actual} is more than the planned {limit}")]
    Limit {
        /// Which length.
        what: &'static str,
        /// Given.
        actual: usize,
        /// Planned.
        limit: usize,
    },
    /// A node cannot compute its results from these operands.
    #[error("node `{node}`: {what}")]
    Node {
        /// Its name.
        node: String,
        /// What is wrong.
        what: String,
    },
    /// A shape of the inputs does not fit the model.
    #[error("cannot plan for these shapes")]
    Plan(#[source] Box<CompileError>),
    /// A step panicked: a fault of this program. Unlike the other errors, the cache may hold part of the run.
    #[error("a compute step failed")]
    Failed,
}

/// A tensor given to a run.
#[derive(Clone, Copy, Debug)]
pub enum TensorRef<'a> {
    /// f32 values and their shape.
    F32(&'a [f32], &'a [usize]),
    /// i32 values and their shape.
    I32(&'a [i32], &'a [usize]),
}

/// The part of a ragged batch that belongs to one sequence. Tokens of sequence 0 come first, then those of sequence 1, ..
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence<'a> {
    /// Position of its first token in this run: tokens already in the cache.
    pub start: usize,
    /// Its tokens in this run.
    pub tokens: usize,
    /// Its pages in order: page `i` holds positions `i * PAGE_TOKENS ..`; covers `start + tokens`.
    pub pages: &'a [u32],
}

/// Everything that a run reads.
#[derive(Clone, Debug, Default)]
pub struct Inputs<'a> {
    /// Graph inputs by name.
    pub tensors: Vec<(&'a str, TensorRef<'a>)>,
    /// The ragged batch; empty for graphs without attention over a cache.
    pub sequences: &'a [Sequence<'a>],
}

/// One result.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutputTensor {
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Row-major.
    pub data: Vec<f32>,
}

/// Results by name; buffers are reused between runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outputs {
    /// By the name of the graph output.
    pub tensors: BTreeMap<String, OutputTensor>,
}

/// Turns a graph and its weights into something that runs on one kind of device.
pub trait Backend {
    /// What it compiles to.
    type Program: Program;
    /// Packs the weights into this device's own layout, chooses kernels, plans one arena.
    ///
    /// # Errors
    /// [`CompileError`].
    fn compile(
        &self,
        graph: &Graph,
        weights: &dyn WeightSource,
        options: &CompileOptions,
    ) -> Result<Self::Program, CompileError>;
    /// The memory that [`Backend::compile`] would take, without loading anything.
    ///
    /// # Errors
    /// [`CompileError`], as far as it shows without reading weights.
    fn estimate(&self, graph: &Graph, options: &CompileOptions) -> Result<MemoryReport, CompileError>;
}

/// A compiled graph. One call per scheduler step, never per op.
pub trait Program: Send {
    /// Runs one step: reads `inputs`, appends to the cache, fills `outputs`.
    ///
    /// # Errors
    /// [`RunError`] if the inputs do not fit the plan.
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut Outputs) -> Result<(), RunError>;
    /// Makes page `to` of the cache what page `from` is: two continuations of one sequence part there.
    ///
    /// # Errors
    /// [`RunError::Input`] if the program has no such pages.
    fn copy_page(&mut self, from: u32, to: u32) -> Result<(), RunError> {
        let what = format!("this program has no pages to copy {from} to {to}");
        Err(RunError::Input { name: "pages".into(), what })
    }
    /// Calls `body` for every task below `tasks`, on the threads that run the program as far as they are free.
    ///
    /// # Errors
    /// [`RunError::Failed`] if a call panicked.
    fn share(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) -> Result<(), RunError> {
        (0..tasks).for_each(body);
        Ok(())
    }
    /// What it takes.
    fn memory(&self) -> MemoryReport;
}
