//! Places that models come from.

pub(crate) mod huggingface;
pub(crate) mod local;
pub(crate) mod modelscope;
pub(crate) mod package_index;
pub(crate) mod web;

use std::path::PathBuf;

use crate::error::HubError;
use crate::http::{Answer, Client};
use crate::hub::{HubOptions, Progress};
use crate::options::Patience;
use crate::url::Url;

/// What every source works with.
pub(crate) struct Context<'a> {
    pub options: &'a HubOptions,
    /// Longer where no other source comes after this one.
    pub patience: Patience,
    /// The name that people see, and that is written into records.
    pub name: &'a str,
    pub license: Option<&'a str>,
    pub progress: &'a mut dyn FnMut(Progress),
}

impl Context<'_> {
    pub fn note(&mut self, text: String) {
        (self.progress)(Progress::Note(text));
    }

    pub fn client(&self) -> Result<Client, HubError> {
        Client::new(self.options, self.patience, None, None)
    }
}

/// A model that is now on this disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// A `.gguf` file or a folder.
    pub path: PathBuf,
}

/// An endpoint that the user configured, or the usual one.
pub(crate) fn endpoint(setting: &str, configured: Option<&String>, usual: &str) -> Result<Url, HubError> {
    let text = configured.map_or(usual, String::as_str);
    Url::parse(text.trim_end_matches('/'))
        .map_err(|why| HubError::Setting { setting: setting.to_owned(), why })
}

/// `endpoint` with a path behind its own.
pub(crate) fn below(endpoint: &Url, path: &str) -> Url {
    Url { path: format!("{}{path}", endpoint.path.trim_end_matches('/')), ..endpoint.clone() }
}

/// Turns an answer that is no success into an error.
pub(crate) fn expect_success(answer: Answer, name: &str, permission_help: &str) -> Result<Answer, HubError> {
    let (status, host) = (answer.status, answer.url.host.clone());
    let code = answer.header("x-error-code").unwrap_or_default();
    match status {
        200..=299 => Ok(answer),
        404 | 410 => Err(HubError::NotFound {
            name: name.to_owned(),
            why: format!("{host} does not know it (answer {status})"),
        }),
        401 if code == "RepoNotFound" || code.is_empty() => {
            let why = format!("{host} does not know it, or shows it only with a token ({permission_help})");
            Err(HubError::NotPermitted { name: name.to_owned(), why })
        }
        401 | 403 => Err(HubError::NotPermitted {
            name: name.to_owned(),
            why: format!("{host} answered {status}: {permission_help}"),
        }),
        429 => {
            let wait = answer
                .header("retry-after")
                .map(|s| format!("; try again in {} s", s.escape_debug()))
                .unwrap_or_default();
            Err(HubError::Network {
                name: name.to_owned(),
                why: format!("{host} has had too many requests{wait}"),
            })
        }
        _ => Err(HubError::Network { name: name.to_owned(), why: format!("{host} answered {status}") }),
    }
}

/// `3 files, 4.9 GB`.
pub(crate) fn describe(files: usize, bytes: Option<u64>) -> String {
    let count = if files == 1 { "1 file".to_owned() } else { format!("{files} files") };
    bytes.map_or_else(|| count.clone(), |bytes| format!("{count}, {}", human_bytes(bytes)))
}

/// Decimal units, as disks and networks are sold.
pub(crate) fn human_bytes(bytes: u64) -> String {
    let (mut whole, mut unit) = (bytes as f64, "B");
    for next in ["kB", "MB", "GB", "TB"] {
        if whole < 999.5 {
            break;
        }
        whole /= 1000.0;
        unit = next;
    }
    if unit == "B" || whole >= 99.5 { format!("{whole:.0} {unit}") } else { format!("{whole:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (98_362_432, "98.4 MB"),
            (4_920_739_232, "4.9 GB"),
            (999_999, "1.0 MB"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
    }

    #[test]
    fn an_endpoint_may_have_a_path() {
        let url = endpoint("HF_ENDPOINT", Some(&"https://mirror.corp/hf/".to_owned()), "").unwrap();
        assert_eq!(below(&url, "/api/models/a/b").request(), "https://mirror.corp/hf/api/models/a/b");
        assert!(endpoint("HF_ENDPOINT", Some(&"mirror".to_owned()), "").is_err());
    }
}
