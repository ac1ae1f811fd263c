//! The elements of a dense tensor, of any type.

use crate::{DType, narrow};
use half::{bf16, f16};

/// The elements of a [`crate::Tensor`], row-major.
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
    U64(Vec<u64>),
    U32(Vec<u32>),
    U16(Vec<u16>),
    U8(Vec<u8>),
    Bool(Vec<bool>),
    Text(Vec<String>),
    /// A type of which [`DType::is_narrow`] holds, one code a byte: see [`crate::narrow`].
    Narrow(DType, Vec<u8>),
}

/// Types that tensors have as elements, each with its own variant of [`Elements`].
pub trait Element: Clone + PartialEq + std::fmt::Debug + Default + Send + Sync + 'static {
    /// Its name as data.
    const DTYPE: DType;
    /// Elements of this type.
    fn wrap(values: Vec<Self>) -> Elements;
    /// The values, if they are of this type.
    fn of(elements: &Elements) -> Option<&[Self]>;
    /// Takes the values out, if they are of this type.
    ///
    /// # Errors
    /// The elements as they were, if they are of another type.
    fn take(elements: Elements) -> Result<Vec<Self>, Elements>;
}

macro_rules! element {
    ($type:ty, $variant:ident) => {
        impl Element for $type {
            const DTYPE: DType = DType::$variant;
            fn wrap(values: Vec<Self>) -> Elements {
                Elements::$variant(values)
            }
            fn of(elements: &Elements) -> Option<&[Self]> {
                if let Elements::$variant(values) = elements { Some(values) } else { None }
            }
            fn take(elements: Elements) -> Result<Vec<Self>, Elements> {
                if let Elements::$variant(values) = elements { Ok(values) } else { Err(elements) }
            }
        }
    };
}

element!(f64, F64);
element!(f32, F32);
element!(f16, F16);
element!(bf16, BF16);
element!(i64, I64);
element!(i32, I32);
element!(i16, I16);
element!(i8, I8);
element!(u64, U64);
element!(u32, U32);
element!(u16, U16);
element!(u8, U8);
element!(bool, Bool);
element!(String, Text);

/// Evaluates `$body` with `$values` bound to the vector inside `$elements` (codes for narrow types).
#[macro_export]
macro_rules! with_elements {
    ($elements:expr, $values:ident => $body:expr) => {
        match $elements {
            $crate::Elements::F64($values) => $body,
            $crate::Elements::F32($values) => $body,
            $crate::Elements::F16($values) => $body,
            $crate::Elements::BF16($values) => $body,
            $crate::Elements::I64($values) => $body,
            $crate::Elements::I32($values) => $body,
            $crate::Elements::I16($values) => $body,
            $crate::Elements::I8($values) => $body,
            $crate::Elements::U64($values) => $body,
            $crate::Elements::U32($values) => $body,
            $crate::Elements::U16($values) => $body,
            $crate::Elements::U8($values) => $body,
            $crate::Elements::Bool($values) => $body,
            $crate::Elements::Text($values) => $body,
            $crate::Elements::Narrow(_, $values) => $body,
            _ => unreachable!("every variant is listed above"),
        }
    };
}

/// Work on a slice of any element type; see [`Elements::map`].
pub trait SliceMap {
    /// New elements from `values`.
    fn map<T: Clone + Default>(&mut self, values: &[T]) -> Vec<T>;
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
            Elements::U64(v) => v.len(),
            Elements::U32(v) => v.len(),
            Elements::U16(v) => v.len(),
            Elements::U8(v) => v.len(),
            Elements::Bool(v) => v.len(),
            Elements::Text(v) => v.len(),
            Elements::Narrow(_, v) => v.len(),
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
            Elements::U64(_) => DType::U64,
            Elements::U32(_) => DType::U32,
            Elements::U16(_) => DType::U16,
            Elements::U8(_) => DType::U8,
            Elements::Bool(_) => DType::Bool,
            Elements::Text(_) => DType::Text,
            Elements::Narrow(dtype, _) => *dtype,
        }
    }

    /// Elements of the same type, made by `work` whatever that type is: for work that only moves elements.
    pub fn map(&self, work: &mut impl SliceMap) -> Elements {
        match self {
            Elements::F64(v) => Elements::F64(work.map(v)),
            Elements::F32(v) => Elements::F32(work.map(v)),
            Elements::F16(v) => Elements::F16(work.map(v)),
            Elements::BF16(v) => Elements::BF16(work.map(v)),
            Elements::I64(v) => Elements::I64(work.map(v)),
            Elements::I32(v) => Elements::I32(work.map(v)),
            Elements::I16(v) => Elements::I16(work.map(v)),
            Elements::I8(v) => Elements::I8(work.map(v)),
            Elements::U64(v) => Elements::U64(work.map(v)),
            Elements::U32(v) => Elements::U32(work.map(v)),
            Elements::U16(v) => Elements::U16(work.map(v)),
            Elements::U8(v) => Elements::U8(work.map(v)),
            Elements::Bool(v) => Elements::Bool(work.map(v)),
            Elements::Text(v) => Elements::Text(work.map(v)),
            Elements::Narrow(dtype, v) => Elements::Narrow(*dtype, work.map(v)),
        }
    }

    /// `count` elements of type `dtype`, all zero (false, empty); `None` for block-quantised types.
    pub fn zeros(dtype: DType, count: usize) -> Option<Elements> {
        Some(match dtype {
            DType::F64 => Elements::F64(vec![0.0; count]),
            DType::F32 => Elements::F32(vec![0.0; count]),
            DType::F16 => Elements::F16(vec![f16::ZERO; count]),
            DType::BF16 => Elements::BF16(vec![bf16::ZERO; count]),
            DType::I64 => Elements::I64(vec![0; count]),
            DType::I32 => Elements::I32(vec![0; count]),
            DType::I16 => Elements::I16(vec![0; count]),
            DType::I8 => Elements::I8(vec![0; count]),
            DType::U64 => Elements::U64(vec![0; count]),
            DType::U32 => Elements::U32(vec![0; count]),
            DType::U16 => Elements::U16(vec![0; count]),
            DType::U8 => Elements::U8(vec![0; count]),
            DType::Bool => Elements::Bool(vec![false; count]),
            DType::Text => Elements::Text(vec![String::new(); count]),
            narrow if narrow.is_narrow() => Elements::Narrow(dtype, vec![0; count]),
            _ => return None,
        })
    }

    /// Elements from their little-endian bytes, one code a byte for narrow types.
    ///
    /// `None` if the bytes do not make whole elements, or `dtype` is block-quantised or text.
    pub fn from_le_bytes(dtype: DType, bytes: &[u8]) -> Option<Elements> {
        fn read<const N: usize, T>(bytes: &[u8], element: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
            let (chunks, rest) = bytes.as_chunks::<N>();
            rest.is_empty().then(|| chunks.iter().map(|&chunk| element(chunk)).collect())
        }
        Some(match dtype {
            DType::F64 => Elements::F64(read(bytes, f64::from_le_bytes)?),
            DType::F32 => Elements::F32(read(bytes, f32::from_le_bytes)?),
            DType::F16 => Elements::F16(read(bytes, f16::from_le_bytes)?),
            DType::BF16 => Elements::BF16(read(bytes, bf16::from_le_bytes)?),
            DType::I64 => Elements::I64(read(bytes, i64::from_le_bytes)?),
            DType::I32 => Elements::I32(read(bytes, i32::from_le_bytes)?),
            DType::I16 => Elements::I16(read(bytes, i16::from_le_bytes)?),
            DType::I8 => Elements::I8(read(bytes, i8::from_le_bytes)?),
            DType::U64 => Elements::U64(read(bytes, u64::from_le_bytes)?),
            DType::U32 => Elements::U32(read(bytes, u32::from_le_bytes)?),
            DType::U16 => Elements::U16(read(bytes, u16::from_le_bytes)?),
            DType::U8 => Elements::U8(bytes.to_vec()),
            DType::Bool => Elements::Bool(bytes.iter().map(|&b| b != 0).collect()),
            narrow if narrow.is_narrow() => {
                Elements::Narrow(dtype, bytes.iter().map(|&b| b & narrow::mask(dtype)).collect())
            }
            _ => return None,
        })
    }

    /// The little-endian bytes that [`Elements::from_le_bytes`] reads; `None` for text.
    pub fn to_le_bytes(&self) -> Option<Vec<u8>> {
        Some(match self {
            Elements::F64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Elements::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Elements::F16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Elements::BF16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Elements::I64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Elements::I32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Elements::I16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Elements::I8(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Elements::U64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Elements::U32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Elements::U16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Elements::U8(v) => v.clone(),
            Elements::Bool(v) => v.iter().map(|&b| u8::from(b)).collect(),
            Elements::Narrow(_, v) => v.clone(),
            Elements::Text(_) => return None,
        })
    }

    /// Every element as f64 (false 0, true 1; integers beyond 2^53 rounded); `None` for text.
    pub fn to_f64(&self) -> Option<Vec<f64>> {
        Some(match self {
            Elements::F64(v) => v.clone(),
            Elements::F32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Elements::F16(v) => v.iter().map(|x| x.to_f64()).collect(),
            Elements::BF16(v) => v.iter().map(|x| x.to_f64()).collect(),
            Elements::I64(v) => v.iter().map(|&x| x as f64).collect(),
            Elements::I32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Elements::I16(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Elements::I8(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Elements::U64(v) => v.iter().map(|&x| x as f64).collect(),
            Elements::U32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Elements::U16(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Elements::U8(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Elements::Bool(v) => v.iter().map(|&x| f64::from(u8::from(x))).collect(),
            Elements::Narrow(dtype, v) => v.iter().map(|&x| f64::from(narrow::decode(*dtype, x))).collect(),
            Elements::Text(_) => return None,
        })
    }

    /// Every element as f32, rounded to nearest; `None` for text.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        Some(match self {
            Elements::F32(v) => v.clone(),
            Elements::F16(v) => v.iter().map(|x| x.to_f32()).collect(),
            Elements::BF16(v) => v.iter().map(|x| x.to_f32()).collect(),
            Elements::I8(v) => v.iter().map(|&x| f32::from(x)).collect(),
            Elements::U8(v) => v.iter().map(|&x| f32::from(x)).collect(),
            Elements::Narrow(dtype, v) => v.iter().map(|&x| narrow::decode(*dtype, x)).collect(),
            other => other.to_f64()?.into_iter().map(|x| x as f32).collect(),
        })
    }

    /// Every element as i64 (floats cut towards zero and to the range); `None` for text.
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        Some(match self {
            Elements::I64(v) => v.clone(),
            Elements::U64(v) => v.iter().map(|&x| i64::try_from(x).unwrap_or(i64::MAX)).collect(),
            Elements::I32(v) => v.iter().map(|&x| i64::from(x)).collect(),
            other => other.to_f64()?.into_iter().map(|x| x as i64).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_for_every_plain_type() {
        for dtype in DType::ALL.into_iter().filter(|d| !d.is_quantized() && *d != DType::Text) {
            let zeros = Elements::zeros(dtype, 3).unwrap();
            assert_eq!((zeros.dtype(), zeros.len()), (dtype, 3));
            let bytes = zeros.to_le_bytes().unwrap();
            assert_eq!(Some(bytes.len()), dtype.bytes_for(3));
            let ones: Vec<u8> = bytes.iter().map(|_| 1).collect();
            let read = Elements::from_le_bytes(dtype, &ones).unwrap();
            assert_eq!(read.to_le_bytes().unwrap(), ones, "{dtype}");
            assert_eq!(read.to_f64().unwrap().len(), 3);
            assert!(dtype.block_bytes() == 1 || Elements::from_le_bytes(dtype, &ones[1..]).is_none());
        }
        assert_eq!(Elements::zeros(DType::Q4_0, 32), None);
        assert_eq!(Elements::zeros(DType::Text, 1), Some(Elements::Text(vec![String::new()])));
        assert_eq!(Elements::F32(vec![-1.9, f32::NAN, 1e30]).to_i64(), Some(vec![-1, 0, i64::MAX]));
    }
}
