//! `kun map`, `kun sql` and `kun jobs` in a build without them.

use super::App;
use crate::args::{BatchArgs, JobsVerb, MapArgs, SqlArgs};
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

/// Says how to build it.
///
/// # Errors
/// Always.
pub fn sql(_: &App, _: &SqlArgs) -> anyhow::Result<()> {
    Err(Misuse("this build has no SQL: build with `cargo build --release --features sql`".to_owned()).into())
}

/// No error is one of bulk work.
pub fn outcome(_: &(dyn std::error::Error + 'static)) -> Option<(u8, Option<&'static str>)> {
    None
}
