//! Recurrent layers.

use super::Net;
use crate::graph::ValueId;
use crate::ops::{Binary, Cell, Direction, Recurrent, TensorOp, Unary};
use kun_tensor::{Elements, Tensor};
use std::sync::Arc;

const CELLS: [Cell; 5] = [
    Cell::Rnn,
    Cell::Gru { linear_before_reset: false },
    Cell::Gru { linear_before_reset: true },
    Cell::Lstm { input_forget: false },
    Cell::Lstm { input_forget: true },
];
const WAYS: [Direction; 3] = [Direction::Forward, Direction::Reverse, Direction::Both];

fn layer(cell: Cell, direction: Direction, hidden: usize) -> Recurrent {
    let activations: &[Unary] = match cell {
        Cell::Rnn => &[Unary::Tanh],
        Cell::Gru { .. } => &[Unary::Sigmoid, Unary::Tanh],
        Cell::Lstm { .. } => &[Unary::Sigmoid, Unary::Tanh, Unary::Tanh],
    };
    let directions = if direction == Direction::Both { 2 } else { 1 };
    let activations = activations.repeat(directions);
    Recurrent { cell, direction, hidden, activations, clip: None, batch_first: false }
}

impl Net {
    /// The results of a layer over `x`, which has `inputs` elements a step; `states` are those that it begins with.
    fn recurrent(
        &mut self,
        layer: &Recurrent,
        x: ValueId,
        inputs: usize,
        bias: bool,
        states: &[ValueId],
    ) -> Vec<ValueId> {
        self.recurrent_of(layer, [x, ValueId::ABSENT], inputs, bias, states)
    }

    /// The same of sequences of these lengths.
    fn recurrent_of(
        &mut self,
        layer: &Recurrent,
        [x, lengths]: [ValueId; 2],
        inputs: usize,
        bias: bool,
        states: &[ValueId],
    ) -> Vec<ValueId> {
        let (directions, wide) = (layer.directions(), layer.cell.gates() * layer.hidden);
        let weight = self.weight(&[directions, wide, inputs]);
        let of_state = self.weight(&[directions, wide, layer.hidden]);
        let bias = if bias { self.weight(&[directions, 2 * wide]) } else { ValueId::ABSENT };
        let mut operands = vec![x, weight, of_state, bias, lengths];
        operands.extend(states);
        let results = if matches!(layer.cell, Cell::Lstm { .. }) { 3 } else { 2 };
        self.ops(TensorOp::Recurrent(layer.clone()), &operands, results)
    }
}

#[test]
fn cells_agree_with_their_definition_in_every_direction() {
    for (cell, direction) in CELLS.into_iter().flat_map(|cell| WAYS.map(|way| (cell, way))) {
        let mut net = Net::default();
        for (batch, hidden, bias, batch_first) in
            [(1, 5, true, false), (3, 37, false, false), (3, 16, true, true), (1, 70, true, true)]
        {
            let mut layer = layer(cell, direction, hidden);
            layer.batch_first = batch_first;
            let directions = layer.directions();
            let (steps, inputs) = (9, 6);
            let mut place = |shape: [usize; 3]| {
                let [a, b, width] = shape;
                let id = net.input(&if batch_first { [b, a, width] } else { shape });
                // So that not all of it comes from outside.
                net.unary(Unary::Tanh, id)
            };
            let x = place([steps, batch, inputs]);
            let state = [directions, batch, hidden];
            let states = match (bias, cell) {
                (false, _) => Vec::new(),
                (true, Cell::Lstm { .. }) => vec![place(state), place(state)],
                (true, _) => vec![place(state)],
            };
            for id in net.recurrent(&layer, x, inputs, bias, &states) {
                net.output(id);
            }
        }
        let kinds = net.check(0);
        assert_eq!(kinds.iter().filter(|kind| **kind == "recurrent").count(), 4, "{kinds:?}");
    }
}

#[test]
fn wide_layers_are_shared_by_threads() {
    for cell in CELLS {
        let mut net = Net::default();
        let x = net.input(&[7, 2, 20]);
        let h = net.input(&[1, 2, 201]);
        let layer = layer(cell, Direction::Reverse, 201);
        for id in net.recurrent(&layer, x, 20, true, &[h]) {
            net.output(id);
        }
        net.check(0);
    }
}

#[test]
fn results_that_nobody_reads_are_not_needed() {
    for direction in WAYS {
        let mut net = Net::default();
        let x = net.input(&[6, 2, 10]);
        let lstm = layer(Cell::Lstm { input_forget: false }, direction, 12);
        let directions = lstm.directions();
        // The last states alone, which the next layer begins with.
        let all = net.recurrent(&lstm, x, 10, true, &[]);
        let next = net.recurrent(&lstm, x, 10, true, &[all[1], all[2]]);
        let turned = net.op(TensorOp::Transpose(vec![0, 2, 1, 3]), &next[..1]);
        let shape = net.integers(&[0, 0, -1]);
        let wide = net.op(TensorOp::Reshape { allow_zero: false }, &[turned, shape]);
        // Layers over each other.
        let gru = layer(Cell::Gru { linear_before_reset: true }, direction, 9);
        let top = net.recurrent(&gru, wide, 12 * directions, false, &[]);
        let y = net.binary(Binary::Add, top[1], top[1]);
        net.output(y);
        let cells = net.recurrent(&lstm, x, 10, false, &[]);
        net.output(cells[2]);
        let kinds = net.check(0);
        assert_eq!(kinds.iter().filter(|kind| **kind == "recurrent").count(), 4, "{kinds:?}");
    }
}

#[test]
fn lengths_of_all_steps_are_none() {
    for (lengths, plain) in [(vec![5, 5], 0), (vec![5, 3], 5)] {
        let mut net = Net::default();
        let x = net.input(&[5, 2, 4]);
        let lengths = Tensor::new([2], Elements::I32(lengths)).unwrap();
        let lengths = net.op(TensorOp::Constant(Arc::new(lengths)), &[]);
        let layer = layer(Cell::Gru { linear_before_reset: true }, Direction::Both, 6);
        let y = net.recurrent_of(&layer, [x, lengths], 4, true, &[]);
        net.output(y[0]);
        net.output(y[1]);
        let kinds = net.check(plain);
        assert_eq!(kinds.contains(&"recurrent"), plain == 0, "{kinds:?}");
    }
}

#[test]
fn other_layers_stay_plain() {
    let mut net = Net::default();
    let x = net.input(&[5, 2, 4]);
    let mut clipped = layer(Cell::Rnn, Direction::Forward, 3);
    clipped.clip = Some(0.5);
    let mut other = layer(Cell::Lstm { input_forget: false }, Direction::Both, 3);
    other.activations[4] = Unary::Relu;
    for layer in [clipped, other] {
        for id in net.recurrent(&layer, x, 4, true, &[]) {
            net.output(id);
        }
    }
    // Both, and the weights that they read.
    let kinds = net.check(8);
    assert!(!kinds.contains(&"recurrent"), "{kinds:?}");
}
