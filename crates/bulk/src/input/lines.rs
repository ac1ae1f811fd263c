//! Files of lines: texts, or JSON objects. Splits are bytes from the beginning of one line to that of another.

use super::{CHUNK_BYTES, CHUNK_ROWS, Chunk, Chunks, Found, MAX_ROW_BYTES, Planner};
use crate::job::Format;
use crate::json;
use crate::store::{Object, ObjectInfo};
use crate::{BulkError, Range, RowError};
use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use serde_json::Value;
use std::io::{BufRead, Read};
use std::sync::Arc;

/// Lines that columns of JSON are known by, at most.
const SAMPLE_LINES: usize = 10_000;
const SAMPLE_BYTES: u64 = 16 << 20;

pub(super) fn plan(planner: &mut Planner<'_>, found: &Found) -> Result<(), BulkError> {
    let mut sample = json::Inference::default();
    for info in &found.objects {
        let object = planner.stores.open(info)?;
        let failed = |error: std::io::Error| BulkError::store("read", &info.uri, error);
        // The first lines tell the columns of JSON and how long lines are.
        let mut reader = object.reader(0, info.size.min(SAMPLE_BYTES));
        let (mut lines, mut bytes) = (0, 0);
        let mut line = Vec::new();
        while lines < SAMPLE_LINES {
            let ended = next_line(&mut reader, &mut line).map_err(failed)?;
            let Some(length) = ended else { break };
            (lines, bytes) = (lines + 1, bytes + length);
            if found.format == Format::Jsonl
                && let Ok(Value::Object(object)) = serde_json::from_slice(&line)
            {
                sample.add(&object);
            }
        }
        let line_bytes = (bytes / lines.max(1) as u64).max(1);
        let most = planner.size.bytes.min(line_bytes.saturating_mul(planner.size.rows as u64)).max(1);
        let mut start = 0;
        while start < info.size {
            let end = line_start(&object, start.saturating_add(most)).map_err(failed)?;
            planner.push((Range::Bytes { object: info.clone(), start, end }, None, end - start))?;
            start = end;
        }
    }
    planner.schema = Some(Arc::new(match found.format {
        Format::Jsonl => sample.schema(),
        _ => Schema::new(vec![Field::new("text", DataType::Utf8, true)]),
    }));
    Ok(())
}

/// The beginning of the first line at or after `at`, or the end of the file.
fn line_start(object: &Object, at: u64) -> std::io::Result<u64> {
    if at == 0 || at >= object.size() {
        return Ok(at.min(object.size()));
    }
    let mut reader = object.reader(at - 1, object.size());
    let skipped = skip_line(&mut reader)?;
    Ok((at - 1 + skipped).min(object.size()))
}

/// Skips to behind the next line end; gives the bytes skipped.
fn skip_line(reader: &mut impl BufRead) -> std::io::Result<u64> {
    let mut skipped = 0;
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(skipped);
        }
        let end = buffer.iter().position(|b| *b == b'\n');
        let count = end.map_or(buffer.len(), |at| at + 1);
        skipped += count as u64;
        reader.consume(count);
        if end.is_some() {
            return Ok(skipped);
        }
    }
}

/// Reads a line without its end into `line`; gives its bytes with the end, `None` at the end of the file. Of a line that
/// is too long, so much is kept that this shows.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<Option<u64>> {
    line.clear();
    let mut read = reader.by_ref().take(MAX_ROW_BYTES as u64 + 1).read_until(b'\n', line)? as u64;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() > MAX_ROW_BYTES {
        read += skip_line(reader)?;
        return Ok(Some(read));
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(Some(read))
}

pub(super) fn open(
    object: &Object,
    info: &ObjectInfo,
    (start, end): (u64, u64),
    format: Format,
    all: &SchemaRef,
    schema: SchemaRef,
) -> Chunks {
    // A key that is not among the columns is lost only where all columns are wanted.
    let strict = schema.fields().len() >= all.fields().len();
    let mut reader = object.reader(start, end);
    let uri = info.uri.clone();
    let mut line = Vec::new();
    let mut ended = false;
    Box::new(std::iter::from_fn(move || {
        let mut rows = Rows::new(&schema, format, strict);
        while !ended && rows.len < CHUNK_ROWS && rows.bytes < CHUNK_BYTES {
            match next_line(&mut reader, &mut line) {
                Ok(Some(_)) => rows.push(&line),
                Ok(None) => ended = true,
                Err(error) => {
                    ended = true;
                    return Some(Err(BulkError::store("read", &uri, error)));
                }
            }
        }
        (rows.len > 0).then(|| rows.finish())
    }))
}

struct Rows<'a> {
    schema: &'a SchemaRef,
    format: Format,
    strict: bool,
    len: usize,
    bytes: usize,
    texts: Vec<Option<String>>,
    objects: Vec<Option<serde_json::Map<String, Value>>>,
    errors: Vec<(usize, RowError)>,
}

impl<'a> Rows<'a> {
    fn new(schema: &'a SchemaRef, format: Format, strict: bool) -> Rows<'a> {
        let (texts, objects, errors) = (Vec::new(), Vec::new(), Vec::new());
        Rows { schema, format, strict, len: 0, bytes: 0, texts, objects, errors }
    }

    fn push(&mut self, line: &[u8]) {
        let text = if line.len() > MAX_ROW_BYTES {
            Err(format!("a line of more than {MAX_ROW_BYTES} bytes"))
        } else {
            std::str::from_utf8(line).map_err(|error| format!("no UTF-8 text (byte {})", error.valid_up_to()))
        };
        // A line of white space is no row of a JSON file; of a text, it is.
        if self.format == Format::Jsonl && text.as_ref().is_ok_and(|text| text.trim().is_empty()) {
            return;
        }
        self.bytes += line.len();
        let error = match (self.format, text) {
            (_, Err(what)) => Some(what),
            (Format::Jsonl, Ok(text)) => match json::object(text, self.schema, self.strict) {
                Ok(object) => {
                    self.objects.push(Some(object));
                    None
                }
                Err(what) => Some(what),
            },
            (_, Ok(text)) => {
                self.texts.push(Some(text.to_owned()));
                None
            }
        };
        if let Some(what) = error {
            self.errors.push((self.len, RowError::fatal(what)));
            match self.format {
                Format::Jsonl => self.objects.push(None),
                _ => self.texts.push(None),
            }
        }
        self.len += 1;
    }

    fn finish(self) -> Result<Chunk, BulkError> {
        let columns: Vec<ArrayRef> = match self.format {
            Format::Jsonl => json::columns(self.schema, &self.objects)?,
            _ => {
                let texts: ArrayRef = Arc::new(StringArray::from(self.texts));
                self.schema.fields().iter().map(|_| texts.clone()).collect()
            }
        };
        let options = RecordBatchOptions::new().with_row_count(Some(self.len));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        Ok(Chunk { errors: self.errors, ..Chunk::new(batch) })
    }
}
