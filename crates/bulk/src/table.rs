//! Files of rows that are written: one writer for every format, and files put together from others.

mod pages;

use crate::BulkError;
use crate::job::Format;
use crate::json;
use crate::store::{Draft, Object};
use arrow_array::{Array, RecordBatch};
use arrow_ipc::reader::FileReader;
use arrow_ipc::writer::FileWriter;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use pages::Pages;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::column::writer::ColumnCloseResult;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::{WriterProperties, WriterPropertiesPtr};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use serde_json::Value;
use std::io::{BufWriter, Read, Write};
use std::sync::Arc;

/// A row group of Parquet is closed when it has so many bytes.
const GROUP_BYTES: usize = 16 << 20;
/// Bytes of a page, and of the different values of a column that are written once and counted from then on. Every column
/// gathers so much in memory.
const PAGE_BYTES: usize = 128 << 10;
const BUFFER_BYTES: usize = 128 << 10;

/// The usual ending of a format's files.
pub(crate) fn ending(format: Format) -> &'static str {
    match format {
        Format::Parquet | Format::Files | Format::Lines => "parquet",
        Format::Csv => "csv",
        Format::Tsv => "tsv",
        Format::Jsonl => "jsonl",
        Format::Arrow => "arrow",
    }
}

/// Writes one file.
pub(crate) struct TableWriter(Kind);

enum Kind {
    Parquet(Box<ArrowWriter<Draft>>),
    Arrow(Box<FileWriter<BufWriter<Draft>>>),
    Jsonl { file: BufWriter<Draft>, schema: SchemaRef },
    Csv { file: Box<csv::Writer<Draft>>, schema: SchemaRef },
}

fn properties(schema: &Schema) -> WriterProperties {
    let level = ZstdLevel::try_new(1).unwrap_or_default();
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_data_page_size_limit(PAGE_BYTES)
        .set_dictionary_page_size_limit(PAGE_BYTES);
    for field in schema.fields() {
        // Vectors have no repetitions that a dictionary could save.
        if let DataType::FixedSizeList(item, _) = field.data_type() {
            let path = ColumnPath::new(vec![field.name().clone(), "list".to_owned(), item.name().clone()]);
            builder = builder.set_column_dictionary_enabled(path, false);
        }
    }
    builder.build()
}

impl TableWriter {
    /// Begins a file.
    pub(crate) fn new(draft: Draft, format: Format, schema: &SchemaRef) -> Result<TableWriter, BulkError> {
        Ok(TableWriter(match format {
            Format::Parquet | Format::Files | Format::Lines => {
                let options = ArrowWriterOptions::new()
                    .with_properties(properties(schema))
                    .with_page_store_factory(Arc::new(Pages::new(draft.scratch())));
                let writer = ArrowWriter::try_new_with_options(draft, schema.clone(), options)?;
                Kind::Parquet(Box::new(writer))
            }
            Format::Arrow => {
                let file = BufWriter::with_capacity(BUFFER_BYTES, draft);
                Kind::Arrow(Box::new(FileWriter::try_new(file, schema)?))
            }
            Format::Jsonl => {
                Kind::Jsonl { file: BufWriter::with_capacity(BUFFER_BYTES, draft), schema: schema.clone() }
            }
            Format::Csv | Format::Tsv => {
                let delimiter = if format == Format::Tsv { b'\t' } else { b',' };
                let mut builder = csv::WriterBuilder::new();
                let builder = builder.delimiter(delimiter).buffer_capacity(BUFFER_BYTES);
                let mut file = Box::new(builder.from_writer(draft));
                file.write_record(schema.fields().iter().map(|field| field.name())).map_err(csv_error)?;
                Kind::Csv { file, schema: schema.clone() }
            }
        }))
    }

    /// Adds rows.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), BulkError> {
        match &mut self.0 {
            Kind::Parquet(writer) => {
                writer.write(batch)?;
                if writer.in_progress_size() > GROUP_BYTES {
                    writer.flush()?;
                }
            }
            Kind::Arrow(writer) => writer.write(batch)?,
            Kind::Jsonl { file, schema } => {
                for row in 0..batch.num_rows() {
                    let mut object = serde_json::Map::new();
                    for (field, column) in schema.fields().iter().zip(batch.columns()) {
                        object.insert(field.name().clone(), json::value(field, column.as_ref(), row)?);
                    }
                    let line = serde_json::to_vec(&object).map_err(std::io::Error::from);
                    let mut line = line.map_err(|error| BulkError::store("write", "a row", error))?;
                    line.push(b'\n');
                    file.write_all(&line).map_err(|error| BulkError::store("write", "rows", error))?;
                }
            }
            Kind::Csv { file, schema } => {
                let mut record = Vec::with_capacity(schema.fields().len());
                for row in 0..batch.num_rows() {
                    record.clear();
                    for (field, column) in schema.fields().iter().zip(batch.columns()) {
                        record.push(cell(field, column.as_ref(), row)?);
                    }
                    file.write_record(&record).map_err(csv_error)?;
                }
            }
        }
        Ok(())
    }

    /// Ends the file.
    pub(crate) fn finish(self) -> Result<Draft, BulkError> {
        let ended = |error| BulkError::store("write", "rows", error);
        match self.0 {
            Kind::Parquet(writer) => Ok(writer.into_inner()?),
            Kind::Arrow(mut writer) => {
                writer.finish()?;
                writer.into_inner()?.into_inner().map_err(|error| ended(error.into_error()))
            }
            Kind::Jsonl { file, .. } => file.into_inner().map_err(|error| ended(error.into_error())),
            Kind::Csv { file, .. } => file.into_inner().map_err(|error| ended(error.into_error())),
        }
    }
}

fn csv_error(error: csv::Error) -> BulkError {
    BulkError::store("write", "rows", std::io::Error::from(error))
}

/// A value in a table of texts: NULL is empty, what has parts is JSON.
fn cell(field: &Field, column: &dyn Array, row: usize) -> Result<String, BulkError> {
    Ok(match json::value(field, column, row)? {
        Value::Null => String::new(),
        Value::String(text) => text,
        other => other.to_string(),
    })
}

/// Puts files of one format and the same columns together, in order.
pub(crate) fn concatenate(
    parts: impl Iterator<Item = Result<Object, BulkError>>,
    mut draft: Draft,
    format: Format,
) -> Result<Draft, BulkError> {
    match format {
        Format::Parquet | Format::Files | Format::Lines => concatenate_parquet(parts, draft),
        Format::Arrow => {
            let mut writer: Option<FileWriter<BufWriter<Draft>>> = None;
            let mut rest = Some(draft);
            for part in parts {
                let part = part?;
                let reader = FileReader::try_new(part.reader(0, part.size()), None)?;
                if let Some(draft) = rest.take() {
                    writer = Some(FileWriter::try_new(
                        BufWriter::with_capacity(BUFFER_BYTES, draft),
                        &reader.schema(),
                    )?);
                }
                for batch in reader {
                    if let Some(writer) = &mut writer {
                        writer.write(&batch?)?;
                    }
                }
            }
            match (writer, rest) {
                (Some(mut writer), _) => {
                    writer.finish()?;
                    let ended = |error| BulkError::store("write", "rows", error);
                    writer.into_inner()?.into_inner().map_err(|error| ended(error.into_error()))
                }
                (None, Some(draft)) => Ok(draft),
                (None, None) => Err(BulkError::job("no parts")),
            }
        }
        Format::Jsonl | Format::Csv | Format::Tsv => {
            let has_header = format != Format::Jsonl;
            for (at, part) in parts.enumerate() {
                let part = part?;
                let failed = |error| BulkError::store("write", "rows", error);
                let mut reader = part.reader(0, part.size());
                if has_header && at > 0 {
                    skip_header(&mut reader).map_err(failed)?;
                }
                std::io::copy(&mut reader, &mut draft).map_err(failed)?;
            }
            Ok(draft)
        }
    }
}

/// Skips a record of a header that we wrote: a line end in quotes belongs to a name.
fn skip_header(reader: &mut impl Read) -> std::io::Result<()> {
    let mut quoted = false;
    let mut byte = [0];
    while reader.read(&mut byte)? == 1 {
        match byte[0] {
            b'"' => quoted = !quoted,
            b'\n' if !quoted => break,
            _ => {}
        }
    }
    Ok(())
}

/// Copies the encoded columns of each row group: nothing is decoded.
fn concatenate_parquet(
    parts: impl Iterator<Item = Result<Object, BulkError>>,
    draft: Draft,
) -> Result<Draft, BulkError> {
    let mut writer: Option<SerializedFileWriter<Draft>> = None;
    let mut rest = Some(draft);
    for part in parts {
        let part = part?;
        let meta: ParquetMetaData = ParquetMetaDataReader::new().parse_and_finish(&part)?;
        if let Some(draft) = rest.take() {
            let file = meta.file_metadata();
            let properties =
                WriterProperties::builder().set_key_value_metadata(file.key_value_metadata().cloned());
            let root = file.schema_descr().root_schema_ptr();
            let properties: WriterPropertiesPtr = Arc::new(properties.build());
            writer = Some(SerializedFileWriter::new(draft, root, properties)?);
        }
        let Some(writer) = &mut writer else { continue };
        for group in meta.row_groups() {
            let mut out = writer.next_row_group()?;
            for column in group.columns() {
                let bytes_written = u64::try_from(column.compressed_size()).unwrap_or(0);
                let rows_written = u64::try_from(group.num_rows()).unwrap_or(0);
                let close = ColumnCloseResult {
                    bytes_written,
                    rows_written,
                    metadata: column.clone(),
                    bloom_filter: None,
                    column_index: None,
                    offset_index: None,
                };
                out.append_column(&part, close)?;
            }
            out.close()?;
        }
    }
    match (writer, rest) {
        (Some(writer), _) => Ok(writer.into_inner()?),
        (None, Some(draft)) => Ok(draft),
        (None, None) => Err(BulkError::job("no parts")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{StoreOptions, Stores};
    use arrow_array::{ArrayRef, Int64Array, StringArray};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    /// Texts that compression makes half as long, and numbers.
    fn rows(first: i64, count: i64) -> RecordBatch {
        let digest = |number: i64| blake3::hash(&number.to_le_bytes()).to_hex();
        let text = |row: i64| (row * 4..row * 4 + 4).map(|n| digest(n).to_string()).collect::<String>();
        let ids: ArrayRef = Arc::new((first..first + count).collect::<Int64Array>());
        let texts: ArrayRef =
            Arc::new((first..first + count).map(|row| Some(text(row))).collect::<StringArray>());
        RecordBatch::try_from_iter([("id", ids), ("text", texts)]).unwrap()
    }

    #[test]
    fn a_row_group_is_larger_than_the_memory_that_it_takes() {
        let scratch = kun_testkit::Scratch::new("table-pages");
        let folder = Stores::new(StoreOptions::default()).folder(&scratch.uri("out")).unwrap();
        let batches: Vec<RecordBatch> = (0..40).map(|at| rows(at * 4096, 4096)).collect();
        let format = Format::Parquet;
        let mut writer = TableWriter::new(folder.draft().unwrap(), format, &batches[0].schema()).unwrap();
        for batch in &batches {
            writer.write(batch).unwrap();
            let Kind::Parquet(inner) = &writer.0 else { panic!("no Parquet") };
            assert!(inner.memory_size() < 4 << 20, "{} bytes in memory", inner.memory_size());
        }
        // Drafts and what waits beside them have no names.
        assert!(folder.names().unwrap().is_empty());
        folder.publish(writer.finish().unwrap(), "rows.parquet").unwrap();
        assert_eq!(scratch.path("out").read_dir().unwrap().count(), 1);
        let file = std::fs::File::open(scratch.path("out/rows.parquet")).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let groups = reader.metadata().row_groups().to_vec();
        assert!(groups.len() > 1 && groups[0].compressed_size() > 8 << 20, "{} groups", groups.len());
        let read: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
        let concat = |batches: &[RecordBatch]| {
            arrow_select::concat::concat_batches(&batches[0].schema(), batches).unwrap()
        };
        assert_eq!(concat(&read).columns(), concat(&batches).columns());
    }
}
