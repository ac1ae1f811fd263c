//! `kun sql` in a build without it.

use crate::args::SqlArgs;
use crate::commands::App;
use kun_bulk::BulkError;

/// Says how to build it.
///
/// # Errors
/// Always.
pub fn sql(_: &App, _: &SqlArgs) -> anyhow::Result<()> {
    Err(BulkError::NotBuilt { what: "this build has no SQL".to_owned(), feature: "sql" }.into())
}
