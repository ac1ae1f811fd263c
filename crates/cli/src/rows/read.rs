//! Arguments, files and stdin as one stream of texts.

use super::table::{Fields, Table};
use crate::args::{InputArgs, InputFormat};
use crate::commands::App;
use crate::exit::Misuse;
use anyhow::Context;
use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::Path;
use std::time::Duration;

/// Why one row has no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowError {
    /// Nothing but white space.
    Empty,
    /// Invalid UTF-8 at this byte of the text.
    NotUtf8 {
        /// Counted in the text's own bytes.
        at: usize,
    },
    /// A row longer than is read.
    TooLong {
        /// The row's.
        bytes: usize,
        /// The most.
        limit: usize,
    },
    /// The line is no JSON.
    Json {
        /// What the parser says.
        what: String,
    },
    /// The object lacks the key.
    NoKey {
        /// The key.
        key: String,
    },
    /// The key's value is no text.
    NotText {
        /// The key.
        key: String,
    },
    /// The row has too few columns.
    Columns {
        /// In the row.
        found: usize,
        /// In the header.
        wanted: usize,
    },
}

impl std::fmt::Display for RowError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RowError::Empty => f.write_str("the text is empty"),
            RowError::NotUtf8 { at } => write!(f, "no UTF-8 text (byte {at})"),
            RowError::TooLong { bytes, limit } => write!(f, "{bytes} bytes, a row has at most {limit}"),
            RowError::Json { what } => write!(f, "no JSON: {what}"),
            RowError::NoKey { key } => write!(f, "no key `{key}`"),
            RowError::NotText { key } => write!(f, "the value of `{key}` is no text"),
            RowError::Columns { found, wanted } => write!(f, "{found} columns instead of {wanted}"),
        }
    }
}

impl std::error::Error for RowError {}

/// The format that a file's ending says.
pub fn format_of(path: &Path) -> Option<InputFormat> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "txt" => Some(InputFormat::Lines),
        "md" => Some(InputFormat::Whole),
        "jsonl" | "ndjson" => Some(InputFormat::Jsonl),
        "csv" => Some(InputFormat::Csv),
        "tsv" => Some(InputFormat::Tsv),
        _ => None,
    }
}

/// Opens a file of rows with the asked columns.
///
/// # Errors
/// A file that cannot be opened, and those of [`Table::new`].
pub fn open(path: &Path, format: Option<InputFormat>, columns: &[String]) -> anyhow::Result<Table<'static>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let format = format.or_else(|| format_of(path)).unwrap_or(InputFormat::Lines);
    Table::new(Box::new(file), &path.display().to_string(), format, columns)
}

/// One argument of a verb.
enum Input {
    Text(String),
    File(std::path::PathBuf),
    Stdin,
}

/// An argument names a file if it ends like one of ours or is the name of a file that exists.
fn input(argument: &str) -> Input {
    let path = Path::new(argument);
    let looks = format_of(path).is_some() && !argument.contains(char::is_whitespace);
    match argument {
        "-" => Input::Stdin,
        _ if looks || path.is_file() => Input::File(path.to_owned()),
        _ => Input::Text(argument.to_owned()),
    }
}

/// Every text that the arguments name, in order.
///
/// # Errors
/// [`Misuse`] where there is none.
pub fn texts<'a>(
    app: &'a App,
    args: &'a InputArgs,
) -> anyhow::Result<impl Iterator<Item = anyhow::Result<Result<String, RowError>>> + 'a> {
    let mut inputs: Vec<Input> = args.inputs.iter().map(|argument| input(argument)).collect();
    if inputs.is_empty() {
        if std::io::stdin().is_terminal() {
            return Err(Misuse("no text: give one in quotes, a file, or pipe texts in".to_owned()).into());
        }
        inputs.push(Input::Stdin);
    }
    // A file that is not there is found before any work is done.
    if let Some(missing) = inputs.iter().find_map(|i| match i {
        Input::File(path) if !path.is_file() => Some(path.display().to_string()),
        _ => None,
    }) {
        return Err(Misuse(format!("no file {missing}")).into());
    }
    let columns: Vec<String> = args.source.column.iter().cloned().collect();
    let format = args.source.input_format;
    Ok(inputs.into_iter().flat_map(move |input| -> Box<dyn Iterator<Item = _> + 'a> {
        let opened = match input {
            Input::Text(text) => return Box::new(std::iter::once(Ok(whole_or_empty(text)))),
            Input::File(path) => open(&path, format, &columns),
            Input::Stdin => stdin(app, format, &columns),
        };
        match opened {
            Ok(table) => Box::new(table.map(|row| row.map(text_of))),
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    }))
}

fn stdin(app: &App, format: Option<InputFormat>, columns: &[String]) -> anyhow::Result<Table<'static>> {
    let waiting = crate::commands::remind::after(
        Duration::from_secs(3),
        app.messages(),
        "Waiting for texts on stdin, one a line.",
    );
    let stdin = Reminded { stdin: std::io::stdin(), waiting: Some(waiting) };
    Table::new(Box::new(stdin), "stdin", format.unwrap_or(InputFormat::Lines), columns)
}

/// Stdin, with a reminder until something comes.
struct Reminded {
    stdin: std::io::Stdin,
    waiting: Option<std::sync::mpsc::Sender<()>>,
}

impl Read for Reminded {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.stdin.read(buffer);
        self.waiting = None;
        read
    }
}

fn text_of(fields: Fields) -> Result<String, RowError> {
    whole_or_empty(fields?.pop().unwrap_or_default())
}

fn whole_or_empty(text: String) -> Result<String, RowError> {
    if text.trim().is_empty() { Err(RowError::Empty) } else { Ok(text) }
}
