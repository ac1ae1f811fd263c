//! `openapi.json`, from the table of routes.

use super::{ROUTES, replies};
use crate::schema::{Shape, json_schema};
use serde_json::{Map, Value, json};

/// The description of every route, in OpenAPI 3.1.
pub fn openapi() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let verb = route.verb.word();
        let mut operation = json!({
            "summary": route.about,
            "operationId": format!("{verb}{}", route.path.replace(['/', '.'], "_").replace(['{', '}'], "")),
            "responses": replies::responses(verb, route.path),
        });
        if let Some(fields) = route.fields {
            let schema = json_schema(&Shape::Object(fields));
            let mut content = json!({ "application/json": { "schema": schema } });
            if route.takes_file {
                content["multipart/form-data"] = json!({ "schema": with_file(schema) });
                content["image/*"] = json!({ "schema": { "type": "string", "format": "binary" } });
            }
            operation["requestBody"] = json!({ "required": true, "content": content });
        }
        if route.is_upload() {
            let fields = json!({ "file": { "type": "string", "format": "binary" }, "purpose": { "type": "string", "enum": ["batch"] } });
            let form = json!({ "type": "object", "properties": fields, "required": ["file", "purpose"] });
            operation["requestBody"] =
                json!({ "required": true, "content": { "multipart/form-data": { "schema": form } } });
        }
        if route.path.contains("{id}") {
            operation["parameters"] = json!([{ "name": "id", "in": "path", "required": true, "schema": { "type": "string", "minLength": 1 } }]);
        }
        let entry = paths.entry(route.path).or_insert_with(|| json!({}));
        entry[verb] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Kun",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Language models and other models of this machine, for OpenAI's, Anthropic's and Ollama's clients.",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "components": {
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer" } },
            "responses": replies::errors(),
        },
        "security": [{ "key": [] }, {}],
        "paths": paths,
    })
}

/// A form's fields: those of the JSON body, with the picture as a file.
fn with_file(mut schema: Value) -> Value {
    schema["properties"]["image"] =
        json!({ "type": "string", "format": "binary", "description": "The picture" });
    if schema["properties"].get("mask").is_some() {
        let about = schema["properties"]["mask"]["description"].clone();
        schema["properties"]["mask"] = json!({ "type": "string", "format": "binary", "description": about });
    }
    schema
}
