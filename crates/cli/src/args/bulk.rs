//! Flags of the verbs that work through large data.

use super::generate::LoadArgs;
use super::values::{parse_bytes, parse_count, parse_seconds, parse_shard};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Apply functions to every row of tables, folders and buckets; the same command resumes
#[derive(Args, Debug)]
#[command(before_help = "Examples:
  kun map docs/*.parquet --with 'embed(text) as vector' -o out/
  kun map photos/ --with 'detect(image) as boxes' -o boxes.parquet
  kun map reviews.csv --with \"generate('Summarise: {text}', max_tokens = 60) as summary\" -o out.jsonl
  kun map pages.parquet --where \"lang = 'en'\" --with 'quality(text) as q' -o good.parquet
  kun map job.toml --shard 3/64
  kun map job.toml --on df://scheduler:50050
  kun map --functions")]
pub struct MapArgs {
    /// Files, folders, patterns and addresses, or one job.toml
    #[arg(value_name = "INPUT")]
    pub inputs: Vec<String>,
    /// What is done with each row: 'function(column, .., option = value) as column'; may be given more than once
    #[arg(long, value_name = "CALL")]
    pub with: Vec<String>,
    /// A file (.parquet .jsonl .csv .tsv .arrow) or a folder
    #[arg(short, long, value_name = "FILE|DIR")]
    pub output: Option<String>,
    /// Input columns that the output keeps [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub columns: Vec<String>,
    /// Instead of files: a query of SQL whose rows are the input, such as a join of two tables
    #[arg(long, value_name = "SQL", conflicts_with = "inputs")]
    pub query: Option<String>,
    /// Rows that count, as a condition of SQL over the input's columns
    #[arg(long = "where", value_name = "CONDITION")]
    pub condition: Option<String>,
    /// List the functions
    #[arg(long)]
    pub functions: bool,
    /// Work on a few sampled rows, write nothing, and tell rate, time and memory of the whole
    #[arg(long)]
    pub dry_run: bool,
    /// This process does one part of the job: the I-th of N, counted from 0
    #[arg(long, value_parser = parse_shard, value_name = "I/N")]
    pub shard: Option<(usize, usize)>,
    /// Let the executors of this scheduler do it (`kun cluster`)
    #[arg(long, value_name = "df://HOST:PORT", conflicts_with_all = ["shard", "dry_run"])]
    pub on: Option<String>,
    /// How the input's files are read [default: by their endings]
    #[arg(long, value_enum, value_name = "FORMAT", hide_short_help = true)]
    pub read_as: Option<TableFormat>,
    /// The format of files in an output folder [default: parquet]
    #[arg(long, value_enum, value_name = "FORMAT", hide_short_help = true)]
    pub write_as: Option<TableFormat>,
    /// End the job when a larger share of its rows has failed, 0 to 1 [default: 0.5]
    #[arg(long, value_name = "SHARE", hide_short_help = true)]
    pub max_error_rate: Option<f64>,
    /// How often a row is tried again whose error may pass [default: 3]
    #[arg(long, value_name = "COUNT", hide_short_help = true)]
    pub retries: Option<u32>,
    /// Rows of a split at most [default: 50000]
    #[arg(long, value_parser = parse_count, value_name = "COUNT", hide_short_help = true)]
    pub split_rows: Option<usize>,
    /// Bytes of a split at most [default: 256MiB]
    #[arg(long, value_parser = parse_bytes, value_name = "BYTES", hide_short_help = true)]
    pub split_bytes: Option<u64>,
    /// So many splits, and calls of functions, at once; half as many splits are read at once [default: 2]
    #[arg(long, value_parser = parse_count, value_name = "COUNT", hide_short_help = true)]
    pub workers: Option<usize>,
    /// How much work within a split a crash may cost [default: 60s]
    #[arg(long, value_parser = parse_seconds, value_name = "TIME", hide_short_help = true)]
    pub checkpoint: Option<Duration>,
    /// Compute repeated inputs again
    #[arg(long, hide_short_help = true)]
    pub no_dedup: bool,
    /// Compute threads of each model [default: the physical cores this process may use]
    #[arg(short = 't', long, value_parser = parse_count, value_name = "COUNT", hide_short_help = true)]
    pub threads: Option<usize>,
    /// Print the report as one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Ask files, tables and models in SQL; without a query on a terminal, a prompt
#[derive(Args, Debug)]
#[command(before_help = "Examples:
  kun sql \"SELECT lang, count(*) FROM 'docs/*.parquet' GROUP BY lang\"
  kun sql \"SELECT uri, classify_image(image) AS kind FROM images('photos/') WHERE size < 20e6\" -o kinds.jsonl
  kun sql \"SELECT text FROM 'faq.csv' ORDER BY cosine(embed(text), embed('lost parcel')) DESC LIMIT 3\"
  kun sql report.sql --json
  kun sql")]
pub struct SqlArgs {
    /// Statements in quotes, or a file that ends in .sql; `-`: stdin
    #[arg(value_name = "SQL|FILE")]
    pub query: Option<String>,
    /// A file of statements
    #[arg(short, long, value_name = "FILE", conflicts_with = "query")]
    pub file: Option<PathBuf>,
    /// Write the rows to a file (.parquet .jsonl .csv .tsv .arrow) or into an empty folder
    #[arg(short, long, value_name = "FILE|DIR", conflicts_with_all = ["json", "jsonl", "csv"])]
    pub output: Option<String>,
    /// Print one JSON document
    #[arg(long, conflicts_with_all = ["jsonl", "csv"])]
    pub json: bool,
    /// Print a JSON object a line
    #[arg(long, conflicts_with = "csv")]
    pub jsonl: bool,
    /// Print CSV, as is usual where the output is no terminal
    #[arg(long)]
    pub csv: bool,
    /// Bytes of sorts, joins and groups in memory; more of them go to files [default: half of what is free]
    #[arg(long, value_parser = parse_bytes, value_name = "BYTES", hide_short_help = true)]
    pub memory: Option<u64>,
    /// Compute threads of each model [default: the physical cores this process may use]
    #[arg(short = 't', long, value_parser = parse_count, value_name = "COUNT", hide_short_help = true)]
    pub threads: Option<usize>,
}

/// Answer a file of requests in the form of OpenAI's Batch API; the same command resumes
#[derive(Args, Debug)]
#[command(before_help = "Examples:
  kun batch requests.jsonl -o answers.jsonl
A line: {\"custom_id\": \"1\", \"method\": \"POST\", \"url\": \"/v1/chat/completions\", \"body\": {..}}")]
pub struct BatchArgs {
    /// A request a line
    #[arg(value_name = "FILE")]
    pub input: PathBuf,
    /// Answers, one a line
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// What was refused or failed [default: beside the answers, NAME.errors.jsonl]
    #[arg(long, value_name = "FILE")]
    pub errors: Option<PathBuf>,
    /// Answers that are worked on together
    #[arg(long, default_value_t = 16, value_parser = parse_count, value_name = "COUNT")]
    pub slots: usize,
    /// Print the report as one JSON document
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub load: LoadArgs,
}

/// Formats of tables.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum TableFormat {
    Parquet,
    Csv,
    Tsv,
    Jsonl,
    Arrow,
    /// A text a line (input only)
    Lines,
    /// Every file is a row (input only)
    Files,
}

/// List, show, cancel and clean up jobs of `kun map`
#[derive(Debug, Subcommand)]
pub enum JobsVerb {
    List(JobsListArgs),
    Show(JobsOfArgs),
    Cancel(JobsOfArgs),
    Clean(JobsCleanArgs),
}

/// Jobs that this user has begun on this machine
#[derive(Args, Debug)]
pub struct JobsListArgs {
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// A job
#[derive(Args, Debug)]
pub struct JobsOfArgs {
    /// Its output
    #[arg(value_name = "OUTPUT")]
    pub job: String,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Forget jobs: without an output, those that are done; with one, that job, and what it has not finished is lost
#[derive(Args, Debug)]
pub struct JobsCleanArgs {
    /// Its output
    #[arg(value_name = "OUTPUT")]
    pub job: Option<String>,
}
