//! `rerank`, `classify`, `extract` and `answer`: what encoders say about texts.

use super::answers::{Texts, row_error};
use super::kind::{Bound, Kind, constant, fitting, one_column, two};
use crate::function::{Context, Factory, Function, Outcome, Output, Prepared, RowError, Stop};
use crate::{BulkError, Call, json};
use arrow_array::ArrayRef;
use arrow_schema::{DataType, Field};
use kun_engine::text::{Aggregation, Answer, Entity, SpanOptions, characters, pii};
use kun_engine::{AnswerOptions, EngineError, ExtractOptions, Head, LoadedEncoder, RankOptions, ZeroShot};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) const RERANK: Kind = Kind {
    name: "rerank",
    usage: "rerank(query, document, model, truncate) -> number: how well a document answers a query",
    options: &["truncate"],
    task: "rerank",
    columns: two,
    open: open_rerank,
};

pub(super) const CLASSIFY: Kind = Kind {
    name: "classify",
    usage: "classify(text, labels = 'a,b', model, template, multi_label, threshold, truncate) -> {label, score}, \
            or with multi_label a list of those that hold",
    options: &["labels", "template", "multi_label", "threshold", "truncate"],
    task: "classify",
    columns: one_column,
    open: open_classify,
};

const NAMES: Kind = Kind {
    name: "extract",
    usage: "extract(text, model, min_score, pii) -> list of {label, text, score, start, end}: names in a text, or with pii \
            what has a form (addresses, numbers), and names too if a model is named",
    options: &["min_score", "pii"],
    task: "extract",
    columns: one_column,
    open: open_extract,
};

/// `extract`, which needs no model for personal data that its form shows.
pub(super) struct Extract;

impl Factory for Extract {
    fn name(&self) -> &'static str {
        NAMES.name
    }

    fn usage(&self) -> &'static str {
        NAMES.usage
    }

    fn prepare(&self, call: &Call, context: &Context) -> Result<Arc<dyn Prepared>, BulkError> {
        if call.switch("pii")? != Some(true) || call.text("model")?.is_some() {
            return NAMES.prepare(call, context);
        }
        call.check_options(&[&["model"], NAMES.options].concat())?;
        Ok(Arc::new(Forms { columns: one_column(call)?, column: call.column.clone() }))
    }
}

/// A call of `extract` without a model.
struct Forms {
    columns: Vec<String>,
    /// Of the result.
    column: String,
}

impl Prepared for Forms {
    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn identity(&self) -> Value {
        json!({ "function": NAMES.name, "forms": 1 })
    }

    fn open(&self) -> Result<Arc<dyn Function>, BulkError> {
        Ok(Arc::new(Judge {
            first: None,
            columns: self.columns.clone(),
            field: Field::new(&self.column, list_of(entity_type()), true),
            judge: |_: &str, texts: &[String]| {
                Ok((texts.iter().map(|text| Ok(entities_value(text, &pii::find(text)))).collect(), 0))
            },
        }))
    }
}

pub(super) const ANSWER: Kind = Kind {
    name: "answer",
    usage: "answer(question, text, model) -> {answer, score, start, end}: a question answered with words of the text",
    options: &[],
    task: "answer",
    columns: two,
    open: open_answer,
};

/// Results as JSON that fit the field, made a column at once.
type Judged = Result<(Vec<Result<Value, RowError>>, u64), BulkError>;

/// A function from texts to values, with a first text that all rows share or that is a column of its own.
struct Judge<F> {
    first: Option<String>,
    columns: Vec<String>,
    field: Field,
    judge: F,
}

impl<F: Fn(&str, &[String]) -> Judged + Send + Sync> Function for Judge<F> {
    fn output(&self) -> Output {
        Output::column(self.field.data_type().clone())
    }

    fn call(&self, columns: &[ArrayRef], _: usize, _: &Stop) -> Result<Outcome, BulkError> {
        let (last, name) = (&columns[columns.len() - 1], &self.columns[columns.len() - 1]);
        let texts = Texts::of(name, last)?;
        let (answers, tokens) = match (&self.first, columns.len()) {
            (None, 2..) => self.by_column(&columns[0], &texts)?,
            (first, _) => (self.judge)(first.as_deref().unwrap_or_default(), &texts.texts)?,
        };
        texts.outcome(answers, tokens, self.field.data_type(), |values| {
            json::array(&self.field, &values.iter().map(Some).collect::<Vec<_>>())
        })
    }
}

impl<F: Fn(&str, &[String]) -> Judged> Judge<F> {
    /// Rows with the same first text are judged together.
    fn by_column(&self, column: &ArrayRef, texts: &Texts) -> Judged {
        let firsts = crate::cells::texts(&self.columns[0], column)?;
        let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut answers: Vec<Result<Value, RowError>> = Vec::with_capacity(texts.rows.len());
        for (at, row) in texts.rows.iter().enumerate() {
            answers.push(match crate::cells::text(&firsts, column, *row) {
                Ok(first) => {
                    groups.entry(first.to_owned()).or_default().push(at);
                    Ok(Value::Null)
                }
                Err(error) => Err(error),
            });
        }
        let mut tokens = 0;
        for (first, places) in groups {
            let own: Vec<String> = places.iter().map(|at| texts.texts[*at].clone()).collect();
            let (judged, more) = (self.judge)(&first, &own)?;
            tokens += more;
            for (at, answer) in places.into_iter().zip(judged) {
                answers[at] = answer;
            }
        }
        Ok((answers, tokens))
    }
}

fn judge(
    bound: &Bound,
    data_type: DataType,
    judge: impl Fn(&str, &[String]) -> Judged + Send + Sync + 'static,
) -> Arc<dyn Function> {
    Arc::new(Judge {
        first: constant(&bound.call).map(str::to_owned),
        columns: bound.columns.clone(),
        field: Field::new(&bound.call.column, data_type, true),
        judge,
    })
}

/// Results of the engine as results of rows.
fn rows<T>(results: Vec<Result<T, EngineError>>, value: impl Fn(T) -> Value) -> Judged {
    Ok((results.into_iter().map(|r| r.map(&value).map_err(|error| row_error(&error))).collect(), 0))
}

fn open_rerank(bound: &Bound) -> Result<Arc<dyn Function>, BulkError> {
    let model = bound.encoder()?;
    let options = RankOptions { fitting: fitting(&bound.call)?, instruction: None };
    model.rank("", &[], &options)?;
    Ok(judge(bound, DataType::Float32, move |query, documents| {
        rows(model.rank(query, documents, &options)?, |score| json!(score.score))
    }))
}

fn structure(fields: &[(&str, DataType)]) -> DataType {
    DataType::Struct(fields.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect())
}

fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

fn open_classify(bound: &Bound) -> Result<Arc<dyn Function>, BulkError> {
    let (call, model) = (&bound.call, bound.encoder()?);
    let (given, fitting) = (call.texts("labels")?, fitting(call)?);
    let multi_label = call.switch("multi_label")? == Some(true);
    let task = ZeroShot {
        labels: given.clone(),
        template: call.text("template")?.map(str::to_owned),
        multi_label,
        fitting,
    };
    let own = given.is_empty();
    let labels = if own { model.info().labels.clone() } else { given };
    // What is wrong with model or labels is said once.
    match own {
        true if matches!(model.info().head, Head::Embedding { .. }) => {
            return Err(call.wrong("needs labels = 'a,b', or a model that has some"));
        }
        true => drop(model.classify(&[], fitting)?),
        false => drop(model.zero_shot(&[], &task)?),
    }
    let holds = match multi_label {
        true => model.holds_from(call.number("threshold")?).map_err(|error| call.wrong(error))?,
        false => 0.0,
    };
    let one = structure(&[("label", DataType::Utf8), ("score", DataType::Float32)]);
    let data_type = if multi_label { list_of(one) } else { one };
    Ok(judge(bound, data_type, move |_, texts| {
        let scored = if own { model.classify(texts, fitting)? } else { model.zero_shot(texts, &task)? };
        rows(scored, |classified| {
            let scores = classified.scores;
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            let name = |place: usize| labels.get(place).cloned().unwrap_or_else(|| format!("LABEL_{place}"));
            let entry = |place: usize| json!({ "label": name(place), "score": scores[place] });
            match multi_label {
                true => order.into_iter().filter(|&place| scores[place] >= holds).map(entry).collect(),
                false => order.first().map_or(Value::Null, |&best| entry(best)),
            }
        })
    }))
}

fn open_extract(bound: &Bound) -> Result<Arc<dyn Function>, BulkError> {
    let call = &bound.call;
    let (min_score, with_forms) =
        (call.number("min_score")?.unwrap_or(0.0), call.switch("pii")? == Some(true));
    let model: Arc<LoadedEncoder> = bound.encoder()?;
    let options = ExtractOptions { aggregation: Aggregation::Simple, ..ExtractOptions::default() };
    model.extract(&[], &options)?;
    Ok(judge(bound, list_of(entity_type()), move |_, texts| {
        let found = model.extract(texts, &options)?;
        let answers = texts.iter().zip(found).map(|(text, found)| {
            let mut entities: Vec<Entity> = found.map_err(|error| row_error(&error))?;
            entities.retain(|entity| entity.score >= min_score);
            if with_forms {
                entities = pii::merge(pii::find(text), entities);
            }
            Ok(entities_value(text, &entities))
        });
        Ok((answers.collect(), 0))
    }))
}

fn entity_type() -> DataType {
    structure(&[
        ("label", DataType::Utf8),
        ("text", DataType::Utf8),
        ("score", DataType::Float32),
        ("start", DataType::Int64),
        ("end", DataType::Int64),
    ])
}

fn entities_value(text: &str, entities: &[Entity]) -> Value {
    let ranges: Vec<_> = entities.iter().map(|entity| entity.start..entity.end).collect();
    let places = characters(text, &ranges);
    let entry = |(entity, place): (&Entity, std::ops::Range<usize>)| {
        json!({
            "label": entity.label,
            "text": text.get(entity.start..entity.end).unwrap_or_default(),
            "score": entity.score,
            "start": place.start,
            "end": place.end,
        })
    };
    entities.iter().zip(places).map(entry).collect()
}

fn open_answer(bound: &Bound) -> Result<Arc<dyn Function>, BulkError> {
    let model = bound.encoder()?;
    let options = AnswerOptions {
        spans: SpanOptions { top_k: 1, ..SpanOptions::default() },
        ..AnswerOptions::default()
    };
    model.answer(constant(&bound.call).unwrap_or("?"), &[], &options)?;
    let data_type = structure(&[
        ("answer", DataType::Utf8),
        ("score", DataType::Float32),
        ("start", DataType::Int64),
        ("end", DataType::Int64),
    ]);
    Ok(judge(bound, data_type, move |question, documents| {
        // A question that leaves no room for a document is an error of the rows that ask it.
        let found = match model.answer(question, documents, &options) {
            Ok(found) => found,
            Err(error) => return Ok((documents.iter().map(|_| Err(row_error(&error))).collect(), 0)),
        };
        let answers = documents.iter().zip(found).map(|(document, found)| {
            let found = found.map_err(|error| row_error(&error))?;
            Ok(found.first().map_or(Value::Null, |answer| span_value(document, answer)))
        });
        Ok((answers.collect(), 0))
    }))
}

fn span_value(document: &str, answer: &Answer) -> Value {
    let place = characters(document, std::slice::from_ref(&answer.bytes)).pop().unwrap_or_default();
    json!({
        "answer": document.get(answer.bytes.clone()).unwrap_or_default(),
        "score": answer.score,
        "start": place.start,
        "end": place.end,
    })
}
