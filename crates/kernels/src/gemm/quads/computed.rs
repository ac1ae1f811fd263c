//! Products of codes with a matrix that is computed as well: u8 codes with a zero of their own, packed less 128.
//!
//! `(a - za) * (b - zb)`, summed over the depth, is `a * (b - 128)`, less `za` times the sum of an output's `b - 128`
//! ([`super::starts`]), and `128 - zb` times the sum of a row's `a - za` ([`row_starts`]).

use super::Panels;
use crate::vector::{self, Kernel, Vector};
use crate::{Isa, KernelError};

/// What codes of a computed matrix are packed less.
const MIDDLE: u8 = 128;

impl Panels {
    /// Packs u8 codes less 128, of which output `n` at depth `k` is element `n * n_stride + k * k_stride`, into
    /// 4 * [`Panels::packed_len`] bytes; `sums` become those of the packed codes of each output.
    ///
    /// # Errors
    /// [`KernelError::Shape`] if a length is wrong or rows have several pieces.
    pub fn pack_codes(
        &self,
        source: &[u8],
        [n_stride, k_stride]: [usize; 2],
        out: &mut [u8],
        sums: &mut Vec<i32>,
    ) -> Result<(), KernelError> {
        KernelError::check("pack", out.len(), 4 * self.packed_len())?;
        KernelError::check("pack", self.pieces.unwrap_or(0), 1)?;
        sums.clear();
        sums.resize(self.n, 0);
        if self.n == 0 || self.k == 0 {
            return Ok(());
        }
        let last = (self.n - 1) * n_stride + (self.k - 1) * k_stride;
        if last >= source.len() {
            let what = format!("element {last} of a matrix of {}", source.len());
            return Err(KernelError::Shape { kernel: "pack", what });
        }
        vector::run(self.isa, Pack { panels: self, source, strides: [n_stride, k_stride], out, sums });
        Ok(())
    }
}

struct Pack<'a> {
    panels: &'a Panels,
    source: &'a [u8],
    strides: [usize; 2],
    out: &'a mut [u8],
    sums: &'a mut [i32],
}

impl Kernel for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, _: V) {
        let Pack { panels, source, strides: [n_stride, k_stride], out, sums } = self;
        for index in 0..panels.count {
            let panel = panels.panel(index);
            let row = panel.vectors * panels.lanes;
            let out = &mut out[4 * panel.offset..][..4 * row * panels.steps];
            let sums = &mut sums[panel.first..][..panel.width];
            for (step, out) in out.chunks_exact_mut(4 * row).enumerate() {
                let inside = 4.min(panels.k - 4 * step);
                let (quads, padding) = out.split_at_mut(4 * panel.width);
                padding.fill(0);
                let quads = quads.as_chunks_mut::<4>().0;
                let at = panel.first * n_stride + 4 * step * k_stride;
                if inside == 4 && k_stride == 1 {
                    for (n, quad) in quads.iter_mut().enumerate() {
                        quad.copy_from_slice(&source[at + n * n_stride..][..4]);
                    }
                } else if inside == 4 && n_stride == 1 {
                    let lines: [&[u8]; 4] =
                        std::array::from_fn(|i| &source[at + i * k_stride..][..panel.width]);
                    for (n, quad) in quads.iter_mut().enumerate() {
                        *quad = [lines[0][n], lines[1][n], lines[2][n], lines[3][n]];
                    }
                } else {
                    for (n, quad) in quads.iter_mut().enumerate() {
                        let code = |i: usize| source[at + n * n_stride + i * k_stride];
                        *quad = std::array::from_fn(|i| if i < inside { code(i) } else { MIDDLE });
                    }
                }
                for (quad, sum) in quads.iter_mut().zip(&mut *sums) {
                    *quad = quad.map(|code| code ^ MIDDLE);
                    *sum += quad.iter().map(|code| i32::from(code.cast_signed())).sum::<i32>();
                }
            }
        }
    }
}

/// What the sums of each row of `x` begin with for a computed matrix of codes whose zero is `other`; `zero` is that of the rows.
/// Row `r` is `x[r * stride ..][..k]`.
///
/// # Errors
/// [`KernelError::Shape`] if `x` is too short.
pub fn row_starts(
    isa: Isa,
    x: &[u8],
    [count, stride, k]: [usize; 3],
    [zero, other]: [u8; 2],
    starts: &mut Vec<i32>,
) -> Result<(), KernelError> {
    starts.clear();
    if other == MIDDLE || count == 0 {
        return Ok(());
    }
    if (count - 1) * stride + k > x.len() {
        let what = format!("{count} rows of {k}, {stride} apart, of {}", x.len());
        return Err(KernelError::Shape { kernel: "row sums", what });
    }
    starts.resize(count, 0);
    vector::run(isa, RowStarts { x, stride, k, zero, other, starts });
    Ok(())
}

struct RowStarts<'a> {
    x: &'a [u8],
    stride: usize,
    k: usize,
    zero: u8,
    other: u8,
    starts: &'a mut [i32],
}

impl Kernel for RowStarts<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, _: V) {
        let factor = i32::from(MIDDLE) - i32::from(self.other);
        // Whole as the sums are, which have room for more.
        let zeros = self.k as i32 * i32::from(self.zero);
        for (r, start) in self.starts.iter_mut().enumerate() {
            let row = &self.x[r * self.stride..][..self.k];
            *start = factor * (row.iter().map(|code| i32::from(*code)).sum::<i32>() - zeros);
        }
    }
}
