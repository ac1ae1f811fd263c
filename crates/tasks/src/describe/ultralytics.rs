//! What ultralytics writes into the files it exports (YOLOv5 to YOLO26): task, names, size, key points.

use super::heads::{self, input_of, letterbox};
use super::{DescribeError, Facts, Verb, VisionTask};
use crate::pixels::fit::{Fit, Place};
use crate::vision::pose::PoseHead;
use crate::vision::{BoxHead, Classify, Detect, Input, InputSize, Instances, Pose};

/// The model's use, if its metadata is ultralytics'.
///
/// # Errors
/// [`DescribeError::OtherTask`] if it is a model for something else.
pub fn describe(facts: &Facts, verb: Verb) -> Result<Option<VisionTask>, DescribeError> {
    let Some(names) = facts.metadata.get("names") else { return Ok(None) };
    let Some(port) = facts.picture_input() else { return Ok(None) };
    let labels = python_names(names);
    // YOLOv5's own exporter writes no task.
    let task = facts.metadata.get("task").map_or("detect", String::as_str);
    let is = match task {
        "detect" => Verb::Detect,
        "segment" => Verb::Segment,
        "pose" => Verb::Pose,
        "classify" => Verb::Classify,
        other => {
            let is = format!("ultralytics `{other}`");
            return Err(DescribeError::OtherTask { name: facts.name.clone(), is, verb: verb.name() });
        }
    };
    // A model that segments also detects.
    if is != verb && !(is == Verb::Segment && verb == Verb::Detect) {
        let is = format!("`kun {}`", is.name());
        return Err(DescribeError::OtherTask { name: facts.name.clone(), is, verb: verb.name() });
    }
    let sizes = facts.metadata.get("imgsz").map(|text| python_numbers(text)).unwrap_or_default();
    let fallback = match sizes.as_slice() {
        [height, width] => (*width, *height),
        [side] => (*side, *side),
        _ => (640, 640),
    };
    let mut input = Input { fit: letterbox(Place::Middle), ..input_of(port, fallback) };
    let InputSize::Fixed { width, height } = input.size else { return Ok(None) };
    let Some(first) = facts.outputs.first() else { return Ok(None) };
    let output = first.name.clone();
    Ok(Some(match is {
        Verb::Classify => {
            input.fit = Fit::CenterCrop { short_side: width.min(height) };
            VisionTask::Classify(Classify { input, output, labels, top: 5 })
        }
        Verb::Segment => {
            let prototypes = facts.outputs.iter().find(|p| p.shape.len() == 4);
            let Some(prototypes) = prototypes.map(|p| p.name.clone()) else { return Ok(None) };
            let boxes = facts.outputs.iter().find(|p| p.shape.len() == 3);
            let output = boxes.map_or(output, |p| p.name.clone());
            let head = BoxHead::Columns { output, classes: labels.len() };
            if verb == Verb::Detect {
                VisionTask::Detect(Detect::new(input, head, labels))
            } else {
                let threshold = head.usual_threshold();
                VisionTask::Instances(Instances { input, head, prototypes, labels, threshold, iou: 0.45 })
            }
        }
        Verb::Pose => {
            let shape = facts.metadata.get("kpt_shape").map(|text| python_numbers(text)).unwrap_or_default();
            let points = shape.first().copied().unwrap_or(17);
            let head = PoseHead::Yolo { output, points };
            VisionTask::Pose(Pose { input, head, threshold: 0.3 })
        }
        _ => match heads::boxes(&facts.outputs, (width, height), labels.len()) {
            Some(BoxHead::Columns { output, .. }) => {
                let head = BoxHead::Columns { output, classes: labels.len() };
                VisionTask::Detect(Detect::new(input, head, labels))
            }
            // Its RT-DETR is stretched to the input.
            Some(head @ BoxHead::Relative { .. }) => {
                input.fit = Fit::Stretch;
                VisionTask::Detect(Detect::new(input, head, labels))
            }
            Some(head) => VisionTask::Detect(Detect::new(input, head, labels)),
            None => return Ok(None),
        },
    }))
}

/// The names of `{0: 'person', 1: "cow's", …}` or `['person', …]` in order.
fn python_names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut chars = text.chars();
    while let Some(quote) = chars.find(|c| matches!(c, '\'' | '"')) {
        let mut name = String::new();
        while let Some(c) = chars.next() {
            match c {
                '\\' => name.extend(chars.next()),
                c if c == quote => break,
                c => name.push(c),
            }
        }
        names.push(name);
    }
    names
}

fn python_numbers(text: &str) -> Vec<usize> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_pythons_words() {
        assert_eq!(python_names("{0: 'person', 1: \"cow's\", 2: 'a\\'b'}"), ["person", "cow's", "a'b"]);
        assert_eq!(python_names("['x', 'y']"), ["x", "y"]);
        assert!(python_names("{0: 'unterminated").len() == 1 && python_names("").is_empty());
        assert_eq!(python_numbers("[640, 480]"), [640, 480]);
        assert_eq!(python_numbers("640"), [640]);
    }
}
