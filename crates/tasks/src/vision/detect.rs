//! What is where.

use super::input::Input;
use super::output::{argmax, label, take, wrong};
use crate::pixels::boxes::{Suppress, suppress};
use crate::pixels::fit::Placement;
use crate::pixels::{Box2, Image};
use crate::scores::{sigmoid, softmax};
use crate::{Task, TaskError};
use kun_tensor::Tensors;
use std::sync::Arc;

/// A thing and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    /// In pixels of the picture.
    pub area: Box2,
    /// 0 to 1.
    pub score: f32,
    /// Number of its class.
    pub class: usize,
    /// Name of its class.
    pub label: String,
}

/// How a network says where things are. Boxes of `cx cy w h` have their centre first.
#[derive(Clone, Debug, PartialEq)]
pub enum BoxHead {
    /// `[N, 5 + C]`: `cx cy` in cells, `w h` as logarithms of cells, objectness, class scores; cells of each stride row by
    /// row (YOLOX).
    Yolox {
        /// The output.
        output: String,
        /// Pixels of a cell, in the order of the rows.
        strides: Vec<usize>,
    },
    /// `[5 + C, H, W]`: objectness, offsets from the cell as tanh, size as sigmoid, class scores (FastestDet).
    Cells {
        /// The output.
        output: String,
    },
    /// `[N, 5 + C]`: `cx cy w h` in input pixels, objectness, class scores (YOLOv5, v7).
    Objectness {
        /// The output.
        output: String,
    },
    /// `[4 + C + extra, N]`: `cx cy w h` in input pixels, class scores (YOLOv8 to 12).
    Columns {
        /// The output.
        output: String,
        /// Classes; rows behind them are not theirs.
        classes: usize,
    },
    /// `[N, 6]`: `x1 y1 x2 y2` in input pixels, score, class; nothing left to suppress (YOLOv10, YOLO26).
    Final {
        /// The output.
        output: String,
    },
    /// `[N, 4 + C]`: `cx cy w h` relative to the input, class scores (RT-DETR as ultralytics exports it).
    Relative {
        /// The output.
        output: String,
    },
    /// Logits `[N, C]` and `cx cy w h` `[N, 4]` relative to the input (DETR, RT-DETR, D-FINE, YOLOS).
    Queries {
        /// The logits.
        logits: String,
        /// The boxes.
        boxes: String,
        /// Whether the last class means "nothing" and classes share a softmax; else each has a sigmoid.
        softmax: bool,
    },
    /// `x1 y1 x2 y2` `[N, 4]` in input pixels, scores `[N]` and classes `[N]` (torchvision).
    Lists {
        /// The boxes.
        boxes: String,
        /// The scores.
        scores: String,
        /// The classes.
        classes: String,
    },
}

impl BoxHead {
    /// Whether overlapping boxes are still to be thinned out.
    fn suppresses(&self) -> bool {
        matches!(
            self,
            BoxHead::Yolox { .. }
                | BoxHead::Cells { .. }
                | BoxHead::Objectness { .. }
                | BoxHead::Columns { .. }
        )
    }

    /// The score below which nothing is shown, as the networks' own programs have it.
    pub fn usual_threshold(&self) -> f32 {
        match self {
            BoxHead::Cells { .. } => 0.65,
            BoxHead::Queries { .. } | BoxHead::Relative { .. } | BoxHead::Lists { .. } => 0.5,
            _ => 0.3,
        }
    }
}

/// Object detection.
#[derive(Clone, Debug)]
pub struct Detect {
    /// How pictures go in.
    pub input: Input,
    /// How boxes come out.
    pub head: BoxHead,
    /// Names of the classes.
    pub labels: Vec<String>,
    /// Lowest score given.
    pub threshold: f32,
    /// Overlap above which the lesser box goes.
    pub iou: f32,
    /// Most boxes given.
    pub most: usize,
}

impl Detect {
    /// A task with the usual thresholds.
    pub fn new(input: Input, head: BoxHead, labels: Vec<String>) -> Detect {
        let threshold = head.usual_threshold();
        Detect { input, head, labels, threshold, iou: 0.45, most: 300 }
    }
}

impl Task for Detect {
    type Input = Arc<Image>;
    type Output = Vec<Detection>;
    type Context = Placement;

    fn prepare(&self, image: Arc<Image>) -> Result<(Tensors, Placement), TaskError> {
        self.input.tensors(&image)
    }

    fn finish(&self, outputs: Tensors, placement: Placement) -> Result<Vec<Detection>, TaskError> {
        let found = candidates(&self.head, &outputs, placement.input, self.threshold)?;
        let how = match self.head {
            BoxHead::Cells { .. } => Suppress::Across,
            _ => Suppress::PerClass,
        };
        let flat: Vec<_> = found.iter().map(|c| (c.area, c.score, c.class)).collect();
        let iou = if self.head.suppresses() { self.iou } else { f32::INFINITY };
        let kept = suppress(&flat, iou, how).into_iter().take(self.most);
        Ok(kept
            .map(|i| Detection {
                area: placement.box_to_source(found[i].area),
                score: found[i].score,
                class: found[i].class,
                label: label(&self.labels, found[i].class),
            })
            .collect())
    }
}

/// A box before suppression, in input pixels.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub area: Box2,
    pub score: f32,
    pub class: usize,
    /// Which of the network's rows it is.
    pub row: usize,
}

pub(crate) fn candidates(
    head: &BoxHead,
    outputs: &Tensors,
    (width, height): (usize, usize),
    threshold: f32,
) -> Result<Vec<Candidate>, TaskError> {
    let mut found = Vec::new();
    let mut push = |row: usize, area: Box2, score: f32, class: usize| {
        if score >= threshold && area.is_finite() {
            found.push(Candidate { area, score, class, row });
        }
    };
    let relative = |cx: f32, cy: f32, w: f32, h: f32| {
        let (width, height) = (width as f32, height as f32);
        Box2::centered(cx * width, cy * height, w * width, h * height)
    };
    match head {
        BoxHead::Yolox { output, strides } => {
            let ([rows, columns], values) = take::<2>(outputs, output)?;
            if columns < 6 {
                return Err(wrong(output, format!("{columns} columns, at least 6 are needed")));
            }
            let cells = strides.iter().flat_map(|&stride| {
                let (w, h) = (width.div_ceil(stride), height.div_ceil(stride));
                (0..h).flat_map(move |y| (0..w).map(move |x| (x as f32, y as f32, stride as f32)))
            });
            let expected: usize = strides.iter().map(|s| width.div_ceil(*s) * height.div_ceil(*s)).sum();
            if expected != rows {
                return Err(wrong(output, format!("{rows} rows, {expected} cells of strides {strides:?}")));
            }
            for (row, ((x, y, s), v)) in cells.zip(values.chunks_exact(columns)).enumerate() {
                let (class, score) = argmax(&v[5..]);
                // Most cells see nothing: their boxes need not be computed.
                if v[4] * score < threshold {
                    continue;
                }
                let area = Box2::centered((v[0] + x) * s, (v[1] + y) * s, v[2].exp() * s, v[3].exp() * s);
                push(row, area, v[4] * score, class);
            }
        }
        BoxHead::Cells { output } => {
            let ([channels, h, w], values) = take::<3>(outputs, output)?;
            if channels < 6 {
                return Err(wrong(output, format!("{channels} channels, at least 6 are needed")));
            }
            let plane = h * w;
            let at = |c: usize, i: usize| values[c * plane + i];
            for i in 0..plane {
                let scores: Vec<f32> = (5..channels).map(|c| at(c, i)).collect();
                let (class, score) = argmax(&scores);
                let (x, y) = ((i % w) as f32, (i / w) as f32);
                let area = relative(
                    (x + at(1, i).tanh()) / w as f32,
                    (y + at(2, i).tanh()) / h as f32,
                    sigmoid(at(3, i)),
                    sigmoid(at(4, i)),
                );
                push(i, area, at(0, i).max(0.0).powf(0.6) * score.max(0.0).powf(0.4), class);
            }
        }
        BoxHead::Objectness { output } => {
            let ([_, columns], values) = take::<2>(outputs, output)?;
            if columns < 6 {
                return Err(wrong(output, format!("{columns} columns, at least 6 are needed")));
            }
            for (row, v) in values.chunks_exact(columns).enumerate() {
                let (class, score) = argmax(&v[5..]);
                push(row, Box2::centered(v[0], v[1], v[2], v[3]), v[4] * score, class);
            }
        }
        BoxHead::Columns { output, classes } => {
            let ([channels, count], values) = take::<2>(outputs, output)?;
            if channels < 4 + classes || *classes == 0 {
                return Err(wrong(output, format!("{channels} rows for 4 and {classes} classes")));
            }
            let at = |c: usize, i: usize| values[c * count + i];
            for i in 0..count {
                let mut best = (0, f32::NEG_INFINITY);
                for class in 0..*classes {
                    let score = at(4 + class, i);
                    if score > best.1 {
                        best = (class, score);
                    }
                }
                push(i, Box2::centered(at(0, i), at(1, i), at(2, i), at(3, i)), best.1, best.0);
            }
        }
        BoxHead::Final { output } => {
            let ([_, columns], values) = take::<2>(outputs, output)?;
            if columns < 6 {
                return Err(wrong(output, format!("{columns} columns, 6 are needed")));
            }
            for (row, v) in values.chunks_exact(columns).enumerate() {
                push(row, Box2::new(v[0], v[1], v[2], v[3]), v[4], v[5].max(0.0) as usize);
            }
        }
        BoxHead::Relative { output } => {
            let ([_, columns], values) = take::<2>(outputs, output)?;
            if columns < 5 {
                return Err(wrong(output, format!("{columns} columns, at least 5 are needed")));
            }
            for (row, v) in values.chunks_exact(columns).enumerate() {
                let (class, score) = argmax(&v[4..]);
                push(row, relative(v[0], v[1], v[2], v[3]), score, class);
            }
        }
        BoxHead::Queries { logits, boxes, softmax: shared } => {
            let ([rows, classes], scores) = take::<2>(outputs, logits)?;
            let ([box_rows, four], places) = take::<2>(outputs, boxes)?;
            if box_rows != rows || four != 4 {
                return Err(wrong(boxes, format!("[{box_rows}, {four}] boxes for {rows} rows of logits")));
            }
            for (row, (v, b)) in scores.chunks_exact(classes).zip(places.chunks_exact(4)).enumerate() {
                let (class, score) = if *shared {
                    argmax(&softmax(v)[..classes - 1])
                } else {
                    let (class, logit) = argmax(v);
                    (class, sigmoid(logit))
                };
                push(row, relative(b[0], b[1], b[2], b[3]), score, class);
            }
        }
        BoxHead::Lists { boxes, scores, classes } => {
            if outputs.get(scores).is_some_and(|t| t.elements().is_empty()) {
                return Ok(found);
            }
            let ([rows, four], places) = take::<2>(outputs, boxes)?;
            let (_, scores) = take::<1>(outputs, scores)?;
            let (_, classes) = take::<1>(outputs, classes)?;
            if four != 4 || scores.len() != rows || classes.len() != rows {
                return Err(wrong(boxes, format!("[{rows}, {four}] boxes, {} scores", scores.len())));
            }
            for (row, b) in places.chunks_exact(4).enumerate() {
                push(row, Box2::new(b[0], b[1], b[2], b[3]), scores[row], classes[row].max(0.0) as usize);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pixels::fit::{Fit, Place};
    use kun_tensor::Tensor;

    fn run(head: BoxHead, tensors: Vec<(&str, Vec<usize>, Vec<f32>)>) -> Vec<Detection> {
        let mut input = Input::rgb("x", 64, 32);
        input.fit = Fit::Letterbox { fill: 114, place: Place::Corner };
        let task = Detect::new(input, head, vec!["a".into(), "b".into()]);
        let (_, placement) = task.prepare(Arc::new(Image::filled(128, 64, [0; 3]))).unwrap();
        let outputs =
            tensors.into_iter().map(|(n, s, v)| (n.to_owned(), Tensor::f32(s, v).unwrap())).collect();
        task.finish(outputs, placement).unwrap()
    }

    #[test]
    fn every_head_gives_the_same_box() {
        // 16 x 8 pixels around (24, 20) of a 64 x 32 input: twice that in a picture of 128 x 64.
        let wanted = Box2::new(32.0, 32.0, 64.0, 48.0);
        let y = || "y".to_owned();
        let mut yolox = vec![0.0; 2 * 7];
        // One stride of 32: two cells; the first one's corner is the origin.
        yolox[..7].copy_from_slice(&[24.0 / 32.0, 20.0 / 32.0, 0.5f32.ln(), 0.25f32.ln(), 0.9, 0.1, 1.0]);
        let mut cells = vec![0.0; 7 * 2];
        let logit = |p: f32| (p / (1.0 - p)).ln();
        for (c, v) in
            [0.9, 0.75f32.atanh(), 0.625f32.atanh(), logit(0.25), logit(0.25), 0.1, 0.9].iter().enumerate()
        {
            cells[c * 2] = *v;
        }
        let relative = [24.0 / 64.0, 20.0 / 32.0, 0.25, 0.25];
        let cases = [
            (BoxHead::Yolox { output: y(), strides: vec![32] }, vec![("y", vec![1, 2, 7], yolox)]),
            (BoxHead::Cells { output: y() }, vec![("y", vec![7, 1, 2], cells)]),
            (
                BoxHead::Objectness { output: y() },
                vec![("y", vec![1, 7], vec![24.0, 20.0, 16.0, 8.0, 0.9, 0.1, 1.0])],
            ),
            (
                BoxHead::Columns { output: y(), classes: 2 },
                vec![("y", vec![6, 2], vec![24.0, 0.0, 20.0, 0.0, 16.0, 0.0, 8.0, 0.0, 0.1, 0.0, 0.9, 0.0])],
            ),
            (BoxHead::Final { output: y() }, vec![("y", vec![1, 6], vec![16.0, 16.0, 32.0, 24.0, 0.9, 1.0])]),
            (
                BoxHead::Relative { output: y() },
                vec![("y", vec![1, 6], [&relative[..], &[0.1, 0.9]].concat())],
            ),
            (
                BoxHead::Queries { logits: "l".into(), boxes: y(), softmax: false },
                vec![("l", vec![1, 2], vec![-3.0, 2.2]), ("y", vec![1, 4], relative.to_vec())],
            ),
            (
                BoxHead::Queries { logits: "l".into(), boxes: y(), softmax: true },
                vec![("l", vec![1, 3], vec![0.0, 4.0, 1.0]), ("y", vec![1, 4], relative.to_vec())],
            ),
            (
                BoxHead::Lists { boxes: y(), scores: "s".into(), classes: "c".into() },
                vec![
                    ("y", vec![1, 4], vec![16.0, 16.0, 32.0, 24.0]),
                    ("s", vec![1], vec![0.9]),
                    ("c", vec![1], vec![1.0]),
                ],
            ),
        ];
        for (head, tensors) in cases {
            let what = format!("{head:?}");
            let found = run(head, tensors);
            assert_eq!(found.len(), 1, "{what}: {found:?}");
            assert!(found[0].area.iou(&wanted) > 0.999, "{what}: {found:?}");
            assert_eq!((found[0].class, found[0].label.as_str()), (1, "b"), "{what}");
        }
    }

    #[test]
    fn other_shapes_are_refused_with_the_output() {
        let outputs = Tensors::from([("y".to_owned(), Tensor::f32([3, 3], vec![0.0; 9]).unwrap())]);
        for head in [
            BoxHead::Yolox { output: "y".into(), strides: vec![8] },
            BoxHead::Objectness { output: "y".into() },
            BoxHead::Final { output: "y".into() },
            BoxHead::Relative { output: "y".into() },
            BoxHead::Columns { output: "y".into(), classes: 80 },
            BoxHead::Cells { output: "y".into() },
            BoxHead::Lists { boxes: "y".into(), scores: "z".into(), classes: "y".into() },
        ] {
            assert!(candidates(&head, &outputs, (64, 64), 0.1).is_err(), "{head:?}");
        }
    }
}
