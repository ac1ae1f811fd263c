//! Flags of `kun serve`.

use super::generate::LoadArgs;
use super::values::{parse_count, parse_seconds};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Serve models over HTTP to programs and people
#[derive(Args, Debug)]
#[command(before_help = "Examples:
  kun serve                                     every model of the store, on http://127.0.0.1:8080
  kun serve smollm2 qwen3-0.6b                  load these before the first request
  kun serve --add-key laptop --api-key-file k   make a key; show it once
  kun serve --host 0.0.0.0 --api-key-file k     for other machines, with keys")]
pub struct ServeArgs {
    /// Models to load at the start; others are loaded when a request names them
    #[arg(value_name = "MODEL")]
    pub models: Vec<String>,
    /// Model that answers requests which name none
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    pub host: String,
    /// Port to listen on; 0 takes any free one
    #[arg(short, long, default_value_t = 8080, value_name = "PORT")]
    pub port: u16,
    /// Listen on a Unix socket too, which only its owner can open
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub unix_socket: Option<PathBuf>,
    /// Certificate chain for TLS, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_key", hide_short_help = true)]
    pub tls_cert: Option<PathBuf>,
    /// Private key for TLS, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert", hide_short_help = true)]
    pub tls_key: Option<PathBuf>,
    /// File of hashed API keys; with it, every request needs one
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Make a key of this name, append its hash to the key file, show the key once, and end
    #[arg(long, value_name = "NAME", requires = "api_key_file", hide_short_help = true)]
    pub add_key: Option<String>,
    /// Listen beyond this machine without keys all the same
    #[arg(long, hide_short_help = true)]
    pub insecure_no_auth: bool,
    /// Let the kernel keep the process to its models and its own folders, and run no other program (Linux 5.13 or later)
    #[arg(long, hide_short_help = true)]
    pub sandbox: bool,
    /// Host name that requests may be addressed to, besides this machine's own; may be given more than once
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub allowed_host: Vec<String>,
    /// Web origin whose pages may ask, such as `https://app.example`; may be given more than once
    #[arg(long, value_name = "ORIGIN", hide_short_help = true)]
    pub cors_origin: Vec<String>,
    /// Fetch pictures from public addresses that requests name, over https alone or over http too
    #[arg(long, value_name = "SCHEME", num_args = 0..=1, require_equals = true, default_missing_value = "https", hide_short_help = true)]
    pub allow_image_urls: Option<ImageUrls>,
    /// Send traces to a collector of OpenTelemetry at this address, such as http://127.0.0.1:4318
    #[arg(long, value_name = "URL", hide_short_help = true)]
    pub otlp: Option<String>,
    /// Refuse fields that no route knows, instead of warning
    #[arg(long, hide_short_help = true)]
    pub strict: bool,
    /// Another name for a model, as `NAME=MODEL`; may be given more than once
    #[arg(long, value_parser = parse_alias, value_name = "NAME=MODEL", hide_short_help = true)]
    pub alias: Vec<(String, String)>,
    /// Answers that are worked on together
    #[arg(long, default_value_t = 16, value_parser = parse_count, value_name = "COUNT")]
    pub slots: usize,
    /// Offer a model named `null` that computes nothing and writes the same words all the time, for load tests
    #[arg(long, hide_short_help = true)]
    pub null_model: bool,
    /// Guess tokens ahead: `lookup`, from what was said before, or a smaller model of the same vocabulary
    #[arg(long, value_name = "lookup|MODEL", hide_short_help = true)]
    pub draft: Option<String>,
    /// Let a model go when nobody has used it for so long, such as 10m [default: when its memory is needed]
    #[arg(long, value_parser = parse_seconds, value_name = "TIME", hide_short_help = true)]
    pub keep_alive: Option<Duration>,
    /// Where files and batches of requests are kept [default: this user's state folder]
    #[arg(long, value_name = "DIR", hide_short_help = true)]
    pub files_dir: Option<PathBuf>,
    /// Connections open at once
    #[arg(long, default_value_t = 10_240, value_parser = parse_count, value_name = "COUNT", hide_short_help = true)]
    pub max_connections: usize,
    /// How long running answers may go on after a stop
    #[arg(long, default_value = "30s", value_parser = parse_seconds, value_name = "TIME", hide_short_help = true)]
    pub drain_timeout: Duration,
    #[command(flatten)]
    pub load: LoadArgs,
}

/// Addresses of pictures that are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ImageUrls {
    /// Only https
    Https,
    /// http too
    Http,
}

fn parse_alias(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, model)) if !name.is_empty() && !model.is_empty() => {
            Ok((name.to_owned(), model.to_owned()))
        }
        _ => Err("expected NAME=MODEL, such as gpt-4o-mini=smollm2".to_owned()),
    }
}
