//! NumPy's array files (`.npy`), of numbers and booleans in little-endian order.

use crate::FormatError;
use kun_tensor::{DType, Elements, Tensor};

const MAGIC: &[u8] = b"\x93NUMPY";
/// Longest header that is read.
const MAX_HEADER_BYTES: usize = 64 << 10;

fn fail<T>(what: impl Into<String>) -> Result<T, FormatError> {
    Err(FormatError::Npy { what: what.into() })
}

/// The type of a `descr`; objects and text are refused.
fn dtype(descr: &str) -> Option<DType> {
    Some(match descr {
        "<f8" => DType::F64,
        "<f4" => DType::F32,
        "<f2" => DType::F16,
        "<i8" => DType::I64,
        "<i4" => DType::I32,
        "<i2" => DType::I16,
        "|i1" | "<i1" => DType::I8,
        "<u8" => DType::U64,
        "<u4" => DType::U32,
        "<u2" => DType::U16,
        "|u1" | "<u1" => DType::U8,
        "|b1" => DType::Bool,
        _ => return None,
    })
}

/// The value of a key in the header, a Python dictionary: up to the comma after it, brackets counted.
fn value<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let quoted = format!("'{key}'");
    let (_, after) = header.split_once(quoted.as_str())?;
    let after = after.trim_start().strip_prefix(':')?.trim_start();
    let end = match after.strip_prefix('(') {
        Some(inside) => inside.find(')')?.checked_add(2)?,
        None => after.find([',', '}'])?,
    };
    after.get(..end).map(str::trim)
}

/// Reads a whole array file.
///
/// # Errors
/// [`FormatError::Npy`] if it is none, or holds something else than numbers.
pub fn read(bytes: &[u8]) -> Result<Tensor, FormatError> {
    let Some(rest) = bytes.strip_prefix(MAGIC) else { return fail("it does not begin with `\\x93NUMPY`") };
    let (length, rest) = match rest {
        [1, _, a, b, rest @ ..] => (usize::from(u16::from_le_bytes([*a, *b])), rest),
        [2 | 3, _, a, b, c, d, rest @ ..] => {
            (usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX), rest)
        }
        _ => return fail("its version is not 1, 2 or 3"),
    };
    if length > MAX_HEADER_BYTES {
        return fail(format!("a header of {length} bytes, limit {MAX_HEADER_BYTES}"));
    }
    let (Some(header), Some(data)) = (rest.get(..length), rest.get(length..)) else {
        return fail(format!("a header of {length} bytes, {} are left", rest.len()));
    };
    let Ok(header) = std::str::from_utf8(header) else { return fail("its header is not UTF-8") };
    let descr = value(header, "descr").map(|v| v.trim_matches(['\'', '"']));
    let Some(dtype) = descr.and_then(dtype) else {
        let shown = crate::error::shown(descr.unwrap_or("missing"));
        return fail(format!("`descr` is {shown}: only little-endian numbers and booleans are"));
    };
    let fortran = match value(header, "fortran_order") {
        Some("False") => false,
        Some("True") => true,
        _ => return fail("`fortran_order` is neither True nor False"),
    };
    let list = value(header, "shape").and_then(|v| v.strip_prefix('(')?.strip_suffix(')'));
    let Some(list) = list else { return fail("`shape` is no tuple") };
    let shape: Result<Vec<usize>, _> =
        list.split(',').map(str::trim).filter(|d| !d.is_empty()).map(str::parse).collect();
    let Ok(shape) = shape else { return fail("`shape` is no tuple of counts") };
    let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    if shape.len() > crate::onnx::MAX_RANK || count.and_then(|n| dtype.bytes_for(n)) != Some(data.len()) {
        return fail(format!("{} bytes of data for {dtype} {shape:?}", data.len()));
    }
    let data = if fortran { rows_first(data, &shape, dtype) } else { data.to_vec() };
    let Some(elements) = Elements::from_le_bytes(dtype, &data) else { return fail("its data is cut short") };
    Tensor::new(shape, elements).or_else(|e| fail(e.to_string()))
}

/// Elements in row-major order from column-major ones.
fn rows_first(data: &[u8], shape: &[usize], dtype: DType) -> Vec<u8> {
    let size = dtype.block_bytes();
    let mut out = Vec::with_capacity(data.len());
    let mut index = vec![0usize; shape.len()];
    for _ in 0..data.len().checked_div(size).unwrap_or(0) {
        let mut at = 0usize;
        let mut stride = size;
        for (&i, &dim) in index.iter().zip(shape) {
            at = at.saturating_add(i.saturating_mul(stride));
            stride = stride.saturating_mul(dim);
        }
        out.extend_from_slice(data.get(at..at.saturating_add(size)).unwrap_or_default());
        for (i, &dim) in index.iter_mut().zip(shape).rev() {
            *i = i.saturating_add(1);
            if *i < dim {
                break;
            }
            *i = 0;
        }
    }
    out
}

/// Writes an array file; types that NumPy lacks become f32.
///
/// # Errors
/// [`FormatError::Npy`] for text.
pub fn write(tensor: &Tensor) -> Result<Vec<u8>, FormatError> {
    let descr = match tensor.dtype() {
        DType::F64 => "<f8",
        DType::F32 => "<f4",
        DType::F16 => "<f2",
        DType::I64 => "<i8",
        DType::I32 => "<i4",
        DType::I16 => "<i2",
        DType::I8 => "|i1",
        DType::U64 => "<u8",
        DType::U32 => "<u4",
        DType::U16 => "<u2",
        DType::U8 => "|u1",
        DType::Bool => "|b1",
        _ => {
            let Some(values) = tensor.elements().to_f32() else {
                return fail("text cannot be written as a NumPy array");
            };
            let tensor = Tensor::f32(tensor.shape(), values).or_else(|e| fail(e.to_string()))?;
            return write(&tensor);
        }
    };
    let dims: String = tensor.shape().iter().map(|d| format!("{d}, ")).collect();
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}), }}", dims.trim_end());
    // Data begins at a multiple of 64.
    let before = MAGIC.len().saturating_add(4);
    while before.saturating_add(header.len()).saturating_add(1) & 63 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let Ok(length) = u16::try_from(header.len()) else { return fail("too many dimensions") };
    let mut out = MAGIC.to_vec();
    out.extend([1, 0]);
    out.extend(length.to_le_bytes());
    out.extend(header.as_bytes());
    out.extend(tensor.elements().to_le_bytes().unwrap_or_default());
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_come_back() {
        for dtype in DType::ALL {
            let Some(elements) = Elements::zeros(dtype, 6).filter(|e| !matches!(e, Elements::Text(_))) else {
                continue;
            };
            for shape in [vec![2, 3], vec![6], vec![1, 6, 1]] {
                let tensor = Tensor::new(shape.clone(), elements.clone()).unwrap();
                let read = read(&write(&tensor).unwrap()).unwrap();
                assert_eq!(read.shape(), shape, "{dtype}");
                assert!(read.dtype() == dtype || read.dtype() == DType::F32);
            }
        }
        let scalar = Tensor::scalar(1.5f32);
        assert_eq!(read(&write(&scalar).unwrap()).unwrap(), scalar);
    }

    #[test]
    fn reads_column_major_files_and_refuses_others() {
        let file = |header: &str, data: &[u8]| {
            let mut file = MAGIC.to_vec();
            file.extend([1, 0]);
            file.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
            file.extend(header.as_bytes());
            file.extend(data);
            file
        };
        let header = "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3), }";
        let read_back = read(&file(header, &[0, 3, 1, 4, 2, 5])).unwrap();
        assert_eq!(read_back.values::<u8>(), Some(&[0, 1, 2, 3, 4, 5][..]));
        for header in [
            "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
            "{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4611686018427387904), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
            "{'descr': '<f4', 'shape': (1,), }",
            "{}",
            "",
        ] {
            assert!(read(&file(header, &[0; 4])).is_err(), "{header}");
        }
        let whole = file(header, &[0; 6]);
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err());
        }
    }
}
