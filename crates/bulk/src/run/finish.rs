//! The end of a job: its parts become the output.

use super::Report;
use crate::input::Plan;
use crate::place::{DoneSplit, Identity, Manifest, Place, json};
use crate::progress::Status;
use crate::{BulkError, table};
use arrow_schema::SchemaRef;
use std::collections::BTreeMap;

/// Writes the manifest, puts parts together where the output is one file, and says that all is done. `schema` gives the
/// columns of an output without parts.
pub(super) fn finish(
    place: &Place,
    plan: &Plan,
    mut done: BTreeMap<String, DoneSplit>,
    identity: Identity,
    schema: impl FnOnce() -> Result<SchemaRef, BulkError>,
) -> Result<Manifest, BulkError> {
    let parts: Vec<DoneSplit> = plan.splits.iter().filter_map(|split| done.remove(&split.id)).collect();
    let sum = |count: fn(&DoneSplit) -> u64| parts.iter().map(count).sum();
    let manifest = Manifest {
        output: place.uri.clone(),
        rows: sum(|part| part.rows),
        errors: sum(|part| part.errors),
        tokens: sum(|part| part.tokens),
        dropped: sum(|part| part.dropped),
        parts,
        identity,
    };
    // Shards that end together: one of them puts the parts together, the others find it done.
    let _lock = match place.state.lock("lock-finish") {
        Ok(lock) => lock,
        Err(BulkError::Busy { .. }) => return Ok(manifest),
        Err(error) => return Err(error),
    };
    place.ends.replace("_MANIFEST.json", json(&manifest))?;
    if let Some((folder, name)) = &place.single
        && !folder.names()?.contains(name)
    {
        let draft = if manifest.parts.is_empty() {
            table::TableWriter::new(folder.draft()?, place.format, &schema()?)?.finish()?
        } else {
            let parts = manifest.parts.iter().map(|part| place.parts.open(&part.part));
            table::concatenate(parts, folder.draft()?, place.format)?
        };
        folder.publish(draft, name)?;
    }
    place.ends.replace("_SUCCESS", Vec::new())?;
    tidy(place, &manifest)?;
    Ok(manifest)
}

/// Removes what is of no more use.
fn tidy(place: &Place, manifest: &Manifest) -> Result<(), BulkError> {
    if let Some((folder, _)) = &place.single {
        for part in &manifest.parts {
            place.parts.remove(&part.part)?;
        }
        folder.remove_drafts()?;
    }
    for name in place.state.names()?.iter().filter(|name| name.starts_with(super::QUERY_ROWS)) {
        place.state.remove(name)?;
    }
    place.survey_folder().clear()?;
    place.parts.remove_drafts()?;
    place.state.remove_drafts()?;
    place.done_folder().remove_drafts()
}

/// The status of a job that is done.
pub(super) fn status(manifest: &Manifest, of_run: Status, splits: usize) -> Status {
    Status {
        rows: manifest.rows,
        total_rows: Some(manifest.rows),
        errors: manifest.errors,
        dropped: manifest.dropped,
        splits,
        total_splits: splits,
        eta_seconds: None,
        ..of_run
    }
}

/// What is told of a job that was done before.
pub(super) fn report(manifest: &Manifest, splits: usize) -> Report {
    let status = Status { state: "done".to_owned(), output: manifest.output.clone(), ..Status::default() };
    Report { status: self::status(manifest, status, splits), complete: true, was_complete: true }
}
