//! User data to tensors and back: a [`Task`] is a pair of pure functions around one forward pass.
#![forbid(unsafe_code)]

pub mod task;
pub mod text;

pub use task::{Task, TaskError};
