//! `generate(prompt)`: what a chat model answers, as text or as an object of a schema.

mod schema;
mod template;

use super::answers::{row_error, spread};
use super::kind::{Bound, Kind};
use super::loaded::SEQUENCES;
use crate::function::{Function, Limits, Outcome, Output, RowError, Stop};
use crate::{Argument, BulkError, Call, cells, json};
use arrow_array::{ArrayRef, StringArray};
use arrow_schema::{DataType, Field};
use kun_engine::{
    ChatMessage, Class, Constraint, Engine, EngineError, Event, FinishReason, GenerateRequest,
    GenerateStream, LoadedModel, Prompt, Role, SamplingOptions,
};
use serde_json::Value;
use std::sync::Arc;
use template::Template;

pub(super) const GENERATE: Kind = Kind {
    name: "generate",
    usage: "generate('Summarise: {text}', model, system, schema, max_tokens, temperature, top_p, seed, stop, thinking) \
            -> text, or an object of the JSON schema",
    options: &["system", "schema", "max_tokens", "temperature", "top_p", "seed", "stop", "thinking"],
    task: "generate",
    columns,
    open,
};

/// The texts and, marked true, the columns of a prompt, in order.
///
/// # Errors
/// What is wrong with its braces.
#[cfg(feature = "sql")]
pub(crate) fn prompt_parts(text: &str) -> Result<Vec<(bool, String)>, String> {
    Ok(Template::parse(text)?.parts())
}

/// The template of a call: its text, or one column as it is.
fn template(call: &Call) -> Result<Template, BulkError> {
    match call.arguments.as_slice() {
        [Argument::Literal(Value::String(text))] => Template::parse(text).map_err(|what| call.wrong(what)),
        [Argument::Column(name)] => Ok(Template::column(name)),
        _ => Err(call.wrong("takes one text with columns in braces, such as 'Summarise: {text}'")),
    }
}

fn columns(call: &Call) -> Result<Vec<String>, BulkError> {
    let columns = template(call)?.columns();
    if columns.is_empty() {
        return Err(call.wrong("has a prompt without a column: every row would be asked the same"));
    }
    Ok(columns)
}

struct Generate {
    engine: Engine,
    model: Arc<LoadedModel>,
    columns: Vec<String>,
    template: Template,
    /// A request with everything but its prompt.
    request: GenerateRequest,
    system: Option<String>,
    /// What answers are held to: their column, if it is no text.
    object: Option<Field>,
}

fn open(bound: &Bound) -> Result<Arc<dyn Function>, BulkError> {
    let call = &bound.call;
    let schema = match call.options.get("schema") {
        None | Some(Value::Null) => None,
        // In a call on the command line, a schema is a text of JSON.
        Some(Value::String(text)) => {
            let schema: Value = serde_json::from_str(text)
                .map_err(|error| call.wrong(format!("wants JSON for `schema`: {error}")))?;
            Some(schema)
        }
        Some(schema) => Some(schema.clone()),
    };
    let object = schema.as_ref().map(|schema| schema::field(&call.column, schema));
    let model = bound.context.loaded.decoder(&bound.chosen.model.path, &bound.context)?;
    let sampling = SamplingOptions {
        temperature: call.number("temperature")?.unwrap_or(0.0),
        top_p: call.number("top_p")?.unwrap_or(1.0),
        // The same row gets the same answer, whichever machine asks and however often.
        seed: Some(call.count("seed")?.unwrap_or(0) as u64),
        ..SamplingOptions::default()
    };
    let stop = match call.options.get("stop") {
        Some(Value::String(text)) => vec![text.clone()],
        _ => call.texts("stop")?,
    };
    let request = GenerateRequest {
        sampling,
        max_tokens: call.count("max_tokens")?,
        stop,
        template_variables: vec![("enable_thinking".to_owned(), call.switch("thinking")? == Some(true))],
        constraint: schema.map(Constraint::JsonSchema),
        class: Class::Bulk,
        ..GenerateRequest::new(Prompt::Chat(vec![ChatMessage::new(Role::User, String::new())]))
    };
    request.check(model.info().vocab_size)?;
    Ok(Arc::new(Generate {
        engine: bound.context.engine.clone(),
        model,
        columns: bound.columns.clone(),
        template: template(call)?,
        request,
        system: call.text("system")?.map(str::to_owned),
        object,
    }))
}

/// What came of one request.
struct Written {
    text: String,
    reason: FinishReason,
    tokens: u64,
}

impl Generate {
    fn ask(&self, prompt: String) -> Result<GenerateStream, EngineError> {
        let system = self.system.iter().map(|text| ChatMessage::new(Role::System, text.clone()));
        let messages = system.chain([ChatMessage::new(Role::User, prompt)]).collect();
        let request = GenerateRequest { prompt: Prompt::Chat(messages), ..self.request.clone() };
        self.engine.generate(&self.model, request)
    }

    fn value(&self, written: &Written) -> Result<Value, RowError> {
        let text = written.text.trim();
        let Some(field) = &self.object else { return Ok(Value::from(text)) };
        let value: Value = serde_json::from_str(text).map_err(|error| match written.reason {
            FinishReason::Length => {
                RowError::fatal("the answer is cut off: max_tokens or the context is too small")
            }
            _ => RowError::fatal(format!("the answer is no JSON: {error}")),
        })?;
        json::fits(field, &value).map_err(RowError::fatal)?;
        Ok(value)
    }
}

fn collect(stream: GenerateStream) -> Result<Written, EngineError> {
    let mut text = String::new();
    for event in stream {
        match event? {
            Event::Token { text: more, .. } => text.push_str(&more),
            Event::Done { reason, text: more, usage } => {
                text.push_str(&more);
                let tokens = (usage.prompt_tokens + usage.completion_tokens) as u64;
                return Ok(Written { text, reason, tokens });
            }
        }
    }
    Err(EngineError::Unloaded)
}

impl Function for Generate {
    fn output(&self) -> Output {
        Output::column(self.object.as_ref().map_or(DataType::Utf8, |field| field.data_type().clone()))
    }

    fn limits(&self) -> Limits {
        Limits { rows: 8 * SEQUENCES, ..Limits::default() }
    }

    fn call(&self, columns: &[ArrayRef], rows: usize, _: &Stop) -> Result<Outcome, BulkError> {
        let texts = self
            .columns
            .iter()
            .zip(columns)
            .map(|(name, column)| cells::texts(name, column))
            .collect::<Result<Vec<StringArray>, _>>()?;
        // All are asked at once: the engine's queue keeps its steps full.
        let asked: Vec<Result<GenerateStream, RowError>> = (0..rows)
            .map(|row| {
                let values = texts.iter().zip(columns).map(|(texts, column)| cells::text(texts, column, row));
                let values = values.collect::<Result<Vec<&str>, RowError>>()?;
                self.ask(self.template.fill(&values)).map_err(|error| row_error(&error))
            })
            .collect();
        let (mut good, mut errors, mut tokens) = (Vec::new(), Vec::new(), 0);
        let mut places: Vec<Option<u32>> = vec![None; rows];
        for (row, stream) in asked.into_iter().enumerate() {
            let answer = stream.and_then(|stream| {
                let written = collect(stream).map_err(|error| row_error(&error))?;
                tokens += written.tokens;
                self.value(&written)
            });
            match answer {
                Ok(value) => {
                    places[row] = u32::try_from(good.len()).ok();
                    good.push(value);
                }
                Err(error) => errors.push((row, error)),
            }
        }
        let plain = Field::new("text", DataType::Utf8, true);
        let field = self.object.as_ref().unwrap_or(&plain);
        spread(good, &places, errors, tokens, field.data_type(), |values| {
            json::array(field, &values.iter().map(Some).collect::<Vec<_>>())
        })
    }
}
