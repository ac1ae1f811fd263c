//! Plain encode and decode of every stored element type: the definition that fast kernels are tested against.

use crate::DType;

/// What can go wrong when values are encoded or decoded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum QuantError {
    /// The number of elements does not fill whole blocks.
    #[error("{dtype}: {elements} elements do not fill blocks of {block_len}")]
    PartialBlock {
        /// The element type.
        dtype: DType,
        /// Elements given.
        elements: usize,
        /// Elements per block.
        block_len: usize,
    },
    /// The byte length does not match the number of elements.
    #[error("{dtype}: {elements} elements need {expected} bytes, got {actual}")]
    Length {
        /// The element type.
        dtype: DType,
        /// Elements asked for.
        elements: usize,
        /// Bytes they take.
        expected: usize,
        /// Bytes given.
        actual: usize,
    },
    /// There is no float meaning (or no encoder) for this type.
    #[error("{dtype} cannot be {action}")]
    Unsupported {
        /// The element type.
        dtype: DType,
        /// `encoded` or `decoded`.
        action: &'static str,
    },
}

/// Decodes `bytes`, stored as `dtype`, into `out` (`out.len()` elements).
///
/// # Errors
/// [`QuantError::PartialBlock`] or [`QuantError::Length`] if the sizes disagree.
pub fn decode(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<(), QuantError> {
    let _ = (dtype, bytes, out);
    Err(QuantError::Unsupported { dtype, action: "decoded" })
}

/// Encodes `values` as `dtype` into `out`.
///
/// # Errors
/// [`QuantError::PartialBlock`] or [`QuantError::Length`] if the sizes disagree; [`QuantError::Unsupported`] without an encoder.
pub fn encode(dtype: DType, values: &[f32], out: &mut [u8]) -> Result<(), QuantError> {
    let _ = (dtype, values, out);
    Err(QuantError::Unsupported { dtype, action: "encoded" })
}
