//! Products, attention and norms of rows.

use super::{CodedMatMul, Input, Kind, Lower, Multiply, Proto, Tail};
use crate::graph::{Node, ValueId};
use crate::ops::{Gemm, LayerNorm, ReduceKind};
use kun_kernels::chain::{Function, Source};

/// Depth below which products of two codes, and what their zeros add, fit an i32.
const MOST_DEPTH: usize = 1 << 13;

impl Lower<'_> {
    pub(super) fn matmul(&mut self, index: usize, node: &Node) -> Option<()> {
        let (a, b) = (self.operand(node, 0)?, self.operand(node, 1)?);
        let (left, right) = (self.shape(a)?, self.shape(b)?);
        if left.len() < 2 || right.len() < 2 || left.contains(&0) || right.contains(&0) {
            return None;
        }
        let out = node.outputs[0];
        if self.is_constant(b) && right.len() == 2 && !self.is_constant(a) {
            let (k, n) = (right[0], right[1]);
            let coded = self.coded(a, b, 1, n);
            let tail = Tail::default();
            let multiply = Multiply { weight: b, n, k, n_stride: 1, k_stride: n, tail, coded };
            let kind = Kind::Multiply(Box::new(multiply));
            self.make(index, kind, vec![Input::Value(a)], out);
            return Some(());
        }
        if self.attention(index, a, b, out).is_some() {
            return Some(());
        }
        let inputs = vec![Input::Value(a), Input::Value(b)];
        let k = right[right.len() - 2];
        if let (Some(&left), Some(&right)) = (self.coded.get(&a), self.coded.get(&b))
            && k < MOST_DEPTH
        {
            let task = CodedMatMul { k, codes: [left, right], out: None };
            self.make(index, Kind::CodesMatMul(Box::new(task)), inputs, out);
            return Some(());
        }
        self.make(index, Kind::MatMul, inputs, out);
        Some(())
    }

    /// `softmax(scale * q . k (+ mask)) . v`, if that is what makes `weights`.
    fn attention(&mut self, index: usize, weights: ValueId, v: ValueId, out: ValueId) -> Option<()> {
        let softmax = self.single(weights)?;
        let Kind::Softmax { axis, log: false } = softmax.kind else { return None };
        if axis + 1 != self.shape(weights)?.len() {
            return None;
        }
        let mut scores = softmax.inputs[0].value()?;
        let (mut scale, mut mask, mut chain) = (1.0, None, None);
        if let Some(Proto { kind: Kind::Chain(steps), inputs, .. }) = self.single(scores) {
            chain = Some(scores);
            for (i, step) in steps.iter().enumerate() {
                let before = if i == 0 { Source::Operand(0) } else { Source::Step(i - 1) };
                if step.a != before {
                    return None;
                }
                match (step.function, step.b) {
                    (Function::Mul, Source::Number(x)) if mask.is_none() => scale *= x,
                    (Function::Div, Source::Number(x)) if mask.is_none() => scale /= x,
                    (Function::Add, Source::Operand(at)) if mask.is_none() && at > 0 => {
                        mask = Some(inputs[at].clone());
                    }
                    _ => return None,
                }
            }
            scores = inputs[0].value()?;
        }
        let product = self.single(scores)?;
        let Kind::MatMul = product.kind else { return None };
        let (q, k) = (product.inputs[0].clone(), product.inputs[1].clone());
        let [queries, keys, values] = [self.shape(q.value()?)?, self.shape(k.value()?)?, self.shape(v)?];
        let rank = queries.len();
        let same = rank > 2
            && keys.len() == rank
            && values.len() == rank
            && queries[..rank - 2] == keys[..rank - 2]
            && queries[..rank - 2] == values[..rank - 2];
        if !same || scale <= 0.0 {
            return None;
        }
        self.take(weights);
        if let Some(chain) = chain {
            self.take(chain);
        }
        self.take(scores);
        let inputs = [q, k, Input::Value(v)].into_iter().chain(mask).collect();
        self.make(index, Kind::Attend { scale }, inputs, out);
        Some(())
    }

    /// Every channel of every image by its own mean and variance.
    pub(super) fn instance_norm(&mut self, index: usize, node: &Node, epsilon: f32) -> Option<()> {
        let x = self.operand(node, 0)?;
        let shape = self.shape(x)?;
        let [weight, bias] = [1, 2].map(|i| self.numbers(self.operand(node, i)?, *shape.get(1)?));
        let (weight, bias) = (weight?, bias?);
        if shape.len() < 3 || weight.len() != shape[1] || bias.len() != shape[1] {
            return None;
        }
        let kind = Kind::InstanceNorm { weight, bias, epsilon };
        self.make(index, kind, vec![Input::Value(x)], node.outputs[0]);
        Some(())
    }

    pub(super) fn gemm(&mut self, index: usize, node: &Node, gemm: &Gemm) -> Option<()> {
        let (a, b) = (self.operand(node, 0)?, self.operand(node, 1)?);
        let (left, right) = (self.shape(a)?, self.shape(b)?);
        if gemm.transpose_a || !self.is_constant(b) || self.is_constant(a) || left.contains(&0) {
            return None;
        }
        let k = left[1];
        let n = if gemm.transpose_b { right[0] } else { right[1] };
        let mut tail = Tail::default();
        if gemm.alpha != 1.0 {
            tail.scale = vec![gemm.alpha; n];
        }
        if let Some(c) = self.operand(node, 2) {
            let shape = self.shape(c)?;
            let numbers = self.numbers(c, 1 << 20)?;
            let bias = match numbers.len() {
                1 => vec![numbers[0]; n],
                len if len == n && shape.last() == Some(&n) => numbers,
                _ => return None,
            };
            tail.bias = bias.into_iter().map(|x| x * gemm.beta).collect();
        }
        let (n_stride, k_stride) = if gemm.transpose_b { (k, 1) } else { (1, n) };
        let axis = usize::from(!gemm.transpose_b);
        let coded = if gemm.alpha == 1.0 { self.coded(a, b, axis, n) } else { None };
        let multiply = Multiply { weight: b, n, k, n_stride, k_stride, tail, coded };
        let kind = Kind::Multiply(Box::new(multiply));
        self.make(index, kind, vec![Input::Value(a)], node.outputs[0]);
        Some(())
    }

    pub(super) fn softmax(&mut self, index: usize, node: &Node, axis: i64, log: bool) -> Option<()> {
        let x = self.operand(node, 0)?;
        let rank = i64::try_from(self.shape(x)?.len()).ok()?;
        let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()?;
        self.make(index, Kind::Softmax { axis, log }, vec![Input::Value(x)], node.outputs[0]);
        Some(())
    }

    /// Softmax of all dimensions from `axis` on as one, where that is one dimension.
    pub(super) fn flat_softmax(&mut self, index: usize, node: &Node, axis: i64) -> Option<()> {
        let shape = self.shape(self.operand(node, 0)?)?;
        let from = if axis < 0 { axis + i64::try_from(shape.len()).ok()? } else { axis };
        let flat = shape.get(usize::try_from(from).ok()? + 1..)?;
        if flat.iter().any(|n| *n != 1) {
            return None;
        }
        self.softmax(index, node, from, false)
    }

    pub(super) fn layer_norm(&mut self, index: usize, node: &Node, norm: &LayerNorm) -> Option<()> {
        let x = self.operand(node, 0)?;
        let shape = self.shape(x)?;
        let rank = i64::try_from(shape.len()).ok()?;
        if norm.axis != -1 && norm.axis != rank - 1
            || node.outputs[1..].iter().any(|&id| id != ValueId::ABSENT && self.uses(id) > 0)
        {
            return None;
        }
        let width = *shape.last()?;
        let weight = self.numbers(self.operand(node, 1)?, width)?;
        let bias = match self.operand(node, 2) {
            Some(bias) => self.numbers(bias, width)?,
            None => Vec::new(),
        };
        if weight.len() != width || !bias.is_empty() && bias.len() != width {
            return None;
        }
        let kind = Kind::LayerNorm { weight, bias, epsilon: norm.epsilon };
        self.make(index, kind, vec![Input::Value(x)], node.outputs[0]);
        Some(())
    }

    /// `(x - mean(x)) / sqrt(mean((x - mean(x))²) + epsilon)` over the last dimension, as exporters write it where layer norm
    /// is no operation; `centred` and `deviation` are the operands of the division. A weight and a bias may follow.
    pub(super) fn written_out_norm(
        &mut self,
        index: usize,
        centred: ValueId,
        deviation: ValueId,
        out: ValueId,
    ) -> Option<()> {
        let chain = |proto: &Proto, functions: &[Function]| {
            let Kind::Chain(steps) = &proto.kind else { return None };
            let same = steps.iter().map(|step| step.function).eq(functions.iter().copied());
            same.then(|| (steps[0], proto.inputs.clone()))
        };
        let first = Source::Operand(0);
        // From the last to the first.
        let (add, inputs) = chain(self.single(deviation)?, &[Function::Add, Function::Sqrt])?;
        let (Source::Number(epsilon), [variance]) = (add.b, &inputs[..]) else { return None };
        let variance = variance.value()?;
        let squares = self.mean_of_rows(variance)?;
        let (square, inputs) = chain(self.single(squares)?, &[Function::Pow])
            .or_else(|| chain(self.single(squares)?, &[Function::Mul]))?;
        let squared = match (square.function, square.b) {
            (Function::Pow, Source::Number(2.0)) => true,
            (Function::Mul, both) => both == first,
            _ => false,
        };
        if !squared || add.a != first || square.a != first || inputs[0].value() != Some(centred) {
            return None;
        }
        // What is squared is read once by each reader, whatever its program does with it.
        let proto = self.protos[*self.made.get(&centred)?].as_ref()?;
        let (sub, inputs) = chain(proto, &[Function::Sub])?;
        let ([x, mean], true) = (&inputs[..], self.uses(centred) == 2) else { return None };
        let (x, mean) = (x.value()?, mean.value()?);
        if [sub.a, sub.b] != [first, Source::Operand(1)] || self.mean_of_rows(mean)? != x {
            return None;
        }
        let width = *self.shape(x)?.last()?;
        for id in [deviation, variance, squares, centred, mean] {
            self.take(id);
        }
        // The mean and the difference read it.
        self.uses[x.0 as usize] -= 1;
        let kind = Kind::LayerNorm { weight: vec![1.0; width], bias: Vec::new(), epsilon };
        self.make(index, kind, vec![Input::Value(x)], out);
        Some(())
    }

    /// What `id`, which nothing else reads, is the mean of over the last dimension.
    fn mean_of_rows(&self, id: ValueId) -> Option<ValueId> {
        let Some(Proto { kind: Kind::Reduce { axes, kind: ReduceKind::Mean }, inputs, .. }) = self.single(id)
        else {
            return None;
        };
        let x = inputs[0].value()?;
        let rank = self.shape(x)?.len();
        (axes[..] == [rank - 1] && self.shape(id)?.len() == rank).then_some(x)
    }
}
