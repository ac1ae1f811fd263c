//! Writes safetensors files for tests, in the layout of <https://huggingface.co/docs/safetensors>.

use kun_tensor::DType;
use std::fmt::Write;

/// Builds a file: tensors are written in the order in which they were added.
#[derive(Default)]
pub struct SafetensorsWriter {
    entries: Vec<String>,
    data: Vec<u8>,
}

impl SafetensorsWriter {
    /// An empty file.
    pub fn new() -> SafetensorsWriter {
        SafetensorsWriter::default()
    }

    /// Adds a `__metadata__` object with one entry; call it once.
    pub fn metadata(mut self, key: &str, value: &str) -> SafetensorsWriter {
        self.entries.push(format!("\"__metadata__\":{{{}:{}}}", quoted(key), quoted(value)));
        self
    }

    /// Adds a tensor; `shape` is outermost first, `data` is written as given.
    ///
    /// # Panics
    /// If the format has no name for `dtype`.
    pub fn tensor(mut self, name: &str, dtype: DType, shape: &[usize], data: &[u8]) -> SafetensorsWriter {
        let begin = self.data.len();
        self.data.extend(data);
        self.entries.push(format!(
            "{}:{{\"dtype\":\"{}\",\"shape\":{shape:?},\"data_offsets\":[{begin},{}]}}",
            quoted(name),
            type_name(dtype).expect("a type that safetensors has"),
            self.data.len(),
        ));
        self
    }

    /// The whole file, its header padded with spaces to a multiple of 8 bytes.
    pub fn finish(&self) -> Vec<u8> {
        let mut header = format!("{{{}}}", self.entries.join(","));
        while !header.len().is_multiple_of(8) {
            header.push(' ');
        }
        raw_safetensors(&header, &self.data)
    }
}

/// A file of any header and data.
pub fn raw_safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend(data);
    out
}

/// The name that the format gives `dtype`, if it has one.
pub fn type_name(dtype: DType) -> Option<&'static str> {
    Some(match dtype {
        DType::F64 => "F64",
        DType::F32 => "F32",
        DType::F16 => "F16",
        DType::BF16 => "BF16",
        DType::I64 => "I64",
        DType::I32 => "I32",
        DType::I16 => "I16",
        DType::I8 => "I8",
        DType::U8 => "U8",
        DType::Bool => "BOOL",
        _ => return None,
    })
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c < ' ' => write!(out, "\\u{:04x}", u32::from(c)).expect("writing to a string cannot fail"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
