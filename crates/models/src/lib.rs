//! The only crate that knows architecture names: model files become a [`kun_graph::Graph`] and its weights.
#![forbid(unsafe_code)]

pub mod error;
pub mod load;

pub use error::ModelError;
pub use load::{LoadOptions, Model, ModelInfo, load};
