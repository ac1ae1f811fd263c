//! ONNX files made to break the reader.

use crate::support::{Folder, bounded, case, refuses_all, says_all};
use kun_formats::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, StringStringEntryProto, TensorProto,
};
use kun_formats::{FormatError, OnnxFile};
use kun_tensor::storage::Access;
use prost::Message;
use prost::bytes::Bytes;

/// Reads a model and every tensor of its graph.
fn read(bytes: &[u8]) -> Result<(), FormatError> {
    all_tensors(&OnnxFile::parse(Bytes::copy_from_slice(bytes))?)
}

fn all_tensors(file: &OnnxFile) -> Result<(), FormatError> {
    let graph = file.graph().unwrap();
    graph.initializer.iter().try_for_each(|tensor| file.tensor(tensor).map(drop))?;
    graph.sparse_initializer.iter().try_for_each(|sparse| file.sparse_tensor(sparse).map(drop))
}

fn model(graph: GraphProto) -> Vec<u8> {
    ModelProto { ir_version: 8, graph: Some(graph), ..ModelProto::default() }.encode_to_vec()
}

fn with_tensor(tensor: TensorProto) -> Vec<u8> {
    model(GraphProto { initializer: vec![tensor], ..GraphProto::default() })
}

fn tensor(data_type: i32, dims: &[i64]) -> TensorProto {
    TensorProto { name: "w".to_owned(), data_type, dims: dims.to_vec(), ..TensorProto::default() }
}

fn raw(data_type: i32, dims: &[i64], bytes: usize) -> Vec<u8> {
    with_tensor(TensorProto { raw_data: Some(Bytes::from(vec![0; bytes])), ..tensor(data_type, dims) })
}

/// A field of bytes around `inside`.
fn field(number: u8, inside: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    prost::encoding::encode_varint(inside.len() as u64, &mut out);
    out.extend_from_slice(inside);
    out
}

/// Graphs inside attributes inside nodes inside graphs.
fn nested(depth: usize) -> Vec<u8> {
    let mut graph = Vec::new();
    for _ in 0..depth {
        graph = field(1, &field(5, &field(6, &graph)));
    }
    field(7, &graph)
}

fn external(entries: &[(&str, &str)], dims: &[i64]) -> Vec<u8> {
    let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
        key: (*key).to_owned(),
        value: (*value).to_owned(),
    };
    with_tensor(TensorProto {
        data_location: 1,
        external_data: entries.iter().map(entry).collect(),
        ..tensor(1, dims)
    })
}

fn sparse(values: usize, indices: Vec<i64>, dims: &[i64]) -> Vec<u8> {
    let sparse = SparseTensorProto {
        values: Some(TensorProto { float_data: vec![1.0; values], ..tensor(1, &[values as i64]) }),
        indices: Some(TensorProto {
            dims: vec![indices.len() as i64],
            int64_data: indices,
            ..tensor(7, &[])
        }),
        dims: dims.to_vec(),
    };
    model(GraphProto { sparse_initializer: vec![sparse], ..GraphProto::default() })
}

#[test]
fn refuses_bytes_that_are_no_model() {
    let valid = raw(1, &[2], 8);
    refuses_all(
        vec![
            case("text", &b"hello"[..], &["is no valid protobuf"]),
            case("no graph", [0x08, 0x08], &["holds no ONNX graph"]),
            case("cut in a tag", [0x88], &["`ModelProto` at byte 1", "ends inside a field"]),
            case("cut in a length", [0x3a, 0xff], &["ends inside a field"]),
            case("length beyond the file", [0x3a, 0x7f, 0x00], &["a field of 127 bytes, 1 are left"]),
            case("length of 2^63", [0x3a, 255, 255, 255, 255, 255, 255, 255, 255, 127], &["are left"]),
            case("number of 11 bytes", [[0x08].as_slice(), &[255; 11]].concat(), &["more than 64 bits"]),
            case("start of a group", [0x0b, 0x0c], &["wire type 3"]),
            case("end of a group", [0x0c], &["wire type 4"]),
            case("wire type 6", [0x0e, 0x00], &["wire type 6"]),
            case("fixed number cut", [0x0d, 0, 0], &["a field of 4 bytes, 2 are left"]),
            case("double cut", [0x09, 0, 0], &["a field of 8 bytes, 2 are left"]),
            case("graph as a number", [0x38, 0x01], &["is no valid protobuf"]),
            case("name that is not UTF-8", field(7, &field(2, &[0xff, 0xfe])), &["is no valid protobuf"]),
            case("cut in the middle", &valid[..valid.len() - 3], &["are left"]),
            case("graph in a graph past its parent", [0x3a, 2, 0x0a, 0x05], &["`GraphProto` at byte 4"]),
            case("graphs 33 deep", nested(33), &["nested 97 deep, limit 96"]),
            case("graphs 100,000 deep", nested(1000), &["deep, limit 96"]),
            case(
                "a million empty nodes",
                field(7, &[0x0a, 0x00].repeat(1 << 20)),
                &["messages and strings", "limit"],
            ),
            case("a million empty names", field(7, &field(1, &[0x0a, 0x00].repeat(1 << 20))), &["limit"]),
        ],
        read,
    );
}

#[test]
fn refuses_tensors_whose_fields_disagree() {
    let attribute = |tensor: TensorProto| {
        let attribute = AttributeProto {
            name: "value".to_owned(),
            t: Some(Box::new(tensor)),
            ..AttributeProto::default()
        };
        let node = NodeProto { attribute: vec![attribute], ..NodeProto::default() };
        model(GraphProto { node: vec![node], ..GraphProto::default() })
    };
    let text = TensorProto { string_data: vec![Bytes::from_static(&[0xff])], ..tensor(8, &[1]) };
    refuses_all(
        vec![
            case("no type", raw(0, &[1], 4), &["`w`", "element type 0"]),
            case("unknown type", raw(99, &[1], 4), &["element type 99"]),
            case("complex numbers", raw(14, &[1], 8), &["element type 14"]),
            case("negative dimension", raw(1, &[-1], 4), &["dimensions [-1]"]),
            case("product beyond 2^64", raw(1, &[1 << 62, 1 << 62], 4), &["is too large"]),
            case("product beyond memory", raw(1, &[1 << 61], 4), &["is too large"]),
            case("2^40 elements, 4 bytes", raw(1, &[1 << 40], 4), &["4 bytes for f32 [1099511627776]"]),
            case("too few bytes", raw(1, &[2], 7), &["7 bytes for f32 [2]"]),
            case("too many bytes", raw(7, &[1], 16), &["16 bytes for i64 [1]"]),
            case("packed 4-bit codes cut", raw(21, &[3], 1), &["1 bytes for u4 [3]"]),
            case("65 dimensions", raw(1, &[1; 65], 4), &["65 dimensions, limit 64"]),
            case("fields too short", with_tensor(tensor(1, &[3])), &["0 bytes in its fields"]),
            case("text that is not UTF-8", with_tensor(text), &["text 0 is not UTF-8"]),
            case("text that is missing", with_tensor(tensor(8, &[2])), &["0 elements do not fill"]),
            case("sparse index beyond", sparse(1, vec![9], &[4]), &["index [9] of [4]"]),
            case("sparse index negative", sparse(1, vec![-1], &[4]), &["index [-1]"]),
            case("sparse amplifier", sparse(1, vec![0], &[1 << 40]), &["a sparse tensor of"]),
            case(
                "unknown place",
                with_tensor(TensorProto { data_location: 7, ..tensor(1, &[1]) }),
                &["`data_location` is 7"],
            ),
            case("outside without a file", external(&[], &[1]), &["no `location`"]),
            case(
                "outside, from memory",
                external(&[("location", "w.bin")], &[1]),
                &["external_data", "w.bin"],
            ),
            case(
                "outside, in an attribute",
                attribute(TensorProto { data_location: 1, ..tensor(1, &[1]) }),
                &["no `location`"],
            ),
        ],
        read,
    );
}

/// Keys and values of `external_data`.
type Entries = &'static [(&'static str, &'static str)];

#[test]
fn opens_weights_in_its_own_folder_only() {
    let open = |folder: &Folder| {
        OnnxFile::open(&folder.path("m.onnx"), Access::Read).and_then(|file| all_tensors(&file))
    };
    let data = ("w.bin", &[0u8; 16][..]);
    let good = external(&[("location", "w.bin"), ("offset", "8"), ("length", "8")], &[2]);
    assert!(open(&Folder::with(&[("m.onnx", &good), data])).is_ok());
    let cases: [(&str, Entries, &[&str]); 12] = [
        ("missing", &[("location", "none.bin")], &["none.bin"]),
        ("parent", &[("location", "../w.bin")], &["`../w.bin`", "inside the model folder"]),
        ("absolute", &[("location", "/etc/passwd")], &["`/etc/passwd`"]),
        ("folder below", &[("location", "a/w.bin")], &["`a/w.bin`"]),
        ("dots", &[("location", "..")], &["inside the model folder"]),
        ("empty", &[("location", "")], &["inside the model folder"]),
        ("zero byte", &[("location", "w\0.bin")], &["inside the model folder"]),
        ("drive", &[("location", "C:w.bin")], &["inside the model folder"]),
        ("offset beyond", &[("location", "w.bin"), ("offset", "12")], &["ends at byte 20, file has 16"]),
        ("offset of 2^64", &[("location", "w.bin"), ("offset", "18446744073709551615")], &["file has 16"]),
        ("offset that is no number", &[("location", "w.bin"), ("offset", "-1")], &["`offset` is no number"]),
        ("another length", &[("location", "w.bin"), ("length", "4")], &["`length` is 4"]),
    ];
    for (name, entries, says) in cases {
        let folder = Folder::with(&[("m.onnx", &external(entries, &[2])), data]);
        says_all(name, bounded(name, 4096, || open(&folder)), says);
    }
}

#[cfg(unix)]
#[test]
fn follows_no_link_and_opens_no_pipe() {
    let model = external(&[("location", "w.bin")], &[2]);
    let open = |folder: &Folder| {
        OnnxFile::open(&folder.path("m.onnx"), Access::Mapped).and_then(|file| all_tensors(&file))
    };
    let outside = Folder::with(&[("secret", &[0; 8])]);
    let folder = Folder::with(&[("m.onnx", &model)]);
    std::os::unix::fs::symlink(outside.path("secret"), folder.path("w.bin")).unwrap();
    says_all("link", open(&folder), &["link out of the model folder"]);
    let folder = Folder::with(&[("m.onnx", &model)]);
    std::fs::hard_link(outside.path("secret"), folder.path("w.bin")).unwrap();
    says_all("hard link", open(&folder), &["hard links"]);
    let folder = Folder::with(&[("m.onnx", &model)]);
    std::fs::create_dir(folder.path("w.bin")).unwrap();
    says_all("folder", open(&folder), &["no regular file"]);
}

#[test]
fn every_cut_and_every_flipped_bit_is_an_error_or_a_model() {
    let valid = with_tensor(TensorProto { int32_data: vec![1, 2, 3], ..tensor(6, &[3]) });
    for length in 0..valid.len() {
        let _ = read(&valid[..length]);
    }
    for bit in 0..valid.len() * 8 {
        let mut bytes = valid.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let _ = bounded("flipped", bytes.len(), || read(&bytes));
    }
}
