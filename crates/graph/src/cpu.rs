//! The CPU backend: weights packed for the machine's best instructions, a flat list of steps, one pool of threads.

mod kv_pages;
mod load;
pub(crate) mod plan;
mod profile;
mod run;
pub(crate) mod shared;
mod threads;

pub use profile::{Profile, StepTime};
pub use threads::{Panicked, Pool, Worker};

use crate::backend::{
    Backend, CompileError, CompileOptions, Inputs, MemoryReport, Outputs, Program, RunError, WeightSource,
};
use crate::bind::Contract;
use crate::graph::Graph;
use crate::passes;
use kun_kernels::Isa;
use kv_pages::KvPages;
use plan::Plan;
use shared::Block;
use std::sync::Arc;

/// Compiles graphs for the processor that it runs on.
#[derive(Clone, Debug)]
pub struct CpuBackend {
    pool: Arc<Pool>,
    isa: Isa,
}

/// A graph compiled for the CPU.
#[derive(Debug)]
pub struct CpuProgram {
    plan: Plan,
    pool: Arc<Pool>,
    threads: usize,
    contract: Contract,
    constants: Vec<Vec<f32>>,
    weights: Block,
    arena: Block,
    cache: KvPages,
    memory: MemoryReport,
    profile: Option<Profile>,
    /// The steps that run once have run.
    warm: bool,
}

impl CpuBackend {
    /// A backend with a pool of `threads` threads of its own and the best instruction set of the machine.
    ///
    /// # Errors
    /// The system's, if it refuses a thread.
    pub fn new(threads: usize) -> std::io::Result<CpuBackend> {
        Ok(CpuBackend::with_pool(Arc::new(Pool::new(threads)?)))
    }

    /// A backend whose programs share `pool`; they run one at a time.
    pub fn with_pool(pool: Arc<Pool>) -> CpuBackend {
        CpuBackend { pool, isa: Isa::detect() }
    }

    /// The same with an instruction set of the caller's choice, one of [`Isa::available`].
    ///
    /// # Panics
    /// If this machine lacks it.
    pub fn with_isa(mut self, isa: Isa) -> CpuBackend {
        assert!(Isa::available().contains(&isa), "this machine has no {}", isa.name());
        self.isa = isa;
        self
    }

    /// The pool.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    fn plan(&self, graph: &Graph, options: &CompileOptions) -> Result<(Plan, Contract, Graph), CompileError> {
        graph.validate().map_err(|e| CompileError::Node { node: e.node, what: e.what })?;
        crate::backend::refuse_tensor_ops(graph)?;
        let optimized = passes::optimize(graph);
        let options = CompileOptions { threads: self.threads(options), ..*options };
        let plan = plan::plan(&optimized, self.isa, &options)?;
        let contract = Contract::new(&optimized, &options);
        Ok((plan, contract, optimized))
    }

    fn threads(&self, options: &CompileOptions) -> usize {
        options.threads.clamp(1, self.pool.threads())
    }
}

impl Backend for CpuBackend {
    type Program = CpuProgram;

    fn compile(
        &self,
        graph: &Graph,
        weights: &dyn WeightSource,
        options: &CompileOptions,
    ) -> Result<CpuProgram, CompileError> {
        let (plan, contract, optimized) = self.plan(graph, options)?;
        let memory = report(&plan, options)?;
        let block =
            |bytes: usize, what| Block::zeroed(bytes).map_err(|_| CompileError::Memory { bytes, what });
        let packed = block(plan.matrix_bytes, "weights")?;
        let arena = block(plan.arena_bytes, "activations")?;
        let cache = KvPages::new(block(memory.kv_bytes, "the key/value cache")?, plan.page_bytes);
        let threads = self.threads(options);
        let constants = load::constants(&plan, &optimized, weights)?;
        load::matrices(&plan, &optimized, weights, &packed, &self.pool, threads)?;
        let pool = Arc::clone(&self.pool);
        Ok(CpuProgram {
            plan,
            pool,
            threads,
            contract,
            constants,
            weights: packed,
            arena,
            cache,
            memory,
            profile: None,
            warm: false,
        })
    }

    fn estimate(&self, graph: &Graph, options: &CompileOptions) -> Result<MemoryReport, CompileError> {
        let (plan, ..) = self.plan(graph, options)?;
        report(&plan, options)
    }
}

fn report(plan: &Plan, options: &CompileOptions) -> Result<MemoryReport, CompileError> {
    let kv_bytes = plan
        .page_bytes
        .checked_mul(options.kv.pages)
        .ok_or(CompileError::Memory { bytes: usize::MAX, what: "the key/value cache" })?;
    let weights_bytes = plan.matrix_bytes + plan.constant_bytes;
    Ok(MemoryReport { weights_bytes, kv_bytes, workspace_bytes: plan.arena_bytes })
}

impl Program for CpuProgram {
    fn run(&mut self, inputs: &Inputs<'_>, outputs: &mut Outputs) -> Result<(), RunError> {
        let bound = self.contract.bind(inputs)?;
        run::run(self, &bound, outputs)
    }

    fn copy_page(&mut self, from: u32, to: u32) -> Result<(), RunError> {
        self.contract.check_pages(from, to)?;
        self.cache.copy(from, to);
        Ok(())
    }

    fn share(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) -> Result<(), RunError> {
        self.pool.share(self.threads, tasks, body).map_err(|Panicked| RunError::Failed)
    }

    fn memory(&self) -> MemoryReport {
        self.memory
    }
}

impl CpuProgram {
    /// Starts (or stops, and forgets) measuring the time of every step.
    pub fn set_profile(&mut self, on: bool) {
        self.profile = on.then(|| Profile::new(self.plan.steps.len()));
    }

    /// What was measured since [`CpuProgram::set_profile`], in the order of the steps.
    pub fn profile(&self) -> Vec<StepTime> {
        self.profile.as_ref().map_or_else(Vec::new, |profile| profile.table(&self.plan))
    }

    /// The instruction set that its kernels use.
    pub fn isa(&self) -> Isa {
        self.plan.isa
    }

    /// Compute threads.
    pub fn threads(&self) -> usize {
        self.threads
    }
}
