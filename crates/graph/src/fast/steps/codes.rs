//! Work on u8 codes.

use super::products::{Grid, matrix_at, row_stride};
use super::{PIECE, PLANNED, part, pixel_stride};
use crate::cpu::shared::AnyRegion;
use crate::cpu::{Panicked, Worker};
use crate::fast::memory::{Memory, Thread};
use crate::fast::pack::Packed;
use crate::fast::view::View;
use kun_kernels::Isa;
use kun_kernels::codes::{CodesPool, Table, bounds, decode, encode, map};
use kun_kernels::conv::codes::CodesConvolution;
use kun_kernels::conv::codes::depthwise::CodesDepthwise;
use kun_kernels::conv::{Geometry, Images, few};
use kun_kernels::gemm::Panels;
use kun_kernels::gemm::quads::{Code, CodesAdded, CodesProduct, CodesTarget, Scaling, row_starts, starts};
use std::sync::OnceLock;

/// What is multiplied.
#[derive(Clone, Debug)]
pub(crate) enum CodesForm {
    Convolve(Geometry),
    Depthwise(Geometry),
    Product,
}

/// A convolution or product of codes.
#[derive(Debug)]
pub(crate) struct CodesStep {
    pub form: CodesForm,
    /// Of one group.
    pub channels: usize,
    pub outputs: usize,
    pub panels: Panels,
    /// Weights, and the sums of outputs.
    pub packed: Packed,
    /// What sums begin with, once the weights are packed.
    pub start: OnceLock<Vec<i32>>,
    /// The zero of the input.
    pub zero: u8,
    /// Where a factor of all scales and the zero of the input are found when it runs; the zero of the weights.
    pub range: Option<(View, u8)>,
    /// Bias in products of codes, or none.
    pub whole: Vec<i32>,
    pub scale: Vec<f32>,
    pub bias: Vec<f32>,
    /// Zero, lowest and highest code of a result in codes.
    pub codes: [u8; 3],
    /// Bounds of a result in numbers.
    pub numbers: [f32; 2],
    /// What is added: its codes, the factors of both sides, its zero, and the zero and bounds of the sum.
    pub added: Option<(View, f32, f32, u8, [u8; 3])>,
    pub table: Option<Box<Table>>,
    pub x: View,
    pub out: View,
}

/// What sums begin with and are scaled by, with what was found in a run.
#[derive(Debug)]
struct Found {
    zero: u8,
    start: Vec<i32>,
    rows: Vec<i32>,
    scale: Vec<f32>,
}

impl CodesStep {
    fn start(&self, isa: Isa, zero: u8) -> Vec<i32> {
        let from = 4 * self.panels.packed_len();
        let bytes = self.packed.bytes(from..from + 4 * self.outputs);
        let sum = |bytes: &[u8]| i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let sums: Vec<i32> = bytes.chunks_exact(4).map(sum).collect();
        let mut start = starts(isa, zero, &sums, &self.whole);
        start.resize(self.panels.padded(), 0);
        start
    }

    /// What is found at `range`.
    fn find(&self, isa: Isa, memory: &Memory<'_>, (range, weight_zero): &(View, u8)) -> Found {
        let &[factor, zero] = memory.read(range) else { unreachable!("a range is two numbers") };
        let (zero, mut rows) = (zero as u8, Vec::new());
        if let CodesForm::Product = self.form {
            let (count, stride) = self.x.rows().expect("rows were planned");
            let sizes = [count, stride, self.channels];
            row_starts(isa, memory.codes(&self.x), sizes, [zero, *weight_zero], &mut rows).expect(PLANNED);
        }
        let scale = self.scale.iter().map(|scale| factor * scale).collect();
        Found { zero, start: self.start(isa, zero), rows, scale }
    }

    /// What happens to sums, and the zero of the input; to be asked for within a task, where ranges are there.
    fn scaling<'a>(
        &'a self,
        isa: Isa,
        memory: &Memory<'_>,
        found: &'a mut Option<Found>,
        added: Option<CodesAdded>,
    ) -> (Scaling<'a>, u8) {
        let (start, rows, scale, zero): (_, &[i32], &[f32], _) = match &self.range {
            Some(range) => {
                let found = &*found.get_or_insert_with(|| self.find(isa, memory, range));
                (&found.start, &found.rows, &found.scale, found.zero)
            }
            None => (self.start.get_or_init(|| self.start(isa, self.zero)), &[], &self.scale, self.zero),
        };
        let Self { codes, numbers, .. } = *self;
        (Scaling { start, rows, scale, bias: &self.bias, codes, numbers, added }, zero)
    }

    pub(super) fn run(
        &self,
        isa: Isa,
        memory: &Memory<'_>,
        worker: &Worker<'_>,
        thread: &mut Thread,
    ) -> Result<(), Panicked> {
        let of_view = |view: &View| match self.form {
            CodesForm::Product => row_stride(view),
            _ => pixel_stride(view),
        };
        let added = self.added.as_ref().map(|(view, own, factor, zero, bounds)| CodesAdded {
            data: memory.codes(view).as_ptr(),
            stride: of_view(view),
            own: *own,
            factor: *factor,
            zero: *zero,
            bounds: *bounds,
        });
        let mut found = None;
        let Self { panels, channels, .. } = self;
        let (channels, table) = (*channels, self.table.as_deref());
        let packed = self.packed.bytes(0..4 * panels.packed_len());
        let stride = of_view(&self.out);
        let region = || match self.out.codes {
            true => AnyRegion::Codes(memory.code_region(&self.out)),
            false => AnyRegion::Numbers(memory.region(&self.out)),
        };
        // Set by the region.
        let out = CodesTarget::Codes { data: std::ptr::null_mut(), stride };
        match &self.form {
            CodesForm::Product => {
                let (count, x_stride) = self.x.rows().expect("rows were planned");
                let operations = count * self.outputs * channels / 2;
                let grid = Grid::new(worker.threads, count, panels.count(), 24, operations);
                worker.phase_by_place(grid.tasks(), |task| {
                    let (rows, columns) = grid.part(task);
                    let (scaling, _) = self.scaling(isa, memory, &mut found, added);
                    let x = memory.codes(&self.x);
                    let product = CodesProduct { panels, packed, x, x_stride, scaling, table, out };
                    region().product(&product, stride, rows, columns).expect(PLANNED);
                })
            }
            CodesForm::Convolve(geometry) => {
                let few = few::fits(geometry, channels);
                let lines = geometry.batch * geometry.output[0];
                let (rows, least) = if few { (lines, 1) } else { (geometry.pixels(), 24) };
                let operations = geometry.pixels() * geometry.taps() * channels * self.outputs / 2;
                let grid = Grid::new(worker.threads, rows, panels.count(), least, operations);
                worker.phase_by_place(grid.tasks(), |task| {
                    let (rows, columns) = grid.part(task);
                    let (scaling, zero) = self.scaling(isa, memory, &mut found, added);
                    let x = images(memory, &self.x);
                    let channel_stride = if few { self.x.strides[1] } else { 1 };
                    let convolution = CodesConvolution {
                        geometry,
                        channels,
                        panels,
                        packed,
                        x,
                        channel_stride,
                        zero,
                        scaling,
                        table,
                        out,
                    };
                    let kernel = &mut thread.kernel;
                    region().convolution(&convolution, stride, rows, columns, kernel).expect(PLANNED);
                })
            }
            CodesForm::Depthwise(geometry) => {
                let rows = geometry.batch * geometry.output[0];
                let operations = 4 * geometry.pixels() * geometry.taps() * self.outputs;
                // Parts of whole lines of the cache.
                let grid = Grid::new(worker.threads, rows, self.outputs.div_ceil(64), 2, operations);
                worker.phase_by_place(grid.tasks(), |task| {
                    let (rows, range) = grid.part(task);
                    let range = range.start * 64..(range.end * 64).min(self.outputs);
                    let (scaling, zero) = self.scaling(isa, memory, &mut found, added);
                    let depthwise = CodesDepthwise {
                        geometry,
                        channels: self.outputs,
                        weights: packed,
                        x: images(memory, &self.x),
                        zero,
                        scaling,
                        table,
                        out: std::ptr::null_mut(),
                        stride,
                    };
                    let region = memory.code_region(&self.out);
                    region.depthwise(isa, &depthwise, rows, range, &mut thread.kernel).expect(PLANNED);
                })
            }
        }
    }
}

/// Parts of a value whose bounds are found on their own.
pub(crate) const QUANTIZE_PARTS: usize = 8;

/// A value as codes whose scale and zero follow from it, as ONNX's DynamicQuantizeLinear has them.
#[derive(Debug)]
pub(crate) struct QuantizeStep {
    pub x: View,
    pub out: View,
    /// Room for the bounds of parts.
    pub parts: View,
    /// Scale and zero.
    pub range: View,
}

impl QuantizeStep {
    pub(super) fn run(&self, isa: Isa, memory: &Memory<'_>, worker: &Worker<'_>) -> Result<(), Panicked> {
        let len = self.x.elements();
        worker.phase_by_place(QUANTIZE_PARTS, |task| {
            let bounds = bounds(isa, &memory.read(&self.x)[part(len, QUANTIZE_PARTS, task)]);
            memory.region(&self.parts).row_mut(2 * task, 2).copy_from_slice(&bounds);
        })?;
        worker.phase_by_place(QUANTIZE_PARTS, |task| {
            let parts = memory.read(&self.parts).as_chunks::<2>().0;
            let [low, high] =
                parts.iter().fold([0f32; 2], |[low, high], of| [low.min(of[0]), high.max(of[1])]);
            let scale = (high - low) / 255.0;
            let zero =
                if scale == 0.0 { 0 } else { (-low / scale).clamp(0.0, 255.0).round_ties_even() as u8 };
            if task == 0 {
                memory.region(&self.range).row_mut(0, 2).copy_from_slice(&[scale, f32::from(zero)]);
            }
            let part = part(len, QUANTIZE_PARTS, task);
            let to = memory.code_region(&self.out).row_mut(part.start, part.len());
            if scale == 0.0 {
                return to.fill(0);
            }
            encode(isa, Code { scale, zero }, &memory.read(&self.x)[part], to).expect(PLANNED);
        })
    }
}

/// The numbers of such codes.
#[derive(Debug)]
pub(crate) struct DecodeStep {
    pub codes: View,
    /// Scale and zero.
    pub range: View,
    pub out: View,
}

impl DecodeStep {
    pub(super) fn run(&self, isa: Isa, memory: &Memory<'_>, worker: &Worker<'_>) -> Result<(), Panicked> {
        let len = self.out.elements();
        worker.phase_by_place(len.div_ceil(PIECE), |task| {
            let &[scale, zero] = memory.read(&self.range) else { unreachable!("a range is two numbers") };
            let piece = task * PIECE..((task + 1) * PIECE).min(len);
            let to = memory.region(&self.out).row_mut(piece.start, piece.len());
            let code = Code { scale, zero: zero as u8 };
            decode(isa, code, &memory.codes(&self.codes)[piece], to).expect(PLANNED);
        })
    }
}

/// A product of two computed matrices, all dimensions but the last two being counted.
#[derive(Debug)]
pub(crate) struct CodesMatMulStep {
    pub panels: Panels,
    /// Of both operands.
    pub zeros: [u8; 2],
    pub scale: Vec<f32>,
    /// Zero, lowest and highest code of a result in codes.
    pub codes: [u8; 3],
    pub a: View,
    pub b: View,
    pub out: View,
}

impl CodesMatMulStep {
    pub(super) fn run(
        &self,
        isa: Isa,
        memory: &Memory<'_>,
        worker: &Worker<'_>,
        thread: &mut Thread,
    ) -> Result<(), Panicked> {
        let Self { panels, zeros, scale, codes, a, b, out } = self;
        let rank = out.shape.len();
        let (count, m, k) = (out.shape[..rank - 2].iter().product(), out.shape[rank - 2], panels.shape().1);
        let (x_stride, stride) = (a.strides[rank - 2], out.strides[rank - 2]);
        worker.phase_by_place(count, |task| {
            let Thread { codes: packed, starts: [outputs, rows], .. } = &mut *thread;
            packed.resize(4 * panels.packed_len(), 0);
            let from = &memory.codes(b)[matrix_at(b, task)..];
            panels
                .pack_codes(from, [b.strides[rank - 1], b.strides[rank - 2]], packed, outputs)
                .expect(PLANNED);
            let mut start = starts(isa, zeros[0], outputs, &[]);
            start.resize(panels.padded(), 0);
            let x = &memory.codes(a)[matrix_at(a, task)..];
            row_starts(isa, x, [m, x_stride, k], *zeros, rows).expect(PLANNED);
            let product = CodesProduct {
                panels,
                packed,
                x,
                x_stride,
                scaling: Scaling {
                    start: &start,
                    rows,
                    scale,
                    bias: &[],
                    codes: *codes,
                    numbers: [f32::NEG_INFINITY, f32::INFINITY],
                    added: None,
                },
                table: None,
                // Set by the region.
                out: CodesTarget::Codes { data: std::ptr::null_mut(), stride },
            };
            let region = match out.codes {
                true => AnyRegion::Codes(memory.code_region(out)),
                false => AnyRegion::Numbers(memory.region(out)),
            };
            let region = region.from(matrix_at(out, task));
            region.product(&product, stride, 0..m, 0..panels.count()).expect(PLANNED);
        })
    }
}

/// Channels of a pixel together.
fn images<'a>(memory: &Memory<'a>, x: &View) -> Images<'a, u8> {
    let last = x.strides.len() - 1;
    let row_stride = if x.shape.len() == 4 { x.strides[2] } else { 0 };
    Images { data: memory.codes(x), image_stride: x.strides[0], row_stride, pixel_stride: x.strides[last] }
}

/// The largest codes of windows.
pub(super) fn pool(
    isa: Isa,
    x: &View,
    out: &View,
    geometry: &Geometry,
    memory: &Memory<'_>,
    worker: &Worker<'_>,
) -> Result<(), Panicked> {
    let (channels, stride) = (x.shape[1], pixel_stride(out));
    let rows = geometry.batch * geometry.output[0];
    let line = geometry.output[1] * stride;
    let group = (4 * PIECE / (geometry.output[1] * channels).max(1)).max(1);
    worker.phase_by_place(rows.div_ceil(group), |task| {
        let pool = CodesPool { geometry, channels, x: images(memory, x) };
        for row in task * group..((task + 1) * group).min(rows) {
            let to = memory.code_region(out).row_mut(row * line, line - stride + channels);
            pool.run(isa, row, to, stride).expect(PLANNED);
        }
    })
}

/// A function of every code, row by row.
#[derive(Debug)]
pub(crate) struct TableStep {
    pub table: Box<Table>,
    /// Evenly spaced rows.
    pub x: View,
    pub out: View,
}

impl TableStep {
    pub(super) fn run(&self, memory: &Memory<'_>, worker: &Worker<'_>) -> Result<(), Panicked> {
        let ((count, from), to) = (self.x.rows().expect("rows were planned"), row_stride(&self.out));
        let width = self.x.shape.last().copied().unwrap_or(1);
        let group = (4 * PIECE / width.max(1)).max(1);
        // Long rows are split as well.
        let pieces = width.div_ceil(4 * PIECE).max(1);
        worker.phase_by_place(count.div_ceil(group) * pieces, |task| {
            let columns = part(width, pieces, task % pieces);
            let first = task / pieces * group;
            let codes = memory.codes(&self.x);
            for row in first..(first + group).min(count) {
                let to = memory.code_region(&self.out).row_mut(row * to + columns.start, columns.len());
                to.copy_from_slice(&codes[row * from + columns.start..][..columns.len()]);
                map(&self.table, to);
            }
        })
    }
}
