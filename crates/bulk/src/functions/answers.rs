//! From rows to what models take, and back to a column.

use crate::function::{Outcome, RowError};
use crate::{BulkError, cells};
use arrow_array::{Array, ArrayRef, UInt32Array};
use arrow_schema::DataType;
use kun_engine::EngineError;

/// The rows that have a text, and those that have none.
pub(super) struct Texts {
    /// Texts of good rows.
    pub(super) texts: Vec<String>,
    /// Their rows.
    pub(super) rows: Vec<usize>,
    errors: Vec<(usize, RowError)>,
    count: usize,
}

impl Texts {
    /// The texts of a column. An empty one is an error: no model has an answer to it.
    pub(super) fn of(name: &str, column: &ArrayRef) -> Result<Texts, BulkError> {
        let array = cells::texts(name, column)?;
        let mut found =
            Texts { texts: Vec::new(), rows: Vec::new(), errors: Vec::new(), count: column.len() };
        for row in 0..column.len() {
            match cells::text(&array, column, row) {
                Ok(text) if text.trim().is_empty() => {
                    found.errors.push((row, RowError::fatal("the text is empty")));
                }
                Ok(text) => {
                    found.texts.push(text.to_owned());
                    found.rows.push(row);
                }
                Err(error) => found.errors.push((row, error)),
            }
        }
        Ok(found)
    }

    /// The outcome of all rows from the answers to the good ones. `column` makes a column of the answers that there are.
    pub(super) fn outcome<T>(
        mut self,
        answers: Vec<Result<T, RowError>>,
        tokens: u64,
        data_type: &DataType,
        column: impl FnOnce(Vec<T>) -> Result<ArrayRef, BulkError>,
    ) -> Result<Outcome, BulkError> {
        let mut good = Vec::with_capacity(answers.len());
        let mut places: Vec<Option<u32>> = vec![None; self.count];
        for (row, answer) in self.rows.into_iter().zip(answers) {
            match answer {
                Ok(answer) => {
                    places[row] = u32::try_from(good.len()).ok();
                    good.push(answer);
                }
                Err(error) => self.errors.push((row, error)),
            }
        }
        self.errors.sort_by_key(|(row, _)| *row);
        spread(good, &places, self.errors, tokens, data_type, column)
    }
}

/// Answers in their places among all rows.
pub(super) fn spread<T>(
    good: Vec<T>,
    places: &[Option<u32>],
    errors: Vec<(usize, RowError)>,
    tokens: u64,
    data_type: &DataType,
    column: impl FnOnce(Vec<T>) -> Result<ArrayRef, BulkError>,
) -> Result<Outcome, BulkError> {
    if good.is_empty() {
        return Ok(Outcome { column: arrow_array::new_null_array(data_type, places.len()), errors, tokens });
    }
    let all = good.len() == places.len();
    let answered = column(good)?;
    let column = match all {
        true => answered,
        false => arrow_select::take::take(answered.as_ref(), &UInt32Array::from(places.to_vec()), None)?,
    };
    Ok(Outcome { column, errors, tokens })
}

/// An error of the engine about one row.
pub(super) fn row_error(error: &EngineError) -> RowError {
    let reason = crate::input::chain(error);
    match error {
        EngineError::Unloaded | EngineError::Cancelled => RowError::retryable(reason),
        _ => RowError::fatal(reason),
    }
}
