//! The oracle: every operation as its definition says, in f32 with f64 sums, one value at a time. Slow on purpose.

pub(crate) mod ops;

use crate::backend::{
    Backend, CompileError, CompileOptions, Inputs, MemoryReport, OutputTensor, Outputs, PAGE_TOKENS, Program,
    RunError, Sequence, TensorRef, WeightSource,
};
use crate::bind::{Bound, Contract};
use crate::graph::{AttentionSpec, Graph, Node, Op, ValueId, WeightId, WeightInfo};
use kun_tensor::quant;
use ops::Tensor;
use std::collections::HashMap;

/// Compiles graphs, fused or not, for [`ReferenceProgram`].
#[derive(Clone, Copy, Debug, Default)]
pub struct ReferenceBackend;

/// A graph with its weights in f32.
#[derive(Debug)]
pub struct ReferenceProgram {
    graph: Graph,
    weights: Vec<Tensor>,
    contract: Contract,
    cache: HashMap<(usize, u32), Page>,
    memory: MemoryReport,
}

/// Keys and values of one layer in one page, `[PAGE_TOKENS, Hkv * Dh]` each.
#[derive(Clone, Debug)]
struct Page {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Backend for ReferenceBackend {
    type Program = ReferenceProgram;

    fn compile(
        &self,
        graph: &Graph,
        weights: &dyn WeightSource,
        options: &CompileOptions,
    ) -> Result<ReferenceProgram, CompileError> {
        let memory = self.estimate(graph, options)?;
        let weights =
            graph.weights.iter().map(|info| load(info, weights)).collect::<Result<Vec<_>, CompileError>>()?;
        let contract = Contract::new(graph, options);
        Ok(ReferenceProgram { graph: graph.clone(), weights, contract, cache: HashMap::new(), memory })
    }

    fn estimate(&self, graph: &Graph, options: &CompileOptions) -> Result<MemoryReport, CompileError> {
        graph.validate().map_err(|e| CompileError::Node { node: e.node, what: e.what })?;
        crate::backend::refuse_tensor_ops(graph)?;
        let elements: usize = graph.weights.iter().map(|w| w.shape.iter().product::<usize>()).sum();
        let kv: usize = graph
            .nodes
            .iter()
            .map(|node| match &node.op {
                Op::Attention(spec) => 2 * spec.kv_heads * spec.head_dim * PAGE_TOKENS,
                _ => 0,
            })
            .sum();
        let kv_bytes = kv.saturating_mul(4).saturating_mul(options.kv.pages);
        Ok(MemoryReport { weights_bytes: elements * 4, kv_bytes, workspace_bytes: 0 })
    }
}

/// Checks that the source holds the tensor as the graph declares it.
pub(crate) fn check_source(info: &WeightInfo, source: &dyn WeightSource) -> Result<(), CompileError> {
    let (dtype, shape) = source
        .info(&info.name)
        .ok_or_else(|| crate::backend::WeightError::Missing { name: info.name.clone() })?;
    if dtype == info.dtype && shape == info.shape {
        return Ok(());
    }
    Err(CompileError::Node {
        node: info.name.clone(),
        what: format!("the source holds {dtype} {shape:?}, the graph wants {} {:?}", info.dtype, info.shape),
    })
}

/// All elements of a weight, as f32.
pub(crate) fn load(info: &WeightInfo, source: &dyn WeightSource) -> Result<Tensor, CompileError> {
    let elements = info.shape.iter().product();
    if let Some(values) = &info.constant {
        return Ok(Tensor { shape: info.shape.clone(), data: values.to_vec() });
    }
    check_source(info, source)?;
    let rows = if info.shape.len() < 2 { 1 } else { info.shape[0] };
    let mut data = Vec::new();
    data.try_reserve_exact(elements)
        .map_err(|_| CompileError::Memory { bytes: elements * 4, what: "weights" })?;
    data.resize(elements, 0.0);
    let bytes = source.rows(&info.name, 0..rows)?;
    quant::decode(info.dtype, &bytes, &mut data)
        .map_err(|e| crate::backend::WeightError::Read { name: info.name.clone(), source: Box::new(e) })?;
    source.release(&info.name);
    Ok(Tensor { shape: info.shape.clone(), data })
}

impl Program for ReferenceProgram {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut Outputs) -> Result<(), RunError> {
        let bound = self.contract.bind(inputs)?;
        let mut values: Vec<Option<Tensor>> = vec![None; self.graph.values.len()];
        let mut indices: HashMap<ValueId, &[i32]> = HashMap::new();
        for (&id, tensor) in self.graph.inputs.iter().zip(&bound.tensors) {
            match tensor {
                TensorRef::F32(data, shape) => {
                    values[id.0 as usize] = Some(Tensor { shape: shape.to_vec(), data: data.to_vec() });
                }
                TensorRef::I32(data, _) => {
                    indices.insert(id, data);
                }
            }
        }
        for node in &self.graph.nodes {
            let results = evaluate(node, &values, &indices, &self.weights, &bound, &mut self.cache);
            for (&id, result) in node.outputs.iter().zip(results) {
                values[id.0 as usize] = Some(result);
            }
        }
        outputs.tensors.retain(|name, _| {
            self.graph.outputs.iter().any(|&id| self.graph.value(id).name.as_ref() == Some(name))
        });
        for &id in &self.graph.outputs {
            let name = self.graph.value(id).name.clone().expect("outputs have names");
            let Tensor { shape, data } = values[id.0 as usize].clone().expect("outputs are computed");
            outputs.tensors.insert(name, OutputTensor { shape, data });
        }
        Ok(())
    }

    fn copy_page(&mut self, from: u32, to: u32) -> Result<(), RunError> {
        self.contract.check_pages(from, to)?;
        let copies: Vec<_> = self
            .cache
            .iter()
            .filter(|((_, page), _)| *page == from)
            .map(|((l, _), p)| (*l, p.clone()))
            .collect();
        self.cache.extend(copies.into_iter().map(|(layer, page)| ((layer, to), page)));
        Ok(())
    }

    fn memory(&self) -> MemoryReport {
        self.memory
    }
}

fn evaluate(
    node: &Node,
    values: &[Option<Tensor>],
    indices: &HashMap<ValueId, &[i32]>,
    weights: &[Tensor],
    bound: &Bound<'_>,
    cache: &mut HashMap<(usize, u32), Page>,
) -> Vec<Tensor> {
    let x = |i: usize| values[node.inputs[i].0 as usize].as_ref().expect("operands are computed before");
    let ids = |i: usize| indices[&node.inputs[i]];
    let w = |id: &WeightId| &weights[id.0 as usize];
    let lengths = || bound.sequences.iter().map(|sequence| sequence.tokens).collect::<Vec<_>>();
    match &node.op {
        Op::Embedding { table } => vec![ops::rows(w(table), ids(0))],
        Op::Linear { weights: matrices, biases, residual } => matrices
            .iter()
            .zip(biases)
            .map(|(matrix, bias)| {
                let y = ops::linear(x(0), w(matrix), bias.as_ref().map(w));
                if *residual { ops::binary(crate::graph::BinaryOp::Add, x(1), &y) } else { y }
            })
            .collect(),
        Op::RmsNorm { weight, eps } => vec![ops::rms_norm(x(0), w(weight), *eps)],
        Op::AddRmsNorm { weight, eps } => {
            let sum = ops::binary(crate::graph::BinaryOp::Add, x(0), x(1));
            let normed = ops::rms_norm(&sum, w(weight), *eps);
            vec![sum, normed]
        }
        Op::LayerNorm { weight, bias, eps } => {
            vec![ops::layer_norm(x(0), w(weight), bias.as_ref().map(w), *eps)]
        }
        Op::SelfAttention(spec) => {
            let table = spec.bias.map(|bias| w(&bias.weight()));
            vec![ops::self_attention((x(0), x(1), x(2)), spec, table, &lengths())]
        }
        Op::CrossAttention(spec) => vec![ops::cross_attention((x(0), x(1), x(2)), ids(3), spec)],
        Op::DisentangledAttention(spec) => {
            let mut more = 3..node.inputs.len();
            let mut table = |has: bool| has.then(|| more.next()).flatten().map(x);
            let (to_position, to_content) =
                (table(spec.content_to_position), table(spec.position_to_content));
            let tables = (to_position, to_content);
            vec![ops::disentangled_attention((x(0), x(1), x(2)), tables, spec, &lengths())]
        }
        Op::Pool(pool) => vec![ops::pool(x(0), *pool, &lengths())],
        Op::Rope(spec) => vec![ops::rope(x(0), ids(1), spec, w(&spec.inverse_frequencies))],
        Op::Attention(spec) => {
            let table = spec.bias.map(|bias| w(&bias.weight()));
            vec![attention((x(0), x(1), x(2)), spec, table, bound.sequences, cache)]
        }
        Op::Gated(op) => {
            vec![ops::binary(crate::graph::BinaryOp::Mul, &ops::unary(*op, x(0)), x(1))]
        }
        Op::Unary(op) => vec![ops::unary(*op, x(0))],
        Op::Binary(op) => vec![ops::binary(*op, x(0), x(1))],
        Op::Weight(weight) => vec![w(weight).clone()],
        Op::SelectRows => vec![ops::rows(x(0), ids(1))],
        Op::Tensor(_) => unreachable!("refused when compiled"),
    }
}

/// Appends `k` and `v` to the cache, then lets every query see the positions up to its own.
fn attention(
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    spec: &AttentionSpec,
    table: Option<&Tensor>,
    sequences: &[Sequence<'_>],
    cache: &mut HashMap<(usize, u32), Page>,
) -> Tensor {
    let (dh, group) = (spec.head_dim, spec.heads / spec.kv_heads);
    let (q_width, kv_width) = (spec.heads * dh, spec.kv_heads * dh);
    let mut out = vec![0.0f32; q.data.len()];
    let mut token = 0;
    for sequence in sequences {
        for i in 0..sequence.tokens {
            let position = sequence.start + i;
            let page =
                cache.entry((spec.layer, sequence.pages[position / PAGE_TOKENS])).or_insert_with(|| Page {
                    keys: vec![0.0; PAGE_TOKENS * kv_width],
                    values: vec![0.0; PAGE_TOKENS * kv_width],
                });
            let slot = position % PAGE_TOKENS * kv_width;
            page.keys[slot..slot + kv_width].copy_from_slice(&k.data[(token + i) * kv_width..][..kv_width]);
            page.values[slot..slot + kv_width].copy_from_slice(&v.data[(token + i) * kv_width..][..kv_width]);
        }
        let row = |position: usize, head: usize| {
            let page = &cache[&(spec.layer, sequence.pages[position / PAGE_TOKENS])];
            let at = position % PAGE_TOKENS * kv_width + head / group * dh;
            (&page.keys[at..at + dh], &page.values[at..at + dh])
        };
        for i in 0..sequence.tokens {
            let position = sequence.start + i;
            let first = spec.window_tokens.map_or(0, |w| (position + 1).saturating_sub(w));
            for head in 0..spec.heads {
                let at = (token + i) * q_width + head * dh;
                let query = &q.data[at..at + dh];
                let scores: Vec<f64> = (first..=position)
                    .map(|p| {
                        let bias = spec.bias.zip(table).map_or(0.0, |(bias, table)| {
                            f64::from(bias.value_before(&table.data, spec.heads, head, position - p))
                        });
                        ops::dot(query, row(p, head).0) * f64::from(spec.scale) + bias
                    })
                    .collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
                let total: f64 = weights.iter().sum();
                for d in 0..dh {
                    let sum: f64 = (first..=position)
                        .zip(&weights)
                        .map(|(p, weight)| weight * f64::from(row(p, head).1[d]))
                        .sum();
                    out[at + d] = (sum / total) as f32;
                }
            }
        }
        token += sequence.tokens;
    }
    Tensor { shape: q.shape.clone(), data: out }
}
