//! Loops over a row of logits, one for each token of a vocabulary.
//!
//! Plain loops that the compiler turns into code of the instruction set that they are started in. They multiply and add and
//! never fuse the two, so every machine picks the same tokens.

use crate::Isa;
use crate::vector::{self, Kernel, Vector};

const LANES: usize = 16;

/// `e^x` for `x <= 0`; relative error below 2e-7; 0 below -87.
///
/// Only multiplications and additions, so that every machine rounds alike.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // 1.5 * 2^23: adding it leaves the rounded integer in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x > -87.0 { x } else { -87.0 };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (clamped - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = 1.987_569_1e-4f32;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let value = (p * r) * r + r + 1.0;
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    if x > -87.0 { value * scale } else { 0.0 }
}

/// The greatest of `values`, or `None` if one is NaN or positive infinity, or if none is finite.
pub fn greatest(values: &[f32]) -> Option<f32> {
    vector::run(Isa::detect(), Greatest(values))
}

struct Greatest<'a>(&'a [f32]);

impl Kernel for Greatest<'_> {
    type Output = Option<f32>;

    #[inline(always)]
    fn run<V: Vector>(self, _: V) -> Option<f32> {
        greatest_of(self.0)
    }
}

#[inline(always)]
fn greatest_of(values: &[f32]) -> Option<f32> {
    let (blocks, rest) = values.as_chunks::<LANES>();
    let mut best = [f32::NEG_INFINITY; LANES];
    let mut sound = [true; LANES];
    for block in blocks {
        for lane in 0..LANES {
            let x = block[lane];
            best[lane] = if x > best[lane] { x } else { best[lane] };
            sound[lane] &= x < f32::INFINITY;
        }
    }
    let mut top = f32::NEG_INFINITY;
    let mut good = sound.iter().all(|s| *s);
    for x in best.iter().chain(rest) {
        top = if *x > top { *x } else { top };
        good &= *x < f32::INFINITY;
    }
    (good && top > f32::NEG_INFINITY).then_some(top)
}

/// [`greatest`] and where the first of its equals is, in one pass over the values.
pub fn first_greatest(values: &[f32]) -> Option<(usize, f32)> {
    // Only the block that holds it is searched, while it is still in the first-level cache or near it.
    let mut first = None;
    for (at, block) in values.chunks(BLOCK).enumerate() {
        match greatest(block) {
            Some(top) if first.is_none_or(|(_, best)| top > best) => first = Some((at * BLOCK, top)),
            Some(_) => {}
            // Without a finite value, or broken.
            None if block.iter().all(|x| *x == f32::NEG_INFINITY) => {}
            None => return None,
        }
    }
    let (start, top) = first?;
    Some((start + values[start..].iter().position(|x| *x == top)?, top))
}

/// Values summed at once, in f32, before they go into an f64 sum.
pub const BLOCK: usize = 1024;

/// `e^((x - shift) * factor)` for each of `values`, none above `shift`.
#[derive(Clone, Copy, Debug)]
pub struct Exponentials<'a> {
    /// Logits.
    pub values: &'a [f32],
    /// The greatest of them, or more.
    pub shift: f32,
    /// One over the temperature.
    pub factor: f32,
}

impl Exponentials<'_> {
    /// Writes the sum of each [`BLOCK`] to `sums`; gives the total.
    pub fn sum(self, sums: &mut Vec<f64>) -> f64 {
        vector::run(Isa::detect(), Sums { of: self, sums, out: None })
    }

    /// As [`Exponentials::sum`], and writes the exponentials themselves to `out`.
    pub fn write(self, out: &mut Vec<f32>, sums: &mut Vec<f64>) -> f64 {
        out.clear();
        out.resize(self.values.len(), 0.0);
        vector::run(Isa::detect(), Sums { of: self, sums, out: Some(out) })
    }

    #[inline(always)]
    fn block(self, values: &[f32], out: &mut [f32]) {
        for (out, x) in out.iter_mut().zip(values) {
            *out = exp((x - self.shift) * self.factor);
        }
    }
}

struct Sums<'a, 'b> {
    of: Exponentials<'a>,
    sums: &'b mut Vec<f64>,
    out: Option<&'b mut [f32]>,
}

impl Kernel for Sums<'_, '_> {
    type Output = f64;

    #[inline(always)]
    fn run<V: Vector>(mut self, _: V) -> f64 {
        self.sums.clear();
        let (mut total, mut own) = (0.0, [0.0f32; BLOCK]);
        for (index, values) in self.of.values.chunks(BLOCK).enumerate() {
            let out = match &mut self.out {
                Some(out) => &mut out[index * BLOCK..][..values.len()],
                None => &mut own[..values.len()],
            };
            self.of.block(values, out);
            let sum = sum(out);
            self.sums.push(sum);
            total += sum;
        }
        total
    }
}

#[inline(always)]
fn sum(values: &[f32]) -> f64 {
    let (blocks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0.0f32; LANES];
    for block in blocks {
        for lane in 0..LANES {
            lanes[lane] += block[lane];
        }
    }
    lanes.iter().chain(rest).map(|v| f64::from(*v)).sum()
}

/// Natural logarithm of the sum of `e^x`; `greatest` is their greatest value.
pub fn log_sum_exp(values: &[f32], greatest: f32) -> f64 {
    let all = Exponentials { values, shift: greatest, factor: 1.0 };
    f64::from(greatest) + all.sum(&mut Vec::new()).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_to_the_library_function() {
        let mut worst = 0.0f64;
        for i in 0..870_000 {
            let x = -(i as f32) * 1e-4;
            let want = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - want).abs() / want);
        }
        assert!(worst < 2e-7, "{worst:e}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-200.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    }

    #[test]
    fn greatest_refuses_what_no_softmax_can_take() {
        for len in [1, 15, 16, 17, 100] {
            for at in 0..len {
                let mut values = vec![-1.0f32; len];
                values[at] = 3.0;
                assert_eq!(greatest(&values), Some(3.0));
                values[at] = f32::NAN;
                assert_eq!(greatest(&values), None, "NaN at {at} of {len}");
                values[at] = f32::INFINITY;
                assert_eq!(greatest(&values), None, "infinity at {at} of {len}");
                values.fill(f32::NEG_INFINITY);
                assert_eq!(greatest(&values), None);
                values[at] = -5.0;
                assert_eq!(greatest(&values), Some(-5.0));
            }
        }
        assert_eq!(greatest(&[]), None);
    }

    #[test]
    fn the_first_of_equals_is_found_in_any_block() {
        let values = |top: &[usize]| {
            let mut values = vec![f32::NEG_INFINITY; 3000];
            values[17] = -8.0;
            top.iter().for_each(|at| values[*at] = 2.0);
            values
        };
        for top in [&[0][..], &[1023, 1024], &[1024, 2999], &[2999], &[5, 6, 7]] {
            assert_eq!(first_greatest(&values(top)), Some((top[0], 2.0)));
        }
        assert_eq!(first_greatest(&values(&[])), Some((17, -8.0)));
        for broken in [f32::NAN, f32::INFINITY] {
            for at in [0, 1500, 2999] {
                let mut values = values(&[4]);
                values[at] = broken;
                assert_eq!(first_greatest(&values), None, "{broken} at {at}");
            }
        }
        assert_eq!(first_greatest(&[f32::NEG_INFINITY; 2000]), None);
        assert_eq!(first_greatest(&[]), None);
    }

    #[test]
    fn sums_agree_with_double_precision() {
        let values: Vec<f32> = (0..5000).map(|i| ((i * 37) % 101) as f32 * 0.1 - 3.0).collect();
        let top = greatest(&values).unwrap();
        let want: f64 = values.iter().map(|v| f64::from(*v).exp()).sum();
        assert!((log_sum_exp(&values, top) - want.ln()).abs() < 1e-6);
        let (mut out, mut sums) = (Vec::new(), Vec::new());
        let halves = Exponentials { values: &values, shift: top, factor: 0.5 };
        let total = halves.write(&mut out, &mut sums);
        let want: f64 = values.iter().map(|v| (f64::from(v - top) * 0.5).exp()).sum();
        assert!((total / want - 1.0).abs() < 1e-6);
        assert_eq!(out.len(), values.len());
        assert_eq!(sums.len(), 5);
        let written = sums.clone();
        assert_eq!((halves.sum(&mut sums), &sums), (total, &written));
    }
}
