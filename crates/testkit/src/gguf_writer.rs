//! Writes GGUF files for tests, in the layout of <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use kun_tensor::DType;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum GgufValue {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    /// Elements of one type, which is written even if there are none.
    Array(u32, Vec<GgufValue>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl GgufValue {
    /// The number that the format gives its type.
    pub fn type_number(&self) -> u32 {
        match self {
            GgufValue::U8(_) => 0,
            GgufValue::I8(_) => 1,
            GgufValue::U16(_) => 2,
            GgufValue::I16(_) => 3,
            GgufValue::U32(_) => 4,
            GgufValue::I32(_) => 5,
            GgufValue::F32(_) => 6,
            GgufValue::Bool(_) => 7,
            GgufValue::String(_) => 8,
            GgufValue::Array(..) => 9,
            GgufValue::U64(_) => 10,
            GgufValue::I64(_) => 11,
            GgufValue::F64(_) => 12,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            GgufValue::U8(value) => out.push(*value),
            GgufValue::I8(value) => out.extend(value.to_le_bytes()),
            GgufValue::U16(value) => out.extend(value.to_le_bytes()),
            GgufValue::I16(value) => out.extend(value.to_le_bytes()),
            GgufValue::U32(value) => out.extend(value.to_le_bytes()),
            GgufValue::I32(value) => out.extend(value.to_le_bytes()),
            GgufValue::F32(value) => out.extend(value.to_le_bytes()),
            GgufValue::Bool(value) => out.push(u8::from(*value)),
            GgufValue::String(value) => write_string(out, value),
            GgufValue::Array(element_type, values) => {
                out.extend(element_type.to_le_bytes());
                out.extend((values.len() as u64).to_le_bytes());
                values.iter().for_each(|value| value.write(out));
            }
            GgufValue::U64(value) => out.extend(value.to_le_bytes()),
            GgufValue::I64(value) => out.extend(value.to_le_bytes()),
            GgufValue::F64(value) => out.extend(value.to_le_bytes()),
        }
    }
}

impl From<u32> for GgufValue {
    fn from(value: u32) -> GgufValue {
        GgufValue::U32(value)
    }
}

impl From<f32> for GgufValue {
    fn from(value: f32) -> GgufValue {
        GgufValue::F32(value)
    }
}

impl From<bool> for GgufValue {
    fn from(value: bool) -> GgufValue {
        GgufValue::Bool(value)
    }
}

impl From<&str> for GgufValue {
    fn from(value: &str) -> GgufValue {
        GgufValue::String(value.to_owned())
    }
}

impl From<&[&str]> for GgufValue {
    fn from(values: &[&str]) -> GgufValue {
        GgufValue::Array(8, values.iter().map(|value| GgufValue::from(*value)).collect())
    }
}

impl From<&[f32]> for GgufValue {
    fn from(values: &[f32]) -> GgufValue {
        GgufValue::Array(6, values.iter().map(|value| GgufValue::F32(*value)).collect())
    }
}

impl From<&[i32]> for GgufValue {
    fn from(values: &[i32]) -> GgufValue {
        GgufValue::Array(5, values.iter().map(|value| GgufValue::I32(*value)).collect())
    }
}

struct Tensor {
    name: String,
    type_number: u32,
    shape: Vec<usize>,
    data: Vec<u8>,
}

/// Builds a file: entries and tensors are written in the order in which they were added.
pub struct GgufWriter {
    version: u32,
    alignment: usize,
    entries: Vec<(String, GgufValue)>,
    tensors: Vec<Tensor>,
}

impl Default for GgufWriter {
    fn default() -> GgufWriter {
        GgufWriter::new()
    }
}

impl GgufWriter {
    /// An empty file of version 3.
    pub fn new() -> GgufWriter {
        GgufWriter { version: 3, alignment: 32, entries: Vec::new(), tensors: Vec::new() }
    }

    /// Writes another version number.
    pub fn version(mut self, version: u32) -> GgufWriter {
        self.version = version;
        self
    }

    /// Aligns data to `alignment` bytes and says so in `general.alignment`.
    pub fn alignment(mut self, alignment: u32) -> GgufWriter {
        self.alignment = alignment as usize;
        self.entry("general.alignment", alignment)
    }

    /// Adds a metadata entry.
    pub fn entry(mut self, key: &str, value: impl Into<GgufValue>) -> GgufWriter {
        self.entries.push((key.to_owned(), value.into()));
        self
    }

    /// Adds a tensor; `shape` is outermost first, `data` is written as given.
    ///
    /// # Panics
    /// If the format has no number for `dtype`.
    pub fn tensor(self, name: &str, dtype: DType, shape: &[usize], data: &[u8]) -> GgufWriter {
        self.raw_tensor(name, type_number(dtype).expect("a type that GGUF has"), shape, data)
    }

    /// Adds a tensor with any type number.
    pub fn raw_tensor(mut self, name: &str, type_number: u32, shape: &[usize], data: &[u8]) -> GgufWriter {
        let (name, shape, data) = (name.to_owned(), shape.to_vec(), data.to_vec());
        self.tensors.push(Tensor { name, type_number, shape, data });
        self
    }

    /// Everything before the data, without the padding that follows it.
    pub fn header(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.entries.len() as u64).to_le_bytes());
        for (key, value) in &self.entries {
            write_string(&mut out, key);
            out.extend(value.type_number().to_le_bytes());
            value.write(&mut out);
        }
        let mut offset = 0u64;
        for tensor in &self.tensors {
            write_string(&mut out, &tensor.name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().rev().for_each(|size| out.extend((*size as u64).to_le_bytes()));
            out.extend(tensor.type_number.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += tensor.data.len().next_multiple_of(self.alignment) as u64;
        }
        out
    }

    /// The whole file; data is padded after each tensor but the last.
    pub fn finish(&self) -> Vec<u8> {
        let mut out = self.header();
        for tensor in &self.tensors {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
            out.extend(&tensor.data);
        }
        out
    }
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// The number that the format gives `dtype`, if it has one.
pub fn type_number(dtype: DType) -> Option<u32> {
    Some(match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Q4_0 => 2,
        DType::Q4_1 => 3,
        DType::Q5_0 => 6,
        DType::Q5_1 => 7,
        DType::Q8_0 => 8,
        DType::Q2K => 10,
        DType::Q3K => 11,
        DType::Q4K => 12,
        DType::Q5K => 13,
        DType::Q6K => 14,
        DType::Iq4Nl => 20,
        DType::Iq4Xs => 23,
        DType::I8 => 24,
        DType::I16 => 25,
        DType::I32 => 26,
        DType::I64 => 27,
        DType::F64 => 28,
        DType::BF16 => 30,
        _ => return None,
    })
}
