//! Model names, the catalogue, downloads and the model store. The only crate that opens outbound connections.
#![forbid(unsafe_code)]

pub mod hub;

pub use hub::{Hub, HubError, HubOptions, ModelPath, Progress, StoredModel};
