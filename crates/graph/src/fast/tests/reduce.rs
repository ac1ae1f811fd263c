//! Reductions, logarithms of softmax, and functions made of others.

use super::Net;
use crate::graph::ValueId;
use crate::ops::{Binary, Reduce, ReduceKind, TensorOp, Unary};

impl Net {
    fn reduce(&mut self, kind: ReduceKind, x: ValueId, axes: &[i64], keep_dims: bool) -> ValueId {
        let axes = self.integers(axes);
        self.op(TensorOp::Reduce(Reduce { kind, keep_dims, none_if_empty: false }), &[x, axes])
    }
}

#[test]
fn any_dimensions_are_reduced_however_they_lie() {
    let kinds = [
        ReduceKind::L1,
        ReduceKind::L2,
        ReduceKind::Max,
        ReduceKind::Mean,
        ReduceKind::Min,
        ReduceKind::Sum,
        ReduceKind::SumSquare,
    ];
    for kind in kinds {
        let mut net = Net::default();
        let x = net.input(&[2, 5, 7, 19]);
        // As it came, and with the channels of a pixel together.
        let image = net.conv(x, [33, 5, 3], 1, 1);
        for from in [x, image] {
            for axes in [&[1][..], &[2, 3], &[-1], &[0, 2], &[1, 2, 3], &[0, 1, 2, 3], &[2]] {
                let keep = axes.len() % 2 == 0;
                let y = net.reduce(kind, from, axes, keep);
                net.output(y);
            }
        }
        net.check(0);
    }
    let mut net = Net::default();
    let x = net.input(&[3, 40, 70]);
    let two = net.number(2.0);
    let x = net.binary(Binary::Add, x, two);
    let y = net.reduce(ReduceKind::LogSum, x, &[1], true);
    net.output(y);
    net.check(0);
}

#[test]
fn logarithms_of_softmax_over_any_dimension() {
    let mut net = Net::default();
    let x = net.input(&[2, 30, 21]);
    for axis in [-1, 1] {
        let y = net.op(TensorOp::LogSoftmax { axis }, &[x]);
        net.output(y);
    }
    net.check(0);
}

#[test]
fn functions_of_several_steps() {
    let functions = [
        Unary::Elu { alpha: 1.5 },
        Unary::Celu { alpha: 0.7 },
        Unary::Selu { alpha: 1.67326, gamma: 1.0507 },
        Unary::Softsign,
        Unary::Mish,
        Unary::Swish { alpha: 1.702 },
    ];
    let mut net = Net::default();
    let x = net.input(&[3, 70]);
    let wide = net.number(30.0);
    let x = net.binary(Binary::Mul, x, wide);
    for function in functions {
        let y = net.unary(function, x);
        net.output(y);
    }
    net.check(0);
}
