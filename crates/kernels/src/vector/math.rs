//! Exponentials and what is made of them, for every instruction set. Relative errors are a few f32 roundings.
//!
//! Polynomials are minimax fits in relative error, made for these intervals.

use super::Vector;
use std::f32::consts::{FRAC_1_SQRT_2, LN_2, LOG2_E};

/// ln 2 in two parts; the first has 9 bits, so that its products with whole exponents are exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// `coefficients[0] + coefficients[1] * x + ..`
#[inline(always)]
fn polynomial<V: Vector, const N: usize>(v: V, x: V::F32, coefficients: [f32; N]) -> V::F32 {
    let mut sum = v.splat(coefficients[N - 1]);
    for i in (0..N - 1).rev() {
        sum = v.fma(sum, x, v.splat(coefficients[i]));
    }
    sum
}

/// `x` kept between `low` and `high`; NaN stays.
#[inline(always)]
fn clamp<V: Vector>(v: V, x: V::F32, low: f32, high: f32) -> V::F32 {
    v.min(v.splat(high), v.max(v.splat(low), x))
}

/// `2^x`; 0 below -150, infinity from 128.
#[inline(always)]
pub(crate) fn exp2<V: Vector>(v: V, x: V::F32) -> V::F32 {
    const FRACTION: [f32; 7] =
        [1.0, LN_2, 0.240_226_48, 0.055_503_324, 0.009_618_437, 0.001_339_887_5, 0.000_153_533_62];
    let x = clamp(v, x, -152.0, 129.0);
    let whole = v.round(x);
    v.times_power_of_two(polynomial(v, v.sub(x, whole), FRACTION), whole)
}

/// `e^x`; 0 below -104, infinity from 88.73.
#[inline(always)]
pub(crate) fn exp<V: Vector>(v: V, x: V::F32) -> V::F32 {
    // e^r = 1 + r + r² * tail(r) for |r| <= ln(2) / 2.
    const TAIL: [f32; 5] = [0.499_999_94, 0.166_665_2, 0.041_668_393, 0.008_368_781, 0.001_381_446_7];
    let x = clamp(v, x, -105.0, 89.0);
    let whole = v.round(v.mul(x, v.splat(LOG2_E)));
    let r = v.fma(whole, v.splat(-LN_2_HIGH), x);
    let r = v.fma(whole, v.splat(-LN_2_LOW), r);
    let tail = v.mul(v.mul(r, r), polynomial(v, r, TAIL));
    v.times_power_of_two(v.add(v.add(tail, r), v.splat(1.0)), whole)
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid<V: Vector>(v: V, x: V::F32) -> V::F32 {
    let one = v.splat(1.0);
    v.div(one, v.add(one, exp(v, negate(v, x))))
}

/// `x * sigmoid(x)`.
#[inline(always)]
pub(crate) fn silu<V: Vector>(v: V, x: V::F32) -> V::F32 {
    v.div(x, v.add(v.splat(1.0), exp(v, negate(v, x))))
}

/// [`sigmoid`] for what follows a product: relative error below 1e-5, never below 2^-126.
#[inline(always)]
pub(crate) fn quick_sigmoid<V: Vector>(v: V, x: V::F32) -> V::F32 {
    const FRACTION: [f32; 6] = [1.0, LN_2, 0.240_222_42, 0.055_507_336, 0.009_671_513, 0.001_326_473];
    // Within what the reciprocal takes.
    let power = clamp(v, v.mul(x, v.splat(-LOG2_E)), -125.0, 125.0);
    let whole = v.round(power);
    let decay = v.times_power_of_two(polynomial(v, v.sub(power, whole), FRACTION), whole);
    v.reciprocal(v.add(v.splat(1.0), decay))
}

/// `x *` [`quick_sigmoid`].
#[inline(always)]
pub(crate) fn quick_silu<V: Vector>(v: V, x: V::F32) -> V::F32 {
    v.mul(x, quick_sigmoid(v, x))
}

/// Hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh<V: Vector>(v: V, x: V::F32) -> V::F32 {
    // tanh(x) = x + x³ * small(x²) below 0.625, where the other form would cancel.
    const SMALL: [f32; 5] = [-0.333_332_8, 0.133_314_42, -0.053_739_715, 0.020_639_086, -0.005_704_985];
    let (zero, one) = (v.splat(0.0), v.splat(1.0));
    let magnitude = v.select_less(x, zero, negate(v, x), x);
    let square = v.mul(x, x);
    let small = v.fma(v.mul(x, square), polynomial(v, square, SMALL), x);
    let large = v.sub(one, v.div(v.splat(2.0), v.add(exp(v, v.add(magnitude, magnitude)), one)));
    let large = v.select_less(x, zero, negate(v, large), large);
    v.select_less(magnitude, v.splat(0.625), small, large)
}

/// `erfc(z) / 2` for `z` from 0.
#[inline(always)]
fn half_erfc<V: Vector>(v: V, z: V::F32) -> V::F32 {
    // erfc(z) = e^(-z²) * t * tail(t) with t = 1 / (1 + 0.4 z).
    const TAIL: [f32; 9] = [
        0.225_634_23,
        0.226_443_11,
        0.201_887_58,
        0.193_393_25,
        0.079_756_37,
        0.087_964_55,
        0.083_987_06,
        -0.140_319_11,
        0.041_253_01,
    ];
    let t = v.div(v.splat(1.0), v.fma(z, v.splat(0.4), v.splat(1.0)));
    let decay = exp(v, v.mul(negate(v, z), z));
    let tail = v.mul(v.mul(t, polynomial(v, t, TAIL)), decay);
    v.mul(v.splat(0.5), tail)
}

/// `x * Phi(x)` with the error function.
#[inline(always)]
pub(crate) fn gelu<V: Vector>(v: V, x: V::F32) -> V::F32 {
    let (zero, one) = (v.splat(0.0), v.splat(1.0));
    let z = v.mul(v.select_less(x, zero, negate(v, x), x), v.splat(FRAC_1_SQRT_2));
    let share = half_erfc(v, z);
    v.mul(x, v.select_less(x, zero, share, v.sub(one, share)))
}

/// [`gelu`] for what follows a product: the error is below 5e-7 of `x`.
#[inline(always)]
pub(crate) fn quick_gelu<V: Vector>(v: V, x: V::F32) -> V::F32 {
    // Phi(x) = 1/2 + x * OVER(x²) / UNDER(x²) up to 5.4, from where on it is 1 to f32; minimax in Phi's absolute error.
    const OVER: [f32; 5] = [0.398_941_73, 0.054_897_893, 0.005_906_175_4, 0.000_373_079_2, 6.762_308e-6];
    const UNDER: [f32; 6] =
        [1.0, 0.304_266_2, 0.040_532_045, 0.003_046_513_8, 0.000_133_872_5, 5.633_602_3e-7];
    let above = v.max(v.splat(-5.4), x);
    let near = v.min(v.splat(5.4), above);
    let square = v.mul(near, near);
    let over = v.mul(near, polynomial(v, square, OVER));
    let share = v.fma(over, v.reciprocal(polynomial(v, square, UNDER)), v.splat(0.5));
    // Far below, the error stays that at the end of the interval.
    v.mul(above, share)
}

/// The error function; its error is absolute, a few roundings of 1.
#[inline(always)]
pub(crate) fn erf<V: Vector>(v: V, x: V::F32) -> V::F32 {
    let zero = v.splat(0.0);
    let share = half_erfc(v, v.select_less(x, zero, negate(v, x), x));
    let y = v.fma(v.splat(-2.0), share, v.splat(1.0));
    v.select_less(x, zero, negate(v, y), y)
}

/// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x³)))`, which is `x * sigmoid` of twice that argument.
#[inline(always)]
pub(crate) fn gelu_tanh<V: Vector>(v: V, x: V::F32) -> V::F32 {
    const TWICE_SQRT_2_OVER_PI: f32 = 1.595_769;
    let cubic = v.fma(v.mul(x, x), v.splat(0.044_715), v.splat(1.0));
    let argument = v.mul(v.mul(x, cubic), v.splat(-TWICE_SQRT_2_OVER_PI));
    v.div(x, v.add(v.splat(1.0), exp(v, argument)))
}

/// `-x`.
#[inline(always)]
pub(crate) fn negate<V: Vector>(v: V, x: V::F32) -> V::F32 {
    v.mul(x, v.splat(-1.0))
}
