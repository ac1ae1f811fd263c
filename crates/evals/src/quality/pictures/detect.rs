//! Mean average precision as pycocotools computes it: 101 recall steps, the best 100 boxes of a picture, no crowds, all
//! sizes.

use kun_engine::tasks::pixels::Box2;
use serde::Serialize;
use std::collections::BTreeSet;

/// A box with its class, and its score if it was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Labelled {
    /// In pixels.
    pub area: Box2,
    /// Its class.
    pub class: usize,
    /// Score of a box that was found.
    pub score: f32,
}

/// One picture's true boxes and found boxes.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// What is there.
    pub truth: Vec<Labelled>,
    /// What was found, with low scores too.
    pub found: Vec<Labelled>,
}

/// Average precision over classes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MeanPrecision {
    /// Mean over overlaps from 0.50 to 0.95 in steps of 0.05.
    pub map_50_95: f64,
    /// At an overlap of 0.50.
    pub map_50: f64,
    /// Classes that are there.
    pub classes: usize,
}

const MOST_FOUND: usize = 100;

/// pycocotools overlaps boxes in f64 and with widths and heights.
fn iou(a: &Box2, b: &Box2) -> f64 {
    let [ax1, ay1, ax2, ay2] = [a.x1, a.y1, a.x2, a.y2].map(f64::from);
    let [bx1, by1, bx2, by2] = [b.x1, b.y1, b.x2, b.y2].map(f64::from);
    let width = (ax2.min(bx2) - ax1.max(bx1)).max(0.0);
    let height = (ay2.min(by2) - ay1.max(by1)).max(0.0);
    let both = width * height;
    let either = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - both;
    if either > 0.0 { both / either } else { 0.0 }
}

/// The measure over all pictures.
pub fn mean_precision(pictures: &[Picture]) -> MeanPrecision {
    let classes: BTreeSet<usize> = pictures.iter().flat_map(|p| &p.truth).map(|t| t.class).collect();
    let thresholds: Vec<f64> = (0..10).map(|i| 0.5 + 0.05 * f64::from(i)).collect();
    let mut sums = vec![0.0; thresholds.len()];
    for &class in &classes {
        for (sum, &threshold) in sums.iter_mut().zip(&thresholds) {
            *sum += average_precision(pictures, class, threshold);
        }
    }
    let count = classes.len().max(1) as f64;
    MeanPrecision {
        map_50_95: sums.iter().sum::<f64>() / count / thresholds.len() as f64,
        map_50: sums[0] / count,
        classes: classes.len(),
    }
}

fn average_precision(pictures: &[Picture], class: usize, threshold: f64) -> f64 {
    let mut matches: Vec<(f32, bool)> = Vec::new();
    let mut truths = 0;
    for picture in pictures {
        let truth: Vec<&Box2> = picture.truth.iter().filter(|t| t.class == class).map(|t| &t.area).collect();
        let mut found: Vec<&Labelled> = picture.found.iter().filter(|f| f.class == class).collect();
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        truths += truth.len();
        let mut taken = vec![false; truth.len()];
        for candidate in found.into_iter().take(MOST_FOUND) {
            let mut best = (threshold.min(1.0 - 1e-10), None);
            for (i, area) in truth.iter().enumerate() {
                let overlap = iou(&candidate.area, area);
                if !taken[i] && overlap >= best.0 {
                    best = (overlap, Some(i));
                }
            }
            if let Some(i) = best.1 {
                taken[i] = true;
            }
            matches.push((candidate.score, best.1.is_some()));
        }
    }
    if truths == 0 {
        return 0.0;
    }
    matches.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut hits = 0usize;
    let mut curve: Vec<(f64, f64)> = matches
        .iter()
        .enumerate()
        .map(|(i, (_, hit))| {
            hits += usize::from(*hit);
            (hits as f64 / truths as f64, hits as f64 / (i + 1) as f64)
        })
        .collect();
    for i in (1..curve.len()).rev() {
        curve[i - 1].1 = curve[i - 1].1.max(curve[i].1);
    }
    let at = |recall: f64| {
        let first = curve.partition_point(|(r, _)| *r < recall);
        curve.get(first).map_or(0.0, |(_, precision)| *precision)
    };
    // Steps as NumPy's `linspace` has them: 0.35 is a little more than 7 / 20.
    (0..=100).map(|i| at(f64::from(i) * 0.01)).sum::<f64>() / 101.0
}

/// True boxes that a box of the same class and at least `threshold` meets with an overlap above `overlap`, each once,
/// the best score first; and how many boxes there are of such a score.
pub fn matched(pictures: &[Picture], threshold: f32, overlap: f64) -> (usize, usize) {
    let (mut hits, mut boxes) = (0, 0);
    for picture in pictures {
        let mut found: Vec<&Labelled> = picture.found.iter().filter(|f| f.score >= threshold).collect();
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        boxes += found.len();
        let mut taken = vec![false; picture.truth.len()];
        for candidate in found {
            let fits = |(i, t): (usize, &Labelled)| {
                (!taken[i] && t.class == candidate.class).then(|| (iou(&candidate.area, &t.area), i))
            };
            let best = picture.truth.iter().enumerate().filter_map(fits).max_by(|a, b| a.0.total_cmp(&b.0));
            if let Some((_, i)) = best.filter(|(o, _)| *o > overlap) {
                taken[i] = true;
                hits += 1;
            }
        }
    }
    (hits, boxes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kun_testkit::golden;

    #[derive(serde::Deserialize)]
    struct Case {
        pictures: Vec<Boxes>,
        map_50_95: f64,
        map_50: f64,
    }

    #[derive(serde::Deserialize)]
    struct Boxes {
        truth: Vec<[f32; 5]>,
        found: Vec<[f32; 6]>,
    }

    #[test]
    fn equals_pycocotools() {
        let cases: Vec<Case> = golden::json(&golden::testdata().join("vision/coco_map.json"));
        assert!(cases.len() >= 5);
        for case in cases {
            let pictures: Vec<Picture> = case
                .pictures
                .iter()
                .map(|p| Picture {
                    truth: p.truth.iter().map(|t| labelled(&t[..4], t[4], 1.0)).collect(),
                    found: p.found.iter().map(|f| labelled(&f[..4], f[4], f[5])).collect(),
                })
                .collect();
            let measured = mean_precision(&pictures);
            assert!((measured.map_50_95 - case.map_50_95).abs() < 1e-6, "{measured:?} {}", case.map_50_95);
            assert!((measured.map_50 - case.map_50).abs() < 1e-6, "{measured:?} {}", case.map_50);
        }
    }

    fn labelled(b: &[f32], class: f32, score: f32) -> Labelled {
        Labelled { area: Box2::new(b[0], b[1], b[2], b[3]), class: class as usize, score }
    }
}
