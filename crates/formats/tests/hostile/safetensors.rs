//! safetensors files that must be refused.

use crate::support::{Raw, case, refuses_all};
use kun_formats::safetensors::parse;
use kun_testkit::safetensors_writer::raw_safetensors;

/// One header around the fields of tensor `t`, before 8 bytes of data.
fn tensor(dtype: &str, shape: &str, offsets: &str) -> Vec<u8> {
    let entry = format!(r#"{{"t":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#);
    raw_safetensors(&entry, &[0; 8])
}

fn header(text: &str) -> Vec<u8> {
    raw_safetensors(text, &[0; 8])
}

#[test]
fn refuses_bad_headers() {
    let length = |length: u64| Raw::default().u64(length).bytes(b"{}");
    let padded = Raw::default().u64(10).bytes(b"  {}      ");
    refuses_all(
        vec![
            case("no bytes", b"", &["`header length` at byte 0 needs 8 bytes, 0 are left"]),
            case("half a length", b"\x02\0\0", &["`header length`", "3 are left"]),
            case("no header", length(0), &["`header` at byte 8 begins with"]),
            case(
                "2^64-1 bytes of header",
                length(u64::MAX),
                &["`header length` at byte 0", "limit 100000000"],
            ),
            case("100 MB and 1", length(100_000_001), &["is 100000001, limit 100000000"]),
            case("a header beyond the end", length(3), &["`header` at byte 8 needs 3 bytes, 2 are left"]),
            case("space before the header", padded, &["begins with ` `", "expected `{`"]),
            case("an array", header("[]"), &["begins with `[`, expected `{`"]),
            case("half a header", header("{"), &["`header` is not valid from byte"]),
            case("text behind the header", header("{} x"), &["`header` is not valid", "trailing"]),
            case("two headers", header("{}{}"), &["`header` is not valid", "trailing"]),
            case(
                "not UTF-8",
                raw_safetensors("{\"t?\":{}}", &[]).replace(b'?', 0xff),
                &["`header` is not valid"],
            ),
            case("deep", header(&format!("{{\"t\":{}", "[".repeat(100_000))), &["`header` is not valid"]),
            case("a tensor that is a number", header(r#"{"t":1}"#), &["from byte 13 on", "invalid type"]),
            case("metadata of numbers", header(r#"{"__metadata__":{"a":1}}"#), &["expected"]),
            case(
                "metadata twice",
                header(r#"{"__metadata__":{},"__metadata__":{}}"#),
                &["header key `__metadata__` is there twice"],
            ),
            case(
                "a metadata key twice",
                header(r#"{"__metadata__":{"a":"","b":"","a":""}}"#),
                &["metadata key `a` is there twice"],
            ),
            case("no data for no tensor", header("{}"), &["`data_offsets` end at 0", "8 bytes of data"]),
            case("a huge name", header(&format!("{{\"{}\":1}}", "n".repeat(70_000))), &["limit 65536"]),
        ],
        parse,
    );
}

trait Replace {
    fn replace(self, from: u8, to: u8) -> Self;
}

impl Replace for Vec<u8> {
    fn replace(mut self, from: u8, to: u8) -> Vec<u8> {
        self.iter_mut().filter(|byte| **byte == from).for_each(|byte| *byte = to);
        self
    }
}

#[test]
fn refuses_bad_tensors() {
    let twice = r#"{"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"t":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
    let escaped = twice.replacen("\"t\"", "\"\\u0074\"", 1);
    let pair = |first: &str, second: &str| {
        header(&format!(
            r#"{{"a":{{"dtype":"F32","shape":[1],"data_offsets":{first}}},"b":{{"dtype":"F32","shape":[1],"data_offsets":{second}}}}}"#
        ))
    };
    refuses_all(
        vec![
            case("a tensor twice", header(twice), &["tensor `t` is there twice"]),
            case("a tensor twice, once escaped", header(&escaped), &["tensor `t` is there twice"]),
            case(
                "no dtype",
                header(r#"{"t":{"shape":[2],"data_offsets":[0,8]}}"#),
                &["missing field `dtype`"],
            ),
            case(
                "no shape",
                header(r#"{"t":{"dtype":"F32","data_offsets":[0,8]}}"#),
                &["missing field `shape`"],
            ),
            case(
                "no offsets",
                header(r#"{"t":{"dtype":"F32","shape":[2]}}"#),
                &["missing field `data_offsets`"],
            ),
            case(
                "a field twice",
                header(r#"{"t":{"dtype":"F32","dtype":"F16","shape":[2],"data_offsets":[0,8]}}"#),
                &["duplicate field `dtype`"],
            ),
            case(
                "another field",
                header(r#"{"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"code":"x"}}"#),
                &["unknown field `code`"],
            ),
            case(
                "F8_E4M3",
                tensor("F8_E4M3", "[8]", "[0,8]"),
                &["tensor `t` has type F8_E4M3", "supported are F64"],
            ),
            case("U16", tensor("U16", "[4]", "[0,8]"), &["tensor `t` has type U16", "supported are"]),
            case("f32 in lower case", tensor("f32", "[2]", "[0,8]"), &["has type f32", "supported are"]),
            case("a negative size", tensor("F32", "[-2]", "[0,8]"), &["`header` is not valid", "-2"]),
            case("half a size", tensor("F32", "[2.0]", "[0,8]"), &["`header` is not valid"]),
            case(
                "a size of 2^64",
                tensor("F32", "[18446744073709551616]", "[0,8]"),
                &["`header` is not valid"],
            ),
            case("9 dimensions", tensor("F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]"), &["more than 8 dimensions"]),
            case("a product that wraps", tensor("F32", "[4294967296,4294967296]", "[0,8]"), &["beyond 2^63"]),
            case("bytes that wrap", tensor("F64", "[2305843009213693952]", "[0,8]"), &["beyond 2^63"]),
            case("one offset", tensor("F32", "[2]", "[8]"), &["`header` is not valid"]),
            case("three offsets", tensor("F32", "[2]", "[0,4,8]"), &["`header` is not valid"]),
            case(
                "offsets backwards",
                tensor("F32", "[2]", "[8,0]"),
                &["tensor `t`: `data_offsets` are 8 to 0"],
            ),
            case("too small for its shape", tensor("F32", "[3]", "[0,8]"), &["span 8 bytes", "takes 12"]),
            case("too large for its shape", tensor("F32", "[1]", "[0,8]"), &["span 8 bytes", "takes 4"]),
            case("data beyond the end", tensor("F32", "[3]", "[0,12]"), &["end at 12", "8 bytes of data"]),
            case("data not covered", tensor("F32", "[1]", "[0,4]"), &["end at 4", "8 bytes of data"]),
            case("a hole at the start", tensor("F32", "[1]", "[4,8]"), &["begin at 4", "before ends at 0"]),
            case("a hole", pair("[0,4]", "[8,12]"), &["tensor `b`", "begin at 8", "ends at 4"]),
            case(
                "an overlap",
                pair("[0,4]", "[2,6]"),
                &["tensor `b`", "byte 2 overlaps tensor `a`", "byte 4"],
            ),
            case("the same place twice", pair("[0,4]", "[0,4]"), &["tensor `b`", "overlaps tensor `a`"]),
            case(
                "offsets near 2^64",
                tensor("U8", "[8]", "[18446744073709551600,18446744073709551608]"),
                &["begin at"],
            ),
        ],
        parse,
    );
}

#[test]
fn amplifies_no_list_of_names() {
    let tensors: Vec<String> =
        (0..40_000).map(|n| format!(r#""{n:x}":{{"dtype":"U8","shape":[],"data_offsets":[0,0]}}"#)).collect();
    let keys: Vec<String> = (0..200_000).map(|n| format!(r#""{n:x}":"""#)).collect();
    let sizes = "0,".repeat(1_000_000);
    refuses_all(
        vec![
            case("many tensors", header(&format!("{{{}}}", tensors.join(","))), &["span 0 bytes"]),
            case(
                "much metadata",
                header(&format!(r#"{{"__metadata__":{{{}}}}}"#, keys.join(","))),
                &["end at 0"],
            ),
            case("a long shape", tensor("F32", &format!("[{sizes}0]"), "[0,8]"), &["more than 8 dimensions"]),
        ],
        parse,
    );
}
