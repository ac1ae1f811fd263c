//! How people stand.

use super::detect::{BoxHead, candidates};
use super::input::Input;
use super::output::{argmax, take, wrong};
use crate::pixels::boxes::{Suppress, suppress};
use crate::pixels::fit::Placement;
use crate::pixels::{Box2, Image};
use crate::{Task, TaskError};
use kun_tensor::Tensors;
use std::sync::Arc;

/// A joint or a feature of a face.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct KeyPoint {
    /// Its name.
    pub name: String,
    /// In pixels of the picture.
    pub x: f32,
    /// In pixels of the picture.
    pub y: f32,
    /// 0 to 1.
    pub score: f32,
}

/// A person's key points.
#[derive(Clone, Debug, PartialEq)]
pub struct Person {
    /// Around the person, where the network gives it.
    pub area: Option<Box2>,
    /// 0 to 1.
    pub score: f32,
    /// In the network's order.
    pub points: Vec<KeyPoint>,
}

/// The 17 key points of COCO.
pub const COCO_POINTS: [&str; 17] = [
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
];

/// Lines between COCO's key points.
pub const COCO_BONES: [(usize, usize); 16] = [
    (0, 1),
    (0, 2),
    (1, 3),
    (2, 4),
    (5, 6),
    (5, 7),
    (7, 9),
    (6, 8),
    (8, 10),
    (5, 11),
    (6, 12),
    (11, 12),
    (11, 13),
    (13, 15),
    (12, 14),
    (14, 16),
];

/// The 33 key points of MediaPipe's pose landmarks.
pub const MEDIAPIPE_POINTS: [&str; 33] = [
    "nose",
    "left_eye_inner",
    "left_eye",
    "left_eye_outer",
    "right_eye_inner",
    "right_eye",
    "right_eye_outer",
    "left_ear",
    "right_ear",
    "mouth_left",
    "mouth_right",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_pinky",
    "right_pinky",
    "left_index",
    "right_index",
    "left_thumb",
    "right_thumb",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
    "left_heel",
    "right_heel",
    "left_foot_index",
    "right_foot_index",
];

/// Lines between MediaPipe's key points.
pub const MEDIAPIPE_BONES: [(usize, usize); 22] = [
    (0, 2),
    (0, 5),
    (2, 7),
    (5, 8),
    (9, 10),
    (11, 12),
    (11, 13),
    (13, 15),
    (12, 14),
    (14, 16),
    (11, 23),
    (12, 24),
    (23, 24),
    (23, 25),
    (25, 27),
    (24, 26),
    (26, 28),
    (27, 29),
    (28, 30),
    (29, 31),
    (30, 32),
    (15, 19),
];

/// Lines between points, by their number.
pub fn bones(points: usize) -> &'static [(usize, usize)] {
    match points {
        17 => &COCO_BONES,
        33 => &MEDIAPIPE_BONES,
        _ => &[],
    }
}

/// How a network says where key points are.
#[derive(Clone, Debug, PartialEq)]
pub enum PoseHead {
    /// One person by the four maps of MoveNet: centre `[h, w]`, scores `[17, h, w]`, regression and offsets `[34, h, w]`
    /// (y before x).
    MoveNetMaps {
        /// Where people's centres are.
        center: String,
        /// Where each point is.
        heatmap: String,
        /// From the centre to the points.
        regress: String,
        /// From a cell to the point.
        offset: String,
    },
    /// One person as `[17, 3]`: y, x and score relative to the input (MoveNet as it is published).
    MoveNet {
        /// The output.
        output: String,
    },
    /// One person as 39 times x, y, z in input pixels, visibility and presence as logits (MediaPipe).
    MediaPipe {
        /// The landmarks.
        output: String,
        /// Probability that there is a person.
        flag: Option<String>,
    },
    /// Many people: `[4 + 1 + 3 K, N]`, box, score, then x, y and score of each point (YOLOv8 and 11 pose).
    Yolo {
        /// The output.
        output: String,
        /// K.
        points: usize,
    },
}

/// Pose estimation.
#[derive(Clone, Debug)]
pub struct Pose {
    /// How pictures go in.
    pub input: Input,
    /// How key points come out.
    pub head: PoseHead,
    /// Lowest score of a person.
    pub threshold: f32,
}

impl Task for Pose {
    type Input = Arc<Image>;
    type Output = Vec<Person>;
    type Context = Placement;

    fn prepare(&self, image: Arc<Image>) -> Result<(Tensors, Placement), TaskError> {
        self.input.tensors(&image)
    }

    fn finish(&self, outputs: Tensors, placement: Placement) -> Result<Vec<Person>, TaskError> {
        let (width, height) = (placement.input.0 as f32, placement.input.1 as f32);
        let point = |name: &str, x: f32, y: f32, score: f32| {
            let (x, y) = placement.to_source(x, y);
            KeyPoint { name: name.to_owned(), x, y, score }
        };
        let named = |names: &[&str], places: Vec<(f32, f32, f32)>| -> Vec<KeyPoint> {
            let name = |k: usize| names.get(k).map_or_else(|| k.to_string(), |n| (*n).to_owned());
            places.iter().enumerate().map(|(k, &(x, y, score))| point(&name(k), x, y, score)).collect()
        };
        let one = |points: Vec<KeyPoint>| {
            let score = points.iter().map(|p| p.score).sum::<f32>() / points.len().max(1) as f32;
            Vec::from_iter((score >= self.threshold).then_some(Person { area: None, score, points }))
        };
        match &self.head {
            PoseHead::MoveNetMaps { center, heatmap, regress, offset } => {
                let places = move_net_maps(&outputs, [center, heatmap, regress, offset])?;
                let places = places.into_iter().map(|(x, y, s)| (x * width, y * height, s)).collect();
                Ok(one(named(&COCO_POINTS, places)))
            }
            PoseHead::MoveNet { output } => {
                let ([_, three], values) = take::<2>(&outputs, output)?;
                if three != 3 {
                    return Err(wrong(output, format!("{three} values a point, expected y, x and score")));
                }
                let places = values.chunks_exact(3).map(|v| (v[1] * width, v[0] * height, v[2])).collect();
                Ok(one(named(&COCO_POINTS, places)))
            }
            PoseHead::MediaPipe { output, flag } => {
                let (_, values) = take::<1>(&outputs, output)?;
                let place = |v: &[f32]| {
                    let score = crate::scores::sigmoid(v[3]) * crate::scores::sigmoid(v[4]);
                    (v[0], v[1], score)
                };
                let places = values.chunks_exact(5).take(33).map(place).collect();
                let points = named(&MEDIAPIPE_POINTS, places);
                let score = match flag {
                    Some(flag) => take::<1>(&outputs, flag)?.1[0],
                    None => 1.0,
                };
                Ok(Vec::from_iter((score >= self.threshold).then_some(Person { area: None, score, points })))
            }
            PoseHead::Yolo { output, points } => {
                let ([rows, count], values) = take::<2>(&outputs, output)?;
                if rows < 5 + 3 * points {
                    return Err(wrong(output, format!("{rows} rows for {points} key points")));
                }
                let head = BoxHead::Columns { output: output.clone(), classes: 1 };
                let found = candidates(&head, &outputs, placement.input, self.threshold)?;
                let flat: Vec<_> = found.iter().map(|c| (c.area, c.score, c.class)).collect();
                let kept = suppress(&flat, 0.45, Suppress::PerClass);
                Ok(kept
                    .into_iter()
                    .map(|i| {
                        let at = |r: usize| values[r * count + found[i].row];
                        let places =
                            (0..*points).map(|k| (at(5 + 3 * k), at(6 + 3 * k), at(7 + 3 * k))).collect();
                        Person {
                            area: Some(placement.box_to_source(found[i].area)),
                            score: found[i].score,
                            points: named(if *points == 17 { &COCO_POINTS } else { &[] }, places),
                        }
                    })
                    .collect())
            }
        }
    }
}

/// `(x, y, score)` of each point relative to the input.
fn move_net_maps(outputs: &Tensors, names: [&str; 4]) -> Result<Vec<(f32, f32, f32)>, TaskError> {
    let [center_name, heatmap_name, regress_name, offset_name] = names;
    let ([h, w], center) = take::<2>(outputs, center_name)?;
    let ([points, hh, hw], heatmap) = take::<3>(outputs, heatmap_name)?;
    let (regress_shape, regress) = take::<3>(outputs, regress_name)?;
    let (offset_shape, offset) = take::<3>(outputs, offset_name)?;
    if (hh, hw) != (h, w) || regress_shape != [2 * points, h, w] || offset_shape != regress_shape {
        return Err(wrong(heatmap_name, "the four maps differ in size".to_owned()));
    }
    let (cell, _) = argmax(&center);
    let (cy, cx) = ((cell / w) as f32, (cell % w) as f32);
    let plane = h * w;
    Ok((0..points)
        .map(|k| {
            let guess_y = cy + regress[2 * k * plane + cell];
            let guess_x = cx + regress[(2 * k + 1) * plane + cell];
            // A point near the guess is favoured over a stronger one far off.
            let favoured: Vec<f32> = (0..plane)
                .map(|i| {
                    let (y, x) = ((i / w) as f32, (i % w) as f32);
                    heatmap[k * plane + i] / ((y - guess_y).hypot(x - guess_x) + 1.8)
                })
                .collect();
            let (best, _) = argmax(&favoured);
            let y = ((best / w) as f32 + offset[2 * k * plane + best]) / h as f32;
            let x = ((best % w) as f32 + offset[(2 * k + 1) * plane + best]) / w as f32;
            (x, y, heatmap[k * plane + best])
        })
        .collect())
}
