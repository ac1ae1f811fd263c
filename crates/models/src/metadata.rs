//! One view of a model file's hyper-parameters, whichever format states them.

use crate::ModelError;
use crate::names::{self, Kind, Part, Setting};
use kun_formats::gguf::{Array, Value};
use kun_formats::{ModelFiles, TensorTable};
use serde_json::Value as Json;
use std::ops::RangeInclusive;

/// Where a model comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A GGUF file.
    Gguf,
    /// A folder with `config.json` and safetensors.
    HuggingFace,
}

/// The hyper-parameters and tensor names of a model.
#[derive(Clone, Copy, Debug)]
pub struct Metadata<'a> {
    files: &'a ModelFiles,
    architecture: &'a str,
}

/// A value, whichever format it comes from.
#[derive(Clone, Debug, PartialEq)]
enum Plain<'a> {
    Count(u64),
    Number(f64),
    Flag(bool),
    Text(&'a str),
    List(Vec<Plain<'a>>),
}

/// More entries than any per-layer list has.
const MAX_LIST: usize = 1 << 16;

impl<'a> Metadata<'a> {
    /// Reads the name of the architecture; everything else is read when asked for.
    ///
    /// # Errors
    /// [`ModelError::Config`] if the file does not name its architecture.
    pub fn new(files: &'a ModelFiles) -> Result<Metadata<'a>, ModelError> {
        let (key, name) = match files {
            ModelFiles::Gguf(gguf) => (
                "general.architecture",
                match gguf.metadata.entries.get("general.architecture") {
                    Some(Value::String(name)) => Some(name.as_str()),
                    _ => None,
                },
            ),
            ModelFiles::HuggingFace { config, .. } => {
                ("model_type", config.config.get("model_type").and_then(Json::as_str))
            }
        };
        let architecture = name.ok_or_else(|| config_error(key, "missing, or not a string"))?;
        Ok(Metadata { files, architecture })
    }

    /// As the file names it.
    pub fn architecture(&self) -> &'a str {
        self.architecture
    }

    /// Where the model comes from.
    pub fn format(&self) -> Format {
        match self.files {
            ModelFiles::Gguf(_) => Format::Gguf,
            ModelFiles::HuggingFace { .. } => Format::HuggingFace,
        }
    }

    /// Every tensor of the model.
    pub fn tensors(&self) -> &'a TensorTable {
        match self.files {
            ModelFiles::Gguf(gguf) => &gguf.tensors,
            ModelFiles::HuggingFace { tensors, .. } => tensors,
        }
    }

    /// What the format calls a tensor; `None` if it has no such tensor.
    pub fn tensor_name(&self, part: Part, kind: Kind) -> Option<String> {
        match self.format() {
            Format::Gguf => Some(names::gguf::tensor(part, kind)),
            Format::HuggingFace => {
                let name = names::hf::tensor(part, kind)?;
                // Folders that embed hold the layers without the head around them.
                let bare = self.tensors().get("embed_tokens.weight").is_some();
                Some(if bare { name.trim_start_matches("model.").to_owned() } else { name })
            }
        }
    }

    /// Whether the file holds a tensor.
    pub fn has_tensor(&self, part: Part, kind: Kind) -> bool {
        self.tensor_name(part, kind).is_some_and(|name| self.tensors().get(&name).is_some())
    }

    /// The key to name in messages.
    pub fn key(&self, setting: Setting) -> String {
        match self.format() {
            Format::Gguf => match names::gguf::setting(setting) {
                Some(key) => format!("{}.{key}", self.architecture),
                None => format!("{setting:?}"),
            },
            Format::HuggingFace => names::hf::setting(setting)
                .last()
                .map_or_else(|| format!("{setting:?}"), |key| (*key).to_owned()),
        }
    }

    /// A [`ModelError::Config`] about a setting.
    pub fn error(&self, setting: Setting, what: impl Into<String>) -> ModelError {
        ModelError::Config { key: self.key(setting), what: what.into() }
    }

    /// A whole number that must be there; a per-layer list must say the same for every layer.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it is missing, of another type, or outside `range`.
    pub fn count(&self, setting: Setting, range: RangeInclusive<usize>) -> Result<usize, ModelError> {
        self.optional_count(setting, range)?.ok_or_else(|| self.error(setting, "missing"))
    }

    /// A whole number that may be left out.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it is of another type or outside `range`.
    pub fn optional_count(
        &self,
        setting: Setting,
        range: RangeInclusive<usize>,
    ) -> Result<Option<usize>, ModelError> {
        let Some(value) = self.find(setting) else { return Ok(None) };
        self.count_of(setting, &value, &range).map(Some)
    }

    fn count_of(
        &self,
        setting: Setting,
        value: &Plain<'_>,
        range: &RangeInclusive<usize>,
    ) -> Result<usize, ModelError> {
        match value {
            Plain::Count(count) => {
                usize::try_from(*count).ok().filter(|count| range.contains(count)).ok_or_else(|| {
                    self.error(setting, format!("{count} is not within {} to {}", range.start(), range.end()))
                })
            }
            Plain::List(items) => match items.first() {
                Some(first) if items.iter().all(|item| item == first) => self.count_of(setting, first, range),
                _ => Err(self.error(setting, "differs between layers, which is not supported")),
            },
            _ => Err(self.error(setting, "not a whole number of at least 0")),
        }
    }

    /// A list of whole numbers.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it is something else.
    pub fn optional_counts(&self, setting: Setting) -> Result<Option<Vec<u64>>, ModelError> {
        let wrong = || self.error(setting, "not a list of whole numbers");
        match self.find(setting) {
            None => Ok(None),
            Some(Plain::List(items)) => items
                .iter()
                .map(|item| if let Plain::Count(count) = item { Ok(*count) } else { Err(wrong()) })
                .collect::<Result<_, _>>()
                .map(Some),
            Some(_) => Err(wrong()),
        }
    }

    /// A list of words.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it is something else.
    pub fn optional_words(&self, setting: Setting) -> Result<Option<Vec<&'a str>>, ModelError> {
        let wrong = || self.error(setting, "not a list of strings");
        match self.find(setting) {
            None => Ok(None),
            Some(Plain::List(items)) => items
                .iter()
                .map(|item| if let Plain::Text(text) = item { Ok(*text) } else { Err(wrong()) })
                .collect::<Result<_, _>>()
                .map(Some),
            Some(_) => Err(wrong()),
        }
    }

    /// A finite number within `range` that may be left out.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it is of another type or outside `range`.
    pub fn optional_number(
        &self,
        setting: Setting,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f64>, ModelError> {
        let number = match self.find(setting) {
            None => return Ok(None),
            Some(Plain::Number(number)) => number,
            #[allow(clippy::cast_precision_loss)]
            Some(Plain::Count(count)) => count as f64,
            Some(_) => return Err(self.error(setting, "not a number")),
        };
        if range.contains(&number) {
            Ok(Some(number))
        } else {
            Err(self.error(setting, format!("{number} is not within {} to {}", range.start(), range.end())))
        }
    }

    /// A finite number within `range` that must be there.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it is missing, of another type, or outside `range`.
    pub fn number(&self, setting: Setting, range: RangeInclusive<f64>) -> Result<f64, ModelError> {
        self.optional_number(setting, range)?.ok_or_else(|| self.error(setting, "missing"))
    }

    /// A yes or no that may be left out.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it is of another type.
    pub fn optional_flag(&self, setting: Setting) -> Result<Option<bool>, ModelError> {
        match self.find(setting) {
            None => Ok(None),
            Some(Plain::Flag(flag)) => Ok(Some(flag)),
            Some(_) => Err(self.error(setting, "neither true nor false")),
        }
    }

    /// A word that may be left out.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it is of another type.
    pub fn optional_text(&self, setting: Setting) -> Result<Option<&'a str>, ModelError> {
        match self.find(setting) {
            None => Ok(None),
            Some(Plain::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.error(setting, "not a string")),
        }
    }

    /// Entries of the vocabulary that a GGUF file carries, if it does.
    pub fn vocabulary_entries(&self) -> Option<usize> {
        match self.files {
            ModelFiles::Gguf(gguf) => match gguf.metadata.entries.get("tokenizer.ggml.tokens") {
                Some(Value::Array(Array::String(tokens))) => Some(tokens.len()),
                _ => None,
            },
            ModelFiles::HuggingFace { .. } => None,
        }
    }

    /// What people call the model.
    pub fn name(&self) -> Option<&'a str> {
        match self.files {
            ModelFiles::Gguf(_) => self.general("general.name"),
            ModelFiles::HuggingFace { config, .. } => {
                config.config.get("_name_or_path").and_then(Json::as_str).filter(|name| !name.is_empty())
            }
        }
    }

    /// The licence, if the file states one.
    pub fn license(&self) -> Option<&'a str> {
        match self.files {
            ModelFiles::Gguf(_) => self.general("general.license"),
            ModelFiles::HuggingFace { config, .. } => config.config.get("license").and_then(Json::as_str),
        }
    }

    fn general(&self, key: &str) -> Option<&'a str> {
        match self.files {
            ModelFiles::Gguf(gguf) => match gguf.metadata.entries.get(key) {
                Some(Value::String(text)) => Some(text),
                _ => None,
            },
            ModelFiles::HuggingFace { .. } => None,
        }
    }

    /// Whether the file has the key at all, even if it says null.
    pub fn states(&self, setting: Setting) -> bool {
        match self.files {
            ModelFiles::Gguf(_) => self.find(setting).is_some(),
            ModelFiles::HuggingFace { config, .. } => {
                names::hf::setting(setting).iter().any(|path| at_path(&config.config, path).is_some())
            }
        }
    }

    fn find(&self, setting: Setting) -> Option<Plain<'a>> {
        match self.files {
            ModelFiles::Gguf(gguf) => {
                let key = format!("{}.{}", self.architecture, names::gguf::setting(setting)?);
                gguf.metadata.entries.get(&key).map(from_gguf)
            }
            ModelFiles::HuggingFace { config, .. } => names::hf::setting(setting)
                .iter()
                .find_map(|path| at_path(&config.config, path).and_then(from_json)),
        }
    }
}

/// A [`ModelError::Config`] about a key that has no [`Setting`].
fn config_error(key: &str, what: &str) -> ModelError {
    ModelError::Config { key: key.to_owned(), what: what.to_owned() }
}

fn at_path<'a>(json: &'a Json, path: &str) -> Option<&'a Json> {
    path.split('.').try_fold(json, |json, step| json.get(step))
}

fn signed<'a>(value: i64) -> Plain<'a> {
    #[allow(clippy::cast_precision_loss)]
    u64::try_from(value).map_or(Plain::Number(value as f64), Plain::Count)
}

fn from_gguf(value: &Value) -> Plain<'_> {
    match value {
        Value::U8(v) => Plain::Count(u64::from(*v)),
        Value::U16(v) => Plain::Count(u64::from(*v)),
        Value::U32(v) => Plain::Count(u64::from(*v)),
        Value::U64(v) => Plain::Count(*v),
        Value::I8(v) => signed(i64::from(*v)),
        Value::I16(v) => signed(i64::from(*v)),
        Value::I32(v) => signed(i64::from(*v)),
        Value::I64(v) => signed(*v),
        Value::F32(v) => Plain::Number(f64::from(*v)),
        Value::F64(v) => Plain::Number(*v),
        Value::Bool(v) => Plain::Flag(*v),
        Value::String(v) => Plain::Text(v),
        Value::Array(array) => Plain::List(match array {
            Array::U32(v) => v.iter().take(MAX_LIST).map(|v| Plain::Count(u64::from(*v))).collect(),
            Array::I32(v) => v.iter().take(MAX_LIST).map(|v| signed(i64::from(*v))).collect(),
            Array::U64(v) => v.iter().take(MAX_LIST).map(|v| Plain::Count(*v)).collect(),
            Array::I64(v) => v.iter().take(MAX_LIST).map(|v| signed(*v)).collect(),
            Array::Bool(v) => v.iter().take(MAX_LIST).map(|v| Plain::Flag(*v)).collect(),
            // No hyper-parameter is a list of these; an empty list is reported like any other wrong value.
            _ => Vec::new(),
        }),
    }
}

fn from_json(value: &Json) -> Option<Plain<'_>> {
    Some(match value {
        Json::Null | Json::Object(_) => return None,
        Json::Bool(v) => Plain::Flag(*v),
        Json::Number(v) => match v.as_u64() {
            Some(count) => Plain::Count(count),
            None => Plain::Number(v.as_f64()?),
        },
        Json::String(v) => Plain::Text(v),
        Json::Array(v) => Plain::List(v.iter().take(MAX_LIST).filter_map(from_json).collect()),
    })
}
