//! Flags of the verbs that measure.

use super::generate::{ComputeArgs, LoadArgs};
use super::text::{EvalClassifyArgs, EvalRetrievalArgs, EvalStsArgs};
use super::values::{parse_count, parse_precision};
use clap::{Args, Subcommand};
use kun_engine::DType;
use std::path::PathBuf;

/// Measure a model's speed beside the machine's limits
#[derive(Args, Debug)]
#[command(before_help = "Examples:
  kun bench smollm2
  kun bench ./model.gguf -p 512 -n 128 -t 2 --batch 1,4,16 --json
  kun bench ./model.onnx -t 2 --batch 1,8
  kun bench ./detect.onnx --images photos/")]
pub struct BenchArgs {
    /// Model name, file or folder
    pub model: String,
    /// Tokens of the prompt in the prefill test
    #[arg(short = 'p', long, default_value = "512", value_parser = parse_count, value_name = "TOKENS")]
    pub prompt_tokens: usize,
    /// Tokens decoded by each sequence in the decode test
    #[arg(short = 'n', long, default_value = "128", value_parser = parse_count, value_name = "TOKENS")]
    pub decode_tokens: usize,
    /// Sequences decoded together, or items of an ONNX model's batch; one test each
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = parse_count, value_name = "LIST")]
    pub batch: Vec<usize>,
    /// Repetitions; the median counts
    #[arg(short, long, default_value = "5", value_parser = parse_count, value_name = "COUNT")]
    pub repetitions: usize,
    /// Time an encoder on the texts of a JSON file instead: a list of { name, texts, batch }
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub texts: Option<PathBuf>,
    /// Time a picture model on the pictures of a file, folder or pattern instead: read, decoded, resized, run, answered; and
    /// the network alone beside it
    #[arg(long, value_name = "PICTURES", conflicts_with = "texts", hide_short_help = true)]
    pub images: Option<String>,
    /// Type that the weights of an encoder (with --texts) or an ONNX model are multiplied in: f32 or bf16
    #[arg(long, value_parser = parse_precision, value_name = "TYPE", hide_short_help = true)]
    pub precision: Option<DType>,
    /// Leave out the machine's limits, which take a second to measure
    #[arg(long)]
    pub no_limits: bool,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// Measure how well a model does
#[derive(Debug, Subcommand)]
pub enum EvalVerb {
    Perplexity(PerplexityArgs),
    Choice(EvalChoiceArgs),
    Sts(EvalStsArgs),
    Classify(EvalClassifyArgs),
    Retrieval(EvalRetrievalArgs),
    Detect(super::pictures::EvalDetectArgs),
    Segment(super::pictures::EvalSegmentArgs),
    Ocr(super::pictures::EvalOcrArgs),
    Image(super::pictures::EvalImageArgs),
}

/// Perplexity of a text file
#[derive(Args, Debug)]
#[command(before_help = "Example:
  kun eval perplexity smollm2 --file text.txt --context 512 --json")]
pub struct PerplexityArgs {
    /// Model name, file or folder
    pub model: String,
    /// UTF-8 text
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// Tokens of one window
    #[arg(short = 'c', long, default_value = "512", value_parser = parse_count, value_name = "TOKENS")]
    pub context: usize,
    /// Stop after this many windows [default: the whole text]
    #[arg(long, value_parser = parse_count, value_name = "COUNT")]
    pub windows: Option<usize>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// How often the right one of several continuations is the likeliest, as lm-evaluation-harness counts
#[derive(Args, Debug)]
#[command(before_help = "Example:
  kun eval choice smollm2 --file items.jsonl --json

Each line of the file is an object with `context`, `choices` (texts) and `answer` (the index of the right one).")]
pub struct EvalChoiceArgs {
    /// Model name, file or folder
    pub model: String,
    /// Items, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// Print one JSON document, with the log-probability of every choice
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub load: LoadArgs,
}

/// Look at this machine: processor, measured limits, folders, loosened defaults
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// Threads to measure with [default: the physical cores this process may use]
    #[arg(short = 't', long, value_parser = parse_count, value_name = "COUNT")]
    pub threads: Option<usize>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}
