//! Entities of texts of any length, by overlapping windows.

use super::classify::{room, unsuitable};
use super::{Encoded, LoadedEncoder};
use crate::EngineError;
use kun_models::encoder::Head;
use kun_tasks::text::extract::{Aggregation, Entity, Tags, Token, entities};
use kun_tasks::text::windows::{home, windows};
use kun_text::{Encoding, Part, Pieces, Special};
use std::ops::Range;

/// How entities are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtractOptions {
    /// How tokens of one word agree on a label.
    pub aggregation: Aggregation,
    /// Tokens that windows of a long text share.
    pub overlap_tokens: usize,
}

impl Default for ExtractOptions {
    fn default() -> Self {
        ExtractOptions { aggregation: Aggregation::Simple, overlap_tokens: 128 }
    }
}

/// A text in windows.
struct Read {
    pieces: Pieces,
    windows: Vec<Range<usize>>,
    encodings: Vec<Encoding>,
}

impl LoadedEncoder {
    /// The entities of each text. A text longer than the model takes is read in overlapping windows; each token counts
    /// as the window sees it in which it stands farthest from a cut.
    ///
    /// # Errors
    /// [`EngineError::Unsuitable`] if the model labels no tokens. Per text: those of tokenizer and step.
    pub fn extract(
        &self,
        texts: &[String],
        options: &ExtractOptions,
    ) -> Result<Vec<Result<Vec<Entity>, EngineError>>, EngineError> {
        let Head::Tokens { labels } = self.info().head else {
            return Err(unsuitable("the model labels no tokens"));
        };
        let tags = Tags::new(&self.info().labels);
        if tags.len() != labels || labels == 0 {
            return Err(unsuitable(&format!("{labels} outputs, {} labels", tags.len())));
        }
        let room = room(self.info().max_tokens, self.tokenizer().added_tokens(false), 1)?;
        let read = self.each(texts, |text| -> Result<Read, EngineError> {
            let pieces = self.tokenizer().pieces(text, Special::Plain)?;
            let windows = windows(pieces.len(), room, options.overlap_tokens.min(room / 2));
            let join = |window: &Range<usize>| self.tokenizer().join(&pieces.slice(window.clone()), None);
            let encodings = windows.iter().map(join).collect();
            Ok(Read { pieces, windows, encodings })
        });
        let good = read.iter().filter_map(|read| read.as_ref().ok());
        let all: Vec<Encoding> = good.flat_map(|read| read.encodings.iter().cloned()).collect();
        let mut outputs = self.encode(&all).into_iter();
        let found = |(read, text): (Result<Read, EngineError>, &String)| {
            let read = read?;
            let own: Vec<Result<Encoded, EngineError>> = outputs.by_ref().take(read.windows.len()).collect();
            let own = own.into_iter().collect::<Result<Vec<Encoded>, EngineError>>()?;
            let logits = joined(&read, &own, labels)?;
            let tokens = Token::of(text, &read.pieces, self.tokenizer());
            Ok(entities(&tokens, &logits, &tags, options.aggregation))
        };
        Ok(read.into_iter().zip(texts).map(found).collect())
    }
}

/// Logits `[T, labels]` of a text's tokens from those of its windows.
fn joined(read: &Read, outputs: &[Encoded], labels: usize) -> Result<Vec<f32>, EngineError> {
    let missing = || unsuitable("not one row of logits per token");
    // Where the text begins within each window: behind the special tokens.
    let starts: Vec<usize> = read
        .encodings
        .iter()
        .map(|encoding| encoding.parts.iter().take_while(|part| **part == Part::Special).count())
        .collect();
    let mut logits = Vec::with_capacity(read.pieces.len() * labels);
    for (token, window) in home(read.pieces.len(), &read.windows).into_iter().enumerate() {
        let row = starts[window] + token - read.windows[window].start;
        let output = outputs.get(window).filter(|output| output.width == labels).ok_or_else(missing)?;
        let row = output.data.get(row * labels..(row + 1) * labels).ok_or_else(missing)?;
        logits.extend_from_slice(row);
    }
    Ok(logits)
}
