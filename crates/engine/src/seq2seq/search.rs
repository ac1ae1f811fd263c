//! How one answer is found: token by token, or by several beams, as transformers does it.

use super::rules::Rules;
use crate::EngineError;
use crate::sampler::{History, LogitsError, Sampler, Scratch};
use kun_kernels::vocabulary;
use kun_models::seq2seq::{EarlyStopping, Generation};

/// What replaces a score that must lose against all others, yet keep their order (as transformers has it).
const LOST: f32 = -1.0e9;

/// An answer being searched.
#[derive(Debug)]
pub(super) struct Search {
    generation: Generation,
    rules: Rules,
    max_length: usize,
    beams: Vec<Beam>,
    /// The best that are finished, best first; as many as beams.
    finished: Vec<Finished>,
    /// A finished one can still be bettered.
    open: bool,
    sampler: Option<Sampler>,
}

#[derive(Clone, Debug)]
struct Beam {
    tokens: Vec<u32>,
    /// Sum of log-probabilities.
    score: f32,
}

#[derive(Clone, Debug)]
struct Finished {
    tokens: Vec<u32>,
    score: f32,
    is_real: bool,
}

/// What comes after a step.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// Goes on: row `i` of the next step continues row `parents[i]` of this one.
    Continue {
        /// By row.
        parents: Vec<usize>,
    },
    /// The answer, with the decoder's first token, and its score.
    Done {
        /// Tokens.
        tokens: Vec<u32>,
        /// Log-probability, divided by the length as the settings say; 0 without beams.
        score: f32,
    },
}

/// One way to go on.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    score: f32,
    beam: usize,
    token: u32,
}

impl Search {
    /// A search that has the decoder's first token; `most_tokens` is what the model allows.
    pub(super) fn new(generation: Generation, most_tokens: usize, sampler: Option<Sampler>) -> Search {
        let stated = match generation.max_new_tokens {
            Some(new) => Some(new.saturating_add(1)),
            None => generation.max_length,
        };
        let max_length = stated.unwrap_or(most_tokens).min(most_tokens).max(2);
        let tokens = vec![generation.decoder_start];
        let count = if sampler.is_some() { 1 } else { generation.num_beams };
        let beam = |index| Beam { tokens: tokens.clone(), score: if index == 0 { 0.0 } else { LOST } };
        let nothing = Finished { tokens: tokens.clone(), score: LOST, is_real: false };
        Search {
            rules: Rules::new(generation.clone(), max_length),
            beams: (0..count).map(beam).collect(),
            finished: vec![nothing; count],
            open: true,
            generation,
            max_length,
            sampler,
        }
    }

    /// Rows that the next step needs: the last token of each. All beams begin alike, with one row.
    pub(super) fn last_tokens(&self) -> impl Iterator<Item = u32> {
        let rows = if self.len() == 1 { 1 } else { self.beams.len() };
        self.beams.iter().take(rows).filter_map(|beam| beam.tokens.last().copied())
    }

    /// Most rows that any step will need.
    pub(super) fn most_rows(&self) -> usize {
        self.beams.len()
    }

    /// Tokens so far, the first included.
    pub(super) fn len(&self) -> usize {
        self.beams.first().map_or(0, |beam| beam.tokens.len())
    }

    /// Takes the logits `[rows, V]` of the rows that [`Search::last_tokens`] gave.
    ///
    /// # Errors
    /// [`EngineError::Logits`] if they are no numbers.
    pub(super) fn advance(&mut self, logits: &mut [f32], scratch: &mut Scratch) -> Result<Next, EngineError> {
        if self.beams.len() == 1 { self.single(logits, scratch) } else { self.beam_step(logits) }
    }

    fn single(&mut self, logits: &mut [f32], scratch: &mut Scratch) -> Result<Next, EngineError> {
        let Beam { tokens, .. } = &mut self.beams[0];
        self.rules.apply(tokens, logits);
        let token = match &mut self.sampler {
            Some(sampler) => sampler.pick(logits, History { tokens, prompt_tokens: 1 }, scratch)?.id,
            None => {
                let best = logits
                    .iter()
                    .enumerate()
                    .fold((0, f32::NEG_INFINITY), |best, (i, &x)| if x > best.1 { (i, x) } else { best });
                if best.1 == f32::NEG_INFINITY {
                    return Err(LogitsError.into());
                }
                best.0 as u32
            }
        };
        tokens.push(token);
        if self.generation.eos.contains(&token) || tokens.len() >= self.max_length {
            return Ok(Next::Done { tokens: std::mem::take(tokens), score: 0.0 });
        }
        Ok(Next::Continue { parents: vec![0] })
    }

    fn beam_step(&mut self, logits: &mut [f32]) -> Result<Next, EngineError> {
        let (count, length) = (self.beams.len(), self.len());
        let rows = if length == 1 { 1 } else { count };
        let vocab = logits.len() / rows;
        let keep = (self.generation.eos.len() + 1).max(2) * count;
        for (row, beam) in logits.chunks_exact_mut(vocab).zip(&self.beams) {
            let Some(greatest) = vocabulary::greatest(row) else { return Err(LogitsError.into()) };
            let total = vocabulary::log_sum_exp(row, greatest);
            for x in row.iter_mut() {
                *x = (f64::from(*x) - total) as f32;
            }
            self.rules.apply(&beam.tokens, row);
            if self.generation.renormalize
                && let Some(greatest) = vocabulary::greatest(row)
            {
                let total = vocabulary::log_sum_exp(row, greatest);
                row.iter_mut().for_each(|x| *x = (f64::from(*x) - total) as f32);
            }
        }
        let mut candidates = Vec::with_capacity(2 * keep);
        for (beam, state) in self.beams.iter().enumerate() {
            let row = if rows == 1 { 0 } else { beam };
            gather(&logits[row * vocab..(row + 1) * vocab], beam, state.score, keep, &mut candidates);
        }
        let hits = |c: &Candidate| self.generation.eos.contains(&c.token) || length + 1 >= self.max_length;

        // The best that go on.
        let mut order: Vec<(f32, usize)> = candidates
            .iter()
            .enumerate()
            .map(|(i, c)| (if hits(c) { c.score + LOST } else { c.score }, i))
            .collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        order.truncate(count);
        let extended = |c: &Candidate| {
            let mut tokens = self.beams[c.beam].tokens.clone();
            tokens.push(c.token);
            tokens
        };
        let parents = order.iter().map(|(_, i)| if rows == 1 { 0 } else { candidates[*i].beam }).collect();
        let running: Vec<Beam> = order
            .iter()
            .map(|(score, i)| Beam { tokens: extended(&candidates[*i]), score: *score })
            .collect();

        // Those that end here, of the first candidates only.
        let eager = self.generation.early_stopping == EarlyStopping::Full;
        let full = self.finished.iter().all(|f| f.is_real) && eager;
        let divisor = (length as f64).powf(self.generation.length_penalty) as f32;
        let mut merged = std::mem::take(&mut self.finished);
        for (i, candidate) in candidates.iter().enumerate() {
            let ends = hits(candidate) && i < count;
            let lost = [full, !self.open, !ends].into_iter().filter(|lost| *lost).count();
            let score = (0..lost).fold(candidate.score / divisor, |score, _| score + LOST);
            merged.push(Finished { tokens: extended(candidate), score, is_real: ends });
        }
        merged.sort_by(|a, b| b.score.total_cmp(&a.score));
        merged.truncate(count);
        self.finished = merged;
        let all_end = candidates.iter().all(hits);
        self.beams = running;

        if self.is_over(length + 1, all_end) {
            let best = self.finished.swap_remove(0);
            return Ok(Next::Done { tokens: best.tokens, score: best.score });
        }
        Ok(Next::Continue { parents })
    }

    fn is_over(&mut self, length: usize, all_end: bool) -> bool {
        let g = &self.generation;
        let hypothetical = match g.early_stopping {
            EarlyStopping::Never if g.length_penalty > 0.0 => self.max_length - 1,
            _ => length - 1,
        };
        let best = self.beams[0].score / (hypothetical as f64).powf(g.length_penalty) as f32;
        let worst = self.finished.iter().map(|f| f.score).fold(f32::INFINITY, f32::min);
        let improvable = self.finished.iter().any(|f| best > if f.is_real { worst } else { LOST });
        self.open &= improvable;
        let full = self.finished.iter().all(|f| f.is_real) && g.early_stopping == EarlyStopping::Full;
        !self.open || full || all_end
    }
}

/// Puts the best candidates of a beam among `best`, which stays sorted and no longer than `keep`: by score, then by beam and token.
fn gather(scores: &[f32], beam: usize, before: f32, keep: usize, best: &mut Vec<Candidate>) {
    for (token, &x) in scores.iter().enumerate() {
        let score = x + before;
        if best.len() == keep {
            // Later ones lose a tie.
            match best.last() {
                Some(last) if score > last.score => drop(best.pop()),
                _ => continue,
            }
        }
        let at = best.partition_point(|known| known.score >= score);
        best.insert(at, Candidate { score, beam, token: token as u32 });
    }
}

#[cfg(test)]
mod tests;
