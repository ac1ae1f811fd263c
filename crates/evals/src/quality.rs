//! How good a model's answers are.

pub mod choice;
pub mod perplexity;
pub mod pictures;
pub mod text;

pub use perplexity::{Perplexity, PerplexityOptions, Progress, perplexity};
