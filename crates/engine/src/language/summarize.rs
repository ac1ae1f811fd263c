//! Summaries, of summaries where a text is too long.

use super::cut::{Measure, pieces};
use super::{WriteOptions, Writer, answers, chat_answer};
use crate::{EngineError, Seq2SeqModel};

/// Rounds of summaries of summaries, at most: each is far shorter than the one before.
const MAX_ROUNDS: usize = 8;

type Answer<'a> = &'a mut dyn FnMut(Vec<String>) -> Result<Vec<String>, EngineError>;

/// A summary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its text.
    pub text: String,
    /// Windows that the text was read in; with more than one this is a summary of their summaries.
    pub windows: usize,
}

impl Writer<'_> {
    /// Summarises a text. One that is too long is summarised in windows, then its summaries are, until one is left.
    ///
    /// # Errors
    /// [`EngineError::Unsuitable`] for a model that only translates or does not shorten, [`EngineError::Cancelled`], those
    /// of the steps.
    pub fn summarize(&self, text: &str, options: &WriteOptions) -> Result<Summary, EngineError> {
        match self {
            Writer::Seq2Seq(model) => by_model(model, text, options),
            Writer::Chat(engine, model) => {
                let limit = (model.context_tokens() * 3 / 4).saturating_sub(64).max(1);
                let size = |text: &str| Ok(model.tokenize(text)?.len());
                let max_tokens = options.max_tokens.or(Some((model.context_tokens() / 4).max(1)));
                let options = WriteOptions { max_tokens, ..options.clone() };
                let mut answer = |texts: Vec<String>| {
                    let instruction =
                        "Summarize the following text in a few sentences. Give only the summary.";
                    texts.iter().map(|text| chat_answer(engine, model, instruction, text, &options)).collect()
                };
                reduce(text, limit, &size, &mut answer)
            }
        }
    }
}

fn by_model(model: &Seq2SeqModel, text: &str, options: &WriteOptions) -> Result<Summary, EngineError> {
    if !model.languages().is_empty() || model.translates_one_way() {
        let what = "the model translates and cannot summarise".to_owned();
        return Err(EngineError::Unsuitable { what });
    }
    let direction =
        model.direction(None, None).map_err(|error| EngineError::Unsuitable { what: error.to_string() })?;
    let stated = model.prefixes().iter().find(|(task, _)| task == "summarization");
    let prefix = match stated {
        Some((_, prefix)) => prefix.clone(),
        None if model.info().architecture == "t5" => "summarize: ".to_owned(),
        None => String::new(),
    };
    let size = |text: &str| Ok(model.encode(&format!("{prefix}{text}"), &direction)?.len());
    let mut answer = |texts: Vec<String>| {
        let texts: Vec<String> = texts.iter().map(|text| format!("{prefix}{text}")).collect();
        answers(model, &texts, &direction, options)
    };
    reduce(text, model.max_source_tokens(), &size, &mut answer)
}

/// The summary, and how many windows the text took.
fn reduce(text: &str, limit: usize, size: Measure<'_>, answer: Answer<'_>) -> Result<Summary, EngineError> {
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut windows = pieces(&flat(text), limit, size)?;
    let first = windows.len();
    for _ in 0..MAX_ROUNDS {
        let summaries = answer(windows)?;
        if let [summary] = summaries.as_slice() {
            return Ok(Summary { text: summary.clone(), windows: first });
        }
        windows = pieces(&flat(&summaries.join(" ")), limit, size)?;
    }
    let what = format!(
        "{first} windows are still {} after {MAX_ROUNDS} rounds: this model does not shorten",
        windows.len()
    );
    Err(EngineError::Unsuitable { what })
}

#[cfg(test)]
mod tests {
    use super::{Summary, reduce};
    use crate::EngineError;

    #[test]
    fn long_texts_are_summarised_in_rounds() {
        let size = |text: &str| -> Result<usize, EngineError> { Ok(text.split_whitespace().count()) };
        let first_words = |texts: Vec<String>| -> Result<Vec<String>, EngineError> {
            let two = |text: &String| text.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
            Ok(texts.iter().map(|text| two(text).trim_end_matches('.').to_owned() + ".").collect())
        };
        let text = "One two three four. ".repeat(20);
        let Summary { text: summary, windows } = reduce(&text, 8, &size, &mut { first_words }).unwrap();
        assert_eq!((summary.as_str(), windows), ("One two.", 10));
        let Summary { text: summary, windows } =
            reduce("One two three four.", 8, &size, &mut { first_words }).unwrap();
        assert_eq!((summary.as_str(), windows), ("One two.", 1));
        let same = |texts: Vec<String>| -> Result<Vec<String>, EngineError> { Ok(texts) };
        assert!(reduce(&text, 8, &size, &mut { same }).is_err());
    }
}
