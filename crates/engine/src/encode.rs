//! Text encoders: texts to vectors or logits, packed without padding, batched with whatever else waits.

mod answer;
mod classify;
mod embed;
mod extract;
mod head;
mod kind;
mod pass;
mod rank;
mod read;

pub use answer::AnswerOptions;
pub use classify::{Classified, ZeroShot};
pub use embed::{EmbedOptions, Embedding, Purpose};
pub use extract::ExtractOptions;
pub use head::HeadFile;
pub use kind::is_encoder;
pub use rank::{INSTRUCTION, RankOptions, Score};
pub use read::{Fitting, Truncated};

use crate::engine::Loading;
use crate::load::{Counted, total};
use crate::vocabulary::TextDescription;
use crate::{Engine, EngineError, Fit, ModelKind, PassModel, budget};
use kun_graph::{Backend, CompileOptions, KvOptions, MemoryReport, Program};
use kun_models::encoder::{self, EncoderInfo, EncoderOptions, Judge};
use kun_tensor::DType;
use kun_tensor::storage::Access;
use kun_text::{Encoding, Tokenizer, TokenizerError};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::ScopedJoinHandle;

/// How an encoder is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Compute threads; `None`: one per physical core that this process may use.
    pub threads: Option<usize>,
    /// Type of the matrices; `None`: f32.
    pub precision: Option<DType>,
    /// Memory budget in bytes; `None`: what the machine (or its cgroup) has free.
    pub max_memory_bytes: Option<u64>,
    /// Read files instead of mapping them.
    pub no_mmap: bool,
    /// Tokens of one batch; `None`: [`DEFAULT_BATCH_TOKENS`]. A longer text is a batch of its own.
    pub batch_tokens: Option<usize>,
    /// Leave out a classifier and give the mean of its tokens as embedding.
    pub without_head: bool,
    /// Let a decoder without a head of its own rank, by how likely it says yes and no.
    pub ranks: bool,
}

/// Tokens of one batch unless asked otherwise: enough to keep kernels busy, few enough to stay in caches.
pub const DEFAULT_BATCH_TOKENS: usize = 1024;
/// Texts of one batch at most.
const MAX_BATCH_TEXTS: usize = 1024;

/// A loaded encoder. One instance serves any number of threads.
#[derive(Debug)]
pub struct LoadedEncoder {
    tokenizer: Arc<Tokenizer>,
    info: EncoderInfo,
    memory: MemoryReport,
    threads: usize,
    model: PassModel,
}

/// What came out for one text: `[rows, width]`, one row per text or one per token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Encoded {
    /// Row-major.
    pub data: Vec<f32>,
    /// Elements of a row.
    pub width: usize,
}

impl Encoded {
    /// The rows.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.data.chunks_exact(self.width.max(1))
    }
}

impl Engine {
    /// Loads the encoder in the folder at `path`.
    ///
    /// # Errors
    /// [`EngineError`]; [`EngineError::DoesNotFit`] before anything large is allocated.
    pub fn load_encoder(
        &self,
        path: &Path,
        options: &EncodeOptions,
        progress: impl Fn(Loading) + Send + Sync,
    ) -> Result<Arc<LoadedEncoder>, EngineError> {
        let (threads, device) = self.device(options.threads)?;
        let access = if options.no_mmap { Access::Read } else { Access::Mapped };
        let mut files = kun_formats::open(path, access)?;
        rank::check_template(&files)?;
        let text = TextDescription::take(&mut files)?;
        let files = Arc::new(files);
        let (tokenizer, model, program) = std::thread::scope(|scope| {
            let judged = options.ranks && !encoder::is_encoder(&files);
            let tokenizer = std::thread::Builder::new()
                .name("kun-tokenizer".to_owned())
                .spawn_scoped(scope, || text.tokenizer.build())
                .map_err(EngineError::Thread)?;
            let join = |worker: ScopedJoinHandle<'_, Result<Tokenizer, TokenizerError>>| {
                let what = "building it failed".to_owned();
                worker.join().unwrap_or(Err(TokenizerError::Invalid { what }))
            };
            // The words that a decoder ranks by are tokens of its own.
            let (tokenizer, judge) = match judged {
                true => {
                    let tokenizer = join(tokenizer)?;
                    let judge = rank::yes_and_no(&tokenizer)?;
                    (Either::Built(Box::new(tokenizer)), Some(judge))
                }
                false => (Either::Building(tokenizer), None),
            };
            let EncodeOptions { precision, without_head, .. } = *options;
            let model = encoder::load(files, &EncoderOptions { precision, without_head, judge })?;
            let compile = compile_options(options, &model.info, threads);
            check_fit(&device.estimate(&model.graph, &compile)?, options.max_memory_bytes)?;
            let weights = Counted {
                weights: model.weights.as_ref(),
                done: AtomicU64::new(0),
                total: model.info.model.weights_bytes,
                progress,
            };
            let program = device.compile(&model.graph, &weights, &compile);
            let tokenizer = match tokenizer {
                Either::Built(tokenizer) => *tokenizer,
                Either::Building(worker) => join(worker)?,
            };
            Ok::<_, EngineError>((tokenizer, model, program?))
        })?;
        let (batch, texts) = batches(options);
        check_vocabulary(&tokenizer, &model.info)?;
        let memory = program.memory();
        let pass = pass::EncoderPass::new(program, &model.graph, &model.info, batch, texts);
        Ok(Arc::new(LoadedEncoder {
            tokenizer: Arc::new(tokenizer),
            info: model.info,
            memory,
            threads,
            model: PassModel::start(pass)?,
        }))
    }
}

impl Engine {
    /// What the encoder at `path` would take.
    pub(crate) fn fit_encoder(&self, path: &Path, options: &EncodeOptions) -> Result<Fit, EngineError> {
        let (threads, device) = self.device(options.threads)?;
        let access = if options.no_mmap { Access::Read } else { Access::Mapped };
        let files = Arc::new(kun_formats::open(path, access)?);
        // Which tokens a decoder ranks by makes no difference to its size.
        let judge = Some(Judge { yes: 0, no: Some(0) }).filter(|_| options.ranks);
        let EncodeOptions { precision, without_head, .. } = *options;
        let model = encoder::load(files, &EncoderOptions { precision, without_head, judge })?;
        let memory = device.estimate(&model.graph, &compile_options(options, &model.info, threads))?;
        let (kind, most_tokens) = (ModelKind::of_head(&model.info.head), model.info.max_tokens);
        Ok(Fit::fixed(model.info.model, kind, memory, most_tokens, options.max_memory_bytes))
    }
}

/// Tokens and texts of a batch.
fn batches(options: &EncodeOptions) -> (usize, usize) {
    let batch = options.batch_tokens.unwrap_or(DEFAULT_BATCH_TOKENS).max(1);
    (batch, batch.min(MAX_BATCH_TEXTS))
}

fn compile_options(options: &EncodeOptions, info: &EncoderInfo, threads: usize) -> CompileOptions {
    let (batch, texts) = batches(options);
    CompileOptions {
        max_tokens: batch.max(info.max_tokens),
        max_rows: texts,
        max_sequences: texts,
        threads,
        kv: KvOptions::default(),
    }
}

/// A tokenizer that is there, or will be.
enum Either<'a> {
    Built(Box<Tokenizer>),
    Building(ScopedJoinHandle<'a, Result<Tokenizer, TokenizerError>>),
}

/// Every token must have its row; more rows than tokens are padding.
fn check_vocabulary(tokenizer: &Tokenizer, info: &EncoderInfo) -> Result<(), EngineError> {
    let (tokens, rows) = (tokenizer.vocab_size(), info.model.vocab_size);
    if tokens > rows {
        return Err(EngineError::Mismatch { what: format!("{tokens} tokens, {rows} rows of embeddings") });
    }
    if tokenizer.added_tokens(true) + 2 > info.max_tokens {
        let what = format!("texts of {} tokens hold no pair", info.max_tokens);
        return Err(EngineError::Mismatch { what });
    }
    Ok(())
}

/// Refuses what would not fit.
pub(crate) fn check_fit(memory: &MemoryReport, budget_bytes: Option<u64>) -> Result<(), EngineError> {
    let available_bytes = budget_bytes.or_else(budget::available_bytes).unwrap_or(u64::MAX);
    let needed_bytes = total(memory);
    if needed_bytes <= available_bytes {
        return Ok(());
    }
    Err(EngineError::DoesNotFit {
        needed_bytes,
        weights_bytes: memory.weights_bytes as u64,
        kv_bytes: memory.kv_bytes as u64,
        workspace_bytes: memory.workspace_bytes as u64,
        available_bytes,
    })
}

impl LoadedEncoder {
    /// The description.
    pub fn info(&self) -> &EncoderInfo {
        &self.info
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// What it takes.
    pub fn memory(&self) -> MemoryReport {
        self.memory
    }

    /// Compute threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The model behind it, for tasks: items are `ids` i32 `[n]` and, if the model tells texts of a pair apart, `types` i32
    /// `[n]`; the output is `embedding` `[D]` or `logits`, `[L]` or `[n, L]`.
    pub fn model(&self) -> &PassModel {
        &self.model
    }

    /// One pass over each text, batched with whatever else waits; results in their order. Of equal texts one is read, since
    /// the others' results would be the same to the bit.
    ///
    /// # Errors
    /// Per text: [`EngineError::Task`] if it is longer than the model takes.
    pub fn encode(&self, texts: &[Encoding]) -> Vec<Result<Encoded, EngineError>> {
        let mut results: Vec<Result<Encoded, EngineError>> =
            texts.iter().map(|_| Err(EngineError::Unloaded)).collect();
        // Texts of like length together: their attention makes tasks of like size. Equal ones are neighbours.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        let key = |index: usize| (texts[index].ids.len(), &texts[index].ids, &texts[index].types);
        order.sort_by(|&a, &b| key(a).cmp(&key(b)));
        let groups: Vec<&[usize]> = order.chunk_by(|&a, &b| key(a) == key(b)).collect();
        let infer = |indices: Vec<usize>| {
            self.model.infer(indices.into_iter().map(|index| pass::tensors(&texts[index])).collect())
        };
        let mut alone = Vec::new();
        for (group, outputs) in groups.iter().zip(infer(groups.iter().map(|group| group[0]).collect())) {
            match outputs.map(pass::encoded) {
                Ok(encoded) => group.iter().for_each(|&index| results[index] = Ok(encoded.clone())),
                // Errors are no copies: each text gets its own.
                Err(error) => {
                    results[group[0]] = Err(error);
                    alone.extend_from_slice(&group[1..]);
                }
            }
        }
        for (&index, outputs) in alone.iter().zip(infer(alone.clone())) {
            results[index] = outputs.map(pass::encoded);
        }
        results
    }
}
