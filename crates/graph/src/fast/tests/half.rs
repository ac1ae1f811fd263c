//! Graphs in f16 and bf16, whose fast form computes in f32.

use super::Net;
use crate::backend::{WeightError, WeightSource};
use crate::cpu::Pool;
use crate::graph::{Dim, Op, ValueId, ValueInfo, WeightId, WeightInfo};
use crate::ops::{Binary, Cast, Convolution, Padding, Round, TensorOp, Unary};
use crate::plain::Datum;
use crate::tensor_program::{TensorOptions, TensorProgram};
use half::{bf16, f16};
use kun_tensor::{DType, Elements, Tensor};
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Weights as a file has them.
#[derive(Default)]
struct Stored(HashMap<String, (DType, Vec<usize>, Vec<u8>)>);

impl WeightSource for Stored {
    fn info(&self, name: &str) -> Option<(DType, Vec<usize>)> {
        self.0.get(name).map(|(dtype, shape, _)| (*dtype, shape.clone()))
    }

    fn rows(&self, name: &str, rows: Range<usize>) -> Result<Cow<'_, [u8]>, WeightError> {
        let (_, shape, bytes) =
            self.0.get(name).ok_or_else(|| WeightError::Missing { name: name.to_owned() })?;
        let count = if shape.len() < 2 { 1 } else { shape[0] };
        let row = bytes.len() / count;
        Ok(Cow::Borrowed(&bytes[rows.start * row..rows.end * row]))
    }

    fn release(&self, _: &str) {}
}

struct Halves {
    net: Net,
    dtype: DType,
    stored: Stored,
}

impl Halves {
    fn elements(&self, numbers: &[f32]) -> Elements {
        match self.dtype {
            DType::F16 => Elements::F16(numbers.iter().map(|x| f16::from_f32(*x)).collect()),
            _ => Elements::BF16(numbers.iter().map(|x| bf16::from_f32(*x)).collect()),
        }
    }

    fn input(&mut self, shape: &[usize]) -> ValueId {
        let id = self.net.input(shape);
        self.net.graph.values[id.0 as usize].dtype = self.dtype;
        let given = self.net.given.pop().unwrap();
        let elements = self.elements(given.tensor().unwrap().as_f32().unwrap());
        self.net.given.push(Datum::from(Tensor::new(shape, elements).unwrap()));
        id
    }

    /// A weight in a file.
    fn weight(&mut self, shape: &[usize]) -> ValueId {
        let numbers: Vec<f32> = self.net.numbers(shape.iter().product()).iter().map(|x| x / 3.0).collect();
        let bytes = match self.elements(&numbers) {
            Elements::F16(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Elements::BF16(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
            _ => unreachable!("made above"),
        };
        let weight = WeightId(self.net.graph.weights.len() as u32);
        let name = format!("w{}", weight.0);
        let info =
            WeightInfo { name: name.clone(), dtype: self.dtype, shape: shape.to_vec(), constant: None };
        self.stored.0.insert(name, (self.dtype, shape.to_vec(), bytes));
        self.net.graph.weights.push(info);
        let dims = shape.iter().map(|&n| Dim::Const(n)).collect();
        let id = self.net.value(ValueInfo::tensor(self.dtype, dims));
        self.net.node(Op::Weight(weight), Vec::new(), vec![id]);
        id
    }

    fn constant(&mut self, number: f32) -> ValueId {
        let tensor = Tensor::new(&[] as &[usize], self.elements(&[number])).unwrap();
        self.net.op(TensorOp::Constant(Arc::new(tensor)), &[])
    }

    /// Checks the fast form against the plain one; gives the kinds of its steps.
    fn check(self) -> Vec<&'static str> {
        let Halves { net, dtype, stored } = self;
        let stored = Arc::new(stored);
        let program = || {
            let weights: Arc<dyn WeightSource> = stored.clone();
            TensorProgram::new(net.graph.clone(), weights, TensorOptions::default()).unwrap()
        };
        let expected = program().run(net.given.clone()).unwrap();
        let mut fast = program().with_pool(Arc::new(Pool::new(2).unwrap()));
        fast.run(net.given.clone()).unwrap();
        fast.set_profile(true);
        let actual = fast.run(net.given.clone()).unwrap();
        for (index, (actual, expected)) in actual.iter().zip(&expected).enumerate() {
            let (actual, expected) = (actual.tensor().unwrap(), expected.tensor().unwrap());
            assert_eq!(
                (actual.shape(), actual.dtype()),
                (expected.shape(), expected.dtype()),
                "output {index}"
            );
            let numbers = |tensor: &Tensor| crate::plain::widened(tensor).unwrap().as_f32().unwrap().to_vec();
            let (actual, expected) = (numbers(actual), numbers(expected));
            let square = |x: f32| f64::from(x) * f64::from(x);
            let error: f64 = actual.iter().zip(&expected).map(|(a, b)| square(a - b)).sum();
            let norm: f64 = expected.iter().map(|b| square(*b)).sum();
            let bound = if dtype == DType::F16 { 2e-3 } else { 2e-2 };
            assert!((error / norm).sqrt() < bound, "output {index}: {}", (error / norm).sqrt());
        }
        fast.profile().iter().map(|step| step.kind).collect()
    }
}

#[test]
fn half_precision_is_computed_in_f32() {
    for dtype in [DType::F16, DType::BF16] {
        let mut halves = Halves { net: Net::default(), dtype, stored: Stored::default() };
        let x = halves.input(&[2, 8, 9, 9]);
        let (w, b) = (halves.weight(&[12, 8, 3, 3]), halves.weight(&[12]));
        let padding = Padding::Explicit(vec![1; 4]);
        let conv = Convolution { strides: vec![1; 2], dilations: Vec::new(), padding, groups: 1 };
        let net = &mut halves.net;
        let x = net.op(TensorOp::Conv(conv), &[x, w, b]);
        let x = net.unary(Unary::Relu, x);
        let x = net.op(TensorOp::Transpose(vec![0, 2, 3, 1]), &[x]);
        let w = halves.weight(&[12, 20]);
        let half = halves.constant(0.5);
        let net = &mut halves.net;
        let x = net.op(TensorOp::MatMul, &[x, w]);
        let x = net.binary(Binary::Mul, x, half);
        // To f32, as exporters do about a softmax, and back.
        let cast = |to| TensorOp::Cast(Cast { to, saturate: true, round: Round::Up });
        let x = net.op(cast(DType::F32), &[x]);
        let x = net.op(TensorOp::Softmax { axis: -1 }, &[x]);
        let x = net.op(cast(dtype), &[x]);
        // Rows of a table.
        let table = halves.weight(&[30, 20]);
        let net = &mut halves.net;
        let index = net.integers(&[7, 0, 29]);
        let rows = net.op(TensorOp::Gather { axis: 0 }, &[table, index]);
        let turned = net.op(TensorOp::Transpose(vec![1, 0]), &[rows]);
        let y = net.op(TensorOp::MatMul, &[x, turned]);
        net.output(y);
        net.output(x);
        let kinds = halves.check();
        let plain = kinds.iter().filter(|kind| **kind == "plain").count();
        // Casts of the input, of rows and of both outputs, and the look-up.
        assert!(plain <= 5 && kinds.contains(&"product"), "{kinds:?}");
    }
}

#[test]
fn operations_that_say_their_type_keep_it() {
    let mut halves = Halves { net: Net::default(), dtype: DType::F16, stored: Stored::default() };
    let x = halves.input(&[3, 16]);
    let w = halves.weight(&[16, 16]);
    let net = &mut halves.net;
    let x = net.op(TensorOp::MatMul, &[x, w]);
    let bits = net.op(TensorOp::BitCast(DType::I16), &[x]);
    let again = net.op(TensorOp::BitCast(DType::F16), &[bits]);
    let y = net.op(TensorOp::MatMul, &[again, w]);
    net.output(y);
    halves.check();
}
