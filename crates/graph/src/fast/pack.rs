//! Weights in the layouts that kernels read: made once, on all threads, and shared by the plans of a program.

use super::constants::Constants;
use crate::backend::CompileError;
use crate::cpu::Pool;
use crate::cpu::shared::Block;
use crate::graph::{Dim, Graph, Op};
use crate::ops::TensorOp;
use kun_kernels::conv::codes::depthwise;
use kun_kernels::conv::{tap_major, winograd};
use kun_kernels::gemm::Panels;
use kun_tensor::{Elements, Tensor};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

/// Packed weights by name and layout.
#[derive(Debug, Default)]
pub(crate) struct PackCache(Mutex<HashMap<String, Arc<Block>>>);

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
    /// A factor for each output, or none.
    scale: Vec<f32>,
    block: Arc<Block>,
}

/// What a plan has to pack.
#[derive(Debug)]
pub(super) struct Packer<'a> {
    graph: &'a Graph,
    constants: &'a Constants<'a>,
    cache: &'a PackCache,
    jobs: Vec<Job>,
}

impl Layout {
    fn elements(&self, weights: usize) -> usize {
        match self {
            Layout::Depthwise { .. } => weights,
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
        Packer { graph, constants, cache, jobs: Vec::new() }
    }

    /// Memory that will hold the weights of node `node` in `layout`, each output times its factor.
    pub(super) fn packed(
        &mut self,
        node: usize,
        layout: Layout,
        scale: &[f32],
    ) -> Result<Arc<Block>, CompileError> {
        let mut hash = DefaultHasher::new();
        scale.iter().for_each(|x| x.to_bits().hash(&mut hash));
        // A constant without a name belongs to this graph alone.
        let (name, weights) = match &self.graph.nodes[node].op {
            Op::Weight(id) => {
                let info = self.graph.weight(*id);
                let name = format!("{}|{}|{:x}", info.name, layout.name(), hash.finish());
                (name, info.shape.iter().product())
            }
            Op::Tensor(TensorOp::Constant(tensor)) => (String::new(), tensor.elements().len()),
            // Numbers of quantised weights: of this graph alone as well.
            _ => {
                let dims = self.graph.value(self.graph.nodes[node].outputs[0]).shape.iter();
                (String::new(), dims.map(|dim| if let Dim::Const(n) = dim { *n } else { 0 }).product())
            }
        };
        if !name.is_empty() {
            let cached = self.cache.0.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
            let pending = || self.jobs.iter().find(|job| job.name == name).map(|job| Arc::clone(&job.block));
            if let Some(block) = cached.or_else(pending) {
                return Ok(block);
            }
        }
        let bytes = 4 * layout.elements(weights);
        let block = Block::zeroed(bytes).map_err(|_| CompileError::Memory { bytes, what: "weights" })?;
        let block = Arc::new(block);
        let job = Job { name, node, layout, scale: scale.to_vec(), block: Arc::clone(&block) };
        self.jobs.push(job);
        Ok(block)
    }

    /// Packs everything and keeps it for other plans.
    pub(super) fn finish(mut self, pool: &Pool) -> Result<(), CompileError> {
        let size = |job: &Job| match &self.graph.nodes[job.node].op {
            Op::Weight(id) => self.graph.weight(*id).shape.iter().product(),
            _ => 0usize,
        };
        // Large ones first, so that threads end together.
        self.jobs.sort_by_key(|job| std::cmp::Reverse(size(job)));
        let failure: Mutex<Option<CompileError>> = Mutex::new(None);
        let done = pool.run(pool.threads(), |worker| {
            worker.phase(self.jobs.len(), |index| {
                let job = &self.jobs[index];
                if let Err(what) = job.run(self.graph, self.constants) {
                    let node = self.graph.nodes[job.node].name.clone();
                    let error = CompileError::Node { node, what };
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            })
        });
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        done.map_err(|e| CompileError::Node { node: "weights".to_owned(), what: e.to_string() })?;
        let mut kept = self.cache.0.lock().unwrap_or_else(PoisonError::into_inner);
        for job in self.jobs {
            if !job.name.is_empty() {
                kept.insert(job.name, job.block);
            }
        }
        Ok(())
    }
}

impl Job {
    fn run(&self, graph: &Graph, constants: &Constants<'_>) -> Result<(), String> {
        let tensor = constants.tensor(graph.nodes[self.node].outputs[0])?;
        if let Layout::Quads { .. } | Layout::QuadMatrix { .. } | Layout::DepthwiseCodes { .. } = self.layout
        {
            self.codes(&tensor)?;
        } else {
            let values = match Arc::unwrap_or_clone(tensor).into_parts().1 {
                Elements::F32(values) => values,
                _ => return Err("weights that are no f32".to_owned()),
            };
            self.numbers(values)?;
        }
        if let Op::Weight(id) = &graph.nodes[self.node].op
            && graph.weight(*id).constant.is_none()
        {
            constants.release(&graph.weight(*id).name);
        }
        Ok(())
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
            let out = self.block.bytes_mut(0..4 * panels.packed_len());
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
                let out = self.block.bytes_mut(0..4 * panels.packed_len());
                (panels, depthwise::pack(values, panels.shape().1, panels.padded(), out).map_err(misfit)?)
            }
            _ => return Err("no layout of codes".to_owned()),
        };
        let from = 4 * panels.packed_len();
        let behind = self.block.bytes_mut(from..from + 4 * sums.len());
        for (to, sum) in behind.chunks_exact_mut(4).zip(sums) {
            to.copy_from_slice(&sum.to_ne_bytes());
        }
        Ok(())
    }

    /// Packs weights of numbers.
    fn numbers(&self, mut values: Vec<f32>) -> Result<(), String> {
        if !self.scale.is_empty() {
            self.scale(&mut values);
        }
        let out = self.block.floats_mut(0, self.layout.elements(values.len()));
        let misfit = |e: kun_kernels::KernelError| e.to_string();
        match &self.layout {
            Layout::Depthwise { taps } => {
                let outputs = values.len() / taps;
                for (c, filter) in values.chunks_exact(*taps).enumerate() {
                    filter.iter().enumerate().for_each(|(tap, x)| out[tap * outputs + c] = *x);
                }
            }
            Layout::Winograd(panels) => winograd::pack(panels, &values, out).map_err(misfit)?,
            Layout::Direct { panels, groups, taps } => {
                let (outputs, depth) = panels.shape();
                if *taps > 1 {
                    values = tap_major(&values, depth / taps, *taps);
                }
                let packed = out.chunks_exact_mut(panels.packed_len().max(1));
                for (group, out) in (0..*groups).zip(packed) {
                    let values = &values[group * outputs * depth..][..outputs * depth];
                    panels.pack(values, depth, 1, out).map_err(misfit)?;
                }
            }
            Layout::Blocks { panels, pixels } => {
                let outputs = panels.shape().0;
                let turned: Vec<f32> = values
                    .chunks_exact(outputs.max(1))
                    .flat_map(|from| (0..*pixels).flat_map(|pixel| from.iter().skip(pixel).step_by(*pixels)))
                    .copied()
                    .collect();
                panels.pack(&turned, 1, outputs, out).map_err(misfit)?;
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
                panels.pack(&turned, depth, 1, out).map_err(misfit)?;
            }
            Layout::Matrix { panels, n_stride, k_stride } => {
                panels.pack(&values, *n_stride, *k_stride, out).map_err(misfit)?;
            }
            Layout::Quads { .. } | Layout::QuadMatrix { .. } | Layout::DepthwiseCodes { .. } => {
                return Err("no layout of numbers".to_owned());
            }
        }
        Ok(())
    }

    fn scale(&self, values: &mut [f32]) {
        if let Layout::Matrix { n_stride: 1, .. } = self.layout {
            for values in values.chunks_exact_mut(self.scale.len()) {
                values.iter_mut().zip(&self.scale).for_each(|(x, factor)| *x *= factor);
            }
            return;
        }
        let each = values.len() / self.scale.len();
        for (values, factor) in values.chunks_exact_mut(each.max(1)).zip(&self.scale) {
            values.iter_mut().for_each(|x| *x *= factor);
        }
    }
}
