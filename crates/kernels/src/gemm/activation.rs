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
}

/// A function of one vector, known where it is compiled: a closure would be compiled without the instruction set.
pub(crate) trait One: Copy {
    fn apply<V: Vector>(self, v: V, x: V::F32) -> V::F32;
}

/// A loop over elements that wants to know its function where it is compiled.
pub(crate) trait Loop<V: Vector> {
    fn run<F: One>(self, v: V, function: F);
}

impl Activation {
    /// Runs a loop with this function; [`Activation::Slopes`] is none here.
    #[inline(always)]
    pub(crate) fn each<V: Vector, L: Loop<V>>(self, v: V, body: L) {
        match self {
            Activation::None | Activation::Slopes => {}
            Activation::Clamp { low, high } => body.run(v, Clamp { low, high }),
            Activation::Sigmoid => body.run(v, Sigmoid),
            Activation::Tanh => body.run(v, Tanh),
            Activation::Silu => body.run(v, Silu),
            Activation::HardSwish => body.run(v, HardSwish),
            Activation::HardSigmoid { alpha, beta } => body.run(v, HardSigmoid { alpha, beta }),
            Activation::Gelu => body.run(v, Gelu),
            Activation::GeluTanh => body.run(v, GeluTanh),
        }
    }
}

/// The argument.
#[derive(Clone, Copy)]
pub(crate) struct Identity;

impl One for Identity {
    #[inline(always)]
    fn apply<V: Vector>(self, _: V, x: V::F32) -> V::F32 {
        x
    }
}

#[derive(Clone, Copy)]
struct Clamp {
    low: f32,
    high: f32,
}
#[derive(Clone, Copy)]
struct Sigmoid;
#[derive(Clone, Copy)]
struct Tanh;
#[derive(Clone, Copy)]
pub(crate) struct Silu;
#[derive(Clone, Copy)]
pub(crate) struct HardSwish;
#[derive(Clone, Copy)]
struct HardSigmoid {
    alpha: f32,
    beta: f32,
}
#[derive(Clone, Copy)]
struct Gelu;
#[derive(Clone, Copy)]
struct GeluTanh;

impl One for Clamp {
    #[inline(always)]
    fn apply<V: Vector>(self, v: V, x: V::F32) -> V::F32 {
        v.min(v.splat(self.high), v.max(v.splat(self.low), x))
    }
}

impl One for Sigmoid {
    #[inline(always)]
    fn apply<V: Vector>(self, v: V, x: V::F32) -> V::F32 {
        math::quick_sigmoid(v, x)
    }
}

impl One for Tanh {
    #[inline(always)]
    fn apply<V: Vector>(self, v: V, x: V::F32) -> V::F32 {
        math::tanh(v, x)
    }
}

impl One for Silu {
    #[inline(always)]
    fn apply<V: Vector>(self, v: V, x: V::F32) -> V::F32 {
        math::quick_silu(v, x)
    }
}

impl One for HardSwish {
    #[inline(always)]
    fn apply<V: Vector>(self, v: V, x: V::F32) -> V::F32 {
        let share = v.fma(x, v.splat(1.0 / 6.0), v.splat(0.5));
        v.mul(x, Clamp { low: 0.0, high: 1.0 }.apply(v, share))
    }
}

impl One for HardSigmoid {
    #[inline(always)]
    fn apply<V: Vector>(self, v: V, x: V::F32) -> V::F32 {
        let share = v.fma(x, v.splat(self.alpha), v.splat(self.beta));
        Clamp { low: 0.0, high: 1.0 }.apply(v, share)
    }
}

impl One for Gelu {
    #[inline(always)]
    fn apply<V: Vector>(self, v: V, x: V::F32) -> V::F32 {
        math::quick_gelu(v, x)
    }
}

impl One for GeluTanh {
    #[inline(always)]
    fn apply<V: Vector>(self, v: V, x: V::F32) -> V::F32 {
        math::gelu_tanh(v, x)
    }
}
