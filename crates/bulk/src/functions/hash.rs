//! `hash(column, ..)`: a digest of the row's values. It needs no model and costs next to nothing: what remains is the cost
//! of everything else.

use crate::cells::RowHasher;
use crate::function::{Context, Factory, Function, Limits, Outcome, Output, Prepared, Stop};
use crate::{BulkError, Call};
use arrow_array::{ArrayRef, StringArray};
use arrow_schema::DataType;
use serde_json::{Value, json};
use std::sync::Arc;

/// The factory.
pub(super) struct Hash;

#[derive(Clone)]
struct Ready {
    columns: Vec<String>,
}

impl Factory for Hash {
    fn name(&self) -> &'static str {
        "hash"
    }

    fn usage(&self) -> &'static str {
        "hash(column, ..) -> text: a digest of the values"
    }

    fn prepare(&self, call: &Call, _: &Context) -> Result<Arc<dyn Prepared>, BulkError> {
        call.check_options(&[])?;
        Ok(Arc::new(Ready { columns: call.only_columns(1, usize::MAX)? }))
    }
}

impl Prepared for Ready {
    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn identity(&self) -> Value {
        json!({ "function": "hash", "version": 1 })
    }

    fn open(&self) -> Result<Arc<dyn Function>, BulkError> {
        Ok(Arc::new(self.clone()))
    }
}

impl Function for Ready {
    fn output(&self) -> Output {
        Output::column(DataType::Utf8)
    }

    fn limits(&self) -> Limits {
        Limits { rows: 8192, bytes: 16 << 20, cheap: true }
    }

    fn call(&self, columns: &[ArrayRef], rows: usize, _: &Stop) -> Result<Outcome, BulkError> {
        let hasher = RowHasher::new(columns)?;
        let column = (0..rows).map(|row| Some(format!("{:032x}", hasher.hash(row)))).collect::<StringArray>();
        Ok(Outcome { column: Arc::new(column), errors: Vec::new(), tokens: 0 })
    }
}
