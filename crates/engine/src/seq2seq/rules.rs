//! What changes the scores of the next token before one is taken, in the order in which transformers does it.

use kun_models::seq2seq::Generation;

/// The rules of one answer.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    generation: Generation,
    /// Longest answer, the first token included.
    max_length: usize,
}

const NEVER: f32 = f32::NEG_INFINITY;

impl Rules {
    pub(super) fn new(generation: Generation, max_length: usize) -> Rules {
        Rules { generation, max_length }
    }

    /// Changes `scores` `[V]` for the token after `tokens`, which begin with the decoder's first token.
    pub(super) fn apply(&self, tokens: &[u32], scores: &mut [f32]) {
        let g = &self.generation;
        if g.repetition_penalty != 1.0 {
            penalize(tokens, g.repetition_penalty, scores);
        }
        if g.no_repeat_ngram_size > 0 {
            forbid_repeats(tokens, g.no_repeat_ngram_size, scores);
        }
        for word in &g.bad_words {
            let Some((&last, before)) = word.split_last() else { continue };
            let fits = before.is_empty() || (word.len() <= tokens.len() && tokens.ends_with(before));
            // Ending is never a bad word.
            if fits && !(before.is_empty() && g.eos.contains(&last)) {
                forbid(&[last], scores);
            }
        }
        if tokens.len() < g.min_length || tokens.len() < g.min_new_tokens + 1 {
            forbid(&g.eos, scores);
        }
        if let Some(bos) = g.forced_bos
            && tokens.len() == 1
        {
            force(&[bos], scores);
        }
        if !g.forced_eos.is_empty() && tokens.len() + 1 == self.max_length {
            force(&g.forced_eos, scores);
        }
        forbid(&g.suppress, scores);
        if tokens.len() == if g.forced_bos.is_some() { 2 } else { 1 } {
            forbid(&g.begin_suppress, scores);
        }
    }
}

fn forbid(ids: &[u32], scores: &mut [f32]) {
    for &id in ids {
        if let Some(score) = scores.get_mut(id as usize) {
            *score = NEVER;
        }
    }
}

fn force(ids: &[u32], scores: &mut [f32]) {
    scores.fill(NEVER);
    for &id in ids {
        if let Some(score) = scores.get_mut(id as usize) {
            *score = 0.0;
        }
    }
}

/// Each token counts once, however often it is there.
fn penalize(tokens: &[u32], penalty: f32, scores: &mut [f32]) {
    for (at, &id) in tokens.iter().enumerate() {
        if tokens[..at].contains(&id) {
            continue;
        }
        if let Some(score) = scores.get_mut(id as usize) {
            *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
        }
    }
}

/// No run of `n` tokens twice.
fn forbid_repeats(tokens: &[u32], n: usize, scores: &mut [f32]) {
    if tokens.len() < n {
        return;
    }
    let end = &tokens[tokens.len() + 1 - n..];
    for window in tokens.windows(n) {
        if window[..n - 1] == *end {
            forbid(&window[n - 1..], scores);
        }
    }
}
