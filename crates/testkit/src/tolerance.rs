//! How far a result may be from the expected one, by class.

use std::fmt;

/// A class of agreement between two slices of numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tolerance {
    /// The same bits, except that any NaN equals any other.
    Exact,
    /// At most this many representable f32 values apart, element by element.
    Ulps(u32),
    /// Element by element, the difference is at most this.
    AbsoluteMax(f64),
    /// The root mean square of the differences is at most this share of that of the expected values.
    RelativeRms(f64),
    /// The cosine of the angle between the two slices as vectors is at least this.
    Cosine(f64),
}

/// How two slices disagree.
#[derive(Clone, Debug, PartialEq)]
pub enum Mismatch {
    /// They differ in length.
    Length {
        /// Of the result.
        actual: usize,
        /// Of what was expected.
        expected: usize,
    },
    /// One element is too far off: the worst one.
    Element {
        /// Its index.
        index: usize,
        /// What came out.
        actual: f32,
        /// What was expected.
        expected: f32,
        /// How far off, in the tolerance's unit.
        error: f64,
    },
    /// The slices as a whole are too far apart.
    Whole {
        /// How far, in the tolerance's unit.
        error: f64,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mismatch::Length { actual, expected } => write!(f, "{actual} elements, expected {expected}"),
            Mismatch::Element { index, actual, expected, error } => {
                write!(f, "element {index} is {actual}, expected {expected}: off by {error:e}")
            }
            Mismatch::Whole { error } => write!(f, "measured {error:e}"),
        }
    }
}

impl Tolerance {
    /// Compares `actual` with `expected`.
    ///
    /// # Errors
    /// [`Mismatch`], with the measured error. A NaN on one side only is never within a tolerance.
    pub fn check(self, actual: &[f32], expected: &[f32]) -> Result<(), Mismatch> {
        if actual.len() != expected.len() {
            return Err(Mismatch::Length { actual: actual.len(), expected: expected.len() });
        }
        match self {
            Tolerance::Exact => worst(actual, expected, ulps, 0.0),
            Tolerance::Ulps(limit) => worst(actual, expected, ulps, f64::from(limit)),
            Tolerance::AbsoluteMax(limit) => worst(actual, expected, absolute, limit),
            Tolerance::RelativeRms(limit) => {
                let error = relative_rms(actual, expected);
                if error <= limit { Ok(()) } else { Err(Mismatch::Whole { error }) }
            }
            Tolerance::Cosine(limit) => {
                let cosine = cosine(actual, expected);
                if cosine >= limit { Ok(()) } else { Err(Mismatch::Whole { error: cosine }) }
            }
        }
    }

    /// Panics with `what` and the measured error unless `actual` agrees with `expected`.
    ///
    /// # Panics
    /// If they disagree.
    #[track_caller]
    pub fn assert(self, what: &str, actual: &[f32], expected: &[f32]) {
        if let Err(mismatch) = self.check(actual, expected) {
            panic!("{what}: {mismatch}, beyond {self:?}");
        }
    }
}

fn worst(actual: &[f32], expected: &[f32], error: fn(f32, f32) -> f64, limit: f64) -> Result<(), Mismatch> {
    let mut found = None;
    for (index, (&a, &e)) in actual.iter().zip(expected).enumerate() {
        let error = error(a, e);
        let is_worse = |(_, worst): &(usize, f64)| error > *worst || error.is_nan();
        if found.as_ref().is_none_or(is_worse) {
            found = Some((index, error));
        }
        if error.is_nan() {
            break;
        }
    }
    match found {
        Some((index, error)) if error > limit || error.is_nan() => {
            Err(Mismatch::Element { index, actual: actual[index], expected: expected[index], error })
        }
        _ => Ok(()),
    }
}

fn absolute(actual: f32, expected: f32) -> f64 {
    if actual == expected || (actual.is_nan() && expected.is_nan()) {
        return 0.0;
    }
    (f64::from(actual) - f64::from(expected)).abs()
}

fn ulps(actual: f32, expected: f32) -> f64 {
    if actual.is_nan() && expected.is_nan() {
        return 0.0;
    }
    if actual.is_nan() || expected.is_nan() {
        return f64::NAN;
    }
    // Sign and magnitude to a line on which neighbours differ by one; both zeros are the same point.
    let line = |x: f32| {
        let bits = i64::from(x.to_bits() & 0x7fff_ffff);
        if x.is_sign_negative() { -bits } else { bits }
    };
    #[allow(clippy::cast_precision_loss)]
    let apart = (line(actual) - line(expected)).unsigned_abs() as f64;
    // A signed zero is not the same bits: half a step keeps it within any tolerance but `Exact`.
    if apart == 0.0 && actual.to_bits() != expected.to_bits() { 0.5 } else { apart }
}

/// Root mean square of the differences over that of the expected values; 0 if both are all zero.
pub fn relative_rms(actual: &[f32], expected: &[f32]) -> f64 {
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        actual.iter().zip(expected).map(|(a, e)| f(f64::from(*a), f64::from(*e))).sum()
    };
    let (difference, scale) = (sum(&|a, e| (a - e).powi(2)), sum(&|_, e| e * e));
    if difference == 0.0 { 0.0 } else { (difference / scale).sqrt() }
}

/// Cosine of the angle between two vectors; 1 if both are all zero.
pub fn cosine(actual: &[f32], expected: &[f32]) -> f64 {
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    let norms = (dot(actual, actual) * dot(expected, expected)).sqrt();
    if norms == 0.0 && actual == expected { 1.0 } else { dot(actual, expected) / norms }
}

#[cfg(test)]
mod tests {
    use super::{Mismatch, Tolerance};

    #[test]
    fn exact_tells_zeros_apart_and_lets_nan_equal_nan() {
        assert!(Tolerance::Exact.check(&[1.0, f32::NAN], &[1.0, f32::NAN]).is_ok());
        assert!(Tolerance::Exact.check(&[0.0], &[-0.0]).is_err());
        assert!(Tolerance::Ulps(0).check(&[1.0], &[1.0 + f32::EPSILON]).is_err());
    }

    #[test]
    fn ulps_count_representable_steps_across_zero() {
        let tiny = f32::from_bits(1);
        assert!(Tolerance::Ulps(2).check(&[tiny], &[-tiny]).is_ok());
        assert!(Tolerance::Ulps(1).check(&[tiny], &[-tiny]).is_err());
        assert!(Tolerance::Ulps(1).check(&[0.0], &[-0.0]).is_ok());
    }

    #[test]
    fn nan_on_one_side_passes_no_tolerance() {
        let all = [
            Tolerance::Exact,
            Tolerance::Ulps(u32::MAX),
            Tolerance::AbsoluteMax(f64::INFINITY),
            Tolerance::RelativeRms(f64::INFINITY),
            Tolerance::Cosine(-1.0),
        ];
        for tolerance in all {
            assert!(tolerance.check(&[f32::NAN, 1.0], &[0.0, 1.0]).is_err(), "{tolerance:?}");
            assert!(tolerance.check(&[0.0, 1.0], &[f32::NAN, 1.0]).is_err(), "{tolerance:?}");
        }
    }

    #[test]
    fn the_worst_element_is_reported() {
        let mismatch = Tolerance::AbsoluteMax(0.1).check(&[0.2, 3.0, 0.3], &[0.0; 3]);
        assert!(matches!(mismatch, Err(Mismatch::Element { index: 1, .. })), "{mismatch:?}");
    }

    #[test]
    fn wholes_are_measured_against_the_expected_scale() {
        let (expected, actual) = ([3.0, 4.0], [3.0, 4.5]);
        assert!(Tolerance::RelativeRms(0.11).check(&actual, &expected).is_ok());
        assert!(Tolerance::RelativeRms(0.09).check(&actual, &expected).is_err());
        assert!(Tolerance::Cosine(0.99).check(&actual, &expected).is_ok());
        assert!(Tolerance::Cosine(0.9999).check(&actual, &expected).is_err());
        assert!(Tolerance::RelativeRms(1.0).check(&[1.0], &[0.0]).is_err());
        assert!(Tolerance::Cosine(0.5).check(&[0.0], &[1.0]).is_err());
    }
}
