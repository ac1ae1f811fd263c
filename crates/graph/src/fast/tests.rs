use crate::backend::{RunError, WeightError, WeightSource};
use crate::cpu::Pool;
use crate::graph::{Dim, Graph, Node, Op, Sym, ValueId, ValueInfo, WeightId, WeightInfo};
use crate::ops::{
    BatchNorm, Binary, Blocks, Convolution, Coordinates, Gemm, Interpolation, LayerNorm, NearestRounding,
    Padding, Pool as PoolOp, PoolKind, Reduce, ReduceKind, Resize, ResizeTarget, SoftmaxKind, TensorOp,
    TransposedConvolution, Unary,
};
use crate::plain::Datum;
use crate::specialize::fact_of;
use crate::tensor_program::{Errand, TensorOptions, TensorProgram};
use kun_tensor::{DType, Tensor};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, Mutex};

mod batch;
mod codes;
mod einsum;
mod half;
mod images;
mod recurrent;
mod reduce;
mod sample;

/// All weights are in the graph.
struct Nothing;

impl WeightSource for Nothing {
    fn info(&self, _: &str) -> Option<(DType, Vec<usize>)> {
        None
    }

    fn rows(&self, name: &str, _: Range<usize>) -> Result<Cow<'_, [u8]>, WeightError> {
        Err(WeightError::Missing { name: name.to_owned() })
    }

    fn release(&self, _: &str) {}
}

/// A graph under construction, with numbers that are always the same.
#[derive(Default)]
struct Net {
    graph: Graph,
    seed: u64,
    given: Vec<Datum>,
}

impl Net {
    fn numbers(&mut self, len: usize) -> Vec<f32> {
        self.seed += 1;
        let mut state = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..len).map(|_| next()).collect()
    }

    fn value(&mut self, info: ValueInfo) -> ValueId {
        self.graph.values.push(info);
        ValueId(self.graph.values.len() as u32 - 1)
    }

    fn input(&mut self, shape: &[usize]) -> ValueId {
        let mut info = ValueInfo::tensor(DType::F32, shape.iter().map(|_| Dim::Unknown).collect());
        info.shape[0] = Dim::Sym(Sym::Batch);
        info.name = Some(format!("x{}", self.graph.inputs.len()));
        let id = self.value(info);
        self.graph.inputs.push(id);
        let numbers = self.numbers(shape.iter().product());
        self.given.push(Datum::from(Tensor::f32(shape, numbers).unwrap()));
        id
    }

    fn named(&mut self, shape: &[usize], numbers: Vec<f32>) -> ValueId {
        let weight = WeightId(self.graph.weights.len() as u32);
        let name = format!("w{}", weight.0);
        let constant = Some(Arc::from(numbers));
        self.graph.weights.push(WeightInfo { name, dtype: DType::F32, shape: shape.to_vec(), constant });
        let shape = shape.iter().map(|&n| Dim::Const(n)).collect();
        let id = self.value(ValueInfo::tensor(DType::F32, shape));
        self.node(Op::Weight(weight), Vec::new(), vec![id]);
        id
    }

    fn weight(&mut self, shape: &[usize]) -> ValueId {
        let per_output: usize = shape[1..].iter().product();
        let scale = 1.0 / (per_output as f32).sqrt();
        let numbers = self.numbers(shape.iter().product()).into_iter().map(|x| x * scale).collect();
        self.named(shape, numbers)
    }

    fn positive(&mut self, len: usize) -> ValueId {
        let numbers = self.numbers(len).into_iter().map(|x| x.abs() + 0.5).collect();
        self.named(&[len], numbers)
    }

    fn number(&mut self, x: f32) -> ValueId {
        self.named(&[], vec![x])
    }

    fn integers(&mut self, values: &[i64]) -> ValueId {
        let tensor = Arc::new(Tensor::list(values.to_vec()));
        self.op(TensorOp::Constant(tensor), &[])
    }

    fn node(&mut self, op: Op, inputs: Vec<ValueId>, outputs: Vec<ValueId>) {
        let name = format!("node {}", self.graph.nodes.len());
        self.graph.nodes.push(Node { name, op, inputs, outputs });
    }

    fn ops(&mut self, op: TensorOp, inputs: &[ValueId], results: usize) -> Vec<ValueId> {
        let outputs: Vec<ValueId> = (0..results).map(|_| self.value(ValueInfo::any())).collect();
        self.node(Op::Tensor(op), inputs.to_vec(), outputs.clone());
        outputs
    }

    fn op(&mut self, op: TensorOp, inputs: &[ValueId]) -> ValueId {
        self.ops(op, inputs, 1)[0]
    }

    fn conv(
        &mut self,
        x: ValueId,
        [outputs, channels, kernel]: [usize; 3],
        stride: usize,
        groups: usize,
    ) -> ValueId {
        let (w, b) = (self.weight(&[outputs, channels / groups, kernel, kernel]), self.weight(&[outputs]));
        let padding = Padding::Explicit(vec![kernel / 2; 4]);
        let conv = Convolution { strides: vec![stride; 2], dilations: Vec::new(), padding, groups };
        self.op(TensorOp::Conv(conv), &[x, w, b])
    }

    fn unary(&mut self, unary: Unary, x: ValueId) -> ValueId {
        self.op(TensorOp::Unary(unary), &[x])
    }

    fn binary(&mut self, binary: Binary, a: ValueId, b: ValueId) -> ValueId {
        self.op(TensorOp::Binary(binary), &[a, b])
    }

    fn silu(&mut self, x: ValueId) -> ValueId {
        let s = self.unary(Unary::Sigmoid, x);
        self.binary(Binary::Mul, x, s)
    }

    fn linear(&mut self, x: ValueId, k: usize, n: usize) -> ValueId {
        let (w, b) = (self.weight(&[k, n]), self.weight(&[n]));
        let y = self.op(TensorOp::MatMul, &[x, w]);
        self.binary(Binary::Add, y, b)
    }

    fn norm(&mut self, x: ValueId, width: usize) -> ValueId {
        let (w, b) = (self.positive(width), self.weight(&[width]));
        self.op(TensorOp::LayerNorm(LayerNorm { axis: -1, epsilon: 1e-5 }), &[x, w, b])
    }

    fn gelu(&mut self, x: ValueId) -> ValueId {
        let (root, one, half) = (self.number(std::f32::consts::SQRT_2), self.number(1.0), self.number(0.5));
        let d = self.binary(Binary::Div, x, root);
        let e = self.unary(Unary::Erf, d);
        let a = self.binary(Binary::Add, e, one);
        let m = self.binary(Binary::Mul, x, a);
        self.binary(Binary::Mul, m, half)
    }

    fn output(&mut self, id: ValueId) {
        self.graph.values[id.0 as usize].name = Some(format!("y{}", self.graph.outputs.len()));
        self.graph.outputs.push(id);
    }

    /// Checks the fast form against the plain one, and that no more than `plain` nodes have no fast form.
    /// Returns the kinds of its steps.
    fn check(self, plain: usize) -> Vec<&'static str> {
        let program = |bf16| {
            let options = TensorOptions { bf16, ..TensorOptions::default() };
            TensorProgram::new(self.graph.clone(), Arc::new(Nothing), options).unwrap()
        };
        let expected = program(false).run(self.given.clone()).unwrap();
        let mut kinds = Vec::new();
        for (threads, bf16) in [(1, true), (3, true), (1, false), (3, false)] {
            let mut fast = program(bf16).with_pool(Arc::new(Pool::new(threads).unwrap()));
            fast.run(self.given.clone()).unwrap();
            fast.set_profile(true);
            // The second run finds what the first one left in the arena.
            let actual = fast.run(self.given.clone()).unwrap();
            let steps = fast.profile();
            kinds = steps.iter().map(|step| step.kind).collect();
            let left: Vec<_> = steps.iter().filter(|step| step.kind == "plain").collect();
            assert!(left.len() <= plain, "plain steps: {left:?}");
            for (index, (actual, expected)) in actual.iter().zip(&expected).enumerate() {
                let (actual, expected) = (actual.tensor().unwrap(), expected.tensor().unwrap());
                assert_eq!(actual.shape(), expected.shape(), "output {index}");
                let (actual, expected) = (actual.as_f32().unwrap(), expected.as_f32().unwrap());
                let square = |x: f64| x * x;
                let error: f64 =
                    actual.iter().zip(expected).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
                let norm: f64 = expected.iter().map(|b| square(f64::from(*b))).sum();
                let relative = (error / norm.max(1e-30)).sqrt();
                // A bf16 has eight bits.
                let bound = if bf16 { 2e-2 } else { 2e-5 };
                let how = format!("{threads} threads, bf16 {bf16}");
                assert!(relative < bound, "output {index}, {how}: {relative:e}; {steps:?}");
            }
            for each in self.run_side_by_side(&mut fast, 5) {
                for (index, (each, actual)) in each.unwrap().iter().zip(&actual).enumerate() {
                    let (each, actual) = (each.tensor().unwrap(), actual.tensor().unwrap());
                    let bits =
                        |t: &Tensor| t.as_f32().unwrap().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(each), bits(actual), "output {index}, {threads} threads side by side");
                }
            }
        }
        kinds
    }

    fn run_side_by_side(
        &self,
        program: &mut TensorProgram,
        count: usize,
    ) -> Vec<Result<Vec<Datum>, RunError>> {
        let (left, answers) = (Mutex::new(count), Mutex::new(Vec::new()));
        let next = || {
            let mut left = left.lock().unwrap();
            *left = left.checked_sub(1)?;
            let answer = |answer| answers.lock().unwrap().push(answer);
            Some(Errand { inputs: self.given.clone(), answer: Box::new(answer) })
        };
        program.run_each(self.given.iter().map(fact_of).collect(), usize::MAX, &next).unwrap();
        let answers = answers.into_inner().unwrap();
        assert_eq!(answers.len(), count);
        answers
    }
}

#[test]
fn runs_side_by_side_are_refused_before_they_begin() {
    let mut net = Net::default();
    let x = net.input(&[1, 3, 20, 20]);
    let y = net.conv(x, [4, 3, 3], 1, 1);
    net.output(y);
    let given = net.given.clone();
    let facts: Vec<_> = given.iter().map(fact_of).collect();
    let program =
        || TensorProgram::new(net.graph.clone(), Arc::new(Nothing), TensorOptions::default()).unwrap();
    let never = || unreachable!("nothing is taken");
    assert!(program().run_each(facts.clone(), usize::MAX, &never).is_err(), "without a pool");
    let mut program = program().with_pool(Arc::new(Pool::new(2).unwrap()));
    assert!(program.run_each(facts.clone(), 100, &never).is_err(), "without memory");
    assert!(program.run_each(Vec::new(), usize::MAX, &never).is_err(), "for no inputs");
    let (asked, answers) = (Mutex::new(0), Mutex::new(Vec::new()));
    let next = || {
        *asked.lock().unwrap() += 1;
        let inputs = match *asked.lock().unwrap() {
            1 => vec![Datum::from(Tensor::f32([1, 3, 20, 19], vec![0.0; 1140]).unwrap())],
            2 => given.clone(),
            _ => return None,
        };
        let answer = |answer: Result<_, _>| answers.lock().unwrap().push(answer.is_ok());
        Some(Errand { inputs, answer: Box::new(answer) })
    };
    program.run_each(facts, usize::MAX, &next).unwrap();
    let mut answers = answers.into_inner().unwrap();
    answers.sort_unstable();
    assert_eq!(answers, [false, true], "other shapes are answered with an error");
}

#[test]
fn residual_blocks() {
    for batch in [1, 3] {
        let mut net = Net::default();
        let x = net.input(&[batch, 3, 20, 22]);
        let y = net.conv(x, [32, 3, 7], 2, 1);
        let x = net.unary(Unary::Relu, y);
        let window = Convolution {
            strides: vec![2; 2],
            dilations: Vec::new(),
            padding: Padding::Explicit(vec![1; 4]),
            groups: 1,
        };
        let pool =
            PoolOp { kind: PoolKind::Max, kernel: vec![3, 3], window, ceil: false, column_major: false };
        let x = net.op(TensorOp::Pool(pool), &[x]);
        // Two blocks: with a convolution beside, and without.
        let y = net.conv(x, [16, 32, 1], 1, 1);
        let y = net.unary(Unary::Relu, y);
        let y = net.conv(y, [16, 16, 3], 1, 1);
        let given: Vec<ValueId> =
            vec![net.positive(16), net.weight(&[16]), net.weight(&[16]), net.positive(16)];
        let norm = BatchNorm { epsilon: 1e-5, momentum: 0.9, training: false };
        let y = net.op(TensorOp::BatchNorm(norm), &[&[y][..], &given].concat());
        let y = net.unary(Unary::Relu, y);
        let y = net.conv(y, [48, 16, 1], 1, 1);
        let x = net.conv(x, [48, 32, 1], 1, 1);
        let x = net.binary(Binary::Add, y, x);
        let x = net.unary(Unary::Relu, x);
        let y = net.conv(x, [48, 48, 3], 1, 1);
        let y = net.unary(Unary::LeakyRelu { alpha: 0.1 }, y);
        let x = net.binary(Binary::Add, x, y);
        let x = net.op(TensorOp::GlobalPool(PoolKind::Average { include_pad: false }), &[x]);
        let x = net.op(TensorOp::Flatten { axis: 1 }, &[x]);
        let (w, b) = (net.weight(&[10, 48]), net.weight(&[10]));
        let gemm = Gemm { alpha: 1.0, beta: 1.0, transpose_a: false, transpose_b: true };
        let x = net.op(TensorOp::Gemm(gemm), &[x, w, b]);
        net.output(x);
        net.check(0);
    }
}

#[test]
fn inverted_residuals_with_squeeze_and_excitation() {
    for batch in [1, 2] {
        let mut net = Net::default();
        let mut x = net.input(&[batch, 16, 13, 12]);
        for (kernel, stride) in [(3, 1), (5, 2)] {
            let y = net.conv(x, [40, 16, 1], 1, 1);
            let y = net.silu(y);
            let y = net.conv(y, [40, 40, kernel], stride, 40);
            let y = net.silu(y);
            let s = net.op(TensorOp::GlobalPool(PoolKind::Average { include_pad: false }), &[y]);
            let s = net.conv(s, [4, 40, 1], 1, 1);
            let s = net.silu(s);
            let s = net.conv(s, [40, 4, 1], 1, 1);
            let s = net.unary(Unary::Sigmoid, s);
            let y = net.binary(Binary::Mul, y, s);
            let y = net.conv(y, [16, 40, 1], 1, 1);
            x = if stride == 1 { net.binary(Binary::Add, y, x) } else { y };
        }
        let (zero, six) = (net.number(0.0), net.number(6.0));
        let x = net.conv(x, [20, 16, 3], 1, 4);
        let x = net.op(TensorOp::Clip, &[x, zero, six]);
        net.output(x);
        net.check(0);
    }
}

#[test]
fn what_a_depthwise_convolution_reads_and_what_reads_it_is_made_with_it() {
    for (batch, kernel, stride, expands, added) in
        [(1, 3, 1, true, true), (2, 5, 2, true, false), (2, 3, 1, false, true), (1, 5, 1, false, false)]
    {
        let mut net = Net::default();
        let x = net.input(&[batch, 3, 150, 90]);
        let x = net.conv(x, [24, 3, 3], 1, 1);
        let x = net.unary(Unary::Relu, x);
        let (mut y, mut width) = (x, 24);
        if expands {
            width = 80;
            y = net.conv(y, [width, 24, 1], 1, 1);
            y = net.silu(y);
        }
        y = net.conv(y, [width, width, kernel], stride, width);
        y = net.unary(Unary::Relu, y);
        y = net.conv(y, [24, width, 1], 1, 1);
        if added {
            y = net.binary(Binary::Add, y, x);
        }
        let (y, z) = (net.unary(Unary::Relu, y), net.unary(Unary::Tanh, y));
        net.output(y);
        net.output(z);
        let kinds = net.check(0);
        let wanted = if expands { "bottleneck" } else { "depthwise and project" };
        assert!(kinds.contains(&wanted), "{kinds:?}");
    }
}

#[test]
fn short_rows_are_divided_by_a_number_each() {
    for (rows, width) in [(7, 10), (300, 10), (40, 3), (5, 200)] {
        let mut net = Net::default();
        let x = net.input(&[2, 3, rows, width]);
        let axes = net.axes(&[-1]);
        let reduce = Reduce { kind: ReduceKind::L2, keep_dims: true, none_if_empty: false };
        let norm = net.op(TensorOp::Reduce(reduce), &[x, axes]);
        let y = net.binary(Binary::Div, x, norm);
        let turned = net.op(TensorOp::Transpose(vec![0, 2, 1, 3]), &[x]);
        let last = net.op(TensorOp::Transpose(vec![0, 2, 1, 3]), &[norm]);
        let both = net.binary(Binary::Mul, turned, last);
        let own = net.weight(&[width]);
        let both = net.binary(Binary::Add, both, own);
        net.output(y);
        net.output(both);
        net.check(usize::MAX);
    }
}

#[test]
fn large_expansions_are_made_row_by_row() {
    for (batch, kernel, stride) in [(1, 3, 2), (2, 5, 1), (2, 3, 1)] {
        let mut net = Net::default();
        let x = net.input(&[batch, 3, 200, 170]);
        let x = net.conv(x, [16, 3, 3], 2, 1);
        let y = net.conv(x, [80, 16, 1], 1, 1);
        let y = net.silu(y);
        let y = net.conv(y, [80, 80, kernel], stride, 80);
        let y = net.unary(Unary::Relu, y);
        let s = net.op(TensorOp::GlobalPool(PoolKind::Average { include_pad: false }), &[y]);
        let s = net.conv(s, [5, 80, 1], 1, 1);
        let s = net.conv(s, [80, 5, 1], 1, 1);
        let s = net.unary(Unary::Sigmoid, s);
        let y = net.binary(Binary::Mul, s, y);
        let y = net.conv(y, [24, 80, 1], 1, 1);
        net.output(y);
        let kinds = net.check(0);
        assert!(kinds.contains(&"expand and depthwise"), "{kinds:?}");
        assert!(!kinds.contains(&"elements"), "{kinds:?}");
    }
}

#[test]
fn splits_and_concatenations() {
    for batch in [1, 2] {
        let mut net = Net::default();
        let x = net.input(&[batch, 32, 10, 8]);
        let y = net.conv(x, [32, 32, 1], 1, 1);
        let y = net.silu(y);
        let parts = net.ops(TensorOp::Split { axis: 1 }, &[y], 2);
        let z = net.conv(parts[1], [16, 16, 3], 1, 1);
        let z = net.silu(z);
        let z = net.binary(Binary::Add, parts[1], z);
        let joined = net.op(TensorOp::Concat { axis: 1 }, &[parts[0], parts[1], z]);
        let p = net.conv(joined, [24, 48, 1], 1, 1);
        let (nothing, scales) = (ValueId::ABSENT, net.named(&[4], vec![1.0, 1.0, 2.0, 2.0]));
        for (interpolation, coordinates) in [
            (Interpolation::Nearest(NearestRounding::Floor), Coordinates::Asymmetric),
            (Interpolation::Linear, Coordinates::HalfPixel),
            (Interpolation::Cubic { a: -0.75 }, Coordinates::HalfPixel),
        ] {
            let resize = Resize {
                axes: Vec::new(),
                interpolation,
                coordinates,
                antialias: false,
                exclude_outside: false,
                extrapolation: 0.0,
                target: ResizeTarget::Stretch,
            };
            let up = net.op(TensorOp::Resize(resize), &[p, nothing, scales]);
            let other = net.input(&[batch, 5, 20, 16]);
            let both = net.op(TensorOp::Concat { axis: 1 }, &[up, other]);
            let out = net.conv(both, [7, 29, 1], 1, 1);
            net.output(out);
        }
        let shape = net.integers(&[0, 24, -1]);
        let flat = net.op(TensorOp::Reshape { allow_zero: false }, &[p, shape]);
        let long = net.op(TensorOp::Concat { axis: 2 }, &[flat, flat]);
        let long = net.unary(Unary::Sigmoid, long);
        net.output(long);
        net.output(joined);
        net.check(0);
    }
}

#[test]
fn transformer_blocks() {
    for (batch, masked) in [(1, false), (2, true)] {
        let (heads, dim) = (2, 16);
        let width = heads * dim;
        let mut net = Net::default();
        let image = net.input(&[batch, 3, 12, 12]);
        let w = net.weight(&[width, 3, 4, 4]);
        let patches =
            Convolution { strides: vec![4; 2], dilations: Vec::new(), padding: Padding::Valid, groups: 1 };
        let x = net.op(TensorOp::Conv(patches), &[image, w]);
        let shape = net.integers(&[0, width as i64, 9]);
        let x = net.op(TensorOp::Reshape { allow_zero: false }, &[x, shape]);
        let x = net.op(TensorOp::Transpose(vec![0, 2, 1]), &[x]);
        let place = net.weight(&[1, 9, width]);
        let x = net.binary(Binary::Add, x, place);
        let y = net.norm(x, width);
        let split = net.integers(&[batch as i64, 9, heads as i64, dim as i64]);
        let head = |net: &mut Net, axes: Vec<usize>| {
            let v = net.linear(y, width, width);
            let v = net.op(TensorOp::Reshape { allow_zero: false }, &[v, split]);
            net.op(TensorOp::Transpose(axes), &[v])
        };
        let q = head(&mut net, vec![0, 2, 1, 3]);
        let k = head(&mut net, vec![0, 2, 3, 1]);
        let v = head(&mut net, vec![0, 2, 1, 3]);
        let scores = net.op(TensorOp::MatMul, &[q, k]);
        let root = net.number(4.0);
        let mut scores = net.binary(Binary::Div, scores, root);
        if masked {
            let mask = net.input(&[batch, 1, 1, 9]);
            scores = net.binary(Binary::Add, scores, mask);
        }
        let weights = net.op(TensorOp::Softmax { axis: -1 }, &[scores]);
        let y = net.op(TensorOp::MatMul, &[weights, v]);
        let y = net.op(TensorOp::Transpose(vec![0, 2, 1, 3]), &[y]);
        let join = net.integers(&[batch as i64, 9, width as i64]);
        let y = net.op(TensorOp::Reshape { allow_zero: false }, &[y, join]);
        let y = net.linear(y, width, width);
        let x = net.binary(Binary::Add, x, y);
        let y = net.norm(x, width);
        let y = net.linear(y, width, 50);
        let y = net.gelu(y);
        let y = net.linear(y, 50, width);
        let x = net.binary(Binary::Add, x, y);
        let first = net.integers(&[0]);
        let token = net.op(TensorOp::Gather { axis: 1 }, &[x, first]);
        net.output(token);
        let square = net.op(TensorOp::Transpose(vec![0, 2, 1]), &[x]);
        let square = net.op(TensorOp::MatMul, &[x, square]);
        net.output(square);
        net.check(0);
    }
}

#[test]
fn pixels_out_of_channels() {
    let mut net = Net::default();
    let x = net.input(&[1, 3, 9, 7]);
    let y = net.conv(x, [16, 3, 3], 1, 1);
    let slopes = net.weight(&[16, 1, 1]);
    let y = net.binary(Binary::PRelu, y, slopes);
    let y = net.conv(y, [12, 16, 3], 1, 1);
    for columns_first in [false, true] {
        let y = net.op(TensorOp::DepthToSpace(Blocks { size: 2, columns_first }), &[y]);
        net.output(y);
        let back = net.op(TensorOp::SpaceToDepth(Blocks { size: 2, columns_first: false }), &[y]);
        let more = net.unary(Unary::Tanh, back);
        net.output(more);
    }
    net.check(0);
}

#[test]
fn softmax_over_any_dimension() {
    for axis in 0..4 {
        let mut net = Net::default();
        let x = net.input(&[2, 20, 4, 35]);
        let y = net.op(TensorOp::Transpose(vec![0, 2, 1, 3]), &[x]);
        let y = net.op(TensorOp::Softmax { axis: axis - 4 }, &[y]);
        let w = net.conv(y, [3, 4, 1], 1, 1);
        net.output(w);
        let y = net.op(TensorOp::Softmax { axis }, &[x]);
        net.output(y);
        net.check(0);
    }
}

#[test]
fn pixels_become_blocks() {
    for (rows, columns, bias) in [(2, 2, true), (3, 2, false)] {
        let mut net = Net::default();
        let x = net.input(&[2, 18, 5, 7]);
        let x = net.conv(x, [18, 18, 3], 1, 1);
        let mut operands = vec![x, net.weight(&[18, 20, rows, columns])];
        if bias {
            operands.push(net.weight(&[20]));
        }
        let padding = Padding::Explicit(vec![0; 4]);
        let convolution =
            Convolution { strides: vec![rows, columns], dilations: Vec::new(), padding, groups: 1 };
        let transposed =
            TransposedConvolution { convolution, output_padding: Vec::new(), output_shape: Vec::new() };
        let y = net.op(TensorOp::ConvTranspose(transposed), &operands);
        let y = net.unary(Unary::Relu, y);
        let z = net.conv(y, [4, 20, 1], 1, 1);
        net.output(y);
        net.output(z);
        net.check(0);
    }
}

#[test]
fn overlapping_windows_of_transposed_convolutions() {
    for (kernel, stride, pads, extra) in [
        ([4, 4], [2, 2], vec![1; 4], vec![]),
        ([3, 3], [2, 2], vec![1; 4], vec![1, 1]),
        ([3, 3], [1, 1], vec![1; 4], vec![]),
        ([5, 3], [3, 2], vec![0, 0, 1, 0], vec![]),
        ([9, 4], [4, 2], vec![4, 1, 4, 1], vec![3, 0]),
    ] {
        let mut net = Net::default();
        let x = net.input(&[2, 18, 5, 7]);
        let operands = [x, net.weight(&[18, 20, kernel[0], kernel[1]]), net.weight(&[20])];
        let padding = Padding::Explicit(pads);
        let convolution = Convolution { strides: stride.to_vec(), dilations: Vec::new(), padding, groups: 1 };
        let transposed =
            TransposedConvolution { convolution, output_padding: extra, output_shape: Vec::new() };
        let y = net.op(TensorOp::ConvTranspose(transposed), &operands);
        let z = net.conv(y, [4, 20, 1], 1, 1);
        net.output(y);
        net.output(z);
        net.check(0);
    }
}

#[test]
fn windows_may_reach_beyond_the_image() {
    for kind in [PoolKind::Max, PoolKind::Average { include_pad: false }] {
        for (kernel, stride, pad) in [(2, 2, 0), (3, 2, 1), (3, 3, 1)] {
            let mut net = Net::default();
            let x = net.input(&[2, 18, 5, 8]);
            let padding = Padding::Explicit(vec![pad; 4]);
            let window = Convolution { strides: vec![stride; 2], dilations: Vec::new(), padding, groups: 1 };
            let pool = PoolOp { kind, kernel: vec![kernel; 2], window, ceil: true, column_major: false };
            let y = net.op(TensorOp::Pool(pool), &[x]);
            net.output(y);
            net.check(0);
        }
    }
}

#[test]
fn flat_softmax_of_one_dimension() {
    let mut net = Net::default();
    let x = net.input(&[3, 40, 1, 1]);
    let y = net.op(TensorOp::SoftmaxFlat { axis: 1, kind: SoftmaxKind::Softmax }, &[x]);
    net.output(y);
    let x = net.input(&[3, 4, 19]);
    let y = net.op(TensorOp::SoftmaxFlat { axis: -1, kind: SoftmaxKind::Softmax }, &[x]);
    net.output(y);
    net.check(0);
}

#[test]
fn layer_norm_that_is_written_out() {
    for power in [true, false] {
        let mut net = Net::default();
        let x = net.input(&[2, 5, 24]);
        let reduce = Reduce { kind: ReduceKind::Mean, keep_dims: true, none_if_empty: false };
        let (axes, epsilon, two) = (net.integers(&[-1]), net.number(1e-5), net.number(2.0));
        let mean = net.op(TensorOp::Reduce(reduce), &[x, axes]);
        let centred = net.binary(Binary::Sub, x, mean);
        let square = match power {
            true => net.binary(Binary::Pow, centred, two),
            false => net.binary(Binary::Mul, centred, centred),
        };
        let variance = net.op(TensorOp::Reduce(reduce), &[square, axes]);
        let sum = net.binary(Binary::Add, variance, epsilon);
        let deviation = net.unary(Unary::Sqrt, sum);
        let y = net.binary(Binary::Div, centred, deviation);
        let (w, b) = (net.positive(24), net.weight(&[24]));
        let y = net.binary(Binary::Mul, y, w);
        let y = net.binary(Binary::Add, y, b);
        let z = net.linear(y, 24, 24);
        let z = net.binary(Binary::Add, x, z);
        net.output(z);
        assert_eq!(net.check(0), ["layer norm", "product"]);
    }
}

#[test]
fn nodes_without_a_fast_form_stand_between_fast_ones() {
    let mut net = Net::default();
    let x = net.input(&[2, 4, 6, 6]);
    let y = net.conv(x, [4, 4, 3], 1, 1);
    let y = net.unary(Unary::Sinh, y);
    let z = net.conv(y, [4, 4, 3], 1, 1);
    let index = net.integers(&[2, 0]);
    let picked = net.op(TensorOp::Gather { axis: 1 }, &[z, index]);
    let sum = net.op(TensorOp::Softmax { axis: 1 }, &[picked]);
    let half = net.number(0.5);
    let sum = net.binary(Binary::Sub, half, sum);
    net.output(sum);
    net.output(z);
    net.output(y);
    net.check(4);
}
