//! `kun train-head`.

use super::App;
use super::classify::by_head;
use crate::args::TrainHeadArgs;
use crate::exit::Misuse;
use crate::rows;
use kun_engine::text::{Examples, TrainOptions, train};
use kun_engine::{EmbedOptions, Fitting, HeadFile, LoadedEncoder, Purpose};
use kun_evals::quality::text;
use kun_hub::ModelPath;
use serde_json::json;
use std::path::Path;

/// Rows that are kept in memory at most.
const MAX_ROWS: usize = 4_000_000;

/// Texts with their labels, equally many.
#[derive(Debug, Default)]
pub struct Labelled {
    /// The texts.
    pub texts: Vec<String>,
    /// The labels.
    pub labels: Vec<String>,
}

/// Reads labelled texts; rows that cannot be read are counted and said.
pub fn labelled(app: &App, file: &Path, text: &str, label: &str) -> anyhow::Result<Labelled> {
    let mut table = rows::open(file, None, &[text.to_owned(), label.to_owned()])?;
    let mut labelled = Labelled::default();
    let mut failed = 0;
    while let Some(fields) = table.next_row()? {
        match fields.map(<[String; 2]>::try_from) {
            Ok(Ok([text, label])) if !text.trim().is_empty() => {
                labelled.texts.push(text);
                labelled.labels.push(label.trim().to_owned());
            }
            _ => failed += 1,
        }
        if labelled.texts.len() > MAX_ROWS {
            return Err(Misuse(format!("more than {MAX_ROWS} rows")).into());
        }
    }
    if failed > 0 {
        app.messages().warning(&format!("{failed} rows of {} have no text or no label", file.display()));
    }
    Ok(labelled)
}

/// Trains a linear head.
pub fn train_head(app: &App, args: &TrainHeadArgs) -> anyhow::Result<()> {
    let data = labelled(app, &args.file, &args.text_column, &args.label_column)?;
    let mut names = data.labels.clone();
    names.sort();
    names.dedup();
    if names.len() < 2 || names.len() > 10_000 {
        let what =
            format!("{} labels in {}, from 2 to 10000 can be learnt", names.len(), args.file.display());
        return Err(Misuse(what).into());
    }
    let (path, model) = app.load_encoder(&args.model, &args.load)?;
    let held_out = |row: usize| args.holdout_every > 0 && row % args.holdout_every == args.holdout_every - 1;
    let split = |out: bool| {
        let rows = data.texts.iter().zip(&data.labels).enumerate().filter(|(row, _)| held_out(*row) == out);
        rows.map(|(_, (text, label))| (text.clone(), label.clone())).unzip::<_, _, Vec<_>, Vec<_>>()
    };
    let ((texts, labels), (test_texts, test_labels)) = (split(false), split(true));
    let mut embeddings = Vec::new();
    let truncated = embed(&model, &texts, &mut embeddings)?;
    if truncated > 0 {
        app.messages().note(&format!(
            "{truncated} texts were cut to the {} tokens that the model takes",
            model.info().max_tokens
        ));
    }
    let classes: Vec<usize> = labels.iter().map(|l| names.binary_search(l).unwrap_or(0)).collect();
    let examples = Examples { embeddings: &embeddings, width: model.info().output_width, classes: &classes };
    let options = TrainOptions { c: args.c, ..TrainOptions::default() };
    let trained = train(names, examples, &options).map_err(Misuse)?;
    let file = HeadFile { head: trained.head, model: lasting_name(&path) };
    let training = accuracy(&model, &file, &texts, &labels)?;
    let test =
        if test_texts.is_empty() { None } else { Some(accuracy(&model, &file, &test_texts, &test_labels)?) };
    file.save(&args.output)?;
    if args.json {
        return app.output.json(&json!({
            "head": args.output,
            "model": path.name,
            "labels": file.head.labels,
            "rows": texts.len(),
            "held_out_rows": test_texts.len(),
            "iterations": trained.iterations,
            "converged": trained.converged,
            "loss": trained.loss,
            "training_accuracy": training,
            "accuracy": test,
        }));
    }
    if !trained.converged {
        app.messages().warning(&format!("not at the minimum after {} iterations", trained.iterations));
    }
    let measured = test.map_or(String::new(), |a| format!(", {a:.4} on {} rows left out", test_texts.len()));
    let line = format!(
        "{}: {} labels, accuracy {training:.4} on {} rows of training{measured}",
        args.output.display(),
        file.head.labels.len(),
        texts.len()
    );
    Ok(app.output.line(&line)?)
}

/// Appends the embeddings; gives the number of texts that were cut.
fn embed(model: &LoadedEncoder, texts: &[String], embeddings: &mut Vec<f32>) -> anyhow::Result<usize> {
    let options = EmbedOptions { purpose: Purpose::Default, fitting: Fitting::Truncate, dimensions: None };
    let mut truncated = 0;
    for chunk in texts.chunks(rows::CHUNK_ROWS) {
        for embedding in model.embed(chunk, &options)? {
            let embedding = embedding?;
            truncated += usize::from(embedding.truncated.is_some());
            embeddings.extend(embedding.vector);
        }
    }
    Ok(truncated)
}

/// The name by which a model is found from any folder.
pub fn lasting_name(model: &ModelPath) -> String {
    let local = model.source.starts_with("local");
    let absolute = if local { std::path::absolute(&model.path).ok() } else { None };
    absolute.map_or_else(|| model.name.clone(), |path| path.display().to_string())
}

/// The part of texts that get their own label.
pub fn accuracy(
    model: &LoadedEncoder,
    file: &HeadFile,
    texts: &[String],
    labels: &[String],
) -> anyhow::Result<f64> {
    let given = given_by_head(model, file, texts)?;
    Ok(text::accuracy(labels, &given)?.accuracy)
}

/// The likeliest label of each text.
pub fn given_by_head(
    model: &LoadedEncoder,
    file: &HeadFile,
    texts: &[String],
) -> anyhow::Result<Vec<String>> {
    let mut given = Vec::with_capacity(texts.len());
    for chunk in texts.chunks(rows::CHUNK_ROWS) {
        for scored in by_head(model, file, chunk, Fitting::Truncate)? {
            given.push(file.head.labels[kun_engine::text::best(&scored?.scores)].clone());
        }
    }
    Ok(given)
}
