//! A file of requests as a job of `kun-bulk`.

use super::ask::{Answered, ask, unanswered};
use super::line;
use crate::{App, routes};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, StringArray};
use arrow_schema::DataType;
use axum::Router;
use kun_bulk::job::{Dedup, Format};
use kun_bulk::store::{StoreOptions, Stores};
use kun_bulk::{
    BulkError, Call, Context, Factory, Function, Job, Limits, NoModels, Outcome, Output, Prepared, Registry,
    RowError, RunOptions, Status, Stop,
};
use kun_engine::Tenant;
use serde_json::Value;
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Why a file of requests was not worked through.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// Lines that are no requests.
    #[error("{}", words(.0))]
    Lines(Vec<Value>),
    /// A file cannot be read or written.
    #[error("cannot {verb} {path}")]
    File {
        /// What was tried.
        verb: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The job ended.
    #[error(transparent)]
    Job(#[from] BulkError),
}

fn words(wrong: &[Value]) -> String {
    let one = |wrong: &Value| {
        let message = wrong["message"].as_str().unwrap_or_default();
        wrong["line"].as_u64().map_or_else(|| message.to_owned(), |line| format!("line {line}: {message}"))
    };
    wrong.iter().take(5).map(one).collect::<Vec<_>>().join("\n")
}

/// A file of requests, and where the answers go.
#[derive(Clone, Debug)]
pub struct BatchFile {
    /// A request a line, in OpenAI's shape.
    pub input: PathBuf,
    /// Answers.
    pub output: PathBuf,
    /// What was refused or failed; the file is there only if something did.
    pub errors: PathBuf,
    /// What is done so far.
    pub state: PathBuf,
}

/// How far a file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchProgress {
    /// All requests.
    pub total: usize,
    /// Answered ones.
    pub completed: usize,
    /// Refused or failed ones.
    pub failed: usize,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchReport {
    /// Its requests.
    pub progress: BatchProgress,
    /// Whether it was all done before.
    pub was_complete: bool,
}

/// Ends the work on a file.
#[derive(Clone, Debug, Default)]
pub struct BatchStop {
    stop: Stop,
    /// What becomes of requests that are not answered yet.
    rest: Arc<AtomicU8>,
}

/// They stay, for another run.
const STAY: u8 = 0;
const CANCELLED: u8 = 1;
const EXPIRED: u8 = 2;

impl BatchStop {
    /// What is done is kept; the same file goes on later.
    pub fn stop(&self) {
        self.stop.raise();
    }

    /// Requests without an answer get none.
    pub(super) fn cancel(&self) {
        self.rest.store(CANCELLED, Ordering::Relaxed);
    }

    /// Requests without an answer are errors.
    pub(super) fn expire(&self) {
        self.rest.store(EXPIRED, Ordering::Relaxed);
    }

    fn rest(&self) -> u8 {
        self.rest.load(Ordering::Relaxed)
    }
}

/// Counts a file's requests and names the models that they ask for; `None` stands for the default one.
///
/// # Errors
/// [`BatchError::Lines`], [`BatchError::File`].
pub fn models(input: &Path) -> Result<(usize, Vec<Option<String>>), BatchError> {
    let summary = summarise(input, None)?;
    if !summary.wrong.is_empty() {
        return Err(BatchError::Lines(summary.wrong));
    }
    let default = summary.default_model.then_some(None);
    Ok((summary.requests, summary.models.into_iter().map(Some).chain(default).collect()))
}

pub(super) fn summarise(input: &Path, endpoint: Option<&str>) -> Result<line::Summary, BatchError> {
    let failed = |source| BatchError::File { verb: "read", path: input.to_owned(), source };
    let file = std::fs::File::open(input).map_err(failed)?;
    line::summarise(BufReader::with_capacity(1 << 20, file), endpoint).map_err(failed)
}

/// Answers a file with the models of `app`, without any server, and writes its answers.
///
/// # Errors
/// [`BatchError`]; with [`BulkError::Stopped`] in it, what is done is kept.
pub fn run_file(
    app: &Arc<App>,
    file: &BatchFile,
    stop: &BatchStop,
    tell: &(dyn Fn(BatchProgress) + Sync),
) -> Result<BatchReport, BatchError> {
    let failed = |source| BatchError::File { verb: "start", path: "the runtime".into(), source };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(app.slots() * 2 + 16)
        .enable_all()
        .build()
        .map_err(failed)?;
    let turns = Arc::new(Semaphore::new(app.slots()));
    let whole = Whole { app, tenant: Tenant::default(), handle: runtime.handle().clone(), turns, file, stop };
    let report = whole.run(tell);
    runtime.shutdown_timeout(Duration::from_secs(1));
    report
}

/// A file at work.
pub(super) struct Whole<'a> {
    pub app: &'a Arc<App>,
    pub tenant: Tenant,
    pub handle: Handle,
    /// Places for requests that are answered together.
    pub turns: Arc<Semaphore>,
    pub file: &'a BatchFile,
    pub stop: &'a BatchStop,
}

impl Whole<'_> {
    /// Answers what is left, then writes the answers.
    pub(super) fn run(&self, tell: &(dyn Fn(BatchProgress) + Sync)) -> Result<BatchReport, BatchError> {
        let answers = self.file.state.join("answers.jsonl");
        let mut job = Job::default();
        job.input.uri = vec![self.file.input.to_string_lossy().into_owned()];
        job.input.format = Some(Format::Lines);
        job.input.columns = Some(Vec::new());
        job.map.push(Call::parse("ask(text) as line")?);
        job.output.uri = answers.to_string_lossy().into_owned();
        job.errors.max_rate = 1.0;
        job.errors.retry = 0;
        job.run.dedup = Dedup::Off;
        job.run.workers = 1;
        job.run.checkpoint = Duration::from_secs(1);
        let stores = Stores::new(StoreOptions::default());
        let context =
            Context::new(self.app.library.engine().clone(), Arc::new(NoModels), stores.clone(), None);
        let mut registry = Registry::default();
        registry.add(Asking {
            router: routes::router(self.app),
            tenant: self.tenant,
            handle: self.handle.clone(),
            at_once: self.app.slots(),
            turns: self.turns.clone(),
            stop: self.stop.clone(),
        });
        let options = RunOptions { shard: None, stop: self.stop.stop.clone() };
        let progress = |status: &Status| {
            let failed = usize::try_from(status.errors).unwrap_or(usize::MAX);
            let rows = usize::try_from(status.rows).unwrap_or(usize::MAX);
            BatchProgress { total: 0, completed: rows.saturating_sub(failed), failed }
        };
        let done = self.file.output.exists();
        let report = kun_bulk::check(&job, &registry, &context, &stores)?
            .run(&options, &|status| tell(progress(status)))?;
        let was_complete = report.was_complete && done;
        let failed = |source| BatchError::File { verb: "write", path: self.file.output.clone(), source };
        let progress = write(&answers, self.file).map_err(failed)?;
        Ok(BatchReport { progress, was_complete })
    }
}

/// Takes answers and errors apart. Both files appear as a whole.
fn write(answers: &Path, file: &BatchFile) -> io::Result<BatchProgress> {
    let part = |path: &Path| {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        path.with_file_name(name)
    };
    let (good, bad) = (part(&file.output), part(&file.errors));
    let mut output = BufWriter::new(std::fs::File::create(&good)?);
    let mut errors = BufWriter::new(std::fs::File::create(&bad)?);
    let mut progress = BatchProgress::default();
    for row in BufReader::with_capacity(1 << 20, std::fs::File::open(answers)?).lines() {
        let row: Value = serde_json::from_str(&row?).map_err(io::Error::other)?;
        match (row["line"].as_str(), row["_error"].as_str()) {
            (Some(EMPTY), _) => continue,
            (Some(line), _) => {
                writeln!(output, "{line}")?;
                progress.completed += 1;
            }
            (None, Some(error)) => {
                // `line: fatal: {..}`
                let line = error.split_once('{').map(|(_, rest)| format!("{{{rest}"));
                if error.ends_with(WITHOUT) {
                    progress.total += 1;
                    continue;
                }
                let line = line.unwrap_or_else(|| unanswered("", "failed", error).to_string());
                writeln!(errors, "{line}")?;
                progress.failed += 1;
            }
            (None, None) => continue,
        }
    }
    progress.total += progress.completed + progress.failed;
    output.into_inner()?.sync_all()?;
    errors.into_inner()?.sync_all()?;
    if progress.failed > 0 {
        std::fs::rename(&bad, &file.errors)?;
    } else {
        std::fs::remove_file(&bad)?;
    }
    std::fs::rename(&good, &file.output)?;
    Ok(progress)
}

/// A line without a request has this answer.
const EMPTY: &str = "";
/// The reason of requests that get no answer because their batch was cancelled.
const WITHOUT: &str = "cancelled";

/// `ask(line)`: the function of such a job.
#[derive(Clone)]
struct Asking {
    router: Router,
    tenant: Tenant,
    handle: Handle,
    at_once: usize,
    turns: Arc<Semaphore>,
    stop: BatchStop,
}

struct Ready {
    asking: Asking,
    columns: Vec<String>,
}

impl Factory for Asking {
    fn name(&self) -> &'static str {
        "ask"
    }

    fn usage(&self) -> &'static str {
        "ask(line) -> line"
    }

    fn prepare(&self, call: &Call, _: &Context) -> Result<Arc<dyn Prepared>, BulkError> {
        Ok(Arc::new(Ready { asking: self.clone(), columns: call.only_columns(1, 1)? }))
    }
}

impl Prepared for Ready {
    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn identity(&self) -> Value {
        Value::from("ask")
    }

    fn open(&self) -> Result<Arc<dyn Function>, BulkError> {
        Ok(Arc::new(self.asking.clone()))
    }
}

/// What a row becomes.
type Written = Result<String, RowError>;

impl Function for Asking {
    fn output(&self) -> Output {
        Output::column(DataType::Utf8)
    }

    fn limits(&self) -> Limits {
        Limits { rows: 4 * self.at_once, bytes: 64 << 20, cheap: true }
    }

    fn call(&self, columns: &[ArrayRef], rows: usize, stop: &Stop) -> Result<Outcome, BulkError> {
        let texts: &StringArray = columns[0].as_string();
        let lines = (0..rows).map(|row| if texts.is_null(row) { "" } else { texts.value(row) }.to_owned());
        let answers = self.handle.block_on(self.all(lines.collect(), stop))?;
        let mut errors = Vec::new();
        let column: StringArray = answers
            .into_iter()
            .enumerate()
            .map(|(row, answer)| match answer {
                Ok(line) => Some(line),
                Err(error) => {
                    errors.push((row, error));
                    None
                }
            })
            .collect();
        Ok(Outcome { column: Arc::new(column), errors, tokens: 0 })
    }
}

/// How soon a stop is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Asking {
    /// Answers to all lines, as many at once as the server decodes together.
    async fn all(&self, lines: Vec<String>, stop: &Stop) -> Result<Vec<Written>, BulkError> {
        let none = unanswered("", "failed", "The request failed by a fault of this program.").to_string();
        let mut answers: Vec<Written> = vec![Err(RowError::fatal(none)); lines.len()];
        let mut waiting: VecDeque<(usize, String)> = lines.into_iter().enumerate().collect();
        let mut running: JoinSet<(usize, Written)> = JoinSet::new();
        // The line of each that runs, for the case that it is given up.
        let mut asked: Vec<(usize, String)> = Vec::new();
        loop {
            if stop.is_raised() {
                return Err(BulkError::Stopped);
            }
            if self.stop.rest() != STAY {
                running.shutdown().await;
                for (at, text) in asked.drain(..).chain(waiting.drain(..)) {
                    answers[at] = self.given_up(&text);
                }
                return Ok(answers);
            }
            while running.len() < self.at_once
                && let Some((at, text)) = waiting.pop_front()
            {
                asked.push((at, text.clone()));
                let (router, tenant, turns) = (self.router.clone(), self.tenant, self.turns.clone());
                running.spawn(async move {
                    let _turn = turns.acquire_owned().await;
                    (at, one(&router, tenant, &text).await)
                });
            }
            if running.is_empty() {
                return Ok(answers);
            }
            // One that panics leaves the answer that stands there.
            let next = tokio::time::timeout(LOOK_EVERY, running.join_next()).await;
            if let Ok(Some(Ok((at, answer)))) = next {
                answers[at] = answer;
                asked.retain(|(own, _)| *own != at);
            }
        }
    }

    fn given_up(&self, text: &str) -> Written {
        match (self.stop.rest(), line::parse(text, None)) {
            (EXPIRED, Ok(line)) => {
                let message = "This request could not be answered before the end of the batch's time.";
                Err(RowError::fatal(unanswered(&line.custom_id, "batch_expired", message).to_string()))
            }
            _ if text.trim().is_empty() => Ok(EMPTY.to_owned()),
            _ => Err(RowError::fatal(WITHOUT)),
        }
    }
}

async fn one(router: &Router, tenant: Tenant, text: &str) -> Written {
    if text.trim().is_empty() {
        return Ok(EMPTY.to_owned());
    }
    let line = match line::parse(text, None) {
        Ok(line) => line,
        Err(wrong) => return Err(RowError::fatal(unanswered("", "invalid_line", wrong.words()).to_string())),
    };
    let Answered { good, line } = ask(router, tenant, &line).await;
    if good { Ok(line.to_string()) } else { Err(RowError::fatal(line.to_string())) }
}
