//! Builds graphs with calls that nest and never fail; the first error is kept and told by [`Builder::finish`].

use crate::graph::{
    AttentionSpec, BinaryOp, CrossAttentionSpec, Dim, DisentangledSpec, Graph, Node, Op, Pool, RopeSpec,
    RopeStyle, SelfAttentionSpec, UnaryOp, ValueId, ValueInfo, WeightId, WeightInfo,
};
use crate::shape;
use kun_tensor::DType;
use std::cell::RefCell;
use std::collections::HashMap;

/// Why a graph cannot be built.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
#[error("{node}: {what}")]
pub struct BuildError {
    /// The scope and operation, such as `layer 3 / linear blk.3.attn_q.weight`.
    pub node: String,
    /// What does not fit, with the numbers.
    pub what: String,
}

/// A value of the graph being built.
pub type Value = ValueId;

/// What calls return once the graph has an error: never looked up again.
const NOWHERE: ValueId = ValueId(u32::MAX);

/// Builds a [`Graph`]; shapes are inferred and checked at each call.
#[derive(Debug, Default)]
pub struct Builder {
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    graph: Graph,
    scopes: Vec<String>,
    by_name: HashMap<String, WeightId>,
    constants: HashMap<String, WeightId>,
    error: Option<BuildError>,
}

impl State {
    fn path(&self, node: &str) -> String {
        let mut path = self.scopes.join(" / ");
        if !path.is_empty() {
            path.push_str(" / ");
        }
        path + node
    }

    fn fail(&mut self, node: &str, what: impl Into<String>) {
        if self.error.is_none() {
            self.error = Some(BuildError { node: self.path(node), what: what.into() });
        }
    }

    fn value(&mut self, dtype: DType, shape: Vec<Dim>) -> ValueId {
        let id = ValueId(u32::try_from(self.graph.values.len()).expect("fewer than 2^32 values"));
        self.graph.values.push(ValueInfo::tensor(dtype, shape));
        id
    }

    fn declare(&mut self, info: WeightInfo) -> WeightId {
        let id = WeightId(u32::try_from(self.graph.weights.len()).expect("fewer than 2^32 weights"));
        self.graph.weights.push(info);
        id
    }

    fn weight_name(&self, id: WeightId) -> &str {
        self.graph.weights.get(id.0 as usize).map_or("?", |w| w.name.as_str())
    }
}

impl Builder {
    /// An empty graph.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Names the nodes built inside `body`: `layer 3`.
    pub fn scope<R>(&self, name: &str, body: impl FnOnce(&Builder) -> R) -> R {
        self.state.borrow_mut().scopes.push(name.to_owned());
        let result = body(self);
        self.state.borrow_mut().scopes.pop();
        result
    }

    /// A graph input.
    pub fn input(&self, name: &str, dtype: DType, shape: &[Dim]) -> Value {
        let mut state = self.state.borrow_mut();
        let taken = state.graph.inputs.iter().any(|&v| state.graph.value(v).name.as_deref() == Some(name));
        if taken {
            state.fail(&format!("input {name}"), "there is an input of this name already");
        }
        if !matches!(dtype, DType::F32 | DType::I32) {
            state.fail(
                &format!("input {name}"),
                format!("{dtype} inputs are not supported, only f32 and i32"),
            );
        }
        let id = state.value(dtype, shape.to_vec());
        state.graph.values[id.0 as usize].name = Some(name.to_owned());
        state.graph.inputs.push(id);
        id
    }

    /// Marks a value as an output of the graph.
    pub fn output(&self, name: &str, value: Value) {
        let mut state = self.state.borrow_mut();
        if state.error.is_some() {
            return;
        }
        let node = format!("output {name}");
        if state.graph.outputs.iter().any(|&v| state.graph.value(v).name.as_deref() == Some(name)) {
            return state.fail(&node, "there is an output of this name already");
        }
        let Some(info) = state.graph.values.get_mut(value.0 as usize) else {
            return state.fail(&node, "no such value");
        };
        if let Some(other) = &info.name {
            let what = format!("the value is named `{other}` already");
            return state.fail(&node, what);
        }
        if info.dtype != DType::F32 {
            let what = format!("the value is {}, not f32", info.dtype);
            return state.fail(&node, what);
        }
        info.name = Some(name.to_owned());
        state.graph.outputs.push(value);
    }

    /// Declares a weight that the source holds under `name`; the same name gives the same weight (tied embeddings).
    pub fn weight(&self, name: &str, dtype: DType, shape: &[usize]) -> WeightId {
        let mut state = self.state.borrow_mut();
        if let Some(&id) = state.by_name.get(name) {
            let known = state.graph.weight(id);
            if known.dtype != dtype || known.shape != shape {
                let what =
                    format!("declared as {dtype} {shape:?} and before as {} {:?}", known.dtype, known.shape);
                state.fail(&format!("weight {name}"), what);
            }
            return id;
        }
        if let Err(what) = check_weight(dtype, shape) {
            state.fail(&format!("weight {name}"), what);
        }
        let info = WeightInfo { name: name.to_owned(), dtype, shape: shape.to_vec(), constant: None };
        let id = state.declare(info);
        state.by_name.insert(name.to_owned(), id);
        id
    }

    /// A weight whose f32 values the graph carries itself. The same label, shape and values give the same weight.
    pub fn constant(&self, label: &str, shape: &[usize], values: &[f32]) -> WeightId {
        let mut state = self.state.borrow_mut();
        if let Some(&id) = state.constants.get(label) {
            let known = state.graph.weight(id);
            let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            if known.shape == shape && known.constant.as_ref().is_some_and(|c| bits(c) == bits(values)) {
                return id;
            }
        }
        if check_weight(DType::F32, shape) != Ok(values.len()) {
            state.fail(&format!("constant {label}"), format!("{} values for shape {shape:?}", values.len()));
        }
        let info = WeightInfo {
            name: label.to_owned(),
            dtype: DType::F32,
            shape: shape.to_vec(),
            constant: Some(values.into()),
        };
        let id = state.declare(info);
        state.constants.insert(label.to_owned(), id);
        id
    }

    /// A small weight or constant as a value.
    pub fn weight_value(&self, weight: WeightId) -> Value {
        let name = format!("weight {}", self.state.borrow().weight_name(weight));
        self.one(&name, Op::Weight(weight), &[])
    }

    /// Rows of `table` `[V, D]` for `ids` i32 `[T]` -> `[T, D]`.
    pub fn embedding(&self, table: WeightId, ids: Value) -> Value {
        let name = format!("embedding {}", self.state.borrow().weight_name(table));
        self.one(&name, Op::Embedding { table }, &[ids])
    }

    /// `x [.., K] . w [N, K]^T (+ bias [N])` -> `[.., N]`.
    pub fn linear(&self, x: Value, weight: WeightId, bias: Option<WeightId>) -> Value {
        let name = format!("linear {}", self.state.borrow().weight_name(weight));
        let op = Op::Linear { weights: vec![weight], biases: vec![bias], residual: false };
        self.one(&name, op, &[x])
    }

    /// Root-mean-square norm; a weight shorter than the row norms each group of its length (heads).
    pub fn rms_norm(&self, x: Value, weight: WeightId, eps: f32) -> Value {
        let name = format!("rms_norm {}", self.state.borrow().weight_name(weight));
        self.one(&name, Op::RmsNorm { weight, eps }, &[x])
    }

    /// Layer norm over each row.
    pub fn layer_norm(&self, x: Value, weight: WeightId, bias: Option<WeightId>, eps: f32) -> Value {
        let name = format!("layer_norm {}", self.state.borrow().weight_name(weight));
        self.one(&name, Op::LayerNorm { weight, bias, eps }, &[x])
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
        let half = {
            let state = self.state.borrow();
            state.graph.weights.get(inverse_frequencies.0 as usize).and_then(|w| w.shape.first().copied())
        };
        let rotary_dim = half.unwrap_or(0).saturating_mul(2);
        let spec = RopeSpec { head_dim, rotary_dim, style, inverse_frequencies, magnitude };
        self.one("rope", Op::Rope(spec), &[x, positions])
    }

    /// Causal attention over the paged cache -> `[T, Hq * Dh]`.
    pub fn attention(&self, q: Value, k: Value, v: Value, spec: AttentionSpec) -> Value {
        self.one("attention", Op::Attention(spec), &[q, k, v])
    }

    /// Attention within each sequence of the batch, in both directions -> `[T, Hq * Dh]`.
    pub fn self_attention(&self, q: Value, k: Value, v: Value, spec: SelfAttentionSpec) -> Value {
        self.one("self_attention", Op::SelfAttention(spec), &[q, k, v])
    }

    /// Attention of each token to the rows `spans` i32 `[T, 2]` of `k` and `v` `[U, H * Dh]` -> `[T, H * Dh]`.
    pub fn cross_attention(
        &self,
        q: Value,
        k: Value,
        v: Value,
        spans: Value,
        spec: CrossAttentionSpec,
    ) -> Value {
        self.one("cross_attention", Op::CrossAttention(spec), &[q, k, v, spans])
    }

    /// Attention within each sequence that compares content and distance apart; `distances` are the tables that `spec` asks
    /// for, the key's first -> `[T, H * Dh]`.
    pub fn disentangled_attention(
        &self,
        [q, k, v]: [Value; 3],
        distances: &[Value],
        spec: DisentangledSpec,
    ) -> Value {
        let operands = [&[q, k, v], distances].concat();
        self.one("disentangled_attention", Op::DisentangledAttention(spec), &operands)
    }

    /// One row per sequence of the batch: `[T, D]` -> `[S, D]`.
    pub fn pool(&self, x: Value, pool: Pool) -> Value {
        self.one("pool", Op::Pool(pool), &[x])
    }

    /// Element by element.
    pub fn unary(&self, op: UnaryOp, x: Value) -> Value {
        self.one(&format!("{op:?}").to_lowercase(), Op::Unary(op), &[x])
    }

    /// With NumPy broadcasting.
    pub fn binary(&self, op: BinaryOp, a: Value, b: Value) -> Value {
        self.one(&format!("{op:?}").to_lowercase(), Op::Binary(op), &[a, b])
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
        self.one("select_rows", Op::SelectRows, &[x, rows])
    }

    /// The graph, or the first error.
    ///
    /// # Errors
    /// [`BuildError`] naming the node.
    pub fn finish(self) -> Result<Graph, BuildError> {
        let state = self.state.into_inner();
        match state.error {
            Some(error) => Err(error),
            None => Ok(state.graph),
        }
    }

    fn one(&self, name: &str, op: Op, inputs: &[Value]) -> Value {
        let mut state = self.state.borrow_mut();
        if state.error.is_some() {
            return NOWHERE;
        }
        let infos: Option<Vec<&ValueInfo>> =
            inputs.iter().map(|id| state.graph.values.get(id.0 as usize)).collect();
        let inferred = match infos {
            Some(infos) => shape::infer(&op, &infos, &state.graph.weights),
            None => Err("an operand is not a value of this graph".into()),
        };
        match inferred {
            Ok(results) => {
                let outputs: Vec<ValueId> =
                    results.into_iter().map(|(dtype, shape)| state.value(dtype, shape)).collect();
                let first = outputs[0];
                let name = state.path(name);
                state.graph.nodes.push(Node { name, op, inputs: inputs.to_vec(), outputs });
                first
            }
            Err(what) => {
                state.fail(name, what);
                NOWHERE
            }
        }
    }
}

/// Elements of a weight of this shape, if they fit memory addresses and fill whole blocks row by row.
pub(crate) fn check_weight(dtype: DType, shape: &[usize]) -> Result<usize, String> {
    let mut elements = 1usize;
    for &dim in shape {
        elements = elements.checked_mul(dim).ok_or_else(|| format!("shape {shape:?} overflows"))?;
    }
    if elements == 0 {
        return Err(format!("shape {shape:?} holds nothing"));
    }
    let row = shape.last().copied().unwrap_or(1);
    if dtype.bytes_for(row).is_none() || elements.checked_mul(8).is_none() {
        return Err(format!("rows of {row} do not fill blocks of {} ({dtype})", dtype.block_len()));
    }
    Ok(elements)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Sym;

    const T: Dim = Dim::Sym(Sym::Tokens);

    #[test]
    fn infers_shapes_through_a_layer() {
        let g = Builder::new();
        let ids = g.input("ids", DType::I32, &[T]);
        let table = g.weight("table", DType::F32, &[10, 8]);
        let x = g.embedding(table, ids);
        let y = g.linear(x, g.weight("w", DType::F32, &[12, 8]), None);
        g.output("y", g.silu(y));
        let graph = g.finish().unwrap();
        assert_eq!(graph.value(x).shape, [T, Dim::Const(8)]);
        assert_eq!(graph.value(graph.outputs[0]).shape, [T, Dim::Const(12)]);
        graph.validate().unwrap();
    }

    #[test]
    fn keeps_the_first_error_and_names_its_scope() {
        let g = Builder::new();
        let x = g.input("x", DType::F32, &[T, Dim::Const(8)]);
        let w = g.weight("w", DType::F32, &[4, 9]);
        let y = g.scope("layer 3", |g| g.linear(x, w, None));
        let z = g.add(y, x);
        g.output("z", z);
        let error = g.finish().unwrap_err();
        assert_eq!(error.node, "layer 3 / linear w");
        assert_eq!(error.what, "x has rows of 8, the weight is [4, 9]");
    }

    #[test]
    fn the_same_name_is_the_same_weight() {
        let g = Builder::new();
        let a = g.weight("w", DType::F32, &[4, 4]);
        assert_eq!(a, g.weight("w", DType::F32, &[4, 4]));
        let c = g.constant("c", &[2], &[1.0, 2.0]);
        assert_eq!(c, g.constant("c", &[2], &[1.0, 2.0]));
        assert_ne!(c, g.constant("c", &[2], &[1.0, 3.0]));
        g.weight("w", DType::F16, &[4, 4]);
        assert_eq!(g.finish().unwrap_err().node, "weight w");
    }

    #[test]
    fn refuses_weights_that_overflow_or_break_blocks() {
        for (dtype, shape) in
            [(DType::F32, vec![usize::MAX, 2]), (DType::Q8_0, vec![2, 33]), (DType::F32, vec![0, 4])]
        {
            let g = Builder::new();
            g.weight("w", dtype, &shape);
            assert!(g.finish().is_err(), "{dtype} {shape:?}");
        }
    }

    #[test]
    fn broadcasts_as_numpy_does() {
        let g = Builder::new();
        let x = g.input("x", DType::F32, &[T, Dim::Const(3)]);
        let row = g.weight_value(g.constant("row", &[3], &[1.0, 2.0, 3.0]));
        let y = g.add(x, row);
        let one = g.weight_value(g.constant("one", &[1, 1], &[1.0]));
        let z = g.mul(one, y);
        let bad = g.weight_value(g.constant("bad", &[2], &[1.0, 2.0]));
        g.output("z", z);
        g.scope("s", |g| g.add(z, bad));
        assert_eq!(g.finish().unwrap_err().to_string(), "s / add: [T, 3] does not broadcast with [2]");
    }
}
