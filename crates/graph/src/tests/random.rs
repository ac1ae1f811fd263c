//! Random graphs: whatever is built, the CPU program gives the reference's answers, and (checked by the planner in test
//! builds) no two tensors alive together share bytes.

use super::ops::check;
use super::support::Random;
use crate::{BinaryOp, Builder, Dim, Graph, RopeStyle, Sym, UnaryOp, Value};
use kun_tensor::DType;

const WIDTH: usize = 32;

/// A graph of `nodes` nodes whose operands are chosen among everything computed before, recent values more often.
fn graph(seed: u64, nodes: usize) -> Graph {
    let mut random = Random(seed);
    let g = Builder::new();
    let x = g.input("x", DType::F32, &[Dim::Sym(Sym::Tokens), Dim::Const(WIDTH)]);
    let positions = g.input("positions", DType::I32, &[Dim::Sym(Sym::Tokens)]);
    let rows = g.input("rows", DType::I32, &[Dim::Sym(Sym::Rows)]);
    let frequencies = g.constant("frequencies", &[4], &[1.0, 0.1, 0.01, 0.001]);
    let norm = g.weight("norm", DType::F32, &[WIDTH]);
    let row = g.weight_value(norm);
    let mut values: Vec<Value> = vec![x];
    for i in 0..nodes {
        let recent = values.len().min(4);
        let mut pick = || match random.below(3) {
            0 => values[random.below(values.len())],
            _ => values[values.len() - 1 - random.below(recent)],
        };
        let (a, b) = (pick(), pick());
        let weight = g.weight(&format!("w{}", i % 5), DType::F32, &[WIDTH, WIDTH]);
        values.push(match random.below(10) {
            0 => g.unary(UnaryOp::Tanh, a),
            1 => g.add(a, b),
            2 => g.mul(g.silu(a), g.unary(UnaryOp::Tanh, b)),
            3 => g.rms_norm(a, norm, 1e-5),
            4 => g.rms_norm(g.add(a, b), norm, 1e-5),
            5 => g.add(a, g.linear(g.rms_norm(b, norm, 1e-5), weight, None)),
            6 => g.linear(a, weight, Some(norm)),
            7 => g.rope(a, positions, 16, RopeStyle::Halves, frequencies, 1.0),
            8 => g.mul(row, g.unary(UnaryOp::Sigmoid, a)),
            _ => g.binary(BinaryOp::Max, a, b),
        });
    }
    let last = g.rms_norm(values[values.len() - 1], norm, 1e-5);
    g.output("selected", g.unary(UnaryOp::Neg, g.select_rows(last, rows)));
    let some = values[1 + random.below(nodes)];
    g.output("some", g.unary(UnaryOp::Tanh, some));
    g.finish().unwrap()
}

#[test]
fn random_graphs_give_the_same_answers_on_both_backends() {
    for seed in 0..12 {
        check(&graph(seed, 3 + 2 * seed as usize), 50, false, 1e-4);
    }
}
