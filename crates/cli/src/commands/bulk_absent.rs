//! `kun map` and `kun jobs` in a build without them.

use super::App;
use crate::args::{BatchArgs, JobsVerb, MapArgs};
use crate::exit::Misuse;

fn absent() -> anyhow::Error {
    Misuse("this build has no bulk work: build with `cargo build --release --features bulk`".to_owned())
        .into()
}

/// Says how to build it.
///
/// # Errors
/// Always.
pub fn map(_: &App, _: &MapArgs) -> anyhow::Result<()> {
    Err(absent())
}

/// Says how to build it.
///
/// # Errors
/// Always.
pub fn jobs(_: &App, _: &JobsVerb) -> anyhow::Result<()> {
    Err(absent())
}

/// Says how to build it.
///
/// # Errors
/// Always.
pub fn batch(_: &App, _: &BatchArgs) -> anyhow::Result<()> {
    Err(absent())
}

/// No error is one of bulk work.
pub fn outcome(_: &(dyn std::error::Error + 'static)) -> Option<(u8, Option<&'static str>)> {
    None
}
