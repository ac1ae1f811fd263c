//! The gated feed-forward.

use crate::layers::{Linear, linear};
use kun_graph::Builder;
use kun_graph::builder::Value;

/// Weights of a gated feed-forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mlp {
    /// `[F, D]`.
    pub gate: Linear,
    /// `[F, D]`.
    pub up: Linear,
    /// `[D, F]`.
    pub down: Linear,
}

/// SwiGLU feed-forward (arXiv:2002.05202): `down(silu(gate(x)) * up(x))`.
pub fn mlp(g: &Builder, x: Value, w: &Mlp) -> Value {
    let gated = g.mul(g.silu(linear(g, x, &w.gate)), linear(g, x, &w.up)); // [T, F]
    linear(g, gated, &w.down) // [T, D]
}
