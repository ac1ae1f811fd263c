//! Convolutions of images with few channels, such as the first one of a network that reads pictures.
//!
//! Rows of the image are copied with zeros around them and the channels of a pixel together, so that a row of the window is
//! one piece and neighbouring windows are evenly spaced. The image may lie in any order: planes as well as pixels.

use super::{Geometry, Images};
use crate::KernelError;
use crate::gemm::pairs::grown;
use crate::gemm::tile::{Part, Rows};
use crate::gemm::{Epilogue, Matrix, Panels, Scratch, Target, blocks};
use crate::vector::{self, Kernel, Vector};
use std::ops::Range;

/// Most channels of the images that this is for.
const CHANNELS: usize = 16;
/// Elements of copied rows that should stay in the second-level cache.
const BLOCK: usize = 32 << 10;
/// Output columns from which on a row is a block of its own.
const WIDE: usize = 48;

/// Whether a convolution of `channels` channels in one group has the form that this file computes.
pub fn fits(geometry: &Geometry, channels: usize) -> bool {
    channels <= CHANNELS && geometry.taps() > 1 && geometry.dilation[1] == 1
}

/// Whether neighbouring windows start at whole pairs, which products in bf16 need.
pub fn takes_pairs(geometry: &Geometry, channels: usize) -> bool {
    (geometry.stride[1] * channels).is_multiple_of(2)
}

/// A convolution of the form of [`fits`].
#[derive(Clone, Copy, Debug)]
pub struct Few<'a> {
    /// Sizes.
    pub geometry: &'a Geometry,
    /// Input channels.
    pub channels: usize,
    /// Elements between the channels of a pixel.
    pub channel_stride: usize,
    /// Layout of the weights: `[outputs, taps * channels]`, in pieces of a row of the window; with pairs if [`takes_pairs`].
    pub panels: &'a Panels,
    /// Packed weights; see [`super::tap_major`].
    pub packed: &'a [f32],
    /// Input.
    pub x: Images<'a>,
    /// What happens to sums.
    pub epilogue: Epilogue<'a>,
    /// Row `r` is output pixel `r`.
    pub out: Target,
}

impl Few<'_> {
    /// Computes the output rows `rows` (of all images) of the panels `columns`.
    ///
    /// # Errors
    /// [`KernelError::Shape`] if lengths disagree or the convolution is not of this form.
    ///
    /// # Safety
    /// As for [`crate::gemm::Product::run`].
    pub unsafe fn run(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        let (geometry, panels) = (self.geometry, self.panels);
        let [kernel_rows, kernel_columns] = geometry.kernel;
        self.x.check("convolution", geometry, self.channels.saturating_sub(1) * self.channel_stride + 1)?;
        self.epilogue.check("convolution", panels.padded())?;
        KernelError::check("convolution", panels.shape().1, geometry.taps() * self.channels)?;
        KernelError::check("convolution", self.packed.len(), panels.packed_len())?;
        let images = geometry.batch * geometry.output[0];
        let pairs = panels.has_pairs();
        let form = fits(geometry, self.channels) && (!pairs || takes_pairs(geometry, self.channels));
        if !form || rows.end > images || columns.end > panels.count() {
            let what = format!("rows {rows:?} of {images}, panels {columns:?} of {geometry:?}");
            return Err(KernelError::Shape { kernel: "convolution", what });
        }
        if rows.is_empty() || columns.is_empty() || geometry.output[1] == 0 {
            return Ok(());
        }
        let width = (geometry.output[1] - 1) * geometry.stride[1] + kernel_columns;
        let (line, depth) = (width * self.channels, panels.words(kernel_columns * self.channels));
        // The last pair of an odd piece holds an element of the next pixel as well, for which the weight is 0.
        let words = panels.words(line);
        let step = panels.words(geometry.stride[1] * self.channels);
        let span = (kernel_rows - 1) * geometry.dilation[0] + 1;
        let most = (BLOCK / line / geometry.stride[0]).max(1);
        let mut row = rows.start;
        while row < rows.end {
            let (image, first) = (row / geometry.output[0], row % geometry.output[0]);
            let count = most.min(rows.end - row).min(geometry.output[0] - first);
            let lines = (count - 1) * geometry.stride[0] + span;
            // Never grown below, so that pointers into it stay valid.
            scratch.floats.resize((lines * line).max(scratch.floats.len()), 0.0);
            let Few { channels, channel_stride, x, .. } = *self;
            let out = &mut scratch.floats[..lines * line];
            let copy = Lines { geometry, channels, channel_stride, x, image, first, line, zero: 0.0, out };
            vector::run(panels.isa(), copy);
            let Scratch { floats, rounded, pointers, .. } = &mut *scratch;
            let copied = if pairs {
                let out = grown(rounded, lines * words);
                panels.round(floats, line, lines, line, out);
                &*out
            } else {
                &floats[..]
            };
            let at = |r: usize, ky: usize| {
                copied[(r * geometry.stride[0] + ky * geometry.dilation[0]) * words..].as_ptr()
            };
            let across = geometry.output[1];
            if across >= WIDE {
                for r in 0..count {
                    pointers.clear();
                    pointers.extend((0..kernel_rows).map(|ky| at(r, ky)));
                    let pixels = (row + r) * across..(row + r + 1) * across;
                    panels.run(self.part(Rows::Even(pointers, step), depth, pixels, &columns));
                }
            } else {
                pointers.clear();
                for r in 0..count {
                    for column in 0..across {
                        // In bounds: the last window ends with the line.
                        pointers.extend((0..kernel_rows).map(|ky| at(r, ky).wrapping_add(column * step)));
                    }
                }
                let pixels = row * across..(row + count) * across;
                // Blocks of rows whose pointers and pieces stay close.
                for range in blocks(pixels, 384) {
                    let from = (range.start - row * across) * kernel_rows;
                    panels.run(self.part(Rows::Any(&pointers[from..]), depth, range, &columns));
                }
            }
            row += count;
        }
        Ok(())
    }
}

impl Few<'_> {
    fn part<'p>(
        &'p self,
        x: Rows<'p>,
        depth: usize,
        pixels: Range<usize>,
        columns: &Range<usize>,
    ) -> Part<'p> {
        Part {
            panels: self.panels,
            matrix: Matrix::Packed(self.packed),
            x,
            taps: self.geometry.kernel[0],
            depth,
            rows: pixels,
            columns: columns.clone(),
            epilogue: self.epilogue,
            out: self.out,
            next: std::ptr::null(),
        }
    }
}

/// Copies the lines that some output rows need.
pub(super) struct Lines<'a, T> {
    pub geometry: &'a Geometry,
    pub channels: usize,
    pub channel_stride: usize,
    pub x: Images<'a, T>,
    pub image: usize,
    /// The first output row.
    pub first: usize,
    pub line: usize,
    /// What lies outside of the image.
    pub zero: T,
    pub out: &'a mut [T],
}

impl<T: Copy> Kernel for Lines<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, _: V) {
        let Lines { geometry, channels, channel_stride, x, zero, .. } = self;
        let [top, left] = geometry.padding;
        let [height, width] = geometry.input;
        let columns = self.line / channels;
        // Columns of the image that a line holds.
        let start = left.min(columns);
        let inside = width.min(columns - start);
        for (i, line) in self.out.chunks_exact_mut(self.line).enumerate() {
            let y = (self.first * geometry.stride[0] + i).checked_sub(top).filter(|&y| y < height);
            let Some(y) = y else {
                line.fill(zero);
                continue;
            };
            line[..start * channels].fill(zero);
            line[(start + inside) * channels..].fill(zero);
            if inside == 0 {
                continue;
            }
            let from = &x.data[x.at([self.image, y, 0])..];
            let to = &mut line[start * channels..][..inside * channels];
            if channel_stride == 1 && x.pixel_stride == channels {
                to.copy_from_slice(&from[..inside * channels]);
            } else if channels == 3 && x.pixel_stride == 1 {
                let planes: [&[T]; 3] = std::array::from_fn(|c| &from[c * channel_stride..][..inside]);
                for (i, to) in to.chunks_exact_mut(3).enumerate() {
                    (to[0], to[1], to[2]) = (planes[0][i], planes[1][i], planes[2][i]);
                }
            } else {
                for (i, to) in to.chunks_exact_mut(channels).enumerate() {
                    for (c, to) in to.iter_mut().enumerate() {
                        *to = from[i * x.pixel_stride + c * channel_stride];
                    }
                }
            }
        }
    }
}
