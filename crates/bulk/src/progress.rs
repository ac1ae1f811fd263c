//! How far a job is.

use serde::{Deserialize, Serialize};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// A job as it stands; what `status.json` holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// `running`, `done`, `stopped`, `failed`, or `waiting` for other shards.
    pub state: String,
    /// Rows in finished splits, and in this run's unfinished ones.
    pub rows: u64,
    /// All rows, where the input tells them.
    pub total_rows: Option<u64>,
    /// Rows that failed.
    pub errors: u64,
    /// Rows of the input that the condition has left out.
    #[serde(default)]
    pub dropped: u64,
    /// Tokens read and written in this run.
    pub tokens: u64,
    /// Splits that are done.
    pub splits: usize,
    /// All splits.
    pub total_splits: usize,
    /// Seconds since this run began.
    pub seconds: f64,
    /// Rows a second of this run.
    pub rows_per_second: f64,
    /// Tokens a second of this run.
    pub tokens_per_second: f64,
    /// Seconds until the end at this rate.
    pub eta_seconds: Option<f64>,
    /// Why it ended, if it failed.
    pub error: Option<String>,
    /// The process.
    pub pid: u32,
    /// The command that made it, for `kun jobs`.
    pub output: String,
}

/// Counts that workers add to.
#[derive(Debug)]
pub(crate) struct Counts(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    began: Instant,
    /// Rows that an earlier run had done.
    before: u64,
    rows: u64,
    errors: u64,
    dropped: u64,
    tokens: u64,
    splits: usize,
    /// The share of the work that is done, by bytes of the input.
    bytes: u64,
    bytes_before: u64,
    first_error: Option<String>,
}

/// What workers report.
#[derive(Clone, Debug, Default)]
pub(crate) struct Step {
    pub rows: u64,
    pub errors: u64,
    pub dropped: u64,
    pub tokens: u64,
    pub first_error: Option<String>,
    /// Rows from an earlier run, which say nothing about this one's speed.
    pub recovered: bool,
}

impl Counts {
    pub(crate) fn new(rows: u64, errors: u64, splits: usize, bytes: u64) -> Counts {
        Counts(Mutex::new(Inner {
            began: Instant::now(),
            before: rows,
            rows,
            errors,
            dropped: 0,
            tokens: 0,
            splits,
            bytes,
            bytes_before: bytes,
            first_error: None,
        }))
    }

    /// With rows that were left out before.
    pub(crate) fn with_dropped(self, dropped: u64) -> Counts {
        self.inner().dropped = dropped;
        self
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds rows; gives all rows and all errors so far, with the first error.
    pub(crate) fn add(&self, step: &Step) -> (u64, u64, Option<String>) {
        let mut inner = self.inner();
        inner.rows += step.rows;
        inner.errors += step.errors;
        inner.dropped += step.dropped;
        inner.before += if step.recovered { step.rows } else { 0 };
        inner.tokens += if step.recovered { 0 } else { step.tokens };
        if inner.first_error.is_none() {
            inner.first_error.clone_from(&step.first_error);
        }
        (inner.rows, inner.errors, inner.first_error.clone())
    }

    /// Takes back what a split that will be done again has added.
    pub(crate) fn take_back(&self, step: &Step) {
        let mut inner = self.inner();
        inner.rows = inner.rows.saturating_sub(step.rows);
        inner.errors = inner.errors.saturating_sub(step.errors);
        inner.dropped = inner.dropped.saturating_sub(step.dropped);
        inner.tokens = inner.tokens.saturating_sub(step.tokens);
    }

    pub(crate) fn split_done(&self, bytes: u64) {
        let mut inner = self.inner();
        inner.splits += 1;
        inner.bytes += bytes;
    }

    pub(crate) fn status(&self, total_splits: usize, total_rows: Option<u64>, total_bytes: u64) -> Status {
        let inner = self.inner();
        let seconds = inner.began.elapsed().as_secs_f64();
        let own = inner.rows.saturating_sub(inner.before);
        let rate = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let left = match total_rows {
            Some(total) if own > 0 => {
                Some(total.saturating_sub(inner.rows + inner.dropped) as f64 / rate(own))
            }
            None if inner.bytes > inner.bytes_before => {
                Some(total_bytes.saturating_sub(inner.bytes) as f64 / rate(inner.bytes - inner.bytes_before))
            }
            _ => None,
        };
        Status {
            state: "running".to_owned(),
            rows: inner.rows,
            total_rows,
            errors: inner.errors,
            dropped: inner.dropped,
            tokens: inner.tokens,
            splits: inner.splits,
            total_splits,
            seconds,
            rows_per_second: rate(own),
            tokens_per_second: rate(inner.tokens),
            eta_seconds: left,
            error: None,
            pid: std::process::id(),
            output: String::new(),
        }
    }
}
