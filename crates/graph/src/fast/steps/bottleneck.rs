//! A depthwise convolution with the convolution of single pixels before it, behind it, or both, row by row.

use super::{ConvolveStep, PLANNED, images, part, pixel_stride};
use crate::cpu::shared::{Region, SharedSlice};
use crate::cpu::{Panicked, Worker};
use crate::fast::memory::{Memory, Thread};
use crate::fast::view::View;
use kun_kernels::Isa;
use kun_kernels::conv::depthwise::Depthwise;
use kun_kernels::conv::{Convolution, Geometry, Images};
use kun_kernels::gemm::{Residual, Scratch};

/// All of them; what lies between them is never whole.
#[derive(Debug)]
pub(crate) struct BottleneckStep {
    pub expand: Option<ConvolveStep>,
    pub depthwise: ConvolveStep,
    pub project: Option<ConvolveStep>,
}

impl BottleneckStep {
    /// Every view that it reads or writes.
    pub(super) fn views(&self) -> Vec<&View> {
        let all = [self.expand.as_ref(), Some(&self.depthwise), self.project.as_ref()];
        let residuals = all.into_iter().flatten().filter_map(|step| step.ending.residual.as_ref());
        let first = self.expand.as_ref().unwrap_or(&self.depthwise);
        [&first.x, &self.last().out].into_iter().chain(residuals.map(|(view, _)| view)).collect()
    }

    /// The convolution that gives the result.
    pub(crate) fn last(&self) -> &ConvolveStep {
        self.project.as_ref().unwrap_or(&self.depthwise)
    }

    pub(super) fn run(
        &self,
        isa: Isa,
        memory: &Memory<'_>,
        worker: &Worker<'_>,
        thread: &mut Thread,
    ) -> Result<(), Panicked> {
        let depthwise = &self.depthwise;
        let geometry = &depthwise.geometry;
        let ([height, width], [rows, across]) = (geometry.input, geometry.output);
        let (channels, ring) = (depthwise.groups, geometry.kernel[0]);
        let lines = geometry.batch * rows;
        // A thread that begins a part that does not follow its last makes the rows above once more.
        let parts = if worker.threads == 1 { 1 } else { (4 * worker.threads).min(lines.div_ceil(2)) };
        let before = if self.expand.is_some() { ring * width * channels } else { 0 };
        let behind = if self.project.is_some() { across * channels } else { 0 };
        // The line that follows the last, and up to which row of its image rows were made.
        let mut next = (usize::MAX, 0);
        worker.phase_by_place(parts, |task| {
            let Thread { kernel, ring: held, .. } = &mut *thread;
            held.resize((before + behind).max(held.len()), 0.0);
            let held = SharedSlice::new(held);
            for line in part(lines, parts, task) {
                let (image, out) = (line / rows, line % rows);
                let (x, lies) = if let Some(expand) = &self.expand {
                    let top = out * geometry.stride[0];
                    let first = top.saturating_sub(geometry.padding[0]);
                    let last = (top + ring).saturating_sub(geometry.padding[0]).min(height);
                    let start = if next.0 == line && out > 0 { next.1.max(first) } else { first };
                    for y in start..last {
                        let row = Region::in_slice(held, y % ring * width * channels, width * channels);
                        let from = images(memory, &expand.x);
                        let at = image * from.image_stride + y * from.row_stride;
                        let from = Images { data: &from.data[at..], ..from };
                        pixels(expand, from, width, (&row, 0, channels), memory, kernel);
                    }
                    next = (line + 1, last.max(start));
                    let data = held.get(0..before);
                    let (row_stride, pixel_stride) = (width * channels, channels);
                    (Images { data, image_stride: 0, row_stride, pixel_stride }, ring)
                } else {
                    (images(memory, &depthwise.x), height)
                };
                let pixel = line * across;
                let (skip, region, stride) = match self.project {
                    Some(_) => (pixel, Region::in_slice(held, before, behind), channels),
                    None => (0, memory.region(&depthwise.out), pixel_stride(&depthwise.out)),
                };
                let added = residual(depthwise, memory, skip);
                let convolution = Depthwise {
                    geometry,
                    channels,
                    weights: depthwise.packed.floats(0..geometry.taps() * channels),
                    x,
                    epilogue: depthwise.ending.epilogue(0, channels, added),
                    out: region.target(stride),
                    skip,
                    ring: lies,
                };
                region.depthwise(isa, &convolution, line..line + 1, 0..channels, kernel).expect(PLANNED);
                if let Some(project) = &self.project {
                    let data = held.get(before..before + behind);
                    let from = Images { data, image_stride: 0, row_stride: 0, pixel_stride: channels };
                    let stride = pixel_stride(&project.out);
                    pixels(
                        project,
                        from,
                        across,
                        (&memory.region(&project.out), pixel, stride),
                        memory,
                        kernel,
                    );
                }
            }
        })
    }
}

/// What is added to the output pixels of a convolution from pixel `first` on.
fn residual(step: &ConvolveStep, memory: &Memory<'_>, first: usize) -> Option<Residual> {
    let (view, _) = step.ending.residual.as_ref()?;
    step.ending.residual(memory, first * pixel_stride(view), pixel_stride)
}

/// A convolution of single pixels for `count` of them, those of `x`; to where pixels from `first` on lie in `out`, some
/// elements apart.
fn pixels(
    step: &ConvolveStep,
    x: Images<'_>,
    count: usize,
    (out, first, stride): (&Region<'_>, usize, usize),
    memory: &Memory<'_>,
    scratch: &mut Scratch,
) {
    let geometry = Geometry { batch: 1, input: [1, count], output: [1, count], ..step.geometry };
    let convolution = Convolution {
        geometry: &geometry,
        channels: step.channels,
        panels: &step.panels,
        packed: step.packed.floats(0..step.panels.packed_len()),
        x,
        epilogue: step.ending.epilogue(0, step.panels.padded(), residual(step, memory, first)),
        out: out.target_at(first * stride, stride),
        factors: &[],
    };
    out.convolution(&convolution, 0..count, 0..step.panels.count(), scratch).expect(PLANNED);
}
