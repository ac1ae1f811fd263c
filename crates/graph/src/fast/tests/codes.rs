//! Quantised graphs: codes between steps, against the plain form.

use super::{Net, Nothing};
use crate::cpu::Pool;
use crate::graph::{Dim, Op, ValueId, ValueInfo};
use crate::ops::{
    Binary, Cast, Convolution, Gemm, Padding, Pool as PoolOp, PoolKind, Quantize, Round, TensorOp, Unary,
};
use crate::tensor_program::{TensorOptions, TensorProgram};
use kun_tensor::{DType, Elements, Tensor};
use std::sync::Arc;

const QUANTIZE: Quantize = Quantize { axis: 1, block: 0, dtype: None, saturate: true };

impl Net {
    fn constant(&mut self, shape: &[usize], elements: Elements) -> ValueId {
        let tensor = Arc::new(Tensor::new(shape, elements).unwrap());
        self.op(TensorOp::Constant(tensor), &[])
    }

    fn zero(&mut self, zero: i16, dtype: DType) -> ValueId {
        let elements = match dtype {
            DType::I8 => Elements::I8(vec![zero as i8]),
            _ => Elements::U8(vec![zero as u8]),
        };
        self.constant(&[], elements)
    }

    /// To codes and back.
    fn rounded(&mut self, x: ValueId, scale: f32, zero: i16, dtype: DType) -> ValueId {
        let (scale, zero) = (self.number(scale), self.zero(zero, dtype));
        let q = self.op(TensorOp::QuantizeLinear(QUANTIZE), &[x, scale, zero]);
        self.op(TensorOp::DequantizeLinear(QUANTIZE), &[q, scale, zero])
    }

    fn codes(&mut self, len: usize) -> Vec<i8> {
        self.numbers(len).into_iter().map(|x| (x * 127.0) as i8).collect()
    }

    /// i8 weights with a scale for each output along `axis`, as numbers.
    fn narrow(&mut self, shape: &[usize], axis: usize, scaled: bool) -> ValueId {
        let codes = self.codes(shape.iter().product());
        let depth: usize = shape.iter().product::<usize>() / shape[axis];
        let unit = 1.0 / (60.0 * (depth as f32).sqrt());
        let outputs = if scaled { shape[axis] } else { 1 };
        let scales: Vec<f32> = self.numbers(outputs).into_iter().map(|x| (x.abs() + 0.5) * unit).collect();
        let codes = self.constant(shape, Elements::I8(codes));
        let scale = if scaled { self.named(&[outputs], scales) } else { self.number(unit) };
        let quantize = Quantize { axis: axis as i64, ..QUANTIZE };
        self.op(TensorOp::DequantizeLinear(quantize), &[codes, scale])
    }

    fn narrow_conv(
        &mut self,
        x: ValueId,
        [outputs, channels, kernel]: [usize; 3],
        stride: usize,
        groups: usize,
    ) -> ValueId {
        let w = self.narrow(&[outputs, channels / groups, kernel, kernel], 0, true);
        let b = self.weight(&[outputs]);
        let padding = Padding::Explicit(vec![kernel / 2; 4]);
        let conv = Convolution { strides: vec![stride; 2], dilations: Vec::new(), padding, groups };
        self.op(TensorOp::Conv(conv), &[x, w, b])
    }

    /// Checks the fast form against the plain one: all results within `most` units of `scale` but for one in a thousand.
    /// Gives the kinds of steps.
    fn check_codes(self, scale: f32, most: f32) -> Vec<&'static str> {
        let program =
            || TensorProgram::new(self.graph.clone(), Arc::new(Nothing), TensorOptions::default()).unwrap();
        let expected = program().run(self.given.clone()).unwrap();
        let mut kinds = Vec::new();
        for threads in [1, 3] {
            let mut fast = program().with_pool(Arc::new(Pool::new(threads).unwrap()));
            fast.run(self.given.clone()).unwrap();
            fast.set_profile(true);
            // The second run finds what the first one left in the arena.
            let actual = fast.run(self.given.clone()).unwrap();
            let steps = fast.profile();
            kinds = steps.iter().map(|step| step.kind).collect();
            for (index, (actual, expected)) in actual.iter().zip(&expected).enumerate() {
                let (actual, expected) = (actual.tensor().unwrap(), expected.tensor().unwrap());
                assert_eq!(actual.shape(), expected.shape(), "output {index}");
                let values = |tensor: &Tensor| match tensor.elements() {
                    Elements::F32(x) => x.clone(),
                    other => other.to_i64().unwrap().into_iter().map(|x| x as f32 * scale).collect(),
                };
                let (actual, expected) = (values(actual), values(expected));
                let far = |(a, b): &(&f32, &f32)| (**a - **b).abs() > most * scale * 1.001;
                let wrong = actual.iter().zip(&expected).filter(far).count();
                assert!(
                    wrong * 1000 <= actual.len(),
                    "output {index}: {wrong} of {}; {steps:?}",
                    actual.len()
                );
            }
        }
        kinds
    }
}

#[test]
fn convolutions_keep_codes_between_each_other() {
    for (dtype, zero, channels) in [(DType::U8, 120, 24), (DType::I8, -5, 32), (DType::U8, 130, 18)] {
        let mut net = Net::default();
        let x = net.input(&[2, 3, 23, 20]);
        let x = net.rounded(x, 1.0 / 120.0, zero, dtype);
        let x = net.narrow_conv(x, [channels, 3, 7], 2, 1);
        let x = net.unary(Unary::Relu, x);
        let x = net.rounded(x, 1.0 / 60.0, if dtype == DType::U8 { 0 } else { -128 }, dtype);
        let padding = Padding::Explicit(vec![1; 4]);
        let window = Convolution { strides: vec![2; 2], dilations: Vec::new(), padding, groups: 1 };
        let (kind, kernel) = (PoolKind::Max, vec![3, 3]);
        let pool = PoolOp { kind, kernel, window, ceil: false, column_major: false };
        let x = net.op(TensorOp::Pool(pool), &[x]);
        let x = net.rounded(x, 1.0 / 60.0, if dtype == DType::U8 { 0 } else { -128 }, dtype);
        // A block with a sum.
        let y = net.narrow_conv(x, [40, channels, 1], 1, 1);
        let y = net.rounded(y, 1.0 / 40.0, zero, dtype);
        let y = net.narrow_conv(y, [channels, 40, 3], 1, 1);
        let y = net.rounded(y, 1.0 / 30.0, zero, dtype);
        let y = net.binary(Binary::Add, y, x);
        let y = net.unary(Unary::Relu, y);
        let y = net.rounded(y, 1.0 / 40.0, if dtype == DType::U8 { 0 } else { -128 }, dtype);
        net.output(y);
        let kinds = net.check_codes(1.0 / 40.0, 1.0);
        assert_eq!(
            kinds,
            [
                "elements",
                "convolution of codes",
                "pool of codes",
                "convolution of codes",
                "convolution of codes",
                "elements",
                "copy"
            ],
        );
    }
}

#[test]
fn functions_of_codes_are_tables() {
    let mut net = Net::default();
    let x = net.input(&[1, 16, 9, 11]);
    let x = net.rounded(x, 1.0 / 100.0, 128, DType::U8);
    let y = net.narrow_conv(x, [20, 16, 3], 1, 1);
    let y = net.rounded(y, 1.0 / 50.0, 128, DType::U8);
    // SiLU as quantisers leave it.
    let s = net.unary(Unary::Sigmoid, y);
    let s = net.rounded(s, 1.0 / 255.0, 0, DType::U8);
    let y = net.binary(Binary::Mul, y, s);
    let y = net.rounded(y, 1.0 / 70.0, 20, DType::U8);
    // Two readers, one of them in other codes.
    let z = net.rounded(y, 1.0 / 90.0, 20, DType::U8);
    let z = net.narrow_conv(z, [32, 20, 1], 1, 1);
    let z = net.rounded(z, 1.0 / 60.0, 120, DType::U8);
    let joined = net.op(TensorOp::Concat { axis: 1 }, &[y, z]);
    let joined = net.rounded(joined, 1.0 / 60.0, 120, DType::U8);
    let out = net.narrow_conv(joined, [12, 52, 1], 1, 1);
    net.output(out);
    let kinds = net.check_codes(1.0 / 60.0, 2.0);
    let expected = [
        "elements",
        "convolution of codes",
        "table",
        "convolution of codes",
        "table",
        "convolution of codes",
        "copy",
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn single_channels_and_other_groups() {
    let mut net = Net::default();
    let x = net.input(&[1, 40, 9, 11]);
    let x = net.rounded(x, 1.0 / 100.0, 128, DType::U8);
    let y = net.narrow_conv(x, [40, 40, 3], 1, 40);
    let (low, high) = (net.number(0.0), net.number(1.5));
    let y = net.op(TensorOp::Clip, &[y, low, high]);
    let y = net.rounded(y, 1.0 / 100.0, 3, DType::U8);
    // Groups have no form of codes: numbers, but still no plain step.
    let z = net.narrow_conv(y, [20, 40, 3], 2, 4);
    let z = net.rounded(z, 1.0 / 50.0, 128, DType::U8);
    net.output(z);
    // Numbers of single channels that nothing quantises.
    let w = net.narrow_conv(y, [40, 40, 5], 1, 40);
    net.output(w);
    let kinds = net.check_codes(1.0 / 50.0, 1.0);
    assert!(kinds.contains(&"depthwise of codes") && !kinds.contains(&"plain"), "{kinds:?}");
}

#[test]
fn products_of_codes() {
    for rows in [1, 7] {
        let mut net = Net::default();
        let x = net.input(&[2, rows, 50]);
        let x = net.rounded(x, 1.0 / 100.0, 128, DType::U8);
        let w = net.narrow(&[50, 70], 1, true);
        let y = net.op(TensorOp::MatMul, &[x, w]);
        let y = net.rounded(y, 1.0 / 60.0, 110, DType::U8);
        let bias = net.weight(&[70]);
        let y = net.binary(Binary::Add, y, bias);
        let y = net.rounded(y, 1.0 / 50.0, 110, DType::U8);
        let w = net.narrow(&[70, 33], 1, false);
        let y = net.op(TensorOp::MatMul, &[y, w]);
        net.output(y);
        let kinds = net.check_codes(1.0 / 50.0, 1.0);
        assert_eq!(kinds.iter().filter(|kind| **kind == "product of codes").count(), 2, "{kinds:?}");
        assert!(!kinds.contains(&"plain"));
    }
    let mut net = Net::default();
    let x = net.input(&[5, 50]);
    let x = net.rounded(x, 1.0 / 100.0, 128, DType::U8);
    let (w, b) = (net.narrow(&[20, 50], 0, true), net.weight(&[20]));
    let gemm = Gemm { alpha: 1.0, beta: 1.0, transpose_a: false, transpose_b: true };
    let y = net.op(TensorOp::Gemm(gemm), &[x, w, b]);
    let y = net.rounded(y, 1.0 / 50.0, 128, DType::U8);
    net.output(y);
    assert!(net.check_codes(1.0 / 50.0, 1.0).contains(&"product of codes"));
}

#[test]
fn operators_of_codes() {
    let mut net = Net::default();
    let x = net.input(&[1, 16, 9, 11]);
    let (sx, zx) = (net.number(0.01), net.zero(128, DType::U8));
    let q = net.op(TensorOp::QuantizeLinear(QUANTIZE), &[x, sx, zx]);
    let codes = net.codes(20 * 16 * 9);
    let w = net.constant(&[20, 16, 3, 3], Elements::I8(codes));
    let (sw, zw) = (net.number(0.002), net.zero(0, DType::I8));
    let (sy, zy) = (net.number(0.02), net.zero(100, DType::U8));
    let bias = net.constant(&[20], Elements::I32((0..20).map(|i| i * 300 - 2000).collect()));
    let padding = Padding::Explicit(vec![1; 4]);
    let conv = Convolution { strides: vec![1; 2], dilations: Vec::new(), padding, groups: 1 };
    let q = net.op(TensorOp::QLinearConv(conv), &[q, sx, zx, w, sw, zw, sy, zy, bias]);
    let y = net.op(TensorOp::DequantizeLinear(QUANTIZE), &[q, sy, zy]);
    net.output(y);
    // Codes that a node without a fast form reads, and codes that leave the graph.
    let turned = net.op(TensorOp::Transpose(vec![0, 2, 3, 1]), &[q]);
    net.output(turned);
    let codes = net.codes(20 * 30);
    let w = net.constant(&[20, 30], Elements::I8(codes));
    let rows = net.op(TensorOp::Transpose(vec![0, 2, 3, 1]), &[y]);
    let rows = net.op(TensorOp::QuantizeLinear(QUANTIZE), &[rows, sy, zy]);
    let z = net.op(TensorOp::QLinearMatMul, &[rows, sy, zy, w, sw, zw, sy, zy]);
    let z = net.op(TensorOp::DequantizeLinear(QUANTIZE), &[z, sy, zy]);
    net.output(z);
    let kinds = net.check_codes(0.02, 1.0);
    assert!(kinds.contains(&"product of codes") && kinds.contains(&"convolution of codes"), "{kinds:?}");
}

#[test]
fn weights_of_codes_alone_are_packed_as_numbers() {
    let mut net = Net::default();
    let x = net.input(&[1, 16, 9, 11]);
    let y = net.narrow_conv(x, [20, 16, 3], 1, 1);
    net.output(y);
    net.check(0);
}

#[test]
fn products_of_two_computed_values() {
    for (dtype, zeros) in
        [(DType::U8, [120, 131, 127]), (DType::U8, [128, 128, 128]), (DType::I8, [3, -7, 0])]
    {
        let mut net = Net::default();
        let code = |net: &mut Net, shape: &[usize], zero: i16| {
            let x = net.input(shape);
            net.rounded(x, 1.0 / 90.0, zero, dtype)
        };
        let q = code(&mut net, &[2, 3, 11, 18], zeros[0]);
        let k = code(&mut net, &[2, 3, 7, 18], zeros[1]);
        let v = code(&mut net, &[2, 3, 7, 18], zeros[2]);
        let k = net.op(TensorOp::Transpose(vec![0, 1, 3, 2]), &[k]);
        let scores = net.op(TensorOp::MatMul, &[q, k]);
        let scores = net.rounded(scores, 1.0 / 20.0, zeros[1], dtype);
        let weights = net.op(TensorOp::Softmax { axis: -1 }, &[scores]);
        let weights = net.rounded(weights, 1.0 / 255.0, if dtype == DType::U8 { 0 } else { -128 }, dtype);
        let y = net.op(TensorOp::MatMul, &[weights, v]);
        net.output(y);
        let y = net.rounded(y, 1.0 / 80.0, zeros[0], dtype);
        net.output(y);
        // One row, in a matrix that all share.
        let row = code(&mut net, &[2, 3, 1, 18], zeros[1]);
        let all = code(&mut net, &[18, 5], zeros[2]);
        let z = net.op(TensorOp::MatMul, &[row, all]);
        net.output(z);
        let kinds = net.check_codes(1.0 / 80.0, 1.0);
        let count = |what: &str| kinds.iter().filter(|kind| **kind == what).count();
        assert_eq!((count("matmul of codes"), count("matmul"), count("plain")), (3, 0, 0), "{kinds:?}");
    }
}

/// A value whose codes are made as it comes.
struct Dynamic {
    codes: ValueId,
    scale: ValueId,
    zero: ValueId,
}

impl Net {
    fn quantized(&mut self, x: ValueId) -> Dynamic {
        let value = |net: &mut Net, dtype| net.value(ValueInfo::tensor(dtype, vec![Dim::Unknown]));
        let [codes, scale, zero] = [DType::U8, DType::F32, DType::U8].map(|dtype| value(self, dtype));
        self.node(Op::Tensor(TensorOp::DynamicQuantizeLinear), vec![x], vec![codes, scale, zero]);
        Dynamic { codes, scale, zero }
    }

    /// The result of `op` for codes and weights as numbers, with a bias of shape `bias` if there is one.
    fn rescaled(
        &mut self,
        op: TensorOp,
        x: &Dynamic,
        weight: Elements,
        shape: &[usize],
        zero: Option<Elements>,
        scales: &[usize],
        bias: Option<&[usize]>,
    ) -> ValueId {
        let weight = self.constant(shape, weight);
        let mut operands = vec![x.codes, weight, x.zero];
        if let Some(zero) = zero {
            operands.push(self.constant(&[], zero));
        }
        let product = self.op(op, &operands);
        let cast = Cast { to: DType::F32, saturate: true, round: Round::Up };
        let product = self.op(TensorOp::Cast(cast), &[product]);
        let numbers = self.numbers(scales.iter().product()).into_iter().map(|x| (x.abs() + 0.5) / 100.0);
        let numbers = numbers.collect();
        let scale = self.named(scales, numbers);
        let scale = self.op(TensorOp::Binary(Binary::Mul), &[x.scale, scale]);
        let y = self.op(TensorOp::Binary(Binary::Mul), &[product, scale]);
        let Some(bias) = bias else { return y };
        let bias = self.weight(bias);
        self.op(TensorOp::Binary(Binary::Add), &[y, bias])
    }
}

#[test]
fn products_of_values_quantised_as_they_come() {
    let codes = |net: &mut Net, len: usize| net.codes(len);
    let unsigned =
        |codes: Vec<i8>| Elements::U8(codes.into_iter().map(|x| x.cast_unsigned() ^ 0x80).collect());
    for case in 0..4 {
        let mut net = Net::default();
        let x = net.input(&[2, 7, 18]);
        // Not symmetric about 0.
        let shift = net.number(if case == 3 { -3.0 } else { 0.4 });
        let x = net.op(TensorOp::Binary(Binary::Add), &[x, shift]);
        let q = net.quantized(x);
        let w = codes(&mut net, 18 * 20);
        let (w, zero) = match case {
            0 => (Elements::I8(w), None),
            1 => (Elements::I8(w), Some(Elements::I8(vec![-7]))),
            2 => (unsigned(w), Some(Elements::U8(vec![117]))),
            _ => (unsigned(w), None),
        };
        let (scales, bias): (&[usize], Option<&[usize]>) =
            if case % 2 == 0 { (&[20], Some(&[20])) } else { (&[], None) };
        let y = net.rescaled(TensorOp::MatMulInteger, &q, w, &[18, 20], zero, scales, bias);
        net.output(y);
        // The same codes once more, and an activation behind.
        let w = codes(&mut net, 18 * 5);
        let z = net.rescaled(TensorOp::MatMulInteger, &q, Elements::I8(w), &[18, 5], None, &[5], Some(&[1]));
        let z = net.unary(Unary::Relu, z);
        net.output(z);
        // One that has nothing but zeros.
        let nothing = net.number(0.0);
        let none = net.op(TensorOp::Binary(Binary::Mul), &[x, nothing]);
        let q = net.quantized(none);
        let w = codes(&mut net, 18 * 3);
        let none =
            net.rescaled(TensorOp::MatMulInteger, &q, Elements::I8(w), &[18, 3], None, &[], Some(&[3]));
        net.output(none);
        let kinds = net.check_codes(1e-4, 1.0);
        let count = |what: &str| kinds.iter().filter(|kind| **kind == what).count();
        assert_eq!((count("to codes"), count("product of codes"), count("plain")), (2, 3, 0), "{kinds:?}");
    }
}

#[test]
fn convolutions_of_values_quantised_as_they_come() {
    // Outputs, channels, kernel, groups, zero of u8 weights.
    for (outputs, channels, kernel, groups, zero) in [
        (20, 16, 3, 1, None),
        (20, 3, 5, 1, None),
        (20, 16, 1, 1, Some(99)),
        (16, 16, 3, 16, None),
        (12, 8, 3, 2, Some(131)),
    ] {
        let mut net = Net::default();
        let x = net.input(&[2, channels, 9, 11]);
        let q = net.quantized(x);
        let shape = [outputs, channels / groups, kernel, kernel];
        let codes = net.codes(shape.iter().product());
        let (weight, zero) = match zero {
            None => (Elements::I8(codes), None),
            Some(zero) => {
                let codes = codes.into_iter().map(|x| x.cast_unsigned() ^ 0x80).collect();
                (Elements::U8(codes), Some(Elements::U8(vec![zero])))
            }
        };
        let padding = Padding::Explicit(vec![kernel / 2; 4]);
        let conv = Convolution { strides: vec![2; 2], dilations: Vec::new(), padding, groups };
        let op = TensorOp::ConvInteger(conv);
        let y = net.rescaled(op, &q, weight, &shape, zero, &[1], Some(&[1, outputs, 1, 1]));
        net.output(y);
        let kinds = net.check_codes(1e-4, 2.0);
        assert!(kinds.contains(&"to codes") && !kinds.contains(&"plain"), "{kinds:?}");
    }
}

#[test]
fn codes_that_others_read_stay_as_they_are() {
    let mut net = Net::default();
    let x = net.input(&[4, 18]);
    let q = net.quantized(x);
    let w = net.codes(18 * 20);
    let y = net.rescaled(TensorOp::MatMulInteger, &q, Elements::I8(w), &[18, 20], None, &[20], Some(&[20]));
    net.output(y);
    net.output(q.scale);
    let kinds = net.check_codes(1e-4, 1.0);
    assert!(kinds.contains(&"plain") && !kinds.contains(&"to codes"), "{kinds:?}");
}
