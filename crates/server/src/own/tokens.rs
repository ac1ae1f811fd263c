//! Text to token ids and back.

use crate::error::Refusal;
use crate::routes::{Call, Reply};
use crate::schema::{Field, NAME, Shape, TEXT, optional, required};
use serde_json::{Value, json};

pub(crate) const TOKENIZE: &[&[Field]] = &[&[
    optional("model", NAME, "Whose tokens"),
    optional("content", TEXT, "The text"),
    optional("prompt", TEXT, "The text, by another name"),
    optional("add_special", Shape::Bool, "Put the model's beginning token before it"),
    optional("add_special_tokens", Shape::Bool, "The same, by vLLM's name"),
]];
pub(crate) const DETOKENIZE: &[&[Field]] = &[&[
    optional("model", NAME, "Whose tokens"),
    required("tokens", Shape::List { of: &ID, least: 0, most: 1 << 20 }, "Token ids"),
]];
/// A token id.
pub(crate) const ID: Shape = Shape::Integer { least: 0, most: u32::MAX as i64 };

pub(crate) fn tokenize(call: Call) -> Reply {
    Box::pin(async move {
        let (app, name) = (call.app.clone(), call.model());
        let text = call.text("content").or_else(|| call.text("prompt")).unwrap_or_default().to_owned();
        let special = call.flag("add_special") || call.flag("add_special_tokens");
        let (tokens, most) = call
            .in_place(move || {
                let model = app.decoder(&name)?.model;
                let tokens = if special { model.tokenize(&text)? } else { model.tokenize_plain(&text)? };
                Ok((tokens, model.context_tokens()))
            })
            .await?;
        Ok(call.json(json!({ "tokens": tokens, "count": tokens.len(), "max_model_len": most })))
    })
}

pub(crate) fn detokenize(call: Call) -> Reply {
    Box::pin(async move {
        let (app, name) = (call.app.clone(), call.model());
        let ids = ids(call.get("tokens"));
        let text = call
            .in_place(move || {
                let model = app.decoder(&name)?.model;
                known(&ids, model.fit().model.vocab_size, "tokens")?;
                Ok(model.detokenize(&ids))
            })
            .await?;
        Ok(call.json(json!({ "content": text, "prompt": text })))
    })
}

/// What evaluators look for before they send token ids.
pub(crate) fn info(call: Call) -> Reply {
    Box::pin(async move {
        let (app, name) = (call.app.clone(), call.model());
        let [bos, eos] = call.in_place(move || Ok(app.decoder(&name)?.model.edge_tokens())).await?;
        Ok(call.json(json!({ "model": call.model(), "bos_token": bos, "eos_token": eos })))
    })
}

/// Refuses ids, the field `at`, of which a model of `vocab_size` tokens has not all.
pub(crate) fn known(ids: &[u32], vocab_size: usize, at: &str) -> Result<(), Refusal> {
    match ids.iter().find(|id| usize::try_from(**id).is_ok_and(|id| id >= vocab_size)) {
        Some(id) => {
            let what = format!("`{at}` holds token {id}, the model has {vocab_size}");
            Err(Refusal::invalid(at, what).code("invalid_value"))
        }
        None => Ok(()),
    }
}

/// The ids in a list that has been checked.
pub(crate) fn ids(value: Option<&Value>) -> Vec<u32> {
    let items = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|id| u32::try_from(crate::schema::integer(id)?).ok()).collect()
}
