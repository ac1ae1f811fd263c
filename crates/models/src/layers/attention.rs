//! Self-attention with grouped queries.

use crate::layers::{Linear, linear};
use kun_graph::Builder;
use kun_graph::builder::Value;
use kun_graph::graph::{AttentionSpec, RopeStyle, WeightId};

/// Weights and numbers of one layer's attention, its output projection left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// `[Hq * Dh, D]`.
    pub query: Linear,
    /// `[Hkv * Dh, D]`.
    pub key: Linear,
    /// `[Hkv * Dh, D]`.
    pub value: Linear,
    /// `[Dh]` each: norms of query and key heads.
    pub qk_norm: Option<(WeightId, WeightId)>,
    /// Added to the mean square in these norms.
    pub norm_eps: f32,
    /// How positions turn queries and keys; `None`: not at all.
    pub rotation: Option<Rotation>,
    /// Heads, scale and window.
    pub spec: AttentionSpec,
}

/// Rotary positions of one layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rotation {
    /// Which elements turn together.
    pub style: RopeStyle,
    /// `[rotary_dim / 2]`.
    pub inverse_frequencies: WeightId,
    /// Factor on sine and cosine.
    pub magnitude: f32,
}

/// Causal attention with grouped queries (arXiv:2305.13245) over `x [T, D]` -> `[T, Hq * Dh]`.
pub fn attention(g: &Builder, x: Value, positions: Value, w: &Attention) -> Value {
    let (q_norm, k_norm) = w.qk_norm.unzip();
    let q = rotate(g, norm_heads(g, linear(g, x, &w.query), q_norm, w), positions, w); // [T, Hq * Dh]
    let k = rotate(g, norm_heads(g, linear(g, x, &w.key), k_norm, w), positions, w); // [T, Hkv * Dh]
    let v = linear(g, x, &w.value); // [T, Hkv * Dh]
    g.attention(q, k, v, w.spec)
}

pub(crate) fn norm_heads(g: &Builder, x: Value, norm: Option<WeightId>, w: &Attention) -> Value {
    norm.map_or(x, |norm| g.rms_norm(x, norm, w.norm_eps))
}

pub(crate) fn rotate(g: &Builder, x: Value, positions: Value, w: &Attention) -> Value {
    w.rotation
        .map_or(x, |r| g.rope(x, positions, w.spec.head_dim, r.style, r.inverse_frequencies, r.magnitude))
}
