//! What a model costs for inputs of given shapes.

use super::pass::OnnxPass;
use crate::EngineError;
use kun_graph::{Dim, Fact, Graph, Op, TensorOp, ValueId, ValueInfo, ValueKind};
use kun_tensor::{DType, Elements, Tensor, Tensors};

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
        self.cost_of(1)
    }

    /// [`OnnxPass::cost_of_one`] with `batch` where first dimensions may have any length.
    ///
    /// # Errors
    /// As [`OnnxPass::cost_of_one`].
    pub fn cost_of(&self, batch: usize) -> Result<Cost, EngineError> {
        let facts: Vec<Fact> = self.example_shapes(batch);
        let shapes = facts.iter().map(|fact| fact.shape().map(<[usize]>::to_vec).unwrap_or_default());
        let special = self.specialized(&facts)?;
        let operations = special
            .nodes
            .iter()
            .map(|node| operations(&special, &node.op, &node.inputs, &node.outputs))
            .sum();
        Ok(Cost { shapes: shapes.collect(), operations, workspace_bytes: self.workspace_bytes(&facts)? })
    }

    /// Inputs of the shapes of [`OnnxPass::cost_of`]: floats between -1 and 1, always the same; ones where the type is
    /// another. `None` if an input is no tensor.
    pub fn example_inputs(&self, batch: usize) -> Option<Tensors> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        let mut inputs = Tensors::new();
        for (port, fact) in self.info().inputs.iter().zip(self.example_shapes(batch)) {
            let (shape, count) = (fact.shape()?.to_vec(), fact.shape()?.iter().product());
            let elements = match fact.dtype()? {
                DType::F32 => Elements::F32((0..count).map(|_| next()).collect()),
                DType::I64 => Elements::I64(vec![1; count]),
                DType::I32 => Elements::I32(vec![1; count]),
                DType::Bool => Elements::Bool(vec![true; count]),
                other => Elements::zeros(other, count)?,
            };
            inputs.insert(port.name.clone(), Tensor::new(shape, elements).ok()?);
        }
        Some(inputs)
    }

    fn example_shapes(&self, batch: usize) -> Vec<Fact> {
        let graph = self.graph();
        let fact = |&id: &ValueId| {
            let info = graph.value(id);
            if info.kind != ValueKind::Tensor {
                return Fact::Unknown;
            }
            let length = |(i, dim): (usize, &Dim)| match dim {
                Dim::Const(length) => *length,
                _ if i == 0 => batch,
                _ if info.shape.len() < 4 => 128,
                _ => 256,
            };
            Fact::Shaped(info.dtype, info.shape.iter().enumerate().map(length).collect())
        };
        graph.inputs.iter().map(fact).collect()
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
