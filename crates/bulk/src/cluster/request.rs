//! What a client asks executors to do, and who may ask.

use crate::error::BulkError;
use crate::job::{Format, Job};
use crate::place::Identity;
use crate::run::Phase;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A job as executors get it. It names no data: what is read lies in the plan beside the output.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    /// Tells runs apart, so that one that was stopped is not gone on with.
    pub run: String,
    /// What to do with splits.
    pub phase: Phase,
    /// The folder that the client's relative paths begin at.
    pub base: PathBuf,
    /// The job. Its output is an absolute path or an address.
    pub job: Job,
    /// How the input is read.
    pub format: Format,
    /// What the results must depend on.
    pub identity: Identity,
}

/// A request as it travels: its JSON, and a seal over it if there is a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sealed {
    request: String,
    seal: Option<String>,
}

/// A longer request is a mistake.
const MAX_REQUEST_BYTES: usize = 8 << 20;
/// A shorter token can be guessed.
const LEAST_TOKEN_BYTES: usize = 16;

/// A secret that clients, scheduler and executors share. It never travels: requests carry a keyed digest instead.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// From the text that people share.
    ///
    /// # Errors
    /// [`BulkError::Job`] for one that could be guessed.
    pub fn new(secret: &str) -> Result<Token, BulkError> {
        let secret = secret.trim();
        if secret.len() < LEAST_TOKEN_BYTES {
            return Err(BulkError::job(format!("a token has at least {LEAST_TOKEN_BYTES} characters")));
        }
        Ok(Token(blake3::derive_key("kun 2026 cluster requests", secret.as_bytes())))
    }

    fn seal(&self, text: &str) -> blake3::Hash {
        blake3::keyed_hash(&self.0, text.as_bytes())
    }
}

impl Sealed {
    /// Seals a request.
    pub(crate) fn new(request: &Request, token: Option<&Token>) -> Result<Sealed, BulkError> {
        let request = serde_json::to_string(request).map_err(|error| BulkError::job(error.to_string()))?;
        if request.len() > MAX_REQUEST_BYTES {
            return Err(BulkError::job(format!(
                "a job of {} bytes, at most {MAX_REQUEST_BYTES}",
                request.len()
            )));
        }
        let seal = token.map(|token| token.seal(&request).to_hex().to_string());
        Ok(Sealed { request, seal })
    }

    /// Sees that the seal was made with `token`; without a token, every request is good.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn check(&self, token: Option<&Token>) -> Result<(), String> {
        let Some(token) = token else { return Ok(()) };
        let Some(seal) = &self.seal else {
            return Err(
                "this cluster does jobs of those alone who have its token: set KUN_CLUSTER_TOKEN".to_owned()
            );
        };
        let seal = blake3::Hash::from_hex(seal).map_err(|_| "the job's seal is none".to_owned())?;
        // Compared in constant time.
        match seal == token.seal(&self.request) {
            true => Ok(()),
            false => Err("the job was sealed with another KUN_CLUSTER_TOKEN than this cluster's".to_owned()),
        }
    }

    /// The request itself.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn open(&self) -> Result<Request, String> {
        if self.request.len() > MAX_REQUEST_BYTES {
            return Err(format!("a job of {} bytes, at most {MAX_REQUEST_BYTES}", self.request.len()));
        }
        serde_json::from_str(&self.request).map_err(|error| {
            format!("the job cannot be read here, perhaps by another version of kun: {error}")
        })
    }

    /// Tells requests apart.
    pub(crate) fn digest(&self) -> [u8; 32] {
        *blake3::hash(self.request.as_bytes()).as_bytes()
    }
}

/// How a split ended on an executor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The split's number.
    pub index: u64,
    /// How.
    pub end: End,
    /// Why, if it is not done.
    pub reason: String,
    /// Who says so.
    pub executor: String,
}

/// How a split can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Its part is there.
    Done,
    /// It is not, and perhaps will be somewhere or some time else.
    Failed,
    /// This executor does not do it.
    Refused,
    /// Somebody ended the job or the executor.
    Stopped,
}

impl End {
    const ALL: [(End, &str); 4] =
        [(End::Done, "done"), (End::Failed, "failed"), (End::Refused, "refused"), (End::Stopped, "stopped")];

    pub(crate) fn name(self) -> &'static str {
        End::ALL.iter().find(|(end, _)| *end == self).map_or("failed", |(_, name)| name)
    }

    pub(crate) fn of(name: &str) -> End {
        End::ALL.iter().find(|(_, known)| *known == name).map_or(End::Failed, |(end, _)| *end)
    }

    /// Of an error that ended a split.
    pub(crate) fn of_error(error: &BulkError) -> End {
        match error {
            BulkError::Stopped => End::Stopped,
            BulkError::Refused { .. }
            | BulkError::Job { .. }
            | BulkError::Changed { .. }
            | BulkError::Cluster { .. }
            | BulkError::NotBuilt { .. } => End::Refused,
            _ => End::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        let job =
            Job::parse("input.uri = \"a.csv\"\noutput.uri = \"/o/\"\n[[map]]\nwith = \"hash(a)\"").unwrap();
        let identity = Identity {
            query: None,
            version: "1".to_owned(),
            input: "x".to_owned(),
            files: 1,
            format: Format::Csv,
            columns: vec!["a".to_owned()],
            condition: None,
            functions: vec![serde_json::json!({"is": 1.5})],
            errors: "_error".to_owned(),
            output: Format::Parquet,
        };
        Request {
            run: "r".to_owned(),
            phase: Phase::Map,
            base: "/b".into(),
            job,
            format: Format::Csv,
            identity,
        }
    }

    #[test]
    fn a_seal_holds_for_one_request_and_one_token() {
        let token = |text| Token::new(text).unwrap();
        let (ours, theirs) = (token("0123456789abcdef"), token("0123456789abcdeF"));
        let sealed = Sealed::new(&request(), Some(&ours)).unwrap();
        assert_eq!(sealed.check(Some(&ours)), Ok(()));
        assert_eq!(sealed.check(None), Ok(()));
        assert!(sealed.check(Some(&theirs)).unwrap_err().contains("another"));
        let mut changed = sealed.clone();
        changed.request = changed.request.replace("/o/", "/p/");
        assert!(changed.check(Some(&ours)).is_err());
        let bare = Sealed::new(&request(), None).unwrap();
        assert!(bare.check(Some(&ours)).unwrap_err().contains("KUN_CLUSTER_TOKEN"));
        assert_eq!(bare.open().unwrap().identity, request().identity);
        assert!(!serde_json::to_string(&sealed).unwrap().contains("0123456789abcdef"));
        assert!(Token::new("short").is_err());
    }

    #[test]
    fn ends_have_names() {
        for (end, name) in End::ALL {
            assert_eq!((End::of(name), end.name()), (end, name));
        }
        assert_eq!(End::of("?"), End::Failed);
    }
}
