//! A chunk of rows through the functions of a job.

mod cache;
mod call;

use crate::function::{Function, Output, Prepared};
use crate::input::{Chunk, Reading};
use crate::job::{Dedup, Format, Job};
use crate::sql::Condition;
use crate::survey::Survey;
use crate::{BulkError, Stop};
use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray, UInt32Array, new_null_array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use cache::Cache;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The calls of a job, checked: what is read and what is kept of the input.
pub struct Calls {
    calls: Vec<(String, Arc<dyn Prepared>)>,
    /// Input columns that the output has.
    kept: Vec<String>,
    /// Input columns that are read: those kept, then those that only functions see.
    read: Vec<String>,
    /// Rows that count.
    condition: Option<Condition>,
}

impl Calls {
    /// Checks that every column that a function reads is there: in the input, or given by an earlier function.
    ///
    /// # Errors
    /// [`BulkError::Job`].
    pub fn new(
        job: &Job,
        prepared: Vec<Arc<dyn Prepared>>,
        format: Format,
        schema: &SchemaRef,
    ) -> Result<Calls, BulkError> {
        let kept = match &job.input.columns {
            Some(columns) => columns.clone(),
            None => schema.fields().iter().map(|field| field.name().clone()).collect(),
        };
        let mut read = kept.clone();
        let mut given: BTreeSet<&str> = BTreeSet::new();
        for (call, prepared) in job.map.iter().zip(&prepared) {
            for column in prepared.columns() {
                if !given.contains(column.as_str()) && !read.contains(column) {
                    read.push(column.clone());
                }
            }
            if prepared.survey().is_some()
                && let Some(column) = prepared.columns().iter().find(|column| given.contains(column.as_str()))
            {
                let what = format!(
                    "`{}` looks at all rows first, so it reads columns of the input, not `{column}`, which another \
                     function gives: make that column with a job of its own",
                    call.function
                );
                return Err(BulkError::job(what));
            }
            given.insert(&call.column);
        }
        let new = job.map.iter().map(|call| &call.column).chain([&job.errors.column]);
        if let Some(double) = new.into_iter().find(|name| kept.contains(name)) {
            let what =
                format!("the input has a column `{double}`; `as` gives another name, or keep other columns");
            return Err(BulkError::job(what));
        }
        let calls = job.map.iter().map(|call| call.column.clone()).zip(prepared).collect();
        let mut calls = Calls { calls, kept, read, condition: None };
        calls.reading(format, schema).output_schema()?;
        if let Some(text) = &job.input.condition {
            let mut all: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
            all.extend(crate::input::lazy_names(format).iter().map(|name| (*name).to_owned()));
            let all = Reading { columns: &all, ..calls.reading(format, schema) }.output_schema()?;
            calls.condition = Some(Condition::new(text, &all)?);
        }
        Ok(calls)
    }

    /// Columns that are read.
    pub fn read(&self) -> &[String] {
        &self.read
    }

    /// Columns that are kept.
    pub fn kept(&self) -> &[String] {
        &self.kept
    }

    /// How rows are read for these calls.
    pub fn reading<'a>(&'a self, format: Format, schema: &'a SchemaRef) -> Reading<'a> {
        Reading { format, schema, columns: &self.read, condition: self.condition.as_ref() }
    }

    /// How some columns of the same rows are read.
    pub fn reading_of<'a>(
        &'a self,
        columns: &'a [String],
        format: Format,
        schema: &'a SchemaRef,
    ) -> Reading<'a> {
        Reading { columns, ..self.reading(format, schema) }
    }

    /// What functions depend on, in order.
    pub fn identities(&self) -> Vec<serde_json::Value> {
        let one = |(column, prepared): &(String, Arc<dyn Prepared>)| serde_json::json!({ "column": column, "reads": prepared.columns(), "is": prepared.identity() });
        self.calls.iter().map(one).collect()
    }

    /// Functions that look at all rows first, with their place among the calls.
    pub fn surveys(&self) -> Vec<(usize, &[String], Arc<dyn Survey>)> {
        let one =
            |(at, (_, prepared)): (usize, &'_ (String, Arc<dyn Prepared>))| Some((at, prepared.survey()?));
        let found = self.calls.iter().enumerate().filter_map(one);
        found.map(|(at, survey)| (at, self.calls[at].1.columns(), survey)).collect()
    }

    /// Loads every function's model; `found` is what surveys have found, by the call's place.
    ///
    /// # Errors
    /// Those of [`Prepared::open`].
    pub fn open(
        &self,
        job: &Job,
        format: Format,
        input: &SchemaRef,
        found: &BTreeMap<usize, Vec<u8>>,
    ) -> Result<Pipeline, BulkError> {
        let read = self.reading(format, input).output_schema()?;
        let mut fields: Vec<Field> =
            read.fields()[..self.kept.len()].iter().map(|f| f.as_ref().clone()).collect();
        let mut steps = Vec::new();
        for (at, (column, prepared)) in self.calls.iter().enumerate() {
            let function = match (prepared.survey(), found.get(&at)) {
                (Some(survey), Some(found)) => survey.open(found)?,
                _ => prepared.open()?,
            };
            // Every file has an address of its own.
            let is_address = |column: &String| matches!(column.as_str(), "uri" | "image");
            let all_differ = format == Format::Files && prepared.columns().iter().any(is_address);
            let dedup = job.run.dedup == Dedup::InputHash && !all_differ;
            let step = Step::new(column.clone(), prepared.columns().to_vec(), function, dedup);
            fields.push(Field::new(column, step.output.data_type.clone(), true));
            steps.push(step);
        }
        fields.push(Field::new(&job.errors.column, DataType::Utf8, true));
        let schema = Arc::new(Schema::new(fields));
        Ok(Pipeline { steps, kept: self.kept.len(), schema, retry: job.errors.retry })
    }
}

/// A function and the column that it fills.
pub(crate) struct Step {
    column: String,
    reads: Vec<String>,
    function: Arc<dyn Function>,
    output: Output,
    dedup: bool,
    cache: Cache,
}

/// Loaded functions in their order.
pub struct Pipeline {
    steps: Vec<Step>,
    kept: usize,
    schema: SchemaRef,
    retry: u32,
}

/// A chunk with everything that was asked for.
#[derive(Clone, Debug)]
pub struct Done {
    /// Kept columns, results and the column of errors.
    pub batch: RecordBatch,
    /// Rows that failed.
    pub errors: u64,
    /// The first failure.
    pub first_error: Option<String>,
    /// Tokens read and written.
    pub tokens: u64,
}

impl Pipeline {
    /// Columns of the output: those kept, results, errors. Results that are files still are their bytes here.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Columns whose values are files, with their ending.
    pub fn file_columns(&self) -> Vec<(usize, &'static str)> {
        let steps = self.steps.iter().enumerate();
        steps.filter_map(|(at, step)| Some((self.kept + at, step.output.file?))).collect()
    }

    /// The most rows that are of use at once.
    pub fn most_rows(&self) -> usize {
        self.steps.iter().map(|step| step.function.limits().rows).max().unwrap_or(1).max(1)
    }

    /// Applies every function. Rows that could not be read, or whose input failed before, are left out.
    ///
    /// # Errors
    /// Those of [`Function::call`] that concern all rows.
    pub fn apply(&self, chunk: &Chunk, stop: &Stop) -> Result<Done, BulkError> {
        let rows = chunk.batch.num_rows();
        let mut errors = Errors { of_rows: vec![None; rows], count: 0, first: None };
        let mut unreadable = vec![false; rows];
        for (row, error) in &chunk.errors {
            unreadable[*row] = true;
            errors.add(*row, "row", error);
        }
        // Results so far, with the rows where they are missing for a reason that was told.
        let mut made: Vec<(&str, ArrayRef, Vec<bool>)> = Vec::new();
        let mut tokens = 0;
        for step in &self.steps {
            let mut skipped = unreadable.clone();
            let mut inputs = Vec::with_capacity(step.reads.len());
            for name in &step.reads {
                let earlier = made.iter().find(|(column, ..)| *column == name);
                inputs.push(match earlier {
                    Some((_, array, failed)) => {
                        skipped.iter_mut().zip(failed).for_each(|(skip, failed)| *skip |= failed);
                        array.clone()
                    }
                    None => chunk.batch.column_by_name(name).cloned().ok_or_else(|| {
                        BulkError::job(format!("no column `{name}` in the rows that were read"))
                    })?,
                });
            }
            let wanted: Vec<u32> =
                skipped.iter().zip(0..).filter(|(skip, _)| !**skip).map(|(_, row)| row).collect();
            let answered = step.answer(&inputs, &wanted, rows, self.retry, stop)?;
            for (row, error) in &answered.errors {
                skipped[*row] = true;
                errors.add(*row, &step.column, error);
            }
            tokens += answered.tokens;
            made.push((&step.column, answered.column, skipped));
        }
        let mut columns: Vec<ArrayRef> = chunk.batch.columns()[..self.kept].to_vec();
        columns.extend(made.into_iter().map(|(_, array, _)| array));
        columns.push(Arc::new(StringArray::from(errors.of_rows)));
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        Ok(Done { batch, errors: errors.count, first_error: errors.first, tokens })
    }
}

/// The column of errors.
struct Errors {
    of_rows: Vec<Option<String>>,
    count: u64,
    first: Option<String>,
}

impl Errors {
    fn add(&mut self, row: usize, column: &str, error: &crate::RowError) {
        let text = format!("{column}: {}: {}", error.class.name(), error.reason);
        self.first.get_or_insert_with(|| text.clone());
        match &mut self.of_rows[row] {
            Some(before) => {
                before.push_str("; ");
                before.push_str(&text);
            }
            empty => {
                *empty = Some(text);
                self.count += 1;
            }
        }
    }
}

/// The answers to some rows, spread over all.
pub(crate) struct Answered {
    pub column: ArrayRef,
    pub errors: Vec<(usize, crate::RowError)>,
    tokens: u64,
}

impl Step {
    /// With `dedup`, repeated inputs are computed once, unless that costs more than computing them.
    pub(crate) fn new(column: String, reads: Vec<String>, function: Arc<dyn Function>, dedup: bool) -> Step {
        let (dedup, output) = (dedup && !function.limits().cheap, function.output());
        Step { column, reads, function, output, dedup, cache: Cache::default() }
    }

    /// The type of results.
    #[cfg(feature = "sql")]
    pub(crate) fn data_type(&self) -> &DataType {
        &self.output.data_type
    }

    /// Results of the rows `wanted` of `rows`, NULL in the others. Blocks as long as the function takes.
    ///
    /// # Errors
    /// Those of [`Function::call`] that concern all rows.
    pub(crate) fn answer(
        &self,
        inputs: &[ArrayRef],
        wanted: &[u32],
        rows: usize,
        retry: u32,
        stop: &Stop,
    ) -> Result<Answered, BulkError> {
        if wanted.is_empty() {
            let column = new_null_array(&self.output.data_type, rows);
            return Ok(Answered { column, errors: Vec::new(), tokens: 0 });
        }
        let asked = if wanted.len() == rows { inputs.to_vec() } else { take(inputs, wanted)? };
        let caller = call::Caller { function: self.function.as_ref(), retry, stop };
        let outcome = match self.dedup {
            true => cache::answer(&self.cache, &caller, &asked, wanted.len(), &self.output.data_type)?,
            false => caller.call_all(&asked, wanted.len())?,
        };
        let errors = outcome.errors.into_iter().map(|(at, error)| (wanted[at] as usize, error)).collect();
        let column = if wanted.len() == rows {
            outcome.column
        } else {
            let mut places = vec![None; rows];
            wanted.iter().zip(0..).for_each(|(row, at)| places[*row as usize] = Some(at));
            arrow_select::take::take(outcome.column.as_ref(), &UInt32Array::from(places), None)?
        };
        Ok(Answered { column, errors, tokens: outcome.tokens })
    }
}

/// Some rows of columns.
fn take(columns: &[ArrayRef], rows: &[u32]) -> Result<Vec<ArrayRef>, BulkError> {
    let indices = UInt32Array::from(rows.to_vec());
    let one = |column: &ArrayRef| Ok(arrow_select::take::take(column.as_ref(), &indices, None)?);
    columns.iter().map(one).collect()
}
