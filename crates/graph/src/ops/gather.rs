//! Operations that pick elements by index.

use super::TensorOp;
use super::fact::{Fact, Facts, axis, shaped};
use kun_tensor::DType;

/// What a scatter does with the element that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Scatter {
    Replace,
    Add,
    Mul,
    Max,
    Min,
}

/// The largest or smallest elements along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopK {
    /// The axis.
    pub axis: i64,
    /// Largest rather than smallest.
    pub largest: bool,
    /// In order; always done.
    pub sorted: bool,
}

pub(crate) fn infer(op: &TensorOp, x: &Facts<'_>) -> Result<Vec<Fact>, String> {
    let same = |i: usize| x.shape(i).map(<[usize]>::to_vec);
    Ok(match op {
        TensorOp::Gather { axis: a } => {
            let (Some(shape), Some(indices)) = (x.shape(0), x.shape(1)) else { return Ok(Vec::new()) };
            let a = axis(*a, shape.len())?;
            x.like(0, Some([&shape[..a], indices, &shape[a + 1..]].concat()))
        }
        TensorOp::GatherElements { .. } => x.like(0, same(1)),
        TensorOp::GatherNd { batch_dims } => {
            let (Some(shape), Some(indices)) = (x.shape(0), x.shape(1)) else { return Ok(Vec::new()) };
            x.like(0, Some(gather_nd_shape(shape, indices, *batch_dims)?))
        }
        TensorOp::OneHot { axis: a } => {
            let (Some(indices), Some(depth)) = (x.shape(0), depth(x)) else { return Ok(Vec::new()) };
            let a = axis(*a, indices.len() + 1)?;
            let mut shape = indices.to_vec();
            shape.insert(a, depth);
            x.like(2, Some(shape))
        }
        TensorOp::TopK(top) => {
            let (Some(shape), Some(k)) = (x.shape(0), x.i64s(1)) else { return Ok(Vec::new()) };
            let a = axis(top.axis, shape.len())?;
            let mut shape = shape.to_vec();
            shape[a] = top_count(&k, shape[a])?;
            vec![shaped(x.dtype(0), Some(shape.clone())), shaped(Some(DType::I64), Some(shape))]
        }
        _ => x.like(0, same(0)),
    })
}

/// The number of elements that a top-k takes of `length`.
pub(crate) fn top_count(k: &[i64], length: usize) -> Result<usize, String> {
    match k {
        [k] => usize::try_from(*k).ok().filter(|&k| k <= length),
        _ => None,
    }
    .ok_or_else(|| format!("the top {k:?} of {length}"))
}

fn depth(x: &Facts<'_>) -> Option<usize> {
    let value = x.0.get(1)?.tensor()?.elements().to_f64()?;
    match value[..] {
        [depth] if depth >= 0.0 => Some(depth as usize),
        _ => None,
    }
}

/// The shape of a [`TensorOp::GatherNd`].
pub(crate) fn gather_nd_shape(
    shape: &[usize],
    indices: &[usize],
    batch_dims: usize,
) -> Result<Vec<usize>, String> {
    let misfit = || format!("indices {indices:?} into {shape:?}, {batch_dims} dimensions shared");
    let (&depth, outer) = indices.split_last().ok_or_else(misfit)?;
    if batch_dims > outer.len()
        || batch_dims + depth > shape.len()
        || shape[..batch_dims] != outer[..batch_dims]
    {
        return Err(misfit());
    }
    Ok([outer, &shape[batch_dims + depth..]].concat())
}
