//! Functions that follow a product.

use crate::vector::{Vector, math};

/// A function of one element.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Activation {
    /// The argument.
    #[default]
    None,
    /// Kept between two numbers; ReLU is 0 to infinity.
    Clamp {
        /// Lower bound.
        low: f32,
        /// Upper bound.
        high: f32,
    },
    /// `x`, or `slope * x` below 0, with a slope for each output (arXiv:1502.01852).
    Slopes,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * clamp(x / 6 + 1 / 2, 0, 1)` (arXiv:1905.02244).
    HardSwish,
    /// `clamp(alpha * x + beta, 0, 1)`.
    HardSigmoid {
        /// Slope.
        alpha: f32,
        /// Offset.
        beta: f32,
    },
    /// With the error function.
    Gelu,
    /// With the tanh approximation.
    GeluTanh,
}

impl Activation {
    /// ReLU.
    pub const RELU: Activation = Activation::Clamp { low: 0.0, high: f32::INFINITY };

    /// Bounds, for functions that are no more than that (and for those that come later, none).
    pub(crate) fn bounds(self) -> (f32, f32) {
        match self {
            Activation::Clamp { low, high } => (low, high),
            _ => (f32::NEG_INFINITY, f32::INFINITY),
        }
    }

    /// Whether a tile leaves it to a pass of its own over what it wrote.
    pub(crate) fn is_long(self) -> bool {
        !matches!(self, Activation::None | Activation::Clamp { .. } | Activation::Slopes)
    }

    /// The function of a vector; slopes are not known here.
    #[inline(always)]
    pub(crate) fn apply<V: Vector>(self, v: V, x: V::F32) -> V::F32 {
        let unit = |x| v.min(v.splat(1.0), v.max(v.splat(0.0), x));
        match self {
            Activation::None | Activation::Slopes => x,
            Activation::Clamp { low, high } => v.min(v.splat(high), v.max(v.splat(low), x)),
            Activation::Sigmoid => math::sigmoid(v, x),
            Activation::Tanh => math::tanh(v, x),
            Activation::Silu => math::silu(v, x),
            Activation::HardSwish => v.mul(x, unit(v.fma(x, v.splat(1.0 / 6.0), v.splat(0.5)))),
            Activation::HardSigmoid { alpha, beta } => unit(v.fma(x, v.splat(alpha), v.splat(beta))),
            Activation::Gelu => math::gelu(v, x),
            Activation::GeluTanh => math::gelu_tanh(v, x),
        }
    }
}
