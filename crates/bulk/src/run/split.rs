//! One split: read, worked on, written.

use super::{Shared, Work};
use crate::input::Chunk;
use crate::log::SplitLog;
use crate::pipeline::Done;
use crate::place::{DoneSplit, json};
use crate::progress::Step;
use crate::table::TableWriter;
use crate::{BulkError, Split};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Chunks read ahead, besides the one that is being read.
const AHEAD: usize = 1;
/// Rows given to functions at once: few at first, then as many as take about so long.
const FIRST_ROWS: usize = 256;
const CALL_TIME: Duration = Duration::from_secs(4);

/// Works on a split and publishes its part. Done again, it gives the same rows.
pub(super) fn run(work: &Work<'_>, shared: &Shared<'_>, split: &Split) -> Result<(), BulkError> {
    let began = Instant::now();
    let target = Target::new(work, shared);
    let log = SplitLog::open(&work.place.state, split, &target.schema, work.checked.job.run.checkpoint)?;
    let part = TableWriter::new(work.place.parts.draft()?, work.place.format, &target.schema)?;
    let mut writing =
        Writing { began, work, shared, split, target, log, part, own: Step::default(), recovered_tokens: 0 };
    let ended = writing.all();
    match ended {
        Ok(()) => writing.publish(),
        Err(error) => {
            // What is finished is kept; the error is the one to tell.
            let kept = writing.log.flush();
            // Rows that another attempt would count again.
            if kept.is_err() || !matches!(error, BulkError::Stopped) {
                shared.counts.take_back(&writing.own);
            }
            Err(error)
        }
    }
}

/// The columns of the output, and which of them are files.
struct Target {
    schema: SchemaRef,
    files: Vec<(usize, &'static str)>,
}

impl Target {
    fn new(work: &Work<'_>, shared: &Shared<'_>) -> Target {
        let schema = shared.pipeline.schema();
        let files = match work.place.single {
            Some(_) => Vec::new(),
            None => shared.pipeline.file_columns(),
        };
        let fields = schema.fields().iter().enumerate().map(|(at, field)| {
            let is_file = files.iter().any(|(column, _)| *column == at);
            if is_file { Field::new(field.name(), DataType::Utf8, true) } else { field.as_ref().clone() }
        });
        Target { schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())), files }
    }
}

struct Writing<'a> {
    began: Instant,
    work: &'a Work<'a>,
    shared: &'a Shared<'a>,
    split: &'a Split,
    target: Target,
    log: SplitLog,
    part: TableWriter,
    own: Step,
    recovered_tokens: u64,
}

impl Writing<'_> {
    fn all(&mut self) -> Result<(), BulkError> {
        let recovered = self.recover()?;
        let mut reader = Some(self.shared.turns.take());
        self.began = Instant::now();
        let _busy = Busy::new(&self.shared.busy);
        let (work, split, halt) = (self.work, self.split, self.shared.halt.clone());
        let pipeline = &self.shared.pipeline;
        let reading = work.calls.reading(work.checked.found.format, &work.plan.schema);
        let chunks = reading.open(work.checked.stores, split)?;
        // Reading goes on while functions are at work, but only so far.
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel::<Result<Chunk, BulkError>>(AHEAD);
            scope.spawn(move || {
                for chunk in skip(chunks, recovered) {
                    if sender.send(chunk).is_err() {
                        break;
                    }
                }
            });
            let pace = Pace::new(pipeline.most_rows());
            let mut pieces = Pieces { receiver, ended: false, rest: None, pace };
            // Calls at work, in the order of their rows: while one is written, the next has the functions to itself.
            let mut calls = VecDeque::new();
            loop {
                while calls.len() < self.lanes() && !halt.is_raised() {
                    let Some(piece) = pieces.next(calls.is_empty()) else { break };
                    let piece = piece?;
                    self.count(Step { dropped: piece.dropped, ..Step::default() })?;
                    if piece.batch.num_rows() == 0 {
                        continue;
                    }
                    let halt = &halt;
                    calls.push_back(scope.spawn(move || {
                        let (rows, began) = (piece.batch.num_rows(), Instant::now());
                        (rows, pipeline.apply(&piece, halt), began.elapsed())
                    }));
                }
                if pieces.ended {
                    reader = None;
                }
                let Some(call) = calls.pop_front() else { break };
                let (rows, done, took) = call.join().unwrap_or_else(|panic| resume_unwind(panic));
                pieces.pace.adapt(rows, took);
                self.write(done?)?;
            }
            // Stopped, unless it came to its end before it saw that it should.
            match halt.is_raised().then(|| pieces.next(true)).flatten() {
                Some(_) => Err(BulkError::Stopped),
                None => Ok(()),
            }
        })
    }

    /// Writes the rows of earlier runs; how many they are.
    fn recover(&mut self) -> Result<u64, BulkError> {
        let (part, shared, own) = (&mut self.part, self.shared, &mut self.own);
        let limits = &self.work.checked.job.errors;
        let (rows, tokens) = self.log.recover(|batch| {
            part.write(&batch)?;
            let reasons = batch.columns().last().map(|column| column.len() - column.null_count());
            let rows = batch.num_rows() as u64;
            let errors = reasons.unwrap_or(0) as u64;
            count(shared, limits, own, Step { rows, errors, recovered: true, ..Step::default() })
        })?;
        self.recovered_tokens = tokens;
        Ok(rows)
    }

    /// Calls at once: splits at work share them.
    fn lanes(&self) -> usize {
        let busy = self.shared.busy.load(Ordering::Relaxed);
        (self.work.checked.job.run.workers / busy.max(1)).max(1)
    }

    fn write(&mut self, done: Done) -> Result<(), BulkError> {
        // An address that this machine may not read is no error of its row: another machine may.
        self.work.checked.stores.refused()?;
        let batch = self.with_files(done.batch)?;
        self.part.write(&batch)?;
        self.log.add(&batch, done.tokens)?;
        let rows = batch.num_rows() as u64;
        self.count(Step {
            rows,
            errors: done.errors,
            tokens: done.tokens,
            first_error: done.first_error,
            ..Step::default()
        })
    }

    fn count(&mut self, step: Step) -> Result<(), BulkError> {
        count(self.shared, &self.work.checked.job.errors, &mut self.own, step)
    }

    /// Puts results that are files into files; their column then has the names.
    fn with_files(&self, batch: RecordBatch) -> Result<RecordBatch, BulkError> {
        if self.target.files.is_empty() {
            return Ok(batch);
        }
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        let uris = batch.column_by_name("uri").and_then(|column| column.as_string_opt::<i32>());
        for (at, ending) in &self.target.files {
            let name = self.target.schema.field(*at).name();
            let folder = self.work.place.parts.inside(name);
            let contents = columns[*at].as_binary::<i32>().clone();
            let mut names = Vec::with_capacity(contents.len());
            for row in 0..contents.len() {
                if contents.is_null(row) {
                    names.push(None);
                    continue;
                }
                let stem = uris.filter(|uris| uris.is_valid(row)).map(|uris| stem(uris.value(row)));
                let number = self.own.rows + row as u64;
                let file =
                    format!("{}{:06}-{number:06}.{ending}", stem.unwrap_or_default(), self.split.index);
                folder.create(&file, contents.value(row).to_vec())?;
                names.push(Some(format!("{name}/{file}")));
            }
            columns[*at] = Arc::new(StringArray::from(names));
        }
        Ok(RecordBatch::try_new(self.target.schema.clone(), columns)?)
    }

    /// The record first, then the part: a part that is there has its record.
    fn publish(self) -> Result<(), BulkError> {
        let part = self.work.place.part(self.split);
        let record = DoneSplit {
            id: self.split.id.clone(),
            part: part.clone(),
            rows: self.own.rows,
            errors: self.own.errors,
            tokens: self.own.tokens + self.recovered_tokens,
            dropped: self.own.dropped,
            seconds: self.began.elapsed().as_secs_f64(),
        };
        let draft = self.part.finish()?;
        self.work.place.done_folder().replace(&format!("{}.json", self.split.id), json(&record))?;
        self.work.place.parts.publish(draft, &part)?;
        self.log.remove()?;
        self.shared.counts.split_done(self.split.bytes);
        Ok(())
    }
}

/// Adds to what the split has done. Too many errors end the job.
fn count(
    shared: &Shared<'_>,
    limits: &crate::job::Errors,
    own: &mut Step,
    step: Step,
) -> Result<(), BulkError> {
    own.rows += step.rows;
    own.errors += step.errors;
    own.tokens += step.tokens;
    own.dropped += step.dropped;
    let (rows, errors, first) = shared.counts.add(&step);
    if rows >= crate::job::Errors::FEW_ROWS && errors as f64 > limits.max_rate * rows as f64 {
        let first = first.unwrap_or_else(|| "in an earlier run".to_owned());
        return Err(BulkError::TooManyErrors { errors, rows, max_rate: limits.max_rate, first });
    }
    Ok(())
}

/// The beginning of a file's name, of letters that every disk takes.
fn stem(uri: &str) -> String {
    let name = uri.rsplit('/').next().unwrap_or(uri);
    let name = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let plain = name.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).take(64);
    let mut stem: String = plain.collect();
    if !stem.is_empty() {
        stem.push('-');
    }
    stem
}

/// Splits that have their turn at reading: what follows one that is all read begins while that is still at work. So no
/// function waits at the end of a split, and the rows of few splits are in memory.
pub(super) struct Turns {
    free: Mutex<usize>,
    freed: Condvar,
}

impl Turns {
    pub(super) fn new(workers: usize) -> Turns {
        Turns { free: Mutex::new(workers.div_ceil(2).max(1)), freed: Condvar::new() }
    }

    fn take(&self) -> Turn<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Turn(self)
    }
}

struct Turn<'a>(&'a Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

/// A split whose rows are at functions.
struct Busy<'a>(&'a AtomicUsize);

impl<'a> Busy<'a> {
    fn new(count: &'a AtomicUsize) -> Busy<'a> {
        count.fetch_add(1, Ordering::Relaxed);
        Busy(count)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Chunks in pieces, cut when they are asked for.
struct Pieces {
    receiver: Receiver<Result<Chunk, BulkError>>,
    /// Whether there are no more chunks.
    ended: bool,
    /// A chunk, and the first of its rows that was not given.
    rest: Option<(Chunk, usize)>,
    pace: Pace,
}

impl Pieces {
    /// The next piece. `wait`: for as long as it takes; otherwise nothing if it is not there yet.
    fn next(&mut self, wait: bool) -> Option<Result<Chunk, BulkError>> {
        let (chunk, start) = match self.rest.take() {
            Some(rest) => rest,
            None => {
                let received = match wait {
                    true => self.receiver.recv().map_err(|_| TryRecvError::Disconnected),
                    false => self.receiver.try_recv(),
                };
                match received {
                    Ok(Ok(chunk)) => (chunk, 0),
                    Ok(Err(error)) => return Some(Err(error)),
                    Err(none) => {
                        self.ended = none == TryRecvError::Disconnected;
                        return None;
                    }
                }
            }
        };
        let all = chunk.batch.num_rows();
        let count = self.pace.rows.min(all - start);
        let mut piece = slice(&chunk, start, count);
        // Told with the first piece.
        piece.dropped = if start == 0 { chunk.dropped } else { 0 };
        if start + count < all {
            self.rest = Some((chunk, start + count));
        }
        Some(Ok(piece))
    }
}

/// How many rows a call gets.
struct Pace {
    rows: usize,
    most: usize,
}

impl Pace {
    fn new(most: usize) -> Pace {
        Pace { rows: FIRST_ROWS.min(most), most }
    }

    fn adapt(&mut self, rows: usize, took: Duration) {
        if took > CALL_TIME {
            self.rows = (rows / 2).max(1);
        } else if rows == self.rows && took < CALL_TIME / 3 {
            self.rows = (self.rows * 2).min(self.most.max(FIRST_ROWS));
        }
    }
}

fn slice(chunk: &Chunk, start: usize, count: usize) -> Chunk {
    if start == 0 && count == chunk.batch.num_rows() {
        return chunk.clone();
    }
    let own = chunk.errors.iter().filter(|(row, _)| (start..start + count).contains(row));
    let errors = own.map(|(row, error)| (row - start, error.clone())).collect();
    Chunk { batch: chunk.batch.slice(start, count), errors, dropped: 0 }
}

/// Chunks without the first `rows` rows.
fn skip(chunks: crate::input::Chunks, rows: u64) -> impl Iterator<Item = Result<Chunk, BulkError>> {
    let mut left = usize::try_from(rows).unwrap_or(usize::MAX);
    chunks.filter_map(move |chunk| {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => return Some(Err(error)),
        };
        let all = chunk.batch.num_rows();
        let skipped = left.min(all);
        left -= skipped;
        let rest = (skipped < all).then(|| slice(&chunk, skipped, all - skipped));
        // What was left out is counted whether or not its neighbours were done before.
        let dropped = chunk.dropped;
        match rest {
            Some(rest) => Some(Ok(Chunk { dropped, ..rest })),
            None => (dropped > 0).then(|| Ok(Chunk { dropped, ..slice(&chunk, 0, 0) })),
        }
    })
}

/// The first `rows` rows of a chunk.
pub(super) fn slice_of(chunk: &Chunk, rows: usize) -> Chunk {
    slice(chunk, 0, rows.min(chunk.batch.num_rows()))
}
