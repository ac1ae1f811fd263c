//! Products in bf16: two elements of the depth in the room of one f32.
//!
//! Pairs lie as f32 do, so that tiles differ in one instruction. Matrices are rounded when they are packed, rows when a
//! block of them is multiplied; sums are f32.

use super::{Panel, Panels};
use crate::Isa;
use crate::linear::round_to_bf16;
use crate::vector;

/// Two numbers, rounded to nearest even, in the room of one; a NaN stays one.
#[inline(always)]
fn pair(low: f32, high: f32) -> f32 {
    let round = |x: f32| {
        let bits = x.to_bits();
        if x.is_nan() { bits | 0x40_0000 } else { bits.wrapping_add(0x7fff + (bits >> 16 & 1)) }
    };
    f32::from_bits(round(low) >> 16 | round(high) & 0xffff_0000)
}

impl Panels {
    /// The layout of an `[n, pieces * depth]` matrix in bf16, for rows that consist of `pieces` pieces of `depth` elements;
    /// `None` on machines without dot products of bf16.
    pub fn pairs(isa: Isa, n: usize, pieces: usize, depth: usize) -> Option<Panels> {
        let steps = pieces * depth.div_ceil(2);
        vector::has_pairs(isa).then(|| Panels {
            steps,
            pieces: Some(pieces),
            ..Panels::new(isa, n, pieces * depth)
        })
    }

    /// The layout of an `[n, pieces * depth]` matrix: in bf16 if that is asked for and there, else in f32.
    pub fn with_precision(isa: Isa, bf16: bool, n: usize, pieces: usize, depth: usize) -> Panels {
        let half = super::lanes(Isa::Avx2);
        if matches!(isa, Isa::Avx512 | Isa::Avx512Bf16) && n <= half {
            // Registers of half the width are full, and two of them are multiplied at a time.
            return Panels::new(Isa::Avx2, n, pieces * depth);
        }
        let pairs = if bf16 { Panels::pairs(isa, n, pieces, depth) } else { None };
        pairs.unwrap_or_else(|| Panels::new(isa, n, pieces * depth))
    }

    /// Whether products are of pairs.
    pub fn has_pairs(&self) -> bool {
        self.pieces.is_some()
    }

    /// Words that a piece of `depth` elements takes.
    pub(crate) fn words(&self, depth: usize) -> usize {
        if self.has_pairs() { depth.div_ceil(2) } else { depth }
    }

    /// Packs one panel.
    pub(super) fn pack_pairs(
        &self,
        pieces: usize,
        panel: &Panel,
        source: &[f32],
        [n_stride, k_stride]: [usize; 2],
        out: &mut [f32],
    ) {
        let depth = self.k / pieces.max(1);
        let words = depth.div_ceil(2);
        let row = panel.vectors * self.lanes;
        if n_stride == 1 {
            for step in 0..self.steps {
                let (piece, word) = (step / words, step % words);
                let line = |k: usize| {
                    let at = panel.first + (piece * depth + k) * k_stride;
                    if k < depth { &source[at..at + panel.width] } else { &[] }
                };
                let (low, high) = (line(2 * word), line(2 * word + 1));
                let out = &mut out[step * row..][..row];
                out[panel.width..].fill(0.0);
                for (n, (out, low)) in out.iter_mut().zip(low).enumerate() {
                    *out = pair(*low, high.get(n).copied().unwrap_or(0.0));
                }
            }
            return;
        }
        // A few outputs at a time, so that both sides stay in the cache.
        for block in (0..self.steps).step_by(64) {
            let end = (block + 64).min(self.steps);
            for n in 0..row {
                let from = (panel.first + n) * n_stride;
                for step in block..end {
                    let (piece, word) = (step / words, step % words);
                    let at = |k: usize| {
                        let at = from + (piece * depth + k) * k_stride;
                        if n < panel.width && k < depth { source[at] } else { 0.0 }
                    };
                    out[step * row + n] = pair(at(2 * word), at(2 * word + 1));
                }
            }
        }
    }

    /// Rounds pieces of `depth` elements to pairs, one after the other; gives the first.
    pub(crate) fn round<'a>(
        &self,
        pieces: impl ExactSizeIterator<Item = &'a [f32]>,
        depth: usize,
        out: &mut Vec<f32>,
    ) -> *const f32 {
        let words = depth.div_ceil(2);
        let needed = pieces.len() * words;
        if out.len() < needed {
            out.resize(needed, 0.0);
        }
        for (piece, out) in pieces.zip(out.chunks_exact_mut(words.max(1))) {
            // SAFETY: as many bytes as the words have; any bits are an f32.
            let bytes = unsafe { std::slice::from_raw_parts_mut(out.as_mut_ptr().cast::<u8>(), 4 * words) };
            // The second half of an odd piece's last pair.
            bytes[2 * depth..].fill(0);
            round_to_bf16(self.isa, &piece[..depth], &mut bytes[..2 * depth]);
        }
        out.as_ptr()
    }
}
