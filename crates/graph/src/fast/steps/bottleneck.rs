//! A convolution of single pixels and the depthwise one behind it, row by row.

use super::{ConvolveStep, PLANNED, images, part, pixel_stride};
use crate::cpu::shared::{Region, SharedSlice};
use crate::cpu::{Panicked, Worker};
use crate::fast::memory::{Memory, Thread};
use kun_kernels::Isa;
use kun_kernels::conv::depthwise::Depthwise;
use kun_kernels::conv::{Convolution, Geometry, Images};

/// Both; what lies between them is never whole.
#[derive(Debug)]
pub(crate) struct BottleneckStep {
    pub expand: ConvolveStep,
    pub depthwise: ConvolveStep,
}

impl BottleneckStep {
    pub(super) fn run(
        &self,
        isa: Isa,
        memory: &Memory<'_>,
        worker: &Worker<'_>,
        thread: &mut Thread,
    ) -> Result<(), Panicked> {
        let (expand, depthwise) = (&self.expand, &self.depthwise);
        let geometry = &depthwise.geometry;
        let ([height, width], channels) = (geometry.input, depthwise.groups);
        let (lines, ring) = (geometry.batch * geometry.output[0], geometry.kernel[0]);
        // A part makes the rows above its first once more.
        let parts = if worker.threads == 1 { 1 } else { (3 * worker.threads).min(lines.div_ceil(4)) };
        let row = Geometry { batch: 1, input: [1, width], output: [1, width], ..expand.geometry };
        let stride = width * channels;
        worker.phase_by_place(parts, |task| {
            let Thread { kernel, ring: rows, .. } = thread;
            rows.resize((ring * stride).max(rows.len()), 0.0);
            let rows = SharedSlice::new(rows);
            let held = Region::in_slice(rows, 0, ring * stride);
            // Which image, and up to which row of it, was made.
            let mut made = (usize::MAX, 0);
            for line in part(lines, parts, task) {
                let (image, out) = (line / geometry.output[0], line % geometry.output[0]);
                let top = out * geometry.stride[0];
                let first = top.saturating_sub(geometry.padding[0]);
                let last = (top + ring).saturating_sub(geometry.padding[0]).min(height);
                let start = if made.0 == image { made.1.max(first) } else { first };
                for y in start..last {
                    let x = images(memory, &expand.x);
                    let at = image * x.image_stride + y * x.row_stride;
                    let convolution = Convolution {
                        geometry: &row,
                        channels: expand.channels,
                        panels: &expand.panels,
                        packed: expand.packed.floats(0, expand.panels.packed_len()),
                        x: Images { data: &x.data[at..], ..x },
                        epilogue: expand.ending.epilogue(0, expand.panels.padded(), None),
                        out: held.target_at(y % ring * stride, channels),
                        factors: &[],
                    };
                    held.convolution(&convolution, 0..width, 0..expand.panels.count(), kernel)
                        .expect(PLANNED);
                }
                made = (image, last.max(start));
                let region = memory.region(&depthwise.out);
                let convolution = Depthwise {
                    geometry,
                    channels,
                    weights: depthwise.packed.floats(0, geometry.taps() * channels),
                    x: Images {
                        data: rows.get(0..ring * stride),
                        image_stride: 0,
                        row_stride: stride,
                        pixel_stride: channels,
                    },
                    epilogue: depthwise.ending.epilogue(
                        0,
                        channels,
                        depthwise.ending.residual(memory, 0, pixel_stride),
                    ),
                    out: region.target(pixel_stride(&depthwise.out)),
                    ring,
                };
                region.depthwise(isa, &convolution, line..line + 1, 0..channels, kernel).expect(PLANNED);
            }
        })
    }
}
