use super::{Net, Nothing};
use crate::batch::is_separable;
use crate::cpu::Pool;
use crate::graph::ValueId;
use crate::ops::{Binary, PadMode, Reduce, ReduceKind, TensorOp};
use crate::plain::Datum;
use crate::specialize::fact_of;
use crate::tensor_program::{TensorOptions, TensorProgram};
use kun_tensor::Tensor;
use std::sync::Arc;

impl Net {
    pub(super) fn axes(&mut self, axes: &[i64]) -> ValueId {
        let tensor = Tensor::new([axes.len()], kun_tensor::Elements::I64(axes.to_vec())).unwrap();
        self.op(TensorOp::Constant(Arc::new(tensor)), &[])
    }

    fn separable(&self, items: usize) -> bool {
        let facts: Vec<_> = self.given.iter().map(fact_of).collect();
        let program = TensorProgram::new(self.graph.clone(), Arc::new(Nothing), TensorOptions::default());
        is_separable(&program.unwrap().specialized(&facts).unwrap(), &Nothing, items)
    }
}

fn bits(datum: &Datum) -> Vec<u32> {
    datum.tensor().unwrap().as_f32().unwrap().iter().map(|x| x.to_bits()).collect()
}

/// A convolution, a product with a token before it, attention-like products of items with themselves.
fn net(items: usize) -> Net {
    let mut net = Net::default();
    let x = net.input(&[items, 3, 48, 48]);
    let y = net.conv(x, [6, 3, 3], 1, 1);
    let shape = net.axes(&[0, 6, 2304]);
    let rows = net.op(TensorOp::Reshape { allow_zero: false }, &[y, shape]);
    let rows = net.op(TensorOp::Transpose(vec![0, 2, 1]), &[rows]);
    let (token, rest) = (net.weight(&[1, 1, 6]), net.axes(&[1, 6]));
    let count = net.op(TensorOp::Shape { start: 0, end: Some(1) }, &[x]);
    let shape = net.op(TensorOp::Concat { axis: 0 }, &[count, rest]);
    let token = net.op(TensorOp::Expand, &[token, shape]);
    let rows = net.op(TensorOp::Concat { axis: 1 }, &[token, rows]);
    let rows = net.norm(rows, 6);
    // Two halves of every row, side by side and apart again.
    let shape = net.axes(&[0, 2305, 2, 3]);
    let halves = net.op(TensorOp::Reshape { allow_zero: false }, &[rows, shape]);
    let halves = net.op(TensorOp::Transpose(vec![2, 0, 1, 3]), &[halves]);
    let slice = [net.axes(&[1]), net.axes(&[2]), net.axes(&[0]), net.axes(&[1])];
    let half = net.op(TensorOp::Slice, &[halves, slice[0], slice[1], slice[2], slice[3]]);
    let axis = net.axes(&[0]);
    let rows = net.op(TensorOp::Squeeze, &[half, axis]);
    let columns = net.op(TensorOp::Transpose(vec![0, 2, 1]), &[rows]);
    let products = net.op(TensorOp::MatMul, &[columns, rows]);
    let reduce = Reduce { kind: ReduceKind::Mean, keep_dims: false, none_if_empty: false };
    let axes = net.axes(&[1]);
    let mean = net.op(TensorOp::Reduce(reduce), &[products, axes]);
    net.output(products);
    net.output(mean);
    net
}

#[test]
fn batches_give_the_bits_of_their_items() {
    for items in [2, 3, 9] {
        let net = net(items);
        assert!(net.separable(items));
        let program =
            || TensorProgram::new(net.graph.clone(), Arc::new(Nothing), TensorOptions::default()).unwrap();
        let expected = program().run(net.given.clone()).unwrap();
        let x = net.given[0].tensor().unwrap();
        for threads in [1, 2] {
            let mut fast = program().with_pool(Arc::new(Pool::new(threads).unwrap()));
            for _ in 0..2 {
                let whole = fast.run(net.given.clone()).unwrap();
                for (whole, expected) in whole.iter().zip(&expected) {
                    assert_eq!(whole.tensor().unwrap().shape(), expected.tensor().unwrap().shape());
                }
                let each = x.elements().len() / items;
                for item in 0..items {
                    let part = x.as_f32().unwrap()[item * each..][..each].to_vec();
                    let part = Tensor::f32([1, 3, 48, 48], part).unwrap();
                    let alone = fast.run(vec![part.into()]).unwrap();
                    for (whole, alone) in whole.iter().zip(&alone) {
                        let alone = bits(alone);
                        assert_eq!(
                            bits(whole)[item * alone.len()..][..alone.len()],
                            alone,
                            "{item} of {items}"
                        );
                    }
                }
            }
        }
        net.check(usize::MAX);
    }
}

#[test]
fn items_that_take_part_in_each_other_stay_together() {
    type Make = fn(&mut Net, ValueId) -> ValueId;
    let apart: [(&str, Make, bool); 11] = [
        (
            "turned twice",
            |net, x| {
                let turned = net.op(TensorOp::Transpose(vec![1, 0]), &[x]);
                let turned = net.unary(crate::ops::Unary::Exp, turned);
                net.op(TensorOp::Transpose(vec![1, 0]), &[turned])
            },
            true,
        ),
        ("halves", |net, x| net.op(TensorOp::Softmax { axis: 1 }, &[x]), true),
        ("softmax over items", |net, x| net.op(TensorOp::Softmax { axis: 0 }, &[x]), false),
        ("turned", |net, x| net.op(TensorOp::Transpose(vec![1, 0]), &[x]), false),
        (
            "each with each",
            |net, x| {
                let columns = net.op(TensorOp::Transpose(vec![1, 0]), &[x]);
                net.op(TensorOp::MatMul, &[x, columns])
            },
            false,
        ),
        (
            "a mean of all",
            |net, x| {
                let axes = net.axes(&[0]);
                let reduce = Reduce { kind: ReduceKind::Mean, keep_dims: true, none_if_empty: false };
                let mean = net.op(TensorOp::Reduce(reduce), &[x, axes]);
                net.binary(Binary::Sub, x, mean)
            },
            false,
        ),
        (
            "a number for each item",
            |net, x| {
                let own = net.weight(&[4, 1]);
                net.binary(Binary::Add, x, own)
            },
            false,
        ),
        (
            "a number for each column",
            |net, x| {
                let own = net.weight(&[4]);
                net.binary(Binary::Add, x, own)
            },
            true,
        ),
        (
            "rows of a matrix",
            |net, x| {
                let w = net.weight(&[4, 5]);
                net.op(TensorOp::MatMul, &[x, w])
            },
            true,
        ),
        (
            "reshaped across items",
            |net, x| {
                let shape = net.axes(&[2, 8]);
                net.op(TensorOp::Reshape { allow_zero: false }, &[x, shape])
            },
            false,
        ),
        (
            "sliced across items",
            |net, x| {
                let slice = [net.axes(&[-1]), net.axes(&[-5]), net.axes(&[0]), net.axes(&[-1])];
                net.op(TensorOp::Slice, &[x, slice[0], slice[1], slice[2], slice[3]])
            },
            false,
        ),
    ];
    for (name, make, separable) in apart {
        let mut net = Net::default();
        let x = net.input(&[4, 4]);
        let y = make(&mut net, x);
        net.output(y);
        assert_eq!(net.separable(4), separable, "{name}");
        net.check(usize::MAX);
    }
}

#[test]
fn padding_of_other_dimensions_leaves_items_alone() {
    for (pads, axes, separable) in [
        (&[0i64, 0, 1, 1, 0, 0, 1, 1][..], None, true),
        (&[0, 0, 1, 1, 1, 0, 1, 1], None, false),
        (&[1, 1], Some(&[-1i64][..]), true),
        (&[0, 1], Some(&[0]), false),
    ] {
        let mut net = Net::default();
        let x = net.input(&[3, 2, 5, 5]);
        let mut operands = vec![x, net.integers(pads)];
        if let Some(axes) = axes {
            operands.extend([ValueId::ABSENT, net.axes(axes)]);
        }
        let y = net.op(TensorOp::Pad(PadMode::Constant), &operands);
        net.output(y);
        assert_eq!(net.separable(3), separable, "{pads:?} along {axes:?}");
    }
}
