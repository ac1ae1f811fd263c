//! The Hugging Face Hub, or a mirror of it (`HF_ENDPOINT`).

use std::collections::HashMap;

use serde::Deserialize;

use super::{Context, Found, below, describe, endpoint, expect_success};
use crate::digest::Digest;
use crate::disk::Access;
use crate::download::{Job, fetch_file};
use crate::error::HubError;
use crate::hf_cache::{RepoCache, is_commit};
use crate::http::{Client, Credential, Request, network};
use crate::name::RepoName;
use crate::select;
use crate::url::{Url, percent_encode_path};

const USUAL_ENDPOINT: &str = "https://huggingface.co";
const DEFAULT_REVISION: &str = "main";
/// Larger than any file of a model; for servers that state no size.
const MAX_FILE_BYTES: u64 = 1 << 42;

/// `/api/models/REPO/revision/REV?blobs=true`.
#[derive(Deserialize)]
struct ModelInfo {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    #[serde(alias = "oid")]
    sha256: String,
    size: Option<u64>,
}

/// What the server states about one file.
#[derive(Clone, Copy)]
struct Stated {
    digest: Digest,
    bytes: Option<u64>,
}

/// The model in the cache, if it is complete.
pub(crate) fn locate(options: &crate::HubOptions, repo: &RepoName) -> Option<Found> {
    let found = RepoCache::new(&options.cache_dir, &repo.repo).locate(repo)?;
    Some(Found { path: found.path })
}

/// Fetches the model into the cache. `sha256` pins the one file that is wanted.
pub(crate) fn fetch(
    context: &mut Context<'_>,
    repo: &RepoName,
    sha256: Option<&str>,
) -> Result<Found, HubError> {
    let server = Server::new(context)?;
    let revision = repo.revision.as_deref().unwrap_or(DEFAULT_REVISION);
    let info = server.info(&repo.repo, revision)?;
    let names: Vec<&str> = info.siblings.iter().map(|s| s.rfilename.as_str()).collect();
    let chosen = select::choose(repo, &names)?;
    let siblings: HashMap<&str, &Sibling> = info.siblings.iter().map(|s| (s.rfilename.as_str(), s)).collect();

    let mut files: Vec<(&str, Stated)> = Vec::with_capacity(chosen.len());
    for file in chosen {
        let stated = match siblings.get(file).and_then(|s| stated_by(s)) {
            Some(stated) => stated,
            None => server.head(&repo.repo, &info.sha, file)?,
        };
        if is_weights(file) && !matches!(stated.digest, Digest::Sha256(_)) {
            return Err(unstated(file, &server.endpoint));
        }
        if let Some(pinned) = sha256.and_then(Digest::sha256_from_hex)
            && pinned != stated.digest
        {
            return Err(HubError::Integrity {
                file: file.to_owned(),
                expected: pinned.to_string(),
                actual: stated.digest.to_string(),
            });
        }
        files.push((file, stated));
    }
    let total =
        files.iter().map(|(_, stated)| stated.bytes).try_fold(0u64, |sum, bytes| sum.checked_add(bytes?));
    context.note(format!(
        "{} from {} ({}, commit {})",
        describe(files.len(), total),
        server.endpoint.host,
        repo.repo,
        &info.sha[..7]
    ));

    let cache = RepoCache::new(&context.options.cache_dir, &repo.repo);
    cache.prepare(&info.sha)?;
    if let Some(total) = total {
        let missing: u64 =
            files.iter().filter(|(_, s)| !cache.blob(&s.digest).is_file()).filter_map(|(_, s)| s.bytes).sum();
        crate::disk::check_room(cache.dir(), missing.min(total))?;
    }
    for (file, stated) in &files {
        let job = Job {
            request: server.request(&server.resolve(&repo.repo, &info.sha, file)),
            bytes: stated.bytes,
            digest: Some(stated.digest),
            max_bytes: MAX_FILE_BYTES,
            target: &cache.blob(&stated.digest),
            access: Access::Shared,
            label: file,
        };
        fetch_file(&server.client, &job, context.progress)
            .map_err(|error| with_help(error, &repo.repo, &server.endpoint))?;
        cache.link(&info.sha, file, &stated.digest)?;
    }
    cache.set_ref(revision, &info.sha)?;
    let pinned = RepoName { revision: Some(info.sha.clone()), ..repo.clone() };
    locate(context.options, &pinned).ok_or_else(|| HubError::NotFound {
        name: context.name.to_owned(),
        why: "the repository lacks files that loading needs (config.json, a tokenizer, all weights)"
            .to_owned(),
    })
}

/// Where to put files by hand.
pub(crate) fn by_hand(repo: &RepoName) -> String {
    let from = format!("(from {USUAL_ENDPOINT}/{}), anywhere,", repo.repo);
    match &repo.want {
        crate::name::Want::File(file) => {
            let name = file.rsplit('/').next().unwrap_or(file);
            format!("{file} of {} {from} and name it as ./{name}", repo.repo)
        }
        crate::name::Want::Quant(quant) => {
            format!("the {quant} .gguf of {} {from} and name it as ./FILE.gguf", repo.repo)
        }
        crate::name::Want::Default => {
            format!("the .gguf of {0}, or the folder of its files, {from} and name it as ./NAME", repo.repo)
        }
    }
}

fn stated_by(sibling: &Sibling) -> Option<Stated> {
    match &sibling.lfs {
        Some(lfs) => {
            Some(Stated { digest: Digest::sha256_from_hex(&lfs.sha256)?, bytes: lfs.size.or(sibling.size) })
        }
        // A Git object's digest covers the length, so both are needed.
        None => Some(Stated {
            digest: Digest::from_hex(sibling.blob_id.as_deref()?)?,
            bytes: Some(sibling.size?),
        }),
    }
}

fn is_weights(file: &str) -> bool {
    let lower = file.to_ascii_lowercase();
    lower.ends_with(".gguf") || lower.ends_with(".safetensors")
}

fn unstated(file: &str, endpoint: &Url) -> HubError {
    HubError::Integrity {
        file: file.to_owned(),
        expected: "a SHA-256 to check it against".to_owned(),
        actual: format!("none from {}", endpoint.host),
    }
}

fn with_help(error: HubError, repo: &str, endpoint: &Url) -> HubError {
    match error {
        HubError::NotPermitted { name, why } => {
            HubError::NotPermitted { name, why: format!("{why}: {}", permission_help(repo, endpoint)) }
        }
        other => other,
    }
}

fn permission_help(repo: &str, endpoint: &Url) -> String {
    format!(
        "accept its licence at {}/{repo}, then set HF_TOKEN to a token of that account",
        endpoint.origin()
    )
}

struct Server {
    client: Client,
    endpoint: Url,
    token: Option<String>,
}

impl Server {
    fn new(context: &Context<'_>) -> Result<Server, HubError> {
        let endpoint = endpoint("HF_ENDPOINT", context.options.endpoint.as_ref(), USUAL_ENDPOINT)?;
        Ok(Server { client: context.client()?, endpoint, token: context.options.token.clone() })
    }

    /// A request to the configured host; the token goes there and nowhere else.
    fn request(&self, url: &Url) -> Request {
        let mut request = Request::get(url.clone());
        if let Some(token) = &self.token
            && (url.secure || url.is_loopback())
        {
            request.credential = Some(Credential::Bearer(token.clone()));
        }
        request.plain_ok = !self.endpoint.secure;
        request
    }

    fn resolve(&self, repo: &str, commit: &str, file: &str) -> Url {
        below(&self.endpoint, &format!("/{repo}/resolve/{commit}/{}", percent_encode_path(file)))
    }

    fn info(&self, repo: &str, revision: &str) -> Result<ModelInfo, HubError> {
        let revision = percent_encode_path(revision).replace('/', "%2F");
        let url = below(&self.endpoint, &format!("/api/models/{repo}/revision/{revision}?blobs=true"));
        let answer = self.client.send(&Request { accept: "application/json", ..self.request(&url) })?;
        let answer = expect_success(answer, repo, &permission_help(repo, &self.endpoint))?;
        let info: ModelInfo = serde_json::from_str(&answer.text()?)
            .map_err(|e| network(&url, &format!("no list of files: {e}")))?;
        // The commit becomes a folder's name.
        if !is_commit(&info.sha) {
            return Err(network(&url, &"no commit in the list of files"));
        }
        Ok(info)
    }

    /// What the headers say, where a mirror's list leaves sizes and digests out.
    fn head(&self, repo: &str, commit: &str, file: &str) -> Result<Stated, HubError> {
        let url = self.resolve(repo, commit, file);
        let answer = self.client.send(&Request { head: true, ..self.request(&url) })?;
        let redirected = matches!(answer.status, 300..=399);
        let answer = if redirected {
            answer
        } else {
            expect_success(answer, repo, &permission_help(repo, &self.endpoint))?
        };
        let etag = answer.header("x-linked-etag").or_else(|| answer.header("etag")).unwrap_or_default();
        let etag = etag.trim_start_matches("W/").trim_matches('"');
        let digest = Digest::from_hex(etag).ok_or_else(|| unstated(file, &self.endpoint))?;
        let length = if redirected { None } else { answer.header("content-length") };
        let bytes = answer.header("x-linked-size").or(length).and_then(|v| v.parse().ok());
        if bytes.is_none() && matches!(digest, Digest::GitBlob(_)) {
            return Err(unstated(file, &self.endpoint));
        }
        Ok(Stated { digest, bytes })
    }
}
