//! `/v1/models`.

use crate::error::{Kind, Refusal};
use crate::routes::{Call, Reply, json_response};
use kun_engine::tasks::describe::Verb;
use kun_engine::vision::{Looks, Words, looks_at};
use kun_engine::{Fit, LoadedModel, ModelKind, Resident};
use kun_hub::StoredModel;
use serde_json::{Value, json};
use std::path::Path;

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
            let listed = call.app.listed().into_iter().find(|model| model.path == found.path);
            let listed = listed.ok_or_else(|| Refusal::new(Kind::NotFound, "The model is gone."))?;
            let license = found.license.or(listed.license);
            Ok(describe(&call, &StoredModel { name: call.id.clone(), license, ..listed }))
        })
        .await?;
        Ok(json_response(&found))
    })
}

/// Every model on this disk, loaded or not, then the aliases.
pub(crate) fn all(call: &Call) -> Vec<Value> {
    let app = &call.app;
    let listed = app.listed();
    let mut models: Vec<Value> = listed.iter().map(|model| describe(call, model)).collect();
    for (alias, target) in &app.options.aliases {
        let found = app.locate(target).ok();
        if let Some(model) = found.and_then(|found| listed.iter().find(|model| model.path == found.path)) {
            let mut model = describe(call, &StoredModel { name: alias.clone(), ..model.clone() });
            model["parent"] = json!(target);
            models.push(model);
        }
    }
    models
}

/// One entry: what the store and the files say, and the model itself where it is loaded.
fn describe(call: &Call, listed: &StoredModel) -> Value {
    let shelf = call.app.library.shelves().into_iter().find(|shelf| shelf.path == listed.path);
    let status = match &shelf {
        None => "available",
        Some(shelf) if shelf.model.is_none() => "loading",
        Some(_) => "loaded",
    };
    let mut model = json!({
        "id": listed.name,
        "object": "model",
        "created": listed.modified_unix_s,
        "owned_by": "kun",
        "status": status,
        "license": listed.license,
        "revision": listed.revision,
        "digest": listed.sha256.as_ref().map(|hex| format!("sha256:{hex}")),
    });
    let loaded = shelf.and_then(|shelf| shelf.model);
    let more = match looks_at(&listed.path) {
        Some(looks) => of_pictures(looks, &listed.path),
        None => match &loaded {
            Some(Resident::Decoder(decoder)) => of_texts(decoder.fit(), Some(decoder)),
            _ => call.app.facts(&listed.path).map_or(Value::Null, |fit| of_texts(&fit, None)),
        },
    };
    if let (Some(model), Value::Object(more)) = (model.as_object_mut(), more) {
        // The licence of the source goes before the one in the file.
        let stated = listed.license.is_some();
        model.extend(more.into_iter().filter(|(name, _)| name != "license" || !stated));
    }
    model
}

fn of_pictures(looks: Looks, path: &Path) -> Value {
    let (kind, task, outputs) = match looks {
        Looks::Pages => ("vision", Some("ocr"), "text"),
        Looks::Verb(Verb::Embed) => ("embedding", Some("embed-image"), "embedding"),
        Looks::Verb(verb) if verb.makes_pictures() => ("image", Some(verb.name()), "image"),
        Looks::Verb(verb) => ("vision", Some(verb.name()), "text"),
        Looks::Drawing => ("image", Some("image"), "image"),
        Looks::Unknown => ("vision", None, "text"),
    };
    let reads = looks == Looks::Drawing || Words::is_beside(path);
    let takes = if reads { json!(["text", "image"]) } else { json!(["image"]) };
    json!({
        "type": kind,
        "task": task,
        "architecture": { "input_modalities": takes, "output_modalities": [outputs] },
    })
}

fn of_texts(fit: &Fit, loaded: Option<&LoadedModel>) -> Value {
    let (kind, outputs) = match fit.kind {
        ModelKind::Generates => ("chat", "text"),
        ModelKind::Embeds => ("embedding", "embedding"),
        ModelKind::Ranks => ("rerank", "score"),
        ModelKind::Classifies => ("classify", "score"),
        ModelKind::Extracts => ("extract", "text"),
        ModelKind::Answers => ("answer", "text"),
        ModelKind::Rewrites => ("seq2seq", "text"),
    };
    let context = fit.context_tokens;
    let mut model = json!({
        "type": kind,
        "context_length": context,
        "max_model_len": context,
        "architecture": {
            "name": fit.model.architecture,
            "input_modalities": ["text"],
            "output_modalities": [outputs],
        },
        "quantization": fit.model.quantization,
        "parameters": fit.model.parameters,
        "license": fit.model.license,
    });
    if fit.kind == ModelKind::Generates {
        let mut can = vec!["completion", "chat", "tools", "json_schema", "logprobs"];
        if loaded.is_some_and(LoadedModel::thinks) {
            can.push("reasoning");
        }
        model["max_output_tokens"] = json!(context);
        model["capabilities"] = json!(can);
    }
    model
}
