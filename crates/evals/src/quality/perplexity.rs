//! How well a model predicts a text.
//!
//! The procedure is that of llama.cpp's `llama-perplexity`, so that figures compare: the text's tokens are cut into
//! windows of `context_tokens`; each window is a sequence of its own, its first token replaced by the beginning token
//! if the model begins texts with one; of each window the tokens from `context_tokens / 2 + 1` on are scored, so that
//! each has at least half a window before it; tokens beyond the last whole window are left out.

use anyhow::{Context, ensure};
use kun_engine::LoadedModel;
use serde::Serialize;
use std::time::Instant;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerplexityOptions {
    /// Tokens of one window; at least 8, at most the model's context.
    pub context_tokens: usize,
    /// Stop after so many windows; `None`: the whole text.
    pub max_windows: Option<usize>,
}

impl Default for PerplexityOptions {
    fn default() -> Self {
        PerplexityOptions { context_tokens: 512, max_windows: None }
    }
}

/// A model's perplexity on a text.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Perplexity {
    /// `exp` of the mean negative log-likelihood.
    pub perplexity: f64,
    /// One standard error of it.
    pub perplexity_error: f64,
    /// Mean negative log-likelihood, in nats per token.
    pub nll: f64,
    /// Tokens scored.
    pub scored_tokens: usize,
    /// Tokens of the whole text.
    pub text_tokens: usize,
    /// Windows measured.
    pub windows: usize,
    /// Tokens of one window.
    pub context_tokens: usize,
    /// Time it took.
    pub seconds: f64,
    /// Tokens run per second, scored or not.
    pub tokens_per_s: f64,
}

/// How far a measurement is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Windows done.
    pub windows: usize,
    /// Windows in all.
    pub total_windows: usize,
    /// Perplexity so far.
    pub perplexity: f64,
}

/// Measures `model` on `text`, telling `progress` after every window. A final line break of the text is left out.
///
/// # Errors
/// If the text has fewer than two windows, and those of [`LoadedModel::score`].
pub fn perplexity(
    model: &LoadedModel,
    text: &str,
    options: &PerplexityOptions,
    mut progress: impl FnMut(Progress),
) -> anyhow::Result<Perplexity> {
    let window = options.context_tokens;
    let most = model.context_tokens();
    ensure!((8..=most).contains(&window), "a window of {window} tokens: from 8 to the model's {most}");
    let started = Instant::now();
    let mut tokens = model.tokenize(text.strip_suffix('\n').unwrap_or(text))?;
    ensure!(
        tokens.len() >= 2 * window,
        "the text has {} tokens, two windows of {window} are needed",
        tokens.len()
    );
    let text_tokens = tokens.len();
    // An empty text has nothing but the tokens that begin every text.
    let beginning = model.tokenize("")?.first().copied();
    let windows = (text_tokens / window).min(options.max_windows.unwrap_or(usize::MAX)).max(1);
    let mut sums = Sums::default();
    for (index, chunk) in tokens.chunks_exact_mut(window).take(windows).enumerate() {
        if let Some(bos) = beginning {
            chunk[0] = bos;
        }
        let logprobs = model
            .score(chunk, window / 2 + 1)
            .with_context(|| format!("window {} of {windows}", index + 1))?;
        logprobs.iter().for_each(|l| sums.add(-f64::from(*l)));
        progress(Progress { windows: index + 1, total_windows: windows, perplexity: sums.mean().exp() });
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok(Perplexity {
        perplexity: sums.mean().exp(),
        perplexity_error: sums.standard_error() * sums.mean().exp(),
        nll: sums.mean(),
        scored_tokens: sums.count,
        text_tokens,
        windows,
        context_tokens: window,
        seconds,
        tokens_per_s: (windows * window) as f64 / seconds,
    })
}

/// Sums for a mean and its standard error.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    count: usize,
    sum: f64,
    squares: f64,
}

impl Sums {
    fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        self.squares += value * value;
    }

    fn mean(&self) -> f64 {
        self.sum / self.count as f64
    }

    fn standard_error(&self) -> f64 {
        if self.count < 2 {
            return 0.0;
        }
        let variance = self.squares / self.count as f64 - self.mean() * self.mean();
        (variance.max(0.0) / (self.count - 1) as f64).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::Sums;

    #[test]
    fn mean_and_error_are_those_of_the_textbook() {
        let mut sums = Sums::default();
        [1.0, 2.0, 3.0, 6.0].into_iter().for_each(|v| sums.add(v));
        assert_eq!(sums.mean(), 3.0);
        // The sample variance is 14 / 3; divided by four values.
        assert!((sums.standard_error() - (14.0f64 / 12.0).sqrt()).abs() < 1e-12);
    }
}
