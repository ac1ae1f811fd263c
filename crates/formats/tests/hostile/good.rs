//! Unusual files that must load.

use crate::support::{Folder, Raw, bounded};
use kun_formats::{ModelFiles, gguf, open, safetensors};
use kun_tensor::DType;
use kun_tensor::storage::Access;
use kun_testkit::gguf_writer::{GgufValue, GgufWriter, type_number};
use kun_testkit::safetensors_writer::{SafetensorsWriter, raw_safetensors, type_name};
use std::io::{Seek, SeekFrom, Write};

#[test]
fn loads_unusual_gguf_shapes() {
    let file = GgufWriter::new()
        .tensor("number", DType::F32, &[], &[1, 2, 3, 4])
        .tensor("none", DType::F32, &[0], &[])
        .tensor("no rows", DType::Q4K, &[0, 256], &[])
        .tensor("no columns", DType::Q8_0, &[3, 0], &[])
        .tensor("vector", DType::F16, &[3], &[0; 6])
        .tensor("four", DType::I8, &[1, 2, 3, 4], &[0; 24])
        .tensor("", DType::I8, &[1], &[7])
        .tensor("\u{1f600}", DType::I8, &[1], &[8])
        .finish();
    let tensors = gguf::parse(&file).unwrap().tensors;
    assert_eq!(tensors["number"].shape, [0usize; 0]);
    assert_eq!(tensors["number"].len, 4);
    assert_eq!((tensors["none"].len, tensors["no rows"].len, tensors["no columns"].len), (0, 0, 0));
    assert_eq!(tensors["no rows"].shape, [0, 256]);
    assert_eq!(tensors["four"].shape, [1, 2, 3, 4]);
    assert_eq!(file[tensors[""].offset as usize], 7);
    assert_eq!(file[tensors["\u{1f600}"].offset as usize], 8);
}

#[test]
fn loads_every_alignment_and_version() {
    for alignment in [1, 2, 8, 16, 64, 4096, 1 << 20] {
        for version in [2, 3] {
            let writer = GgufWriter::new().version(version).alignment(alignment);
            let file =
                writer.tensor("a", DType::I8, &[5], b"hello").tensor("b", DType::I8, &[2], b"yo").finish();
            let header = gguf::parse(&file).unwrap();
            assert_eq!(header.version, version);
            for (name, data) in [("a", &b"hello"[..]), ("b", b"yo")] {
                let info = &header.tensors[name];
                assert_eq!(&file[info.offset as usize..][..info.len as usize], data);
            }
        }
    }
}

#[test]
fn loads_files_without_tensors_or_entries() {
    assert!(gguf::parse(&GgufWriter::new().finish()).unwrap().tensors.is_empty());
    let file = GgufWriter::new().entry("", "").entry("empty", &[][..] as &[f32]).finish();
    let header = gguf::parse(&file).unwrap();
    assert_eq!(header.metadata.str("").unwrap(), "");
    assert!(header.metadata.f32s("empty").unwrap().is_empty());
}

#[test]
fn loads_gaps_trailing_bytes_and_any_order() {
    // `b` lies before `a`, 32 bytes apart, and 100 bytes follow.
    let raw = Raw::gguf(2, 0).text("a").dimensions(&[1]).u32(24).u64(96);
    let mut file = raw.text("b").dimensions(&[1]).u32(24).u64(32).0;
    file.resize(file.len().next_multiple_of(32) + 97 + 100, 0);
    assert_eq!(gguf::parse(&file).unwrap().tensors.len(), 2);
}

#[test]
fn loads_every_tensor_type_of_both_formats() {
    for dtype in DType::ALL {
        let data = vec![1; 2 * dtype.block_bytes()];
        if type_number(dtype).is_some() {
            let file = GgufWriter::new().tensor("t", dtype, &[2, dtype.block_len()], &data).finish();
            let info = &gguf::parse(&file).unwrap().tensors["t"];
            assert_eq!((info.dtype, info.len), (dtype, data.len() as u64));
        }
        if type_name(dtype).is_some() {
            let file = SafetensorsWriter::new().tensor("t", dtype, &[2, 1], &data).finish();
            let info = &safetensors::parse(&file).unwrap()["t"];
            assert_eq!((info.dtype, info.len), (dtype, data.len() as u64));
        }
    }
}

#[test]
fn reads_every_value_type_and_checks_what_is_asked() {
    let nested =
        GgufValue::Array(9, vec![GgufValue::Array(4, vec![GgufValue::U32(1)]), GgufValue::Array(8, vec![])]);
    let file = GgufWriter::new()
        .entry("i8", GgufValue::I8(-1))
        .entry("u8", GgufValue::U8(255))
        .entry("i16", GgufValue::I16(-2))
        .entry("u16", GgufValue::U16(65535))
        .entry("i32", GgufValue::I32(7))
        .entry("i64", GgufValue::I64(i64::MIN))
        .entry("u64", GgufValue::U64(u64::MAX))
        .entry("f64", GgufValue::F64(0.5))
        .entry("bool", true)
        .entry("counts", GgufValue::Array(10, vec![GgufValue::U64(3), GgufValue::U64(4)]))
        .entry("signs", GgufValue::Array(1, vec![GgufValue::I8(-3)]))
        .entry("bools", GgufValue::Array(7, vec![GgufValue::Bool(true), GgufValue::Bool(false)]))
        .entry("nested", nested)
        .finish();
    let meta = gguf::parse(&file).unwrap().metadata;
    assert_eq!(
        (meta.u32("u8").unwrap(), meta.u64("u16").unwrap(), meta.u32("i32").unwrap()),
        (255, 65535, 7)
    );
    assert_eq!(
        (meta.u64("u64").unwrap(), meta.f32("f64").unwrap(), meta.bool("bool").unwrap()),
        (u64::MAX, 0.5, true)
    );
    assert_eq!((meta.u32s("counts").unwrap()[..].to_vec(), meta.i32s("signs").unwrap()[0]), (vec![3, 4], -3));
    assert_eq!(meta.get("nested").unwrap().kind(), "array of 2 array");
    assert_eq!(meta.get("bools").unwrap().kind(), "array of 2 bool");
    for (key, says) in [
        ("i8", "`i8` is -1, beyond u32"),
        ("u64", "`u64` is 18446744073709551615, beyond u32"),
        ("i64", "`i64` is -9223372036854775808, beyond u32"),
        ("f64", "`f64` is f64, expected u32"),
        ("counts", "`counts` is array of 2 u64, expected u32"),
        ("none", "`none` is missing"),
    ] {
        assert_eq!(meta.u32(key).unwrap_err().to_string(), says);
    }
    assert_eq!(meta.u32s("signs").unwrap_err().to_string(), "`signs` is -3, beyond u32");
    assert_eq!(
        meta.strings("counts").unwrap_err().to_string(),
        "`counts` is array of 2 u64, expected array of string"
    );
    assert_eq!(meta.bool("u8").unwrap_err().to_string(), "`u8` is u8, expected bool");
    assert_eq!(meta.optional_str("none").unwrap(), None);
}

#[test]
fn loads_unusual_safetensors() {
    assert!(safetensors::parse(&raw_safetensors("{}", &[])).unwrap().is_empty());
    assert!(safetensors::parse(&raw_safetensors("{}     ", &[])).unwrap().is_empty());
    let file = SafetensorsWriter::new()
        .metadata("format", "pt\"\n")
        .tensor("number", DType::F32, &[], &[0; 4])
        .tensor("none", DType::F32, &[0, 7], &[])
        .tensor("b", DType::Bool, &[3], &[0, 1, 0])
        .tensor("", DType::I64, &[1, 1, 1, 1, 1, 1, 1, 1], &[0; 8])
        .finish();
    let tensors = safetensors::parse(&file).unwrap();
    assert_eq!(tensors.len(), 4);
    assert_eq!(tensors["number"].shape, [0usize; 0]);
    assert_eq!((tensors["none"].len, tensors["b"].len), (0, 3));
    let (b, last) = (&tensors["b"], &tensors[""]);
    assert_eq!(b.offset + b.len, last.offset);
}

#[test]
fn loads_a_sharded_folder() {
    let first = SafetensorsWriter::new().tensor("a", DType::F32, &[1], &[1; 4]).finish();
    let second = SafetensorsWriter::new().tensor("b", DType::F32, &[1], &[2; 4]).finish();
    let index = br#"{"metadata":{"total_size":8},"weight_map":{"b":"z.safetensors","a":"y.safetensors"}}"#;
    let folder = Folder::with(&[
        ("config.json", b"{\"hidden_size\": 64, \"rope_scaling\": {\"factor\": 2}, \"x\": null}"),
        ("model.safetensors.index.json", index),
        ("y.safetensors", &first),
        ("z.safetensors", &second),
    ]);
    for access in [Access::Mapped, Access::Read] {
        let Ok(ModelFiles::HuggingFace { config, tensors }) = open(folder.root(), access) else {
            panic!("a sharded folder")
        };
        assert_eq!(config.u32("hidden_size").unwrap(), 64);
        assert_eq!(config.f32("rope_scaling.factor").unwrap(), 2.0);
        assert_eq!(config.optional_bool("x").unwrap(), None);
        assert_eq!(
            config.u32("rope_scaling").unwrap_err().to_string(),
            "`rope_scaling` is an object of 1, expected u32"
        );
        for (name, byte) in [("a", 1), ("b", 2)] {
            let info = tensors.get(name).unwrap();
            assert_eq!(tensors.bytes(info, 0..4).unwrap()[..], [byte; 4]);
            assert_eq!(tensors.bytes(info, 2..99).unwrap()[..], [byte; 2]);
            assert!(tensors.bytes(info, 5..9).is_err());
        }
    }
}

#[test]
fn loads_data_beyond_4_gib() {
    let folder = Folder::new();
    let path = folder.path("large.gguf");
    let raw = Raw::gguf(1, 0).text("far").dimensions(&[4]).u32(24).u64(5 << 30);
    let start = raw.0.len().next_multiple_of(32) as u64;
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(&raw.0).unwrap();
    file.seek(SeekFrom::Start(start + (5 << 30))).unwrap();
    file.write_all(b"here").unwrap();
    drop(file);
    for access in [Access::Mapped, Access::Read] {
        let Ok(ModelFiles::Gguf(gguf)) = open(&path, access) else { panic!("a large file") };
        let info = gguf.tensors.get("far").unwrap();
        assert_eq!(gguf.tensors.bytes(info, 0..4).unwrap()[..], *b"here");
        gguf.tensors.release(info);
    }
}

#[test]
fn says_when_a_file_has_become_shorter() {
    let bytes = GgufWriter::new().tensor("t", DType::I8, &[4096], &[1; 4096]).finish();
    let folder = Folder::with(&[("m.gguf", &bytes)]);
    for access in [Access::Mapped, Access::Read] {
        std::fs::write(folder.path("m.gguf"), &bytes).unwrap();
        let Ok(ModelFiles::Gguf(gguf)) = open(&folder.path("m.gguf"), access) else { panic!("a small file") };
        std::fs::OpenOptions::new().write(true).open(folder.path("m.gguf")).unwrap().set_len(100).unwrap();
        let info = gguf.tensors.get("t").unwrap();
        let text = gguf.tensors.bytes(info, 0..4096).unwrap_err().chain();
        assert!(text.contains("cannot read") && text.contains("of a file of 100 bytes"), "{text}");
    }
}

#[test]
fn takes_little_memory_for_the_smallest_items() {
    let key = |raw: Raw, n: u64| raw.u64(3).bytes(&n.to_le_bytes().map(|b| b & 0x7f)[..3]);
    let spread = |n: u64| (n & 0x7f) | (n >> 7 & 0x7f) << 8 | (n >> 14) << 16;
    let mut entries = Raw::gguf(0, 1 << 16);
    let mut maps = Raw::gguf(0, 1 << 16);
    for n in 0..1 << 16 {
        entries = key(entries, spread(n)).u32(0).u8(1);
        maps = key(maps, spread(n)).u32(9).u32(9).u64(0);
    }
    let mut tensors = Raw::gguf(1 << 18, 0);
    for n in 0..1 << 18 {
        tensors = key(tensors, spread(n)).u32(1).u64(0).u32(24).u64(0);
    }
    let strings = Raw::entry("k", 9).u32(8).u64(2_000_000).zeros(16_000_000);
    let empty = Raw::entry("k", 9).u32(9).u64(1_000_000).zeros(12_000_000);
    let letters = (0..1_000_000).fold(Raw::entry("k", 9).u32(8).u64(1_000_000), |raw, _| raw.text("x"));
    for (name, file) in [
        ("entries", entries),
        ("empty arrays by key", maps),
        ("tensors", tensors),
        ("empty strings", strings),
        ("empty arrays", empty),
        ("short strings", letters),
    ] {
        let outcome = bounded(name, file.0.len(), || gguf::parse(&file.0).map(drop));
        outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
