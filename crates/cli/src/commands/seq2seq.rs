//! What `kun translate` and `kun summarize` share: the document, who answers, and how long texts are cut.

use super::{App, answer};
use crate::args::{DecodingArgs, LoadArgs, OutputArgs};
use crate::exit::{INTERRUPTED, Misuse, Quiet};
use crate::interrupt::Watch;
use anyhow::Context;
use kun_engine::seq2seq::Direction;
use kun_engine::seq2seq::{Generation, is_seq2seq};
use kun_engine::{
    ChatMessage, EngineError, FinishReason, GenerateRequest, LoadedModel, Prompt, Role, SamplingOptions,
    Seq2SeqModel,
};
use serde_json::Value;
use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A longer document is a mistake: no window holds it.
const MAX_BYTES: u64 = 256 << 20;

/// Who answers.
pub enum Answerer {
    /// An encoder-decoder.
    Seq2Seq(Box<Seq2SeqModel>),
    /// A chat model, by a prompt.
    Chat(Arc<LoadedModel>),
}

impl App {
    /// Fetches and loads the model that `name` names, or the default chat model; with its name.
    pub fn answerer(&self, name: Option<&str>, load: &LoadArgs) -> anyhow::Result<(String, Answerer)> {
        let hub = self.hub();
        let name = name.unwrap_or_else(|| hub.catalog().default_chat());
        let path = self.fetch(name)?;
        let options = load.options();
        if is_seq2seq(&path.path) {
            let model = self.engine.load_seq2seq(&path.path, &options)?;
            return Ok((path.name, Answerer::Seq2Seq(Box::new(model))));
        }
        let model = self.engine.load(&path.path, &options)?;
        Ok((path.name, Answerer::Chat(model)))
    }
}

/// The text that the argument names: itself, a file's or that of stdin.
pub fn document(app: &App, argument: Option<&str>) -> anyhow::Result<String> {
    let path = argument.map(Path::new).filter(|path| path.is_file());
    let bytes = match (argument, path) {
        (Some(argument), None) if argument != "-" => {
            let looks =
                Path::new(argument).extension().is_some_and(|e| ["txt", "md"].iter().any(|k| e == *k));
            if looks && !argument.contains(char::is_whitespace) {
                return Err(Misuse(format!("no file {argument}")).into());
            }
            argument.as_bytes().to_vec()
        }
        (_, Some(path)) => {
            let file =
                std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
            read(file)?
        }
        _ if argument.is_none() && std::io::stdin().is_terminal() => {
            return Err(Misuse("no text: give one in quotes, a file, or pipe one in".to_owned()).into());
        }
        _ => {
            let waiting = super::remind::after(
                Duration::from_secs(3),
                app.messages(),
                "Waiting for the text on stdin.",
            );
            let bytes = read(std::io::stdin())?;
            drop(waiting);
            bytes
        }
    };
    let text = String::from_utf8(bytes)
        .map_err(|error| Misuse(format!("no UTF-8 text (byte {})", error.utf8_error().valid_up_to())))?;
    if text.trim().is_empty() {
        return Err(Misuse("the text is empty".to_owned()).into());
    }
    Ok(text)
}

fn read(source: impl Read) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(MAX_BYTES + 1).read_to_end(&mut bytes).context("cannot read the text")?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Misuse(format!("the text is longer than {MAX_BYTES} bytes")).into());
    }
    Ok(bytes)
}

/// A flag that Ctrl-C raises, for as long as it is kept.
pub struct Stop {
    /// Raised.
    pub flag: Arc<AtomicBool>,
    _watch: Watch,
}

impl Stop {
    pub fn new() -> Stop {
        let flag = Arc::new(AtomicBool::new(false));
        let raised = flag.clone();
        Stop { flag, _watch: Watch::new(move || raised.store(true, Ordering::Relaxed)) }
    }
}

/// The model's own settings with what the flags change.
pub fn generation(model: &Seq2SeqModel, args: &DecodingArgs) -> Generation {
    let mut generation = model.generation().clone();
    if let Some(beams) = args.beams {
        generation.num_beams = beams;
        generation.do_sample = false;
    }
    generation.max_new_tokens = args.max_tokens.or(generation.max_new_tokens);
    generation
}

/// Answers of an encoder-decoder to texts that fit it, in order.
///
/// # Errors
/// The first that fails; [`Quiet`] after Ctrl-C.
pub fn answers(
    model: &Seq2SeqModel,
    texts: &[String],
    direction: &Direction,
    generation: &Generation,
    stop: &Stop,
) -> anyhow::Result<Vec<String>> {
    let sources = texts.iter().map(|text| model.encode(text, direction)).collect::<Result<Vec<_>, _>>()?;
    let answers = model.generate(&sources, direction.beginning, generation, None, &stop.flag);
    answers
        .into_iter()
        .map(|answer| match answer {
            Ok(answer) => Ok(model.decode(&answer)),
            Err(EngineError::Cancelled) => Err(Quiet(INTERRUPTED).into()),
            Err(error) => Err(error.into()),
        })
        .collect()
}

/// A chat model's answer to an instruction; always the likeliest words.
///
/// # Errors
/// The engine's; [`Quiet`] after Ctrl-C.
pub fn chat_answer(
    app: &App,
    model: &LoadedModel,
    instruction: &str,
    text: &str,
    max_tokens: Option<usize>,
) -> anyhow::Result<String> {
    let content = format!("{instruction}\n\n{text}");
    let request = GenerateRequest {
        sampling: SamplingOptions { temperature: 0.0, ..SamplingOptions::default() },
        max_tokens,
        template_variables: vec![("enable_thinking".to_owned(), false)],
        ..GenerateRequest::new(Prompt::Chat(vec![ChatMessage::new(Role::User, content)]))
    };
    let stream = app.engine.generate(model, request)?;
    let answer = answer::collect(stream, |_| Ok(()))?;
    if answer.reason == FinishReason::Cancelled {
        return Err(Quiet(INTERRUPTED).into());
    }
    Ok(answer.text.trim().to_owned())
}

/// Cuts a text into pieces of at most `limit` in the measure of `size`: at the ends of sentences where it can, between
/// words where a sentence is too long, between characters where a word is. White space between pieces is dropped.
pub fn pieces(
    text: &str,
    limit: usize,
    size: &dyn Fn(&str) -> anyhow::Result<usize>,
) -> anyhow::Result<Vec<String>> {
    let mut pieces: Vec<String> = Vec::new();
    let mut open = String::new();
    for sentence in sentences(text) {
        let joined = join(&open, sentence);
        if size(&joined)? <= limit {
            open = joined;
            continue;
        }
        pieces.extend(Some(std::mem::take(&mut open)).filter(|piece| !piece.is_empty()));
        if size(sentence)? <= limit {
            open = sentence.to_owned();
            continue;
        }
        for part in halves(sentence, limit, size)? {
            pieces.push(part);
        }
    }
    pieces.extend(Some(open).filter(|piece| !piece.is_empty()));
    Ok(pieces)
}

fn join(before: &str, sentence: &str) -> String {
    if before.is_empty() { sentence.to_owned() } else { format!("{before} {sentence}") }
}

/// Halves a text that is too long, again and again, at the space nearest its middle.
fn halves(
    text: &str,
    limit: usize,
    size: &dyn Fn(&str) -> anyhow::Result<usize>,
) -> anyhow::Result<Vec<String>> {
    let text = text.trim();
    if text.is_empty() || size(text)? <= limit {
        return Ok(Some(text.to_owned()).filter(|text| !text.is_empty()).into_iter().collect());
    }
    let middle = text.len() / 2;
    let spaces = text.char_indices().filter(|(at, c)| c.is_whitespace() && *at > 0).map(|(at, _)| at);
    let space = spaces.min_by_key(|at| at.abs_diff(middle));
    let between = text.char_indices().skip(1).map(|(at, _)| at).min_by_key(|at| at.abs_diff(middle));
    let Some(at) = space.or(between) else {
        return Err(Misuse(format!("the model takes {limit} tokens, too few for `{text}`")).into());
    };
    let (first, second) = text.split_at(at);
    let mut parts = halves(first, limit, size)?;
    parts.extend(halves(second, limit, size)?);
    Ok(parts)
}

/// Sentences of a text, as far as marks tell: `.`, `!`, `?` and their kin, then white space; or the marks that need none.
pub fn sentences(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|(_, next)| *next);
        let ends = match c {
            '。' | '！' | '？' | '；' => {
                !matches!(next, Some('”' | '」' | '』' | '）' | '。' | '！' | '？'))
            }
            '.' | '!' | '?' | '…' | '؟' | '।' | ')' | '"' | '”' | '»' => {
                let marked = matches!(c, '.' | '!' | '?' | '…' | '؟' | '।')
                    || text[start..at].ends_with(['.', '!', '?', '…']);
                marked && next.is_none_or(char::is_whitespace) && !abbreviates(&text[start..at], c)
            }
            _ => false,
        };
        if ends {
            let end = at + c.len_utf8();
            found.push(text[start..end].trim());
            start = end;
        }
    }
    found.push(text[start..].trim());
    found.retain(|sentence| !sentence.is_empty());
    found
}

/// A point after a single letter or a usual short form ends no sentence.
fn abbreviates(before: &str, mark: char) -> bool {
    const SHORT: [&str; 16] = [
        "Mr", "Mrs", "Ms", "Dr", "Prof", "St", "vs", "etc", "e.g", "i.e", "No", "Nr", "bzw", "z.B", "M",
        "Mme",
    ];
    let word = before.rsplit(char::is_whitespace).next().unwrap_or(before);
    let single = word.chars().count() == 1 && word.chars().all(char::is_alphabetic);
    mark == '.' && (single || SHORT.contains(&word))
}

/// Writes the result: plain text, or one JSON document or line, to where the flags say.
pub fn write(app: &App, output: &OutputArgs, text: &str, document: &Value) -> anyhow::Result<()> {
    let Some(path) = &output.output else {
        match (output.json, output.jsonl) {
            (true, _) => app.output.json(document)?,
            (_, true) => app.output.line(&document.to_string())?,
            _ => app.output.line(text)?,
        }
        return Ok(());
    };
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let content = match ending {
        "json" | "jsonl" => format!("{document}\n"),
        "txt" | "md" | "" => format!("{text}\n"),
        other => return Err(Misuse(format!("cannot write .{other}; known: .txt .md .json .jsonl")).into()),
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // A file is whole or not there.
    let part = folder.join(format!(".{name}.{}.part", std::process::id()));
    let write = || {
        let mut file = std::fs::File::create(&part)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&part, path)
    };
    write()
        .inspect_err(|_| drop(std::fs::remove_file(&part)))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_end_where_they_seem_to() {
        let cases: [(&str, &[&str]); 7] = [
            ("One. Two! Three? Four", &["One.", "Two!", "Three?", "Four"]),
            (
                "Dr. Smith has 3.5 apples, e.g. red ones. He eats.",
                &["Dr. Smith has 3.5 apples, e.g. red ones.", "He eats."],
            ),
            ("他来了。她走了！真的？", &["他来了。", "她走了！", "真的？"]),
            ("\"Go.\" She went. (Later.) End", &["\"Go.\"", "She went.", "(Later.)", "End"]),
            ("वह आया। वह गया।", &["वह आया।", "वह गया।"]),
            ("www.example.org is a site", &["www.example.org is a site"]),
            ("  ", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(sentences(text), expected, "{text}");
        }
    }

    #[test]
    fn pieces_fit_and_lose_nothing() {
        let size = |text: &str| -> anyhow::Result<usize> { Ok(text.chars().count()) };
        let text =
            "Short one. A somewhat longer sentence is here. Averyveryverylongwordwithoutanyspace. End.";
        for limit in [5, 12, 20, 40, 200] {
            let found = pieces(text, limit, &size).unwrap();
            assert!(found.iter().all(|piece| piece.chars().count() <= limit), "{limit}: {found:?}");
            let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            assert_eq!(letters(&found.concat()), letters(text), "{limit}");
        }
        assert_eq!(pieces(text, 200, &size).unwrap().len(), 1);
        assert!(pieces("é", 0, &size).is_err());
    }
}
