//! The header of one file: metadata and tensor descriptions.

use super::types::{SUPPORTED, tensor_type};
use super::{Array, Metadata, Value};
use crate::error::{Field, FormatError, shown, shown_bytes};
use crate::reader::{Reader, Source, reserved};
use crate::table::TensorInfo;
use kun_tensor::DType;
use std::collections::BTreeMap;

/// Tensor descriptions by name.
pub(crate) type Tensors = BTreeMap<String, TensorInfo>;

const MAX_ENTRIES: u64 = 1 << 16;
const MAX_TENSORS: u64 = 1 << 18;
const MAX_NAME_BYTES: u64 = 64 << 10;
const MAX_STRING_BYTES: u64 = 16 << 20;
const MAX_ARRAY_ELEMENTS: u64 = 64 << 20;
const MAX_ARRAY_DEPTH: u32 = 64;
const MAX_DIMENSIONS: u32 = 4;
const MAX_ALIGNMENT: u32 = 1 << 20;
const DEFAULT_ALIGNMENT: u32 = 32;

/// Smallest that an entry can be in a file: an empty key, a type, a byte.
const ENTRY_BYTES: u64 = 13;
/// Smallest that a tensor description can be: an empty name, no dimension, type and offset.
const TENSOR_BYTES: u64 = 24;
/// Arrays inside an array are reserved for at most this many: each level could claim all bytes left otherwise.
const NESTED_RESERVE: u64 = 256;

/// What a file says before its data.
#[derive(Debug, PartialEq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// By key.
    pub metadata: Metadata,
    /// By name; every range is checked to lie in the file.
    pub tensors: BTreeMap<String, TensorInfo>,
}

/// Reads the header of a whole file in memory.
///
/// # Errors
/// [`FormatError`] naming field, offset and limit.
pub fn parse(file: &[u8]) -> Result<Header, FormatError> {
    read(file)
}

/// Reads the header of `source`.
pub(crate) fn read<S: Source + ?Sized>(source: &S) -> Result<Header, FormatError> {
    let mut reader = Reader::new(source);
    let magic = reader.take(Field::new("magic"), 4)?;
    if magic != b"GGUF" {
        return Err(FormatError::Magic { found: shown_bytes(magic) });
    }
    let version = reader.u32(Field::new("version"))?;
    match version {
        2 | 3 => {}
        // The low half is zero in the byte order of the other machines only.
        _ if version != 0 && version.trailing_zeros() >= 16 => {
            return Err(FormatError::BigEndian { declared: version });
        }
        _ => return Err(FormatError::Version { declared: version }),
    }
    let tensor_count = count(&mut reader, "tensor_count", MAX_TENSORS, TENSOR_BYTES)?;
    let entry_count = count(&mut reader, "metadata_kv_count", MAX_ENTRIES, ENTRY_BYTES)?;
    let metadata = read_metadata(&mut reader, entry_count)?;
    let alignment = alignment(&metadata)?;
    let mut tensors = Tensors::new();
    for index in 0..tensor_count {
        read_tensor(&mut reader, index, alignment, &mut tensors)?;
    }
    place(&mut tensors, data_start(&reader, alignment), reader.len())?;
    Ok(Header { version, metadata, tensors })
}

/// A count of items that take at least `item_bytes` each of what is left.
fn count<S: Source + ?Sized>(
    reader: &mut Reader<'_, S>,
    name: &str,
    limit: u64,
    item_bytes: u64,
) -> Result<u64, FormatError> {
    let offset = reader.position();
    let declared = reader.u64(Field::new(name))?;
    if declared > limit {
        return Err(FormatError::Limit { field: name.to_owned(), offset, declared, limit });
    }
    reader.require(Field::new(name), declared, item_bytes)?;
    Ok(declared)
}

fn read_metadata<S: Source + ?Sized>(
    reader: &mut Reader<'_, S>,
    entry_count: u64,
) -> Result<Metadata, FormatError> {
    let mut metadata = Metadata::default();
    for index in 0..entry_count {
        let offset = reader.position();
        let key = reader.string(Field::element("metadata key", index), MAX_NAME_BYTES)?;
        if metadata.entries.contains_key(&key) {
            return Err(FormatError::Duplicate { what: "metadata key", name: shown(&key), offset });
        }
        let value = read_value(reader, &key)?;
        metadata.entries.insert(key, value);
    }
    Ok(metadata)
}

fn read_value<S: Source + ?Sized>(reader: &mut Reader<'_, S>, key: &str) -> Result<Value, FormatError> {
    let field = Field::new(key);
    let offset = reader.position();
    Ok(match reader.u32(field)? {
        0 => Value::U8(reader.u8(field)?),
        1 => Value::I8(reader.array(field).map(i8::from_le_bytes)?),
        2 => Value::U16(reader.array(field).map(u16::from_le_bytes)?),
        3 => Value::I16(reader.array(field).map(i16::from_le_bytes)?),
        4 => Value::U32(reader.u32(field)?),
        5 => Value::I32(reader.array(field).map(i32::from_le_bytes)?),
        6 => Value::F32(reader.array(field).map(f32::from_le_bytes)?),
        7 => Value::Bool(read_bool(reader, field)?),
        8 => Value::String(reader.string(field, MAX_STRING_BYTES)?),
        9 => Value::Array(read_array(reader, key, 1)?),
        10 => Value::U64(reader.u64(field)?),
        11 => Value::I64(reader.array(field).map(i64::from_le_bytes)?),
        12 => Value::F64(reader.array(field).map(f64::from_le_bytes)?),
        declared => return Err(FormatError::ValueType { field: field.to_string(), offset, declared }),
    })
}

fn read_bool<S: Source + ?Sized>(reader: &mut Reader<'_, S>, field: Field<'_>) -> Result<bool, FormatError> {
    let offset = reader.position();
    match reader.u8(field)? {
        0 => Ok(false),
        1 => Ok(true),
        declared => Err(FormatError::Bool { field: field.to_string(), offset, declared }),
    }
}

/// An array, `depth` arrays deep counting itself.
fn read_array<S: Source + ?Sized>(
    reader: &mut Reader<'_, S>,
    key: &str,
    depth: u32,
) -> Result<Array, FormatError> {
    let field = Field::new(key);
    let offset = reader.position();
    if depth > MAX_ARRAY_DEPTH {
        let field = field.to_string();
        return Err(FormatError::Depth { field, offset, declared: depth, limit: MAX_ARRAY_DEPTH });
    }
    let element_type = reader.u32(field)?;
    let count_offset = reader.position();
    let declared = reader.u64(field)?;
    if declared > MAX_ARRAY_ELEMENTS {
        let field = field.to_string();
        return Err(FormatError::Limit { field, offset: count_offset, declared, limit: MAX_ARRAY_ELEMENTS });
    }
    Ok(match element_type {
        0 => Array::U8(reader.values(field, declared, u8::from_le_bytes)?),
        1 => Array::I8(reader.values(field, declared, i8::from_le_bytes)?),
        2 => Array::U16(reader.values(field, declared, u16::from_le_bytes)?),
        3 => Array::I16(reader.values(field, declared, i16::from_le_bytes)?),
        4 => Array::U32(reader.values(field, declared, u32::from_le_bytes)?),
        5 => Array::I32(reader.values(field, declared, i32::from_le_bytes)?),
        6 => Array::F32(reader.values(field, declared, f32::from_le_bytes)?),
        7 => {
            reader.require(field, declared, 1)?;
            let mut values = reserved(field, declared)?;
            for index in 0..declared {
                values.push(read_bool(reader, Field::element(key, index))?);
            }
            Array::Bool(values)
        }
        8 => {
            reader.require(field, declared, 8)?;
            let mut values = reserved(field, declared)?;
            for index in 0..declared {
                values.push(reader.string(Field::element(key, index), MAX_STRING_BYTES)?);
            }
            Array::String(values)
        }
        9 => {
            reader.require(field, declared, 12)?;
            let mut values = reserved(field, declared.min(NESTED_RESERVE))?;
            let inner = depth.checked_add(1).expect("the depth is bounded");
            for _ in 0..declared {
                values.push(read_array(reader, key, inner)?);
            }
            Array::Array(values)
        }
        10 => Array::U64(reader.values(field, declared, u64::from_le_bytes)?),
        11 => Array::I64(reader.values(field, declared, i64::from_le_bytes)?),
        12 => Array::F64(reader.values(field, declared, f64::from_le_bytes)?),
        declared => return Err(FormatError::ValueType { field: field.to_string(), offset, declared }),
    })
}

fn alignment(metadata: &Metadata) -> Result<u64, FormatError> {
    let declared = metadata.optional_u32("general.alignment")?.unwrap_or(DEFAULT_ALIGNMENT);
    if !declared.is_power_of_two() || declared > MAX_ALIGNMENT {
        return Err(FormatError::Alignment { declared, limit: MAX_ALIGNMENT });
    }
    Ok(u64::from(declared))
}

/// Where data begins: the next multiple of the alignment.
fn data_start<S: Source + ?Sized>(reader: &Reader<'_, S>, alignment: u64) -> u64 {
    reader
        .position()
        .checked_next_multiple_of(alignment)
        .expect("a position in a file, rounded up by 1 MiB at most")
}

/// Reads one description; its offset still counts from the start of the data.
fn read_tensor<S: Source + ?Sized>(
    reader: &mut Reader<'_, S>,
    index: u64,
    alignment: u64,
    tensors: &mut Tensors,
) -> Result<(), FormatError> {
    let at = reader.position();
    let name = reader.string(Field::element("tensor name", index), MAX_NAME_BYTES)?;
    let dimensions_at = reader.position();
    let dimensions = reader.u32(Field::element("n_dimensions of tensor", index))?;
    if dimensions > MAX_DIMENSIONS {
        return Err(FormatError::Limit {
            field: format!("n_dimensions of {}", shown(&name)),
            offset: dimensions_at,
            declared: u64::from(dimensions),
            limit: u64::from(MAX_DIMENSIONS),
        });
    }
    let field = Field::element("dimensions of tensor", index);
    let mut sizes = reader.values(field, u64::from(dimensions), u64::from_le_bytes)?;
    let number = reader.u32(Field::element("type of tensor", index))?;
    let dtype = tensor_type(number).map_err(|found| FormatError::TensorType {
        name: shown(&name),
        found,
        supported: SUPPORTED,
    })?;
    let offset = reader.u64(Field::element("offset of tensor", index))?;
    let len = data_bytes(&name, dtype, &sizes)?;
    if !offset.is_multiple_of(alignment) {
        return Err(FormatError::Misaligned { name: shown(&name), offset, alignment });
    }
    sizes.reverse();
    let shape = sizes.iter().map(|size| usize::try_from(*size)).collect::<Result<Vec<_>, _>>();
    let shape = shape.map_err(|_| FormatError::ShapeOverflow { name: shown(&name), shape: sizes })?;
    if tensors.contains_key(&name) {
        return Err(FormatError::Duplicate { what: "tensor", name: shown(&name), offset: at });
    }
    tensors.insert(name, TensorInfo { dtype, shape, file: 0, offset, len });
    Ok(())
}

/// Bytes of a tensor whose innermost dimension comes first.
fn data_bytes(name: &str, dtype: DType, sizes: &[u64]) -> Result<u64, FormatError> {
    let block_len = u64::try_from(dtype.block_len()).expect("a small constant");
    let block_bytes = u64::try_from(dtype.block_bytes()).expect("a small constant");
    let row = sizes.first().copied().unwrap_or(1);
    if !row.is_multiple_of(block_len) {
        return Err(FormatError::PartialBlock { name: shown(name), dtype, row, block_len });
    }
    elements(sizes)
        .and_then(|elements| elements.checked_div(block_len)?.checked_mul(block_bytes))
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(|| FormatError::ShapeOverflow { name: shown(name), shape: sizes.to_vec() })
}

/// The product of all sizes that are not zero must stay below 2^63 too, so that no order of multiplying wraps.
pub(crate) fn elements(sizes: &[u64]) -> Option<u64> {
    let bound = sizes
        .iter()
        .filter(|size| **size > 0)
        .try_fold(1u64, |product, size| product.checked_mul(*size))
        .filter(|product| i64::try_from(*product).is_ok())?;
    if sizes.contains(&0) { Some(0) } else { Some(bound) }
}

/// Turns offsets into file positions and checks that data lies in the file and shares no byte.
fn place(tensors: &mut Tensors, start: u64, file_len: u64) -> Result<(), FormatError> {
    let mut ranges = Vec::new();
    ranges.try_reserve_exact(tensors.len()).map_err(|_| FormatError::OutOfMemory {
        field: "tensors".to_owned(),
        needed: u64::try_from(tensors.len()).unwrap_or(u64::MAX),
    })?;
    for (name, info) in tensors.iter_mut() {
        let begin = start.checked_add(info.offset);
        let end = begin.and_then(|begin| begin.checked_add(info.len));
        let Some((begin, end)) = begin.zip(end).filter(|(_, end)| *end <= file_len || info.len == 0) else {
            return Err(FormatError::TensorOutOfBounds {
                name: shown(name),
                end: end.unwrap_or(u64::MAX),
                len: file_len,
            });
        };
        // A tensor without elements may follow the last byte, where padding is no longer written.
        info.offset = begin.min(file_len);
        if info.len > 0 {
            ranges.push((begin, end, name));
        }
    }
    ranges.sort_unstable();
    for ((_, end, other), (offset, _, name)) in ranges.iter().zip(ranges.iter().skip(1)) {
        if offset < end {
            return Err(FormatError::Overlap {
                name: shown(name),
                offset: *offset,
                other: shown(other),
                end: *end,
            });
        }
    }
    Ok(())
}
