//! The first pass of functions that look at all rows.

use super::Work;
use crate::progress::Counts;
use crate::store::Folder;
use crate::survey::{Notes, Survey};
use crate::{BulkError, Split};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What all surveys of a job have found, by the place of their call. Notes that are there are not made again.
pub(super) fn all(work: &Work<'_>) -> Result<BTreeMap<usize, Vec<u8>>, BulkError> {
    let mut found = BTreeMap::new();
    let folder = work.place.survey_folder();
    for (call, columns, survey) in work.calls.surveys() {
        let name = format!("{call}-found");
        let bytes = match folder.read(&name, u64::MAX)? {
            Some(bytes) => bytes,
            None => {
                let pass = Pass { work, folder: &folder, call, columns, survey: &survey };
                let names = pass.run()?;
                let bytes = survey.combine(&mut Notes::new(folder.clone(), names))?;
                folder.create(&name, bytes.clone())?;
                bytes
            }
        };
        found.insert(call, bytes);
    }
    Ok(found)
}

/// Makes the notes of one split that are missing.
#[cfg(feature = "cluster")]
pub(super) fn note(work: &Work<'_>, split: &Split) -> Result<(), BulkError> {
    let folder = work.place.survey_folder();
    for (call, columns, survey) in work.calls.surveys() {
        let pass = Pass { work, folder: &folder, call, columns, survey: &survey };
        if folder.open(&pass.name(split)).is_err() {
            pass.split(split)?;
        }
    }
    Ok(())
}

/// Splits whose notes are missing, while no survey is over.
#[cfg(feature = "cluster")]
pub(super) fn missing<'a>(work: &Work<'a>) -> Result<Vec<&'a Split>, BulkError> {
    let folder = work.place.survey_folder();
    let there: BTreeSet<String> = folder.names()?.into_iter().collect();
    let calls: Vec<usize> = work.calls.surveys().iter().map(|(call, ..)| *call).collect();
    let over = |call: &&usize| there.contains(&format!("{call}-found"));
    let left: Vec<usize> = calls.iter().filter(|call| !over(call)).copied().collect();
    let lacks = |split: &&Split| left.iter().any(|call| !there.contains(&format!("{call}-{}", split.id)));
    Ok(work.plan.splits.iter().filter(lacks).collect())
}

struct Pass<'a> {
    work: &'a Work<'a>,
    folder: &'a Folder,
    call: usize,
    columns: &'a [String],
    survey: &'a Arc<dyn Survey>,
}

impl Pass<'_> {
    fn name(&self, split: &Split) -> String {
        format!("{}-{}", self.call, split.id)
    }

    /// Writes the notes that are missing, a shard its own first; gives the names of all, in the order of splits.
    fn run(&self) -> Result<Vec<String>, BulkError> {
        let splits = &self.work.plan.splits;
        let there: BTreeSet<String> = self.folder.names()?.into_iter().collect();
        let mut missing: Vec<&Split> =
            splits.iter().filter(|split| !there.contains(&self.name(split))).collect();
        if let Some((shard, of)) = self.work.options.shard {
            missing.sort_by_key(|split| ((split.index + of - shard) % of, split.index));
        }
        let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
        let fail = |error| {
            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            next.store(missing.len(), Ordering::Relaxed);
        };
        let (rows, bytes) = self.work.totals();
        let workers = self.work.checked.job.run.workers.min(missing.len());
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while let Some(split) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(error) = self.split(split) {
                            return fail(error);
                        }
                        let done =
                            splits.len() - missing.len() + next.load(Ordering::Relaxed).min(missing.len());
                        let counts = Counts::new(0, 0, done, 0);
                        (self.work.tell)(&counts.status(splits.len(), rows, bytes));
                    }
                });
            }
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(splits.iter().map(|split| self.name(split)).collect()),
        }
    }

    fn split(&self, split: &Split) -> Result<(), BulkError> {
        // Another shard may have been here meanwhile.
        if self.work.options.shard.is_some() && self.folder.names()?.contains(&self.name(split)) {
            return Ok(());
        }
        let (format, schema) = (self.work.checked.found.format, &self.work.plan.schema);
        let reading = self.work.calls.reading_of(self.columns, format, schema);
        let mut notes = Vec::new();
        for chunk in reading.open(self.work.checked.stores, split)? {
            if self.work.options.stop.is_raised() {
                return Err(BulkError::Stopped);
            }
            let chunk = chunk?;
            let unreadable: Vec<usize> = chunk.errors.iter().map(|(row, _)| *row).collect();
            self.survey.note(&mut notes, chunk.batch.columns(), &unreadable)?;
        }
        self.folder.create(&self.name(split), self.survey.finish(notes))?;
        Ok(())
    }
}
