//! Errors to exit codes and hints: the one place that decides them.

use kun_engine::EngineError;
use kun_hub::{ErrorKind, HubError};
use kun_search::SearchError;
use std::process::ExitCode;

/// It ran, but something failed or a threshold was not met.
pub const FAILED: u8 = 1;
/// Wrong flags, settings or input.
pub const MISUSE: u8 = 2;
/// The model is missing or not permitted.
pub const NO_MODEL: u8 = 3;
/// The model does not fit the memory or the disk, or the prompt does not fit the context.
pub const DOES_NOT_FIT: u8 = 4;
/// The network failed.
pub const NETWORK: u8 = 5;
/// Stopped by Ctrl-C; what was done is kept.
pub const INTERRUPTED: u8 = 130;

/// The command line or a settings file asks for something that cannot be.
#[derive(Debug)]
pub struct Misuse(pub String);

/// Ends with this exit code; whatever there was to say has been said.
#[derive(Debug)]
pub struct Quiet(pub u8);

impl std::fmt::Display for Misuse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::fmt::Display for Quiet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {}", self.0)
    }
}
impl std::error::Error for Misuse {}
impl std::error::Error for Quiet {}

/// What `main` does with an error.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The exit code.
    pub code: u8,
    /// Whether the error is still to be printed.
    pub print: bool,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Outcome {
    /// As `main` returns it.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

/// Classifies an error by the types in its chain.
pub fn outcome(error: &anyhow::Error) -> Outcome {
    let loud = |code, hint: Option<&str>| Outcome { code, print: true, hint: hint.map(str::to_owned) };
    let silent = |code| Outcome { code, print: false, hint: None };
    for cause in error.chain() {
        if let Some(Quiet(code)) = cause.downcast_ref() {
            return silent(*code);
        }
        if cause.is::<Misuse>() {
            return loud(MISUSE, None);
        }
        if let Some((code, hint)) = crate::commands::bulk_outcome(cause) {
            return loud(code, hint);
        }
        // A reader that has seen enough (`kun ls | head -1`) is no failure.
        if cause.downcast_ref::<std::io::Error>().is_some_and(is_closed_pipe) {
            return silent(0);
        }
        if let Some(error) = cause.downcast_ref::<HubError>() {
            let (code, hint) = hub_outcome(error);
            return loud(code, hint);
        }
        if matches!(cause.downcast_ref(), Some(SearchError::Damaged { .. } | SearchError::Width { .. })) {
            return loud(MISUSE, None);
        }
        if let Some(error) = cause.downcast_ref::<EngineError>() {
            let (code, hint) = engine_outcome(error);
            return loud(code, hint);
        }
    }
    loud(FAILED, None)
}

fn is_closed_pipe(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::BrokenPipe
}

/// Whether a file that belongs to the model is not there.
fn lacks_a_file(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == std::io::ErrorKind::NotFound)
}

fn hub_outcome(error: &HubError) -> (u8, Option<&'static str>) {
    match error.kind() {
        ErrorKind::Missing => {
            (NO_MODEL, Some("`kun ls` lists the models here, `kun help models` explains names"))
        }
        ErrorKind::NotPermitted => (NO_MODEL, Some("set HF_TOKEN to a token of an account that may read it")),
        ErrorKind::Network => (NETWORK, Some("the same command takes the download up where it was")),
        ErrorKind::Integrity => {
            (FAILED, Some("`kun rm` the model and fetch it again, or use another source"))
        }
        ErrorKind::Disk => {
            (DOES_NOT_FIT, Some("`kun ls` shows what takes room; --cache-dir chooses another disk"))
        }
        ErrorKind::Misuse => (MISUSE, Some("`kun help models` explains names")),
        _ => (FAILED, None),
    }
}

fn engine_outcome(error: &EngineError) -> (u8, Option<&'static str>) {
    match error {
        EngineError::DoesNotFit { .. } => (
            DOES_NOT_FIT,
            Some(
                "try a smaller --context, --kv-type q8_0 or a smaller model; `kun fit MODEL` shows what fits",
            ),
        ),
        EngineError::ContextExceeded { .. } => {
            (DOES_NOT_FIT, Some("shorten the prompt or give a larger --context; nothing was cut off"))
        }
        EngineError::Format(format) if lacks_a_file(format) => {
            (NO_MODEL, Some("the parts of a model lie in one folder; `kun pull` fetches all of them"))
        }
        EngineError::Parameter { .. }
        | EngineError::Format(_)
        | EngineError::Model(_)
        | EngineError::Compile(_)
        | EngineError::Tokenizer(_)
        | EngineError::Mismatch { .. }
        | EngineError::Unsuitable { .. }
        | EngineError::Describe(_)
        | EngineError::Template(_) => (MISUSE, None),
        _ => (FAILED, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn each_kind_of_error_has_its_documented_code() {
        let not_found = HubError::NotFound { name: "x".into(), why: "y".into() };
        let network = HubError::Network { name: "x".into(), why: "y".into() };
        let denied = HubError::NotPermitted { name: "x".into(), why: "y".into() };
        let disk = HubError::Disk { path: "/".into(), needed_bytes: 2, free_bytes: 1 };
        let fit = EngineError::DoesNotFit {
            needed_bytes: 2,
            weights_bytes: 1,
            kv_bytes: 1,
            workspace_bytes: 0,
            available_bytes: 1,
        };
        let long = EngineError::ContextExceeded { prompt_tokens: 2, context_tokens: 1 };
        let parameter = EngineError::Parameter { name: "top_p", what: "2 is above 1".into() };
        let pipe = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let cases: Vec<(anyhow::Error, u8, bool)> = vec![
            (anyhow::anyhow!("anything"), FAILED, true),
            (Misuse("bad".into()).into(), MISUSE, true),
            (parameter.into(), MISUSE, true),
            (not_found.into(), NO_MODEL, true),
            (denied.into(), NO_MODEL, true),
            (network.into(), NETWORK, true),
            (disk.into(), DOES_NOT_FIT, true),
            (fit.into(), DOES_NOT_FIT, true),
            (long.into(), DOES_NOT_FIT, true),
            (Quiet(INTERRUPTED).into(), INTERRUPTED, false),
            (Quiet(FAILED).into(), FAILED, false),
            (pipe.into(), 0, false),
        ];
        for (error, code, print) in cases {
            let error = Err::<(), _>(error).context("while testing").unwrap_err();
            let outcome = outcome(&error);
            assert_eq!((outcome.code, outcome.print), (code, print), "{error:#}");
        }
    }
}
