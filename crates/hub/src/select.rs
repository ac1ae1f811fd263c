//! Which files of a repository make a model.

use crate::error::HubError;
use crate::name::{RepoName, Want, is_safe_relative};

/// Quantisation taken when none is asked for.
const USUAL_QUANT: &str = "Q4_K_M";
/// A model with more files than this is not a model.
const MAX_FILES: usize = 2000;

/// Chooses the paths to fetch or to open, in order: what a program opens comes first.
///
/// # Errors
/// [`HubError::NotFound`] naming what there is; [`HubError::Name`] for a path that would leave the store.
pub(crate) fn choose<'a>(repo: &RepoName, files: &[&'a str]) -> Result<Vec<&'a str>, HubError> {
    let not_found = |why: String| HubError::NotFound { name: repo.repo.clone(), why };
    let ggufs = gguf_models(files);
    let chosen = match &repo.want {
        Want::File(file) => {
            let exact = files
                .iter()
                .find(|f| **f == file.as_str())
                .or_else(|| files.iter().find(|f| f.eq_ignore_ascii_case(file)));
            let found = exact
                .ok_or_else(|| not_found(format!("there is no file `{file}`; there is: {}", some(&ggufs))))?;
            if !is_wanted_kind(found) {
                return Err(not_found(format!("`{file}` is not a model file that can be loaded safely")));
            }
            match found.to_ascii_lowercase().ends_with(".onnx") {
                true => with_neighbours(found, files),
                false => with_parts(found, files).map_err(not_found)?,
            }
        }
        Want::Quant(quant) => {
            let found = ggufs.iter().find(|f| quant_of(f).as_deref() == Some(quant)).or_else(|| {
                let unsloth = quant.strip_prefix("UD-")?;
                ggufs.iter().find(|f| {
                    f.to_ascii_uppercase().contains("UD-") && quant_of(f).as_deref() == Some(unsloth)
                })
            });
            let found = found
                .ok_or_else(|| not_found(format!("there is no `{quant}`; there is: {}", quants(&ggufs))))?;
            with_parts(found, files).map_err(not_found)?
        }
        Want::Default if !ggufs.is_empty() => {
            let usual =
                ggufs.iter().find(|f| quant_of(f).as_deref() == Some(USUAL_QUANT)).unwrap_or(&ggufs[0]);
            with_parts(usual, files).map_err(not_found)?
        }
        Want::Default if drawing_files(files).is_some() => drawing_files(files).unwrap_or_default(),
        Want::Default => match (safetensors_files(files), onnx_model(files)) {
            (Some(chosen), _) => chosen,
            (None, Some(model)) => with_neighbours(model, files),
            (None, None) => {
                let why = format!("it has no GGUF, safetensors or ONNX weights; there is: {}", some(files));
                return Err(not_found(why));
            }
        },
    };
    if chosen.len() > MAX_FILES {
        return Err(not_found(format!("{} files are more than the {MAX_FILES} allowed", chosen.len())));
    }
    match chosen.iter().find(|file| !is_safe_relative(file)) {
        Some(bad) => Err(HubError::Name {
            name: format!("{bad:?}"),
            why: "this file name would leave the model store".to_owned(),
        }),
        None => Ok(chosen),
    }
}

/// The files of a model that draws, as exporters of diffusers' pipelines lay them out: small ones first.
fn drawing_files<'a>(files: &[&'a str]) -> Option<Vec<&'a str>> {
    if !files.contains(&"model_index.json") || !files.contains(&"unet/model.onnx") {
        return None;
    }
    let mut chosen = vec!["model_index.json"];
    // The last one's weights are here only when all are.
    let networks = ["text_encoder", "unet", "vae_encoder", "vae_decoder"];
    chosen.extend(files.iter().copied().filter(|file| match file.split_once('/') {
        Some(("scheduler" | "tokenizer", name)) => {
            !name.contains('/') && (name.ends_with(".json") || name == "merges.txt")
        }
        Some((folder, "config.json")) => networks.contains(&folder),
        _ => false,
    }));
    for network in networks {
        chosen.extend(files.iter().copied().filter(|file| match file.split_once('/') {
            // External data may have any name, but lies beside the graph.
            Some((folder, name)) if folder == network && !name.contains('/') => {
                [".onnx", ".onnx_data", ".onnx.data", ".pb"].iter().any(|end| name.ends_with(end))
            }
            _ => false,
        }));
    }
    Some(chosen)
}

/// Whether these files are all that a model that draws needs.
pub(crate) fn is_whole_drawing(files: &[&str]) -> bool {
    let needed = ["scheduler/scheduler_config.json", "text_encoder/model.onnx", "vae_decoder/model.onnx"];
    drawing_files(files).is_some() && needed.iter().all(|name| files.contains(name))
}

/// The ONNX file that a repository is about: the usual name, or the only one.
fn onnx_model<'a>(files: &[&'a str]) -> Option<&'a str> {
    let usual = ["onnx/model.onnx", "model.onnx"];
    let found = usual.iter().find_map(|name| files.iter().find(|file| *file == name));
    let mut all = files.iter().filter(|file| file.to_ascii_lowercase().ends_with(".onnx"));
    found.or_else(|| all.next().filter(|_| all.next().is_none())).copied()
}

/// An ONNX file with its external data and the files that say how to use it.
fn with_neighbours<'a>(file: &'a str, files: &[&'a str]) -> Vec<&'a str> {
    let folder = &file[..file.rfind('/').map_or(0, |i| i + 1)];
    let data = [format!("{file}_data"), format!("{file}.data")];
    let words = ["config.json", "preprocessor_config.json", "model.toml", "labels.txt"];
    let beside = |other: &&str| {
        data.iter().any(|name| name == other)
            || words.contains(other)
            || other.strip_prefix(folder).is_some_and(|name| words.contains(&name))
    };
    std::iter::once(file).chain(files.iter().copied().filter(|other| *other != file).filter(beside)).collect()
}

/// The GGUF files that are models of their own: the first part of each, no projectors, no calibration data.
pub(crate) fn gguf_models<'a>(files: &[&'a str]) -> Vec<&'a str> {
    files
        .iter()
        .copied()
        .filter(|file| {
            let lower = file.to_ascii_lowercase();
            let base = lower.rsplit('/').next().unwrap_or_default();
            let first = split_part(file).is_none_or(|part| part.index == 1);
            lower.ends_with(".gguf") && first && !base.contains("mmproj") && !base.contains("imatrix")
        })
        .collect()
}

/// The quantisation in a file's name, in upper case: `Q4_K_M` of `dir/model-q4_k_m-00001-of-00002.gguf`.
pub(crate) fn quant_of(file: &str) -> Option<String> {
    let base = file.rsplit('/').next()?.to_ascii_uppercase();
    let stem = base.strip_suffix(".GGUF")?;
    let stem = match split_part(&base) {
        Some(part) => &stem[..part.prefix_bytes],
        None => stem,
    };
    // `model-Q4_K_M`, `model.Q4_K_M`, `model_Q4_K_M`: the last word that reads like one.
    let starts = stem.char_indices().filter(|(_, c)| matches!(c, '-' | '.' | '_')).map(|(i, _)| i + 1);
    std::iter::once(0)
        .chain(starts)
        .map(|start| &stem[start..])
        .find(|word| is_quant(word))
        .map(str::to_owned)
}

fn is_quant(word: &str) -> bool {
    if matches!(word, "F16" | "BF16" | "F32" | "FP16" | "FP32" | "MXFP4" | "MXFP4_MOE" | "NVFP4") {
        return true;
    }
    let digits =
        word.strip_prefix("IQ").or_else(|| word.strip_prefix("TQ")).or_else(|| word.strip_prefix('Q'));
    let Some(rest) = digits else { return false };
    let mut parts = rest.split('_');
    let width = parts.next().unwrap_or_default();
    let plain = |p: &str| !p.is_empty() && p.len() <= 3 && p.bytes().all(|b| b.is_ascii_alphanumeric());
    matches!(width, "1" | "2" | "3" | "4" | "5" | "6" | "8") && parts.clone().count() <= 4 && parts.all(plain)
}

/// `-00001-of-00003` at the end of a GGUF's name.
pub(crate) struct SplitPart {
    pub index: usize,
    pub count: usize,
    /// Bytes of the base name before the mark.
    pub prefix_bytes: usize,
}

pub(crate) fn split_part(file: &str) -> Option<SplitPart> {
    let base = file.rsplit('/').next()?;
    let lower = base.to_ascii_lowercase();
    let stem = lower.strip_suffix(".gguf")?;
    let (head, count) = stem.rsplit_once("-of-")?;
    let (prefix, index) = head.rsplit_once('-')?;
    let number = |text: &str| {
        (text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit()))
            .then(|| text.parse::<usize>().ok())
            .flatten()
    };
    let (index, count) = (number(index)?, number(count)?);
    (1..=count).contains(&index).then_some(SplitPart { index, count, prefix_bytes: prefix.len() })
}

/// A split file with all its parts, in order, or the file alone.
fn with_parts<'a>(file: &'a str, files: &[&'a str]) -> Result<Vec<&'a str>, String> {
    let Some(part) = split_part(file) else { return Ok(vec![file]) };
    if part.count > MAX_FILES {
        return Err(format!("`{file}` says it has {} parts", part.count));
    }
    (1..=part.count)
        .map(|index| {
            let name = part_name(file, &part, index);
            files
                .iter()
                .copied()
                .find(|f| f.eq_ignore_ascii_case(&name))
                .ok_or_else(|| format!("part `{name}` is missing"))
        })
        .collect()
}

/// The name of another part of a split file.
pub(crate) fn part_name(file: &str, part: &SplitPart, index: usize) -> String {
    let folder = file.rfind('/').map_or(0, |i| i + 1);
    let ending = &file[file.len() - 5..];
    format!("{}-{index:05}-of-{:05}{ending}", &file[..folder + part.prefix_bytes], part.count)
}

/// Kinds of files that hold data only. Never `.bin`, `.pt`, `.pkl` or `.py`: loading those can run code.
fn is_wanted_kind(file: &str) -> bool {
    let lower = file.to_ascii_lowercase();
    [".gguf", ".safetensors", ".json", ".jinja", ".txt", ".model", ".onnx"]
        .iter()
        .any(|ending| lower.ends_with(ending))
}

/// Small files first, so that a folder with weights is complete.
fn safetensors_files<'a>(files: &[&'a str]) -> Option<Vec<&'a str>> {
    let top: Vec<&str> = files.iter().copied().filter(|f| !f.contains('/')).collect();
    let mut weights: Vec<&str> = top.iter().copied().filter(|f| f.ends_with(".safetensors")).collect();
    // Mistral's repositories hold the same weights twice.
    if weights.iter().any(|f| f.starts_with("model")) {
        weights.retain(|f| !f.starts_with("consolidated"));
    }
    if weights.is_empty() || !top.contains(&"config.json") {
        return None;
    }
    let described = |file: &str| {
        let data = file.ends_with(".json")
            || file.ends_with(".jinja")
            || matches!(file, "tokenizer.model" | "merges.txt" | "vocab.txt")
            // Of translation models without tokenizer.json.
            || matches!(file, "source.spm" | "target.spm" | "sentencepiece.bpe.model" | "spiece.model");
        data && !file.starts_with('.')
    };
    let mut chosen: Vec<&str> = top.iter().copied().filter(|f| described(f)).collect();
    // The modules of sentence-transformers: `1_Pooling/config.json`, `2_Dense/model.safetensors`.
    if top.contains(&"modules.json") {
        chosen.extend(files.iter().copied().filter(|file| {
            let numbered = file.starts_with(|c: char| c.is_ascii_digit());
            let parts: Vec<&str> = file.split('/').collect();
            numbered && matches!(parts.as_slice(), [_, "config.json" | "model.safetensors"])
        }));
    }
    chosen.extend(weights);
    Some(chosen)
}

fn quants(ggufs: &[&str]) -> String {
    let mut found: Vec<String> = ggufs.iter().filter_map(|f| quant_of(f)).collect();
    found.dedup();
    if found.is_empty() { "no GGUF file".to_owned() } else { found.join(", ") }
}

fn some(files: &[&str]) -> String {
    if files.is_empty() {
        return "nothing usable".to_owned();
    }
    let shown: Vec<String> = files.iter().take(12).map(|f| f.escape_debug().to_string()).collect();
    let more = files.len().saturating_sub(shown.len());
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repo(want: Want) -> RepoName {
        RepoName { repo: "o/r".to_owned(), revision: None, want }
    }

    #[test]
    fn quantisations_are_read_from_every_style_of_name() {
        for (file, quant) in [
            ("SmolLM2-135M-Instruct.Q4_1.gguf", Some("Q4_1")),
            ("qwen2.5-7b-instruct-q4_k_m-00001-of-00002.gguf", Some("Q4_K_M")),
            ("Q8_0/big-Q8_0-00001-of-00002.gguf", Some("Q8_0")),
            ("model_IQ4_XS.gguf", Some("IQ4_XS")),
            ("Qwen3-0.6B-UD-Q4_K_XL.gguf", Some("Q4_K_XL")),
            ("smollm2-1.7b-instruct-f16.GGUF", Some("F16")),
            ("Llama-3.2-1B-Instruct-Q4_0_4_4.gguf", Some("Q4_0_4_4")),
            ("x-bf16.gguf", Some("BF16")),
            ("Q4_0.gguf", Some("Q4_0")),
            ("Qwen3-4B.gguf", None),
            ("notes.txt", None),
        ] {
            assert_eq!(quant_of(file).as_deref(), quant, "{file}");
        }
    }

    #[test]
    fn the_asked_then_the_usual_then_the_first() {
        let files = [
            "README.md",
            "mmproj-F16.gguf",
            "m-Q2_K.gguf",
            "m-Q4_K_M.gguf",
            "m-Q4_K.gguf",
            "m-Q8_0-00001-of-00002.gguf",
            "m-Q8_0-00002-of-00002.gguf",
        ];
        let pick = |want| choose(&repo(want), &files).map(|f| f.join(" "));
        assert_eq!(pick(Want::Default).unwrap(), "m-Q4_K_M.gguf");
        assert_eq!(pick(Want::Quant("Q4_K".to_owned())).unwrap(), "m-Q4_K.gguf");
        assert_eq!(
            pick(Want::Quant("Q8_0".to_owned())).unwrap(),
            "m-Q8_0-00001-of-00002.gguf m-Q8_0-00002-of-00002.gguf"
        );
        assert_eq!(pick(Want::File("M-q2_k.gguf".to_owned())).unwrap(), "m-Q2_K.gguf");
        let missing = pick(Want::Quant("Q6_K".to_owned())).unwrap_err().to_string();
        assert!(missing.contains("Q2_K, Q4_K_M, Q4_K, Q8_0"), "{missing}");
        assert_eq!(choose(&repo(Want::Default), &["b-Q8_0.gguf", "a-Q2_K.gguf"]).unwrap(), ["b-Q8_0.gguf"]);
        assert!(choose(&repo(Want::Default), &["m-00001-of-00002.gguf"]).is_err());
    }

    #[test]
    fn a_model_that_draws_is_all_of_its_networks() {
        let files = [
            ".gitattributes",
            "README.md",
            "feature_extractor/preprocessor_config.json",
            "model_index.json",
            "safety_checker/model.onnx",
            "scheduler/scheduler_config.json",
            "text_encoder/config.json",
            "text_encoder/model.onnx",
            "tokenizer/merges.txt",
            "tokenizer/vocab.json",
            "unet/config.json",
            "unet/diffusion_pytorch_model.safetensors",
            "unet/model.onnx",
            "unet/model.onnx_data",
            "unet/old/model.onnx",
            "vae_decoder/model.onnx",
            "vae_encoder/model.onnx",
        ];
        let wanted = "model_index.json scheduler/scheduler_config.json text_encoder/config.json tokenizer/merges.txt \
            tokenizer/vocab.json unet/config.json text_encoder/model.onnx unet/model.onnx unet/model.onnx_data \
            vae_encoder/model.onnx vae_decoder/model.onnx";
        assert_eq!(choose(&repo(Want::Default), &files).unwrap().join(" "), wanted);
        assert!(is_whole_drawing(&files) && !is_whole_drawing(&files[..14]));
    }

    #[test]
    fn safetensors_without_pickles_or_code() {
        let files = [
            "model.safetensors",
            "consolidated.safetensors",
            "pytorch_model.bin",
            "modeling.py",
            "config.json",
            "tokenizer.json",
            "chat_template.jinja",
            "onnx/model.onnx",
            "training_args.pt",
            "original/params.json",
            ".x.json",
            "README.md",
        ];
        assert_eq!(
            choose(&repo(Want::Default), &files).unwrap(),
            ["config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"]
        );
        for bad in ["pytorch_model.bin", "modeling.py", "training_args.pt"] {
            assert!(choose(&repo(Want::File(bad.to_owned())), &files).is_err());
        }
        assert!(choose(&repo(Want::Default), &["pytorch_model.bin", "config.json"]).is_err());
    }

    #[test]
    fn hostile_names_of_a_server_are_refused() {
        for bad in [
            "../../x.gguf",
            "/etc/x.gguf",
            "a\\..\\x.gguf",
            "C:\\x.gguf",
            "nul/x.gguf",
            "a//x.gguf",
            "x\0.gguf",
        ] {
            assert!(matches!(choose(&repo(Want::Default), &[bad]), Err(HubError::Name { .. })), "{bad:?}");
        }
        let many: Vec<String> = (1..=99_999).map(|i| format!("m-{i:05}-of-99999.gguf")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(choose(&repo(Want::Default), &many).is_err());
    }
}
