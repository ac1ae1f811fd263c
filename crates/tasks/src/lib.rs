//! User data to tensors and back: a [`Task`] is a pair of pure functions around one forward pass.
#![forbid(unsafe_code)]

pub mod describe;
pub mod image;
pub mod pixels;
pub mod scores;
pub mod task;
pub mod text;
pub mod vision;

pub use task::{Task, TaskError};
