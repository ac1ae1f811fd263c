//! Logits to one token.
//!
//! The stages, in this order (that of `transformers`, so that its results can be compared):
//!
//! 1. logit bias;
//! 2. repetition penalty over the last tokens of prompt and answer, then frequency and presence penalties over the answer;
//! 3. temperature; at 0 the likeliest token is picked, of equals the one with the lowest id, and nothing below applies;
//! 4. top-k, top-p, min-p, typical-p, each on the distribution that the stage before left, renormalised;
//! 5. one draw.
//!
//! A pick depends on the logits, the tokens so far and the seed alone: never on other sequences or on threads.

pub mod filters;
pub mod rng;
#[cfg(test)]
mod tests;

use crate::SamplingOptions;
use filters::Candidate;
use kun_kernels::vocabulary::{self, Exponentials};
use rng::Rng;

/// Logits that no distribution can be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model gave logits that are not numbers")]
pub struct LogitsError;

/// Buffers shared by all samplers of a worker.
#[derive(Debug, Default)]
pub struct Scratch {
    weights: Vec<f32>,
    sums: Vec<f64>,
    candidates: Vec<Candidate>,
    raw: Vec<f32>,
    seen: Vec<u32>,
    stamp: u32,
}

impl Scratch {
    /// The `count` greatest logits and their tokens, greatest first.
    pub(crate) fn likeliest(&mut self, logits: &[f32], count: usize) -> Vec<(u32, f32)> {
        if count == 0 {
            return Vec::new();
        }
        filters::top_k(logits, count, &mut self.candidates);
        filters::sort(&mut self.candidates);
        self.candidates.iter().map(|c| (c.id, c.logit)).collect()
    }

    /// A mark that no token bears yet.
    fn next_stamp(&mut self, vocab: usize) -> u32 {
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 || self.seen.len() != vocab {
            self.seen.clear();
            self.seen.resize(vocab, 0);
            self.stamp = 1;
        }
        self.stamp
    }
}

/// The tokens that penalties look at.
#[derive(Clone, Copy, Debug)]
pub struct History<'a> {
    /// Prompt and answer.
    pub tokens: &'a [u32],
    /// How many of them are the prompt's.
    pub prompt_tokens: usize,
}

/// A picked token and what was asked about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Pick {
    /// The token.
    pub id: u32,
    /// Its log-probability under the model's own distribution, if asked for.
    pub logprob: Option<f32>,
    /// The likeliest tokens and their log-probabilities, likeliest first, if asked for.
    pub top: Vec<(u32, f32)>,
}

/// Picks the tokens of one answer.
#[derive(Clone, Debug)]
pub struct Sampler {
    options: SamplingOptions,
    rng: Rng,
    logprobs: Option<usize>,
}

impl Sampler {
    /// A sampler for options that [`crate::GenerateRequest::check`] has passed.
    pub fn new(options: SamplingOptions, logprobs: Option<usize>) -> Sampler {
        let rng = options.seed.map_or_else(Rng::from_entropy, Rng::new);
        Sampler { options, rng, logprobs }
    }

    /// Picks the token that follows `history`; `logits` is `[V]` and is changed.
    ///
    /// # Errors
    /// [`LogitsError`] if a logit is NaN or positive infinity, or if all are negative infinity.
    pub fn pick(
        &mut self,
        logits: &mut [f32],
        history: History<'_>,
        scratch: &mut Scratch,
    ) -> Result<Pick, LogitsError> {
        self.pick_among(logits, history, scratch, |_| {})
    }

    /// [`Sampler::pick`] among what `restrict` leaves: it sets the logits of tokens that must not come to negative
    /// infinity. Log-probabilities stay those of the model.
    ///
    /// # Errors
    /// As [`Sampler::pick`].
    pub fn pick_among(
        &mut self,
        logits: &mut [f32],
        history: History<'_>,
        scratch: &mut Scratch,
        restrict: impl FnOnce(&mut [f32]),
    ) -> Result<Pick, LogitsError> {
        let Some(count) = self.logprobs else {
            restrict(logits);
            let id = self.pick_id(logits, history, scratch)?;
            return Ok(Pick { id, logprob: None, top: Vec::new() });
        };
        let greatest = vocabulary::greatest(logits).ok_or(LogitsError)?;
        let log_sum = vocabulary::log_sum_exp(logits, greatest);
        let logprob = |logit: f32| (f64::from(logit) - log_sum) as f32;
        let mut raw = std::mem::take(&mut scratch.raw);
        raw.clear();
        raw.extend_from_slice(logits);
        filters::top_k(&raw, count, &mut scratch.candidates);
        filters::sort(&mut scratch.candidates);
        let top = scratch.candidates.iter().map(|c| (c.id, logprob(c.logit))).collect();
        restrict(logits);
        let picked = self.pick_id(logits, history, scratch);
        let result = picked.map(|id| Pick { id, logprob: Some(logprob(raw[id as usize])), top });
        scratch.raw = raw;
        result
    }

    fn pick_id(
        &mut self,
        logits: &mut [f32],
        history: History<'_>,
        scratch: &mut Scratch,
    ) -> Result<u32, LogitsError> {
        self.penalise(logits, history, scratch);
        if self.options.temperature == 0.0 {
            let (first, _) = vocabulary::first_greatest(logits).ok_or(LogitsError)?;
            return Ok(first as u32);
        }
        let greatest = vocabulary::greatest(logits).ok_or(LogitsError)?;
        let draw = self.rng.next_f64();
        if self.keeps_all(logits.len()) {
            let factor = 1.0 / self.options.temperature;
            let all = Exponentials { values: logits, shift: greatest, factor };
            let total = all.sum(&mut scratch.sums);
            return filters::pick_weighted(all, &scratch.sums, draw * total).ok_or(LogitsError);
        }
        self.filter(logits, greatest, scratch);
        let candidates = &scratch.candidates;
        let mut left = draw * candidates.iter().map(|c| f64::from(c.weight)).sum::<f64>();
        for candidate in candidates {
            left -= f64::from(candidate.weight);
            if left < 0.0 {
                return Ok(candidate.id);
            }
        }
        // Rounding can leave a remainder at the very end of the interval.
        candidates.iter().rev().find(|c| c.weight > 0.0).map(|c| c.id).ok_or(LogitsError)
    }

    fn keeps_all(&self, vocab: usize) -> bool {
        let o = &self.options;
        (o.top_k == 0 || o.top_k >= vocab) && o.top_p >= 1.0 && o.min_p == 0.0 && o.typical_p >= 1.0
    }

    /// Leaves in `scratch.candidates` the tokens that pass every filter, with their weights relative to the likeliest.
    fn filter(&self, logits: &[f32], greatest: f32, scratch: &mut Scratch) {
        let o = &self.options;
        let factor = 1.0 / o.temperature;
        let vocab = logits.len();
        let candidates = &mut scratch.candidates;
        // The total weight that the candidates' weights are shares of, where it is known to differ from their sum.
        let mut total = None;
        if o.top_k > 0 && o.top_k < vocab {
            filters::top_k(logits, o.top_k, candidates);
            filters::weigh(candidates, greatest, factor);
        } else {
            let all = Exponentials { values: logits, shift: greatest, factor };
            let all = all.write(&mut scratch.weights, &mut scratch.sums);
            // Tokens that together hold less than `1 - top_p` cannot be part of the smallest set that reaches `top_p`:
            // leaving them out spares sorting the whole vocabulary.
            let least = if o.top_p < 1.0 {
                (all * f64::from(1.0 - o.top_p) / vocab as f64 * 0.999) as f32
            } else {
                // The likeliest token's weight is 1; when top-p keeps all, min-p is a plain threshold.
                o.min_p
            };
            filters::above(&scratch.weights, logits, least, candidates);
            total = Some(all);
        }
        if o.top_p < 1.0 {
            filters::top_p(candidates, f64::from(o.top_p), total);
        }
        if o.min_p > 0.0 {
            candidates.retain(|c| c.weight >= o.min_p);
        }
        if o.typical_p < 1.0 {
            filters::typical(candidates, f64::from(o.typical_p));
        }
    }

    fn penalise(&self, logits: &mut [f32], history: History<'_>, scratch: &mut Scratch) {
        let o = &self.options;
        for (id, bias) in &o.logit_bias {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit += bias;
            }
        }
        if o.repetition_penalty != 1.0 {
            let window = match o.penalty_window_tokens {
                0 => history.tokens,
                n => &history.tokens[history.tokens.len().saturating_sub(n)..],
            };
            let stamp = scratch.next_stamp(logits.len());
            for id in window {
                let (Some(logit), Some(seen)) =
                    (logits.get_mut(*id as usize), scratch.seen.get_mut(*id as usize))
                else {
                    continue;
                };
                if std::mem::replace(seen, stamp) != stamp {
                    *logit = if *logit > 0.0 {
                        *logit / o.repetition_penalty
                    } else {
                        *logit * o.repetition_penalty
                    };
                }
            }
        }
        if o.frequency_penalty != 0.0 || o.presence_penalty != 0.0 {
            let stamp = scratch.next_stamp(logits.len());
            for id in history.tokens.get(history.prompt_tokens..).unwrap_or(&[]) {
                let (Some(logit), Some(seen)) =
                    (logits.get_mut(*id as usize), scratch.seen.get_mut(*id as usize))
                else {
                    continue;
                };
                *logit -= o.frequency_penalty;
                if std::mem::replace(seen, stamp) != stamp {
                    *logit -= o.presence_penalty;
                }
            }
        }
    }
}
