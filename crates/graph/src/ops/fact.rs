//! What is known of a value before a run.

use kun_tensor::{DType, Elements, Tensor};
use std::sync::Arc;

/// What is known of a value once the shapes of the inputs are.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// Nothing: its shape depends on data, or it is no tensor.
    Unknown,
    /// Type and shape.
    Shaped(DType, Vec<usize>),
    /// Everything.
    Known(Arc<Tensor>),
    /// An operand that was left out.
    Absent,
}

impl Fact {
    /// Its shape.
    pub fn shape(&self) -> Option<&[usize]> {
        match self {
            Fact::Shaped(_, shape) => Some(shape),
            Fact::Known(tensor) => Some(tensor.shape()),
            Fact::Unknown | Fact::Absent => None,
        }
    }

    /// Its element type.
    pub fn dtype(&self) -> Option<DType> {
        match self {
            Fact::Shaped(dtype, _) => Some(*dtype),
            Fact::Known(tensor) => Some(tensor.dtype()),
            Fact::Unknown | Fact::Absent => None,
        }
    }

    /// Its elements.
    pub fn tensor(&self) -> Option<&Arc<Tensor>> {
        match self {
            Fact::Known(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// Whether an operand was left out.
    pub fn is_absent(&self) -> bool {
        matches!(self, Fact::Absent)
    }
}

/// The operands of a node, as far as known.
pub(crate) struct Facts<'a>(pub(crate) &'a [Fact]);

/// An inner `None` means that too little is known: the caller's result is unknown as well.
impl<'a> Facts<'a> {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn has(&self, i: usize) -> bool {
        self.0.get(i).is_some_and(|fact| !fact.is_absent())
    }

    pub(crate) fn shape(&self, i: usize) -> Option<&'a [usize]> {
        self.0.get(i)?.shape()
    }

    pub(crate) fn dtype(&self, i: usize) -> Option<DType> {
        self.0.get(i)?.dtype()
    }

    /// The integers of operand `i`.
    pub(crate) fn i64s(&self, i: usize) -> Option<Vec<i64>> {
        integers(self.0.get(i)?.tensor()?.elements())
    }

    /// The integers of operand `i`: `Some(None)` if it is left out, `None` if it is not known.
    pub(crate) fn optional_i64s(&self, i: usize) -> Option<Option<Vec<i64>>> {
        if self.has(i) { self.i64s(i).map(Some) } else { Some(None) }
    }

    /// One result of operand `i`'s type.
    pub(crate) fn like(&self, i: usize, shape: Option<Vec<usize>>) -> Vec<Fact> {
        vec![shaped(self.dtype(i), shape)]
    }
}

/// The elements as i64, if they are integers.
pub(crate) fn integers(elements: &Elements) -> Option<Vec<i64>> {
    match elements.dtype() {
        DType::I64
        | DType::I32
        | DType::I16
        | DType::I8
        | DType::U64
        | DType::U32
        | DType::U16
        | DType::U8
        | DType::Bool => elements.to_i64(),
        _ => None,
    }
}

pub(crate) fn shaped(dtype: Option<DType>, shape: Option<Vec<usize>>) -> Fact {
    match (dtype, shape) {
        (Some(dtype), Some(shape)) => Fact::Shaped(dtype, shape),
        _ => Fact::Unknown,
    }
}

/// `axis` of a tensor of `rank` dimensions, negative from the end.
///
/// # Errors
/// If there is none such.
pub fn axis(axis: i64, rank: usize) -> Result<usize, String> {
    let from_end =
        if axis < 0 { i64::try_from(rank).ok().and_then(|rank| axis.checked_add(rank)) } else { Some(axis) };
    from_end
        .and_then(|axis| usize::try_from(axis).ok())
        .filter(|&axis| axis < rank)
        .ok_or_else(|| format!("axis {axis} of {rank} dimensions"))
}

/// [`axis`] for each of `axes`, each at most once.
///
/// # Errors
/// As [`axis`], or if one is there twice.
pub fn distinct_axes(axes: &[i64], rank: usize) -> Result<Vec<usize>, String> {
    let mut seen = vec![false; rank];
    axes.iter()
        .map(|&a| {
            let at = axis(a, rank)?;
            if std::mem::replace(&mut seen[at], true) {
                return Err(format!("axis {a} is named twice"));
            }
            Ok(at)
        })
        .collect()
}

/// NumPy's rule: shapes align at the last dimension, and a dimension of 1 stretches.
///
/// # Errors
/// If they do not fit.
pub fn broadcast(shapes: &[&[usize]]) -> Result<Vec<usize>, String> {
    let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
    let mut out = vec![1; rank];
    for shape in shapes {
        let offset = rank - shape.len();
        for (have, &dim) in out[offset..].iter_mut().zip(*shape) {
            if *have == 1 {
                *have = dim;
            } else if dim != 1 && dim != *have {
                return Err(format!("shapes {shapes:?} do not broadcast"));
            }
        }
    }
    Ok(out)
}

/// Elements of a shape.
///
/// # Errors
/// If they cannot be counted.
pub fn count(shape: &[usize]) -> Result<usize, String> {
    shape
        .iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .filter(|&n| n <= isize::MAX as usize / 16)
        .ok_or_else(|| format!("shape {shape:?} has too many elements"))
}

/// A list of dimensions from outside.
///
/// # Errors
/// If one is negative.
pub fn dims(values: &[i64]) -> Result<Vec<usize>, String> {
    values.iter().map(|&d| usize::try_from(d).map_err(|_| format!("a dimension of {d}"))).collect()
}
