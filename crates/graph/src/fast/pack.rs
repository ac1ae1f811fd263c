//! Weights in the layouts that kernels read: made once, on all threads, and shared by the plans of a program.

use super::constants::Constants;
use crate::backend::CompileError;
use crate::cpu::Pool;
use crate::cpu::shared::Block;
use crate::graph::{Dim, Graph, Op};
use crate::memory::ALIGN;
use crate::ops::TensorOp;
use kun_kernels::conv::codes::depthwise;
use kun_kernels::conv::{tap_major, winograd};
use kun_kernels::gemm::Panels;
use kun_tensor::{Elements, Tensor};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Elements that a thread packs at a time, if a layout can be made in parts: they stay in the second-level cache.
const PART: usize = 64 << 10;

/// Bytes of memory that packed weights share, if they are small enough: few pages, all of them huge where the system has
/// such, and no more than are used.
const SHARED: usize = 64 << 20;

/// Packed weights by name and layout.
#[derive(Debug, Default)]
pub(crate) struct PackCache(Mutex<HashMap<String, Packed>>);

/// Packed weights: a part of a block.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    block: Arc<Block>,
    /// Of its first byte.
    offset: usize,
}

impl Packed {
    /// The bytes in `range`, once they are packed.
    pub(crate) fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.block.bytes(self.offset + range.start..self.offset + range.end)
    }

    /// Floats in `range`, once they are packed.
    pub(crate) fn floats(&self, range: Range<usize>) -> &[f32] {
        self.block.floats(self.offset + 4 * range.start, range.len())
    }

    /// Bytes that belong to the calling task alone.
    #[allow(clippy::mut_from_ref)]
    fn bytes_mut(&self, range: Range<usize>) -> &mut [u8] {
        self.block.bytes_mut(self.offset + range.start..self.offset + range.end)
    }

    /// Floats that belong to the calling task alone.
    #[allow(clippy::mut_from_ref)]
    fn floats_mut(&self, range: Range<usize>) -> &mut [f32] {
        self.block.floats_mut(self.offset + 4 * range.start, range.len())
    }
}

/// How a kernel reads weights.
#[derive(Debug)]
pub(super) enum Layout {
    /// `[outputs, 1, taps]` to `[taps, outputs]`.
    Depthwise { taps: usize },
    /// Transformed, of `[outputs, channels, 3, 3]`.
    Winograd(Panels),
    /// `[outputs, channels, taps]` of all groups to a matrix for each group.
    Direct { panels: Panels, groups: usize, taps: usize },
    /// `[channels, outputs, pixels]` of a transposed convolution to outputs in the order `[pixels, outputs]`.
    Blocks { panels: Panels, pixels: usize },
    /// Some places of the windows of a transposed convolution `[channels, outputs, pixels]`, in this order.
    Places { panels: Panels, places: Vec<usize> },
    /// The same of a transposed convolution of single channels, `[channels, 1, pixels]` to `[places, channels]`.
    DepthwisePlaces { pixels: usize, places: Vec<usize> },
    /// A matrix whose output `n` at depth `k` is element `n * n_stride + k * k_stride`.
    Matrix { panels: Panels, n_stride: usize, k_stride: usize },
    /// i8 `[outputs, channels, taps]` to quads, with the sums of outputs behind.
    Quads { panels: Panels, taps: usize },
    /// An i8 matrix to quads, with the sums of outputs behind.
    QuadMatrix { panels: Panels, n_stride: usize, k_stride: usize },
    /// i8 `[outputs, 1, taps]` to words `[taps, outputs]`, with the sums of outputs behind.
    DepthwiseCodes { panels: Panels },
}

/// Weights to be packed.
#[derive(Debug)]
struct Job {
    name: String,
    /// Of the constant.
    node: usize,
    layout: Layout,
    /// Elements of the constant.
    weights: usize,
    /// A factor for each output, or none.
    scale: Vec<f32>,
    out: Packed,
}

/// What a plan has to pack.
#[derive(Debug)]
pub(super) struct Packer<'a> {
    graph: &'a Graph,
    constants: &'a Constants<'a>,
    cache: &'a PackCache,
    jobs: Vec<Job>,
    /// Memory for more weights, and how much of it is taken.
    room: Option<(Arc<Block>, usize)>,
}

impl Layout {
    fn elements(&self, weights: usize) -> usize {
        match self {
            Layout::Depthwise { .. } => weights,
            Layout::DepthwisePlaces { pixels, places } => weights / pixels * places.len(),
            Layout::Winograd(panels) => winograd::packed_len(panels),
            Layout::Direct { panels, groups, .. } => groups * panels.packed_len(),
            Layout::Matrix { panels, .. } | Layout::Blocks { panels, .. } | Layout::Places { panels, .. } => {
                panels.packed_len()
            }
            Layout::Quads { panels, .. }
            | Layout::QuadMatrix { panels, .. }
            | Layout::DepthwiseCodes { panels } => panels.packed_len() + panels.padded(),
        }
    }

    fn name(&self) -> String {
        let name = match self {
            Layout::Places { places, .. } => return format!("places {places:?}"),
            Layout::DepthwisePlaces { places, .. } => return format!("depthwise places {places:?}"),
            Layout::Depthwise { .. } => "depthwise",
            Layout::Winograd(panels) if panels.has_pairs() => "winograd pairs",
            Layout::Winograd(_) => "winograd",
            Layout::Direct { .. } => "direct",
            Layout::Blocks { .. } => "blocks",
            Layout::Matrix { n_stride: 1, .. } => "columns",
            Layout::Matrix { .. } => "rows",
            Layout::Quads { .. } => "quads",
            Layout::QuadMatrix { n_stride: 1, .. } => "quad columns",
            Layout::QuadMatrix { .. } => "quad rows",
            Layout::DepthwiseCodes { .. } => "depthwise codes",
        };
        name.to_owned()
    }
}

impl<'a> Packer<'a> {
    pub(super) fn new(graph: &'a Graph, constants: &'a Constants<'a>, cache: &'a PackCache) -> Packer<'a> {
        Packer { graph, constants, cache, jobs: Vec::new(), room: None }
    }

    /// Memory that will hold the weights of node `node` in `layout`, each output times its factor.
    pub(super) fn packed(
        &mut self,
        node: usize,
        layout: Layout,
        scale: &[f32],
    ) -> Result<Packed, CompileError> {
        let mut hash = DefaultHasher::new();
        scale.iter().for_each(|x| x.to_bits().hash(&mut hash));
        // A constant without a name belongs to this graph alone.
        let made = &self.graph.nodes[node];
        let (name, weights) = match (self.constants.weight(made.outputs[0]), &made.op) {
            (Some(info), _) => {
                let name = format!("{}|{}|{:x}", info.name, layout.name(), hash.finish());
                (name, info.shape.iter().product())
            }
            (None, Op::Tensor(TensorOp::Constant(tensor))) => (String::new(), tensor.elements().len()),
            // Numbers of quantised weights: of this graph alone as well.
            _ => {
                let dims = self.graph.value(made.outputs[0]).shape.iter();
                (String::new(), dims.map(|dim| if let Dim::Const(n) = dim { *n } else { 0 }).product())
            }
        };
        if !name.is_empty() {
            let cached = self.cache.0.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
            let pending = || self.jobs.iter().find(|job| job.name == name).map(|job| job.out.clone());
            if let Some(packed) = cached.or_else(pending) {
                return Ok(packed);
            }
        }
        let out = self.take(4 * layout.elements(weights))?;
        let job = Job { name, node, layout, weights, scale: scale.to_vec(), out: out.clone() };
        self.jobs.push(job);
        Ok(out)
    }

    /// Memory for `bytes` bytes that nobody else has.
    fn take(&mut self, bytes: usize) -> Result<Packed, CompileError> {
        let fits = |(block, taken): &&mut (Arc<Block>, usize)| bytes <= block.len() - *taken;
        if self.room.as_mut().filter(fits).is_none() {
            let block = Block::zeroed(bytes.max(SHARED));
            let block = block.map_err(|_| CompileError::Memory { bytes, what: "weights" })?;
            self.room = Some((Arc::new(block), 0));
        }
        let (block, taken) = self.room.as_mut().expect("made if it was missing");
        let packed = Packed { block: Arc::clone(block), offset: *taken };
        *taken = (*taken + bytes).next_multiple_of(ALIGN).min(block.len());
        Ok(packed)
    }

    /// Packs everything and keeps it for other plans.
    pub(super) fn finish(self, pool: &Pool) -> Result<(), CompileError> {
        let Packer { graph, constants, cache, jobs, room: _ } = self;
        let mut parts: Vec<(usize, Part)> = Vec::new();
        let mut left: Vec<AtomicUsize> = Vec::with_capacity(jobs.len());
        for (index, job) in jobs.iter().enumerate() {
            let before = parts.len();
            parts.extend(job.parts(graph, constants).into_iter().map(|part| (index, part)));
            left.push(AtomicUsize::new(parts.len() - before));
        }
        let numbers: Vec<Mutex<Vec<f32>>> = (0..pool.threads()).map(|_| Mutex::default()).collect();
        let failure: Mutex<Option<CompileError>> = Mutex::new(None);
        let done = pool.run(pool.threads(), |worker| {
            let mut numbers = numbers[worker.index].lock().unwrap_or_else(PoisonError::into_inner);
            worker.phase(parts.len(), |task| {
                let (index, part) = &parts[task];
                let job = &jobs[*index];
                if let Err(what) = job.run(part, graph, constants, &mut numbers) {
                    let node = graph.nodes[job.node].name.clone();
                    let error = CompileError::Node { node, what };
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
                if left[*index].fetch_sub(1, Ordering::AcqRel) == 1 {
                    constants.release(job.node);
                }
            })
        });
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        done.map_err(|e| CompileError::Node { node: "weights".to_owned(), what: e.to_string() })?;
        let mut kept = cache.0.lock().unwrap_or_else(PoisonError::into_inner);
        for job in jobs {
            if !job.name.is_empty() {
                kept.insert(job.name, job.out);
            }
        }
        Ok(())
    }
}

/// A part of a job: some rows of the weights, and what they make.
#[derive(Clone, Debug)]
struct Part {
    /// Of the first dimension.
    rows: Range<usize>,
    /// Panels, depths or groups, as the layout wants them.
    units: Range<usize>,
}

impl Job {
    /// Parts that can be packed on their own.
    fn parts(&self, graph: &Graph, constants: &Constants<'_>) -> Vec<Part> {
        let node = &graph.nodes[self.node];
        let (split, shape) = match (constants.weight(node.outputs[0]), &node.op) {
            (Some(info), _) => (true, info.shape.clone()),
            (None, Op::Tensor(TensorOp::Constant(tensor))) => (true, tensor.shape().to_vec()),
            // Numbers of quantised weights are computed at once.
            _ => (false, Vec::new()),
        };
        let rows = shape.first().copied().unwrap_or(0);
        let row = shape.iter().skip(1).product::<usize>().max(1);
        let (units, rows_of): (usize, &dyn Fn(usize) -> usize) = match &self.layout {
            Layout::Matrix { panels, n_stride: 1, .. } => (panels.shape().1, &|depth| depth),
            Layout::Direct { panels, groups, .. } if *groups > 1 => {
                (*groups, &|group| group * panels.shape().0)
            }
            Layout::Matrix { panels, .. } | Layout::Winograd(panels) | Layout::Direct { panels, .. } => {
                (panels.count(), &|panel| match panel < panels.count() {
                    true => panels.panel_outputs(panel).start,
                    false => panels.shape().0,
                })
            }
            _ => return vec![Part { rows: 0..rows, units: 0..0 }],
        };
        if !split || shape.len() < 2 || rows_of(units) != rows {
            return vec![Part { rows: 0..rows, units: 0..units }];
        }
        let mut parts = Vec::new();
        let mut start = 0;
        while start < units {
            let mut end = start + 1;
            // Pairs of depths stay together.
            let paired = matches!(self.layout, Layout::Matrix { n_stride: 1, .. });
            while end < units && (paired && end % 2 == 1 || (rows_of(end + 1) - rows_of(start)) * row <= PART)
            {
                end += 1;
            }
            parts.push(Part { rows: rows_of(start)..rows_of(end), units: start..end });
            start = end;
        }
        parts
    }

    /// Packs a part; `numbers` is memory that calls reuse.
    fn run(
        &self,
        part: &Part,
        graph: &Graph,
        constants: &Constants<'_>,
        numbers: &mut Vec<f32>,
    ) -> Result<(), String> {
        let id = graph.nodes[self.node].outputs[0];
        if let Layout::Quads { .. } | Layout::QuadMatrix { .. } | Layout::DepthwiseCodes { .. } = self.layout
        {
            return self.codes(&*constants.tensor(id)?);
        }
        constants.read(id, part.rows.clone(), numbers)?;
        if !self.scale.is_empty() {
            self.scale(part.rows.start, numbers);
        }
        self.numbers(&part.units, numbers)
    }

    /// Packs weights of codes.
    fn codes(&self, tensor: &Tensor) -> Result<(), String> {
        let moved: Vec<i8>;
        let values = match tensor.elements() {
            Elements::I8(values) => values,
            Elements::U8(values) => {
                moved = values.iter().map(|x| (x ^ 0x80).cast_signed()).collect();
                &moved
            }
            _ => return Err("weights that are no codes".to_owned()),
        };
        let misfit = |e: kun_kernels::KernelError| e.to_string();
        let pack = |panels: &Panels, values: &[i8], strides: [usize; 2]| {
            let out = self.out.bytes_mut(0..4 * panels.packed_len());
            panels.pack_quads(values, strides, out).map_err(misfit)
        };
        let (panels, sums) = match &self.layout {
            Layout::Quads { panels, taps } => {
                let depth = panels.shape().1;
                (panels, pack(panels, &tap_major(values, depth / taps, *taps), [depth, 1])?)
            }
            Layout::QuadMatrix { panels, n_stride, k_stride } => {
                (panels, pack(panels, values, [*n_stride, *k_stride])?)
            }
            Layout::DepthwiseCodes { panels } => {
                let out = self.out.bytes_mut(0..4 * panels.packed_len());
                (panels, depthwise::pack(values, panels.shape().1, panels.padded(), out).map_err(misfit)?)
            }
            _ => return Err("no layout of codes".to_owned()),
        };
        let from = 4 * panels.packed_len();
        let behind = self.out.bytes_mut(from..from + 4 * sums.len());
        for (to, sum) in behind.chunks_exact_mut(4).zip(sums) {
            to.copy_from_slice(&sum.to_ne_bytes());
        }
        Ok(())
    }

    /// Packs numbers: those of the rows that make `units`.
    fn numbers(&self, units: &Range<usize>, values: &[f32]) -> Result<(), String> {
        let misfit = |e: kun_kernels::KernelError| e.to_string();
        let place = |range: Range<usize>| self.out.floats_mut(range);
        match &self.layout {
            Layout::Depthwise { taps } => {
                let outputs = values.len() / taps;
                let out = place(0..values.len());
                for (c, filter) in values.chunks_exact(*taps).enumerate() {
                    filter.iter().enumerate().for_each(|(tap, x)| out[tap * outputs + c] = *x);
                }
            }
            Layout::DepthwisePlaces { pixels, places } => {
                let channels = values.len() / pixels;
                let out = place(0..channels * places.len());
                for (c, filter) in values.chunks_exact(*pixels).enumerate() {
                    places.iter().enumerate().for_each(|(tap, at)| out[tap * channels + c] = filter[*at]);
                }
            }
            Layout::Winograd(panels) => {
                let each = 9 * panels.shape().1;
                self.panels(panels, units, each, values, |panel, values| {
                    let part = panels.packed_range(panel, 0..panels.shape().1);
                    let moved = |at: usize| {
                        at * panels.packed_len() + part.start..at * panels.packed_len() + part.end
                    };
                    let mut places: Vec<&mut [f32]> =
                        (0..winograd::places(panels)).map(|at| place(moved(at))).collect();
                    winograd::pack_panel(panels, panel, values, &mut places).map_err(misfit)
                })?;
            }
            Layout::Direct { panels, groups, taps } => {
                let (outputs, depth) = panels.shape();
                let turned: Vec<f32>;
                let values = match taps {
                    1 => values,
                    _ => {
                        turned = tap_major(values, depth / taps, *taps);
                        &turned
                    }
                };
                if *groups == 1 {
                    return self.rows(panels, units, depth, values);
                }
                let len = panels.packed_len();
                for (group, values) in units.clone().zip(values.chunks_exact((outputs * depth).max(1))) {
                    panels.pack(values, depth, 1, place(group * len..(group + 1) * len)).map_err(misfit)?;
                }
            }
            Layout::Blocks { panels, pixels } => {
                let outputs = panels.shape().0;
                let turned: Vec<f32> = values
                    .chunks_exact(outputs.max(1))
                    .flat_map(|from| (0..*pixels).flat_map(|pixel| from.iter().skip(pixel).step_by(*pixels)))
                    .copied()
                    .collect();
                panels.pack(&turned, 1, outputs, place(0..panels.packed_len())).map_err(misfit)?;
            }
            Layout::Places { panels, places } => {
                let (outputs, depth) = panels.shape();
                let channels = depth / places.len();
                let pixels = values.len() / (outputs * channels).max(1);
                let at = |o: usize, place: usize, c: usize| values[(c * outputs + o) * pixels + place];
                let row = |o: usize| {
                    places.iter().flat_map(move |&place| (0..channels).map(move |c| at(o, place, c)))
                };
                let turned: Vec<f32> = (0..outputs).flat_map(row).collect();
                panels.pack(&turned, depth, 1, place(0..panels.packed_len())).map_err(misfit)?;
            }
            Layout::Matrix { panels, n_stride: 1, k_stride } => {
                for panel in 0..panels.count() {
                    let from = values.get(panels.panel_outputs(panel).start..).unwrap_or(&[]);
                    let out = place(panels.packed_range(panel, units.clone()));
                    panels.pack_part(panel, units.clone(), from, [1, *k_stride], out).map_err(misfit)?;
                }
            }
            Layout::Matrix { panels, n_stride, .. } => return self.rows(panels, units, *n_stride, values),
            Layout::Quads { .. } | Layout::QuadMatrix { .. } | Layout::DepthwiseCodes { .. } => {
                return Err("no layout of numbers".to_owned());
            }
        }
        Ok(())
    }

    /// Calls `pack` for each of some panels with the values of its outputs, `each` of every one.
    fn panels(
        &self,
        panels: &Panels,
        units: &Range<usize>,
        each: usize,
        values: &[f32],
        pack: impl Fn(usize, &[f32]) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut rest = values;
        for panel in units.clone() {
            let values = rest.split_off(..panels.panel_outputs(panel).len() * each);
            pack(panel, values.ok_or("fewer weights than outputs have")?)?;
        }
        Ok(())
    }

    /// Packs some panels of a matrix from rows of `depth` elements, one for each output.
    fn rows(
        &self,
        panels: &Panels,
        units: &Range<usize>,
        depth: usize,
        values: &[f32],
    ) -> Result<(), String> {
        self.panels(panels, units, depth, values, |panel, values| {
            let part = panels.packed_range(panel, 0..panels.shape().1);
            let out = self.out.floats_mut(part);
            panels.pack_part(panel, 0..panels.shape().1, values, [depth, 1], out).map_err(|e| e.to_string())
        })
    }

    /// Multiplies the rows from row `first` on with the factors of their outputs.
    fn scale(&self, first: usize, values: &mut [f32]) {
        if let Layout::Matrix { n_stride: 1, .. } = self.layout {
            for values in values.chunks_exact_mut(self.scale.len()) {
                values.iter_mut().zip(&self.scale).for_each(|(x, factor)| *x *= factor);
            }
            return;
        }
        let each = self.weights / self.scale.len();
        for (values, factor) in values.chunks_exact_mut(each.max(1)).zip(&self.scale[first..]) {
            values.iter_mut().for_each(|x| *x *= factor);
        }
    }
}
