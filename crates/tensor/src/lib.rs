//! The vocabulary every other crate speaks: element types, shapes, storage and quantised block layouts.
//!
//! Unsafe code lives in [`storage`] only (mapped files and aligned, huge-page memory).
#![deny(unsafe_code)]

pub mod dtype;
pub mod quant;
pub mod storage;
pub mod tensor;

pub use dtype::DType;
pub use tensor::{Elements, ShapeError, Tensor, Tensors};
