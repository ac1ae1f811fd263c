//! `duplicates(text)`: rows whose text, or nearly the same text, an earlier row has.
//!
//! A first pass notes a digest and a MinHash signature of every row; rows that share a band and whose signatures agree
//! are joined, and the first row of those that hang together is the original.

mod groups;

use crate::cells::RowHasher;
use crate::function::{Context, Factory, Function, Limits, Outcome, Output, Prepared, Stop};
use crate::input::{ROW, place_of};
use crate::quality::Signature;
use crate::survey::{Notes, Survey};
use crate::{BulkError, Call, cells};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, BooleanArray, Float32Array, Int64Array, StructArray};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, Field, Fields};
use groups::{Found, Layout};
use serde_json::{Value, json};
use std::sync::Arc;

/// The factory.
pub(super) struct Duplicates;

/// Runs of words that texts share, of all that either has, from which on they count as the same.
const THRESHOLD: f32 = 0.8;
/// Below this, texts that are alike would too often share no band.
const LEAST_THRESHOLD: f32 = 0.5;

#[derive(Clone)]
struct Ready {
    columns: Vec<String>,
    /// `None`: equal texts alone.
    threshold: Option<f32>,
}

impl Factory for Duplicates {
    fn name(&self) -> &'static str {
        "duplicates"
    }

    fn usage(&self) -> &'static str {
        "duplicates(text, near = true, threshold = 0.8) -> {duplicate, exact, of, similarity}: whether an earlier row, \
         number `of`, has the text or nearly so"
    }

    fn prepare(&self, call: &Call, _: &Context) -> Result<Arc<dyn Prepared>, BulkError> {
        call.check_options(&["near", "threshold"])?;
        let threshold = call.number("threshold")?.unwrap_or(THRESHOLD);
        if !(LEAST_THRESHOLD..=1.0).contains(&threshold) {
            return Err(call.wrong(format!("wants a threshold from {LEAST_THRESHOLD} to 1")));
        }
        let threshold = (call.switch("near")? != Some(false)).then_some(threshold);
        let mut columns = call.only_columns(1, 1)?;
        columns.push(ROW.to_owned());
        Ok(Arc::new(Ready { columns, threshold }))
    }
}

impl Prepared for Ready {
    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn identity(&self) -> Value {
        json!({ "function": "duplicates", "version": 1, "threshold": self.threshold })
    }

    /// Without a survey, as in a dry run, nothing is known to be a duplicate.
    fn open(&self) -> Result<Arc<dyn Function>, BulkError> {
        Ok(Arc::new(Opened { column: self.columns[0].clone(), found: Found::default() }))
    }

    fn survey(&self) -> Option<Arc<dyn Survey>> {
        Some(Arc::new(self.clone()))
    }
}

impl Ready {
    fn layout(&self) -> Layout {
        Layout { near: self.threshold.is_some() }
    }
}

impl Survey for Ready {
    fn note(&self, notes: &mut Vec<u8>, columns: &[ArrayRef], unreadable: &[usize]) -> Result<(), BulkError> {
        let texts = cells::texts(&self.columns[0], &columns[0])?;
        let array: ArrayRef = Arc::new(texts.clone());
        let hashed = [array];
        let hasher = RowHasher::new(&hashed)?;
        for row in 0..texts.len() {
            if texts.is_null(row) || unreadable.binary_search(&row).is_ok() {
                self.layout().none(notes);
                continue;
            }
            let signature = self.threshold.and_then(|_| Signature::of(texts.value(row)));
            self.layout().row(notes, hasher.hash(row), signature.as_ref());
        }
        Ok(())
    }

    fn finish(&self, notes: Vec<u8>) -> Vec<u8> {
        self.layout().by_columns(&notes)
    }

    fn combine(&self, notes: &mut Notes) -> Result<Vec<u8>, BulkError> {
        groups::find(self.layout(), notes, self.threshold.unwrap_or(1.0))
    }

    fn open(&self, found: &[u8]) -> Result<Arc<dyn Function>, BulkError> {
        let found = Found::decode(found).ok_or_else(|| {
            BulkError::job("what `duplicates` noted is damaged; `kun jobs clean` begins anew")
        })?;
        Ok(Arc::new(Opened { column: self.columns[0].clone(), found }))
    }
}

struct Opened {
    column: String,
    found: Found,
}

fn fields() -> Fields {
    Fields::from(vec![
        Field::new("duplicate", DataType::Boolean, true),
        Field::new("exact", DataType::Boolean, true),
        Field::new("of", DataType::Int64, true),
        Field::new("similarity", DataType::Float32, true),
    ])
}

impl Function for Opened {
    fn output(&self) -> Output {
        Output::column(DataType::Struct(fields()))
    }

    fn limits(&self) -> Limits {
        Limits { rows: 8192, bytes: 16 << 20, cheap: true }
    }

    fn call(&self, columns: &[ArrayRef], _: usize, _: &Stop) -> Result<Outcome, BulkError> {
        let numbers = columns[1].as_primitive::<Int64Type>();
        let (answers, errors) = cells::each_text(&self.column, &columns[0], |row, _| {
            let (split, at) = place_of(numbers.value(row));
            self.found.of(split, at)
        })?;
        let nulls = NullBuffer::from_iter(answers.iter().map(Option::is_some));
        let of: Vec<Option<groups::Original>> = answers.iter().map(|answer| answer.flatten()).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(of.iter().map(|of| Some(of.is_some())).collect::<BooleanArray>()),
            Arc::new(of.iter().map(|of| Some(of.is_some_and(|of| of.exact))).collect::<BooleanArray>()),
            Arc::new(
                of.iter().map(|of| of.and_then(|of| i64::try_from(of.row).ok())).collect::<Int64Array>(),
            ),
            Arc::new(of.iter().map(|of| of.map(|of| of.similarity)).collect::<Float32Array>()),
        ];
        let column = StructArray::try_new(fields(), columns, Some(nulls))?;
        Ok(Outcome { column: Arc::new(column), errors, tokens: 0 })
    }
}
