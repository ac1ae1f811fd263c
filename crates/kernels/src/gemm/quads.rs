//! Products of u8 codes with i8 weights: four elements of the depth in the room of one f32.
//!
//! Codes stand for numbers: `(code - zero) * scale`. Weights have a scale for each output and no zero, so that a sum of
//! products of codes, less what the zero of the rows adds to it, is whole, exact, and one factor away from the result.
//! Quads lie as f32 do in [`Panels`].

mod computed;
mod tile;

pub use computed::row_starts;
pub(crate) use tile::{Part, Rows};

use super::{Panels, blocks};
use crate::codes::{Table, map_rows};
use crate::{Isa, KernelError, vector};
use std::ops::Range;

/// Bytes that may be read behind the last element of rows: depths are rounded up to quads, whose weights are 0 there.
pub const SLACK: usize = 3;
/// Bytes of rows that should stay in the second-level cache while panels pass by.
pub(crate) const ROW_BLOCK_BYTES: usize = 384 << 10;

/// What u8 codes stand for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Code {
    /// Distance between neighbours.
    pub scale: f32,
    /// What stands for 0.
    pub zero: u8,
}

impl Code {
    /// What `code` stands for.
    pub fn decode(&self, code: u8) -> f32 {
        (f32::from(code) - f32::from(self.zero)) * self.scale
    }

    /// The nearest code, ties to even.
    pub fn encode(&self, x: f32) -> u8 {
        // NaN becomes 0.
        ((x / self.scale).round_ties_even() + f32::from(self.zero)).clamp(0.0, 255.0) as u8
    }
}

impl Panels {
    /// The layout of an `[n, pieces * depth]` matrix of i8, for rows that consist of `pieces` pieces of `depth` codes.
    pub fn quads(isa: Isa, n: usize, pieces: usize, depth: usize) -> Panels {
        let steps = pieces * depth.div_ceil(4);
        Panels { steps, pieces: Some(pieces), ..Panels::new(isa, n, pieces * depth) }
    }

    /// Packs i8 weights, of which output `n` at depth `k` is element `n * n_stride + k * k_stride`, into
    /// 4 * [`Panels::packed_len`] bytes, and gives the sum of the weights of each output.
    ///
    /// # Errors
    /// [`KernelError::Shape`] if a length is wrong.
    pub fn pack_quads(
        &self,
        source: &[i8],
        [n_stride, k_stride]: [usize; 2],
        out: &mut [u8],
    ) -> Result<Vec<i32>, KernelError> {
        KernelError::check("pack", out.len(), 4 * self.packed_len())?;
        let mut sums = vec![0; self.n];
        if self.n == 0 || self.k == 0 {
            return Ok(sums);
        }
        let last = (self.n - 1) * n_stride + (self.k - 1) * k_stride;
        if last >= source.len() {
            let what = format!("element {last} of a matrix of {}", source.len());
            return Err(KernelError::Shape { kernel: "pack", what });
        }
        let depth = self.k / self.pieces.unwrap_or(1).max(1);
        let words = depth.div_ceil(4);
        for index in 0..self.count {
            let panel = self.panel(index);
            let row = panel.vectors * self.lanes;
            let out = &mut out[4 * panel.offset..][..4 * row * self.steps];
            for (step, out) in out.chunks_exact_mut(4 * row).enumerate() {
                let (piece, word) = (step / words, step % words);
                let inside = 4.min(depth - 4 * word);
                for (n, quad) in out.chunks_exact_mut(4).enumerate() {
                    quad.fill(0);
                    if n >= panel.width {
                        continue;
                    }
                    let at = (panel.first + n) * n_stride + (piece * depth + 4 * word) * k_stride;
                    for (i, byte) in quad[..inside].iter_mut().enumerate() {
                        let weight = source[at + i * k_stride];
                        sums[panel.first + n] += i32::from(weight);
                        *byte = weight.cast_unsigned();
                    }
                }
            }
        }
        Ok(sums)
    }

    /// Bytes that a piece of `depth` codes takes in the layout of quads.
    pub(crate) fn quad_words(depth: usize) -> usize {
        depth.div_ceil(4)
    }
}

/// What sums begin with so that the zero of the rows falls away: `bias` (in units of products of codes) less `zero` times
/// the sum of the weights of each output, for kernels of `isa`.
pub fn starts(isa: Isa, zero: u8, sums: &[i32], bias: &[i32]) -> Vec<i32> {
    let offset = i64::from(zero) - i64::from(vector::dot_offset(isa));
    let start = |(n, &sum): (usize, &i32)| {
        let bias = bias.get(n).copied().unwrap_or(0);
        // Wraps as the sums do, which come out right if the result is an i32.
        (i64::from(bias) - offset * i64::from(sum)) as i32
    };
    sums.iter().enumerate().map(start).collect()
}

/// What is added to the codes of a result: `(own * (code - zero) + factor * (other - other_zero))`, rounded to the code of the
/// sum.
#[derive(Clone, Copy, Debug)]
pub struct CodesAdded {
    /// First element of row 0.
    pub data: *const u8,
    /// Elements between rows.
    pub stride: usize,
    /// Scale of the result before by that of the sum.
    pub own: f32,
    /// Scale of what is added by that of the sum.
    pub factor: f32,
    /// The zero of what is added.
    pub zero: u8,
    /// Zero, lowest and highest code of the sum.
    pub bounds: [u8; 3],
}

/// From sums to codes or numbers: `sum * scale + bias`, within bounds.
#[derive(Clone, Copy, Debug)]
pub struct Scaling<'a> {
    /// [`Panels::padded`] numbers that sums begin with; see [`starts`].
    pub start: &'a [i32],
    /// One number for each row that its sums begin with as well, or none; see [`row_starts`].
    pub rows: &'a [i32],
    /// [`Panels::padded`] factors.
    pub scale: &'a [f32],
    /// [`Panels::padded`] summands, or none.
    pub bias: &'a [f32],
    /// Zero, lowest and highest code of a result in codes.
    pub codes: [u8; 3],
    /// Bounds of a result in numbers.
    pub numbers: [f32; 2],
    /// Added to a result in codes.
    pub added: Option<CodesAdded>,
}

impl Scaling<'_> {
    pub(crate) fn check(&self, kernel: &'static str, padded: usize) -> Result<(), KernelError> {
        KernelError::check(kernel, self.start.len(), padded)?;
        KernelError::check(kernel, self.scale.len(), padded)?;
        KernelError::check(kernel, self.bias.len(), if self.bias.is_empty() { 0 } else { padded })
    }
}

/// Where results go: row `r`, output `n` is element `r * stride + n`.
#[derive(Clone, Copy, Debug)]
pub enum CodesTarget {
    /// As codes.
    Codes {
        /// First element of row 0.
        data: *mut u8,
        /// Elements between rows.
        stride: usize,
    },
    /// As f32.
    Numbers {
        /// First element of row 0.
        data: *mut f32,
        /// Elements between rows.
        stride: usize,
    },
}

/// `out[r, n] = scaling(sum over k of x[r, k] * matrix[n, k])` for rows of codes.
#[derive(Clone, Copy, Debug)]
pub struct CodesProduct<'a> {
    /// Layout of the matrix; see [`Panels::quads`].
    pub panels: &'a Panels,
    /// As [`Panels::pack_quads`] left it.
    pub packed: &'a [u8],
    /// Row `r` is `x[r * x_stride ..][..k]`; [`SLACK`] more bytes lie behind the last.
    pub x: &'a [u8],
    /// Elements between rows.
    pub x_stride: usize,
    /// What happens to sums.
    pub scaling: Scaling<'a>,
    /// Applied to results in codes.
    pub table: Option<&'a Table>,
    /// Where they go.
    pub out: CodesTarget,
}

impl CodesProduct<'_> {
    /// Computes the rows `rows` of the panels `columns`.
    ///
    /// # Errors
    /// [`KernelError::Shape`] if lengths disagree.
    ///
    /// # Safety
    /// `out` must be valid for writes of `rows` and the outputs of `columns`, which no other thread touches meanwhile;
    /// what is added must be valid for reading the same, and is not `out`.
    pub unsafe fn run(&self, rows: Range<usize>, columns: Range<usize>) -> Result<(), KernelError> {
        let panels = self.panels;
        KernelError::check("product", self.packed.len(), 4 * panels.packed_len())?;
        self.scaling.check("product", panels.padded())?;
        if rows.is_empty() || columns.is_empty() {
            return Ok(());
        }
        let end = (rows.end - 1)
            .checked_mul(self.x_stride)
            .and_then(|at| at.checked_add(4 * panels.steps))
            .filter(|&end| end <= self.x.len());
        let starts = self.scaling.rows.is_empty() || self.scaling.rows.len() >= rows.end;
        if end.is_none() || !starts || columns.end > panels.count || panels.pieces != Some(1) {
            let what = format!(
                "rows {rows:?} of {} at stride {} of {} codes, panels {columns:?} of {}",
                panels.k,
                self.x_stride,
                self.x.len(),
                panels.count
            );
            return Err(KernelError::Shape { kernel: "product", what });
        }
        let block = (ROW_BLOCK_BYTES / (4 * panels.steps).max(1)).clamp(2 * super::ROWS, 64 * super::ROWS);
        for range in blocks(rows, block) {
            // In bounds: checked for the last row.
            let first = self.x[range.start * self.x_stride..].as_ptr();
            let part = Part {
                panels,
                packed: self.packed,
                x: Rows::Even(&[first], self.x_stride),
                taps: 1,
                words: panels.steps,
                rows: range.clone(),
                columns: columns.clone(),
                scaling: self.scaling,
                out: self.out,
            };
            vector::run(panels.isa, part);
            if let (Some(table), CodesTarget::Codes { data, stride }) = (self.table, self.out) {
                let (first, width) = panels.outputs(&columns);
                // SAFETY: these rows and outputs were written just before.
                unsafe {
                    map_rows(table, data.add(range.start * stride + first), range.len(), width, stride)
                };
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
