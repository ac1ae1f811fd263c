//! Results as text, JSON, JSON lines, tables or NumPy arrays.

use super::{Job, RowResult};
use crate::args::OutputArgs;
use crate::exit::Misuse;
use crate::terminal::sanitize;
use anyhow::Context;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Seek, SeekFrom, Write};
use std::path::Path;

/// One value of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Text, number, list or object.
    Value(Value),
    /// A vector; the row of a `.npy` file.
    Floats(Vec<f32>),
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Cell::Value(value) => value.serialize(serializer),
            Cell::Floats(values) => serializer.collect_seq(values),
        }
    }
}

impl<T: Into<Value>> From<T> for Cell {
    fn from(value: T) -> Cell {
        Cell::Value(value.into())
    }
}

/// What one row gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    line: String,
    fields: Vec<(&'static str, Cell)>,
}

impl Record {
    /// A record that plain text shows as `line`.
    pub fn new(line: String) -> Record {
        Record { line, fields: Vec::new() }
    }

    /// With one more value.
    pub fn with(mut self, name: &'static str, value: impl Into<Cell>) -> Record {
        self.fields.push((name, value.into()));
        self
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Format {
    Text,
    Json,
    Jsonl,
    Csv,
    Tsv,
    Npy,
}

/// Writes records in the order in which they come.
pub struct Sink {
    format: Format,
    out: Out,
    columns: Vec<String>,
    model: String,
    rows: usize,
    npy: Npy,
}

enum Out {
    Stdout { writer: BufWriter<std::io::Stdout>, is_terminal: bool },
    File { writer: BufWriter<File>, name: String },
}

/// Rows of a matrix: the width is known from the first good row on.
#[derive(Default)]
struct Npy {
    width: Option<usize>,
    missing: usize,
}

/// The header of a `.npy` file is padded to this size, so that the number of rows can be filled in last.
const NPY_HEADER_BYTES: usize = 128;

impl Sink {
    /// Chooses format and place.
    ///
    /// # Errors
    /// [`Misuse`] for an ending that is no format; a file that cannot be made.
    pub fn open(args: &OutputArgs, job: &Job<'_>) -> anyhow::Result<Sink> {
        let (format, out) = match &args.output {
            Some(path) if path.as_os_str() != "-" => {
                let format = format_of(path)?;
                if format == Format::Npy && !job.columns.contains(&"embedding") {
                    return Err(Misuse(format!("`kun {}` gives no vectors for .npy", job.name)).into());
                }
                let name = path.display().to_string();
                let file = File::create(path).with_context(|| format!("cannot write {name}"))?;
                (format, Out::File { writer: BufWriter::new(file), name })
            }
            _ => {
                let format = match (args.json, args.jsonl) {
                    (true, _) => Format::Json,
                    (_, true) => Format::Jsonl,
                    _ => Format::Text,
                };
                let is_terminal = std::io::stdout().is_terminal();
                (format, Out::Stdout { writer: BufWriter::new(std::io::stdout()), is_terminal })
            }
        };
        let columns = job.columns.iter().map(|c| (*c).to_owned()).collect();
        let mut sink =
            Sink { format, out, columns, model: job.model.to_owned(), rows: 0, npy: Npy::default() };
        sink.begin()?;
        Ok(sink)
    }

    fn begin(&mut self) -> anyhow::Result<()> {
        match self.format {
            Format::Json => {
                let model = serde_json::to_string(&self.model)?;
                self.put(&format!("{{\n  \"model\": {model},\n  \"rows\": ["))
            }
            Format::Csv | Format::Tsv => {
                let mut header = vec!["index".to_owned()];
                header.extend(self.columns.iter().cloned());
                header.push("error".to_owned());
                self.table_row(&header)
            }
            Format::Npy => self.put_bytes(&[b' '; NPY_HEADER_BYTES]),
            Format::Text | Format::Jsonl => Ok(()),
        }
    }

    /// Writes one result.
    ///
    /// # Errors
    /// Those of the write.
    pub fn write(&mut self, result: RowResult) -> anyhow::Result<()> {
        let index = self.rows;
        self.rows += 1;
        let (record, error) = match result {
            Ok(record) => (record, None),
            Err(error) => (Record::default(), Some(format!("{error:#}"))),
        };
        match self.format {
            Format::Text => {
                let line = match &error {
                    Some(error) => format!("error: {error}"),
                    None => record.line,
                };
                self.put(&format!("{line}\n"))
            }
            Format::Json | Format::Jsonl => {
                let model = (self.format == Format::Jsonl).then_some(self.model.as_str());
                let row = Row { index, model, record: &record, error: error.as_deref() };
                let text = serde_json::to_string(&row)?;
                match (self.format, index) {
                    (Format::Jsonl, _) => self.put(&format!("{text}\n")),
                    (_, 0) => self.put(&format!("\n    {text}")),
                    _ => self.put(&format!(",\n    {text}")),
                }
            }
            Format::Csv | Format::Tsv => {
                let mut row = vec![index.to_string()];
                row.extend(self.columns.iter().map(|column| {
                    record
                        .fields
                        .iter()
                        .find(|(name, _)| name == column)
                        .map_or(String::new(), |(_, c)| flat(c))
                }));
                row.push(error.unwrap_or_default());
                self.table_row(&row)
            }
            Format::Npy => self.matrix_row(&record),
        }
    }

    /// A row without a vector is a row of NaN, so that row numbers stay those of the input.
    fn matrix_row(&mut self, record: &Record) -> anyhow::Result<()> {
        let vector = record.fields.iter().find_map(|(_, cell)| match cell {
            Cell::Floats(values) => Some(values),
            Cell::Value(_) => None,
        });
        match (vector, self.npy.width) {
            (Some(values), width) if width.is_none_or(|w| w == values.len()) => {
                self.npy.width = Some(values.len());
                for _ in 0..std::mem::take(&mut self.npy.missing) {
                    self.put_bytes(&floats(&vec![f32::NAN; values.len()]))?;
                }
                self.put_bytes(&floats(values))
            }
            (Some(values), _) => anyhow::bail!("a vector of {} numbers among others", values.len()),
            (None, Some(width)) => self.put_bytes(&floats(&vec![f32::NAN; width])),
            (None, None) => {
                self.npy.missing += 1;
                Ok(())
            }
        }
    }

    fn table_row(&mut self, cells: &[String]) -> anyhow::Result<()> {
        let delimiter = if self.format == Format::Tsv { b'\t' } else { b',' };
        let mut writer = csv::WriterBuilder::new().delimiter(delimiter).from_writer(Vec::new());
        writer.write_record(cells)?;
        let bytes = writer.into_inner().map_err(|error| anyhow::anyhow!("{error}"))?;
        self.put_bytes(&bytes)
    }

    fn put(&mut self, text: &str) -> anyhow::Result<()> {
        match &self.out {
            Out::Stdout { is_terminal: true, .. } => {
                let clean = sanitize(text).into_owned();
                self.put_bytes(clean.as_bytes())
            }
            _ => self.put_bytes(text.as_bytes()),
        }
    }

    fn put_bytes(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        match &mut self.out {
            Out::Stdout { writer, .. } => Ok(writer.write_all(bytes)?),
            Out::File { writer, name } => {
                writer.write_all(bytes).with_context(|| format!("cannot write {name}"))
            }
        }
    }

    /// Ends the document; gives the number of rows.
    ///
    /// # Errors
    /// Those of the write.
    pub fn finish(mut self) -> anyhow::Result<usize> {
        if self.format == Format::Json {
            self.put(if self.rows == 0 { "]\n}\n" } else { "\n  ]\n}\n" })?;
        }
        let rows = self.rows - self.npy.missing;
        match &mut self.out {
            Out::Stdout { writer, .. } => writer.flush()?,
            Out::File { writer, name } => {
                if self.format == Format::Npy {
                    writer.seek(SeekFrom::Start(0))?;
                    writer.write_all(&npy_header(rows, self.npy.width.unwrap_or(0)))?;
                }
                writer.flush().with_context(|| format!("cannot write {name}"))?;
            }
        }
        Ok(self.rows)
    }
}

fn format_of(path: &Path) -> anyhow::Result<Format> {
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    Ok(match ending.as_str() {
        "txt" => Format::Text,
        "json" => Format::Json,
        "jsonl" | "ndjson" => Format::Jsonl,
        "csv" => Format::Csv,
        "tsv" => Format::Tsv,
        "npy" => Format::Npy,
        _ => {
            let what = format!("{}: which format? end it in .json .jsonl .csv .tsv .txt", path.display());
            return Err(Misuse(what).into());
        }
    })
}

/// A cell of a table: text as it is, everything else as JSON.
fn flat(cell: &Cell) -> String {
    match cell {
        Cell::Value(Value::String(text)) => text.clone(),
        Cell::Value(Value::Null) => String::new(),
        cell => serde_json::to_string(cell).unwrap_or_default(),
    }
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Version 1 of <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.
fn npy_header(rows: usize, width: usize) -> Vec<u8> {
    let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend(((NPY_HEADER_BYTES - 10) as u16).to_le_bytes());
    header.extend(text.as_bytes());
    header.resize(NPY_HEADER_BYTES - 1, b' ');
    header.push(b'\n');
    header
}

struct Row<'a> {
    index: usize,
    model: Option<&'a str>,
    record: &'a Record,
    error: Option<&'a str>,
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("index", &self.index)?;
        for (name, cell) in &self.record.fields {
            map.serialize_entry(name, cell)?;
        }
        if let Some(error) = self.error {
            map.serialize_entry("error", error)?;
        }
        if let Some(model) = self.model {
            map.serialize_entry("model", model)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_json_in_their_own_order() {
        let record = Record::new(String::new())
            .with("text", "a\u{7}")
            .with("embedding", Cell::Floats(vec![0.1, -2.0]));
        let row = Row { index: 3, model: Some("m"), record: &record, error: None };
        let text = serde_json::to_string(&row).unwrap();
        assert_eq!(text, r#"{"index":3,"text":"a\u0007","embedding":[0.1,-2.0],"model":"m"}"#);
        let failed = Row { index: 0, model: None, record: &Record::default(), error: Some("no") };
        assert_eq!(serde_json::to_string(&failed).unwrap(), r#"{"index":0,"error":"no"}"#);
    }

    #[test]
    fn the_matrix_header_is_numpys() {
        let header = npy_header(1_000_000, 384);
        assert_eq!((header.len(), &header[..8], header[127]), (128, &b"\x93NUMPY\x01\x00"[..], b'\n'));
        assert!(String::from_utf8_lossy(&header[10..]).contains("'shape': (1000000, 384)"));
    }

    #[test]
    fn endings_are_formats() {
        for (name, format) in [("a.JSON", Format::Json), ("b.tsv", Format::Tsv), ("c.npy", Format::Npy)] {
            assert_eq!(format_of(Path::new(name)).unwrap(), format);
        }
        assert!(format_of(Path::new("a.xlsx")).is_err());
    }

    #[test]
    fn cells_of_tables_are_flat() {
        assert_eq!(flat(&"plain".into()), "plain");
        assert_eq!(flat(&Value::Null.into()), "");
        assert_eq!(flat(&serde_json::json!({"a": 1}).into()), r#"{"a":1}"#);
        assert_eq!(flat(&Cell::Floats(vec![0.5])), "[0.5]");
    }
}
