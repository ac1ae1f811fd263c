//! Kinds of networks told by the names and shapes of their outputs.

use super::Port;
use crate::pixels::Filter;
use crate::pixels::fit::{Fit, Place};
use crate::vision::input::{ColorOrder, ElementKind, Input, InputSize, Layout};
use crate::vision::pose::PoseHead;
use crate::vision::{BoxHead, FaceHead};

/// Means of ImageNet's pictures, 0 to 1.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Their standard deviations.
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// An input as its port says it, 0 to 1, RGB, stretched; `fallback` is its size where the model takes any.
pub fn input_of(port: &Port, fallback: (usize, usize)) -> Input {
    let dims = &port.shape;
    let layout = match dims.as_slice() {
        [_, Some(1 | 3), _, _] => Layout::Planes,
        [_, _, _, Some(1 | 3)] => Layout::Pixels,
        _ => Layout::Planes,
    };
    let at = |i: usize| dims.get(i).copied().flatten();
    let (height, width, channels) = match layout {
        Layout::Planes => (at(2), at(3), at(1)),
        Layout::Pixels => (at(1), at(2), at(3)),
    };
    Input {
        name: port.name.clone(),
        size: InputSize::Fixed { width: width.unwrap_or(fallback.0), height: height.unwrap_or(fallback.1) },
        layout,
        order: if channels == Some(1) { ColorOrder::Gray } else { ColorOrder::Rgb },
        kind: match port.dtype.as_str() {
            "float16" => ElementKind::F16,
            "uint8" => ElementKind::U8,
            "int32" => ElementKind::I32,
            _ => ElementKind::F32,
        },
        scale: 1.0 / 255.0,
        mean: [0.0; 3],
        std: [1.0; 3],
        fit: Fit::Stretch,
        filter: Filter::Bilinear,
        mask: None,
    }
}

/// Whether a port leaves the size of pictures open.
pub fn any_size(port: &Port) -> bool {
    let spatial = match port.shape.as_slice() {
        [_, Some(1 | 3) | None, h, w] => [*h, *w],
        [_, h, w, Some(1 | 3)] => [*h, *w],
        _ => return false,
    };
    spatial.contains(&None)
}

/// Letterboxes as ultralytics and YOLOX make them.
pub fn letterbox(place: Place) -> Fit {
    Fit::Letterbox { fill: 114, place }
}

/// Dimensions behind the batch.
fn inner(port: &Port) -> &[Option<usize>] {
    port.shape.get(1..).unwrap_or(&[])
}

/// The box head that the outputs' shapes are those of, for an input of this size.
pub fn boxes(outputs: &[Port], (width, height): (usize, usize), labels: usize) -> Option<BoxHead> {
    let cells = |strides: &[usize]| -> usize {
        strides.iter().map(|s| width.div_ceil(*s) * height.div_ceil(*s)).sum()
    };
    let named = |part: &str| outputs.iter().find(|p| p.name.to_ascii_lowercase().contains(part));
    if let (Some(logits), Some(boxes)) = (named("logits"), named("boxes")) {
        let softmax = inner(logits).last().copied().flatten().is_none_or(|c| labels == 0 || c == labels + 1);
        return Some(BoxHead::Queries { logits: logits.name.clone(), boxes: boxes.name.clone(), softmax });
    }
    if let (Some(boxes), Some(scores), Some(classes)) = (named("boxes"), named("scores"), named("labels")) {
        let [boxes, scores, classes] = [boxes, scores, classes].map(|p| p.name.clone());
        return Some(BoxHead::Lists { boxes, scores, classes });
    }
    let [first, ..] = outputs else { return None };
    let output = first.name.clone();
    match inner(first) {
        [Some(rows), Some(columns)] => {
            for strides in [vec![8, 16, 32], vec![8, 16, 32, 64]] {
                if *rows == cells(&strides) && *columns > 5 {
                    return Some(BoxHead::Yolox { output, strides });
                }
                if *rows == 3 * cells(&strides) && *columns > 5 {
                    return Some(BoxHead::Objectness { output });
                }
                if *columns == cells(&strides) && *rows > 4 {
                    return Some(BoxHead::Columns { output, classes: rows - 4 });
                }
            }
            match (rows, columns) {
                (_, 6) => Some(BoxHead::Final { output }),
                (100..=1000, 7..) => Some(BoxHead::Relative { output }),
                _ => None,
            }
        }
        // Anchors of an input of any size: more of them than values of each.
        [Some(rows), None] if *rows > 4 => Some(BoxHead::Columns { output, classes: rows - 4 }),
        [None, Some(6)] => Some(BoxHead::Final { output }),
        [None, Some(columns)] if *columns > 6 => Some(BoxHead::Objectness { output }),
        [Some(channels), Some(h), Some(w)] if *channels > 5 && *h > 1 && *w > 1 => {
            Some(BoxHead::Cells { output })
        }
        _ => None,
    }
}

/// The face head that the outputs are those of.
pub fn faces(outputs: &[Port]) -> Option<FaceHead> {
    let find = |name: &str| outputs.iter().find(|p| p.name == name).map(|p| p.name.clone());
    if let (Some(loc), Some(conf), Some(iou)) = (find("loc"), find("conf"), find("iou")) {
        return Some(FaceHead::YuNetPriors { loc, conf, iou });
    }
    if ["cls_8", "obj_8", "bbox_8", "kps_8", "cls_32"].iter().all(|name| find(name).is_some()) {
        return Some(FaceHead::YuNetStrides);
    }
    let last = |n: usize| outputs.iter().find(|p| p.shape.len() == 3 && p.shape[2] == Some(n));
    let (scores, boxes) = (last(2)?, last(4)?);
    Some(FaceHead::Corners { scores: scores.name.clone(), boxes: boxes.name.clone() })
}

/// The pose head that the outputs are those of.
pub fn pose(outputs: &[Port]) -> Option<PoseHead> {
    let find = |name: &str| outputs.iter().find(|p| p.name == name).map(|p| p.name.clone());
    if let (Some(center), Some(heatmap), Some(regress), Some(offset)) =
        (find("center"), find("heatmap"), find("regress"), find("offset"))
    {
        return Some(PoseHead::MoveNetMaps { center, heatmap, regress, offset });
    }
    for port in outputs {
        match inner(port) {
            [Some(195)] => {
                let flag = outputs.iter().find(|p| inner(p) == [Some(1)]).map(|p| p.name.clone());
                return Some(PoseHead::MediaPipe { output: port.name.clone(), flag });
            }
            [Some(1), Some(17), Some(3)] => return Some(PoseHead::MoveNet { output: port.name.clone() }),
            [Some(56), _] => return Some(PoseHead::Yolo { output: port.name.clone(), points: 17 }),
            _ => {}
        }
    }
    None
}

/// Whether an output holds its channels last, by the size of what went in.
pub fn channels_last(port: &Port, input: &Input) -> bool {
    match inner(port) {
        [Some(a), Some(b), Some(c)] => {
            let InputSize::Fixed { width, height } = input.size else { return false };
            // As large as the input in front and not behind, or clearly more places than channels.
            (*a, *b) == (height, width) && (*b, *c) != (height, width) || (a == b && c < a && b != c)
        }
        _ => input.layout == Layout::Pixels,
    }
}
