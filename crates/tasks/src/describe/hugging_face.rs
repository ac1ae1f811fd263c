//! What `config.json` and `preprocessor_config.json` of a Hugging Face folder say.

use super::heads::{IMAGENET_MEAN, IMAGENET_STD, channels_last, input_of};
use super::{DescribeError, Facts, Verb, VisionTask};
use crate::image::Transform;
use crate::pixels::Filter;
use crate::pixels::fit::Fit;
use crate::vision::depth::Direction;
use crate::vision::{
    BoxHead, Classify, Depth, Detect, Embed, Input, InputSize, Matte, MatteActivation, Pool, Segment,
};
use serde_json::Value;

/// The model's use, if the folder has a `config.json` of a picture model.
///
/// # Errors
/// [`DescribeError::OtherTask`] if it is a model for something else, [`DescribeError::Wrong`] for a broken file.
pub fn describe(facts: &Facts, verb: Verb) -> Result<Option<VisionTask>, DescribeError> {
    let (Some(config), Some(port)) = (&facts.config, facts.picture_input()) else { return Ok(None) };
    let architecture = config["architectures"][0].as_str().unwrap_or_default();
    let model_type = config["model_type"].as_str().unwrap_or_default();
    if verb == Verb::Embed {
        return features(facts, config);
    }
    let Some(is) = verb_of(architecture, model_type, facts) else { return Ok(None) };
    if is != verb && !(is == Verb::Cutout && verb == Verb::Segment) {
        let is = format!("`kun {}`", is.name());
        return Err(DescribeError::OtherTask { name: facts.name.clone(), is, verb: verb.name() });
    }
    let mut input = preprocessing(facts, input_of(port, image_size(config)))?;
    let named = |part: &str| facts.outputs.iter().find(|p| p.name.contains(part));
    let Some(first) = facts.outputs.first() else { return Ok(None) };
    let labels = labels(config);
    Ok(Some(match is {
        Verb::Classify => {
            let output = named("logits").unwrap_or(first).name.clone();
            VisionTask::Classify(Classify { input, output, labels, top: 5 })
        }
        Verb::Detect => {
            let mask = facts.inputs.iter().find(|p| p.name == "pixel_mask");
            input.mask = mask.map(|port| {
                let side = |i: usize| port.shape.get(i).copied().flatten().unwrap_or(64);
                (port.name.clone(), [side(1), side(2)])
            });
            let (Some(logits), Some(boxes)) = (named("logits"), named("boxes")) else { return Ok(None) };
            let softmax = matches!(model_type, "detr" | "yolos" | "table-transformer");
            let head = BoxHead::Queries { logits: logits.name.clone(), boxes: boxes.name.clone(), softmax };
            VisionTask::Detect(Detect::new(input, head, labels))
        }
        Verb::Segment => {
            let output = named("logits").unwrap_or(first);
            let classes_last = channels_last(output, &input);
            VisionTask::Segment(Segment { input, output: output.name.clone(), labels, classes_last })
        }
        Verb::Depth => {
            let output = named("depth").unwrap_or(first).name.clone();
            let metric = matches!(model_type, "zoedepth" | "depth_pro")
                || config["depth_estimation_type"].as_str() == Some("metric");
            let direction = if metric { Direction::Farther } else { Direction::Nearer };
            VisionTask::Depth(Depth { input, output, direction })
        }
        Verb::Cutout => {
            let activation = if facts.name.to_ascii_lowercase().contains("rmbg-1") {
                MatteActivation::Spread
            } else {
                MatteActivation::Auto
            };
            VisionTask::Matte(Matte { input, output: first.name.clone(), activation })
        }
        _ => {
            let mut transform = Transform::new(input, &first.name);
            // Swin2SR works in windows of 8.
            transform.multiple = config["window_size"].as_u64().map_or(8, |n| (n as usize).clamp(1, 64));
            transform.input.mean = [0.0; 3];
            transform.input.std = [1.0; 3];
            transform.input.size = InputSize::ShortSide { short_side: 1, multiple: transform.multiple };
            VisionTask::Transform(transform)
        }
    }))
}

/// A picture's features: any network that gives them, such as CLIP, SigLIP, DINOv2, or ViT and ResNet without a head.
fn features(facts: &Facts, config: &Value) -> Result<Option<VisionTask>, DescribeError> {
    let Some(port) = facts.picture_input() else { return Ok(None) };
    let named = |part: &str| facts.outputs.iter().find(|p| p.name.contains(part));
    // Of CLIP the projection into the space that pictures and texts share.
    let vectors = ["image_embeds", "image_features", "pooler_output", "last_hidden_state"];
    let Some(output) = vectors.iter().find_map(|name| named(name)) else { return Ok(None) };
    // The sides stand with the vision part of a model of two parts.
    let own = if config["vision_config"].is_object() { &config["vision_config"] } else { config };
    let input = preprocessing(facts, input_of(port, image_size(own)))?;
    Ok(Some(VisionTask::Embed(Embed { input, output: output.name.clone(), pool: Pool::First })))
}

fn verb_of(architecture: &str, model_type: &str, facts: &Facts) -> Option<Verb> {
    let ends = |suffix: &str| architecture.ends_with(suffix);
    let name = facts.name.to_ascii_lowercase();
    Some(if ends("ForImageClassification") || ends("ForImageClassificationWithTeacher") {
        Verb::Classify
    } else if ends("ForObjectDetection") {
        Verb::Detect
    } else if ends("ForSemanticSegmentation") {
        Verb::Segment
    } else if ends("ForDepthEstimation") {
        Verb::Depth
    } else if ends("ForImageSuperResolution") {
        Verb::Upscale
    } else if ["birefnet", "rmbg", "modnet", "isnet", "u2net"]
        .iter()
        .any(|word| name.contains(word) || model_type.to_ascii_lowercase().contains(word))
    {
        Verb::Cutout
    } else {
        return None;
    })
}

/// `image_size` of a configuration: a number or two.
fn image_size(config: &Value) -> (usize, usize) {
    let number = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
    match &config["image_size"] {
        Value::Array(sides) if sides.len() == 2 => {
            (number(&sides[1]).unwrap_or(224), number(&sides[0]).unwrap_or(224))
        }
        value => {
            let side = number(value).unwrap_or(224);
            (side, side)
        }
    }
}

fn labels(config: &Value) -> Vec<String> {
    let Some(map) = config["id2label"].as_object() else { return Vec::new() };
    let count = map.keys().filter_map(|k| k.parse::<usize>().ok()).max().map_or(0, |n| n + 1).min(65_536);
    let label = |n: usize| {
        map.get(&n.to_string()).and_then(Value::as_str).map_or_else(|| n.to_string(), str::to_owned)
    };
    (0..count).map(label).collect()
}

/// Normalisation and size by `preprocessor_config.json`; the usual ones without it.
fn preprocessing(facts: &Facts, mut input: Input) -> Result<Input, DescribeError> {
    let wrong = |what: String| DescribeError::Wrong { file: "preprocessor_config.json", what };
    let Some(p) = &facts.preprocessor else {
        (input.mean, input.std) = (IMAGENET_MEAN, IMAGENET_STD);
        return Ok(input);
    };
    let says = |key: &str, usual: bool| p[key].as_bool().unwrap_or(usual);
    let triple = |key: &str, usual: [f32; 3]| -> Result<[f32; 3], DescribeError> {
        let Some(list) = p[key].as_array() else { return Ok(usual) };
        let values: Vec<f32> = list.iter().filter_map(Value::as_f64).map(|v| v as f32).collect();
        match values.as_slice() {
            [a, b, c] => Ok([*a, *b, *c]),
            [a] => Ok([*a; 3]),
            _ => Err(wrong(format!("`{key}` has {} numbers, expected 3", list.len()))),
        }
    };
    input.scale = if says("do_rescale", true) {
        p["rescale_factor"].as_f64().map_or(1.0 / 255.0, |v| v as f32)
    } else {
        1.0
    };
    if says("do_normalize", true) {
        input.mean = triple("image_mean", IMAGENET_MEAN)?;
        input.std = triple("image_std", IMAGENET_STD)?;
        if input.std.iter().any(|v| *v == 0.0 || !v.is_finite()) {
            return Err(wrong("`image_std` has a zero".to_owned()));
        }
    }
    input.filter = match p["resample"].as_u64() {
        Some(0) => Filter::Nearest,
        Some(1) => Filter::Lanczos,
        Some(3) => Filter::Bicubic,
        _ => Filter::Bilinear,
    };
    let number = |value: &Value| {
        value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=8192).contains(n))
    };
    let crop = &p["crop_size"];
    let crop =
        number(crop).map(|n| (n, n)).or_else(|| Some((number(&crop["width"])?, number(&crop["height"])?)));
    let size = &p["size"];
    let short = number(&size["shortest_edge"]).or_else(|| number(size));
    let exact = number(&size["width"]).zip(number(&size["height"]));
    let open = facts.picture_input().is_some_and(super::heads::any_size);
    match (crop, short, exact) {
        (Some((width, height)), Some(short_side), _) if says("do_center_crop", true) => {
            input.fit = Fit::CenterCrop { short_side };
            if open {
                input.size = InputSize::Fixed { width, height };
            }
        }
        // Depth networks keep the picture's shape: sides in whole patches.
        (_, _, Some((width, height))) if says("keep_aspect_ratio", false) && open => {
            let multiple = number(&p["ensure_multiple_of"]).unwrap_or(1);
            input.size = InputSize::ShortSide { short_side: width.min(height), multiple };
        }
        (_, _, Some((width, height))) if open => input.size = InputSize::Fixed { width, height },
        // Detection networks take any shape; a square of their usual side is close to what they learned.
        (_, Some(side), None) if open => input.size = InputSize::Fixed { width: side, height: side },
        _ => {}
    }
    Ok(input)
}
