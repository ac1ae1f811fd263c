//! A graph of tensor operations, run for whatever shapes come: specialised, planned and kept per set of input shapes.
//!
//! A plan is a list of steps. `Step::Plain` runs a node by [`crate::plain`] on tensors of their own, whatever its
//! shapes turn out to be.

use crate::backend::{CompileError, RunError, WeightSource};
use crate::batch;
use crate::cpu::Pool;
use crate::einsum;
use crate::fast::{FastPlan, PackCache};
use crate::graph::{Dim, Graph, Op, ValueId, ValueKind};
use crate::ops::Fact;
use crate::plain::{self, Context, Datum};
use crate::specialize::{fact_of, specialize};
use crate::widen::widen;
use kun_kernels::Isa;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How a [`TensorProgram`] runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorOptions {
    /// Most plans that are kept; the one unused for longest goes first.
    pub plans: usize,
    /// Most bytes that values which are alive together may take.
    pub max_bytes: usize,
    /// Products with constants in bf16, where the machine has dot products of it; sums and all else stay f32.
    pub bf16: bool,
}

impl Default for TensorOptions {
    fn default() -> TensorOptions {
        TensorOptions { plans: 8, max_bytes: 16 << 30, bf16: false }
    }
}

/// One step of a plan and the time it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorStep {
    /// What it does.
    pub kind: &'static str,
    /// The node that it is named after: the last of those that it computes.
    pub node: String,
    /// Shapes of what it reads and writes.
    pub sizes: String,
    /// Multiplications and additions of products and convolutions; 0 for other work.
    pub operations: u64,
    /// The least time of all runs that were measured.
    pub least: Duration,
}

/// A graph with tensor operations and its weights.
pub struct TensorProgram {
    graph: Graph,
    weights: Arc<dyn WeightSource>,
    options: TensorOptions,
    plans: Vec<Plan>,
    cache: plain::WeightCache,
    /// Where fast steps run, if they may.
    pool: Option<Arc<Pool>>,
    packed: PackCache,
}

/// The steps for one set of input shapes.
struct Plan {
    key: Vec<Fact>,
    graph: Graph,
    form: Form,
}

/// How the steps are run.
enum Form {
    /// Node after node. By step: values that nobody reads after it.
    Plain { steps: Vec<Step>, dropped: Vec<Vec<ValueId>> },
    /// Fused, in one arena, on a pool.
    Fast(Box<FastPlan>, Arc<Pool>, Vec<Lane>),
    /// So many items one by one, each by the plan for inputs of one item.
    Items(usize, Vec<Fact>),
}

/// The steps once more, in an arena of their own, for one thread beside others.
struct Lane {
    plan: FastPlan,
    alone: Pool,
}

/// Inputs of a run, and who waits for its results.
pub struct Errand<'a> {
    /// In the order of [`Graph::inputs`].
    pub inputs: Vec<Datum>,
    /// Gets the results, in the order of [`Graph::outputs`].
    pub answer: Box<dyn FnOnce(Result<Vec<Datum>, RunError>) + Send + 'a>,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// The node of this index, by [`crate::plain`].
    Plain(usize),
}

impl std::fmt::Debug for TensorProgram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TensorProgram").field("nodes", &self.graph.nodes.len()).finish_non_exhaustive()
    }
}

impl TensorProgram {
    /// A program of `graph`.
    ///
    /// # Errors
    /// [`CompileError`] if the graph is not well formed.
    pub fn new(
        graph: Graph,
        weights: Arc<dyn WeightSource>,
        options: TensorOptions,
    ) -> Result<TensorProgram, CompileError> {
        graph.validate().map_err(|e| CompileError::Node { node: e.node, what: e.what })?;
        Ok(TensorProgram {
            graph,
            weights,
            options,
            plans: Vec::new(),
            cache: plain::WeightCache::default(),
            pool: None,
            packed: PackCache::default(),
        })
    }

    /// The same, with fast forms of what has one, on the threads of `pool`.
    pub fn with_pool(mut self, pool: Arc<Pool>) -> TensorProgram {
        self.pool = Some(pool);
        self.plans.clear();
        self
    }

    /// Bytes of the activations of all plans that are kept.
    pub fn arena_bytes(&self) -> usize {
        let bytes = |plan: &Plan| match &plan.form {
            Form::Fast(plan, _, lanes) => plan.arena_bytes() * (1 + lanes.len()),
            Form::Plain { .. } | Form::Items(..) => 0,
        };
        self.plans.iter().map(bytes).sum()
    }

    /// Starts (or stops, and forgets) measuring the fast steps of the plan that ran last.
    pub fn set_profile(&mut self, on: bool) {
        if let Some(Plan { form: Form::Fast(plan, ..), .. }) = self.plans.last() {
            plan.set_profile(on);
        }
    }

    /// What was measured since [`TensorProgram::set_profile`], in the order of the steps.
    pub fn profile(&self) -> Vec<TensorStep> {
        match self.plans.last() {
            Some(Plan { form: Form::Fast(plan, ..), graph, .. }) => plan.profile(graph),
            _ => Vec::new(),
        }
    }

    /// The graph as it was given.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Runs the graph on `inputs`, in the order of [`Graph::inputs`]; results in the order of [`Graph::outputs`].
    ///
    /// # Errors
    /// [`RunError`] if an input does not fit or a node cannot be computed.
    pub fn run(&mut self, inputs: Vec<Datum>) -> Result<Vec<Datum>, RunError> {
        if inputs.len() != self.graph.inputs.len() {
            let what = format!("{} inputs are given", inputs.len());
            return Err(RunError::Input { name: format!("of {}", self.graph.inputs.len()), what });
        }
        let plan = self.take_plan(inputs.iter().map(fact_of).collect())?;
        if let Form::Items(items, one) = &plan.form {
            let (items, one) = (*items, one.clone());
            self.plans.push(plan);
            return self.run_items(items, &one, &inputs);
        }
        let result = self.execute(&plan, inputs);
        self.plans.push(plan);
        result
    }

    /// Runs a batch item by item: each on one thread beside others, if no thread is left without, or one after the other.
    fn run_items(&mut self, items: usize, one: &[Fact], inputs: &[Datum]) -> Result<Vec<Datum>, RunError> {
        let parts = split(inputs, items)?;
        let threads = self.pool.as_ref().map_or(1, |pool| pool.threads());
        if threads > 1 && (items.is_multiple_of(threads) || items >= 4 * threads) {
            let (left, results) = (AtomicUsize::new(0), Mutex::new(vec![None; items]));
            let next = || {
                let index = left.fetch_add(1, Ordering::Relaxed);
                let inputs = parts.get(index)?.clone();
                let results = &results;
                let answer = move |result: Result<Vec<Datum>, RunError>| {
                    results.lock().unwrap_or_else(PoisonError::into_inner)[index] = result.ok();
                };
                Some(Errand { inputs, answer: Box::new(answer) })
            };
            // Refused where memory is scarce.
            if self.run_each(one.to_vec(), usize::MAX, &next).is_ok() {
                let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
                return join(&results.into_iter().collect::<Option<Vec<_>>>().ok_or(RunError::Failed)?);
            }
        }
        let results: Result<Vec<_>, RunError> = parts.into_iter().map(|part| self.run(part)).collect();
        join(&results?)
    }

    /// Runs errands until `next` gives none, each on one thread of the pool, as many at once as it has threads: no thread
    /// waits for another between steps. All have inputs of the types and shapes `of`; others are answered with an error.
    /// Results are those of [`TensorProgram::run`], bit for bit.
    ///
    /// # Errors
    /// [`RunError`] before the first errand is asked for: what [`TensorProgram::run`] says of the shapes, or that there
    /// is no pool, or that the values of so many runs take more than `max_bytes` or those of [`TensorOptions`].
    pub fn run_each<'a>(
        &mut self,
        of: Vec<Fact>,
        max_bytes: usize,
        next: &(dyn Fn() -> Option<Errand<'a>> + Sync),
    ) -> Result<(), RunError> {
        let mut plan = self.take_plan(of.clone())?;
        let mut items = 1;
        if let Form::Items(count, one) = &plan.form {
            items = *count;
            let one = one.clone();
            self.plans.push(plan);
            plan = self.take_plan(one)?;
        }
        let ready = self.open_lanes(&mut plan, max_bytes.min(self.options.max_bytes));
        if let (Ok(()), Form::Fast(_, pool, lanes)) = (&ready, &plan.form) {
            let context = Context::with_cache(&*self.weights, self.options.max_bytes, &self.cache);
            let run = |lane: &Lane, inputs: Vec<Datum>| {
                if !inputs.iter().map(fact_of).eq(of.iter().cloned()) {
                    let what = "other shapes than those that run side by side".to_owned();
                    return Err(RunError::Input { name: String::new(), what });
                }
                if items == 1 {
                    return lane.plan.run(&plan.graph, inputs, &context, &lane.alone);
                }
                let each = |item| lane.plan.run(&plan.graph, item, &context, &lane.alone);
                join(&split(&inputs, items)?.into_iter().map(each).collect::<Result<Vec<_>, _>>()?)
            };
            // An errand whose run panics is dropped: whoever waits for its answer sees that.
            let _ = pool.run(lanes.len(), |worker| {
                while let Some(Errand { inputs, answer }) = next() {
                    answer(run(&lanes[worker.index], inputs));
                }
                Ok(())
            });
        }
        self.plans.push(plan);
        ready
    }

    /// Makes a lane for every thread of the pool.
    fn open_lanes(&self, plan: &mut Plan, max_bytes: usize) -> Result<(), RunError> {
        let refused = |what: &str| RunError::Input { name: String::new(), what: what.to_owned() };
        let Form::Fast(fast, pool, lanes) = &mut plan.form else {
            return Err(refused("runs side by side take a pool"));
        };
        if fast.arena_bytes().saturating_mul(pool.threads()) > max_bytes {
            return Err(refused("no memory for runs side by side"));
        }
        while lanes.len() < pool.threads() {
            let plan = fast.beside().map_err(|e| RunError::Plan(Box::new(e)))?;
            let alone = Pool::new(1).map_err(|_| RunError::Failed)?;
            lanes.push(Lane { plan, alone });
        }
        Ok(())
    }

    /// The plan for inputs of these types and shapes; whoever uses it puts it back as the last one.
    fn take_plan(&mut self, key: Vec<Fact>) -> Result<Plan, RunError> {
        match self.plans.iter().position(|plan| plan.key == key) {
            Some(at) => Ok(self.plans.remove(at)),
            None => {
                let plan = self.plan(key).map_err(|e| RunError::Plan(Box::new(e)))?;
                // A batch has two: its own, and that of an item.
                if self.plans.len() >= self.options.plans.max(2) {
                    self.plans.remove(0);
                }
                Ok(plan)
            }
        }
    }

    /// The graph for inputs of these types and shapes, with all that follows from them computed.
    ///
    /// # Errors
    /// [`CompileError`] naming the node that they do not fit.
    pub fn specialized(&self, inputs: &[Fact]) -> Result<Graph, CompileError> {
        specialize(&self.graph, &*self.weights, inputs)
    }

    /// The most bytes that values between inputs and outputs take together, as far as their shapes follow from those of
    /// the inputs.
    ///
    /// # Errors
    /// As [`TensorProgram::specialized`].
    pub fn workspace_bytes(&self, inputs: &[Fact]) -> Result<usize, CompileError> {
        let graph = self.specialized(inputs)?;
        Ok(peak_bytes(&graph, &dropped(&graph)))
    }

    fn plan(&self, key: Vec<Fact>) -> Result<Plan, CompileError> {
        let graph = self.specialized(&key)?;
        if let Some(form) = self.items(&key, &graph) {
            return Ok(Plan { key, graph: Graph::default(), form });
        }
        let graph = if self.pool.is_some() { einsum::expand(widen(graph)) } else { graph };
        let dropped = dropped(&graph);
        let bytes = peak_bytes(&graph, &dropped);
        if bytes > self.options.max_bytes {
            return Err(CompileError::Memory { bytes, what: "activations" });
        }
        if let Some(pool) = &self.pool {
            let context = Context::new(&*self.weights, self.options.max_bytes);
            let plan = FastPlan::new(&graph, &context, &self.packed, Isa::detect(), self.options.bf16, pool)?;
            return Ok(Plan { key, graph, form: Form::Fast(Box::new(plan), Arc::clone(pool), Vec::new()) });
        }
        let steps: Vec<Step> = (0..graph.nodes.len()).map(Step::Plain).collect();
        Ok(Plan { key, graph, form: Form::Plain { steps, dropped } })
    }

    /// Item by item, if `graph`, specialised for inputs `key`, allows it and is faster that way.
    fn items(&self, key: &[Fact], graph: &Graph) -> Option<Form> {
        self.pool.as_ref()?;
        let items = *key.first()?.shape()?.first()?;
        let ports = graph.inputs.iter().chain(&graph.outputs);
        let takes = ports.map(|&id| graph.value(id).dtype).all(batch::takes);
        if items < 2 || !takes || !batch::is_separable(graph, &*self.weights, items) {
            return None;
        }
        let first = |fact: &Fact| {
            let (dtype, shape) = (fact.dtype()?, fact.shape()?);
            Some(Fact::Shaped(dtype, std::iter::once(1).chain(shape[1..].iter().copied()).collect()))
        };
        let one: Vec<Fact> = key.iter().map(first).collect::<Option<_>>()?;
        // A graph may know the size of its batch.
        let single = self.specialized(&one).ok()?;
        let same = graph.outputs.iter().zip(&single.outputs).all(|(&whole, &item)| {
            let (whole, item) = (batch::shape(graph, whole), batch::shape(&single, item));
            matches!((whole, item), (Some(whole), Some(item)) if item.first() == Some(&1) && whole[1..] == item[1..])
        });
        (same && batch::is_worth_it(&single)).then_some(Form::Items(items, one))
    }

    fn execute(&self, plan: &Plan, inputs: Vec<Datum>) -> Result<Vec<Datum>, RunError> {
        let context = Context::with_cache(&*self.weights, self.options.max_bytes, &self.cache);
        let (steps, dropped) = match &plan.form {
            Form::Fast(fast, pool, _) => return fast.run(&plan.graph, inputs, &context, pool),
            Form::Plain { steps, dropped } => (steps, dropped),
            Form::Items(..) => unreachable!("batches are run by their items"),
        };
        let mut values: Vec<Option<Datum>> = vec![None; plan.graph.values.len()];
        for (&id, datum) in plan.graph.inputs.iter().zip(inputs) {
            values[id.0 as usize] = Some(datum);
        }
        for (step, dropped) in steps.iter().zip(dropped) {
            match step {
                Step::Plain(node) => {
                    let node = &plan.graph.nodes[*node];
                    plain::step(&plan.graph, node, &mut values, &context)
                        .map_err(|what| RunError::Node { node: node.name.clone(), what })?;
                }
            }
            for id in dropped {
                values[id.0 as usize] = None;
            }
        }
        let missing = |id: &ValueId| RunError::Node {
            node: plan.graph.value(*id).name.clone().unwrap_or_default(),
            what: "the output was not computed".to_owned(),
        };
        plan.graph.outputs.iter().map(|id| values[id.0 as usize].clone().ok_or_else(|| missing(id))).collect()
    }
}

/// The inputs of each item.
fn split(inputs: &[Datum], items: usize) -> Result<Vec<Vec<Datum>>, RunError> {
    let mut parts = vec![Vec::with_capacity(inputs.len()); items];
    for datum in inputs {
        let split = datum.tensor().and_then(|tensor| batch::split(tensor, items)).ok_or(RunError::Failed)?;
        parts.iter_mut().zip(split).for_each(|(part, datum)| part.push(datum));
    }
    Ok(parts)
}

/// The results of all items.
fn join(results: &[Vec<Datum>]) -> Result<Vec<Datum>, RunError> {
    let count = results.first().map_or(0, Vec::len);
    let output = |index: usize| {
        let parts: Option<Vec<_>> =
            results.iter().map(|results| results.get(index)?.tensor().cloned()).collect();
        parts.and_then(|parts| batch::join(&parts)).ok_or(RunError::Failed)
    };
    (0..count).map(output).collect()
}

/// By node: values that nobody reads after it.
fn dropped(graph: &Graph) -> Vec<Vec<ValueId>> {
    let mut last = vec![None; graph.values.len()];
    for (index, node) in graph.nodes.iter().enumerate() {
        for id in node.inputs.iter().chain(&node.outputs).filter(|id| **id != ValueId::ABSENT) {
            last[id.0 as usize] = Some(index);
        }
    }
    graph.outputs.iter().for_each(|id| last[id.0 as usize] = None);
    let mut dropped = vec![Vec::new(); graph.nodes.len()];
    for (value, last) in last.into_iter().enumerate() {
        if let Some(node) = last {
            dropped[node].push(ValueId(value as u32));
        }
    }
    dropped
}

/// The most bytes that values of known shape take together, if each is dropped after the node that `dropped` says.
fn peak_bytes(graph: &Graph, dropped: &[Vec<ValueId>]) -> usize {
    // Inputs and weights are counted on their own.
    let mut counted = vec![true; graph.values.len()];
    let weights = graph.nodes.iter().filter(|n| matches!(n.op, Op::Weight(_))).flat_map(|n| &n.outputs);
    graph.inputs.iter().chain(weights).for_each(|id| counted[id.0 as usize] = false);
    let size = |id: &ValueId| {
        let info = graph.value(*id);
        let elements = info.shape.iter().try_fold(1usize, |n, dim| match dim {
            Dim::Const(length) => n.checked_mul(*length),
            _ => Some(0),
        });
        match info.kind == ValueKind::Tensor && counted[id.0 as usize] {
            true => elements.unwrap_or(usize::MAX).saturating_mul(info.dtype.block_bytes()),
            false => 0,
        }
    };
    let (mut alive, mut most) = (0usize, 0);
    for (node, dropped) in graph.nodes.iter().zip(dropped) {
        alive = node.outputs.iter().fold(alive, |sum, id| sum.saturating_add(size(id)));
        most = most.max(alive);
        alive = dropped.iter().fold(alive, |sum, id| sum.saturating_sub(size(id)));
    }
    most
}
