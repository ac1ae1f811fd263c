//! What is on this disk already: paths, and the stores of other programs, read in place.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::digest::Digest;
use crate::error::HubError;
use crate::hf_cache::names_in;
use crate::options::{HubOptions, read_small};
use crate::select;

/// How deep and how far other programs' folders are searched.
const MAX_DEPTH: usize = 4;
const MAX_FOUND: usize = 5000;

/// A model of another program.
pub(crate) struct Foreign {
    pub name: String,
    pub path: PathBuf,
    pub bytes: u64,
}

/// A path as the user wrote it: a `.gguf` file, a folder of safetensors, or a folder with GGUF files.
///
/// # Errors
/// [`HubError::NotFound`], [`HubError::Name`] for a file of another kind.
pub(crate) fn open_path(path: &Path) -> Result<PathBuf, HubError> {
    let name = path.display().to_string();
    let found = fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            HubError::NotFound { name: name.clone(), why: "there is no such file or folder".to_owned() }
        }
        _ => HubError::Io { path: path.to_owned(), source: e },
    })?;
    if !found.is_dir() {
        if !found.is_file() {
            return Err(HubError::Name { name, why: "it is neither a file nor a folder".to_owned() });
        }
        return Ok(path.to_owned());
    }
    let describes = ["config.json", "model.toml", "model_index.json"];
    if describes.iter().any(|name| path.join(name).is_file()) {
        return Ok(path.to_owned());
    }
    let mut names = names_in(path);
    names.sort();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    match select::gguf_models(&names).as_slice() {
        [only] => Ok(path.join(only)),
        [] if names.iter().any(|name| name.to_ascii_lowercase().ends_with(".onnx")) => Ok(path.to_owned()),
        [] => Err(HubError::NotFound {
            name,
            why: "the folder has neither config.json nor a .gguf or .onnx file".to_owned(),
        }),
        several => Err(HubError::Name {
            name,
            why: format!("the folder has several models; name one: {}", several.join(", ")),
        }),
    }
}

#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: String,
    #[serde(default)]
    size: u64,
}

/// The weights of a model in Ollama's store.
pub(crate) fn ollama(options: &HubOptions, name: &str, tag: &str) -> Option<Foreign> {
    let root = options.ollama_dir.as_deref()?;
    let full = if name.contains('/') { name.to_owned() } else { format!("library/{name}") };
    ollama_manifest(
        root,
        &root.join("manifests/registry.ollama.ai").join(&full).join(tag),
        &format!("ollama://{name}:{tag}"),
    )
}

fn ollama_manifest(root: &Path, manifest: &Path, name: &str) -> Option<Foreign> {
    let manifest: Manifest = serde_json::from_str(&read_small(manifest)?).ok()?;
    let layer = manifest.layers.iter().find(|l| l.media_type == "application/vnd.ollama.image.model")?;
    // The path is made from the digest's bytes, never from the manifest's text.
    let digest = Digest::sha256_from_hex(layer.digest.strip_prefix("sha256:")?)?;
    let path = root.join("blobs").join(format!("sha256-{}", digest.hex()));
    let bytes = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?.len();
    (layer.size == 0 || layer.size == bytes).then(|| Foreign { name: name.to_owned(), path, bytes })
}

/// Every model of other programs that their folders show.
pub(crate) fn foreign(options: &HubOptions) -> Vec<Foreign> {
    let mut found = Vec::new();
    if let Some(root) = options.ollama_dir.as_deref() {
        let registry = root.join("manifests/registry.ollama.ai");
        for owner in names_in(&registry) {
            for model in names_in(&registry.join(&owner)) {
                for tag in names_in(&registry.join(&owner).join(&model)) {
                    let short = if owner == "library" { model.clone() } else { format!("{owner}/{model}") };
                    let manifest = registry.join(&owner).join(&model).join(&tag);
                    found.extend(ollama_manifest(root, &manifest, &format!("ollama://{short}:{tag}")));
                }
            }
        }
    }
    for dir in &options.gguf_dirs {
        for path in ggufs_below(dir) {
            let bytes = gguf_bytes(&path);
            found.push(Foreign { name: path.display().to_string(), path, bytes });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// Bytes of a GGUF file with its other parts.
pub(crate) fn gguf_bytes(path: &Path) -> u64 {
    let length = |p: &Path| fs::metadata(p).map_or(0, |m| m.len());
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match select::split_part(&name) {
        Some(part) if part.count < MAX_FOUND => {
            (1..=part.count).map(|i| length(&path.with_file_name(select::part_name(&name, &part, i)))).sum()
        }
        _ => length(path),
    }
}

fn ggufs_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![(dir.to_owned(), 0)];
    while let Some((dir, depth)) = open.pop() {
        let mut files = Vec::new();
        for name in names_in(&dir) {
            let path = dir.join(&name);
            match fs::symlink_metadata(&path) {
                Ok(entry) if entry.is_dir() && depth < MAX_DEPTH => open.push((path, depth + 1)),
                Ok(entry) if entry.is_file() => files.push(name),
                _ => {}
            }
        }
        let names: Vec<&str> = files.iter().map(String::as_str).collect();
        found.extend(select::gguf_models(&names).into_iter().map(|name| dir.join(name)));
        if found.len() > MAX_FOUND {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use kun_testkit::Scratch;

    #[test]
    fn ollama_models_are_read_where_they_are() {
        let root = Scratch::new("ollama");
        let digest = crate::digest::sha256_hex(b"GGUFdata");
        let manifests = root.folder().join("manifests/registry.ollama.ai/library/llama3.2");
        fs::create_dir_all(&manifests).unwrap();
        fs::create_dir_all(root.folder().join("blobs")).unwrap();
        fs::write(root.folder().join("blobs").join(format!("sha256-{digest}")), b"GGUFdata").unwrap();
        let layer = |digest: &str| {
            format!(
                r#"{{"layers":[{{"mediaType":"application/vnd.ollama.image.model","digest":"{digest}","size":8}}]}}"#
            )
        };
        fs::write(manifests.join("latest"), layer(&format!("sha256:{digest}"))).unwrap();
        fs::write(manifests.join("evil"), layer("sha256:../../../../../../../../etc/hostname")).unwrap();
        let options = HubOptions { ollama_dir: Some(root.folder().to_owned()), ..HubOptions::default() };
        let found = ollama(&options, "llama3.2", "latest").unwrap();
        assert_eq!((found.bytes, found.name.as_str()), (8, "ollama://llama3.2:latest"));
        assert!(ollama(&options, "llama3.2", "evil").is_none());
        assert_eq!(foreign(&options).len(), 1);
    }

    #[test]
    fn folders_of_other_programs_are_searched_for_first_parts() {
        let root = Scratch::new("lmstudio");
        let dir = root.folder().join("org/repo");
        fs::create_dir_all(&dir).unwrap();
        for (name, bytes) in [
            ("a-Q4_0.gguf", 3),
            ("mmproj-a.gguf", 3),
            ("b-00001-of-00002.gguf", 4),
            ("b-00002-of-00002.gguf", 5),
            ("x.txt", 1),
        ] {
            fs::write(dir.join(name), vec![0; bytes]).unwrap();
        }
        let options = HubOptions { gguf_dirs: vec![root.folder().to_owned()], ..HubOptions::default() };
        let found: Vec<(String, u64)> = foreign(&options)
            .into_iter()
            .map(|f| (f.path.file_name().unwrap().to_string_lossy().into_owned(), f.bytes))
            .collect();
        assert_eq!(found, [("a-Q4_0.gguf".to_owned(), 3), ("b-00001-of-00002.gguf".to_owned(), 9)]);
    }

    #[test]
    fn paths_are_opened_or_explained() {
        let root = Scratch::new("paths");
        assert!(matches!(open_path(&root.folder().join("no")), Err(HubError::NotFound { .. })));
        assert!(matches!(open_path(root.folder()), Err(HubError::NotFound { .. })));
        fs::write(root.folder().join("a.gguf"), b"x").unwrap();
        assert_eq!(open_path(root.folder()).unwrap(), root.folder().join("a.gguf"));
        fs::write(root.folder().join("b.gguf"), b"x").unwrap();
        assert!(open_path(root.folder()).unwrap_err().to_string().contains("a.gguf, b.gguf"));
        fs::write(root.folder().join("config.json"), b"{}").unwrap();
        assert_eq!(open_path(root.folder()).unwrap(), root.folder());
    }
}
