//! What the engine and the hub log, on stderr.

use crate::args::LogFormat;
use tracing::level_filters::LevelFilter;

/// Shows warnings, with `-v` information, with `-vv` everything; with `--quiet` errors only.
pub fn install(verbose: u8, quiet: bool, format: LogFormat) {
    let level = match verbose {
        _ if quiet => LevelFilter::ERROR,
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        _ => LevelFilter::TRACE,
    };
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(verbose > 1);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}
