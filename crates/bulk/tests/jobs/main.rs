//! Whole jobs over a function that costs nothing: what is read, written, lost and found again.
// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used)]

mod crashes;
mod duplicates;
mod formats;
mod kills;
mod refusals;
mod rows;
mod support;
