//! Finds nodes that need no step of their own: row-wise makers of a linear layer's operand, and the norms and turns of
//! heads before attention.

use crate::graph::{Dim, Graph, Op, RopeSpec, UnaryOp, ValueId, WeightId};
use std::collections::{HashMap, HashSet};

/// What happens to the heads of a projection on the way to attention.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HeadChain {
    /// The projection, changed in place by the attention step if there is anything to do.
    pub(crate) base: ValueId,
    pub(crate) norm: Option<(WeightId, f32)>,
    pub(crate) rope: Option<(RopeSpec, ValueId)>,
}

/// Nodes that run inside the steps of others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Absorbed {
    /// By node.
    pub(crate) skipped: Vec<bool>,
    /// Operand of a linear node -> the node that makes its rows.
    pub(crate) rows: HashMap<ValueId, usize>,
    /// Operands of linear nodes that the step before can prepare: results of attention that nobody else reads, and what is
    /// made of the two results of one linear node.
    pub(crate) handed: HashSet<ValueId>,
    /// Result of a linear node -> the function that is applied to it, and its result.
    pub(crate) functions: HashMap<ValueId, (UnaryOp, ValueId)>,
    /// Result of an attention node -> the chains of its queries and keys.
    pub(crate) heads: HashMap<ValueId, (HeadChain, HeadChain)>,
}

struct Uses<'a> {
    graph: &'a Graph,
    producer: HashMap<ValueId, usize>,
    /// Operand positions that read a value; an output of the graph counts as one.
    count: Vec<usize>,
}

impl Uses<'_> {
    /// The node that makes `id`, if exactly one operand reads it.
    fn sole(&self, id: ValueId) -> Option<usize> {
        self.producer.get(&id).copied().filter(|_| self.count[id.0 as usize] == 1)
    }
}

/// Looks through the whole graph.
pub(crate) fn find(graph: &Graph) -> Absorbed {
    let mut uses = Uses { graph, producer: HashMap::new(), count: vec![0; graph.values.len()] };
    for (index, node) in graph.nodes.iter().enumerate() {
        node.outputs.iter().for_each(|&id| {
            uses.producer.insert(id, index);
        });
        node.inputs.iter().for_each(|id| uses.count[id.0 as usize] += 1);
    }
    graph.outputs.iter().for_each(|id| uses.count[id.0 as usize] += 1);

    let mut absorbed = Absorbed { skipped: vec![false; graph.nodes.len()], ..Absorbed::default() };
    for (index, node) in graph.nodes.iter().enumerate() {
        match &node.op {
            Op::Attention(spec) => {
                let q = heads(&uses, node.inputs[0], spec.head_dim, &mut absorbed.skipped);
                let k = heads(&uses, node.inputs[1], spec.head_dim, &mut absorbed.skipped);
                absorbed.heads.insert(node.outputs[0], (q, k));
            }
            Op::Linear { .. } => {
                let x = node.inputs[0];
                if let Some(producer) = uses.sole(x)
                    && matches!(
                        graph.nodes[producer].op,
                        Op::RmsNorm { .. } | Op::LayerNorm { .. } | Op::Gated(_)
                    )
                {
                    absorbed.skipped[producer] = true;
                    absorbed.rows.insert(x, producer);
                }
                if uses.sole(x).is_some_and(|node| {
                    matches!(graph.nodes[node].op, Op::Attention(_)) || is_pair(&uses, node)
                }) {
                    absorbed.handed.insert(x);
                }
            }
            Op::Unary(op) => {
                let x = node.inputs[0];
                if let Some(producer) = uses.sole(x)
                    && matches!(graph.nodes[producer].op, Op::Linear { residual: false, .. })
                {
                    absorbed.skipped[index] = true;
                    absorbed.functions.insert(x, (*op, node.outputs[0]));
                }
            }
            _ => {}
        }
    }
    absorbed
}

/// Whether node `gated` joins the two results of one linear node, which nobody else reads.
fn is_pair(uses: &Uses<'_>, gated: usize) -> bool {
    let nodes = &uses.graph.nodes;
    let inputs = &nodes[gated].inputs;
    matches!(nodes[gated].op, Op::Gated(_))
        && uses.sole(inputs[0]).is_some_and(|maker| {
            uses.sole(inputs[1]) == Some(maker)
                && nodes[maker].outputs == *inputs
                && matches!(nodes[maker].op, Op::Linear { residual: false, .. })
        })
}

fn heads(uses: &Uses<'_>, end: ValueId, head_dim: usize, skipped: &mut [bool]) -> HeadChain {
    let plain = HeadChain { base: end, norm: None, rope: None };
    let mut chain = plain.clone();
    let mut nodes = Vec::new();
    if let Some(node) = uses.sole(chain.base)
        && let Op::Rope(spec) = &uses.graph.nodes[node].op
        && spec.head_dim == head_dim
    {
        let inputs = &uses.graph.nodes[node].inputs;
        chain.rope = Some((*spec, inputs[1]));
        chain.base = inputs[0];
        nodes.push(node);
    }
    if let Some(node) = uses.sole(chain.base)
        && let Op::RmsNorm { weight, eps } = uses.graph.nodes[node].op
        && uses.graph.weight(weight).shape == [head_dim]
    {
        chain.norm = Some((weight, eps));
        chain.base = uses.graph.nodes[node].inputs[0];
        nodes.push(node);
    }
    // The base is changed in place, so it must be a tensor of the arena that nobody else reads.
    let changeable =
        uses.sole(chain.base).is_some_and(|node| !matches!(uses.graph.nodes[node].op, Op::Weight(_)))
            && uses.graph.value(chain.base).shape.last().is_some_and(|d| matches!(d, Dim::Const(_)));
    if nodes.is_empty() || !changeable {
        return plain;
    }
    nodes.into_iter().for_each(|node| skipped[node] = true);
    chain
}
