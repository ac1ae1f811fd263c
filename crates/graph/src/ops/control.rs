//! Graphs inside operations.

use crate::graph::Graph;

/// A graph inside an operation. Its inputs are the formal ones of the ONNX graph, then the values of the graphs around
/// that it uses, which the node gives as its last operands.
#[derive(Clone, Debug, PartialEq)]
pub struct Body {
    /// The graph, closed.
    pub graph: Graph,
    /// How many of its inputs are values of the graphs around.
    pub captures: usize,
}

/// Repeats a body: inputs `trip, condition, carried..`, results `condition, carried.., collected..`.
#[derive(Clone, Debug, PartialEq)]
pub struct Loop {
    /// What is repeated.
    pub body: Body,
    /// Values that go from one round to the next.
    pub carried: usize,
}

/// Runs a body over slices: inputs `states.., slices..`, results `states.., slices..`.
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    /// What is run.
    pub body: Body,
    /// Operands that are sliced.
    pub scanned: usize,
    /// Values that go from one round to the next.
    pub states: usize,
    /// Per sliced operand: the axis.
    pub input_axes: Vec<i64>,
    /// Per sliced operand: from the end.
    pub input_reverse: Vec<bool>,
    /// Per collected result: the axis.
    pub output_axes: Vec<i64>,
    /// Per collected result: from the end.
    pub output_reverse: Vec<bool>,
    /// Version 8: every operand has a batch dimension in front, and operand 0 holds lengths.
    pub batched: bool,
}
