//! The vocabulary every other crate speaks: element types, shapes, storage and quantised block layouts.
//!
//! Unsafe code lives in [`storage`] only (mapped files and aligned, huge-page memory).
#![deny(unsafe_code)]

pub mod dtype;
pub mod elements;
pub mod narrow;
pub mod quant;
pub mod storage;
pub mod tensor;

pub use dtype::DType;
pub use elements::{Element, Elements};
pub use tensor::{ShapeError, Tensor, Tensors};
