//! `tokenizer.json` through the `tokenizers` crate.
//!
//! Normalizers and pre-tokenizers are the crate's. How a word becomes ids is Kun's own, see [`model`], in memory that the
//! size of the file bounds; added tokens, beginning and end tokens and decoding are handled as for GGUF vocabularies, so
//! that both kinds of file obey the same rules.

mod bpe;
mod joints;
mod model;
mod unigram;
mod vocabulary;
mod wordpiece;

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokenizers::{
    NormalizedString, Normalizer as _, NormalizerWrapper, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer as _, PreTokenizerWrapper,
};

use super::encoding::Joints;
use super::{Kind, TokenizerError, charsmap, invalid, pattern};
use joints::{guarded_joints, post_processor, trims};
use model::Model;

/// Largest file read.
const MAX_FILE_BYTES: usize = 256 << 20;
/// Values in the description of one stage, which takes up to a hundred bytes of memory for each.
const MAX_VALUES: usize = 1 << 16;
/// How much a normalizer's replacements may lengthen a text in all.
const MAX_EXPANSION: usize = 1024;
/// Stages of a normalizer or pre-tokenizer.
const MAX_STAGES: usize = 64;

/// A file whose parts are not read yet.
#[derive(Deserialize)]
struct File<'f> {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(borrow)]
    normalizer: Option<&'f RawValue>,
    #[serde(borrow)]
    pre_tokenizer: Option<&'f RawValue>,
    #[serde(borrow)]
    post_processor: Option<&'f RawValue>,
    #[serde(borrow)]
    decoder: Option<&'f RawValue>,
    #[serde(borrow)]
    model: &'f RawValue,
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
    model: Model,
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

/// Reads a `tokenizer.json`.
pub(super) fn read(bytes: &[u8]) -> Result<Description, TokenizerError> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(invalid(format!("tokenizer.json: {} bytes, limit {MAX_FILE_BYTES}", bytes.len())));
    }
    guard("tokenizer.json", || read_unguarded(bytes))?
}

fn read_unguarded(bytes: &[u8]) -> Result<Description, TokenizerError> {
    let file: File<'_> =
        serde_json::from_slice(bytes).map_err(|error| invalid(format!("tokenizer.json: {error}")))?;
    let normalizer = stage("normalizer", file.normalizer)?;
    let pre_tokenizer = stage("pre_tokenizer", file.pre_tokenizer)?;
    let decoder = stage("decoder", file.decoder)?;
    let post = stage("post_processor", file.post_processor)?;
    for (field, stage) in
        [("normalizer", &normalizer), ("pre_tokenizer", &pre_tokenizer), ("decoder", &decoder)]
    {
        check_stages(field, stage)?;
        charsmap::check(field, stage)?;
        if field != "decoder" {
            // One that says `first` is compiled twice, see `later_pre_tokenizer`.
            pattern::check(field, stage, 1 + usize::from(mentions(stage, "first")))?;
        }
    }
    let max_id = vocabulary::MAX_ID;
    if let Some(token) = file.added_tokens.iter().find(|token| token.id >= max_id) {
        return Err(invalid(format!("added_tokens: id {}, limit {max_id}", token.id)));
    }
    let model = Model::read(file.model)?;
    let size = file.added_tokens.iter().map(|token| token.id as usize + 1).max().unwrap_or(0);
    let mut kinds = vec![Kind::Normal; size.max(model.id_count())];
    for token in &file.added_tokens {
        kinds[token.id as usize] = if token.special { Kind::Control } else { Kind::UserDefined };
    }
    let spelling = if mentions(&decoder, "ByteLevel") || mentions(&pre_tokenizer, "ByteLevel") {
        Spelling::ByteLevel
    } else if matches!(model, Model::WordPiece(_)) {
        Spelling::WordPiece
    } else if mentions(&decoder, "Metaspace")
        || mentions(&decoder, "▁")
        || mentions(&pre_tokenizer, "Metaspace")
    {
        Spelling::Metaspace
    } else {
        Spelling::Plain
    };
    let puts_space = mentions(&pre_tokenizer, "always") || mentions(&pre_tokenizer, "first");
    let strips_first_space = spelling == Spelling::WordPiece
        || (spelling == Spelling::Metaspace && (mentions(&decoder, "Strip") || puts_space));
    let later_pre_tokenizer = match mentions(&pre_tokenizer, "first") {
        true => Some(parse("pre_tokenizer", never_first(pre_tokenizer.clone()))?),
        false => None,
    };
    let around = post_processor(&post);
    let joints = guarded_joints(&post, &around)?;
    Ok(Description {
        pipeline: Pipeline {
            normalizer: parse("normalizer", normalizer)?,
            pre_tokenizer: parse("pre_tokenizer", pre_tokenizer)?,
            later_pre_tokenizer,
            model,
            spelling,
            strips_first_space,
            trims: trims(&post),
        },
        added: file.added_tokens,
        kinds,
        around,
        joints,
    })
}

/// Reads one stage, `null` if there is none.
fn stage(field: &str, raw: Option<&RawValue>) -> Result<Value, TokenizerError> {
    let Some(raw) = raw else { return Ok(Value::Null) };
    // Every value but the first follows one of these.
    let values = raw.get().bytes().filter(|byte| matches!(byte, b',' | b'[' | b'{' | b':')).count();
    if values > MAX_VALUES {
        return Err(invalid(format!("tokenizer.json: {field} has {values} values, limit {MAX_VALUES}")));
    }
    serde_json::from_str(raw.get()).map_err(|error| invalid(format!("tokenizer.json: {field}: {error}")))
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
        words.tokenize(|word| {
            let mut tokens = self.model.tokenize(word.get())?;
            if self.trims.is_some() {
                // The spaces at the ends of a token are told by its text.
                for token in &mut tokens {
                    token.value = self.model.text(token.id).unwrap_or_default().to_owned();
                }
            }
            Ok(tokens)
        })?;
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
        matches!(self.model, Model::WordPiece(_))
    }

    /// The id of the token spelt `text`.
    pub fn find(&self, text: &str) -> Option<u32> {
        self.model.find(text)
    }

    /// The bytes that token `id` stands for.
    pub fn bytes(&self, id: u32) -> Vec<u8> {
        let Some(text) = self.model.text(id) else { return Vec::new() };
        match self.spelling {
            Spelling::ByteLevel => {
                let mut bytes = Vec::with_capacity(text.len());
                super::bpe::to_bytes(text, &mut bytes);
                bytes
            }
            Spelling::Metaspace => match super::sentencepiece::byte_of(text) {
                Some(byte) => vec![byte],
                None => super::sentencepiece::unescape(text.as_bytes()),
            },
            Spelling::WordPiece => match text.strip_prefix("##") {
                Some(rest) => rest.as_bytes().to_vec(),
                None => format!(" {text}").into_bytes(),
            },
            Spelling::Plain => text.as_bytes().to_vec(),
        }
    }
}
