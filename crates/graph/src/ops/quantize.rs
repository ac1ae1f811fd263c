//! From numbers to small integers and floats and back.

use super::TensorOp;
use super::fact::{Fact, Facts, shaped};
use kun_tensor::DType;

/// How scales lie over a tensor, and what comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantize {
    /// The axis of a list of scales, or of blocks.
    pub axis: i64,
    /// Elements of one scale along the axis; 0 for one scale a slice.
    pub block: usize,
    /// Type of the result; that of the zero point (`u8` without one) or of the scale if none.
    pub dtype: Option<DType>,
    /// Whether 8-bit floats stop at their largest number.
    pub saturate: bool,
}

pub(crate) fn infer(op: &TensorOp, x: &Facts<'_>) -> Result<Vec<Fact>, String> {
    let shape = x.shape(0).map(<[usize]>::to_vec);
    Ok(match op {
        TensorOp::QuantizeLinear(quantize) => {
            let zero = if x.has(2) { x.dtype(2) } else { Some(DType::U8) };
            vec![shaped(quantize.dtype.or(zero), shape)]
        }
        TensorOp::DequantizeLinear(quantize) => vec![shaped(quantize.dtype.or(x.dtype(1)), shape)],
        _ => vec![
            shaped(Some(DType::U8), shape),
            shaped(Some(DType::F32), Some(Vec::new())),
            shaped(Some(DType::U8), Some(Vec::new())),
        ],
    })
}
