//! What a plan does, one phase of the pool after the other.

use super::memory::{Memory, Thread};
use super::view::View;
use crate::cpu::shared::Block;
use crate::cpu::{Panicked, Worker};
use crate::graph::ValueId;
use kun_kernels::chain::{self, Operand};
use kun_kernels::conv::depthwise::Depthwise;
use kun_kernels::conv::winograd::Winograd;
use kun_kernels::conv::{Convolution, Geometry, Images};
use kun_kernels::gemm::{Activation, Attention, Epilogue, Matrix, Panels, Product, Residual};
use kun_kernels::pool::{Pool, Pooling, add_rows};
use kun_kernels::resize::{self, Axis};
use kun_kernels::strided::Copy;
use kun_kernels::{Isa, layer_norm, rows};
use std::ops::Range;
use std::sync::Arc;

/// Kernels are called with the sizes that the plan was made from.
const PLANNED: &str = "planned sizes fit the kernel";
/// Elements of element-wise work that are worth a claim of their own.
const PIECE: usize = 16 << 10;

/// One step.
#[derive(Debug)]
pub(crate) struct Step {
    /// Which node it is named after.
    pub node: usize,
    pub work: Work,
}

#[derive(Debug)]
pub(crate) enum Work {
    /// A node by `plain`, on the caller's thread; these operands are made tensors before.
    Plain {
        inputs: Vec<(ValueId, View)>,
    },
    Copy {
        from: View,
        to: View,
        copy: Copy,
    },
    Convolve(Box<ConvolveStep>),
    Multiply(Box<MultiplyStep>),
    MatMul {
        a: View,
        b: View,
        out: View,
        panels: Panels,
    },
    Attend {
        q: View,
        k: View,
        v: View,
        mask: Option<View>,
        out: View,
        scale: f32,
    },
    Pool {
        x: View,
        out: View,
        pooling: Pooling,
        geometry: Geometry,
    },
    Mean {
        x: View,
        out: View,
    },
    Chain(Box<ChainStep>),
    Softmax {
        x: View,
        out: View,
    },
    LayerNorm {
        x: View,
        out: View,
        weight: Vec<f32>,
        bias: Vec<f32>,
        epsilon: f32,
    },
    Resize {
        x: View,
        out: View,
        rows: Axis,
        columns: Axis,
    },
}

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
    pub packed: Arc<Block>,
    pub ending: Ending,
    pub x: View,
    pub out: View,
}

#[derive(Debug)]
pub(crate) struct MultiplyStep {
    pub panels: Panels,
    pub packed: Arc<Block>,
    pub ending: Ending,
    pub x: View,
    pub out: View,
}

/// An element-wise program over dimensions that lie in the order of the result.
#[derive(Debug)]
pub(crate) struct ChainStep {
    pub steps: Vec<chain::Step>,
    pub inputs: Vec<View>,
    pub out: View,
}

impl Work {
    /// Every view that it reads or writes.
    pub(crate) fn views(&self) -> Vec<&View> {
        match self {
            Work::Plain { inputs } => inputs.iter().map(|(_, view)| view).collect(),
            Work::Copy { from, to, .. } => vec![from, to],
            Work::Convolve(step) => {
                [&step.x, &step.out].into_iter().chain(step.ending.residual.as_ref().map(|r| &r.0)).collect()
            }
            Work::Multiply(step) => {
                [&step.x, &step.out].into_iter().chain(step.ending.residual.as_ref().map(|r| &r.0)).collect()
            }
            Work::MatMul { a, b, out, .. } => vec![a, b, out],
            Work::Attend { q, k, v, mask, out, .. } => [q, k, v, out].into_iter().chain(mask).collect(),
            Work::Pool { x, out, .. }
            | Work::Mean { x, out }
            | Work::Softmax { x, out }
            | Work::LayerNorm { x, out, .. }
            | Work::Resize { x, out, .. } => vec![x, out],
            Work::Chain(step) => step.inputs.iter().chain([&step.out]).collect(),
        }
    }

    /// The name that profiles show.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Work::Plain { .. } => "plain",
            Work::Copy { .. } => "copy",
            Work::Convolve(step) => match step.form {
                Form::Direct => "convolution",
                Form::Winograd => "winograd",
                Form::Depthwise => "depthwise",
            },
            Work::Multiply(_) => "product",
            Work::MatMul { .. } => "matmul",
            Work::Attend { .. } => "attention",
            Work::Pool { .. } => "pool",
            Work::Mean { .. } => "mean",
            Work::Chain(_) => "elements",
            Work::Softmax { .. } => "softmax",
            Work::LayerNorm { .. } => "layer norm",
            Work::Resize { .. } => "resize",
        }
    }

    /// Runs it on all threads of the job.
    pub(crate) fn run(
        &self,
        isa: Isa,
        memory: &Memory<'_>,
        worker: &Worker<'_>,
        thread: &mut Thread,
    ) -> Result<(), Panicked> {
        match self {
            Work::Plain { .. } => unreachable!("plain steps run alone"),
            Work::Copy { from, to, copy } => {
                let group = (PIECE / copy.piece_elements().max(1)).max(1);
                worker.phase(copy.pieces().div_ceil(group), |task| {
                    let pieces = task * group..((task + 1) * group).min(copy.pieces());
                    memory.region(to).copy(copy, pieces, memory.read(from)).expect(PLANNED);
                })
            }
            Work::Convolve(step) => step.run(isa, memory, worker, thread),
            Work::Multiply(step) => step.run(memory, worker, thread),
            Work::MatMul { a, b, out, panels } => matmul([a, b, out], panels, memory, worker, thread),
            Work::Attend { q, k, v, mask, out, scale } => {
                attend(isa, [q, k, v, out], mask.as_ref(), *scale, memory, worker, thread)
            }
            Work::Pool { x, out, pooling, geometry } => {
                let channels = x.shape[1];
                let rows = geometry.batch * geometry.output[0];
                let group = (PIECE / (geometry.output[1] * channels).max(1)).max(1);
                worker.phase(rows.div_ceil(group), |task| {
                    let region = memory.region(out);
                    let pool = Pool {
                        pooling: *pooling,
                        geometry,
                        channels,
                        x: images(memory, x),
                        out: region.target(pixel_stride(out)),
                    };
                    region.pool(isa, &pool, task * group..((task + 1) * group).min(rows)).expect(PLANNED);
                })
            }
            Work::Mean { x, out } => mean(isa, x, out, memory, worker),
            Work::Chain(step) => step.run(isa, memory, worker, thread),
            Work::Softmax { x, out } => each_row([x, out], memory, worker, |x, out| {
                rows::softmax(isa, x, x.len(), 1.0, out).expect(PLANNED);
            }),
            Work::LayerNorm { x, out, weight, bias, epsilon } => {
                each_row([x, out], memory, worker, |x, out| {
                    let bias = (!bias.is_empty()).then_some(&bias[..]);
                    layer_norm::layer_norm(isa, x, weight, bias, *epsilon, out).expect(PLANNED);
                })
            }
            Work::Resize { x, out, rows, columns } => {
                let &[batch, channels, _, width] = &x.shape[..] else {
                    unreachable!("images have four dimensions")
                };
                let (height, stride) = (rows.len(), pixel_stride(out));
                worker.phase(batch * height, |task| {
                    let (image, row) = (task / height, task % height);
                    let line = columns.len() * stride;
                    let at = task * line;
                    let to = memory.region(out).row_mut(at, line - stride + channels);
                    resize::row(
                        isa,
                        images(memory, x),
                        (image, row),
                        width,
                        channels,
                        rows,
                        columns,
                        to,
                        stride,
                        &mut thread.chain,
                    )
                    .expect(PLANNED);
                })
            }
        }
    }
}

/// Channels of a pixel together.
fn images<'a>(memory: &Memory<'a>, x: &View) -> Images<'a> {
    let last = x.strides.len() - 1;
    let row_stride = if x.shape.len() == 4 { x.strides[2] } else { 0 };
    Images { data: memory.read(x), image_stride: x.strides[0], row_stride, pixel_stride: x.strides[last] }
}

/// Elements between the pixels of a result.
fn pixel_stride(out: &View) -> usize {
    // Dimensions of 1 have any stride: the innermost longer one tells.
    let places = (2..out.shape.len()).rev().chain([0]);
    let mut inner = 1;
    for d in places {
        if out.shape[d] > 1 {
            return out.strides[d] / inner;
        }
        inner *= out.shape[d];
    }
    out.shape[1]
}

/// How `rows` rows and `panels` panels are dealt out: parts of both.
fn grid(threads: usize, rows: usize, panels: usize, few: usize, operations: usize) -> [usize; 2] {
    // About 20 microseconds of one core.
    const TASK: usize = 1 << 20;
    let wanted = if threads == 1 { 1 } else { (operations / TASK).clamp(1, 8 * threads) };
    // Rows alone keep a panel in the cache; few rows leave the panels to split.
    let by_rows = wanted.min((rows / few).max(1));
    let by_panels = wanted.div_ceil(by_rows).min(panels.max(1));
    [by_rows, by_panels]
}

fn part(len: usize, parts: usize, index: usize) -> Range<usize> {
    len * index / parts..len * (index + 1) / parts
}

impl Ending {
    fn epilogue<'a>(&'a self, start: usize, padded: usize, residual: Option<Residual>) -> Epilogue<'a> {
        let pick =
            |values: &'a [f32]| if values.is_empty() { values } else { &values[start..start + padded] };
        Epilogue { bias: pick(&self.bias), activation: self.activation, slopes: pick(&self.slopes), residual }
    }

    /// The other summand, whose rows are pixels or rows of a matrix.
    fn residual(
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
    fn run(
        &self,
        isa: Isa,
        memory: &Memory<'_>,
        worker: &Worker<'_>,
        thread: &mut Thread,
    ) -> Result<(), Panicked> {
        let geometry = &self.geometry;
        let stride = pixel_stride(&self.out);
        if self.form == Form::Depthwise {
            let rows = geometry.batch * geometry.output[0];
            let operations = geometry.pixels() * geometry.taps() * self.groups * 8;
            let [parts, _] = grid(worker.threads, rows, 1, 1, operations);
            return worker.phase(parts, |task| {
                let region = memory.region(&self.out);
                let depthwise = Depthwise {
                    geometry,
                    channels: self.groups,
                    weights: self.packed.floats(0, geometry.taps() * self.groups),
                    x: images(memory, &self.x),
                    epilogue: self.ending.epilogue(
                        0,
                        self.groups,
                        self.ending.residual(memory, 0, pixel_stride),
                    ),
                    out: region.target(stride),
                };
                region.depthwise(isa, &depthwise, part(rows, parts, task)).expect(PLANNED);
            });
        }
        let winograd = self.form == Form::Winograd;
        let rows = if winograd { kun_kernels::conv::winograd::tiles(geometry) } else { geometry.pixels() };
        let per_row = if winograd { 36 } else { geometry.taps() };
        let operations = 2 * rows * per_row * self.channels * self.outputs;
        let few = if winograd { 12 } else { 36 };
        let [by_rows, by_panels] = grid(worker.threads, rows, self.panels.count(), few, operations);
        let per_group = if winograd { 36 } else { 1 } * self.panels.packed_len();
        worker.phase(by_rows * by_panels * self.groups, |task| {
            let (group, task) = (task / (by_rows * by_panels), task % (by_rows * by_panels));
            // Neighbouring tasks share their panels.
            let (columns, range) =
                (part(self.panels.count(), by_panels, task / by_rows), part(rows, by_rows, task % by_rows));
            let mut x = images(memory, &self.x);
            x.data = &x.data[group * self.channels..];
            let region = memory.region(&self.out);
            let (padded, first) = (self.panels.padded(), group * self.outputs);
            let epilogue = self.ending.epilogue(
                group * padded,
                padded,
                self.ending.residual(memory, first, pixel_stride),
            );
            let packed = self.packed.floats(group * per_group * 4, per_group);
            let out = region.target_at(first, stride);
            let done = if winograd {
                let task = Winograd { geometry, panels: &self.panels, packed, x, epilogue, out };
                region.winograd(&task, range, columns, &mut thread.kernel)
            } else {
                let channels = self.channels;
                let task = Convolution { geometry, channels, panels: &self.panels, packed, x, epilogue, out };
                region.convolution(&task, range, columns, &mut thread.kernel)
            };
            done.expect(PLANNED);
        })
    }
}

/// Rows of a dense or evenly spaced matrix.
fn row_stride(view: &View) -> usize {
    view.rows().map_or(0, |(_, stride)| stride)
}

impl MultiplyStep {
    fn run(&self, memory: &Memory<'_>, worker: &Worker<'_>, thread: &mut Thread) -> Result<(), Panicked> {
        let (count, x_stride) = self.x.rows().expect("rows were planned");
        let (n, k) = self.panels.shape();
        let [by_rows, by_panels] = grid(worker.threads, count, self.panels.count(), 24, 2 * count * n * k);
        worker.phase(by_rows * by_panels, |task| {
            let (columns, range) =
                (part(self.panels.count(), by_panels, task / by_rows), part(count, by_rows, task % by_rows));
            let region = memory.region(&self.out);
            let product = Product {
                panels: &self.panels,
                matrix: Matrix::Packed(self.packed.floats(0, self.panels.packed_len())),
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
fn matrix_at(view: &View, mut index: usize) -> usize {
    let mut at = 0;
    for d in (0..view.shape.len() - 2).rev() {
        at += index % view.shape[d] * view.strides[d];
        index /= view.shape[d];
    }
    at
}

fn matmul(
    [a, b, out]: [&View; 3],
    panels: &Panels,
    memory: &Memory<'_>,
    worker: &Worker<'_>,
    thread: &mut Thread,
) -> Result<(), Panicked> {
    let rank = out.shape.len();
    let count: usize = out.shape[..rank - 2].iter().product();
    let m = out.shape[rank - 2];
    worker.phase(count, |task| {
        let Thread { kernel, packed, .. } = thread;
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

fn attend(
    isa: Isa,
    [q, k, v, out]: [&View; 4],
    mask: Option<&View>,
    scale: f32,
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
    worker.phase(heads * parts, |task| {
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
            mask: mask.map(|mask| (&memory.read(mask)[matrix_at(mask, head)..], mask.strides[rank - 2])),
            out: region.target_at(matrix_at(out, head), out.strides[rank - 2]),
        };
        region.attention(isa, &attention, range, &mut thread.kernel).expect(PLANNED);
    })
}

/// The mean of all pixels; the channels of a pixel lie together.
fn mean(isa: Isa, x: &View, out: &View, memory: &Memory<'_>, worker: &Worker<'_>) -> Result<(), Panicked> {
    let &[batch, channels, height, width] = &x.shape[..] else { unreachable!("images have four dimensions") };
    let parts = if worker.threads == 1 { 1 } else { (channels / 64).clamp(1, 2 * worker.threads) };
    worker.phase(batch * parts, |task| {
        let (image, range) = (task / parts, part(channels, parts, task % parts));
        let to = memory.region(out).row_mut(image * channels + range.start, range.len());
        to.fill(0.0);
        let data = &memory.read(x)[image * x.strides[0] + range.start..];
        for row in 0..height {
            add_rows(isa, &data[row * x.strides[2]..], width, x.strides[3], to).expect(PLANNED);
        }
        let factor = 1.0 / (height * width) as f32;
        to.iter_mut().for_each(|x| *x *= factor);
    })
}

/// Calls `body` for every row.
fn each_row(
    [x, out]: [&View; 2],
    memory: &Memory<'_>,
    worker: &Worker<'_>,
    mut body: impl FnMut(&[f32], &mut [f32]),
) -> Result<(), Panicked> {
    let width = out.shape.last().copied().unwrap_or(1);
    let ((count, from), to) = (x.rows().expect("rows were planned"), row_stride(out));
    let group = (PIECE / 4 / width.max(1)).max(1);
    worker.phase(count.div_ceil(group), |task| {
        let data = memory.read(x);
        for row in task * group..((task + 1) * group).min(count) {
            body(&data[row * from..][..width], memory.region(out).row_mut(row * to, width));
        }
    })
}

impl ChainStep {
    fn run(
        &self,
        isa: Isa,
        memory: &Memory<'_>,
        worker: &Worker<'_>,
        thread: &mut Thread,
    ) -> Result<(), Panicked> {
        let inner = self.out.shape.last().copied().unwrap_or(1);
        let outer: usize = self.out.shape[..self.out.shape.len().saturating_sub(1)].iter().product();
        // Long lines are split as well.
        let pieces = inner.div_ceil(PIECE);
        let group = (PIECE / inner.max(1)).max(1);
        worker.phase(outer.div_ceil(group) * pieces, |task| {
            let columns = part(inner, pieces, task % pieces);
            let first = task / pieces * group;
            for line in first..(first + group).min(outer) {
                let mut operands = [Operand::Number(0.0); 16];
                for (operand, view) in operands.iter_mut().zip(&self.inputs) {
                    let (data, at) = (memory.read(view), line_at(view, line));
                    *operand = if view.strides.last() == Some(&0) || inner == 1 {
                        Operand::Number(data[at])
                    } else {
                        Operand::Slice(&data[at + columns.start..at + columns.end])
                    };
                }
                let at = line_at(&self.out, line) + columns.start;
                let out = memory.region(&self.out).row_mut(at, columns.len());
                chain::run(isa, &self.steps, &operands[..self.inputs.len()], out, &mut thread.chain)
                    .expect(PLANNED);
            }
        })
    }
}

/// Offset of the `index`th line of a view, all dimensions but the last being counted.
fn line_at(view: &View, mut index: usize) -> usize {
    let mut at = 0;
    for d in (0..view.shape.len().saturating_sub(1)).rev() {
        at += index % view.shape[d] * view.strides[d];
        index /= view.shape[d];
    }
    at
}
