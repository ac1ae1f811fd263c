//! Arrow IPC: files are cut between record batches, streams are one split.

use super::{CHUNK_ROWS, Chunk, Chunks, Cut, SplitSize};
use crate::store::{Object, ObjectInfo, Section};
use crate::{BulkError, Range};
use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::{ArrowError, SchemaRef};
use std::io::{BufReader, Read};

/// Record batches of a split: their number of rows is not known beforehand.
const SPLIT_BATCHES: usize = 64;

type Input = BufReader<Section>;

fn is_file(object: &Object) -> bool {
    let mut magic = [0; 6];
    object.reader(0, 6).read_exact(&mut magic).is_ok() && &magic == b"ARROW1"
}

fn whole(object: &Object) -> Input {
    object.reader(0, object.size())
}

pub(super) fn ranges(object: &Object, info: &ObjectInfo, _: SplitSize) -> Result<Cut, BulkError> {
    let cut = |first: usize, count: usize, bytes: u64| {
        (Range::Batches { object: info.clone(), first, count }, None, bytes)
    };
    if !is_file(object) {
        let reader = StreamReader::try_new(whole(object), None)?;
        return Ok(Cut { schema: reader.schema(), ranges: vec![cut(0, usize::MAX, info.size)] });
    }
    let reader = FileReader::try_new(whole(object), None)?;
    let batches = reader.num_batches();
    let ranges = (0..batches).step_by(SPLIT_BATCHES).map(|first| {
        let count = SPLIT_BATCHES.min(batches - first);
        cut(first, count, (info.size as f64 * count as f64 / batches as f64) as u64)
    });
    Ok(Cut { schema: reader.schema(), ranges: ranges.collect() })
}

pub(super) fn open(
    object: Object,
    info: &ObjectInfo,
    (first, count): (usize, usize),
    schema: SchemaRef,
) -> Chunks {
    let uri = info.uri.clone();
    let failed = move |error: ArrowError, object: &Object| match object.failed() {
        true => BulkError::store("read", &uri, std::io::Error::other(error)),
        false => BulkError::Input { uri: uri.clone(), what: error.to_string() },
    };
    let batches = match batches(&object, first, count) {
        Ok(batches) => batches,
        Err(error) => return Box::new(std::iter::once(Err(failed(error, &object)))),
    };
    Box::new(batches.flat_map(move |batch| -> Vec<Result<Chunk, BulkError>> {
        match batch {
            Ok(batch) => pieces(&batch, &schema),
            Err(error) => vec![Err(failed(error, &object))],
        }
    }))
}

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>;

fn batches(object: &Object, first: usize, count: usize) -> Result<Batches, ArrowError> {
    if !is_file(object) {
        return Ok(Box::new(StreamReader::try_new(whole(object), None)?));
    }
    let mut reader = FileReader::try_new(whole(object), None)?;
    reader.set_index(first)?;
    Ok(Box::new(reader.take(count)))
}

/// The wanted columns of a batch, cut into chunks.
fn pieces(batch: &RecordBatch, schema: &SchemaRef) -> Vec<Result<Chunk, BulkError>> {
    let columns: Option<Vec<_>> =
        schema.fields().iter().map(|field| batch.column_by_name(field.name()).cloned()).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let chosen = RecordBatch::try_new_with_options(schema.clone(), columns.unwrap_or_default(), &options);
    let batch = match chosen {
        Ok(batch) => batch,
        Err(error) => return vec![Err(error.into())],
    };
    let starts = (0..batch.num_rows()).step_by(CHUNK_ROWS);
    let piece = |start: usize| {
        let batch = batch.slice(start, CHUNK_ROWS.min(batch.num_rows() - start));
        Ok(Chunk::new(batch))
    };
    starts.map(piece).collect()
}
