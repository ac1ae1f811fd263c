//! What a request body may hold, as tables: one description checks bodies and writes `openapi.json`.

use crate::error::Refusal;
use serde_json::{Map, Value, json};

/// A kind of value.
#[derive(Debug)]
pub(crate) enum Shape {
    Bool,
    Integer {
        least: i64,
        most: i64,
    },
    Number {
        least: f64,
        most: f64,
    },
    /// Text of at most so many bytes.
    Text {
        most: usize,
    },
    /// One of these words.
    Word(&'static [&'static str]),
    /// One of these words; others are known, and why they are refused.
    Kind {
        words: &'static [&'static str],
        refused: &'static [&'static str],
        why: &'static str,
    },
    /// Nothing, or an empty list; and why.
    Nothing(&'static str),
    List {
        of: &'static Shape,
        least: usize,
        most: usize,
    },
    /// Groups of fields; unknown ones are told in `warnings`.
    Object(&'static [&'static [Field]]),
    /// Any names, values of one shape.
    Map {
        of: &'static Shape,
        most: usize,
    },
    /// The first that fits.
    Either(&'static [&'static Shape]),
    /// A JSON schema.
    JsonSchema,
    /// Any JSON object.
    AnyObject,
    Any,
}

/// Whether a field must be there, and whether it has an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Required,
    Optional,
    /// Taken, without effect, which `warnings` tells.
    Ignored,
    /// Taken, without effect, silently: it only names the caller's own affairs.
    Accepted,
}

/// One field of an object.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) need: Need,
    pub(crate) shape: Shape,
    pub(crate) about: &'static str,
}

pub(crate) const fn required(name: &'static str, shape: Shape, about: &'static str) -> Field {
    Field { name, need: Need::Required, shape, about }
}
pub(crate) const fn optional(name: &'static str, shape: Shape, about: &'static str) -> Field {
    Field { name, need: Need::Optional, shape, about }
}
pub(crate) const fn ignored(name: &'static str, about: &'static str) -> Field {
    Field { name, need: Need::Ignored, shape: Shape::Any, about }
}
pub(crate) const fn accepted(name: &'static str, about: &'static str) -> Field {
    Field { name, need: Need::Accepted, shape: Shape::Any, about }
}

/// Text as long as the body may be.
pub(crate) const TEXT: Shape = Shape::Text { most: usize::MAX };
/// A name.
pub(crate) const NAME: Shape = Shape::Text { most: 512 };
/// A count from 1.
pub(crate) const COUNT: Shape = Shape::Integer { least: 1, most: 1 << 31 };

const STOP_TEXT: Shape = Shape::Text { most: MAX_STOP_BYTES };
/// Texts that end an answer, as a list.
pub(crate) const STOPS: Shape = Shape::List { of: &STOP_TEXT, least: 0, most: MAX_STOPS };
/// The same, or one alone.
pub(crate) const STOP: Shape = Shape::Either(&[&STOP_TEXT, &STOPS]);

/// Why conversations hold no pictures.
pub(crate) const TEXT_ALONE: &str = "no model that chats takes pictures, sounds or files yet; text alone. Pictures go to \
    routes such as /v1/detect, /v1/ocr and /v1/classify";

/// Answers to one request.
pub(crate) const MAX_ANSWERS: usize = 8;
/// Messages of a conversation.
pub(crate) const MAX_MESSAGES: usize = 2048;
/// Tools that a request offers.
pub(crate) const MAX_TOOLS: usize = 128;
/// Likeliest tokens told with each one.
pub(crate) const MAX_LOGPROBS: usize = 20;
/// Tokens whose logits a request changes.
pub(crate) const MAX_BIASES: usize = 1024;
/// Texts that end an answer.
pub(crate) const MAX_STOPS: usize = 16;
/// Bytes of each of them.
pub(crate) const MAX_STOP_BYTES: usize = 256;
/// Longest grammar or regular expression.
pub(crate) const MAX_GRAMMAR_BYTES: usize = 64 << 10;
/// Longest JSON schema, as text.
pub(crate) const MAX_SCHEMA_BYTES: usize = 64 << 10;
/// Deepest JSON schema.
pub(crate) const MAX_SCHEMA_DEPTH: usize = 64;
/// Unknown fields named in `warnings`; more are counted.
const MAX_WARNINGS: usize = 32;

/// Fields that had no effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Warnings(pub(crate) Vec<String>);

impl Warnings {
    pub(crate) fn add(&mut self, text: impl Into<String>) {
        if self.0.len() < MAX_WARNINGS {
            self.0.push(text.into());
        }
    }

    pub(crate) fn extend(&mut self, texts: Vec<String>) {
        texts.into_iter().for_each(|text| self.add(text));
    }

    /// Puts them into an answer, where there are any.
    pub(crate) fn attach(&self, answer: &mut Value) {
        if let (false, Some(answer)) = (self.0.is_empty(), answer.as_object_mut()) {
            answer.insert("warnings".to_owned(), json!(self.0));
        }
    }
}

/// How unknown and ignored fields are met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strictness {
    Warn,
    Refuse,
}

/// Checks a value against its shape.
pub(crate) struct Check {
    pub(crate) strictness: Strictness,
    pub(crate) warnings: Warnings,
}

impl Check {
    pub(crate) fn new(strictness: Strictness) -> Check {
        Check { strictness, warnings: Warnings::default() }
    }

    /// Checks `value`, which stands at `path`.
    ///
    /// # Errors
    /// [`Refusal`] naming the first field that does not fit.
    pub(crate) fn value(&mut self, shape: &Shape, value: &Value, path: &str) -> Result<(), Refusal> {
        match shape {
            Shape::Any => Ok(()),
            Shape::Bool if value.is_boolean() => Ok(()),
            Shape::AnyObject if value.is_object() => Ok(()),
            Shape::Integer { least, most } => {
                let number = integer(value).ok_or_else(|| self.wrong(shape, value, path))?;
                if (*least..=*most).contains(&number) {
                    return Ok(());
                }
                Err(range(path, &number.to_string(), &least.to_string(), &most.to_string()))
            }
            Shape::Number { least, most } => {
                let number = value.as_f64().ok_or_else(|| self.wrong(shape, value, path))?;
                if (*least..=*most).contains(&number) {
                    return Ok(());
                }
                Err(range(path, &number.to_string(), &least.to_string(), &most.to_string()))
            }
            Shape::Text { most } => match value.as_str() {
                Some(text) if text.len() <= *most => Ok(()),
                Some(text) => Err(Refusal::invalid(
                    path,
                    format!("`{path}` has {} bytes, at most {most} are allowed", text.len()),
                )
                .code("string_above_max_length")),
                None => Err(self.wrong(shape, value, path)),
            },
            Shape::Word(words) => match value.as_str() {
                Some(word) if words.contains(&word) => Ok(()),
                Some(_) => {
                    Err(Refusal::invalid(path, format!("`{path}` must be one of {}", words.join(", ")))
                        .code("invalid_value"))
                }
                None => Err(self.wrong(shape, value, path)),
            },
            Shape::Kind { words, refused, why } => match value.as_str() {
                Some(word) if refused.contains(&word) => {
                    Err(Refusal::invalid(path, format!("`{path}` is `{word}`: {why}")).code("invalid_value"))
                }
                _ => self.value(&Shape::Word(words), value, path),
            },
            Shape::Nothing(why) => match value.as_array() {
                Some(items) if items.is_empty() => Ok(()),
                _ => Err(Refusal::invalid(path, format!("`{path}`: {why}")).code("invalid_value")),
            },
            Shape::List { of, least, most } => {
                let items = value.as_array().ok_or_else(|| self.wrong(shape, value, path))?;
                if items.len() < *least || items.len() > *most {
                    let what =
                        format!("`{path}` has {} items, from {least} to {most} are allowed", items.len());
                    return Err(Refusal::invalid(path, what).code("invalid_value"));
                }
                for (index, item) in items.iter().enumerate() {
                    self.value(of, item, &format!("{path}[{index}]"))?;
                }
                Ok(())
            }
            Shape::Map { of, most } => {
                let items = value.as_object().ok_or_else(|| self.wrong(shape, value, path))?;
                if items.len() > *most {
                    let what = format!("`{path}` has {} entries, at most {most} are allowed", items.len());
                    return Err(Refusal::invalid(path, what).code("invalid_value"));
                }
                items
                    .iter()
                    .try_for_each(|(name, item)| self.value(of, item, &format!("{path}.{}", short(name))))
            }
            Shape::Object(groups) => {
                let object = value.as_object().ok_or_else(|| self.wrong(shape, value, path))?;
                self.object(groups, object, path)
            }
            Shape::Either(shapes) => {
                // The error that helps is that of the alternative whose JSON type it has.
                match shapes.iter().find(|shape| same_type(shape, value)) {
                    Some(one) => {
                        let mut others = shapes.iter().filter(|shape| same_type(shape, value));
                        if others.any(|shape| self.quietly(shape, value, path)) {
                            return Ok(());
                        }
                        self.value(one, value, path)
                    }
                    None => Err(self.wrong(shape, value, path)),
                }
            }
            Shape::JsonSchema => {
                if !value.is_object() && !value.is_boolean() {
                    return Err(self.wrong(shape, value, path));
                }
                let bytes = value.to_string().len();
                let depth = depth(value);
                if bytes > MAX_SCHEMA_BYTES || depth > MAX_SCHEMA_DEPTH {
                    let what = format!(
                        "`{path}` has {bytes} bytes and {depth} levels, at most {MAX_SCHEMA_BYTES} and {MAX_SCHEMA_DEPTH} are allowed"
                    );
                    return Err(Refusal::invalid(path, what).code("invalid_json_schema"));
                }
                Ok(())
            }
            Shape::Bool | Shape::AnyObject => Err(self.wrong(shape, value, path)),
        }
    }

    /// Whether it fits; its warnings are kept if so.
    fn quietly(&mut self, shape: &Shape, value: &Value, path: &str) -> bool {
        let mut check = Check::new(self.strictness);
        let fits = check.value(shape, value, path).is_ok();
        if fits {
            check.warnings.0.into_iter().for_each(|warning| self.warnings.add(warning));
        }
        fits
    }

    fn object(
        &mut self,
        groups: &[&[Field]],
        object: &Map<String, Value>,
        path: &str,
    ) -> Result<(), Refusal> {
        let at = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        for field in groups.iter().copied().flatten() {
            let value = object.get(field.name).filter(|value| !value.is_null());
            match (field.need, value) {
                (Need::Required, None) => {
                    let name = at(field.name);
                    let what = format!("Missing required parameter: `{name}`");
                    return Err(Refusal::invalid(&name, what).code("missing_required_parameter"));
                }
                (Need::Required | Need::Optional, Some(value)) => {
                    self.value(&field.shape, value, &at(field.name))?
                }
                // What asks for nothing has the effect that it should have.
                (Need::Ignored, Some(value)) if is_empty(value) => {}
                (Need::Ignored, Some(_)) => self.without_effect(&at(field.name), "has no effect")?,
                (_, None) | (Need::Accepted, Some(_)) => {}
            }
        }
        for name in object.keys() {
            if !groups.iter().copied().flatten().any(|field| field.name == name) {
                self.without_effect(&at(short(name)), "is not known and has no effect")?;
            }
        }
        Ok(())
    }

    fn without_effect(&mut self, path: &str, what: &str) -> Result<(), Refusal> {
        let text = format!("`{path}` {what}");
        match self.strictness {
            Strictness::Refuse => Err(Refusal::invalid(path, text).code("unknown_parameter")),
            Strictness::Warn => {
                self.warnings.add(text);
                Ok(())
            }
        }
    }

    fn wrong(&self, shape: &Shape, value: &Value, path: &str) -> Refusal {
        let what = if path.is_empty() { "The body".to_owned() } else { format!("`{path}`") };
        Refusal::invalid(path, format!("{what} must be {}, not {}", words_of(shape), type_of(value)))
            .code("invalid_type")
    }
}

/// Whether it asks for nothing.
pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// At most 60 characters of a name that a client chose.
pub(crate) fn short(name: &str) -> &str {
    match name.char_indices().nth(60) {
        Some((end, _)) => &name[..end],
        None => name,
    }
}

fn range(path: &str, value: &str, least: &str, most: &str) -> Refusal {
    Refusal::invalid(path, format!("`{path}` is {value}, from {least} to {most} is allowed"))
        .code("invalid_value")
}

/// A whole number, also one spelt `5.0`.
pub(crate) fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        let number = value.as_f64()?;
        (number.fract() == 0.0 && number.abs() < 9.0e15).then_some(number as i64)
    })
}

/// What a text in a form means where a value of this shape belongs; a text that means nothing stays one, for the check to
/// refuse.
pub(crate) fn from_text(shape: &Shape, text: &str) -> Value {
    let parsed = || serde_json::from_str::<Value>(text).ok();
    match shape {
        Shape::Bool => parsed().filter(Value::is_boolean),
        Shape::Integer { .. } | Shape::Number { .. } => parsed().filter(Value::is_number),
        Shape::List { of, .. } => Some(Value::Array(vec![from_text(of, text)])),
        _ => None,
    }
    .unwrap_or_else(|| text.into())
}

/// Levels of nesting.
pub(crate) fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(items) => 1 + items.values().map(depth).max().unwrap_or(0),
        _ => 1,
    }
}

fn same_type(shape: &Shape, value: &Value) -> bool {
    match shape {
        Shape::Any => true,
        Shape::Bool => value.is_boolean(),
        Shape::Integer { .. } | Shape::Number { .. } => value.is_number(),
        Shape::Text { .. } | Shape::Word(_) | Shape::Kind { .. } => value.is_string(),
        Shape::Nothing(_) => value.is_array(),
        // A list of one element type is another type than a list of another.
        Shape::List { of, .. } => {
            value.as_array().is_some_and(|items| items.first().is_none_or(|item| same_type(of, item)))
        }
        Shape::Object(_) | Shape::Map { .. } | Shape::AnyObject => value.is_object(),
        Shape::JsonSchema => value.is_object() || value.is_boolean(),
        Shape::Either(shapes) => shapes.iter().any(|shape| same_type(shape, value)),
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn words_of(shape: &Shape) -> String {
    match shape {
        Shape::Any => "anything".to_owned(),
        Shape::Bool => "a boolean".to_owned(),
        Shape::Integer { .. } => "a whole number".to_owned(),
        Shape::Number { .. } => "a number".to_owned(),
        Shape::Text { .. } | Shape::Word(_) | Shape::Kind { .. } => "a string".to_owned(),
        Shape::Nothing(_) => "an empty list".to_owned(),
        Shape::List { of, .. } => format!("a list (of {})", words_of(of)),
        Shape::Object(_) | Shape::Map { .. } | Shape::AnyObject => "an object".to_owned(),
        Shape::JsonSchema => "a JSON schema".to_owned(),
        Shape::Either(shapes) => shapes.iter().map(|shape| words_of(shape)).collect::<Vec<_>>().join(" or "),
    }
}

/// The shape as JSON schema (OpenAPI 3.1).
pub(crate) fn json_schema(shape: &Shape) -> Value {
    match shape {
        Shape::Any => json!({}),
        Shape::Bool => json!({ "type": "boolean" }),
        Shape::Integer { least, most } => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Shape::Number { least, most } => json!({ "type": "number", "minimum": least, "maximum": most }),
        Shape::Text { most } if *most == usize::MAX => json!({ "type": "string" }),
        Shape::Text { most } => json!({ "type": "string", "maxLength": most }),
        Shape::Word(words) | Shape::Kind { words, .. } => json!({ "type": "string", "enum": words }),
        Shape::Nothing(_) => json!({ "type": "array", "maxItems": 0 }),
        Shape::List { of, least, most } if *most == usize::MAX => {
            json!({ "type": "array", "items": json_schema(of), "minItems": least })
        }
        Shape::List { of, least, most } => {
            json!({ "type": "array", "items": json_schema(of), "minItems": least, "maxItems": most })
        }
        Shape::Map { of, most } => {
            json!({ "type": "object", "additionalProperties": json_schema(of), "maxProperties": most })
        }
        Shape::Either(shapes) => {
            json!({ "anyOf": shapes.iter().map(|s| json_schema(s)).collect::<Vec<_>>() })
        }
        Shape::JsonSchema | Shape::AnyObject => json!({ "type": "object" }),
        Shape::Object(groups) => {
            let mut properties = Map::new();
            let mut needed = Vec::new();
            for field in groups.iter().copied().flatten() {
                let mut schema = json_schema(&field.shape);
                if field.need == Need::Required {
                    needed.push(field.name);
                } else if !matches!(field.shape, Shape::Any) {
                    schema = nullable(schema);
                }
                if let Some(schema) = schema.as_object_mut() {
                    let about = match field.need {
                        Need::Ignored => format!("{} (no effect)", field.about),
                        _ => field.about.to_owned(),
                    };
                    schema.insert("description".to_owned(), json!(about));
                }
                properties.insert(field.name.to_owned(), schema);
            }
            let mut schema = json!({ "type": "object", "properties": properties });
            if !needed.is_empty() {
                schema["required"] = json!(needed);
            }
            schema
        }
    }
}

fn nullable(mut schema: Value) -> Value {
    if let Some(kind) = schema.get("type").and_then(Value::as_str).map(str::to_owned) {
        schema["type"] = json!([kind, "null"]);
        if let Some(words) = schema.get_mut("enum").and_then(Value::as_array_mut) {
            words.push(Value::Null);
        }
        schema
    } else if let Some(any) = schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        any.push(json!({ "type": "null" }));
        schema
    } else {
        schema
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POINT: Shape = Shape::Object(&[&[
        required("x", Shape::Integer { least: 0, most: 9 }, "x"),
        optional("name", Shape::Text { most: 4 }, "name"),
        optional("tags", Shape::Either(&[&TEXT, &Shape::List { of: &TEXT, least: 1, most: 2 }]), "tags"),
        ignored("old", "old"),
    ]]);

    fn check(value: Value) -> Result<Vec<String>, String> {
        let mut check = Check::new(Strictness::Warn);
        check.value(&POINT, &value, "").map(|()| check.warnings.0).map_err(|e| e.message)
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        assert_eq!(check(json!({ "x": 3.0, "name": null })), Ok(vec![]));
        assert_eq!(check(json!({ "x": 3, "tags": ["a"] })), Ok(vec![]));
        assert!(check(json!({})).is_err_and(|e| e.contains("`x`")));
        assert!(check(json!({ "x": 10 })).is_err_and(|e| e.contains("from 0 to 9")));
        assert!(check(json!({ "x": 1, "name": "abcde" })).is_err_and(|e| e.contains("5 bytes")));
        assert!(check(json!({ "x": 1, "tags": [] })).is_err_and(|e| e.contains("0 items")));
        assert!(check(json!({ "x": 1, "tags": 5 })).is_err_and(|e| e.contains("a string or a list")));
        assert!(check(json!([])).is_err_and(|e| e.contains("must be an object, not a list")));
    }

    #[test]
    fn fields_without_effect_are_told_or_refused() {
        assert_eq!(check(json!({ "x": 1, "old": [] })).map(|w| w.len()), Ok(0), "it asks for nothing");
        let value = json!({ "x": 1, "old": true, "new": 2 });
        assert_eq!(check(value.clone()).map(|w| w.len()), Ok(2));
        let mut strict = Check::new(Strictness::Refuse);
        assert!(strict.value(&POINT, &value, "").is_err());
    }

    #[test]
    fn what_is_known_but_not_offered_is_refused_with_the_reason() {
        let kind = Shape::Kind { words: &["text"], refused: &["image_url"], why: "text alone" };
        let say = |shape: &Shape, value: Value| {
            Check::new(Strictness::Warn).value(shape, &value, "x").map_err(|refusal| refusal.message)
        };
        assert_eq!(say(&kind, json!("text")), Ok(()));
        assert!(say(&kind, json!("image_url")).is_err_and(|e| e.contains("text alone")));
        assert!(say(&kind, json!("other")).is_err_and(|e| e.contains("must be one of text")));
        assert_eq!(say(&Shape::Nothing("none"), json!([])), Ok(()));
        assert!(say(&Shape::Nothing("none"), json!([1])).is_err_and(|e| e.contains("none")));
    }
}
