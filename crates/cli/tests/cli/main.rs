//! The real binary, driven from outside.
// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used)]

mod answers;
#[cfg(feature = "bulk")]
mod bulk;
#[cfg(unix)]
mod chat;
mod generated;
mod hostile_texts;
mod image;
mod models;
mod picture_search;
mod pictures;
#[cfg(unix)]
mod serve;
mod settings;
#[cfg(unix)]
mod signals;
#[cfg(feature = "sql")]
mod sql;
#[cfg(not(feature = "sql"))]
mod sql_absent;
mod support;
mod texts;
mod translate;
