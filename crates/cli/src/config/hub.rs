//! The hub's settings from the flags and from the variables that its peers read.

use super::Folders;
use crate::args::GlobalArgs;
use anyhow::Context;
use kun_hub::HubOptions;
use std::path::PathBuf;

/// What the hub needs, and what `kun doctor` says about it.
#[derive(Debug)]
pub struct HubSettings {
    /// For [`kun_hub::Hub::new`].
    pub options: HubOptions,
    /// Settings that weaken a default, in words.
    pub loosened: Vec<String>,
}

/// Merges flags and environment (`HF_HUB_CACHE`, `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`, ..).
///
/// # Errors
/// When no store folder is given and the system names no home.
pub fn hub_settings(args: &GlobalArgs, folders: &Folders) -> anyhow::Result<HubSettings> {
    let hf_home = path("HF_HOME")
        .or_else(|| path("XDG_CACHE_HOME").map(|dir| dir.join("huggingface")))
        .or_else(|| folders.home.as_ref().map(|home| home.join(".cache/huggingface")));
    let cache_dir = args.cache_dir.clone().or_else(|| path("HF_HUB_CACHE"));
    let cache_dir = cache_dir
        .or_else(|| hf_home.as_ref().map(|home| home.join("hub")))
        .context("no folder for models: set --cache-dir, HF_HUB_CACHE or HF_HOME")?;
    let endpoint = text("HF_ENDPOINT").map(|url| url.trim_end_matches('/').to_owned());
    let mut loosened = Vec::new();
    if let Some(url) = endpoint.as_deref().filter(|url| url.starts_with("http://")) {
        loosened.push(format!("HF_ENDPOINT is {url}: connections are not encrypted"));
    }
    let token = text("HF_TOKEN").or_else(|| {
        let file = path("HF_TOKEN_PATH").or_else(|| hf_home.as_ref().map(|home| home.join("token")))?;
        let token = std::fs::read_to_string(file).ok()?;
        Some(token.trim().to_owned()).filter(|t| !t.is_empty())
    });
    let offline = args.offline || text("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value));
    let options = HubOptions { cache_dir, endpoint, token, offline, ..HubOptions::from_environment(text) };
    Ok(HubSettings { options, loosened })
}

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

fn path(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on")
}
