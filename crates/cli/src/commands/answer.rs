//! One answer, streamed, with Ctrl-C watched.

use crate::interrupt::Watch;
use kun_engine::{Event, FinishReason, GenerateStream, TokenLogprob, Usage};

/// A finished or stopped answer.
#[derive(Debug)]
pub struct Answer {
    /// All text.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Per token: its own log-probability and the likeliest tokens; empty unless asked for.
    pub logprobs: Vec<(TokenLogprob, Vec<TokenLogprob>)>,
    /// Why it ended.
    pub reason: FinishReason,
    /// Counts and times.
    pub usage: Usage,
}

/// Collects a stream and gives every piece of text to `on_text` as it comes. The first Ctrl-C ends the answer with
/// [`FinishReason::Cancelled`].
///
/// # Errors
/// Those of the stream and of `on_text`.
pub fn collect(
    stream: GenerateStream,
    mut on_text: impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<Answer> {
    let mut answer = Answer {
        text: String::new(),
        tokens: Vec::new(),
        logprobs: Vec::new(),
        reason: FinishReason::Cancelled,
        usage: Usage::default(),
    };
    let canceller = stream.canceller();
    let _watch = Watch::new(move || canceller.cancel());
    for event in stream {
        match event? {
            Event::Token { id, text, logprob, top_logprobs } => {
                answer.tokens.push(id);
                answer.logprobs.extend(logprob.map(|own| (own, top_logprobs)));
                answer.text.push_str(&text);
                on_text(&text)?;
            }
            Event::Done { reason, text, usage } => {
                answer.text.push_str(&text);
                on_text(&text)?;
                (answer.reason, answer.usage) = (reason, usage);
            }
        }
    }
    Ok(answer)
}
