//! `/v1/images/generations`, `edits` and `variations`: pictures drawn from words.

mod stream;
mod work;

use super::image::{self, Picture};
use crate::error::Refusal;
use crate::http::base64;
use crate::routes::{Call, Reply};
use crate::schema::{Field, NAME, Shape, accepted, ignored, optional, required};
use axum::response::Response;
use kun_engine::DrawRequest;
use kun_engine::tasks::pixels::FileKind;
use kun_engine::vision::fresh_seed;
use serde_json::json;
use std::time::UNIX_EPOCH;
use work::{Order, Step, Work};

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
    optional("stream", Shape::Bool, "Send each picture as an event as soon as it is drawn"),
    optional(
        "partial_images",
        Shape::Integer { least: 0, most: 3 },
        "How many partial pictures are sent on the way to each, with `stream`; each takes a pass of the decoder",
    ),
    optional("progress", Shape::Bool, "Send an event for every pass, with `stream`"),
    ignored("quality", "Steps and size say how good a picture is"),
    ignored("style", "The prompt says it"),
    ignored("moderation", "Pictures are not judged"),
    ignored("output_compression", "JPEG has quality 92, WebP is lossless"),
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
    run(call, Source::Words)
}
pub(crate) fn edit(call: Call) -> Reply {
    run(call, Source::Picture)
}
pub(crate) fn vary(call: Call) -> Reply {
    run(call, Source::Picture)
}

/// What pictures are drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Words,
    /// Edits and variations.
    Picture,
}

fn run(mut call: Call, from: Source) -> Reply {
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
        if from == Source::Picture {
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
        let streamed = call.flag("stream");
        for name in ["partial_images", "progress"] {
            if !streamed && call.get(name).is_some() {
                call.warnings.add(format!("`{name}` has no effect without `stream`"));
            }
        }
        let format = call.text("output_format").unwrap_or("png").to_owned();
        let kind = match format.as_str() {
            "jpeg" => FileKind::Jpeg,
            "webp" => FileKind::WebP,
            _ => FileKind::Png,
        };
        let partial_images = if streamed { call.count("partial_images").unwrap_or(0) } else { 0 };
        let order = Order { request, count, kind, partial_images, _permits: permits, _held: held };
        let work = Work::start(&call.app, call.text("model"), order).await?;
        match streamed {
            true => Ok(stream::events(&call, from, work, format)),
            false => collected(&call, work, &format).await,
        }
    })
}

/// All pictures in one answer.
async fn collected(call: &Call, mut work: Work, format: &str) -> Result<Response, Refusal> {
    let mut data = Vec::new();
    while let Some(step) = work.next().await {
        if let Step::Picture { seed, bytes, .. } = step? {
            data.push(json!({ "b64_json": base64::encode(&bytes), "seed": seed }));
        }
    }
    Ok(call.json(json!({
        "created": UNIX_EPOCH.elapsed().unwrap_or_default().as_secs(),
        "model": work.model(),
        "size": work.size(),
        "output_format": format,
        "data": data,
    })))
}
