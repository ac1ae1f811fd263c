//! Calls within a function's limits; what may pass is tried again, and a panic costs the row that causes it.

use super::take;
use crate::BulkError;
use crate::function::{ErrorClass, Function, Outcome, RowError, Stop};
use arrow_array::{Array, ArrayRef, new_null_array};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Before the first repetition; doubled for each further one.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

pub(super) struct Caller<'a> {
    pub function: &'a dyn Function,
    pub retry: u32,
    pub stop: &'a Stop,
}

impl Caller<'_> {
    /// Answers to all rows, in calls that keep to the limits.
    pub(super) fn call_all(&self, columns: &[ArrayRef], rows: usize) -> Result<Outcome, BulkError> {
        let limits = self.function.limits();
        let bytes: usize = columns.iter().map(|column| sliced_bytes(column.as_ref())).sum();
        let row_bytes = (bytes / rows.max(1)).max(1);
        let most = limits.rows.min((limits.bytes / row_bytes).max(1)).max(1);
        if rows <= most {
            return self.call_again(columns, rows);
        }
        let (mut pieces, mut errors, mut tokens) = (Vec::new(), Vec::new(), 0);
        for start in (0..rows).step_by(most) {
            let count = most.min(rows - start);
            let slice: Vec<ArrayRef> = columns.iter().map(|column| column.slice(start, count)).collect();
            let outcome = self.call_again(&slice, count)?;
            errors.extend(outcome.errors.into_iter().map(|(row, error)| (start + row, error)));
            tokens += outcome.tokens;
            pieces.push(outcome.column);
        }
        let pieces: Vec<&dyn Array> = pieces.iter().map(AsRef::as_ref).collect();
        Ok(Outcome { column: arrow_select::concat::concat(&pieces)?, errors, tokens })
    }

    /// One call, and further ones for rows whose errors may pass.
    fn call_again(&self, columns: &[ArrayRef], rows: usize) -> Result<Outcome, BulkError> {
        let mut outcome = self.call_caught(columns, rows)?;
        let mut wait = FIRST_WAIT;
        for _ in 0..self.retry {
            let again: Vec<u32> = outcome
                .errors
                .iter()
                .filter(|(_, error)| error.class == ErrorClass::Retryable)
                .filter_map(|(row, _)| u32::try_from(*row).ok())
                .collect();
            if again.is_empty() || self.stop.is_raised() {
                break;
            }
            std::thread::sleep(wait);
            wait = (wait * 2).min(LONGEST_WAIT);
            let second = self.call_caught(&take(columns, &again)?, again.len())?;
            outcome = merged(&outcome, &second, &again, rows)?;
        }
        Ok(outcome)
    }

    fn call_caught(&self, columns: &[ArrayRef], rows: usize) -> Result<Outcome, BulkError> {
        let called = catch_unwind(AssertUnwindSafe(|| self.function.call(columns, rows, self.stop)));
        let outcome = match called {
            Ok(outcome) => outcome?,
            Err(_) if rows == 1 => Outcome {
                column: new_null_array(&self.function.output().data_type, 1),
                errors: vec![(0, RowError::fatal("the function failed on this row"))],
                tokens: 0,
            },
            Err(_) => {
                let half = rows / 2;
                let part = |start: usize, count: usize| {
                    let slice: Vec<ArrayRef> =
                        columns.iter().map(|column| column.slice(start, count)).collect();
                    self.call_caught(&slice, count)
                };
                let (first, second) = (part(0, half)?, part(half, rows - half)?);
                let mut errors = first.errors;
                errors.extend(second.errors.into_iter().map(|(row, error)| (half + row, error)));
                let column = arrow_select::concat::concat(&[first.column.as_ref(), second.column.as_ref()])?;
                Outcome { column, errors, tokens: first.tokens + second.tokens }
            }
        };
        if outcome.column.len() != rows {
            let what = format!("a function gave {} results for {rows} rows", outcome.column.len());
            return Err(BulkError::job(what));
        }
        Ok(outcome)
    }
}

/// Bytes that the rows of a column take, not those of the buffers that it is a slice of.
fn sliced_bytes(column: &dyn Array) -> usize {
    column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
}

/// The first answers, with those of `again` in their places.
fn merged(first: &Outcome, second: &Outcome, again: &[u32], rows: usize) -> Result<Outcome, BulkError> {
    let mut places: Vec<(usize, usize)> = (0..rows).map(|row| (0, row)).collect();
    again.iter().enumerate().for_each(|(at, row)| places[*row as usize] = (1, at));
    let column =
        arrow_select::interleave::interleave(&[first.column.as_ref(), second.column.as_ref()], &places)?;
    let is_again = |row: &usize| u32::try_from(*row).is_ok_and(|row| again.binary_search(&row).is_ok());
    let mut errors: Vec<(usize, RowError)> =
        first.errors.iter().filter(|(row, _)| !is_again(row)).cloned().collect();
    errors.extend(second.errors.iter().map(|(at, error)| (again[*at] as usize, error.clone())));
    errors.sort_by_key(|(row, _)| *row);
    Ok(Outcome { column, errors, tokens: first.tokens + second.tokens })
}
