//! What a picture model on this disk is for.

use super::{VisionOptions, facts, is_drawing, open};
use crate::EngineError;
use kun_tasks::describe::{DescribeError, Verb, describe, model_toml};
use std::path::Path;

/// What the files of a picture model say, without opening the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looks {
    /// It is for this.
    Verb(Verb),
    /// It reads text, with one network that finds and one that reads.
    Pages,
    /// It draws pictures from words.
    Drawing,
    /// Only the model itself can say.
    Unknown,
}

/// What a picture model is for, by the names and descriptions in its folder; `None` for models of other kinds.
pub fn looks_at(path: &Path) -> Option<Looks> {
    let is_file = path.is_file();
    if is_file && !path.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx")) {
        return None;
    }
    if is_drawing(path) {
        return Some(Looks::Drawing);
    }
    let files = if is_file { vec![path.to_owned()] } else { facts::onnx_files(path).ok()? };
    let has = |word: &str| {
        let name = |file: &Path| file.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        files.iter().any(|file| name(file).contains(word))
    };
    if has("det") && has("rec") {
        return Some(Looks::Pages);
    }
    let beside = if is_file { path.parent().unwrap_or(Path::new(".")) } else { path };
    let stem = files.first().and_then(|file| file.file_stem()).unwrap_or_default().to_string_lossy();
    let described = [format!("{stem}.toml"), "model.toml".to_owned()];
    let text = described.iter().find_map(|name| facts::text(&beside.join(name)).ok().flatten());
    if let Some(verb) = text.and_then(|text| Verb::from_task_word(&model_toml::task_word(&text)?)) {
        return Some(Looks::Verb(verb));
    }
    let config = facts::text(&beside.join("config.json")).ok().flatten().unwrap_or_default();
    let heads = [
        ("ForImageClassification", Verb::Classify),
        ("ForObjectDetection", Verb::Detect),
        ("ForSemanticSegmentation", Verb::Segment),
        ("ForUniversalSegmentation", Verb::Segment),
        ("ForDepthEstimation", Verb::Depth),
        ("ForImageSuperResolution", Verb::Upscale),
        ("\"CLIPModel\"", Verb::Embed),
        ("\"SiglipModel\"", Verb::Embed),
        ("\"Dinov2Model\"", Verb::Embed),
    ];
    let head = heads.into_iter().find(|(head, _)| config.contains(head));
    match head {
        Some((_, verb)) => Some(Looks::Verb(verb)),
        // An encoder of texts may bring an ONNX file beside its weights.
        None if !config.is_empty() && !beside.join("preprocessor_config.json").is_file() => None,
        None => Some(Looks::Unknown),
    }
}

/// The first verb that the model at `path` is good for; it is opened to find out.
///
/// # Errors
/// [`EngineError::Describe`] if nothing says what it is for, those of reading it.
pub fn verb_of(path: &Path, options: &VisionOptions) -> Result<Verb, EngineError> {
    let file = facts::onnx_file(path, Verb::Embed)?;
    let known = facts::read(&file, &open::open(&file, options)?)?;
    let mut unknown = None;
    for verb in Verb::ALL {
        match describe(&known, verb) {
            Ok(_) => return Ok(verb),
            Err(error @ DescribeError::Unknown { .. }) => unknown = unknown.or(Some(error)),
            Err(_) => {}
        }
    }
    let nothing = DescribeError::Wrong { file: "the model", what: "it is for no verb".to_owned() };
    Err(unknown.unwrap_or(nothing).into())
}
