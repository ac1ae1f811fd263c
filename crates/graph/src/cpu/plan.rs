//! Turns an optimised graph into a flat list of steps and a place for every tensor.

mod absorb;
mod chunks;
mod planner;

pub(crate) use chunks::{Chunk, Chunks};
pub(crate) use planner::plan;

use crate::cpu::kv_pages::LayerPages;
use crate::graph::{
    BinaryOp, CrossAttentionSpec, Dim, DisentangledSpec, DistanceBias, Pool, RopeStyle, SelfAttentionSpec,
    UnaryOp, WeightId,
};
use kun_kernels::Isa;
use kun_kernels::linear::{ActivationFormat, PackedLayout};
use kun_tensor::DType;
use std::ops::Range;

/// Index of a tensor in [`Plan::places`]: the values of the graph first, then what steps need besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Slot(pub(crate) usize);

/// Where a tensor lies during a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// At this byte of the arena.
    Arena(usize),
    /// The caller's, by position in the graph's inputs.
    Input(usize),
    /// The caller's, by position in the graph's outputs.
    Output(usize),
    /// Among the small weights.
    Constant(usize),
    /// Never stored: it lives inside a step.
    Nowhere,
}

/// Dimensions whose product is a number of rows.
pub(crate) type Rows = Vec<Dim>;

/// How one row is made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RowSource {
    /// It is there already.
    Copy { x: Slot },
    /// Root-mean-square norm.
    Norm { x: Slot, weight: usize, eps: f32 },
    /// Layer norm.
    LayerNorm { x: Slot, weight: usize, bias: Option<usize>, eps: f32 },
    /// `op(gate) * up`.
    Gated { gate: Slot, up: Slot, op: UnaryOp },
    /// Prepared by the step that made it.
    Prepared,
}

/// What a linear step of two matrices makes of its results instead of storing them: `op(first) * second`, prepared for the
/// next linear step. Each task makes the columns that it multiplied, so that none but prepared values, a sixth of the bytes
/// of both results, pass from core to core.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Gated {
    pub(crate) op: UnaryOp,
    pub(crate) out: Prepared,
}

/// Rows that a step prepares for the linear step after it, some columns in each task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Prepared {
    /// An int8 format.
    pub(crate) format: ActivationFormat,
    pub(crate) width: usize,
    pub(crate) at: Slot,
}

impl Prepared {
    /// Where in a row some whole groups of its columns lie.
    pub(crate) fn parts(&self, columns: Range<usize>) -> [Range<usize>; 3] {
        self.format.int8_ranges(self.width, columns).expect("whole groups of an int8 row, as planned")
    }
}

/// One matrix of a linear step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LinearPart {
    /// Position in [`Plan::matrices`].
    pub(crate) matrix: usize,
    pub(crate) layout: PackedLayout,
    pub(crate) bias: Option<usize>,
    /// Position in [`LinearStep::prepared`].
    pub(crate) format: usize,
    /// Applied to the result.
    pub(crate) function: Option<UnaryOp>,
    pub(crate) out: Slot,
}

/// Several matrices times the same rows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LinearStep {
    pub(crate) rows: Rows,
    pub(crate) k: usize,
    pub(crate) source: RowSource,
    /// Formats that the matrices want, and where rows of each lie when threads share them.
    pub(crate) prepared: Vec<(ActivationFormat, Slot)>,
    /// The rows are multiplied as they are.
    pub(crate) direct: bool,
    pub(crate) parts: Vec<LinearPart>,
    pub(crate) residual: Option<Slot>,
    /// The tasks then take the same panels of both matrices.
    pub(crate) gated: Option<Gated>,
    pub(crate) chunks: Chunks,
    /// The next linear step, by position in [`Plan::steps`]: what threads multiply after this one.
    pub(crate) next: Option<usize>,
    /// Chunks for many rows, which are split into blocks besides; empty if kernels block rows themselves.
    pub(crate) wide_chunks: Vec<Chunk>,
}

/// Angles of one set of frequencies at the positions of the run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RopeTable {
    pub(crate) positions: usize,
    pub(crate) frequencies: usize,
    pub(crate) magnitude: f32,
    pub(crate) half: usize,
    pub(crate) cos: Slot,
    pub(crate) sin: Slot,
}

/// A turn of heads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Turn {
    /// Position in [`Plan::tables`].
    pub(crate) table: usize,
    pub(crate) rotary_dim: usize,
    pub(crate) style: RopeStyle,
}

/// What happens to the heads of a projection before attention, in place.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct HeadWork {
    /// Norm of each head: constant and epsilon.
    pub(crate) norm: Option<(usize, f32)>,
    pub(crate) turn: Option<Turn>,
}

/// Attention with the norms and turns of its heads and the write to the cache.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AttentionStep {
    pub(crate) q: Slot,
    pub(crate) k: Slot,
    pub(crate) v: Slot,
    pub(crate) out: Slot,
    pub(crate) q_work: HeadWork,
    pub(crate) k_work: HeadWork,
    pub(crate) pages: LayerPages,
    pub(crate) heads: usize,
    pub(crate) scale: f32,
    pub(crate) window_tokens: Option<usize>,
    /// Position in [`Plan::backward`].
    pub(crate) bias: Option<usize>,
    /// What becomes of `out`, if nobody else reads it.
    pub(crate) prepared: Option<Prepared>,
}

/// Biases of a cached attention by distance, worked out once: `[Hq, max_distance + 1]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BackwardBias {
    pub(crate) bias: DistanceBias,
    pub(crate) heads: usize,
    pub(crate) constant: usize,
}

impl BackwardBias {
    /// Distances that have a number of their own; farther ones share the last.
    pub(crate) fn distances(&self) -> usize {
        match self.bias {
            DistanceBias::Buckets { max_distance, .. } => max_distance + 1,
            DistanceBias::Slopes(_) => 1,
        }
    }
}

/// Attention to rows of the caller's.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CrossAttentionStep {
    pub(crate) q: Slot,
    pub(crate) k: Slot,
    pub(crate) v: Slot,
    /// Position in the graph's inputs.
    pub(crate) spans: usize,
    pub(crate) out: Slot,
    pub(crate) spec: CrossAttentionSpec,
}

/// Biases of all heads by distance: `[Hq, 2 N - 1]` for the longest sequence, of `N` tokens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DistanceTable {
    pub(crate) bias: DistanceBias,
    pub(crate) heads: usize,
    pub(crate) constant: usize,
    pub(crate) out: Slot,
}

/// Attention within sequences.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SelfAttentionStep {
    pub(crate) q: Slot,
    pub(crate) k: Slot,
    pub(crate) v: Slot,
    pub(crate) out: Slot,
    pub(crate) spec: SelfAttentionSpec,
    /// Position in [`Plan::distances`].
    pub(crate) distances: Option<usize>,
}

/// Attention within sequences that compares content and distance apart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DisentangledStep {
    pub(crate) q: Slot,
    pub(crate) k: Slot,
    pub(crate) v: Slot,
    /// Distances of keys, then of queries.
    pub(crate) distances: [Option<Slot>; 2],
    pub(crate) out: Slot,
    pub(crate) spec: DisentangledSpec,
}

/// What one step does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Work {
    RopeTable(usize),
    DistanceTable(usize),
    Embedding { ids: usize, matrix: usize, width: usize, out: Slot },
    SelectRows { x: Slot, rows: usize, width: usize, out: Slot },
    Rows { source: RowSource, rows: Rows, width: usize, out: Slot },
    AddNorm { x: Slot, delta: Slot, sum: Slot, out: Slot, rows: Rows, width: usize, weight: usize, eps: f32 },
    Rope { x: Slot, turn: Turn, head_dim: usize, width: usize, out: Slot },
    Unary { op: UnaryOp, x: Slot, shape: Vec<Dim>, out: Slot },
    Binary { op: BinaryOp, a: (Slot, Vec<Dim>), b: (Slot, Vec<Dim>), shape: Vec<Dim>, out: Slot },
    Linear(LinearStep),
    Attention(AttentionStep),
    SelfAttention(SelfAttentionStep),
    Disentangled(DisentangledStep),
    CrossAttention(CrossAttentionStep),
    Pool { pool: Pool, x: Slot, width: usize, out: Slot },
}

/// A step and the node it comes from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) work: Work,
    /// It depends on weights alone: it runs once, and its results stay.
    pub(crate) once: bool,
}

/// How a large weight is kept.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum MatrixForm {
    /// In panels; `convert` names the type it is brought to first, if there is no kernel for its own.
    Packed { layout: PackedLayout, convert: Option<DType> },
    /// Row by row, as in the source: an embedding that nothing multiplies with.
    Stored { dtype: DType, row_bytes: usize },
}

/// A large weight and its bytes in the block of weights.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Matrix {
    pub(crate) weight: WeightId,
    pub(crate) form: MatrixForm,
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
}

/// A compiled graph, without its weights.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) isa: Isa,
    pub(crate) steps: Vec<Step>,
    pub(crate) places: Vec<Place>,
    pub(crate) tables: Vec<RopeTable>,
    pub(crate) distances: Vec<DistanceTable>,
    /// Their values follow the constants.
    pub(crate) backward: Vec<BackwardBias>,
    /// Weights kept as f32 slices.
    pub(crate) constants: Vec<WeightId>,
    pub(crate) matrices: Vec<Matrix>,
    pub(crate) matrix_bytes: usize,
    pub(crate) constant_bytes: usize,
    pub(crate) page_bytes: usize,
    /// Shared tensors first, then the scratch of each thread.
    pub(crate) arena_bytes: usize,
    pub(crate) scratch: Scratch,
    /// Name and shape of each output.
    pub(crate) outputs: Vec<(String, Vec<Dim>)>,
}

/// What one thread has for itself, as byte offsets from the start of its part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scratch {
    /// Where the part of thread 0 starts in the arena.
    pub(crate) start: usize,
    /// Bytes of each part; a f32 row lies first.
    pub(crate) stride: usize,
    /// Rows prepared by this thread for itself.
    pub(crate) prepared: usize,
    /// What kernels ask for.
    pub(crate) kernel: usize,
}

/// Up to this many elements every thread prepares all rows for itself, which costs less than a phase of its own.
pub(crate) const PRIVATE_ELEMENTS: usize = 2048;
/// Query rows that one attention task takes at most.
pub(crate) const ATTENTION_ROWS: usize = 64;

/// Rows from which on linear steps are split by rows as well as by panels.
pub(crate) const WIDE_ROWS: usize = 48;
/// Rows of one task then, about: few enough that they stay in the second-level cache with some panels.
pub(crate) const WIDE_BLOCK: usize = 96;

/// Panels of each matrix that a gated step multiplies before it goes on with their results: columns that int8 kernels prepare
/// at once.
pub(crate) const GATED_PANELS: usize = 16;
/// Rows of one task then at most: few enough that their results stay in the second-level cache; whole groups of
/// [`INT8_ROWS_TOGETHER`].
pub(crate) const GATED_ROWS: usize = 64;
/// Rows that int8 kernels multiply together.
pub(crate) const INT8_ROWS_TOGETHER: usize = 16;

/// Rows that each thread prepares for itself when a step has this many; 0 if threads share the work.
pub(crate) fn private_rows(rows: usize, k: usize) -> usize {
    if rows <= 1 || rows.saturating_mul(k) <= PRIVATE_ELEMENTS { rows } else { 0 }
}
