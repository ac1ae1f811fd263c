//! Networks whose files are known by name or by shapes that no other has, with the preprocessing they were made with.

use super::heads::{self, IMAGENET_MEAN, IMAGENET_STD, any_size, channels_last, input_of, letterbox};
use super::known_labels::COCO;
use super::{DescribeError, Facts, Verb, VisionTask};
use crate::image::Transform;
use crate::pixels::fit::{Fit, Place};
use crate::vision::depth::Direction;
use crate::vision::input::{ColorOrder, InputSize};
use crate::vision::{BoxHead, Depth, Detect, FaceHead, Faces, Input, Matte, MatteActivation, Pose, PoseHead};

/// The model's use, if it is known.
///
/// # Errors
/// None so far; the form is that of the other sources.
pub fn describe(facts: &Facts, verb: Verb) -> Result<Option<VisionTask>, DescribeError> {
    let Some(port) = facts.picture_input() else { return Ok(None) };
    let name = facts.name.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    Ok(match verb {
        Verb::Detect => yolox(facts),
        Verb::Faces => faces(facts),
        Verb::Pose => pose(facts),
        Verb::Depth if has(&["midas", "depth_anything", "depth-anything", "dpt"]) => {
            let mut input = imagenet(input_of(port, (518, 518)));
            if any_size(port) && has(&["anything"]) {
                input.size = InputSize::ShortSide { short_side: 518, multiple: 14 };
            }
            let output = facts.outputs.first().map(|p| p.name.clone()).unwrap_or_default();
            Some(VisionTask::Depth(Depth { input, output, direction: Direction::Nearer }))
        }
        Verb::Cutout => matte(facts, &name),
        Verb::Upscale => picture(facts, 1.0 / 255.0),
        Verb::Denoise => picture(facts, 1.0 / 255.0),
        // Johnson's networks take and give 0 to 255.
        Verb::Stylize => picture(facts, 1.0).map(|task| match task {
            VisionTask::Transform(transform) => {
                VisionTask::Transform(Transform { multiple: 4, whole: true, ..transform })
            }
            other => other,
        }),
        _ => None,
    })
}

fn imagenet(input: Input) -> Input {
    Input { mean: IMAGENET_MEAN, std: IMAGENET_STD, ..input }
}

/// YOLOX: cells of three strides, one row each, which only it has.
fn yolox(facts: &Facts) -> Option<VisionTask> {
    let input = input_of(facts.picture_input()?, (640, 640));
    let InputSize::Fixed { width, height } = input.size else { return None };
    let head = heads::boxes(&facts.outputs, (width, height), 0)?;
    let BoxHead::Yolox { .. } = head else { return None };
    let classes = facts.outputs.first()?.shape.last().copied().flatten()? - 5;
    let mut labels = facts.label_list();
    if labels.is_empty() && classes == COCO.len() {
        labels = COCO.iter().map(|l| (*l).to_owned()).collect();
    }
    let input = Input { scale: 1.0, order: ColorOrder::Bgr, fit: letterbox(Place::Corner), ..input };
    Some(VisionTask::Detect(Detect::new(input, head, labels)))
}

fn faces(facts: &Facts) -> Option<VisionTask> {
    let head = heads::faces(&facts.outputs)?;
    let port = facts.picture_input()?;
    let (input, threshold) = match head {
        // OpenCV's own program feeds BGR from 0 to 255.
        FaceHead::YuNetPriors { .. } | FaceHead::YuNetStrides => {
            (Input { scale: 1.0, order: ColorOrder::Bgr, ..input_of(port, (320, 320)) }, 0.6)
        }
        FaceHead::Corners { .. } => {
            let input = input_of(port, (320, 240));
            (Input { scale: 1.0, mean: [127.0; 3], std: [128.0; 3], ..input }, 0.7)
        }
    };
    let fit = Fit::Letterbox { fill: 0, place: Place::Corner };
    let input = if head == FaceHead::YuNetStrides { Input { fit, ..input } } else { input };
    Some(VisionTask::Faces(Faces { input, head, threshold, iou: 0.3 }))
}

/// MoveNet as it is published: pixels as whole numbers, one person of 17 points, which only it has.
fn pose(facts: &Facts) -> Option<VisionTask> {
    let head = heads::pose(&facts.outputs)?;
    let PoseHead::MoveNet { .. } = head else { return None };
    let input = input_of(facts.picture_input()?, (192, 192));
    let fit = Fit::Letterbox { fill: 0, place: Place::Middle };
    Some(VisionTask::Pose(Pose { input: Input { scale: 1.0, fit, ..input }, head, threshold: 0.2 }))
}

fn matte(facts: &Facts, name: &str) -> Option<VisionTask> {
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    let port = facts.picture_input()?;
    let output = facts.outputs.first()?.name.clone();
    let half = |input: Input, std: f32| Input { mean: [0.5; 3], std: [std; 3], ..input };
    let (input, activation) = if has(&["u2net", "silueta"]) {
        (imagenet(input_of(port, (320, 320))), MatteActivation::Spread)
    } else if has(&["isnet", "dis_general", "rmbg-1", "rmbg1"]) {
        (half(input_of(port, (1024, 1024)), 1.0), MatteActivation::Spread)
    } else if has(&["birefnet", "rmbg"]) {
        (imagenet(input_of(port, (1024, 1024))), MatteActivation::Auto)
    } else if has(&["modnet"]) {
        (half(input_of(port, (512, 512)), 0.5), MatteActivation::None)
    } else {
        return None;
    };
    Some(VisionTask::Matte(Matte { input, output, activation }))
}

/// One picture in, one picture with as many channels out.
fn picture(facts: &Facts, scale: f32) -> Option<VisionTask> {
    let [port] = facts.inputs.as_slice() else { return None };
    let output = facts.outputs.first()?;
    let mut input = Input { scale, ..input_of(port, (0, 0)) };
    let last = channels_last(output, &input);
    let channels = output.shape.get(if last { 3 } else { 1 }).copied().flatten();
    if output.shape.len() != 4 || channels.is_some_and(|c| c != input.order.channels()) {
        return None;
    }
    if any_size(port) {
        input.size = InputSize::ShortSide { short_side: 1, multiple: 1 };
    }
    let output_pixels = last;
    Some(VisionTask::Transform(Transform { output_pixels, ..Transform::new(input, &output.name) }))
}
