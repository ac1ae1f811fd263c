//! Opens whatever a path holds.

use crate::error::{shown, shown_bytes};
use crate::gguf::{self, Gguf};
use crate::hf_config::{self, HfConfig};
use crate::{FormatError, TensorTable, confine, safetensors};
use kun_tensor::storage::Access;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Most names that are looked at in a folder.
const MAX_LISTED: usize = 10_000;
/// What files that only pickle can read are called.
const PICKLE_EXTENSIONS: [&str; 6] = ["bin", "pt", "pth", "ckpt", "pkl", "pickle"];

/// A model on disk.
#[derive(Debug)]
pub enum ModelFiles {
    /// A GGUF file, or the first of a split set.
    Gguf(Gguf),
    /// A Hugging Face folder with safetensors weights.
    HuggingFace {
        /// Its JSON files.
        config: Box<HfConfig>,
        /// Its weights.
        tensors: TensorTable,
    },
}

/// Opens a GGUF file, told by its content, or a folder with `config.json` and `*.safetensors`.
///
/// # Errors
/// [`FormatError`] naming what is wrong and where.
pub fn open(path: &Path, access: Access) -> Result<ModelFiles, FormatError> {
    let meta = path.metadata().map_err(|source| FormatError::Io { path: path.to_owned(), source })?;
    if meta.is_dir() {
        return open_folder(path, access);
    }
    confine::regular(path)?;
    let start = first_bytes(path)?;
    if start.starts_with(b"GGUF") {
        return Gguf::open(path, access).map(ModelFiles::Gguf);
    }
    Err(refuse(path, &start))
}

fn first_bytes(path: &Path) -> Result<Vec<u8>, FormatError> {
    let io = |source| FormatError::Io { path: path.to_owned(), source };
    let mut start = Vec::new();
    File::open(path).map_err(io)?.take(16).read_to_end(&mut start).map_err(io)?;
    Ok(start)
}

/// Why a file that is no GGUF is not read.
fn refuse(path: &Path, start: &[u8]) -> FormatError {
    let not_supported = |kind, advice| FormatError::NotSupported { path: path.to_owned(), kind, advice };
    let has_extension = |wanted: &str| extension(path).is_some_and(|found| found == wanted);
    if start.is_empty() {
        return FormatError::Empty { path: path.to_owned() };
    }
    // An ONNX file is a protobuf message without magic: its version number comes first, then a field of bytes.
    let onnx = matches!(start, [0x08, 1..=32, next, ..] if next & 7 == 2);
    if has_extension("onnx") || onnx {
        return not_supported(
            "an ONNX model",
            "it takes arrays, not text: `kun run MODEL.onnx --input NAME=FILE.npy`",
        );
    }
    if [&b"lmgg"[..], b"fmgg", b"tjgg", b"algg"].iter().any(|magic| start.starts_with(magic)) {
        return not_supported("a GGML file from before GGUF", "get the GGUF version of this model");
    }
    if start.get(8) == Some(&b'{') && start.get(3..8) == Some(&[0; 5]) {
        return not_supported("a safetensors file", "open its folder, which must hold config.json as well");
    }
    let zip = start.starts_with(b"PK\x03\x04");
    if start.starts_with(&[0x80]) || zip || PICKLE_EXTENSIONS.iter().any(|wanted| has_extension(wanted)) {
        return not_supported(
            "a pickle or archive file, which can run code and is never read",
            "get the safetensors or GGUF version of this model",
        );
    }
    FormatError::UnknownFormat { path: path.to_owned(), found: shown_bytes(start.get(..4).unwrap_or(start)) }
}

fn open_folder(folder: &Path, access: Access) -> Result<ModelFiles, FormatError> {
    let names = list(folder)?;
    let has = |name: &str| names.iter().any(|found| found == name);
    let ending = |wanted: &'static [&'static str]| {
        let matches = move |name: &&String| {
            extension(Path::new(name)).is_some_and(|found| wanted.contains(&found.as_str()))
        };
        names.iter().filter(matches)
    };
    let weights: Vec<&String> = ending(&["safetensors"]).collect();
    if weights.is_empty()
        && !has(safetensors::INDEX)
        && let Some(file) = ending(&PICKLE_EXTENSIONS).next()
    {
        return Err(FormatError::Pickle { path: folder.to_owned(), file: shown(file) });
    }
    if !has("config.json") {
        let hint = match ending(&["gguf"]).next() {
            Some(file) => format!("; to use the GGUF file in it, open `{}`", shown(file)),
            None => String::new(),
        };
        return Err(FormatError::NoConfig { path: folder.to_owned(), hint });
    }
    let mut tensors = if has(safetensors::INDEX) {
        safetensors::open_index(folder, access)?
    } else if has("model.safetensors") {
        safetensors::open(&[folder.join("model.safetensors")], access)?
    } else {
        safetensors::open(&[only_weights(folder, &weights)?], access)?
    };
    let config = Box::new(HfConfig::read(folder)?);
    for module in config.sentence_modules.iter().filter(|module| module.kind == "Dense") {
        let weights = confine::folder(folder, "modules.json", &module.path)?.join("model.safetensors");
        safetensors::add(&mut tensors, &weights, &format!("{}/", module.path), access)?;
    }
    Ok(ModelFiles::HuggingFace { config, tensors })
}

fn only_weights(folder: &Path, names: &[&String]) -> Result<PathBuf, FormatError> {
    match names {
        [] => Err(FormatError::NoWeights { path: folder.to_owned() }),
        [name] => Ok(folder.join(name)),
        names => Err(FormatError::ManyWeights {
            path: folder.to_owned(),
            count: names.len(),
            names: names.iter().take(3).map(|name| shown(name)).collect::<Vec<_>>().join(", "),
        }),
    }
}

/// The names in a folder, sorted; a name that is not UTF-8 is none that a model needs.
fn list(folder: &Path) -> Result<Vec<String>, FormatError> {
    let io = |source| FormatError::Io { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in folder.read_dir().map_err(io)?.take(MAX_LISTED) {
        if let Ok(name) = entry.map_err(io)?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn extension(path: &Path) -> Option<String> {
    path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase)
}

/// The architecture that the `config.json` of a folder or the start of a GGUF file names; the rest is not read.
pub fn architecture(path: &Path) -> Option<String> {
    if path.is_dir() { hf_config::model_type(path) } else { gguf::architecture(path) }
}

#[cfg(test)]
mod tests;
