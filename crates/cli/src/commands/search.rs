//! `kun index` and `kun search`.

use super::App;
use super::train_head::lasting_name;
use crate::args::{IndexArgs, SearchArgs};
use crate::exit::Misuse;
use crate::rows::{Job, Record, Sink};
use kun_engine::{EmbedOptions, Fitting, LoadedEncoder, Purpose};
use kun_search::{Index, SearchError, Settings};
use serde_json::json;
use std::time::{Duration, Instant};

const NOTE_EVERY: Duration = Duration::from_secs(10);
/// Passages that `--check` looks for, and how many of the nearest of each.
const CHECKED: (usize, usize) = (200, 10);

/// Brings an index to the state of a folder.
pub fn index(app: &App, args: &IndexArgs) -> anyhow::Result<()> {
    if !args.folder.is_dir() {
        return Err(Misuse(format!("no folder {}", args.folder.display())).into());
    }
    let (path, model) = app.load_encoder(&args.model, &args.load)?;
    let settings = Settings { model: lasting_name(&path), passage_bytes: args.passage };
    let mut index =
        if args.output.exists() { Index::open(&args.output)? } else { Index::new(settings.clone()) };
    if *index.settings() != settings {
        app.messages().note("The index was made with other settings: everything is read anew.");
        index = Index::new(settings);
    }
    let mut last = Instant::now();
    let mut truncated = 0;
    let changes = index.update(
        &args.folder,
        |texts| embed(&model, texts, "document", &mut truncated),
        |update| {
            if last.elapsed() >= NOTE_EVERY {
                last = Instant::now();
                app.messages().note(&format!("{} of {} passages", update.done, update.total));
            }
        },
    )?;
    index.save(&args.output)?;
    if truncated > 0 {
        let limit = model.info().max_tokens;
        app.messages().note(&format!(
            "{truncated} passages are longer than {limit} tokens; a smaller --passage reads all"
        ));
    }
    let recall = if args.check { Some(index.recall(CHECKED.1, CHECKED.0)?) } else { None };
    if args.json {
        return app.output.json(&json!({
            "index": args.output,
            "model": path.name,
            "files": index.files(),
            "passages": index.passages(),
            "added": changes.added,
            "changed": changes.changed,
            "removed": changes.removed,
            "unchanged": changes.unchanged,
            "skipped": changes.skipped,
            "embedded": changes.embedded,
            "truncated": truncated,
            "recall_at_10": recall.map(|r| r.recall),
        }));
    }
    let line = format!(
        "{}: {} files, {} passages ({} added, {} changed, {} removed, {} unchanged, {} no text)",
        args.output.display(),
        index.files(),
        index.passages(),
        changes.added,
        changes.changed,
        changes.removed,
        changes.unchanged,
        changes.skipped,
    );
    app.output.line(&line)?;
    if let Some(recall) = recall {
        let line = format!(
            "finds {:.4} of the nearest {} passages ({} tried, against comparing all)",
            recall.recall, recall.count, recall.queries
        );
        app.output.line(&line)?;
    }
    Ok(())
}

fn embed(
    model: &LoadedEncoder,
    texts: &[String],
    purpose: &str,
    truncated: &mut usize,
) -> anyhow::Result<Vec<Vec<f32>>> {
    let purpose = Purpose::Named(purpose.to_owned());
    let options = EmbedOptions { purpose, fitting: Fitting::Truncate, dimensions: None };
    let mut vectors = Vec::with_capacity(texts.len());
    for embedding in model.embed(texts, &options)? {
        let embedding = embedding?;
        *truncated += usize::from(embedding.truncated.is_some());
        vectors.push(embedding.vector);
    }
    Ok(vectors)
}

/// Finds passages.
pub fn search(app: &App, args: &SearchArgs) -> anyhow::Result<()> {
    if args.query.trim().is_empty() {
        return Err(Misuse("nothing to look for".to_owned()).into());
    }
    let index = Index::open(&args.index).map_err(|error| match error {
        SearchError::Io { path, source } if source.kind() == std::io::ErrorKind::NotFound => {
            anyhow::Error::new(Misuse(format!("no index {}; `kun index FOLDER` makes one", path.display())))
        }
        error => error.into(),
    })?;
    let (path, model) = app.load_encoder(&index.settings().model, &args.load)?;
    let query = embed(&model, std::slice::from_ref(&args.query), "query", &mut 0)?.remove(0);
    let hits = if args.exact { index.search_all(query, args.top)? } else { index.search(query, args.top)? };
    let columns = ["score", "file", "line", "start", "end", "text"];
    let mut sink = Sink::open(&args.output, &Job { name: "search", columns: &columns, model: &path.name })?;
    for hit in hits {
        let start: String = hit.text.split_whitespace().collect::<Vec<_>>().join(" ");
        let shown: String = start.chars().take(160).collect();
        let record = Record::new(format!("{:.4}\t{}:{}\t{shown}", hit.score, hit.file, hit.line))
            .with("score", json!(hit.score))
            .with("file", hit.file)
            .with("line", hit.line)
            .with("start", hit.bytes.start)
            .with("end", hit.bytes.end)
            .with("text", hit.text);
        sink.write(Ok(record))?;
    }
    sink.finish()?;
    Ok(())
}
