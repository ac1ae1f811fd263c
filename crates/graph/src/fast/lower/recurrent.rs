//! Recurrent layers with constant weights.

use super::{Input, Kind, Lower};
use crate::graph::{Node, ValueId};
use crate::ops::{Cell, Direction, Recurrent, Unary};

/// A recurrent layer with the activations of its definition, over all steps of every item.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub cell: Cell,
    /// Whether each direction begins with the last step.
    pub reverse: Vec<bool>,
    pub batch_first: bool,
    pub inputs: usize,
    pub hidden: usize,
    /// `[directions, gates * hidden, inputs]`.
    pub weight: ValueId,
    /// `[directions, gates * hidden, hidden]`.
    pub recurrent: ValueId,
    /// Of all directions and gates, or none.
    pub bias: Vec<f32>,
    /// What the reset gate of each direction is a factor of as well, or none.
    pub late_bias: Vec<f32>,
    /// Whether the hidden and the cell state that it begins with are operands.
    pub initial: [bool; 2],
    /// All hidden states, the last ones, and the last cell states.
    pub results: [Option<ValueId>; 3],
}

impl Lower<'_> {
    pub(super) fn recurrent(&mut self, index: usize, node: &Node, recurrent: &Recurrent) -> Option<()> {
        let (cell, hidden, directions) = (recurrent.cell, recurrent.hidden, recurrent.directions());
        let activations: &[Unary] = match cell {
            Cell::Rnn => &[Unary::Tanh],
            Cell::Gru { .. } => &[Unary::Sigmoid, Unary::Tanh],
            Cell::Lstm { .. } => &[Unary::Sigmoid, Unary::Tanh, Unary::Tanh],
        };
        let [x, weight, of_state] = [0, 1, 2].map(|i| self.operand(node, i));
        let (x, weight, of_state) = (x?, weight?, of_state?);
        // Peepholes are rare.
        let plain = recurrent.clip.is_some()
            || recurrent.activations != activations.repeat(directions)
            || self.operand(node, 7).is_some()
            || !self.is_constant(weight)
            || !self.is_constant(of_state);
        let shape = self.shape(x)?;
        let &[first, second, inputs] = &shape[..] else { return None };
        let wide = cell.gates() * hidden;
        if plain
            || shape.contains(&0)
            || hidden == 0
            || self.shape(weight)? != [directions, wide, inputs]
            || self.shape(of_state)? != [directions, wide, hidden]
        {
            return None;
        }
        let (batch, steps) = if recurrent.batch_first { (first, second) } else { (second, first) };
        if let Some(lengths) = self.operand(node, 4) {
            // Exporters name the length of all steps.
            let lengths = self.constant(lengths)?;
            let all = |length: &i32| usize::try_from(*length) == Ok(steps);
            if lengths.elements().len() != batch || !lengths.as_i32()?.iter().all(all) {
                return None;
            }
        }
        let (bias, late_bias) = match self.operand(node, 3) {
            Some(id) => self.recurrent_bias(id, cell, directions, hidden)?,
            None => (Vec::new(), Vec::new()),
        };
        let is_lstm = matches!(cell, Cell::Lstm { .. });
        let [h, c] = [5, 6].map(|i| self.operand(node, i));
        let states: Vec<ValueId> = h.into_iter().chain(c).collect();
        let state_shape =
            if recurrent.batch_first { [batch, directions, hidden] } else { [directions, batch, hidden] };
        if states.iter().any(|id| self.shape(*id).is_none_or(|shape| shape != state_shape)) {
            return None;
        }
        let results = [0, 1, 2].map(|i| {
            let id = node.outputs.get(i).copied().filter(|id| *id != ValueId::ABSENT)?;
            (self.uses(id) > 0).then_some(id)
        });
        if !is_lstm && (c.is_some() || results[2].is_some()) {
            return None;
        }
        let output = results.iter().flatten().next().copied()?;
        let layer = Layer {
            cell,
            reverse: match recurrent.direction {
                Direction::Forward => vec![false],
                Direction::Reverse => vec![true],
                Direction::Both => vec![false, true],
            },
            batch_first: recurrent.batch_first,
            inputs,
            hidden,
            weight,
            recurrent: of_state,
            bias,
            late_bias,
            initial: [h.is_some(), c.is_some()],
            results,
        };
        let inputs = [x].into_iter().chain(states).map(Input::Value).collect();
        self.make(index, Kind::Recurrent(Box::new(layer)), inputs, output);
        Some(())
    }

    /// The biases of both products, added where nothing comes between them, and otherwise those of the second.
    fn recurrent_bias(
        &self,
        id: ValueId,
        cell: Cell,
        directions: usize,
        hidden: usize,
    ) -> Option<(Vec<f32>, Vec<f32>)> {
        let wide = cell.gates() * hidden;
        let numbers = self.is_constant(id).then(|| self.numbers(id, 2 * directions * wide))??;
        if numbers.len() != 2 * directions * wide {
            return None;
        }
        let late = match cell {
            Cell::Gru { linear_before_reset: true } => 2 * hidden,
            _ => wide,
        };
        let (mut bias, mut late_bias) = (Vec::new(), Vec::new());
        for both in numbers.chunks_exact(2 * wide) {
            let (of_input, of_state) = both.split_at(wide);
            bias.extend(of_input[..late].iter().zip(of_state).map(|(a, b)| a + b));
            bias.extend_from_slice(&of_input[late..]);
            late_bias.extend_from_slice(&of_state[late..]);
        }
        Some((bias, late_bias))
    }
}
