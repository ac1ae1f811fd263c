//! `kun translate`.

use super::App;
use super::seq2seq::{Answerer, document, interruptible, write};
use crate::args::TranslateArgs;
use kun_engine::language::Languages;
use serde_json::json;

/// Translates a text; lines and blank lines stay where they are.
pub fn translate(app: &App, args: &TranslateArgs) -> anyhow::Result<()> {
    let text = document(app, args.input.as_deref())?;
    let languages = Languages { from: args.from.as_deref(), to: &args.to };
    languages.check()?;
    let (name, answerer) = app.answerer(args.model.as_deref(), &args.load)?;
    let kind = match &answerer {
        Answerer::Seq2Seq(_) => "translation model",
        Answerer::Chat(_) => {
            app.messages()
                .note(&format!("{name}, a chat model, answers; --model names a translation model."));
            "chat model"
        }
    };
    let writer = answerer.writer(app);
    let text = interruptible(&args.search, |options| writer.translate(&text, languages, options))?;
    let document = json!({
        "text": text,
        "to": args.to,
        "from": args.from,
        "model": name,
        "answered_by": kind,
    });
    write(app, &args.output, &text, &document)
}
