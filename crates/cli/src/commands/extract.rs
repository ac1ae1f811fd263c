//! `kun extract`.

use super::App;
use crate::args::{Aggregate, ExtractArgs};
use crate::exit::Misuse;
use crate::rows::{Job, Record, RowResult};
use kun_engine::text::{Aggregation, Entity, characters, pii};
use kun_engine::{ExtractOptions, LoadedEncoder};
use serde_json::{Value, json};
use std::sync::Arc;

/// What answers, besides forms.
enum Extractor {
    Tokens(Arc<LoadedEncoder>, ExtractOptions),
}

/// Finds entities.
pub fn extract(app: &App, args: &ExtractArgs) -> anyhow::Result<()> {
    let (model, extractor) = choose(app, args)?;
    let columns: &[&str] = if args.redact { &["text", "entities"] } else { &["entities", "text"] };
    let job = Job { name: "extract", columns, model: &model };
    job.run(app, &args.input, &args.output, |texts| {
        let found = match &extractor {
            None => texts.iter().map(|_| Ok(Vec::new())).collect(),
            Some(extractor) => extractor.run(&texts),
        };
        texts.into_iter().zip(found).map(|(text, found)| record(text, found, args)).collect()
    })
}

fn choose(app: &App, args: &ExtractArgs) -> anyhow::Result<(String, Option<Extractor>)> {
    let name = match &args.model {
        Some(name) => name.clone(),
        None if args.pii => return Ok(("forms".to_owned(), None)),
        None => {
            let what = "what to look for? give --pii, or a model such as -m bert-base-ner";
            return Err(Misuse(what.to_owned()).into());
        }
    };
    let (path, model) = app.load_encoder(&name, &args.load)?;
    let aggregation = match args.aggregation {
        Aggregate::None => Aggregation::None,
        Aggregate::Simple => Aggregation::Simple,
        Aggregate::First => Aggregation::First,
        Aggregate::Average => Aggregation::Average,
        Aggregate::Max => Aggregation::Max,
    };
    let options = ExtractOptions { aggregation, ..ExtractOptions::default() };
    model.extract(&[], &options)?;
    Ok((path.name, Some(Extractor::Tokens(model, options))))
}

impl Extractor {
    fn run(&self, texts: &[String]) -> Vec<anyhow::Result<Vec<Entity>>> {
        match self {
            Extractor::Tokens(model, options) => match model.extract(texts, options) {
                Ok(found) => found.into_iter().map(|f| Ok(f?)).collect(),
                Err(error) => {
                    let error = Arc::new(error);
                    texts.iter().map(|_| Err(anyhow::Error::new(error.clone()))).collect()
                }
            },
        }
    }
}

fn record(text: String, found: anyhow::Result<Vec<Entity>>, args: &ExtractArgs) -> RowResult {
    let mut entities: Vec<Entity> = found?.into_iter().filter(|e| e.score >= args.min_score).collect();
    if args.pii {
        entities = pii::merge(pii::find(&text), entities);
    }
    let ranges: Vec<_> = entities.iter().map(|e| e.start..e.end).collect();
    let places = characters(&text, &ranges);
    let listed: Vec<Value> = entities
        .iter()
        .zip(places)
        .map(|(e, place)| {
            json!({
                "label": e.label,
                "text": text.get(e.start..e.end).unwrap_or_default(),
                "score": e.score,
                "start": place.start,
                "end": place.end,
            })
        })
        .collect();
    if args.redact {
        let clean = pii::redact(&text, &entities);
        // The text of an entity is what is not to be seen.
        let listed = listed.into_iter().map(|mut entity| {
            if let Some(entity) = entity.as_object_mut() {
                entity.remove("text");
            }
            entity
        });
        let listed: Vec<Value> = listed.collect();
        return Ok(Record::new(clean.clone()).with("text", clean).with("entities", listed));
    }
    let shown = |e: &Entity| {
        let words = text.get(e.start..e.end).unwrap_or_default();
        format!("{}: {}", e.label, words.replace(['\n', '\r', '\t'], " "))
    };
    let line = entities.iter().map(shown).collect::<Vec<_>>().join("\t");
    Ok(Record::new(line).with("entities", listed).with("text", text))
}
