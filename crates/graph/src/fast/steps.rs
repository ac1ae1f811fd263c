//! What a plan does, one phase of the pool after the other.

mod bottleneck;
mod codes;
mod describe;
mod elements;
mod images;
mod products;
mod recurrent;

pub(crate) use bottleneck::BottleneckStep;
pub(crate) use codes::{
    CodesForm, CodesMatMulStep, CodesStep, DecodeStep, QUANTIZE_PARTS, QuantizeStep, TableStep,
};
pub(crate) use elements::{ChainStep, MEAN_PARTS, ReduceStep};
pub(crate) use images::{GridSampleStep, InstanceNormStep, PadStep};
pub(crate) use products::{ConvolveStep, Ending, Form, MultiplyStep};
pub(crate) use recurrent::RecurrentStep;

use super::memory::{Memory, Thread};
use super::view::View;
use crate::cpu::{Panicked, Worker};
use crate::graph::ValueId;
use elements::{each_row, mean};
use kun_kernels::conv::{Geometry, Images};
use kun_kernels::gemm::Panels;
use kun_kernels::pool::{Pool, Pooling};
use kun_kernels::resize::{self, Axis};
use kun_kernels::strided::Copy;
use kun_kernels::{Isa, layer_norm, rows};
use products::{attend, matmul};
use std::ops::Range;

/// Kernels are called with the sizes that the plan was made from.
const PLANNED: &str = "planned sizes fit the kernel";
/// Elements of element-wise work that are worth a claim of their own.
const PIECE: usize = 8 << 10;

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
    Bottleneck(Box<BottleneckStep>),
    Multiply(Box<MultiplyStep>),
    Quantize(Box<QuantizeStep>),
    Decode(Box<DecodeStep>),
    /// A convolution or product of codes.
    Codes(Box<CodesStep>),
    Table(Box<TableStep>),
    CodesPool {
        x: View,
        out: View,
        geometry: Geometry,
    },
    MatMul {
        a: View,
        b: View,
        out: View,
        panels: Panels,
    },
    CodesMatMul(Box<CodesMatMulStep>),
    Attend {
        q: View,
        k: View,
        v: View,
        mask: Option<View>,
        out: View,
        scale: f32,
        bf16: bool,
    },
    Pool {
        x: View,
        out: View,
        pooling: Pooling,
        geometry: Geometry,
    },
    Mean {
        x: View,
        /// Memory for the sums of parts.
        sums: View,
        out: View,
    },
    Chain(Box<ChainStep>),
    Softmax {
        x: View,
        out: View,
        log: bool,
    },
    Reduce(Box<ReduceStep>),
    LayerNorm {
        x: View,
        out: View,
        weight: Vec<f32>,
        bias: Vec<f32>,
        epsilon: f32,
    },
    InstanceNorm(Box<InstanceNormStep>),
    Pad(Box<PadStep>),
    Recurrent(Box<RecurrentStep>),
    GridSample(Box<GridSampleStep>),
    Resize {
        x: View,
        out: View,
        rows: Axis,
        columns: Axis,
    },
}

impl Work {
    /// Every view that it reads or writes.
    pub(crate) fn views(&self) -> Vec<&View> {
        match self {
            Work::Plain { inputs } => inputs.iter().map(|(_, view)| view).collect(),
            Work::Copy { from, to, .. } => vec![from, to],
            Work::Convolve(step) => {
                let more = step.ending.residual.as_ref().map(|r| &r.0).into_iter().chain(&step.factors);
                [&step.x, &step.out].into_iter().chain(more).collect()
            }
            Work::Bottleneck(step) => step.views(),
            Work::Multiply(step) => {
                [&step.x, &step.out].into_iter().chain(step.ending.residual.as_ref().map(|r| &r.0)).collect()
            }
            Work::Quantize(step) => vec![&step.x, &step.out, &step.parts, &step.range],
            Work::Decode(step) => vec![&step.codes, &step.range, &step.out],
            Work::Codes(step) => {
                let more =
                    [step.added.as_ref().map(|added| &added.0), step.range.as_ref().map(|range| &range.0)];
                [&step.x, &step.out].into_iter().chain(more.into_iter().flatten()).collect()
            }
            Work::Table(step) => vec![&step.x, &step.out],
            Work::CodesPool { x, out, .. } => vec![x, out],
            Work::MatMul { a, b, out, .. } => vec![a, b, out],
            Work::CodesMatMul(step) => vec![&step.a, &step.b, &step.out],
            Work::Mean { x, sums, out } => vec![x, sums, out],
            Work::InstanceNorm(step) => [&step.x, &step.out].into_iter().chain(&step.sums).collect(),
            Work::Pad(step) => vec![&step.x, &step.out],
            Work::Reduce(step) => vec![&step.x, &step.out],
            Work::Recurrent(step) => step.views(),
            Work::GridSample(step) => vec![&step.x, &step.grid, &step.out],
            Work::Attend { q, k, v, mask, out, .. } => [q, k, v, out].into_iter().chain(mask).collect(),
            Work::Pool { x, out, .. }
            | Work::Softmax { x, out, .. }
            | Work::LayerNorm { x, out, .. }
            | Work::Resize { x, out, .. } => vec![x, out],
            Work::Chain(step) => step.inputs.iter().chain([&step.out]).collect(),
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
                worker.phase_by_place(copy.pieces().div_ceil(group), |task| {
                    let pieces = task * group..((task + 1) * group).min(copy.pieces());
                    if to.codes {
                        memory.code_region(to).copy(copy, pieces, memory.codes(from)).expect(PLANNED);
                    } else {
                        memory.region(to).copy(copy, pieces, memory.read(from)).expect(PLANNED);
                    }
                })
            }
            Work::Convolve(step) => step.run(isa, memory, worker, thread),
            Work::Bottleneck(step) => step.run(isa, memory, worker, thread),
            Work::Multiply(step) => step.run(memory, worker, thread),
            Work::Quantize(step) => step.run(isa, memory, worker),
            Work::Decode(step) => step.run(isa, memory, worker),
            Work::Codes(step) => step.run(isa, memory, worker, thread),
            Work::Table(step) => step.run(memory, worker),
            Work::CodesPool { x, out, geometry } => codes::pool(isa, x, out, geometry, memory, worker),
            Work::MatMul { a, b, out, panels } => matmul([a, b, out], panels, memory, worker, thread),
            Work::CodesMatMul(step) => step.run(isa, memory, worker, thread),
            Work::Attend { q, k, v, mask, out, scale, bf16 } => {
                attend(isa, [q, k, v, out], mask.as_ref(), *scale, *bf16, memory, worker, thread)
            }
            Work::Pool { x, out, pooling, geometry } => {
                let channels = x.shape[1];
                let rows = geometry.batch * geometry.output[0];
                let group = (PIECE / (geometry.output[1] * channels).max(1)).max(1);
                worker.phase_by_place(rows.div_ceil(group), |task| {
                    let region = memory.region(out);
                    let pool = Pool {
                        pooling: *pooling,
                        geometry,
                        channels,
                        x: images(memory, x),
                        out: region.target(pixel_stride(out)),
                    };
                    let rows = task * group..((task + 1) * group).min(rows);
                    region.pool(isa, &pool, rows, &mut thread.kernel).expect(PLANNED);
                })
            }
            Work::Mean { x, sums, out } => mean(isa, [x, sums, out], memory, worker),
            Work::InstanceNorm(step) => step.run(isa, memory, worker, thread),
            Work::Pad(step) => step.run(memory, worker),
            Work::Recurrent(step) => step.run(isa, memory, worker, thread),
            Work::GridSample(step) => step.run(isa, memory, worker),
            Work::Chain(step) => step.run(isa, memory, worker, thread),
            Work::Softmax { x, out, log } => each_row([x, out], memory, worker, |x, width, out| match log {
                true => rows::log_softmax(isa, x, width, out).expect(PLANNED),
                false => rows::softmax(isa, x, width, 1.0, out).expect(PLANNED),
            }),
            Work::Reduce(step) => step.run(isa, memory, worker),
            Work::LayerNorm { x, out, weight, bias, epsilon } => {
                each_row([x, out], memory, worker, |x, width, out| {
                    let bias = (!bias.is_empty()).then_some(&bias[..]);
                    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
                        layer_norm::layer_norm(isa, x, weight, bias, *epsilon, out).expect(PLANNED);
                    }
                })
            }
            Work::Resize { x, out, rows, columns } => {
                let &[batch, channels, _, width] = &x.shape[..] else {
                    unreachable!("images have four dimensions")
                };
                let (height, stride) = (rows.len(), pixel_stride(out));
                worker.phase_by_place(batch * height, |task| {
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

fn part(len: usize, parts: usize, index: usize) -> Range<usize> {
    len * index / parts..len * (index + 1) / parts
}
