//! Any bytes as a GGUF file; what is read is asked for in every type.
#![no_main]

use kun_formats::gguf;
use kun_fuzz::bounded;

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    bounded(file.len(), || {
        let header = match gguf::parse(file) {
            Ok(header) => header,
            Err(error) => {
                assert!(!error.chain().is_empty());
                return;
            }
        };
        let meta = &header.metadata;
        for (key, value) in &meta.entries {
            assert!(!value.kind().is_empty());
            let _ = (meta.u32(key), meta.u64(key), meta.f32(key), meta.bool(key), meta.str(key));
            let _ = (meta.strings(key), meta.f32s(key));
            let _ = meta.i32s(key);
            let _ = meta.u32s(key);
        }
        let length = file.len() as u64;
        for (name, info) in &header.tensors {
            assert!(info.offset.checked_add(info.len).is_some_and(|end| end <= length), "{name:?}");
            let elements = info.shape.iter().product();
            assert_eq!(info.dtype.bytes_for(elements).map(|bytes| bytes as u64), Some(info.len), "{name:?}");
        }
    });
});
