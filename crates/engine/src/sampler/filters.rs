//! Sets of candidate tokens: top-k, top-p (arXiv:1904.09751), min-p (arXiv:2407.01082), locally typical (arXiv:2202.00666).

use kun_kernels::vocabulary::{self, BLOCK, Exponentials};
use std::cmp::Ordering;

/// A token that may be picked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Its id.
    pub id: u32,
    /// Its logit, before temperature.
    pub logit: f32,
    /// `e^((logit - greatest) / temperature)`: 1 for the likeliest.
    pub weight: f32,
}

/// Likelier first; of equals, the lower id.
fn likelier(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

/// Sorts the likeliest to the front.
pub fn sort(candidates: &mut [Candidate]) {
    candidates.sort_unstable_by(likelier);
}

/// Leaves in `out` the `k` likeliest of `logits`, in no order and without weights; of equals, those with the lowest ids.
pub fn top_k(logits: &[f32], k: usize, out: &mut Vec<Candidate>) {
    out.clear();
    if k == 0 {
        return;
    }
    if k >= logits.len() {
        out.extend(logits.iter().enumerate().map(|(id, logit)| candidate(id, *logit)));
        return;
    }
    // The buffer is cut back to k whenever it is full; its k-th logit then keeps nearly everything else out.
    let room = (2 * k).max(256);
    let mut least = f32::NEG_INFINITY;
    for (block, values) in logits.chunks(64).enumerate() {
        if out.len() >= k && !values.iter().fold(false, |any, x| any | (*x > least)) {
            continue;
        }
        for (i, logit) in values.iter().enumerate() {
            if *logit > least || out.len() < k {
                out.push(candidate(block * 64 + i, *logit));
                if out.len() == room {
                    out.select_nth_unstable_by(k - 1, likelier);
                    out.truncate(k);
                    least = out[k - 1].logit;
                }
            }
        }
    }
    if out.len() > k {
        out.select_nth_unstable_by(k - 1, likelier);
        out.truncate(k);
    }
}

fn candidate(id: usize, logit: f32) -> Candidate {
    Candidate { id: id as u32, logit, weight: 0.0 }
}

/// Gives each candidate its weight; `factor` is one over the temperature.
pub fn weigh(candidates: &mut [Candidate], greatest: f32, factor: f32) {
    for c in candidates {
        c.weight = vocabulary::exp((c.logit - greatest) * factor);
    }
}

/// Leaves in `out` the tokens whose weight is at least `least`.
pub fn above(weights: &[f32], logits: &[f32], least: f32, out: &mut Vec<Candidate>) {
    out.clear();
    for (block, values) in weights.chunks(64).enumerate() {
        if !values.iter().fold(false, |any, w| any | (*w >= least)) {
            continue;
        }
        for (i, weight) in values.iter().enumerate() {
            let id = block * 64 + i;
            if *weight >= least {
                out.push(Candidate { id: id as u32, logit: logits[id], weight: *weight });
            }
        }
    }
}

/// Keeps the likeliest candidates that together reach the share `p` of `total` (`None`: of their own sum), at least one.
pub fn top_p(candidates: &mut Vec<Candidate>, p: f64, total: Option<f64>) {
    sort(candidates);
    let total = total.unwrap_or_else(|| sum(candidates));
    let mut reached = 0.0;
    let kept = candidates.iter().position(|c| {
        reached += f64::from(c.weight);
        reached >= p * total
    });
    candidates.truncate(kept.map_or(candidates.len(), |last| last + 1));
}

/// Keeps the candidates whose surprise is closest to the entropy and that together reach the share `p`, at least one.
pub fn typical(candidates: &mut Vec<Candidate>, p: f64) {
    let total = sum(candidates);
    let surprise = |c: &Candidate| -(f64::from(c.weight) / total).ln();
    let entropy: f64 =
        candidates.iter().filter(|c| c.weight > 0.0).map(|c| f64::from(c.weight) / total * surprise(c)).sum();
    candidates.sort_unstable_by(|a, b| {
        let (x, y) = ((surprise(a) - entropy).abs(), (surprise(b) - entropy).abs());
        x.total_cmp(&y).then(likelier(a, b))
    });
    let mut reached = 0.0;
    let kept = candidates.iter().position(|c| {
        reached += f64::from(c.weight);
        reached >= p * total
    });
    candidates.truncate(kept.map_or(candidates.len(), |last| last + 1));
}

fn sum(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|c| f64::from(c.weight)).sum()
}

/// The index at which the running sum of the weights passes `target`; `sums` are those of each [`BLOCK`].
pub fn pick_weighted(weights: Exponentials<'_>, sums: &[f64], target: f64) -> Option<u32> {
    let weights_of = |block: usize| {
        let values = weights.values.chunks(BLOCK).nth(block).unwrap_or(&[]);
        values.iter().map(|x| vocabulary::exp((x - weights.shift) * weights.factor))
    };
    let last_of = |block: usize| weights_of(block).rposition(|w| w > 0.0).map(|i| (block * BLOCK + i) as u32);
    let mut left = target;
    for (block, sum) in sums.iter().enumerate() {
        if left >= *sum {
            left -= sum;
            continue;
        }
        for (i, weight) in weights_of(block).enumerate() {
            left -= f64::from(weight);
            if left < 0.0 {
                return Some((block * BLOCK + i) as u32);
            }
        }
        // The block's sum was rounded up: its last token that has any weight is meant.
        if let Some(last) = last_of(block) {
            return Some(last);
        }
    }
    (0..sums.len()).rev().find_map(last_of)
}
