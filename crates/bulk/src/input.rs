//! Inputs: which files are meant, how they are cut into splits, and their rows.

mod arrow_file;
mod csv_file;
mod discover;
mod files;
mod lines;
mod numbered;
mod parquet_file;
mod pattern;

pub use discover::{Found, discover, is_picture};
pub(crate) use files::lazy_names;
pub use numbered::{ROW, place_of};

use crate::job::{Format, SplitSize};
use crate::sql::Condition;
use crate::store::{Object, ObjectInfo, Stores};
use crate::{BulkError, Range, RowError, Split};
use arrow_array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow_schema::{Schema, SchemaRef};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Rows that are read at once, at most.
const CHUNK_ROWS: usize = 4096;
/// Bytes that are read at once, about, unless one row alone is larger.
const CHUNK_BYTES: usize = 8 << 20;
/// A longer line or record is an error of that row.
const MAX_ROW_BYTES: usize = 16 << 20;
/// More splits than this are a mistake, or a file that lies about its rows.
const MAX_SPLITS: usize = 10_000_000;

/// Rows in the order of the input. Those that cannot be read are NULL in all columns.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The rows.
    pub batch: RecordBatch,
    /// Which of them could not be read, in order, and why.
    pub errors: Vec<(usize, RowError)>,
    /// Rows before or among these that a condition has left out.
    pub dropped: u64,
}

impl Chunk {
    /// Rows that were all read.
    pub fn new(batch: RecordBatch) -> Chunk {
        Chunk { batch, errors: Vec::new(), dropped: 0 }
    }
}

/// Chunks of a split.
pub type Chunks = Box<dyn Iterator<Item = Result<Chunk, BulkError>> + Send>;

/// How an input is worked through: decided once for a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The columns of all files.
    pub schema: SchemaRef,
    /// What is read piece by piece.
    pub splits: Vec<Split>,
}

/// Cuts what was found into splits; reads no more of the files than that takes.
///
/// # Errors
/// [`BulkError::Input`] for a file that cannot be reached, or whose columns are not those of the others.
pub fn plan(stores: &Stores, found: &Found, size: SplitSize) -> Result<Plan, BulkError> {
    let mut planner = Planner { stores, size, schema: None, splits: Vec::new() };
    match found.format {
        Format::Parquet => planner.each(found, parquet_file::ranges)?,
        Format::Csv => {
            planner.each(found, |object, info, size| csv_file::ranges(object, info, b',', size))?
        }
        Format::Tsv => {
            planner.each(found, |object, info, size| csv_file::ranges(object, info, b'\t', size))?
        }
        Format::Jsonl | Format::Lines => lines::plan(&mut planner, found)?,
        Format::Arrow => planner.each(found, arrow_file::ranges)?,
        Format::Files => files::plan(&mut planner, found)?,
    }
    let schema = planner.schema.unwrap_or_else(|| Arc::new(Schema::empty()));
    Ok(Plan { schema, splits: planner.splits })
}

/// A range with its rows, where they are known, and its bytes.
type Sized = (Range, Option<u64>, u64);

/// What a format finds in one file: its columns, and how it is cut.
struct Cut {
    schema: SchemaRef,
    ranges: Vec<Sized>,
}

struct Planner<'a> {
    stores: &'a Stores,
    size: SplitSize,
    schema: Option<SchemaRef>,
    splits: Vec<Split>,
}

impl Planner<'_> {
    fn push(&mut self, (range, rows, bytes): Sized) -> Result<(), BulkError> {
        if self.splits.len() >= MAX_SPLITS {
            return Err(BulkError::job(format!(
                "more than {MAX_SPLITS} splits; larger ones can be asked for"
            )));
        }
        self.splits.push(Split::new(self.splits.len(), range, rows, bytes));
        Ok(())
    }

    /// Cuts every file. One whose content cannot be understood becomes a row that says so.
    fn each(
        &mut self,
        found: &Found,
        cut: impl Fn(&Object, &ObjectInfo, SplitSize) -> Result<Cut, BulkError>,
    ) -> Result<(), BulkError> {
        let mut broken = Vec::new();
        for (place, info) in found.objects.iter().enumerate() {
            let object = self.stores.open(info)?;
            let done = catch_unwind(AssertUnwindSafe(|| cut(&object, info, self.size)));
            let what = match done {
                Ok(Ok(cut)) => {
                    self.same_columns(&cut.schema, info)?;
                    for range in cut.ranges {
                        self.push(range)?;
                    }
                    continue;
                }
                // The disk or the network is at fault, not the file.
                _ if object.failed() => return Err(object.failure(&info.uri)),
                Ok(Err(error)) => chain(&error),
                Err(_) => "it cannot be decoded".to_owned(),
            };
            broken.push((place, what.clone()));
            self.push((Range::Broken { object: info.clone(), what }, Some(1), info.size))?;
        }
        match broken.into_iter().next() {
            Some((place, what)) if self.schema.is_none() => {
                Err(BulkError::Input { uri: found.objects[place].uri.clone(), what })
            }
            _ => Ok(()),
        }
    }

    fn same_columns(&mut self, schema: &SchemaRef, info: &ObjectInfo) -> Result<(), BulkError> {
        match &self.schema {
            None => self.schema = Some(schema.clone()),
            Some(first) if first.fields() == schema.fields() => {}
            Some(first) => {
                let shown = |schema: &Schema| {
                    let fields = schema.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type()));
                    fields.collect::<Vec<_>>().join(", ")
                };
                let what = format!(
                    "its columns ({}) are not those of the first file ({})",
                    shown(schema),
                    shown(first)
                );
                return Err(BulkError::Input { uri: info.uri.clone(), what });
            }
        }
        Ok(())
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Where a split's rows come from.
pub struct Reading<'a> {
    /// The format of the job's files.
    pub format: Format,
    /// All columns of the input.
    pub schema: &'a SchemaRef,
    /// Columns that are read; the chunks have these, in this order.
    pub columns: &'a [String],
    /// Rows that do not match are left out.
    pub(crate) condition: Option<&'a Condition>,
}

impl Reading<'_> {
    /// Columns of the chunks. All may be NULL, whatever the files say: a row that cannot be read is.
    ///
    /// # Errors
    /// [`BulkError::Job`] for a column that the input has not.
    pub fn output_schema(&self) -> Result<SchemaRef, BulkError> {
        let field = |name: &String| {
            if name == ROW {
                return Ok(numbered::field());
            }
            if let Some(field) = files::lazy_field(self.format, name) {
                return Ok(field);
            }
            match self.schema.field_with_name(name) {
                Ok(field) => Ok(field.clone().with_nullable(true)),
                Err(_) => {
                    let known: Vec<&str> = self.schema.fields().iter().map(|f| f.name().as_str()).collect();
                    let lazy = lazy_names(self.format);
                    let known = [known.as_slice(), lazy].concat().join(", ");
                    Err(BulkError::job(format!("no column `{name}` in the input; there are {known}")))
                }
            }
        };
        Ok(Arc::new(Schema::new(self.columns.iter().map(field).collect::<Result<Vec<_>, _>>()?)))
    }

    /// The rows of a split.
    ///
    /// # Errors
    /// [`BulkError::Input`] if it cannot be read now; what can never be read is an error of rows.
    pub fn open(&self, stores: &Stores, split: &Split) -> Result<Chunks, BulkError> {
        if let Some(at) = self.columns.iter().position(|name| name == ROW) {
            let columns = [&self.columns[..at], &self.columns[at + 1..]].concat();
            let rest = Reading { columns: &columns, ..*self };
            return Ok(numbered::numbered(rest.open(stores, split)?, split.index, at, self.output_schema()?));
        }
        if let Some(condition) = self.condition {
            return self.filtered(condition, stores, split);
        }
        let schema = self.output_schema()?;
        let chunks = match &split.range {
            Range::Rows { object, group, skip, rows } => {
                parquet_file::open(stores.open(object)?, object, (*group, *skip, *rows), schema.clone())
            }
            Range::Bytes { object, start, end } => {
                let section = stores.open(object)?;
                match self.format {
                    Format::Csv => {
                        csv_file::open(&section, object, (*start, *end), b',', self.schema, schema.clone())
                    }
                    Format::Tsv => {
                        csv_file::open(&section, object, (*start, *end), b'\t', self.schema, schema.clone())
                    }
                    format => {
                        lines::open(&section, object, (*start, *end), format, self.schema, schema.clone())
                    }
                }
            }
            Range::Batches { object, first, count } => {
                arrow_file::open(stores.open(object)?, object, (*first, *count), schema.clone())
            }
            Range::Files { objects } => files::open(stores.clone(), objects.clone(), schema.clone()),
            Range::Broken { what, .. } => {
                let chunk = unreadable(&schema, 1, what);
                Box::new(std::iter::once(chunk))
            }
        };
        Ok(Box::new(Caught { chunks, schema, left: split.rows, ended: false }))
    }

    /// The rows of a split that match.
    fn filtered(&self, condition: &Condition, stores: &Stores, split: &Split) -> Result<Chunks, BulkError> {
        let mut columns = self.columns.to_vec();
        columns.extend(condition.columns().iter().filter(|name| !self.columns.contains(name)).cloned());
        let chunks = Reading { columns: &columns, condition: None, ..*self }.open(stores, split)?;
        Ok(condition.matching(chunks, self.columns.len()))
    }
}

/// Rows that are there but cannot be read.
fn unreadable(schema: &SchemaRef, rows: usize, what: &str) -> Result<Chunk, BulkError> {
    let columns = schema.fields().iter().map(|field| new_null_array(field.data_type(), rows)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let batch = RecordBatch::try_new_with_options(schema.clone(), columns, &options)?;
    Ok(Chunk { errors: (0..rows).map(|row| (row, RowError::fatal(what))).collect(), ..Chunk::new(batch) })
}

/// Chunks that end with their split, even if the decoder panics or fails: the rows that were promised and did not come
/// are rows with an error.
struct Caught {
    chunks: Chunks,
    schema: SchemaRef,
    left: Option<u64>,
    ended: bool,
}

impl Iterator for Caught {
    type Item = Result<Chunk, BulkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let what = match catch_unwind(AssertUnwindSafe(|| self.chunks.next())) {
            Ok(Some(Ok(mut chunk))) => {
                if let Some(left) = &mut self.left {
                    let rows = chunk.batch.num_rows();
                    let kept = rows.min(usize::try_from(*left).unwrap_or(usize::MAX));
                    // More rows than were counted would be somebody else's.
                    if kept < rows {
                        chunk.batch = chunk.batch.slice(0, kept);
                        chunk.errors.retain(|(row, _)| *row < kept);
                    }
                    *left -= kept as u64;
                    self.ended = *left == 0;
                }
                return Some(Ok(chunk));
            }
            Ok(None) => match self.left {
                None | Some(0) => return None,
                Some(_) => "the file has fewer rows than it says".to_owned(),
            },
            Ok(Some(Err(BulkError::Input { uri, what }))) => format!("{uri}: {what}"),
            Ok(Some(Err(error))) => {
                self.ended = true;
                return Some(Err(error));
            }
            Err(_) => "the rows cannot be decoded".to_owned(),
        };
        let rows = self.left.map_or(1, |left| usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_ROWS));
        match &mut self.left {
            // Its chunks are of no more use; what is left comes as errors, a chunk at a time.
            Some(left) => {
                *left -= rows as u64;
                self.ended = *left == 0;
                self.chunks = Box::new(std::iter::once(Err(BulkError::Input {
                    uri: String::new(),
                    what: what.clone(),
                })));
            }
            None => self.ended = true,
        }
        Some(unreadable(&self.schema, rows, what.trim_start_matches(": ")))
    }
}
