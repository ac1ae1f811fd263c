//! The description of a job: what goes in, what is done with each row, where it goes.

use crate::call::{Argument, Call};
use crate::{BulkError, units};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use std::path::Path;
use std::time::Duration;

/// A job. Every field has the meaning and the default of `docs/bulk.md`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Job {
    /// What goes in.
    pub input: Input,
    /// What is done with each row, in order; a later call may read an earlier one's column.
    #[serde(deserialize_with = "calls", serialize_with = "tables")]
    pub map: Vec<Call>,
    /// What becomes of rows that fail.
    pub errors: Errors,
    /// Where it goes.
    pub output: Output,
    /// How the work is cut and done.
    pub run: Run,
}

/// What goes in.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Input {
    /// Files, folders, patterns and addresses.
    #[serde(deserialize_with = "one_or_many")]
    pub uri: Vec<String>,
    /// Input columns that the output keeps; `None`: all.
    pub columns: Option<Vec<String>>,
    /// The files' format; `None`: by their endings.
    pub format: Option<Format>,
    /// Instead of files: a query whose rows are the input.
    pub query: Option<String>,
    /// Rows that count, as a condition of SQL.
    #[serde(rename = "where")]
    pub condition: Option<String>,
}

/// What a file of rows looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// Comma-separated, with a header.
    Csv,
    /// Tab-separated, with a header.
    Tsv,
    /// A JSON object a line.
    Jsonl,
    /// Arrow IPC, file or stream.
    Arrow,
    /// A text a line.
    Lines,
    /// Every file is one row: its address, size and text or picture.
    Files,
}

/// What becomes of rows that fail.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Errors {
    /// The column of reasons.
    pub column: String,
    /// How often a row whose error may pass is tried again.
    pub retry: u32,
    /// The job ends when a larger share of at least [`Errors::FEW_ROWS`] rows has failed.
    pub max_rate: f64,
}

impl Errors {
    /// Below this number of rows, no share of errors ends a job.
    pub const FEW_ROWS: u64 = 1000;
}

impl Default for Errors {
    fn default() -> Self {
        Errors { column: "_error".to_owned(), retry: 3, max_rate: 0.5 }
    }
}

/// Where a job's rows go.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Output {
    /// A file, or a folder or prefix of a bucket for one file a split.
    pub uri: String,
    /// The files' format; `None`: by the ending, Parquet for a folder.
    pub format: Option<Format>,
    /// The order of rows; there is one: that of the input within a split, splits in order.
    pub order: Option<String>,
}

/// How the work is cut and done.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Run {
    /// How large splits are.
    pub split: SplitSize,
    /// Whether repeated inputs are computed once.
    pub dedup: Dedup,
    /// How much work a crash within a split may cost.
    #[serde(deserialize_with = "time", serialize_with = "whole_seconds")]
    pub checkpoint: Duration,
    /// Splits worked on at once, and calls of functions; half as many splits are read at once.
    pub workers: usize,
}

impl Default for Run {
    fn default() -> Self {
        Run {
            split: SplitSize::default(),
            dedup: Dedup::InputHash,
            checkpoint: Duration::from_secs(60),
            workers: 2,
        }
    }
}

/// How large splits are: whichever is reached first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SplitSize {
    /// Bytes of the input.
    #[serde(deserialize_with = "size")]
    pub bytes: u64,
    /// Rows, where the input tells them.
    pub rows: usize,
}

impl Default for SplitSize {
    fn default() -> Self {
        SplitSize { bytes: 256 << 20, rows: 50_000 }
    }
}

/// Whether repeated inputs are computed once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dedup {
    /// Equal inputs get one result.
    InputHash,
    /// Every row is computed.
    Off,
}

/// A longer description is a mistake.
const MAX_JOB_BYTES: u64 = 4 << 20;

impl Job {
    /// Reads a job file.
    ///
    /// # Errors
    /// [`BulkError::Store`], [`BulkError::Job`].
    pub fn open(path: &Path) -> Result<Job, BulkError> {
        let failed = |source| BulkError::store("read", path.display(), source);
        if std::fs::metadata(path).map_err(failed)?.len() > MAX_JOB_BYTES {
            return Err(BulkError::job(format!("{} is longer than {MAX_JOB_BYTES} bytes", path.display())));
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        Job::parse(&text).map_err(|error| BulkError::job(format!("{}: {error}", path.display())))
    }

    /// Reads the TOML of a job.
    ///
    /// # Errors
    /// [`BulkError::Job`] that says what and where.
    pub fn parse(text: &str) -> Result<Job, BulkError> {
        let job: Job =
            toml::from_str(text).map_err(|error| BulkError::job(error.to_string().trim_end().to_owned()))?;
        job.check()?;
        Ok(job)
    }

    /// Checks what can be checked without looking at any file.
    ///
    /// # Errors
    /// [`BulkError::Job`].
    pub fn check(&self) -> Result<(), BulkError> {
        let wrong = |what: &str| Err(BulkError::job(what.to_owned()));
        match (self.input.uri.is_empty(), &self.input.query) {
            (true, None) => return wrong("no input: give files, folders or addresses"),
            (false, Some(_)) => return wrong("either files or a query are the input"),
            (_, Some(_)) if self.input.format.is_some() => {
                return wrong("the rows of a query have no format");
            }
            _ => {}
        }
        if self.output.uri.is_empty() {
            return wrong("no output: say where the rows go");
        }
        if self.map.is_empty() {
            return wrong("nothing to do: give a function, such as 'embed(text) as vector'");
        }
        if !(0.0..=1.0).contains(&self.errors.max_rate) {
            return wrong("`max_rate` is a share, from 0 to 1");
        }
        if self.run.split.rows == 0 || self.run.split.bytes == 0 || self.run.workers == 0 {
            return wrong("splits have rows and bytes, and a job has a worker: none of them may be 0");
        }
        if self.run.workers > 64 || self.errors.retry > 100 {
            return wrong("at most 64 workers and 100 retries");
        }
        if let Some(order) = self.output.order.as_deref().filter(|order| *order != "within-split") {
            return Err(BulkError::job(format!("order `{order}`: there is only `within-split`")));
        }
        let mut names = vec![self.errors.column.as_str()];
        for call in &self.map {
            if names.contains(&call.column.as_str()) {
                return Err(BulkError::job(format!(
                    "two columns `{}`; `as` gives another name",
                    call.column
                )));
            }
            names.push(&call.column);
        }
        Ok(())
    }
}

fn one_or_many<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(input)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}

fn time<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    let text = text_or_number(input)?;
    units::seconds(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no time, such as 60s")))
}

fn size<'de, D: Deserializer<'de>>(input: D) -> Result<u64, D::Error> {
    let text = text_or_number(input)?;
    units::bytes(&text)
        .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no size, such as 256MiB")))
}

/// At least one second: shorter ones are not written in job files.
fn whole_seconds<S: Serializer>(time: &Duration, output: S) -> Result<S::Ok, S::Error> {
    output.serialize_u64(time.as_secs().max(1))
}

fn text_or_number<'de, D: Deserializer<'de>>(input: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum TextOrNumber {
        Text(String),
        Number(u64),
    }
    Ok(match TextOrNumber::deserialize(input)? {
        TextOrNumber::Text(text) => text,
        TextOrNumber::Number(number) => number.to_string(),
    })
}

/// `[[map]]` tables: either `with = "fn(args) as column"`, or `fn`, `input` and `out`; other keys are options.
fn calls<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<Call>, D::Error> {
    let tables = Vec::<Map<String, Value>>::deserialize(input)?;
    tables.into_iter().map(|table| call(table).map_err(serde::de::Error::custom)).collect()
}

/// What [`calls`] reads, of calls that were checked: all of a call in one value.
fn tables<S: Serializer>(calls: &[Call], output: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Table<'a> {
        call: &'a Call,
    }
    output.collect_seq(calls.iter().map(|call| Table { call }))
}

fn call(mut table: Map<String, Value>) -> Result<Call, String> {
    if let (Some(call), 1) = (table.get("call"), table.len()) {
        return Call::deserialize(call).map_err(|error| error.to_string());
    }
    let mut text = |key: &str| match table.remove(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("`{key}` in [[map]] is a text, not {other}")),
    };
    if let Some(with) = text("with")? {
        let mut call = Call::parse(&with).map_err(|error| error.to_string())?;
        call.options.extend(table);
        return Ok(call);
    }
    let function = text("fn")?.ok_or("a [[map]] without `fn`")?;
    let column = text("out")?.unwrap_or_else(|| function.clone());
    let arguments = match table.remove("input") {
        None => Vec::new(),
        Some(Value::String(column)) => vec![Argument::Column(column)],
        Some(Value::Array(columns)) => columns
            .into_iter()
            .map(|name| match name {
                Value::String(name) => Ok(Argument::Column(name)),
                other => Err(format!("`input` in [[map]] names columns, not {other}")),
            })
            .collect::<Result<_, _>>()?,
        Some(other) => return Err(format!("`input` in [[map]] names columns, not {other}")),
    };
    Ok(Call { function, arguments, options: table, column })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_whole_description() {
        let job = Job::parse(
            r#"
            [input]
            uri = "docs/*.parquet"
            columns = ["id"]
            [[map]]
            out = "vec"
            fn = "embed"
            model = "all-minilm-l6-v2"
            input = "text"
            [[map]]
            with = "hash(id) as h"
            [errors]
            retry = 1
            max_rate = 0.01
            [output]
            uri = "out/"
            format = "parquet"
            order = "within-split"
            [run]
            split = { bytes = "1MiB", rows = 10 }
            dedup = "off"
            checkpoint = "5s"
            "#,
        )
        .unwrap();
        assert_eq!(job.input.uri, ["docs/*.parquet"]);
        assert_eq!(job.map[0], Call::parse("embed(text, model = 'all-minilm-l6-v2') as vec").unwrap());
        assert_eq!(job.map[1].column, "h");
        assert_eq!(job.run.split, SplitSize { bytes: 1 << 20, rows: 10 });
        assert_eq!((job.run.dedup, job.run.checkpoint), (Dedup::Off, Duration::from_secs(5)));
    }

    #[test]
    fn a_job_that_was_written_down_is_the_same_job() {
        let text = r#"
            input = { uri = ["a.csv", "b.csv"], columns = ["id"], format = "csv" }
            map = [{ with = "generate('Say {text}', max_tokens = 3, schema = '{}') as said" }, { fn = "hash", input = ["id", "text"] }]
            errors = { column = "why", retry = 1, max_rate = 0.25 }
            output = { uri = "out/", format = "jsonl" }
            run = { split = { bytes = 7, rows = 5 }, dedup = "off", checkpoint = "90s", workers = 3 }
        "#;
        let job = Job::parse(text).unwrap();
        let again: Job = serde_json::from_str(&serde_json::to_string(&job).unwrap()).unwrap();
        assert_eq!(format!("{job:?}"), format!("{again:?}"));
    }

    #[test]
    fn says_what_is_wrong() {
        let job = |text: &str| Job::parse(text).unwrap_err().to_string();
        let with = |rest: &str| {
            job(&format!("input.uri = \"a\"\noutput.uri = \"b\"\n{rest}\n[[map]]\nwith = \"hash(a)\"\n"))
        };
        assert!(job("").contains("no input"));
        assert!(job("input.uri = \"a\"").contains("no output"));
        assert!(job("input.uri = \"a\"\noutput.uri = \"b\"").contains("nothing to do"));
        assert!(job("inptu.uri = 1").contains("inptu"));
        assert!(with("errors.max_rate = 2").contains("max_rate"));
        assert!(with("run.checkpoint = \"soon\"").contains("no time"));
        assert!(with("run.workers = 0").contains("none of them"));
        assert!(with("output.order = \"random\"").contains("within-split"));
        assert!(with("[[map]]\nwith = \"hash(b)\"").contains("two columns `hash`"));
        assert!(with("[[map]]\nwith = \"hash(\"").contains("hash("));
    }
}
