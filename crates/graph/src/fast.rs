//! The fast tier of tensor graphs: fused steps over one arena, on all threads of a pool, for f32 tensors of known shapes.
//!
//! [`lower`] turns nodes into fewer, larger operations; [`place`] decides where every value lies and makes steps. A node
//! without a fast form runs by [`crate::plain`] between two runs of steps.

mod constants;
mod fuse;
mod lower;
mod memory;
mod pack;
mod place;
mod steps;
#[cfg(test)]
mod tests;
mod view;

use crate::backend::{CompileError, RunError};
use crate::cpu::shared::{Block, SharedSlice};
use crate::cpu::{Panicked, Pool};
use crate::graph::{Graph, ValueId};
use crate::memory::{Lifetime, arrange};
use crate::plain::{self, Context, Datum};
use crate::tensor_program::TensorStep;
use constants::Constants;
use kun_kernels::Isa;
use kun_kernels::strided::Copy;
use kun_tensor::{DType, Elements, Tensor};
use memory::{Memory, Thread};
pub(crate) use pack::PackCache;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use steps::{Step, Work};
use view::{Place, View, dense_strides};

fn too_large(bytes: usize) -> CompileError {
    CompileError::Memory { bytes, what: "activations" }
}

/// What [`place`] makes.
struct Built {
    steps: Vec<Step>,
    /// Bytes of each buffer.
    buffers: Vec<usize>,
    constants: Vec<Arc<[f32]>>,
    /// Shapes of the outputs that steps write; others are tensors of their own.
    outputs: Vec<Option<Vec<usize>>>,
}

/// The steps of a graph for one set of shapes, and the memory that they run in.
pub(crate) struct FastPlan {
    fixed: Arc<Fixed>,
    arena: Block,
    threads: Vec<Mutex<Thread>>,
    profile: Mutex<Option<Vec<Duration>>>,
}

/// What no run changes.
struct Fixed {
    steps: Vec<Step>,
    /// After each step: tensors that nobody reads any more.
    dropped: Vec<Vec<ValueId>>,
    buffers: Vec<usize>,
    arena_bytes: usize,
    constants: Vec<Arc<[f32]>>,
    outputs: Vec<Option<Vec<usize>>>,
    isa: Isa,
}

impl FastPlan {
    /// Plans `graph`, which [`crate::specialize()`] made.
    pub(crate) fn new(
        graph: &Graph,
        context: &Context<'_>,
        cache: &PackCache,
        isa: Isa,
        bf16: bool,
        pool: &Pool,
    ) -> Result<FastPlan, CompileError> {
        let constants = Constants::new(graph, context);
        let protos = lower::lower(graph, &constants);
        let built = place::place(graph, &constants, cache, isa, bf16, pool, protos)?;
        let mut lives: Vec<Lifetime> =
            built.buffers.iter().map(|&bytes| Lifetime { bytes, first: usize::MAX, last: 0 }).collect();
        let mut last = vec![None; graph.values.len()];
        for (index, step) in built.steps.iter().enumerate() {
            for view in step.work.views() {
                match view.place {
                    Place::Buffer(buffer) => {
                        let life = &mut lives[buffer];
                        (life.first, life.last) = (life.first.min(index), life.last.max(index));
                    }
                    Place::Datum(id) => last[id.0 as usize] = Some(index),
                    Place::Constant(_) | Place::Output(_) => {}
                }
            }
            if let Work::Plain { .. } = step.work {
                let node = &graph.nodes[step.node];
                for id in node.inputs.iter().chain(&node.outputs).filter(|id| **id != ValueId::ABSENT) {
                    last[id.0 as usize] = Some(index);
                }
            }
        }
        for life in lives.iter_mut().filter(|life| life.first == usize::MAX) {
            // Nobody uses it.
            (life.bytes, life.first) = (0, life.last);
        }
        graph.outputs.iter().for_each(|id| last[id.0 as usize] = None);
        let mut dropped = vec![Vec::new(); built.steps.len()];
        for (value, last) in last.into_iter().enumerate() {
            if let Some(step) = last {
                dropped[step].push(ValueId(value as u32));
            }
        }
        let arrangement = arrange(&lives).ok_or_else(|| too_large(usize::MAX))?;
        let fixed = Fixed {
            steps: built.steps,
            dropped,
            buffers: arrangement.offsets,
            arena_bytes: arrangement.bytes,
            constants: built.constants,
            outputs: built.outputs,
            isa,
        };
        FastPlan::of(Arc::new(fixed), pool.threads())
    }

    fn of(fixed: Arc<Fixed>, threads: usize) -> Result<FastPlan, CompileError> {
        let arena = Block::zeroed(fixed.arena_bytes).map_err(|_| too_large(fixed.arena_bytes))?;
        let threads = (0..threads).map(|_| Mutex::default()).collect();
        Ok(FastPlan { fixed, arena, threads, profile: Mutex::new(None) })
    }

    /// The same steps with memory of their own, to run on one thread beside these.
    pub(crate) fn beside(&self) -> Result<FastPlan, CompileError> {
        FastPlan::of(Arc::clone(&self.fixed), 1)
    }

    /// Bytes of the arena.
    pub(crate) fn arena_bytes(&self) -> usize {
        self.fixed.arena_bytes
    }

    /// Starts to measure every step, or stops and forgets.
    pub(crate) fn set_profile(&self, on: bool) {
        let times = on.then(|| vec![Duration::MAX; self.fixed.steps.len()]);
        *self.profile.lock().unwrap_or_else(PoisonError::into_inner) = times;
    }

    /// What was measured.
    pub(crate) fn profile(&self, graph: &Graph) -> Vec<TensorStep> {
        let times = self.profile.lock().unwrap_or_else(PoisonError::into_inner);
        let times = times.as_deref().unwrap_or(&[]);
        let line = |(step, least): (&Step, &Duration)| TensorStep {
            kind: step.work.name(),
            node: graph.nodes[step.node].name.clone(),
            sizes: step.work.sizes(),
            operations: step.work.operations(),
            least: *least,
        };
        self.fixed.steps.iter().zip(times).map(line).collect()
    }

    /// Runs the plan.
    pub(crate) fn run(
        &self,
        graph: &Graph,
        inputs: Vec<Datum>,
        context: &Context<'_>,
        pool: &Pool,
    ) -> Result<Vec<Datum>, RunError> {
        let fixed = &*self.fixed;
        let mut values: Vec<Option<Datum>> = vec![None; graph.values.len()];
        for (&id, datum) in graph.inputs.iter().zip(inputs) {
            values[id.0 as usize] = Some(datum);
        }
        let mut results: Vec<Vec<f32>> = fixed
            .outputs
            .iter()
            .map(|shape| vec![0.0; shape.as_ref().map_or(0, |shape| shape.iter().product())])
            .collect();
        let mut start = 0;
        while start < fixed.steps.len() {
            let shared: Vec<SharedSlice<'_>> =
                results.iter_mut().map(|data| SharedSlice::new(data)).collect();
            if let Work::Plain { inputs } = &fixed.steps[start].work {
                for (id, view) in inputs {
                    let dtype = graph.value(*id).dtype;
                    let tensor = self.tensor(view, dtype, &self.memory(&values, &shared));
                    values[id.0 as usize] = Some(Datum::from(tensor));
                }
                let node = &graph.nodes[fixed.steps[start].node];
                let started = Instant::now();
                plain::step(graph, node, &mut values, context)
                    .map_err(|what| RunError::Node { node: node.name.clone(), what })?;
                self.measured(start, started);
                for id in &fixed.dropped[start] {
                    values[id.0 as usize] = None;
                }
                start += 1;
                continue;
            }
            let plain = |step: &Step| matches!(step.work, Work::Plain { .. });
            let end = fixed.steps[start..].iter().position(plain).map_or(fixed.steps.len(), |n| start + n);
            let memory = self.memory(&values, &shared);
            let profiled = self.profile.lock().unwrap_or_else(PoisonError::into_inner).is_some();
            let done = pool.run(self.threads.len(), |worker| {
                let mut thread = self.threads[worker.index].lock().unwrap_or_else(PoisonError::into_inner);
                for index in start..end {
                    let started = (profiled && worker.index == 0).then(Instant::now);
                    fixed.steps[index].work.run(fixed.isa, &memory, worker, &mut thread)?;
                    if let Some(started) = started {
                        self.measured(index, started);
                    }
                }
                Ok(())
            });
            done.map_err(|Panicked| RunError::Failed)?;
            for id in fixed.dropped[start..end].iter().flatten() {
                values[id.0 as usize] = None;
            }
            start = end;
        }
        let mut out = Vec::with_capacity(results.len());
        for ((id, shape), data) in graph.outputs.iter().zip(&fixed.outputs).zip(results) {
            let missing = || RunError::Node {
                node: graph.value(*id).name.clone().unwrap_or_default(),
                what: "the output was not computed".to_owned(),
            };
            out.push(match shape {
                Some(shape) => Datum::from(Tensor::f32(shape.clone(), data).map_err(|_| missing())?),
                None => values[id.0 as usize].clone().ok_or_else(missing)?,
            });
        }
        Ok(out)
    }

    fn measured(&self, index: usize, started: Instant) {
        if let Some(times) = &mut *self.profile.lock().unwrap_or_else(PoisonError::into_inner) {
            times[index] = times[index].min(started.elapsed());
        }
    }

    fn memory<'a>(&'a self, values: &'a [Option<Datum>], outputs: &'a [SharedSlice<'a>]) -> Memory<'a> {
        let data = |value: &'a Option<Datum>| value.as_ref()?.tensor()?.as_f32();
        Memory {
            arena: &self.arena,
            buffers: &self.fixed.buffers,
            constants: &self.fixed.constants,
            data: values.iter().map(data).collect(),
            outputs,
        }
    }

    /// A view as a tensor of its own.
    fn tensor(&self, view: &View, dtype: DType, memory: &Memory<'_>) -> Tensor {
        if view.codes {
            let codes = memory.codes(view);
            let dense = dense_strides(&view.shape);
            let place = |i: usize| -> usize {
                let along = |d: usize| i / dense[d] % view.shape[d] * view.strides[d];
                (0..view.shape.len()).map(along).sum()
            };
            let codes: Vec<u8> = (0..view.elements()).map(|i| codes[place(i)]).collect();
            let elements = if dtype == DType::I8 {
                Elements::I8(codes.into_iter().map(|code| (code ^ 0x80).cast_signed()).collect())
            } else {
                Elements::U8(codes)
            };
            return Tensor::new(view.shape.clone(), elements).expect("as many elements as the shape has");
        }
        let mut data = vec![0.0; view.elements()];
        if !data.is_empty() {
            let copy = Copy::new(&view.shape, &view.strides, &dense_strides(&view.shape));
            let region =
                crate::cpu::shared::Region::in_slice(SharedSlice::new(&mut data), 0, view.elements());
            region.copy(&copy, 0..copy.pieces(), memory.read(view)).expect("planned sizes fit the kernel");
        }
        Tensor::f32(view.shape.clone(), data).expect("as many elements as the shape has")
    }
}
