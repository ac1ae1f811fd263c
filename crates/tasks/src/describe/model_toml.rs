//! The description that lies beside a model: `model.toml`. `docs/vision.md` explains every key.

use super::heads::{self, channels_last, input_of};
use super::known_labels::COCO;
use super::{DescribeError, Facts, Port, Verb, VisionTask};
use crate::image::Transform;
use crate::pixels::Filter;
use crate::pixels::fit::{Fit, Place};
use crate::vision::depth::Direction;
use crate::vision::input::{ColorOrder, ElementKind, InputSize, Layout};
use crate::vision::{
    BoxHead, Classify, Depth, Detect, Embed, Faces, Input, Instances, Matte, MatteActivation, Pool, Pose,
    Segment,
};
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
struct Document {
    task: Option<String>,
    labels: Option<toml::Value>,
    head: Option<String>,
    threshold: Option<f32>,
    iou: Option<f32>,
    activation: Option<String>,
    larger_is: Option<String>,
    pool: Option<String>,
    tiles: Option<bool>,
    multiple: Option<usize>,
    overlap: Option<usize>,
    #[serde(default)]
    input: InputTable,
    #[serde(default)]
    output: Vec<OutputTable>,
}

#[derive(Debug, Default, Deserialize)]
struct InputTable {
    name: Option<String>,
    shape: Option<Vec<toml::Value>>,
    layout: Option<String>,
    dtype: Option<String>,
    color: Option<String>,
    scale: Option<f32>,
    mean: Option<Vec<f32>>,
    std: Option<Vec<f32>>,
    resize: Option<String>,
    filter: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct OutputTable {
    name: String,
    shape: Option<Vec<toml::Value>>,
    #[serde(default)]
    meaning: String,
    layout: Option<String>,
    range: Option<String>,
    first_channel: Option<usize>,
}

fn wrong(what: impl Into<String>) -> DescribeError {
    DescribeError::Wrong { file: "model.toml", what: what.into() }
}

/// What a `model.toml` names: the label file, if any.
pub fn label_file(text: &str) -> Option<String> {
    let document: Document = toml::from_str(text).ok()?;
    Some(document.labels?.as_str()?.to_owned())
}

/// What a `model.toml` says a model is for, in its own word.
pub fn task_word(text: &str) -> Option<String> {
    toml::from_str::<Document>(text).ok()?.task
}

/// The model's use by its `model.toml`.
///
/// # Errors
/// [`DescribeError::Wrong`] naming the key, [`DescribeError::OtherTask`].
pub fn describe(text: &str, facts: &Facts, verb: Verb) -> Result<VisionTask, DescribeError> {
    let document: Document = toml::from_str(text).map_err(|error| wrong(error.message().to_owned()))?;
    let word = document.task.as_deref().ok_or_else(|| wrong("no `task`"))?;
    let is = Verb::from_task_word(word).ok_or_else(|| wrong(format!("`task` is `{word}`, which is none")))?;
    if !suits(is, verb) {
        let is = word.to_owned();
        return Err(DescribeError::OtherTask { name: facts.name.clone(), is, verb: verb.name() });
    }
    let input = input(&document.input, facts)?;
    let outputs = outputs(&document, facts)?;
    let labels = labels(&document, facts);
    let first = outputs.first().ok_or_else(|| wrong("no `[[output]]`"))?;
    let table = document.output.first();
    let output = first.name.clone();
    let says = |words: &[&str]| {
        table.is_some_and(|t| words.iter().any(|word| t.meaning.to_ascii_lowercase().contains(word)))
    };
    Ok(match is {
        Verb::Classify => VisionTask::Classify(Classify { input, output, labels, top: 5 }),
        Verb::Detect => {
            let head = box_head(&document, &outputs, &input, &labels)?;
            let mut detect = Detect::new(input, head, labels);
            detect.threshold = document.threshold.unwrap_or(detect.threshold);
            detect.iou = document.iou.unwrap_or(detect.iou);
            VisionTask::Detect(detect)
        }
        Verb::Segment => {
            if let Some(prototypes) = outputs.iter().find(|p| p.shape.len() == 4 && outputs.len() > 1) {
                let rows = outputs.iter().find(|p| p.shape.len() == 3).unwrap_or(first);
                let head = BoxHead::Columns { output: rows.name.clone(), classes: labels.len() };
                let prototypes = prototypes.name.clone();
                let threshold = document.threshold.unwrap_or(0.3);
                let iou = document.iou.unwrap_or(0.45);
                return Ok(VisionTask::Instances(Instances {
                    input,
                    head,
                    prototypes,
                    labels,
                    threshold,
                    iou,
                }));
            }
            let classes_last = output_layout(table, first, &input);
            VisionTask::Segment(Segment { input, output, labels, classes_last })
        }
        Verb::Cutout => {
            let activation = match document.activation.as_deref() {
                None | Some("none") => MatteActivation::None,
                Some("sigmoid") => MatteActivation::Sigmoid,
                Some("spread") => MatteActivation::Spread,
                Some(other) => {
                    return Err(wrong(format!("`activation` is `{other}`: none, sigmoid or spread")));
                }
            };
            VisionTask::Matte(Matte { input, output, activation })
        }
        Verb::Depth => {
            let direction = match document.larger_is.as_deref() {
                Some("farther") => Direction::Farther,
                Some("nearer") => Direction::Nearer,
                None if says(&["farther"]) => Direction::Farther,
                None => Direction::Nearer,
                Some(other) => return Err(wrong(format!("`larger_is` is `{other}`: farther or nearer"))),
            };
            VisionTask::Depth(Depth { input, output, direction })
        }
        Verb::Embed => {
            let pool = match document.pool.as_deref() {
                None | Some("first") => Pool::First,
                Some("mean") => Pool::Mean,
                Some(other) => return Err(wrong(format!("`pool` is `{other}`: first or mean"))),
            };
            VisionTask::Embed(Embed { input, output, pool })
        }
        Verb::Pose => {
            let head = heads::pose(&outputs)
                .ok_or_else(|| wrong("its outputs are those of no known pose network"))?;
            VisionTask::Pose(Pose { input, head, threshold: document.threshold.unwrap_or(0.2) })
        }
        Verb::Faces => {
            let head = heads::faces(&outputs)
                .ok_or_else(|| wrong("its outputs are those of no known face network"))?;
            let usual = if matches!(head, crate::vision::FaceHead::Corners { .. }) { 0.7 } else { 0.6 };
            let threshold = document.threshold.unwrap_or(usual);
            VisionTask::Faces(Faces { input, head, threshold, iou: document.iou.unwrap_or(0.3) })
        }
        Verb::Upscale | Verb::Denoise | Verb::Enhance | Verb::Stylize => {
            VisionTask::Transform(transform(&document, input, first, table, is)?)
        }
    })
}

/// Whether a model for one verb may serve another.
fn suits(is: Verb, verb: Verb) -> bool {
    is == verb
        || matches!(
            (is, verb),
            (Verb::Cutout, Verb::Segment) | (Verb::Enhance, Verb::Denoise) | (Verb::Denoise, Verb::Enhance)
        )
}

fn transform(
    document: &Document,
    input: Input,
    port: &Port,
    table: Option<&OutputTable>,
    is: Verb,
) -> Result<Transform, DescribeError> {
    let meaning = table.map(|t| t.meaning.clone()).unwrap_or_default();
    let range = table.and_then(|t| t.range.clone()).or_else(|| {
        ["0..255", "-1..1", "0..1"].iter().find(|r| meaning.contains(**r)).map(|r| (*r).to_owned())
    });
    let output_scale = match range.as_deref() {
        Some("0..255") => 1.0,
        Some("0..1") => 255.0,
        None => 1.0 / input.scale,
        Some(other) => return Err(wrong(format!("`range` of an output is `{other}`: 0..1 or 0..255"))),
    };
    // `channels 4..6 = …`
    let told = meaning
        .split("channels ")
        .nth(1)
        .and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<usize>().ok());
    let fixed = matches!(input.size, InputSize::Fixed { .. });
    let resize = document.input.resize.as_deref().unwrap_or_default();
    let told_multiple = resize
        .split("multiples of ")
        .nth(1)
        .and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<usize>().ok());
    let multiple = document.multiple.or(told_multiple).unwrap_or(1).clamp(1, 256);
    let mut transform = Transform {
        output_scale,
        output_pixels: output_layout(table, port, &input),
        first_channel: table.and_then(|t| t.first_channel).or(told).unwrap_or(0),
        multiple,
        overlap: document.overlap.unwrap_or(64).clamp(0, 512),
        // Brightness is judged over the whole picture.
        gains: is == Verb::Enhance && fixed,
        whole: !document.tiles.unwrap_or(is != Verb::Stylize),
        ..Transform::new(input, &port.name)
    };
    if !fixed {
        transform.input.size = InputSize::ShortSide { short_side: 1, multiple };
    }
    Ok(transform)
}

fn output_layout(table: Option<&OutputTable>, port: &Port, input: &Input) -> bool {
    match table.and_then(|t| t.layout.as_deref()) {
        Some(layout) => layout.eq_ignore_ascii_case("NHWC"),
        None => table.is_some_and(|t| t.meaning.contains("NHWC")) || channels_last(port, input),
    }
}

fn box_head(
    document: &Document,
    outputs: &[Port],
    input: &Input,
    labels: &[String],
) -> Result<BoxHead, DescribeError> {
    let InputSize::Fixed { width, height } = input.size else {
        return Err(wrong("a detection network needs `shape` with its sides under `[input]`"));
    };
    let output = outputs.first().map(|p| p.name.clone()).unwrap_or_default();
    let named = |part: &str| {
        let found = outputs.iter().find(|p| p.name.to_ascii_lowercase().contains(part));
        found
            .map(|p| p.name.clone())
            .ok_or_else(|| wrong(format!("no `[[output]]` with `{part}` in its name")))
    };
    Ok(match document.head.as_deref() {
        None => heads::boxes(outputs, (width, height), labels.len()).ok_or_else(|| {
            wrong("the outputs' shapes are those of no known detector; `head` says which: yolox, cells, objectness, columns, final, relative, detr, queries, lists")
        })?,
        Some("yolox") => BoxHead::Yolox { output, strides: vec![8, 16, 32] },
        Some("cells") => BoxHead::Cells { output },
        Some("objectness") => BoxHead::Objectness { output },
        Some("columns") => BoxHead::Columns { output, classes: labels.len() },
        Some("final") => BoxHead::Final { output },
        Some("relative") => BoxHead::Relative { output },
        Some(kind @ ("detr" | "queries")) => {
            BoxHead::Queries { logits: named("logits")?, boxes: named("boxes")?, softmax: kind == "detr" }
        }
        Some("lists") => {
            BoxHead::Lists { boxes: named("boxes")?, scores: named("scores")?, classes: named("labels")? }
        }
        Some(other) => return Err(wrong(format!("`head` is `{other}`, which is none"))),
    })
}

fn dims(shape: &[toml::Value]) -> Vec<Option<usize>> {
    let dim = |v: &toml::Value| match v {
        toml::Value::Integer(n) => usize::try_from(*n).ok(),
        toml::Value::String(text) => text.parse().ok(),
        _ => None,
    };
    shape.iter().map(dim).collect()
}

fn outputs(document: &Document, facts: &Facts) -> Result<Vec<Port>, DescribeError> {
    if document.output.is_empty() {
        return Ok(facts.outputs.clone());
    }
    let port = |table: &OutputTable| {
        let inside = facts.outputs.iter().find(|p| p.name == table.name);
        if inside.is_none() && !facts.outputs.is_empty() {
            let names: Vec<_> = facts.outputs.iter().map(|p| p.name.as_str()).collect();
            return Err(wrong(format!(
                "no output `{}` in the model; it has {}",
                table.name,
                names.join(", ")
            )));
        }
        let told = table.shape.as_deref().map(dims);
        let inner = inside.map(|p| p.shape.clone()).unwrap_or_default();
        let shape = match told {
            // What the file leaves open, the description may close.
            Some(told) if inner.len() == told.len() => {
                told.iter().zip(&inner).map(|(a, b)| b.or(*a)).collect()
            }
            Some(told) if inner.is_empty() => told,
            _ => inner,
        };
        let dtype = inside.map_or_else(|| "float32".to_owned(), |p| p.dtype.clone());
        Ok(Port { name: table.name.clone(), shape, dtype })
    };
    document.output.iter().map(port).collect()
}

fn labels(document: &Document, facts: &Facts) -> Vec<String> {
    match &document.labels {
        Some(toml::Value::Array(list)) => list.iter().filter_map(|l| l.as_str()).map(str::to_owned).collect(),
        Some(toml::Value::String(name)) if name == "coco" => COCO.iter().map(|l| (*l).to_owned()).collect(),
        _ => facts.label_list(),
    }
}

fn input(table: &InputTable, facts: &Facts) -> Result<Input, DescribeError> {
    let inside = match &table.name {
        Some(name) => {
            let found = facts.inputs.iter().find(|p| p.name == *name);
            if found.is_none() && !facts.inputs.is_empty() {
                return Err(wrong(format!(
                    "no input `{name}` in the model; it has {}",
                    facts.inputs[0].name
                )));
            }
            found
        }
        None => facts.picture_input().or(facts.inputs.first()),
    };
    let mut port = inside.cloned().unwrap_or_else(|| Port {
        name: table.name.clone().unwrap_or_default(),
        shape: Vec::new(),
        dtype: "float32".to_owned(),
    });
    let told = table.shape.as_deref().map(dims).unwrap_or_default();
    if port.shape.len() != told.len() && !told.is_empty() {
        port.shape = told;
    } else {
        port.shape = port
            .shape
            .iter()
            .zip(told.iter().chain(std::iter::repeat(&None)))
            .map(|(a, b)| a.or(*b))
            .collect();
    }
    let open = heads::any_size(&port);
    let mut input = input_of(&port, (0, 0));
    let known =
        |key: &str, value: &str, of: &str| wrong(format!("`{key}` under `[input]` is `{value}`: {of}"));
    if let Some(layout) = &table.layout {
        input.layout = match layout.to_ascii_uppercase().as_str() {
            "NCHW" => Layout::Planes,
            "NHWC" => Layout::Pixels,
            _ => return Err(known("layout", layout, "NCHW or NHWC")),
        };
    }
    if let Some(color) = &table.color {
        input.order = match color.to_ascii_uppercase().as_str() {
            "RGB" => ColorOrder::Rgb,
            "BGR" => ColorOrder::Bgr,
            "GRAY" | "GREY" => ColorOrder::Gray,
            _ => return Err(known("color", color, "RGB, BGR or GRAY")),
        };
    }
    input.kind = match table.dtype.as_deref() {
        None => input.kind,
        Some("f32" | "float32") => ElementKind::F32,
        Some("f16" | "float16") => ElementKind::F16,
        Some("u8" | "uint8") => ElementKind::U8,
        Some("i32" | "int32") => ElementKind::I32,
        Some(other) => return Err(known("dtype", other, "f32, f16 or u8")),
    };
    input.scale = table.scale.unwrap_or(input.scale);
    let triple = |key: &str, list: &Option<Vec<f32>>, usual: f32| match list.as_deref() {
        None => Ok([usual; 3]),
        Some([a]) => Ok([*a; 3]),
        Some([a, b, c]) => Ok([*a, *b, *c]),
        Some(other) => Err(wrong(format!("`{key}` has {} numbers, expected 1 or 3", other.len()))),
    };
    input.mean = triple("mean", &table.mean, 0.0)?;
    input.std = triple("std", &table.std, 1.0)?;
    let finite = [input.mean, input.std].concat().iter().all(|v| v.is_finite());
    if !finite || input.std.contains(&0.0) || !input.scale.is_finite() || input.scale == 0.0 {
        return Err(wrong("`scale`, `mean` and `std` must be finite, and none of `scale` and `std` zero"));
    }
    input.filter = match table.filter.as_deref() {
        None | Some("bilinear") => Filter::Bilinear,
        Some("bicubic") => Filter::Bicubic,
        Some("lanczos") => Filter::Lanczos,
        Some("nearest") => Filter::Nearest,
        Some(other) => return Err(known("filter", other, "nearest, bilinear, bicubic or lanczos")),
    };
    let resize = table.resize.as_deref().unwrap_or("stretch");
    input.fit = fit(resize, &input)?;
    if let InputSize::Fixed { width, height } = input.size {
        if width > 8192 || height > 8192 {
            return Err(wrong(format!("an input of {width}x{height} pixels; at most 8192 a side")));
        }
        if width == 0 || height == 0 {
            if !open || !resize.starts_with("none") && !resize.starts_with("stretch") {
                return Err(wrong("`shape` under `[input]` must give the height and the width"));
            }
            input.size = InputSize::ShortSide { short_side: 1, multiple: 1 };
        }
    }
    Ok(input)
}

/// `stretch`, `none`, `letterbox …`, `pad to square`, `short side N …, centre crop …`; words behind are for people.
fn fit(resize: &str, input: &Input) -> Result<Fit, DescribeError> {
    let number_after = |word: &str| {
        let rest = resize.split(word).nth(1)?;
        rest.trim_start().split(|c: char| !c.is_ascii_digit()).next()?.parse::<usize>().ok()
    };
    if resize.starts_with("stretch") || resize.starts_with("none") {
        return Ok(Fit::Stretch);
    }
    if resize.starts_with("letterbox") || resize.starts_with("pad to square") {
        let fill = number_after("value").or_else(|| number_after("pad ")).unwrap_or(0).min(255) as u8;
        let corner = resize.contains("top-left") || resize.contains("corner");
        return Ok(Fit::Letterbox { fill, place: if corner { Place::Corner } else { Place::Middle } });
    }
    if resize.starts_with("short side") {
        let InputSize::Fixed { width, height } = input.size else { return Ok(Fit::Stretch) };
        let short_side = number_after("short side").unwrap_or(width.min(height)).clamp(1, 8192);
        return Ok(Fit::CenterCrop { short_side });
    }
    Err(wrong(format!("`resize` is `{resize}`: stretch, letterbox, short side N, or none")))
}
