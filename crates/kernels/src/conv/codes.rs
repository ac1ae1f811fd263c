//! Convolutions of u8 codes with i8 weights; see [`crate::gemm::quads`].

pub mod depthwise;

use super::few::{self, Lines};
use super::{Geometry, Images, is_even, window_pointers};
use crate::KernelError;
use crate::codes::{Table, map_rows};
use crate::gemm::quads::{CodesTarget, Part, ROW_BLOCK_BYTES, Rows, SLACK, Scaling};
use crate::gemm::{Panels, ROWS, Scratch, blocks};
use crate::vector;
use std::ops::Range;

/// Codes of copied rows that should stay in the second-level cache.
const BLOCK: usize = 128 << 10;

/// A convolution of codes, as [`super::Convolution`] and [`super::few::Few`] are of numbers.
#[derive(Clone, Copy, Debug)]
pub struct CodesConvolution<'a> {
    /// Sizes.
    pub geometry: &'a Geometry,
    /// Input channels.
    pub channels: usize,
    /// Layout of the weights: [`Panels::quads`] of one piece for each place of the window, or, where [`few::fits`], for
    /// each of its rows.
    pub panels: &'a Panels,
    /// Packed weights; see [`super::tap_major`].
    pub packed: &'a [u8],
    /// Input; [`SLACK`] bytes lie behind the last pixel.
    pub x: Images<'a, u8>,
    /// Elements between the channels of a pixel: 1, but where [`few::fits`].
    pub channel_stride: usize,
    /// What stands for 0 in the input.
    pub zero: u8,
    /// What happens to sums.
    pub scaling: Scaling<'a>,
    /// Applied to results in codes.
    pub table: Option<&'a Table>,
    /// Row `r` is output pixel `r`.
    pub out: CodesTarget,
}

impl CodesConvolution<'_> {
    /// Computes the output pixels of the panels `columns`: `part` counts pixels, or, where [`few::fits`], rows of pixels.
    ///
    /// # Errors
    /// [`KernelError::Shape`] if lengths disagree.
    ///
    /// # Safety
    /// As for [`crate::gemm::quads::CodesProduct::run`].
    pub unsafe fn run(
        &self,
        part: Range<usize>,
        columns: Range<usize>,
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        let (geometry, panels) = (self.geometry, self.panels);
        let few = few::fits(geometry, self.channels);
        let span = (self.channels.max(1) - 1) * self.channel_stride + 1;
        self.x.check("convolution", geometry, if few { span } else { self.channels + SLACK })?;
        self.scaling.check("convolution", panels.padded())?;
        KernelError::check("convolution", self.packed.len(), 4 * panels.packed_len())?;
        let pieces = if few { geometry.kernel[0] } else { geometry.taps() };
        let expected = Panels::quads(
            panels.isa(),
            panels.shape().0,
            pieces,
            geometry.taps() * self.channels / pieces.max(1),
        );
        let most = geometry.pixels() / if few { geometry.output[1].max(1) } else { 1 };
        if *panels != expected
            || part.end > most
            || columns.end > panels.count()
            || !few && self.channel_stride != 1
        {
            let what = format!("{part:?} of {most}, panels {columns:?} of {panels:?} for {geometry:?}");
            return Err(KernelError::Shape { kernel: "convolution", what });
        }
        if part.is_empty() || columns.is_empty() {
            return Ok(());
        }
        if few {
            self.few(part, columns, scratch)
        } else {
            self.direct(part, columns, scratch)
        }
        Ok(())
    }

    fn direct(&self, pixels: Range<usize>, columns: Range<usize>, scratch: &mut Scratch) {
        let (geometry, panels) = (self.geometry, self.panels);
        let even = is_even(geometry, &self.x);
        let words = Panels::quad_words(self.channels);
        let step = geometry.stride[0] * geometry.stride[1];
        let block = (ROW_BLOCK_BYTES / (4 * words) / step.max(1)).clamp(2 * ROWS, 48 * ROWS);
        let Scratch { zero_codes: zeros, code_pointers: pointers, .. } = scratch;
        zeros.clear();
        zeros.resize(4 * words, self.zero);
        for range in blocks(pixels, block) {
            pointers.clear();
            if even {
                pointers.push(self.x.data[range.start * self.x.pixel_stride..].as_ptr());
            } else {
                window_pointers(geometry, self.x, 0, range.clone(), zeros, pointers);
            }
            let x = if even { Rows::Even(pointers, self.x.pixel_stride) } else { Rows::Any(pointers) };
            vector::run(panels.isa(), self.part(x, geometry.taps(), words, range.clone(), &columns));
            self.finish(range, &columns);
        }
    }

    fn few(&self, rows: Range<usize>, columns: Range<usize>, scratch: &mut Scratch) {
        let (geometry, channels) = (self.geometry, self.channels);
        let [kernel_rows, kernel_columns] = geometry.kernel;
        if geometry.output[1] == 0 {
            return;
        }
        let width = (geometry.output[1] - 1) * geometry.stride[1] + kernel_columns;
        let line = width * channels;
        let span = (kernel_rows - 1) * geometry.dilation[0] + 1;
        let most = (BLOCK / line / geometry.stride[0]).max(1);
        let words = Panels::quad_words(kernel_columns * channels);
        let mut row = rows.start;
        while row < rows.end {
            let (image, first) = (row / geometry.output[0], row % geometry.output[0]);
            let count = most.min(rows.end - row).min(geometry.output[0] - first);
            let lines = (count - 1) * geometry.stride[0] + span;
            scratch.codes.resize((lines * line + SLACK).max(scratch.codes.len()), 0);
            let CodesConvolution { channel_stride, x, zero, .. } = *self;
            let out = &mut scratch.codes[..lines * line];
            let copy = Lines { geometry, channels, channel_stride, x, image, first, line, zero, out };
            vector::run(self.panels.isa(), copy);
            let step = geometry.stride[1] * channels;
            let across = geometry.output[1];
            let pointers = &mut scratch.code_pointers;
            for r in 0..count {
                let at = |ky: usize| (r * geometry.stride[0] + ky * geometry.dilation[0]) * line;
                pointers.clear();
                pointers.extend((0..kernel_rows).map(|ky| scratch.codes[at(ky)..].as_ptr()));
                let pixels = (row + r) * across..(row + r + 1) * across;
                let part =
                    self.part(Rows::Even(pointers, step), kernel_rows, words, pixels.clone(), &columns);
                vector::run(self.panels.isa(), part);
                self.finish(pixels, &columns);
            }
            row += count;
        }
    }

    fn part<'p>(
        &'p self,
        x: Rows<'p>,
        taps: usize,
        words: usize,
        rows: Range<usize>,
        columns: &Range<usize>,
    ) -> Part<'p> {
        let CodesConvolution { panels, packed, scaling, out, .. } = *self;
        Part { panels, packed, x, taps, words, rows, columns: columns.clone(), scaling, out }
    }

    fn finish(&self, rows: Range<usize>, columns: &Range<usize>) {
        if let (Some(table), CodesTarget::Codes { data, stride }) = (self.table, self.out) {
            let (first, width) = self.panels.outputs(columns);
            // SAFETY: these rows and outputs were written just before.
            unsafe { map_rows(table, data.add(rows.start * stride + first), rows.len(), width, stride) };
        }
    }
}

#[cfg(test)]
mod tests;
