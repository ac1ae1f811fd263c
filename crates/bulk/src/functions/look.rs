//! Functions over pictures: what is seen in them, and pictures made from them.

mod fetch;
mod seen;

use super::answers::{row_error, spread};
use super::kind::{Bound, Kind, one_column};
use crate::function::{Function, Limits, Outcome, Output, RowError, Stop};
use crate::{BulkError, json};
use arrow_array::{ArrayRef, BinaryArray};
use arrow_schema::{DataType, Field};
use fetch::Pictures;
use kun_engine::cores::physical_cores;
use kun_engine::tasks::describe::{Verb, VisionTask};
use kun_engine::tasks::pixels::{FileKind, Image, encode};
use kun_engine::tasks::vision::{Answer, overlay};
use kun_engine::vision::look_at_many;
use kun_engine::{EngineError, OcrModel, VisionModel, VisionOptions};
use serde_json::Value;
use std::sync::Arc;

/// Every function over pictures.
pub(super) const ALL: [Kind; 13] = [
    kind(
        "embed_image",
        "embed_image(image, model) -> vector: what a picture shows, as numbers",
        "embed-image",
        &[],
    ),
    kind("classify_image", "classify_image(image, model) -> {label, score}", "classify-image", &[]),
    kind(
        "detect",
        "detect(image, model, threshold) -> list of {label, class, score, x1, y1, x2, y2}",
        "detect",
        THRESHOLD,
    ),
    kind(
        "segment",
        "segment(image, model, threshold) -> list of {label, class, score, pixels, x1, y1, x2, y2, mask}",
        "segment",
        THRESHOLD,
    ),
    kind("depth", "depth(image, model) -> picture of 16 bits, near is white", "depth", &[]),
    kind("pose", "pose(image, model, threshold) -> list of {score, points}", "pose", THRESHOLD),
    kind(
        "faces",
        "faces(image, model, threshold) -> list of {score, x1, y1, x2, y2, landmarks}",
        "faces",
        THRESHOLD,
    ),
    Kind {
        name: "ocr",
        usage: "ocr(image, model, threshold) -> {text, lines}",
        options: THRESHOLD,
        task: "ocr",
        columns: one_column,
        open: open_ocr,
    },
    kind("upscale", "upscale(image, model, tile) -> larger picture", "upscale", TILE),
    kind("denoise", "denoise(image, model, tile) -> picture without noise", "denoise", TILE),
    kind("enhance", "enhance(image, model, tile) -> brighter picture", "enhance", TILE),
    kind("stylize", "stylize(image, model, tile) -> picture in another style", "stylize", TILE),
    kind("cutout", "cutout(image, model, tile) -> picture with a transparent background", "cutout", TILE),
];

const THRESHOLD: &[&str] = &["threshold"];
const TILE: &[&str] = &["tile"];

const fn kind(
    name: &'static str,
    usage: &'static str,
    task: &'static str,
    options: &'static [&'static str],
) -> Kind {
    Kind { name, usage, options, task, columns: one_column, open }
}

fn verb(name: &str) -> Option<Verb> {
    Some(match name {
        "classify_image" => Verb::Classify,
        "embed_image" => Verb::Embed,
        "detect" => Verb::Detect,
        "segment" => Verb::Segment,
        "depth" => Verb::Depth,
        "pose" => Verb::Pose,
        "faces" => Verb::Faces,
        "upscale" => Verb::Upscale,
        "denoise" => Verb::Denoise,
        "enhance" => Verb::Enhance,
        "stylize" => Verb::Stylize,
        "cutout" => Verb::Cutout,
        _ => return None,
    })
}

/// Whoever answers about pictures.
enum Eye {
    Vision(Box<VisionModel>),
    Ocr(Box<OcrModel>),
}

impl Eye {
    fn answer(&self, images: &[Arc<Image>]) -> Vec<Result<Answer, EngineError>> {
        match self {
            Eye::Vision(model) => model.answer_many(images),
            Eye::Ocr(model) => images.iter().map(|image| model.read_page(image).map(Answer::Page)).collect(),
        }
    }
}

struct Look {
    eye: Eye,
    pictures: Pictures,
    /// Compute threads.
    threads: usize,
    /// What is seen, or `None` for pictures.
    field: Option<Field>,
}

fn threads(bound: &Bound) -> usize {
    bound.context.threads.unwrap_or_else(physical_cores)
}

fn threshold(bound: &Bound) -> Result<Option<f32>, BulkError> {
    match bound.call.number("threshold")? {
        Some(value) if !(0.0..=1.0).contains(&value) => {
            Err(bound.call.wrong("wants a threshold from 0 to 1"))
        }
        threshold => Ok(threshold),
    }
}

fn open(bound: &Bound) -> Result<Arc<dyn Function>, BulkError> {
    let call = &bound.call;
    let verb = verb(&call.function).ok_or_else(|| call.wrong("is no function over pictures"))?;
    let tile = if call.options.contains_key("tile") { call.count("tile")? } else { None };
    let options = VisionOptions { threads: bound.context.threads, tile, ..VisionOptions::default() };
    let mut model = VisionModel::open(&bound.chosen.model.path, verb, &options)?;
    if call.options.contains_key("threshold")
        && let Some(threshold) = threshold(bound)?
    {
        match model.task_mut() {
            VisionTask::Detect(task) => task.threshold = threshold,
            VisionTask::Instances(task) => task.threshold = threshold,
            VisionTask::Pose(task) => task.threshold = threshold,
            VisionTask::Faces(task) => task.threshold = threshold,
            _ => return Err(call.wrong("has no use for a threshold with this model")),
        }
    }
    let field = seen::data_type(verb).map(|data_type| Field::new(&call.column, data_type, true));
    Ok(Arc::new(Look {
        eye: Eye::Vision(Box::new(model)),
        pictures: Pictures::new(bound),
        threads: threads(bound),
        field,
    }))
}

fn open_ocr(bound: &Bound) -> Result<Arc<dyn Function>, BulkError> {
    let path = &bound.chosen.model.path;
    let folder = if path.is_dir() { path.as_path() } else { path.parent().unwrap_or(path) };
    let options = VisionOptions { threads: bound.context.threads, ..VisionOptions::default() };
    let mut model = OcrModel::open(folder, &options)?;
    model.threshold = threshold(bound)?.unwrap_or(model.threshold);
    let field = Some(Field::new(&bound.call.column, seen::page(), true));
    Ok(Arc::new(Look {
        eye: Eye::Ocr(Box::new(model)),
        pictures: Pictures::new(bound),
        threads: threads(bound),
        field,
    }))
}

/// What is kept of an answer.
enum Kept {
    Seen(Value),
    Picture(Vec<u8>),
}

impl Look {
    fn keep(&self, answer: &Answer) -> Result<Kept, RowError> {
        let png = |image: &Image| {
            encode(image, FileKind::Png)
                .map(Kept::Picture)
                .map_err(|error| RowError::fatal(error.to_string()))
        };
        match answer {
            Answer::Picture(picture) => png(picture),
            Answer::Depth(depth) => {
                png(&overlay::depth_gray(depth).map_err(|error| RowError::fatal(error.to_string()))?)
            }
            answer => seen::value(answer)
                .map(Kept::Seen)
                .ok_or_else(|| RowError::fatal("the model gave another kind of answer")),
        }
    }
}

impl Look {
    /// Answers about the pictures of all rows, in their order.
    fn look_at_all(&self, column: &ArrayRef, rows: usize) -> Result<Vec<Result<Kept, RowError>>, BulkError> {
        self.pictures.check(column)?;
        let seen = look_at_many(
            rows,
            self.threads,
            |row| self.pictures.read(column, row),
            |images| {
                let answers = self.eye.answer(images).into_iter();
                answers.map(|answer| self.keep(&answer.map_err(|error| row_error(&error))?)).collect()
            },
        );
        let one = |seen: Result<Option<_>, _>| seen?.unwrap_or(Err(RowError::retryable("no answer")));
        Ok(seen.into_iter().map(one).collect())
    }
}

impl Function for Look {
    fn output(&self) -> Output {
        match &self.field {
            Some(field) => Output::column(field.data_type().clone()),
            None => Output { data_type: DataType::Binary, file: Some("png") },
        }
    }

    fn limits(&self) -> Limits {
        Limits { rows: 64, bytes: 64 << 20, cheap: false }
    }

    fn call(&self, columns: &[ArrayRef], rows: usize, _: &Stop) -> Result<Outcome, BulkError> {
        let mut errors = Vec::new();
        let mut places: Vec<Option<u32>> = vec![None; rows];
        let mut good: Vec<Kept> = Vec::new();
        for (row, kept) in self.look_at_all(&columns[0], rows)?.into_iter().enumerate() {
            match kept {
                Ok(kept) => {
                    places[row] = u32::try_from(good.len()).ok();
                    good.push(kept);
                }
                Err(error) => errors.push((row, error)),
            }
        }
        spread(good, &places, errors, 0, &self.output().data_type, |kept| match &self.field {
            Some(field) => {
                let values: Vec<Option<&Value>> = kept
                    .iter()
                    .map(|kept| match kept {
                        Kept::Seen(value) => Some(value),
                        Kept::Picture(_) => None,
                    })
                    .collect();
                json::array(field, &values)
            }
            None => Ok(Arc::new(
                kept.iter()
                    .map(|kept| match kept {
                        Kept::Picture(bytes) => Some(bytes.as_slice()),
                        Kept::Seen(_) => None,
                    })
                    .collect::<BinaryArray>(),
            )),
        })
    }
}
