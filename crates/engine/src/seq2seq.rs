//! Encoder-decoders: a source in, an answer out, by greedy or beam search. Sources are read in one ragged batch, and each
//! step writes one token of every beam of every answer at work.

mod load;
mod pages;
mod rules;
mod search;
mod worker;

use crate::request::parameter;
use crate::sampler::Sampler;
use crate::{EngineError, SamplingOptions};
use kun_graph::MemoryReport;
use kun_models::ModelInfo;
use kun_models::seq2seq::Seq2SeqInfo;
pub use kun_models::seq2seq::{EarlyStopping, Generation};
use kun_text::Seq2SeqTokenizer;
pub use kun_text::seq2seq::{Beginning, Direction, ModelLanguage};
pub use kun_text::{Language, LanguageError};
use search::Search;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

/// What an answer is, and what it took.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Its tokens, with the decoder's first one.
    pub tokens: Vec<u32>,
    /// Log-probability over the length as the settings say; 0 without beams.
    pub score: f32,
    /// Steps of the decoder.
    pub steps: usize,
    /// Tokens of the source.
    pub source_tokens: usize,
}

/// A source on its way.
struct Job {
    index: usize,
    source: Vec<u32>,
    search: Search,
    cancelled: Arc<AtomicBool>,
    reply: Sender<(usize, Result<Answer, EngineError>)>,
}

impl Job {
    fn answer(self, result: Result<Answer, EngineError>) {
        // A caller that left wants no answer.
        let _ = self.reply.send((self.index, result));
    }
}

/// A loaded encoder-decoder: its worker thread owns both compiled programs.
#[derive(Debug)]
pub struct Seq2SeqModel {
    info: Arc<Seq2SeqInfo>,
    tokenizer: Seq2SeqTokenizer,
    memory: MemoryReport,
    threads: usize,
    rows: usize,
    most_tokens: usize,
    prefixes: Vec<(String, String)>,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// Whether the folder or GGUF file at `path` holds an encoder-decoder.
pub fn is_seq2seq(path: &Path) -> bool {
    kun_formats::architecture(path).is_some_and(|name| kun_models::seq2seq::knows(&name))
}

impl Seq2SeqModel {
    /// The description.
    pub fn info(&self) -> &ModelInfo {
        &self.info.model
    }

    /// What it takes.
    pub fn memory(&self) -> MemoryReport {
        self.memory
    }

    /// Compute threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Whether its worker has ended by a fault: it answers nothing any more.
    pub fn has_failed(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Longest source, special tokens included.
    pub fn max_source_tokens(&self) -> usize {
        self.info.max_source_tokens
    }

    /// The folder's own settings of the search.
    pub fn generation(&self) -> &Generation {
        &self.info.generation
    }

    /// What the folder wants put before a source, by task (`summarization`, `translation_en_to_de`, ..).
    pub fn prefixes(&self) -> &[(String, String)] {
        &self.prefixes
    }

    /// Languages that the model has tokens for.
    pub fn languages(&self) -> &[ModelLanguage] {
        self.tokenizer.languages()
    }

    /// Whether the model translates in one direction, which it is not told.
    pub fn translates_one_way(&self) -> bool {
        self.tokenizer.languages().is_empty() && self.info.model.architecture == "marian"
    }

    /// What stands around a source, and what an answer begins with.
    ///
    /// # Errors
    /// [`LanguageError`].
    pub fn direction(&self, from: Option<&str>, to: Option<&str>) -> Result<Direction, LanguageError> {
        self.tokenizer.direction(from, to)
    }

    /// Ids of a source; of any length.
    ///
    /// # Errors
    /// [`EngineError::Tokenizer`].
    pub fn encode(&self, text: &str, direction: &Direction) -> Result<Vec<u32>, EngineError> {
        Ok(self.tokenizer.encode(text, direction)?)
    }

    /// The text of an answer.
    pub fn decode(&self, answer: &Answer) -> String {
        self.tokenizer.decode(&answer.tokens)
    }

    /// Answers sources, batched with whatever else is at work; results in their order. One that fails does not fail the
    /// others. `cancelled` ends all of them before their next step.
    ///
    /// # Errors
    /// Per source: [`EngineError::ContextExceeded`] (a source is never cut), [`EngineError::Parameter`],
    /// [`EngineError::Cancelled`], and those of a step.
    pub fn generate(
        &self,
        sources: &[Vec<u32>],
        beginning: Beginning,
        generation: &Generation,
        sampling: Option<&SamplingOptions>,
        cancelled: &Arc<AtomicBool>,
    ) -> Vec<Result<Answer, EngineError>> {
        let mut results: Vec<Result<Answer, EngineError>> =
            sources.iter().map(|_| Err(EngineError::Unloaded)).collect();
        let (reply, replies) = channel();
        for (index, source) in sources.iter().enumerate() {
            let search = match self.search(source, beginning, generation, sampling) {
                Ok(search) => search,
                Err(error) => {
                    results[index] = Err(error);
                    continue;
                }
            };
            let (source, cancelled, reply) = (source.clone(), cancelled.clone(), reply.clone());
            let job = Job { index, source, search, cancelled, reply };
            if self.jobs.as_ref().is_none_or(|jobs| jobs.send(job).is_err()) {
                break;
            }
        }
        drop(reply);
        for (index, result) in replies {
            results[index] = result;
        }
        results
    }

    fn search(
        &self,
        source: &[u32],
        beginning: Beginning,
        generation: &Generation,
        sampling: Option<&SamplingOptions>,
    ) -> Result<Search, EngineError> {
        let (vocab, limit) = (self.info.model.vocab_size, self.info.max_source_tokens);
        generation.check(vocab)?;
        if source.is_empty() {
            return Err(parameter("source", "no tokens, at least 1".to_owned()));
        }
        if let Some(id) = source.iter().find(|id| **id as usize >= vocab) {
            return Err(parameter("source", format!("token {id}, the model has {vocab}")));
        }
        if source.len() > limit {
            return Err(EngineError::ContextExceeded { prompt_tokens: source.len(), context_tokens: limit });
        }
        if generation.num_beams > self.rows {
            let what = format!("{}, this model was loaded for {}", generation.num_beams, self.rows);
            return Err(parameter("num_beams", what));
        }
        let mut generation = generation.clone();
        generation.decoder_start = beginning.start.unwrap_or(generation.decoder_start);
        generation.forced_bos = beginning.forced.or(generation.forced_bos);
        let sampler = match sampling {
            Some(options) => {
                options.check(vocab)?;
                Some(Sampler::new(options.clone(), None))
            }
            None if generation.do_sample => {
                let Generation { temperature, top_k, top_p, .. } = generation;
                let options = SamplingOptions { temperature, top_k, top_p, ..SamplingOptions::default() };
                options.check(vocab)?;
                Some(Sampler::new(options, None))
            }
            None => None,
        };
        Ok(Search::new(generation, self.most_tokens, sampler))
    }
}

impl Drop for Seq2SeqModel {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the worker was already answered with `Unloaded`.
            let _ = thread.join();
        }
    }
}
