//! The header of one file.

use crate::error::{Field, FormatError, shown, shown_bytes};
use crate::gguf::elements;
use crate::json;
use crate::reader::{Reader, Source};
use crate::table::TensorInfo;
use kun_tensor::DType;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

const MAX_HEADER_BYTES: u64 = 100_000_000;
const MAX_TENSORS: usize = 1 << 18;
const MAX_DIMENSIONS: usize = 8;
const MAX_NAME_BYTES: usize = 64 << 10;
/// Where the header begins, behind its length.
const HEADER_START: u64 = 8;
const SUPPORTED: &str = "F64, F32, F16, BF16, I64, I32, I16, I8, U8, BOOL";

/// Reads the header of a whole file in memory: tensors by name, every range checked to lie in the file.
///
/// # Errors
/// [`FormatError`] naming field, offset and limit.
pub fn parse(file: &[u8]) -> Result<BTreeMap<String, TensorInfo>, FormatError> {
    read(file)
}

/// Reads the header of `source`.
pub(crate) fn read<S: Source + ?Sized>(source: &S) -> Result<BTreeMap<String, TensorInfo>, FormatError> {
    let mut reader = Reader::new(source);
    let declared = reader.u64(Field::new("header length"))?;
    if declared > MAX_HEADER_BYTES {
        let field = "header length".to_owned();
        return Err(FormatError::Limit { field, offset: 0, declared, limit: MAX_HEADER_BYTES });
    }
    let header = reader.take(Field::new("header"), declared)?;
    if header.first() != Some(&b'{') {
        let found = shown_bytes(header.get(..1).unwrap_or_default());
        return Err(FormatError::HeaderStart { found });
    }
    let entries = entries(header)?;
    let data_start = reader.position();
    place(entries, data_start, reader.left())
}

/// One tensor as the header describes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry<'a> {
    #[serde(borrow)]
    dtype: Cow<'a, str>,
    shape: Shape,
    data_offsets: (u64, u64),
}

/// Dimensions, outermost first; the length is checked while reading, so that a long list takes no memory.
struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Shape, D::Error> {
        struct Dimensions;
        impl<'de> Visitor<'de> for Dimensions {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an array of up to {MAX_DIMENSIONS} sizes")
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
                let mut sizes = Vec::new();
                while let Some(size) = seq.next_element()? {
                    if sizes.len() == MAX_DIMENSIONS {
                        return Err(Error::custom(format_args!(
                            "`shape` has more than {MAX_DIMENSIONS} dimensions"
                        )));
                    }
                    sizes.push(size);
                }
                Ok(Shape(sizes))
            }
        }
        deserializer.deserialize_seq(Dimensions)
    }
}

/// A tensor with its type known and its range still counted from the start of the data.
struct Range {
    dtype: DType,
    shape: Vec<u64>,
    begin: u64,
    end: u64,
}

fn entries(header: &[u8]) -> Result<BTreeMap<String, Range>, FormatError> {
    let mut refused = None;
    let mut deserializer = serde_json::Deserializer::from_slice(header);
    let outcome = HeaderSeed { refused: &mut refused }
        .deserialize(&mut deserializer)
        .and_then(|entries| deserializer.end().map(|()| entries));
    outcome.map_err(|source| match refused {
        Some(error) => error,
        None => json::error("header", HEADER_START, header, source),
    })
}

/// Reads the header's object; `refused` takes the typed reason where it is none of JSON's own.
struct HeaderSeed<'a> {
    refused: &'a mut Option<FormatError>,
}

impl HeaderSeed<'_> {
    fn refuse<E: Error>(&mut self, error: FormatError) -> E {
        let text = error.to_string();
        *self.refused = Some(error);
        E::custom(text)
    }
}

impl<'de> DeserializeSeed<'de> for HeaderSeed<'_> {
    type Value = BTreeMap<String, Range>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for HeaderSeed<'_> {
    type Value = BTreeMap<String, Range>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = BTreeMap::new();
        let mut has_metadata = false;
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            if name == "__metadata__" {
                if has_metadata {
                    return Err(self.refuse(duplicate("header key", &name)));
                }
                has_metadata = true;
                if let Some(key) = map.next_value::<Strings>()?.duplicate {
                    return Err(self.refuse(duplicate("metadata key", &key)));
                }
                continue;
            }
            let size = u64::try_from(name.len()).unwrap_or(u64::MAX);
            let limits = [
                ("tensor name", size, u64::try_from(MAX_NAME_BYTES)),
                ("tensors", u64::try_from(entries.len()).unwrap_or(u64::MAX), u64::try_from(MAX_TENSORS)),
            ];
            for (field, declared, limit) in limits {
                let limit = limit.expect("a small constant");
                if declared > limit {
                    let field = format!("{field} `{}`", shown(&name));
                    let error = FormatError::Limit { field, offset: HEADER_START, declared, limit };
                    return Err(self.refuse(error));
                }
            }
            let entry = map.next_value::<Entry<'de>>()?;
            if entries.contains_key(name.as_ref()) {
                return Err(self.refuse(duplicate("tensor", &name)));
            }
            let range = check(&name, entry).map_err(|error| self.refuse::<A::Error>(error))?;
            entries.insert(name.into_owned(), range);
        }
        Ok(entries)
    }
}

fn duplicate(what: &'static str, name: &str) -> FormatError {
    FormatError::Duplicate { what, name: shown(name), offset: HEADER_START }
}

/// An object of strings, of which only a key that comes twice matters.
struct Strings {
    duplicate: Option<String>,
}

impl<'de> Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Strings, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Strings;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strings, A::Error> {
                let (mut keys, mut duplicate) = (BTreeSet::new(), None);
                while let Some((key, _)) = map.next_entry::<Cow<'de, str>, Cow<'de, str>>()? {
                    if let Some(key) = keys.replace(key) {
                        duplicate = Some(key.into_owned());
                    }
                }
                Ok(Strings { duplicate })
            }
        }
        deserializer.deserialize_map(Texts)
    }
}

/// Checks one tensor by itself: type, size, direction.
fn check(name: &str, entry: Entry<'_>) -> Result<Range, FormatError> {
    let dtype = dtype(&entry.dtype).ok_or_else(|| FormatError::TensorType {
        name: shown(name),
        found: shown(&entry.dtype),
        supported: SUPPORTED,
    })?;
    let shape = entry.shape.0;
    let width = u64::try_from(dtype.block_bytes()).expect("a small constant");
    let expected = elements(&shape)
        .and_then(|elements| elements.checked_mul(width))
        .ok_or_else(|| FormatError::ShapeOverflow { name: shown(name), shape: shape.clone() })?;
    let (begin, end) = entry.data_offsets;
    let declared =
        end.checked_sub(begin).ok_or_else(|| FormatError::Reversed { name: shown(name), begin, end })?;
    if declared != expected {
        return Err(FormatError::DataSize { name: shown(name), dtype, declared, expected });
    }
    Ok(Range { dtype, shape, begin, end })
}

fn dtype(name: &str) -> Option<DType> {
    Some(match name {
        "F64" => DType::F64,
        "F32" => DType::F32,
        "F16" => DType::F16,
        "BF16" => DType::BF16,
        "I64" => DType::I64,
        "I32" => DType::I32,
        "I16" => DType::I16,
        "I8" => DType::I8,
        "U8" => DType::U8,
        "BOOL" => DType::Bool,
        _ => return None,
    })
}

/// Checks that the tensors cover the `data_bytes` after `data_start` exactly once.
fn place(
    entries: BTreeMap<String, Range>,
    data_start: u64,
    data_bytes: u64,
) -> Result<BTreeMap<String, TensorInfo>, FormatError> {
    let mut order: Vec<(u64, u64, &str)> =
        entries.iter().map(|(name, range)| (range.begin, range.end, name.as_str())).collect();
    order.sort_unstable();
    let mut expected = 0;
    let mut before = "";
    for (begin, end, name) in order {
        if begin > expected {
            return Err(FormatError::Hole { name: shown(name), offset: begin, expected });
        }
        if begin < expected {
            return Err(FormatError::Overlap {
                name: shown(name),
                offset: begin,
                other: shown(before),
                end: expected,
            });
        }
        if end > data_bytes {
            return Err(FormatError::DataLength { declared: end, actual: data_bytes });
        }
        (expected, before) = (end, name);
    }
    if expected != data_bytes {
        return Err(FormatError::DataLength { declared: expected, actual: data_bytes });
    }
    entries.into_iter().map(|(name, range)| Ok((name.clone(), info(&name, range, data_start)?))).collect()
}

fn info(name: &str, range: Range, data_start: u64) -> Result<TensorInfo, FormatError> {
    let overflow = || FormatError::ShapeOverflow { name: shown(name), shape: range.shape.clone() };
    let shape = range.shape.iter().map(|size| usize::try_from(*size)).collect::<Result<_, _>>();
    Ok(TensorInfo {
        dtype: range.dtype,
        shape: shape.map_err(|_| overflow())?,
        file: 0,
        offset: data_start.checked_add(range.begin).ok_or_else(overflow)?,
        len: range.end.saturating_sub(range.begin),
    })
}
