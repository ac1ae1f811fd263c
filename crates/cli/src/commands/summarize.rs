//! `kun summarize`.

use super::App;
use super::seq2seq::{Answerer, document, interruptible, write};
use crate::args::SummarizeArgs;
use kun_engine::language::Summary;
use serde_json::json;

/// Summarises a text. One that is too long is summarised in windows, then its summaries are, until one is left.
pub fn summarize(app: &App, args: &SummarizeArgs) -> anyhow::Result<()> {
    let text = document(app, args.input.as_deref())?;
    let (name, answerer) = app.answerer(args.model.as_deref(), &args.load)?;
    let kind = match &answerer {
        Answerer::Seq2Seq(_) => "summarisation model",
        Answerer::Chat(_) => {
            app.messages()
                .note(&format!("{name}, a chat model, answers; --model names a summarisation model."));
            "chat model"
        }
    };
    let writer = answerer.writer(app);
    let Summary { text: summary, windows } =
        interruptible(&args.search, |options| writer.summarize(&text, options))?;
    if windows > 1 {
        app.messages()
            .note(&format!("The text was read in {windows} windows; this is a summary of their summaries."));
    }
    let document = json!({ "text": summary, "windows": windows, "model": name, "answered_by": kind });
    write(app, &args.output, &summary, &document)
}
