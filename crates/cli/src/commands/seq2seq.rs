//! What `kun translate` and `kun summarize` share: the document and who answers.

use super::App;
use crate::args::{DecodingArgs, LoadArgs, OutputArgs};
use crate::exit::{INTERRUPTED, Misuse, Quiet};
use crate::interrupt::Watch;
use anyhow::Context;
use kun_engine::language::{WriteOptions, Writer};
use kun_engine::seq2seq::is_seq2seq;
use kun_engine::{EngineError, LoadedModel, Seq2SeqModel};
use serde_json::Value;
use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::sync::Arc;
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

impl Answerer {
    /// It as the engine's verbs take it.
    pub fn writer<'a>(&'a self, app: &'a App) -> Writer<'a> {
        match self {
            Answerer::Seq2Seq(model) => Writer::Seq2Seq(model),
            Answerer::Chat(model) => Writer::Chat(&app.engine, model),
        }
    }
}

/// Runs `work` with what the flags say; Ctrl-C ends it.
///
/// # Errors
/// Those of the work; [`Quiet`] after Ctrl-C.
pub fn interruptible<T>(
    args: &DecodingArgs,
    work: impl FnOnce(&WriteOptions) -> Result<T, EngineError>,
) -> anyhow::Result<T> {
    let options = WriteOptions { beams: args.beams, max_tokens: args.max_tokens, ..WriteOptions::default() };
    let canceller = options.canceller.clone();
    let _watch = Watch::new(move || canceller.cancel());
    match work(&options) {
        Err(EngineError::Cancelled) => Err(Quiet(INTERRUPTED).into()),
        result => Ok(result?),
    }
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
