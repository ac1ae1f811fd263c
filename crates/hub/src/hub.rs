//! The front door.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::catalog::{Catalog, PackageEntry, SourceEntry};
use crate::digest::{Digest, digest_of};
pub use crate::error::HubError;
use crate::hf_cache::{CachedModel, RepoCache};
use crate::name::{ModelName, RepoName, Want};
pub use crate::options::HubOptions;
use crate::options::expand_home;
use crate::select;
use crate::sources::{Context, Found, huggingface, local, modelscope, package_index, web};
use crate::store::{Record, RecordFile, StoreDir};
use crate::url::Url;

/// A model on this disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPath {
    /// A `.gguf` file or a folder.
    pub path: PathBuf,
    /// The name that people see.
    pub name: String,
    /// Where it came from, in words (`Hugging Face Hub`, `Python package index`, `local file`).
    pub source: String,
    /// Licence, where the catalogue states it.
    pub license: Option<String>,
}

/// One model in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredModel {
    /// The name that `kun run` takes.
    pub name: String,
    /// A `.gguf` file or a folder.
    pub path: PathBuf,
    /// Bytes on disk.
    pub bytes: u64,
    /// Commit or version.
    pub revision: Option<String>,
    /// Licence, where it was stated when the model was fetched.
    pub license: Option<String>,
    /// Of a model that is one file, its SHA-256 as its source stated it, in hexadecimal.
    pub sha256: Option<String>,
    /// Last change, seconds since 1970.
    pub modified_unix_s: u64,
}

impl StoredModel {
    /// What the disk says of a model that was found by other ways than the store, under the name `name`.
    pub fn at(name: &str, found: &ModelPath) -> StoredModel {
        let inside = fs::read_dir(&found.path).into_iter().flatten().flatten().map(|file| file.path());
        let files = inside.chain([found.path.clone()]).filter_map(|file| fs::metadata(file).ok());
        StoredModel {
            name: name.to_owned(),
            path: found.path.clone(),
            bytes: files.filter(fs::Metadata::is_file).map(|file| file.len()).sum(),
            revision: None,
            license: found.license.clone(),
            sha256: None,
            modified_unix_s: modified(&found.path),
        }
    }
}

impl From<StoredModel> for ModelPath {
    fn from(stored: StoredModel) -> ModelPath {
        let StoredModel { path, name, license, .. } = stored;
        ModelPath { path, name, source: String::new(), license }
    }
}

/// What happens during a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A line for people: what was chosen, where it comes from, which source failed and why.
    Note(String),
    /// A file starts: its name, bytes already here, bytes in all (if known).
    /// Comes again for the same file if its transfer has to begin anew.
    Start {
        /// Name for people.
        name: String,
        /// Resumed from here.
        resumed_bytes: u64,
        /// Size, if the source says it.
        total_bytes: Option<u64>,
    },
    /// This many more bytes are here.
    Advance(u64),
    /// The file is verified and in place.
    Finish,
}

/// Finds, fetches, lists, checks and removes models.
#[derive(Clone, Debug)]
pub struct Hub {
    options: HubOptions,
    catalog: &'static Catalog,
}

/// One place to look for a model.
enum Source {
    HuggingFace { repo: RepoName, sha256: Option<String> },
    ModelScope(RepoName),
    PackageIndex(PackageEntry),
    Web(Url),
}

/// A name, looked up: what to try, in order.
struct Plan {
    name: String,
    license: Option<String>,
    sources: Vec<Source>,
}

/// What `remove` and `verify` work on.
enum Stored {
    Cache { repo: RepoCache, model: CachedModel },
    Own { store: StoreDir, record: Record },
}

impl Hub {
    /// A hub with these settings.
    pub fn new(options: HubOptions) -> Hub {
        Hub { options, catalog: Catalog::builtin() }
    }
    /// The settings.
    pub fn options(&self) -> &HubOptions {
        &self.options
    }
    /// The short names and what they mean.
    pub fn catalog(&self) -> &Catalog {
        self.catalog
    }

    /// The model's place on this disk, if it is here already; opens no connection.
    ///
    /// # Errors
    /// [`HubError`] for a name that means nothing, or a path that is not there.
    pub fn locate(&self, name: &str) -> Result<Option<ModelPath>, HubError> {
        let parsed = ModelName::parse(name)?;
        if let Some(local) = self.local(name, &parsed)? {
            return Ok(Some(local));
        }
        if matches!(parsed, ModelName::Ollama { .. }) {
            return Ok(None);
        }
        let plan = self.plan(&parsed)?;
        Ok(plan
            .sources
            .iter()
            .find_map(|source| Some(self.model_path(&plan, source, self.locate_in(source)?))))
    }

    /// The model's place on this disk, fetched if need be. Blocks; `progress` is called from this thread.
    ///
    /// # Errors
    /// [`HubError`]; with several sources, the kind of the failure that the user can do most about.
    pub fn fetch(&self, name: &str, progress: &mut dyn FnMut(Progress)) -> Result<ModelPath, HubError> {
        if let Some(found) = self.locate(name)? {
            return Ok(found);
        }
        let parsed = ModelName::parse(name)?;
        if let ModelName::Ollama { name: model, .. } = &parsed {
            return Err(HubError::NotFound {
                name: name.to_owned(),
                why: format!(
                    "Ollama has not pulled it here, and fetching from Ollama's registry is not supported yet; \
                     use hf.co/org/repo:Q4_K_M, or run `ollama pull {model}` first"
                ),
            });
        }
        let plan = self.plan(&parsed)?;
        if self.options.offline {
            let why = format!(
                "it is not on this disk, and connections are switched off (--offline, HF_HUB_OFFLINE). {}",
                self.by_hand(&plan)
            );
            return Err(HubError::NotFound { name: plan.name, why });
        }
        let mut failures = Vec::new();
        for (i, source) in plan.sources.iter().enumerate() {
            let patience = self.options.patience;
            let mut context = Context {
                options: &self.options,
                patience: if i + 1 < plan.sources.len() { patience } else { patience.for_last_source() },
                name: &plan.name,
                license: plan.license.as_deref(),
                progress: &mut *progress,
            };
            match fetch_from(source, &mut context) {
                Ok(found) => return Ok(self.model_path(&plan, source, found)),
                // No other source makes room on this disk or mends a setting.
                Err(error @ (HubError::Disk { .. } | HubError::Io { .. } | HubError::Setting { .. })) => {
                    return Err(error);
                }
                Err(error) => {
                    if let Some(next) = plan.sources.get(i + 1) {
                        progress(Progress::Note(format!(
                            "{}: {}; trying {}",
                            source.label(),
                            error.reason(),
                            next.label()
                        )));
                    }
                    failures.push((source.label(), error));
                }
            }
        }
        Err(self.combine(&plan, failures))
    }

    /// Every model in the store, and those of other programs that can be read in place.
    ///
    /// # Errors
    /// [`HubError`].
    pub fn list(&self) -> Result<Vec<StoredModel>, HubError> {
        let mut models = Vec::new();
        for (store, record) in StoreDir::all(&self.options.data_dir) {
            let Some(path) = store.path_of(&record) else { continue };
            let same = |file: &&RecordFile| Path::new(&file.path).extension() == path.extension();
            let file = record.files.iter().filter(same).take(2).collect::<Vec<_>>();
            models.push(StoredModel {
                sha256: match file.as_slice() {
                    [file] if path.is_file() && !file.sha256.is_empty() => Some(file.sha256.clone()),
                    _ => None,
                },
                license: record.license.clone(),
                name: record.name.clone(),
                bytes: record.files.iter().map(|f| f.bytes).sum(),
                revision: record.revision.clone(),
                modified_unix_s: modified(&path),
                path,
            });
        }
        for (name, repo) in RepoCache::all(&self.options.cache_dir) {
            for commit in repo.commits() {
                for wanted in models_of_snapshot(&name, &repo, &commit) {
                    let Some(model) = repo.locate(&wanted) else { continue };
                    let content = |file: &String| repo.content_of(&commit, file);
                    let bytes = model
                        .files
                        .iter()
                        .filter_map(content)
                        .filter_map(|c| fs::metadata(c).ok())
                        .map(|m| m.len())
                        .sum();
                    let own = match model.files.as_slice() {
                        [file] if model.path.is_file() => content(file),
                        _ => None,
                    };
                    let newest = repo.commit_of("main").or_else(|| repo.commits().first().cloned());
                    let old = newest.as_ref() != Some(&commit);
                    models.push(StoredModel {
                        name: if old { format!("{}#rev={commit}", shown(&wanted)) } else { shown(&wanted) },
                        modified_unix_s: modified(&model.path),
                        path: model.path,
                        bytes,
                        revision: Some(commit.clone()),
                        license: None,
                        sha256: own.and_then(|blob| named_sha256(&blob, "")),
                    });
                }
            }
        }
        for model in local::foreign(&self.options) {
            let modified_unix_s = modified(&model.path);
            models.push(StoredModel {
                license: None,
                sha256: named_sha256(&model.path, "sha256-"),
                name: model.name,
                path: model.path,
                bytes: model.bytes,
                revision: None,
                modified_unix_s,
            });
        }
        Ok(models)
    }

    /// Removes a stored model; gives the bytes freed. Blobs that other revisions use stay.
    ///
    /// # Errors
    /// [`HubError::NotFound`] if it is not in the store; [`HubError::Name`] for a model that belongs to another program.
    pub fn remove(&self, name: &str) -> Result<u64, HubError> {
        let stored = self.stored(name)?;
        if stored.is_empty() {
            return Err(HubError::NotFound {
                name: name.to_owned(),
                why: "it is not in the store; `kun ls` shows what is".to_owned(),
            });
        }
        let mut freed = 0;
        for one in stored {
            freed += match one {
                Stored::Cache { repo, model } => repo.remove(&model.commit, &model.files)?,
                Stored::Own { store, record } => store.remove(&record)?,
            };
        }
        Ok(freed)
    }

    /// Checks the SHA-256 of every file of a stored model against what its source stated; gives files checked and those that differ.
    ///
    /// Files for which no digest was stated (a path, an old copy) are not counted as checked.
    ///
    /// # Errors
    /// [`HubError`].
    pub fn verify(&self, name: &str) -> Result<(usize, Vec<PathBuf>), HubError> {
        let mut checked = 0;
        let mut differ = Vec::new();
        let stored = match self.stored(name) {
            Err(HubError::Name { .. }) => return self.verify_foreign(name),
            other => other?,
        };
        if stored.is_empty() {
            return Err(HubError::NotFound {
                name: name.to_owned(),
                why: "it is not in the store; `kun ls` shows what is".to_owned(),
            });
        }
        for one in stored {
            match one {
                Stored::Own { store, record } => {
                    checked += record.files.len();
                    differ.extend(store.differing(&record)?);
                }
                Stored::Cache { repo, model } => {
                    for file in &model.files {
                        let Some(content) = repo.content_of(&model.commit, file) else { continue };
                        if let Some(fits) = fits_its_name(&content, "")? {
                            checked += 1;
                            if !fits {
                                differ.push(repo.snapshot_dir(&model.commit).join(file));
                            }
                        }
                    }
                }
            }
        }
        Ok((checked, differ))
    }

    /// Ollama's blobs are named by their digest; a plain path states none.
    fn verify_foreign(&self, name: &str) -> Result<(usize, Vec<PathBuf>), HubError> {
        let Some(found) = self.local(name, &ModelName::parse(name)?)? else { return Ok((0, Vec::new())) };
        match fits_its_name(&found.path, "sha256-")? {
            Some(true) => Ok((1, Vec::new())),
            Some(false) => Ok((1, vec![found.path])),
            None => Ok((0, Vec::new())),
        }
    }

    /// Paths, models of other programs, and folders of this name right here.
    fn local(&self, text: &str, name: &ModelName) -> Result<Option<ModelPath>, HubError> {
        let found = |path: PathBuf, source: &str| ModelPath {
            path,
            name: text.to_owned(),
            source: source.to_owned(),
            license: None,
        };
        match name {
            ModelName::Path(path) => {
                let path = expand_home(path.clone(), self.options.home.as_deref());
                let opened = local::open_path(&path)?;
                Ok(Some(found(opened, if path.is_dir() { "local folder" } else { "local file" })))
            }
            ModelName::Ollama { name, tag } => {
                Ok(local::ollama(&self.options, name, tag).map(|m| found(m.path, "Ollama's store")))
            }
            // `models/x.gguf` reads like a repository, but a file that is there is what people mean.
            ModelName::Hub(_)
                if text.to_ascii_lowercase().ends_with(".gguf") && Path::new(text).is_file() =>
            {
                Ok(Some(found(PathBuf::from(text), "local file")))
            }
            ModelName::Hub(_) if Path::new(text).join("config.json").is_file() => {
                Ok(Some(found(PathBuf::from(text), "local folder")))
            }
            _ => Ok(None),
        }
    }

    fn plan(&self, name: &ModelName) -> Result<Plan, HubError> {
        let one = |name: String, source: Source| Plan { name, license: None, sources: vec![source] };
        Ok(match name {
            ModelName::Alias { .. } => {
                let (entry, quant) = self.catalog.find(name)?;
                let sources = entry.sources.iter().filter_map(|source| match (source, &quant) {
                    (SourceEntry::Huggingface(repo), quant) => Some(Source::HuggingFace {
                        repo: repo.repo_name(quant.as_deref()),
                        sha256: repo.sha256.clone().filter(|_| quant.is_none()),
                    }),
                    (SourceEntry::Modelscope(repo), quant) => {
                        Some(Source::ModelScope(repo.repo_name(quant.as_deref())))
                    }
                    (SourceEntry::PackageIndex(package), None) => Some(Source::PackageIndex(package.clone())),
                    // A package serves a quantisation only if it holds that one.
                    (SourceEntry::PackageIndex(package), Some(quant)) => package
                        .members
                        .iter()
                        .any(|member| select::quant_of(&member.path).as_ref() == Some(quant))
                        .then(|| Source::PackageIndex(package.clone())),
                });
                Plan {
                    name: quant
                        .as_ref()
                        .map_or_else(|| entry.name.clone(), |q| format!("{}:{q}", entry.name)),
                    license: Some(entry.license.clone()),
                    sources: sources.collect(),
                }
            }
            ModelName::Hub(repo) => {
                one(shown(repo), Source::HuggingFace { repo: repo.clone(), sha256: None })
            }
            ModelName::ModelScope(repo) => {
                one(format!("ms://{}", shown(repo)), Source::ModelScope(repo.clone()))
            }
            ModelName::Url(text) => {
                let url = web::parse(text)?;
                one(url.to_string(), Source::Web(url))
            }
            ModelName::Path(path) => {
                return Err(HubError::NotFound {
                    name: path.display().to_string(),
                    why: "there is no such file or folder".to_owned(),
                });
            }
            ModelName::Ollama { name, .. } => {
                return Err(HubError::NotFound {
                    name: name.clone(),
                    why: "Ollama has not pulled it here".to_owned(),
                });
            }
        })
    }

    fn locate_in(&self, source: &Source) -> Option<Found> {
        match source {
            Source::HuggingFace { repo, .. } => huggingface::locate(&self.options, repo),
            Source::ModelScope(repo) => {
                modelscope::locate(&self.options.data_dir, repo).map(|(found, ..)| found)
            }
            Source::PackageIndex(package) => {
                package_index::locate(&self.options.data_dir, package).map(|(found, ..)| found)
            }
            Source::Web(url) => web::locate(&self.options.data_dir, url).map(|(found, ..)| found),
        }
    }

    fn model_path(&self, plan: &Plan, source: &Source, found: Found) -> ModelPath {
        ModelPath {
            path: found.path,
            name: plan.name.clone(),
            source: source.label().to_owned(),
            license: plan.license.clone(),
        }
    }

    /// One error out of those of all sources: what the user can do most about decides the kind.
    fn combine(&self, plan: &Plan, mut failures: Vec<(&'static str, HubError)>) -> HubError {
        if failures.len() == 1 && !matches!(failures[0].1, HubError::Network { .. }) {
            return failures.remove(0).1;
        }
        let network = failures.iter().any(|(_, e)| matches!(e, HubError::Network { .. }));
        let mut why = failures
            .iter()
            .map(|(label, e)| format!("{label}: {}", e.reason()))
            .collect::<Vec<_>>()
            .join("; ");
        if network {
            why = format!("{why}. {}", self.by_hand(plan));
            return HubError::Network { name: plan.name.clone(), why };
        }
        match failures.into_iter().find(|(_, e)| !matches!(e, HubError::NotFound { .. })) {
            Some((_, HubError::NotPermitted { .. })) => {
                HubError::NotPermitted { name: plan.name.clone(), why }
            }
            Some((_, other)) => other,
            None => HubError::NotFound { name: plan.name.clone(), why },
        }
    }

    /// Which files to bring to a machine without a network, and where.
    fn by_hand(&self, plan: &Plan) -> String {
        let ways: Vec<String> = plan
            .sources
            .iter()
            .filter_map(|source| match source {
                Source::HuggingFace { repo, .. } => Some(huggingface::by_hand(repo)),
                Source::PackageIndex(package) => Some(package_index::by_hand(&self.options, package)),
                Source::Web(url) => Some(format!("{url}, anywhere, and name it as ./FILE.gguf")),
                Source::ModelScope(_) => None,
            })
            .collect();
        format!("Without a network bring {}", ways.join("; or "))
    }

    /// Everything in the store that a name means.
    fn stored(&self, name: &str) -> Result<Vec<Stored>, HubError> {
        let parsed = ModelName::parse(name)?;
        if matches!(parsed, ModelName::Path(_) | ModelName::Ollama { .. }) {
            let why = "it belongs to you or another program, not to Kun's store".to_owned();
            return Err(HubError::Name { name: name.to_owned(), why });
        }
        let mut stored = Vec::new();
        for source in self.plan(&parsed)?.sources {
            match source {
                // A repository without a quantisation means all of it, as far as it is here.
                Source::HuggingFace { repo: RepoName { repo, revision, want: Want::Default }, .. } => {
                    let cache = RepoCache::new(&self.options.cache_dir, &repo);
                    let commits = match &revision {
                        Some(revision) => Vec::from_iter(cache.commit_of(revision)),
                        None => cache.commits(),
                    };
                    for commit in commits {
                        let files = cache.snapshot_files(&commit);
                        if !files.is_empty() {
                            let path = cache.snapshot_dir(&commit);
                            stored.push(Stored::Cache {
                                repo: cache.clone(),
                                model: CachedModel { commit, path, files },
                            });
                        }
                    }
                }
                Source::HuggingFace { repo, .. } => {
                    let cache = RepoCache::new(&self.options.cache_dir, &repo.repo);
                    stored.extend(
                        cache.locate(&repo).map(|model| Stored::Cache { repo: cache.clone(), model }),
                    );
                }
                Source::ModelScope(repo) => {
                    stored.extend(
                        modelscope::locate(&self.options.data_dir, &repo)
                            .map(|(_, store, record)| Stored::Own { store, record }),
                    );
                }
                Source::PackageIndex(package) => {
                    stored.extend(
                        package_index::locate(&self.options.data_dir, &package)
                            .map(|(_, store, record)| Stored::Own { store, record }),
                    );
                }
                Source::Web(url) => {
                    stored.extend(
                        web::locate(&self.options.data_dir, &url)
                            .map(|(_, store, record)| Stored::Own { store, record }),
                    );
                }
            }
        }
        Ok(stored)
    }
}

impl Source {
    fn label(&self) -> &'static str {
        match self {
            Source::HuggingFace { .. } => "Hugging Face Hub",
            Source::ModelScope(_) => "ModelScope",
            Source::PackageIndex(_) => "Python package index",
            Source::Web(_) => "web",
        }
    }
}

fn fetch_from(source: &Source, context: &mut Context<'_>) -> Result<Found, HubError> {
    match source {
        Source::HuggingFace { repo, sha256 } => huggingface::fetch(context, repo, sha256.as_deref()),
        Source::ModelScope(repo) => modelscope::fetch(context, repo),
        Source::PackageIndex(package) => package_index::fetch(context, package),
        Source::Web(url) => web::fetch(context, url),
    }
}

/// How to name each model that one snapshot holds.
fn models_of_snapshot(name: &str, repo: &RepoCache, commit: &str) -> Vec<RepoName> {
    let files = repo.snapshot_files(commit);
    let names: Vec<&str> = files.iter().map(String::as_str).collect();
    let wanted = |want| RepoName { repo: name.to_owned(), revision: Some(commit.to_owned()), want };
    let ggufs = select::gguf_models(&names);
    if ggufs.is_empty() {
        return vec![wanted(Want::Default)];
    }
    let quants: Vec<Option<String>> = ggufs.iter().map(|f| select::quant_of(f)).collect();
    let want = |(i, file): (usize, &&str)| match &quants[i] {
        // Two files of one quantisation can only be told apart by their names.
        Some(quant) if quants.iter().filter(|q| q.as_ref() == Some(quant)).count() == 1 => {
            wanted(Want::Quant(quant.clone()))
        }
        _ => wanted(Want::File((*file).to_owned())),
    };
    ggufs.iter().enumerate().map(want).collect()
}

/// A repository as one would type it.
fn shown(repo: &RepoName) -> String {
    let name = if repo.repo.contains('/') { repo.repo.clone() } else { format!("hf.co/{}", repo.repo) };
    match &repo.want {
        Want::Default => name,
        Want::Quant(quant) => format!("{name}:{quant}"),
        Want::File(file) => format!("{name}/{file}"),
    }
}

/// The digest that a blob is named by: `prefix` is none in Hugging Face's cache, `sha256-` in Ollama's store.
fn named_digest(blob: &Path, prefix: &str) -> Option<Digest> {
    blob.file_name()?.to_str()?.strip_prefix(prefix).and_then(Digest::from_hex)
}

/// The same in hexadecimal, if it is a SHA-256 and none of Git's.
fn named_sha256(blob: &Path, prefix: &str) -> Option<String> {
    named_digest(blob, prefix).filter(|digest| matches!(digest, Digest::Sha256(_))).map(|digest| digest.hex())
}

/// Whether content equals the digest that its own file name states; `None` if the name states none.
fn fits_its_name(path: &Path, prefix: &str) -> Result<Option<bool>, HubError> {
    let Some(stated) = named_digest(path, prefix) else { return Ok(None) };
    let file = fs::File::open(path).map_err(HubError::io(path))?;
    let bytes = file.metadata().map_err(HubError::io(path))?.len();
    Ok(Some(digest_of(file, stated, bytes).map_err(HubError::io(path))? == stated))
}

fn modified(path: &Path) -> u64 {
    let time = fs::metadata(path).and_then(|m| m.modified()).ok();
    time.and_then(|t| t.duration_since(UNIX_EPOCH).ok()).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests;
