//! Short names: what they mean, and where their files come from.

use std::sync::OnceLock;

use serde::Deserialize;

use crate::error::HubError;
use crate::name::{ModelName, RepoName, Want};

/// Every short name Kun knows.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalog {
    defaults: Defaults,
    #[serde(rename = "model")]
    models: Vec<CatalogEntry>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Defaults {
    chat: String,
    embed: String,
}

/// One model of the catalogue.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogEntry {
    /// The short name.
    pub name: String,
    /// Other ways to write it.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// For people.
    pub title: String,
    /// What it does: `chat`, `embed`, `rerank`, `classify`, `extract`, `answer`, `translate`, ..
    pub task: String,
    /// Licence of the weights.
    pub license: String,
    /// Weights, counted.
    pub parameters: u64,
    /// Bytes to fetch; rounded unless a source states a SHA-256.
    pub bytes: u64,
    #[serde(rename = "source")]
    pub(crate) sources: Vec<SourceEntry>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(crate) enum SourceEntry {
    Huggingface(RepoEntry),
    Modelscope(RepoEntry),
    PackageIndex(PackageEntry),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RepoEntry {
    pub repo: String,
    pub file: Option<String>,
    pub quant: Option<String>,
    pub revision: Option<String>,
    pub sha256: Option<String>,
}

/// One file, or a folder of files, inside one pinned wheel.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PackageEntry {
    pub package: String,
    pub version: String,
    pub wheel: String,
    pub sha256: String,
    pub bytes: u64,
    /// The folder in the wheel that holds the members.
    pub folder: String,
    pub members: Vec<MemberEntry>,
}

/// A file of a wheel that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MemberEntry {
    /// From the folder in the wheel on, and in the store.
    pub path: String,
    pub sha256: String,
    pub bytes: u64,
}

impl PackageEntry {
    /// Bytes of all members.
    pub fn members_bytes(&self) -> u64 {
        self.members.iter().map(|member| member.bytes).sum()
    }

    /// The name of a member in the wheel.
    pub fn name_of(&self, member: &MemberEntry) -> String {
        format!("{}/{}", self.folder, member.path)
    }
}

impl RepoEntry {
    /// The repository with this entry's own choice, or the user's quantisation instead.
    pub fn repo_name(&self, quant: Option<&str>) -> RepoName {
        let want = match (quant, &self.file, &self.quant) {
            (Some(quant), ..) => Want::Quant(quant.to_owned()),
            (None, Some(file), _) => Want::File(file.clone()),
            (None, None, Some(quant)) => Want::Quant(quant.to_ascii_uppercase()),
            (None, None, None) => Want::Default,
        };
        RepoName { repo: self.repo.clone(), revision: self.revision.clone(), want }
    }
}

impl CatalogEntry {
    /// Where its files come from, for people, in the order they are tried.
    pub fn sources(&self) -> impl Iterator<Item = String> {
        self.sources.iter().map(|source| match source {
            SourceEntry::Huggingface(entry) => format!("Hugging Face Hub, {}", entry.repo),
            SourceEntry::Modelscope(entry) => format!("ModelScope, {}", entry.repo),
            SourceEntry::PackageIndex(entry) => {
                format!("Python package index, {} {}", entry.package, entry.version)
            }
        })
    }

    fn answers_to(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
            || self.aliases.iter().any(|alias| alias.eq_ignore_ascii_case(name))
    }
}

impl Catalog {
    /// The catalogue in this build.
    pub fn builtin() -> &'static Catalog {
        static BUILTIN: OnceLock<Catalog> = OnceLock::new();
        BUILTIN.get_or_init(|| {
            Catalog::parse(include_str!("../catalog.toml")).expect("the built-in catalogue is well formed")
        })
    }

    pub(crate) fn parse(text: &str) -> Result<Catalog, toml::de::Error> {
        toml::from_str(text)
    }

    /// Every model, in the order of the file.
    pub fn models(&self) -> &[CatalogEntry] {
        &self.models
    }

    /// The short name of the model that answers when none is named.
    pub fn default_chat(&self) -> &str {
        &self.defaults.chat
    }

    /// The short name of the model that embeds when none is named.
    pub fn default_embed(&self) -> &str {
        &self.defaults.embed
    }

    /// The short name of the model that does a task when none is named: the first of that task.
    pub fn default_for(&self, task: &str) -> Option<&str> {
        self.models.iter().find(|model| model.task == task).map(|model| model.name.as_str())
    }

    /// The model of a short name and the quantisation asked for with it.
    ///
    /// # Errors
    /// [`HubError::NotFound`] with the names that come near.
    pub fn find<'a>(&'a self, name: &ModelName) -> Result<(&'a CatalogEntry, Option<String>), HubError> {
        let ModelName::Alias { name, quant } = name else {
            return Err(HubError::NotFound { name: format!("{name:?}"), why: "not a short name".to_owned() });
        };
        // `qwen3:4b` is a name of its own; `qwen3:Q8_0` is a name and a quantisation.
        if let Some(quant) = quant
            && let Some(entry) = self.models.iter().find(|m| m.answers_to(&format!("{name}:{quant}")))
        {
            return Ok((entry, None));
        }
        if let Some(entry) = self.models.iter().find(|m| m.answers_to(name)) {
            return Ok((entry, quant.clone()));
        }
        let near = self.near(name);
        let hint = match near.as_slice() {
            [] => String::new(),
            names => format!("did you mean {}? ", names.join(" or ")),
        };
        Err(HubError::NotFound {
            name: quant.as_ref().map_or_else(|| name.clone(), |q| format!("{name}:{q}")),
            why: format!(
                "{hint}short names: {}; or write org/repo, https://… or ./file.gguf",
                self.short_names()
            ),
        })
    }

    fn short_names(&self) -> String {
        self.models.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    fn near(&self, name: &str) -> Vec<String> {
        let asked = name.to_ascii_lowercase();
        let mut scored: Vec<(usize, &str)> = self
            .models
            .iter()
            .filter_map(|m| {
                let best = m
                    .aliases
                    .iter()
                    .chain([&m.name])
                    .map(|n| distance(&asked, &n.to_ascii_lowercase()))
                    .min()?;
                let starts = asked.len() >= 3 && m.name.starts_with(&asked);
                (starts || best <= 1 + asked.len() / 4)
                    .then_some((if starts { 1 } else { best }, m.name.as_str()))
            })
            .collect();
        scored.sort_unstable();
        scored.into_iter().take(3).map(|(_, name)| format!("`{name}`")).collect()
    }
}

/// Edits between two words (Levenshtein), bounded in work by the length of a name.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn find(text: &str) -> Result<(String, Option<String>), HubError> {
        let (entry, quant) = Catalog::builtin().find(&ModelName::parse(text)?)?;
        Ok((entry.name.clone(), quant))
    }

    #[test]
    fn every_entry_is_usable() {
        let catalog = Catalog::builtin();
        let mut seen = std::collections::HashSet::new();
        for model in catalog.models() {
            for name in model.aliases.iter().chain([&model.name]) {
                assert!(seen.insert(name.to_ascii_lowercase()), "`{name}` names two models");
                assert_eq!(find(name).unwrap().0, model.name);
            }
            assert!(!model.sources.is_empty() && model.bytes > 0 && model.parameters > 0, "{}", model.name);
            for source in &model.sources {
                match source {
                    SourceEntry::Huggingface(repo) | SourceEntry::Modelscope(repo) => {
                        ModelName::parse(&format!("hf.co/{}", repo.repo)).unwrap();
                        // Neither: the folder with safetensors.
                        assert!(repo.file.is_none() || repo.quant.is_none(), "{}", repo.repo);
                        assert!(repo.sha256.is_none() || repo.file.is_some(), "{}", repo.repo);
                        assert!(repo.sha256.as_deref().is_none_or(|s| Digest::sha256_from_hex(s).is_some()));
                    }
                    SourceEntry::PackageIndex(package) => {
                        assert!(Digest::sha256_from_hex(&package.sha256).is_some());
                        assert!(!package.members.is_empty());
                        for member in &package.members {
                            assert!(Digest::sha256_from_hex(&member.sha256).is_some());
                            assert!(crate::name::is_safe_relative(&member.path));
                            assert!(crate::name::is_safe_relative(&package.name_of(member)));
                        }
                        assert!(
                            crate::name::is_safe_relative(&package.wheel) && !package.wheel.contains('/')
                        );
                    }
                }
            }
        }
        assert_eq!(find(catalog.default_chat()).unwrap().0, "smollm2");
        assert_eq!(find(catalog.default_embed()).unwrap().0, "all-minilm-l6-v2");
        assert_eq!(catalog.default_for("ocr"), Some("pp-ocrv6-small"));
        assert_eq!(catalog.default_for("telepathy"), None);
    }

    #[test]
    fn tags_and_quantisations_are_told_apart() {
        assert_eq!(find("qwen3:8b").unwrap(), ("qwen3-8b".to_owned(), None));
        assert_eq!(find("QWEN3:q8_0").unwrap(), ("qwen3-4b".to_owned(), Some("Q8_0".to_owned())));
    }

    #[test]
    fn near_names_are_offered() {
        for (asked, offered) in
            [("smolm2", "`smollm2`"), ("qwen3-4", "`qwen3-4b`"), ("mistrl", "`mistral-7b`")]
        {
            let text = find(asked).unwrap_err().to_string();
            assert!(text.contains("did you mean") && text.contains(offered), "{text}");
        }
        assert!(!find("zzzzzz").unwrap_err().to_string().contains("did you mean"));
    }

    #[test]
    fn distances() {
        for (a, b, d) in [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("abc", "abc", 0)] {
            assert_eq!(distance(a, b), d);
        }
    }
}
