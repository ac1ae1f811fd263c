//! ModelScope.

use serde::Deserialize;

use super::{Context, Found, below, describe, endpoint, expect_success};
use crate::digest::Digest;
use crate::disk::{self, Access};
use crate::download::{Job, fetch_file};
use crate::error::HubError;
use crate::http::{Request, network};
use crate::name::{RepoName, Want};
use crate::select;
use crate::store::{Record, RecordFile, StoreDir};
use crate::url::percent_encode_path;

const USUAL_ENDPOINT: &str = "https://www.modelscope.cn";
const DEFAULT_REVISION: &str = "master";

/// `/api/v1/models/REPO/repo/files`.
#[derive(Deserialize)]
struct Listing {
    #[serde(rename = "Data")]
    data: Option<ListingData>,
    #[serde(rename = "Message", default)]
    message: Option<String>,
}

#[derive(Deserialize)]
struct ListingData {
    #[serde(rename = "Files", default)]
    files: Vec<ListedFile>,
}

#[derive(Deserialize)]
struct ListedFile {
    #[serde(rename = "Path")]
    path: String,
    #[serde(rename = "Size", default)]
    size: u64,
    #[serde(rename = "Sha256", default)]
    sha256: Option<String>,
    #[serde(rename = "Type", default)]
    kind: Option<String>,
}

/// The folder of one choice: another quantisation of the same repository is another folder.
fn store_dir(data_dir: &std::path::Path, repo: &RepoName) -> StoreDir {
    let want = match &repo.want {
        Want::Default => "default".to_owned(),
        Want::Quant(quant) => quant.clone(),
        Want::File(file) => crate::digest::sha256_hex(file.as_bytes())[..12].to_owned(),
    };
    let revision = repo.revision.as_deref().unwrap_or(DEFAULT_REVISION).replace('/', "-");
    StoreDir::new(data_dir, "modelscope", &format!("{}--{revision}--{want}", repo.repo.replace('/', "--")))
}

/// The model in Kun's store, if it is complete.
pub(crate) fn locate(data_dir: &std::path::Path, repo: &RepoName) -> Option<(Found, StoreDir, Record)> {
    let store = store_dir(data_dir, repo);
    let record = store.record()?;
    Some((Found { path: store.path_of(&record)? }, store, record))
}

/// Fetches the model into Kun's store.
pub(crate) fn fetch(context: &mut Context<'_>, repo: &RepoName) -> Result<Found, HubError> {
    let endpoint =
        endpoint("MODELSCOPE_ENDPOINT", context.options.modelscope_endpoint.as_ref(), USUAL_ENDPOINT)?;
    let client = context.client()?;
    let revision = percent_encode_path(repo.revision.as_deref().unwrap_or(DEFAULT_REVISION));
    let request = |path: &str| Request { plain_ok: !endpoint.secure, ..Request::get(below(&endpoint, path)) };

    let list =
        request(&format!("/api/v1/models/{}/repo/files?Revision={revision}&Recursive=true", repo.repo));
    let answer = expect_success(
        client.send(&list)?,
        &repo.repo,
        "private models of ModelScope are not supported yet",
    )?;
    let listing: Listing = serde_json::from_str(&answer.text()?)
        .map_err(|e| network(&endpoint, &format!("no list of files: {e}")))?;
    let Some(data) = listing.data else {
        let why = listing.message.unwrap_or_else(|| "no list of files".to_owned()).escape_debug().to_string();
        return Err(HubError::NotFound {
            name: repo.repo.clone(),
            why: format!("{} says: {why}", endpoint.host),
        });
    };
    let files: Vec<&ListedFile> = data.files.iter().filter(|f| f.kind.as_deref() != Some("tree")).collect();
    let names: Vec<&str> = files.iter().map(|f| f.path.as_str()).collect();
    let chosen = select::choose(repo, &names)?;
    let chosen: Vec<&ListedFile> =
        chosen.iter().filter_map(|name| files.iter().copied().find(|f| f.path == *name)).collect();

    let total = chosen.iter().try_fold(0u64, |sum, f| sum.checked_add(f.size));
    context.note(format!("{} from {} ({})", describe(chosen.len(), total), endpoint.host, repo.repo));
    let store = store_dir(&context.options.data_dir, repo);
    store.prepare()?;
    disk::check_room(store.dir(), total.unwrap_or(u64::MAX))?;
    let mut record = Record {
        name: context.name.to_owned(),
        source: "ModelScope".to_owned(),
        license: context.license.map(str::to_owned),
        revision: Some(repo.revision.clone().unwrap_or_else(|| DEFAULT_REVISION.to_owned())),
        files: Vec::new(),
    };
    for file in chosen {
        let digest =
            file.sha256.as_deref().and_then(Digest::sha256_from_hex).ok_or_else(|| HubError::Integrity {
                file: file.path.clone(),
                expected: "a SHA-256 to check it against".to_owned(),
                actual: format!("none from {}", endpoint.host),
            })?;
        disk::ensure_parents(store.dir(), &file.path, Access::Private)?;
        let job = Job {
            request: request(&format!(
                "/models/{}/resolve/{revision}/{}",
                repo.repo,
                percent_encode_path(&file.path)
            )),
            bytes: Some(file.size),
            digest: Some(digest),
            max_bytes: file.size,
            target: &store.dir().join(&file.path),
            access: Access::Private,
            label: &file.path,
        };
        fetch_file(&client, &job, context.progress)?;
        record.files.push(RecordFile { path: file.path.clone(), bytes: file.size, sha256: digest.hex() });
    }
    store.set_record(&record)?;
    locate(&context.options.data_dir, repo).map(|(found, ..)| found).ok_or_else(|| HubError::NotFound {
        name: context.name.to_owned(),
        why: "the repository lacks files that loading needs (config.json, a tokenizer, all weights)"
            .to_owned(),
    })
}
