//! The only crate that knows architecture names: model files become a [`kun_graph::Graph`] and its weights.
#![forbid(unsafe_code)]

pub mod decoder;
pub mod encoder;
pub mod error;
pub mod layers;
pub mod load;
pub mod metadata;
pub mod names;
pub mod onnx;
pub mod registry;
pub mod seq2seq;
pub mod weights;

pub use error::ModelError;
pub use load::{LoadOptions, Model, ModelInfo, load};
