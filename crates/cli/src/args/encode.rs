//! Flags of the verbs that embed and rank texts.

use super::rows::{InputArgs, OutputArgs, SourceArgs};
use super::values::{parse_bytes, parse_count, parse_precision};
use clap::{Args, ValueEnum};
use kun_engine::{DType, EncodeOptions};

/// Turn texts or pictures into vectors
#[derive(Args, Debug)]
#[command(before_help = "Examples:
  kun embed \"a red fox\" \"ein roter Fuchs\"
  kun embed reviews.csv --column text -o reviews.npy
  kun embed notes.txt --encoding base64 --jsonl > notes.jsonl
  kun embed \"where do foxes live?\" --input-type query
  kun embed photos/ -m ./clip-vit-base-patch32 -o photos.npy")]
pub struct EmbedArgs {
    #[command(flatten)]
    pub input: InputArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    /// Model name or folder
    #[arg(short, long, default_value = "all-minilm-l6-v2", value_name = "MODEL")]
    pub model: String,
    /// How vectors are written
    #[arg(long, value_enum, default_value_t = VectorEncoding::Float, value_name = "FORM")]
    pub encoding: VectorEncoding,
    /// Only the first so many elements, for models trained to be cut
    #[arg(long, value_parser = parse_count, value_name = "COUNT")]
    pub dimensions: Option<usize>,
    /// What the texts are for: query, document, or another prompt of the model
    #[arg(long, value_name = "NAME", conflicts_with = "text_prompt")]
    pub input_type: Option<String>,
    /// Put this before each text instead of a prompt of the model
    #[arg(long = "text-prompt", value_name = "TEXT")]
    pub text_prompt: Option<String>,
    /// Cut texts that are longer than the model takes, instead of refusing them
    #[arg(long)]
    pub truncate: bool,
    #[command(flatten)]
    pub load: EncodeArgs,
}

/// How vectors are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum VectorEncoding {
    /// Numbers
    Float,
    /// Little-endian f32 in base64
    Base64,
    /// Numbers from -127 to 127, for vectors of length 1
    Int8,
    /// One bit per element, eight to a number from 0 to 255, the first in the highest bit
    Binary,
}

/// Order documents by how well they answer a query
#[derive(Args, Debug)]
#[command(before_help = "Examples:
  kun rerank \"where do foxes live?\" passages.txt --top 5
  kun search … | kun rerank \"where do foxes live?\"")]
pub struct RerankArgs {
    /// What the documents are ranked for
    pub query: String,
    /// Documents: a file that ends in .txt, .jsonl, .csv or .tsv; `-` or none: stdin
    #[arg(value_name = "FILE")]
    pub file: Option<String>,
    #[command(flatten)]
    pub source: SourceArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    /// Model name or folder: a cross-encoder, a decoder that ranks (Qwen3-Reranker), or an embedder whose vectors are compared
    #[arg(short, long, default_value = "all-minilm-l6-v2", value_name = "MODEL")]
    pub model: String,
    /// Print only the best so many
    #[arg(short = 'n', long, value_parser = parse_count, value_name = "COUNT")]
    pub top: Option<usize>,
    /// What the query wants of a document, for decoders that rank
    #[arg(long, value_name = "TEXT")]
    pub instruction: Option<String>,
    /// Cut documents that are longer than the model takes, instead of refusing them
    #[arg(long)]
    pub truncate: bool,
    #[command(flatten)]
    pub load: EncodeArgs,
}

/// How an encoder is loaded.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Loading")]
pub struct EncodeArgs {
    /// Compute threads [default: the physical cores this process may use]
    #[arg(short = 't', long, value_parser = parse_count, value_name = "COUNT")]
    pub threads: Option<usize>,
    /// Type that matrices are multiplied in: f32, bf16 or int8
    #[arg(long, value_parser = parse_precision, value_name = "TYPE")]
    pub precision: Option<DType>,
    /// Tokens of one batch
    #[arg(long, value_parser = parse_count, value_name = "COUNT", hide_short_help = true)]
    pub batch_tokens: Option<usize>,
    /// Memory budget, such as 8GiB [default: what the machine has free]
    #[arg(long, value_parser = parse_bytes, value_name = "BYTES", hide_short_help = true)]
    pub max_memory: Option<u64>,
    /// Read model files instead of mapping them
    #[arg(long, hide_short_help = true)]
    pub no_mmap: bool,
}

impl EncodeArgs {
    /// As the engine takes them.
    pub fn options(&self) -> EncodeOptions {
        EncodeOptions {
            threads: self.threads,
            precision: self.precision,
            max_memory_bytes: self.max_memory,
            no_mmap: self.no_mmap,
            batch_tokens: self.batch_tokens,
            without_head: false,
            ranks: false,
        }
    }
}
