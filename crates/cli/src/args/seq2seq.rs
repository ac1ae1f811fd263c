//! Flags of the verbs that translate and summarise.

use super::generate::LoadArgs;
use super::rows::OutputArgs;
use super::values::parse_count;
use clap::Args;

/// Translate a text, line by line
#[derive(Args, Debug)]
#[command(before_help = "Examples:
  kun translate --to deu \"The fox sleeps.\" -m opus-mt-en-de
  kun translate --from eng --to zho notes.txt -o notes.zh.txt -m nllb-200-distilled-600m
  git log -1 | kun translate --to French")]
pub struct TranslateArgs {
    /// A text, a file of text, or `-` for stdin
    #[arg(value_name = "TEXT|FILE")]
    pub input: Option<String>,
    /// The language it becomes: a code (deu, de, zh-Hans) or an English name
    #[arg(long, value_name = "LANGUAGE")]
    pub to: String,
    /// The language it is in, where the model must be told
    #[arg(long, value_name = "LANGUAGE")]
    pub from: Option<String>,
    /// Model name or folder: a translation model, or one that chats [default: the default chat model]
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<String>,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub search: DecodingArgs,
    #[command(flatten)]
    pub load: LoadArgs,
}

/// Summarise a text
#[derive(Args, Debug)]
#[command(before_help = "Examples:
  kun summarize report.txt -m bart-large-cnn
  kun summarize < article.txt --json")]
pub struct SummarizeArgs {
    /// A text, a file of text, or `-` for stdin
    #[arg(value_name = "TEXT|FILE")]
    pub input: Option<String>,
    /// Model name or folder: a summarisation model, or one that chats [default: the default chat model]
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<String>,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub search: DecodingArgs,
    #[command(flatten)]
    pub load: LoadArgs,
}

/// How answers are searched.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Search")]
pub struct DecodingArgs {
    /// Beams; 1 is greedy [default: as the model's files say]
    #[arg(long, value_parser = parse_count, value_name = "COUNT")]
    pub beams: Option<usize>,
    /// Most tokens of one answer [default: as the model's files say]
    #[arg(long, value_parser = parse_count, value_name = "COUNT")]
    pub max_tokens: Option<usize>,
}
