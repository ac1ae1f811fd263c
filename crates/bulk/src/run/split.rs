//! One split: read, worked on, written.

use super::{Shared, Work};
use crate::function::Stop;
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
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

/// Chunks read ahead.
const AHEAD: usize = 2;
/// Rows given to functions at once: few at first, then as many as take about so long.
const FIRST_ROWS: usize = 256;
const CALL_TIME: Duration = Duration::from_secs(4);

/// Works on a split and publishes its part. Done again, it gives the same rows.
pub(super) fn run(work: &Work<'_>, shared: &Shared<'_>, split: &Split) -> Result<(), BulkError> {
    let began = Instant::now();
    let target = Target::new(work, shared);
    let (log, recovered) =
        SplitLog::open(&work.place.state, split, &target.schema, work.checked.job.run.checkpoint)?;
    let part = TableWriter::new(work.place.parts.draft()?, work.place.format, &target.schema)?;
    let mut writing = Writing {
        work,
        shared,
        split,
        target,
        log,
        part,
        own: Step::default(),
        recovered_tokens: recovered.tokens,
    };
    let ended = writing.all(recovered);
    match ended {
        Ok(()) => writing.publish(began),
        Err(error) => {
            // What is finished is kept; the error is the one to tell.
            let _ = writing.log.flush();
            shared.counts.take_back(&writing.own);
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
    fn all(&mut self, recovered: crate::log::Recovered) -> Result<(), BulkError> {
        for batch in &recovered.batches {
            self.part.write(batch)?;
            let reasons = batch.columns().last().map(|column| column.len() - column.null_count());
            self.count(Step {
                rows: batch.num_rows() as u64,
                errors: reasons.unwrap_or(0) as u64,
                recovered: true,
                ..Step::default()
            })?;
        }
        let (work, split, halt) = (self.work, self.split, self.shared.halt.clone());
        let reading = work.calls.reading(work.checked.found.format, &work.plan.schema);
        let chunks = reading.open(work.checked.stores, split)?;
        // Reading goes on while functions are at work, but only so far.
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel::<Result<Chunk, BulkError>>(AHEAD);
            scope.spawn(move || {
                for chunk in skip(chunks, recovered.rows) {
                    if sender.send(chunk).is_err() {
                        break;
                    }
                }
            });
            let most = self.shared.pipeline.most_rows();
            let mut pace = Pace { rows: FIRST_ROWS.min(most), most };
            for chunk in receiver {
                let chunk = chunk?;
                self.count(Step { dropped: chunk.dropped, ..Step::default() })?;
                self.chunk(&chunk, &mut pace, &halt)?;
            }
            Ok(())
        })
    }

    fn chunk(&mut self, chunk: &Chunk, pace: &mut Pace, halt: &Stop) -> Result<(), BulkError> {
        let mut start = 0;
        while start < chunk.batch.num_rows() {
            if halt.is_raised() {
                return Err(BulkError::Stopped);
            }
            let count = pace.rows.min(chunk.batch.num_rows() - start);
            let began = Instant::now();
            let done = self.shared.pipeline.apply(&slice(chunk, start, count), halt)?;
            pace.adapt(count, began.elapsed());
            start += count;
            self.write(done)?;
        }
        Ok(())
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
        self.own.rows += step.rows;
        self.own.errors += step.errors;
        self.own.tokens += step.tokens;
        self.own.dropped += step.dropped;
        let (rows, errors, first) = self.shared.counts.add(&step);
        let limits = &self.work.checked.job.errors;
        if rows >= crate::job::Errors::FEW_ROWS && errors as f64 > limits.max_rate * rows as f64 {
            let first = first.unwrap_or_else(|| "in an earlier run".to_owned());
            return Err(BulkError::TooManyErrors { errors, rows, max_rate: limits.max_rate, first });
        }
        Ok(())
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
    fn publish(self, began: Instant) -> Result<(), BulkError> {
        let part = self.work.place.part(self.split);
        let record = DoneSplit {
            id: self.split.id.clone(),
            part: part.clone(),
            rows: self.own.rows,
            errors: self.own.errors,
            tokens: self.own.tokens + self.recovered_tokens,
            dropped: self.own.dropped,
            seconds: began.elapsed().as_secs_f64(),
        };
        let draft = self.part.finish()?;
        self.work.place.done_folder().replace(&format!("{}.json", self.split.id), json(&record))?;
        self.work.place.parts.publish(draft, &part)?;
        self.log.remove()?;
        self.shared.counts.split_done(self.split.bytes);
        Ok(())
    }
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

/// How many rows a call gets.
struct Pace {
    rows: usize,
    most: usize,
}

impl Pace {
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
