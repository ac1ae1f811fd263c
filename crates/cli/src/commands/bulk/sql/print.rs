//! Rows of a result on stdout.

use crate::args::SqlArgs;
use crate::terminal::sanitize;
use kun_bulk::sql::Rows;
use serde_json::{Map, Value};
use std::io::{BufWriter, IsTerminal, Stdout, Write};
use unicode_width::UnicodeWidthStr;

/// How rows are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Columns side by side.
    Table,
    Json,
    Jsonl,
    Csv,
}

impl Form {
    /// As the flags say; else a table on a terminal, CSV elsewhere.
    pub fn of(args: &SqlArgs) -> Form {
        match (args.json, args.jsonl, args.csv) {
            (true, ..) => Form::Json,
            (_, true, _) => Form::Jsonl,
            (_, _, true) => Form::Csv,
            _ if std::io::stdout().is_terminal() => Form::Table,
            _ => Form::Csv,
        }
    }
}

/// The widths of columns are those of so many rows.
const LOOK_AHEAD: usize = 500;
/// A longer value is cut off on a terminal.
const MOST_COLUMNS: usize = 60;

/// Writes rows as they come.
pub struct Printer {
    form: Form,
    out: BufWriter<Stdout>,
    is_terminal: bool,
    count: usize,
    begun: bool,
    table: Table,
}

#[derive(Default)]
struct Table {
    columns: Vec<String>,
    numeric: Vec<bool>,
    /// Rows that wait for their columns' widths.
    waiting: Vec<Vec<String>>,
    widths: Option<Vec<usize>>,
}

impl Printer {
    pub fn new(form: Form) -> Printer {
        let is_terminal = std::io::stdout().is_terminal();
        let out = BufWriter::new(std::io::stdout());
        Printer { form, out, is_terminal, count: 0, begun: false, table: Table::default() }
    }

    /// Writes some rows; the first call, which has none, tells the columns.
    ///
    /// # Errors
    /// Those of writing.
    pub fn rows(&mut self, rows: &Rows) -> anyhow::Result<()> {
        let columns = rows.columns();
        if !self.begun {
            self.begun = true;
            self.table.columns = columns.iter().map(|name| clean(name)).collect();
            self.table.numeric = rows.numeric();
            match self.form {
                Form::Csv if columns.is_empty() => {}
                Form::Csv => {
                    self.record(&columns.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?
                }
                Form::Json => self.put("[")?,
                Form::Table | Form::Jsonl => {}
            }
        }
        for row in 0..rows.len() {
            let values = rows.row(row)?;
            match self.form {
                Form::Json | Form::Jsonl => {
                    let names = columns.iter().map(|name| (*name).to_owned());
                    let text = serde_json::to_string(&names.zip(values).collect::<Map<_, _>>())?;
                    match (self.form, self.count) {
                        (Form::Jsonl, _) => self.put(&format!("{text}\n"))?,
                        (_, 0) => self.put(&format!("\n  {text}"))?,
                        _ => self.put(&format!(",\n  {text}"))?,
                    }
                }
                Form::Csv => self.record(&values.iter().map(flat).collect::<Vec<_>>())?,
                Form::Table => {
                    let cells = values.iter().map(|value| self.cell(value)).collect();
                    self.table.waiting.push(cells);
                    if self.table.widths.is_some() || self.table.waiting.len() >= LOOK_AHEAD {
                        self.show()?;
                    }
                }
            }
            self.count += 1;
        }
        if self.form != Form::Table {
            self.out.flush()?;
        }
        Ok(())
    }

    /// Ends the document.
    ///
    /// # Errors
    /// Those of writing.
    pub fn finish(mut self) -> anyhow::Result<()> {
        match self.form {
            Form::Json => self.put(if self.count == 0 { "]\n" } else { "\n]\n" })?,
            Form::Table if !self.table.columns.is_empty() => {
                self.show()?;
                let rows = if self.count == 1 { "row" } else { "rows" };
                self.put(&format!("({} {rows})\n", self.count))?;
            }
            _ => {}
        }
        Ok(self.out.flush()?)
    }

    fn put(&mut self, text: &str) -> anyhow::Result<()> {
        match self.is_terminal {
            true => self.out.write_all(sanitize(text).as_bytes())?,
            false => self.out.write_all(text.as_bytes())?,
        }
        Ok(())
    }

    fn record(&mut self, cells: &[String]) -> anyhow::Result<()> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(cells)?;
        let bytes = writer.into_inner().map_err(|error| anyhow::anyhow!("{error}"))?;
        self.put(&String::from_utf8_lossy(&bytes))
    }

    fn cell(&self, value: &Value) -> String {
        let text = clean(&if value.is_null() { "NULL".to_owned() } else { flat(value) });
        if self.is_terminal { cut(&text) } else { text }
    }

    /// Writes the rows that wait.
    fn show(&mut self) -> anyhow::Result<()> {
        if self.table.widths.is_none() {
            let widest = |(at, name): (usize, &String)| {
                let cells = self.table.waiting.iter().map(|row| row[at].width());
                cells.max().unwrap_or(0).max(name.width())
            };
            let widths: Vec<usize> = self.table.columns.iter().enumerate().map(widest).collect();
            let header = line(&self.table.columns, &widths, &self.table.numeric);
            let rule = widths.iter().map(|width| "─".repeat(*width)).collect::<Vec<_>>().join("  ");
            self.table.widths = Some(widths);
            self.put(&format!("{header}\n{rule}\n"))?;
        }
        let widths = self.table.widths.clone().unwrap_or_default();
        for row in std::mem::take(&mut self.table.waiting) {
            let text = line(&row, &widths, &self.table.numeric);
            self.put(&format!("{text}\n"))?;
        }
        self.out.flush()?;
        Ok(())
    }
}

/// Cells side by side, numbers to the right.
fn line(cells: &[String], widths: &[usize], numeric: &[bool]) -> String {
    let mut text = String::new();
    for ((cell, width), numeric) in cells.iter().zip(widths).zip(numeric) {
        let space = " ".repeat(width.saturating_sub(cell.width()));
        let (before, after) = if *numeric { (space.as_str(), "") } else { ("", space.as_str()) };
        text.push_str(if text.is_empty() { "" } else { "  " });
        text.extend([before, cell, after]);
    }
    text.trim_end().to_owned()
}

/// A text that keeps to its line.
fn clean(text: &str) -> String {
    sanitize(text).replace(['\n', '\t'], " ")
}

fn cut(text: &str) -> String {
    if text.width() <= MOST_COLUMNS {
        return text.to_owned();
    }
    let mut kept = String::new();
    for c in text.chars() {
        if kept.width() + 2 > MOST_COLUMNS {
            break;
        }
        kept.push(c);
    }
    kept + "…"
}

/// A cell of a table: text as it is, what has parts as JSON.
fn flat(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_side_by_side() {
        let cells = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(line(&cells(&["a", "1", "x"]), &[3, 4, 2], &[false, true, false]), "a       1  x");
        assert_eq!(line(&cells(&["漢字", "1"]), &[5, 1], &[false, true]), "漢字   1");
    }

    #[test]
    fn long_cells_are_cut_and_keep_to_their_line() {
        assert_eq!(cut("short"), "short");
        let long = cut(&"x".repeat(100));
        assert!(long.ends_with('…') && long.width() <= MOST_COLUMNS);
        assert_eq!(clean("a\nb\u{1b}[31m"), "a b[31m");
    }
}
