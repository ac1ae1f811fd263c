//! Convolutions over images whose channels lie together (`[N, H, W, C]`, with any strides between pixels and rows).

pub mod codes;
pub mod depthwise;
pub mod few;
#[cfg(test)]
pub(crate) mod tests;
pub mod winograd;

use crate::KernelError;
use crate::gemm::pairs::grown;
use crate::gemm::tile::{Part, Rows};
use crate::gemm::{Epilogue, Matrix, Panels, ROW_BLOCK_BYTES, ROWS, Scratch, Target, blocks};
use crate::vector::{self, Kernel, Vector};
use std::ops::Range;

/// Sizes of a convolution or of any other window that moves over an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Images.
    pub batch: usize,
    /// Rows and columns of an input image.
    pub input: [usize; 2],
    /// Rows and columns of an output image.
    pub output: [usize; 2],
    /// Rows and columns of the window.
    pub kernel: [usize; 2],
    /// Steps between windows.
    pub stride: [usize; 2],
    /// Steps within a window.
    pub dilation: [usize; 2],
    /// Zeros above and to the left; those below and to the right follow from the sizes.
    pub padding: [usize; 2],
}

impl Geometry {
    /// Places of the window.
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Pixels of all output images.
    pub fn pixels(&self) -> usize {
        self.batch * self.output[0] * self.output[1]
    }

    /// Input row (axis 0) or column (axis 1) under place `tap` of window `out`, if it is inside the image.
    #[inline(always)]
    pub(crate) fn source(&self, axis: usize, out: usize, tap: usize) -> Option<usize> {
        let at = out * self.stride[axis] + tap * self.dilation[axis];
        at.checked_sub(self.padding[axis]).filter(|&at| at < self.input[axis])
    }

    /// Rows of the window of output row `row` (of all images) that are inside of the image.
    pub(crate) fn rows_inside(&self, row: usize) -> Range<usize> {
        let inside = |ky: &usize| self.source(0, row % self.output[0], *ky).is_some();
        let start = (0..self.kernel[0]).find(inside).unwrap_or(0);
        start..(start..self.kernel[0]).rev().find(inside).map_or(start, |last| last + 1)
    }

    /// Columns of a line under all windows of an output row, those left and right of the image included.
    pub(crate) fn line_columns(&self) -> usize {
        (self.output[1] - 1) * self.stride[1] + (self.kernel[1] - 1) * self.dilation[1] + 1
    }

    /// Image, row and column of an output pixel.
    pub(crate) fn place(&self, pixel: usize) -> [usize; 3] {
        let (row, column) = (pixel / self.output[1], pixel % self.output[1]);
        [row / self.output[0], row % self.output[0], column]
    }
}

/// Images in memory: the channels of a pixel lie together.
#[derive(Clone, Copy, Debug)]
pub struct Images<'a, T = f32> {
    /// From the first element of the first image.
    pub data: &'a [T],
    /// Elements between images.
    pub image_stride: usize,
    /// Elements between rows.
    pub row_stride: usize,
    /// Elements between pixels.
    pub pixel_stride: usize,
}

impl<T> Images<'_, T> {
    /// Refuses images that end outside of the data.
    pub(crate) fn check(
        &self,
        kernel: &'static str,
        geometry: &Geometry,
        channels: usize,
    ) -> Result<(), KernelError> {
        let Geometry { batch, input: [height, width], .. } = *geometry;
        if batch == 0 || height == 0 || width == 0 || channels == 0 {
            return Ok(());
        }
        let end = (batch - 1) * self.image_stride
            + (height - 1) * self.row_stride
            + (width - 1) * self.pixel_stride;
        if end + channels > self.data.len() {
            let what = format!("{} elements of images of {}", self.data.len(), end + channels);
            return Err(KernelError::Shape { kernel, what });
        }
        Ok(())
    }

    /// A pointer for each column of the lines under the windows of output row `row` (of all images), `[kernel rows][columns]`:
    /// to `zeros` outside of the image. Of each image `ring` rows are in memory: row `y` lies where row `y % ring` would.
    /// Returns which rows of the window are inside of the image.
    pub(crate) fn line_pointers(
        &self,
        geometry: &Geometry,
        row: usize,
        ring: usize,
        zeros: *const T,
        pointers: &mut Vec<*const T>,
    ) -> Range<usize> {
        let (image, row) = (row / geometry.output[0], row % geometry.output[0]);
        let (left, width) = (geometry.padding[1], geometry.line_columns());
        let inside = left.min(width)..(left + geometry.input[1]).min(width);
        pointers.resize(width * geometry.kernel[0], zeros);
        let mut taps = 0..0;
        for (ky, line) in pointers.chunks_exact_mut(width).enumerate() {
            let Some(y) = geometry.source(0, row, ky) else {
                line.fill(zeros);
                continue;
            };
            if taps.is_empty() {
                taps.start = ky;
            }
            taps.end = ky + 1;
            line[..inside.start].fill(zeros);
            line[inside.end..].fill(zeros);
            let from = &self.data[self.at([image, y % ring, 0])..];
            for (x, pointer) in line[inside.clone()].iter_mut().enumerate() {
                *pointer = from[x * self.pixel_stride..].as_ptr();
            }
        }
        taps
    }

    /// A pointer for each column of the lines under the windows of the output rows `rows`, which are of one image,
    /// `[lines][columns]`: to `zeros` outside of the image. The windows of the next row begin `stride` lines below, a window's
    /// next row is `dilation` lines below. Of each image `ring` rows are in memory: row `y` lies where row `y % ring` would.
    pub(crate) fn window_lines(
        &self,
        geometry: &Geometry,
        rows: Range<usize>,
        ring: usize,
        zeros: *const T,
        pointers: &mut Vec<*const T>,
    ) {
        let (image, row) = (rows.start / geometry.output[0], rows.start % geometry.output[0]);
        let lines =
            (rows.len() - 1) * geometry.stride[0] + (geometry.kernel[0] - 1) * geometry.dilation[0] + 1;
        let (left, width) = (geometry.padding[1], geometry.line_columns());
        let inside = left.min(width)..(left + geometry.input[1]).min(width);
        pointers.resize(width * lines, zeros);
        for (i, line) in pointers.chunks_exact_mut(width).enumerate() {
            let y = (row * geometry.stride[0] + i).checked_sub(geometry.padding[0]);
            let Some(y) = y.filter(|&y| y < geometry.input[0]) else {
                line.fill(zeros);
                continue;
            };
            line[..inside.start].fill(zeros);
            line[inside.end..].fill(zeros);
            let from = &self.data[self.at([image, y % ring, 0])..];
            for (x, pointer) in line[inside.clone()].iter_mut().enumerate() {
                *pointer = from[x * self.pixel_stride..].as_ptr();
            }
        }
    }

    #[inline(always)]
    pub(crate) fn at(&self, [image, row, column]: [usize; 3]) -> usize {
        image * self.image_stride + row * self.row_stride + column * self.pixel_stride
    }
}

/// `[outputs, channels, taps]` to `[outputs, taps, channels]`: the depth of the matrix that a convolution multiplies with.
pub fn tap_major<T: Copy + Default>(weights: &[T], channels: usize, taps: usize) -> Vec<T> {
    let mut out = vec![T::default(); weights.len()];
    if taps == 1 {
        out.copy_from_slice(weights);
        return out;
    }
    for (from, to) in weights.chunks_exact(channels * taps).zip(out.chunks_exact_mut(channels * taps)) {
        for (c, from) in from.chunks_exact(taps).enumerate() {
            for (tap, x) in from.iter().enumerate() {
                to[tap * channels + c] = *x;
            }
        }
    }
    out
}

/// A convolution as a product: output pixels are rows, and a row is one piece of the input for each place of the window.
#[derive(Clone, Copy, Debug)]
pub struct Convolution<'a> {
    /// Sizes.
    pub geometry: &'a Geometry,
    /// Input channels.
    pub channels: usize,
    /// Layout of the weights: `[outputs, taps * channels]`.
    pub panels: &'a Panels,
    /// Packed weights; see [`tap_major`].
    pub packed: &'a [f32],
    /// Input.
    pub x: Images<'a>,
    /// What happens to sums.
    pub epilogue: Epilogue<'a>,
    /// Row `r` is output pixel `r`.
    pub out: Target,
    /// `[batch, channels]`, or none: inputs are multiplied with it first. For windows of one pixel at a stride of 1.
    pub factors: &'a [f32],
}

impl Convolution<'_> {
    /// Computes the output pixels `pixels` of the panels `columns`.
    ///
    /// # Errors
    /// [`KernelError::Shape`] if lengths disagree.
    ///
    /// # Safety
    /// As for [`crate::gemm::Product::run`].
    pub unsafe fn run(
        &self,
        pixels: Range<usize>,
        columns: Range<usize>,
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        let (geometry, panels) = (self.geometry, self.panels);
        self.x.check("convolution", geometry, self.channels)?;
        self.epilogue.check("convolution", panels.padded())?;
        KernelError::check("convolution", panels.shape().1, geometry.taps() * self.channels)?;
        KernelError::check("convolution", self.packed.len(), panels.packed_len())?;
        if pixels.end > geometry.pixels() || columns.end > panels.count() {
            let what = format!(
                "pixels {pixels:?} of {}, panels {columns:?} of {}",
                geometry.pixels(),
                panels.count()
            );
            return Err(KernelError::Shape { kernel: "convolution", what });
        }
        let even = is_even(geometry, &self.x);
        if !self.factors.is_empty() {
            KernelError::check("convolution", self.factors.len(), geometry.batch * self.channels)?;
            if !even {
                let what = format!("factors of {geometry:?}");
                return Err(KernelError::Shape { kernel: "convolution", what });
            }
        }
        if pixels.is_empty() || columns.is_empty() {
            return Ok(());
        }
        // Some pixels of the input, each on its own.
        let inside = |axis: usize| geometry.source(axis, geometry.output[axis] - 1, 0).is_some();
        let single = geometry.taps() == 1 && geometry.padding == [0, 0];
        let picked = !even && panels.has_pairs() && single && inside(0) && inside(1);
        let (taps, depth) = (geometry.taps(), panels.words(self.channels));
        let step = geometry.stride[0] * geometry.stride[1];
        let mut block = (ROW_BLOCK_BYTES / 4 / depth / step.max(1)).clamp(2 * ROWS, 48 * ROWS);
        if panels.has_pairs() && !even && !picked {
            // Every block rounds the lines that it reads.
            block = block.max(4 * geometry.output[1]);
        }
        if scratch.zeros.len() < depth {
            scratch.zeros.resize(depth, 0.0);
        }
        for range in blocks(pixels, block) {
            let Scratch { pointers, floats, zeros, rounded, .. } = scratch;
            pointers.clear();
            let mut stride = self.x.pixel_stride;
            if even {
                let mut from = &self.x.data[range.start * stride..];
                if !self.factors.is_empty() {
                    let out = grown(floats, range.len() * self.channels);
                    vector::run(panels.isa(), Scaled { task: self, pixels: range.clone(), out });
                    (from, stride) = (out, self.channels);
                }
                if panels.has_pairs() {
                    let out = grown(rounded, range.len() * depth);
                    panels.round(from, stride, range.len(), self.channels, out);
                    (from, stride) = (out, depth);
                }
                let first = from.as_ptr();
                pointers.push(first);
            } else if picked {
                let out = grown(rounded, range.len() * depth);
                self.pick(range.clone(), out);
                pointers.push(out.as_ptr());
                stride = depth;
            } else if panels.has_pairs() {
                let lines = self.lines(&range);
                let width = geometry.input[1];
                let out = grown(rounded, lines.len() * width * depth);
                for (line, out) in lines.clone().zip(out.chunks_exact_mut(width * depth)) {
                    let place = [line / geometry.input[0], line % geometry.input[0], 0];
                    let from = &self.x.data[self.x.at(place)..];
                    panels.round(from, self.x.pixel_stride, width, self.channels, out);
                }
                let rounded = &*out;
                let row_stride = width * depth;
                let image_stride = geometry.input[0] * row_stride;
                let x = Images { data: rounded, image_stride, row_stride, pixel_stride: depth };
                window_pointers(geometry, x, lines.start * row_stride, range.clone(), zeros, pointers);
            } else {
                window_pointers(geometry, self.x, 0, range.clone(), zeros, pointers);
            }
            panels.run(Part {
                panels,
                matrix: Matrix::Packed(self.packed),
                x: if even || picked { Rows::Even(pointers, stride) } else { Rows::Any(pointers) },
                taps,
                depth,
                rows: range,
                columns: columns.clone(),
                epilogue: self.epilogue,
                out: self.out,
                next: std::ptr::null(),
            });
        }
        Ok(())
    }

    /// Rounds the pixels of the input that `pixels` are made of, for windows of one pixel that lie inside of the image.
    fn pick(&self, pixels: Range<usize>, out: &mut [f32]) {
        let (geometry, depth) = (self.geometry, self.panels.words(self.channels));
        let [down, across] = geometry.stride;
        let mut pixel = pixels.start;
        while pixel < pixels.end {
            let [image, row, column] = geometry.place(pixel);
            let count = (geometry.output[1] - column).min(pixels.end - pixel);
            let from = &self.x.data[self.x.at([image, row * down, column * across])..];
            let out = &mut out[(pixel - pixels.start) * depth..][..count * depth];
            self.panels.round(from, self.x.pixel_stride * across, count, self.channels, out);
            pixel += count;
        }
    }

    /// The lines of the input, counted over all images, that the windows of `pixels` see, and perhaps a few more.
    fn lines(&self, pixels: &Range<usize>) -> Range<usize> {
        let geometry = self.geometry;
        let height = geometry.input[0];
        let line = |pixel: usize, tap: usize| {
            let [image, row, _] = geometry.place(pixel);
            let at = row * geometry.stride[0] + tap * geometry.dilation[0];
            image * height + at.saturating_sub(geometry.padding[0]).min(height.saturating_sub(1))
        };
        line(pixels.start, 0)..(line(pixels.end - 1, geometry.kernel[0] - 1) + 1).min(geometry.batch * height)
    }
}

/// Whether output pixels are the input's own, one distance apart.
fn is_even<T>(geometry: &Geometry, x: &Images<'_, T>) -> bool {
    let Geometry { batch, input: [height, width], .. } = *geometry;
    let Images { image_stride, row_stride, pixel_stride, .. } = *x;
    geometry.taps() == 1
        && geometry.stride == [1, 1]
        && geometry.padding == [0, 0]
        && geometry.output == geometry.input
        && (height == 1 || row_stride == width * pixel_stride)
        && (batch == 1 || image_stride == height * width * pixel_stride)
}

/// One pointer for each place of the window of each pixel into `x`, whose first `skipped` elements are not there; to `zeros`
/// outside of the image.
fn window_pointers<T>(
    geometry: &Geometry,
    x: Images<'_, T>,
    skipped: usize,
    pixels: Range<usize>,
    zeros: &[T],
    pointers: &mut Vec<*const T>,
) {
    let [kernel_rows, kernel_columns] = geometry.kernel;
    let [mut image, mut row, mut column] = geometry.place(pixels.start);
    pointers.reserve(pixels.len() * geometry.taps());
    for _ in pixels {
        for ky in 0..kernel_rows {
            let line = geometry.source(0, row, ky).map(|y| &x.data[x.at([image, y, 0]) - skipped..]);
            pointers.extend((0..kernel_columns).map(|kx| match (line, geometry.source(1, column, kx)) {
                (Some(line), Some(column)) => line[column * x.pixel_stride..].as_ptr(),
                _ => zeros.as_ptr(),
            }));
        }
        column += 1;
        if column == geometry.output[1] {
            (column, row) = (0, row + 1);
        }
        if row == geometry.output[0] {
            (row, image) = (0, image + 1);
        }
    }
}

/// Pixels times their image's factors.
struct Scaled<'a> {
    task: &'a Convolution<'a>,
    pixels: Range<usize>,
    out: &'a mut [f32],
}

impl Kernel for Scaled<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Convolution { geometry, channels, x, factors, .. } = *self.task;
        let size = geometry.output[0] * geometry.output[1];
        let (mut image, mut factors_of) = (usize::MAX, factors);
        for (pixel, out) in self.pixels.zip(self.out.chunks_exact_mut(channels)) {
            if image == usize::MAX || pixel == (image + 1) * size {
                image = pixel / size;
                factors_of = &factors[image * channels..][..channels];
            }
            let factors = factors_of;
            let from = &x.data[pixel * x.pixel_stride..][..channels];
            let mut c = 0;
            while c + V::LANES <= channels {
                // SAFETY: all three hold `channels` elements.
                unsafe {
                    let y = v.mul(v.load(from.as_ptr().add(c)), v.load(factors.as_ptr().add(c)));
                    v.store(out.as_mut_ptr().add(c), y);
                }
                c += V::LANES;
            }
            for ((out, x), factor) in out[c..].iter_mut().zip(&from[c..]).zip(&factors[c..]) {
                *out = x * factor;
            }
        }
    }
}
