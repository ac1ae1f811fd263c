//! Files to a running model: what it takes, whether that fits, and the worker that owns it.

use crate::batcher::Limits;
use crate::engine::{LoadOptions, Loading};
use crate::fit::{Fit, ModelKind};
use crate::kv_cache::PagePool;
use crate::request::parameter;
use crate::vocabulary::TextDescription;
use crate::{EngineError, budget};
use kun_formats::ModelFiles;
use kun_graph::{Backend, CompileOptions, KvOptions, MemoryReport, PAGE_TOKENS, WeightError, WeightSource};
use kun_models::Model;
use kun_tensor::DType;
use kun_tensor::storage::Access;
use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Context unless asked otherwise, where the model's own is longer.
pub const DEFAULT_CONTEXT_TOKENS: usize = 8192;
/// Tokens of one prefill step unless asked otherwise.
pub const DEFAULT_PREFILL_TOKENS: usize = 512;
/// Output rows of one step unless asked otherwise.
pub const DEFAULT_OUTPUT_ROWS: usize = 16;
/// Most threads, sequences or tokens of a step that can be asked for: far beyond any use, and products stay small.
const MOST: usize = 1 << 20;

/// The files of a model, and what they say about text.
pub(crate) fn open(
    path: &Path,
    options: &LoadOptions,
) -> Result<(Arc<ModelFiles>, TextDescription), EngineError> {
    let access = if options.no_mmap { Access::Read } else { Access::Mapped };
    let mut files = kun_formats::open(path, access)?;
    let text = TextDescription::take(&mut files)?;
    Ok((Arc::new(files), text))
}

/// A model described and measured, with nothing large allocated.
pub(crate) struct Plan {
    pub(crate) model: Model,
    pub(crate) compile: CompileOptions,
    pub(crate) fit: Fit,
}

impl Plan {
    /// Works out what the model in `files` takes.
    ///
    /// # Errors
    /// [`EngineError`]; never [`EngineError::DoesNotFit`]: see [`Plan::check_fit`].
    pub(crate) fn new<B: Backend>(
        files: Arc<ModelFiles>,
        options: &LoadOptions,
        threads: usize,
        backend: &B,
    ) -> Result<Plan, EngineError> {
        let model = kun_models::load(files, &kun_models::LoadOptions { quantize: options.quantize })?;
        let sequences = at_least_one("max_sequences", options.max_sequences.unwrap_or(1))?;
        let prefill =
            at_least_one("prefill_tokens", options.prefill_tokens.unwrap_or(DEFAULT_PREFILL_TOKENS))?;
        let rows = at_least_one("output_rows", options.output_rows.unwrap_or(DEFAULT_OUTPUT_ROWS))?;
        let own = model.info.context_tokens.max(1);
        if let Some(asked) = options.context_tokens {
            at_least_one("context_tokens", asked)?;
            if asked > own {
                return Err(parameter("context_tokens", format!("{asked}, the model holds {own}")));
            }
        }
        let compile = |context: usize| CompileOptions {
            // A prompt is never longer than the context, so a short one needs no room for long chunks.
            max_tokens: prefill.min(context).max(sequences),
            max_rows: rows.max(sequences),
            max_sequences: sequences,
            threads,
            kv: KvOptions {
                dtype: options.kv_type,
                pages: match options.cache_tokens {
                    Some(tokens) => PagePool::pages_for(tokens.max(context)).min(MOST),
                    None => sequences.saturating_mul(PagePool::pages_for(context)),
                },
            },
        };
        let memory_of = |context| backend.estimate(&model.graph, &compile(context));
        let available = options.max_memory_bytes.or_else(budget::available_bytes).unwrap_or(u64::MAX);
        // Working out a plan takes milliseconds on the way to the first token: nothing is worked out twice.
        let at_most = memory_of(own)?;
        let page_bytes = at_most.kv_bytes / compile(own).kv.pages.max(1);
        let longest = longest_context(own, available, &at_most, &memory_of)?;
        let context = match (options.context_tokens, longest) {
            (Some(asked), _) => asked,
            (None, Some(longest)) => longest.min(DEFAULT_CONTEXT_TOKENS),
            (None, None) => own.min(PAGE_TOKENS),
        };
        let fit = Fit {
            model: model.info.clone(),
            kind: ModelKind::Generates,
            memory: if context == own { at_most } else { memory_of(context)? },
            context_tokens: context,
            kv_bytes_per_token: (page_bytes / PAGE_TOKENS) as u64,
            available_bytes: available,
            max_context_tokens: longest,
        };
        Ok(Plan { compile: compile(context), model, fit })
    }

    /// Refuses a model that would not fit.
    ///
    /// # Errors
    /// [`EngineError::DoesNotFit`] with the figures of [`Plan::fit`].
    pub(crate) fn check_fit(&self) -> Result<(), EngineError> {
        let MemoryReport { weights_bytes, kv_bytes, workspace_bytes } = self.fit.memory;
        let needed_bytes = total(&self.fit.memory);
        if needed_bytes <= self.fit.available_bytes {
            return Ok(());
        }
        Err(EngineError::DoesNotFit {
            needed_bytes,
            weights_bytes: weights_bytes as u64,
            kv_bytes: kv_bytes as u64,
            workspace_bytes: workspace_bytes as u64,
            available_bytes: self.fit.available_bytes,
        })
    }

    /// What the batcher must keep to.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            tokens: self.compile.max_tokens,
            rows: self.compile.max_rows,
            sequences: self.compile.max_sequences,
        }
    }
}

/// Sum of the kinds.
pub(crate) fn total(memory: &MemoryReport) -> u64 {
    [memory.weights_bytes, memory.kv_bytes, memory.workspace_bytes]
        .into_iter()
        .fold(0, |sum, bytes| sum.saturating_add(bytes as u64))
}

/// The longest context, in whole pages or the model's `own`, for which `memory_of` stays within `available`; `at_most`
/// is that of `own`.
fn longest_context<E>(
    own: usize,
    available: u64,
    at_most: &MemoryReport,
    memory_of: &impl Fn(usize) -> Result<MemoryReport, E>,
) -> Result<Option<usize>, E> {
    if total(at_most) <= available {
        return Ok(Some(own));
    }
    // Memory only grows with the context: `fits` pages do, `too_many` do not.
    let (mut fits, mut too_many) = (0, own.div_ceil(PAGE_TOKENS));
    while fits + 1 < too_many {
        let middle = fits + (too_many - fits) / 2;
        if total(&memory_of(middle * PAGE_TOKENS)?) <= available {
            fits = middle;
        } else {
            too_many = middle;
        }
    }
    Ok((fits > 0).then_some(fits * PAGE_TOKENS))
}

fn at_least_one(name: &'static str, value: usize) -> Result<usize, EngineError> {
    if (1..=MOST).contains(&value) {
        return Ok(value);
    }
    Err(parameter(name, format!("{value}, from 1 to {MOST}")))
}

/// Counts the bytes that are packed, for progress.
pub(crate) struct Counted<'a, F> {
    pub(crate) weights: &'a dyn WeightSource,
    pub(crate) done: AtomicU64,
    pub(crate) total: u64,
    pub(crate) progress: F,
}

impl<F: Fn(Loading) + Send + Sync> WeightSource for Counted<'_, F> {
    fn info(&self, name: &str) -> Option<(DType, Vec<usize>)> {
        self.weights.info(name)
    }
    fn rows(&self, name: &str, rows: Range<usize>) -> Result<Cow<'_, [u8]>, WeightError> {
        let bytes = self.weights.rows(name, rows)?;
        let before = self.done.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let done_bytes = (before + bytes.len() as u64).min(self.total);
        (self.progress)(Loading { done_bytes, total_bytes: self.total });
        Ok(bytes)
    }
    fn release(&self, name: &str) {
        self.weights.release(name);
    }
}

#[cfg(test)]
mod tests {
    use super::longest_context;
    use kun_graph::MemoryReport;

    #[test]
    fn finds_the_longest_context_that_fits() {
        let memory = |context: usize| -> Result<MemoryReport, ()> {
            Ok(MemoryReport {
                weights_bytes: 1000,
                kv_bytes: context.div_ceil(64) * 10,
                workspace_bytes: context.min(512),
            })
        };
        let longest =
            |own, available| longest_context(own, available, &memory(own).unwrap(), &memory).unwrap();
        assert_eq!(longest(4096, u64::MAX), Some(4096));
        assert_eq!(longest(4096, 1000 + 640 + 512), Some(4096));
        assert_eq!(longest(4096, 1000 + 630 + 512), Some(63 * 64));
        assert_eq!(longest(4096, 1000 + 10 + 64), Some(64));
        assert_eq!(longest(4096, 1000 + 10 + 63), None);
        assert_eq!(longest(100, 1000 + 20 + 100), Some(100));
        assert_eq!(longest(100, 1000 + 20 + 99), Some(64));
        assert_eq!(longest(40, 1049), None);
        assert_eq!(longest(40, 1050), Some(40));
        for available in 1000..2400 {
            let best = (1..=64).map(|p| p * 64).filter(|c| {
                let m = memory(*c).unwrap();
                m.weights_bytes + m.kv_bytes + m.workspace_bytes <= available
            });
            assert_eq!(longest(4096, available as u64), best.max(), "{available}");
        }
    }
}
