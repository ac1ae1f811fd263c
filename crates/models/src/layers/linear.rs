//! Linear projections.

use kun_graph::builder::Value;
use kun_graph::{Builder, graph::WeightId};

/// A projection's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linear {
    /// `[N, K]`.
    pub weight: WeightId,
    /// `[N]`.
    pub bias: Option<WeightId>,
}

/// `x [.., K] . w [N, K]^T + b [N]` -> `[.., N]`.
pub fn linear(g: &Builder, x: Value, w: &Linear) -> Value {
    g.linear(x, w.weight, w.bias)
}
