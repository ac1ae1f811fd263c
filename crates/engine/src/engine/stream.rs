//! An answer in the making, as its caller holds it.

use crate::{EngineError, Event};
use kun_text::OutputParser;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;

/// An answer that has been queued.
#[derive(Debug)]
pub struct Started {
    /// Stops it.
    pub canceller: Canceller,
    /// Takes its text apart into thoughts, text and calls.
    pub parser: OutputParser,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
}

/// Stops an answer from another thread, such as a signal handler's.
#[derive(Clone, Debug, Default)]
pub struct Canceller {
    pub(super) cancelled: Arc<AtomicBool>,
}

impl Canceller {
    /// Stops the answer before its next step; the stream still ends with [`Event::Done`].
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Raised once it is stopped.
    pub fn flag(&self) -> &Arc<AtomicBool> {
        &self.cancelled
    }
}

/// The events of one answer, in order; ends after [`Event::Done`].
#[derive(Debug)]
pub struct GenerateStream {
    pub(super) events: Receiver<Result<Event, EngineError>>,
    pub(super) canceller: Canceller,
    pub(super) ended: bool,
}

impl GenerateStream {
    /// A handle that stops the answer while another thread reads the stream.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }
}

impl Iterator for GenerateStream {
    type Item = Result<Event, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let event = self.events.recv().unwrap_or(Err(EngineError::Unloaded));
        self.ended = matches!(event, Err(_) | Ok(Event::Done { .. }));
        Some(event)
    }
}

impl Drop for GenerateStream {
    fn drop(&mut self) {
        self.canceller.cancel();
    }
}
