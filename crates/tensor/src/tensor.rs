//! Dense tensors in ordinary memory: what tasks, one-pass models and files exchange.

use crate::{DType, Element, Elements};
use std::collections::BTreeMap;

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

    /// A tensor without dimensions: one element.
    pub fn scalar<T: Element>(value: T) -> Tensor {
        Tensor { shape: Vec::new(), elements: T::wrap(vec![value]) }
    }

    /// A list: a tensor of one dimension.
    pub fn list<T: Element>(values: Vec<T>) -> Tensor {
        Tensor { shape: vec![values.len()], elements: T::wrap(values) }
    }

    /// The elements, if they are of type `T`.
    pub fn values<T: Element>(&self) -> Option<&[T]> {
        T::of(&self.elements)
    }

    /// The same elements in another shape.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn reshaped(self, shape: impl Into<Vec<usize>>) -> Result<Tensor, ShapeError> {
        Tensor::new(shape, self.elements)
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
