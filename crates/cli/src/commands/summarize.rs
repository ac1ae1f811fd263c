//! `kun summarize`.

use super::App;
use super::seq2seq::{Answerer, Stop, answers, chat_answer, document, generation, pieces, write};
use crate::args::SummarizeArgs;
use crate::exit::Misuse;
use kun_engine::Seq2SeqModel;
use kun_engine::seq2seq::Direction;
use kun_engine::seq2seq::Generation;
use serde_json::json;

/// Rounds of summaries of summaries, at most: each is far shorter than the one before.
const MAX_ROUNDS: usize = 8;

/// What a text is cut by, and how its pieces are answered.
type Measure<'a> = &'a dyn Fn(&str) -> anyhow::Result<usize>;
type Answer<'a> = &'a mut dyn FnMut(Vec<String>) -> anyhow::Result<Vec<String>>;

/// Summarises a text. One that is too long is summarised in windows, then its summaries are, until one is left.
pub fn summarize(app: &App, args: &SummarizeArgs) -> anyhow::Result<()> {
    let text = document(app, args.input.as_deref())?;
    let (name, answerer) = app.answerer(args.model.as_deref(), &args.load)?;
    let (summary, windows, kind) = match &answerer {
        Answerer::Seq2Seq(model) => {
            if !model.languages().is_empty() || model.translates_one_way() {
                return Err(Misuse(format!("{name} translates and cannot summarise")).into());
            }
            let direction = model.direction(None, None).map_err(|error| Misuse(error.to_string()))?;
            let (summary, windows) =
                by_model(model, &text, &direction, &generation(model, &args.search), &Stop::new())?;
            (summary, windows, "summarisation model")
        }
        Answerer::Chat(model) => {
            app.messages()
                .note(&format!("{name}, a chat model, answers; --model names a summarisation model."));
            let limit = (model.context_tokens() * 3 / 4).saturating_sub(64).max(1);
            let size = |text: &str| -> anyhow::Result<usize> { Ok(model.tokenize(text)?.len()) };
            let most = args.search.max_tokens.or(Some((model.context_tokens() / 4).max(1)));
            let mut answer = |texts: Vec<String>| -> anyhow::Result<Vec<String>> {
                let instruction = "Summarize the following text in a few sentences. Give only the summary.";
                texts.iter().map(|text| chat_answer(app, model, instruction, text, most)).collect()
            };
            let (summary, windows) = reduce(&text, limit, &size, &mut answer)?;
            (summary, windows, "chat model")
        }
    };
    if windows > 1 {
        app.messages()
            .note(&format!("The text was read in {windows} windows; this is a summary of their summaries."));
    }
    let document = json!({ "text": summary, "windows": windows, "model": name, "answered_by": kind });
    write(app, &args.output, &summary, &document)
}

fn by_model(
    model: &Seq2SeqModel,
    text: &str,
    direction: &Direction,
    generation: &Generation,
    stop: &Stop,
) -> anyhow::Result<(String, usize)> {
    let stated = model.prefixes().iter().find(|(task, _)| task == "summarization");
    let prefix = match stated {
        Some((_, prefix)) => prefix.clone(),
        None if model.info().architecture == "t5" => "summarize: ".to_owned(),
        None => String::new(),
    };
    let size = |text: &str| -> anyhow::Result<usize> {
        Ok(model.encode(&format!("{prefix}{text}"), direction)?.len())
    };
    let mut answer = |texts: Vec<String>| -> anyhow::Result<Vec<String>> {
        let texts: Vec<String> = texts.iter().map(|text| format!("{prefix}{text}")).collect();
        answers(model, &texts, direction, generation, stop)
    };
    reduce(text, model.max_source_tokens(), &size, &mut answer)
}

/// The summary, and how many windows the text took.
fn reduce(
    text: &str,
    limit: usize,
    size: Measure<'_>,
    answer: Answer<'_>,
) -> anyhow::Result<(String, usize)> {
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut windows = pieces(&flat(text), limit, size)?;
    let first = windows.len();
    for _ in 0..MAX_ROUNDS {
        let summaries = answer(windows)?;
        if let [summary] = summaries.as_slice() {
            return Ok((summary.clone(), first));
        }
        windows = pieces(&flat(&summaries.join(" ")), limit, size)?;
    }
    let what = format!(
        "{first} windows are still {} after {MAX_ROUNDS} rounds: this model does not shorten",
        windows.len()
    );
    Err(anyhow::anyhow!(what))
}

#[cfg(test)]
mod tests {
    use super::reduce;

    #[test]
    fn long_texts_are_summarised_in_rounds() {
        let size = |text: &str| -> anyhow::Result<usize> { Ok(text.split_whitespace().count()) };
        let first_words = |texts: Vec<String>| -> anyhow::Result<Vec<String>> {
            let two = |text: &String| text.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
            Ok(texts.iter().map(|text| two(text).trim_end_matches('.').to_owned() + ".").collect())
        };
        let text = "One two three four. ".repeat(20);
        let (summary, windows) = reduce(&text, 8, &size, &mut { first_words }).unwrap();
        assert_eq!((summary.as_str(), windows), ("One two.", 10));
        let (summary, windows) = reduce("One two three four.", 8, &size, &mut { first_words }).unwrap();
        assert_eq!((summary.as_str(), windows), ("One two.", 1));
        let same = |texts: Vec<String>| -> anyhow::Result<Vec<String>> { Ok(texts) };
        assert!(reduce(&text, 8, &size, &mut { same }).is_err());
    }
}
