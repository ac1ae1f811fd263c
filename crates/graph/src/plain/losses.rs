//! Losses against class labels.

use super::reduce::softmax_values;
use super::{f64s, from_f64};
use crate::ops::fact::count;
use crate::ops::{Loss, LossReduction, SoftmaxKind};
use kun_tensor::Tensor;

pub(crate) fn negative_log_likelihood(
    loss: &Loss,
    x: &Tensor,
    target: &Tensor,
    weight: Option<&Tensor>,
) -> Result<Tensor, String> {
    losses(loss, &f64s(x)?, x, target, weight)
}

fn losses(
    loss: &Loss,
    values: &[f64],
    x: &Tensor,
    target: &Tensor,
    weight: Option<&Tensor>,
) -> Result<Tensor, String> {
    let [n, c, rest @ ..] = x.shape() else { return Err(format!("{:?} has no classes", x.shape())) };
    let (n, c, size) = (*n, *c, count(rest)?);
    let labels = super::integers(target)?;
    let weights = weight.map(f64s).transpose()?;
    if labels.len() != n * size || weights.as_ref().is_some_and(|w| w.len() != c) {
        return Err(format!("labels {:?} for {:?}", target.shape(), x.shape()));
    }
    let (mut all, mut total) = (Vec::with_capacity(labels.len()), 0.0);
    for (i, &label) in labels.iter().enumerate() {
        if loss.ignore_index == Some(label) {
            all.push(0.0);
            continue;
        }
        let class = usize::try_from(label)
            .ok()
            .filter(|&l| l < c)
            .ok_or_else(|| format!("label {label} of {c} classes"))?;
        let weight = weights.as_ref().map_or(1.0, |w| w[class]);
        total += weight;
        all.push(-values[(i / size.max(1) * c + class) * size + i % size.max(1)] * weight);
    }
    match loss.reduction {
        LossReduction::None => from_f64(target.shape(), all, x.dtype()),
        LossReduction::Sum => from_f64([], vec![all.iter().sum()], x.dtype()),
        LossReduction::Mean => from_f64([], vec![all.iter().sum::<f64>() / total], x.dtype()),
    }
}

pub(crate) fn softmax_cross_entropy(
    loss: &Loss,
    scores: &Tensor,
    labels: &Tensor,
    weight: Option<&Tensor>,
) -> Result<Vec<Tensor>, String> {
    let [n, c, rest @ ..] = scores.shape() else {
        return Err(format!("{:?} has no classes", scores.shape()));
    };
    let mut values = f64s(scores)?;
    softmax_values(SoftmaxKind::LogSoftmax, &mut values, *n, *c, count(rest)?);
    let result = losses(loss, &values, scores, labels, weight)?;
    Ok(vec![result, from_f64(scores.shape(), values, scores.dtype())?])
}
