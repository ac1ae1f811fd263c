//! Folders and files to running encoder-decoders.

use super::Seq2SeqModel;
use super::worker::{Limits, Worker};
use crate::request::parameter;
use crate::vocabulary::{TextDescription, TokenizerSource};
use crate::{Engine, EngineError, Fit, LoadOptions, ModelKind};
use kun_formats::ModelFiles;
use kun_graph::{Backend, CompileOptions, KvOptions, KvType, MemoryReport, PAGE_TOKENS};
use kun_models::seq2seq::{Seq2Seq, Seq2SeqOptions, load};
use kun_tensor::storage::Access;
use kun_text::Seq2SeqTokenizer;
use kun_text::seq2seq::Files;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;

/// Rows of a step unless asked otherwise: four answers of four beams.
const DEFAULT_ROWS: usize = 16;
/// Tokens that the encoder reads at once unless a source may be longer.
const DEFAULT_SOURCE_TOKENS: usize = 512;
/// Longest answer unless the folder wants longer ones.
const DEFAULT_TARGET_TOKENS: usize = 512;

/// An encoder-decoder described and measured, with nothing large allocated.
struct Plan {
    files: Arc<ModelFiles>,
    /// Taken out of a GGUF file.
    text: Option<TokenizerSource>,
    model: Seq2Seq,
    reading: CompileOptions,
    writing: CompileOptions,
    memory: MemoryReport,
    most_tokens: usize,
}

impl Plan {
    fn new<B: Backend>(
        path: &Path,
        options: &LoadOptions,
        threads: usize,
        device: &B,
    ) -> Result<Plan, EngineError> {
        let access = if options.no_mmap { Access::Read } else { Access::Mapped };
        let mut files = kun_formats::open(path, access)?;
        let text = match files {
            ModelFiles::Gguf(_) => Some(TextDescription::take(&mut files)?.tokenizer),
            ModelFiles::HuggingFace { .. } => None,
        };
        let files = Arc::new(files);
        let model = load(
            files.clone(),
            &Seq2SeqOptions { quantize: options.quantize, max_source_tokens: options.context_tokens },
        )?;
        let info = &model.info;
        let rows = options.max_sequences.unwrap_or(DEFAULT_ROWS).max(info.generation.num_beams);
        if !(1..=1 << 10).contains(&rows) {
            return Err(parameter("max_sequences", format!("{rows}, from 1 to 1024")));
        }
        let wanted = info.generation.max_length.unwrap_or(0).max(DEFAULT_TARGET_TOKENS);
        let most_tokens = wanted.min(info.max_target_tokens);
        let source_tokens = info.max_source_tokens.max(DEFAULT_SOURCE_TOKENS);
        let reading = CompileOptions {
            max_tokens: source_tokens,
            max_rows: 1,
            max_sequences: source_tokens.min(256),
            threads,
            kv: KvOptions::default(),
        };
        // An answer reserves pages for all its beams at their longest.
        let pages = rows * most_tokens.div_ceil(PAGE_TOKENS);
        let writing = CompileOptions {
            max_tokens: rows,
            max_rows: rows,
            max_sequences: rows,
            threads,
            kv: KvOptions { dtype: KvType::F32, pages },
        };
        let (a, b) = (device.estimate(&model.encoder, &reading)?, device.estimate(&model.decoder, &writing)?);
        let memory = MemoryReport {
            weights_bytes: a.weights_bytes + b.weights_bytes,
            kv_bytes: a.kv_bytes + b.kv_bytes,
            workspace_bytes: a.workspace_bytes + b.workspace_bytes,
        };
        Ok(Plan { files, text, model, reading, writing, memory, most_tokens })
    }
}

impl Engine {
    /// What the encoder-decoder at `path` would take; the cache holds as many answers as run at once.
    pub(crate) fn fit_seq2seq(&self, path: &Path, options: &LoadOptions) -> Result<Fit, EngineError> {
        let (threads, device) = self.device(options.threads)?;
        let plan = Plan::new(path, options, threads, &device)?;
        let most_tokens = plan.model.info.max_source_tokens;
        let info = plan.model.info.model;
        Ok(Fit::fixed(info, ModelKind::Rewrites, plan.memory, most_tokens, options.max_memory_bytes))
    }

    /// Loads the encoder-decoder in the folder or GGUF file at `path`. Of the options, `max_sequences` counts rows of a step (an answer
    /// takes one for each beam), `context_tokens` is the longest source, and the cache is f32 always.
    ///
    /// # Errors
    /// [`EngineError`]; [`EngineError::DoesNotFit`] before anything large is allocated.
    pub fn load_seq2seq(&self, path: &Path, options: &LoadOptions) -> Result<Seq2SeqModel, EngineError> {
        let (threads, device) = self.device(options.threads)?;
        let Plan { files, text, model, reading, writing, memory, most_tokens } =
            Plan::new(path, options, threads, &device)?;
        let info = Arc::new(model.info.clone());
        let tokenizer = match text {
            Some(TokenizerSource::Vocabulary(vocabulary)) => Seq2SeqTokenizer::from_vocabulary(*vocabulary)?,
            _ => tokenizer(&files)?,
        };
        if tokenizer.vocab_size() > info.model.vocab_size {
            let what =
                format!("{} tokens, {} rows of embeddings", tokenizer.vocab_size(), info.model.vocab_size);
            return Err(EngineError::Mismatch { what });
        }
        crate::encode::check_fit(&memory, options.max_memory_bytes)?;
        let encoder = device.compile(&model.encoder, model.weights.as_ref(), &reading)?;
        let decoder = device.compile(&model.decoder, model.weights.as_ref(), &writing)?;
        let (jobs, commands) = channel();
        let (rows, pages) = (writing.max_rows, writing.kv.pages);
        let limits = Limits { source_tokens: reading.max_tokens, rows };
        let worker = Worker::new(Box::new(encoder), Box::new(decoder), commands, info.clone(), limits, pages);
        let thread = std::thread::Builder::new()
            .name("kun-seq2seq".to_owned())
            .spawn(move || worker.run())
            .map_err(EngineError::Thread)?;
        Ok(Seq2SeqModel {
            prefixes: prefixes(&files),
            info,
            tokenizer,
            memory,
            threads,
            rows,
            most_tokens,
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }
}

fn tokenizer(files: &ModelFiles) -> Result<Seq2SeqTokenizer, EngineError> {
    let ModelFiles::HuggingFace { config, .. } = files else {
        return Err(EngineError::Mismatch { what: "no folder".to_owned() });
    };
    let file = |names: &[&str]| {
        let found = names.iter().find_map(|name| config.vocabularies.get(*name));
        found.map(Vec::as_slice).unwrap_or_default()
    };
    Ok(Seq2SeqTokenizer::new(&Files {
        model_type: config.str("model_type")?,
        tokenizer_json: &config.tokenizer_json,
        tokenizer_config: (!config.tokenizer_config.is_null()).then_some(&config.tokenizer_config),
        vocab_json: file(&["vocab.json"]),
        source_spm: file(&["source.spm", "sentencepiece.bpe.model", "spiece.model"]),
        target_spm: file(&["target.spm"]),
    })?)
}

/// `task_specific_params` of `config.json`.
fn prefixes(files: &ModelFiles) -> Vec<(String, String)> {
    let ModelFiles::HuggingFace { config, .. } = files else { return Vec::new() };
    let tasks = config.config.get("task_specific_params").and_then(|tasks| tasks.as_object());
    let mut prefixes = Vec::new();
    for (task, settings) in tasks.into_iter().flatten() {
        if let Some(prefix) = settings.get("prefix").and_then(|prefix| prefix.as_str()) {
            prefixes.push((task.clone(), prefix.to_owned()));
        }
    }
    prefixes
}
