//! The engine and its two verbs.

use crate::chat::{Chat, ChatFormat, ChatPrompt};
use crate::constraint::{Grammars, Guide};
use crate::cost::StepCost;
use crate::kv_cache::{PageCounts, PagePool};
use crate::load::{self, Counted, Plan};
use crate::queue::Shares;
use crate::request::{Class, EventSink, Tenant, parameter};
use crate::sampler::Sampler;
use crate::sequence::{Answer, Score, Sequence, Work};
use crate::tools::{self, ToolChoice};
use crate::worker::{Buffers, Shared, StepTimes, Worker};
use crate::{EngineError, Event, GenerateRequest, Prompt, TokenScore, Usage, cores};
use kun_graph::{Backend, CpuBackend, KvType, MemoryReport, Program};
use kun_models::ModelInfo;
use kun_tensor::DType;
use kun_text::{OutputParser, Special, TextStream, Tokenizer, ToolFormat};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
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
    /// Logits rows of one step, which bound how fast [`LoadedModel::score`] goes; `None`: 16.
    pub output_rows: Option<usize>,
}

/// What a model needs and what this machine has, before anything is loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// The model.
    pub model: ModelInfo,
    /// For `context_tokens`.
    pub memory: MemoryReport,
    /// The context that `memory` is for.
    pub context_tokens: usize,
    /// Bytes of one token in the cache, all layers.
    pub kv_bytes_per_token: u64,
    /// Free memory, or the budget; `u64::MAX` where the system does not tell.
    pub available_bytes: u64,
    /// Longest context that fits, at most the model's own; `None` if not even one page does.
    pub max_context_tokens: Option<usize>,
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

    /// What the model at `path` would take.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn fit(&self, path: &Path, options: &LoadOptions) -> Result<Fit, EngineError> {
        let (threads, device) = self.device(options.threads)?;
        let (files, _) = load::open(path, options)?;
        Ok(Plan::new(files, options, threads, &device)?.fit)
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
        let (tokenizer, chat) = text;
        let rows = model.info.vocab_size;
        if tokenizer.vocab_size() > rows {
            let what = format!("{} tokens, {rows} rows of embeddings", tokenizer.vocab_size());
            return Err(EngineError::Mismatch { what });
        }
        let mut end_tokens = chat.end_tokens(&tokenizer);
        end_tokens.retain(|id| (*id as usize) < rows);
        let memory = program.memory();
        let tokenizer = Arc::new(tokenizer);
        let shared = Arc::new(Shared::default());
        let pages = PagePool::new(compile.kv.pages);
        shared.figures().pages = pages.counts();
        let (commands, receiver) = channel();
        let worker = Worker {
            program: Box::new(program),
            commands: receiver,
            limits,
            pages,
            tokenizer: tokenizer.clone(),
            shared: shared.clone(),
            waiting: VecDeque::new(),
            running: Vec::new(),
            shares: Shares::default(),
            buffers: Buffers::default(),
        };
        let thread = std::thread::Builder::new()
            .name("kun-worker".to_owned())
            .spawn(move || worker.run())
            .map_err(EngineError::Thread)?;
        Ok(Arc::new(LoadedModel {
            fit: Fit { memory, ..fit },
            tokenizer,
            chat,
            grammars: OnceLock::new(),
            end_tokens: end_tokens.into(),
            shared,
            threads,
            cost: StepCost::of(&model.graph),
            commands: Some(commands),
            thread: Some(thread),
        }))
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

/// A loaded model: its worker thread owns the compiled program.
#[derive(Debug)]
pub struct LoadedModel {
    fit: Fit,
    tokenizer: Arc<Tokenizer>,
    chat: Chat,
    grammars: OnceLock<Arc<Grammars>>,
    end_tokens: Arc<[u32]>,
    shared: Arc<Shared>,
    threads: usize,
    cost: StepCost,
    commands: Option<Sender<Vec<Sequence>>>,
    thread: Option<JoinHandle<()>>,
}

impl LoadedModel {
    /// The description.
    pub fn info(&self) -> &ModelInfo {
        &self.fit.model
    }

    /// What it takes.
    pub fn memory(&self) -> MemoryReport {
        self.fit.memory
    }

    /// What was measured before it was loaded.
    pub fn fit(&self) -> &Fit {
        &self.fit
    }

    /// Context of one sequence, in tokens.
    pub fn context_tokens(&self) -> usize {
        self.fit.context_tokens
    }

    /// Compute threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// What a step costs at least.
    pub fn cost(&self) -> StepCost {
        self.cost
    }

    /// Whether the model file brings a chat template.
    pub fn has_chat_template(&self) -> bool {
        self.chat.format == ChatFormat::Template
    }

    /// How conversations are put to the model.
    pub fn chat_format(&self) -> ChatFormat {
        self.chat.format
    }

    /// Tokens that end an answer, sorted.
    pub fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }

    /// Pages of the key/value cache.
    pub fn pages(&self) -> PageCounts {
        self.shared.figures().pages
    }

    /// Times of the steps since the last call that did nothing but decode, by number of sequences.
    pub fn take_decode_times(&self) -> BTreeMap<usize, StepTimes> {
        std::mem::take(&mut self.shared.figures().decode)
    }

    /// Ids of a raw prompt as [`crate::Prompt::Text`] gives them to the model.
    ///
    /// # Errors
    /// [`EngineError::Tokenizer`].
    pub fn tokenize(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        Ok(self.tokenizer.encode_prompt(text, Special::Plain)?)
    }

    /// Ids of a text alone, without beginning or end tokens.
    ///
    /// # Errors
    /// [`EngineError::Tokenizer`].
    pub fn tokenize_plain(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        Ok(self.tokenizer.encode(text, Special::Plain)?)
    }

    /// The text of `ids`, without control tokens.
    pub fn detokenize(&self, ids: &[u32]) -> String {
        self.tokenizer.decode(ids)
    }

    /// The tokenizer.
    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// For each of `tokens[first..]`, the natural log-probability of that token after all before it, in one sequence from position 0.
    ///
    /// # Errors
    /// [`EngineError::Parameter`] if `first` is 0 or there is no token to score, [`EngineError::ContextExceeded`],
    /// [`EngineError::Run`].
    pub fn score(&self, tokens: &[u32], first: usize) -> Result<Vec<f32>, EngineError> {
        let scores = self.score_top(tokens, first, 0, &Canceller::default())?;
        Ok(scores.into_iter().map(|score| score.logprob).collect())
    }

    /// [`LoadedModel::score`] with the `top` likeliest tokens at every place; `canceller` ends it early.
    ///
    /// # Errors
    /// As [`LoadedModel::score`]; [`EngineError::Unloaded`] if it was cancelled.
    pub fn score_top(
        &self,
        tokens: &[u32],
        first: usize,
        top: usize,
        canceller: &Canceller,
    ) -> Result<Vec<TokenScore>, EngineError> {
        let vocab = self.fit.model.vocab_size;
        if !(1..tokens.len()).contains(&first) {
            let what = format!("{first} of {} tokens: the first scored needs one before it", tokens.len());
            return Err(parameter("first", what));
        }
        if let Some(id) = tokens.iter().find(|id| **id as usize >= vocab) {
            return Err(parameter("tokens", format!("token {id}, the model has {vocab}")));
        }
        let context_tokens = self.context_tokens();
        if tokens.len() - 1 > context_tokens {
            return Err(EngineError::ContextExceeded { prompt_tokens: tokens.len(), context_tokens });
        }
        let (reply, receiver) = channel();
        let score = Score { first, top, scores: Vec::with_capacity(tokens.len() - first), reply };
        let cancelled = canceller.cancelled.clone();
        let (class, tenant) = (Class::default(), Tenant::default());
        self.start(vec![Sequence::new(tokens.to_vec(), class, tenant, cancelled, Work::Score(score))])?;
        receiver.recv().unwrap_or(Err(EngineError::Unloaded))
    }

    pub(crate) fn prompt_tokens(&self, request: &GenerateRequest) -> Result<Vec<u32>, EngineError> {
        match self.prompt(request)?.ids {
            ids if ids.is_empty() => Err(parameter("prompt", "no tokens, at least 1".to_owned())),
            ids => Ok(ids),
        }
    }

    /// The bytes of a token; none for control tokens.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        self.tokenizer.token_bytes(id)
    }

    /// The prompt that asks for what stands between two texts; `None` if the model was not taught that.
    ///
    /// # Errors
    /// [`EngineError::Tokenizer`].
    pub fn fill_in_the_middle(&self, before: &str, after: &str) -> Result<Option<Vec<u32>>, EngineError> {
        const MARKS: [[&str; 3]; 3] = [
            ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
            ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"],
            ["<PRE>", "<SUF>", "<MID>"],
        ];
        for marks in MARKS {
            let ids = marks.map(|mark| self.tokenizer.encode(mark, Special::Parse));
            let [Ok(prefix), Ok(suffix), Ok(middle)] = ids else { continue };
            if [&prefix, &suffix, &middle].iter().all(|ids| ids.len() == 1) {
                let beginning = self.tokenizer.encode_prompt("", Special::Plain)?;
                let bos = beginning.first().copied().filter(|id| self.tokenizer.bos() == Some(*id));
                let (before, after) = (self.tokenize_plain(before)?, self.tokenize_plain(after)?);
                let all = [bos.into_iter().collect(), prefix, before, suffix, after, middle];
                return Ok(Some(all.concat()));
            }
        }
        Ok(None)
    }

    /// Tokens of a conversation, as [`Engine::generate`] gives them to the model.
    ///
    /// # Errors
    /// [`EngineError::Template`], [`EngineError::Tokenizer`].
    pub fn chat_tokens(&self, request: &GenerateRequest) -> Result<Vec<u32>, EngineError> {
        Ok(self.prompt(request)?.ids)
    }

    fn prompt(&self, request: &GenerateRequest) -> Result<ChatPrompt, EngineError> {
        let plain = |ids| ChatPrompt { ids, in_thoughts: false };
        match &request.prompt {
            Prompt::Chat(messages) => {
                let tools = request.tools.as_ref().filter(|tools| tools.offered());
                let mut variables = request.template_variables.clone();
                // A grammar leaves no room for thoughts unless they were asked for.
                let silent =
                    request.constraint.is_some() || tools.is_some_and(|t| t.choice != ToolChoice::Auto);
                if self.chat.thinks && silent && variables.iter().all(|(name, _)| name != "enable_thinking") {
                    variables.push(("enable_thinking".to_owned(), false));
                }
                self.chat.prompt(&self.tokenizer, messages, tools, &variables)
            }
            Prompt::Text(text) => Ok(plain(self.tokenize(text)?)),
            Prompt::Tokens(ids) => Ok(plain(ids.clone())),
        }
    }

    /// The prompt's tokens, what takes the answer apart, and what holds it to a grammar.
    fn prepare(
        &self,
        request: &GenerateRequest,
    ) -> Result<(Vec<u32>, OutputParser, Option<Guide>), EngineError> {
        let ChatPrompt { mut ids, in_thoughts } = self.prompt(request)?;
        if ids.is_empty() {
            return Err(parameter("prompt", "no tokens, at least 1".to_owned()));
        }
        let chat = matches!(request.prompt, Prompt::Chat(_));
        let tools = request.tools.as_ref().filter(|tools| chat && tools.offered());
        let format = self.chat.tools;
        let mut parser = OutputParser::new(tools.map(|_| format), chat && self.chat.thinks);
        if in_thoughts {
            parser = parser.in_thoughts();
        }
        let guide = match (tools, &request.constraint) {
            (None, None) => None,
            (Some(tools), constraint) => {
                let token = self.chat.tool_token.filter(|_| format == ToolFormat::Mistral);
                if let (Some(token), ToolChoice::Required | ToolChoice::Named(_)) = (token, &tools.choice) {
                    ids.push(token);
                    parser = parser.in_call();
                }
                Some(tools::guide(self.grammars()?, format, token, tools, constraint.as_ref())?)
            }
            (None, Some(constraint)) => {
                let matcher = self.grammars()?.matcher(constraint)?;
                Some(if in_thoughts {
                    Guide::after_thoughts(self.grammars()?, matcher)
                } else {
                    Guide::Whole(Box::new(matcher))
                })
            }
        };
        Ok((ids, parser, guide))
    }

    /// Made when the first grammar is asked for: large vocabularies take a moment.
    fn grammars(&self) -> Result<&Arc<Grammars>, EngineError> {
        if let Some(grammars) = self.grammars.get() {
            return Ok(grammars);
        }
        let grammars = Grammars::new(&self.tokenizer, self.fit.model.vocab_size, &self.end_tokens)?;
        Ok(self.grammars.get_or_init(|| Arc::new(grammars)))
    }

    fn start(&self, sequences: Vec<Sequence>) -> Result<(), EngineError> {
        let commands = self.commands.as_ref().ok_or(EngineError::Unloaded)?;
        commands.send(sequences).map_err(|_| EngineError::Unloaded)
    }
}

impl Drop for LoadedModel {
    fn drop(&mut self) {
        // The worker ends once it has no more requests; streams that outlive the model are still answered.
        self.commands = None;
        if self.shared.figures().pages.in_use == 0
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// An answer that has been queued.
#[derive(Debug)]
pub struct Started {
    /// Stops it.
    pub canceller: Canceller,
    /// Takes its text apart into thoughts, text and calls.
    pub parser: OutputParser,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
}

/// Stops an answer from another thread, such as a signal handler's.
#[derive(Clone, Debug, Default)]
pub struct Canceller {
    cancelled: Arc<AtomicBool>,
}

impl Canceller {
    /// Stops the answer before its next step; the stream still ends with [`Event::Done`].
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Raised once it is stopped.
    pub fn flag(&self) -> &Arc<AtomicBool> {
        &self.cancelled
    }
}

/// The events of one answer, in order; ends after [`Event::Done`].
#[derive(Debug)]
pub struct GenerateStream {
    events: Receiver<Result<Event, EngineError>>,
    canceller: Canceller,
    ended: bool,
}

impl GenerateStream {
    /// A handle that stops the answer while another thread reads the stream.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }
}

impl Iterator for GenerateStream {
    type Item = Result<Event, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let event = self.events.recv().unwrap_or(Err(EngineError::Unloaded));
        self.ended = matches!(event, Err(_) | Ok(Event::Done { .. }));
        Some(event)
    }
}

impl Drop for GenerateStream {
    fn drop(&mut self) {
        self.canceller.cancel();
    }
}
