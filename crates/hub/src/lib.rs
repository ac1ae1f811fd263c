//! Model names, the catalogue, downloads and the model store. The only crate that opens outbound connections.
#![forbid(unsafe_code)]

pub mod catalog;
mod digest;
mod disk;
mod download;
pub mod error;
mod hf_cache;
mod http;
pub mod hub;
pub mod name;
pub mod options;
pub mod pip_config;
pub mod public;
pub mod report;
mod select;
mod sources;
mod store;
#[cfg(test)]
mod testing;
mod url;
mod wheel;

pub use catalog::{Catalog, CatalogEntry};
pub use error::{ErrorKind, HubError};
pub use hub::{Hub, ModelPath, Progress, StoredModel};
pub use name::ModelName;
pub use options::{HubOptions, Patience, ProxyOptions};
pub use pip_config::PipConfig;
