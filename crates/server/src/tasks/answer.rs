//! `/v1/answer`: a question answered with words of documents.

use super::choice::unsuitable;
use super::texts::{TEXTS, all, texts};
use crate::routes::{Call, Reply};
use crate::schema::{Field, NAME, Shape, TEXT, accepted, optional, required};
use kun_engine::text::{SpanOptions, characters};
use kun_engine::{AnswerOptions, Resident};
use serde_json::{Value, json};

pub(crate) const FIELDS: &[&[Field]] = &[&[
    optional("model", NAME, "A model that points at answers; none: the catalogue's"),
    required("question", TEXT, "What is asked"),
    required("documents", TEXTS, "A text or a list, of any length"),
    optional("top", Shape::Integer { least: 1, most: 100 }, "Answers of each document; default 1"),
    optional("max_answer_tokens", Shape::Integer { least: 1, most: 512 }, "Longest answer"),
    optional("may_be_none", Shape::Bool, "A document may have no answer"),
    accepted("user", "Whoever the caller asks for"),
]];

pub(crate) fn create(call: Call) -> Reply {
    Box::pin(async move {
        let permits = call.app.reserve(call.tenant, 1)?;
        let (app, name) = (call.app.clone(), call.text("model").map(str::to_owned));
        let question = call.text("question").unwrap_or_default().to_owned();
        let documents = texts(&call, "documents");
        let default = SpanOptions::default();
        let spans = SpanOptions {
            max_tokens: call.count("max_answer_tokens").unwrap_or(default.max_tokens),
            top_k: call.count("top").unwrap_or(1),
            may_be_none: call.flag("may_be_none"),
        };
        let (name, data) = Call::blocking(move || {
            let _permits = permits;
            let (name, model) = app.text_model(name.as_deref(), "answer")?;
            let Resident::Encoder(model) = model else {
                return Err(unsuitable(&name, "points at no answers"));
            };
            let options = AnswerOptions { spans, ..AnswerOptions::default() };
            let found = all("documents", model.answer(&question, &documents, &options)?)?;
            let data: Vec<Value> = documents
                .iter()
                .zip(&found)
                .enumerate()
                .map(|(index, (document, answers))| {
                    let ranges: Vec<_> = answers.iter().map(|answer| answer.bytes.clone()).collect();
                    let answers = answers.iter().zip(characters(document, &ranges)).map(|(answer, place)| {
                        json!({
                            "answer": document.get(answer.bytes.clone()).unwrap_or_default(),
                            "score": answer.score,
                            "start": place.start,
                            "end": place.end,
                        })
                    });
                    json!({ "index": index, "answers": answers.collect::<Vec<_>>() })
                })
                .collect();
            Ok((name, data))
        })
        .await?;
        Ok(call.json(json!({ "object": "list", "model": name, "data": data })))
    })
}
