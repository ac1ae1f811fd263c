//! CSV and TSV: every column is text. Splits are bytes from the beginning of one record to that of another, found by
//! reading the file once.

use super::{CHUNK_BYTES, CHUNK_ROWS, Chunk, Chunks, Cut, MAX_ROW_BYTES, SplitSize};
use crate::store::{Object, ObjectInfo};
use crate::{BulkError, Range, RowError};
use arrow_array::builder::StringBuilder;
use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use csv::{ByteRecord, ReaderBuilder};
use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A reader that gives up when a record does not end: a quote that is never closed would take in the whole file.
struct Bounded<R> {
    inner: R,
    left: Arc<AtomicU64>,
}

/// What a record may take with what is read ahead of it.
const BUDGET: u64 = 2 * MAX_ROW_BYTES as u64;

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let left = self.left.load(Ordering::Relaxed);
        match left.checked_sub(count as u64) {
            Some(left) => self.left.store(left, Ordering::Relaxed),
            None => {
                return Err(std::io::Error::other(format!(
                    "a record of more than {MAX_ROW_BYTES} bytes; is a quote not closed?"
                )));
            }
        }
        Ok(count)
    }
}

type Records<R> = (csv::Reader<Bounded<R>>, Arc<AtomicU64>);

fn records<R: Read>(reader: R, delimiter: u8) -> Records<R> {
    let left = Arc::new(AtomicU64::new(BUDGET));
    let bounded = Bounded { inner: reader, left: left.clone() };
    let reader =
        ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter).from_reader(bounded);
    (reader, left)
}

fn next<R: Read>((reader, left): &mut Records<R>, record: &mut ByteRecord) -> Result<bool, csv::Error> {
    left.store(BUDGET, Ordering::Relaxed);
    reader.read_byte_record(record)
}

fn wrong(info: &ObjectInfo, what: impl ToString) -> BulkError {
    BulkError::Input { uri: info.uri.clone(), what: what.to_string() }
}

pub(super) fn ranges(
    object: &Object,
    info: &ObjectInfo,
    delimiter: u8,
    size: SplitSize,
) -> Result<Cut, BulkError> {
    let mut reader = records(object.reader(0, info.size), delimiter);
    let mut record = ByteRecord::new();
    let failed = |error: csv::Error| wrong(info, error);
    if !next(&mut reader, &mut record).map_err(failed)? {
        return Err(wrong(info, "the file is empty: no header"));
    }
    let schema = header(&record).map_err(|what| wrong(info, what))?;
    let mut ranges = Vec::new();
    let (mut start, mut rows) = (reader.0.position().byte(), 0);
    loop {
        let at = reader.0.position().byte();
        let full = rows > 0 && (rows >= size.rows as u64 || at - start >= size.bytes);
        let more = match next(&mut reader, &mut record) {
            Ok(more) => more,
            // What follows cannot be told apart: it is one more row, with an error.
            Err(error) => {
                let whole = Range::Bytes { object: info.clone(), start, end: at };
                ranges.extend((rows > 0).then_some((whole, Some(rows), at - start)));
                let rest =
                    Range::Broken { object: info.clone(), what: format!("from byte {at} on: {error}") };
                ranges.push((rest, Some(1), info.size - at));
                break;
            }
        };
        if full || !more {
            let whole = Range::Bytes { object: info.clone(), start, end: at };
            ranges.extend((rows > 0).then_some((whole, Some(rows), at - start)));
            (start, rows) = (at, 0);
        }
        if !more {
            break;
        }
        rows += 1;
    }
    Ok(Cut { schema: Arc::new(schema), ranges })
}

fn header(record: &ByteRecord) -> Result<Schema, String> {
    let mut seen = BTreeSet::new();
    let mut fields = Vec::with_capacity(record.len());
    for (at, name) in record.iter().enumerate() {
        let name = if at == 0 { name.strip_prefix(b"\xef\xbb\xbf").unwrap_or(name) } else { name };
        let name = std::str::from_utf8(name).map_err(|_| "the header is no UTF-8 text".to_owned())?.trim();
        if name.is_empty() || !seen.insert(name.to_owned()) {
            return Err(format!("column {} has no name of its own (`{name}`)", at + 1));
        }
        fields.push(Field::new(name, DataType::Utf8, true));
    }
    Ok(Schema::new(fields))
}

pub(super) fn open(
    object: &Object,
    info: &ObjectInfo,
    (start, end): (u64, u64),
    delimiter: u8,
    all: &SchemaRef,
    schema: SchemaRef,
) -> Chunks {
    let mut reader = records(object.reader(start, end), delimiter);
    // Places of the wanted columns in a record.
    let places: Vec<usize> =
        schema.fields().iter().filter_map(|field| all.index_of(field.name()).ok()).collect();
    let (width, uri, object) = (all.fields().len(), info.uri.clone(), object.clone());
    let mut record = ByteRecord::new();
    let mut ended = false;
    Box::new(std::iter::from_fn(move || {
        let mut builders: Vec<StringBuilder> = places.iter().map(|_| StringBuilder::new()).collect();
        let mut errors = Vec::new();
        let (mut rows, mut bytes) = (0, 0);
        while !ended && rows < CHUNK_ROWS && bytes < CHUNK_BYTES {
            match next(&mut reader, &mut record) {
                Ok(true) => {
                    if let Err(what) = push(&record, width, &places, &mut builders) {
                        errors.push((rows, RowError::fatal(what)));
                    }
                    bytes += record.as_slice().len();
                    rows += 1;
                }
                Ok(false) => ended = true,
                Err(error) => {
                    ended = true;
                    return Some(Err(match object.failed() {
                        true => BulkError::store("read", &uri, std::io::Error::other(error)),
                        false => BulkError::Input { uri: uri.clone(), what: error.to_string() },
                    }));
                }
            }
        }
        (rows > 0).then(|| {
            let columns: Vec<ArrayRef> =
                builders.iter_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef).collect();
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            let batch = RecordBatch::try_new_with_options(schema.clone(), columns, &options)?;
            Ok(Chunk { errors, ..Chunk::new(batch) })
        })
    }))
}

/// Adds a record; one that is wrong is NULL everywhere.
fn push(
    record: &ByteRecord,
    width: usize,
    places: &[usize],
    builders: &mut [StringBuilder],
) -> Result<(), String> {
    let checked = if record.len() == width {
        let text = |place: &usize| {
            std::str::from_utf8(record.get(*place).unwrap_or_default())
                .map_err(|_| format!("no UTF-8 text in column {}", place + 1))
        };
        places.iter().map(text).collect::<Result<Vec<&str>, _>>()
    } else {
        Err(format!("{} columns instead of {width}", record.len()))
    };
    match checked {
        Ok(texts) => {
            builders.iter_mut().zip(texts).for_each(|(builder, text)| builder.append_value(text));
            Ok(())
        }
        Err(what) => {
            builders.iter_mut().for_each(StringBuilder::append_null);
            Err(what)
        }
    }
}
