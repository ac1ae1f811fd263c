//! Values that are quantised as they come (`DynamicQuantizeLinear`) and the integer products and convolutions of their codes.
//!
//! The nodes that make numbers of an integer result, a cast, both scales and a bias, become part of the operation. Where
//! anything else reads the codes, their scale or their zero, all of it stays as it stands.

use super::{Coded, Convolve, Input, Kind, Lower, Multiply, Proto, Tail};
use crate::graph::{Node, Op, ValueId};
use crate::ops::{Binary, Cast, TensorOp};
use kun_kernels::gemm::quads::Code;
use kun_tensor::{DType, Elements};
use std::collections::{HashMap, HashSet};

/// The zero of centred weights.
const MIDDLE: u8 = 128;

/// What becomes of the nodes.
#[derive(Debug, Default)]
pub(super) struct Dynamic {
    /// By node: what takes its place.
    steps: HashMap<usize, Proto>,
    /// Nodes that are part of others.
    absorbed: HashSet<usize>,
}

/// Which nodes read and make values.
struct Links<'a> {
    nodes: &'a [Node],
    readers: HashMap<ValueId, Vec<usize>>,
    makers: HashMap<ValueId, usize>,
}

impl<'a> Links<'a> {
    fn readers(&self, id: ValueId) -> &[usize] {
        self.readers.get(&id).map_or(&[], Vec::as_slice)
    }

    /// The only node that reads a value, and its operation.
    fn reader(&self, id: ValueId) -> Option<(usize, &'a Node, &'a TensorOp)> {
        let &[at] = self.readers(id) else { return None };
        self.node(at)
    }

    fn node(&self, at: usize) -> Option<(usize, &'a Node, &'a TensorOp)> {
        let node = &self.nodes[at];
        if let Op::Tensor(op) = &node.op { Some((at, node, op)) } else { None }
    }
}

/// The other operand of a product of two with `id`.
fn factor(node: &Node, op: &TensorOp, id: ValueId) -> Option<ValueId> {
    match (op, &node.inputs[..]) {
        (TensorOp::Binary(Binary::Mul), &[a, b]) if a == id => Some(b),
        (TensorOp::Binary(Binary::Mul), &[a, b]) if b == id => Some(a),
        _ => None,
    }
}

impl Lower<'_> {
    /// Looks for such values and what follows them.
    pub(super) fn find_dynamic(&mut self) {
        let nodes = &self.graph.nodes;
        let quantizes = |node: &Node| matches!(node.op, Op::Tensor(TensorOp::DynamicQuantizeLinear));
        if !nodes.iter().any(quantizes) {
            return;
        }
        let mut links = Links { nodes, readers: HashMap::new(), makers: HashMap::new() };
        for (index, node) in nodes.iter().enumerate() {
            for &id in node.inputs.iter().filter(|id| **id != ValueId::ABSENT) {
                links.readers.entry(id).or_default().push(index);
            }
            links.makers.extend(node.outputs.iter().map(|&id| (id, index)));
        }
        for (index, node) in nodes.iter().enumerate().filter(|(_, node)| quantizes(node)) {
            if let Some((steps, absorbed)) = self.steps_of(index, node, &links) {
                self.dynamic.steps.extend(steps);
                self.dynamic.absorbed.extend(absorbed);
            }
        }
    }

    /// Puts an operation in the place of node `index`, or nothing if it is part of another one; `None` if it stands for itself.
    pub(super) fn dynamic_step(&mut self, index: usize) -> Option<()> {
        if let Some(proto) = self.dynamic.steps.remove(&index) {
            self.push(proto);
            return Some(());
        }
        self.dynamic.absorbed.contains(&index).then_some(())
    }

    /// What takes the place of the node that makes codes and of those that read them, and the nodes that are part of that.
    fn steps_of(
        &self,
        index: usize,
        node: &Node,
        links: &Links<'_>,
    ) -> Option<(HashMap<usize, Proto>, HashSet<usize>)> {
        let x = self.operand(node, 0)?;
        let &[q, scale, zero] = &node.outputs[..] else { return None };
        let leaves = [q, scale, zero].iter().any(|id| self.is_output(*id));
        if self.is_constant(x) || self.shape(x)?.contains(&0) || leaves {
            return None;
        }
        let inputs = vec![Input::Value(x)];
        let codes = Proto { kind: Kind::Quantize, inputs, output: q, node: index, code: None };
        let (mut steps, mut absorbed) = (HashMap::from([(index, codes)]), HashSet::new());
        for &at in links.readers(q) {
            steps.insert(at, self.rescaled(at, [q, scale, zero], links, &mut absorbed)?);
        }
        let known = links.readers(zero).iter().all(|at| steps.contains_key(at))
            && links.readers(scale).iter().all(|at| absorbed.contains(at));
        known.then_some((steps, absorbed))
    }

    /// The integer product or convolution at node `at` with what makes numbers of it.
    fn rescaled(
        &self,
        at: usize,
        [q, scale, zero]: [ValueId; 3],
        links: &Links<'_>,
        absorbed: &mut HashSet<usize>,
    ) -> Option<Proto> {
        let (_, node, op) = links.node(at)?;
        let weight = self.operand(node, 1)?;
        let (x, shape) = (self.known_shape(q)?, self.known_shape(weight)?);
        // Dimensions of a result behind its outputs.
        let (outputs, behind) = match op {
            TensorOp::MatMulInteger if shape.len() == 2 && x.len() > 1 => (shape[1], 0),
            TensorOp::ConvInteger(_) if shape.len() > 2 => (shape[0], shape.len() - 2),
            _ => return None,
        };
        let operands = self.operand(node, 0) == Some(q) && self.operand(node, 2) == Some(zero);
        if !operands || !self.is_constant(weight) || shape.contains(&0) {
            return None;
        }
        // The only reader of a value that stays inside.
        let reader = |id: ValueId| if self.is_output(id) { None } else { links.reader(id) };
        let (cast_at, cast, TensorOp::Cast(Cast { to: DType::F32, .. })) = reader(node.outputs[0])? else {
            return None;
        };
        let (mul_at, mul, mul_op) = reader(cast.outputs[0])?;
        let both = factor(mul, mul_op, cast.outputs[0])?;
        let (scales_at, scales, scales_op) = links.node(*links.makers.get(&both)?)?;
        let scales = factor(scales, scales_op, scale)?;
        if reader(both)?.0 != mul_at {
            return None;
        }
        let scales = self.for_outputs(scales, outputs, behind)?;
        absorbed.extend([cast_at, mul_at, scales_at]);
        let (mut tail, mut output, mut last) = (Tail::default(), mul.outputs[0], mul_at);
        if let Some((add_at, add, TensorOp::Binary(Binary::Add))) = reader(output)
            && let Some(&other) = add.inputs.iter().find(|id| **id != output)
            && let Some(bias) = self.for_outputs(other, outputs, behind)
        {
            absorbed.insert(add_at);
            (tail.bias, output, last) = (bias, add.outputs[0], add_at);
        }
        // Scales and bias add no dimensions.
        if self.shape(output)?.len() != x.len() {
            return None;
        }
        // Scale and zero of the codes are known when they are made: until then the scale is 1.
        let x_code = Code { scale: 1.0, zero: 0 };
        let weight_zero = self.weight_zero(weight, self.operand(node, 3));
        let coded = |scales: Vec<f32>, weight_zero: u8| {
            let dynamic = Some(weight_zero);
            Some(Box::new(Coded { weight, x: x_code, scales, dynamic, out: None, added: None, table: None }))
        };
        let kind = match op {
            TensorOp::ConvInteger(conv) => {
                let (channels, groups) = (x[1], conv.groups);
                let spatial = conv.geometry(&x[2..], &shape[2..]).ok()?;
                let geometry = super::convolution::geometry(x[0], &spatial)?;
                if !channels.is_multiple_of(groups) || !outputs.is_multiple_of(groups) {
                    return None;
                }
                let coded = match weight_zero {
                    Some(MIDDLE) if groups == 1 => coded(scales, MIDDLE),
                    // Shared with a convolution that has another zero.
                    _ if self.constants.zero(weight) != self.operand(node, 3) => return None,
                    // In numbers: another zero would take the sums of windows.
                    _ => {
                        tail.scale = scales;
                        None
                    }
                };
                Kind::Convolve(Box::new(Convolve {
                    weight,
                    geometry,
                    channels,
                    outputs,
                    groups,
                    tail,
                    coded,
                }))
            }
            _ => {
                let ([k, n], coded) = ([shape[0], outputs], coded(scales, weight_zero?));
                Kind::Multiply(Box::new(Multiply { weight, n, k, n_stride: 1, k_stride: n, tail, coded }))
            }
        };
        Some(Proto { kind, inputs: vec![Input::Value(q)], output, node: last, code: None })
    }

    fn is_output(&self, id: ValueId) -> bool {
        self.graph.outputs.contains(&id)
    }

    /// The zero of weights as that of u8 codes, if all outputs have the same.
    fn weight_zero(&self, weight: ValueId, zero: Option<ValueId>) -> Option<u8> {
        let Some(zero) = zero else {
            return match self.graph.value(weight).dtype {
                DType::U8 => Some(0),
                DType::I8 => Some(MIDDLE),
                _ => None,
            };
        };
        let zero = self.constant(zero)?;
        let zeros: Vec<u8> = match zero.elements() {
            Elements::U8(zeros) => zeros.clone(),
            Elements::I8(zeros) => zeros.iter().map(|zero| zero.cast_unsigned() ^ MIDDLE).collect(),
            _ => return None,
        };
        let first = *zeros.first()?;
        zeros.iter().all(|zero| *zero == first).then_some(first)
    }

    /// A constant as one number for each output, of which a result has them `behind` dimensions before its last.
    fn for_outputs(&self, id: ValueId, outputs: usize, behind: usize) -> Option<Vec<f32>> {
        if !self.is_constant(id) {
            return None;
        }
        let shape = self.shape(id)?;
        let numbers = self.numbers(id, outputs)?;
        if numbers.len() == 1 {
            return Some(vec![numbers[0]; outputs]);
        }
        let along = shape.len().checked_sub(behind + 1)?;
        (numbers.len() == outputs && shape[along] == outputs).then_some(numbers)
    }
}
