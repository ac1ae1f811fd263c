//! Where faces are.

use super::input::Input;
use super::output::{take, wrong};
use crate::pixels::boxes::{Suppress, suppress};
use crate::pixels::fit::Placement;
use crate::pixels::{Box2, Image};
use crate::{Task, TaskError};
use kun_tensor::Tensors;
use std::sync::Arc;

/// A face.
#[derive(Clone, Debug, PartialEq)]
pub struct Face {
    /// In pixels of the picture.
    pub area: Box2,
    /// 0 to 1.
    pub score: f32,
    /// Right eye, left eye, nose, right and left corner of the mouth, seen from the face; empty where the network has
    /// none.
    pub landmarks: Vec<(f32, f32)>,
}

/// How a network says where faces are.
#[derive(Clone, Debug, PartialEq)]
pub enum FaceHead {
    /// YuNet of 2021 and 2022: `loc` `[N, 14]`, `conf` `[N, 2]`, `iou` `[N, 1]` over prior boxes.
    YuNetPriors {
        /// Boxes and landmarks.
        loc: String,
        /// Background and face.
        conf: String,
        /// Predicted overlap.
        iou: String,
    },
    /// YuNet of 2023: `cls_S`, `obj_S` `[N, 1]`, `bbox_S` `[N, 4]` and `kps_S` `[N, 10]` for strides S of 8, 16 and 32.
    YuNetStrides,
    /// Probabilities `[N, 2]` and relative corners `[N, 4]` (Ultra-Light).
    Corners {
        /// Background and face.
        scores: String,
        /// `x1 y1 x2 y2`.
        boxes: String,
    },
}

/// Face detection.
#[derive(Clone, Debug)]
pub struct Faces {
    /// How pictures go in.
    pub input: Input,
    /// How faces come out.
    pub head: FaceHead,
    /// Lowest score given.
    pub threshold: f32,
    /// Overlap above which the lesser box goes.
    pub iou: f32,
}

impl Task for Faces {
    type Input = Arc<Image>;
    type Output = Vec<Face>;
    type Context = Placement;

    fn prepare(&self, image: Arc<Image>) -> Result<(Tensors, Placement), TaskError> {
        self.input.tensors(&image)
    }

    fn finish(&self, outputs: Tensors, placement: Placement) -> Result<Vec<Face>, TaskError> {
        let mut found = match &self.head {
            FaceHead::YuNetPriors { loc, conf, iou } => priors(&outputs, [loc, conf, iou], placement.input)?,
            FaceHead::YuNetStrides => strides(&outputs, placement.input)?,
            FaceHead::Corners { scores, boxes } => corners(&outputs, [scores, boxes], placement.input)?,
        };
        found.retain(|face| face.score > self.threshold && face.area.is_finite());
        let flat: Vec<_> = found.iter().map(|face| (face.area, face.score, 0)).collect();
        let kept = suppress(&flat, self.iou, Suppress::Across);
        Ok(kept
            .into_iter()
            .map(|i| Face {
                area: placement.box_to_source(found[i].area),
                score: found[i].score,
                landmarks: found[i].landmarks.iter().map(|&(x, y)| placement.to_source(x, y)).collect(),
            })
            .collect())
    }
}

fn priors(
    outputs: &Tensors,
    names: [&str; 3],
    (width, height): (usize, usize),
) -> Result<Vec<Face>, TaskError> {
    const SIZES: [(usize, &[f32]); 4] =
        [(8, &[10.0, 16.0, 24.0]), (16, &[32.0, 48.0]), (32, &[64.0, 96.0]), (64, &[128.0, 192.0, 256.0])];
    let [loc_name, conf_name, iou_name] = names;
    let ([rows, columns], loc) = take::<2>(outputs, loc_name)?;
    let (conf_shape, conf) = take::<2>(outputs, conf_name)?;
    let (iou_shape, iou) = take::<2>(outputs, iou_name)?;
    if columns != 14 || conf_shape != [rows, 2] || iou_shape != [rows, 1] {
        return Err(wrong(loc_name, format!("[{rows}, {columns}], {conf_shape:?} and {iou_shape:?}")));
    }
    // Feature maps halve with the rounding of the network's own strided convolutions.
    let mut map = (width.div_ceil(2) / 2, height.div_ceil(2) / 2);
    let mut cells = Vec::new();
    for (step, sizes) in SIZES {
        map = (map.0 / 2, map.1 / 2);
        for y in 0..map.1 {
            for x in 0..map.0 {
                for &size in sizes {
                    let center = |i: usize| (i as f32 + 0.5) * step as f32;
                    cells.push((center(x), center(y), size));
                }
            }
        }
    }
    if cells.len() != rows {
        return Err(wrong(loc_name, format!("{rows} rows, {} prior boxes of {width}x{height}", cells.len())));
    }
    Ok(cells
        .into_iter()
        .enumerate()
        .map(|(row, (px, py, size))| {
            let v = &loc[row * 14..row * 14 + 14];
            let at = |dx: f32, dy: f32| (px + dx * 0.1 * size, py + dy * 0.1 * size);
            let (cx, cy) = at(v[0], v[1]);
            let area = Box2::centered(cx, cy, size * (v[2] * 0.1).exp(), size * (v[3] * 0.2).exp());
            let score = (conf[row * 2 + 1] * iou[row].clamp(0.0, 1.0)).sqrt();
            let landmarks = v[4..].chunks_exact(2).map(|p| at(p[0], p[1])).collect();
            Face { area, score, landmarks }
        })
        .collect())
}

fn strides(outputs: &Tensors, (width, height): (usize, usize)) -> Result<Vec<Face>, TaskError> {
    let mut faces = Vec::new();
    for stride in [8usize, 16, 32] {
        let name = |what: &str| format!("{what}_{stride}");
        let ([rows, _], cls) = take::<2>(outputs, &name("cls"))?;
        let (_, obj) = take::<2>(outputs, &name("obj"))?;
        let (box_shape, boxes) = take::<2>(outputs, &name("bbox"))?;
        let (point_shape, points) = take::<2>(outputs, &name("kps"))?;
        let columns = width / stride;
        if rows != columns * (height / stride) || box_shape != [rows, 4] || point_shape != [rows, 10] {
            return Err(wrong(&name("bbox"), format!("{box_shape:?} for {rows} cells of {stride}")));
        }
        let s = stride as f32;
        for row in 0..rows {
            let (x, y) = ((row % columns) as f32, (row / columns) as f32);
            let b = &boxes[row * 4..row * 4 + 4];
            let area = Box2::centered((x + b[0]) * s, (y + b[1]) * s, b[2].exp() * s, b[3].exp() * s);
            let score = (cls[row].clamp(0.0, 1.0) * obj[row].clamp(0.0, 1.0)).sqrt();
            let landmark = |p: &[f32]| ((p[0] + x) * s, (p[1] + y) * s);
            let landmarks = points[row * 10..row * 10 + 10].chunks_exact(2).map(landmark).collect();
            faces.push(Face { area, score, landmarks });
        }
    }
    Ok(faces)
}

fn corners(
    outputs: &Tensors,
    names: [&str; 2],
    (width, height): (usize, usize),
) -> Result<Vec<Face>, TaskError> {
    let [scores_name, boxes_name] = names;
    let ([rows, two], scores) = take::<2>(outputs, scores_name)?;
    let (box_shape, boxes) = take::<2>(outputs, boxes_name)?;
    if two != 2 || box_shape != [rows, 4] {
        return Err(wrong(boxes_name, format!("{box_shape:?} for scores [{rows}, {two}]")));
    }
    let (w, h) = (width as f32, height as f32);
    let faces = scores.chunks_exact(2).zip(boxes.chunks_exact(4)).map(|(score, b)| Face {
        area: Box2::new(b[0] * w, b[1] * h, b[2] * w, b[3] * h),
        score: score[1],
        landmarks: Vec::new(),
    });
    Ok(faces.collect())
}
