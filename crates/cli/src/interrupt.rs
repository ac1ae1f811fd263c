//! Ctrl-C: the first stops what runs and keeps its result, the second ends the process at once.

use crate::exit::INTERRUPTED;
use std::sync::Mutex;

type Stop = Box<dyn Fn() + Send>;

static STATE: Mutex<State> = Mutex::new(State { stops: Vec::new(), pending: false, farewell: None });

struct State {
    /// Stop what runs now, the innermost last.
    stops: Vec<Stop>,
    /// They have been called.
    pending: bool,
    /// Printed when the process ends while nothing can be stopped cleanly.
    farewell: Option<&'static str>,
}

fn state() -> std::sync::MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Takes over Ctrl-C for this process.
///
/// # Errors
/// When the system refuses the handler.
pub fn install() -> anyhow::Result<()> {
    ctrlc::set_handler(on_interrupt)?;
    Ok(())
}

fn on_interrupt() {
    let mut state = state();
    match state.stops.is_empty() {
        false if !state.pending => {
            state.stops.iter().for_each(|stop| stop());
            state.pending = true;
        }
        _ => {
            if let Some(farewell) = state.farewell {
                eprintln!("\n{farewell}");
            }
            std::process::exit(INTERRUPTED.into());
        }
    }
}

/// While it lives, the first Ctrl-C calls `stop` instead of ending the process. One may be made while another lives: both
/// are called, and the newer goes first.
#[derive(Debug)]
pub struct Watch;

impl Watch {
    /// Starts watching.
    pub fn new(stop: impl Fn() + Send + 'static) -> Watch {
        let mut state = state();
        // What begins after Ctrl-C within something that was stopped is stopped too.
        if state.stops.is_empty() {
            state.pending = false;
        } else if state.pending {
            stop();
        }
        state.stops.push(Box::new(stop));
        Watch
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = state();
        state.stops.pop();
        if state.stops.is_empty() {
            state.pending = false;
        }
    }
}

/// While it lives, an interrupted process says `text` on stderr before it ends.
#[derive(Debug)]
pub struct Farewell;

impl Farewell {
    /// Sets what is said.
    pub fn new(text: &'static str) -> Farewell {
        state().farewell = Some(text);
        Farewell
    }
}

impl Drop for Farewell {
    fn drop(&mut self) {
        state().farewell = None;
    }
}
