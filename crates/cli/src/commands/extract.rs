//! `kun extract`.

use super::{App, chat_task};
use crate::args::{Aggregate, ExtractArgs};
use crate::exit::Misuse;
use crate::rows::{self, Job, Record, RowResult};
use kun_engine::text::{Aggregation, Entity, characters, pii};
use kun_engine::{ExtractOptions, LoadedEncoder, is_encoder};
use serde_json::{Value, json};
use std::sync::Arc;

/// What answers, besides forms.
enum Extractor {
    /// A model that labels tokens, and the only labels that are wanted, if some are.
    Tokens(Arc<LoadedEncoder>, ExtractOptions, Vec<String>),
    /// A chat model.
    Chat(chat_task::Kinds),
}

/// Finds entities.
pub fn extract(app: &App, args: &ExtractArgs) -> anyhow::Result<()> {
    let (model, extractor) = choose(app, args)?;
    let columns: &[&str] = if args.redact { &["text", "entities"] } else { &["entities", "text"] };
    let job = Job { name: "extract", columns, model: &model };
    job.run(app, &args.input, &args.output, |texts| {
        let found = match &extractor {
            None => texts.iter().map(|_| Ok(Vec::new())).collect(),
            Some(extractor) => extractor.run(app, &texts),
        };
        let scored = !matches!(extractor, Some(Extractor::Chat(_)));
        texts.into_iter().zip(found).map(|(text, found)| record(text, found, args, scored)).collect()
    })
}

fn choose(app: &App, args: &ExtractArgs) -> anyhow::Result<(String, Option<Extractor>)> {
    let name = match &args.model {
        Some(name) => name.clone(),
        None if !args.labels.is_empty() => chat_task::present(app)?.ok_or_else(|| {
            let chat = app.hub().catalog().default_chat().to_owned();
            Misuse(format!("who is to look? no chat model is here: `kun pull {chat}`, or give -m MODEL"))
        })?,
        None if args.pii => return Ok(("forms".to_owned(), None)),
        None => {
            let what =
                "what to look for? give --pii, --labels person,place, or a model such as -m bert-base-ner";
            return Err(Misuse(what.to_owned()).into());
        }
    };
    let path = app.fetch(&name)?;
    if !is_encoder(&path.path)? {
        if args.labels.is_empty() {
            return Err(Misuse(format!("{} chats: give the --labels to look for", path.name)).into());
        }
        if args.min_score > 0.0 {
            return Err(Misuse(format!("{} chats, and gives no scores for --min-score", path.name)).into());
        }
        let (path, model, _) = app.load(&name, &chat_task::load_options(&args.load))?;
        app.messages().note(&format!("{} answers; what is not in the text is left out.", path.name));
        return Ok((path.name, Some(Extractor::Chat(chat_task::Kinds::new(model, &args.labels)))));
    }
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
    let known = kinds(&model.info().labels);
    if let Some(other) = args.labels.iter().find(|asked| !is_among(&known, asked)) {
        return Err(Misuse(format!("{} finds no `{other}`, only {}", path.name, known.join(", "))).into());
    }
    Ok((path.name, Some(Extractor::Tokens(model, options, args.labels.clone()))))
}

/// What the labels of tokens stand for, each once, without `B-` and the like.
fn kinds(labels: &[String]) -> Vec<String> {
    let mut kinds: Vec<String> = Vec::new();
    for kind in labels.iter().map(|label| kind(label)).filter(|kind| *kind != "O") {
        if !is_among(&kinds, kind) {
            kinds.push(kind.to_owned());
        }
    }
    kinds
}

fn kind(label: &str) -> &str {
    label.split_once('-').filter(|(mark, _)| mark.len() == 1).map_or(label, |(_, kind)| kind)
}

fn is_among(names: &[String], name: &str) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

impl Extractor {
    fn run(&self, app: &App, texts: &[String]) -> Vec<anyhow::Result<Vec<Entity>>> {
        match self {
            Extractor::Tokens(model, options, wanted) => match model.extract(texts, options) {
                Ok(found) => found
                    .into_iter()
                    .map(|found| {
                        let is_wanted = |e: &Entity| wanted.is_empty() || is_among(wanted, kind(&e.label));
                        Ok(found?.into_iter().filter(is_wanted).collect())
                    })
                    .collect(),
                Err(error) => {
                    let error = Arc::new(error);
                    texts.iter().map(|_| Err(anyhow::Error::new(error.clone()))).collect()
                }
            },
            Extractor::Chat(kinds) => {
                let mut found = Vec::with_capacity(texts.len());
                for text in texts {
                    found.push(kinds.find(app, text));
                    if found.last().is_some_and(|found| found.as_ref().is_err_and(rows::is_interrupted)) {
                        break;
                    }
                }
                found
            }
        }
    }
}

/// The scores of what a chat model found say nothing: they are left out.
fn record(text: String, found: anyhow::Result<Vec<Entity>>, args: &ExtractArgs, scored: bool) -> RowResult {
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
            let mut listed = json!({
                "label": e.label,
                "text": text.get(e.start..e.end).unwrap_or_default(),
                "start": place.start,
                "end": place.end,
            });
            if scored {
                listed["score"] = json!(e.score);
            }
            listed
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
