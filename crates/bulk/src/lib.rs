//! Functions over tables, folders and buckets: resumable, every row exactly once, at the engine's full speed.
//!
//! A [`Job`] names inputs, [`Call`]s of functions and an output. Its input is cut into splits, once; a split is read, its
//! rows go through the functions, and its part of the output appears as a whole or not at all.
#![forbid(unsafe_code)]

mod call;
mod cells;
#[cfg(feature = "cluster")]
pub mod cluster;
mod error;
pub mod function;
mod functions;
pub mod input;
pub mod job;
mod json;
mod log;
mod models;
pub mod pipeline;
mod place;
mod progress;
mod quality;
mod run;
mod split;
#[cfg(feature = "sql")]
pub mod sql;
#[cfg(not(feature = "sql"))]
#[path = "sql_absent.rs"]
mod sql;
pub mod store;
pub mod survey;
mod table;
mod units;

pub use call::{Argument, Call};
pub use error::{BulkError, OutsideError};
pub use function::{
    Context, ErrorClass, Factory, Function, Limits, Outcome, Output, Prepared, Registry, RowError, Stop,
};
pub use functions::Loaded;
pub use job::Job;
pub use models::{FoundModel, Models, NoModels, digest};
pub use place::{DoneSplit, Identity, Manifest, Place};
pub use progress::Status;
pub use run::{Checked, Estimate, Report, RunOptions, check};
pub use split::{Files, Range, Split};
