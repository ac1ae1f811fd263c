//! Matrices into panels.

use crate::vector::{Kernel, Vector};

/// Outputs and words of the depth that are turned at a time, so that both sides stay in the first-level cache.
const WORDS: usize = 64;

/// One panel, or some of its depths; lengths are checked by whoever makes it.
pub(super) struct Pack<'a> {
    /// Outputs.
    pub width: usize,
    /// Outputs with padding.
    pub row: usize,
    /// Elements of a piece of the depth.
    pub depth: usize,
    /// Pieces, of pairs; none of single numbers.
    pub pieces: Option<usize>,
    /// Output `n` at depth `k` is `n * strides[0] + k * strides[1]`.
    pub source: &'a [f32],
    pub strides: [usize; 2],
    pub out: &'a mut [f32],
}

impl Kernel for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, _: V) {
        match (self.pieces, self.strides) {
            (None, [1, _]) => self.lines(),
            (None, _) => self.turned(),
            (Some(_), [1, _]) => self.lines_of_pairs(),
            (Some(_), _) => self.turned_pairs(),
        }
    }
}

impl Pack<'_> {
    #[inline(always)]
    fn lines(self) {
        for (k, out) in self.out.chunks_exact_mut(self.row).enumerate() {
            let from = &self.source[k * self.strides[1]..][..self.width];
            out[..self.width].copy_from_slice(from);
            out[self.width..].fill(0.0);
        }
    }

    #[inline(always)]
    fn turned(self) {
        let [n_stride, k_stride] = self.strides;
        for block in (0..self.depth).step_by(WORDS) {
            let end = (block + WORDS).min(self.depth);
            for n in 0..self.row {
                for k in block..end {
                    let at = n * n_stride + k * k_stride;
                    self.out[k * self.row + n] = if n < self.width { self.source[at] } else { 0.0 };
                }
            }
        }
    }

    #[inline(always)]
    fn lines_of_pairs(self) {
        let (words, k_stride) = (self.depth.div_ceil(2), self.strides[1]);
        for (step, out) in self.out.chunks_exact_mut(self.row).enumerate() {
            let (piece, word) = (step / words, step % words);
            let at = (piece * self.depth + 2 * word) * k_stride;
            let low = &self.source[at..][..self.width];
            out[self.width..].fill(0.0);
            if 2 * word + 1 < self.depth {
                let high = &self.source[at + k_stride..][..self.width];
                for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
                    *out = pair(*low, *high);
                }
            } else {
                out.iter_mut().zip(low).for_each(|(out, low)| *out = pair(*low, 0.0));
            }
        }
    }

    #[inline(always)]
    fn turned_pairs(self) {
        let [n_stride, k_stride] = self.strides;
        let words = self.depth.div_ceil(2);
        let steps = words * self.pieces.unwrap_or(1);
        for block in (0..steps).step_by(WORDS) {
            let end = (block + WORDS).min(steps);
            for n in 0..self.row {
                for step in block..end {
                    let (piece, word) = (step / words, step % words);
                    let at = |k: usize| {
                        let at = n * n_stride + (piece * self.depth + k) * k_stride;
                        if n < self.width && k < self.depth { self.source[at] } else { 0.0 }
                    };
                    self.out[step * self.row + n] = pair(at(2 * word), at(2 * word + 1));
                }
            }
        }
    }
}

/// Two numbers, rounded to nearest even, in the room of one; a NaN stays one.
#[inline(always)]
pub(crate) fn pair(low: f32, high: f32) -> f32 {
    let round = |x: f32| {
        let bits = x.to_bits();
        if x.is_nan() { bits | 0x40_0000 } else { bits.wrapping_add(0x7fff + (bits >> 16 & 1)) }
    };
    f32::from_bits(round(low) >> 16 | round(high) & 0xffff_0000)
}
