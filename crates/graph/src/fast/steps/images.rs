//! Work on images that is neither a convolution nor a pool: what stands around them, what lies between their pixels, and
//! norms of channels.

use super::elements::MEAN_PARTS;
use super::{PIECE, PLANNED, part, pixel_stride};
use crate::cpu::{Panicked, Worker};
use crate::fast::lower::Surround;
use crate::fast::memory::{Memory, Thread};
use crate::fast::view::View;
use crate::ops::GridSample;
use crate::plain::{GridTaps, grid_taps};
use kun_kernels::Isa;
use kun_kernels::grid_sample::{self, Sample};
use kun_kernels::instance_norm::{add_squares, normalize, scale_rows};
use kun_kernels::pool::add_rows;

/// Images with more around them. The channels of a pixel lie together.
#[derive(Debug)]
pub(crate) struct PadStep {
    pub x: View,
    pub out: View,
    pub pad: Surround,
}

impl PadStep {
    pub(super) fn run(&self, memory: &Memory<'_>, worker: &Worker<'_>) -> Result<(), Panicked> {
        let Surround { places: [channels, rows, columns], value } = &self.pad;
        let (x, stride) = (&self.x, pixel_stride(&self.out));
        let (height, width) = (rows.len(), columns.len());
        let before = channels.iter().take_while(|place| place.is_none()).count();
        let inside = channels.iter().flatten().count();
        let first = channels.iter().flatten().next().copied().unwrap_or(0);
        // Neighbours that stay neighbours are copied at once if nothing lies between their channels.
        let whole = inside == x.shape[1] && inside == channels.len();
        let together = whole && stride == inside && x.strides[3] == inside;
        let line = width * stride;
        let group = (PIECE / line.max(1)).max(1);
        let lines = self.out.shape[0] * height;
        worker.phase_by_place(lines.div_ceil(group), |task| {
            let data = memory.read(x);
            for at in task * group..((task + 1) * group).min(lines) {
                let to = memory.region(&self.out).row_mut(at * line, line - stride + channels.len());
                let row = rows[at % height];
                let from = at / height * x.strides[0] + row.unwrap_or(0) * x.strides[2];
                let mut column = 0;
                while column < width {
                    let place = columns[column].filter(|_| row.is_some());
                    let Some(place) = place else {
                        to[column * stride..][..channels.len()].fill(*value);
                        column += 1;
                        continue;
                    };
                    let follows = |n: usize| columns.get(column + n).copied().flatten() == Some(place + n);
                    let run = if together { (1..).take_while(|n| follows(*n)).count() + 1 } else { 1 };
                    let pixel = &data[from + place * x.strides[3] + first * x.strides[1].min(1)..];
                    let to = &mut to[column * stride..];
                    if together {
                        to[..run * inside].copy_from_slice(&pixel[..run * inside]);
                    } else {
                        to[..before].fill(*value);
                        to[before..][..inside].copy_from_slice(&pixel[..inside]);
                        to[before + inside..channels.len()].fill(*value);
                    }
                    column += run;
                }
            }
        })
    }
}

/// Images at the places that a grid names. The channels of a pixel lie together.
#[derive(Debug)]
pub(crate) struct GridSampleStep {
    pub x: View,
    /// `[N, height, width, 2]`: column, then row.
    pub grid: View,
    pub out: View,
    pub sample: GridSample,
}

impl GridSampleStep {
    pub(super) fn run(&self, isa: Isa, memory: &Memory<'_>, worker: &Worker<'_>) -> Result<(), Panicked> {
        /// Pixels of which places and weights are found at once.
        const BLOCK: usize = 32;
        let Self { x, grid, out, sample } = self;
        let &[batch, channels, height, width] = &out.shape[..] else {
            unreachable!("images have four dimensions")
        };
        let stride = pixel_stride(out);
        let line = width * stride;
        let lines = batch * height;
        let group = (PIECE / (width * channels.max(8)).max(1)).max(1);
        worker.phase_by_place(lines.div_ceil(group), |task| {
            let (data, coordinates) = (memory.read(x), memory.read(grid));
            let (mut columns, mut rows) = (GridTaps::default(), GridTaps::default());
            for at in task * group..((task + 1) * group).min(lines) {
                let (image, row) = (at / height, at % height);
                let to = memory.region(out).row_mut(at * line, line - stride + channels);
                let from = image * grid.strides[0] + row * grid.strides[1];
                for first in (0..width).step_by(BLOCK) {
                    let count = BLOCK.min(width - first);
                    let mut samples = [Sample::default(); BLOCK];
                    for (i, into) in samples[..count].iter_mut().enumerate() {
                        let at = from + (first + i) * grid.strides[2];
                        let [column, row] = [at, at + grid.strides[3]].map(|at| f64::from(coordinates[at]));
                        grid_taps(sample, column, x.shape[3], &mut columns);
                        grid_taps(sample, row, x.shape[2], &mut rows);
                        for &(y, down) in rows.as_slice() {
                            let line = image * x.strides[0] + y * x.strides[2];
                            for &(x_, across) in columns.as_slice() {
                                into.push(line + x_ * x.strides[3], (down * across) as f32);
                            }
                        }
                    }
                    let to = &mut to[first * stride..][..(count - 1) * stride + channels];
                    grid_sample::pixels(isa, data, channels, &samples[..count], stride, to).expect(PLANNED);
                }
            }
        })
    }
}

/// Every channel of every image by its own mean and variance.
#[derive(Debug)]
pub(crate) struct InstanceNormStep {
    /// The channels of a pixel lie together, or, without `sums`, all elements in their order.
    pub x: View,
    pub out: View,
    /// `[2 * MEAN_PARTS, N, C]`: sums of parts of the rows, then of their squares.
    pub sums: Option<View>,
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    pub epsilon: f32,
}

impl InstanceNormStep {
    pub(super) fn run(
        &self,
        isa: Isa,
        memory: &Memory<'_>,
        worker: &Worker<'_>,
        thread: &mut Thread,
    ) -> Result<(), Panicked> {
        match &self.sums {
            Some(sums) => self.pixels(isa, sums, memory, worker, thread),
            None => self.rows(isa, memory, worker),
        }
    }

    fn rows(&self, isa: Isa, memory: &Memory<'_>, worker: &Worker<'_>) -> Result<(), Panicked> {
        let channels = self.weight.len();
        let rows = self.x.shape[0] * channels;
        let width = self.x.elements() / rows;
        worker.phase_by_place(rows, |row| {
            let to = memory.region(&self.out).row_mut(row * width, width);
            let affine = [self.weight[row % channels], self.bias[row % channels], self.epsilon];
            normalize(isa, &memory.read(&self.x)[row * width..][..width], affine, to).expect(PLANNED);
        })
    }

    fn pixels(
        &self,
        isa: Isa,
        sums: &View,
        memory: &Memory<'_>,
        worker: &Worker<'_>,
        thread: &mut Thread,
    ) -> Result<(), Panicked> {
        let x = &self.x;
        let &[batch, channels, height, width] = &x.shape[..] else {
            unreachable!("images have four dimensions")
        };
        let (stride, to_stride) = (x.strides[3], pixel_stride(&self.out));
        let half = MEAN_PARTS * batch * channels;
        // Sums are written while squares are not, and the other way round: to the phases they are memory of their own.
        let [of_values, of_squares] = [0, half].map(|offset| View {
            offset: sums.offset + offset,
            shape: vec![half],
            strides: vec![1],
            ..sums.clone()
        });
        let of = |image: usize, index: usize| (index * batch + image) * channels;
        // The mean of what parts have summed up.
        let mean = |view: &View, image: usize, out: &mut Vec<f32>| {
            out.clear();
            out.resize(channels, 0.0);
            let parts = &memory.read(view)[of(image, 0)..];
            add_rows(isa, parts, MEAN_PARTS, batch * channels, out).expect(PLANNED);
            out.iter_mut().for_each(|sum| *sum /= (height * width) as f32);
        };
        let rows = |image: usize, row: usize| &memory.read(x)[image * x.strides[0] + row * x.strides[2]..];
        worker.phase_by_place(batch * MEAN_PARTS, |task| {
            let (image, index) = (task / MEAN_PARTS, task % MEAN_PARTS);
            let to = memory.region(&of_values).row_mut(of(image, index), channels);
            to.fill(0.0);
            for row in part(height, MEAN_PARTS, index) {
                add_rows(isa, rows(image, row), width, stride, to).expect(PLANNED);
            }
        })?;
        let [means, factors] = [&mut thread.chain, &mut thread.ring];
        worker.phase_by_place(batch * MEAN_PARTS, |task| {
            let (image, index) = (task / MEAN_PARTS, task % MEAN_PARTS);
            mean(&of_values, image, means);
            let to = memory.region(&of_squares).row_mut(of(image, index), channels);
            to.fill(0.0);
            for row in part(height, MEAN_PARTS, index) {
                add_squares(isa, rows(image, row), width, stride, means, to).expect(PLANNED);
            }
        })?;
        let group = (4 * PIECE / (width * channels).max(1)).clamp(1, height);
        let groups = height.div_ceil(group);
        worker.phase_by_place(batch * groups, |task| {
            let (image, first) = (task / groups, task % groups * group);
            mean(&of_values, image, means);
            mean(&of_squares, image, factors);
            for (((mean, factor), weight), bias) in
                means.iter_mut().zip(factors.iter_mut()).zip(&self.weight).zip(&self.bias)
            {
                *factor = weight / (*factor + self.epsilon).sqrt();
                *mean = bias - *mean * *factor;
            }
            for row in first..(first + group).min(height) {
                let line = width * to_stride;
                let at = (image * height + row) * line;
                let to = memory.region(&self.out).row_mut(at, line - to_stride + channels);
                let affine = [&factors[..], &means[..]];
                scale_rows(isa, rows(image, row), width, [stride, to_stride], affine, to).expect(PLANNED);
            }
        })
    }
}
