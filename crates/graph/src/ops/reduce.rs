//! Operations along axes: reductions, running sums, softmax, losses.

use super::TensorOp;
use super::fact::{Fact, Facts, axis, distinct_axes, shaped};
use kun_tensor::DType;

/// What a reduction computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ReduceKind {
    L1,
    L2,
    LogSum,
    LogSumExp,
    Max,
    Mean,
    Min,
    Prod,
    Sum,
    SumSquare,
}

/// A reduction over the axes that operand 1 names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reduce {
    /// What it computes.
    pub kind: ReduceKind,
    /// Whether reduced dimensions stay as 1.
    pub keep_dims: bool,
    /// Whether no axes means no reduction rather than all axes.
    pub none_if_empty: bool,
}

impl Reduce {
    /// The axes that are reduced, sorted.
    ///
    /// # Errors
    /// If one does not exist or is there twice.
    pub fn axes(&self, named: Option<&[i64]>, rank: usize) -> Result<Vec<usize>, String> {
        let mut axes = match named {
            Some(named) if !named.is_empty() => distinct_axes(named, rank)?,
            _ if self.none_if_empty => Vec::new(),
            _ => (0..rank).collect(),
        };
        axes.sort_unstable();
        Ok(axes)
    }
}

/// The index of the largest or smallest element along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArgReduce {
    /// Largest rather than smallest.
    pub largest: bool,
    /// The axis.
    pub axis: i64,
    /// Whether the axis stays as 1.
    pub keep_dims: bool,
    /// The last among equals rather than the first.
    pub last: bool,
}

/// Running sums or products along the axis that operand 1 names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cumulate {
    /// Products rather than sums.
    pub product: bool,
    /// Whether an element's own value is left out.
    pub exclusive: bool,
    /// From the end.
    pub reverse: bool,
}

/// How the losses of elements are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LossReduction {
    None,
    Mean,
    Sum,
}

/// A loss against class labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// How elements are joined.
    pub reduction: LossReduction,
    /// A label that does not count.
    pub ignore_index: Option<i64>,
}

/// `shape` with the dimensions `axes` reduced.
pub(crate) fn reduced(shape: &[usize], axes: &[usize], keep_dims: bool) -> Vec<usize> {
    let kept = |(i, &dim): (usize, &usize)| match axes.contains(&i) {
        false => Some(dim),
        true => keep_dims.then_some(1),
    };
    shape.iter().enumerate().filter_map(kept).collect()
}

pub(crate) fn infer(op: &TensorOp, x: &Facts<'_>) -> Result<Vec<Fact>, String> {
    Ok(match op {
        TensorOp::Reduce(reduce) => {
            let (Some(shape), Some(named)) = (x.shape(0), x.optional_i64s(1)) else { return Ok(Vec::new()) };
            let axes = reduce.axes(named.as_deref(), shape.len())?;
            x.like(0, Some(reduced(shape, &axes, reduce.keep_dims)))
        }
        TensorOp::ArgReduce(arg) => {
            let Some(shape) = x.shape(0) else { return Ok(Vec::new()) };
            let axis = axis(arg.axis, shape.len())?;
            vec![Fact::Shaped(DType::I64, reduced(shape, &[axis], arg.keep_dims))]
        }
        TensorOp::Determinant => {
            x.like(0, x.shape(0).map(|shape| shape[..shape.len().saturating_sub(2)].to_vec()))
        }
        TensorOp::NegativeLogLikelihood(loss) => {
            let shape = match loss.reduction {
                LossReduction::None => x.shape(1).map(<[usize]>::to_vec),
                _ => Some(Vec::new()),
            };
            x.like(0, shape)
        }
        TensorOp::SoftmaxCrossEntropy(loss) => {
            let shape = match loss.reduction {
                LossReduction::None => x.shape(1).map(<[usize]>::to_vec),
                _ => Some(Vec::new()),
            };
            vec![shaped(x.dtype(0), shape), shaped(x.dtype(0), x.shape(0).map(<[usize]>::to_vec))]
        }
        _ => x.like(0, x.shape(0).map(<[usize]>::to_vec)),
    })
}
