//! The verbs that look at pictures or make them.

mod drive;
mod export;
pub mod inputs;
pub mod measure;
mod print;
mod sink;
pub mod vectors;

use super::App;
use crate::args::{ClassifyArgs, pictures as args};
use crate::exit::Misuse;
use crate::terminal::human_bytes;
use anyhow::Context;
use drive::{Job, Work};
use kun_engine::tasks::describe::{Verb, VisionTask};
use kun_engine::tasks::pixels::Image;
use kun_engine::tasks::vision::Answer;
use kun_engine::{DType, OcrModel, VisionModel, VisionOptions};
use std::path::Path;
use std::sync::Arc;

use inputs::is_picture_file;

/// Whether a command line of `kun classify` is about pictures: its model is an ONNX file or a folder of one, or its first
/// input is a picture file or a folder.
pub fn are_meant(inputs: &[String], model: Option<&str>) -> bool {
    let is_picture = |word: &String| is_picture_file(Path::new(word)) || Path::new(word).is_dir();
    model.is_some_and(|model| is_model(Path::new(model))) || inputs.first().is_some_and(is_picture)
}

/// Whether a file or folder is a model of pictures.
pub fn is_model(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx"))
        || path.join("preprocessor_config.json").is_file()
        || path.join("model.toml").is_file()
}

impl Work for VisionModel {
    fn answer(&mut self, images: &[Arc<Image>]) -> Vec<anyhow::Result<Answer>> {
        self.answer_many(images).into_iter().map(|answer| Ok(answer?)).collect()
    }
}

impl Work for OcrModel {
    fn answer(&mut self, images: &[Arc<Image>]) -> Vec<anyhow::Result<Answer>> {
        images.iter().map(|image| Ok(Answer::Page(self.read_page(image)?))).collect()
    }
}

/// A picture-to-picture model, which says what comes before it works on.
struct Maker<'a> {
    app: &'a App,
    model: VisionModel,
}

/// Work that takes longer than this many tiles is announced.
const FEW_TILES: usize = 4;

impl Work for Maker<'_> {
    fn answer(&mut self, images: &[Arc<Image>]) -> Vec<anyhow::Result<Answer>> {
        images.iter().map(|image| self.one(image)).collect()
    }
}

impl Maker<'_> {
    fn one(&mut self, image: &Arc<Image>) -> anyhow::Result<Answer> {
        let Some(plan) = self.model.plan(image)? else {
            let mut answers = self.model.answer_many(std::slice::from_ref(image));
            return Ok(answers.pop().context("no answer")??);
        };
        let long = plan.tiles > FEW_TILES;
        let messages = self.app.messages();
        if long {
            messages.note(&format!(
                "{}x{} pixels become {}x{} in {} tiles; {} beside the model's own memory",
                image.width(),
                image.height(),
                plan.width,
                plan.height,
                plan.tiles,
                human_bytes(plan.bytes)
            ));
        }
        let mut progress = drive::TileProgress::new(self.app);
        let made = self.model.transform(image, &mut |done, all| {
            progress.tiles(done, all);
            true
        })?;
        Ok(Answer::Picture(made))
    }
}

/// The model of a verb: the one named, or the catalogue's.
fn model_path(app: &App, task: &str, named: Option<&str>) -> anyhow::Result<kun_hub::ModelPath> {
    let name = match named {
        Some(name) => name,
        None => kun_hub::Catalog::builtin().default_for(task).ok_or_else(|| {
            Misuse(format!(
                "`kun {task}` has no default model; name one: -m ./model.onnx, or a repository of ONNX files"
            ))
        })?,
    };
    app.fetch(name)
}

/// Opens the model of a verb.
///
/// # Errors
/// Those of fetching and opening.
pub fn open(
    app: &App,
    verb: Verb,
    named: Option<&str>,
    options: &VisionOptions,
) -> anyhow::Result<(String, VisionModel)> {
    // `classify` without more is the text verb's in the catalogue.
    let task = if verb == Verb::Classify { "classify-image" } else { verb.name() };
    let path = model_path(app, task, named)?;
    let model = open_at(&path, verb, options)?;
    Ok((path.name, model))
}

fn open_at(path: &kun_hub::ModelPath, verb: Verb, options: &VisionOptions) -> anyhow::Result<VisionModel> {
    let model = VisionModel::open(&path.path, verb, options);
    model.with_context(|| format!("cannot use {}", path.path.display()))
}

/// Opens the networks that read text.
///
/// # Errors
/// Those of fetching and opening.
pub fn open_ocr(
    app: &App,
    named: Option<&str>,
    options: &VisionOptions,
) -> anyhow::Result<(String, OcrModel)> {
    let path = model_path(app, "ocr", named)?;
    let folder =
        if path.path.is_dir() { path.path.as_path() } else { path.path.parent().unwrap_or(&path.path) };
    Ok((path.name.clone(), OcrModel::open(folder, options)?))
}

/// How networks run.
///
/// # Errors
/// [`Misuse`] for a precision that they do not run in.
pub fn options(app: &App, threads: Option<usize>, precision: Option<DType>) -> anyhow::Result<VisionOptions> {
    Ok(VisionOptions { threads, bf16: super::onnx::is_bf16(app, precision)?, ..VisionOptions::default() })
}

fn check(threshold: Option<f32>) -> anyhow::Result<()> {
    match threshold {
        Some(value) if !(0.0..=1.0).contains(&value) => {
            Err(Misuse(format!("--threshold {value}: from 0 to 1")).into())
        }
        _ => Ok(()),
    }
}

/// Looks at pictures with a model that answers.
fn look(
    app: &App,
    verb: Verb,
    pictures: &args::PictureArgs,
    export: Option<&args::ExportArgs>,
    gray_depth: bool,
    change: impl FnOnce(&mut VisionTask),
) -> anyhow::Result<()> {
    let options = options(app, pictures.threads, pictures.precision)?;
    let job = Job { verb: verb.name(), pictures, export, gray_depth, markdown: false, makes_pictures: false };
    job.check()?;
    let (name, mut model) = open(app, verb, pictures.model.as_deref(), &options)?;
    change(model.task_mut());
    job.run(app, &name, &mut model)
}

/// `kun classify` on pictures.
///
/// # Errors
/// Those of the model; per-picture errors are told one by one and end in exit code 1. So for the others here.
pub fn classify(app: &App, args: &ClassifyArgs) -> anyhow::Result<()> {
    if args.head.is_some() || args.multi_label {
        return Err(Misuse("--multi-label and --head are for texts".to_owned()).into());
    }
    if !args.labels.is_empty() {
        return vectors::classify(app, args);
    }
    let pictures = args::PictureArgs {
        inputs: args.input.inputs.clone(),
        model: args.model.clone(),
        output: args.output.output.clone(),
        json: args.output.json,
        jsonl: args.output.jsonl,
        sheet: None,
        max_megapixels: 64,
        threads: args.load.threads,
        precision: args.load.precision,
    };
    look(app, Verb::Classify, &pictures, None, false, |task| {
        if let VisionTask::Classify(task) = task {
            task.top = args.top.unwrap_or(5);
        }
    })
}

/// `kun detect`.
///
/// # Errors
/// As [`classify`].
pub fn detect(app: &App, args: &args::DetectArgs) -> anyhow::Result<()> {
    check(args.threshold)?;
    look(app, Verb::Detect, &args.pictures, Some(&args.export), false, |task| {
        if let (VisionTask::Detect(task), Some(threshold)) = (task, args.threshold) {
            task.threshold = threshold;
        }
    })
}

/// `kun segment`.
///
/// # Errors
/// As [`classify`].
pub fn segment(app: &App, args: &args::SegmentArgs) -> anyhow::Result<()> {
    check(args.threshold)?;
    look(app, Verb::Segment, &args.pictures, Some(&args.export), false, |task| {
        if let (VisionTask::Instances(task), Some(threshold)) = (task, args.threshold) {
            task.threshold = threshold;
        }
    })
}

/// `kun depth`.
///
/// # Errors
/// As [`classify`].
pub fn depth(app: &App, args: &args::DepthArgs) -> anyhow::Result<()> {
    look(app, Verb::Depth, &args.pictures, None, args.gray, |_| {})
}

/// `kun pose`.
///
/// # Errors
/// As [`classify`].
pub fn pose(app: &App, args: &args::PoseArgs) -> anyhow::Result<()> {
    check(args.threshold)?;
    look(app, Verb::Pose, &args.pictures, None, false, |task| {
        if let (VisionTask::Pose(task), Some(threshold)) = (task, args.threshold) {
            task.threshold = threshold;
        }
    })
}

/// `kun faces`.
///
/// # Errors
/// As [`classify`].
pub fn faces(app: &App, args: &args::FacesArgs) -> anyhow::Result<()> {
    check(args.threshold)?;
    look(app, Verb::Faces, &args.pictures, None, false, |task| {
        if let (VisionTask::Faces(task), Some(threshold)) = (task, args.threshold) {
            task.threshold = threshold;
        }
    })
}

/// `kun ocr`.
///
/// # Errors
/// As [`classify`].
pub fn ocr(app: &App, args: &args::OcrArgs) -> anyhow::Result<()> {
    check(Some(args.threshold))?;
    let pictures = &args.pictures;
    let job = Job {
        verb: "ocr",
        pictures,
        export: None,
        gray_depth: false,
        markdown: args.markdown,
        makes_pictures: false,
    };
    job.check()?;
    let (name, mut model) =
        open_ocr(app, pictures.model.as_deref(), &options(app, pictures.threads, pictures.precision)?)?;
    model.threshold = args.threshold;
    job.run(app, &name, &mut model)
}

/// `kun upscale`, `denoise`, `enhance`, `stylize` and `cutout`.
///
/// # Errors
/// As [`classify`].
pub fn make(app: &App, verb: Verb, args: &args::TransformArgs) -> anyhow::Result<()> {
    let pictures = &args.pictures;
    let options = VisionOptions { tile: args.tile, ..options(app, pictures.threads, pictures.precision)? };
    let job = Job {
        verb: verb.name(),
        pictures,
        export: None,
        gray_depth: false,
        markdown: false,
        makes_pictures: true,
    };
    job.check()?;
    let (name, model) = open(app, verb, pictures.model.as_deref(), &options)?;
    job.run(app, &name, &mut Maker { app, model })
}
