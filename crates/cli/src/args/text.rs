//! Flags of the verbs that read texts: classify, extract, answer, train-head, index, search.

use super::encode::EncodeArgs;
use super::rows::{InputArgs, OutputArgs, SourceArgs};
use super::values::parse_count;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Say which label a text or a picture has
#[derive(Args, Debug)]
#[command(before_help = "Examples:
  kun classify \"what a lovely film\" --labels praise,complaint
  kun classify reviews.csv --column text -m distilbert-sst2 -o labels.csv
  kun classify mails.txt --head spam.head --jsonl
  kun classify photo.jpg -n 3")]
pub struct ClassifyArgs {
    #[command(flatten)]
    pub input: InputArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    /// Model name or folder: a classifier, one for entailment, an embedder, or a model that chats
    /// [default with --labels: the default chat model if it is here, else all-minilm-l6-v2]
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Labels of your own, separated by commas
    #[arg(short, long, value_delimiter = ',', value_name = "LIST")]
    pub labels: Vec<String>,
    /// Each label holds or not by itself
    #[arg(long)]
    pub multi_label: bool,
    /// Score from which a label holds [default: 0.5, and none for embedders, whose scores are similarities]
    #[arg(long, requires = "multi_label", value_name = "SCORE")]
    pub threshold: Option<f32>,
    /// Sentence with {} for the label [default: the task's own]
    #[arg(long, value_name = "TEXT", requires = "labels", hide_short_help = true)]
    pub template: Option<String>,
    /// A head from `kun train-head`; it names its model
    #[arg(long, value_name = "FILE", conflicts_with = "labels")]
    pub head: Option<PathBuf>,
    /// Give the scores of only the best so many labels
    #[arg(short = 'n', long, value_parser = parse_count, value_name = "COUNT")]
    pub top: Option<usize>,
    /// Cut texts that are longer than the model takes, instead of refusing them
    #[arg(long)]
    pub truncate: bool,
    #[command(flatten)]
    pub load: EncodeArgs,
}

/// Find names and other entities in texts
#[derive(Args, Debug)]
#[command(before_help = "Examples:
  kun extract \"Ada Lovelace lived in London\" -m bert-base-ner
  kun extract letters.txt --pii --redact -o clean.txt
  kun extract notes.md --labels person,place,date --json")]
pub struct ExtractArgs {
    #[command(flatten)]
    pub input: InputArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    /// Model name or folder: one that labels tokens, or one that chats [default with --labels: the default chat model]
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<String>,
    /// What to look for, separated by commas: any kinds for a chat model, some of its own for one that labels tokens
    #[arg(short, long, value_delimiter = ',', value_name = "LIST")]
    pub labels: Vec<String>,
    /// Find e-mail and network addresses, telephone and card numbers, bank accounts by their form
    #[arg(long)]
    pub pii: bool,
    /// Print the texts with every entity replaced by its kind in brackets
    #[arg(long)]
    pub redact: bool,
    /// How tokens of one word agree
    #[arg(long, value_enum, default_value_t = Aggregate::Simple, value_name = "HOW", hide_short_help = true)]
    pub aggregation: Aggregate,
    /// Leave out entities with a lower score, from 0 to 1
    #[arg(long, default_value_t = 0.0, value_name = "NUMBER")]
    pub min_score: f32,
    #[command(flatten)]
    pub load: EncodeArgs,
}

/// How tokens of one word agree on a label.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Aggregate {
    /// Every token is an entity of its own
    None,
    /// Each token has its own label; neighbours with one label join
    Simple,
    /// A word has the label of its first token
    First,
    /// A word has the label of its highest mean probability
    Average,
    /// A word has the label of its surest token
    Max,
}

/// Answer a question with words of a document
#[derive(Args, Debug)]
#[command(before_help = "Examples:
  kun answer \"When was it built?\" --file tower.txt
  kun answer \"Who signed?\" --file contract.txt --top 3 --may-be-none --json")]
pub struct AnswerArgs {
    /// The question, in quotes
    pub question: String,
    /// The document; rows of .jsonl, .csv and .tsv are documents each; none: stdin
    #[arg(long, value_name = "FILE")]
    pub file: Option<String>,
    #[command(flatten)]
    pub source: SourceArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    /// Model name or folder: one trained to point at answers
    #[arg(short, long, default_value = "roberta-base-squad2", value_name = "MODEL")]
    pub model: String,
    /// Give so many answers
    #[arg(short = 'n', long, default_value = "1", value_parser = parse_count, value_name = "COUNT")]
    pub top: usize,
    /// Allow the answer that there is none, for models trained on questions without one
    #[arg(long)]
    pub may_be_none: bool,
    /// Longest answer
    #[arg(long, default_value = "15", value_parser = parse_count, value_name = "TOKENS", hide_short_help = true)]
    pub answer_tokens: usize,
    /// Length of the windows in which a long document is read, question included
    #[arg(long, default_value = "384", value_parser = parse_count, value_name = "TOKENS", hide_short_help = true)]
    pub window: usize,
    /// What neighbouring windows share
    #[arg(long, default_value = "128", value_parser = parse_count, value_name = "TOKENS", hide_short_help = true)]
    pub overlap: usize,
    #[command(flatten)]
    pub load: EncodeArgs,
}

/// Train a classifier on top of an embedder
#[derive(Args, Debug)]
#[command(before_help = "Example:
  kun train-head all-minilm-l6-v2 --file mails.csv --text-column body --label-column kind -o spam.head")]
pub struct TrainHeadArgs {
    /// Model name or folder: an embedder of texts or of pictures
    pub model: String,
    /// Labelled texts: .csv, .tsv or .jsonl; or a folder of pictures with labels.tsv (`file`, `class`)
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// Column or key of the text; numbers count columns from 1 in a file without header
    #[arg(long, default_value = "text", value_name = "NAME")]
    pub text_column: String,
    /// Column or key of the label
    #[arg(long, default_value = "label", value_name = "NAME")]
    pub label_column: String,
    /// Where the head goes
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Inverse strength of the L2 penalty, as in scikit-learn
    #[arg(short = 'C', long = "inverse-penalty", default_value_t = 1.0, value_name = "NUMBER")]
    pub c: f64,
    /// Leave every so-manyth row out of the training and measure on them; 0: none
    #[arg(long, default_value = "5", value_parser = parse_count, value_name = "COUNT")]
    pub holdout_every: usize,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub load: EncodeArgs,
}

/// Make a folder of texts or pictures searchable by meaning
#[derive(Args, Debug)]
#[command(before_help = "Examples:
  kun index notes/ -o notes.kun          run again after changes: only changed files are read
  kun search \"how do foxes hunt?\" --index notes.kun
  kun index photos/ -m ./clip-vit-base-patch32 -o photos.kun
  kun search \"a dog in the snow\" --index photos.kun")]
pub struct IndexArgs {
    /// Folder with text files, or with pictures for an image encoder
    pub folder: PathBuf,
    /// The index, one file
    #[arg(short, long, default_value = "index.kun", value_name = "FILE")]
    pub output: PathBuf,
    /// Model name or folder: an embedder
    #[arg(short, long, default_value = "all-minilm-l6-v2", value_name = "MODEL")]
    pub model: String,
    /// Longest passage
    #[arg(long, default_value = "800", value_parser = parse_count, value_name = "BYTES", hide_short_help = true)]
    pub passage: usize,
    /// Say how many of the truly nearest passages the index finds
    #[arg(long)]
    pub check: bool,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub load: EncodeArgs,
}

/// Find passages or pictures of an indexed folder by meaning
#[derive(Args, Debug)]
#[command(before_help = "Examples:
  kun search \"how do foxes hunt?\" --index notes.kun
  kun search \"contract ends\" -n 20 --json")]
pub struct SearchArgs {
    /// What to look for, in quotes; among pictures also a picture file
    pub query: String,
    /// The index that `kun index` made
    #[arg(long, default_value = "index.kun", value_name = "FILE")]
    pub index: PathBuf,
    /// Give so many passages
    #[arg(short = 'n', long, default_value = "10", value_parser = parse_count, value_name = "COUNT")]
    pub top: usize,
    /// Compare with every passage instead of following the graph
    #[arg(long)]
    pub exact: bool,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub load: EncodeArgs,
}

/// Rank correlation of an embedder's cosines with people's scores of sentence pairs
#[derive(Args, Debug)]
#[command(before_help = "Example:
  kun eval sts all-minilm-l6-v2 --file stsb-en-test.csv --json")]
pub struct EvalStsArgs {
    /// Model name or folder
    pub model: String,
    /// Sentence pairs with scores: .csv, .tsv or .jsonl
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// The two sentences and the score; numbers count columns from 1 in a file without header
    #[arg(long, value_delimiter = ',', default_value = "1,2,3", value_name = "LIST")]
    pub columns: Vec<String>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub load: EncodeArgs,
}

/// Accuracy of a classifier of texts or pictures
#[derive(Args, Debug)]
#[command(before_help = "Examples:
  kun eval classify all-minilm-l6-v2 --file news.tsv --text-column 1 --label-column 2 --json
  kun eval classify all-minilm-l6-v2 --file sst2.tsv --text-column sentence --head sst2.head")]
pub struct EvalClassifyArgs {
    /// Model name or folder
    pub model: String,
    /// Labelled texts: .csv, .tsv or .jsonl
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// Column or key of the text; numbers count columns from 1 in a file without header
    #[arg(long, default_value = "text", value_name = "NAME")]
    pub text_column: String,
    /// Column or key of the label
    #[arg(long, default_value = "label", value_name = "NAME")]
    pub label_column: String,
    /// Labels to choose from, for models that take any [default: those of the file]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub labels: Vec<String>,
    /// Another name for a label of the file, such as 1=positive; may be given more than once
    #[arg(long, value_parser = parse_rename, value_name = "OLD=NEW")]
    pub rename: Vec<(String, String)>,
    /// Sentence with {} for the label
    #[arg(long, value_name = "TEXT")]
    pub template: Option<String>,
    /// A head from `kun train-head`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["labels", "template"])]
    pub head: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub load: EncodeArgs,
}

fn parse_rename(text: &str) -> Result<(String, String), String> {
    let (old, new) = text.split_once('=').ok_or("expected OLD=NEW, such as 1=positive")?;
    Ok((old.to_owned(), new.to_owned()))
}

/// How well an embedder finds the documents that answer a query
#[derive(Args, Debug)]
#[command(before_help = "Example:
  kun eval retrieval all-minilm-l6-v2 --file cranfield/ --json")]
pub struct EvalRetrievalArgs {
    /// Model name or folder
    pub model: String,
    /// Folder in the layout of BEIR or of the Cranfield collection
    #[arg(long, value_name = "FOLDER")]
    pub file: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub load: EncodeArgs,
}
