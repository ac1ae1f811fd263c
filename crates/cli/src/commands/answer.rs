//! One answer, streamed, with Ctrl-C watched.

use crate::interrupt::Watch;
use kun_engine::{EngineError, Event, FinishReason, GenerateStream, TokenLogprob, Usage};
use std::sync::mpsc;
use std::thread;

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
    /// Counts and times; what the engine could not say of a stopped answer is zero.
    pub usage: Usage,
}

enum Signal {
    Event(Result<Event, EngineError>),
    Stop,
    End,
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
    // The engine and Ctrl-C speak through one channel, so that a long prefill can be left at once.
    let (sender, signals) = mpsc::channel();
    let to_stop = sender.clone();
    let _watch = Watch::new(move || {
        // Nobody listens when the answer has just ended.
        let _ = to_stop.send(Signal::Stop);
    });
    thread::spawn(move || {
        for event in stream {
            if sender.send(Signal::Event(event)).is_err() {
                return;
            }
        }
        let _ = sender.send(Signal::End);
    });
    for signal in signals {
        let event = match signal {
            Signal::Event(event) => event?,
            Signal::Stop | Signal::End => break,
        };
        match event {
            Event::Token { id, text, logprob, top_logprobs } => {
                answer.tokens.push(id);
                answer.logprobs.extend(logprob.map(|own| (own, top_logprobs)));
                answer.text.push_str(&text);
                on_text(&text)?;
            }
            Event::Done { reason, text, usage } => {
                answer.text.push_str(&text);
                on_text(&text)?;
                answer.reason = reason;
                answer.usage = usage;
                break;
            }
        }
    }
    answer.usage.completion_tokens = answer.usage.completion_tokens.max(answer.tokens.len());
    Ok(answer)
}
