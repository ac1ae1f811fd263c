//! `kun answer`.

use super::App;
use crate::args::{AnswerArgs, InputArgs, InputFormat};
use crate::exit::Misuse;
use crate::rows::{Job, Record};
use kun_engine::AnswerOptions;
use kun_engine::text::{SpanOptions, characters};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// Answers a question with words of each document.
pub fn answer(app: &App, args: &AnswerArgs) -> anyhow::Result<()> {
    if args.top == 0 || args.answer_tokens == 0 {
        return Err(Misuse("--top and --answer-tokens are at least 1".to_owned()).into());
    }
    let input = input(args);
    let (path, model) = app.load_encoder(&args.model, &args.load)?;
    let options = AnswerOptions {
        spans: SpanOptions { max_tokens: args.answer_tokens, top_k: args.top, may_be_none: args.may_be_none },
        window_tokens: args.window,
        overlap_tokens: args.overlap,
    };
    // What is wrong with model or question is said once.
    model.answer(&args.question, &[], &options)?;
    let job =
        Job { name: "answer", columns: &["answer", "score", "start", "end", "answers"], model: &path.name };
    job.run(app, &input, &args.output, |documents| match model.answer(&args.question, &documents, &options) {
        Ok(found) => {
            documents.iter().zip(found).map(|(document, found)| Ok(record(document, found?))).collect()
        }
        Err(error) => {
            let error = Arc::new(error);
            documents.iter().map(|_| Err(anyhow::Error::new(error.clone()))).collect()
        }
    })
}

/// A document is the whole file, unless it is a table.
fn input(args: &AnswerArgs) -> InputArgs {
    let mut source = args.source.clone();
    let table = |file: &String| {
        let ending =
            Path::new(file).extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        ["jsonl", "ndjson", "csv", "tsv"].contains(&ending.as_str())
    };
    if !args.file.as_ref().is_some_and(table) {
        source.input_format = source.input_format.or(Some(InputFormat::Whole));
    }
    InputArgs { inputs: args.file.iter().cloned().collect(), source }
}

fn record(document: &str, found: Vec<kun_engine::text::Answer>) -> Record {
    let ranges: Vec<_> = found.iter().map(|a| a.bytes.clone()).collect();
    let places = characters(document, &ranges);
    let words = |bytes: &std::ops::Range<usize>| document.get(bytes.clone()).unwrap_or_default();
    let listed: Vec<Value> = found
        .iter()
        .zip(&places)
        .map(|(a, place)| {
            json!({ "answer": words(&a.bytes), "score": a.score, "start": place.start, "end": place.end })
        })
        .collect();
    let lines: Vec<String> = found
        .iter()
        .map(|a| format!("{}\t{:.4}", words(&a.bytes).replace(['\n', '\r', '\t'], " "), a.score))
        .collect();
    let best = listed.first().cloned().unwrap_or_default();
    let record = Record::new(lines.join("\n"));
    let record = ["answer", "score", "start", "end"]
        .into_iter()
        .fold(record, |record, key| record.with(key, best.get(key).cloned().unwrap_or_default()));
    record.with("answers", listed)
}
