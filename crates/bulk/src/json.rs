//! JSON to columns and back.

use crate::BulkError;
use arrow_array::builder::{
    BooleanBuilder, Float32Builder, Float64Builder, Int32Builder, Int64Builder, StringBuilder,
};
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow_array::{Array, ArrayRef, ListArray, StructArray};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use serde_json::{Map, Number, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// Marks a column of texts that are JSON, so that a file of JSON shows them as such.
const MARK: &str = "kun:json";

/// A column of JSON values of any kind, kept as text.
pub(crate) fn json_field(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
        .with_metadata(HashMap::from([(MARK.to_owned(), "true".to_owned())]))
}

fn is_json(field: &Field) -> bool {
    field.metadata().contains_key(MARK)
}

/// How often a key had a value of each kind.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    bools: usize,
    ints: usize,
    floats: usize,
    texts: usize,
    lists: usize,
    objects: usize,
    /// Of all lists.
    items: Option<Box<Seen>>,
}

impl Seen {
    fn add(&mut self, value: &Value) {
        match value {
            Value::Null => {}
            Value::Bool(_) => self.bools += 1,
            Value::Number(number) if number.is_i64() => self.ints += 1,
            Value::Number(_) => self.floats += 1,
            Value::String(_) => self.texts += 1,
            Value::Array(items) => {
                self.lists += 1;
                let seen = self.items.get_or_insert_default();
                items.iter().for_each(|item| seen.add(item));
            }
            // What objects hold varies from row to row more often than not.
            Value::Object(_) => self.objects += 1,
        }
    }

    /// The type of nearly all values: the few others are errors of their rows. Without one, values are kept as JSON.
    fn field(&self, name: &str) -> Field {
        let numbers = self.ints + self.floats;
        let all = self.bools + numbers + self.texts + self.lists + self.objects;
        let nearly_all = |count: usize| all > 0 && count.saturating_mul(20) >= all.saturating_mul(19);
        let plain = |data_type| Field::new(name, data_type, true);
        if nearly_all(self.texts) {
            return plain(DataType::Utf8);
        }
        if nearly_all(numbers) {
            return plain(if self.floats > 0 { DataType::Float64 } else { DataType::Int64 });
        }
        if nearly_all(self.bools) {
            return plain(DataType::Boolean);
        }
        match &self.items {
            Some(items) if nearly_all(self.lists) && items.lists == 0 => {
                let item = items.field("item");
                if is_json(&item) { json_field(name) } else { plain(DataType::List(Arc::new(item))) }
            }
            _ => json_field(name),
        }
    }
}

/// Finds the columns of JSON objects.
#[derive(Debug, Default)]
pub(crate) struct Inference {
    keys: Vec<(String, Seen)>,
}

/// More columns are a mistake.
const MAX_COLUMNS: usize = 10_000;

impl Inference {
    /// One more object.
    pub(crate) fn add(&mut self, object: &Map<String, Value>) {
        for (at, (key, value)) in object.iter().enumerate() {
            // Keys mostly stand where they stood before.
            let known = match self.keys.get(at) {
                Some((name, _)) if name == key => Some(at),
                _ => self.keys.iter().position(|(name, _)| name == key),
            };
            let known = known.or_else(|| {
                // A key beyond the most is an error of the rows that have it.
                (self.keys.len() < MAX_COLUMNS).then(|| {
                    self.keys.push((key.clone(), Seen::default()));
                    self.keys.len() - 1
                })
            });
            if let Some(at) = known {
                self.keys[at].1.add(value);
            }
        }
    }

    /// The columns, in the order in which their keys came.
    pub(crate) fn schema(&self) -> Schema {
        Schema::new(self.keys.iter().map(|(name, seen)| seen.field(name)).collect::<Vec<_>>())
    }
}

/// Reads a line that must be an object whose values fit the columns.
///
/// # Errors
/// What is wrong with it, for people.
pub(crate) fn object(text: &str, schema: &SchemaRef, strict: bool) -> Result<Map<String, Value>, String> {
    let object = match serde_json::from_str(text) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return Err("no JSON object".to_owned()),
        Err(error) => return Err(format!("no JSON: {error}")),
    };
    for field in schema.fields() {
        if let Some(value) = object.get(field.name()) {
            fits(field, value).map_err(|what| format!("`{}`: {what}", field.name()))?;
        }
    }
    match object.keys().find(|key| strict && schema.field_with_name(key).is_err()) {
        Some(key) => Err(format!("`{key}`: the first lines have no such key")),
        None => Ok(object),
    }
}

/// Whether a value fits a column.
///
/// # Errors
/// What it should be and is not.
pub(crate) fn fits(field: &Field, value: &Value) -> Result<(), String> {
    let wrong = |wanted: &str| {
        let shown: String = value.to_string().chars().take(40).collect();
        Err(format!("{wanted} is wanted, not {shown}"))
    };
    match (field.data_type(), value) {
        (_, Value::Null) => Ok(()),
        (DataType::Utf8, Value::String(_)) => Ok(()),
        (DataType::Utf8, _) if is_json(field) => Ok(()),
        (DataType::Utf8, _) => wrong("a text"),
        (DataType::Boolean, Value::Bool(_)) => Ok(()),
        (DataType::Boolean, _) => wrong("true or false"),
        (DataType::Int64 | DataType::Int32, Value::Number(number)) if number.is_i64() => Ok(()),
        (DataType::Int64 | DataType::Int32, _) => wrong("a whole number"),
        (DataType::Float64 | DataType::Float32, Value::Number(_)) => Ok(()),
        (DataType::Float64 | DataType::Float32, _) => wrong("a number"),
        (DataType::List(item), Value::Array(items)) => items.iter().try_for_each(|value| fits(item, value)),
        (DataType::List(_), _) => wrong("a list"),
        (DataType::Struct(fields), Value::Object(object)) => fields
            .iter()
            .try_for_each(|field| object.get(field.name()).map_or(Ok(()), |value| fits(field, value))),
        (DataType::Struct(_), _) => wrong("an object"),
        (other, _) => Err(format!("no column of {other} comes from JSON")),
    }
}

/// Columns of objects that fit them; an object that is missing is NULL everywhere.
///
/// # Errors
/// [`BulkError::Arrow`] if they do not fit after all.
pub(crate) fn columns(
    schema: &SchemaRef,
    objects: &[Option<Map<String, Value>>],
) -> Result<Vec<ArrayRef>, BulkError> {
    let column = |field: &FieldRef| {
        let values: Vec<Option<&Value>> = objects
            .iter()
            .map(|object| object.as_ref().and_then(|object| object.get(field.name())))
            .collect();
        array(field, &values)
    };
    schema.fields().iter().map(column).collect()
}

/// A column of values that fit its field.
///
/// # Errors
/// [`BulkError::Arrow`] for a type that JSON does not give.
pub(crate) fn array(field: &Field, values: &[Option<&Value>]) -> Result<ArrayRef, BulkError> {
    let values: Vec<Option<&Value>> =
        values.iter().map(|value| value.filter(|value| !value.is_null())).collect();
    Ok(match field.data_type() {
        DataType::Utf8 => {
            let mut builder = StringBuilder::new();
            for value in &values {
                match value {
                    Some(Value::String(text)) if !is_json(field) => builder.append_value(text),
                    Some(value) => builder.append_value(value.to_string()),
                    None => builder.append_null(),
                }
            }
            Arc::new(builder.finish())
        }
        DataType::Boolean => {
            let mut builder = BooleanBuilder::new();
            values.iter().for_each(|value| builder.append_option(value.and_then(Value::as_bool)));
            Arc::new(builder.finish())
        }
        DataType::Int64 => {
            let mut builder = Int64Builder::new();
            values.iter().for_each(|value| builder.append_option(value.and_then(Value::as_i64)));
            Arc::new(builder.finish())
        }
        DataType::Int32 => {
            let mut builder = Int32Builder::new();
            let small = |value: &Value| value.as_i64().and_then(|n| i32::try_from(n).ok());
            values.iter().for_each(|value| builder.append_option(value.and_then(small)));
            Arc::new(builder.finish())
        }
        DataType::Float64 => {
            let mut builder = Float64Builder::new();
            values.iter().for_each(|value| builder.append_option(value.and_then(Value::as_f64)));
            Arc::new(builder.finish())
        }
        DataType::Float32 => {
            let mut builder = Float32Builder::new();
            values
                .iter()
                .for_each(|value| builder.append_option(value.and_then(Value::as_f64).map(|n| n as f32)));
            Arc::new(builder.finish())
        }
        DataType::List(item) => {
            let lists: Vec<Option<&Vec<Value>>> =
                values.iter().map(|value| value.and_then(Value::as_array)).collect();
            let items: Vec<Option<&Value>> =
                lists.iter().flatten().flat_map(|list| list.iter().map(Some)).collect();
            let lengths = lists.iter().map(|list| list.map_or(0, Vec::len));
            let nulls = NullBuffer::from_iter(lists.iter().map(Option::is_some));
            let offsets = OffsetBuffer::from_lengths(lengths);
            Arc::new(ListArray::try_new(item.clone(), offsets, array(item, &items)?, Some(nulls))?)
        }
        DataType::Struct(fields) => {
            let objects: Vec<Option<&Map<String, Value>>> =
                values.iter().map(|value| value.and_then(Value::as_object)).collect();
            let column = |field: &FieldRef| {
                let own: Vec<Option<&Value>> =
                    objects.iter().map(|object| object.and_then(|object| object.get(field.name()))).collect();
                array(field, &own)
            };
            let columns = fields.iter().map(column).collect::<Result<Vec<_>, _>>()?;
            let nulls = NullBuffer::from_iter(objects.iter().map(Option::is_some));
            Arc::new(StructArray::try_new(fields.clone(), columns, Some(nulls))?)
        }
        other => return Err(BulkError::job(format!("no column of {other} comes from JSON"))),
    })
}

/// The value of a row as JSON.
///
/// # Errors
/// [`BulkError::Arrow`] for a type that has no form as text.
pub(crate) fn value(field: &Field, array: &dyn Array, row: usize) -> Result<Value, BulkError> {
    if array.is_null(row) {
        return Ok(Value::Null);
    }
    macro_rules! number {
        ($kind:ty) => {
            Value::from(array.as_primitive::<$kind>().value(row))
        };
    }
    Ok(match array.data_type() {
        DataType::Utf8 if is_json(field) => {
            let text = array.as_string::<i32>().value(row);
            serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
        }
        DataType::Utf8 => Value::from(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => Value::from(array.as_string::<i64>().value(row)),
        DataType::Utf8View => Value::from(array.as_string_view().value(row)),
        DataType::Boolean => Value::from(array.as_boolean().value(row)),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float32 => short(array.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => number!(Float64Type),
        DataType::List(item) => list(item, array.as_list::<i32>().value(row).as_ref())?,
        DataType::LargeList(item) => list(item, array.as_list::<i64>().value(row).as_ref())?,
        DataType::FixedSizeList(item, _) => list(item, array.as_fixed_size_list().value(row).as_ref())?,
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let entries = fields
                .iter()
                .zip(columns)
                .map(|(field, column)| Ok((field.name().clone(), value(field, column.as_ref(), row)?)));
            Value::Object(entries.collect::<Result<_, BulkError>>()?)
        }
        DataType::Dictionary(_, _) => {
            let plain = arrow_cast::cast(&array.slice(row, 1), &DataType::Utf8)?;
            Value::from(plain.as_string::<i32>().value(0))
        }
        _ => {
            let formatter = ArrayFormatter::try_new(array, &FormatOptions::new())?;
            Value::from(formatter.value(row).to_string())
        }
    })
}

fn list(item: &Field, items: &dyn Array) -> Result<Value, BulkError> {
    (0..items.len()).map(|row| value(item, items, row)).collect::<Result<Vec<_>, _>>().map(Value::Array)
}

/// An f32 with the digits that tell it from its neighbours: 0.1, not 0.10000000149011612. NaN and infinities are null.
fn short(number: f32) -> Value {
    let digits = number.to_string().parse::<f64>().ok();
    digits.and_then(Number::from_f64).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_come_from_what_the_lines_hold() {
        let mut inference = Inference::default();
        let lines = [
            json!({ "id": 1, "score": 1, "tags": ["a"], "meta": { "x": 1 }, "none": null, "vec": [1, 2.5] }),
            json!({ "id": 2, "score": 0.5, "mixed": 1 }),
            json!({ "mixed": "text", "tags": [] }),
        ];
        lines.iter().for_each(|line| inference.add(line.as_object().unwrap()));
        let schema = Arc::new(inference.schema());
        let kinds: Vec<String> =
            schema.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect();
        assert_eq!(kinds[..3], ["id Int64", "score Float64", "tags List(Utf8)"], "{kinds:?}");
        let objects: Vec<_> = lines
            .iter()
            .map(|line| Some(object(&line.to_string(), &schema, true).unwrap()))
            .chain([None])
            .collect();
        let columns = columns(&schema, &objects).unwrap();
        for (row, line) in lines.iter().enumerate() {
            for (field, column) in schema.fields().iter().zip(&columns) {
                let back = value(field, column.as_ref(), row).unwrap();
                let wanted = line.get(field.name()).cloned().unwrap_or_default();
                let same = back == wanted || back.as_f64().is_some_and(|n| Some(n) == wanted.as_f64());
                assert!(same || back.is_array(), "{field}: {back} {wanted}");
            }
        }
        assert!(columns.iter().all(|column| column.is_null(3)));
    }

    #[test]
    fn a_line_that_does_not_fit_says_why() {
        let schema = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int64, true),
            Field::new("t", DataType::Utf8, true),
            json_field("any"),
        ]));
        for (line, says) in [
            ("{", "no JSON"),
            ("[1]", "no JSON object"),
            (r#"{"n": 1.5}"#, "whole number"),
            (r#"{"t": 1}"#, "a text is wanted, not 1"),
            (r#"{"new": 1}"#, "no such key"),
        ] {
            let error = object(line, &schema, true).unwrap_err();
            assert!(error.contains(says), "{line}: {error}");
        }
        assert!(object(r#"{"any": [1, {"x": "y"}], "n": null}"#, &schema, true).is_ok());
        assert!(object(r#"{"new": 1}"#, &schema, false).is_ok());
        let deep = format!("{{\"any\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(object(&deep, &schema, true).is_err());
    }

    #[test]
    fn numbers_are_written_short() {
        assert_eq!(short(0.1).to_string(), "0.1");
        assert_eq!(short(f32::NAN), Value::Null);
    }
}
