//! A smaller model that guesses what a larger one will say.

use crate::engine::LoadOptions;
use crate::kv_cache::{PagePool, PageTable};
use crate::load::{self, Counted, Plan};
use crate::{EngineError, Loading};
use kun_graph::{Backend, CpuBackend, Inputs, MemoryReport, Outputs, Program, RunError, Sequence, TensorRef};
use kun_text::Tokenizer;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::AtomicU64;

/// One answer that wants guesses.
pub(crate) struct Ask<'a> {
    pub(crate) id: u64,
    /// All of its tokens.
    pub(crate) tokens: &'a [u32],
    /// Tokens to guess, at least 1.
    pub(crate) most: usize,
}

/// What the model has read of one answer.
#[derive(Default)]
struct Read {
    table: PageTable,
    /// Tokens whose keys and values are in the cache, guesses too.
    tokens: Vec<u32>,
}

/// The model, its cache, and what it has read.
pub(crate) struct DraftModel {
    program: Box<dyn Program>,
    pages: PagePool,
    max_tokens: usize,
    context_tokens: usize,
    read: BTreeMap<u64, Read>,
    outputs: Outputs,
}

/// Tokens of an answer that run next, and whether the token after them is wanted.
struct Part {
    id: u64,
    tokens: Vec<u32>,
    wanted: bool,
}

impl DraftModel {
    /// Loads the model at `path` to guess for one with `tokenizer`, which takes `taken_bytes` of the memory.
    ///
    /// # Errors
    /// [`EngineError::Unsuitable`] for another vocabulary; those of loading a model.
    pub(crate) fn open(
        path: &Path,
        options: &LoadOptions,
        (threads, device): (usize, &CpuBackend),
        tokenizer: &Tokenizer,
        (context_tokens, taken_bytes): (usize, u64),
    ) -> Result<(DraftModel, MemoryReport), EngineError> {
        let sequences = options.max_sequences.unwrap_or(1).clamp(1, super::MOST_SEQUENCES);
        let available = options.max_memory_bytes.or_else(crate::budget::available_bytes);
        let options = LoadOptions {
            context_tokens: None,
            max_sequences: Some(sequences),
            cache_tokens: Some(context_tokens.saturating_mul(sequences)),
            max_memory_bytes: available.map(|bytes| bytes.saturating_sub(taken_bytes)),
            quantize: None,
            output_rows: Some(sequences),
            ..options.clone()
        };
        let (files, text) = load::open(path, &options)?;
        let (own, _) = text.build()?;
        if !same_vocabulary(&own, tokenizer) {
            let what = "the draft model has another vocabulary than the model it is to guess for".to_owned();
            return Err(EngineError::Unsuitable { what });
        }
        let plan = Plan::new(files, &options, threads, device)?;
        plan.check_fit()?;
        let weights = Counted {
            weights: plan.model.weights.as_ref(),
            done: AtomicU64::new(0),
            total: plan.model.info.weights_bytes,
            progress: |_: Loading| {},
        };
        let program = device.compile(&plan.model.graph, &weights, &plan.compile)?;
        let memory = program.memory();
        let model = DraftModel {
            program: Box::new(program),
            pages: PagePool::new(plan.compile.kv.pages),
            max_tokens: plan.compile.max_tokens,
            context_tokens: plan.fit.context_tokens,
            read: BTreeMap::new(),
            outputs: Outputs::default(),
        };
        Ok((model, memory))
    }

    /// Forgets every answer but these.
    pub(crate) fn keep(&mut self, ids: &BTreeSet<u64>) {
        let gone: Vec<u64> = self.read.keys().filter(|id| !ids.contains(id)).copied().collect();
        for id in gone {
            if let Some(read) = self.read.remove(&id) {
                self.pages.release(read.table);
            }
        }
    }

    /// Guesses for every ask, the likeliest token each time; none where there is no room.
    ///
    /// # Errors
    /// [`RunError`].
    pub(crate) fn guess(&mut self, asks: &[Ask<'_>]) -> Result<Vec<Vec<u32>>, RunError> {
        let mut guesses = vec![Vec::new(); asks.len()];
        let mut parts = Vec::new();
        let mut askers = Vec::new();
        for (index, ask) in asks.iter().enumerate() {
            let end = ask.tokens.len() + ask.most - 1;
            if end > self.context_tokens {
                continue;
            }
            let read = self.read.entry(ask.id).or_default();
            let known = &ask.tokens[..ask.tokens.len() - 1];
            // What was guessed and not picked is read again.
            let same = read.tokens.iter().zip(known).take_while(|(a, b)| a == b).count();
            read.tokens.truncate(same);
            if self.pages.extend(&mut read.table, end).is_err() {
                continue;
            }
            let mut rest = ask.tokens[same..].to_vec();
            while rest.len() > self.max_tokens / asks.len() {
                let tokens = rest.drain(..(self.max_tokens / asks.len()).max(1)).collect();
                self.run(&[Part { id: ask.id, tokens, wanted: false }])?;
            }
            parts.push(Part { id: ask.id, tokens: rest, wanted: true });
            askers.push(index);
        }
        while !parts.is_empty() {
            let picked = self.run(&parts)?;
            let mut next = (Vec::new(), Vec::new());
            for ((part, index), token) in parts.into_iter().zip(askers).zip(picked) {
                guesses[index].push(token);
                if guesses[index].len() < asks[index].most {
                    next.0.push(Part { tokens: vec![token], ..part });
                    next.1.push(index);
                }
            }
            (parts, askers) = next;
        }
        Ok(guesses)
    }

    /// Runs parts in one step; gives the likeliest token after each that wants one.
    fn run(&mut self, parts: &[Part]) -> Result<Vec<u32>, RunError> {
        let (mut tokens, mut positions, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        let mut sequences = Vec::with_capacity(parts.len());
        for part in parts {
            let Some(read) = self.read.get(&part.id) else { continue };
            let start = read.tokens.len();
            tokens.extend(part.tokens.iter().map(|id| *id as i32));
            positions.extend((start..start + part.tokens.len()).map(|at| at as i32));
            if part.wanted {
                rows.push(tokens.len() as i32 - 1);
            }
            sequences.push(Sequence { start, tokens: part.tokens.len(), pages: read.table.pages() });
        }
        let (t, r) = ([tokens.len()], [rows.len()]);
        let inputs = Inputs {
            tensors: vec![
                ("tokens", TensorRef::I32(&tokens, &t)),
                ("positions", TensorRef::I32(&positions, &t)),
                ("rows", TensorRef::I32(&rows, &r)),
            ],
            sequences: &sequences,
        };
        self.program.run(&inputs, &mut self.outputs)?;
        for part in parts {
            if let Some(read) = self.read.get_mut(&part.id) {
                read.tokens.extend(&part.tokens);
            }
        }
        let logits =
            self.outputs.tensors.get("logits").map(|tensor| tensor.data.as_slice()).unwrap_or_default();
        let width = logits.len().checked_div(rows.len()).unwrap_or(0).max(1);
        Ok(logits.chunks_exact(width).take(rows.len()).map(likeliest).collect())
    }
}

fn likeliest(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, logit) in logits.iter().enumerate() {
        if *logit > best.1 {
            best = (id, *logit);
        }
    }
    best.0 as u32
}

/// Whether a token means the same to both.
fn same_vocabulary(a: &Tokenizer, b: &Tokenizer) -> bool {
    let tokens = a.vocab_size();
    tokens == b.vocab_size()
        && a.bos() == b.bos()
        && (0..tokens as u32).all(|id| a.token_bytes(id) == b.token_bytes(id))
}
