//! A job from its description to its output.

mod finish;
mod sample;
#[cfg(feature = "cluster")]
mod single;
mod split;
mod survey;

pub use sample::Estimate;
#[cfg(feature = "cluster")]
pub(crate) use single::{Phase, Single};

use crate::function::{Context, Registry, Stop};
use crate::input::{self, Found, Plan};
use crate::job::{Format, Job};
use crate::pipeline::{Calls, Pipeline};
use crate::place::{DoneSplit, Identity, Place};
use crate::progress::{Counts, Status};
use crate::sql::Query;
use crate::store::{Folder, Stores};
use crate::{BulkError, Split};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How this run of a job goes; none of it changes results.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Only splits whose number leaves this remainder: `(i, n)` with `i < n`.
    pub shard: Option<(usize, usize)>,
    /// Raised to end the run after the rows at work; they are kept.
    pub stop: Stop,
}

/// What a run has done.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Where the job stands.
    pub status: Status,
    /// Whether the output is complete.
    pub complete: bool,
    /// Whether there was nothing left to do.
    pub was_complete: bool,
}

/// Names of files with the rows of queries begin so.
const QUERY_ROWS: &str = "query-";
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_millis(200);
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// Before a split that could not be read or written is tried again; doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// A job whose description was checked against its input.
pub struct Checked<'a> {
    pub(crate) job: &'a Job,
    stores: &'a Stores,
    found: Found,
    query: Option<Query>,
    prepared: Vec<Arc<dyn crate::Prepared>>,
}

/// Finds the input and checks every call; loads no model.
///
/// # Errors
/// [`BulkError::Job`], [`BulkError::Input`], [`BulkError::Model`].
pub fn check<'a>(
    job: &'a Job,
    registry: &Registry,
    context: &Context,
    stores: &'a Stores,
) -> Result<Checked<'a>, BulkError> {
    let prepared = prepare(job, registry, context)?;
    let query = job.input.query.as_ref().map(|text| Query::new(text, registry, context)).transpose()?;
    let found = match &query {
        // Its rows will be a Parquet file; what it reads is what the job depends on.
        Some(query) => Found { format: Format::Parquet, objects: query.objects().to_vec().into() },
        None => input::discover(stores, &job.input)?,
    };
    Ok(Checked { job, stores, found, query, prepared })
}

/// The functions of a job whose description is right.
fn prepare(
    job: &Job,
    registry: &Registry,
    context: &Context,
) -> Result<Vec<Arc<dyn crate::Prepared>>, BulkError> {
    job.check()?;
    job.map.iter().map(|call| registry.prepare(call, context)).collect()
}

impl Checked<'_> {
    /// The input's files.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// A digest of the files that the input has, or that a query reads, and of the query.
    fn input_digest(&self) -> String {
        let mut digest = blake3::Hasher::new();
        for info in &self.found.objects {
            for text in [&info.uri, &info.etag, &info.size.to_string()] {
                digest.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
            }
        }
        if let Some(query) = &self.job.input.query {
            digest.update(query.as_bytes());
        }
        digest.finalize().to_hex()[..32].to_owned()
    }

    /// How the input is cut. The rows of a query come first into a file of `folder`; whoever comes first writes it.
    fn plan(&self, folder: &Folder, most: Option<usize>, stop: &Stop) -> Result<Plan, BulkError> {
        let Some(query) = &self.query else {
            return input::plan(self.stores, &self.found, self.job.run.split);
        };
        let name = format!("{QUERY_ROWS}{}.parquet", &self.input_digest()[..16]);
        if !folder.names()?.contains(&name) {
            query.save(folder, &name, most, stop)?;
        }
        let objects = vec![self.stores.info(&folder.uri(&name))?].into();
        input::plan(self.stores, &Found { format: Format::Parquet, objects }, self.job.run.split)
    }

    fn identity(&self, calls: &Calls, place: &Place) -> Identity {
        Identity {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            input: self.input_digest(),
            files: self.found.objects.len(),
            format: self.found.format,
            columns: calls.kept().to_vec(),
            query: self.job.input.query.clone(),
            condition: self.job.input.condition.clone(),
            functions: calls.identities(),
            errors: self.job.errors.column.clone(),
            output: place.format,
        }
    }

    fn calls(&self, plan: &Plan) -> Result<Calls, BulkError> {
        Calls::new(self.job, self.prepared.clone(), self.found.format, &plan.schema)
    }

    /// Does what is left of the job: all of it, or a shard's share.
    ///
    /// # Errors
    /// [`BulkError::Changed`], [`BulkError::Busy`], [`BulkError::Stopped`] with everything done so far kept, and whatever
    /// ends a job.
    pub fn run(&self, options: &RunOptions, tell: &(dyn Fn(&Status) + Sync)) -> Result<Report, BulkError> {
        self.run_by(options, tell, |work, done| work.run(done))
    }

    /// Begins or goes on with the job, lets `labour` do the splits that are not among those done, and ends it.
    pub(crate) fn run_by(
        &self,
        options: &RunOptions,
        tell: &(dyn Fn(&Status) + Sync),
        labour: impl FnOnce(&Work<'_>, &BTreeMap<String, DoneSplit>) -> Result<Status, BulkError>,
    ) -> Result<Report, BulkError> {
        let place = Place::of(self.job, self.stores)?;
        let lock = match options.shard {
            None => "lock".to_owned(),
            Some((shard, of)) => format!("lock-{shard}-{of}"),
        };
        // What stands there already tells the columns, so that a job that is done reads no file of its input.
        let (plan, calls, identity) = match place.stored_plan()? {
            Some(plan) => {
                let calls = self.calls(&plan)?;
                let identity = self.identity(&calls, &place);
                let plan = place.begun(&identity)?.unwrap_or(plan);
                (plan, calls, identity)
            }
            None => {
                place.refuse_foreign()?;
                let plan = self.plan(&place.state, None, &options.stop)?;
                let calls = self.calls(&plan)?;
                let identity = self.identity(&calls, &place);
                let plan = place.begin(&identity, plan)?;
                (plan, calls, identity)
            }
        };
        if let Some(manifest) = place.finished()? {
            return Ok(finish::report(&manifest, plan.splits.len()));
        }
        let _lock = place.state.lock(&lock)?;
        // It may have been finished while we waited for nothing.
        if let Some(manifest) = place.finished()? {
            return Ok(finish::report(&manifest, plan.splits.len()));
        }
        place.state.remove("cancel")?;
        let done = place.done(&plan.splits)?;
        let work = Work { checked: self, plan: &plan, calls: &calls, place: &place, options, tell };
        let mut status = labour(&work, &done).inspect_err(|error| {
            let (state, why) = match error {
                BulkError::Stopped => ("stopped", None),
                error => ("failed", Some(input::chain(error))),
            };
            // The error that ended the job is the one to tell.
            let _ = work.write_status(state, why);
        })?;
        let done = place.done(&plan.splits)?;
        // Another shard may have put the parts together already.
        if let Some(manifest) = place.finished()? {
            return Ok(finish::report(&manifest, plan.splits.len()));
        }
        let complete = done.len() == plan.splits.len();
        if complete {
            let manifest = finish::finish(&place, &plan, done, identity, || {
                let nothing = BTreeMap::new();
                Ok(calls.open(self.job, self.found.format, &plan.schema, &nothing)?.schema().clone())
            })?;
            status = finish::status(&manifest, status, plan.splits.len());
        }
        status.state = if complete { "done" } else { "waiting" }.to_owned();
        work.keep_status(&status)?;
        Ok(Report { status, complete, was_complete: false })
    }
}

/// One run of a job.
pub(crate) struct Work<'a> {
    pub(crate) checked: &'a Checked<'a>,
    pub(crate) plan: &'a Plan,
    pub(crate) calls: &'a Calls,
    pub(crate) place: &'a Place,
    pub(crate) options: &'a RunOptions,
    pub(crate) tell: &'a (dyn Fn(&Status) + Sync),
}

/// What workers share.
struct Shared<'a> {
    pipeline: Pipeline,
    counts: Counts,
    pending: Vec<&'a Split>,
    next: AtomicUsize,
    turns: split::Turns,
    /// Splits whose rows are at functions.
    busy: AtomicUsize,
    /// Ends all workers: the user's wish, or the first error.
    halt: Stop,
    failure: Mutex<Option<BulkError>>,
}

impl Shared<'_> {
    fn fail(&self, error: BulkError) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        // That work was halted says less than what halted it.
        if failure.is_none() || matches!(*failure, Some(BulkError::Stopped)) {
            *failure = Some(error);
        }
        self.halt.raise();
    }
}

impl Work<'_> {
    /// Splits that are to be done, in their order.
    pub(crate) fn pending(&self, done: &BTreeMap<String, DoneSplit>) -> Vec<&Split> {
        let mine = |split: &&Split| self.options.shard.is_none_or(|(shard, of)| split.index % of == shard);
        self.plan.splits.iter().filter(mine).filter(|split| !done.contains_key(&split.id)).collect()
    }

    /// Rows, where they are known, and bytes of all splits.
    pub(crate) fn totals(&self) -> (Option<u64>, u64) {
        let rows = self.plan.splits.iter().map(|split| split.rows).sum();
        (rows, self.plan.splits.iter().map(|split| split.bytes).fold(0, u64::saturating_add))
    }

    fn status_name(&self) -> String {
        match self.options.shard {
            None => "status.json".to_owned(),
            Some((shard, of)) => format!("status-{shard}-{of}.json"),
        }
    }

    pub(crate) fn keep_status(&self, status: &Status) -> Result<(), BulkError> {
        let status = Status { output: self.place.uri.clone(), ..status.clone() };
        self.place.state.replace(&self.status_name(), crate::place::json(&status))
    }

    /// Changes the state of the status that was written last.
    fn write_status(&self, state: &str, error: Option<String>) -> Result<(), BulkError> {
        let bytes = self.place.state.read(&self.status_name(), 1 << 20)?.unwrap_or_default();
        let last: Status = serde_json::from_slice(&bytes).unwrap_or_default();
        self.keep_status(&Status { state: state.to_owned(), error, eta_seconds: None, ..last })
    }

    /// Counts that begin with what is done.
    pub(crate) fn counts(&self, done: &BTreeMap<String, DoneSplit>) -> Counts {
        let (rows, errors) = done.values().fold((0, 0), |(r, e), d| (r + d.rows, e + d.errors));
        let dropped = done.values().map(|done| done.dropped).sum();
        let bytes =
            self.plan.splits.iter().filter(|split| done.contains_key(&split.id)).map(|s| s.bytes).sum();
        Counts::new(rows, errors, done.len(), bytes).with_dropped(dropped)
    }

    fn run(&self, done: &BTreeMap<String, DoneSplit>) -> Result<Status, BulkError> {
        let pending = self.pending(done);
        let (total_rows, total_bytes) = self.totals();
        let counts = || self.counts(done);
        let now = |counts: &Counts| counts.status(self.plan.splits.len(), total_rows, total_bytes);
        if pending.is_empty() {
            return Ok(now(&counts()));
        }
        let found = survey::all(self)?;
        let format = self.checked.found.format;
        let pipeline = self.calls.open(self.checked.job, format, &self.plan.schema, &found)?;
        let shared = Shared {
            pipeline,
            // Begun now: loading models is no work on rows.
            counts: counts(),
            pending,
            next: AtomicUsize::new(0),
            turns: split::Turns::new(self.checked.job.run.workers),
            busy: AtomicUsize::new(0),
            halt: Stop::default(),
            failure: Mutex::default(),
        };
        self.keep_status(&now(&shared.counts))?;
        let workers = self.checked.job.run.workers.min(shared.pending.len());
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..workers).map(|_| scope.spawn(|| self.work(&shared))).collect();
            let (mut told, mut kept) = (Instant::now(), Instant::now());
            while !workers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                std::thread::sleep(Duration::from_millis(5));
                if self.options.stop.is_raised() {
                    shared.halt.raise();
                }
                if told.elapsed() >= TELL_EVERY {
                    (self.tell)(&now(&shared.counts));
                    told = Instant::now();
                }
                if kept.elapsed() >= STATUS_EVERY {
                    self.look(&shared, &now(&shared.counts));
                    kept = Instant::now();
                }
            }
        });
        let status = now(&shared.counts);
        (self.tell)(&status);
        self.keep_status(&status)?;
        let failure = shared.failure.into_inner().unwrap_or_else(PoisonError::into_inner);
        match failure {
            Some(error) => Err(error),
            None if shared.halt.is_raised() => Err(BulkError::Stopped),
            None => Ok(status),
        }
    }

    /// Writes the status, and sees whether somebody wants the job to end. Neither ends the job by failing.
    fn look(&self, shared: &Shared<'_>, status: &Status) {
        if let Err(error) = self.keep_status(status) {
            tracing::warn!(%error, "cannot write the status");
        }
        if self.place.is_cancelled() {
            shared.halt.raise();
        }
    }

    fn work(&self, shared: &Shared<'_>) {
        while !shared.halt.is_raised() {
            let Some(split) = shared.pending.get(shared.next.fetch_add(1, Ordering::Relaxed)) else { return };
            if let Err(error) = self.attempt(shared, split) {
                return shared.fail(error);
            }
        }
    }

    /// Does a split, and again while that may help.
    fn attempt(&self, shared: &Shared<'_>, split: &Split) -> Result<(), BulkError> {
        let mut wait = FIRST_WAIT;
        let mut tries = 0;
        loop {
            match split::run(self, shared, split) {
                Err(error)
                    if tries < self.checked.job.errors.retry
                        && may_pass(&error)
                        && !shared.halt.is_raised() =>
                {
                    tracing::warn!(%error, split = split.id, "trying again");
                    std::thread::sleep(wait);
                    (wait, tries) = (wait * 2, tries + 1);
                }
                ended => return ended,
            }
        }
    }
}

/// Whether reading or writing once more may help.
fn may_pass(error: &BulkError) -> bool {
    use std::io::ErrorKind;
    match error {
        BulkError::Store { verb: "read" | "open", .. } => true,
        BulkError::Store { source, .. } => {
            matches!(source.kind(), ErrorKind::TimedOut | ErrorKind::Interrupted | ErrorKind::ConnectionReset)
        }
        _ => false,
    }
}
