//! Convolutions, products and attention.

use super::{PLANNED, images, part, pixel_stride};
use crate::cpu::{Panicked, Worker};
use crate::fast::memory::{Memory, Thread};
use crate::fast::pack::Packed;
use crate::fast::view::View;
use kun_kernels::Isa;
use kun_kernels::conv::depthwise::Depthwise;
use kun_kernels::conv::few::Few;
use kun_kernels::conv::winograd::{self, Winograd};
use kun_kernels::conv::{Convolution, Geometry};
use kun_kernels::gemm::{Activation, Attention, Epilogue, Matrix, Panels, Product, Residual};
use std::ops::Range;

/// Activation and sum, with everything padded for the panels.
#[derive(Debug)]
pub(crate) struct Ending {
    pub bias: Vec<f32>,
    pub activation: Activation,
    pub slopes: Vec<f32>,
    pub residual: Option<(View, bool)>,
}

/// How a convolution is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Direct,
    Winograd,
    Depthwise,
    /// Few channels, in any order.
    Few,
}

#[derive(Debug)]
pub(crate) struct ConvolveStep {
    pub form: Form,
    pub geometry: Geometry,
    /// Of one group.
    pub channels: usize,
    /// Of one group.
    pub outputs: usize,
    pub groups: usize,
    /// Of one group.
    pub panels: Panels,
    /// All groups, one after the other.
    pub packed: Packed,
    pub ending: Ending,
    pub x: View,
    pub out: View,
    /// `[N, C]`: the input is multiplied with it first.
    pub factors: Option<View>,
}

#[derive(Debug)]
pub(crate) struct MultiplyStep {
    pub panels: Panels,
    pub packed: Packed,
    pub ending: Ending,
    pub x: View,
    pub out: View,
}

/// How rows and panels are dealt out: parts of both, the panels of a part of the rows one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    rows: usize,
    panels: usize,
    by_rows: usize,
    by_panels: usize,
}

impl Grid {
    /// For `rows` rows, in parts of at least `few`, and `panels` panels.
    pub(super) fn new(threads: usize, rows: usize, panels: usize, few: usize, operations: usize) -> Grid {
        // About 5 microseconds of one core.
        const TASK: usize = 1 << 19;
        if threads == 1 || operations < TASK {
            return Grid { rows, panels, by_rows: 1, by_panels: 1 };
        }
        // As many for each thread.
        let wanted = (operations / TASK).min(8 * threads).next_multiple_of(threads);
        // Rows first: they are of places of an image, which a thread should work on in one step as in the next. Few rows
        // leave the panels to split.
        let by_rows = wanted.min((rows / few).max(1));
        let by_rows = if by_rows > threads { by_rows - by_rows % threads } else { by_rows };
        let by_panels = wanted.div_ceil(by_rows).min(panels.max(1));
        Grid { rows, panels, by_rows, by_panels }
    }

    /// For rows that cost something to prepare: either they are in parts, or their panels.
    fn apart(threads: usize, rows: usize, panels: usize, few: usize, operations: usize) -> Grid {
        let by_rows = Grid::new(threads, rows, 1, few, operations).by_rows;
        let by_panels = match Grid::new(threads, 1, panels, 1, operations).by_panels {
            _ if by_rows >= threads => 1,
            // All of the rows are prepared for each part.
            parts if parts >= 4 * threads => 2 * threads,
            parts => parts.min(threads),
        };
        Grid { rows, panels, by_rows: if by_panels > 1 { 1 } else { by_rows }, by_panels }
    }

    pub(super) fn tasks(&self) -> usize {
        self.by_rows * self.by_panels
    }

    /// The rows and panels of a task.
    pub(super) fn part(&self, task: usize) -> (Range<usize>, Range<usize>) {
        let (row, panel) = (task / self.by_panels, task % self.by_panels);
        (part(self.rows, self.by_rows, row), part(self.panels, self.by_panels, panel))
    }
}

impl Ending {
    pub(super) fn epilogue<'a>(
        &'a self,
        start: usize,
        padded: usize,
        residual: Option<Residual>,
    ) -> Epilogue<'a> {
        let pick =
            |values: &'a [f32]| if values.is_empty() { values } else { &values[start..start + padded] };
        Epilogue { bias: pick(&self.bias), activation: self.activation, slopes: pick(&self.slopes), residual }
    }

    /// The other summand, whose rows are pixels or rows of a matrix.
    pub(super) fn residual(
        &self,
        memory: &Memory<'_>,
        first: usize,
        stride: impl Fn(&View) -> usize,
    ) -> Option<Residual> {
        self.residual.as_ref().map(|(view, after)| Residual {
            data: memory.read(view)[first..].as_ptr(),
            stride: stride(view),
            after: *after,
        })
    }
}

impl ConvolveStep {
    pub(super) fn run(
        &self,
        isa: Isa,
        memory: &Memory<'_>,
        worker: &Worker<'_>,
        thread: &mut Thread,
    ) -> Result<(), Panicked> {
        let geometry = &self.geometry;
        let stride = pixel_stride(&self.out);
        if self.form == Form::Depthwise {
            return self.depthwise(isa, memory, worker, thread);
        }
        let lines = geometry.batch * geometry.output[0];
        let (rows, per_row, few) = match self.form {
            Form::Winograd => (winograd::tiles(geometry, &self.panels), winograd::places(&self.panels), 12),
            Form::Few => (lines, geometry.taps() * geometry.output[1], 1),
            _ => (geometry.pixels(), geometry.taps(), 24),
        };
        let operations = 2 * rows * per_row * self.channels * self.outputs;
        let panels = self.panels.count();
        let grid = match self.form {
            Form::Winograd | Form::Direct if self.panels.has_pairs() => {
                Grid::apart(worker.threads, rows, panels, 2 * few, operations)
            }
            _ => Grid::new(worker.threads, rows, panels, few, operations),
        };
        let per_group = if self.form == Form::Winograd {
            winograd::packed_len(&self.panels)
        } else {
            self.panels.packed_len()
        };
        worker.phase_by_place(grid.tasks() * self.groups, |task| {
            let group = task % self.groups;
            let (range, columns) = grid.part(task / self.groups);
            let mut x = images(memory, &self.x);
            x.data = &x.data[group * self.channels..];
            let region = memory.region(&self.out);
            let (padded, first) = (self.panels.padded(), group * self.outputs);
            let epilogue = self.ending.epilogue(
                group * padded,
                padded,
                self.ending.residual(memory, first, pixel_stride),
            );
            let packed = self.packed.floats(group * per_group..(group + 1) * per_group);
            let out = region.target_at(first, stride);
            let (panels, channels) = (&self.panels, self.channels);
            let done = match self.form {
                Form::Winograd => {
                    let task = Winograd { geometry, panels, packed, x, epilogue, out };
                    region.winograd(&task, range, columns, &mut thread.kernel)
                }
                Form::Few => {
                    let channel_stride = self.x.strides[1];
                    let task = Few { geometry, channels, channel_stride, panels, packed, x, epilogue, out };
                    region.few(&task, range, columns, &mut thread.kernel)
                }
                _ => {
                    let factors = self.factors.as_ref().map_or(&[][..], |view| memory.read(view));
                    let task = Convolution { geometry, channels, panels, packed, x, epilogue, out, factors };
                    region.convolution(&task, range, columns, &mut thread.kernel)
                }
            };
            done.expect(PLANNED);
        })
    }
}

impl ConvolveStep {
    fn depthwise(
        &self,
        isa: Isa,
        memory: &Memory<'_>,
        worker: &Worker<'_>,
        thread: &mut Thread,
    ) -> Result<(), Panicked> {
        let geometry = &self.geometry;
        let rows = geometry.batch * geometry.output[0];
        // A vector does as much in a product as three do here.
        let operations = 6 * geometry.pixels() * geometry.taps() * self.groups;
        // Parts of whole lines of the cache.
        let grid = Grid::new(worker.threads, rows, self.groups.div_ceil(64), 2, operations);
        worker.phase_by_place(grid.tasks(), |task| {
            let region = memory.region(&self.out);
            let depthwise = Depthwise {
                geometry,
                channels: self.groups,
                weights: self.packed.floats(0..geometry.taps() * self.groups),
                x: images(memory, &self.x),
                epilogue: self.ending.epilogue(0, self.groups, self.ending.residual(memory, 0, pixel_stride)),
                out: region.target(pixel_stride(&self.out)),
                skip: 0,
                ring: geometry.input[0],
            };
            let (rows, channels) = grid.part(task);
            let channels = 64 * channels.start..(64 * channels.end).min(self.groups);
            region.depthwise(isa, &depthwise, rows, channels, &mut thread.kernel).expect(PLANNED);
        })
    }
}

/// Rows of a dense or evenly spaced matrix.
pub(super) fn row_stride(view: &View) -> usize {
    view.rows().map_or(0, |(_, stride)| stride)
}

impl MultiplyStep {
    pub(super) fn run(
        &self,
        memory: &Memory<'_>,
        worker: &Worker<'_>,
        thread: &mut Thread,
    ) -> Result<(), Panicked> {
        let (count, x_stride) = self.x.rows().expect("rows were planned");
        let (n, k) = self.panels.shape();
        let grid = Grid::new(worker.threads, count, self.panels.count(), 24, 2 * count * n * k);
        worker.phase_by_place(grid.tasks(), |task| {
            let (range, columns) = grid.part(task);
            let region = memory.region(&self.out);
            let product = Product {
                panels: &self.panels,
                matrix: Matrix::Packed(self.packed.floats(0..self.panels.packed_len())),
                x: memory.read(&self.x),
                x_stride,
                epilogue: self.ending.epilogue(
                    0,
                    self.panels.padded(),
                    self.ending.residual(memory, 0, row_stride),
                ),
                out: region.target(row_stride(&self.out)),
            };
            region.product(&product, range, columns, &mut thread.kernel).expect(PLANNED);
        })
    }
}

/// Offset of the `index`th matrix of a view, all dimensions but the last two being counted.
pub(super) fn matrix_at(view: &View, mut index: usize) -> usize {
    let mut at = 0;
    for d in (0..view.shape.len() - 2).rev() {
        at += index % view.shape[d] * view.strides[d];
        index /= view.shape[d];
    }
    at
}

pub(super) fn matmul(
    [a, b, out]: [&View; 3],
    panels: &Panels,
    memory: &Memory<'_>,
    worker: &Worker<'_>,
    thread: &mut Thread,
) -> Result<(), Panicked> {
    let rank = out.shape.len();
    let count: usize = out.shape[..rank - 2].iter().product();
    let m = out.shape[rank - 2];
    worker.phase_by_place(count, |task| {
        let Thread { packed, kernel, .. } = &mut *thread;
        packed.resize(panels.packed_len(), 0.0);
        let from = &memory.read(b)[matrix_at(b, task)..];
        panels.pack(from, b.strides[rank - 1], b.strides[rank - 2], packed).expect(PLANNED);
        let region = memory.region(out);
        let product = Product {
            panels,
            matrix: Matrix::Packed(packed),
            x: &memory.read(a)[matrix_at(a, task)..],
            x_stride: a.strides[rank - 2],
            epilogue: Epilogue::default(),
            out: region.target_at(matrix_at(out, task), out.strides[rank - 2]),
        };
        region.product(&product, 0..m, 0..panels.count(), kernel).expect(PLANNED);
    })
}

pub(super) fn attend(
    isa: Isa,
    [q, k, v, out]: [&View; 4],
    mask: Option<&View>,
    scale: f32,
    bf16: bool,
    memory: &Memory<'_>,
    worker: &Worker<'_>,
    thread: &mut Thread,
) -> Result<(), Panicked> {
    let rank = out.shape.len();
    let heads: usize = out.shape[..rank - 2].iter().product();
    let (queries, value_dim, keys, dim) =
        (out.shape[rank - 2], v.shape[rank - 1], v.shape[rank - 2], q.shape[rank - 1]);
    // One task packs a head's keys once; few heads are shared.
    let parts =
        if worker.threads == 1 { 1 } else { (4 * worker.threads).div_ceil(heads).min(queries.div_ceil(48)) };
    worker.phase_by_place(heads * parts, |task| {
        let (head, range) = (task / parts, part(queries, parts, task % parts));
        let region = memory.region(out);
        let attention = Attention {
            keys,
            dim,
            value_dim,
            q: &memory.read(q)[matrix_at(q, head)..],
            q_stride: q.strides[rank - 2],
            k: &memory.read(k)[matrix_at(k, head)..],
            k_stride: k.strides[rank - 1],
            v: &memory.read(v)[matrix_at(v, head)..],
            v_stride: v.strides[rank - 2],
            scale,
            bf16,
            mask: mask.map(|mask| (&memory.read(mask)[matrix_at(mask, head)..], mask.strides[rank - 2])),
            out: region.target_at(matrix_at(out, head), out.strides[rank - 2]),
        };
        region.attention(isa, &attention, range, &mut thread.kernel).expect(PLANNED);
    })
}
