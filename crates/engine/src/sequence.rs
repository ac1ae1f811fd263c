//! A text in the making (or being scored) and what is done with each of its logits.

use crate::batcher::Pending;
use crate::constraint::{self, Guide, Guided};
use crate::kv_cache::PageTable;
use crate::request::{Class, EventSink, Tenant};
use crate::sampler::{History, Pick, Sampler, Scratch};
use crate::speculate::Worth;
use crate::{EngineError, Event, FinishReason, TokenLogprob, TokenScore, Usage};
use kun_kernels::vocabulary;
use kun_text::{StopReason, TextStream, Tokenizer};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// One sequence of a worker.
pub(crate) struct Sequence {
    /// Its number among those of its worker.
    pub(crate) id: u64,
    /// Every token so far, prompt and answer.
    pub(crate) tokens: Vec<u32>,
    /// How many of them are in the cache.
    pub(crate) cached: usize,
    /// The pages they are in.
    pub(crate) table: PageTable,
    /// Which queue it waits in, and whose it is.
    pub(crate) class: Class,
    pub(crate) tenant: Tenant,
    /// Set when the caller leaves.
    pub(crate) cancelled: Arc<AtomicBool>,
    /// What it is for.
    pub(crate) work: Work,
    /// Tokens that may come next: they run in the next step, and stay if they are picked.
    pub(crate) guesses: Vec<u32>,
    worth: Worth,
}

/// What a sequence is for.
pub(crate) enum Work {
    /// An answer.
    Generate(Box<Answer>),
    /// Log-probabilities of its own tokens.
    Score(Score),
}

/// The state of an answer.
pub(crate) struct Answer {
    pub(crate) prompt_tokens: usize,
    pub(crate) admitted: bool,
    /// Prompt and answer together, at most.
    pub(crate) most_tokens: usize,
    pub(crate) sampler: Sampler,
    /// Holds it to a grammar.
    pub(crate) guide: Option<Guide>,
    /// Control tokens that have a text here.
    pub(crate) shown: Option<(u32, &'static str)>,
    pub(crate) text: TextStream,
    /// Tokens that end it; empty if the caller wants to go on.
    pub(crate) end_tokens: Arc<[u32]>,
    pub(crate) events: Box<dyn EventSink>,
    pub(crate) started: Instant,
    pub(crate) usage: Usage,
}

/// The state of a scoring.
#[derive(Debug)]
pub(crate) struct Score {
    /// Index of the first token whose log-probability is wanted; at least 1 and below the number of tokens.
    pub(crate) first: usize,
    /// How many of the likeliest tokens are wanted with each.
    pub(crate) top: usize,
    pub(crate) scores: Vec<TokenScore>,
    pub(crate) reply: Sender<Result<Vec<TokenScore>, EngineError>>,
}

/// Whether a sequence goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Continues,
    Finished,
}

impl Sequence {
    /// One that waits.
    pub(crate) fn new(
        tokens: Vec<u32>,
        class: Class,
        tenant: Tenant,
        cancelled: Arc<AtomicBool>,
        work: Work,
    ) -> Sequence {
        Sequence {
            id: 0,
            tokens,
            cached: 0,
            table: PageTable::default(),
            class,
            tenant,
            cancelled,
            work,
            guesses: Vec::new(),
            worth: Worth::default(),
        }
    }

    /// Whether the caller has left.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Tells the caller that it runs from now on; only the first time, if it was put back in between.
    pub(crate) fn admitted(&mut self) {
        if let Work::Generate(answer) = &mut self.work
            && !std::mem::replace(&mut answer.admitted, true)
        {
            answer.events.admitted();
        }
    }

    /// Whether cached pages serve it as well as computing them: the scores of a text need every logit.
    pub(crate) fn may_reuse(&self) -> bool {
        matches!(self.work, Work::Generate(_)) && self.table.pages().is_empty()
    }

    /// Its first `tokens` tokens were in the cache already.
    pub(crate) fn reused(&mut self, tokens: usize) {
        self.cached = tokens;
        if let Work::Generate(answer) = &mut self.work
            && !answer.admitted
        {
            answer.usage.cached_tokens = tokens.min(answer.prompt_tokens);
        }
    }

    /// Its pages, for others to use; all of it has to run again.
    pub(crate) fn give_up_pages(&mut self) -> PageTable {
        self.cached = 0;
        self.guesses.clear();
        if let Work::Score(score) = &mut self.work {
            score.scores.clear();
        }
        std::mem::take(&mut self.table)
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
        matches!(&self.work, Work::Generate(a) if self.cached >= a.prompt_tokens && self.cached + 1 == self.tokens.len())
    }

    /// How many tokens to guess for the next step: none beyond the end of the answer.
    pub(crate) fn wanted_guesses(&mut self) -> usize {
        match &self.work {
            Work::Generate(answer) if self.decodes() => {
                // A step picks one token more than it has guesses.
                let left = answer.most_tokens.saturating_sub(self.tokens.len() + 1);
                self.worth.next().min(left)
            }
            _ => 0,
        }
    }

    /// The next `count` tokens to run, guesses last.
    pub(crate) fn upcoming(&self, count: usize) -> impl Iterator<Item = u32> {
        self.tokens[self.cached..].iter().chain(&self.guesses).take(count).copied()
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
        let guesses = std::mem::take(&mut self.guesses);
        self.cached += tokens;
        match &mut self.work {
            Work::Generate(answer) => {
                if decoded {
                    answer.usage.decode_time += took;
                    answer.usage.guessed_tokens += guesses.len();
                } else {
                    answer.usage.prefill_time += took;
                }
                if rows.is_empty() {
                    return Next::Continues;
                }
                let width = logits.len().checked_div(rows.len()).unwrap_or(0).max(1);
                let (mut picked, mut next) = (0, Next::Continues);
                for logits in logits.chunks_exact_mut(width) {
                    answer.usage.decode_steps += usize::from(decoded);
                    answer.usage.right_guesses += usize::from(picked > 0);
                    let history = History { tokens: &self.tokens, prompt_tokens: answer.prompt_tokens };
                    let pick = match answer.pick(logits, history, scratch) {
                        Ok(pick) => pick,
                        Err(error) => {
                            answer.events.event(Err(error));
                            return Next::Finished;
                        }
                    };
                    let id = pick.id;
                    next = answer.take(pick, &mut self.tokens, tokenizer);
                    picked += 1;
                    // What was computed behind a wrong guess belongs to another text.
                    if next == Next::Finished || guesses.get(picked - 1) != Some(&id) {
                        break;
                    }
                }
                self.cached = start + rows.start + picked;
                self.worth.judge(guesses.len(), picked.saturating_sub(1));
                next
            }
            Work::Score(score) => {
                let width = logits.len().checked_div(rows.len()).unwrap_or(0);
                for (row, logits) in rows.zip(logits.chunks_exact(width.max(1))) {
                    let target = self.tokens[start + row + 1] as usize;
                    let Some((greatest, logit)) = vocabulary::greatest(logits).zip(logits.get(target)) else {
                        let _ = score.reply.send(Err(crate::sampler::LogitsError.into()));
                        return Next::Finished;
                    };
                    let sum = vocabulary::log_sum_exp(logits, greatest);
                    let logprob = |logit: f32| (f64::from(logit) - sum) as f32;
                    let top = scratch.likeliest(logits, score.top);
                    let top = top.iter().map(|(id, logit)| (*id, logprob(*logit))).collect();
                    score.scores.push(TokenScore { logprob: logprob(*logit), top });
                }
                if self.cached + 1 < self.tokens.len() {
                    return Next::Continues;
                }
                let _ = score.reply.send(Ok(std::mem::take(&mut score.scores)));
                Next::Finished
            }
        }
    }

    /// Ends the sequence because its caller has left.
    pub(crate) fn cancel(self) -> PageTable {
        if let Work::Generate(answer) = self.work {
            let Answer { mut events, text, usage, .. } = *answer;
            let text = text.finish();
            events.event(Ok(Event::Done { reason: FinishReason::Cancelled, text, usage }));
        }
        self.table
    }

    /// Ends the sequence because a step failed.
    pub(crate) fn fail(self, error: EngineError) -> PageTable {
        match self.work {
            Work::Generate(mut answer) => drop(answer.events.event(Err(error))),
            Work::Score(score) => drop(score.reply.send(Err(error))),
        }
        self.table
    }
}

impl Answer {
    fn pick(
        &mut self,
        logits: &mut [f32],
        history: History<'_>,
        scratch: &mut Scratch,
    ) -> Result<Pick, EngineError> {
        let mask = self.guide.as_mut().map_or(Ok(None), Guide::mask)?;
        let restrict = |logits: &mut [f32]| {
            if let Some(mask) = &mask {
                constraint::apply(mask, logits);
            }
        };
        Ok(self.sampler.pick_among(logits, history, scratch, restrict)?)
    }

    fn take(&mut self, pick: Pick, tokens: &mut Vec<u32>, tokenizer: &Tokenizer) -> Next {
        if self.usage.time_to_first_token.is_zero() {
            self.usage.time_to_first_token = self.started.elapsed();
        }
        if self.end_tokens.contains(&pick.id) {
            return self.finish(FinishReason::Stop, KeepHeldBack::Yes);
        }
        tokens.push(pick.id);
        self.usage.completion_tokens += 1;
        let bytes = match self.shown {
            Some((id, text)) if id == pick.id => text.as_bytes().to_vec(),
            _ => tokenizer.token_bytes(pick.id),
        };
        let guided = match self.guide.as_mut().map(|guide| guide.follow(pick.id, &bytes)) {
            Some(Err(error)) => {
                self.events.event(Err(error));
                return Next::Finished;
            }
            Some(Ok(guided)) => guided,
            None => Guided::Continues,
        };
        let (text, stop) = self.text.push(&bytes);
        let described = |id, logprob| TokenLogprob { id, bytes: tokenizer.token_bytes(id), logprob };
        let event = Event::Token {
            id: pick.id,
            text,
            logprob: pick.logprob.map(|l| described(pick.id, l)),
            top_logprobs: pick.top.iter().map(|(id, l)| described(*id, *l)).collect(),
        };
        if !self.events.event(Ok(event)) {
            return Next::Finished;
        }
        match stop {
            Some(StopReason::StopString(text)) => {
                self.usage.stop_text = Some(text);
                self.finish(FinishReason::Stop, KeepHeldBack::No)
            }
            None if guided == Guided::Complete => self.finish(FinishReason::Stop, KeepHeldBack::Yes),
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
        self.events.event(Ok(Event::Done { reason, text, usage }));
        Next::Finished
    }
}

/// What becomes of text that was held back in case it became a stop string.
enum KeepHeldBack {
    Yes,
    /// It did become one.
    No,
}
