//! Plain encode and decode of every stored element type: the definition that fast kernels are tested against.
//!
//! One module per block format, with the places of its parts as constants. Blocks are little-endian.

pub mod fit;
pub mod iq4_nl;
pub mod iq4_xs;
pub mod plain;
pub mod q2_k;
pub mod q3_k;
pub mod q4_0;
pub mod q4_1;
pub mod q4_k;
pub mod q5_0;
pub mod q5_1;
pub mod q5_k;
pub mod q6_k;
pub mod q8_0;

use crate::DType;
use half::f16;

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
/// Integers beyond 2^24 and f64 values are rounded to the nearest f32.
///
/// # Errors
/// [`QuantError::PartialBlock`] or [`QuantError::Length`] if the sizes disagree; [`QuantError::Unsupported`] for
/// [`DType::Bool`] and [`DType::Text`].
pub fn decode(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<(), QuantError> {
    check(dtype, out.len(), bytes.len())?;
    match dtype {
        DType::F64 => plain::decode(bytes, out, |b| f64::from_le_bytes(b) as f32),
        DType::F32 => plain::decode(bytes, out, f32::from_le_bytes),
        DType::F16 => plain::decode(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
        DType::BF16 => plain::decode(bytes, out, plain::bf16_to_f32),
        DType::I64 => plain::decode(bytes, out, |b| i64::from_le_bytes(b) as f32),
        DType::I32 => plain::decode(bytes, out, |b| i32::from_le_bytes(b) as f32),
        DType::I16 => plain::decode(bytes, out, |b| f32::from(i16::from_le_bytes(b))),
        DType::I8 => plain::decode(bytes, out, |b| f32::from(i8::from_le_bytes(b))),
        DType::U64 => plain::decode(bytes, out, |b| u64::from_le_bytes(b) as f32),
        DType::U32 => plain::decode(bytes, out, |b| u32::from_le_bytes(b) as f32),
        DType::U16 => plain::decode(bytes, out, |b| f32::from(u16::from_le_bytes(b))),
        DType::U8 => plain::decode(bytes, out, |[b]: [u8; 1]| f32::from(b)),
        DType::F8E4M3
        | DType::F8E4M3Uz
        | DType::F8E5M2
        | DType::F8E5M2Uz
        | DType::F8E8M0
        | DType::F4E2M1
        | DType::I4
        | DType::U4
        | DType::I2
        | DType::U2 => plain::decode(bytes, out, |[b]: [u8; 1]| crate::narrow::decode(dtype, b)),
        DType::Bool | DType::Text => return Err(QuantError::Unsupported { dtype, action: "decoded" }),
        DType::Q4_0 => decode_blocks(bytes, out, q4_0::decode),
        DType::Q4_1 => decode_blocks(bytes, out, q4_1::decode),
        DType::Q5_0 => decode_blocks(bytes, out, q5_0::decode),
        DType::Q5_1 => decode_blocks(bytes, out, q5_1::decode),
        DType::Q8_0 => decode_blocks(bytes, out, q8_0::decode),
        DType::Q2K => decode_blocks(bytes, out, q2_k::decode),
        DType::Q3K => decode_blocks(bytes, out, q3_k::decode),
        DType::Q4K => decode_blocks(bytes, out, q4_k::decode),
        DType::Q5K => decode_blocks(bytes, out, q5_k::decode),
        DType::Q6K => decode_blocks(bytes, out, q6_k::decode),
        DType::Iq4Nl => decode_blocks(bytes, out, iq4_nl::decode),
        DType::Iq4Xs => decode_blocks(bytes, out, iq4_xs::decode),
    }
    Ok(())
}

/// Encodes `values` as `dtype` into `out`.
///
/// Block formats choose scales that keep the squared error small; values that are not finite spoil their block only.
///
/// # Errors
/// [`QuantError::PartialBlock`] or [`QuantError::Length`] if the sizes disagree; [`QuantError::Unsupported`] for
/// integers of 8 bits or more, [`DType::Bool`] and [`DType::Text`].
pub fn encode(dtype: DType, values: &[f32], out: &mut [u8]) -> Result<(), QuantError> {
    check(dtype, values.len(), out.len())?;
    match dtype {
        DType::F64 => plain::encode(values, out, |x| f64::from(x).to_le_bytes()),
        DType::F32 => plain::encode(values, out, f32::to_le_bytes),
        DType::F16 => plain::encode(values, out, |x| f16::from_f32(x).to_le_bytes()),
        DType::BF16 => plain::encode(values, out, plain::f32_to_bf16),
        DType::F8E4M3
        | DType::F8E4M3Uz
        | DType::F8E5M2
        | DType::F8E5M2Uz
        | DType::F8E8M0
        | DType::F4E2M1
        | DType::I4
        | DType::U4
        | DType::I2
        | DType::U2 => plain::encode(values, out, |x| [crate::narrow::encode(dtype, x, true)]),
        DType::I64
        | DType::I32
        | DType::I16
        | DType::I8
        | DType::U64
        | DType::U32
        | DType::U16
        | DType::U8 => {
            return Err(QuantError::Unsupported { dtype, action: "encoded" });
        }
        DType::Bool | DType::Text => {
            return Err(QuantError::Unsupported { dtype, action: "encoded" });
        }
        DType::Q4_0 => encode_blocks(values, out, q4_0::encode),
        DType::Q4_1 => encode_blocks(values, out, q4_1::encode),
        DType::Q5_0 => encode_blocks(values, out, q5_0::encode),
        DType::Q5_1 => encode_blocks(values, out, q5_1::encode),
        DType::Q8_0 => encode_blocks(values, out, q8_0::encode),
        DType::Q2K => encode_blocks(values, out, q2_k::encode),
        DType::Q3K => encode_blocks(values, out, q3_k::encode),
        DType::Q4K => encode_blocks(values, out, q4_k::encode),
        DType::Q5K => encode_blocks(values, out, q5_k::encode),
        DType::Q6K => encode_blocks(values, out, q6_k::encode),
        DType::Iq4Nl => encode_blocks(values, out, iq4_nl::encode),
        DType::Iq4Xs => encode_blocks(values, out, iq4_xs::encode),
    }
    Ok(())
}

fn check(dtype: DType, elements: usize, actual: usize) -> Result<(), QuantError> {
    let Some(expected) = dtype.bytes_for(elements) else {
        return Err(QuantError::PartialBlock { dtype, elements, block_len: dtype.block_len() });
    };
    if expected != actual {
        return Err(QuantError::Length { dtype, elements, expected, actual });
    }
    Ok(())
}

fn decode_blocks<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode: fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    for (block, out) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        decode(block, out);
    }
}

fn encode_blocks<const BYTES: usize, const LEN: usize>(
    values: &[f32],
    out: &mut [u8],
    encode: fn(&[f32; LEN], &mut [u8; BYTES]),
) {
    for (values, block) in values.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        encode(values, block);
    }
}

/// The f16 at byte `at` of a block.
fn read_f16(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Writes `x` as f16 at byte `at` of a block and returns what was stored.
fn write_f16(block: &mut [u8], at: usize, x: f32) -> f32 {
    let stored = f16::from_f32(x);
    block[at..at + 2].copy_from_slice(&stored.to_le_bytes());
    stored.to_f32()
}

#[cfg(test)]
mod tests;
