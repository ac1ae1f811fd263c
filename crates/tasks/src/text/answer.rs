//! Span question answering: start and end logits over windows of a document to answers with places, as the
//! question-answering pipeline of `transformers` gives them.

use crate::scores::{ranked, softmax};
use kun_text::{Encoding, Part};
use std::ops::Range;

/// What answers are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanOptions {
    /// The longest answer, in tokens.
    pub max_tokens: usize,
    /// How many answers.
    pub top_k: usize,
    /// Whether "there is none" may be an answer; for models trained on questions without one.
    pub may_be_none: bool,
}

impl Default for SpanOptions {
    fn default() -> Self {
        SpanOptions { max_tokens: 15, top_k: 1, may_be_none: false }
    }
}

/// What the model said about one window: all lists have one entry per token of its input.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    /// Logits of the answer's first token.
    pub start: &'a [f32],
    /// Logits of its last token.
    pub end: &'a [f32],
    /// Where each token lies in the document; `None` for the question and special tokens.
    pub places: &'a [Option<Place>],
}

/// Where a token of the document lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its bytes.
    pub bytes: Range<usize>,
    /// Its word, counted in any way that tells neighbours apart.
    pub word: u32,
}

impl Place {
    /// Of each token of a question and a document that were read together, the question first.
    pub fn of(encoding: &Encoding) -> Vec<Option<Place>> {
        let tokens = encoding.parts.iter().zip(encoding.offsets.iter().zip(&encoding.words));
        let place = |(part, (bytes, word)): (&Part, (&Range<usize>, &u32))| {
            (*part == Part::Second).then(|| Place { bytes: bytes.clone(), word: *word })
        };
        tokens.map(place).collect()
    }
}

/// A part of the document that answers the question.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Product of the probabilities of start and end, over all places with the same words; relative to the window.
    pub score: f32,
    /// Its bytes in the document; empty at 0 if there is no answer.
    pub bytes: Range<usize>,
}

/// The best answers in `document`, the best first; whole words.
pub fn answers(document: &str, windows: &[Window<'_>], options: &SpanOptions) -> Vec<Answer> {
    // Aligned to words, several candidates become one.
    let candidates = options.top_k.saturating_mul(2).saturating_add(10);
    let mut found: Vec<(Answer, String)> = Vec::new();
    let mut none = f32::INFINITY;
    for window in windows {
        let (start, end) = (probabilities(window.start, window), probabilities(window.end, window));
        if let (Some(s), Some(e)) = (start.first(), end.first()) {
            none = none.min(s * e);
        }
        for (first, last, score) in spans(window, &start, &end, options.max_tokens, candidates) {
            let bytes = whole_words(window, first, last);
            let words = document.get(bytes.clone()).unwrap_or_default().to_lowercase();
            match found.iter_mut().find(|(_, known)| *known == words) {
                Some((answer, _)) => answer.score += score,
                None => found.push((Answer { score, bytes }, words)),
            }
        }
    }
    let mut answers: Vec<Answer> = found.into_iter().map(|(answer, _)| answer).collect();
    if options.may_be_none && none.is_finite() {
        answers.push(Answer { score: none, bytes: 0..0 });
    }
    let scores: Vec<f32> = answers.iter().map(|a| a.score).collect();
    ranked(&scores).into_iter().take(options.top_k).map(|place| answers[place].clone()).collect()
}

/// Softmax over the tokens of the document and the first token, which stands for "no answer".
fn probabilities(logits: &[f32], window: &Window<'_>) -> Vec<f32> {
    let masked: Vec<f32> = logits
        .iter()
        .zip(window.places)
        .enumerate()
        .map(|(at, (logit, place))| if at == 0 || place.is_some() { *logit } else { -10_000.0 })
        .collect();
    softmax(&masked)
}

/// The likeliest spans within the document: first token, last token, score.
fn spans(
    window: &Window<'_>,
    start: &[f32],
    end: &[f32],
    max_tokens: usize,
    count: usize,
) -> Vec<(usize, usize, f32)> {
    let within = |at: &usize| window.places[*at].is_some();
    let mut spans: Vec<(usize, usize, f32)> = (0..start.len())
        .filter(within)
        .flat_map(|first| {
            let last = first.saturating_add(max_tokens).min(end.len());
            (first..last).filter(within).map(move |last| (first, last, start[first] * end[last]))
        })
        .collect();
    spans.sort_by(|a, b| b.2.total_cmp(&a.2));
    spans.truncate(count);
    spans
}

/// From the first byte of the first token's word to the last of the last one's, as far as the window shows them.
fn whole_words(window: &Window<'_>, first: usize, last: usize) -> Range<usize> {
    let place = |at: usize| window.places[at].as_ref();
    let word = |at: usize| place(at).map(|p| p.word);
    let mut from = first;
    while from > 0 && word(from - 1).is_some() && word(from - 1) == word(first) {
        from -= 1;
    }
    let mut to = last;
    while to + 1 < window.places.len() && word(to + 1).is_some() && word(to + 1) == word(last) {
        to += 1;
    }
    place(from).map_or(0, |p| p.bytes.start)..place(to).map_or(0, |p| p.bytes.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `[CLS] who [SEP] in Par ##is , Paris [SEP]`
    const DOCUMENT: &str = "in Paris, paris";

    fn places() -> Vec<Option<Place>> {
        let place = |bytes, word| Some(Place { bytes, word });
        vec![
            None,
            None,
            None,
            place(0..2, 0),
            place(3..6, 1),
            place(6..8, 1),
            place(8..9, 2),
            place(10..15, 3),
            None,
        ]
    }

    fn logits(high: &[(usize, f32)]) -> Vec<f32> {
        let mut logits = vec![0.0; 9];
        high.iter().for_each(|&(at, value)| logits[at] = value);
        logits
    }

    fn ask(start: &[(usize, f32)], end: &[(usize, f32)], options: SpanOptions) -> Vec<Answer> {
        let (start, end, places) = (logits(start), logits(end), places());
        answers(DOCUMENT, &[Window { start: &start, end: &end, places: &places }], &options)
    }

    #[test]
    fn an_answer_is_whole_words_wherever_its_tokens_begin() {
        let got = ask(&[(5, 20.0)], &[(5, 20.0)], SpanOptions::default());
        assert_eq!(&DOCUMENT[got[0].bytes.clone()], "Paris");
        assert!(got[0].score > 0.99);
    }

    #[test]
    fn the_question_is_no_answer_and_an_end_comes_after_its_start() {
        let got = ask(&[(1, 30.0), (7, 20.0)], &[(1, 30.0), (3, 25.0), (7, 20.0)], SpanOptions::default());
        assert_eq!(&DOCUMENT[got[0].bytes.clone()], "paris");
    }

    #[test]
    fn same_words_are_one_answer() {
        let options = SpanOptions { top_k: 3, ..SpanOptions::default() };
        let got = ask(&[(4, 5.0), (7, 5.0)], &[(5, 5.0), (7, 5.0)], options);
        assert_eq!(&DOCUMENT[got[0].bytes.clone()], "Paris");
        let texts: Vec<_> = got.iter().map(|a| DOCUMENT[a.bytes.clone()].to_lowercase()).collect();
        assert_eq!(texts.iter().filter(|t| *t == "paris").count(), 1, "{texts:?}");
    }

    #[test]
    fn no_answer_is_said_only_where_asked_for() {
        let options = SpanOptions { may_be_none: true, ..SpanOptions::default() };
        assert_eq!(ask(&[(0, 20.0)], &[(0, 20.0)], options)[0].bytes, 0..0);
        assert_ne!(ask(&[(0, 20.0)], &[(0, 20.0)], SpanOptions::default())[0].bytes, 0..0);
        assert!(answers("", &[], &options).is_empty());
    }

    #[test]
    fn answers_are_no_longer_than_allowed() {
        let options = SpanOptions { max_tokens: 2, ..SpanOptions::default() };
        let got = ask(&[(3, 9.0)], &[(7, 9.0)], options);
        assert!(got[0].bytes.len() < DOCUMENT.len());
    }
}
