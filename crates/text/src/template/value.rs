//! Values of a template, with Python's rules for truth, order and text.

use std::cmp::Ordering;
use std::sync::Arc;

use super::Failure;
use super::budget::Budget;
use super::marked::{Builder, Text};

/// Deepest nesting of lists and dicts: keeps every walk over a value, and its drop, within the stack.
pub(super) const MAX_DEPTH: u32 = 128;
/// What a list item or half a dict entry is charged.
pub(super) const ITEM_BYTES: usize = 48;

type Done<T> = Result<T, Failure>;

#[derive(Clone, Debug)]
pub(super) enum Value {
    /// A name or attribute that does not exist; the name is for the error message.
    Undefined(Arc<str>),
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Text),
    List(Arc<List>),
    Dict(Arc<Dict>),
    /// Index of a namespace of the interpreter.
    Namespace(usize),
    /// Index of a macro of the interpreter.
    Macro(usize),
    /// What `caller()` gives.
    Caller(Text),
    /// Index of a running loop of the interpreter.
    Loop(usize),
}

/// A list or tuple; immutable, as in transformers' sandbox.
#[derive(Debug)]
pub(super) struct List {
    pub items: Vec<Value>,
    pub tuple: bool,
    depth: u32,
}

/// A dict in insertion order.
#[derive(Debug)]
pub(super) struct Dict {
    pub items: Vec<(Value, Value)>,
    depth: u32,
}

impl Value {
    pub fn trusted(text: &str) -> Value {
        Value::Text(Text::trusted(text))
    }

    pub fn list(items: Vec<Value>) -> Done<Value> {
        Value::sequence(items, false)
    }

    pub fn sequence(items: Vec<Value>, tuple: bool) -> Done<Value> {
        let depth = deeper(items.iter())?;
        Ok(Value::List(Arc::new(List { items, tuple, depth })))
    }

    pub fn dict(items: Vec<(Value, Value)>) -> Done<Value> {
        let depth = deeper(items.iter().flat_map(|(key, value)| [key, value]))?;
        Ok(Value::Dict(Arc::new(Dict { items, depth })))
    }

    fn depth(&self) -> u32 {
        match self {
            Value::List(list) => list.depth,
            Value::Dict(dict) => dict.depth,
            _ => 0,
        }
    }

    /// A value of the caller; its texts count as written by a user.
    pub fn from_json(value: &serde_json::Value) -> Done<Value> {
        Ok(match value {
            serde_json::Value::Null => Value::None,
            serde_json::Value::Bool(value) => Value::Bool(*value),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(int) => Value::Int(int),
                None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => Value::Text(Text::user(super::without_marks(text))),
            serde_json::Value::Array(items) => {
                Value::list(items.iter().map(Value::from_json).collect::<Result<_, _>>()?)?
            }
            serde_json::Value::Object(items) => {
                let entry = |(key, value): (&String, &serde_json::Value)| {
                    Ok((Value::Text(Text::user(super::without_marks(key))), Value::from_json(value)?))
                };
                Value::dict(items.iter().map(entry).collect::<Result<_, Failure>>()?)?
            }
        })
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Value::Undefined(_) => "undefined",
            Value::None => "none",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Text(_) | Value::Caller(_) => "str",
            Value::List(list) if list.tuple => "tuple",
            Value::List(_) => "list",
            Value::Dict(_) => "dict",
            Value::Namespace(_) => "namespace",
            Value::Macro(_) => "macro",
            Value::Loop(_) => "loop",
        }
    }

    pub fn is_true(&self) -> bool {
        match self {
            Value::Undefined(_) | Value::None => false,
            Value::Bool(value) => *value,
            Value::Int(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            Value::Text(text) => !text.as_str().is_empty(),
            Value::List(list) => !list.items.is_empty(),
            Value::Dict(dict) => !dict.items.is_empty(),
            _ => true,
        }
    }

    /// An `int`, or a `bool` as one.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(value) => Some(*value),
            Value::Bool(value) => Some(i64::from(*value)),
            _ => None,
        }
    }

    pub fn as_float(&self) -> Option<f64> {
        match self {
            Value::Float(value) => Some(*value),
            other => other.as_int().map(|value| value as f64),
        }
    }

    pub fn as_text(&self) -> Option<&Text> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value of `key` in a dict.
    pub fn entry(&self, key: &str, budget: &mut Budget) -> Done<Option<Value>> {
        let Value::Dict(dict) = self else { return Ok(None) };
        budget.steps(dict.items.len() / 8)?;
        let found = dict.items.iter().find(|(k, _)| matches!(k, Value::Text(k) if k.as_str() == key));
        Ok(found.map(|(_, value)| value.clone()))
    }

    /// Python's `==`.
    pub fn equals(&self, other: &Value, budget: &mut Budget) -> Done<bool> {
        budget.step()?;
        Ok(match (self, other) {
            (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
            (Value::Text(a), Value::Text(b)) => {
                budget.steps(a.as_str().len().min(b.as_str().len()) / 256)?;
                a.as_str() == b.as_str()
            }
            (Value::List(a), Value::List(b)) => {
                if a.items.len() != b.items.len() || a.tuple != b.tuple {
                    return Ok(false);
                }
                for (a, b) in a.items.iter().zip(&b.items) {
                    if !a.equals(b, budget)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Value::Dict(a), Value::Dict(b)) => {
                if a.items.len() != b.items.len() {
                    return Ok(false);
                }
                for (key, value) in &a.items {
                    let Some(found) = other.item(key, budget)? else { return Ok(false) };
                    if !value.equals(&found, budget)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Value::Namespace(a), Value::Namespace(b)) | (Value::Macro(a), Value::Macro(b)) => a == b,
            (a, b) => match (a.as_int(), b.as_int()) {
                (Some(a), Some(b)) => a == b,
                _ => matches!((a.as_float(), b.as_float()), (Some(a), Some(b)) if a == b),
            },
        })
    }

    /// The value of `key` in a dict, by Python's `==`.
    pub fn item(&self, key: &Value, budget: &mut Budget) -> Done<Option<Value>> {
        let Value::Dict(dict) = self else { return Ok(None) };
        for (k, value) in &dict.items {
            if k.equals(key, budget)? {
                return Ok(Some(value.clone()));
            }
        }
        Ok(None)
    }

    /// Python's `<`, `>`: numbers, texts and lists compare with their own kind.
    pub fn compare(&self, other: &Value, budget: &mut Budget) -> Done<Ordering> {
        budget.step()?;
        match (self, other) {
            (Value::Text(a), Value::Text(b)) => {
                budget.steps(a.as_str().len().min(b.as_str().len()) / 256)?;
                return Ok(a.as_str().cmp(b.as_str()));
            }
            (Value::List(a), Value::List(b)) => {
                for (a, b) in a.items.iter().zip(&b.items) {
                    if !a.equals(b, budget)? {
                        return a.compare(b, budget);
                    }
                }
                return Ok(a.items.len().cmp(&b.items.len()));
            }
            _ => {}
        }
        match (self.as_int(), other.as_int(), self.as_float(), other.as_float()) {
            (Some(a), Some(b), ..) => Ok(a.cmp(&b)),
            (_, _, Some(a), Some(b)) => Ok(a.partial_cmp(&b).unwrap_or(Ordering::Equal)),
            _ => Err(Failure::new(format!("{} and {} have no order", self.shown(), other.shown()))),
        }
    }

    /// Python's `in`.
    pub fn contains(&self, item: &Value, budget: &mut Budget) -> Done<bool> {
        match (self, item) {
            (Value::Text(text), Value::Text(part)) => {
                budget.steps(text.as_str().len() / 256)?;
                Ok(text.as_str().contains(part.as_str()))
            }
            (Value::List(list), item) => {
                for other in &list.items {
                    if other.equals(item, budget)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            (Value::Dict(_), key) => Ok(self.item(key, budget)?.is_some()),
            (Value::Undefined(_), _) => Ok(false),
            _ => Err(Failure::new(format!("`in` does not work on {}", self.shown()))),
        }
    }

    /// How an error message names this value.
    pub fn shown(&self) -> String {
        match self {
            Value::Undefined(name) => format!("`{name}`, which is undefined"),
            other => format!("a value of type {}", other.kind()),
        }
    }

    /// Python's `str()`.
    pub fn text(&self, budget: &mut Budget) -> Done<Text> {
        budget.step()?;
        match self {
            Value::Text(text) | Value::Caller(text) => Ok(text.clone()),
            Value::Undefined(_) => Ok(Text::trusted("")),
            other => {
                let mut out = Builder::default();
                other.write_repr(&mut out, budget)?;
                Ok(out.finish())
            }
        }
    }

    /// Python's `repr()`.
    fn write_repr(&self, out: &mut Builder, budget: &mut Budget) -> Done<()> {
        budget.allocate(16)?;
        match self {
            Value::Undefined(_) => out.push_trusted("Undefined"),
            Value::None => out.push_trusted("None"),
            Value::Bool(value) => out.push_trusted(if *value { "True" } else { "False" }),
            Value::Int(value) => out.push_trusted(&value.to_string()),
            Value::Float(value) => out.push_trusted(&python_float(*value)),
            Value::Text(text) | Value::Caller(text) => {
                budget.allocate(text.as_str().len().saturating_mul(2))?;
                out.push(&text.derive(python_string(text.as_str())));
            }
            Value::List(list) => {
                out.push_trusted(if list.tuple { "(" } else { "[" });
                for (at, item) in list.items.iter().enumerate() {
                    if at > 0 {
                        out.push_trusted(", ");
                    }
                    item.write_repr(out, budget)?;
                }
                let end = match (list.tuple, list.items.len()) {
                    (true, 1) => ",)",
                    (true, _) => ")",
                    (false, _) => "]",
                };
                out.push_trusted(end);
            }
            Value::Dict(dict) => {
                out.push_trusted("{");
                for (at, (key, value)) in dict.items.iter().enumerate() {
                    if at > 0 {
                        out.push_trusted(", ");
                    }
                    key.write_repr(out, budget)?;
                    out.push_trusted(": ");
                    value.write_repr(out, budget)?;
                }
                out.push_trusted("}");
            }
            Value::Namespace(_) | Value::Macro(_) | Value::Loop(_) => {
                out.push_trusted(&format!("<{}>", self.kind()));
            }
        }
        Ok(())
    }

    /// The items that a loop or filter goes through.
    pub fn items(&self, budget: &mut Budget) -> Done<Vec<Value>> {
        let items = match self {
            Value::Undefined(_) => return Ok(Vec::new()),
            Value::List(list) => {
                budget.allocate_items(list.items.len(), ITEM_BYTES)?;
                list.items.clone()
            }
            Value::Dict(dict) => {
                budget.allocate_items(dict.items.len(), ITEM_BYTES)?;
                dict.items.iter().map(|(key, _)| key.clone()).collect()
            }
            Value::Text(text) => {
                budget.allocate_items(text.as_str().len(), 2 * ITEM_BYTES)?;
                let chars = text.as_str().char_indices();
                chars.map(|(at, c)| Value::Text(text.slice(at, at + c.len_utf8()))).collect()
            }
            other => return Err(Failure::new(format!("cannot go through {}", other.shown()))),
        };
        Ok(items)
    }

    /// Number of items or characters.
    pub fn len(&self) -> Done<usize> {
        match self {
            Value::Undefined(_) => Ok(0),
            Value::Text(text) => Ok(text.as_str().chars().count()),
            Value::List(list) => Ok(list.items.len()),
            Value::Dict(dict) => Ok(dict.items.len()),
            other => Err(Failure::new(format!("{} has no length", other.shown()))),
        }
    }
}

fn deeper<'v>(items: impl Iterator<Item = &'v Value>) -> Done<u32> {
    let depth = items.map(Value::depth).max().unwrap_or(0) + 1;
    if depth > MAX_DEPTH {
        return Err(Failure::new(format!("values nested deeper than {MAX_DEPTH}")));
    }
    Ok(depth)
}

/// A float as Python writes it.
pub(super) fn python_float(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.into();
    }
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{value:?}")
}

/// A string literal as Python writes it.
fn python_string(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

/// How `tojson` writes.
#[derive(Debug, Default)]
pub(super) struct JsonStyle {
    pub indent: Option<usize>,
    pub sort_keys: bool,
    pub ascii: bool,
    pub separators: Option<(String, String)>,
}

/// Writes `value` as Python's `json.dumps` does.
pub(super) fn write_json(
    value: &Value,
    style: &JsonStyle,
    level: usize,
    out: &mut Builder,
    budget: &mut Budget,
) -> Done<()> {
    budget.allocate(16)?;
    let (comma, colon) = match &style.separators {
        Some((comma, colon)) => (comma.as_str(), colon.as_str()),
        None if style.indent.is_some() => (",", ": "),
        None => (", ", ": "),
    };
    let line = |out: &mut Builder, level: usize, budget: &mut Budget| -> Done<()> {
        if let Some(indent) = style.indent {
            budget.allocate(indent * level + 1)?;
            out.push_trusted("\n");
            out.push_trusted(&" ".repeat(indent * level));
        }
        Ok(())
    };
    match value {
        Value::None => out.push_trusted("null"),
        Value::Bool(value) => out.push_trusted(if *value { "true" } else { "false" }),
        Value::Int(value) => out.push_trusted(&value.to_string()),
        Value::Float(value) => out.push_trusted(&match python_float(*value).as_str() {
            "nan" => "NaN".to_string(),
            "inf" => "Infinity".to_string(),
            "-inf" => "-Infinity".to_string(),
            text => text.to_string(),
        }),
        Value::Text(text) | Value::Caller(text) => {
            budget.allocate(text.as_str().len().saturating_mul(if style.ascii { 6 } else { 2 }))?;
            out.push(&text.derive(json_string(text.as_str(), style.ascii)));
        }
        Value::List(list) if list.items.is_empty() => out.push_trusted("[]"),
        Value::List(list) => {
            out.push_trusted("[");
            for (at, item) in list.items.iter().enumerate() {
                if at > 0 {
                    out.push_trusted(comma);
                }
                line(out, level + 1, budget)?;
                write_json(item, style, level + 1, out, budget)?;
            }
            line(out, level, budget)?;
            out.push_trusted("]");
        }
        Value::Dict(dict) if dict.items.is_empty() => out.push_trusted("{}"),
        Value::Dict(dict) => {
            budget.allocate_items(dict.items.len(), 16)?;
            let mut items: Vec<&(Value, Value)> = dict.items.iter().collect();
            if style.sort_keys {
                items.sort_by_key(|(key, _)| key.as_text().map(|text| text.as_str().to_string()));
            }
            out.push_trusted("{");
            for (at, (key, item)) in items.into_iter().enumerate() {
                if at > 0 {
                    out.push_trusted(comma);
                }
                line(out, level + 1, budget)?;
                let key = match key {
                    Value::Text(_) => key.clone(),
                    other => Value::Text(other.text(budget)?),
                };
                write_json(&key, style, level + 1, out, budget)?;
                out.push_trusted(colon);
                write_json(item, style, level + 1, out, budget)?;
            }
            line(out, level, budget)?;
            out.push_trusted("}");
        }
        other => return Err(Failure::new(format!("`tojson` does not work on {}", other.shown()))),
    }
    Ok(())
}

fn json_string(text: &str, ascii: bool) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if u32::from(c) < 0x20 || (ascii && !c.is_ascii()) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
