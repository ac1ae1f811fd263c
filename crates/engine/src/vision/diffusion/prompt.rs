//! Words to the tokens of CLIP's text network.

use super::folder::{MAX_TOKENIZER_BYTES, missing};
use crate::EngineError;
use crate::vision::facts::{json_file, small_file};
use kun_text::{Special, Tokenizer};
use serde_json::{Value, json};
use std::path::Path;

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

/// Reads prompts.
#[derive(Debug)]
pub(super) struct Reader {
    tokenizer: Tokenizer,
    max_tokens: usize,
    /// What fills a prompt up.
    fill: u32,
}

fn mismatch(what: String) -> EngineError {
    EngineError::Mismatch { what }
}

impl Reader {
    /// From `tokenizer/` in a model's folder.
    pub(super) fn open(folder: &Path, max_tokens: usize) -> Result<Reader, EngineError> {
        let place = folder.join("tokenizer");
        let settings = json_file(&place.join("tokenizer_config.json"))?;
        let special = json_file(&place.join("special_tokens_map.json"))?;
        let json = match small_file(&place.join("tokenizer.json"), MAX_TOKENIZER_BYTES)? {
            Some(bytes) => bytes,
            None => from_two_files(&place)?,
        };
        let named = |file: &Option<Value>, key: &str| -> Option<String> {
            let value = file.as_ref()?.get(key)?;
            Some(value.as_str().or_else(|| value.get("content")?.as_str())?.to_owned())
        };
        let pad = named(&special, "pad_token").or_else(|| named(&settings, "pad_token"));
        let value: Value = serde_json::from_slice(&json)
            .map_err(|error| mismatch(format!("{}: {error}", place.join("tokenizer.json").display())))?;
        let id = |text: &str| {
            let added = value["added_tokens"].as_array().into_iter().flatten();
            let mut added = added.filter(|token| token["content"] == text).map(|token| &token["id"]);
            let id = added.next().or_else(|| value["model"]["vocab"].get(text));
            id.and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok())
        };
        let fill = match &pad {
            Some(pad) => id(pad).ok_or_else(|| mismatch(format!("the tokenizer has no token {pad:?}")))?,
            None => id(END).ok_or_else(|| mismatch(format!("the tokenizer has no token {END:?}")))?,
        };
        let tokenizer = Tokenizer::from_json(&json, settings.as_ref())?;
        Ok(Reader { tokenizer, max_tokens, fill })
    }

    pub(super) fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Exactly [`Reader::max_tokens`] tokens of a prompt.
    ///
    /// # Errors
    /// Those of [`Reader::read`].
    pub(super) fn ids(&self, text: &str, truncate: bool) -> Result<Vec<u32>, EngineError> {
        let mut ids = self.read(text, truncate)?;
        ids.resize(self.max_tokens, self.fill);
        Ok(ids)
    }

    /// The tokens of a prompt, at most [`Reader::max_tokens`].
    ///
    /// # Errors
    /// [`EngineError::ContextExceeded`] for a prompt that is too long and may not be cut.
    pub(super) fn read(&self, text: &str, truncate: bool) -> Result<Vec<u32>, EngineError> {
        let mut ids = self.tokenizer.encode_prompt(text, Special::Plain)?;
        if ids.len() > self.max_tokens {
            if !truncate {
                return Err(EngineError::ContextExceeded {
                    prompt_tokens: ids.len(),
                    context_tokens: self.max_tokens,
                });
            }
            let end = ids.last().copied().unwrap_or(self.fill);
            ids.truncate(self.max_tokens - 1);
            ids.push(end);
        }
        Ok(ids)
    }
}

/// A `tokenizer.json` for CLIP's vocabulary and merges, the way that transformers converts them.
fn from_two_files(place: &Path) -> Result<Vec<u8>, EngineError> {
    let (words, pairs) = (place.join("vocab.json"), place.join("merges.txt"));
    let vocab = small_file(&words, MAX_TOKENIZER_BYTES)?.ok_or_else(|| missing(&words))?;
    let merges = small_file(&pairs, MAX_TOKENIZER_BYTES)?.ok_or_else(|| missing(&pairs))?;
    let vocab: Value =
        serde_json::from_slice(&vocab).map_err(|error| mismatch(format!("{}: {error}", words.display())))?;
    let merges =
        String::from_utf8(merges).map_err(|error| mismatch(format!("{}: {error}", pairs.display())))?;
    let special = |text: &str| {
        let id = vocab.get(text).and_then(Value::as_u64);
        id.ok_or_else(|| mismatch(format!("{} has no {text:?}: it is not CLIP's", words.display())))
    };
    let (start, end) = (special(START)?, special(END)?);
    let merges: Vec<&str> =
        merges.lines().filter(|line| !line.starts_with("#version") && !line.trim().is_empty()).collect();
    let added = |text: &str, id: u64| {
        json!({
            "id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true,
        })
    };
    let pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
    let file = json!({
        "version": "1.0",
        "added_tokens": [added(START, start), added(END, end)],
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "NFC" },
            { "type": "Replace", "pattern": { "Regex": r"\s+" }, "content": " " },
            { "type": "Lowercase" },
        ] },
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Removed", "invert": true },
            { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        ] },
        "post_processor": {
            "type": "RobertaProcessing", "sep": [END, end], "cls": [START, start], "trim_offsets": false,
            "add_prefix_space": false,
        },
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": END, "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>", "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": merges,
        },
    });
    Ok(file.to_string().into_bytes())
}
