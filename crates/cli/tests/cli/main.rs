//! The real binary, driven from outside.

mod answers;
#[cfg(unix)]
mod chat;
mod generated;
mod models;
mod settings;
#[cfg(unix)]
mod signals;
mod support;
