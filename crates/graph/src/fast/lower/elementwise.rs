//! Element-wise nodes: part of the operation before, or programs of their own.

use super::{Input, Kind, Lower, Move, Proto, Tail};
use crate::graph::{Node, ValueId};
use crate::ops::{Binary, Unary, Variadic};
use kun_kernels::chain::{Function, Source, Step};
use kun_kernels::gemm::Activation;
use std::sync::Arc;

/// Steps of a program; more would not fit the first-level cache.
const MOST_STEPS: usize = 12;
/// Constants of at most this many elements become factors and biases.
const MOST_OUTPUTS: usize = 1 << 16;

/// An operand of one element-wise function.
#[derive(Clone, Debug)]
pub(super) enum Operand {
    Input(Input),
    Number(f32),
}

fn function_of(unary: Unary) -> Option<(Function, f32)> {
    let plain = |function| Some((function, 0.0));
    let activation = |activation| Some((Function::Activation(activation), 0.0));
    match unary {
        Unary::Relu => activation(Activation::RELU),
        Unary::Sigmoid => activation(Activation::Sigmoid),
        Unary::Tanh => activation(Activation::Tanh),
        Unary::HardSwish => activation(Activation::HardSwish),
        Unary::HardSigmoid { alpha, beta } => activation(Activation::HardSigmoid { alpha, beta }),
        Unary::Gelu { tanh: false } => activation(Activation::Gelu),
        Unary::Gelu { tanh: true } => activation(Activation::GeluTanh),
        Unary::Swish { alpha: 1.0 } => activation(Activation::Silu),
        Unary::LeakyRelu { alpha } => Some((Function::Slope, alpha)),
        Unary::Neg => plain(Function::Neg),
        Unary::Abs => plain(Function::Abs),
        Unary::Exp => plain(Function::Exp),
        Unary::Log => plain(Function::Log),
        Unary::Sqrt => plain(Function::Sqrt),
        Unary::Reciprocal => plain(Function::Reciprocal),
        Unary::Floor => plain(Function::Floor),
        Unary::Ceil => plain(Function::Ceil),
        Unary::Round => plain(Function::Round),
        Unary::Sin => plain(Function::Sin),
        Unary::Cos => plain(Function::Cos),
        Unary::Erf => plain(Function::Erf),
        Unary::Softplus => plain(Function::Softplus),
        _ => None,
    }
}

/// Functions that are several others.
fn steps_of(unary: Unary) -> Option<Vec<Step>> {
    const X: Source = Source::Operand(0);
    let number = Source::Number;
    let mut steps = Vec::new();
    let mut then = |function: Function, a: Source, b: Source| {
        steps.push(Step { function, a, b });
        Source::Step(steps.len() - 1)
    };
    // `gamma * (max(x, 0) + min(0, alpha * (exp(x / divisor) - 1)))`.
    let mut exponential = |alpha: f32, divisor: f32, gamma: f32| {
        let inner = if divisor == 1.0 { X } else { then(Function::Div, X, number(divisor)) };
        let exp = then(Function::Exp, inner, number(0.0));
        let less = then(Function::Sub, exp, number(1.0));
        let scaled = then(Function::Mul, less, number(alpha));
        let below = then(Function::Min, scaled, number(0.0));
        let above = then(Function::Max, X, number(0.0));
        let sum = then(Function::Add, above, below);
        if gamma != 1.0 {
            then(Function::Mul, sum, number(gamma));
        }
    };
    match unary {
        Unary::Elu { alpha } if alpha >= 0.0 => exponential(alpha, 1.0, 1.0),
        Unary::Celu { alpha } if alpha > 0.0 => exponential(alpha, alpha, 1.0),
        Unary::Selu { alpha, gamma } if alpha >= 0.0 => exponential(alpha, 1.0, gamma),
        Unary::Softsign => {
            let magnitude = then(Function::Abs, X, number(0.0));
            let more = then(Function::Add, magnitude, number(1.0));
            then(Function::Div, X, more);
        }
        Unary::Mish => {
            let soft = then(Function::Softplus, X, number(0.0));
            let factor = then(Function::Activation(Activation::Tanh), soft, number(0.0));
            then(Function::Mul, X, factor);
        }
        Unary::Swish { alpha } if alpha != 1.0 => {
            let scaled = then(Function::Mul, X, number(alpha));
            let factor = then(Function::Activation(Activation::Sigmoid), scaled, number(0.0));
            then(Function::Mul, X, factor);
        }
        _ => return None,
    }
    Some(steps)
}

impl Lower<'_> {
    pub(super) fn unary(&mut self, index: usize, node: &Node, unary: Unary) -> Option<()> {
        let x = self.operand(node, 0)?;
        self.shape(x)?;
        if let Some(steps) = steps_of(unary) {
            self.make(index, Kind::Chain(steps), vec![Input::Value(x)], node.outputs[0]);
            return Some(());
        }
        let (function, number) = function_of(unary)?;
        let operands = [Operand::Input(Input::Value(x)), Operand::Number(number)];
        self.element(index, function, operands, node.outputs[0])
    }

    pub(super) fn clip(&mut self, index: usize, node: &Node) -> Option<()> {
        let x = self.operand(node, 0)?;
        self.shape(x)?;
        let bound = |i: usize, none: f32| self.operand(node, i).map_or(Some(none), |id| self.number(id));
        let (low, high) = (bound(1, f32::NEG_INFINITY)?, bound(2, f32::INFINITY)?);
        let function = Function::Activation(Activation::Clamp { low, high });
        self.element(
            index,
            function,
            [Operand::Input(Input::Value(x)), Operand::Number(0.0)],
            node.outputs[0],
        )
    }

    pub(super) fn binary(&mut self, index: usize, node: &Node, binary: Binary) -> Option<()> {
        let function = match binary {
            Binary::Add => Function::Add,
            Binary::Sub => Function::Sub,
            Binary::Mul => Function::Mul,
            Binary::Div => Function::Div,
            Binary::Pow => Function::Pow,
            Binary::PRelu => Function::Slope,
            _ => return None,
        };
        let (a, b) = (self.operand(node, 0)?, self.operand(node, 1)?);
        if binary == Binary::Div && self.written_out_norm(index, a, b, node.outputs[0]).is_some() {
            return Some(());
        }
        self.pair(index, function, a, b, node.outputs[0])
    }

    pub(super) fn variadic(&mut self, index: usize, node: &Node, variadic: Variadic) -> Option<()> {
        let function = match variadic {
            Variadic::Max => Function::Max,
            Variadic::Min => Function::Min,
            Variadic::Sum => Function::Add,
            Variadic::Mean => return None,
        };
        let &[a, b] = &node.inputs[..] else { return None };
        self.pair(index, function, a, b, node.outputs[0])
    }

    fn pair(&mut self, index: usize, function: Function, a: ValueId, b: ValueId, out: ValueId) -> Option<()> {
        self.shape(a)?;
        self.shape(b)?;
        let operand = |id: ValueId| self.number(id).map_or(Operand::Input(Input::Value(id)), Operand::Number);
        let (a, b) = (operand(a), operand(b));
        match (&a, &b) {
            (Operand::Number(_), Operand::Number(_)) => None,
            // The number goes last where order does not matter.
            (Operand::Number(_), _) if matches!(function, Function::Add | Function::Mul) => {
                self.element(index, function, [b, a], out)
            }
            _ => self.element(index, function, [a, b], out),
        }
    }

    /// One function of one or two operands.
    fn element(
        &mut self,
        node: usize,
        function: Function,
        operands: [Operand; 2],
        out: ValueId,
    ) -> Option<()> {
        let shape = self.shape(out)?;
        if self.attach(node, function, &operands, out, &shape).is_some() {
            return Some(());
        }
        let mut chain = Building { steps: Vec::new(), inputs: Vec::new() };
        let mut sources = [Source::Number(0.0); 2];
        for (source, operand) in sources.iter_mut().zip(operands) {
            *source = match operand {
                Operand::Number(x) => Source::Number(x),
                Operand::Input(input) => self.inline(&mut chain, input, &shape),
            };
        }
        chain.steps.push(Step { function, a: sources[0], b: sources[1] });
        chain.recognise();
        if let ([Step { function, a: Source::Operand(0), b: Source::Number(b) }], [input]) =
            (&chain.steps[..], &chain.inputs[..])
        {
            // What was several nodes may be one that the operation before can take.
            let operands = [Operand::Input(input.clone()), Operand::Number(*b)];
            if self.attach(node, *function, &operands, out, &shape).is_some() {
                return Some(());
            }
        }
        self.make(node, Kind::Chain(chain.steps), chain.inputs, out);
        Some(())
    }

    /// Makes an operand part of a program, and the program that computes it if nothing else reads it.
    fn inline(&mut self, chain: &mut Building, input: Input, shape: &[usize]) -> Source {
        if let Input::Value(id) = input
            && self.shape(id).as_deref() == Some(shape)
            && let Some(Proto { kind: Kind::Chain(steps), .. }) = self.single(id)
            && steps.len() + chain.steps.len() < MOST_STEPS
            && let Some(Proto { kind: Kind::Chain(steps), inputs, .. }) = self.take(id)
        {
            let operands: Vec<usize> = inputs.into_iter().map(|input| self.place(chain, input)).collect();
            let first = chain.steps.len();
            let moved = |source| match source {
                Source::Step(i) => Source::Step(first + i),
                Source::Operand(i) => Source::Operand(operands[i]),
                number => number,
            };
            chain.steps.extend(steps.into_iter().map(|step| Step {
                a: moved(step.a),
                b: moved(step.b),
                ..step
            }));
            return Source::Step(chain.steps.len() - 1);
        }
        Source::Operand(self.place(chain, input))
    }

    fn place(&mut self, chain: &mut Building, input: Input) -> usize {
        if let Some(known) = chain.inputs.iter().position(|known| known.is(&input)) {
            // Read twice before, once now.
            if let Input::Value(id) = input {
                self.uses[id.0 as usize] -= 1;
            }
            return known;
        }
        chain.inputs.push(input);
        chain.inputs.len() - 1
    }

    /// Makes a function part of the operation before it.
    fn attach(
        &mut self,
        node: usize,
        function: Function,
        operands: &[Operand; 2],
        out: ValueId,
        shape: &[usize],
    ) -> Option<()> {
        match (function, operands) {
            (Function::Activation(activation), [Operand::Input(Input::Value(x)), _]) => {
                let bounds = matches!(activation, Activation::Clamp { .. });
                let tail = match &mut self.single_mut(*x)?.kind {
                    Kind::Convolve(convolve) if convolve.coded.is_none() || bounds => &mut convolve.tail,
                    Kind::Multiply(multiply) if multiply.coded.is_none() || bounds => &mut multiply.tail,
                    _ => return None,
                };
                if tail.activation != Activation::None {
                    return None;
                }
                tail.activation = activation;
                self.rename(*x, out, node);
                Some(())
            }
            (Function::Slope, [Operand::Input(Input::Value(x)), slope]) => {
                let slopes = self.per_output(*x, slope)?;
                let tail = self.tail_before_activation(*x)?;
                (tail.activation, tail.slopes) = (Activation::Slopes, slopes);
                self.rename(*x, out, node);
                Some(())
            }
            (Function::Add | Function::Sub | Function::Mul | Function::Div, [Operand::Input(a), b]) if !matches!(b, Operand::Input(Input::Value(id)) if !self.is_constant(*id)) => {
                self.scale_or_shift(node, function, a.value()?, b, out, shape)
            }
            (Function::Add | Function::Mul, [a, Operand::Input(b)]) if matches!(a, Operand::Input(Input::Value(id)) if self.is_constant(*id)) => {
                self.scale_or_shift(node, function, b.value()?, a, out, shape)
            }
            (Function::Add, [Operand::Input(Input::Value(a)), Operand::Input(Input::Value(b))]) => {
                self.residual(node, *a, *b, out, shape)
            }
            _ => None,
        }
    }

    /// The tail of the convolution or product that makes `id`, if an activation can follow.
    fn tail_before_activation(&mut self, id: ValueId) -> Option<&mut Tail> {
        let tail = self.tail(id)?;
        (tail.activation == Activation::None).then_some(tail)
    }

    /// The tail of the convolution or product of numbers that makes `id` for one reader.
    fn tail(&mut self, id: ValueId) -> Option<&mut Tail> {
        match &mut self.single_mut(id)?.kind {
            Kind::Convolve(convolve) if convolve.coded.is_none() => Some(&mut convolve.tail),
            Kind::Multiply(multiply) if multiply.coded.is_none() => Some(&mut multiply.tail),
            _ => None,
        }
    }

    /// The result of the operation that makes `from` is `to` from now on.
    pub(super) fn rename(&mut self, from: ValueId, to: ValueId, node: usize) {
        if let Some(at) = self.made.remove(&from)
            && let Some(proto) = &mut self.protos[at]
        {
            (proto.output, proto.node) = (to, node);
            self.made.insert(to, at);
        }
    }

    /// `operand` as one number for each output of the convolution or product that makes `id`.
    fn per_output(&self, id: ValueId, operand: &Operand) -> Option<Vec<f32>> {
        let shape = self.shape(id)?;
        let proto = self.single(id)?;
        let (axis, outputs) = match &proto.kind {
            Kind::Convolve(convolve) => (1, convolve.outputs),
            Kind::Multiply(multiply) => (shape.len() - 1, multiply.n),
            Kind::LayerNorm { weight, .. } => (shape.len() - 1, weight.len()),
            _ => return None,
        };
        let (numbers, own) = match operand {
            Operand::Number(x) => return Some(vec![*x; outputs]),
            Operand::Input(Input::Value(id)) => (self.numbers(*id, MOST_OUTPUTS)?, self.shape(*id)?),
            Operand::Input(Input::Constant(numbers, own)) => (numbers.to_vec(), own.clone()),
        };
        let from_end = shape.len() - axis;
        let fits = own.len() <= shape.len()
            && own.len() >= from_end
            && own.iter().enumerate().all(|(i, &n)| n == if own.len() - i == from_end { outputs } else { 1 });
        fits.then_some(numbers)
    }

    /// A factor or summand for each output.
    fn scale_or_shift(
        &mut self,
        node: usize,
        function: Function,
        x: ValueId,
        operand: &Operand,
        out: ValueId,
        shape: &[usize],
    ) -> Option<()> {
        if self.shape(x)? != shape {
            return None;
        }
        let mut numbers = self.per_output(x, operand)?;
        match function {
            Function::Sub => numbers.iter_mut().for_each(|x| *x = -*x),
            Function::Div => numbers.iter_mut().for_each(|x| *x = 1.0 / *x),
            _ => {}
        }
        let norm = matches!(self.single(x)?.kind, Kind::LayerNorm { .. });
        let (scale, bias) = match &mut self.single_mut(x)?.kind {
            Kind::LayerNorm { weight, bias, .. } if norm => (weight, bias),
            _ => {
                let tail = self.tail_before_activation(x)?;
                if tail.residual.is_some() {
                    return None;
                }
                (&mut tail.scale, &mut tail.bias)
            }
        };
        if matches!(function, Function::Add | Function::Sub) {
            add_to(bias, &numbers);
        } else {
            for of in [&mut *scale, bias] {
                of.iter_mut().zip(&numbers).for_each(|(x, factor)| *x *= factor);
            }
            if scale.is_empty() {
                *scale = numbers;
            }
        }
        self.rename(x, out, node);
        Some(())
    }

    /// A sum with another value, taken by whichever operation comes later.
    fn residual(&mut self, node: usize, a: ValueId, b: ValueId, out: ValueId, shape: &[usize]) -> Option<()> {
        if a == b || self.shape(a)? != shape || self.shape(b)? != shape {
            return None;
        }
        let mut able = |id: ValueId| self.tail(id).is_some_and(|tail| tail.residual.is_none());
        let (first, second) = (able(a), able(b));
        let host = match (first, second) {
            (true, true) if self.made.get(&a) > self.made.get(&b) => a,
            (_, true) => b,
            (true, false) => a,
            (false, false) => return None,
        };
        let other = if host == a { b } else { a };
        let tail = self.tail(host)?;
        tail.residual = Some(tail.activation != Activation::None);
        // Moved behind the operation that makes the other value; only this sum reads it.
        let mut proto = self.take(host)?;
        proto.inputs.push(Input::Value(other));
        (proto.output, proto.node) = (out, node);
        self.push(proto);
        Some(())
    }

    pub(super) fn batch_norm(
        &mut self,
        index: usize,
        node: &Node,
        norm: &crate::ops::BatchNorm,
    ) -> Option<()> {
        if norm.training {
            return None;
        }
        let x = self.operand(node, 0)?;
        let shape = self.shape(x)?;
        let channels = *shape.get(1)?;
        let mut given = Vec::new();
        for i in 1..5 {
            let numbers = self.numbers(self.operand(node, i)?, MOST_OUTPUTS)?;
            (numbers.len() == channels).then_some(())?;
            given.push(numbers);
        }
        let epsilon = f64::from(norm.epsilon);
        let factor = |c: usize| f64::from(given[0][c]) / (f64::from(given[3][c]) + epsilon).sqrt();
        let scale: Vec<f32> = (0..channels).map(|c| factor(c) as f32).collect();
        let shift: Vec<f32> = (0..channels)
            .map(|c| (f64::from(given[1][c]) - f64::from(given[2][c]) * factor(c)) as f32)
            .collect();
        let mut own = vec![1; shape.len()];
        own[1] = channels;
        own.remove(0);
        let constant = |numbers: Vec<f32>| Input::Constant(Arc::from(numbers), own.clone());
        let (scale, shift) = (constant(scale), constant(shift));
        let out = node.outputs[0];
        let (scale_operand, shift_operand) = (Operand::Input(scale.clone()), Operand::Input(shift.clone()));
        if self.scale_or_shift(index, Function::Mul, x, &scale_operand, out, &shape).is_some() {
            // The convolution's result is `out` now, read as often as the node's.
            let uses = std::mem::replace(&mut self.uses[out.0 as usize], 1);
            let shifted = self.scale_or_shift(index, Function::Add, out, &shift_operand, out, &shape);
            self.uses[out.0 as usize] = uses;
            return shifted;
        }
        let steps = vec![
            Step { function: Function::Mul, a: Source::Operand(0), b: Source::Operand(1) },
            Step { function: Function::Add, a: Source::Step(0), b: Source::Operand(2) },
        ];
        let inputs = vec![Input::Value(x), scale, shift];
        self.make(index, Kind::Chain(steps), inputs, out);
        Some(())
    }
}

/// `to + numbers`, where an empty `to` is zero.
pub(super) fn add_to(to: &mut Vec<f32>, numbers: &[f32]) {
    if to.is_empty() {
        to.extend_from_slice(numbers);
    } else {
        to.iter_mut().zip(numbers).for_each(|(to, x)| *to += x);
    }
}

/// A program under construction.
struct Building {
    steps: Vec<Step>,
    inputs: Vec<Input>,
}

impl Building {
    /// Replaces what exporters write for SiLU, GELU and hard swish by the function.
    fn recognise(&mut self) {
        let [_] = self.inputs[..] else { return };
        let Some(activation) = recognised(&self.steps) else { return };
        let function = Function::Activation(activation);
        self.steps = vec![Step { function, a: Source::Operand(0), b: Source::Number(0.0) }];
    }
}

/// The function that a program of one operand is, if it has a name.
fn recognised(steps: &[Step]) -> Option<Activation> {
    let x = Source::Operand(0);
    let near = |source: Source, number: f64| matches!(source, Source::Number(x) if (f64::from(x) - number).abs() < 1e-4 * number.abs());
    // A product, in whichever order its factors stand.
    let product = |step: &Step, a: &dyn Fn(Source) -> bool, b: &dyn Fn(Source) -> bool| {
        step.function == Function::Mul && (a(step.a) && b(step.b) || a(step.b) && b(step.a))
    };
    let is = |want: Source| move |source: Source| source == want;
    match steps {
        [sigmoid, times] => {
            let Function::Activation(inner) = sigmoid.function else { return None };
            if sigmoid.a != x || !product(times, &is(x), &is(Source::Step(0))) {
                return None;
            }
            match inner {
                Activation::Sigmoid => Some(Activation::Silu),
                Activation::HardSigmoid { alpha, beta }
                    if (alpha - 1.0 / 6.0).abs() < 1e-6 && beta == 0.5 =>
                {
                    Some(Activation::HardSwish)
                }
                _ => None,
            }
        }
        [add, clamp, rest @ ..] if rest.len() == 2 => {
            let relu6 = Function::Activation(Activation::Clamp { low: 0.0, high: 6.0 });
            if add.function == Function::Add && add.a == x && near(add.b, 3.0) && clamp.function == relu6 {
                let sixth = |step: &Step, of: Source| {
                    step.a == of
                        && (step.function == Function::Div && near(step.b, 6.0)
                            || step.function == Function::Mul && near(step.b, 1.0 / 6.0))
                };
                let early =
                    sixth(&rest[0], Source::Step(1)) && product(&rest[1], &is(x), &is(Source::Step(2)));
                let late =
                    product(&rest[0], &is(x), &is(Source::Step(1))) && sixth(&rest[1], Source::Step(2));
                return (early || late).then_some(Activation::HardSwish);
            }
            None
        }
        [first, second, third, fourth, fifth] => {
            let root = std::f64::consts::SQRT_2;
            // x / sqrt(2), erf, + 1; a half of x may be taken before or after.
            let scaled = |step: &Step| {
                step.a == x
                    && (step.function == Function::Div && near(step.b, root)
                        || step.function == Function::Mul && near(step.b, 1.0 / root))
            };
            let erf = |step: &Step, of: usize| step.function == Function::Erf && step.a == Source::Step(of);
            let plus_one = |step: &Step, of: usize| {
                step.function == Function::Add && step.a == Source::Step(of) && near(step.b, 1.0)
            };
            let half =
                |step: &Step, of: Source| step.function == Function::Mul && step.a == of && near(step.b, 0.5);
            let late = scaled(first)
                && erf(second, 0)
                && plus_one(third, 1)
                && (product(fourth, &is(x), &is(Source::Step(2))) && half(fifth, Source::Step(3))
                    || half(fourth, Source::Step(2)) && product(fifth, &is(x), &is(Source::Step(3))));
            let before = half(first, x)
                && scaled(second)
                && erf(third, 1)
                && plus_one(fourth, 2)
                && product(fifth, &is(Source::Step(0)), &is(Source::Step(3)));
            let between = scaled(first)
                && erf(second, 0)
                && plus_one(third, 1)
                && half(fourth, x)
                && product(fifth, &is(Source::Step(2)), &is(Source::Step(3)));
            (late || before || between).then_some(Activation::Gelu)
        }
        _ => None,
    }
}

impl Lower<'_> {
    /// A view of `x` with the shape of `out`.
    pub(super) fn view(&mut self, node: usize, x: ValueId, out: ValueId, change: Move) -> Option<()> {
        self.shape(x)?;
        if let Some(&code) = self.coded.get(&x) {
            self.coded.insert(out, code);
        }
        self.make(node, Kind::Move(change), vec![Input::Value(x)], out);
        Some(())
    }
}
