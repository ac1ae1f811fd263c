//! Intersection over union of pixels, class by class.

use anyhow::ensure;
use serde::Serialize;
use std::collections::BTreeMap;

/// Pixels by class.
#[derive(Clone, Debug, Default)]
pub struct Overlap {
    /// By class: pixels of both, of the answer, of the truth.
    counts: BTreeMap<usize, (u64, u64, u64)>,
}

/// Mean intersection over union.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MeanIou {
    /// Mean over the classes that are in the truth.
    pub miou: f64,
    /// By class.
    pub classes: BTreeMap<usize, f64>,
}

/// A class number that says "not counted".
pub const IGNORED: u16 = 255;

impl Overlap {
    /// Counts one picture.
    ///
    /// # Errors
    /// If the sizes differ.
    pub fn add(&mut self, answer: &[u16], truth: &[u16]) -> anyhow::Result<()> {
        ensure!(answer.len() == truth.len(), "{} pixels beside {}", answer.len(), truth.len());
        for (&answer, &truth) in answer.iter().zip(truth) {
            if truth == IGNORED {
                continue;
            }
            self.counts.entry(answer.into()).or_default().1 += 1;
            let of_truth = self.counts.entry(truth.into()).or_default();
            of_truth.2 += 1;
            of_truth.0 += u64::from(answer == truth);
        }
        Ok(())
    }

    /// The measure so far.
    pub fn mean(&self) -> MeanIou {
        let iou = |(both, answer, truth): (u64, u64, u64)| both as f64 / (answer + truth - both) as f64;
        let classes: BTreeMap<usize, f64> =
            self.counts.iter().filter(|(_, c)| c.2 > 0).map(|(class, c)| (*class, iou(*c))).collect();
        MeanIou { miou: classes.values().sum::<f64>() / classes.len().max(1) as f64, classes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_the_truth_count_alike() {
        let mut overlap = Overlap::default();
        overlap.add(&[0, 0, 1, 1, 2], &[0, 1, 1, 1, 255]).unwrap();
        let mean = overlap.mean();
        assert_eq!(mean.classes, BTreeMap::from([(0, 0.5), (1, 2.0 / 3.0)]));
        assert!((mean.miou - (0.5 + 2.0 / 3.0) / 2.0).abs() < 1e-12);
        assert!(overlap.add(&[0], &[]).is_err());
    }
}
