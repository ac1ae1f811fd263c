//! `kun translate`.

use super::App;
use super::seq2seq::{Answerer, Stop, answers, chat_answer, document, generation, pieces, sentences, write};
use crate::args::TranslateArgs;
use crate::exit::Misuse;
use kun_engine::seq2seq::{Language, LanguageError};
use kun_engine::{LoadedModel, Seq2SeqModel};
use serde_json::json;

/// Translates a text; lines and blank lines stay where they are.
pub fn translate(app: &App, args: &TranslateArgs) -> anyhow::Result<()> {
    let text = document(app, args.input.as_deref())?;
    for asked in std::iter::once(&args.to).chain(&args.from) {
        // Models' own names are no codes, and are looked up when the model is there.
        if Language::parse(asked).is_none() && !asked.contains('_') {
            return Err(Misuse(LanguageError::Unknown { asked: asked.clone() }.to_string()).into());
        }
    }
    let (name, answerer) = app.answerer(args.model.as_deref(), &args.load)?;
    let lines: Vec<&str> = text.lines().collect();
    let (translated, kind) = match &answerer {
        Answerer::Seq2Seq(model) => (by_model(model, &lines, args, &Stop::new())?, "translation model"),
        Answerer::Chat(model) => {
            app.messages()
                .note(&format!("{name}, a chat model, answers; --model names a translation model."));
            (by_chat(app, model, &lines, args)?, "chat model")
        }
    };
    let text = translated.join("\n");
    let document = json!({
        "text": text,
        "to": args.to,
        "from": args.from,
        "model": name,
        "answered_by": kind,
    });
    write(app, &args.output, &text, &document)
}

/// Every sentence of every line, or as many of them as the model takes at once.
fn by_model(
    model: &Seq2SeqModel,
    lines: &[&str],
    args: &TranslateArgs,
    stop: &Stop,
) -> anyhow::Result<Vec<String>> {
    let misuse = |error: LanguageError| anyhow::Error::new(Misuse(error.to_string()));
    let tagged = !model.languages().is_empty() || model.translates_one_way();
    let direction = match tagged {
        true => model.direction(args.from.as_deref(), Some(&args.to)),
        false => model.direction(None, None),
    }
    .map_err(misuse)?;
    let prefix = if tagged { String::new() } else { prefix(model, args)? };
    let size = |text: &str| -> anyhow::Result<usize> {
        Ok(model.encode(&format!("{prefix}{text}"), &direction)?.len())
    };
    let mut texts = Vec::new();
    let mut counts = Vec::with_capacity(lines.len());
    for line in lines {
        // Models are taught on sentences.
        let mut count = 0;
        for sentence in sentences(line) {
            let parts = pieces(sentence, model.max_source_tokens(), &size)?;
            count += parts.len();
            texts.extend(parts.into_iter().map(|part| format!("{prefix}{part}")));
        }
        counts.push(count);
    }
    let mut translated =
        answers(model, &texts, &direction, &generation(model, &args.search), stop)?.into_iter();
    Ok(lines
        .iter()
        .zip(counts)
        .map(|(line, count)| indented(line, &translated.by_ref().take(count).collect::<Vec<_>>()))
        .collect())
}

/// A line in place of another, with the white space that it begins with. Chinese and Japanese need none between sentences.
fn indented(line: &str, sentences: &[String]) -> String {
    let indent = &line[..line.len() - line.trim_start().len()];
    let mut text = String::from(if sentences.is_empty() { "" } else { indent });
    for (i, sentence) in sentences.iter().enumerate() {
        let close = i > 0 && sentences[i - 1].ends_with(['。', '！', '？']);
        if i > 0 && !close {
            text.push(' ');
        }
        text.push_str(sentence);
    }
    text
}

/// What a model without tokens for languages wants before a text: as its folder says, or T5's own words.
fn prefix(model: &Seq2SeqModel, args: &TranslateArgs) -> anyhow::Result<String> {
    let language = |asked: &str| {
        Language::parse(asked)
            .ok_or_else(|| Misuse(LanguageError::Unknown { asked: asked.to_owned() }.to_string()))
    };
    let (from, to) = (language(args.from.as_deref().unwrap_or("eng"))?, language(&args.to)?);
    let own: Vec<&(String, String)> =
        model.prefixes().iter().filter(|(task, _)| task.starts_with("translation_")).collect();
    let fits = |task: &str| {
        let mut codes = task.trim_start_matches("translation_").split("_to_").map(Language::parse);
        let (source, target) = (codes.next().flatten(), codes.next().flatten());
        source.is_some_and(|source| from.fit(&source).is_some())
            && target.is_some_and(|target| to.fit(&target).is_some())
    };
    match own.iter().find(|(task, _)| fits(task)) {
        Some((_, prefix)) => Ok(prefix.clone()),
        None if own.is_empty() => Ok(format!("translate {} to {}: ", from.name(), to.name())),
        None => {
            let known: Vec<&str> = own.iter().map(|(task, _)| task.as_str()).collect();
            let what =
                format!("this model has no {} to {}; it has {}", from.name(), to.name(), known.join(", "));
            Err(Misuse(what).into())
        }
    }
}

fn by_chat(
    app: &App,
    model: &LoadedModel,
    lines: &[&str],
    args: &TranslateArgs,
) -> anyhow::Result<Vec<String>> {
    let name = |asked: &str| Language::parse(asked).map_or_else(|| asked.to_owned(), |l| l.name().to_owned());
    let from = args.from.as_deref().map(|from| format!(" from {}", name(from))).unwrap_or_default();
    let instruction =
        format!("Translate the following text{from} to {}. Give only the translation.", name(&args.to));
    // Half of the context is the answer's.
    let limit = (model.context_tokens() / 2).saturating_sub(64).max(1);
    let size = |text: &str| -> anyhow::Result<usize> { Ok(model.tokenize(text)?.len()) };
    let mut translated = Vec::with_capacity(lines.len());
    for line in lines {
        let mut parts = Vec::new();
        for piece in pieces(line, limit, &size)? {
            let answer = chat_answer(app, model, &instruction, &piece, args.search.max_tokens)?;
            parts.push(answer.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        translated.push(indented(line, &parts));
    }
    Ok(translated)
}

#[cfg(test)]
mod tests {
    use super::indented;

    #[test]
    fn lines_keep_their_indent() {
        let of = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
        assert_eq!(indented("  a b. c", &of(&["x.", "y"])), "  x. y");
        assert_eq!(indented("他。她。", &of(&["他。", "她。"])), "他。她。");
        assert_eq!(indented("", &[]), "");
        assert_eq!(indented("   ", &[]), "");
    }
}
