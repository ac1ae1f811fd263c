//! Attention and what belongs to it.

use super::TensorOp;
use super::control::Body;
use super::fact::{Fact, Facts, shaped};
use kun_tensor::DType;

/// Scaled dot-product attention.
///
/// `q [N, Hq, S, Dh]`, `k [N, Hkv, L, Dh]`, `v [N, Hkv, L, Dv]`, or three dimensions with the heads inside the last.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionAttributes {
    /// Query heads of operands with three dimensions.
    pub heads: usize,
    /// Key heads of operands with three dimensions.
    pub kv_heads: usize,
    /// Factor on the scores; `1 / sqrt(Dh)` if none.
    pub scale: Option<f32>,
    /// Scores become `softcap * tanh(score / softcap)`; 0 for none.
    pub softcap: f32,
    /// Whether a query sees only keys up to its own position.
    pub causal: bool,
    /// Keys that a query sees to its left and right.
    pub window: (Option<usize>, Option<usize>),
    /// What result 3 holds: 0 products, 1 after the cap, 2 after mask and bias, 3 probabilities.
    pub scores_output: i64,
    /// The type that softmax is computed in.
    pub softmax_type: Option<DType>,
}

/// Attention with graphs that change scores and probabilities.
#[derive(Clone, Debug, PartialEq)]
pub struct FlexAttention {
    /// Factor on the scores; `1 / sqrt(Dh)` if none.
    pub scale: Option<f32>,
    /// Changes scores.
    pub score_mod: Option<Body>,
    /// Changes probabilities.
    pub prob_mod: Option<Body>,
    /// The type that scores are computed in.
    pub softmax_type: Option<DType>,
    /// How many of the captured operands belong to `score_mod`; the rest are those of `prob_mod`.
    pub score_captures: usize,
}

/// Attention without softmax, a recurrence over a state per head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinearAttention {
    /// Query heads.
    pub heads: usize,
    /// Key heads.
    pub kv_heads: usize,
    /// Factor on the result; `1 / sqrt(Dh)` if 0.
    pub scale: f32,
    /// Whether the state decays.
    pub gated: bool,
    /// Whether what the state already holds of a key is taken away first.
    pub delta: bool,
}

/// Rotation by position (arXiv:2104.09864).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RotaryEmbedding {
    /// Heads of an operand with three dimensions.
    pub heads: usize,
    /// Leading elements that turn; all if 0.
    pub rotary_dim: usize,
    /// Whether pairs are neighbours rather than half a head apart.
    pub interleaved: bool,
}

pub(crate) fn infer(op: &TensorOp, x: &Facts<'_>) -> Result<Vec<Fact>, String> {
    Ok(match op {
        TensorOp::Attention(attributes) => attention(attributes, x),
        TensorOp::RotaryEmbedding(_) => x.like(0, x.shape(0).map(<[usize]>::to_vec)),
        _ => Vec::new(),
    })
}

fn attention(attributes: &AttentionAttributes, x: &Facts<'_>) -> Vec<Fact> {
    let past = if x.has(4) { x.shape(4).and_then(|s| s.get(2)).copied() } else { Some(0) };
    let heads4 = |i: usize, heads: usize| match x.shape(i) {
        Some(&[n, h, s, d]) => Some([n, h, s, d]),
        Some(&[n, s, d]) if heads > 0 => Some([n, heads, s, d / heads]),
        _ => None,
    };
    let (Some([n, hq, s, _]), Some([_, hk, l, dk]), Some([_, _, _, dv]), Some(past)) =
        (heads4(0, attributes.heads), heads4(1, attributes.kv_heads), heads4(2, attributes.kv_heads), past)
    else {
        return Vec::new();
    };
    let total = past + l;
    let y = if x.shape(0).is_some_and(|s| s.len() == 3) { vec![n, s, hq * dv] } else { vec![n, hq, s, dv] };
    vec![
        shaped(x.dtype(0), Some(y)),
        shaped(x.dtype(1), Some(vec![n, hk, total, dk])),
        shaped(x.dtype(2), Some(vec![n, hk, total, dv])),
        shaped(x.dtype(0), Some(vec![n, hq, s, total])),
    ]
}
