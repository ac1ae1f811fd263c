//! `kun index` and `kun search`.

use super::train_head::lasting_name;
use super::{App, pictures};
use crate::args::{IndexArgs, SearchArgs};
use crate::exit::Misuse;
use crate::rows::{Job, Record, Sink};
use kun_engine::{EmbedOptions, Fitting, LoadedEncoder, Purpose};
use kun_hub::ModelPath;
use kun_search::{Index, Item, Kind, SearchError, Settings};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

const NOTE_EVERY: Duration = Duration::from_secs(10);
/// Passages that `--check` looks for, and how many of the nearest of each.
const CHECKED: (usize, usize) = (200, 10);

/// Brings an index to the state of a folder.
pub fn index(app: &App, args: &IndexArgs) -> anyhow::Result<()> {
    if !args.folder.is_dir() {
        return Err(Misuse(format!("no folder {}", args.folder.display())).into());
    }
    let path = app.fetch(&args.model)?;
    let kind = if pictures::is_model(&path.path) { Kind::Pictures } else { Kind::Texts };
    let settings = Settings { model: lasting_name(&path), passage_bytes: args.passage, kind };
    let mut index =
        if args.output.exists() { Index::open(&args.output)? } else { Index::new(settings.clone()) };
    if *index.settings() != settings {
        app.messages().note("The index was made with other settings: everything is read anew.");
        index = Index::new(settings);
    }
    let mut last = Instant::now();
    let mut truncated = 0;
    let mut embedder = Embedder::open(app, args, &path, kind)?;
    let changes = index.update(
        &args.folder,
        |items| embedder.vectors(app, items, &mut truncated),
        |update| {
            if last.elapsed() >= NOTE_EVERY {
                last = Instant::now();
                app.messages().note(&format!("{} of {} passages", update.done, update.total));
            }
        },
    )?;
    index.save(&args.output)?;
    if truncated > 0 {
        app.messages().note(&format!(
            "{truncated} passages are longer than the model reads; a smaller --passage reads all"
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
        "{}: {} files, {} {} ({} added, {} changed, {} removed, {} unchanged, {} left out)",
        args.output.display(),
        index.files(),
        index.passages(),
        if kind == Kind::Texts { "passages" } else { "pictures" },
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

/// What gives the vectors of an index.
enum Embedder {
    Texts(Arc<LoadedEncoder>),
    Pictures(Box<pictures::vectors::Vectors>),
}

impl Embedder {
    fn open(app: &App, args: &IndexArgs, path: &ModelPath, kind: Kind) -> anyhow::Result<Embedder> {
        Ok(match kind {
            Kind::Texts => Embedder::Texts(app.load_encoder(&args.model, &args.load)?.1),
            Kind::Pictures => Embedder::Pictures(Box::new(pictures::vectors::Vectors::open(
                path,
                &pictures::options(app, args.load.threads, args.load.precision)?,
            )?)),
        })
    }

    /// A vector for each item; none for a picture that cannot be read, which is told.
    fn vectors(
        &mut self,
        app: &App,
        items: &[Item],
        truncated: &mut usize,
    ) -> anyhow::Result<Vec<Option<Vec<f32>>>> {
        match self {
            Embedder::Texts(model) => {
                let text = |item: &Item| match item {
                    Item::Text(text) => text.clone(),
                    Item::Picture(path) => path.display().to_string(),
                };
                let texts: Vec<String> = items.iter().map(text).collect();
                Ok(embed(model, &texts, "document", truncated)?.into_iter().map(Some).collect())
            }
            Embedder::Pictures(model) => {
                let files: Vec<PathBuf> = items
                    .iter()
                    .filter_map(|item| match item {
                        Item::Picture(path) => Some(path.clone()),
                        Item::Text(_) => None,
                    })
                    .collect();
                let told = |(path, vector): (&PathBuf, anyhow::Result<Vec<f32>>)| {
                    vector
                        .map_err(|error| {
                            app.messages().warning(&format!("{}: {error:#}", path.display()));
                        })
                        .ok()
                };
                Ok(files.iter().zip(model.of(&files)).map(told).collect())
            }
        }
    }
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
    let path = app.fetch(&index.settings().model)?;
    let query = match index.settings().kind {
        Kind::Pictures => pictures::vectors::query(
            &path,
            &args.query,
            &pictures::options(app, args.load.threads, args.load.precision)?,
        )?,
        Kind::Texts => {
            let (_, model) = app.load_encoder(&index.settings().model, &args.load)?;
            embed(&model, std::slice::from_ref(&args.query), "query", &mut 0)?.remove(0)
        }
    };
    let hits = if args.exact { index.search_all(query, args.top)? } else { index.search(query, args.top)? };
    let columns = ["score", "file", "line", "start", "end", "text"];
    let mut sink = Sink::open(&args.output, &Job { name: "search", columns: &columns, model: &path.name })?;
    for hit in hits {
        let start: String = hit.text.split_whitespace().collect::<Vec<_>>().join(" ");
        let shown: String = start.chars().take(160).collect();
        let (score, file, line) = (hit.score, hit.file, hit.line);
        if index.settings().kind == Kind::Pictures {
            let record =
                Record::new(format!("{score:.4}\t{file}")).with("score", json!(score)).with("file", file);
            sink.write(Ok(record))?;
            continue;
        }
        let record = Record::new(format!("{score:.4}\t{file}:{line}\t{shown}"))
            .with("score", json!(score))
            .with("file", file)
            .with("line", line)
            .with("start", hit.bytes.start)
            .with("end", hit.bytes.end)
            .with("text", hit.text);
        sink.write(Ok(record))?;
    }
    sink.finish()?;
    Ok(())
}
