//! `/v1/translate` and `/v1/summarize`: texts written from texts.

use super::choice::unsuitable;
use super::texts::{TEXTS, texts};
use crate::error::Refusal;
use crate::routes::{Call, Reply};
use crate::schema::{COUNT, Field, NAME, Shape, accepted, optional, required};
use kun_engine::language::{Languages, WriteOptions, Writer};
use kun_engine::{Canceller, Class, Engine, EngineError, Resident};
use serde_json::{Value, json};

const HOW: &[Field] = &[
    optional("model", NAME, "An encoder-decoder or a model that chats; none: one that is here"),
    required("input", TEXTS, "A text or a list, of any length"),
    optional("beams", Shape::Integer { least: 1, most: 16 }, "Beams of an encoder-decoder; 1 is greedy"),
    optional("max_tokens", COUNT, "Most tokens of one answer"),
    optional("priority", Shape::Word(&["interactive", "bulk"]), "Bulk work waits for interactive work"),
    accepted("user", "Whoever the caller asks for"),
];
const LANGUAGE: Shape = Shape::Text { most: 64 };
pub(crate) const TRANSLATE: &[&[Field]] = &[
    HOW,
    &[
        required("to", LANGUAGE, "Language of the answer, as a name or code: German, de, deu"),
        optional("from", LANGUAGE, "Language of the text; none: the model's own"),
    ],
];
pub(crate) const SUMMARIZE: &[&[Field]] = &[HOW];

/// Ends the work when the request is dropped.
struct Leaving(Canceller);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Writes one answer for every text, and tells whether a model that chats did.
async fn run<T: Send + 'static>(
    call: &Call,
    task: &'static str,
    write: impl Fn(Writer<'_>, &str, &WriteOptions) -> Result<T, EngineError> + Send + 'static,
) -> Result<(String, Vec<T>), Refusal> {
    let permits = call.app.reserve(call.tenant, 1)?;
    let (app, name) = (call.app.clone(), call.text("model").map(str::to_owned));
    let input = texts(call, "input");
    let class = if call.text("priority") == Some("bulk") { Class::Bulk } else { Class::Interactive };
    let canceller = Canceller::default();
    let options = WriteOptions {
        beams: call.count("beams"),
        max_tokens: call.count("max_tokens"),
        tenant: call.tenant,
        class,
        canceller: canceller.clone(),
    };
    let _leaving = Leaving(canceller);
    Call::blocking(move || {
        let _permits = permits;
        let found = app.text_model(name.as_deref(), task);
        let (name, model) = match (found, name) {
            // A model that chats writes too, if not as well.
            (Err(refusal), None) if refusal.code == Some("model_not_found") => {
                let name = app.default_model();
                let model = app.library.get(&app.locate(&name)?.path)?;
                (name, model)
            }
            (found, _) => found?,
        };
        let engine: Engine = app.library.engine().clone();
        let writer = match &model {
            Resident::Seq2Seq(model) => Writer::Seq2Seq(model),
            Resident::Decoder(model) => Writer::Chat(&engine, model),
            _ => return Err(unsuitable(&name, "writes no texts")),
        };
        let written =
            input.iter().map(|text| write(writer, text, &options)).collect::<Result<Vec<_>, _>>()?;
        Ok((name, written))
    })
    .await
}

pub(crate) fn translate(call: Call) -> Reply {
    Box::pin(async move {
        let to = call.text("to").unwrap_or_default().to_owned();
        let from = call.text("from").map(str::to_owned);
        Languages { from: from.as_deref(), to: &to }.check()?;
        let (name, written) = run(&call, "translate", move |writer, text, options| {
            writer.translate(text, Languages { from: from.as_deref(), to: &to }, options)
        })
        .await?;
        let data = written.iter().enumerate().map(|(index, text)| json!({ "index": index, "text": text }));
        Ok(call.json(json!({ "object": "list", "model": name, "data": data.collect::<Vec<Value>>() })))
    })
}

pub(crate) fn summarize(call: Call) -> Reply {
    Box::pin(async move {
        let (name, written) =
            run(&call, "summarize", |writer, text, options| writer.summarize(text, options)).await?;
        let data = written.iter().enumerate().map(
            |(index, summary)| json!({ "index": index, "text": summary.text, "windows": summary.windows }),
        );
        Ok(call.json(json!({ "object": "list", "model": name, "data": data.collect::<Vec<Value>>() })))
    })
}
