//! Which pixels are what.

use super::detect::{BoxHead, Detection, candidates};
use super::input::Input;
use super::output::{label, take, wrong};
use crate::pixels::boxes::{Suppress, suppress};
use crate::pixels::fit::Placement;
use crate::pixels::{Filter, Image, Map, Mask};
use crate::scores::sigmoid;
use crate::{Task, TaskError};
use kun_tensor::Tensors;
use std::sync::Arc;

/// A class for every pixel of the picture.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentMap {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Class numbers, row by row.
    pub classes: Vec<u16>,
}

impl SegmentMap {
    /// The classes present with their pixels, largest first.
    pub fn areas(&self) -> Vec<(usize, usize)> {
        let mut counts = std::collections::BTreeMap::<usize, usize>::new();
        self.classes.iter().for_each(|&c| *counts.entry(c.into()).or_default() += 1);
        let mut areas: Vec<_> = counts.into_iter().collect();
        areas.sort_by_key(|&(class, area)| (std::cmp::Reverse(area), class));
        areas
    }

    /// The pixels of one class.
    pub fn mask(&self, class: usize) -> Mask {
        let bits = self.classes.iter().map(|&c| usize::from(c) == class).collect();
        Mask::new(self.width, self.height, bits)
    }
}

/// Semantic segmentation: `[C, h, w]` or `[h, w, C]` scores, or `[h, w]` class numbers.
#[derive(Clone, Debug)]
pub struct Segment {
    /// How pictures go in.
    pub input: Input,
    /// The output.
    pub output: String,
    /// Names of the classes.
    pub labels: Vec<String>,
    /// Whether the classes are the last dimension.
    pub classes_last: bool,
}

impl Task for Segment {
    type Input = Arc<Image>;
    type Output = SegmentMap;
    type Context = Placement;

    fn prepare(&self, image: Arc<Image>) -> Result<(Tensors, Placement), TaskError> {
        self.input.tensors(&image)
    }

    fn finish(&self, outputs: Tensors, placement: Placement) -> Result<SegmentMap, TaskError> {
        let (width, height) = placement.source;
        if let Ok(([h, w], values)) = take::<2>(&outputs, &self.output) {
            let map = crop_to_content(Map::new(w, h, values.into_owned()), placement, &self.output)?;
            let map = map.resize(width, height, Filter::Nearest);
            let classes = map.values().iter().map(|&v| v.max(0.0) as u16).collect();
            return Ok(SegmentMap { width, height, classes });
        }
        let ([a, b, c], values) = take::<3>(&outputs, &self.output)?;
        let (classes, h, w) = if self.classes_last { (c, a, b) } else { (a, b, c) };
        let mut best = vec![f32::NEG_INFINITY; width * height];
        let mut winners = vec![0u16; width * height];
        // One class at a time: all of them at the picture's size may not fit.
        for class in 0..classes.min(usize::from(u16::MAX)) {
            let plane = if self.classes_last {
                values.iter().skip(class).step_by(classes).copied().collect()
            } else {
                values[class * h * w..(class + 1) * h * w].to_vec()
            };
            let map = crop_to_content(Map::new(w, h, plane), placement, &self.output)?;
            let map = map.resize(width, height, Filter::Bilinear);
            for ((value, best), winner) in map.values().iter().zip(&mut best).zip(&mut winners) {
                if value > best {
                    (*best, *winner) = (*value, class as u16);
                }
            }
        }
        Ok(SegmentMap { width, height, classes: winners })
    }
}

/// The part of an output map that the picture fills; the map may be smaller than the input.
pub(crate) fn crop_to_content(
    map: Result<Map, crate::pixels::PixelError>,
    placement: Placement,
    output: &str,
) -> Result<Map, TaskError> {
    let map = map.map_err(|error| wrong(output, error.to_string()))?;
    let (x, y, w, h) = placement.content();
    let (input_w, input_h) = placement.input;
    if (x, y, w, h) == (0, 0, input_w, input_h) {
        return Ok(map);
    }
    let part = |at: usize, input: usize, len: usize| ((at * len) as f64 / input as f64).round() as usize;
    let (left, top) = (part(x, input_w, map.width()), part(y, input_h, map.height()));
    let (right, bottom) = (part(x + w, input_w, map.width()), part(y + h, input_h, map.height()));
    map.crop(left, top, (right - left).max(1), (bottom - top).max(1))
        .map_err(|error| wrong(output, error.to_string()))
}

/// A thing with its pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Box, score and class.
    pub detection: Detection,
    /// Its pixels, of the whole picture.
    pub mask: Mask,
}

/// Instance segmentation as YOLOv5, v8 and 11 give it: boxes with 32 coefficients of mask prototypes `[32, h, w]`.
#[derive(Clone, Debug)]
pub struct Instances {
    /// How pictures go in.
    pub input: Input,
    /// Boxes; coefficients lie behind the classes.
    pub head: BoxHead,
    /// The prototypes.
    pub prototypes: String,
    /// Names of the classes.
    pub labels: Vec<String>,
    /// Lowest score given.
    pub threshold: f32,
    /// Overlap above which the lesser box goes.
    pub iou: f32,
}

/// Most instances given: every mask has a bit for each pixel of the picture.
const MAX_INSTANCES: usize = 100;

impl Task for Instances {
    type Input = Arc<Image>;
    type Output = Vec<Instance>;
    type Context = Placement;

    fn prepare(&self, image: Arc<Image>) -> Result<(Tensors, Placement), TaskError> {
        self.input.tensors(&image)
    }

    fn finish(&self, outputs: Tensors, placement: Placement) -> Result<Vec<Instance>, TaskError> {
        let BoxHead::Columns { output, classes } = &self.head else {
            return Err(wrong(&self.prototypes, "masks need boxes with coefficients"));
        };
        let ([count, ph, pw], prototypes) = take::<3>(&outputs, &self.prototypes)?;
        let ([rows, anchors], values) = take::<2>(&outputs, output)?;
        if rows < 4 + classes + count {
            return Err(wrong(output, format!("{rows} rows for {classes} classes and {count} coefficients")));
        }
        let found = candidates(&self.head, &outputs, placement.input, self.threshold)?;
        let flat: Vec<_> = found.iter().map(|c| (c.area, c.score, c.class)).collect();
        let kept = suppress(&flat, self.iou, Suppress::PerClass).into_iter().take(MAX_INSTANCES);
        let (width, height) = placement.source;
        let mut instances = Vec::new();
        for i in kept {
            let candidate = &found[i];
            let weight = |k: usize| values[(4 + classes + k) * anchors + candidate.row];
            let mut plane = vec![0.0f32; ph * pw];
            for k in 0..count {
                let (w, from) = (weight(k), &prototypes[k * ph * pw..(k + 1) * ph * pw]);
                plane.iter_mut().zip(from).for_each(|(v, p)| *v += w * p);
            }
            let map = crop_to_content(Map::new(pw, ph, plane), placement, &self.prototypes)?;
            let map = map.resize(width, height, Filter::Bilinear);
            let area = placement.box_to_source(candidate.area);
            let inside = |i: usize| {
                let (x, y) = ((i % width) as f32 + 0.5, (i / width) as f32 + 0.5);
                x >= area.x1 && x < area.x2 && y >= area.y1 && y < area.y2
            };
            let bits = map.values().iter().enumerate().map(|(i, v)| *v > 0.0 && inside(i)).collect();
            instances.push(Instance {
                detection: Detection {
                    area,
                    score: candidate.score,
                    class: candidate.class,
                    label: label(&self.labels, candidate.class),
                },
                mask: Mask::new(width, height, bits),
            });
        }
        Ok(instances)
    }
}

/// How a matting network's values become 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatteActivation {
    /// They are.
    None,
    /// Logits.
    Sigmoid,
    /// Logits where they leave 0 to 1, else none.
    Auto,
    /// The smallest becomes 0 and the largest 1 (U2-Net, ISNet).
    Spread,
}

/// Foreground probability of every pixel: `[h, w]`, or `[2, h, w]` and `[h, w, 2]` whose second plane is the foreground.
#[derive(Clone, Debug)]
pub struct Matte {
    /// How pictures go in.
    pub input: Input,
    /// The output.
    pub output: String,
    /// How its values become probabilities.
    pub activation: MatteActivation,
}

impl Task for Matte {
    type Input = Arc<Image>;
    type Output = Map;
    type Context = Placement;

    fn prepare(&self, image: Arc<Image>) -> Result<(Tensors, Placement), TaskError> {
        self.input.tensors(&image)
    }

    fn finish(&self, outputs: Tensors, placement: Placement) -> Result<Map, TaskError> {
        let ([h, w], mut values) = match take::<2>(&outputs, &self.output) {
            Ok((shape, values)) => (shape, values.into_owned()),
            Err(error) => match take::<3>(&outputs, &self.output)? {
                ([2, h, w], values) => ([h, w], values[h * w..].to_vec()),
                ([h, w, 2], values) => ([h, w], values.iter().skip(1).step_by(2).copied().collect()),
                ([h, w, 1], values) => ([h, w], values.into_owned()),
                _ => return Err(error),
            },
        };
        let outside = || values.iter().any(|v| !(-0.01..=1.01).contains(v));
        let activation = match self.activation {
            MatteActivation::Auto if outside() => MatteActivation::Sigmoid,
            other => other,
        };
        match activation {
            MatteActivation::None | MatteActivation::Auto => {}
            MatteActivation::Sigmoid => values.iter_mut().for_each(|v| *v = sigmoid(*v)),
            MatteActivation::Spread => {
                let low = values.iter().copied().fold(f32::INFINITY, f32::min);
                let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let span = (high - low).max(1e-6);
                values.iter_mut().for_each(|v| *v = (*v - low) / span);
            }
        }
        values.iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0));
        let map = crop_to_content(Map::new(w, h, values), placement, &self.output)?;
        Ok(map.resize(placement.source.0, placement.source.1, Filter::Bilinear))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pixels::fit::{Fit, Place};
    use kun_tensor::Tensor;

    #[test]
    fn classes_come_out_at_the_pictures_size_in_both_layouts() {
        let mut input = Input::rgb("x", 8, 8);
        input.fit = Fit::Letterbox { fill: 0, place: Place::Corner };
        for classes_last in [false, true] {
            let task = Segment { input: input.clone(), output: "y".into(), labels: vec![], classes_last };
            let (_, placement) = task.prepare(Arc::new(Image::filled(16, 8, [0; 3]))).unwrap();
            // A 4 x 4 map: the right half is class 1; its lower half is the letterbox's filling.
            let score = |c: usize, x: usize| if (x >= 2) == (c == 1) { 1.0 } else { 0.0 };
            let values = (0..32)
                .map(|i| match classes_last {
                    true => score(i % 2, i / 2 % 4),
                    false => score(i / 16, i % 4),
                })
                .collect();
            let shape = if classes_last { [4, 4, 2] } else { [2, 4, 4] };
            let outputs = Tensors::from([("y".to_owned(), Tensor::f32(shape, values).unwrap())]);
            let map = task.finish(outputs, placement).unwrap();
            assert_eq!((map.width, map.height), (16, 8));
            assert_eq!(map.areas(), [(0, 64), (1, 64)]);
            assert!(map.mask(1).at(8, 0) && !map.mask(1).at(7, 7));
        }
    }

    #[test]
    fn mattes_are_spread_or_squashed() {
        let input = Input::rgb("x", 2, 1);
        let run = |activation, shape: &[usize], values: &[f32]| {
            let task = Matte { input: input.clone(), output: "y".into(), activation };
            let (_, placement) = task.prepare(Arc::new(Image::filled(2, 1, [0; 3]))).unwrap();
            let y = Tensor::f32(shape, values.to_vec()).unwrap();
            task.finish(Tensors::from([("y".to_owned(), y)]), placement).unwrap().into_values()
        };
        assert_eq!(run(MatteActivation::Spread, &[1, 1, 2], &[0.2, 0.6]), [0.0, 1.0]);
        assert_eq!(run(MatteActivation::Sigmoid, &[1, 2], &[0.0, 100.0]), [0.5, 1.0]);
        assert_eq!(run(MatteActivation::None, &[2, 1, 2], &[0.9, 0.8, 0.1, 0.2]), [0.1, 0.2]);
    }
}
