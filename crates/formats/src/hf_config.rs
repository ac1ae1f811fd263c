//! `config.json` and its neighbours in a Hugging Face model folder.

use crate::error::{FormatError, shown};
use crate::{confine, json};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

const MAX_CONFIG_BYTES: u64 = 4 << 20;
const MAX_TOKENIZER_BYTES: u64 = 128 << 20;
const MAX_TEMPLATE_BYTES: u64 = 1 << 20;
/// Vocabularies of tokenizers that are older than `tokenizer.json`.
const VOCABULARIES: [&str; 5] =
    ["vocab.json", "source.spm", "target.spm", "sentencepiece.bpe.model", "spiece.model"];

/// A model folder's JSON files, parsed with bounded depth and size.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HfConfig {
    /// `config.json`.
    pub config: Value,
    /// `generation_config.json`, or null.
    pub generation: Value,
    /// `tokenizer_config.json`, or null.
    pub tokenizer_config: Value,
    /// `special_tokens_map.json`, or null.
    pub special_tokens: Value,
    /// `tokenizer.json`, as stored; empty if absent.
    pub tokenizer_json: Vec<u8>,
    /// Vocabularies that stand in for `tokenizer.json` where a folder has none, as stored, by file name.
    pub vocabularies: BTreeMap<String, Vec<u8>>,
    /// `chat_template.jinja`, if the folder has one.
    pub chat_template: Option<String>,
    /// `config_sentence_transformers.json`, or null.
    pub sentence: Value,
    /// The settings of a sentence-transformers folder's transformer (`sentence_bert_config.json`), or null.
    pub sentence_transformer: Value,
    /// The modules that `modules.json` lists; empty without that file.
    pub sentence_modules: Vec<SentenceModule>,
}

/// A module of a sentence-transformers folder.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SentenceModule {
    /// The last part of its class: `Transformer`, `Pooling`, `Dense`, `Normalize`.
    pub kind: String,
    /// Its folder, a single name; empty for the folder of the model itself.
    pub path: String,
    /// Its `config.json`, or null.
    pub config: Value,
}

/// Most modules that a folder may list.
const MAX_MODULES: usize = 64;
/// What the transformer's settings are called, by the family of the model.
const TRANSFORMER_SETTINGS: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// `model_type` of the `config.json` in `folder`, if that is a folder with one.
pub(crate) fn model_type(folder: &Path) -> Option<String> {
    let bytes = read_file(&folder.join("config.json"), MAX_CONFIG_BYTES).ok()?;
    let config = json::value("config.json", &bytes).ok()?;
    config.get("model_type")?.as_str().map(str::to_owned)
}

impl HfConfig {
    /// Reads the files of `folder`, which must hold a `config.json`.
    ///
    /// # Errors
    /// [`FormatError`] naming the file and what is wrong in it.
    pub fn read(folder: &Path) -> Result<HfConfig, FormatError> {
        let template_path = folder.join("chat_template.jinja");
        let chat_template = optional_file(&template_path, MAX_TEMPLATE_BYTES)?
            .map(|bytes| utf8("chat_template.jinja", bytes))
            .transpose()
            .map_err(|error| error.in_file(&template_path))?;
        let config_path = folder.join("config.json");
        let config = json::value("config.json", &read_file(&config_path, MAX_CONFIG_BYTES)?)
            .and_then(|config| match config {
                Value::Object(_) => Ok(config),
                other => Err(wrong("config.json", &other, "an object")),
            })
            .map_err(|error| error.in_file(&config_path))?;
        let tokenizer_json =
            optional_file(&folder.join("tokenizer.json"), MAX_TOKENIZER_BYTES)?.unwrap_or_default();
        let mut vocabularies = BTreeMap::new();
        for name in VOCABULARIES.iter().filter(|_| tokenizer_json.is_empty()) {
            if let Some(bytes) = optional_file(&folder.join(name), MAX_TOKENIZER_BYTES)? {
                vocabularies.insert((*name).to_owned(), bytes);
            }
        }
        Ok(HfConfig {
            config,
            generation: optional_json(folder, "generation_config.json")?,
            tokenizer_config: optional_json(folder, "tokenizer_config.json")?,
            special_tokens: optional_json(folder, "special_tokens_map.json")?,
            tokenizer_json,
            vocabularies,
            chat_template,
            sentence: optional_json(folder, "config_sentence_transformers.json")?,
            sentence_transformer: TRANSFORMER_SETTINGS
                .iter()
                .map(|name| optional_json(folder, name))
                .find(|found| !matches!(found, Ok(Value::Null)))
                .unwrap_or(Ok(Value::Null))?,
            sentence_modules: modules(folder)?,
        })
    }

    /// A value of `config.json`; `path` may lead into objects (`rope_scaling.factor`). Null counts as absent.
    pub fn get(&self, path: &str) -> Option<&Value> {
        path.split('.').try_fold(&self.config, |value, key| value.get(key)).filter(|value| !value.is_null())
    }

    /// A whole number.
    ///
    /// # Errors
    /// [`FormatError::MissingKey`], [`FormatError::WrongType`], [`FormatError::OutOfRange`].
    pub fn u32(&self, path: &str) -> Result<u32, FormatError> {
        self.optional_u32(path)?.ok_or_else(|| missing(path))
    }

    /// A whole number, or `None` without the key.
    ///
    /// # Errors
    /// [`FormatError::WrongType`], [`FormatError::OutOfRange`].
    pub fn optional_u32(&self, path: &str) -> Result<Option<u32>, FormatError> {
        let Some(value) = self.get(path) else { return Ok(None) };
        let Value::Number(number) = value else { return Err(wrong(path, value, "u32")) };
        let fits = number.as_u64().and_then(|number| u32::try_from(number).ok());
        match fits {
            Some(number) => Ok(Some(number)),
            None if number.is_f64() => Err(wrong(path, value, "u32")),
            None => Err(FormatError::OutOfRange {
                key: path.to_owned(),
                value: number.to_string(),
                wanted: "u32",
            }),
        }
    }

    /// A number, whole or not.
    ///
    /// # Errors
    /// [`FormatError::MissingKey`], [`FormatError::WrongType`].
    pub fn f32(&self, path: &str) -> Result<f32, FormatError> {
        self.optional_f32(path)?.ok_or_else(|| missing(path))
    }

    /// A number, whole or not, or `None` without the key.
    ///
    /// # Errors
    /// [`FormatError::WrongType`].
    pub fn optional_f32(&self, path: &str) -> Result<Option<f32>, FormatError> {
        let Some(value) = self.get(path) else { return Ok(None) };
        value.as_f64().map(|number| Some(narrow(number))).ok_or_else(|| wrong(path, value, "number"))
    }

    /// A truth value.
    ///
    /// # Errors
    /// [`FormatError::MissingKey`], [`FormatError::WrongType`].
    pub fn bool(&self, path: &str) -> Result<bool, FormatError> {
        self.optional_bool(path)?.ok_or_else(|| missing(path))
    }

    /// A truth value, or `None` without the key.
    ///
    /// # Errors
    /// [`FormatError::WrongType`].
    pub fn optional_bool(&self, path: &str) -> Result<Option<bool>, FormatError> {
        let Some(value) = self.get(path) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| wrong(path, value, "bool"))
    }

    /// A string.
    ///
    /// # Errors
    /// [`FormatError::MissingKey`], [`FormatError::WrongType`].
    pub fn str(&self, path: &str) -> Result<&str, FormatError> {
        self.optional_str(path)?.ok_or_else(|| missing(path))
    }

    /// A string, or `None` without the key.
    ///
    /// # Errors
    /// [`FormatError::WrongType`].
    pub fn optional_str(&self, path: &str) -> Result<Option<&str>, FormatError> {
        let Some(value) = self.get(path) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| wrong(path, value, "string"))
    }

    /// An array of numbers, or `None` without the key.
    ///
    /// # Errors
    /// [`FormatError::WrongType`].
    pub fn optional_f32s(&self, path: &str) -> Result<Option<Vec<f32>>, FormatError> {
        let Some(value) = self.get(path) else { return Ok(None) };
        let numbers = value
            .as_array()
            .and_then(|values| values.iter().map(|value| value.as_f64().map(narrow)).collect());
        numbers.map(Some).ok_or_else(|| wrong(path, value, "array of numbers"))
    }

    /// An array of strings, or `None` without the key.
    ///
    /// # Errors
    /// [`FormatError::WrongType`].
    pub fn optional_strings(&self, path: &str) -> Result<Option<Vec<&str>>, FormatError> {
        let Some(value) = self.get(path) else { return Ok(None) };
        let texts = value.as_array().and_then(|values| values.iter().map(Value::as_str).collect());
        texts.map(Some).ok_or_else(|| wrong(path, value, "array of strings"))
    }
}

/// The modules that `modules.json` of `folder` lists.
fn modules(folder: &Path) -> Result<Vec<SentenceModule>, FormatError> {
    let list = optional_json(folder, "modules.json")?;
    let Value::Array(list) = list else { return Ok(Vec::new()) };
    if list.len() > MAX_MODULES {
        let (value, wanted) = (list.len().to_string(), "at most 64 modules");
        return Err(FormatError::OutOfRange { key: "modules.json".to_owned(), value, wanted });
    }
    list.iter()
        .map(|entry| {
            let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
            let kind = text("type").rsplit('.').next().unwrap_or_default().to_owned();
            let path = text("path").trim_end_matches('/').to_owned();
            let config = match path.as_str() {
                "" => Value::Null,
                path => optional_json(&confine::folder(folder, "modules.json", path)?, "config.json")?,
            };
            Ok(SentenceModule { kind, path, config })
        })
        .collect()
}

fn missing(path: &str) -> FormatError {
    FormatError::MissingKey { key: path.to_owned() }
}

fn wrong(path: &str, found: &Value, wanted: &'static str) -> FormatError {
    let found = match found {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => format!("the bool {value}"),
        Value::Number(value) => format!("the number {value}"),
        Value::String(value) => format!("the string \"{}\"", shown(value)),
        Value::Array(values) => format!("an array of {}", values.len()),
        Value::Object(values) => format!("an object of {}", values.len()),
    };
    FormatError::WrongType { key: path.to_owned(), found, wanted }
}

#[allow(clippy::as_conversions, reason = "rounding to f32 is what the accessor promises; there is no `From`")]
fn narrow(value: f64) -> f32 {
    value as f32
}

fn optional_json(folder: &Path, name: &str) -> Result<Value, FormatError> {
    let path = folder.join(name);
    match optional_file(&path, MAX_CONFIG_BYTES)? {
        Some(bytes) => json::value(name, &bytes).map_err(|error| error.in_file(&path)),
        None => Ok(Value::Null),
    }
}

fn optional_file(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, FormatError> {
    match read_file(path, limit) {
        Err(FormatError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        outcome => outcome.map(Some),
    }
}

/// The content of a model folder's file, of at most `limit` bytes.
pub(crate) fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, FormatError> {
    confine::check(path)?;
    let io = |source| FormatError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    let declared = file.metadata().map_err(io)?.len();
    if declared > limit {
        return Err(FormatError::FileTooLarge { declared, limit }.in_file(path));
    }
    let refused = || FormatError::OutOfMemory { field: "file".to_owned(), needed: declared };
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(declared).map_err(|_| refused())?).map_err(|_| refused())?;
    // `take`: a file that grows while it is read stays within what was checked.
    file.take(declared).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

fn utf8(field: &str, bytes: Vec<u8>) -> Result<String, FormatError> {
    String::from_utf8(bytes).map_err(|error| FormatError::NotUtf8 {
        field: field.to_owned(),
        offset: 0,
        valid: u64::try_from(error.utf8_error().valid_up_to()).unwrap_or(u64::MAX),
    })
}
