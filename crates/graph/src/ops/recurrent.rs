//! Recurrent layers.

use super::elementwise::Unary;
use super::fact::{Fact, Facts, shaped};

/// What is computed at each step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// One gate.
    Rnn,
    /// Update, reset and hidden gates.
    Gru {
        /// Whether the reset comes after the recurrent product.
        linear_before_reset: bool,
    },
    /// Input, output, forget and cell gates.
    Lstm {
        /// Whether the forget gate is one minus the input gate.
        input_forget: bool,
    },
}

impl Cell {
    /// Rows of weights per hidden element.
    pub const fn gates(self) -> usize {
        match self {
            Cell::Rnn => 1,
            Cell::Gru { .. } => 3,
            Cell::Lstm { .. } => 4,
        }
    }
}

/// Which way a layer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Direction {
    Forward,
    Reverse,
    Both,
}

/// A recurrent layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Recurrent {
    /// What is computed at each step.
    pub cell: Cell,
    /// Which way it reads.
    pub direction: Direction,
    /// Width of the state.
    pub hidden: usize,
    /// Activations in the order of the ONNX attribute, those of the reverse direction after those of the first.
    pub activations: Vec<Unary>,
    /// Bound of what enters an activation.
    pub clip: Option<f32>,
    /// Whether the batch comes first.
    pub batch_first: bool,
}

impl Recurrent {
    /// 1 or 2.
    pub const fn directions(&self) -> usize {
        match self.direction {
            Direction::Both => 2,
            _ => 1,
        }
    }

    pub(crate) fn infer(&self, x: &Facts<'_>) -> Vec<Fact> {
        let Some(&[a, b, _]) = x.shape(0) else { return Vec::new() };
        let (d, h) = (self.directions(), self.hidden);
        let (all, last) = match self.batch_first {
            true => (vec![a, b, d, h], vec![a, d, h]),
            false => (vec![a, d, b, h], vec![d, b, h]),
        };
        let dtype = x.dtype(0);
        vec![shaped(dtype, Some(all)), shaped(dtype, Some(last.clone())), shaped(dtype, Some(last))]
    }
}
