//! From numbers to small integers and floats and back.

use super::{f64s, from_f32, from_f64, tensor};
use crate::ops::Quantize;
use crate::ops::fact::axis;
use kun_tensor::{DType, Elements, Tensor, narrow};

/// The range of an integer type.
pub(crate) fn range(dtype: DType) -> Option<(f64, f64)> {
    Some(match dtype {
        DType::U8 => (0.0, 255.0),
        DType::I8 => (-128.0, 127.0),
        DType::U16 => (0.0, 65535.0),
        DType::I16 => (-32768.0, 32767.0),
        DType::I32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
        DType::U4 => (0.0, 15.0),
        DType::I4 => (-8.0, 7.0),
        DType::U2 => (0.0, 3.0),
        DType::I2 => (-2.0, 1.0),
        _ => return None,
    })
}

/// `value + zero` as a number that `dtype` holds, halves to even.
pub(crate) fn to_integer(value: f64, zero: f64, dtype: DType) -> f64 {
    let (low, high) = range(dtype).unwrap_or((f64::MIN, f64::MAX));
    (value.round_ties_even() + zero).clamp(low, high)
}

/// By element of `shape`: the index of its scale.
fn scale_indices(quantize: &Quantize, shape: &[usize], scale: &Tensor) -> Result<Vec<usize>, String> {
    let elements: usize = shape.iter().product();
    let scales = scale.elements().len();
    if scales == 1 {
        return Ok(vec![0; elements]);
    }
    let at = axis(quantize.axis, shape.len())?;
    let inner: usize = shape[at + 1..].iter().product();
    let length = shape[at];
    if quantize.block > 0 {
        let blocks = length.div_ceil(quantize.block);
        if scale.shape().len() != shape.len() || scales * length != elements * blocks {
            return Err(format!("scales {:?} in blocks of {} for {shape:?}", scale.shape(), quantize.block));
        }
        return Ok((0..elements)
            .map(|i| (i / inner / length * blocks + i / inner % length / quantize.block) * inner + i % inner)
            .collect());
    }
    if scales != length {
        return Err(format!("{scales} scales along axis {at} of {shape:?}"));
    }
    Ok((0..elements).map(|i| i / inner % length).collect())
}

pub(crate) fn quantize(
    quantize: &Quantize,
    x: &Tensor,
    scale: &Tensor,
    zero: Option<&Tensor>,
) -> Result<Tensor, String> {
    let indices = scale_indices(quantize, x.shape(), scale)?;
    let to = zero.map(Tensor::dtype).or(quantize.dtype).unwrap_or(DType::U8);
    let zeros = zero.map(f64s).transpose()?;
    if zeros.as_ref().is_some_and(|z| z.len() != scale.elements().len()) {
        return Err("as many zero points as scales are needed".into());
    }
    let zero_at = |i: usize| zeros.as_ref().map_or(0.0, |z| z[indices[i]]);
    // The quotient is rounded to the type of the operands, which decides halves.
    let quotients: Vec<f64> = if x.dtype() == DType::F64 {
        let scales = f64s(scale)?;
        f64s(x)?.iter().enumerate().map(|(i, v)| v / scales[indices[i]]).collect()
    } else {
        let scales = super::f32s(scale)?;
        super::f32s(x)?.iter().enumerate().map(|(i, v)| f64::from(v / scales[indices[i]])).collect()
    };
    if range(to).is_none() && to.is_narrow() {
        let codes = quotients
            .iter()
            .enumerate()
            .map(|(i, v)| narrow::encode(to, (v + zero_at(i)) as f32, quantize.saturate));
        return tensor(x.shape(), Elements::Narrow(to, codes.collect()));
    }
    let values = quotients.iter().enumerate().map(|(i, v)| to_integer(*v, zero_at(i), to)).collect();
    from_f64(x.shape(), values, to)
}

pub(crate) fn dequantize(
    quantize: &Quantize,
    x: &Tensor,
    scale: &Tensor,
    zero: Option<&Tensor>,
) -> Result<Tensor, String> {
    let indices = scale_indices(quantize, x.shape(), scale)?;
    let to = quantize.dtype.unwrap_or(scale.dtype());
    let zeros = zero.map(super::f32s).transpose()?;
    if zeros.as_ref().is_some_and(|z| z.len() != scale.elements().len()) {
        return Err("as many zero points as scales are needed".into());
    }
    let scales = super::f32s(scale)?;
    let values = super::f32s(x)?;
    let real =
        values.iter().zip(&indices).map(|(v, &i)| (v - zeros.as_ref().map_or(0.0, |z| z[i])) * scales[i]);
    from_f32(x.shape(), real.collect(), to)
}

pub(crate) fn dynamic(x: &Tensor) -> Result<Vec<Tensor>, String> {
    let values = super::values::<f32>(x)?;
    let low = values.iter().copied().fold(0.0, f32::min);
    let high = values.iter().copied().fold(0.0, f32::max);
    let scale = (high - low) / 255.0;
    let zero = if scale == 0.0 { 0.0 } else { (-low / scale).clamp(0.0, 255.0).round_ties_even() };
    let quantized = values.iter().map(|v| {
        let quotient = if scale == 0.0 { 0.0 } else { v / scale };
        to_integer(f64::from(quotient), f64::from(zero), DType::U8) as u8
    });
    Ok(vec![
        tensor(x.shape(), Elements::U8(quantized.collect()))?,
        Tensor::scalar(scale),
        Tensor::scalar(zero as u8),
    ])
}
