//! Values of columns, row by row.

use crate::{BulkError, RowError};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, StringArray};
use arrow_cast::CastOptions;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::DataType;

/// Digests of rows: equal rows have equal ones.
pub(crate) struct RowHasher<'a> {
    columns: Vec<Column<'a>>,
}

enum Column<'a> {
    Text(&'a StringArray),
    Binary(&'a arrow_array::BinaryArray),
    Shown(&'a ArrayRef, ArrayFormatter<'a>),
}

const SHOWN: FormatOptions<'static> = FormatOptions::new();

impl<'a> RowHasher<'a> {
    /// Over `columns` of one length.
    ///
    /// # Errors
    /// [`BulkError::Arrow`] for a type that has no form as text.
    pub(crate) fn new(columns: &'a [ArrayRef]) -> Result<RowHasher<'a>, BulkError> {
        let column = |array: &'a ArrayRef| -> Result<Column<'a>, BulkError> {
            Ok(match array.data_type() {
                DataType::Utf8 => Column::Text(array.as_string()),
                DataType::Binary => Column::Binary(array.as_binary()),
                _ => Column::Shown(array, ArrayFormatter::try_new(array.as_ref(), &SHOWN)?),
            })
        };
        Ok(RowHasher { columns: columns.iter().map(column).collect::<Result<_, _>>()? })
    }

    /// The digest of a row's values and of which of them are NULL.
    pub(crate) fn hash(&self, row: usize) -> u128 {
        let mut hasher = blake3::Hasher::new();
        for column in &self.columns {
            let mut add = |bytes: Option<&[u8]>| {
                hasher.update(&bytes.map_or(u64::MAX, |bytes| bytes.len() as u64).to_le_bytes());
                hasher.update(bytes.unwrap_or_default());
            };
            match column {
                Column::Text(array) => add(array.is_valid(row).then(|| array.value(row).as_bytes())),
                Column::Binary(array) => add(array.is_valid(row).then(|| array.value(row))),
                Column::Shown(array, formatter) => {
                    let shown = array.is_valid(row).then(|| formatter.value(row).to_string());
                    add(shown.as_ref().map(String::as_bytes));
                }
            }
        }
        let mut first = [0; 16];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        u128::from_be_bytes(first)
    }
}

/// A column as texts: numbers and dates as they are written, bytes if they are UTF-8 (else NULL).
///
/// # Errors
/// [`BulkError::Job`] for a type that is no text, such as a list.
pub(crate) fn texts(name: &str, column: &ArrayRef) -> Result<StringArray, BulkError> {
    if column.data_type() == &DataType::Utf8 {
        return Ok(column.as_string::<i32>().clone());
    }
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let cast = arrow_cast::cast_with_options(column, &DataType::Utf8, &options).map_err(|_| {
        BulkError::job(format!("column `{name}` is {}, which is no text", column.data_type()))
    })?;
    Ok(cast.as_string::<i32>().clone())
}

/// What rows gave, and errors of those that gave nothing.
type Given<T> = (Vec<Option<T>>, Vec<(usize, RowError)>);

/// Something of the text of each row, and errors of rows that have none.
///
/// # Errors
/// As [`texts`].
pub(crate) fn each_text<T>(
    name: &str,
    column: &ArrayRef,
    mut of: impl FnMut(usize, &str) -> T,
) -> Result<Given<T>, BulkError> {
    let array = texts(name, column)?;
    let mut errors = Vec::new();
    let mut one = |row| match text(&array, column, row) {
        Ok(text) => Some(of(row, text)),
        Err(error) => {
            errors.push((row, error));
            None
        }
    };
    Ok(((0..column.len()).map(&mut one).collect(), errors))
}

/// The text of a row, or why there is none.
pub(crate) fn text<'a>(array: &'a StringArray, source: &ArrayRef, row: usize) -> Result<&'a str, RowError> {
    if array.is_valid(row) {
        return Ok(array.value(row));
    }
    Err(RowError::fatal(if source.is_valid(row) { "no UTF-8 text" } else { "the value is NULL" }))
}
