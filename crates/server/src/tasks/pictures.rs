//! Routes that see pictures or make them.

use super::image::{self, Picture};
use super::vectors::Labels;
use crate::App;
use crate::error::Refusal;
use crate::http::base64;
use crate::routes::{Call, Reply, text_response};
use crate::schema::{Field, NAME, Shape, accepted, optional};
use axum::response::Response;
use kun_engine::tasks::describe::{Verb, VisionTask};
use kun_engine::tasks::pixels::{FileKind, Image, PixelError, encode};
use kun_engine::tasks::vision::{Answer, document, overlay};
use kun_engine::{EngineError, Resident, Use, VisionModel};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::UNIX_EPOCH;

const PICTURE: &[Field] = &[
    optional("model", NAME, "Which model; none: one that is here and made for this"),
    optional("image", image::SHAPE, image::ABOUT),
    accepted("user", "Whoever the caller asks for"),
];
const SCORE: Shape = Shape::Number { least: 0.0, most: 1.0 };
const FORMS: Shape = Shape::Word(&["json", "png", "jpeg", "webp"]);

/// How an answer about a picture is given.
pub(crate) const DRAWN: &[Field] = &[
    optional("output", FORMS, "JSON (the default), or the answer drawn over the picture"),
    optional("draw", Shape::Bool, "With JSON, give the drawn picture too, as a data URL"),
];
pub(crate) const SCORED: &[&[Field]] =
    &[PICTURE, DRAWN, &[optional("threshold", SCORE, "Lowest score given; none: the model's own")]];
pub(crate) const DEPTH: &[&[Field]] =
    &[PICTURE, DRAWN, &[optional("gray", Shape::Bool, "Draw grey values of 16 bits, near is white")]];
pub(crate) const MADE: &[&[Field]] = &[
    PICTURE,
    &[optional("output", FORMS, "Format of the new picture, PNG by default, or JSON that holds it")],
];

pub(crate) fn detect(call: Call) -> Reply {
    run(call, Use::Pictures(Verb::Detect))
}
pub(crate) fn segment(call: Call) -> Reply {
    run(call, Use::Pictures(Verb::Segment))
}
pub(crate) fn depth(call: Call) -> Reply {
    run(call, Use::Pictures(Verb::Depth))
}
pub(crate) fn pose(call: Call) -> Reply {
    run(call, Use::Pictures(Verb::Pose))
}
pub(crate) fn faces(call: Call) -> Reply {
    run(call, Use::Pictures(Verb::Faces))
}
pub(crate) fn ocr(call: Call) -> Reply {
    run(call, Use::Pages)
}
pub(crate) fn upscale(call: Call) -> Reply {
    run(call, Use::Pictures(Verb::Upscale))
}
pub(crate) fn denoise(call: Call) -> Reply {
    run(call, Use::Pictures(Verb::Denoise))
}
pub(crate) fn enhance(call: Call) -> Reply {
    run(call, Use::Pictures(Verb::Enhance))
}
pub(crate) fn stylize(call: Call) -> Reply {
    run(call, Use::Pictures(Verb::Stylize))
}
pub(crate) fn cutout(call: Call) -> Reply {
    run(call, Use::Pictures(Verb::Cutout))
}

/// What is wanted of the answer.
#[derive(Clone, Copy, Debug)]
struct Wish {
    /// `None`: JSON.
    kind: Option<FileKind>,
    /// Draw it too.
    draw: bool,
    gray: bool,
    threshold: Option<f32>,
    top: Option<usize>,
}

impl Wish {
    fn of(call: &Call, used_for: Use) -> Wish {
        let makes = matches!(used_for, Use::Pictures(verb) if verb.makes_pictures());
        let kind = match call.text("output") {
            Some("json") => None,
            Some("jpeg") => Some(FileKind::Jpeg),
            Some("webp") => Some(FileKind::WebP),
            Some(_) => Some(FileKind::Png),
            None => makes.then_some(FileKind::Png),
        };
        Wish {
            kind,
            draw: makes || call.flag("draw"),
            gray: call.flag("gray"),
            threshold: call.float("threshold"),
            top: call.count("top"),
        }
    }
}

/// Tells the work that its client has left.
struct Leaving(Arc<AtomicBool>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What came out.
struct Outcome {
    model: String,
    document: Value,
    /// The new picture, or the drawn one, if it was wanted.
    picture: Option<Vec<u8>>,
}

/// Answers a request about its picture.
pub(crate) fn run(mut call: Call, used_for: Use) -> Reply {
    Box::pin(async move {
        let permits = call.app.reserve(call.tenant, 1)?;
        let bytes = image::bytes(&mut call).await?;
        let picture = image::decoded(&call.app, bytes).await?;
        if picture.first_frame {
            call.warnings.add("`image` is an animation; its first frame is used");
        }
        let wish = Wish::of(&call, used_for);
        let labels = Labels::of(&call);
        let (app, name) = (call.app.clone(), call.text("model").map(str::to_owned));
        let left = Arc::new(AtomicBool::new(false));
        let _leaving = Leaving(left.clone());
        let outcome = Call::blocking(move || {
            let _permits = permits;
            match labels {
                None => by_use(&app, name.as_deref(), used_for, &picture, wish, &left),
                Some(labels) => {
                    let top = wish.top.unwrap_or(usize::MAX);
                    let (name, classes) = labels.of_picture(&app, name.as_deref(), &picture.image, top)?;
                    outcome(name, &picture, Answer::Classes(classes), wish)
                }
            }
        })
        .await?;
        Ok(response(&call, used_for, wish, outcome))
    })
}

fn by_use(
    app: &App,
    name: Option<&str>,
    used_for: Use,
    picture: &Picture,
    wish: Wish,
    left: &AtomicBool,
) -> Result<Outcome, Refusal> {
    let (name, model) = app.picture_model(name, used_for)?;
    let image = &picture.image;
    let answer = match &model {
        Resident::Pages(model) => {
            Answer::Page(model.read_page_from(image, wish.threshold.unwrap_or(model.threshold))?)
        }
        Resident::Pictures(model) => by_model(model, image, wish, app, left)?,
        _ => return Err(EngineError::Unloaded.into()),
    };
    outcome(name, picture, answer, wish)
}

/// An answer, and its picture if that is wanted.
fn outcome(model: String, picture: &Picture, answer: Answer, wish: Wish) -> Result<Outcome, Refusal> {
    let image = &picture.image;
    let drawn = if wish.draw || wish.kind.is_some() {
        let drawn = match &answer {
            Answer::Depth(depth) if wish.gray => overlay::depth_gray(depth),
            answer => answer.drawn(image),
        };
        let encoded = drawn.and_then(|drawn| encode(&drawn, wish.kind.unwrap_or(FileKind::Png)));
        Some(encoded.map_err(failed)?)
    } else {
        None
    };
    Ok(Outcome { model, document: document(image, &answer), picture: drawn })
}

fn failed(error: PixelError) -> Refusal {
    EngineError::Task(kun_engine::tasks::TaskError::Input { what: error.to_string() }).into()
}

fn by_model(
    model: &VisionModel,
    image: &Arc<Image>,
    wish: Wish,
    app: &App,
    left: &AtomicBool,
) -> Result<Answer, Refusal> {
    if let Some(plan) = model.plan(image)? {
        let most = app.options.limits.image_megapixels;
        let pixels = plan.width as u64 * plan.height as u64;
        if pixels > most as u64 * 1_000_000 {
            let what = format!(
                "{}x{} pixels would become {}x{}; at most {most} megapixels are made",
                image.width(),
                image.height(),
                plan.width,
                plan.height
            );
            return Err(Refusal::invalid("image", what).code("invalid_image"));
        }
        return Ok(Answer::Picture(model.transform(image, &mut |_, _| !left.load(Ordering::Relaxed))?));
    }
    let mut task = model.task().clone();
    match (&mut task, wish.threshold) {
        (VisionTask::Detect(task), Some(threshold)) => task.threshold = threshold,
        (VisionTask::Instances(task), Some(threshold)) => task.threshold = threshold,
        (VisionTask::Pose(task), Some(threshold)) => task.threshold = threshold,
        (VisionTask::Faces(task), Some(threshold)) => task.threshold = threshold,
        (VisionTask::Classify(task), _) => task.top = wish.top.unwrap_or(5),
        _ => {}
    }
    let mut answers = model.answer_as(&task, std::slice::from_ref(image));
    Ok(answers.pop().unwrap_or(Err(EngineError::Unloaded))?)
}

fn data_url(bytes: &[u8]) -> String {
    format!("data:image/png;base64,{}", base64::encode(bytes))
}

fn response(call: &Call, used_for: Use, wish: Wish, outcome: Outcome) -> Response {
    let Outcome { model, mut document, picture } = outcome;
    match (wish.kind, picture) {
        (Some(kind), Some(bytes)) => {
            let kind = match kind {
                FileKind::Jpeg => "image/jpeg",
                FileKind::WebP => "image/webp",
                _ => "image/png",
            };
            text_response(kind, bytes)
        }
        (_, picture) => {
            document["model"] = json!(model);
            match (picture, used_for) {
                // As OpenAI's routes for pictures answer.
                (Some(bytes), Use::Pictures(verb)) if verb.makes_pictures() => {
                    document["created"] = json!(UNIX_EPOCH.elapsed().unwrap_or_default().as_secs());
                    document["data"] = json!([{ "b64_json": base64::encode(&bytes) }]);
                }
                (Some(bytes), _) => document["picture"] = json!(data_url(&bytes)),
                (None, _) => {}
            }
            call.json(document)
        }
    }
}
