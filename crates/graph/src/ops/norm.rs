//! Normalisation.

use super::TensorOp;
use super::fact::{Fact, Facts, axis, shaped};
use kun_tensor::DType;

/// `(x - mean) / sqrt(variance + epsilon) * scale + bias`, one of each per channel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNorm {
    /// Added to the variance.
    pub epsilon: f32,
    /// Share of the old running mean and variance in the new ones.
    pub momentum: f32,
    /// Whether mean and variance are those of the batch, and the running ones are results.
    pub training: bool,
}

/// Over all dimensions from `axis` on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerNorm {
    /// First dimension.
    pub axis: i64,
    /// Added to the variance or the mean square.
    pub epsilon: f32,
}

/// `x / (bias + alpha / size * sum of squares over size channels) ^ beta`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct LocalNorm {
    pub alpha: f32,
    pub beta: f32,
    pub bias: f32,
    pub size: usize,
}

pub(crate) fn infer(op: &TensorOp, x: &Facts<'_>) -> Result<Vec<Fact>, String> {
    let shape = x.shape(0).map(<[usize]>::to_vec);
    Ok(match op {
        TensorOp::LayerNorm(norm) | TensorOp::RmsNorm(norm) => {
            let Some(shape) = shape else { return Ok(Vec::new()) };
            let from = axis(norm.axis, shape.len())?;
            let statistics: Vec<usize> =
                shape.iter().enumerate().map(|(i, &d)| if i < from { d } else { 1 }).collect();
            let statistics = shaped(Some(DType::F32), Some(statistics));
            vec![shaped(x.dtype(0), Some(shape)), statistics.clone(), statistics]
        }
        TensorOp::BatchNorm(norm) if norm.training => {
            let statistics = shaped(x.dtype(3), x.shape(3).map(<[usize]>::to_vec));
            vec![shaped(x.dtype(0), shape), statistics.clone(), statistics]
        }
        _ => x.like(0, shape),
    })
}
