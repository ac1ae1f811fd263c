//! Tensors inside ONNX files: their type, shape and bytes.

use super::proto::{SparseTensorProto, TensorProto};
use crate::FormatError;
use crate::error::shown;
use kun_tensor::{DType, Elements, Tensor, narrow};
use std::borrow::Cow;

/// Most dimensions of a tensor.
pub const MAX_RANK: usize = 64;

/// The element type of an ONNX number.
pub fn dtype(number: i32) -> Option<DType> {
    Some(match number {
        1 => DType::F32,
        2 => DType::U8,
        3 => DType::I8,
        4 => DType::U16,
        5 => DType::I16,
        6 => DType::I32,
        7 => DType::I64,
        8 => DType::Text,
        9 => DType::Bool,
        10 => DType::F16,
        11 => DType::F64,
        12 => DType::U32,
        13 => DType::U64,
        16 => DType::BF16,
        17 => DType::F8E4M3,
        18 => DType::F8E4M3Uz,
        19 => DType::F8E5M2,
        20 => DType::F8E5M2Uz,
        21 => DType::U4,
        22 => DType::I4,
        23 => DType::F4E2M1,
        24 => DType::F8E8M0,
        25 => DType::U2,
        26 => DType::I2,
        _ => return None,
    })
}

pub(super) fn fail<T>(tensor: &TensorProto, what: impl Into<String>) -> Result<T, FormatError> {
    Err(FormatError::OnnxTensor { name: shown(&tensor.name), what: what.into() })
}

/// Type and dimensions, checked: not negative, and their product countable in bytes.
pub fn info(tensor: &TensorProto) -> Result<(DType, Vec<usize>), FormatError> {
    let Some(dtype) = dtype(tensor.data_type) else {
        return fail(tensor, format!("element type {} is not supported", tensor.data_type));
    };
    if tensor.dims.len() > MAX_RANK {
        return fail(tensor, format!("{} dimensions, limit {MAX_RANK}", tensor.dims.len()));
    }
    let dims: Option<Vec<usize>> = tensor.dims.iter().map(|&d| usize::try_from(d).ok()).collect();
    let Some(dims) = dims else { return fail(tensor, format!("dimensions {:?}", tensor.dims)) };
    let bytes = dims.iter().try_fold(8usize, |n, &d| n.checked_mul(d));
    if bytes.is_none_or(|bytes| isize::try_from(bytes).is_err()) {
        return fail(tensor, format!("the product of the dimensions {:?} is too large", tensor.dims));
    }
    Ok((dtype, dims))
}

/// Elements of dimensions that [`info`] checked.
fn count(dims: &[usize]) -> usize {
    dims.iter().product()
}

/// One code a byte from packed ones, the lowest bits first.
fn unpack(dtype: DType, packed: &[u8], elements: usize) -> Vec<u8> {
    let bits = narrow::bits(dtype);
    let mask = narrow::mask(dtype);
    let all = packed.iter().flat_map(|&byte| (0..8).step_by(bits).map(move |shift| (byte >> shift) & mask));
    all.take(elements).collect()
}

/// Bytes that `elements` elements take in `raw_data` and external files.
pub(super) fn stored_bytes(dtype: DType, elements: usize) -> Option<usize> {
    match dtype.is_narrow() {
        true => Some(elements.checked_mul(narrow::bits(dtype))?.div_ceil(8)),
        false => dtype.bytes_for(elements),
    }
}

/// The bytes that [`Elements::from_le_bytes`] reads, from `stored` ones as files hold them.
pub(super) fn from_stored<'a>(
    tensor: &TensorProto,
    stored: Cow<'a, [u8]>,
) -> Result<Cow<'a, [u8]>, FormatError> {
    let (dtype, dims) = info(tensor)?;
    let elements = count(&dims);
    if stored_bytes(dtype, elements) != Some(stored.len()) {
        return fail(tensor, format!("{} bytes for {dtype} {dims:?}", stored.len()));
    }
    if narrow::bits(dtype) < 8 && dtype.is_narrow() {
        return Ok(Cow::Owned(unpack(dtype, &stored, elements)));
    }
    Ok(stored)
}

/// The same from the typed fields.
pub(super) fn from_fields(tensor: &TensorProto) -> Result<Vec<u8>, FormatError> {
    let (dtype, dims) = info(tensor)?;
    let elements = count(&dims);
    let low = |bytes: usize| -> Vec<u8> {
        tensor.int32_data.iter().flat_map(|v| v.to_le_bytes().into_iter().take(bytes)).collect()
    };
    let bytes: Vec<u8> = match dtype {
        DType::F32 => tensor.float_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::F64 => tensor.double_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::I64 => tensor.int64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::U64 => tensor.uint64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::U32 => tensor.uint64_data.iter().flat_map(|v| v.to_le_bytes().into_iter().take(4)).collect(),
        DType::I32 => low(4),
        DType::F16 | DType::BF16 | DType::I16 | DType::U16 => low(2),
        _ => low(1),
    };
    if stored_bytes(dtype, elements) != Some(bytes.len()) {
        return fail(tensor, format!("{} bytes in its fields for {dtype} {dims:?}", bytes.len()));
    }
    if narrow::bits(dtype) < 8 && dtype.is_narrow() {
        return Ok(unpack(dtype, &bytes, elements));
    }
    Ok(bytes)
}

/// The tensor, from bytes that [`Elements::from_le_bytes`] reads.
pub(super) fn from_bytes(tensor: &TensorProto, bytes: &[u8]) -> Result<Tensor, FormatError> {
    let (dtype, dims) = info(tensor)?;
    let Some(elements) = Elements::from_le_bytes(dtype, bytes) else {
        return fail(tensor, format!("{} bytes of {dtype}", bytes.len()));
    };
    Tensor::new(dims, elements).or_else(|e| fail(tensor, e.to_string()))
}

/// A tensor of text.
pub(super) fn text(tensor: &TensorProto) -> Result<Tensor, FormatError> {
    let (_, dims) = info(tensor)?;
    let mut texts = Vec::new();
    for bytes in &tensor.string_data {
        match std::str::from_utf8(bytes) {
            Ok(text) => texts.push(text.to_owned()),
            Err(e) => return fail(tensor, format!("text {} is not UTF-8: {e}", texts.len())),
        }
    }
    Tensor::new(dims, Elements::Text(texts)).or_else(|e| fail(tensor, e.to_string()))
}

/// The dense form of a sparse tensor with values `values` at `indices`, which count elements or are one per dimension.
pub(super) fn dense(
    sparse: &SparseTensorProto,
    values: &Tensor,
    indices: &Tensor,
) -> Result<Tensor, FormatError> {
    let whole = TensorProto {
        dims: sparse.dims.clone(),
        data_type: sparse.values.as_ref().map_or(0, |v| v.data_type),
        ..TensorProto::default()
    };
    let (dtype, dims) = info(&whole)?;
    let elements = count(&dims);
    let (Some(places), Some(from)) = (indices.as_i64(), values.elements().to_le_bytes()) else {
        return fail(&whole, "indices must be i64, values numbers");
    };
    let size = dtype.block_bytes();
    // A dense tensor far larger than what the file holds of it would be an amplifier.
    if elements > (64usize << 20).max(values.elements().len().saturating_mul(1000)) {
        return fail(&whole, format!("a sparse tensor of {elements} elements"));
    }
    let Some(total) = elements.checked_mul(size) else { return fail(&whole, "too large") };
    let mut bytes = vec![0u8; total];
    let rank = if indices.shape().len() == 2 { dims.len() } else { 1 };
    let flat = [elements];
    let limits = if rank == 1 { &flat[..] } else { &dims[..] };
    for (value, place) in from.chunks_exact(size.max(1)).zip(places.chunks_exact(rank.max(1))) {
        let mut at = Some(0usize);
        for (&index, &dim) in place.iter().zip(limits) {
            let index = usize::try_from(index).ok().filter(|&i| i < dim);
            at = at.and_then(|at| at.checked_mul(dim)?.checked_add(index?));
        }
        let start = at.and_then(|at| at.checked_mul(size));
        let target = start.and_then(|s| bytes.get_mut(s..s.checked_add(size)?));
        match target {
            Some(target) => target.copy_from_slice(value),
            None => return fail(&whole, format!("index {place:?} of {dims:?}")),
        }
    }
    from_bytes(&whole, &bytes)
}
