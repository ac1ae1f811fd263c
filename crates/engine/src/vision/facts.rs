//! What lies beside a model file.

use super::Opened;
use crate::EngineError;
use kun_tasks::describe::{Facts, Verb, model_toml};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A description or a label file is shorter.
const MAX_TEXT_BYTES: u64 = 4 << 20;

fn mismatch(what: String) -> EngineError {
    EngineError::Mismatch { what }
}

/// The ONNX files in a folder and in its `onnx` folder, by name.
pub(super) fn onnx_files(folder: &Path) -> Result<Vec<PathBuf>, EngineError> {
    let mut files = Vec::new();
    for place in [folder.to_owned(), folder.join("onnx")] {
        let Ok(entries) = std::fs::read_dir(&place) else { continue };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        files.extend(paths.filter(|p| p.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx"))));
    }
    files.sort();
    if files.is_empty() {
        return Err(mismatch(format!("{} has no .onnx file", folder.display())));
    }
    Ok(files)
}

/// The model file of a path: itself, or the folder's `model.onnx`, or its only one; for vectors the part of a model of
/// pictures and texts that takes pictures.
pub(super) fn onnx_file(path: &Path, verb: Verb) -> Result<PathBuf, EngineError> {
    if !path.is_dir() {
        let is_onnx = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx"));
        return match is_onnx {
            true => Ok(path.to_owned()),
            false => Err(mismatch(format!("{} is no .onnx file, which picture models are", path.display()))),
        };
    }
    let files = onnx_files(path)?;
    if let [only] = files.as_slice() {
        return Ok(only.clone());
    }
    let named = |name: &str| files.iter().find(|file| file.file_name().is_some_and(|n| n == name));
    let part = if verb == Verb::Embed { named("vision_model.onnx") } else { None };
    part.or_else(|| named("model.onnx")).cloned().ok_or_else(|| {
        let names: Vec<_> =
            files.iter().filter_map(|f| Some(f.file_name()?.to_string_lossy().into_owned())).collect();
        mismatch(format!("the folder has several models; name one: {}", names.join(", ")))
    })
}

/// The ONNX file of that name in the folder at `path`, or in the folder of the file at `path`.
pub(super) fn named_file(path: &Path, name: &str) -> Result<Option<PathBuf>, EngineError> {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new(".")) };
    Ok(onnx_files(folder)?.into_iter().find(|file| file.file_name().is_some_and(|n| n == name)))
}

/// Where the JSON files of a model file lie: beside it, or of `onnx/model.onnx` in a Hugging Face folder one level up.
pub(super) fn beside(file: &Path) -> &Path {
    let folder = file.parent().unwrap_or(Path::new("."));
    match folder.file_name() {
        Some(name) if name == "onnx" => folder.parent().unwrap_or(folder),
        _ => folder,
    }
}

/// A file of at most `limit` bytes, if it is there.
pub(super) fn small_file(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, EngineError> {
    let Ok(file) = File::open(path) else { return Ok(None) };
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    match file.take(limit + 1).read_to_end(&mut bytes) {
        Ok(length) if length as u64 <= limit => Ok(Some(bytes)),
        Ok(_) => Err(mismatch(format!("{} is longer than {limit} bytes", path.display()))),
        Err(error) => Err(mismatch(format!("{}: {error}", path.display()))),
    }
}

/// A small text file, if it is there.
pub(super) fn text(path: &Path) -> Result<Option<String>, EngineError> {
    let bytes = small_file(path, MAX_TEXT_BYTES)?;
    let text = bytes.map(String::from_utf8).transpose();
    text.map_err(|error| mismatch(format!("{}: {error}", path.display())))
}

/// A JSON file, if it is there.
pub(super) fn json_file(path: &Path) -> Result<Option<serde_json::Value>, EngineError> {
    let value = text(path)?.map(|text| kun_tasks::describe::json(&text)).transpose();
    value.map_err(|what| mismatch(format!("{}: {what}", path.display())))
}

/// A name without folders, so that a description reads nothing outside its own folder.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(std::path::Component::Normal(_)), None))
}

/// Everything that the file, its metadata and the files beside it say.
pub(super) fn read(file: &Path, opened: &Opened) -> Result<Facts, EngineError> {
    let (own_folder, above) = (file.parent().unwrap_or(Path::new(".")), beside(file));
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let own = text(&own_folder.join(format!("{stem}.toml")))?;
    let description = match own {
        Some(own) => Some(own),
        None => text(&own_folder.join("model.toml"))?,
    };
    let named = description.as_deref().and_then(model_toml::label_file).filter(|name| is_plain(name));
    let labels = text(&own_folder.join(named.as_deref().unwrap_or("labels.txt")))?;
    let folder = above.file_name().unwrap_or_default().to_string_lossy();
    // A snapshot's folder is a hash; the repository's name stands two levels up.
    let repository = above.ancestors().nth(2).and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let repository = if repository.starts_with("models--") { repository } else { "".into() };
    Ok(Facts {
        name: [repository.as_ref(), folder.as_ref(), &stem].join(" ").trim().to_owned(),
        model_toml: description,
        labels,
        config: json_file(&above.join("config.json"))?,
        preprocessor: json_file(&above.join("preprocessor_config.json"))?,
        metadata: opened.metadata.clone(),
        inputs: opened.inputs.clone(),
        outputs: opened.outputs.clone(),
    })
}

/// The characters of a recogniser whose metadata has none: the only text file with `dict` or `keys` in its name.
pub(super) fn dictionary(folder: &Path) -> Result<Vec<String>, EngineError> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(|e| Some(e.ok()?.path()));
    let mut found: Vec<PathBuf> = entries
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
            name.ends_with(".txt") && (name.contains("dict") || name.contains("keys"))
        })
        .collect();
    found.sort();
    let [only] = found.as_slice() else {
        return Err(mismatch(format!(
            "the characters are neither in the metadata of the `rec` network (`character`) nor in one dictionary file of {}",
            folder.display()
        )));
    };
    let text = text(only)?.unwrap_or_default();
    Ok(kun_tasks::vision::ocr::ReadLine::characters(&text))
}
