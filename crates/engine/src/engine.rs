//! The engine and its two verbs.

mod model;
mod stream;

pub use model::LoadedModel;
pub use stream::{Canceller, GenerateStream, Started};

use crate::batcher::Limits;
use crate::chat::Chat;
use crate::cost::StepCost;
use crate::fit::Fit;
use crate::kv_cache::PagePool;
use crate::load::{self, Counted, Plan, total};
use crate::queue::Shares;
use crate::request::{EventSink, parameter};
use crate::sampler::Sampler;
use crate::sequence::{Answer, Sequence, Work};
use crate::speculate::{DraftModel, Drafter, Speculate};
use crate::worker::{Buffers, Shared, Worker};
use crate::{EngineError, GenerateRequest, Usage, cores, null};
use kun_graph::{Backend, CpuBackend, KvType, Program};
use kun_tensor::DType;
use kun_text::{TextStream, Tokenizer};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

/// How a model is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Compute threads; `None`: one per physical core that this process may use.
    pub threads: Option<usize>,
    /// Context of one sequence; `None`: the model's own, at most [`crate::DEFAULT_CONTEXT_TOKENS`], or what fits.
    pub context_tokens: Option<usize>,
    /// Sequences decoded together at most; `None`: 1.
    pub max_sequences: Option<usize>,
    /// Tokens that the key/value cache holds for all sequences together, at least one context; `None`: a whole
    /// context for each.
    pub cache_tokens: Option<usize>,
    /// Type of the key/value cache.
    pub kv_type: KvType,
    /// Quantise float weights at load.
    pub quantize: Option<DType>,
    /// Memory budget in bytes; `None`: what the machine (or its cgroup) has free.
    pub max_memory_bytes: Option<u64>,
    /// Read files instead of mapping them.
    pub no_mmap: bool,
    /// Tokens of one prefill step; `None`: 512.
    pub prefill_tokens: Option<usize>,
    /// Where guesses at the next tokens come from.
    pub speculate: Speculate,
    /// Logits rows of one step, which bound how fast [`LoadedModel::score`] goes; `None`: 16.
    pub output_rows: Option<usize>,
}

/// Progress of a load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loading {
    /// Bytes packed.
    pub done_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// Loads models and answers requests. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    /// One pool of compute threads for each number of threads asked for.
    devices: Arc<Mutex<BTreeMap<usize, CpuBackend>>>,
}

impl Engine {
    /// An engine with no model loaded.
    pub fn new() -> Engine {
        Engine::default()
    }

    pub(crate) fn device(&self, threads: Option<usize>) -> Result<(usize, CpuBackend), EngineError> {
        let threads = threads.unwrap_or_else(cores::physical_cores);
        if !(1..=MAX_THREADS).contains(&threads) {
            return Err(parameter("threads", format!("{threads}, from 1 to {MAX_THREADS}")));
        }
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = devices.get(&threads) {
            return Ok((threads, device.clone()));
        }
        let device = CpuBackend::new(threads).map_err(EngineError::Thread)?;
        devices.insert(threads, device.clone());
        Ok((threads, device))
    }

    /// Loads the model at `path` (a `.gguf` file or a folder).
    ///
    /// # Errors
    /// [`EngineError`]; [`EngineError::DoesNotFit`] before anything large is allocated.
    pub fn load(&self, path: &Path, options: &LoadOptions) -> Result<Arc<LoadedModel>, EngineError> {
        self.load_with_progress(path, options, |_| {})
    }

    /// [`Engine::load`], telling `progress` from any thread how far the weights are.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub fn load_with_progress(
        &self,
        path: &Path,
        options: &LoadOptions,
        progress: impl Fn(Loading) + Send + Sync,
    ) -> Result<Arc<LoadedModel>, EngineError> {
        if path == null::path() {
            return null::load(options);
        }
        let (threads, device) = self.device(options.threads)?;
        let (files, text) = load::open(path, options)?;
        // Building a large vocabulary takes about as long as packing the weights of a small model.
        let (text, plan, program) = std::thread::scope(|scope| {
            let text = std::thread::Builder::new()
                .name("kun-tokenizer".to_owned())
                .spawn_scoped(scope, || text.build())
                .map_err(EngineError::Thread)?;
            let plan = Plan::new(files, options, threads, &device)?;
            plan.check_fit()?;
            let weights = Counted {
                weights: plan.model.weights.as_ref(),
                done: AtomicU64::new(0),
                total: plan.model.info.weights_bytes,
                progress,
            };
            let program = device.compile(&plan.model.graph, &weights, &plan.compile);
            let text = text.join().unwrap_or(Err(EngineError::Unloaded))?;
            Ok::<_, EngineError>((text, plan, program?))
        })?;
        let limits = plan.limits();
        let Plan { model, compile, fit } = plan;
        let rows = model.info.vocab_size;
        if text.0.vocab_size() > rows {
            let what = format!("{} tokens, {rows} rows of embeddings", text.0.vocab_size());
            return Err(EngineError::Mismatch { what });
        }
        let mut memory = program.memory();
        let drafter = match &options.speculate {
            Speculate::Off => None,
            Speculate::Lookup => Some(Drafter::Lookup),
            Speculate::Model(path) => {
                let taken = (fit.context_tokens, total(&memory));
                let (model, own) = DraftModel::open(path, options, (threads, &device), &text.0, taken)?;
                memory.weights_bytes += own.weights_bytes;
                memory.kv_bytes += own.kv_bytes;
                memory.workspace_bytes += own.workspace_bytes;
                Some(Drafter::Model(Box::new(model)))
            }
        };
        Parts {
            program: Box::new(program),
            limits,
            pages: PagePool::new(compile.kv.pages),
            drafter,
            text,
            fit: Fit { memory, ..fit },
            threads,
            cost: StepCost::of(&model.graph),
        }
        .run()
    }

    /// Answers a request with a loaded model. Dropping the stream cancels it.
    ///
    /// # Errors
    /// [`EngineError::ContextExceeded`], [`EngineError::Parameter`] and those of template and tokenizer, before any step runs.
    pub fn generate(
        &self,
        model: &LoadedModel,
        request: GenerateRequest,
    ) -> Result<GenerateStream, EngineError> {
        let (stream, sequence) = open_stream(model, request)?;
        model.start(vec![sequence])?;
        Ok(stream)
    }

    /// [`Engine::generate`] for several requests, which come to the model's queue in the same moment: as many as it
    /// has places for share every step from the first. All or none of them start.
    ///
    /// # Errors
    /// As [`Engine::generate`].
    pub fn generate_together(
        &self,
        model: &LoadedModel,
        requests: Vec<GenerateRequest>,
    ) -> Result<Vec<GenerateStream>, EngineError> {
        let opened: Result<Vec<_>, _> = requests.into_iter().map(|r| open_stream(model, r)).collect();
        let (streams, sequences) = opened?.into_iter().unzip();
        model.start(sequences)?;
        Ok(streams)
    }

    /// [`Engine::generate`] with the events going to `events`.
    ///
    /// # Errors
    /// As [`Engine::generate`].
    pub fn generate_into(
        &self,
        model: &LoadedModel,
        request: GenerateRequest,
        events: Box<dyn EventSink>,
    ) -> Result<Started, EngineError> {
        self.generate_until(model, request, events, &Canceller::default())
    }

    /// [`Engine::generate_into`], which `canceller` ends.
    ///
    /// # Errors
    /// As [`Engine::generate`].
    pub fn generate_until(
        &self,
        model: &LoadedModel,
        request: GenerateRequest,
        events: Box<dyn EventSink>,
        canceller: &Canceller,
    ) -> Result<Started, EngineError> {
        let (started, sequence) = queued(model, request, events, canceller)?;
        model.start(vec![sequence])?;
        Ok(started)
    }
}

/// What a loaded model is put together from.
pub(crate) struct Parts {
    pub(crate) program: Box<dyn Program>,
    pub(crate) limits: Limits,
    pub(crate) pages: PagePool,
    pub(crate) drafter: Option<Drafter>,
    pub(crate) text: (Tokenizer, Chat),
    pub(crate) fit: Fit,
    pub(crate) threads: usize,
    pub(crate) cost: StepCost,
}

impl Parts {
    /// Starts the worker.
    pub(crate) fn run(self) -> Result<Arc<LoadedModel>, EngineError> {
        let Parts { program, limits, pages, drafter, text: (tokenizer, chat), fit, threads, cost } = self;
        let mut end_tokens = chat.end_tokens(&tokenizer);
        end_tokens.retain(|id| (*id as usize) < fit.model.vocab_size);
        let tokenizer = Arc::new(tokenizer);
        let shared = Arc::new(Shared::default());
        shared.figures().pages = pages.counts();
        let (commands, receiver) = channel();
        let worker = Worker {
            program,
            commands: receiver,
            limits,
            pages,
            tokenizer: tokenizer.clone(),
            shared: shared.clone(),
            waiting: VecDeque::new(),
            running: Vec::new(),
            shares: Shares::default(),
            buffers: Buffers::default(),
            drafter,
            arrived: 0,
        };
        let thread = std::thread::Builder::new()
            .name("kun-worker".to_owned())
            .spawn(move || worker.run())
            .map_err(EngineError::Thread)?;
        Ok(Arc::new(LoadedModel {
            fit,
            tokenizer,
            chat,
            grammars: OnceLock::new(),
            end_tokens: end_tokens.into(),
            shared,
            threads,
            cost,
            commands: Some(commands),
            thread: Some(thread),
        }))
    }
}

fn open_stream(
    model: &LoadedModel,
    request: GenerateRequest,
) -> Result<(GenerateStream, Sequence), EngineError> {
    let (events, receiver) = channel();
    let (started, sequence) = queued(model, request, Box::new(events), &Canceller::default())?;
    Ok((GenerateStream { events: receiver, canceller: started.canceller, ended: false }, sequence))
}

/// Checks a request and makes of it what the worker takes.
fn queued(
    model: &LoadedModel,
    request: GenerateRequest,
    events: Box<dyn EventSink>,
    canceller: &Canceller,
) -> Result<(Started, Sequence), EngineError> {
    let started = Instant::now();
    request.check(model.fit.model.vocab_size)?;
    let (prompt, parser, guide) = model.prepare(&request)?;
    let context = model.context_tokens();
    if prompt.len() > context {
        return Err(EngineError::ContextExceeded { prompt_tokens: prompt.len(), context_tokens: context });
    }
    // The last token of an answer is never put into the cache: a full context still gives one.
    let most_tokens = request.max_tokens.unwrap_or(usize::MAX).saturating_add(prompt.len());
    let prompt_tokens = prompt.len();
    let cancelled = canceller.cancelled.clone();
    let answer = Answer {
        prompt_tokens: prompt.len(),
        admitted: false,
        most_tokens: most_tokens.min(context + 1),
        sampler: Sampler::new(request.sampling, request.logprobs),
        guide,
        shown: model.chat.tool_token.map(|id| (id, model.chat.tools.opening())),
        text: TextStream::new(request.stop),
        end_tokens: if request.ignore_end { Arc::default() } else { model.end_tokens.clone() },
        events,
        started,
        usage: Usage { prompt_tokens: prompt.len(), ..Usage::default() },
    };
    let (class, tenant) = (request.class, request.tenant);
    let work = Work::Generate(Box::new(answer));
    let sequence = Sequence::new(prompt, class, tenant, cancelled, work);
    Ok((Started { canceller: canceller.clone(), parser, prompt_tokens }, sequence))
}

/// More threads than any machine has processors.
const MAX_THREADS: usize = 4096;
