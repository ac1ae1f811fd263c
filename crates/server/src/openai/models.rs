//! `/v1/models`.

use crate::error::{Kind, Refusal};
use crate::routes::{Call, Reply, json_response};
use kun_engine::seq2seq::is_seq2seq;
use kun_engine::tasks::describe::Verb;
use kun_engine::vision::{Looks, Words, looks_at};
use kun_engine::{Head, LoadOptions, Resident};
use kun_hub::ModelPath;
use serde_json::{Value, json};

pub(crate) fn list(call: Call) -> Reply {
    Box::pin(async move {
        let models = Call::blocking(move || Ok(all(&call))).await?;
        Ok(json_response(&json!({ "object": "list", "data": models })))
    })
}

pub(crate) fn show(call: Call) -> Reply {
    Box::pin(async move {
        let found = Call::blocking(move || {
            let found =
                call.app.locate(&call.id).map_err(|refusal| Refusal { kind: Kind::NotFound, ..refusal })?;
            Ok(describe(&call, &call.id, &found, 0, true))
        })
        .await?;
        Ok(json_response(&found))
    })
}

/// Every model on this disk, loaded or not, then the aliases.
pub(crate) fn all(call: &Call) -> Vec<Value> {
    let app = &call.app;
    let mut models: Vec<Value> =
        app.served().iter().map(|(name, found)| describe(call, name, found, 0, false)).collect();
    for stored in app.stored() {
        if app.served().values().all(|served| served.path != stored.path) {
            let found = ModelPath {
                path: stored.path.clone(),
                name: stored.name.clone(),
                source: String::new(),
                license: None,
            };
            models.push(describe(call, &stored.name, &found, stored.modified_unix_s, false));
        }
    }
    for (alias, target) in &app.options.aliases {
        if let Ok(found) = app.locate(target) {
            let mut model = describe(call, alias, &found, 0, false);
            model["parent"] = json!(target);
            models.push(model);
        }
    }
    models
}

/// One entry; what only the file itself tells is added if the model is loaded or `read` allows a look.
fn describe(call: &Call, name: &str, found: &ModelPath, created: u64, read: bool) -> Value {
    let mut model = json!({
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "kun",
        "status": "available",
        "license": found.license,
    });
    let shelf = call.app.library.shelves().into_iter().find(|shelf| shelf.path == found.path);
    let info = match shelf.map(|shelf| shelf.model) {
        Some(Some(Resident::Decoder(decoder))) => {
            model["status"] = json!("loaded");
            Some((decoder.info().clone(), decoder.context_tokens()))
        }
        Some(Some(Resident::Encoder(encoder))) => {
            model["status"] = json!("loaded");
            encoder_fields(&mut model, encoder.info().max_tokens, &encoder.info().head);
            model["quantization"] = json!(encoder.info().model.quantization);
            None
        }
        Some(Some(_)) => {
            model["status"] = json!("loaded");
            None
        }
        Some(None) => {
            model["status"] = json!("loading");
            None
        }
        None if kun_engine::encode::is_encoder(&found.path).unwrap_or(false) => {
            model["type"] = json!("embedding");
            None
        }
        None if read => {
            let fit = call.app.library.engine().fit(&found.path, &LoadOptions::default()).ok();
            fit.map(|fit| (fit.model, fit.context_tokens))
        }
        None => None,
    };
    if let Some(looks) = looks_at(&found.path) {
        let (kind, task, outputs) = match looks {
            Looks::Pages => ("vision", Some("ocr"), "text"),
            Looks::Verb(Verb::Embed) => ("embedding", Some("embed-image"), "embedding"),
            Looks::Verb(verb) if verb.makes_pictures() => ("image", Some(verb.name()), "image"),
            Looks::Verb(verb) => ("vision", Some(verb.name()), "text"),
            Looks::Drawing => ("image", Some("image"), "image"),
            Looks::Unknown => ("vision", None, "text"),
        };
        let reads = looks == Looks::Drawing || Words::is_beside(&found.path);
        let takes = if reads { json!(["text", "image"]) } else { json!(["image"]) };
        model["type"] = json!(kind);
        model["task"] = json!(task);
        model["architecture"] = json!({ "input_modalities": takes, "output_modalities": [outputs] });
        return model;
    }
    if is_seq2seq(&found.path) {
        model["type"] = json!("seq2seq");
    }
    if let Some((info, context)) = info {
        let more = json!({
            "type": "chat",
            "context_length": context,
            "max_model_len": context,
            "max_output_tokens": context,
            "architecture": {
                "name": info.architecture,
                "input_modalities": ["text"],
                "output_modalities": ["text"],
            },
            "capabilities": ["completion", "chat", "tools", "json_schema", "logprobs"],
            "quantization": info.quantization,
            "parameters": info.parameters,
        });
        if let (Some(model), Value::Object(more)) = (model.as_object_mut(), more) {
            model.extend(more);
        }
        if model["license"].is_null() {
            model["license"] = json!(info.license);
        }
    }
    model
}

/// What a loaded encoder is for.
fn encoder_fields(model: &mut Value, window: usize, head: &Head) {
    let kind = match head {
        Head::Embedding { .. } => "embedding",
        Head::Sequence { labels: 1 } => "rerank",
        _ => "classify",
    };
    model["type"] = json!(kind);
    model["context_length"] = json!(window);
    model["max_model_len"] = json!(window);
}
