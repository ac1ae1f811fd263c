//! One forward pass of an ONNX model.

use crate::cores::physical_cores;
use crate::{EngineError, Pass, Waiting, budget};
use kun_formats::OnnxFile;
use kun_graph::{
    Datum, Dim, Errand, Fact, Graph, Isa, Pool, RunError, TensorOptions, TensorProgram, TensorStep, ValueKind,
};
use kun_models::onnx::{OnnxInfo, Port, import};
use kun_tensor::storage::Access;
use kun_tensor::{DType, Elements, Tensor, Tensors};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// More threads than any machine that this runs on.
const MOST_THREADS: usize = 1024;
/// Items that must wait for every thread so that each is run on one thread: with fewer, all of them would be late.
const EACH: usize = 2;
/// The most bytes that the values of runs side by side may take.
const EACH_BYTES: usize = 1 << 30;

/// How an ONNX model is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnnxOptions {
    /// Do not map files; for files that may shrink while in use.
    pub no_mmap: bool,
    /// Compute threads; the number of physical cores if none.
    pub threads: Option<usize>,
    /// Compute each operation by its plain definition on one thread: slow, to compare with.
    pub plain: bool,
    /// Most items that are stacked into one run, where the model allows it.
    pub max_batch: usize,
    /// Products with weights in bf16 where the processor [has dot products of it](has_bf16), else in f32.
    pub bf16: bool,
    /// Memory that the model may take; what the machine has available if none.
    pub max_memory_bytes: Option<u64>,
}

impl Default for OnnxOptions {
    fn default() -> OnnxOptions {
        OnnxOptions {
            no_mmap: false,
            threads: None,
            plain: false,
            max_batch: 8,
            bf16: false,
            max_memory_bytes: None,
        }
    }
}

/// Whether the processor has dot products of bf16.
pub fn has_bf16() -> bool {
    Isa::detect().has_bf16()
}

/// A loaded ONNX model.
///
/// As a [`Pass`], an item holds each input without its first dimension, the batch, and gets each output without it. Items
/// of equal shapes are stacked if the first dimension of every input may have any length, and of every output as well.
/// An item with tensors of the full rank is run alone, and gets whole outputs.
#[derive(Debug)]
pub struct OnnxPass {
    program: TensorProgram,
    info: OnnxInfo,
    max_batch: usize,
    stackable: bool,
    /// Compute threads.
    threads: usize,
    memory: Memory,
}

/// Bytes that a model takes: its weights, and what its plans so far keep for values.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<AtomicU64>);

impl Memory {
    /// So many now.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl OnnxPass {
    /// Loads the model at `path`.
    ///
    /// # Errors
    /// [`EngineError`] if the file cannot be read, or holds operators that are not supported.
    pub fn open(path: &Path, options: &OnnxOptions) -> Result<OnnxPass, EngineError> {
        let access = if options.no_mmap { Access::Read } else { Access::Mapped };
        OnnxPass::new(OnnxFile::open(path, access)?, options)
    }

    /// Loads a model that was read.
    ///
    /// # Errors
    /// As [`OnnxPass::open`].
    pub fn new(file: OnnxFile, options: &OnnxOptions) -> Result<OnnxPass, EngineError> {
        let model = import(file)?;
        let available = options.max_memory_bytes.or_else(budget::available_bytes).unwrap_or(u64::MAX);
        let weights = model.info.weights_bytes;
        if weights > available {
            return Err(EngineError::DoesNotFit {
                needed_bytes: weights,
                weights_bytes: weights,
                kv_bytes: 0,
                workspace_bytes: 0,
                available_bytes: available,
            });
        }
        let max_bytes = usize::try_from(available - weights).unwrap_or(usize::MAX);
        let stackable = may_stack(&model.graph);
        let limits = TensorOptions { max_bytes, bf16: options.bf16, ..TensorOptions::default() };
        let mut program = TensorProgram::new(model.graph, model.weights, limits)?;
        let threads = match options.plain {
            true => 1,
            false => options.threads.unwrap_or_else(physical_cores).clamp(1, MOST_THREADS),
        };
        if !options.plain {
            program = program.with_pool(Arc::new(Pool::new(threads).map_err(EngineError::Thread)?));
        }
        let memory = Memory(Arc::new(AtomicU64::new(weights)));
        let max_batch = options.max_batch.max(1);
        Ok(OnnxPass { program, info: model.info, max_batch, stackable, threads, memory })
    }

    /// What the model says of itself.
    pub fn info(&self) -> &OnnxInfo {
        &self.info
    }

    /// What it takes; stays true while the model is in use.
    pub fn memory(&self) -> Memory {
        self.memory.clone()
    }

    /// Most items that share a run: 1 unless the model takes batches of any length.
    pub fn max_batch(&self) -> usize {
        if self.stackable { self.max_batch } else { 1 }
    }

    /// The graph for inputs of these types and shapes (see [`Fact`]), in the order of [`OnnxInfo::inputs`].
    ///
    /// # Errors
    /// [`EngineError::Compile`] naming the node that they do not fit.
    pub fn specialized(&self, inputs: &[Fact]) -> Result<Graph, EngineError> {
        Ok(self.program.specialized(inputs)?)
    }

    /// The graph for any shapes.
    pub fn graph(&self) -> &Graph {
        self.program.graph()
    }

    /// The most bytes that values between the inputs and outputs take together.
    ///
    /// # Errors
    /// As [`OnnxPass::specialized`].
    pub fn workspace_bytes(&self, inputs: &[Fact]) -> Result<u64, EngineError> {
        Ok(self.program.workspace_bytes(inputs)? as u64)
    }

    /// Runs the model on whole tensors, batch dimension included; every input by name, every output by name.
    ///
    /// # Errors
    /// [`EngineError::Run`].
    pub fn infer(&mut self, inputs: &Tensors) -> Result<Tensors, EngineError> {
        self.infer_owned(inputs.clone())
    }

    fn infer_owned(&mut self, inputs: Tensors) -> Result<Tensors, EngineError> {
        let data = data_of(&self.info, inputs)?;
        let results = self.run_data(data)?;
        Ok(named(&self.info, results))
    }

    /// Runs the model on whole values, in the order of [`OnnxInfo::inputs`].
    ///
    /// # Errors
    /// [`EngineError::Run`].
    pub fn run_data(&mut self, inputs: Vec<Datum>) -> Result<Vec<Datum>, EngineError> {
        self.program.run(inputs).map_err(|e| EngineError::Run(Arc::new(e)))
    }

    /// Starts (or stops, and forgets) measuring the steps of the run before.
    pub fn set_profile(&mut self, on: bool) {
        self.program.set_profile(on);
    }

    /// What was measured since [`OnnxPass::set_profile`], in the order of the steps.
    pub fn profile(&self) -> Vec<TensorStep> {
        self.program.profile()
    }

    fn tell_memory(&self) {
        let bytes = self.info.weights_bytes.saturating_add(self.program.arena_bytes() as u64);
        self.memory.0.store(bytes, Ordering::Relaxed);
    }

    /// Whether the tensors of an item have the full rank of the inputs.
    fn is_whole(&self, item: &Tensors) -> bool {
        self.info.inputs.iter().any(|port| {
            let rank = port.shape.as_ref().map(Vec::len);
            item.get(&port.name).is_some_and(|tensor| Some(tensor.shape().len()) == rank)
        })
    }

    /// Runs one item as a batch of one.
    fn single(&mut self, item: Tensors) -> Result<Tensors, EngineError> {
        self.infer_owned(as_batch(item)?).map(without_batch)
    }

    /// Runs items that are stacked; all have the same shapes.
    fn stacked(&mut self, items: &[Tensors]) -> Result<Vec<Tensors>, EngineError> {
        let mut inputs = Tensors::new();
        let first = items.first().ok_or_else(|| input_error("", "no items".to_owned()))?;
        for name in first.keys() {
            let parts: Vec<&Tensor> = items.iter().filter_map(|item| item.get(name)).collect();
            inputs.insert(name.clone(), stack(name, &parts)?);
        }
        let outputs = self.infer_owned(inputs)?;
        let mut results = vec![Tensors::new(); items.len()];
        for (name, tensor) in outputs {
            match split(&tensor, items.len()) {
                Some(parts) => {
                    for (result, part) in results.iter_mut().zip(parts) {
                        result.insert(name.clone(), part);
                    }
                }
                // An output without a batch, such as a count: every item gets it.
                None => results.iter_mut().for_each(|result| {
                    result.insert(name.clone(), tensor.clone());
                }),
            }
        }
        Ok(results)
    }
}

/// Values of a run, in the order of the inputs.
fn data_of(info: &OnnxInfo, mut inputs: Tensors) -> Result<Vec<Datum>, EngineError> {
    let mut data = Vec::with_capacity(info.inputs.len());
    for port in &info.inputs {
        let tensor =
            inputs.remove(&port.name).ok_or_else(|| input_error(&port.name, "missing".to_owned()))?;
        data.push(Datum::from(tensor));
    }
    if let Some(name) = inputs.keys().next() {
        let known: Vec<&str> = info.inputs.iter().map(|p| p.name.as_str()).collect();
        return Err(input_error(name, format!("unknown; this model takes {}", known.join(", "))));
    }
    Ok(data)
}

/// Results of a run by name.
fn named(info: &OnnxInfo, results: Vec<Datum>) -> Tensors {
    let mut outputs = Tensors::new();
    for (port, datum) in info.outputs.iter().zip(results) {
        match datum {
            Datum::Tensor(tensor) => {
                outputs.insert(port.name.clone(), Arc::unwrap_or_clone(tensor));
            }
            // A sequence becomes numbered tensors.
            Datum::Sequence(items) => {
                for (i, item) in items.into_iter().enumerate() {
                    if let Datum::Tensor(tensor) = item {
                        outputs.insert(format!("{}.{i}", port.name), Arc::unwrap_or_clone(tensor));
                    }
                }
            }
            Datum::Nothing => {}
        }
    }
    outputs
}

/// The tensors of an item with a first dimension of 1.
fn as_batch(item: Tensors) -> Result<Tensors, EngineError> {
    let one = |(name, tensor): (String, Tensor)| {
        let shape: Vec<usize> = [1].iter().chain(tensor.shape()).copied().collect();
        let tensor = tensor.reshaped(shape).map_err(|e| input_error(&name, e.to_string()))?;
        Ok((name, tensor))
    };
    item.into_iter().map(one).collect()
}

/// Outputs of a batch of one without that dimension; those that have none stay as they are.
fn without_batch(outputs: Tensors) -> Tensors {
    let one = |(name, tensor): (String, Tensor)| {
        let rest =
            tensor.shape().split_first().filter(|(first, _)| **first == 1).map(|(_, rest)| rest.to_vec());
        let (shape, elements) = tensor.into_parts();
        let tensor =
            Tensor::new(rest.unwrap_or(shape), elements).expect("a dimension of 1 holds nothing back");
        (name, tensor)
    };
    outputs.into_iter().map(one).collect()
}

fn input_error(name: &str, what: String) -> EngineError {
    EngineError::Run(Arc::new(RunError::Input { name: name.to_owned(), what }))
}

/// Whether the first dimension of all inputs and outputs is a batch of any length.
fn may_stack(graph: &Graph) -> bool {
    let open = |id: &kun_graph::ValueId| {
        let info = graph.value(*id);
        let first = info.shape.first();
        matches!(info.kind, ValueKind::Tensor | ValueKind::Any)
            && matches!(first, Some(Dim::Named(_) | Dim::Unknown | Dim::Sym(_)))
    };
    let named = |id: &kun_graph::ValueId| match graph.value(*id).shape.first() {
        Some(Dim::Named(name)) => Some(*name),
        _ => None,
    };
    let mut names = graph.inputs.iter().chain(&graph.outputs).map(named);
    let first = names.next().flatten();
    // One name throughout; dimensions without a name may be anything, also something else than a batch.
    first.is_some() && graph.inputs.iter().chain(&graph.outputs).all(|id| open(id) && named(id) == first)
}

/// Parts side by side in a new first dimension.
fn stack(name: &str, parts: &[&Tensor]) -> Result<Tensor, EngineError> {
    macro_rules! joined {
        ($($variant:ident),*) => {
            match parts.first().map(|part| part.elements()) {
                $(Some(Elements::$variant(_)) => {
                    let mut all = Vec::new();
                    for part in parts {
                        if let Elements::$variant(values) = part.elements() {
                            all.extend_from_slice(values);
                        }
                    }
                    Elements::$variant(all)
                })*
                _ => return Err(input_error(name, "items of this type are not stacked".to_owned())),
            }
        };
    }
    let elements = joined!(F64, F32, F16, BF16, I64, I32, I16, I8, U64, U32, U16, U8, Bool, Text);
    let mut shape = vec![parts.len()];
    shape.extend(parts.first().into_iter().flat_map(|part| part.shape()));
    Tensor::new(shape, elements).map_err(|e| input_error(name, e.to_string()))
}

/// One tensor per item, if the first dimension is that of the items.
fn split(tensor: &Tensor, items: usize) -> Option<Vec<Tensor>> {
    let (&first, rest) = tensor.shape().split_first()?;
    if first != items || items == 0 {
        return None;
    }
    let each = tensor.elements().len() / items;
    macro_rules! part {
        ($range:expr, $($variant:ident),*) => {
            match tensor.elements() {
                $(Elements::$variant(values) => Elements::$variant(values[$range].to_vec()),)*
                Elements::Narrow(dtype, values) => Elements::Narrow(*dtype, values[$range].to_vec()),
                _ => return None,
            }
        };
    }
    (0..items)
        .map(|i| {
            let range = i * each..(i + 1) * each;
            let part = part!(range, F64, F32, F16, BF16, I64, I32, I16, I8, U64, U32, U16, U8, Bool, Text);
            Tensor::new(rest, part).ok()
        })
        .collect()
}

/// Type and shape of every tensor of an item.
fn signature(item: &Tensors) -> Vec<(&str, DType, &[usize])> {
    item.iter().map(|(name, tensor)| (name.as_str(), tensor.dtype(), tensor.shape())).collect()
}

impl Pass for OnnxPass {
    fn cost(&self, item: &Tensors) -> usize {
        // One that is run alone ends its batch.
        if self.is_whole(item) { self.max_batch() } else { 1 }
    }

    fn budget(&self) -> usize {
        self.max_batch()
    }

    fn run(&mut self, mut batch: Vec<Tensors>) -> Vec<Result<Tensors, EngineError>> {
        let mut results: Vec<Option<Result<Tensors, EngineError>>> = batch.iter().map(|_| None).collect();
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for i in 0..batch.len() {
            if self.is_whole(&batch[i]) {
                results[i] = Some(self.infer_owned(std::mem::take(&mut batch[i])));
                continue;
            }
            let alike = |group: &&mut Vec<usize>| signature(&batch[group[0]]) == signature(&batch[i]);
            match groups.iter_mut().find(alike).filter(|_| self.stackable) {
                Some(group) => group.push(i),
                None => groups.push(vec![i]),
            }
        }
        for group in groups {
            let mut items: Vec<Tensors> = group.iter().map(|&i| std::mem::take(&mut batch[i])).collect();
            let outputs = if items.len() > 1 { self.stacked(&items).ok() } else { None };
            match outputs {
                Some(outputs) => {
                    group.iter().zip(outputs).for_each(|(&i, output)| results[i] = Some(Ok(output)));
                }
                // One item may be what the model cannot take: each has its own run then.
                None => {
                    for (&i, item) in group.iter().zip(items.drain(..)) {
                        results[i] = Some(self.single(item));
                    }
                }
            }
        }
        self.tell_memory();
        results.into_iter().map(|result| result.unwrap_or(Err(EngineError::Unloaded))).collect()
    }

    fn run_each(&mut self, waiting: &Waiting) -> bool {
        if self.stackable || self.threads < 2 {
            return false;
        }
        let of = waiting.first(|first| (!self.is_whole(first)).then(|| facts(&self.info, first)).flatten());
        let Some((count, Some(of))) = of else { return false };
        if count < EACH * self.threads {
            return false;
        }
        let (info, alike) = (&self.info, &of);
        let next = || {
            let (tensors, reply) = waiting.next_if(|next| facts(info, next).as_ref() == Some(alike))?.split();
            let inputs = as_batch(tensors).and_then(|tensors| data_of(info, tensors)).unwrap_or_default();
            let answer = |result: Result<Vec<Datum>, RunError>| {
                let outputs = result.map(|results| without_batch(named(info, results)));
                reply.give(outputs.map_err(|e| EngineError::Run(Arc::new(e))));
            };
            Some(Errand { inputs, answer: Box::new(answer) })
        };
        let ran = self.program.run_each(of.clone(), EACH_BYTES, &next).is_ok();
        self.tell_memory();
        ran
    }
}

/// Types and shapes of an item's tensors as a batch of one, in the order of the inputs; `None` if it has others.
fn facts(info: &OnnxInfo, item: &Tensors) -> Option<Vec<Fact>> {
    let fact = |port: &Port| {
        let tensor = item.get(&port.name)?;
        Some(Fact::Shaped(tensor.dtype(), [1].iter().chain(tensor.shape()).copied().collect()))
    };
    (item.len() == info.inputs.len()).then(|| info.inputs.iter().map(fact).collect()).flatten()
}
