//! Arithmetic of every number type, wrapping for integers.

use half::{bf16, f16};
use kun_tensor::Element;

/// A type that tensors of numbers have.
pub(crate) trait Number: Element + Copy + PartialOrd {
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// Cut towards zero for integers; 0 for a division by 0.
    fn div(self, other: Self) -> Self;
    /// With the sign of the divisor.
    fn floor_mod(self, other: Self) -> Self;
    /// With the sign of the dividend.
    fn truncated_mod(self, other: Self) -> Self;
    fn to_f64(self) -> f64;
    /// Cut towards zero for integers.
    fn from_f64(value: f64) -> Self;
    /// Whether it is not a number.
    fn is_nan(self) -> bool;
}

macro_rules! integer {
    ($($type:ty),*) => {$(
        impl Number for $type {
            const ZERO: Self = 0;
            const ONE: Self = 1;
            fn add(self, other: Self) -> Self { self.wrapping_add(other) }
            fn sub(self, other: Self) -> Self { self.wrapping_sub(other) }
            fn mul(self, other: Self) -> Self { self.wrapping_mul(other) }
            fn div(self, other: Self) -> Self {
                if other == 0 { 0 } else { self.wrapping_div(other) }
            }
            #[allow(unused_comparisons)]
            fn floor_mod(self, other: Self) -> Self {
                let rest = self.truncated_mod(other);
                if rest != 0 && (rest < 0) != (other < 0) { rest.wrapping_add(other) } else { rest }
            }
            fn truncated_mod(self, other: Self) -> Self {
                if other == 0 { 0 } else { self.wrapping_rem(other) }
            }
            fn to_f64(self) -> f64 { self as f64 }
            fn from_f64(value: f64) -> Self { value as Self }
            fn is_nan(self) -> bool { false }
        }
    )*};
}

integer!(i64, i32, i16, i8, u64, u32, u16, u8);

macro_rules! float {
    ($type:ty, $zero:expr, $one:expr, $wide:ty, $to:expr, $from:expr) => {
        impl Number for $type {
            const ZERO: Self = $zero;
            const ONE: Self = $one;
            fn add(self, other: Self) -> Self {
                $from($to(self) + $to(other))
            }
            fn sub(self, other: Self) -> Self {
                $from($to(self) - $to(other))
            }
            fn mul(self, other: Self) -> Self {
                $from($to(self) * $to(other))
            }
            fn div(self, other: Self) -> Self {
                $from($to(self) / $to(other))
            }
            fn floor_mod(self, other: Self) -> Self {
                let (a, b) = ($to(self), $to(other));
                let rest = a % b;
                $from(if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest })
            }
            fn truncated_mod(self, other: Self) -> Self {
                $from($to(self) % $to(other))
            }
            fn to_f64(self) -> f64 {
                $to(self) as f64
            }
            fn from_f64(value: f64) -> Self {
                $from(value as $wide)
            }
            fn is_nan(self) -> bool {
                $to(self).is_nan()
            }
        }
    };
}

float!(f64, 0.0, 1.0, f64, (|x: f64| x), (|x: f64| x));
float!(f32, 0.0, 1.0, f32, (|x: f32| x), (|x: f32| x));
float!(f16, f16::ZERO, f16::ONE, f32, f16::to_f32, f16::from_f32);
float!(bf16, bf16::ZERO, bf16::ONE, f32, bf16::to_f32, bf16::from_f32);

/// Evaluates `$body` with `$values` bound to the numbers in `$elements`, whatever their type; other types are an error.
macro_rules! with_numbers {
    ($elements:expr, $values:ident => $body:expr) => {
        match $elements {
            kun_tensor::Elements::F64($values) => $body,
            kun_tensor::Elements::F32($values) => $body,
            kun_tensor::Elements::F16($values) => $body,
            kun_tensor::Elements::BF16($values) => $body,
            kun_tensor::Elements::I64($values) => $body,
            kun_tensor::Elements::I32($values) => $body,
            kun_tensor::Elements::I16($values) => $body,
            kun_tensor::Elements::I8($values) => $body,
            kun_tensor::Elements::U64($values) => $body,
            kun_tensor::Elements::U32($values) => $body,
            kun_tensor::Elements::U16($values) => $body,
            kun_tensor::Elements::U8($values) => $body,
            other => return Err(format!("{} where numbers are needed", other.dtype())),
        }
    };
}
pub(crate) use with_numbers;

/// `erf(x)` to f64's precision: a series near 0, a continued fraction beyond.
pub(crate) fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a.is_nan() {
        return x;
    }
    let value = if a < 2.5 {
        // erf(x) = 2/sqrt(pi) exp(-x^2) sum of 2^n x^(2n+1) / (2n+1)!!: every term is positive.
        let (mut term, mut sum, mut n) = (a, a, 1.0);
        while term > sum * 1e-17 {
            term *= 2.0 * a * a / (2.0 * n + 1.0);
            sum += term;
            n += 1.0;
        }
        std::f64::consts::FRAC_2_SQRT_PI * (-a * a).exp() * sum
    } else if a < 6.0 {
        let fraction = (1..=60).rev().fold(0.0, |f, k| f64::from(k) / 2.0 / (a + f));
        1.0 - (-a * a).exp() / ((a + fraction) * std::f64::consts::PI.sqrt())
    } else {
        1.0
    };
    value.copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_has_known_values() {
        // From the Python function `math.erf`.
        for (x, y) in [
            (0.1, 0.1124629160182849),
            (0.5, 0.5204998778130465),
            (1.0, 0.8427007929497149),
            (2.4, 0.9993114861033549),
            (2.6, 0.9997639655834707),
            (3.5, 0.9999992569016276),
        ] {
            assert!((erf(x) - y).abs() < 1e-14, "{x}: {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
        assert_eq!((erf(0.0), erf(7.0)), (0.0, 1.0));
    }

    #[test]
    fn integers_wrap_and_keep_the_sign_of_the_divisor() {
        assert_eq!(i8::MAX.add(1), i8::MIN);
        assert_eq!(((-4i32).floor_mod(3), 5i32.floor_mod(-3), 7u8.floor_mod(4)), (2, -1, 3));
        assert_eq!(((-4i32).truncated_mod(3), (-4.5f32).truncated_mod(2.0)), (-1, -0.5));
        assert_eq!((5i64.div(0), i64::MIN.div(-1)), (0, i64::MIN));
    }
}
