//! `translate(text, to = 'deu')` and `summarize(text)`: texts written from texts.

use super::answers::{Texts, row_error};
use super::kind::{Bound, Kind, one_column};
use crate::function::{Function, Limits, Outcome, Output, RowError, Stop};
use crate::{BulkError, json};
use arrow_array::ArrayRef;
use arrow_schema::{DataType, Field};
use kun_engine::language::{Languages, WriteOptions, Writer};
use kun_engine::seq2seq::is_seq2seq;
use kun_engine::{Class, Engine, LoadOptions, LoadedModel, Seq2SeqModel};
use serde_json::Value;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub(super) const TRANSLATE: Kind = Kind {
    name: "translate",
    usage: "translate(text, to = 'deu', model, from, beams, max_tokens) -> text",
    options: &["to", "from", "beams", "max_tokens"],
    task: "generate",
    columns: one_column,
    open,
};

pub(super) const SUMMARIZE: Kind = Kind {
    name: "summarize",
    usage: "summarize(text, model, beams, max_tokens) -> text",
    options: &["beams", "max_tokens"],
    task: "generate",
    columns: one_column,
    open,
};

/// Texts at work at once: the engine puts what waits into one step.
const AT_ONCE: usize = 16;

enum Model {
    Seq2Seq(Box<Seq2SeqModel>),
    Chat(Engine, Arc<LoadedModel>),
}

struct Write {
    model: Model,
    column: String,
    options: WriteOptions,
    /// From which language and to which; `None` for summaries.
    languages: Option<(Option<String>, String)>,
}

fn open(bound: &Bound) -> Result<Arc<dyn Function>, BulkError> {
    let (call, context) = (&bound.call, &bound.context);
    let languages = match (call.function.as_str(), call.text("to").ok().flatten()) {
        ("summarize", _) => None,
        (_, Some(to)) => Some((call.text("from")?.map(str::to_owned), to.to_owned())),
        (_, None) => return Err(call.wrong("wants a language: to = 'deu'")),
    };
    if let Some((from, to)) = &languages {
        Languages { from: from.as_deref(), to }.check()?;
    }
    let path = &bound.chosen.model.path;
    let model = if is_seq2seq(path) {
        let options = LoadOptions { threads: context.threads, ..LoadOptions::default() };
        Model::Seq2Seq(Box::new(context.engine.load_seq2seq(path, &options)?))
    } else {
        Model::Chat(context.engine.clone(), context.loaded.decoder(path, context)?)
    };
    let options = WriteOptions {
        beams: call.count("beams")?,
        max_tokens: call.count("max_tokens")?,
        class: Class::Bulk,
        ..WriteOptions::default()
    };
    Ok(Arc::new(Write { model, column: bound.columns[0].clone(), options, languages }))
}

impl Write {
    fn one(&self, text: &str) -> Result<Value, RowError> {
        let writer = match &self.model {
            Model::Seq2Seq(model) => Writer::Seq2Seq(model),
            Model::Chat(engine, model) => Writer::Chat(engine, model),
        };
        let written = match &self.languages {
            None => writer.summarize(text, &self.options).map(|summary| summary.text),
            Some((from, to)) => {
                writer.translate(text, Languages { from: from.as_deref(), to }, &self.options)
            }
        };
        written.map(Value::from).map_err(|error| row_error(&error))
    }
}

impl Function for Write {
    fn output(&self) -> Output {
        Output::column(DataType::Utf8)
    }

    fn limits(&self) -> Limits {
        Limits { rows: 4 * AT_ONCE, ..Limits::default() }
    }

    fn call(&self, columns: &[ArrayRef], _: usize, _: &Stop) -> Result<Outcome, BulkError> {
        let texts = Texts::of(&self.column, &columns[0])?;
        let count = texts.texts.len();
        let answers: Mutex<Vec<Option<Result<Value, RowError>>>> = Mutex::new(vec![None; count]);
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE.min(count) {
                scope.spawn(|| {
                    while let Some((at, text)) = {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        texts.texts.get(at).map(|text| (at, text))
                    } {
                        let answer = self.one(text);
                        answers.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(answer);
                    }
                });
            }
        });
        let answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
        let missing = || Err(RowError::retryable("no answer"));
        let answers = answers.into_iter().map(|answer| answer.unwrap_or_else(missing)).collect();
        texts.outcome(answers, 0, &DataType::Utf8, |values| {
            let field = Field::new("text", DataType::Utf8, true);
            json::array(&field, &values.iter().map(Some).collect::<Vec<_>>())
        })
    }
}
