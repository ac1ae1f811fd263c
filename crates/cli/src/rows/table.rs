//! Rows of files: lines, whole files, JSON lines, tables with separators.

use super::read::RowError;
use crate::args::InputFormat;
use crate::exit::Misuse;
use serde_json::Value;
use std::cell::Cell;
use std::io::{BufRead, BufReader, Read};
use std::rc::Rc;

/// A longer row is an error of that row.
pub const MAX_ROW_BYTES: usize = 16 << 20;
/// A longer file cannot be one text.
const MAX_WHOLE_BYTES: usize = 256 << 20;
/// The column where none is named and the file has several.
const USUAL_COLUMNS: [&str; 4] = ["text", "sentence", "content", "document"];

/// The asked columns of one row.
pub type Fields = Result<Vec<String>, RowError>;

/// The rows of one file.
pub struct Table<'r> {
    rows: Rows<'r>,
    name: String,
}

enum Rows<'r> {
    Lines(BufReader<Box<dyn Read + 'r>>),
    Whole(Option<BufReader<Box<dyn Read + 'r>>>),
    Jsonl { reader: BufReader<Box<dyn Read + 'r>>, keys: Vec<String> },
    Separated { reader: csv::Reader<Limited<'r>>, left: Rc<Cell<usize>>, places: Vec<usize>, width: usize },
}

impl<'r> Table<'r> {
    /// Rows of `reader`, called `name` in messages. `columns` are names, or numbers from 1 in a file without header;
    /// none: the only column, or one with a usual name.
    ///
    /// # Errors
    /// [`Misuse`] where the file has no such column, or columns are asked of plain lines.
    pub fn new(
        reader: Box<dyn Read + 'r>,
        name: &str,
        format: InputFormat,
        columns: &[String],
    ) -> anyhow::Result<Table<'r>> {
        let mut reader = BufReader::new(reader);
        skip_byte_order_mark(&mut reader)?;
        let plain = matches!(format, InputFormat::Lines | InputFormat::Whole);
        if let (true, Some(column)) = (plain, columns.first()) {
            let what = format!("{name} is read as plain text, which has no column `{column}`");
            return Err(Misuse(format!("{what}; --input-format csv, tsv or jsonl has them")).into());
        }
        let rows = match format {
            InputFormat::Lines => Rows::Lines(reader),
            InputFormat::Whole => Rows::Whole(Some(reader)),
            InputFormat::Jsonl => {
                let keys = if columns.is_empty() { vec!["text".to_owned()] } else { columns.to_vec() };
                Rows::Jsonl { reader, keys }
            }
            InputFormat::Csv => separated(reader, name, b',', columns)?,
            InputFormat::Tsv => separated(reader, name, b'\t', columns)?,
        };
        Ok(Table { rows, name: name.to_owned() })
    }

    /// The next row; `None` at the end.
    ///
    /// # Errors
    /// Those of reading, and a table whose quotes never end.
    pub fn next_row(&mut self) -> anyhow::Result<Option<Fields>> {
        use anyhow::Context;
        let row = match &mut self.rows {
            Rows::Lines(reader) => line(reader).map(|row| row.map(|l| l.and_then(text).map(|t| vec![t]))),
            Rows::Whole(reader) => match reader.take() {
                Some(reader) => whole(reader).map(|text| Some(text.map(|t| vec![t]))),
                None => Ok(None),
            },
            Rows::Jsonl { reader, keys } => json_row(reader, keys),
            Rows::Separated { reader, left, places, width } => {
                left.set(MAX_ROW_BYTES);
                separated_row(reader, places, *width)
            }
        };
        row.with_context(|| format!("cannot read {}", self.name))
    }
}

impl Iterator for Table<'_> {
    type Item = anyhow::Result<Fields>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_row().transpose()
    }
}

fn skip_byte_order_mark(reader: &mut impl BufRead) -> std::io::Result<()> {
    if reader.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
        reader.consume(3);
    }
    Ok(())
}

fn text(bytes: Vec<u8>) -> Result<String, RowError> {
    String::from_utf8(bytes).map_err(|error| RowError::NotUtf8 { at: error.utf8_error().valid_up_to() })
}

/// The next line without its end. Of a line that is too long only the length is kept.
fn line(reader: &mut impl BufRead) -> std::io::Result<Option<Result<Vec<u8>, RowError>>> {
    let (mut kept, mut length) = (Vec::new(), 0);
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() && length == 0 {
            return Ok(None);
        }
        let end = buffer.iter().position(|&b| b == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        length += part.len();
        if length <= MAX_ROW_BYTES {
            kept.extend_from_slice(part);
        }
        let used = part.len() + usize::from(end.is_some());
        let ended = end.is_some() || buffer.is_empty();
        reader.consume(used);
        if ended {
            break;
        }
    }
    if length > MAX_ROW_BYTES {
        return Ok(Some(Err(RowError::TooLong { bytes: length, limit: MAX_ROW_BYTES })));
    }
    if kept.last() == Some(&b'\r') {
        kept.pop();
    }
    Ok(Some(Ok(kept)))
}

fn whole(reader: impl Read) -> std::io::Result<Result<String, RowError>> {
    let mut bytes = Vec::new();
    reader.take(MAX_WHOLE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_WHOLE_BYTES {
        return Ok(Err(RowError::TooLong { bytes: bytes.len(), limit: MAX_WHOLE_BYTES }));
    }
    Ok(text(bytes))
}

/// The next line that is not blank, as JSON; a bare string is the text itself.
fn json_row(reader: &mut impl BufRead, keys: &[String]) -> std::io::Result<Option<Fields>> {
    loop {
        let bytes = match line(reader)? {
            None => return Ok(None),
            Some(Err(error)) => return Ok(Some(Err(error))),
            Some(Ok(bytes)) if bytes.trim_ascii().is_empty() => continue,
            Some(Ok(bytes)) => bytes,
        };
        return Ok(Some(text(bytes).and_then(|line| json_fields(&line, keys))));
    }
}

fn json_fields(line: &str, keys: &[String]) -> Fields {
    let value: Value =
        serde_json::from_str(line).map_err(|error| RowError::Json { what: error.to_string() })?;
    keys.iter()
        .map(|key| match (&value, value.get(key)) {
            (Value::String(text), _) if keys.len() == 1 => Ok(text.clone()),
            (_, Some(Value::String(text))) => Ok(text.clone()),
            // Labels and scores are often numbers.
            (_, Some(value @ (Value::Number(_) | Value::Bool(_)))) => Ok(value.to_string()),
            (_, Some(_)) => Err(RowError::NotText { key: key.clone() }),
            (_, None) => Err(RowError::NoKey { key: key.clone() }),
        })
        .collect()
}

/// Stops the table reader before one record takes all memory, as an unclosed quote would.
struct Limited<'r> {
    reader: BufReader<Box<dyn Read + 'r>>,
    left: Rc<Cell<usize>>,
}

impl Read for Limited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            let what = format!("a row of more than {MAX_ROW_BYTES} bytes (a quote that never ends?)");
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, what));
        }
        let most = buffer.len().min(left);
        let read = self.reader.read(&mut buffer[..most])?;
        self.left.set(left - read);
        Ok(read)
    }
}

fn separated<'r>(
    reader: BufReader<Box<dyn Read + 'r>>,
    name: &str,
    separator: u8,
    columns: &[String],
) -> anyhow::Result<Rows<'r>> {
    let left = Rc::new(Cell::new(MAX_ROW_BYTES));
    let limited = Limited { reader, left: left.clone() };
    let numbers: Option<Vec<usize>> =
        columns.iter().map(|c| c.parse().ok().filter(|n| *n > 0)).collect::<Option<_>>();
    let has_header = numbers.as_ref().is_none_or(Vec::is_empty);
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator)
        .has_headers(has_header)
        .flexible(true)
        .from_reader(limited);
    if let (false, Some(numbers)) = (has_header, numbers) {
        let places = numbers.iter().map(|n| n - 1).collect();
        return Ok(Rows::Separated { reader, left, places, width: 0 });
    }
    let header: Vec<String> =
        reader.byte_headers()?.iter().map(|field| String::from_utf8_lossy(field).trim().to_owned()).collect();
    let find = |name: &str| header.iter().position(|h| h == name);
    let places = match columns {
        [] if header.len() <= 1 => vec![0],
        [] => {
            let usual = USUAL_COLUMNS.iter().find_map(|usual| find(usual));
            vec![usual.ok_or_else(|| no_column(name, "--column chooses one", &header))?]
        }
        columns => columns
            .iter()
            .map(|column| find(column).ok_or_else(|| no_column(name, &format!("`{column}`"), &header)))
            .collect::<Result<_, _>>()?,
    };
    Ok(Rows::Separated { reader, left, places, width: header.len() })
}

fn no_column(name: &str, wanted: &str, header: &[String]) -> Misuse {
    let known: Vec<String> = header.iter().take(20).map(|h| format!("`{h}`")).collect();
    Misuse(format!("{name}: which column? {wanted}; it has {}", known.join(", ")))
}

fn separated_row(
    reader: &mut csv::Reader<Limited<'_>>,
    places: &[usize],
    width: usize,
) -> std::io::Result<Option<Fields>> {
    let mut record = csv::ByteRecord::new();
    if !reader.read_byte_record(&mut record).map_err(std::io::Error::from)? {
        return Ok(None);
    }
    let field = |&place: &usize| match record.get(place) {
        Some(bytes) => text(bytes.to_vec()),
        None => Err(RowError::Columns { found: record.len(), wanted: width.max(place + 1) }),
    };
    Ok(Some(places.iter().map(field).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(bytes: &[u8], format: InputFormat, columns: &[&str]) -> Vec<Fields> {
        let columns: Vec<String> = columns.iter().map(|c| (*c).to_owned()).collect();
        let table = Table::new(Box::new(bytes), "test", format, &columns).unwrap();
        table.map(Result::unwrap).collect()
    }

    fn first(rows: Vec<Fields>) -> Vec<Result<String, RowError>> {
        rows.into_iter().map(|row| row.map(|mut fields| fields.remove(0))).collect()
    }

    #[test]
    fn lines_keep_empty_rows_and_their_own_errors() {
        let got = first(rows(b"\xef\xbb\xbfone\r\n\nb\xffd\nlast", InputFormat::Lines, &[]));
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(got, [ok("one"), ok(""), Err(RowError::NotUtf8 { at: 1 }), ok("last")]);
        assert!(rows(b"", InputFormat::Lines, &[]).is_empty());
        assert_eq!(rows(b"\n", InputFormat::Lines, &[]).len(), 1);
    }

    #[test]
    fn a_line_that_is_too_long_is_an_error_of_its_own() {
        let mut bytes = vec![b'a'; MAX_ROW_BYTES + 5];
        bytes.extend(b"\nnext\n");
        let got = first(rows(&bytes, InputFormat::Lines, &[]));
        let too_long = RowError::TooLong { bytes: MAX_ROW_BYTES + 5, limit: MAX_ROW_BYTES };
        assert_eq!(got, [Err(too_long), Ok("next".to_owned())]);
    }

    #[test]
    fn json_lines_are_strings_or_objects() {
        let lines = b"{\"text\":\"a\\u0007\",\"n\":3}\n\n\"bare\"\n{\"n\":1}\n{\"text\":[]}\nnope\n";
        let got = first(rows(lines, InputFormat::Jsonl, &[]));
        assert_eq!(got[..2], [Ok("a\u{7}".to_owned()), Ok("bare".to_owned())]);
        assert_eq!(got[2], Err(RowError::NoKey { key: "text".to_owned() }));
        assert_eq!(got[3], Err(RowError::NotText { key: "text".to_owned() }));
        assert!(matches!(got[4], Err(RowError::Json { .. })));
        let both = rows(lines, InputFormat::Jsonl, &["n", "text"]);
        assert_eq!(both[0], Ok(vec!["3".to_owned(), "a\u{7}".to_owned()]));
    }

    #[test]
    fn tables_find_columns_by_name_number_and_habit() {
        let table = b"id,sentence\n1,\"a, \"\"b\"\"\nc\"\n2\n3,\xff\n";
        let got = first(rows(table, InputFormat::Csv, &[]));
        assert_eq!(got[0], Ok("a, \"b\"\nc".to_owned()));
        assert_eq!(got[1], Err(RowError::Columns { found: 1, wanted: 2 }));
        assert_eq!(got[2], Err(RowError::NotUtf8 { at: 0 }));
        let got = rows(b"a\tx\nb\ty\n", InputFormat::Tsv, &["2", "1"]);
        assert_eq!(got[0], Ok(vec!["x".to_owned(), "a".to_owned()]));
        assert_eq!(got.len(), 2);
        let missing = Table::new(Box::new(&b"a,b\n"[..]), "t.csv", InputFormat::Csv, &["c".to_owned()]);
        let what = missing.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(what.contains("`c`") && what.contains("`a`, `b`"), "{what}");
    }

    #[test]
    fn a_quote_that_never_ends_is_found_before_memory_is() {
        let mut bytes = b"text\n\"".to_vec();
        bytes.resize(MAX_ROW_BYTES + (1 << 20), b'x');
        let mut table = Table::new(Box::new(&bytes[..]), "test", InputFormat::Csv, &[]).unwrap();
        let error = format!("{:#}", table.next_row().unwrap_err());
        assert!(error.contains("quote"), "{error}");
    }
}
