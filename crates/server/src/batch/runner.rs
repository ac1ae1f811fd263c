//! Works on batches while the server runs, one at a time for each key.

use super::document::{BatchRecord, FileRecord, State};
use super::run::{BatchError, BatchFile, BatchStop, Whole, summarise};
use super::store::{Store, tenant};
use crate::App;
use crate::answer::random_id;
use kun_bulk::BulkError;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, UNIX_EPOCH};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Keys whose batches are worked on at the same time.
const AT_ONCE: usize = 4;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The batches of a server.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(super) store: Store,
    stopping: AtomicBool,
    /// One server at a time works on a folder.
    _lock: std::fs::File,
    /// Batches at work, by id.
    working: Mutex<BTreeMap<String, Work>>,
}

#[derive(Debug)]
struct Work {
    owner: String,
    stop: BatchStop,
}

pub(super) fn now() -> u64 {
    UNIX_EPOCH.elapsed().unwrap_or_default().as_secs()
}

impl Runner {
    /// Over what is in a folder.
    ///
    /// # Errors
    /// Those of the disk; [`io::ErrorKind::WouldBlock`] while another server has the folder.
    pub(crate) fn open(root: &Path) -> io::Result<Runner> {
        std::fs::create_dir_all(root)?;
        let lock = std::fs::File::create(root.join("lock"))?;
        lock.try_lock()?;
        Ok(Runner {
            store: Store::open(root)?,
            stopping: AtomicBool::new(false),
            _lock: lock,
            working: Mutex::default(),
        })
    }

    /// Works until [`Runner::stop`].
    pub(crate) fn start(app: &Arc<App>, handle: Handle) -> Option<JoinHandle<()>> {
        app.batches.get()?;
        let app = app.clone();
        let work = move || {
            let Some(runner) = app.batches.get() else { return };
            std::thread::scope(|scope| {
                // Half of the places stay free for whoever waits for an answer.
                let turns = Arc::new(Semaphore::new((app.slots() / 2).max(1)));
                while !runner.stopping.load(Ordering::Relaxed) {
                    while let Some((batch, stop)) = runner.next() {
                        let (app, handle, turns) = (&app, handle.clone(), turns.clone());
                        scope.spawn(move || runner.work(app, handle, turns, &batch, &stop));
                    }
                    runner.look();
                    std::thread::sleep(LOOK_EVERY);
                }
            });
        };
        std::thread::Builder::new().name("kun-batches".to_owned()).spawn(work).ok()
    }

    /// Ends the work; what is done is kept, and another process goes on.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.working().values().for_each(|work| work.stop.stop());
    }

    fn working(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Work>> {
        self.working.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest batch of a key that has none at work.
    fn next(&self) -> Option<(BatchRecord, BatchStop)> {
        let mut working = self.working();
        if working.len() >= AT_ONCE || self.stopping.load(Ordering::Relaxed) {
            return None;
        }
        let busy = |batch: &BatchRecord| working.values().any(|work| work.owner == batch.owner);
        let batch = self.store.oldest(|batch| !batch.status.ended() && !busy(batch))?;
        let stop = BatchStop::default();
        working.insert(batch.id.clone(), Work { owner: batch.owner.clone(), stop: stop.clone() });
        Some((batch, stop))
    }

    /// Cancels and ends in time what is at work.
    fn look(&self) {
        for (id, work) in self.working().iter() {
            match self.store.batch(id) {
                Some(batch) if batch.status == State::Cancelling => work.stop.cancel(),
                Some(batch) if now() >= batch.expires_at => work.stop.expire(),
                _ => {}
            }
        }
    }

    fn work(
        &self,
        app: &Arc<App>,
        handle: Handle,
        turns: Arc<Semaphore>,
        batch: &BatchRecord,
        stop: &BatchStop,
    ) {
        let ended = self.whole(app, handle, turns, batch, stop);
        if let Err(error) = ended {
            let stopped = matches!(error, BatchError::Job(BulkError::Stopped));
            if !stopped {
                tracing::error!(%error, batch = batch.id, "a batch failed");
                let changed = self.store.change(&batch.id, |batch| {
                    batch.status = State::Failed;
                    batch.failed_at = Some(now());
                    batch.errors = match error {
                        BatchError::Lines(wrong) => wrong,
                        _ => vec![serde_json::json!({
                            "code": "server_error",
                            "message": "The server could not work on this batch.",
                            "param": null,
                            "line": null,
                        })],
                    };
                });
                if let Err(error) = changed {
                    tracing::error!(%error, batch = batch.id, "the batch's record cannot be written");
                }
                // What was done of it is of no more use.
                let _ = std::fs::remove_dir_all(self.store.work(&batch.id));
            }
        }
        self.working().remove(&batch.id);
    }

    fn whole(
        &self,
        app: &Arc<App>,
        handle: Handle,
        turns: Arc<Semaphore>,
        batch: &BatchRecord,
        stop: &BatchStop,
    ) -> Result<(), BatchError> {
        let change = |change: &dyn Fn(&mut BatchRecord)| {
            let changed = self.store.change(&batch.id, change);
            changed.map_err(|source| BatchError::File {
                verb: "write",
                path: self.store.work(&batch.id),
                source,
            })
        };
        let input = self.store.content(&batch.input_file_id);
        if batch.status == State::Validating {
            let summary = summarise(&input, Some(&batch.endpoint))?;
            if !summary.wrong.is_empty() {
                return Err(BatchError::Lines(summary.wrong));
            }
            change(&|batch| {
                if batch.status == State::Validating {
                    batch.status = State::InProgress;
                }
                batch.in_progress_at = Some(now());
                batch.total = summary.requests;
            })?;
        }
        // What waited while it was cancelled, or over its time, is not begun.
        self.look();
        let work = self.store.work(&batch.id);
        let failed = |path: &Path, source| BatchError::File { verb: "write", path: path.to_owned(), source };
        std::fs::create_dir_all(&work).map_err(|source| failed(&work, source))?;
        let file = BatchFile {
            input,
            output: work.join("output.jsonl"),
            errors: work.join("errors.jsonl"),
            state: work.join("state"),
        };
        let whole = Whole { app, tenant: tenant(&batch.owner), handle, turns, file: &file, stop };
        let report = whole.run(&|progress| {
            let counted = self.store.change(&batch.id, |batch| {
                batch.completed = progress.completed;
                batch.failed = progress.failed;
            });
            if let Err(error) = counted {
                tracing::warn!(%error, "a batch's counts are not kept");
            }
        })?;
        let (output, errors) = (file.output.exists(), file.errors.exists());
        // Names are chosen once: a process that ends here writes the same files again.
        let named = change(&|batch| {
            if batch.status == State::InProgress {
                batch.status = State::Finalizing;
            }
            batch.finalizing_at = batch.finalizing_at.or(Some(now()));
            batch.total = report.progress.total;
            (batch.completed, batch.failed) = (report.progress.completed, report.progress.failed);
            let id = || format!("file-{}", random_id());
            if report.progress.completed > 0 && output {
                batch.output_file_id.get_or_insert_with(id);
            }
            if errors {
                batch.error_file_id.get_or_insert_with(id);
            }
        })?;
        let named = named.unwrap_or_else(|| batch.clone());
        let keep = |id: &Option<String>, path: &Path, kind: &str| -> Result<(), BatchError> {
            let Some(id) = id else { return Ok(()) };
            if !path.exists() {
                return Ok(());
            }
            let keep = || {
                let record = FileRecord {
                    id: id.clone(),
                    owner: batch.owner.clone(),
                    bytes: std::fs::metadata(path)?.len(),
                    created_at: now(),
                    filename: format!("{}_{kind}.jsonl", batch.id),
                    purpose: "batch_output".to_owned(),
                };
                self.store.keep(record, path)
            };
            keep().map_err(|source| failed(path, source))
        };
        keep(&named.output_file_id, &file.output, "output")?;
        keep(&named.error_file_id, &file.errors, "error")?;
        let expired = now() >= batch.expires_at && report.progress.failed > 0;
        change(&|batch| {
            let at = Some(now());
            match batch.status {
                State::Cancelling => (batch.status, batch.cancelled_at) = (State::Cancelled, at),
                _ if expired => (batch.status, batch.expired_at) = (State::Expired, at),
                _ => (batch.status, batch.completed_at) = (State::Completed, at),
            }
        })?;
        let _ = std::fs::remove_dir_all(&work);
        Ok(())
    }
}
