//! `/v1/classify`: which label a text or a picture has.

use super::choice::unsuitable;
use super::pictures::{self, DRAWN};
use super::texts::{TEXTS, all, texts};
use crate::error::Refusal;
use crate::openai::embeddings::fitting;
use crate::routes::{Call, Reply};
use crate::schema::{Field, NAME, Shape, accepted, optional};
use kun_engine::tasks::describe::Verb;
use kun_engine::text::ranked;
use kun_engine::{Classified, Labels, Resident, Use, ZeroShot};
use serde_json::{Map, Value, json};

/// A label.
const LABEL: Shape = Shape::Text { most: 256 };

pub(crate) const FIELDS: &[&[Field]] = &[
    &[
        optional("model", NAME, "Which model; none: one that is here"),
        optional("input", TEXTS, "A text or a list"),
        optional("image", super::image::SHAPE, super::image::ABOUT),
        optional(
            "labels",
            Shape::List { of: &LABEL, least: 1, most: 128 },
            "Labels of one's own; none: those that the model was trained on",
        ),
        optional("template", Shape::Text { most: 1024 }, "A sentence with `{}` for the label"),
        optional("multi_label", Shape::Bool, "Each label holds by itself"),
        optional("truncate", Shape::Bool, "Cut texts that are too long, instead of refusing them"),
        optional("top", Shape::Integer { least: 1, most: 1000 }, "Only so many best labels"),
        accepted("user", "Whoever the caller asks for"),
    ],
    DRAWN,
];

pub(crate) fn create(mut call: Call) -> Reply {
    if call.file.is_some() || call.get("image").is_some() {
        let for_texts = ["input", "multi_label", "truncate"];
        call.without_effect(&for_texts, "a picture is classified");
        if call.get("labels").is_none() {
            call.without_effect(&["template"], "there are no `labels`");
        }
        return pictures::run(call, Use::Pictures(Verb::Classify));
    }
    call.without_effect(&["output", "draw"], "texts are classified");
    Box::pin(async move {
        let input = texts(&call, "input");
        if input.is_empty() {
            let what = "Give texts as `input` or a picture as `image`";
            return Err(Refusal::invalid("input", what).code("missing_required_parameter"));
        }
        let permits = call.app.reserve(call.tenant, 1)?;
        let (app, name) = (call.app.clone(), call.text("model").map(str::to_owned));
        let own: Vec<String> = texts(&call, "labels");
        let task = ZeroShot {
            labels: own.clone(),
            template: call.text("template").map(str::to_owned),
            multi_label: call.flag("multi_label"),
            fitting: fitting(call.flag("truncate")),
        };
        let (name, labels, scored) = Call::blocking(move || {
            let _permits = permits;
            let (name, model) = match &name {
                None if own.is_empty() => app.text_model(None, "classify")?,
                // Any labels are chosen from by a model that chats.
                name => {
                    let name = name.clone().unwrap_or_else(|| app.default_model());
                    let model = app.library.get(&app.locate(&name)?.path)?;
                    (name, model)
                }
            };
            let (labels, scored) = match model {
                Resident::Encoder(model) if own.is_empty() => {
                    (model.info().labels.clone(), model.classify(&input, task.fitting)?)
                }
                Resident::Encoder(model) => (own, model.zero_shot(&input, &task)?),
                Resident::Decoder(model) if !own.is_empty() => {
                    let labels = Labels::new(&model, &own, task.multi_label)?;
                    (own, input.iter().map(|text| labels.scores(&model, text)).collect())
                }
                Resident::Decoder(_) => {
                    return Err(unsuitable(&name, "chats: it needs `labels`"));
                }
                _ => return Err(unsuitable(&name, "is no classifier of texts")),
            };
            Ok((name, labels, all("input", scored)?))
        })
        .await?;
        let top = call.count("top").unwrap_or(usize::MAX);
        let data = scored.iter().enumerate();
        let data = data.map(|(index, scored)| document(index, &labels, scored, top)).collect::<Vec<_>>();
        Ok(call.json(json!({ "object": "list", "model": name, "data": data })))
    })
}

fn document(index: usize, labels: &[String], scored: &Classified, top: usize) -> Value {
    let order = ranked(&scored.scores);
    let name = |place: usize| labels.get(place).cloned().unwrap_or_else(|| format!("LABEL_{place}"));
    let best = order.first().copied();
    let scores: Map<String, Value> =
        order.iter().take(top).map(|&place| (name(place), json!(scored.scores[place]))).collect();
    json!({
        "index": index,
        "label": best.map(name),
        "score": best.map(|place| scored.scores[place]),
        "scores": scores,
    })
}
