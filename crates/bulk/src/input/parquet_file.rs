//! Parquet: splits are row groups, or rows of one.

use super::{CHUNK_BYTES, CHUNK_ROWS, Chunk, Chunks, Cut, SplitSize};
use crate::store::{Object, ObjectInfo};
use crate::{BulkError, Range};
use arrow_schema::SchemaRef;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::file::metadata::RowGroupMetaData;

/// A row group with more rows is a lie.
const MAX_GROUP_ROWS: u64 = 1 << 31;

fn rows_of(group: &RowGroupMetaData) -> u64 {
    u64::try_from(group.num_rows()).unwrap_or(0)
}

pub(super) fn ranges(object: &Object, info: &ObjectInfo, size: SplitSize) -> Result<Cut, BulkError> {
    let meta = ArrowReaderMetadata::load(object, ArrowReaderOptions::default())?;
    let mut ranges = Vec::new();
    let groups = meta.metadata().row_groups();
    if let Some(group) = groups.iter().find(|group| rows_of(group) > MAX_GROUP_ROWS) {
        let what = format!("a row group of {} rows", group.num_rows());
        return Err(BulkError::Input { uri: info.uri.clone(), what });
    }
    let most = size.rows as u64;
    let mut push = |group: usize, skip: u64, rows: u64, bytes: u64| {
        let range = Range::Rows { object: info.clone(), group, skip, rows };
        ranges.push((range, Some(rows), bytes));
    };
    // A run of whole row groups that are small together.
    let (mut first, mut rows, mut bytes) = (0, 0, 0);
    for (index, group) in groups.iter().enumerate() {
        let own = rows_of(group);
        let own_bytes = u64::try_from(group.compressed_size()).unwrap_or(0);
        if rows > 0 && (rows + own > most || bytes + own_bytes > size.bytes) {
            push(first, 0, rows, bytes);
            (rows, bytes) = (0, 0);
        }
        if rows == 0 {
            first = index;
        }
        if own > most {
            for skip in (0..own).step_by(size.rows) {
                let part = most.min(own - skip);
                push(index, skip, part, (own_bytes as f64 * part as f64 / own as f64) as u64);
            }
        } else {
            (rows, bytes) = (rows + own, bytes + own_bytes);
        }
    }
    if rows > 0 {
        push(first, 0, rows, bytes);
    }
    Ok(Cut { schema: meta.schema().clone(), ranges })
}

pub(super) fn open(
    object: Object,
    info: &ObjectInfo,
    (group, skip, rows): (usize, u64, u64),
    schema: SchemaRef,
) -> Chunks {
    let opened = start(&object, (group, skip, rows), &schema);
    let uri = info.uri.clone();
    let mut reader = match opened {
        Ok(reader) => reader,
        Err(error) => return Box::new(std::iter::once(Err(failure(&object, &uri, &error)))),
    };
    Box::new(std::iter::from_fn(move || {
        let batch = match reader.next()? {
            Ok(batch) => batch,
            Err(error) => return Some(Err(failure(&object, &uri, &error))),
        };
        // The reader gives columns in the file's order.
        let columns = schema.fields().iter().map(|field| batch.column_by_name(field.name()).cloned());
        let columns: Option<Vec<_>> = columns.collect();
        let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let batch = arrow_array::RecordBatch::try_new_with_options(
            schema.clone(),
            columns.unwrap_or_default(),
            &options,
        );
        Some(batch.map(Chunk::new).map_err(BulkError::from))
    }))
}

/// An error of the content, which concerns rows, or of reading, which concerns the split.
fn failure(object: &Object, uri: &str, error: &dyn std::error::Error) -> BulkError {
    if object.failed() {
        return BulkError::store("read", uri, std::io::Error::other(super::chain(error)));
    }
    BulkError::Input { uri: uri.to_owned(), what: super::chain(error) }
}

fn start(
    object: &Object,
    (group, skip, rows): (usize, u64, u64),
    schema: &SchemaRef,
) -> Result<parquet::arrow::arrow_reader::ParquetRecordBatchReader, parquet::errors::ParquetError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(object.clone())?;
    let groups = builder.metadata().row_groups();
    let (mut last, mut reached, mut bytes) = (group, 0, 0);
    for (index, one) in groups.iter().enumerate().skip(group) {
        (last, reached) = (index, reached + rows_of(one));
        bytes += u64::try_from(one.total_byte_size()).unwrap_or(0);
        if reached >= skip.saturating_add(rows) {
            break;
        }
    }
    // Rows of pictures are large: as many at once as fit the memory that is meant for them.
    let row_bytes = usize::try_from(bytes / reached.max(1)).unwrap_or(usize::MAX).max(1);
    let batch_rows = (CHUNK_BYTES / row_bytes).clamp(1, CHUNK_ROWS);
    let parquet_schema = builder.parquet_schema();
    let roots = parquet_schema.root_schema().get_fields();
    let wanted = roots.iter().enumerate().filter(|(_, field)| schema.field_with_name(field.name()).is_ok());
    let mask = ProjectionMask::roots(parquet_schema, wanted.map(|(index, _)| index));
    builder
        .with_projection(mask)
        .with_row_groups((group..=last).collect())
        .with_offset(usize::try_from(skip).unwrap_or(usize::MAX))
        .with_limit(usize::try_from(rows).unwrap_or(usize::MAX))
        .with_batch_size(batch_rows)
        .build()
}
