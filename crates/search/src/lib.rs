//! A folder of text as one file that finds passages by meaning.
//!
//! The crate `instant-distance` searches: a hierarchical navigable small world graph (arXiv:1603.09320) in safe Rust.
#![forbid(unsafe_code)]

mod error;
mod folder;
mod graph;
mod index;

pub use error::SearchError;
pub use index::{Changes, Hit, Index, Recall, Settings, Update};
