//! A column that says which row of the input a row is.

use super::{Chunk, Chunks};
use crate::BulkError;
use arrow_array::{Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, SchemaRef};
use std::sync::Arc;

/// The column's name among the columns that are read; no file has one of that name.
pub const ROW: &str = "kun:row";
/// A split has fewer rows.
const SPLIT_BITS: u32 = 32;

pub(super) fn field() -> Field {
    Field::new(ROW, DataType::Int64, true)
}

/// The number of the split, and of the row in it, both from 0.
pub fn place_of(row: i64) -> (usize, u64) {
    let row = row.cast_unsigned();
    (usize::try_from(row >> SPLIT_BITS).unwrap_or(usize::MAX), row & u64::from(u32::MAX))
}

/// Chunks with the column at `at`; with it, they have `schema`.
pub(super) fn numbered(chunks: Chunks, split: usize, at: usize, schema: SchemaRef) -> Chunks {
    let mut next = 0_u64;
    Box::new(chunks.map(move |chunk| {
        let Chunk { batch, errors, dropped } = chunk?;
        let (first, rows) = (next, batch.num_rows() as u64);
        next += rows;
        if next > u64::from(u32::MAX) {
            return Err(BulkError::job("a split of more than 4,294,967,295 rows; make splits smaller"));
        }
        let base = (split as u64) << SPLIT_BITS;
        let numbers = (first..next).map(|row| (base | row).cast_signed());
        let mut columns = batch.columns().to_vec();
        columns.insert(at, Arc::new(numbers.collect::<Int64Array>()));
        Ok(Chunk { batch: RecordBatch::try_new(schema.clone(), columns)?, errors, dropped })
    }))
}
