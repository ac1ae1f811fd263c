//! Jobs on an executor: one thread keeps a job's models and plan, a few more do its splits.

use super::request::{Answer, End, Request, Sealed, Token};
use crate::error::OutsideError;
use crate::input::chain;
use crate::run::Single;
use crate::store::{Allow, StoreOptions, Stores, is_remote};
use crate::{BulkError, Checked, Context, FoundModel, Models, Registry, RunOptions, Stop};
use kun_engine::Engine;
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// A job that nobody has asked for so long lets its models go.
const IDLE: Duration = Duration::from_secs(120);
/// How often a job looks whether it was ended.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// An answer is held back no longer.
const MOST_WAIT: Duration = Duration::from_secs(60);
const TRIES: usize = 3;

/// What an executor works with.
pub(crate) struct Worker {
    pub(super) registry: Registry,
    pub(super) engine: Engine,
    pub(super) models: Arc<dyn Models>,
    pub(super) stores: StoreOptions,
    pub(super) allow: Allow,
    pub(super) threads: Option<usize>,
    pub(super) token: Option<Token>,
    /// Splits at once.
    pub(super) workers: usize,
    /// For people who read why a split was not done.
    pub(super) name: String,
    /// Ends all jobs after the rows at work.
    pub(super) stop: Stop,
    /// Tells whoever watches this executor.
    pub(super) say: Arc<dyn Fn(&str) + Send + Sync>,
    pub(super) jobs: Mutex<HashMap<[u8; 32], Sender<Ask>>>,
    /// Splits at work here.
    pub(super) at_work: Mutex<HashSet<([u8; 32], u64)>>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Worker")
    }
}

/// A split that somebody waits for.
pub(super) struct Ask {
    index: u64,
    id: String,
    answer: oneshot::Sender<(End, String)>,
}

/// A split at work here, until it is dropped: its end, or that nobody waits for it any more.
struct AtWork<'a> {
    worker: &'a Worker,
    work: ([u8; 32], u64),
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        locked(&self.worker.at_work).remove(&self.work);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Worker {
    /// Does a split, and says how it ended. That it is not done is said after `wait`: one that cannot do what others can
    /// must not be the first to take every split.
    pub(super) async fn split(
        self: Arc<Worker>,
        sealed: Arc<Sealed>,
        index: u64,
        id: String,
        wait: Duration,
    ) -> Answer {
        let (end, reason) = match sealed.check(self.token.as_ref()) {
            Err(what) => (End::Refused, what),
            Ok(()) => {
                let work = (sealed.digest(), index);
                if locked(&self.at_work).insert(work) {
                    let _at_work = AtWork { worker: &self, work };
                    self.ask(&sealed, index, id).await
                } else {
                    // Dealt out once more, so that another executor does it.
                    (End::Stopped, "this executor is at work on it".to_owned())
                }
            }
        };
        if matches!(end, End::Failed | End::Refused) {
            (self.say)(&format!("split {index} was not done: {reason}"));
            tokio::select! {
                () = tokio::time::sleep(wait.min(MOST_WAIT)) => {}
                () = super::raised(&self.stop) => {}
            }
        }
        Answer { index, end, reason, executor: self.name.clone() }
    }

    /// Whether no job is open.
    pub(super) fn is_idle(&self) -> bool {
        locked(&self.jobs).is_empty()
    }

    async fn ask(self: &Arc<Worker>, sealed: &Arc<Sealed>, index: u64, id: String) -> (End, String) {
        if self.stop.is_raised() {
            return (End::Stopped, "the executor is being stopped".to_owned());
        }
        // A job that ends here while somebody asks for a split of it is begun anew.
        for _ in 0..TRIES {
            let sender = match self.begin(sealed) {
                Ok(sender) => sender,
                Err(what) => return (End::Refused, what),
            };
            let (answer, answered) = oneshot::channel();
            if sender.send(Ask { index, id: id.clone(), answer }).is_ok()
                && let Ok(ended) = answered.await
            {
                return ended;
            }
        }
        crashed()
    }

    /// Starts the thread of a job, unless another has done so meanwhile.
    fn begin(self: &Arc<Worker>, sealed: &Arc<Sealed>) -> Result<Sender<Ask>, String> {
        if let Some(sender) = locked(&self.jobs).get(&sealed.digest()) {
            return Ok(sender.clone());
        }
        let request = sealed.open()?;
        let version = env!("CARGO_PKG_VERSION");
        if request.identity.version != version {
            return Err(format!(
                "the job is of kun {}, this executor of kun {version}",
                request.identity.version
            ));
        }
        let mut jobs = locked(&self.jobs);
        if let Some(sender) = jobs.get(&sealed.digest()) {
            return Ok(sender.clone());
        }
        let (sender, receiver) = channel();
        let (worker, digest) = (self.clone(), sealed.digest());
        let spawned = std::thread::Builder::new().name("kun-job".to_owned()).spawn(move || {
            worker.host(&request, receiver, &digest);
        });
        spawned.map_err(|error| format!("cannot start a thread: {error}"))?;
        jobs.insert(sealed.digest(), sender.clone());
        Ok(sender)
    }

    /// A job from its first split here to its last.
    fn host(self: &Arc<Worker>, request: &Request, receiver: Receiver<Ask>, digest: &[u8; 32]) {
        let output = request.job.output.uri.clone();
        (self.say)(&format!("{output}: begun"));
        let receiver = Mutex::new(receiver);
        let done = catch_unwind(AssertUnwindSafe(|| self.open(request, &receiver)));
        let failed = match done {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some((End::of_error(&error), chain(&error))),
            Err(_) => Some(crashed()),
        };
        // Nobody is sent to a job that has ended; whoever was on the way is told why it failed, or asks again.
        locked(&self.jobs).remove(digest);
        let receiver = receiver.into_inner().unwrap_or_else(PoisonError::into_inner);
        while let (Some(failed), Ok(ask)) = (&failed, receiver.recv_timeout(Duration::from_millis(50))) {
            let _ = ask.answer.send(failed.clone());
        }
        (self.say)(&format!("{output}: ended here"));
    }

    /// Loads what the job needs and does splits until nobody asks for more.
    fn open(&self, request: &Request, receiver: &Mutex<Receiver<Ask>>) -> Result<(), BulkError> {
        let stores = Stores::new(StoreOptions {
            base: Some(request.base.clone()),
            allow: Some(self.allow.fresh()),
            ..self.stores.clone()
        });
        let mut job = request.job.clone();
        // Of all machines' rows, the client knows.
        job.errors.max_rate = 1.0;
        job.run.workers = self.workers;
        let models =
            Guarded { inner: self.models.clone(), stores: stores.clone(), base: request.base.clone() };
        let context = Context::new(self.engine.clone(), Arc::new(models), stores.clone(), self.threads);
        let checked = Checked::elsewhere(&job, request.format, &self.registry, &context, &stores)?;
        let options = RunOptions::default();
        checked.with_plan(&request.identity, request.phase, &options, |single| {
            self.work(single, &options.stop, receiver);
        })
    }

    fn work(&self, single: &Single<'_>, stop: &Stop, receiver: &Mutex<Receiver<Ask>>) {
        let busy = Mutex::new((0_usize, Instant::now()));
        let mut looked = Instant::now();
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.workers)
                .map(|_| scope.spawn(|| self.splits(single, stop, receiver, &busy)))
                .collect();
            while !workers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                std::thread::sleep(Duration::from_millis(50));
                let due = looked.elapsed() > LOOK_EVERY;
                if due {
                    looked = Instant::now();
                }
                if self.stop.is_raised() || (due && single.is_cancelled()) {
                    stop.raise();
                }
            }
        });
    }

    /// Does splits as they are asked for.
    fn splits(
        &self,
        single: &Single<'_>,
        stop: &Stop,
        receiver: &Mutex<Receiver<Ask>>,
        busy: &Mutex<(usize, Instant)>,
    ) {
        loop {
            let asked = locked(receiver).recv_timeout(Duration::from_millis(100));
            let ask = match asked {
                Ok(ask) => ask,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    let (at_work, last) = *locked(busy);
                    if stop.is_raised() || (at_work == 0 && last.elapsed() > IDLE) {
                        return;
                    }
                    continue;
                }
            };
            locked(busy).0 += 1;
            let index = usize::try_from(ask.index).unwrap_or(usize::MAX);
            let ended = match stop.is_raised() {
                true => Ok(Err(BulkError::Stopped)),
                false => catch_unwind(AssertUnwindSafe(|| single.run(index, &ask.id))),
            };
            let answer = match ended {
                Ok(Ok(())) => (End::Done, String::new()),
                Ok(Err(error)) => (End::of_error(&error), chain(&error)),
                Err(_) => crashed(),
            };
            let _ = ask.answer.send(answer);
            let mut busy = locked(busy);
            *busy = (busy.0 - 1, Instant::now());
        }
    }
}

fn crashed() -> (End, String) {
    (End::Failed, "the work on this job crashed; the executor's own words say more".to_owned())
}

/// Finds models, of those that a job may name: of the store and its sources by name, and files and folders where this
/// executor may read.
struct Guarded {
    inner: Arc<dyn Models>,
    stores: Stores,
    base: PathBuf,
}

impl Models for Guarded {
    fn find(&self, task: &str, name: Option<&str>) -> Result<FoundModel, OutsideError> {
        let Some(name) = name else { return self.inner.find(task, None) };
        if is_remote(name) {
            // Repositories come from the sources that this machine's own settings name.
            if !["hf://", "ms://"].iter().any(|source| name.starts_with(source)) {
                self.stores.permit(name)?;
            }
            return self.inner.find(task, Some(name));
        }
        let plain = name.strip_prefix("file://").unwrap_or(name);
        let path = self.base.join(plain);
        let marked = plain.starts_with(['/', '.', '~']) || plain.contains('\\');
        if marked || path.exists() || Path::new(plain).exists() {
            self.stores.permit(plain)?;
            let found = self.inner.find(task, path.to_str())?;
            // The name that the client's own result has.
            return Ok(FoundModel { name: name.to_owned(), ..found });
        }
        self.inner.find(task, Some(name))
    }
}
