//! A folder of texts or pictures as one file that finds them by meaning.
//!
//! The crate `instant-distance` searches: a hierarchical navigable small world graph (arXiv:1603.09320) in safe Rust.
#![forbid(unsafe_code)]

mod error;
mod folder;
mod graph;
mod index;

pub use error::SearchError;
pub use index::{Changes, Hit, Index, Item, Kind, Recall, Settings, Update};
