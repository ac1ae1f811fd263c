//! Quantised nodes: values that stay u8 codes between operations.
//!
//! `DequantizeLinear` makes a value that is held as codes: operations that can read codes do, others have it decoded.
//! `QuantizeLinear` makes the operation before it write codes. What one operand of codes alone decides becomes a table.

use super::{Added, Coded, Convolve, Input, Kind, Lower, Multiply, Proto, Tail};
use crate::graph::{Dim, Node, Op, ValueId, ValueKind};
use crate::ops::{Convolution, Quantize, TensorOp};
use kun_kernels::Isa;
use kun_kernels::chain::{self, Function, Operand, Source, Step};
use kun_kernels::codes::Table;
use kun_kernels::gemm::Activation;
use kun_kernels::gemm::quads::Code;
use kun_tensor::{DType, Elements, Tensor};

/// Results, counted in codes, that are far from the bounds of i32.
const MOST: f64 = 1e9;

/// An i8 as the u8 that stands for the same.
fn shifted(code: i8) -> u8 {
    code.cast_unsigned() ^ 0x80
}

impl Lower<'_> {
    /// What codes of type `dtype` stand for with these operands, if one scale and zero are for all.
    fn code(&self, scale: Option<ValueId>, zero: Option<ValueId>, dtype: DType) -> Option<Code> {
        let scale = self.number(scale?)?;
        let zero = match (zero, dtype) {
            (None, DType::U8) => 0,
            (None, DType::I8) => 128,
            (Some(zero), _) => match self.constant(zero)?.elements() {
                Elements::U8(zero) if dtype == DType::U8 => *zero.first()?,
                Elements::I8(zero) if dtype == DType::I8 => shifted(*zero.first()?),
                _ => return None,
            },
            _ => return None,
        };
        (scale.is_finite() && scale > 0.0).then_some(Code { scale, zero })
    }

    /// The type of a tensor of codes of known shape that is no output of the graph.
    fn code_type(&self, id: ValueId) -> Option<DType> {
        let info = self.graph.value(id);
        let known = info.kind == ValueKind::Tensor
            && info.shape.iter().all(|dim| matches!(dim, Dim::Const(n) if *n > 0))
            && !self.graph.outputs.contains(&id);
        (known && matches!(info.dtype, DType::U8 | DType::I8)).then_some(info.dtype)
    }

    /// A value that is held as codes from now on.
    pub(super) fn dequantize(&mut self, index: usize, node: &Node, quantize: &Quantize) -> Option<()> {
        let q = self.operand(node, 0)?;
        if quantize.block > 0 || !self.codes.contains(&q) {
            return None;
        }
        let code = self.code(self.operand(node, 1), self.operand(node, 2), self.graph.value(q).dtype)?;
        let out = node.outputs[0];
        let kind = Kind::Decode;
        self.push(Proto { kind, inputs: vec![Input::Value(q)], output: out, node: index, code: Some(code) });
        self.coded.insert(out, code);
        Some(())
    }

    pub(super) fn quantize(&mut self, index: usize, node: &Node, quantize: &Quantize) -> Option<()> {
        let (x, q) = (self.operand(node, 0)?, node.outputs[0]);
        let code = self.code(self.operand(node, 1), self.operand(node, 2), self.code_type(q)?)?;
        let shape = self.shape(x)?;
        if quantize.block > 0 || self.is_constant(x) || shape.contains(&0) {
            return None;
        }
        self.write_codes(index, x, q, code);
        self.codes.insert(q);
        Some(())
    }

    /// Makes `q` the codes of `x`.
    fn write_codes(&mut self, index: usize, x: ValueId, q: ValueId, code: Code) {
        if let Some(&from) = self.coded.get(&x) {
            let inputs = vec![Input::Value(x)];
            if from == code {
                self.push(Proto { kind: Kind::Same, inputs, output: q, node: index, code: Some(code) });
                return;
            }
            let (root, map) = self.root(x);
            let table = std::array::from_fn(|i| code.encode(from.decode(map[i])));
            self.table(index, root, table, q, code, &[x]);
            return;
        }
        // The largest result in codes, by depth and scales.
        let largest = |depth: usize, coded: &Coded| {
            let largest = coded.scales.iter().fold(0f32, |most, x| most.max(x.abs()));
            depth as f64 * 255.0 * 128.0 * f64::from(largest * coded.x.scale / code.scale)
        };
        let bound = match self.single(x).map(|proto| &proto.kind) {
            Some(Kind::Convolve(convolve)) => {
                let depth = convolve.channels / convolve.groups * convolve.geometry.taps();
                convolve.coded.as_ref().map(|coded| largest(depth, coded))
            }
            Some(Kind::Multiply(multiply)) => multiply.coded.as_ref().map(|coded| largest(multiply.k, coded)),
            Some(Kind::CodesMatMul(task)) => {
                let unit = task.codes[0].scale * task.codes[1].scale / code.scale;
                Some(task.k as f64 * 255.0 * 255.0 * f64::from(unit))
            }
            _ => None,
        };
        if bound.is_some_and(|bound| bound < MOST)
            && let Some(proto) = self.single_mut(x)
            && let Some(out) = proto.kind.out_mut()
        {
            *out = Some(code);
            proto.code = Some(code);
            self.rename(x, q, index);
            return;
        }
        match self.single(x) {
            Some(Proto { kind: Kind::Chain(steps), inputs, code: None, .. }) => {
                let (steps, inputs) = (steps.clone(), inputs.clone());
                if self.chain_table(index, x, &steps, &inputs, q, code).is_some()
                    || self.add_codes(index, x, &steps, &inputs, q, code).is_some()
                {
                    return;
                }
                if let Some(proto) = self.single_mut(x) {
                    proto.code = Some(code);
                }
                self.rename(x, q, index);
            }
            Some(Proto { kind: Kind::Concat { .. }, code: None, .. }) => {
                if let Some(proto) = self.single_mut(x) {
                    proto.code = Some(code);
                }
                self.rename(x, q, index);
            }
            _ => {
                let function = Function::Activation(Activation::None);
                let steps = vec![Step { function, a: Source::Operand(0), b: Source::Number(0.0) }];
                let inputs = vec![Input::Value(x)];
                self.push(Proto {
                    kind: Kind::Chain(steps),
                    inputs,
                    output: q,
                    node: index,
                    code: Some(code),
                });
            }
        }
    }

    /// The value whose codes decide those that `x` is held as, and how.
    fn root(&self, x: ValueId) -> (ValueId, Table) {
        let made = |id: ValueId| self.protos[*self.made.get(&id)?].as_ref();
        let mut map: Table = std::array::from_fn(|i| i as u8);
        let mut at = x;
        while let Some(proto) = made(at) {
            match (&proto.kind, proto.inputs.first().and_then(Input::value)) {
                (Kind::Decode | Kind::Same, Some(from)) => at = from,
                (Kind::Table(table), Some(from)) => {
                    map = std::array::from_fn(|i| map[usize::from(table[i])]);
                    at = from;
                }
                _ => break,
            }
        }
        (at, map)
    }

    /// `q = table[root]`, instead of an operation that read `read`.
    fn table(&mut self, index: usize, root: ValueId, table: Table, q: ValueId, code: Code, read: &[ValueId]) {
        self.uses[root.0 as usize] += 1;
        read.iter().for_each(|&id| self.release(id));
        if let Some(proto) = self.single_mut(root)
            && let Some(coded) = proto.kind.coded_mut()
            && coded.table.is_none()
            && coded.out.is_some()
        {
            coded.table = Some(Box::new(table));
            proto.code = Some(code);
            self.rename(root, q, index);
            return;
        }
        let (kind, inputs) = (Kind::Table(Box::new(table)), vec![Input::Value(root)]);
        self.push(Proto { kind, inputs, output: q, node: index, code: Some(code) });
    }

    /// One reader of `id` is gone, and so is what made it if that was the last one.
    fn release(&mut self, id: ValueId) {
        self.uses[id.0 as usize] -= 1;
        let idle = self.uses[id.0 as usize] == 0;
        let made = self.made.get(&id).and_then(|&at| self.protos[at].as_ref());
        if idle
            && let Some(Proto { kind: Kind::Decode | Kind::Same | Kind::Table(_), .. }) = made
            && let Some(proto) = self.take(id)
        {
            proto.inputs.iter().filter_map(Input::value).for_each(|id| self.release(id));
        }
    }

    /// A chain whose operands all follow from the same codes, as a table.
    fn chain_table(
        &mut self,
        index: usize,
        x: ValueId,
        steps: &[Step],
        inputs: &[Input],
        q: ValueId,
        code: Code,
    ) -> Option<()> {
        let shape = self.shape(x)?;
        let mut from = None;
        let mut numbers = Vec::new();
        for input in inputs {
            let id = input.value()?;
            let (own, (root, map)) = (*self.coded.get(&id)?, self.root(id));
            if self.shape(id)? != shape || from.is_some_and(|known| known != root) {
                return None;
            }
            from = Some(root);
            numbers.push(map.map(|code| own.decode(code)));
        }
        let operands: Vec<Operand<'_>> = numbers.iter().map(|x| Operand::Slice(x)).collect();
        let mut results = [0.0; 256];
        chain::run(Isa::detect(), steps, &operands, &mut results, &mut Vec::new()).ok()?;
        self.take(x);
        let read: Vec<ValueId> = inputs.iter().filter_map(Input::value).collect();
        self.table(index, from?, results.map(|x| code.encode(x)), q, code, &read);
        Some(())
    }

    /// A sum of two values that are held as codes, made part of the convolution or product that makes one of them.
    fn add_codes(
        &mut self,
        index: usize,
        x: ValueId,
        steps: &[Step],
        inputs: &[Input],
        q: ValueId,
        code: Code,
    ) -> Option<()> {
        let (sum, clamp) = match steps {
            [sum] => (sum, [f32::NEG_INFINITY, f32::INFINITY]),
            [
                sum,
                Step {
                    function: Function::Activation(Activation::Clamp { low, high }),
                    a: Source::Step(0),
                    ..
                },
            ] => (sum, [*low, *high]),
            _ => return None,
        };
        let [a, b] = inputs else { return None };
        let (a, b) = (a.value()?, b.value()?);
        let shape = self.shape(x)?;
        if sum.function != Function::Add
            || [sum.a, sum.b] != [Source::Operand(0), Source::Operand(1)]
            || self.shape(a)? != shape
            || self.shape(b)? != shape
        {
            return None;
        }
        let codes = [*self.coded.get(&a)?, *self.coded.get(&b)?];
        // The operation that makes the codes of `id` for this sum alone.
        let host = |id: ValueId| {
            let decode = self.single(id).filter(|proto| matches!(proto.kind, Kind::Decode))?;
            let from = decode.inputs.first()?.value()?;
            let proto = self.single(from)?;
            let able = |coded: &Coded| coded.out.is_some() && coded.table.is_none() && coded.added.is_none();
            let depthwise = matches!(&proto.kind, Kind::Convolve(convolve) if convolve.groups > 1);
            (proto.kind.coded().is_some_and(able) && !depthwise).then_some((*self.made.get(&from)?, from))
        };
        let first = match (host(a), host(b)) {
            (Some(a), Some(b)) => a > b,
            (a, b) => a.is_some() && b.is_none(),
        };
        let ((mine, other), [own, theirs]) =
            if first { ((a, b), codes) } else { ((b, a), [codes[1], codes[0]]) };
        let (_, from) = host(mine)?;
        self.take(x);
        self.take(mine);
        // Moved behind the operation that makes the other value.
        let mut proto = self.take(from)?;
        proto.inputs.push(Input::Value(other));
        (proto.output, proto.node, proto.code) = (q, index, Some(code));
        proto.kind.coded_mut()?.added = Some(Added { own, other: theirs, sum: code, clamp });
        self.push(proto);
        Some(())
    }

    /// The codes of weights and the scale of each output, if `id` stands for i8 weights without zero whose outputs are
    /// dimension `axis`.
    fn weights(&self, id: ValueId, axis: usize, outputs: usize) -> Option<(ValueId, Vec<f32>)> {
        let node = self.constants.node(id)?;
        let Op::Tensor(TensorOp::DequantizeLinear(quantize)) = &node.op else { return None };
        let rank = i64::try_from(self.shape(id)?.len()).ok()?;
        let given = if quantize.axis < 0 { quantize.axis + rank } else { quantize.axis };
        let scales = self.numbers(node.inputs[1], usize::MAX)?;
        if quantize.block > 0 || scales.len() != 1 && usize::try_from(given) != Ok(axis) {
            return None;
        }
        self.plain_weights(node.inputs[0], self.operand(node, 2), scales, outputs)
    }

    fn plain_weights(
        &self,
        codes: ValueId,
        zero: Option<ValueId>,
        scales: Vec<f32>,
        outputs: usize,
    ) -> Option<(ValueId, Vec<f32>)> {
        let zero = zero.map(|id| self.constant(id)).map_or(Some(None), |zero| zero.map(Some))?;
        let centred = match (self.graph.value(codes).dtype, zero.as_deref().map(Tensor::elements)) {
            (DType::I8, None) => true,
            (DType::I8, Some(Elements::I8(zero))) => zero.iter().all(|z| *z == 0),
            (DType::U8, Some(Elements::U8(zero))) => zero.iter().all(|z| *z == 128),
            _ => false,
        };
        let scales = if scales.len() == 1 { vec![scales[0]; outputs] } else { scales };
        (centred && scales.len() == outputs && self.is_constant(codes)).then_some((codes, scales))
    }

    /// How a convolution or product of `x` with `weight` is computed in codes.
    pub(super) fn coded(
        &self,
        x: ValueId,
        weight: ValueId,
        axis: usize,
        outputs: usize,
    ) -> Option<Box<Coded>> {
        let x = *self.coded.get(&x)?;
        let (weight, scales) = self.weights(weight, axis, outputs)?;
        Some(Box::new(Coded { weight, x, scales, dynamic: None, out: None, added: None, table: None }))
    }

    pub(super) fn qlinear_convolution(
        &mut self,
        index: usize,
        node: &Node,
        conv: &Convolution,
    ) -> Option<()> {
        let operand = |i: usize| self.operand(node, i);
        let (x, weight, q) = (operand(0)?, operand(3)?, node.outputs[0]);
        if !self.codes.contains(&x) {
            return None;
        }
        let from = self.code(operand(1), operand(2), self.graph.value(x).dtype)?;
        let code = self.code(operand(6), operand(7), self.code_type(q)?)?;
        let kernel = self.constant(weight)?.shape().to_vec();
        let scales = self.numbers(operand(4)?, usize::MAX)?;
        let (weight, scales) = self.plain_weights(weight, operand(5), scales, *kernel.first()?)?;
        let mut tail = Tail::default();
        if let Some(bias) = operand(8) {
            let bias = self.constant(bias)?.elements().to_i64()?;
            tail.bias = bias.iter().zip(&scales).map(|(&b, s)| b as f32 * (from.scale * s)).collect();
        }
        let shape = self.known_shape(x)?;
        let (outputs, channels, groups) = (kernel[0], *shape.get(1)?, conv.groups);
        let depthwise = groups == channels && outputs == channels;
        let spatial = conv.geometry(&shape[2..], &kernel[2..]).ok()?;
        let geometry = super::convolution::geometry(shape[0], &spatial)?;
        let largest = scales.iter().fold(0f32, |most, x| most.max(x.abs()));
        let depth = (channels / groups.max(1) * geometry.taps()) as f64;
        let bound = depth * 255.0 * 128.0 * f64::from(largest * from.scale / code.scale);
        if groups != 1 && !depthwise || kernel.contains(&0) || shape.contains(&0) || bound >= MOST {
            return None;
        }
        let coded =
            Coded { weight, x: from, scales, dynamic: None, out: Some(code), added: None, table: None };
        let coded = Some(Box::new(coded));
        let convolve = Convolve { weight, geometry, channels, outputs, groups, tail, coded };
        let kind = Kind::Convolve(Box::new(convolve));
        self.push(Proto { kind, inputs: vec![Input::Value(x)], output: q, node: index, code: Some(code) });
        self.codes.insert(q);
        Some(())
    }

    pub(super) fn qlinear_matmul(&mut self, index: usize, node: &Node) -> Option<()> {
        let operand = |i: usize| self.operand(node, i);
        let (x, weight, q) = (operand(0)?, operand(3)?, node.outputs[0]);
        if !self.codes.contains(&x) {
            return None;
        }
        let from = self.code(operand(1), operand(2), self.graph.value(x).dtype)?;
        let code = self.code(operand(6), operand(7), self.code_type(q)?)?;
        let right = self.constant(weight)?.shape().to_vec();
        let [k, n] = right[..] else { return None };
        let scales = self.numbers(operand(4)?, usize::MAX)?;
        let (weight, scales) = self.plain_weights(weight, operand(5), scales, n)?;
        let shape = self.known_shape(x)?;
        let largest = scales.iter().fold(0f32, |most, x| most.max(x.abs()));
        let bound = k as f64 * 255.0 * 128.0 * f64::from(largest * from.scale / code.scale);
        if shape.len() < 2 || shape.contains(&0) || right.contains(&0) || bound >= MOST {
            return None;
        }
        let coded =
            Coded { weight, x: from, scales, dynamic: None, out: Some(code), added: None, table: None };
        let coded = Some(Box::new(coded));
        let multiply = Multiply { weight, n, k, n_stride: 1, k_stride: n, tail: Tail::default(), coded };
        let kind = Kind::Multiply(Box::new(multiply));
        self.push(Proto { kind, inputs: vec![Input::Value(x)], output: q, node: index, code: Some(code) });
        self.codes.insert(q);
        Some(())
    }

    /// The shape of a tensor of any type.
    pub(super) fn known_shape(&self, id: ValueId) -> Option<Vec<usize>> {
        let dims = self.graph.value(id).shape.iter();
        dims.map(|dim| if let Dim::Const(n) = dim { Some(*n) } else { None }).collect()
    }
}

impl Kind {
    /// How a convolution or product is computed in codes, if it is.
    pub(crate) fn coded(&self) -> Option<&Coded> {
        match self {
            Kind::Convolve(convolve) => convolve.coded.as_deref(),
            Kind::Multiply(multiply) => multiply.coded.as_deref(),
            _ => None,
        }
    }

    /// The codes of the result of a convolution or product in codes.
    fn out_mut(&mut self) -> Option<&mut Option<Code>> {
        match self {
            Kind::CodesMatMul(task) => Some(&mut task.out),
            _ => self.coded_mut().map(|coded| &mut coded.out),
        }
    }

    /// The same, unless its results are numbers whatever follows.
    fn coded_mut(&mut self) -> Option<&mut Coded> {
        let coded = match self {
            Kind::Convolve(convolve) => convolve.coded.as_deref_mut(),
            Kind::Multiply(multiply) => multiply.coded.as_deref_mut(),
            _ => None,
        };
        coded.filter(|coded| coded.dynamic.is_none())
    }
}
