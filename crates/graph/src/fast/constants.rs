//! Values that are known when a plan is made: weights, constants, and quantised weights as the numbers they stand for.

use crate::graph::{Graph, Node, Op, ValueId};
use crate::ops::TensorOp;
use crate::plain::Context;
use kun_tensor::Tensor;
use std::collections::HashMap;
use std::sync::Arc;

/// The constants of a graph.
pub(super) struct Constants<'a> {
    graph: &'a Graph,
    context: &'a Context<'a>,
    /// The nodes that give them.
    nodes: HashMap<ValueId, usize>,
}

impl std::fmt::Debug for Constants<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Constants").field("nodes", &self.nodes.len()).finish_non_exhaustive()
    }
}

impl<'a> Constants<'a> {
    pub(super) fn new(graph: &'a Graph, context: &'a Context<'a>) -> Constants<'a> {
        let mut nodes = HashMap::new();
        for (index, node) in graph.nodes.iter().enumerate() {
            let constant = match &node.op {
                Op::Weight(_) | Op::Tensor(TensorOp::Constant(_)) => true,
                Op::Tensor(TensorOp::DequantizeLinear(_)) => {
                    node.inputs.iter().all(|id| *id == ValueId::ABSENT || nodes.contains_key(id))
                }
                _ => false,
            };
            if constant {
                nodes.insert(node.outputs[0], index);
            }
        }
        Constants { graph, context, nodes }
    }

    /// Every constant and the index of its node.
    pub(super) fn nodes(&self) -> &HashMap<ValueId, usize> {
        &self.nodes
    }

    /// The node of a constant.
    pub(super) fn node(&self, id: ValueId) -> Option<&'a Node> {
        Some(&self.graph.nodes[*self.nodes.get(&id)?])
    }

    /// The tensor of a constant.
    pub(super) fn tensor(&self, id: ValueId) -> Result<Arc<Tensor>, String> {
        let node = self.node(id).ok_or("no constant")?;
        match &node.op {
            Op::Tensor(TensorOp::Constant(tensor)) => Ok(Arc::clone(tensor)),
            Op::Weight(weight) => self.context.weight(self.graph.weight(*weight)),
            Op::Tensor(TensorOp::DequantizeLinear(quantize)) => {
                let (codes, scale) = (self.tensor(node.inputs[0])?, self.tensor(node.inputs[1])?);
                let zero = match node.inputs.get(2) {
                    Some(&id) if id != ValueId::ABSENT => Some(self.tensor(id)?),
                    _ => None,
                };
                crate::plain::dequantize(quantize, &codes, &scale, zero.as_deref()).map(Arc::new)
            }
            _ => Err("no constant".to_owned()),
        }
    }

    /// Says that a weight will not be read again soon.
    pub(super) fn release(&self, name: &str) {
        self.context.weights.release(name);
    }
}
