//! Convolutions of each channel by itself.

use super::{Geometry, Images};
use crate::gemm::activation::{HardSwish, One, Silu};
use crate::gemm::tile::Finish;
use crate::gemm::{Activation, Epilogue, Scratch, Target, blocks};
use crate::vector::{self, Kernel, Vector};
use crate::{Isa, KernelError};
use std::ops::Range;

/// Most output columns that are computed together, for each column of registers that a blocked kernel may use: as many sums,
/// the inputs under them and a weight stay in registers.
const STRIP: usize = 2;
/// Columns of a strip where there are most registers.
const MOST: usize = 8;
/// Most inputs of a line under a strip.
const LINE: usize = 19;

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
    /// Row `r` is output pixel `r + skip`, as it is of a residual.
    pub out: Target,
    /// Output pixels that lie before the first row of `out`.
    pub skip: usize,
    /// How many rows of an image are in memory: row `y` lies where row `y % ring` would. The image's rows if all are.
    pub ring: usize,
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
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        let geometry = self.geometry;
        let ring = self.ring.min(geometry.input[0]);
        let held = Geometry { input: [ring, geometry.input[1]], ..*geometry };
        self.x.check("depthwise", &held, self.channels)?;
        if ring < geometry.input[0] && ring < geometry.kernel[0] {
            let what = format!("{ring} rows under windows of {}", geometry.kernel[0]);
            return Err(KernelError::Shape { kernel: "depthwise", what });
        }
        KernelError::check("depthwise", self.weights.len(), geometry.taps() * self.channels)?;
        self.epilogue.check("depthwise", self.channels)?;
        let skipped = rows.start * geometry.output[1] < self.skip;
        if skipped || rows.end > geometry.batch * geometry.output[0] || channels.end > self.channels {
            let what = format!("rows {rows:?}, channels {channels:?} of {}", self.channels);
            return Err(KernelError::Shape { kernel: "depthwise", what });
        }
        if geometry.output[1] == 0 || channels.is_empty() {
            return Ok(());
        }
        if scratch.zeros.len() < self.channels {
            scratch.zeros.resize(self.channels, 0.0);
        }
        let width = geometry.line_columns();
        let held = ring == geometry.input[0];
        let mut row = rows.start;
        while row < rows.end {
            let left = (geometry.output[0] - row % geometry.output[0]).min(rows.end - row);
            let rows = row..row + if held { left.min(ROWS) } else { 1 };
            row = rows.end;
            let zeros = scratch.zeros.as_ptr();
            self.x.window_lines(geometry, rows.clone(), ring, zeros, &mut scratch.pointers);
            for start in channels.clone().step_by(self.together()) {
                let part = Rows {
                    task: self,
                    rows: rows.clone(),
                    channels: start..(start + self.together()).min(channels.end),
                    width,
                    pointers: &scratch.pointers,
                };
                vector::run(isa, part);
            }
        }
        Ok(())
    }

    /// Channels of which the inputs under a strip stay in the first-level cache from one row to the next.
    fn together(&self) -> usize {
        const BYTES: usize = 20 << 10;
        const LANES: usize = 16;
        let geometry = self.geometry;
        let columns = (MOST - 1) * geometry.stride[1] + geometry.kernel[1];
        (BYTES / 4 / LANES / columns / geometry.kernel[0]).max(1) * LANES
    }
}

/// Output rows that are computed strip by strip, so that they share what they read.
const ROWS: usize = 8;

/// Some output rows of one image.
struct Rows<'a> {
    task: &'a Depthwise<'a>,
    rows: Range<usize>,
    channels: Range<usize>,
    /// Columns of a line.
    width: usize,
    /// See [`Images::window_lines`].
    pointers: &'a [*const f32],
}

/// One output row.
struct Row<'a> {
    task: &'a Depthwise<'a>,
    row: usize,
    channels: Range<usize>,
    /// Rows of the window that are inside of the image.
    taps: Range<usize>,
    /// Pointers from one row of the window to the next.
    line: usize,
    pointers: &'a [*const f32],
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Rows { task, rows, channels, width, pointers } = self;
        let geometry = task.geometry;
        let row = |i: usize| Row {
            task,
            row: rows.start + i,
            channels: channels.clone(),
            taps: geometry.rows_inside(rows.start + i),
            line: geometry.dilation[0] * width,
            pointers: &pointers[(i * geometry.stride[0] * width).min(pointers.len())..],
        };
        let all: [Row<'_>; ROWS] = std::array::from_fn(row);
        for columns in blocks(0..geometry.output[1], STRIP * V::COLUMNS) {
            for row in &all[..rows.len()] {
                match (geometry.kernel[1], geometry.stride[1], geometry.dilation[1]) {
                    (3, 1, 1) => row.strip::<V, 3, 1>(v, columns.clone()),
                    (3, 2, 1) => row.strip::<V, 3, 2>(v, columns.clone()),
                    (5, 1, 1) => row.strip::<V, 5, 1>(v, columns.clone()),
                    (5, 2, 1) => row.strip::<V, 5, 2>(v, columns.clone()),
                    _ => row.strip::<V, 0, 1>(v, columns.clone()),
                }
                if row.in_registers() {
                    continue;
                }
                let first = row.row * geometry.output[1] - task.skip;
                let pixels = first + columns.start..first + columns.end;
                // SAFETY: the caller of `Depthwise::run` vouches for the output.
                unsafe {
                    finish_long(v, &task.epilogue, task.out, pixels, channels.start, channels.len());
                }
            }
        }
    }
}

impl Row<'_> {
    /// Whether strips apply the activation to their sums: the long ones that follow such convolutions in most models.
    #[inline(always)]
    fn in_registers(&self) -> bool {
        let epilogue = &self.task.epilogue;
        epilogue.residual.is_none() && matches!(epilogue.activation, Activation::HardSwish | Activation::Silu)
    }

    #[inline(always)]
    fn strip<V: Vector, const K: usize, const S: usize>(&self, v: V, columns: Range<usize>) {
        let (row, column) = (self, columns.start);
        match columns.len() {
            1 => v.call(Strip::<1, K, S> { row, column }),
            2 => v.call(Strip::<2, K, S> { row, column }),
            3 => v.call(Strip::<3, K, S> { row, column }),
            4 => v.call(Strip::<4, K, S> { row, column }),
            5 if const { STRIP * V::COLUMNS > 4 } => v.call(Strip::<5, K, S> { row, column }),
            6 if const { STRIP * V::COLUMNS > 4 } => v.call(Strip::<6, K, S> { row, column }),
            7 if const { STRIP * V::COLUMNS > 4 } => v.call(Strip::<7, K, S> { row, column }),
            8 if const { STRIP * V::COLUMNS > 4 } => v.call(Strip::<8, K, S> { row, column }),
            _ => unreachable!("strips are of the columns that registers have room for"),
        }
    }
}

/// `N` columns from `column`, of a kernel of `K` columns at a stride of `S`: neighbours share what they load. `K` is 0 for any
/// kernel.
struct Strip<'a, const N: usize, const K: usize, const S: usize> {
    row: &'a Row<'a>,
    column: usize,
}

impl<const N: usize, const K: usize, const S: usize> Kernel for Strip<'_, N, K, S> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let channels = self.row.channels.clone();
        let mut c = channels.start;
        while c + V::LANES <= channels.end {
            self.sums::<V, true>(v, c, V::LANES);
            c += V::LANES;
        }
        if c < channels.end {
            self.sums::<V, false>(v, c, channels.end - c);
        }
    }
}

impl<const N: usize, const K: usize, const S: usize> Strip<'_, N, K, S> {
    /// `lanes` channels from `c`; `WHOLE` if they fill a register.
    #[inline(always)]
    fn sums<V: Vector, const WHOLE: bool>(&self, v: V, c: usize, lanes: usize) {
        let (row, task) = (self.row, self.row.task);
        let (geometry, epilogue) = (task.geometry, &task.epilogue);
        let stride = geometry.stride[1];
        let bias = if epilogue.bias.is_empty() { v.splat(0.0) } else { part(v, &epilogue.bias[c..]) };
        let mut sums = [bias; N];
        // SAFETY: pointers stand for `channels` elements, weights for as many at each tap; `lanes` are left from `c`.
        let load = |from: *const f32| unsafe {
            if WHOLE { v.load(from) } else { v.load_part(std::slice::from_raw_parts(from, lanes)) }
        };
        for ky in row.taps.clone() {
            let line = &row.pointers[ky * row.line + self.column * stride..];
            let weights = task.weights[ky * geometry.kernel[1] * task.channels + c..].as_ptr();
            if K == 0 {
                for kx in 0..geometry.kernel[1] {
                    let weight = load(weights.wrapping_add(kx * task.channels));
                    let line = &line[kx * geometry.dilation[1]..];
                    for (i, sum) in sums.iter_mut().enumerate() {
                        *sum = v.fma(load(line[i * stride].wrapping_add(c)), weight, *sum);
                    }
                }
                continue;
            }
            let line = &line[..(N - 1) * S + K];
            // Loaded once, whichever outputs read them.
            let inputs: [V::F32; LINE] = vector::array(|at| {
                if at < (N - 1) * S + K { load(line[at].wrapping_add(c)) } else { v.splat(0.0) }
            });
            for kx in 0..K {
                let weight = load(weights.wrapping_add(kx * task.channels));
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = v.fma(inputs[i * S + kx], weight, *sum);
                }
            }
        }
        if row.in_registers() {
            for sum in &mut sums {
                *sum = if epilogue.activation == Activation::Silu {
                    Silu.apply(v, *sum)
                } else {
                    HardSwish.apply(v, *sum)
                };
            }
        }
        let first = row.row * geometry.output[1] - task.skip + self.column;
        if WHOLE && epilogue.residual.is_none() && epilogue.activation != Activation::Slopes {
            let (low, high) = epilogue.activation.bounds();
            let (low, high) = (v.splat(low), v.splat(high));
            for (i, sum) in sums.into_iter().enumerate() {
                let to = task.out.data.wrapping_add((first + i) * task.out.stride + c);
                // SAFETY: the caller of `Depthwise::run` vouches for the output.
                unsafe { v.store(to, v.min(high, v.max(low, sum))) };
            }
            return;
        }
        for (i, sum) in sums.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { finish(v, epilogue, task.out, first + i, c, lanes, sum) };
        }
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
