//! Flags that load a model and shape an answer.

use super::values::{parse_bytes, parse_count, parse_dtype, parse_kv_type, parse_logit_bias};
use clap::{Args, ValueEnum};
use kun_engine::{DType, KvType, LoadOptions, SamplingOptions};

/// Flags of `kun PROMPT` and `kun run`.
#[derive(Args, Clone, Debug)]
pub struct GenerateArgs {
    /// Most tokens of the answer [default: until the context is full]
    #[arg(short = 'n', long, value_parser = parse_count, value_name = "TOKENS")]
    pub max_tokens: Option<usize>,
    /// Instructions that come before the conversation
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Give the prompt to the model as it is, without chat template
    #[arg(long)]
    pub raw: bool,
    /// Print one JSON document instead of streaming text
    #[arg(long)]
    pub json: bool,
    /// With --json: give the ids of the answer's tokens too
    #[arg(long, hide_short_help = true)]
    pub tokens: bool,
    /// With --json: log-probabilities of each token and of this many likeliest ones
    #[arg(long, value_parser = parse_count, value_name = "COUNT", hide_short_help = true)]
    pub logprobs: Option<usize>,
    /// End the answer before this text; may be given more than once
    #[arg(long, value_name = "TEXT", hide_short_help = true)]
    pub stop: Vec<String>,
    /// Go on at end-of-text tokens
    #[arg(long, hide_short_help = true)]
    pub ignore_end: bool,
    /// Whether a model that can think before it answers does so [default: as the model chooses]
    #[arg(long, value_enum, value_name = "ON|OFF", hide_short_help = true)]
    pub thinking: Option<Thinking>,
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// Guess tokens ahead: `lookup`, from what was said before, or a smaller model of the same vocabulary
    #[arg(long, value_name = "lookup|MODEL", hide_short_help = true)]
    pub draft: Option<String>,
    #[command(flatten)]
    pub load: LoadArgs,
}

/// A switch for templates that know `enable_thinking`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Thinking {
    On,
    Off,
}

/// How tokens are picked.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingArgs {
    /// 0 always picks the likeliest token; higher is more varied
    #[arg(long, default_value_t = 0.2, value_name = "NUMBER")]
    pub temperature: f32,
    /// Keep only this many likeliest tokens; 0 keeps all
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    pub top_k: usize,
    /// Keep the likeliest tokens that together reach this probability; 1 keeps all
    #[arg(long, default_value_t = 0.9, value_name = "NUMBER")]
    pub top_p: f32,
    /// Keep tokens at least this fraction as likely as the likeliest; 0 keeps all
    #[arg(long, default_value_t = 0.0, value_name = "NUMBER", hide_short_help = true)]
    pub min_p: f32,
    /// Locally typical sampling; 1 keeps all
    #[arg(long, default_value_t = 1.0, value_name = "NUMBER", hide_short_help = true)]
    pub typical_p: f32,
    /// Makes tokens already seen less likely; 1 does nothing
    #[arg(long, default_value_t = 1.0, value_name = "NUMBER", hide_short_help = true)]
    pub repetition_penalty: f32,
    /// Subtracted from a token's logit for each time the answer has it
    #[arg(
        long,
        default_value_t = 0.0,
        value_name = "NUMBER",
        allow_negative_numbers = true,
        hide_short_help = true
    )]
    pub frequency_penalty: f32,
    /// Subtracted from a token's logit if the answer has it
    #[arg(
        long,
        default_value_t = 0.0,
        value_name = "NUMBER",
        allow_negative_numbers = true,
        hide_short_help = true
    )]
    pub presence_penalty: f32,
    /// Add to the logit of one token, as `ID=NUMBER`; may be given more than once
    #[arg(long, value_parser = parse_logit_bias, value_name = "ID=NUMBER", hide_short_help = true)]
    pub logit_bias: Vec<(u32, f32)>,
    /// Makes sampling repeatable
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
}

impl SamplingArgs {
    /// As the engine takes them.
    pub fn options(&self) -> SamplingOptions {
        SamplingOptions {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            typical_p: self.typical_p,
            repetition_penalty: self.repetition_penalty,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            logit_bias: self.logit_bias.clone(),
            seed: self.seed,
            ..SamplingOptions::default()
        }
    }
}

/// How a model is loaded.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Loading")]
pub struct LoadArgs {
    /// Context in tokens, such as 8k [default: the model's own, at most 8k, or what fits]
    #[arg(short = 'c', long, value_parser = parse_count, value_name = "TOKENS")]
    pub context: Option<usize>,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// How a model is loaded, where the verb itself knows the context.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Loading")]
pub struct ComputeArgs {
    /// Compute threads [default: the physical cores this process may use]
    #[arg(short = 't', long, value_parser = parse_count, value_name = "COUNT")]
    pub threads: Option<usize>,
    /// Type of the key/value cache: f16 or q8_0
    #[arg(long, default_value = "f16", value_parser = parse_kv_type, value_name = "TYPE", hide_short_help = true)]
    pub kv_type: KvType,
    /// Quantise the weights of a float model at load, such as q8_0 or q4_k
    #[arg(long, value_parser = parse_dtype, value_name = "TYPE", hide_short_help = true)]
    pub quantize: Option<DType>,
    /// Memory budget, such as 8GiB [default: what the machine has free]
    #[arg(long, value_parser = parse_bytes, value_name = "BYTES", hide_short_help = true)]
    pub max_memory: Option<u64>,
    /// Read model files instead of mapping them
    #[arg(long, hide_short_help = true)]
    pub no_mmap: bool,
}

impl LoadArgs {
    /// As the engine takes them.
    pub fn options(&self) -> LoadOptions {
        LoadOptions { context_tokens: self.context, ..self.compute.options() }
    }
}

impl ComputeArgs {
    /// As the engine takes them.
    pub fn options(&self) -> LoadOptions {
        LoadOptions {
            threads: self.threads,
            kv_type: self.kv_type,
            quantize: self.quantize,
            max_memory_bytes: self.max_memory,
            no_mmap: self.no_mmap,
            ..LoadOptions::default()
        }
    }
}
