//! JSON schemas as types of columns.

use crate::json::json_field;
use arrow_schema::{DataType, Field};
use serde_json::Value;
use std::sync::Arc;

/// Objects inside objects that are columns of columns; what lies deeper is kept as JSON.
const MAX_DEPTH: usize = 16;

/// The column that holds what a schema admits. What has no one type is kept as text of JSON.
pub(super) fn field(name: &str, schema: &Value) -> Field {
    at_depth(name, schema, 0)
}

fn at_depth(name: &str, schema: &Value, depth: usize) -> Field {
    let plain = |data_type| Field::new(name, data_type, true);
    match schema["type"].as_str() {
        Some("string") => plain(DataType::Utf8),
        Some("integer") => plain(DataType::Int64),
        Some("number") => plain(DataType::Float64),
        Some("boolean") => plain(DataType::Boolean),
        Some("array") if depth < MAX_DEPTH && schema["items"].is_object() => {
            plain(DataType::List(Arc::new(at_depth("item", &schema["items"], depth + 1))))
        }
        Some("object") if depth < MAX_DEPTH => match schema["properties"].as_object() {
            Some(properties) if !properties.is_empty() => {
                let fields = properties.iter().map(|(name, schema)| at_depth(name, schema, depth + 1));
                plain(DataType::Struct(fields.collect()))
            }
            _ => json_field(name),
        },
        // Alternatives of texts are texts.
        None if schema["enum"].as_array().is_some_and(|all| all.iter().all(Value::is_string)) => {
            plain(DataType::Utf8)
        }
        _ => json_field(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn schemas_become_columns() {
        let schema = json!({ "type": "object", "properties": {
            "name": { "type": "string" },
            "age": { "type": "integer" },
            "tags": { "type": "array", "items": { "enum": ["a", "b"] } },
            "any": {},
        }});
        let field = field("x", &schema);
        let DataType::Struct(fields) = field.data_type() else { panic!("{field}") };
        let kinds: Vec<String> = fields.iter().map(|f| f.data_type().to_string()).collect();
        assert_eq!(kinds, ["Utf8", "Int64", "List(Utf8)", "Utf8"]);
        assert_eq!(super::field("x", &json!(true)).data_type(), &DataType::Utf8);
        assert_eq!(super::field("x", &json!({ "type": "object" })).data_type(), &DataType::Utf8);
    }
}
