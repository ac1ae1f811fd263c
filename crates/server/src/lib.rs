//! HTTP: routes, wire types, limits and the page. Handlers parse, call and convert; the work is the engine's.
#![forbid(unsafe_code)]

mod answer;
mod anthropic;
mod app;
#[cfg(feature = "batch")]
pub mod batch;
#[cfg(not(feature = "batch"))]
#[path = "batch_absent.rs"]
mod batch;
mod error;
mod hex;
mod http;
mod metrics;
mod ollama;
mod openai;
mod options;
mod own;
mod queue;
mod routes;
mod schema;
mod server;
mod tasks;
mod trace;
mod ui;

pub use app::App;
pub use error::ServeError;
pub use http::keys::{Key, Keys, new_key};
pub use kun_hub::public::Schemes;
pub use options::{Limits, ServeOptions};
pub use routes::openapi;
pub use server::{Server, Stop};
