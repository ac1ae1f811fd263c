//! Pictures, and texts about pictures, as vectors.

use super::inputs::{self, Limits, is_picture_file};
use super::{App, drive};
use crate::args::{ClassifyArgs, EmbedArgs, OutputArgs, VectorEncoding};
use crate::commands::embed::{encoded, shown_line};
use crate::exit::{FAILED, INTERRUPTED, Misuse, Quiet};
use crate::interrupt::Watch;
use crate::rows::{Job, Record, Sink};
use kun_engine::tasks::describe::Verb;
use kun_engine::tasks::text::zero_shot::hypotheses;
use kun_engine::text::ranked;
use kun_engine::vision::{TEMPLATE, fits};
use kun_engine::{VisionModel, VisionOptions, Words};
use kun_hub::ModelPath;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Pictures read at once.
const CHUNK: usize = 8;

/// An image encoder, and the text encoder beside it where one is asked for.
pub struct Vectors {
    model: VisionModel,
    limits: Limits,
}

impl Vectors {
    /// Opens an image encoder.
    ///
    /// # Errors
    /// Those of opening it.
    pub fn open(path: &ModelPath, options: &VisionOptions) -> anyhow::Result<Vectors> {
        Ok(Vectors { model: super::open_at(path, Verb::Embed, options)?, limits: Limits { megapixels: 64 } })
    }

    /// A vector of length 1 for each picture file, in their order.
    pub fn of(&self, files: &[PathBuf]) -> Vec<anyhow::Result<Vec<f32>>> {
        files.chunks(CHUNK).flat_map(|chunk| self.few(chunk)).collect()
    }

    fn few(&self, files: &[PathBuf]) -> Vec<anyhow::Result<Vec<f32>>> {
        let mut images = Vec::new();
        let read: Vec<anyhow::Result<()>> = files
            .iter()
            .map(|path| {
                images.push(Arc::new(inputs::read(path, self.limits)?.image));
                Ok(())
            })
            .collect();
        let mut vectors = match self.model.embed(&images) {
            Ok(vectors) => vectors,
            Err(error) => {
                let error = Arc::new(error);
                return files.iter().map(|_| Err(anyhow::Error::new(error.clone()))).collect();
            }
        }
        .into_iter();
        let missing = || Err(anyhow::anyhow!("no vector"));
        let next = |read: anyhow::Result<()>| {
            read?;
            vectors.next().map_or_else(missing, |vector| Ok(vector?))
        };
        read.into_iter().map(next).collect()
    }
}

/// The vector of what is looked for among pictures: of a picture file itself, else of words.
///
/// # Errors
/// Those of opening the encoder and of the model.
pub fn query(path: &ModelPath, query: &str, options: &VisionOptions) -> anyhow::Result<Vec<f32>> {
    let file = Path::new(query);
    let found = if is_picture_file(file) && file.is_file() {
        Vectors::open(path, options)?.of(&[file.to_owned()]).pop()
    } else {
        let words = Words::open(&path.path, options)?;
        words.embed(&[query.to_owned()]).pop().map(|vector| Ok(vector?))
    };
    found.unwrap_or_else(|| Err(anyhow::anyhow!("no vector")))
}

/// `kun embed` with an image encoder: pictures, or texts in the same space.
///
/// # Errors
/// Those of the model; errors of single pictures are told one by one and end in exit code 1.
pub fn embed(app: &App, args: &EmbedArgs, path: &ModelPath) -> anyhow::Result<()> {
    if args.dimensions.is_some() || args.input_type.is_some() || args.text_prompt.is_some() || args.truncate {
        let why = "--dimensions, --input-type, --text-prompt and --truncate are for text encoders";
        return Err(Misuse(why.to_owned()).into());
    }
    let options = super::options(app, args.load.threads, args.load.precision)?;
    if !super::are_meant(&args.input.inputs, None) {
        let words = Words::open(&path.path, &options)?;
        let job = Job { name: "embed", columns: &["embedding"], model: &path.name };
        return job.run(app, &args.input, &args.output, |texts| {
            words.embed(&texts).into_iter().map(|vector| record(None, vector?, args.encoding)).collect()
        });
    }
    let vectors = Vectors::open(path, &options)?;
    let columns = ["file", "embedding"];
    each(app, "embed", &args.input.inputs, &args.output, &columns, &path.name, |files| {
        let results = files.iter().zip(vectors.of(files));
        results.map(|(file, vector)| record(Some(file), vector?, args.encoding)).collect()
    })
}

fn record(file: Option<&PathBuf>, vector: Vec<f32>, encoding: VectorEncoding) -> anyhow::Result<Record> {
    let cell = encoded(vector, encoding);
    let record = Record::new(shown_line(&cell)?);
    let record = match file {
        Some(file) => record.with("file", drive::shown(file)),
        None => record,
    };
    Ok(record.with("embedding", cell))
}

/// `kun classify --labels` with an encoder of pictures and texts: the labels whose words lie nearest to the picture.
///
/// # Errors
/// As [`embed`].
pub fn classify(app: &App, args: &ClassifyArgs) -> anyhow::Result<()> {
    let Some(name) = &args.model else {
        let why = "which model? --labels on pictures takes one of pictures and texts, such as -m clip-vit-base-patch32";
        return Err(Misuse(why.to_owned()).into());
    };
    let path = app.fetch(name)?;
    let texts = hypotheses(args.template.as_deref().unwrap_or(TEMPLATE), &args.labels)?;
    let options = super::options(app, args.load.threads, args.load.precision)?;
    let words = Words::open(&path.path, &options)?;
    let labels = words.embed(&texts).into_iter().collect::<Result<Vec<_>, _>>()?;
    let vectors = Vectors::open(&path, &options)?;
    let columns = ["file", "label", "score", "scores"];
    each(app, "classify", &args.input.inputs, &args.output, &columns, &path.name, |files| {
        let results = files.iter().zip(vectors.of(files));
        results.map(|(file, vector)| labelled(file, &fits(&vector?, &labels), args)).collect()
    })
}

fn labelled(file: &Path, scores: &[f32], args: &ClassifyArgs) -> anyhow::Result<Record> {
    let order = ranked(scores);
    let best = *order.first().ok_or_else(|| anyhow::anyhow!("no labels"))?;
    let shown = order.iter().take(args.top.unwrap_or(usize::MAX));
    let all: Map<String, Value> = shown.map(|&i| (args.labels[i].clone(), json!(scores[i]))).collect();
    let name = drive::shown(file);
    Ok(Record::new(format!("{}\t{:.4}\t{name}", args.labels[best], scores[best]))
        .with("file", name)
        .with("label", args.labels[best].as_str())
        .with("score", json!(scores[best]))
        .with("scores", Value::Object(all)))
}

/// A record for each picture, in order; a bad one does not stop the others.
fn each(
    app: &App,
    verb: &'static str,
    words: &[String],
    output: &OutputArgs,
    columns: &[&str],
    model: &str,
    mut work: impl FnMut(&[PathBuf]) -> Vec<anyhow::Result<Record>>,
) -> anyhow::Result<()> {
    let files = inputs::expand(words)?;
    let mut sink = Sink::open(output, &Job { name: verb, columns, model })?;
    let mut progress = drive::TileProgress::new(app);
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    let _watch = Watch::new(move || flag.store(true, Ordering::Relaxed));
    let (mut done, mut failed) = (0, 0);
    for chunk in files.chunks(CHUNK) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        for (file, result) in chunk.iter().zip(work(chunk)) {
            failed += usize::from(result.is_err());
            sink.write(result.map_err(|error| error.context(drive::shown(file))))?;
            done += 1;
        }
        progress.pictures(done, files.len(), failed);
    }
    sink.finish()?;
    progress.finish();
    if stop.load(Ordering::Relaxed) {
        app.messages()
            .note(&format!("Stopped after {done} of {} pictures; their results are kept.", files.len()));
        return Err(Quiet(INTERRUPTED).into());
    }
    if failed > 0 {
        app.messages().warning(&format!("{failed} of {} pictures failed; each says why", files.len()));
        return Err(Quiet(FAILED).into());
    }
    Ok(())
}
