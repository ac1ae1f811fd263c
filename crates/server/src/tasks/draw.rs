//! `/v1/images/generations`, `edits` and `variations`: pictures drawn from words.

use super::choice::unsuitable;
use super::image::{self, Picture};
use crate::error::Refusal;
use crate::http::base64;
use crate::routes::{Call, Reply};
use crate::schema::{Field, NAME, Shape, accepted, ignored, optional, required};
use kun_engine::tasks::pixels::{FileKind, PixelError, encode};
use kun_engine::vision::fresh_seed;
use kun_engine::{DrawRequest, EngineError, Resident, Use};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::UNIX_EPOCH;

/// Bytes of a prompt; networks take a few hundred at most.
const PROMPT: Shape = Shape::Text { most: 32_000 };
/// Pictures of one request.
const MOST: i64 = 8;
/// Steps of one picture.
const MOST_STEPS: i64 = 150;

const HOW: &[Field] = &[
    optional("model", NAME, "A model that draws; none: one that is here"),
    optional("n", Shape::Integer { least: 1, most: MOST }, "How many pictures; each has the next seed"),
    optional(
        "size",
        Shape::Text { most: 32 },
        "WIDTHxHEIGHT in pixels, or `auto`: what the model was made for",
    ),
    optional(
        "response_format",
        Shape::Kind {
            words: &["b64_json"],
            refused: &["url"],
            why: "pictures are not kept here, so that they have no address; b64_json holds them",
        },
        "Pictures come in the answer",
    ),
    optional(
        "output_format",
        Shape::Word(&["png", "jpeg", "webp"]),
        "Format of the pictures; png by default",
    ),
    optional("seed", Shape::Integer { least: 0, most: (1 << 53) - 1 }, "The noise that is begun with"),
    optional("steps", Shape::Integer { least: 1, most: MOST_STEPS }, "Steps; none: what suits the model"),
    optional(
        "guidance_scale",
        Shape::Number { least: 0.0, most: 100.0 },
        "How far from the negative prompt to the prompt; 1: no guidance",
    ),
    optional("truncate", Shape::Bool, "Cut prompts that are too long instead of refusing them"),
    optional(
        "background",
        Shape::Kind {
            words: &["auto", "opaque"],
            refused: &["transparent"],
            why: "no model here draws transparent pictures",
        },
        "Pictures are opaque",
    ),
    ignored("stream", "Pictures are not streamed"),
    ignored("quality", "Steps and size say how good a picture is"),
    ignored("style", "The prompt says it"),
    ignored("moderation", "Pictures are not judged"),
    ignored("output_compression", "JPEG has quality 92, WebP is lossless"),
    ignored("partial_images", "Pictures are not streamed"),
    accepted("user", "Whoever the caller asks for"),
];
const WORDS: &[Field] = &[
    required("prompt", PROMPT, "What is in the picture"),
    optional("negative_prompt", PROMPT, "What is not"),
];
const CHANGE: &[Field] = &[
    optional("image", image::SHAPE, image::ABOUT),
    optional(
        "strength",
        Shape::Number { least: 0.0, most: 1.0 },
        "How far the picture is changed; 0.8 by default",
    ),
];
pub(crate) const DRAW: &[&[Field]] = &[WORDS, HOW];
pub(crate) const EDIT: &[&[Field]] = &[
    WORDS,
    HOW,
    CHANGE,
    &[
        optional("mask", image::SHAPE, "What is drawn anew: transparent, or without transparency, white"),
        ignored("input_fidelity", "`strength` says it"),
    ],
];
pub(crate) const VARY: &[&[Field]] =
    &[&[optional("prompt", PROMPT, "What is in the picture; none by default")], HOW, CHANGE];

/// Tells the work that its client has left.
struct Leaving(Arc<AtomicBool>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A side of a size, from 1.
fn side(text: &str) -> Option<usize> {
    let digits = (1..=6).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|side| digits && *side > 0)
}

/// `512x384`.
fn size(text: Option<&str>) -> Result<(Option<usize>, Option<usize>), Refusal> {
    let Some(text) = text.filter(|text| *text != "auto") else { return Ok((None, None)) };
    let sides = text.split_once('x').and_then(|(w, h)| Some((Some(side(w)?), Some(side(h)?))));
    sides.ok_or_else(|| {
        let what = "`size` is WIDTHxHEIGHT, such as 512x512, or auto";
        Refusal::invalid("size", what).code("invalid_value")
    })
}

/// Refuses more pixels than are made for one request.
fn check_pixels(width: usize, height: usize, count: usize, megapixels: usize) -> Result<(), Refusal> {
    let pixels = width.saturating_mul(height).saturating_mul(count);
    if pixels <= megapixels.saturating_mul(1_000_000) {
        return Ok(());
    }
    let what = format!("{count} of {width}x{height} pixels; at most {megapixels} megapixels are made");
    Err(Refusal::invalid("size", what).code("invalid_value"))
}

pub(crate) fn generate(call: Call) -> Reply {
    run(call, false)
}
pub(crate) fn edit(call: Call) -> Reply {
    run(call, true)
}
pub(crate) fn vary(call: Call) -> Reply {
    run(call, true)
}

/// What came out.
struct Outcome {
    model: String,
    width: usize,
    height: usize,
    pictures: Vec<(u64, Vec<u8>)>,
}

fn run(mut call: Call, changes: bool) -> Reply {
    Box::pin(async move {
        let permits = call.app.reserve(call.tenant, 1)?;
        let (width, height) = size(call.text("size"))?;
        let mut request = DrawRequest {
            prompt: call.text("prompt").unwrap_or_default().to_owned(),
            negative: call.text("negative_prompt").unwrap_or_default().to_owned(),
            width,
            height,
            steps: call.count("steps"),
            guidance: call.float("guidance_scale"),
            seed: call.count("seed").map_or_else(fresh_seed, |seed| seed as u64),
            truncate: call.flag("truncate"),
            strength: call.float("strength"),
            ..DrawRequest::default()
        };
        let mut held: Vec<Picture> = Vec::new();
        if changes {
            let bytes = image::bytes(&mut call).await?;
            let mask = image::mask_bytes(&mut call).await?;
            let picture = image::decoded(&call.app, bytes).await?;
            request.picture = Some(picture.image.clone());
            if picture.first_frame {
                call.warnings.add("`image` is an animation; its first frame is used");
            }
            held.push(picture);
            if let Some(bytes) = mask {
                let mask = image::decoded(&call.app, bytes).await?;
                request.mask = Some(mask.image.clone());
                held.push(mask);
            }
        }
        let count = call.count("n").unwrap_or(1);
        let most = call.app.options.limits.image_megapixels;
        if let (Some(width), Some(height)) = (width, height) {
            check_pixels(width, height, count, most)?;
        }
        let format = call.text("output_format").unwrap_or("png").to_owned();
        let kind = match format.as_str() {
            "jpeg" => FileKind::Jpeg,
            "webp" => FileKind::WebP,
            _ => FileKind::Png,
        };
        let (app, name) = (call.app.clone(), call.text("model").map(str::to_owned));
        let left = Arc::new(AtomicBool::new(false));
        let _leaving = Leaving(left.clone());
        let outcome = Call::blocking(move || {
            let (_permits, _held) = (permits, held);
            let (name, model) = app.picture_model(name.as_deref(), Use::Drawing)?;
            let Resident::Drawing(model) = model else { return Err(unsuitable(&name, "draws no pictures")) };
            let plan = model.plan(&request)?;
            check_pixels(plan.width, plan.height, count, most)?;
            let mut pictures = Vec::new();
            for index in 0..count as u64 {
                let request = DrawRequest { seed: request.seed.wrapping_add(index), ..request.clone() };
                let drawn = model.draw(&request, &mut |_, _| !left.load(Ordering::Relaxed))?;
                pictures.push((request.seed, encode(&drawn, kind).map_err(failed)?));
            }
            Ok(Outcome { model: name, width: plan.width, height: plan.height, pictures })
        })
        .await?;
        let data = outcome
            .pictures
            .iter()
            .map(|(seed, bytes)| json!({ "b64_json": base64::encode(bytes), "seed": seed }));
        Ok(call.json(json!({
            "created": UNIX_EPOCH.elapsed().unwrap_or_default().as_secs(),
            "model": outcome.model,
            "size": format!("{}x{}", outcome.width, outcome.height),
            "output_format": format,
            "data": data.collect::<Vec<Value>>(),
        })))
    })
}

fn failed(error: PixelError) -> Refusal {
    EngineError::Task(kun_engine::tasks::TaskError::Input { what: error.to_string() }).into()
}
