//! `/v1/extract`: names, places and personal data in texts.

use super::choice::unsuitable;
use super::texts::{TEXTS, all, texts};
use crate::error::Refusal;
use crate::routes::{Call, Reply};
use crate::schema::{Field, NAME, Shape, accepted, optional, required};
use kun_engine::text::{Aggregation, Entity, characters, pii};
use kun_engine::{ExtractOptions, Resident};
use serde_json::{Value, json};

pub(crate) const FIELDS: &[&[Field]] = &[&[
    optional("model", NAME, "A model that labels words; none: with `pii`, only what has a form"),
    required("input", TEXTS, "A text or a list"),
    optional(
        "pii",
        Shape::Bool,
        "Find what has a form too: addresses, numbers of cards, accounts and telephones",
    ),
    optional("redact", Shape::Bool, "Give the texts with everything that was found replaced by its kind"),
    optional("min_score", Shape::Number { least: 0.0, most: 1.0 }, "Leave out what is less certain"),
    optional(
        "aggregation",
        Shape::Word(&["none", "simple", "first", "average", "max"]),
        "How the tokens of a word agree on a label; default simple",
    ),
    accepted("user", "Whoever the caller asks for"),
]];

pub(crate) fn create(call: Call) -> Reply {
    Box::pin(async move {
        let permits = call.app.reserve(call.tenant, 1)?;
        let (app, name) = (call.app.clone(), call.text("model").map(str::to_owned));
        let input = texts(&call, "input");
        let pii = call.flag("pii");
        let least = call.float("min_score").unwrap_or(0.0);
        let aggregation = match call.text("aggregation") {
            Some("none") => Aggregation::None,
            Some("first") => Aggregation::First,
            Some("average") => Aggregation::Average,
            Some("max") => Aggregation::Max,
            _ => Aggregation::Simple,
        };
        let redact = call.flag("redact");
        let (name, data) = Call::blocking(move || {
            let _permits = permits;
            let (name, found) = match name {
                None if pii => ("forms".to_owned(), input.iter().map(|_| Vec::new()).collect()),
                name => {
                    let (name, model) = app.text_model(name.as_deref(), "extract")?;
                    let Resident::Encoder(model) = model else {
                        return Err(unsuitable(&name, "labels no words"));
                    };
                    let options = ExtractOptions { aggregation, ..ExtractOptions::default() };
                    (name, all("input", model.extract(&input, &options)?)?)
                }
            };
            let data = input.iter().zip(found).enumerate();
            let data = data.map(|(index, (text, found))| {
                let mut entities: Vec<Entity> = found.into_iter().filter(|e| e.score >= least).collect();
                if pii {
                    entities = pii::merge(pii::find(text), entities);
                }
                document(index, text, &entities, redact)
            });
            Ok::<_, Refusal>((name, data.collect::<Vec<Value>>()))
        })
        .await?;
        Ok(call.json(json!({ "object": "list", "model": name, "data": data })))
    })
}

/// Places are counted in characters. The text of an entity is not shown where it is to be hidden.
fn document(index: usize, text: &str, entities: &[Entity], redact: bool) -> Value {
    let ranges: Vec<_> = entities.iter().map(|entity| entity.start..entity.end).collect();
    let listed = entities.iter().zip(characters(text, &ranges)).map(|(entity, place)| {
        let mut value = json!({
            "label": entity.label,
            "score": entity.score,
            "start": place.start,
            "end": place.end,
        });
        if !redact {
            value["text"] = json!(text.get(entity.start..entity.end).unwrap_or_default());
        }
        value
    });
    let mut value = json!({ "index": index, "entities": listed.collect::<Vec<_>>() });
    if redact {
        value["text"] = json!(pii::redact(text, entities));
    }
    value
}
