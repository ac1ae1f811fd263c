//! Flags of verbs that go over many texts: where the texts come from and where the results go.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Where texts come from.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Input")]
pub struct InputArgs {
    /// Texts, or files that end in .txt, .jsonl, .csv or .tsv; `-` or none: stdin
    #[arg(value_name = "TEXT|FILE")]
    pub inputs: Vec<String>,
    #[command(flatten)]
    pub source: SourceArgs,
}

/// How files are read.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Input")]
pub struct SourceArgs {
    /// Column or key of the text; a number counts columns from 1 in a file without header
    #[arg(long, visible_alias = "text-column", value_name = "NAME")]
    pub column: Option<String>,
    /// How files and stdin are read [default: by a file's ending; else lines]
    #[arg(long, value_enum, value_name = "FORMAT", hide_short_help = true)]
    pub input_format: Option<InputFormat>,
}

/// What a file of texts looks like.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum InputFormat {
    /// A text a line
    Lines,
    /// The whole file is one text
    Whole,
    /// A JSON object or string a line
    Jsonl,
    /// Comma-separated, quoted with "
    Csv,
    /// Tab-separated, quoted with "
    Tsv,
}

/// Where results go.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Print one JSON document
    #[arg(long, conflicts_with = "jsonl")]
    pub json: bool,
    /// Print a JSON object a line
    #[arg(long)]
    pub jsonl: bool,
    /// Write to a file; its ending gives the format: .json .jsonl .csv .tsv .txt
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["json", "jsonl"])]
    pub output: Option<PathBuf>,
}
