//! Texts of a request, and what is done with all of them.

use crate::error::Refusal;
use crate::openai::embeddings::MOST_TEXTS;
use crate::routes::Call;
use crate::schema::{Shape, TEXT};
use kun_engine::EngineError;
use serde_json::Value;

/// A text or a list of texts.
pub(crate) const TEXTS: Shape =
    Shape::Either(&[&TEXT, &Shape::List { of: &TEXT, least: 1, most: MOST_TEXTS }]);

/// The texts of a checked field.
pub(crate) fn texts(call: &Call, name: &str) -> Vec<String> {
    match call.get(name) {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(items)) => {
            items.iter().filter_map(|item| Some(item.as_str()?.to_owned())).collect()
        }
        _ => Vec::new(),
    }
}

/// All answers, or the first that failed with the place of its text.
pub(crate) fn all<T>(name: &str, results: Vec<Result<T, EngineError>>) -> Result<Vec<T>, Refusal> {
    let many = results.len() > 1;
    let named = |(index, result): (usize, Result<T, EngineError>)| {
        result.map_err(|error| {
            let refusal = Refusal::from(error);
            let param = if many { format!("{name}[{index}]") } else { name.to_owned() };
            Refusal { param: refusal.param.clone().or(Some(param)), ..refusal }
        })
    };
    results.into_iter().enumerate().map(named).collect()
}
