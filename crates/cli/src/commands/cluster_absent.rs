//! `kun cluster` and `kun map --on` in a build without them.

use super::App;
use crate::args::ClusterVerb;
use crate::exit::Misuse;

/// Says how to build it.
///
/// # Errors
/// Always.
pub fn cluster(_: &App, _: &ClusterVerb) -> anyhow::Result<()> {
    Err(absent())
}

fn absent() -> anyhow::Error {
    Misuse("this build knows no cluster: build with `cargo build --release --features cluster`".to_owned())
        .into()
}

#[cfg(feature = "bulk")]
pub use on::run_on;

#[cfg(feature = "bulk")]
mod on {
    use crate::commands::App;
    use kun_bulk::{Checked, Report, RunOptions, Status};

    /// Says how to build it.
    ///
    /// # Errors
    /// Always.
    pub fn run_on(
        _: &App,
        _: &str,
        _: &Checked<'_>,
        _: &RunOptions,
        _: &(dyn Fn(&Status) + Sync),
    ) -> anyhow::Result<Report> {
        Err(super::absent())
    }
}
