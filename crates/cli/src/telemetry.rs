//! What the engine and the hub log, on stderr.

use tracing::level_filters::LevelFilter;

/// Shows warnings, with `-v` information, with `-vv` everything; with `--quiet` errors only.
pub fn install(verbose: u8, quiet: bool) {
    let level = match verbose {
        _ if quiet => LevelFilter::ERROR,
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        _ => LevelFilter::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(verbose > 1)
        .init();
}
