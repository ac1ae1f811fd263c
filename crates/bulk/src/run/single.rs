//! Splits one by one, as another machine asks for them: the job was planned there, and is ended there.

use super::{Checked, RunOptions, Shared, Work, survey};
use crate::input::{Found, chain};
use crate::job::{Format, Job};
use crate::pipeline::Calls;
use crate::place::{Identity, Place};
use crate::progress::Counts;
use crate::store::Stores;
use crate::{BulkError, Context, Range, Registry, Split};
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

/// A job of which splits can be done.
pub(crate) struct Single<'a> {
    work: &'a Work<'a>,
    shared: Option<Shared<'a>>,
}

impl<'a> Checked<'a> {
    /// A job whose input was found elsewhere.
    pub(crate) fn elsewhere(
        job: &'a Job,
        format: Format,
        registry: &Registry,
        context: &Context,
        stores: &'a Stores,
    ) -> Result<Checked<'a>, BulkError> {
        let prepared = super::prepare(job, registry, context)?;
        Ok(Checked {
            job,
            stores,
            found: Found { format, objects: Vec::new().into() },
            query: None,
            prepared,
        })
    }

    /// Splits whose notes for surveys are missing.
    pub(crate) fn unnoted<'w>(work: &Work<'w>) -> Result<Vec<&'w Split>, BulkError> {
        survey::missing(work)
    }

    /// Puts the notes of all splits together, for surveys that are not over.
    pub(crate) fn combine_notes(work: &Work<'_>) -> Result<(), BulkError> {
        survey::all(work).map(|_| ())
    }

    /// Sees that the job that lies at the output is the one of `identity` and would give the same results here, opens it
    /// for `phase`, and lets `body` do splits of it.
    pub(crate) fn with_plan<R>(
        &self,
        identity: &Identity,
        phase: Phase,
        options: &RunOptions,
        body: impl FnOnce(&Single<'_>) -> R,
    ) -> Result<R, BulkError> {
        let place = Place::of(self.job, self.stores)?;
        let cluster = |what: String| BulkError::Cluster { what, unreachable: false };
        let stored = place.stored_job()?;
        let Some((stored, plan)) = stored else {
            return Err(cluster(format!(
                "there is no job at {}, as seen from here: inputs and outputs lie on a disk that all machines share under \
                 one path, or in a bucket",
                place.uri
            )));
        };
        if stored != *identity {
            return Err(cluster(format!("{} holds another job, as seen from here", place.uri)));
        }
        let calls = self.calls(&plan)?;
        let here = Identity {
            // Of these, the one who planned the job knows more.
            input: stored.input.clone(),
            files: stored.files,
            ..self.identity(&calls, &place)
        };
        let differences = stored.differences(&here);
        if !differences.is_empty() {
            return Err(cluster(format!(
                "this executor would give other results: {}",
                differences.join("; ")
            )));
        }
        let work = Work {
            checked: self,
            plan: &plan,
            calls: &calls,
            place: &place,
            options,
            tell: &|_: &crate::Status| {},
        };
        let shared = match phase {
            Phase::Survey => None,
            Phase::Map => Some(work.opened()?),
        };
        Ok(body(&Single { work: &work, shared }))
    }
}

/// What is done with splits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// Notes of functions that look at all rows first.
    Survey,
    /// Parts of the output.
    Map,
}

impl<'a> Work<'a> {
    /// With the models of all functions in memory.
    fn opened(&'a self) -> Result<Shared<'a>, BulkError> {
        let found = survey::all(self)?;
        let format = self.checked.found.format;
        Ok(Shared {
            pipeline: Calls::open(self.calls, self.checked.job, format, &self.plan.schema, &found)?,
            counts: Counts::new(0, 0, 0, 0),
            pending: Vec::new(),
            next: AtomicUsize::new(0),
            turns: super::split::Turns::new(self.checked.job.run.workers),
            busy: AtomicUsize::new(0),
            halt: self.options.stop.clone(),
            failure: Mutex::default(),
        })
    }
}

impl Single<'_> {
    /// Does the split of this number and name. One that is done is left as it is.
    pub(crate) fn run(&self, index: usize, id: &str) -> Result<(), BulkError> {
        let Some(split) = self.work.plan.splits.get(index).filter(|split| split.id == id) else {
            return Err(BulkError::job(format!("the job has no split {index} of name {id}")));
        };
        let Some(shared) = &self.shared else {
            self.visible(split)?;
            return survey::note(self.work, split);
        };
        if self.work.place.is_done(split)? {
            return Ok(());
        }
        self.visible(split)?;
        self.work.attempt(shared, split)
    }

    /// Whether somebody asked for the job's end.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.work.place.is_cancelled()
    }

    /// Sees that this machine can read a split's files. A file that is gone is an error of its row; if all of them are,
    /// they are somewhere else.
    fn visible(&self, split: &Split) -> Result<(), BulkError> {
        let stores = self.work.checked.stores;
        let Range::Files { objects } = &split.range else { return Ok(()) };
        objects.iter().try_for_each(|object| stores.permit(&object.uri))?;
        let unseen = |error: BulkError| BulkError::Cluster {
            what: format!("no file of split {} can be read from here: {}", split.index, chain(&error)),
            unreachable: false,
        };
        let mut first = None;
        for object in objects {
            match stores.open(object) {
                Ok(_) => return Ok(()),
                Err(error) => first = first.or(Some(error)),
            }
        }
        first.map_or(Ok(()), |error| Err(unseen(error)))
    }
}
