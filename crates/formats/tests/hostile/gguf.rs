//! GGUF files that must be refused.

use crate::support::{Raw, case, refuses_all};
use kun_formats::gguf::parse;
use kun_tensor::DType;
use kun_testkit::gguf_writer::GgufWriter;

const MIB: usize = 1 << 20;

#[test]
fn refuses_bad_headers() {
    refuses_all(
        vec![
            case("no bytes", b"", &["`magic` at byte 0 needs 4 bytes, 0 are left"]),
            case("half a magic", b"GG", &["`magic`", "needs 4 bytes, 2 are left"]),
            case("another magic", b"GGUX\x03\0\0\0", &["`magic` at byte 0 is `GGUX`"]),
            case("control characters in the magic", b"\x1b[2J\x03\0\0\0", &["`\\x1b[2J`"]),
            case("only a magic", b"GGUF", &["`version` at byte 4 needs 4 bytes, 0 are left"]),
            case("version 0", version(0), &["`version` at byte 4 is 0", "2 and 3"]),
            case("version 1", version(1), &["`version` at byte 4 is 1", "2 and 3"]),
            case("version 4", version(4), &["`version` at byte 4 is 4", "2 and 3"]),
            case("big-endian", version(3u32.swap_bytes()), &["0x03000000", "big-endian"]),
            case("no counts", Raw(b"GGUF".to_vec()).u32(3), &["`tensor_count` at byte 8 needs 8 bytes"]),
            case("half a count", Raw(b"GGUF".to_vec()).u32(3).u32(1), &["`tensor_count`", "4 are left"]),
            case("2^63 tensors", Raw::gguf(1 << 63, 0), &["`tensor_count` at byte 8", "limit 262144"]),
            case("no bytes for tensors", Raw::gguf(1000, 0), &["`tensor_count`", "24000 bytes, 8 are left"]),
            case(
                "2^64-1 entries",
                Raw::gguf(0, u64::MAX),
                &["`metadata_kv_count` at byte 16", "limit 65536"],
            ),
            case("no bytes for entries", Raw::gguf(0, 9), &["`metadata_kv_count`", "117 bytes, 0 are left"]),
        ],
        parse,
    );
}

fn version(version: u32) -> Raw {
    Raw(b"GGUF".to_vec()).u32(version).u64(0).u64(0)
}

#[test]
fn refuses_bad_metadata() {
    let string = |length: u64| Raw::entry("k", 8).u64(length);
    let array = |element_type: u32, count: u64| Raw::entry("k", 9).u32(element_type).u64(count);
    let key = |length: u64| Raw::gguf(0, 1).u64(length).zeros(70 << 10);
    refuses_all(
        vec![
            case("a key of 2^64-1 bytes", key(u64::MAX), &["`metadata key[0]` at byte 24", "limit 65536"]),
            case("a key of 64 KiB and 1", key((64 << 10) + 1), &["is 65537, limit 65536"]),
            case("a key beyond the end", Raw::gguf(0, 1).u64(99).zeros(20), &["needs 99 bytes, 20 are left"]),
            case(
                "a key that is not UTF-8",
                Raw::gguf(0, 1).u64(3).bytes(b"a\xffb").zeros(9),
                &["`metadata key[0]` at byte 24 is not UTF-8 from its byte 1 on"],
            ),
            case(
                "value type 13",
                Raw::entry("k", 13).u8(0),
                &["`k` at byte 33 has value type 13", "0 to 12"],
            ),
            case("value type 2^32-1", Raw::entry("k", u32::MAX).u8(0), &["value type 4294967295"]),
            case("half a u64", Raw::entry("k", 10).u32(0), &["`k` at byte 37 needs 8 bytes, 4 are left"]),
            case("half an f64", Raw::entry("k", 12).u32(0), &["`k` at byte 37 needs 8 bytes"]),
            case("a bool of 2", Raw::entry("k", 7).u8(2), &["`k` at byte 37 is 2, a bool is 0 or 1"]),
            case("a string of 2^62 bytes", string(1 << 62), &["`k` at byte 37", "limit 16777216"]),
            case("a string of 16 MiB and 1", string((16 << 20) + 1), &["is 16777217, limit 16777216"]),
            case(
                "a string beyond the end",
                string(5).zeros(4),
                &["`k` at byte 45 needs 5 bytes, 4 are left"],
            ),
            case("a string that is not UTF-8", string(2).bytes(b"\xc3("), &["`k`", "not UTF-8"]),
            case("an array of type 99", array(99, 1), &["`k` at byte 37 has value type 99"]),
            case("an array of 2^61 u64", array(10, 1 << 61), &["`k` at byte 41", "limit 67108864"]),
            case("an array of 64 Mi and 1", array(0, (64 << 20) + 1), &["is 67108865, limit 67108864"]),
            case(
                "an array beyond the end",
                array(4, 64 << 20).zeros(64),
                &["needs 268435456", "64 are left"],
            ),
            case("strings beyond the end", array(8, 9).zeros(64), &["`k` at byte 49 needs 72 bytes"]),
            case(
                "a string of an array beyond the end",
                array(8, 3).text("a").text("b").u64(1 << 20),
                &["`k[2]` at byte 75 needs 1048576 bytes, 0 are left"],
            ),
            case("a bool of 7 in an array", array(7, 3).bytes(&[0, 1, 7]), &["`k[2]` at byte 51 is 7"]),
            case("arrays beyond the end", array(9, 64 << 20).zeros(MIB), &["needs 805306368"]),
            case("arrays 65 deep", nested(65), &["is nested 65 deep, limit 64"]),
            case("arrays 100,000 deep", nested(100_000), &["is nested 65 deep, limit 64"]),
            case("every level claims all bytes", claiming(), &["`k`", "at byte"]),
            case("a key twice", twice("k"), &["metadata key `k` is there twice", "at byte 38"]),
            case("no value", Raw::gguf(0, 1).text("kkkkk"), &["`k", "needs 4 bytes, 0 are left"]),
        ],
        parse,
    );
}

/// Arrays `depth` deep around nothing.
fn nested(depth: usize) -> Raw {
    (1..depth).fold(Raw::entry("k", 9), |raw, _| raw.u32(9).u64(1)).u32(4).u64(0)
}

/// 64 levels of arrays that each claim as many elements as the bytes left could hold.
fn claiming() -> Raw {
    let bytes = 4 * MIB as u64;
    let raw = (0..63).fold(Raw::entry("k", 9), |raw, _| raw.u32(9).u64(bytes / 12 - 200));
    raw.u32(8).u64(bytes / 8 - 200).zeros(bytes as usize)
}

fn twice(key: &str) -> Raw {
    Raw::gguf(0, 2).text(key).u32(0).u8(1).text(key).u32(0).u8(2)
}

#[test]
fn refuses_bad_alignments() {
    let alignment = |value_type: u32, value: u32| Raw::entry("general.alignment", value_type).u32(value);
    refuses_all(
        vec![
            case("alignment 0", alignment(4, 0), &["`general.alignment` is 0", "up to 1048576"]),
            case("alignment 3", alignment(4, 3), &["`general.alignment` is 3", "a power of two"]),
            case("alignment 2 MiB", alignment(4, 2 << 20), &["is 2097152", "up to 1048576"]),
            case("alignment 2^31", alignment(4, 1 << 31), &["is 2147483648"]),
            case("alignment -32", alignment(5, (-32i32) as u32), &["`general.alignment` is -32, beyond u32"]),
            case(
                "alignment as text",
                Raw::entry("general.alignment", 8).text("32"),
                &["is string, expected u32"],
            ),
            case("alignment as float", alignment(6, 32f32.to_bits()), &["is f32, expected u32"]),
        ],
        parse,
    );
}

#[test]
fn refuses_bad_tensors() {
    let shaped = |sizes: &[u64], number: u32| Raw::tensor("t").dimensions(sizes).u32(number).u64(0).zeros(64);
    let at = |offset: u64| Raw::tensor("t").dimensions(&[4]).u32(0).u64(offset).zeros(64);
    refuses_all(
        vec![
            case(
                "a name beyond the end",
                Raw::gguf(1, 0).u64(100).zeros(24),
                &["`tensor name[0]`", "needs 100"],
            ),
            case("a name of 2^40 bytes", Raw::gguf(1, 0).u64(1 << 40).zeros(24), &["limit 65536"]),
            case("a name that is not UTF-8", Raw::gguf(1, 0).u64(1).u8(255).zeros(32), &["not UTF-8"]),
            case("5 dimensions", shaped(&[1; 5], 0), &["n_dimensions of t", "at byte 33 is 5, limit 4"]),
            case("2^32-1 dimensions", Raw::tensor("t").u32(u32::MAX).zeros(64), &["is 4294967295, limit 4"]),
            case(
                "half of the dimensions",
                Raw::tensor("tttttttt").u32(4).zeros(24),
                &["`dimensions of tensor[0]`"],
            ),
            case("2^32 times 2^32", shaped(&[1 << 32, 1 << 32], 0), &["tensor `t`", "beyond 2^63"]),
            case(
                "2^42+1 times 2^22",
                shaped(&[1 << 22, (1 << 42) + 1], 0),
                &["4398046511105", "beyond 2^63"],
            ),
            case("elements that fit, bytes that do not", shaped(&[1 << 61], 28), &["beyond 2^63"]),
            case("2^64-1 elements", shaped(&[u64::MAX], 24), &["18446744073709551615", "beyond 2^63"]),
            case("nothing times too much", shaped(&[1 << 40, 0, 1 << 40], 0), &["beyond 2^63"]),
            case("33 values of Q4_0", shaped(&[33], 2), &["rows of 33 elements", "blocks of 32 (q4_0)"]),
            case("rows of 32 in Q4_K", shaped(&[32, 8], 12), &["rows of 32 elements", "256 (q4_k)"]),
            case("a number in Q8_0", shaped(&[], 8), &["rows of 1 elements", "32 (q8_0)"]),
            case(
                "IQ2_XXS",
                shaped(&[256], 16),
                &["tensor `t` has type IQ2_XXS", "supported are F32, F16, BF16"],
            ),
            case("a withdrawn type", shaped(&[32], 31), &["type Q4_0_4_4 (withdrawn)", "supported are"]),
            case("MXFP4", shaped(&[32], 39), &["type MXFP4", "supported are"]),
            case("an unknown type", shaped(&[32], 1000), &["type 1000 (unknown)", "supported are"]),
            case("type 2^32-1", shaped(&[32], u32::MAX), &["type 4294967295 (unknown)"]),
            case("no offset", Raw::tensor("t").dimensions(&[4]).u32(0).u32(0), &["`offset of tensor[0]`"]),
            case("an odd offset", at(1), &["tensor `t`: data offset 1 is no multiple of the alignment 32"]),
            case("an offset beyond the file", at(4096), &["data ends at byte 4176, file has 121"]),
            case("an offset that wraps", at(u64::MAX - 31), &["data ends at byte", "file has 121"]),
            case("one byte too few", one_byte_short(), &["tensor `t`: data ends at byte 80, file has 79"]),
            case(
                "a tensor in a file that ends",
                Raw::tensor("t").dimensions(&[4]).u32(0).u64(0),
                &["file has 57"],
            ),
            case("two tensors at one place", two("a", 0, "b", 0), &["tensor `b`", "overlaps tensor `a`"]),
            case("two tensors that overlap", two("a", 32, "b", 0), &["tensor `a`", "overlaps tensor `b`"]),
            case("a tensor twice", two("a", 0, "a", 64), &["tensor `a` is there twice", "byte 57"]),
            case("a long name in the error", long_name(), &["tensor `aaaaaaaa", "..` has type IQ1_S"]),
            case("escape codes in the error", escapes(), &["tensor `\\u{1b}[31mred` has type IQ1_M"]),
        ],
        parse,
    );
}

fn one_byte_short() -> Vec<u8> {
    let mut file = GgufWriter::new().tensor("t", DType::F32, &[4], &[0; 16]).finish();
    file.truncate(file.len() - 1);
    file
}

/// Two tensors of 16 f32 (64 bytes) at these offsets.
fn two(first: &str, first_offset: u64, second: &str, second_offset: u64) -> Raw {
    let raw = Raw::gguf(2, 0).text(first).dimensions(&[16]).u32(0).u64(first_offset);
    raw.text(second).dimensions(&[16]).u32(0).u64(second_offset).zeros(256)
}

fn long_name() -> Raw {
    Raw::tensor(&"a".repeat(60 << 10)).dimensions(&[256]).u32(19).u64(0)
}

fn escapes() -> Raw {
    Raw::tensor("\x1b[31mred").dimensions(&[256]).u32(29).u64(0)
}

#[test]
fn deep_arrays_fit_a_small_stack() {
    let run = || {
        assert!(parse(&nested(64).0).is_ok());
        assert!(parse(&nested(65).0).is_err());
        assert!(parse(&nested(1_000_000).0).is_err());
    };
    std::thread::Builder::new().stack_size(512 << 10).spawn(run).unwrap().join().unwrap();
}
