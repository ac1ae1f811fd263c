//! A note that appears when something takes long.

use crate::terminal::Messages;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

/// Says `text` after `delay`, unless what it returns is dropped before.
pub fn after(delay: Duration, messages: Messages, text: &'static str) -> Sender<()> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        if receiver.recv_timeout(delay) == Err(RecvTimeoutError::Timeout) {
            messages.note(text);
        }
    });
    sender
}
