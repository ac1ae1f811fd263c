//! Translations: sentence by sentence, lines and blank lines where they were.

use super::cut::{pieces, sentences};
use super::{WriteOptions, Writer, answers, chat_answer};
use crate::{Engine, EngineError, LoadedModel, Seq2SeqModel};
use kun_text::{Language, LanguageError};

/// From which language to which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Languages<'a> {
    /// Of the text; `None`: the model's own, or whatever it is.
    pub from: Option<&'a str>,
    /// Of the answer.
    pub to: &'a str,
}

impl Languages<'_> {
    /// Refuses what is no language. Models' own names are no codes, and are looked up when the model is there.
    ///
    /// # Errors
    /// [`EngineError::Parameter`].
    pub fn check(&self) -> Result<(), EngineError> {
        let known = |asked: &str| Language::parse(asked).is_some() || asked.contains('_');
        match std::iter::once(self.to).chain(self.from).find(|asked| !known(asked)) {
            Some(asked) => Err(unknown(LanguageError::Unknown { asked: asked.to_owned() })),
            None => Ok(()),
        }
    }
}

fn unknown(error: LanguageError) -> EngineError {
    crate::request::parameter("language", error.to_string())
}

impl Writer<'_> {
    /// Translates a text.
    ///
    /// # Errors
    /// [`EngineError::Parameter`] for a language that the model does not know, [`EngineError::Cancelled`], those of the
    /// steps.
    pub fn translate(
        &self,
        text: &str,
        languages: Languages<'_>,
        options: &WriteOptions,
    ) -> Result<String, EngineError> {
        languages.check()?;
        let lines: Vec<&str> = text.lines().collect();
        let translated = match self {
            Writer::Seq2Seq(model) => by_model(model, &lines, languages, options)?,
            Writer::Chat(engine, model) => by_chat(engine, model, &lines, languages, options)?,
        };
        Ok(translated.join("\n"))
    }
}

/// Every sentence of every line, or as many of them as the model takes at once.
fn by_model(
    model: &Seq2SeqModel,
    lines: &[&str],
    languages: Languages<'_>,
    options: &WriteOptions,
) -> Result<Vec<String>, EngineError> {
    let tagged = !model.languages().is_empty() || model.translates_one_way();
    let direction = match tagged {
        true => model.direction(languages.from, Some(languages.to)),
        false => model.direction(None, None),
    }
    .map_err(unknown)?;
    let prefix = if tagged { String::new() } else { prefix(model, languages)? };
    let size = |text: &str| Ok(model.encode(&format!("{prefix}{text}"), &direction)?.len());
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
    let mut translated = answers(model, &texts, &direction, options)?.into_iter();
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
fn prefix(model: &Seq2SeqModel, languages: Languages<'_>) -> Result<String, EngineError> {
    let language = |asked: &str| {
        Language::parse(asked).ok_or_else(|| unknown(LanguageError::Unknown { asked: asked.to_owned() }))
    };
    let (from, to) = (language(languages.from.unwrap_or("eng"))?, language(languages.to)?);
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
            Err(crate::request::parameter("language", what))
        }
    }
}

fn by_chat(
    engine: &Engine,
    model: &LoadedModel,
    lines: &[&str],
    languages: Languages<'_>,
    options: &WriteOptions,
) -> Result<Vec<String>, EngineError> {
    let name = |asked: &str| Language::parse(asked).map_or_else(|| asked.to_owned(), |l| l.name().to_owned());
    let from = languages.from.map(|from| format!(" from {}", name(from))).unwrap_or_default();
    let instruction =
        format!("Translate the following text{from} to {}. Give only the translation.", name(languages.to));
    // Half of the context is the answer's.
    let limit = (model.context_tokens() / 2).saturating_sub(64).max(1);
    let size = |text: &str| Ok(model.tokenize(text)?.len());
    let mut translated = Vec::with_capacity(lines.len());
    for line in lines {
        let mut parts = Vec::new();
        for piece in pieces(line, limit, &size)? {
            let answer = chat_answer(engine, model, &instruction, &piece, options)?;
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
