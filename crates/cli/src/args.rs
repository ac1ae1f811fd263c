//! The command line, declared once: parsing, help, completions, man pages and settings all read it.

// Read only where bulk work is built in.
#[cfg_attr(not(feature = "bulk"), allow(dead_code))]
pub mod bulk;
#[cfg_attr(not(feature = "cluster"), allow(dead_code))]
mod cluster;
mod encode;
mod generate;
mod measure;
pub mod pictures;
mod rows;
mod seq2seq;
mod serve;
mod text;
mod values;

pub use bulk::{BatchArgs, JobsVerb, MapArgs, SqlArgs};
#[cfg_attr(not(feature = "cluster"), allow(unused_imports))]
pub use cluster::{ClusterVerb, ExecutorArgs, SchedulerArgs};
pub use encode::{EmbedArgs, EncodeArgs, RerankArgs, VectorEncoding};
pub use generate::{GenerateArgs, LoadArgs, Thinking};
pub use measure::{BenchArgs, DoctorArgs, EvalChoiceArgs, EvalVerb, PerplexityArgs};
pub use rows::{InputArgs, InputFormat, OutputArgs};
pub use seq2seq::{DecodingArgs, SummarizeArgs, TranslateArgs};
pub use serve::{ImageUrls, ServeArgs};
pub use text::{
    Aggregate, AnswerArgs, ClassifyArgs, EvalClassifyArgs, EvalRetrievalArgs, EvalStsArgs, ExtractArgs,
    IndexArgs, SearchArgs, TrainHeadArgs,
};

use clap::builder::BoolishValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{
    Arg, ArgAction, ArgMatches, Args, ColorChoice, Command, CommandFactory, Parser, Subcommand, ValueEnum,
};
use kun_engine::DType;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

const HELP_TEMPLATE: &str =
    "{about-with-newline}\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}";

const EXAMPLES: &str = "Examples:
  kun \"Why is the sky blue?\"                    ask the default model
  kun                                           chat with it (on a terminal)
  git diff | kun \"Write the commit message\"     stdin is the document
  kun run qwen3-0.6b \"Name three rivers\"        choose a model
  kun fit qwen3-8b                              see whether a model fits first";

/// Runs language models on this machine.
#[derive(Debug, Parser)]
#[command(
    name = "kun",
    before_help = EXAMPLES,
    disable_help_subcommand = true,
    disable_version_flag = true,
    override_usage = "kun [OPTIONS] [PROMPT]\n       kun <COMMAND> …",
    after_help = "Without a verb, kun asks the default model. `kun help TOPIC` explains: models, settings, environment, exit-codes, chat, json."
)]
pub struct Cli {
    #[command(flatten)]
    pub global: GlobalArgs,
    /// Print the version; with --json, the build, its features and kernels
    #[arg(short = 'V', long)]
    pub version: bool,
    #[command(flatten)]
    pub ask: AskArgs,
    #[command(subcommand)]
    pub command: Option<Verb>,
}

/// Flags of every verb.
#[derive(Args, Clone, Debug)]
pub struct GlobalArgs {
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value_t = When::Auto, value_name = "WHEN", hide_short_help = true)]
    pub color: When,
    /// How to show progress: a bar on a terminal and a line every 10 s elsewhere, or one JSON object a line
    #[arg(long, global = true, value_enum, default_value_t = ProgressMode::Auto, value_name = "HOW", hide_short_help = true)]
    pub progress: ProgressMode,
    /// Open no connection; use what is on this disk
    #[arg(long, global = true)]
    pub offline: bool,
    /// Folder of the model store (Hugging Face cache layout)
    #[arg(long, global = true, value_name = "DIR", hide_short_help = true)]
    pub cache_dir: Option<PathBuf>,
    /// Say more on stderr (-vv: even more)
    #[arg(short, long, global = true, action = ArgAction::Count, hide_short_help = true)]
    pub verbose: u8,
    /// Form of what is logged on stderr: text, or one JSON object a line
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORM", hide_short_help = true)]
    pub log_format: LogFormat,
    /// Say only errors on stderr
    #[arg(short, long, global = true, hide_short_help = true)]
    pub quiet: bool,
}

/// Colours: never, always, or where the terminal shows them.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum When {
    Auto,
    Always,
    Never,
}

/// How logs look.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum ProgressMode {
    Auto,
    Json,
    None,
}

impl ProgressMode {
    /// The time between two reports, on a terminal or elsewhere; none if there are none.
    pub fn every(self, terminal: bool) -> Option<Duration> {
        match self {
            ProgressMode::None => None,
            ProgressMode::Json => Some(Duration::from_millis(500)),
            ProgressMode::Auto if terminal => Some(Duration::from_millis(100)),
            ProgressMode::Auto => Some(Duration::from_secs(10)),
        }
    }
}

/// `kun [PROMPT]`: the default model.
#[derive(Args, Clone, Debug)]
pub struct AskArgs {
    /// What to ask, in quotes; `-` reads it from stdin
    #[arg(value_name = "PROMPT")]
    pub prompt: Option<String>,
    /// Model to use instead of the default one
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<String>,
    #[command(flatten)]
    pub generate: GenerateArgs,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    Run(RunArgs),
    Pull(PullArgs),
    Ls(ListArgs),
    Show(ShowArgs),
    Rm(RemoveArgs),
    Verify(VerifyArgs),
    Fit(FitArgs),
    Embed(EmbedArgs),
    Rerank(RerankArgs),
    Classify(ClassifyArgs),
    Extract(ExtractArgs),
    Answer(AnswerArgs),
    TrainHead(TrainHeadArgs),
    Index(IndexArgs),
    Search(SearchArgs),
    Translate(TranslateArgs),
    Summarize(SummarizeArgs),
    Map(MapArgs),
    Sql(SqlArgs),
    Batch(BatchArgs),
    #[command(subcommand)]
    Jobs(JobsVerb),
    #[command(subcommand)]
    Cluster(ClusterVerb),
    Bench(BenchArgs),
    #[command(subcommand)]
    Eval(EvalVerb),
    #[command(subcommand)]
    Onnx(OnnxVerb),
    Serve(ServeArgs),
    Detect(pictures::DetectArgs),
    Segment(pictures::SegmentArgs),
    Depth(pictures::DepthArgs),
    Pose(pictures::PoseArgs),
    Faces(pictures::FacesArgs),
    Ocr(pictures::OcrArgs),
    Upscale(pictures::UpscaleArgs),
    Denoise(pictures::DenoiseArgs),
    Enhance(pictures::EnhanceArgs),
    Stylize(pictures::StylizeArgs),
    Cutout(pictures::CutoutArgs),
    Image(pictures::ImageArgs),
    Doctor(DoctorArgs),
    #[command(subcommand)]
    Config(ConfigVerb),
    Completions(CompletionsArgs),
    Man(ManArgs),
    Help(HelpArgs),
}

/// Ask a model, or chat with it when no prompt is given on a terminal
#[derive(Args, Debug)]
#[command(before_help = "Examples:
  kun run smollm2 \"Write a haiku about rain\"
  kun run ./model.gguf --temperature 0 --json \"Hello\"
  kun run hf.co/Qwen/Qwen3-4B-GGUF:Q4_K_M < question.txt
  kun run model.onnx --input image=image.npy -o out/")]
pub struct RunArgs {
    /// Model name, file, folder or address (`kun help models`)
    pub model: String,
    /// What to ask, in quotes; `-` reads it from stdin
    pub prompt: Option<String>,
    /// An input of an ONNX model: its name and a NumPy array file, once for each
    #[arg(long, value_name = "NAME=FILE.npy", hide_short_help = true)]
    pub input: Vec<String>,
    /// Folder for the outputs of an ONNX model, each as NAME.npy
    #[arg(short, long, value_name = "DIR", hide_short_help = true)]
    pub output: Option<PathBuf>,
    /// Type that products of an ONNX model are computed in: f32, or bf16 where the processor has it
    #[arg(long, value_parser = values::parse_precision, value_name = "TYPE", hide_short_help = true)]
    pub precision: Option<DType>,
    #[command(flatten)]
    pub generate: GenerateArgs,
}

/// Check how ONNX operators are computed
#[derive(Debug, Subcommand)]
pub enum OnnxVerb {
    Check(OnnxCheckArgs),
}

/// Run every case in a folder and print the score
#[derive(Args, Debug)]
#[command(before_help = "Example:
  kun onnx check onnx-node-tests/ --json")]
pub struct OnnxCheckArgs {
    /// Folder with cases, at any depth: model.onnx, test_data_set_*/input_*.pb and output_*.pb
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
    /// Compute each operation by its plain definition
    #[arg(long)]
    pub plain: bool,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Download a model and check it
#[derive(Args, Debug)]
#[command(before_help = "Examples:
  kun pull smollm2
  kun pull hf.co/Qwen/Qwen3-4B-GGUF:Q4_K_M")]
pub struct PullArgs {
    /// Model names (`kun help models`)
    #[arg(required = true, value_name = "MODEL")]
    pub models: Vec<String>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// List the models on this disk
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Show what a model is: architecture, size, type, window, licence
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Model name, file or folder; of a short name not on this disk, what the catalogue knows
    pub model: String,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Remove models from the store
#[derive(Args, Debug)]
pub struct RemoveArgs {
    /// Names as `kun ls` shows them
    #[arg(required = true, value_name = "MODEL")]
    pub models: Vec<String>,
}

/// Check the SHA-256 of a stored model's files
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// Names as `kun ls` shows them; none: every stored model
    #[arg(value_name = "MODEL")]
    pub models: Vec<String>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Weigh a model against this machine's memory without loading it
#[derive(Args, Debug)]
pub struct FitArgs {
    /// Model name, file or folder
    pub model: String,
    #[command(flatten)]
    pub load: LoadArgs,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Settings from flags, environment and files
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    Show(ConfigShowArgs),
}

/// Print every setting in force
#[derive(Args, Debug)]
pub struct ConfigShowArgs {
    /// Say where each value comes from
    #[arg(long)]
    pub origin: bool,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Print the completion script of a shell
#[derive(Args, Debug)]
#[command(before_help = "Example:
  kun completions bash > ~/.local/share/bash-completion/completions/kun")]
pub struct CompletionsArgs {
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Shells with completions.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Shell {
    Bash,
    Elvish,
    Fish,
    Nushell,
    Powershell,
    Zsh,
}

/// Print the man page, or write one page per verb into a folder
#[derive(Args, Debug)]
pub struct ManArgs {
    /// Folder to write into; made if missing
    pub dir: Option<PathBuf>,
}

/// Explain a verb or a topic
#[derive(Args, Debug)]
pub struct HelpArgs {
    /// A verb, or: models, settings, environment, exit-codes, chat, json
    pub topic: Vec<String>,
}

/// The command line as clap sees it: every long flag also reads `KUN_<FLAG>`.
pub fn command() -> Command {
    with_environment(Cli::command(), ASK)
}

/// The verb of `kun PROMPT`, which has none.
pub const ASK: &str = "ask";

fn with_environment(command: Command, verb: &str) -> Command {
    command.help_template(HELP_TEMPLATE).mut_args(|arg| environment_arg(arg, verb)).mut_subcommands(|sub| {
        let verb = sub.get_name().to_owned();
        with_environment(sub, &verb)
    })
}

fn environment_arg(arg: Arg, verb: &str) -> Arg {
    let Some(long) = arg.get_long().filter(|long| is_setting(long)) else { return arg };
    let name = environment_name(verb, long);
    let arg = match arg.get_action() {
        // `KUN_OFFLINE=1` and `offline = true` mean the same as the flag.
        ArgAction::SetTrue => arg.value_parser(BoolishValueParser::new()),
        _ => arg,
    };
    arg.env(name).hide_env(true)
}

/// Whether a long flag is a setting, which the environment and files may give.
pub fn is_setting(long: &str) -> bool {
    !matches!(long, "help" | "version" | "file" | "origin" | "input" | "output" | "add-key")
}

/// Whether a long flag of `verb` is a setting of that verb alone: a model that chats is of no use to one that embeds.
pub fn is_own(verb: &str, long: &str) -> bool {
    long == "model" && verb != ASK
}

/// The environment variable of a long flag of `verb`: `KUN_THREADS`, `KUN_MODEL`, `KUN_EMBED_MODEL`.
pub fn environment_name(verb: &str, long: &str) -> String {
    let name = if is_own(verb, long) { format!("{verb}_{long}") } else { long.to_owned() };
    format!("KUN_{}", name.replace('-', "_").to_ascii_uppercase())
}

/// Parses a command line, with better words for three mistakes: a misspelt verb, a prompt without quotes, and flags
/// of `kun PROMPT` before a verb, which would do nothing.
///
/// # Errors
/// clap's.
pub fn parse(command: Command, line: &[OsString]) -> Result<ArgMatches, clap::Error> {
    let mut again = command.clone();
    match command.try_get_matches_from(line) {
        Err(error) if error.kind() == ErrorKind::UnknownArgument => {
            let Some(first) = first_word(line) else { return Err(error) };
            if let Some(verb) = similar_verb(&again, first) {
                return Err(again.error(ErrorKind::InvalidSubcommand, unknown_verb(first, &verb)));
            }
            let unknown = error.get(ContextKind::InvalidArg);
            match unknown {
                Some(ContextValue::String(word)) if !word.starts_with('-') && !is_verb(&again, first) => {
                    let words = format!(
                        "unexpected `{word}`: put the prompt in quotes, as in kun \"{first} {word} …\""
                    );
                    Err(again.error(ErrorKind::TooManyValues, words))
                }
                _ => Err(error),
            }
        }
        Ok(matches) if matches.subcommand_name().is_none() => {
            let Some(prompt) = matches.get_one::<String>("prompt") else { return Ok(matches) };
            match similar_verb(&again, prompt) {
                Some(verb) => Err(again.error(ErrorKind::InvalidSubcommand, unknown_verb(prompt, &verb))),
                None => Ok(matches),
            }
        }
        Ok(matches) => match misplaced(&again, &matches) {
            Some(words) => Err(again.error(ErrorKind::ArgumentConflict, words)),
            None => Ok(matches),
        },
        Err(error) => Err(error),
    }
}

fn first_word(line: &[OsString]) -> Option<&str> {
    line.get(1)?.to_str().filter(|word| !word.starts_with('-'))
}

fn is_verb(command: &Command, word: &str) -> bool {
    command.find_subcommand(word).is_some()
}

/// A verb one slip away from `word`: a letter missing, added, changed or swapped with its neighbour.
fn similar_verb(command: &Command, word: &str) -> Option<String> {
    if is_verb(command, word) {
        return None;
    }
    let mut names = command.get_subcommands().map(Command::get_name);
    names.find(|name| one_slip(word.as_bytes(), name.as_bytes())).map(str::to_owned)
}

fn one_slip(word: &[u8], name: &[u8]) -> bool {
    let start = word.iter().zip(name).take_while(|(a, b)| a == b).count();
    let (word, name) = (&word[start..], &name[start..]);
    match word.len().abs_diff(name.len()) {
        // Two-letter verbs are one slip away from too many ordinary words.
        _ if start + name.len() < 3 => false,
        0 => {
            let swapped =
                word.len() >= 2 && word[0] == name[1] && word[1] == name[0] && word[2..] == name[2..];
            swapped || word.get(1..) == name.get(1..)
        }
        1 if word.len() > name.len() => word[1..] == *name,
        1 => name[1..] == *word,
        _ => false,
    }
}

fn unknown_verb(word: &str, verb: &str) -> String {
    format!("no verb `{word}`; did you mean `kun {verb}`? To ask a model this one word: kun run MODEL {word}")
}

/// A flag or prompt of `kun PROMPT` typed before a verb.
fn misplaced(command: &Command, matches: &ArgMatches) -> Option<String> {
    let verb = matches.subcommand_name()?;
    let typed = |arg: &&Arg| matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
    let arg = command.get_arguments().filter(|arg| !arg.is_global_set()).find(typed)?;
    Some(match arg.get_long() {
        Some(long) if takes(command, verb, long) => {
            format!("put --{long} after the verb: kun {verb} … --{long} …")
        }
        Some(long) => format!("`kun {verb}` takes no --{long}"),
        None => format!("a prompt before the verb `{verb}`; to ask about it, put all words in quotes"),
    })
}

fn takes(command: &Command, verb: &str, long: &str) -> bool {
    let sub = command.find_subcommand(verb);
    sub.is_some_and(|sub| sub.get_arguments().any(|arg| arg.get_long() == Some(long)))
}

/// The value of `--color` before parsing, since clap's own messages need it.
pub fn color_flag(line: &[OsString]) -> When {
    let mut words = line.iter().filter_map(|word| word.to_str()).take_while(|word| *word != "--");
    let mut value = crate::config::environment_color();
    while let Some(word) = words.next() {
        match word.strip_prefix("--color") {
            Some("") => value = words.next().map(str::to_owned),
            Some(rest) => value = rest.strip_prefix('=').map(str::to_owned),
            None => {}
        }
    }
    value.and_then(|value| When::from_str(&value, true).ok()).unwrap_or(When::Auto)
}

/// clap's own messages follow the same choice.
pub fn clap_color(color: bool) -> ColorChoice {
    if color { ColorChoice::Always } else { ColorChoice::Never }
}

/// The long flag that an error is about.
pub fn flag_of(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(arg)) = error.get(ContextKind::InvalidArg) else { return None };
    let long = arg.strip_prefix("--")?;
    Some(long.split([' ', '=']).next().unwrap_or(long).to_owned())
}
