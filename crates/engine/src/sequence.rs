//! A text in the making (or being scored) and what is done with each of its logits.

use crate::batcher::Pending;
use crate::kv_cache::PageTable;
use crate::sampler::{History, Pick, Sampler, Scratch, math};
use crate::{EngineError, Event, FinishReason, TokenLogprob, Usage};
use kun_text::{StopReason, TextStream, Tokenizer};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// What events of one answer go through.
pub(crate) type EventSender = Sender<Result<Event, EngineError>>;

/// One sequence of a worker.
#[derive(Debug)]
pub(crate) struct Sequence {
    /// Every token so far, prompt and answer.
    pub(crate) tokens: Vec<u32>,
    /// How many of them are in the cache.
    pub(crate) cached: usize,
    /// The pages they are in.
    pub(crate) table: PageTable,
    /// Set when the caller leaves.
    pub(crate) cancelled: Arc<AtomicBool>,
    /// What it is for.
    pub(crate) work: Work,
}

/// What a sequence is for.
#[derive(Debug)]
pub(crate) enum Work {
    /// An answer.
    Generate(Box<Answer>),
    /// Log-probabilities of its own tokens.
    Score(Score),
}

/// The state of an answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) prompt_tokens: usize,
    /// Prompt and answer together, at most.
    pub(crate) most_tokens: usize,
    pub(crate) sampler: Sampler,
    pub(crate) text: TextStream,
    /// Tokens that end it; empty if the caller wants to go on.
    pub(crate) end_tokens: Arc<[u32]>,
    pub(crate) events: EventSender,
    pub(crate) started: Instant,
    pub(crate) usage: Usage,
}

/// The state of a scoring.
#[derive(Debug)]
pub(crate) struct Score {
    /// Index of the first token whose log-probability is wanted; at least 1 and below the number of tokens.
    pub(crate) first: usize,
    pub(crate) logprobs: Vec<f32>,
    pub(crate) reply: Sender<Result<Vec<f32>, EngineError>>,
}

/// Whether a sequence goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Continues,
    Finished,
}

impl Sequence {
    /// Whether the caller has left.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// What is left to run.
    pub(crate) fn pending(&self) -> Pending {
        let tokens = self.tokens.len() - self.cached;
        match &self.work {
            Work::Generate(_) => Pending { tokens, rows: tokens - 1..tokens },
            // The logits at one position are those of the next token: the last token itself need not run.
            Work::Score(score) => {
                let tokens = tokens - 1;
                Pending { tokens, rows: (score.first - 1).saturating_sub(self.cached).min(tokens)..tokens }
            }
        }
    }

    /// Whether the next step of it is a decode: the token picked last.
    pub(crate) fn decodes(&self) -> bool {
        matches!(&self.work, Work::Generate(a) if self.cached >= a.prompt_tokens)
    }

    /// Takes the results of a step in which the next `tokens` tokens ran, of which `rows` gave `logits` `[rows, V]`.
    pub(crate) fn advance(
        &mut self,
        tokens: usize,
        rows: std::ops::Range<usize>,
        logits: &mut [f32],
        took: Duration,
        tokenizer: &Tokenizer,
        scratch: &mut Scratch,
    ) -> Next {
        let decoded = self.decodes();
        let start = self.cached;
        self.cached += tokens;
        match &mut self.work {
            Work::Generate(answer) => {
                if decoded {
                    answer.usage.decode_time += took;
                    answer.usage.decode_steps += 1;
                } else {
                    answer.usage.prefill_time += took;
                }
                if rows.is_empty() {
                    return Next::Continues;
                }
                let history = History { tokens: &self.tokens, prompt_tokens: answer.prompt_tokens };
                match answer.sampler.pick(logits, history, scratch) {
                    Ok(pick) => answer.take(pick, &mut self.tokens, tokenizer),
                    Err(error) => {
                        let _ = answer.events.send(Err(error.into()));
                        Next::Finished
                    }
                }
            }
            Work::Score(score) => {
                let width = logits.len().checked_div(rows.len()).unwrap_or(0);
                for (row, logits) in rows.zip(logits.chunks_exact(width.max(1))) {
                    let target = self.tokens[start + row + 1] as usize;
                    let Some((greatest, logit)) = math::greatest(logits).zip(logits.get(target)) else {
                        let _ = score.reply.send(Err(crate::sampler::LogitsError.into()));
                        return Next::Finished;
                    };
                    let logprob = f64::from(*logit) - math::log_sum_exp(logits, greatest);
                    score.logprobs.push(logprob as f32);
                }
                if self.cached + 1 < self.tokens.len() {
                    return Next::Continues;
                }
                let _ = score.reply.send(Ok(std::mem::take(&mut score.logprobs)));
                Next::Finished
            }
        }
    }

    /// Ends the sequence because its caller has left.
    pub(crate) fn cancel(self) -> PageTable {
        if let Work::Generate(answer) = self.work {
            let Answer { events, text, usage, .. } = *answer;
            let text = text.finish();
            let _ = events.send(Ok(Event::Done { reason: FinishReason::Cancelled, text, usage }));
        }
        self.table
    }

    /// Ends the sequence because a step failed.
    pub(crate) fn fail(self, error: EngineError) -> PageTable {
        match self.work {
            Work::Generate(answer) => drop(answer.events.send(Err(error))),
            Work::Score(score) => drop(score.reply.send(Err(error))),
        }
        self.table
    }
}

impl Answer {
    fn take(&mut self, pick: Pick, tokens: &mut Vec<u32>, tokenizer: &Tokenizer) -> Next {
        if self.usage.time_to_first_token.is_zero() {
            self.usage.time_to_first_token = self.started.elapsed();
        }
        if self.end_tokens.contains(&pick.id) {
            return self.finish(FinishReason::Stop, KeepHeldBack::Yes);
        }
        tokens.push(pick.id);
        self.usage.completion_tokens += 1;
        let (text, stop) = self.text.push(&tokenizer.token_bytes(pick.id));
        let described = |id, logprob| TokenLogprob { id, bytes: tokenizer.token_bytes(id), logprob };
        let event = Event::Token {
            id: pick.id,
            text,
            logprob: pick.logprob.map(|l| described(pick.id, l)),
            top_logprobs: pick.top.iter().map(|(id, l)| described(*id, *l)).collect(),
        };
        if self.events.send(Ok(event)).is_err() {
            return Next::Finished;
        }
        match stop {
            Some(StopReason::StopString(_)) => self.finish(FinishReason::Stop, KeepHeldBack::No),
            None if tokens.len() >= self.most_tokens => self.finish(FinishReason::Length, KeepHeldBack::Yes),
            None => Next::Continues,
        }
    }

    fn finish(&mut self, reason: FinishReason, held_back: KeepHeldBack) -> Next {
        let text = std::mem::take(&mut self.text);
        let text = match held_back {
            KeepHeldBack::Yes => text.finish(),
            KeepHeldBack::No => String::new(),
        };
        let usage = std::mem::take(&mut self.usage);
        let _ = self.events.send(Ok(Event::Done { reason, text, usage }));
        Next::Finished
    }
}

/// What becomes of text that was held back in case it became a stop string.
enum KeepHeldBack {
    Yes,
    /// It did become one.
    No,
}
