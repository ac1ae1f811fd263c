//! Folders to running encoder-decoders.

use super::Seq2SeqModel;
use super::worker::{Limits, Worker};
use crate::load::total;
use crate::request::parameter;
use crate::{Engine, EngineError, LoadOptions, budget};
use kun_formats::ModelFiles;
use kun_graph::{Backend, CompileOptions, KvOptions, KvType, MemoryReport, PAGE_TOKENS};
use kun_models::seq2seq::{Seq2SeqOptions, load};
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

impl Engine {
    /// Loads the encoder-decoder in the folder at `path`. Of the options, `max_sequences` counts rows of a step (an answer
    /// takes one for each beam), `context_tokens` is the longest source, and the cache is f32 always.
    ///
    /// # Errors
    /// [`EngineError`]; [`EngineError::DoesNotFit`] before anything large is allocated.
    pub fn load_seq2seq(&self, path: &Path, options: &LoadOptions) -> Result<Seq2SeqModel, EngineError> {
        let (threads, device) = self.device(options.threads)?;
        let access = if options.no_mmap { Access::Read } else { Access::Mapped };
        let files = Arc::new(kun_formats::open(path, access)?);
        let model = load(
            files.clone(),
            &Seq2SeqOptions { quantize: options.quantize, max_source_tokens: options.context_tokens },
        )?;
        let info = Arc::new(model.info.clone());
        let tokenizer = tokenizer(&files)?;
        if tokenizer.vocab_size() > info.model.vocab_size {
            let what =
                format!("{} tokens, {} rows of embeddings", tokenizer.vocab_size(), info.model.vocab_size);
            return Err(EngineError::Mismatch { what });
        }
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
        let available_bytes = options.max_memory_bytes.or_else(budget::available_bytes).unwrap_or(u64::MAX);
        if total(&memory) > available_bytes {
            return Err(EngineError::DoesNotFit {
                needed_bytes: total(&memory),
                weights_bytes: memory.weights_bytes as u64,
                kv_bytes: memory.kv_bytes as u64,
                workspace_bytes: memory.workspace_bytes as u64,
                available_bytes,
            });
        }
        let encoder = device.compile(&model.encoder, model.weights.as_ref(), &reading)?;
        let decoder = device.compile(&model.decoder, model.weights.as_ref(), &writing)?;
        let (jobs, commands) = channel();
        let limits = Limits { source_tokens, rows };
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
