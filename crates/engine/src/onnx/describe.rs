//! What a model costs for inputs of given shapes.

use super::pass::OnnxPass;
use crate::EngineError;
use kun_graph::{Dim, Fact, Graph, Op, TensorOp, ValueId, ValueInfo, ValueKind};

/// Cost of one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cost {
    /// The shapes that it is for, in the order of the inputs.
    pub shapes: Vec<Vec<usize>>,
    /// Arithmetic operations, a multiplication and an addition counted as two.
    pub operations: u64,
    /// Most bytes that intermediate values take together.
    pub workspace_bytes: u64,
}

impl OnnxPass {
    /// What one run costs; dimensions of any length count as 1 where they come first (a batch), as 128 in sequences and
    /// as 256 in images.
    ///
    /// # Errors
    /// [`EngineError::Compile`] if the model does not take such inputs.
    pub fn cost_of_one(&self) -> Result<Cost, EngineError> {
        let graph = self.graph();
        let mut cost = Cost::default();
        let mut facts = Vec::new();
        for &id in &graph.inputs {
            let info = graph.value(id);
            if info.kind != ValueKind::Tensor {
                facts.push(Fact::Unknown);
                cost.shapes.push(Vec::new());
                continue;
            }
            let length = |(i, dim): (usize, &Dim)| match dim {
                Dim::Const(length) => *length,
                _ if i == 0 => 1,
                _ if info.shape.len() < 4 => 128,
                _ => 256,
            };
            let shape: Vec<usize> = info.shape.iter().enumerate().map(length).collect();
            facts.push(Fact::Shaped(info.dtype, shape.clone()));
            cost.shapes.push(shape);
        }
        let special = self.specialized(&facts)?;
        cost.operations = special
            .nodes
            .iter()
            .map(|node| operations(&special, &node.op, &node.inputs, &node.outputs))
            .sum();
        cost.workspace_bytes = self.workspace_bytes(&facts)?;
        Ok(cost)
    }
}

fn dims(info: &ValueInfo) -> Option<Vec<u64>> {
    if info.kind != ValueKind::Tensor {
        return None;
    }
    info.shape.iter().map(|dim| if let Dim::Const(n) = dim { Some(*n as u64) } else { None }).collect()
}

/// Operations of one node: products and convolutions by their sums, the rest by their results.
fn operations(graph: &Graph, op: &Op, inputs: &[ValueId], outputs: &[ValueId]) -> u64 {
    let shape =
        |id: Option<&ValueId>| id.filter(|id| **id != ValueId::ABSENT).and_then(|id| dims(graph.value(*id)));
    let Some(out) = shape(outputs.first()) else { return 0 };
    let count: u64 = out.iter().product();
    let Op::Tensor(op) = op else { return 0 };
    match op {
        TensorOp::Constant(_)
        | TensorOp::Reshape { .. }
        | TensorOp::Transpose(_)
        | TensorOp::Slice
        | TensorOp::Concat { .. }
        | TensorOp::Split { .. }
        | TensorOp::Squeeze
        | TensorOp::Unsqueeze
        | TensorOp::Expand
        | TensorOp::Gather { .. }
        | TensorOp::Pad(_) => 0,
        TensorOp::Conv(_) | TensorOp::ConvInteger(_) => {
            shape(inputs.get(1)).map_or(0, |w| 2 * count * w.iter().skip(1).product::<u64>())
        }
        TensorOp::QLinearConv(_) => {
            shape(inputs.get(3)).map_or(0, |w| 2 * count * w.iter().skip(1).product::<u64>())
        }
        TensorOp::ConvTranspose(_) => match (shape(inputs.first()), shape(inputs.get(1))) {
            (Some(x), Some(w)) => 2 * x.iter().product::<u64>() * w.iter().skip(1).product::<u64>(),
            _ => 0,
        },
        TensorOp::MatMul | TensorOp::MatMulInteger | TensorOp::QLinearMatMul => {
            shape(inputs.first()).map_or(0, |a| 2 * count * a.last().copied().unwrap_or(1))
        }
        TensorOp::Gemm(gemm) => shape(inputs.first()).map_or(0, |a| {
            let depth = if gemm.transpose_a { a.first() } else { a.last() };
            2 * count * depth.copied().unwrap_or(1)
        }),
        TensorOp::MatMulNBits(bits) => 2 * count * bits.k as u64,
        TensorOp::Attention(_) => match (shape(inputs.first()), shape(outputs.get(3))) {
            (Some(q), Some(scores)) => {
                let width = q.last().copied().unwrap_or(1);
                4 * scores.iter().product::<u64>()
                    * if q.len() == 4 { width } else { width / scores[1].max(1) }
            }
            _ => 0,
        },
        TensorOp::Pool(pool) => count * pool.kernel.iter().map(|&k| k as u64).product::<u64>(),
        _ => count,
    }
}
