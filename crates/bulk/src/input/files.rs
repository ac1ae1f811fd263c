//! Folders: every file is a row. What is in it is read only where it is asked for.

use super::{CHUNK_BYTES, Chunk, Chunks, Found, Planner};
use crate::job::Format;
use crate::store::{ObjectInfo, Stores};
use crate::{BulkError, Files, Range, RowError};
use arrow_array::builder::{BinaryBuilder, StringBuilder};
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;

/// Files of one split at most: a crash costs no more of them.
const SPLIT_FILES: usize = 1000;
/// Files that are a chunk.
const CHUNK_FILES: usize = 64;
/// A longer document is an error of its row.
const MAX_TEXT_BYTES: u64 = 64 << 20;
/// A longer file is an error of its row.
const MAX_CONTENT_BYTES: u64 = 1 << 30;

/// Columns that are there for functions and are kept only if asked for.
const LAZY: [&str; 3] = ["image", "text", "content"];

pub(crate) fn lazy_names(format: Format) -> &'static [&'static str] {
    if format == Format::Files { &LAZY } else { &[] }
}

/// `image` is the file's address, for functions that look at pictures; `text` and `content` are what is in it.
pub(super) fn lazy_field(format: Format, name: &str) -> Option<Field> {
    let data_type = match name {
        "image" | "text" => DataType::Utf8,
        "content" => DataType::Binary,
        _ => return None,
    };
    (format == Format::Files).then(|| Field::new(name, data_type, true))
}

pub(super) fn plan(planner: &mut Planner<'_>, found: &Found) -> Result<(), BulkError> {
    planner.schema = Some(Arc::new(Schema::new(vec![
        Field::new("uri", DataType::Utf8, true),
        Field::new("size", DataType::Int64, true),
    ])));
    let (most_files, most_bytes) = (SPLIT_FILES.min(planner.size.rows), planner.size.bytes);
    let mut rest = found.objects.clone();
    while !rest.is_empty() {
        let (mut count, mut bytes) = (0, 0_u64);
        for info in rest.iter().take(most_files) {
            if count > 0 && bytes.saturating_add(info.size) > most_bytes {
                break;
            }
            (count, bytes) = (count + 1, bytes.saturating_add(info.size));
        }
        let (own, others) = rest.split_at(count);
        planner.push((Range::Files { objects: own }, Some(count as u64), bytes))?;
        rest = others;
    }
    Ok(())
}

pub(super) fn open(stores: Stores, objects: Files, schema: SchemaRef) -> Chunks {
    let mut next = 0;
    let reads = schema.fields().iter().any(|field| matches!(field.name().as_str(), "text" | "content"));
    Box::new(std::iter::from_fn(move || {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        while chunk.len() < CHUNK_FILES && (chunk.is_empty() || bytes < CHUNK_BYTES as u64) {
            let Some(info) = objects.get(next) else { break };
            bytes += if reads { info.size } else { 0 };
            chunk.push(info.clone());
            next += 1;
        }
        (!chunk.is_empty()).then(|| rows(&stores, &chunk, &schema))
    }))
}

fn rows(stores: &Stores, files: &[ObjectInfo], schema: &SchemaRef) -> Result<Chunk, BulkError> {
    let mut errors: Vec<(usize, RowError)> = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for field in schema.fields() {
        columns.push(match field.name().as_str() {
            "size" => {
                Arc::new(files.iter().map(|info| i64::try_from(info.size).ok()).collect::<Int64Array>())
            }
            "text" => {
                let mut builder = StringBuilder::new();
                for (row, info) in files.iter().enumerate() {
                    match text(stores, info) {
                        Ok(text) => builder.append_value(text),
                        Err(error) => {
                            builder.append_null();
                            errors.push((row, error));
                        }
                    }
                }
                Arc::new(builder.finish())
            }
            "content" => {
                let mut builder = BinaryBuilder::new();
                for (row, info) in files.iter().enumerate() {
                    match content(stores, info, MAX_CONTENT_BYTES) {
                        Ok(content) => builder.append_value(content),
                        Err(error) => {
                            builder.append_null();
                            errors.push((row, error));
                        }
                    }
                }
                Arc::new(builder.finish())
            }
            _ => Arc::new(files.iter().map(|info| Some(info.uri.as_str())).collect::<StringArray>()),
        });
    }
    errors.sort_by_key(|(row, _)| *row);
    errors.dedup_by_key(|(row, _)| *row);
    Ok(Chunk { errors, ..Chunk::new(RecordBatch::try_new(schema.clone(), columns)?) })
}

fn content(stores: &Stores, info: &ObjectInfo, limit: u64) -> Result<Vec<u8>, RowError> {
    let object = stores.open(info).map_err(|error| RowError::fatal(error.to_string()))?;
    object.read_all(limit).map_err(|error| match info.size > limit {
        true => RowError::fatal(error.to_string()),
        false => RowError::retryable(error.to_string()),
    })
}

fn text(stores: &Stores, info: &ObjectInfo) -> Result<String, RowError> {
    String::from_utf8(content(stores, info, MAX_TEXT_BYTES)?).map_err(|error| {
        RowError::fatal(format!("no UTF-8 text (byte {})", error.utf8_error().valid_up_to()))
    })
}
