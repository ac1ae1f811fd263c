//! Metadata values and the accessors that check them.

use crate::FormatError;
use crate::error::shown;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// An array of one element type, stored compactly.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Vec<String>),
    Array(Vec<Array>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

/// The metadata of a file, by key, with accessors that check type and range.
///
/// Whole numbers may be stored in any integer type, as long as the value fits what is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    /// By key.
    pub entries: BTreeMap<String, Value>,
}

impl Metadata {
    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key)
    }

    /// A whole number.
    ///
    /// # Errors
    /// [`FormatError::MissingKey`], [`FormatError::WrongType`], [`FormatError::OutOfRange`].
    pub fn u32(&self, key: &str) -> Result<u32, FormatError> {
        self.optional_u32(key)?.ok_or_else(|| missing(key))
    }

    /// A whole number, or `None` without the key.
    ///
    /// # Errors
    /// [`FormatError::WrongType`], [`FormatError::OutOfRange`].
    pub fn optional_u32(&self, key: &str) -> Result<Option<u32>, FormatError> {
        self.integer(key, "u32")
    }

    /// A whole number.
    ///
    /// # Errors
    /// [`FormatError::MissingKey`], [`FormatError::WrongType`], [`FormatError::OutOfRange`].
    pub fn u64(&self, key: &str) -> Result<u64, FormatError> {
        self.optional_u64(key)?.ok_or_else(|| missing(key))
    }

    /// A whole number, or `None` without the key.
    ///
    /// # Errors
    /// [`FormatError::WrongType`], [`FormatError::OutOfRange`].
    pub fn optional_u64(&self, key: &str) -> Result<Option<u64>, FormatError> {
        self.integer(key, "u64")
    }

    /// A float (f64 is rounded to f32).
    ///
    /// # Errors
    /// [`FormatError::MissingKey`], [`FormatError::WrongType`].
    pub fn f32(&self, key: &str) -> Result<f32, FormatError> {
        self.optional_f32(key)?.ok_or_else(|| missing(key))
    }

    /// A float, or `None` without the key.
    ///
    /// # Errors
    /// [`FormatError::WrongType`].
    pub fn optional_f32(&self, key: &str) -> Result<Option<f32>, FormatError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::F32(value)) => Ok(Some(*value)),
            Some(Value::F64(value)) => Ok(Some(narrow(*value))),
            Some(other) => Err(wrong(key, other, "f32")),
        }
    }

    /// A truth value.
    ///
    /// # Errors
    /// [`FormatError::MissingKey`], [`FormatError::WrongType`].
    pub fn bool(&self, key: &str) -> Result<bool, FormatError> {
        self.optional_bool(key)?.ok_or_else(|| missing(key))
    }

    /// A truth value, or `None` without the key.
    ///
    /// # Errors
    /// [`FormatError::WrongType`].
    pub fn optional_bool(&self, key: &str) -> Result<Option<bool>, FormatError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(wrong(key, other, "bool")),
        }
    }

    /// A string.
    ///
    /// # Errors
    /// [`FormatError::MissingKey`], [`FormatError::WrongType`].
    pub fn str(&self, key: &str) -> Result<&str, FormatError> {
        self.optional_str(key)?.ok_or_else(|| missing(key))
    }

    /// A string, or `None` without the key.
    ///
    /// # Errors
    /// [`FormatError::WrongType`].
    pub fn optional_str(&self, key: &str) -> Result<Option<&str>, FormatError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(value)) => Ok(Some(value)),
            Some(other) => Err(wrong(key, other, "string")),
        }
    }

    /// An array of strings, or `None` without the key.
    ///
    /// # Errors
    /// [`FormatError::WrongType`].
    pub fn optional_strings(&self, key: &str) -> Result<Option<&[String]>, FormatError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(Array::String(values))) => Ok(Some(values)),
            Some(other) => Err(wrong(key, other, "array of string")),
        }
    }

    /// An array of strings.
    ///
    /// # Errors
    /// [`FormatError::MissingKey`], [`FormatError::WrongType`].
    pub fn strings(&self, key: &str) -> Result<&[String], FormatError> {
        self.optional_strings(key)?.ok_or_else(|| missing(key))
    }

    /// An array of floats, or `None` without the key.
    ///
    /// # Errors
    /// [`FormatError::WrongType`].
    pub fn optional_f32s(&self, key: &str) -> Result<Option<Cow<'_, [f32]>>, FormatError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(Array::F32(values))) => Ok(Some(Cow::Borrowed(values))),
            Some(Value::Array(Array::F64(values))) => {
                Ok(Some(values.iter().map(|value| narrow(*value)).collect()))
            }
            Some(other) => Err(wrong(key, other, "array of f32")),
        }
    }

    /// An array of floats.
    ///
    /// # Errors
    /// [`FormatError::MissingKey`], [`FormatError::WrongType`].
    pub fn f32s(&self, key: &str) -> Result<Cow<'_, [f32]>, FormatError> {
        self.optional_f32s(key)?.ok_or_else(|| missing(key))
    }

    /// An array of whole numbers, or `None` without the key.
    ///
    /// # Errors
    /// [`FormatError::WrongType`], [`FormatError::OutOfRange`] for an element.
    pub fn optional_i32s(&self, key: &str) -> Result<Option<Cow<'_, [i32]>>, FormatError> {
        match self.get(key) {
            Some(Value::Array(Array::I32(values))) => Ok(Some(Cow::Borrowed(values))),
            _ => Ok(self.integers(key, "i32")?.map(Cow::Owned)),
        }
    }

    /// An array of whole numbers.
    ///
    /// # Errors
    /// [`FormatError::MissingKey`], [`FormatError::WrongType`], [`FormatError::OutOfRange`] for an element.
    pub fn i32s(&self, key: &str) -> Result<Cow<'_, [i32]>, FormatError> {
        self.optional_i32s(key)?.ok_or_else(|| missing(key))
    }

    /// An array of whole numbers, or `None` without the key.
    ///
    /// # Errors
    /// [`FormatError::WrongType`], [`FormatError::OutOfRange`] for an element.
    pub fn optional_u32s(&self, key: &str) -> Result<Option<Cow<'_, [u32]>>, FormatError> {
        match self.get(key) {
            Some(Value::Array(Array::U32(values))) => Ok(Some(Cow::Borrowed(values))),
            _ => Ok(self.integers(key, "u32")?.map(Cow::Owned)),
        }
    }

    /// An array of whole numbers.
    ///
    /// # Errors
    /// [`FormatError::MissingKey`], [`FormatError::WrongType`], [`FormatError::OutOfRange`] for an element.
    pub fn u32s(&self, key: &str) -> Result<Cow<'_, [u32]>, FormatError> {
        self.optional_u32s(key)?.ok_or_else(|| missing(key))
    }

    fn integer<T: TryFrom<i128>>(&self, key: &str, wanted: &'static str) -> Result<Option<T>, FormatError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wide = match *value {
            Value::U8(value) => i128::from(value),
            Value::I8(value) => i128::from(value),
            Value::U16(value) => i128::from(value),
            Value::I16(value) => i128::from(value),
            Value::U32(value) => i128::from(value),
            Value::I32(value) => i128::from(value),
            Value::U64(value) => i128::from(value),
            Value::I64(value) => i128::from(value),
            _ => return Err(wrong(key, value, wanted)),
        };
        fit(key, wide, wanted).map(Some)
    }

    fn integers<T: TryFrom<i128>>(
        &self,
        key: &str,
        wanted: &'static str,
    ) -> Result<Option<Vec<T>>, FormatError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let Value::Array(array) = value else { return Err(wrong(key, value, "array of whole numbers")) };
        let values = match array {
            Array::U8(values) => fit_all(key, values, wanted),
            Array::I8(values) => fit_all(key, values, wanted),
            Array::U16(values) => fit_all(key, values, wanted),
            Array::I16(values) => fit_all(key, values, wanted),
            Array::U32(values) => fit_all(key, values, wanted),
            Array::I32(values) => fit_all(key, values, wanted),
            Array::U64(values) => fit_all(key, values, wanted),
            Array::I64(values) => fit_all(key, values, wanted),
            _ => Err(wrong(key, value, "array of whole numbers")),
        };
        values.map(Some)
    }
}

impl Value {
    /// What it is, for people: `u32`, `array of 3 string`.
    pub fn kind(&self) -> String {
        let name = match self {
            Value::U8(_) => "u8",
            Value::I8(_) => "i8",
            Value::U16(_) => "u16",
            Value::I16(_) => "i16",
            Value::U32(_) => "u32",
            Value::I32(_) => "i32",
            Value::F32(_) => "f32",
            Value::Bool(_) => "bool",
            Value::String(_) => "string",
            Value::Array(array) => return format!("array of {} {}", array.len(), array.element_kind()),
            Value::U64(_) => "u64",
            Value::I64(_) => "i64",
            Value::F64(_) => "f64",
        };
        name.to_owned()
    }
}

impl Array {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Array::U8(values) => values.len(),
            Array::I8(values) => values.len(),
            Array::U16(values) => values.len(),
            Array::I16(values) => values.len(),
            Array::U32(values) => values.len(),
            Array::I32(values) => values.len(),
            Array::F32(values) => values.len(),
            Array::Bool(values) => values.len(),
            Array::String(values) => values.len(),
            Array::Array(values) => values.len(),
            Array::U64(values) => values.len(),
            Array::I64(values) => values.len(),
            Array::F64(values) => values.len(),
        }
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type of its elements, for people.
    pub fn element_kind(&self) -> &'static str {
        match self {
            Array::U8(_) => "u8",
            Array::I8(_) => "i8",
            Array::U16(_) => "u16",
            Array::I16(_) => "i16",
            Array::U32(_) => "u32",
            Array::I32(_) => "i32",
            Array::F32(_) => "f32",
            Array::Bool(_) => "bool",
            Array::String(_) => "string",
            Array::Array(_) => "array",
            Array::U64(_) => "u64",
            Array::I64(_) => "i64",
            Array::F64(_) => "f64",
        }
    }
}

fn missing(key: &str) -> FormatError {
    FormatError::MissingKey { key: key.to_owned() }
}

fn wrong(key: &str, found: &Value, wanted: &'static str) -> FormatError {
    FormatError::WrongType { key: shown(key), found: found.kind(), wanted }
}

fn fit<T: TryFrom<i128>>(key: &str, value: i128, wanted: &'static str) -> Result<T, FormatError> {
    T::try_from(value).map_err(|_| FormatError::OutOfRange {
        key: shown(key),
        value: value.to_string(),
        wanted,
    })
}

fn fit_all<T, U>(key: &str, values: &[U], wanted: &'static str) -> Result<Vec<T>, FormatError>
where
    T: TryFrom<i128>,
    U: Copy + Into<i128>,
{
    values.iter().map(|value| fit(key, (*value).into(), wanted)).collect()
}

#[allow(clippy::as_conversions, reason = "rounding to f32 is what the accessor promises; there is no `From`")]
fn narrow(value: f64) -> f32 {
    value as f32
}
