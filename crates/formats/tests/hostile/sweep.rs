//! Every truncation, every flipped bit and every forged number of small valid files: `Ok` or a typed error, always
//! within the memory bound.

use crate::support::bounded;
use kun_formats::{FormatError, gguf, safetensors};
use kun_tensor::DType;
use kun_testkit::gguf_writer::{GgufValue, GgufWriter};
use kun_testkit::safetensors_writer::SafetensorsWriter;

/// A file with every value type; gives its header's length too.
fn gguf_file() -> (Vec<u8>, usize) {
    let writer = GgufWriter::new()
        .alignment(8)
        .entry("u8", GgufValue::U8(1))
        .entry("i16", GgufValue::I16(-1))
        .entry("bool", true)
        .entry("f32", 1.5f32)
        .entry("f64", GgufValue::F64(2.5))
        .entry("u64", GgufValue::U64(1 << 40))
        .entry("text", "caf\u{e9}")
        .entry("strings", &["a", "", "ccc"][..])
        .entry("floats", &[1.0f32, 2.0][..])
        .entry("bools", GgufValue::Array(7, vec![GgufValue::Bool(true); 3]))
        .entry("nested", GgufValue::Array(9, vec![GgufValue::Array(8, vec!["x".into()]); 2]))
        .tensor("a", DType::F32, &[2, 3], &[0; 24])
        .tensor("b", DType::Q8_0, &[2, 32], &[0; 68])
        .tensor("c", DType::I8, &[], &[9]);
    (writer.finish(), writer.header().len())
}

/// A file with metadata and three tensors; gives its header's length too.
fn safetensors_file() -> (Vec<u8>, usize) {
    let file = SafetensorsWriter::new()
        .metadata("format", "pt")
        .tensor("a", DType::F32, &[2, 3], &[0; 24])
        .tensor("b.weight", DType::BF16, &[5], &[0; 10])
        .tensor("c", DType::I8, &[], &[9])
        .finish();
    let header = file.len() - 35;
    (file, header)
}

fn is_typed<T>(what: &str, file: &[u8], parse: fn(&[u8]) -> Result<T, FormatError>) -> bool {
    match bounded(what, file.len(), || parse(file).map(drop)) {
        Ok(()) => true,
        Err(error) => {
            assert!(!error.chain().is_empty(), "{what}");
            false
        }
    }
}

fn sweep<T>((file, header): (Vec<u8>, usize), parse: fn(&[u8]) -> Result<T, FormatError>) {
    assert!(is_typed("the file itself", &file, parse));
    for length in 0..file.len() {
        assert!(!is_typed("truncated", &file[..length], parse), "a file cut to {length} bytes was read");
    }
    for bit in 0..header * 8 {
        let mut bytes = file.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        is_typed("one bit flipped", &bytes, parse);
    }
    let length = file.len() as u64;
    let numbers =
        [0, 1, u64::MAX, u64::MAX - 1, 1 << 31, 1 << 32, 1 << 63, length, length - 1, length + 1, 1 << 26];
    for number in numbers {
        for width in [1, 2, 4, 8] {
            for place in 0..header.saturating_sub(width) {
                let mut bytes = file.clone();
                bytes[place..place + width].copy_from_slice(&number.to_le_bytes()[..width]);
                is_typed("a number forged", &bytes, parse);
            }
        }
    }
}

#[test]
fn sweeps_a_gguf_header() {
    sweep(gguf_file(), gguf::parse);
}

#[test]
fn sweeps_a_safetensors_header() {
    sweep(safetensors_file(), safetensors::parse);
}
