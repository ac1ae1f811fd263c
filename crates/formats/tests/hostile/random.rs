//! Random files: anything gives `Ok` or `Err`, and what the writer wrote is what the reader reads.

use crate::support::{Raw, bounded};
use kun_formats::gguf::{Array, Value, parse};
use kun_formats::safetensors;
use kun_testkit::gguf_writer::{GgufValue, GgufWriter};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

/// A value of any type, arrays included, with what must be read for it.
fn value() -> impl Strategy<Value = (GgufValue, Value)> {
    prop_oneof![
        any::<u8>().prop_map(|v| (GgufValue::U8(v), Value::U8(v))),
        any::<i8>().prop_map(|v| (GgufValue::I8(v), Value::I8(v))),
        any::<u16>().prop_map(|v| (GgufValue::U16(v), Value::U16(v))),
        any::<i16>().prop_map(|v| (GgufValue::I16(v), Value::I16(v))),
        any::<u32>().prop_map(|v| (GgufValue::U32(v), Value::U32(v))),
        any::<i32>().prop_map(|v| (GgufValue::I32(v), Value::I32(v))),
        any::<u64>().prop_map(|v| (GgufValue::U64(v), Value::U64(v))),
        any::<i64>().prop_map(|v| (GgufValue::I64(v), Value::I64(v))),
        (-1e30f32..1e30).prop_map(|v| (GgufValue::F32(v), Value::F32(v))),
        (-1e300f64..1e300).prop_map(|v| (GgufValue::F64(v), Value::F64(v))),
        any::<bool>().prop_map(|v| (GgufValue::Bool(v), Value::Bool(v))),
        any::<String>().prop_map(|v| (GgufValue::String(v.clone()), Value::String(v))),
        vec(any::<String>(), 0..9).prop_map(|v| {
            let written = v.iter().map(|text| GgufValue::String(text.clone())).collect();
            (GgufValue::Array(8, written), Value::Array(Array::String(v)))
        }),
        vec(any::<i64>(), 0..9).prop_map(|v| {
            let written = v.iter().map(|number| GgufValue::I64(*number)).collect();
            (GgufValue::Array(11, written), Value::Array(Array::I64(v)))
        }),
        vec(vec(any::<u16>(), 0..4), 0..4).prop_map(|v| {
            let row = |row: &Vec<u16>| GgufValue::Array(2, row.iter().map(|n| GgufValue::U16(*n)).collect());
            let written = v.iter().map(row).collect();
            (
                GgufValue::Array(9, written),
                Value::Array(Array::Array(v.into_iter().map(Array::U16).collect())),
            )
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reads_what_was_written(entries in btree_map("[a-z.]{0,12}", value(), 0..12)) {
        prop_assume!(!entries.contains_key("general.alignment"));
        let writer = entries.iter().fold(GgufWriter::new(), |writer, (key, (written, _))| {
            writer.entry(key, written.clone())
        });
        let read = parse(&writer.finish()).unwrap().metadata;
        let wanted: Vec<_> = entries.into_iter().map(|(key, (_, value))| (key, value)).collect();
        prop_assert_eq!(read.entries.into_iter().collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn any_bytes_give_ok_or_err(bytes in vec(any::<u8>(), 0..400)) {
        let _ = bounded("any bytes", bytes.len(), || parse(&bytes));
        let _ = bounded("any bytes", bytes.len(), || safetensors::parse(&bytes));
    }

    #[test]
    fn any_bytes_behind_a_good_start_give_ok_or_err(
        tensors in 0u64..4,
        entries in 0u64..4,
        bytes in vec(prop_oneof![Just(0u8), 0u8..13, any::<u8>()], 0..400),
    ) {
        let file = Raw::gguf(tensors, entries).bytes(&bytes).0;
        let _ = bounded("any GGUF", file.len(), || parse(&file));
    }

    #[test]
    fn any_header_text_gives_ok_or_err(text in r#"\{("[ab]":(\{("(dtype|shape|data_offsets)":("F32"|\[[0-9,]{0,9}\]|[0-9-]{1,9}),?){0,3}\}|[0-9]),?){0,3}\}"#) {
        let file = Raw::default().text(&text).zeros(8).0;
        let _ = bounded("any header", file.len(), || safetensors::parse(&file));
    }
}
