//! Values that are known when a plan is made: weights, constants, and quantised weights as the numbers they stand for.

use crate::graph::{Dim, Graph, Node, Op, ValueId, ValueKind, WeightInfo};
use crate::ops::{Cast, TensorOp};
use crate::plain::Context;
use half::{bf16, f16};
use kun_tensor::{DType, Elements, Tensor};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// The constants of a graph.
pub(super) struct Constants<'a> {
    graph: &'a Graph,
    context: &'a Context<'a>,
    /// The nodes that give them.
    nodes: HashMap<ValueId, usize>,
    /// The zeros of weights of integer convolutions, as numbers of which they are read.
    zeros: HashMap<ValueId, ValueId>,
}

impl std::fmt::Debug for Constants<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Constants").field("nodes", &self.nodes.len()).finish_non_exhaustive()
    }
}

/// The shape of an f32 tensor, if it is one and known.
fn known_shape(graph: &Graph, id: ValueId) -> Option<Vec<usize>> {
    let info = graph.value(id);
    let known = |dim: &Dim| if let Dim::Const(n) = dim { Some(*n) } else { None };
    (info.kind == ValueKind::Tensor && info.dtype == DType::F32)
        .then(|| info.shape.iter().map(known).collect())?
}

impl<'a> Constants<'a> {
    pub(super) fn new(graph: &'a Graph, context: &'a Context<'a>) -> Constants<'a> {
        let (mut nodes, mut zeros) = (HashMap::new(), HashMap::new());
        for (index, node) in graph.nodes.iter().enumerate() {
            if let (Op::Tensor(TensorOp::ConvInteger(_)), &[_, weight, _, zero]) =
                (&node.op, &node.inputs[..])
                && nodes.contains_key(&zero)
            {
                zeros.insert(weight, zero);
            }
            let constant = match &node.op {
                Op::Weight(_) | Op::Tensor(TensorOp::Constant(_)) => true,
                Op::Tensor(TensorOp::Cast(Cast { to: DType::F32, .. })) => {
                    nodes.contains_key(&node.inputs[0])
                }
                Op::Tensor(TensorOp::DequantizeLinear(_)) => {
                    node.inputs.iter().all(|id| *id == ValueId::ABSENT || nodes.contains_key(id))
                }
                Op::Tensor(TensorOp::Reshape { .. }) => {
                    nodes.contains_key(&node.inputs[0]) && known_shape(graph, node.outputs[0]).is_some()
                }
                _ => false,
            };
            if constant {
                nodes.insert(node.outputs[0], index);
            }
        }
        Constants { graph, context, nodes, zeros }
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
            Op::Tensor(TensorOp::Cast(_)) => {
                crate::plain::widened(&*self.tensor(node.inputs[0])?).map(Arc::new)
            }
            Op::Tensor(TensorOp::DequantizeLinear(quantize)) => {
                let (codes, scale) = (self.tensor(node.inputs[0])?, self.tensor(node.inputs[1])?);
                let zero = match node.inputs.get(2) {
                    Some(&id) if id != ValueId::ABSENT => Some(self.tensor(id)?),
                    _ => None,
                };
                crate::plain::dequantize(quantize, &codes, &scale, zero.as_deref()).map(Arc::new)
            }
            Op::Tensor(TensorOp::Reshape { .. }) => {
                let shape = known_shape(self.graph, node.outputs[0]).ok_or("no shape")?;
                let elements = self.tensor(node.inputs[0])?.elements().clone();
                Tensor::new(shape, elements).map(Arc::new).map_err(|e| e.to_string())
            }
            _ => Err("no constant".to_owned()),
        }
    }

    /// The numbers of some rows of a constant, a row being one index of its first dimension, to `out`; all of its numbers
    /// where they are computed.
    pub(super) fn read(&self, id: ValueId, rows: Range<usize>, out: &mut Vec<f32>) -> Result<(), String> {
        out.clear();
        if let Some(info) = self.stored(id)
            && matches!(info.dtype, DType::F32 | DType::F16 | DType::BF16)
        {
            let row = info.shape.iter().skip(1).product::<usize>();
            let whole = if info.shape.len() < 2 { 0..1 } else { rows.clone() };
            let bytes = self.context.weights.rows(&info.name, whole).map_err(|e| e.to_string())?;
            let halves = || bytes.as_chunks().0.iter().map(|x| u16::from_le_bytes(*x));
            match info.dtype {
                DType::F16 => out.extend(halves().map(|x| f16::from_bits(x).to_f32())),
                DType::BF16 => out.extend(halves().map(|x| bf16::from_bits(x).to_f32())),
                _ => out.extend(bytes.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x))),
            }
            if out.len() != rows.len() * row || bytes.len() != out.len() * info.dtype.block_bytes() {
                return Err(format!("rows {rows:?} of {} bytes", bytes.len()));
            }
            return Ok(());
        }
        let tensor = self.tensor(id)?;
        let centred;
        let numbers = match tensor.as_f32() {
            Some(numbers) => numbers,
            None => {
                centred = self.centred(id, &tensor)?;
                &centred
            }
        };
        let row = tensor.shape().iter().skip(1).product::<usize>();
        let range = if tensor.shape().first() == Some(&rows.len()) || rows.is_empty() {
            0..numbers.len()
        } else {
            rows.start * row..rows.end * row
        };
        out.extend_from_slice(numbers.get(range).ok_or("fewer rows than were planned")?);
        Ok(())
    }

    /// The zeros less which the weights of integer convolutions are read, if there are any: the last one's, where several
    /// convolutions share weights.
    pub(super) fn zero(&self, id: ValueId) -> Option<ValueId> {
        self.zeros.get(&id).copied()
    }

    /// The weight that a constant is, or is cast from.
    pub(super) fn weight(&self, id: ValueId) -> Option<&'a WeightInfo> {
        let node = self.node(id)?;
        match &node.op {
            Op::Weight(weight) => Some(self.graph.weight(*weight)),
            Op::Tensor(TensorOp::Cast(_)) => self.weight(node.inputs[0]),
            _ => None,
        }
    }

    /// The same, if it lies in a file.
    fn stored(&self, id: ValueId) -> Option<&'a WeightInfo> {
        self.weight(id).filter(|info| info.constant.is_none())
    }

    /// The weights of an integer convolution, less their zeros.
    fn centred(&self, id: ValueId, weights: &Tensor) -> Result<Vec<f32>, String> {
        let numbers = |tensor: &Tensor| match tensor.elements() {
            Elements::I8(codes) => Ok(codes.iter().map(|code| f32::from(*code)).collect()),
            Elements::U8(codes) => Ok(codes.iter().map(|code| f32::from(*code)).collect()),
            _ => Err("weights that are neither f32 nor codes".to_owned()),
        };
        let mut less = numbers(weights)?;
        if let Some(zero) = self.zero(id) {
            let zeros: Vec<f32> = numbers(&*self.tensor(zero)?)?;
            let each = less.len() / zeros.len().max(1);
            for (output, zero) in less.chunks_mut(each.max(1)).zip(zeros) {
                output.iter_mut().for_each(|weight| *weight -= zero);
            }
        }
        Ok(less)
    }

    /// Says that the weight of a node will not be read again soon.
    pub(super) fn release(&self, node: usize) {
        if let Some(info) = self.stored(self.graph.nodes[node].outputs[0]) {
            self.context.weights.release(&info.name);
        }
    }
}
