//! Dense tensors in ordinary memory: what tasks, one-pass models and files exchange.

use crate::DType;
use half::{bf16, f16};
use std::collections::BTreeMap;

/// The elements of a [`Tensor`], row-major.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Elements {
    F64(Vec<f64>),
    F32(Vec<f32>),
    F16(Vec<f16>),
    BF16(Vec<bf16>),
    I64(Vec<i64>),
    I32(Vec<i32>),
    I16(Vec<i16>),
    I8(Vec<i8>),
    U8(Vec<u8>),
    Bool(Vec<bool>),
}

impl Elements {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Elements::F64(v) => v.len(),
            Elements::F32(v) => v.len(),
            Elements::F16(v) => v.len(),
            Elements::BF16(v) => v.len(),
            Elements::I64(v) => v.len(),
            Elements::I32(v) => v.len(),
            Elements::I16(v) => v.len(),
            Elements::I8(v) => v.len(),
            Elements::U8(v) => v.len(),
            Elements::Bool(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their type.
    pub fn dtype(&self) -> DType {
        match self {
            Elements::F64(_) => DType::F64,
            Elements::F32(_) => DType::F32,
            Elements::F16(_) => DType::F16,
            Elements::BF16(_) => DType::BF16,
            Elements::I64(_) => DType::I64,
            Elements::I32(_) => DType::I32,
            Elements::I16(_) => DType::I16,
            Elements::I8(_) => DType::I8,
            Elements::U8(_) => DType::U8,
            Elements::Bool(_) => DType::Bool,
        }
    }
}

/// Why a tensor cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{elements} elements do not fill the shape {shape:?}")]
pub struct ShapeError {
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Elements given.
    pub elements: usize,
}

/// A dense tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    elements: Elements,
}

/// Tensors by name: the inputs or the outputs of one forward pass over one item.
pub type Tensors = BTreeMap<String, Tensor>;

impl Tensor {
    /// A tensor of `shape` (outermost first) with its elements in row-major order.
    ///
    /// # Errors
    /// [`ShapeError`] if the elements do not fill the shape exactly.
    pub fn new(shape: impl Into<Vec<usize>>, elements: Elements) -> Result<Tensor, ShapeError> {
        let shape = shape.into();
        match shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)) {
            Some(n) if n == elements.len() => Ok(Tensor { shape, elements }),
            _ => Err(ShapeError { shape, elements: elements.len() }),
        }
    }

    /// [`Tensor::new`] for f32.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn f32(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Result<Tensor, ShapeError> {
        Tensor::new(shape, Elements::F32(values))
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements, row-major.
    pub fn elements(&self) -> &Elements {
        &self.elements
    }

    /// Takes the tensor apart.
    pub fn into_parts(self) -> (Vec<usize>, Elements) {
        (self.shape, self.elements)
    }

    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        self.elements.dtype()
    }

    /// The elements, if they are f32.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.elements {
            Elements::F32(values) => Some(values),
            _ => None,
        }
    }

    /// The elements, if they are i32.
    pub fn as_i32(&self) -> Option<&[i32]> {
        match &self.elements {
            Elements::I32(values) => Some(values),
            _ => None,
        }
    }

    /// The elements, if they are i64.
    pub fn as_i64(&self) -> Option<&[i64]> {
        match &self.elements {
            Elements::I64(values) => Some(values),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_must_fill_the_shape() {
        let tensor = Tensor::f32([2, 3], vec![0.0; 6]).unwrap();
        assert_eq!((tensor.shape(), tensor.dtype()), (&[2, 3][..], DType::F32));
        assert_eq!(Tensor::f32([], vec![1.0]).unwrap().as_f32(), Some(&[1.0][..]));
        assert!(Tensor::f32([0, 7], vec![]).unwrap().elements().is_empty());
        assert!(Tensor::f32([2, 3], vec![0.0; 5]).is_err());
        assert!(Tensor::f32([usize::MAX, 2], vec![0.0; 5]).is_err());
    }
}
