//! `/v1/moderations`: whether texts may be shown, by a classifier that was trained to tell.

use super::choice::unsuitable;
use super::texts::{TEXTS, all, texts};
use crate::routes::{Call, Reply};
use crate::schema::{Field, NAME, accepted, required};
use kun_engine::{Fitting, Resident};
use serde_json::{Map, Value, json};

pub(crate) const FIELDS: &[&[Field]] = &[&[
    required("model", NAME, "A classifier of texts whose labels are kinds of harm, such as toxic-bert"),
    required("input", TEXTS, "A text or a list"),
    accepted("user", "Whoever the caller asks for"),
]];

/// Labels of classifiers that say nothing is wrong.
const HARMLESS: [&str; 12] = [
    "safe",
    "neutral",
    "normal",
    "non-toxic",
    "non_toxic",
    "nontoxic",
    "not_toxic",
    "not toxic",
    "none",
    "ok",
    "clean",
    "positive",
];

/// From here on a label holds.
const HOLDS: f32 = 0.5;

pub(crate) fn create(call: Call) -> Reply {
    Box::pin(async move {
        let permits = call.app.reserve(call.tenant, 1)?;
        let (app, name) = (call.app.clone(), call.model());
        let input = texts(&call, "input");
        let results = Call::blocking(move || {
            let _permits = permits;
            let Resident::Encoder(model) = app.library.get(&app.locate(&name)?.path)? else {
                return Err(unsuitable(&name, "is no classifier of texts"));
            };
            let scored = all("input", model.classify(&input, Fitting::Truncate)?)?;
            let result = |scores: &[f32]| {
                let harms = model.info().labels.iter().zip(scores);
                let harms = harms.filter(|(label, _)| !HARMLESS.contains(&label.to_lowercase().as_str()));
                let (mut categories, mut category_scores) = (Map::new(), Map::new());
                for (label, score) in harms {
                    categories.insert(label.clone(), json!(*score >= HOLDS));
                    category_scores.insert(label.clone(), json!(score));
                }
                let flagged = categories.values().any(|holds| *holds == json!(true));
                json!({ "flagged": flagged, "categories": categories, "category_scores": category_scores })
            };
            Ok(scored.iter().map(|classified| result(&classified.scores)).collect::<Vec<Value>>())
        })
        .await?;
        Ok(call.json(json!({
            "id": format!("modr-{}", crate::answer::random_id()),
            "model": call.model(),
            "results": results,
        })))
    })
}
