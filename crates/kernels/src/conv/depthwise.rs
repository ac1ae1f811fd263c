//! Convolutions of each channel by itself.

use super::{Geometry, Images};
use crate::gemm::tile::Finish;
use crate::gemm::{Activation, Epilogue, Target};
use crate::vector::{self, Kernel, Vector};
use crate::{Isa, KernelError};
use std::ops::Range;

/// Output columns that are computed together.
const STRIP: usize = 4;

/// A convolution with one filter for each channel.
#[derive(Clone, Copy, Debug)]
pub struct Depthwise<'a> {
    /// Sizes.
    pub geometry: &'a Geometry,
    /// Channels.
    pub channels: usize,
    /// `[taps, channels]`.
    pub weights: &'a [f32],
    /// Input.
    pub x: Images<'a>,
    /// What happens to sums; bias and slopes have `channels` elements, or none.
    pub epilogue: Epilogue<'a>,
    /// Row `r` is output pixel `r`.
    pub out: Target,
}

impl Depthwise<'_> {
    /// Computes the output rows `rows` (of all images) for the channels `channels`.
    ///
    /// # Errors
    /// [`KernelError::Shape`] if lengths disagree.
    ///
    /// # Safety
    /// `out` must be valid for writes of these pixels and channels, which no other thread touches meanwhile; a residual must
    /// be valid for reading the same.
    pub unsafe fn run(
        &self,
        isa: Isa,
        rows: Range<usize>,
        channels: Range<usize>,
    ) -> Result<(), KernelError> {
        let geometry = self.geometry;
        self.x.check("depthwise", geometry, self.channels)?;
        KernelError::check("depthwise", self.weights.len(), geometry.taps() * self.channels)?;
        self.epilogue.check("depthwise", self.channels)?;
        if rows.end > geometry.batch * geometry.output[0] || channels.end > self.channels {
            let what = format!("rows {rows:?}, channels {channels:?} of {}", self.channels);
            return Err(KernelError::Shape { kernel: "depthwise", what });
        }
        for row in rows {
            vector::run(isa, Row { task: self, row, channels: channels.clone() });
        }
        Ok(())
    }
}

/// One output row.
struct Row<'a> {
    task: &'a Depthwise<'a>,
    row: usize,
    channels: Range<usize>,
}

impl Kernel for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        match (self.task.geometry.kernel[1], self.task.geometry.stride[1], self.task.geometry.dilation[1]) {
            (3, 1, 1) => v.call(Strips::<3, 1>(&self)),
            (3, 2, 1) => v.call(Strips::<3, 2>(&self)),
            (5, 1, 1) => v.call(Strips::<5, 1>(&self)),
            (5, 2, 1) => v.call(Strips::<5, 2>(&self)),
            _ => v.call(Pixels(&self)),
        }
        let width = self.task.geometry.output[1];
        let pixels = self.row * width..(self.row + 1) * width;
        // SAFETY: the caller of `Depthwise::run` vouches for the output.
        unsafe {
            let task = self.task;
            finish_long(v, &task.epilogue, task.out, pixels, self.channels.start, self.channels.len());
        }
    }
}

/// Kernels of `K` columns at a stride of `S`: neighbours share what they load.
struct Strips<'a, const K: usize, const S: usize>(&'a Row<'a>);

impl<const K: usize, const S: usize> Kernel for Strips<'_, K, S> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let row = self.0;
        let geometry = row.task.geometry;
        let (left, width) = (geometry.padding[1], geometry.input[1]);
        let mut column = 0;
        while column < geometry.output[1] {
            let inside = column * S >= left
                && (column + STRIP - 1) * S + K <= width + left
                && column + STRIP <= geometry.output[1];
            if inside {
                row.strip::<V, K, S>(v, column);
                column += STRIP;
            } else {
                row.pixel(v, column);
                column += 1;
            }
        }
    }
}

/// Any kernel.
struct Pixels<'a>(&'a Row<'a>);

impl Kernel for Pixels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        for column in 0..self.0.task.geometry.output[1] {
            self.0.pixel(v, column);
        }
    }
}

impl Row<'_> {
    fn place(&self) -> (usize, usize) {
        (self.row / self.task.geometry.output[0], self.row % self.task.geometry.output[0])
    }

    /// [`STRIP`] columns from `column`, all inside of the image.
    #[inline(always)]
    fn strip<V: Vector, const K: usize, const S: usize>(&self, v: V, column: usize) {
        let (task, geometry) = (self.task, self.task.geometry);
        let (image, row) = self.place();
        let first = column * S - geometry.padding[1];
        let mut c = self.channels.start;
        while c + V::LANES <= self.channels.end {
            let mut sums = [self.bias(v, c); STRIP];
            for ky in 0..geometry.kernel[0] {
                let Some(y) = geometry.source(0, row, ky) else { continue };
                let at = task.x.at([image, y, first]) + c;
                let weight = ky * K * task.channels + c;
                // SAFETY: the strip's columns are inside of the checked images, the taps inside of the checked weights.
                unsafe {
                    let x = task.x.data.as_ptr().add(at);
                    let w = task.weights.as_ptr().add(weight);
                    for kx in 0..K {
                        let w = v.load(w.add(kx * task.channels));
                        for (i, sum) in sums.iter_mut().enumerate() {
                            *sum = v.fma(v.load(x.add((i * S + kx) * task.x.pixel_stride)), w, *sum);
                        }
                    }
                }
            }
            for (i, sum) in sums.into_iter().enumerate() {
                // SAFETY: the caller of `run` vouches for the output.
                unsafe { self.finish(v, column + i, c, V::LANES, sum) };
            }
            c += V::LANES;
        }
        if c < self.channels.end {
            for i in 0..STRIP {
                self.pixel_from(v, column + i, c);
            }
        }
    }

    #[inline(always)]
    fn pixel<V: Vector>(&self, v: V, column: usize) {
        self.pixel_from(v, column, self.channels.start);
    }

    /// Column `column` of the channels from `c`.
    #[inline(always)]
    fn pixel_from<V: Vector>(&self, v: V, column: usize, mut c: usize) {
        let (task, geometry) = (self.task, self.task.geometry);
        let (image, row) = self.place();
        while c < self.channels.end {
            let lanes = V::LANES.min(self.channels.end - c);
            let mut sum = self.bias(v, c);
            for ky in 0..geometry.kernel[0] {
                let Some(y) = geometry.source(0, row, ky) else { continue };
                for kx in 0..geometry.kernel[1] {
                    let Some(x) = geometry.source(1, column, kx) else { continue };
                    let x = &task.x.data[task.x.at([image, y, x]) + c..][..lanes];
                    let w = &task.weights[(ky * geometry.kernel[1] + kx) * task.channels + c..][..lanes];
                    let (x, w) = if lanes == V::LANES {
                        // SAFETY: both are as long as a vector.
                        unsafe { (v.load(x.as_ptr()), v.load(w.as_ptr())) }
                    } else {
                        (v.load_part(x), v.load_part(w))
                    };
                    sum = v.fma(x, w, sum);
                }
            }
            // SAFETY: the caller of `run` vouches for the output.
            unsafe { self.finish(v, column, c, lanes, sum) };
            c += lanes;
        }
    }

    #[inline(always)]
    fn bias<V: Vector>(&self, v: V, c: usize) -> V::F32 {
        let bias = self.task.epilogue.bias;
        if bias.is_empty() { v.splat(0.0) } else { part(v, &bias[c..]) }
    }

    #[inline(always)]
    unsafe fn finish<V: Vector>(&self, v: V, column: usize, c: usize, lanes: usize, sum: V::F32) {
        let pixel = self.row * self.task.geometry.output[1] + column;
        // SAFETY: passed on to the caller.
        unsafe { finish(v, &self.task.epilogue, self.task.out, pixel, c, lanes, sum) };
    }
}

/// The first elements of `from`, as many as a vector has.
#[inline(always)]
fn part<V: Vector>(v: V, from: &[f32]) -> V::F32 {
    if from.len() >= V::LANES {
        // SAFETY: as long as a vector.
        unsafe { v.load(from.as_ptr()) }
    } else {
        v.load_part(from)
    }
}

/// Writes `lanes` outputs from `c` of a pixel; `sum` has its bias. Long functions follow by [`finish_long`].
///
/// # Safety
/// The output, and a residual, must hold them.
#[inline(always)]
pub(super) unsafe fn finish<V: Vector>(
    v: V,
    epilogue: &Epilogue<'_>,
    out: Target,
    pixel: usize,
    c: usize,
    lanes: usize,
    sum: V::F32,
) {
    // SAFETY: the caller vouches for the pointers.
    unsafe {
        let mut x = sum;
        let (low, high) = epilogue.activation.bounds();
        let mut other = None;
        if let Some(residual) = epilogue.residual {
            let from = residual.data.add(pixel * residual.stride + c);
            other = Some((part(v, std::slice::from_raw_parts(from, lanes)), residual.after));
        }
        if let Some((other, false)) = other {
            x = v.add(x, other);
        }
        x = v.min(v.splat(high), v.max(v.splat(low), x));
        if epilogue.activation == Activation::Slopes {
            x = v.select_less(x, v.splat(0.0), v.mul(x, part(v, &epilogue.slopes[c..])), x);
        }
        if let Some((other, true)) = other
            && !epilogue.activation.is_long()
        {
            x = v.add(x, other);
        }
        let to = out.data.add(pixel * out.stride + c);
        if lanes == V::LANES {
            v.store(to, x);
        } else {
            v.store_part(std::slice::from_raw_parts_mut(to, lanes), x);
        }
    }
}

/// Applies a long function to `width` outputs from `c` of some pixels that [`finish`] wrote.
///
/// # Safety
/// As for [`finish`].
#[inline(always)]
pub(super) unsafe fn finish_long<V: Vector>(
    v: V,
    epilogue: &Epilogue<'_>,
    out: Target,
    pixels: Range<usize>,
    c: usize,
    width: usize,
) {
    if !epilogue.activation.is_long() {
        return;
    }
    let mut after = None;
    if let Some(residual) = epilogue.residual
        && residual.after
    {
        let data = residual.data.wrapping_add(pixels.start * residual.stride + c);
        after = Some((data, residual.stride));
    }
    v.call(Finish {
        activation: epilogue.activation,
        rows: pixels.len(),
        width,
        out: out.data.wrapping_add(pixels.start * out.stride + c),
        out_stride: out.stride,
        residual: after,
    });
}
