//! The graph as plain data.

use crate::builder::{BuildError, check_weight};
use crate::ops::TensorOp;
use crate::shape;
pub use kun_kernels::elementwise::{BinaryOp, UnaryOp};
pub use kun_kernels::rope::RopeStyle;
use kun_tensor::DType;
use std::collections::HashSet;
use std::sync::Arc;

/// Index of a value: the output of a node or an input of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

impl ValueId {
    /// An operand that is left out; tensor operations alone have such.
    pub const ABSENT: ValueId = ValueId(u32::MAX);
}

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
    /// `U`: rows of keys and values that a caller keeps, such as those of encoded sources.
    Sources,
}

impl Sym {
    /// The letter that shapes are written with.
    pub const fn letter(self) -> char {
        match self {
            Sym::Tokens => 'T',
            Sym::Rows => 'R',
            Sym::Seqs => 'S',
            Sym::Batch => 'N',
            Sym::Height => 'H',
            Sym::Width => 'W',
            Sym::Sources => 'U',
        }
    }
}

/// One dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// Known when the graph is built.
    Const(usize),
    /// Known when it runs.
    Sym(Sym),
    /// Known when it runs, by a name of the model's own: an index of [`Graph::symbols`].
    Named(u32),
    /// Known when it runs.
    Unknown,
}

/// Whether type and shape of a value are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ValueKind {
    /// A tensor of the type and shape that stand beside.
    #[default]
    Tensor,
    /// A tensor of this type; the shape that stands beside means nothing.
    AnyShape,
    /// Type and shape that stand beside mean nothing: not known before [`crate::specialize()`], or even before a run.
    Any,
    /// A sequence of tensors, or an optional value.
    Container,
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
    /// Whether type and shape are known.
    pub kind: ValueKind,
}

impl ValueInfo {
    /// A tensor without a name.
    pub fn tensor(dtype: DType, shape: Vec<Dim>) -> ValueInfo {
        ValueInfo { name: None, dtype, shape, kind: ValueKind::Tensor }
    }

    /// A value of which nothing is known yet.
    pub fn any() -> ValueInfo {
        ValueInfo { name: None, dtype: DType::F32, shape: Vec::new(), kind: ValueKind::Any }
    }
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
    /// Added to the scores by how far back a key is; all its buckets are for distances backwards.
    pub bias: Option<DistanceBias>,
}

/// Attention of tokens to rows that the caller gives, such as those of an encoded source.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CrossAttentionSpec {
    /// Heads `H` of queries, keys and values.
    pub heads: usize,
    /// Head width `Dh`.
    pub head_dim: usize,
    /// Factor on the scores; above 0.
    pub scale: f32,
    /// Most rows that a token sees.
    pub max_rows: usize,
}

/// Attention of every token of a sequence to all tokens of it, without a cache: encoders.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SelfAttentionSpec {
    /// Query heads `Hq`; a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads `Hkv`.
    pub kv_heads: usize,
    /// Head width `Dh`.
    pub head_dim: usize,
    /// Factor on the scores; above 0.
    pub scale: f32,
    /// Only tokens at most this far away, before or after, are seen.
    pub reach: Option<usize>,
    /// What is added to the scores.
    pub bias: Option<DistanceBias>,
}

/// A number for each head and distance between two tokens, added to their score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DistanceBias {
    /// `-slopes[h] * |distance|` (ALiBi, arXiv:2108.12409); the weight is `[Hq]`.
    Slopes(WeightId),
    /// `table[bucket][h]` (T5, arXiv:1910.10683): half of the `[buckets, Hq]` rows for each direction, near distances one
    /// by one, the farther the more share a bucket, from `max_distance` on all do.
    Buckets {
        /// `[buckets, Hq]`.
        table: WeightId,
        /// Distances from here on share the last bucket.
        max_distance: usize,
    },
}

impl DistanceBias {
    /// The weight that it reads.
    pub fn weight(&self) -> WeightId {
        match self {
            DistanceBias::Slopes(weight) | DistanceBias::Buckets { table: weight, .. } => *weight,
        }
    }

    /// The bias of `head` for a key `distance` tokens before the query where no key is after it; `values` is the weight.
    pub fn value_before(&self, values: &[f32], heads: usize, head: usize, distance: usize) -> f32 {
        match *self {
            DistanceBias::Slopes(_) => -values[head] * distance as f32,
            DistanceBias::Buckets { max_distance, .. } => {
                values[distance_bucket(distance, values.len() / heads, max_distance) * heads + head]
            }
        }
    }

    /// The bias of `head` for a key `distance` tokens after the query; `values` is the weight.
    pub fn value(&self, values: &[f32], heads: usize, head: usize, distance: i64) -> f32 {
        match *self {
            DistanceBias::Slopes(_) => -values[head] * distance.unsigned_abs() as f32,
            DistanceBias::Buckets { max_distance, .. } => {
                let half = values.len() / heads / 2;
                let away = usize::try_from(distance.unsigned_abs()).unwrap_or(usize::MAX);
                let bucket = distance_bucket(away, half, max_distance);
                let direction = if distance > 0 { half } else { 0 };
                values[(direction + bucket) * heads + head]
            }
        }
    }
}

/// The bucket of a distance among `buckets` for one direction: half of them hold one distance each, the others ever more,
/// in steps of one ratio up to `max_distance` (arXiv:1910.10683, with its rounding in f32).
pub fn distance_bucket(distance: usize, buckets: usize, max_distance: usize) -> usize {
    let exact = buckets / 2;
    if distance < exact {
        return distance;
    }
    let ratio = (distance as f32 / exact as f32).ln();
    let whole = (f64::from(max_distance as u32) / exact as f64).ln() as f32;
    let further = (ratio / whole * (buckets - exact) as f32) as usize;
    exact.saturating_add(further).min(buckets - 1)
}

/// Attention that compares content and distance apart (DeBERTa, arXiv:2006.03654).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DisentangledSpec {
    /// Heads `H`.
    pub heads: usize,
    /// Head width `Dh`.
    pub head_dim: usize,
    /// Factor on the sum of all scores; above 0.
    pub scale: f32,
    /// Distances of one direction that have a row of their own.
    pub span: usize,
    /// With it, near distances have a row each and farther ones share rows up to this one.
    pub max_distance: Option<usize>,
    /// The query's content meets the key's distance: operand `[2 * span, H * Dh]`.
    pub content_to_position: bool,
    /// The key's content meets the query's distance: another such operand.
    pub position_to_content: bool,
}

impl DisentangledSpec {
    /// The row of the tables of distances for a query `distance` tokens after the key.
    pub fn row(&self, distance: i64) -> usize {
        let span = self.span as i64;
        let bucket = match self.max_distance {
            Some(max_distance) => log_bucket(distance, self.span, max_distance),
            None => distance,
        };
        usize::try_from((bucket + span).clamp(0, 2 * span - 1)).unwrap_or(0)
    }
}

/// A distance as DeBERTa v2 counts it: far ones logarithmically, with its rounding in f32.
fn log_bucket(distance: i64, buckets: usize, max_distance: usize) -> i64 {
    let middle = (buckets / 2) as i64;
    if distance.abs() <= middle {
        return distance;
    }
    let ratio = (distance.unsigned_abs() as f32 / middle as f32).ln();
    let whole = ((max_distance as f32 - 1.0) / middle as f32).ln();
    let further = (ratio / whole * (middle - 1) as f32).ceil() as i64 + middle;
    further * distance.signum()
}

/// How the rows of a sequence become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pool {
    /// Their mean.
    Mean,
    /// Their sum divided by the root of their number.
    MeanRoot,
    /// The largest value of each column.
    Max,
    /// Their mean with weights 1, 2, 3, ..
    Weighted,
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
    /// `x [.., D] -> [.., D]`: layer norm over each row (arXiv:1607.06450).
    LayerNorm {
        /// `[D]`.
        weight: WeightId,
        /// `[D]`.
        bias: Option<WeightId>,
        /// Added to the variance.
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
    /// `q [T, Hq * Dh], k [T, Hkv * Dh], v [T, Hkv * Dh] -> [T, Hq * Dh]`: within each sequence of the batch.
    SelfAttention(SelfAttentionSpec),
    /// `q [T, H * Dh], k [U, H * Dh], v [U, H * Dh], spans i32 [T, 2] -> [T, H * Dh]`: token `t` sees the rows
    /// `spans[t][0] .. spans[t][1]` of k and v.
    CrossAttention(CrossAttentionSpec),
    /// `q, k, v [T, H * Dh] (, key distances [2 * span, H * Dh]) (, query distances [2 * span, H * Dh]) -> [T, H * Dh]`: within
    /// each sequence of the batch.
    DisentangledAttention(DisentangledSpec),
    /// `x [T, D] -> [S, D]`: one row per sequence of the batch.
    Pool(Pool),
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
    /// An operation of an ONNX model. Graphs with such run as a [`crate::TensorProgram`].
    Tensor(TensorOp),
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
    /// Names of [`Dim::Named`].
    pub symbols: Vec<String>,
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

    /// Whether any node is a tensor operation: shapes are known only once those of the inputs are.
    pub fn has_tensor_ops(&self) -> bool {
        self.nodes.iter().any(|node| matches!(node.op, Op::Tensor(_)))
    }

    /// Checks a graph that did not come from [`crate::Builder`]: every index, shape and constant, and that nodes stand in
    /// an order in which they can run. In a graph with tensor operations, shapes are left to [`crate::specialize()`].
    ///
    /// # Errors
    /// [`BuildError`] naming the first node that is wrong.
    pub fn validate(&self) -> Result<(), BuildError> {
        let fail = |node: &str, what: String| Err(BuildError { node: node.to_owned(), what });
        for info in &self.weights {
            let elements = match check_weight(info.dtype, &info.shape) {
                Ok(elements) => elements,
                Err(what) => return fail(&format!("weight {}", info.name), what),
            };
            if let Some(values) = &info.constant
                && (values.len() != elements || info.dtype != DType::F32)
            {
                let what = format!("{} values for {} {:?}", values.len(), info.dtype, info.shape);
                return fail(&format!("weight {}", info.name), what);
            }
        }
        let open = self.has_tensor_ops();
        let mut known = vec![false; self.values.len()];
        let define = |known: &mut [bool], id: ValueId| {
            known.get_mut(id.0 as usize).is_some_and(|slot| !std::mem::replace(slot, true))
        };
        let mut names = HashSet::new();
        for &id in &self.inputs {
            if !define(&mut known, id) {
                return fail("inputs", format!("value {} is missing or defined twice", id.0));
            }
            let info = self.value(id);
            if info.name.as_ref().is_none_or(|name| !names.insert(name)) {
                return fail("inputs", format!("value {} has no name of its own", id.0));
            }
            if !open && !matches!(info.dtype, DType::F32 | DType::I32) {
                return fail("inputs", format!("value {} is {}", id.0, info.dtype));
            }
        }
        for node in &self.nodes {
            if let Some(id) = node
                .inputs
                .iter()
                .find(|id| !(known.get(id.0 as usize).is_some_and(|k| *k) || open && **id == ValueId::ABSENT))
            {
                return fail(&node.name, format!("operand {} is not computed before", id.0));
            }
            if open {
                if let Some(id) = node.outputs.iter().find(|&&id| !define(&mut known, id)) {
                    return fail(&node.name, format!("result {} is missing or defined twice", id.0));
                }
                continue;
            }
            let infos: Vec<&ValueInfo> = node.inputs.iter().map(|&id| self.value(id)).collect();
            let results = match shape::infer(&node.op, &infos, &self.weights) {
                Ok(results) => results,
                Err(what) => return fail(&node.name, what),
            };
            if results.len() != node.outputs.len() {
                return fail(&node.name, format!("{} results, not {}", node.outputs.len(), results.len()));
            }
            for (&id, (dtype, shape)) in node.outputs.iter().zip(&results) {
                if !define(&mut known, id) {
                    return fail(&node.name, format!("result {} is missing or defined twice", id.0));
                }
                let info = self.value(id);
                if info.dtype != *dtype || info.shape != *shape {
                    let (found, wanted) = (shape::show(&info.shape), shape::show(shape));
                    return fail(&node.name, format!("result {} is {found}, not {wanted}", id.0));
                }
            }
        }
        let mut names = HashSet::new();
        for &id in &self.outputs {
            let info = self.values.get(id.0 as usize).filter(|_| known[id.0 as usize]);
            let name = info.and_then(|info| info.name.as_ref());
            if name.is_none_or(|name| !names.insert(name)) {
                return fail("outputs", format!("value {} is not computed, or has no name of its own", id.0));
            }
            if !open && self.value(id).dtype != DType::F32 {
                return fail("outputs", format!("value {} is {}", id.0, self.value(id).dtype));
            }
        }
        Ok(())
    }
}
