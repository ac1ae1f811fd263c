//! What a step of a model costs at least, whoever runs it.

use kun_graph::{Dim, Graph, Op, Sym, WeightId};
use std::collections::BTreeSet;

/// Bytes and operations that the weights of a graph ask for; attention over the cache comes on top.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepCost {
    /// Bytes of weights, as the model stores them, that a step with at least one output row reads.
    pub step_bytes: u64,
    /// Operations per token of a step; a multiplication and an addition are two.
    pub token_operations: u64,
    /// Operations per output row of a step, on top of those of its token.
    pub row_operations: u64,
}

impl StepCost {
    /// The cost of `graph`'s linear layers.
    pub fn of(graph: &Graph) -> StepCost {
        let mut cost = StepCost::default();
        let mut read = BTreeSet::<WeightId>::new();
        for node in &graph.nodes {
            let Op::Linear { weights, .. } = &node.op else { continue };
            let input = node.inputs.first().map(|id| graph.value(*id));
            let rows = input.is_some_and(|v| v.shape.first() == Some(&Dim::Sym(Sym::Rows)));
            for id in weights {
                let weight = graph.weight(*id);
                let elements = weight.shape.iter().product::<usize>();
                let operations = 2 * elements as u64;
                *(if rows { &mut cost.row_operations } else { &mut cost.token_operations }) += operations;
                if read.insert(*id) {
                    cost.step_bytes += weight.dtype.bytes_for(elements).unwrap_or(0) as u64;
                }
            }
        }
        cost
    }

    /// Operations of a prompt of `tokens` tokens whose last one's logits are wanted.
    pub fn prefill_operations(&self, tokens: usize) -> u64 {
        self.token_operations.saturating_mul(tokens as u64).saturating_add(self.row_operations)
    }
}
