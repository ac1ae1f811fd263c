//! The `kun` command: reads flags, settings and environment, and calls the crates below.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod config;
mod exit;
mod interrupt;
mod private;
mod progress;
mod rows;
mod sandbox;
mod telemetry;
mod terminal;
mod topics;

use args::Cli;
use clap::FromArgMatches;
use clap::error::ErrorKind;
use std::process::ExitCode;

fn main() -> ExitCode {
    kun_engine::keep_freed_memory();
    let folders = config::Folders::from_environment();
    let line: Vec<_> = std::env::args_os().collect();
    let color = terminal::use_color(args::color_flag(&line));
    let plain = terminal::Messages { quiet: false, color };
    let files = match config::Files::read(&folders) {
        Ok(files) => files,
        Err(error) => return report(&plain, &error),
    };
    let command = files.apply(args::command()).color(args::clap_color(color));
    let matches = match args::parse(command, &line) {
        Ok(matches) => matches,
        Err(error) => return misuse(&plain, &error, &files),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => return misuse(&plain, &error, &files),
    };
    let messages = terminal::Messages { quiet: cli.global.quiet, color };
    telemetry::install(cli.global.verbose, cli.global.quiet, cli.global.log_format);
    match interrupt::install().and_then(|()| commands::run(cli, messages, folders, files)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&messages, &error),
    }
}

fn report(messages: &terminal::Messages, error: &anyhow::Error) -> ExitCode {
    let outcome = exit::outcome(error);
    if outcome.print {
        messages.error(error, outcome.hint.as_deref());
    }
    outcome.exit_code()
}

/// Prints what clap has to say: help to stdout, errors to stderr with the file that gave a bad value.
fn misuse(messages: &terminal::Messages, error: &clap::Error, files: &config::Files) -> ExitCode {
    // A closed pipe while printing help is no failure.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            ExitCode::from(if error.use_stderr() { exit::MISUSE } else { 0 })
        }
        _ => {
            if let Some(path) = args::flag_of(error).and_then(|long| files.origin_of(&long)) {
                messages.note(&format!("{} also gives this setting", path.display()));
            }
            ExitCode::from(exit::MISUSE)
        }
    }
}
