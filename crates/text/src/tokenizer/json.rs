//! `tokenizer.json` through the `tokenizers` crate.
//!
//! Only the stages that turn plain text into ids are taken from it; added tokens, beginning and end tokens
//! and decoding are handled as for GGUF vocabularies, so that both kinds of file obey the same rules.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Deserialize;
use serde_json::Value;
use tokenizers::{
    Model as _, ModelWrapper, NormalizedString, Normalizer as _, NormalizerWrapper, OffsetReferential,
    OffsetType, PreTokenizedString, PreTokenizer as _, PreTokenizerWrapper,
};

use super::encoding::{Joint, Joints};
use super::{Kind, TokenizerError, charsmap, pattern};

/// Largest file read.
const MAX_FILE_BYTES: usize = 256 << 20;
/// Highest id of an added token.
const MAX_ADDED_ID: u32 = 1 << 24;
/// How much a normalizer's replacements may lengthen a text in all.
const MAX_EXPANSION: usize = 1024;
/// Stages of a normalizer or pre-tokenizer.
const MAX_STAGES: usize = 64;

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Option<Value>,
    model: ModelWrapper,
}

/// An entry of `added_tokens`.
#[derive(Deserialize)]
pub(super) struct AddedToken {
    pub id: u32,
    pub content: String,
    #[serde(default)]
    pub lstrip: bool,
    #[serde(default)]
    pub rstrip: bool,
    #[serde(default)]
    pub special: bool,
}

/// How a token's text becomes bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    ByteLevel,
    Metaspace,
    WordPiece,
    Plain,
}

/// The stages of a `tokenizer.json` that turn plain text into ids.
pub(super) struct Pipeline {
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    /// The same for a text that follows a special token, where that differs.
    later_pre_tokenizer: Option<PreTokenizerWrapper>,
    model: ModelWrapper,
    spelling: Spelling,
    /// The decoder takes one space off the beginning of a text.
    pub strips_first_space: bool,
    /// The places of tokens leave out the spaces at their ends, except one that was put before the text (`true`).
    trims: Option<bool>,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("spelling", &self.spelling).finish_non_exhaustive()
    }
}

/// What a file says beside the pipeline.
pub(super) struct Description {
    pub pipeline: Pipeline,
    pub added: Vec<AddedToken>,
    pub kinds: Vec<Kind>,
    /// Ids put before and after a prompt by the post-processor.
    pub around: (Vec<u32>, Vec<u32>),
    /// How the post-processor joins one text or two, if it does.
    pub joints: Option<Joints>,
}

fn invalid(what: impl Into<String>) -> TokenizerError {
    TokenizerError::Invalid { what: what.into() }
}

/// Reads a `tokenizer.json`.
pub(super) fn read(bytes: &[u8]) -> Result<Description, TokenizerError> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(invalid(format!("tokenizer.json: {} bytes, limit {MAX_FILE_BYTES}", bytes.len())));
    }
    guard("tokenizer.json", || read_unguarded(bytes))?
}

fn read_unguarded(bytes: &[u8]) -> Result<Description, TokenizerError> {
    let file: File =
        serde_json::from_slice(bytes).map_err(|error| invalid(format!("tokenizer.json: {error}")))?;
    let stages = [&file.normalizer, &file.pre_tokenizer, &file.decoder];
    for (field, stage) in ["normalizer", "pre_tokenizer", "decoder"].into_iter().zip(stages) {
        let stage = stage.as_ref().unwrap_or(&Value::Null);
        check_stages(field, stage)?;
        charsmap::check(field, stage)?;
        if field != "decoder" {
            // One that says `first` is compiled twice, see `later_pre_tokenizer`.
            pattern::check(field, stage, 1 + usize::from(mentions(stage, "first")))?;
        }
    }
    if let Some(token) = file.added_tokens.iter().find(|token| token.id > MAX_ADDED_ID) {
        return Err(invalid(format!("added_tokens: id {} beyond {MAX_ADDED_ID}", token.id)));
    }
    let size = file.added_tokens.iter().map(|token| token.id as usize + 1).max().unwrap_or(0);
    let mut kinds = vec![Kind::Normal; size.max(file.model.get_vocab_size())];
    for token in &file.added_tokens {
        kinds[token.id as usize] = if token.special { Kind::Control } else { Kind::UserDefined };
    }
    let decoder = file.decoder.as_ref().unwrap_or(&Value::Null);
    let stages = file.pre_tokenizer.as_ref().unwrap_or(&Value::Null);
    let spelling = if mentions(decoder, "ByteLevel") || mentions(stages, "ByteLevel") {
        Spelling::ByteLevel
    } else if matches!(file.model, ModelWrapper::WordPiece(_)) {
        Spelling::WordPiece
    } else if mentions(decoder, "Metaspace") || mentions(decoder, "▁") || mentions(stages, "Metaspace") {
        Spelling::Metaspace
    } else {
        Spelling::Plain
    };
    let strips_first_space = spelling == Spelling::WordPiece
        || (spelling == Spelling::Metaspace
            && (mentions(decoder, "Strip") || mentions(stages, "always") || mentions(stages, "first")));
    let later_pre_tokenizer = match &file.pre_tokenizer {
        Some(stages) if mentions(stages, "first") => {
            Some(parse("pre_tokenizer", never_first(stages.clone()))?)
        }
        _ => None,
    };
    let post = file.post_processor.as_ref().unwrap_or(&Value::Null);
    let (around, trims) = (post_processor(post), trims(post));
    let joints = guarded_joints(post, &around)?;
    Ok(Description {
        pipeline: Pipeline {
            normalizer: file.normalizer.map(|value| parse("normalizer", value)).transpose()?,
            pre_tokenizer: file.pre_tokenizer.map(|value| parse("pre_tokenizer", value)).transpose()?,
            later_pre_tokenizer,
            model: file.model,
            spelling,
            strips_first_space,
            trims,
        },
        added: file.added_tokens,
        kinds,
        around,
        joints,
    })
}

fn parse<T: for<'de> Deserialize<'de>>(field: &str, value: Value) -> Result<T, TokenizerError> {
    serde_json::from_value(value).map_err(|error| invalid(format!("{field}: {error}")))
}

/// Runs code of the `tokenizers` crate, which may panic on a crafted file.
fn guard<T>(what: &str, run: impl FnOnce() -> T) -> Result<T, TokenizerError> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| invalid(format!("{what}: inconsistent description")))
}

/// Refuses stages that would lengthen a text without bound, or cut it into pieces of no length.
fn check_stages(field: &str, value: &Value) -> Result<(), TokenizerError> {
    fn walk(value: &Value, stages: &mut usize, expansion: &mut usize, empty: &mut bool) {
        match value {
            Value::Object(map) => {
                *empty |= map.get("length").is_some_and(|length| length == 0);
                *stages += usize::from(map.contains_key("type"));
                for key in ["content", "prepend"] {
                    if let Some(Value::String(text)) = map.get(key) {
                        *expansion = expansion.saturating_mul(text.len().max(1));
                    }
                }
                map.values().for_each(|inner| walk(inner, stages, expansion, empty));
            }
            Value::Array(list) => list.iter().for_each(|inner| walk(inner, stages, expansion, empty)),
            _ => {}
        }
    }
    let (mut stages, mut expansion, mut empty) = (0, 1, false);
    walk(value, &mut stages, &mut expansion, &mut empty);
    if empty {
        return Err(invalid(format!("{field}: length 0, at least 1 is needed")));
    }
    if stages > MAX_STAGES {
        return Err(invalid(format!("{field}: {stages} stages, limit {MAX_STAGES}")));
    }
    if expansion > MAX_EXPANSION {
        return Err(invalid(format!(
            "{field}: replacements lengthen {expansion}-fold, limit {MAX_EXPANSION}"
        )));
    }
    Ok(())
}

/// Whether any string in `value` is `word`.
fn mentions(value: &Value, word: &str) -> bool {
    match value {
        Value::String(text) => text == word,
        Value::Array(list) => list.iter().any(|inner| mentions(inner, word)),
        Value::Object(map) => map.values().any(|inner| mentions(inner, word)),
        _ => false,
    }
}

/// The pre-tokenizer for texts that do not begin the input.
fn never_first(mut value: Value) -> Value {
    match &mut value {
        Value::Array(list) => list.iter_mut().for_each(|inner| *inner = never_first(inner.take())),
        Value::Object(map) => {
            for (key, inner) in map.iter_mut() {
                *inner = match (key.as_str(), inner.as_str()) {
                    ("prepend_scheme", Some("first")) => Value::from("never"),
                    _ => never_first(inner.take()),
                };
            }
        }
        _ => {}
    }
    value
}

/// The ids that a post-processor puts before and after a single text.
fn post_processor(value: &Value) -> (Vec<u32>, Vec<u32>) {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value["type"].as_str() {
        Some("Sequence") => value["processors"]
            .as_array()
            .into_iter()
            .flatten()
            .map(post_processor)
            .find(|(before, after)| !before.is_empty() || !after.is_empty())
            .unwrap_or_default(),
        Some("BertProcessing" | "RobertaProcessing") => {
            (id(&value["cls"][1]).into_iter().collect(), id(&value["sep"][1]).into_iter().collect())
        }
        Some("TemplateProcessing") => {
            let (mut before, mut after, mut seen) = (Vec::new(), Vec::new(), false);
            for item in value["single"].as_array().into_iter().flatten() {
                if item.get("Sequence").is_some() {
                    seen = true;
                } else if let Some(name) = item["SpecialToken"]["id"].as_str() {
                    let ids = value["special_tokens"][name]["ids"].as_array();
                    let side = if seen { &mut after } else { &mut before };
                    side.extend(ids.into_iter().flatten().filter_map(id));
                }
            }
            (before, after)
        }
        _ => Default::default(),
    }
}

/// Elements of a pattern that texts are joined by.
const MAX_JOINTS: usize = 64;

fn guarded_joints(value: &Value, around: &(Vec<u32>, Vec<u32>)) -> Result<Option<Joints>, TokenizerError> {
    let joints = joints(value, around);
    match &joints {
        Some(found) if found.one.len().max(found.two.len()) > MAX_JOINTS => {
            let count = found.one.len().max(found.two.len());
            Err(invalid(format!("post_processor: {count} elements, limit {MAX_JOINTS}")))
        }
        _ => Ok(joints),
    }
}

/// How a post-processor joins texts.
fn joints(value: &Value, (before, after): &(Vec<u32>, Vec<u32>)) -> Option<Joints> {
    let number = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok());
    match value["type"].as_str()? {
        "Sequence" => value["processors"]
            .as_array()
            .into_iter()
            .flatten()
            .find_map(|inner| joints(inner, &post_processor(inner))),
        "BertProcessing" => Some(Joints::around(before, after)),
        "RobertaProcessing" => {
            let tokens = |ids: &[u32]| ids.iter().map(|&id| Joint::Token(id, 0)).collect::<Vec<_>>();
            let one = [tokens(before), vec![Joint::First(0)], tokens(after)].concat();
            let two = [&one[..], &tokens(after), &[Joint::Second(0)], &tokens(after)].concat();
            Some(Joints { one, two })
        }
        "TemplateProcessing" => {
            let list = |field: &str| {
                let mut list = Vec::new();
                for item in value[field].as_array().into_iter().flatten() {
                    let (text, token) = (&item["Sequence"], &item["SpecialToken"]);
                    if let Some(name) = text["id"].as_str() {
                        let kind = number(&text["type_id"]).unwrap_or(0);
                        list.push(if name == "B" { Joint::Second(kind) } else { Joint::First(kind) });
                    } else if let Some(name) = token["id"].as_str() {
                        let kind = number(&token["type_id"]).unwrap_or(0);
                        let ids = value["special_tokens"][name]["ids"].as_array();
                        let ids = ids.into_iter().flatten().filter_map(number);
                        list.extend(ids.map(|id| Joint::Token(id, kind)));
                    }
                }
                list
            };
            let (one, two) = (list("single"), list("pair"));
            let complete = one.iter().any(|joint| matches!(joint, Joint::First(_)));
            let pair = two.iter().any(|joint| matches!(joint, Joint::Second(_)));
            let two = if pair { two } else { Joints::around(before, after).two };
            complete.then_some(Joints { one, two })
        }
        _ => None,
    }
}

/// Whether a post-processor trims the places of tokens, and with a space put before the text.
fn trims(value: &Value) -> Option<bool> {
    match value["type"].as_str()? {
        "Sequence" => value["processors"].as_array().into_iter().flatten().find_map(trims),
        "ByteLevel" | "RobertaProcessing" => {
            let flag = |name: &str| value[name].as_bool().unwrap_or(true);
            flag("trim_offsets").then(|| flag("add_prefix_space"))
        }
        _ => None,
    }
}

impl Pipeline {
    /// Calls `take` with the ids, places (bytes of `text`) and words of `text`, which begins the input or not.
    pub fn encode_placed(
        &self,
        text: &str,
        opening: bool,
        take: impl FnOnce(&[u32], &[(usize, usize)], &[Option<u32>]),
    ) -> Result<(), TokenizerError> {
        let failed = |what: String| TokenizerError::Encode { what };
        let result = guard("encoding", || {
            let words = self.words(text, opening)?;
            let mut encoding = words.into_encoding(None, 0, OffsetType::Byte)?;
            if let Some(prefix) = self.trims {
                tokenizers::pre_tokenizers::byte_level::process_offsets(&mut encoding, prefix);
            }
            Ok::<_, tokenizers::Error>(encoding)
        });
        let encoding = result.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))?;
        let fits = |&(start, end): &(usize, usize)| start <= end && end <= text.len();
        if let Some(wrong) = encoding.get_offsets().iter().find(|offsets| !fits(offsets)) {
            return Err(failed(format!("a token at {wrong:?} of {} bytes", text.len())));
        }
        take(encoding.get_ids(), encoding.get_offsets(), encoding.get_word_ids());
        Ok(())
    }

    /// `text` normalised, split, and each word's tokens found.
    fn words(&self, text: &str, opening: bool) -> Result<PreTokenizedString, tokenizers::Error> {
        let mut normalized = NormalizedString::from(text);
        if let Some(normalizer) = &self.normalizer {
            normalizer.normalize(&mut normalized)?;
        }
        let mut words = PreTokenizedString::from(normalized);
        let pre_tokenizer = match &self.later_pre_tokenizer {
            Some(later) if !opening => Some(later),
            _ => self.pre_tokenizer.as_ref(),
        };
        if let Some(pre_tokenizer) = pre_tokenizer {
            pre_tokenizer.pre_tokenize(&mut words)?;
        }
        words.tokenize(|word| self.model.tokenize(word.get()))?;
        Ok(words)
    }

    /// Appends the ids of `text`, which begins the input or not (`opening`).
    pub fn encode(&self, text: &str, opening: bool, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let failed = |what: String| TokenizerError::Encode { what };
        let result = guard("encoding", || {
            let words = self.words(text, opening)?;
            for (_, _, tokens) in words.get_splits(OffsetReferential::Normalized, OffsetType::None) {
                ids.extend(tokens.iter().flatten().map(|token| token.id));
            }
            Ok::<(), tokenizers::Error>(())
        });
        result.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
    }

    /// Whether tokens that go on with a word are marked.
    pub fn is_word_piece(&self) -> bool {
        matches!(self.model, ModelWrapper::WordPiece(_))
    }

    /// The id of the token spelt `text`.
    pub fn find(&self, text: &str) -> Option<u32> {
        self.model.token_to_id(text)
    }

    /// The bytes that token `id` stands for.
    pub fn bytes(&self, id: u32) -> Vec<u8> {
        let Some(text) = self.model.id_to_token(id) else { return Vec::new() };
        match self.spelling {
            Spelling::ByteLevel => {
                let mut bytes = Vec::with_capacity(text.len());
                super::bpe::to_bytes(&text, &mut bytes);
                bytes
            }
            Spelling::Metaspace => match super::sentencepiece::byte_of(&text) {
                Some(byte) => vec![byte],
                None => super::sentencepiece::unescape(text.as_bytes()),
            },
            Spelling::WordPiece => match text.strip_prefix("##") {
                Some(rest) => rest.as_bytes().to_vec(),
                None => format!(" {text}").into_bytes(),
            },
            Spelling::Plain => text.into_bytes(),
        }
    }
}
