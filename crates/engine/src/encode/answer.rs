//! Answers to a question as spans of documents of any length.

use super::classify::{room, unsuitable};
use super::{Encoded, LoadedEncoder};
use crate::EngineError;
use kun_models::encoder::Head;
use kun_tasks::text::answer::{Answer, Place, SpanOptions, Window, answers};
use kun_tasks::text::windows::windows;
use kun_text::{Encoding, Pieces, Special};

/// How answers are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerOptions {
    /// Which answers count.
    pub spans: SpanOptions,
    /// Tokens of a window, question included; at most what the model takes.
    pub window_tokens: usize,
    /// Tokens that windows share.
    pub overlap_tokens: usize,
}

impl Default for AnswerOptions {
    fn default() -> Self {
        AnswerOptions { spans: SpanOptions::default(), window_tokens: 384, overlap_tokens: 128 }
    }
}

impl LoadedEncoder {
    /// The best answers to `question` in each document, the best first; a long document is read in overlapping windows.
    ///
    /// # Errors
    /// [`EngineError::Unsuitable`] if the model points at no spans, [`EngineError::Parameter`] if the question leaves no room
    /// for the document. Per document: those of tokenizer and step.
    pub fn answer(
        &self,
        question: &str,
        documents: &[String],
        options: &AnswerOptions,
    ) -> Result<Vec<Result<Vec<Answer>, EngineError>>, EngineError> {
        if self.info().head != Head::Span {
            return Err(unsuitable("the model points at no answers in a text"));
        }
        let question = self.tokenizer().pieces(question, Special::Plain)?;
        let limit = self.info().max_tokens.min(options.window_tokens);
        let room = room(limit, self.tokenizer().added_tokens(true) + question.len(), MIN_ROOM_TOKENS)?;
        let overlap = options.overlap_tokens.min(room / 2);
        let read = self.each(documents, |document| -> Result<Vec<Encoding>, EngineError> {
            let pieces: Pieces = self.tokenizer().pieces(document, Special::Plain)?;
            let windows = windows(pieces.len(), room, overlap).into_iter();
            Ok(windows.map(|window| self.tokenizer().join(&question, Some(&pieces.slice(window)))).collect())
        });
        let good = read.iter().filter_map(|read| read.as_ref().ok());
        let all: Vec<Encoding> = good.flat_map(|encodings| encodings.iter().cloned()).collect();
        let mut outputs = self.encode(&all).into_iter();
        let found = |(read, document): (Result<Vec<Encoding>, EngineError>, &String)| {
            let read = read?;
            let own: Vec<Result<Encoded, EngineError>> = outputs.by_ref().take(read.len()).collect();
            let own = own.into_iter().collect::<Result<Vec<Encoded>, EngineError>>()?;
            let columns: Vec<(Vec<f32>, Vec<f32>)> = own
                .iter()
                .map(|o| o.rows().filter_map(|r| Some((*r.first()?, *r.get(1)?))).unzip())
                .collect();
            let places: Vec<Vec<Option<Place>>> = read.iter().map(Place::of).collect();
            let windows: Vec<Window<'_>> = columns
                .iter()
                .zip(&places)
                .map(|((start, end), places)| Window { start, end, places })
                .collect();
            if windows.iter().any(|w| w.start.len() != w.places.len()) {
                return Err(unsuitable("not one row of logits per token"));
            }
            Ok(answers(document, &windows, &options.spans))
        };
        Ok(read.into_iter().zip(documents).map(found).collect())
    }
}

/// A window that shows less of the document is of no use.
const MIN_ROOM_TOKENS: usize = 16;
