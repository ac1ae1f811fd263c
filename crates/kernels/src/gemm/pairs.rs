//! Products in bf16: two elements of the depth in the room of one f32.
//!
//! Pairs lie as f32 do, so that tiles differ in one instruction. Matrices are rounded when they are packed, rows when a
//! block of them is multiplied; sums are f32.

use super::Panels;
use super::tile::{load_first, store_first};
use crate::Isa;
use crate::vector::{self, Kernel, Vector};

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

    /// Rounds pieces of `depth` elements, one every `stride` elements of `x`, to pairs, one after the other.
    ///
    /// # Panics
    /// If `x` or `out` is too short.
    pub(crate) fn round(&self, x: &[f32], stride: usize, count: usize, depth: usize, out: &mut [f32]) {
        if count > 0 && depth > 0 {
            let (count, depth) =
                if stride == depth && depth.is_multiple_of(2) { (1, count * depth) } else { (count, depth) };
            assert!((count - 1) * stride + depth <= x.len() && count * depth.div_ceil(2) <= out.len());
            vector::run_pairs(Round { x, stride, count, depth, out });
        }
    }
}

/// See [`Panels::round`], which checks the lengths.
struct Round<'a> {
    x: &'a [f32],
    stride: usize,
    count: usize,
    depth: usize,
    out: &'a mut [f32],
}

impl Kernel for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let words = self.depth.div_ceil(2);
        for piece in 0..self.count {
            let x = self.x[piece * self.stride..].as_ptr();
            let out = self.out[piece * words..].as_mut_ptr();
            for at in (0..self.depth).step_by(2 * V::LANES) {
                let rest = self.depth - at;
                // SAFETY: a piece has `depth` elements and `words` words; the second half of an odd piece's last pair is 0.
                unsafe {
                    let first = load_first(v, x.add(at), rest);
                    let second = match rest.checked_sub(V::LANES) {
                        None | Some(0) => v.splat(0.0),
                        Some(rest) => load_first(v, x.add(at + V::LANES), rest),
                    };
                    store_first(v, out.add(at / 2), words - at / 2, v.pairs(first, second));
                }
            }
        }
    }
}

/// At least `len` words of memory that calls reuse.
pub(crate) fn grown(memory: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if memory.len() < len {
        memory.resize(len, 0.0);
    }
    &mut memory[..len]
}
