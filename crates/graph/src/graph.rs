//! The graph as plain data.

use kun_tensor::DType;
use std::sync::Arc;

/// Index of a value: the output of a node or an input of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);
/// Index of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightId(pub u32);
/// Index of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

/// A length known only when a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sym {
    /// `T`: tokens of all sequences in the step.
    Tokens,
    /// `R`: rows of the output that the caller asked for.
    Rows,
    /// `S`: sequences in the step.
    Seqs,
    /// `N`: images or padded texts in the step.
    Batch,
    /// `H`: image rows.
    Height,
    /// `W`: image columns.
    Width,
}

/// One dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// Known when the graph is built.
    Const(usize),
    /// Known when it runs.
    Sym(Sym),
}

/// What is known of a value.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueInfo {
    /// Set for inputs and outputs of the graph.
    pub name: Option<String>,
    /// Element type; activations are f32, indices i32.
    pub dtype: DType,
    /// Dimensions, outermost first, row-major.
    pub shape: Vec<Dim>,
}

/// A tensor that is part of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightInfo {
    /// The name that the [`crate::WeightSource`] knows it by; a label for constants.
    pub name: String,
    /// Element type in the source.
    pub dtype: DType,
    /// Dimensions, outermost first: a linear weight is `[N, K]`.
    pub shape: Vec<usize>,
    /// The values, if the graph itself carries them (f32).
    pub constant: Option<Arc<[f32]>>,
}

/// Functions of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum UnaryOp {
    Neg,
    Exp,
    Sqrt,
    Recip,
    Relu,
    Sigmoid,
    Tanh,
    Silu,
    /// With the error function.
    Gelu,
    /// With the tanh approximation (arXiv:1606.08415).
    GeluTanh,
}

/// Functions of two operands, with NumPy broadcasting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Max,
    Min,
    Pow,
}

/// Which elements of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RopeStyle {
    /// Elements `2i` and `2i + 1`: Llama in GGUF files.
    Interleaved,
    /// Elements `i` and `i + rotary_dim / 2`: Hugging Face weights, Qwen.
    Halves,
}

/// Rotary position embedding (arXiv:2104.09864).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeSpec {
    /// Head width `Dh`.
    pub head_dim: usize,
    /// Leading elements of each head that turn; even.
    pub rotary_dim: usize,
    /// How elements pair up.
    pub style: RopeStyle,
    /// `[rotary_dim / 2]` angles per position, all scaling applied.
    pub inverse_frequencies: WeightId,
    /// Factor on sine and cosine (YaRN's attention factor); 1 otherwise.
    pub magnitude: f32,
}

/// Causal attention over a paged cache of keys and values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Which layer of the cache, from 0.
    pub layer: usize,
    /// Query heads `Hq`; a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads `Hkv`.
    pub kv_heads: usize,
    /// Head width `Dh`.
    pub head_dim: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Only the last this many positions are seen, counting the query's own.
    pub window_tokens: Option<usize>,
}

/// What a node computes. Inputs and outputs are listed as `inputs -> outputs`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Op {
    /// `ids i32 [T] -> [T, D]`: rows of `table`.
    Embedding {
        /// `[V, D]`.
        table: WeightId,
    },
    /// `x [.., K] (, residual [.., N] if `residual`) -> [.., N_0], [.., N_1], ..`: one output per weight; several weights
    /// come from concatenating layers that share an input. A residual needs exactly one weight.
    Linear {
        /// `[N_i, K]` each.
        weights: Vec<WeightId>,
        /// `[N_i]` each, as long as `weights`.
        biases: Vec<Option<WeightId>>,
        /// Whether input 1 is added to the output.
        residual: bool,
    },
    /// `x [.., D] -> [.., D]`: root-mean-square norm over the last `weight.len()` elements of each row (arXiv:1910.07467).
    /// A weight shorter than the last dimension norms each group of that length (heads).
    RmsNorm {
        /// `[D]` or `[Dh]`.
        weight: WeightId,
        /// Added to the mean square.
        eps: f32,
    },
    /// `x [.., D], delta [.., D] -> sum [.., D], normed [.., D]`.
    AddRmsNorm {
        /// `[D]`.
        weight: WeightId,
        /// Added to the mean square.
        eps: f32,
    },
    /// `x [T, H * Dh], positions i32 [T] -> [T, H * Dh]`.
    Rope(RopeSpec),
    /// `q [T, Hq * Dh], k [T, Hkv * Dh], v [T, Hkv * Dh] -> [T, Hq * Dh]`; appends k and v to the cache first.
    Attention(AttentionSpec),
    /// `gate [.., F], up [.., F] -> [.., F]`: `activation(gate) * up`.
    Gated(UnaryOp),
    /// `x -> y`, element by element.
    Unary(UnaryOp),
    /// `a, b -> c` with broadcasting.
    Binary(BinaryOp),
    /// `-> value`: a weight as a value (small tensors only).
    Weight(WeightId),
    /// `x [T, D], rows i32 [R] -> [R, D]`.
    SelectRows,
}

/// One step of the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it comes from, for messages and profiles (`layer 3 / attention`).
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Operands.
    pub inputs: Vec<ValueId>,
    /// Results.
    pub outputs: Vec<ValueId>,
}

/// A whole model: nodes in an order in which they can run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// By [`ValueId`].
    pub values: Vec<ValueInfo>,
    /// By [`WeightId`].
    pub weights: Vec<WeightInfo>,
    /// By [`NodeId`].
    pub nodes: Vec<Node>,
    /// What the caller gives.
    pub inputs: Vec<ValueId>,
    /// What the caller gets.
    pub outputs: Vec<ValueId>,
}

impl Graph {
    /// What is known of a value.
    pub fn value(&self, id: ValueId) -> &ValueInfo {
        &self.values[id.0 as usize]
    }

    /// What is known of a weight.
    pub fn weight(&self, id: WeightId) -> &WeightInfo {
        &self.weights[id.0 as usize]
    }
}
