//! How fast an encoder reads texts.

use crate::speed::bench::median;
use kun_engine::{EmbedOptions, EngineError, Fitting, LoadedEncoder};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Texts that are embedded together or in batches.
#[derive(Clone, Debug, Deserialize)]
pub struct TextCase {
    /// What the measurement calls it.
    pub name: String,
    /// The texts.
    pub texts: Vec<String>,
    /// Texts of one call; 0: all.
    pub batch: usize,
}

/// What a case took.
#[derive(Clone, Debug, Serialize)]
pub struct TextTime {
    /// The case.
    pub name: String,
    /// Texts.
    pub texts: usize,
    /// Tokens, special ones included.
    pub tokens: usize,
    /// Seconds of one pass over all texts, the median.
    pub seconds: f64,
    /// Texts per second.
    pub texts_per_s: f64,
}

/// Embeds the texts of `case` once to warm up and `repetitions` times more.
///
/// # Errors
/// [`EngineError`] of the first text that fails.
pub fn embed_texts(
    model: &LoadedEncoder,
    case: &TextCase,
    repetitions: usize,
) -> Result<TextTime, EngineError> {
    let options = EmbedOptions { fitting: Fitting::Truncate, ..EmbedOptions::default() };
    let batch = if case.batch == 0 { case.texts.len() } else { case.batch };
    let pass = |texts: &[String]| -> Result<usize, EngineError> {
        let mut tokens = 0;
        for part in texts.chunks(batch.max(1)) {
            for embedding in model.embed(part, &options)? {
                tokens += embedding?.tokens;
            }
        }
        Ok(tokens)
    };
    pass(&case.texts[..case.texts.len().min(batch.max(32))])?;
    let (mut times, mut tokens) = (Vec::with_capacity(repetitions), 0);
    for _ in 0..repetitions.max(1) {
        let begun = Instant::now();
        tokens = pass(&case.texts)?;
        times.push(begun.elapsed().as_secs_f64());
    }
    let seconds = median(&times);
    let texts = case.texts.len();
    Ok(TextTime { name: case.name.clone(), texts, tokens, seconds, texts_per_s: texts as f64 / seconds })
}
