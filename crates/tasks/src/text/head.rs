//! A linear head on embeddings: multinomial logistic regression, trained by L-BFGS.

use crate::scores::softmax;

/// Weights of a linear classifier.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearHead {
    /// Names, in the order of the rows.
    pub labels: Vec<String>,
    /// `[labels, D]`, row-major.
    pub weights: Vec<f32>,
    /// `[labels]`.
    pub bias: Vec<f32>,
}

impl LinearHead {
    /// Width of the embeddings that it takes.
    pub fn width(&self) -> usize {
        self.weights.len() / self.labels.len().max(1)
    }

    /// Probabilities of the labels for an embedding `[D]`; `None` if its width is another.
    pub fn scores(&self, embedding: &[f32]) -> Option<Vec<f32>> {
        if self.width() != embedding.len() || self.labels.is_empty() || embedding.is_empty() {
            return None;
        }
        let rows = self.weights.chunks_exact(embedding.len()).zip(&self.bias);
        let logits: Vec<f32> = rows
            .map(|(row, bias)| row.iter().zip(embedding).map(|(w, x)| w * x).sum::<f32>() + bias)
            .collect();
        Some(softmax(&logits))
    }
}

/// How a head is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainOptions {
    /// Inverse strength of the L2 penalty, as scikit-learn's `C`.
    pub c: f64,
    /// Most iterations.
    pub max_iterations: usize,
    /// Ends when no component of the mean gradient is larger.
    pub tolerance: f64,
}

impl Default for TrainOptions {
    fn default() -> Self {
        TrainOptions { c: 1.0, max_iterations: 1000, tolerance: 1e-6 }
    }
}

/// A trained head and how the training went.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The head.
    pub head: LinearHead,
    /// Iterations taken.
    pub iterations: usize,
    /// Whether the tolerance was reached.
    pub converged: bool,
    /// Mean loss per row, penalty included.
    pub loss: f64,
}

/// Embeddings `[N, D]` and the label of each.
#[derive(Clone, Copy, Debug)]
pub struct Examples<'a> {
    /// `[N, D]`, row-major.
    pub embeddings: &'a [f32],
    /// `D`.
    pub width: usize,
    /// `[N]`: places in the list of labels.
    pub classes: &'a [usize],
}

/// Fits a head that minimises `mean(-log p(class)) + |W|² / (2 C N)`, the bias not penalised: the objective of
/// scikit-learn's `LogisticRegression`. Two labels share one weight vector, as there.
///
/// # Errors
/// In words: fewer than two labels or no example, lists of unequal lengths, values that are not finite.
pub fn train(labels: Vec<String>, examples: Examples<'_>, options: &TrainOptions) -> Result<Trained, String> {
    let Examples { embeddings, width, classes } = examples;
    if labels.len() < 2 {
        return Err(format!("{} labels, at least 2 are needed", labels.len()));
    }
    if classes.is_empty() || width == 0 || classes.len().checked_mul(width) != Some(embeddings.len()) {
        return Err(format!("{} numbers for {} rows of width {width}", embeddings.len(), classes.len()));
    }
    if let Some(class) = classes.iter().find(|c| **c >= labels.len()) {
        return Err(format!("class {class} of {} labels", labels.len()));
    }
    if embeddings.iter().any(|x| !x.is_finite()) || !(options.c.is_finite() && options.c > 0.0) {
        return Err("numbers that are not finite".to_owned());
    }
    // One row for two labels: its logit is that of the second against the first.
    let rows = if labels.len() == 2 { 1 } else { labels.len() };
    let problem =
        Problem { embeddings, width, classes, rows, penalty: 1.0 / (options.c * classes.len() as f64) };
    let mut parameters = vec![0.0; rows * (width + 1)];
    let (iterations, converged, loss) = minimise(&problem, &mut parameters, options);
    let (weights, bias) = parameters.split_at(rows * width);
    let narrow = |values: &[f64], scale: f64| values.iter().map(|v| (v * scale) as f32).collect::<Vec<f32>>();
    let head = if rows == 1 {
        LinearHead {
            labels,
            weights: [narrow(weights, -0.5), narrow(weights, 0.5)].concat(),
            bias: [narrow(bias, -0.5), narrow(bias, 0.5)].concat(),
        }
    } else {
        LinearHead { labels, weights: narrow(weights, 1.0), bias: narrow(bias, 1.0) }
    };
    Ok(Trained { head, iterations, converged, loss })
}

struct Problem<'a> {
    embeddings: &'a [f32],
    width: usize,
    classes: &'a [usize],
    rows: usize,
    penalty: f64,
}

impl Problem<'_> {
    /// The loss at `parameters` (`[rows, D]` weights, then `[rows]` bias); writes its gradient.
    fn loss(&self, parameters: &[f64], gradient: &mut [f64]) -> f64 {
        let (weights, bias) = parameters.split_at(self.rows * self.width);
        gradient.fill(0.0);
        let (weights_gradient, bias_gradient) = gradient.split_at_mut(self.rows * self.width);
        let mut loss = 0.0;
        let mut errors = vec![0.0; self.rows];
        for (row, &class) in self.embeddings.chunks_exact(self.width).zip(self.classes) {
            for ((error, w), b) in errors.iter_mut().zip(weights.chunks_exact(self.width)).zip(bias) {
                *error = dot(w, row) + b;
            }
            loss +=
                if self.rows == 1 { binary(&mut errors[0], class) } else { multinomial(&mut errors, class) };
            let rows = weights_gradient.chunks_exact_mut(self.width).zip(bias_gradient.iter_mut());
            for (error, (w, b)) in errors.iter().zip(rows) {
                *b += error;
                w.iter_mut().zip(row).for_each(|(w, x)| *w += error * f64::from(*x));
            }
        }
        let scale = 1.0 / self.classes.len() as f64;
        gradient.iter_mut().for_each(|g| *g *= scale);
        let mut squares = 0.0;
        for (g, w) in gradient.iter_mut().zip(weights) {
            *g += self.penalty * w;
            squares += w * w;
        }
        loss * scale + 0.5 * self.penalty * squares
    }
}

/// The loss of a logit; leaves probability minus truth in its place.
fn binary(logit: &mut f64, class: usize) -> f64 {
    let (z, truth) = (*logit, class as f64);
    *logit = 1.0 / (1.0 + (-z).exp()) - truth;
    // log(1 + exp(z)) - truth z, without overflow.
    z.max(0.0) + (-z.abs()).exp().ln_1p() - truth * z
}

fn multinomial(logits: &mut [f64], class: usize) -> f64 {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let own = logits[class];
    logits.iter_mut().for_each(|z| *z = (*z - max).exp());
    let sum: f64 = logits.iter().sum();
    logits.iter_mut().for_each(|z| *z /= sum);
    logits[class] -= 1.0;
    sum.ln() + max - own
}

fn dot(weights: &[f64], row: &[f32]) -> f64 {
    // Four sums hide the latency of the addition.
    let mut sums = [0.0; 4];
    let (w, x) = (weights.chunks_exact(4), row.chunks_exact(4));
    let rest: f64 = w.remainder().iter().zip(x.remainder()).map(|(w, x)| w * f64::from(*x)).sum();
    for (w, x) in w.zip(x) {
        for lane in 0..4 {
            sums[lane] += w[lane] * f64::from(x[lane]);
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// Steps remembered.
const MEMORY: usize = 10;

/// L-BFGS (Nocedal and Wright, algorithm 7.5) with a line search for the strong Wolfe conditions' first half and
/// positive curvature, which the convex problem gives. Leaves the minimum in `x`.
fn minimise(problem: &Problem<'_>, x: &mut Vec<f64>, options: &TrainOptions) -> (usize, bool, f64) {
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut gradient = vec![0.0; x.len()];
    let mut loss = problem.loss(x, &mut gradient);
    let mut history: std::collections::VecDeque<(Vec<f64>, Vec<f64>, f64)> = Default::default();
    for iteration in 0..options.max_iterations {
        if gradient.iter().all(|g| g.abs() <= options.tolerance) {
            return (iteration, true, loss);
        }
        let mut direction: Vec<f64> = gradient.iter().map(|g| -g).collect();
        let mut factors = Vec::with_capacity(history.len());
        for (step, change, curvature) in history.iter().rev() {
            let factor = product(step, &direction) / curvature;
            direction.iter_mut().zip(change).for_each(|(d, y)| *d -= factor * y);
            factors.push(factor);
        }
        let first = 1.0 / product(&gradient, &gradient).sqrt();
        let scale = history.back().map_or(first, |(_, y, curvature)| curvature / product(y, y));
        direction.iter_mut().for_each(|d| *d *= scale);
        for ((step, change, curvature), factor) in history.iter().zip(factors.iter().rev()) {
            let correction = factor - product(change, &direction) / curvature;
            direction.iter_mut().zip(step).for_each(|(d, s)| *d += correction * s);
        }
        let slope = product(&gradient, &direction);
        let Some((next, next_loss, next_gradient)) = descend(problem, x, &direction, loss, slope) else {
            // Rounding hides any further descent.
            return (iteration, false, loss);
        };
        let step: Vec<f64> = next.iter().zip(x.iter()).map(|(n, x)| n - x).collect();
        let change: Vec<f64> = next_gradient.iter().zip(&gradient).map(|(n, g)| n - g).collect();
        let curvature = product(&step, &change);
        if curvature > 1e-300 {
            history.push_back((step, change, curvature));
            if history.len() > MEMORY {
                history.pop_front();
            }
        }
        (*x, loss, gradient) = (next, next_loss, next_gradient);
    }
    let converged = gradient.iter().all(|g| g.abs() <= options.tolerance);
    (options.max_iterations, converged, loss)
}

/// A step along `direction` that lowers the loss enough and leaves the steepest part of the slope behind.
fn descend(
    problem: &Problem<'_>,
    x: &[f64],
    direction: &[f64],
    loss: f64,
    slope: f64,
) -> Option<(Vec<f64>, f64, Vec<f64>)> {
    let (mut low, mut high, mut length) = (0.0, f64::INFINITY, 1.0);
    let mut best = None;
    for _ in 0..40 {
        let next: Vec<f64> = x.iter().zip(direction).map(|(x, d)| x + length * d).collect();
        let mut gradient = vec![0.0; x.len()];
        let next_loss = problem.loss(&next, &mut gradient);
        let next_slope: f64 = gradient.iter().zip(direction).map(|(g, d)| g * d).sum();
        if next_loss.is_nan() || next_loss > loss + 1e-4 * length * slope {
            high = length;
        } else {
            let flat_enough = next_slope >= 0.9 * slope;
            best = Some((next, next_loss, gradient));
            if flat_enough {
                return best;
            }
            low = length;
        }
        length = if high.is_finite() { 0.5 * (low + high) } else { 2.0 * low };
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(count: usize) -> Vec<String> {
        (0..count).map(|l| format!("label {l}")).collect()
    }

    /// Points around the corners of a square, with a fixed pseudo-random scatter.
    fn corners(count: usize, classes: usize) -> (Vec<f32>, Vec<usize>) {
        let mut state = 7u32;
        let mut noise = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        let own: Vec<usize> = (0..count).map(|i| i % classes).collect();
        let points =
            own.iter().flat_map(|c| [(c % 2) as f32 + 1.5 * noise(), (c / 2) as f32 + 1.5 * noise()]);
        (points.collect(), own)
    }

    #[test]
    fn the_gradient_vanishes_at_the_minimum_and_classes_are_learnt() {
        for classes in [2, 4] {
            let (embeddings, own) = corners(400, classes);
            let examples = Examples { embeddings: &embeddings, width: 2, classes: &own };
            let trained = train(labels(classes), examples, &TrainOptions::default()).unwrap();
            assert!(trained.converged && trained.iterations < 100, "{trained:?}");
            let right = embeddings
                .chunks(2)
                .zip(&own)
                .filter(|(x, c)| crate::scores::best(&trained.head.scores(x).unwrap()) == **c);
            assert!(right.count() > 220, "{trained:?}");
        }
    }

    #[test]
    fn two_labels_give_the_analytic_minimum_without_width() {
        // One constant feature of 0: only the bias counts, whose minimum is the log odds.
        let examples = Examples { embeddings: &[0.0; 4], width: 1, classes: &[0, 1, 1, 1] };
        let trained = train(labels(2), examples, &TrainOptions::default()).unwrap();
        let scores = trained.head.scores(&[0.0]).unwrap();
        assert!((scores[1] - 0.75).abs() < 1e-5, "{scores:?}");
        assert!(trained.head.scores(&[0.0, 1.0]).is_none());
    }

    #[test]
    fn refuses_what_cannot_be_learnt() {
        let examples = |embeddings, classes| Examples { embeddings, width: 1, classes };
        let options = TrainOptions::default();
        assert!(train(labels(1), examples(&[1.0], &[0]), &options).is_err());
        assert!(train(labels(2), examples(&[1.0, 2.0], &[0]), &options).is_err());
        assert!(train(labels(2), examples(&[1.0], &[2]), &options).is_err());
        assert!(train(labels(2), examples(&[f32::NAN], &[0]), &options).is_err());
        assert!(train(labels(2), examples(&[], &[]), &options).is_err());
    }
}
