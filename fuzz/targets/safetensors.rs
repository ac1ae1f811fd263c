//! Any bytes as a safetensors file; what is read must cover the data exactly.
#![no_main]

use kun_formats::safetensors;
use kun_fuzz::bounded;

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    bounded(file.len(), || match safetensors::parse(file) {
        Err(error) => assert!(!error.chain().is_empty()),
        Ok(tensors) => {
            let header = u64::from_le_bytes(*file.first_chunk().expect("a file that was read has a length"));
            let covered: u64 = tensors.values().map(|info| info.len).sum();
            assert_eq!(8 + header + covered, file.len() as u64);
            for (name, info) in &tensors {
                assert!(info.offset + info.len <= file.len() as u64, "{name:?}");
                let elements = info.shape.iter().product();
                assert_eq!(info.dtype.bytes_for(elements).map(|bytes| bytes as u64), Some(info.len));
            }
        }
    });
});
