//! The settings of a `config.json`, range-checked as they are read.

use crate::ModelError;
use kun_graph::UnaryOp;
use serde_json::Value;
use std::ops::RangeInclusive;

/// A `config.json`.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    json: &'a Value,
    architecture: &'a str,
}

impl<'a> Settings<'a> {
    /// The settings in `json`.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it does not name its architecture.
    pub fn new(json: &'a Value) -> Result<Settings<'a>, ModelError> {
        let architecture = json.get("model_type").and_then(Value::as_str);
        let architecture = architecture.ok_or_else(|| wrong("model_type", "missing, or not a string"))?;
        Ok(Settings { json, architecture })
    }

    /// `model_type`.
    pub fn architecture(&self) -> &'a str {
        self.architecture
    }

    /// The value at a path such as `rope_parameters.rope_theta`; null counts as absent.
    pub fn get(&self, path: &str) -> Option<&'a Value> {
        path.split('.').try_fold(self.json, |value, key| value.get(key)).filter(|value| !value.is_null())
    }

    /// A whole number within `range`.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it is missing, of another type or out of range.
    pub fn count(&self, key: &str, range: RangeInclusive<usize>) -> Result<usize, ModelError> {
        self.optional_count(key, range)?.ok_or_else(|| wrong(key, "missing"))
    }

    /// A whole number within `range` that may be left out.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it is of another type or out of range.
    pub fn optional_count(
        &self,
        key: &str,
        range: RangeInclusive<usize>,
    ) -> Result<Option<usize>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
        match count.filter(|count| range.contains(count)) {
            Some(count) => Ok(Some(count)),
            None => {
                let what = format!(
                    "{} is no whole number within {} to {}",
                    shown(value),
                    range.start(),
                    range.end()
                );
                Err(wrong(key, what))
            }
        }
    }

    /// A number within `range`, or `default` if it is left out.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it is of another type or out of range.
    pub fn number(&self, key: &str, default: f64, range: RangeInclusive<f64>) -> Result<f64, ModelError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_f64().filter(|number| range.contains(number)).ok_or_else(|| {
            let what = format!("{} is no number within {} to {}", shown(value), range.start(), range.end());
            wrong(key, what)
        })
    }

    /// A yes or no, or `default` if it is left out.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it is of another type.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool, ModelError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| wrong(key, format!("{} is neither true nor false", shown(value))))
    }

    /// A word, or `default` if it is left out.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it is of another type.
    pub fn word(&self, key: &str, default: &'a str) -> Result<&'a str, ModelError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_str().ok_or_else(|| wrong(key, format!("{} is no string", shown(value))))
    }

    /// The function that a setting names.
    ///
    /// # Errors
    /// [`ModelError::Config`] naming the known ones.
    pub fn function(&self, key: &str, default: &'a str) -> Result<UnaryOp, ModelError> {
        let name = self.word(key, default)?;
        function(name).ok_or_else(|| {
            wrong(
                key,
                format!("`{name}` is not supported; known: gelu, gelu_new, quick_gelu, relu, silu, tanh"),
            )
        })
    }

    /// Refuses a setting that would change the answers and has no meaning here.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it has another value than `wanted`.
    pub fn expect(&self, key: &str, wanted: &str) -> Result<(), ModelError> {
        let found = self.word(key, "")?;
        if found.is_empty() || found == wanted {
            return Ok(());
        }
        Err(wrong(key, format!("`{found}` is not supported, only `{wanted}`")))
    }
}

/// A function by the name that configurations give it.
pub fn function(name: &str) -> Option<UnaryOp> {
    Some(match name {
        "gelu" | "gelu_python" => UnaryOp::Gelu,
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" | "gelu_accurate" => UnaryOp::GeluTanh,
        "quick_gelu" => UnaryOp::GeluQuick,
        "relu" => UnaryOp::Relu,
        "silu" | "swish" => UnaryOp::Silu,
        "tanh" => UnaryOp::Tanh,
        _ => return None,
    })
}

/// A [`ModelError::Config`].
pub fn wrong(key: &str, what: impl Into<String>) -> ModelError {
    ModelError::Config { key: key.to_owned(), what: what.into() }
}

/// A value for a message, cut short.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    text.chars().take(60).collect()
}
