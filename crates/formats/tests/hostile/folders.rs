//! Files and folders that must be refused, and the links that must not.

use crate::support::{Folder, Raw, bounded, says_all};
use kun_formats::{ModelFiles, open};
use kun_tensor::DType;
use kun_tensor::storage::Access;
use kun_testkit::gguf_writer::{GgufValue, GgufWriter};
use kun_testkit::safetensors_writer::{SafetensorsWriter, raw_safetensors};
use std::path::Path;

const CONFIG: (&str, &[u8]) = ("config.json", b"{\"model_type\": \"llama\"}");

fn weights(names: &[&str]) -> Vec<u8> {
    let add = |writer: SafetensorsWriter, name: &&str| writer.tensor(name, DType::F32, &[2], &[0; 8]);
    names.iter().fold(SafetensorsWriter::new(), add).finish()
}

/// Checks that `path` is refused with all of `says`, in bounded memory.
fn refused(name: &str, path: &Path, file_bytes: usize, says: &[&str]) {
    for access in [Access::Mapped, Access::Read] {
        let outcome = bounded(name, file_bytes, || open(path, access).map(drop));
        says_all(name, outcome, says);
    }
}

fn refused_folder(name: &str, files: &[(&str, &[u8])], says: &[&str]) {
    let folder = Folder::with(files);
    let bytes = files.iter().map(|(_, content)| content.len()).sum();
    refused(name, folder.root(), bytes, says);
}

fn refused_file(file: &str, content: &[u8], says: &[&str]) {
    let folder = Folder::with(&[(file, content)]);
    refused(file, &folder.path(file), content.len(), says);
}

#[test]
fn refuses_other_files() {
    let gguf = GgufWriter::new().finish();
    refused_file("empty.gguf", b"", &["empty.gguf is empty (0 bytes)"]);
    refused_file("text.gguf", b"hello there", &["is no model file: it begins with `hell`", "`GGUF`"]);
    refused_file("one.bin", b"x", &["pickle", "safetensors or GGUF"]);
    refused_file("model.onnx", b"\x08\x08\x12\x07pytorch", &["it takes arrays, not text"]);
    refused_file("model", b"\x08\x08\x12\x07pytorch", &["it takes arrays, not text"]);
    refused_file(
        "model.pt",
        b"PK\x03\x04rest of it",
        &["can run code and is never read", "safetensors or GGUF"],
    );
    refused_file("model.data", b"\x80\x02}q\x00.", &["pickle", "never read"]);
    refused_file("old.bin", b"tjgg\x03\0\0\0", &["before GGUF"]);
    refused_file("model.safetensors", &weights(&["a"]), &["safetensors file: open its folder"]);
    refused_file("cut.gguf", &gguf[..20], &["cut.gguf is not usable", "`metadata_kv_count` at byte 16"]);
    let folder = Folder::new();
    refused("missing", &folder.path("none.gguf"), 0, &["cannot read", "none.gguf", "No such file"]);
}

#[test]
fn refuses_incomplete_folders() {
    let shard = weights(&["a"]);
    refused_folder("empty", &[], &["has no config.json", "*.safetensors"]);
    refused_folder("only a GGUF", &[("a.gguf", b"GGUF")], &["has no config.json", "open `a.gguf`"]);
    refused_folder(
        "pickle",
        &[CONFIG, ("pytorch_model.bin", b"PK")],
        &["only pickle weights (`pytorch_model.bin`)", "get the safetensors"],
    );
    refused_folder("old pickle", &[("consolidated.00.PTH", b"x")], &["only pickle weights", "never read"]);
    refused_folder("no weights", &[CONFIG], &["has no weights", "model.safetensors.index.json"]);
    let two: [(&str, &[u8]); 3] = [CONFIG, ("a.safetensors", &shard), ("b.safetensors", &shard)];
    refused_folder("two weights", &two, &["2 safetensors files (a.safetensors, b.safetensors)"]);
    refused_folder("no bytes", &[CONFIG, ("model.safetensors", b"")], &["model.safetensors is empty"]);
    let cut = raw_safetensors("{", &[]);
    refused_folder(
        "bad weights",
        &[CONFIG, ("model.safetensors", &cut)],
        &["model.safetensors is not usable", "`header`"],
    );
}

#[test]
fn refuses_bad_configs() {
    let model = weights(&["a"]);
    let config = |name: &str, content: &[u8], says: &[&str]| {
        refused_folder(name, &[("config.json", content), ("model.safetensors", &model)], says);
    };
    config("no bytes", b"", &["config.json", "is not valid from byte 0 on"]);
    config("no object", b"[1]", &["`config.json` is an array of 1, expected an object"]);
    config("half an object", b"{\n\"a\":\n", &["is not valid from byte", "EOF"]);
    config("not UTF-8", b"{\"a\":\"\xff\"}", &["config.json", "is not valid"]);
    config("200 deep", "[".repeat(200).as_bytes(), &["recursion limit"]);
    config("a million deep", "{\"a\":".repeat(800_000).as_bytes(), &["config.json", "limit"]);
    config(
        "four million values",
        format!("[{}0]", "0,".repeat(2_000_000)).as_bytes(),
        &["bytes of memory, limit"],
    );
    config(
        "half a million maps",
        format!("[{}0]", "{},".repeat(500_000)).as_bytes(),
        &["bytes of memory, limit"],
    );
    config(
        "too large",
        &vec![b' '; (4 << 20) + 1],
        &["config.json", "the file has 4194305 bytes, limit 4194304"],
    );
    let others = |file: &str, content: &[u8], says: &[&str]| {
        refused_folder(file, &[CONFIG, ("model.safetensors", &model), (file, content)], says);
    };
    others("tokenizer_config.json", b"{,}", &["tokenizer_config.json", "is not valid from byte 1 on"]);
    others("generation_config.json", b"nul", &["generation_config.json", "is not valid"]);
    others("special_tokens_map.json", b"\"", &["special_tokens_map.json", "is not valid"]);
    others("chat_template.jinja", b"{{\xff}}", &["chat_template.jinja", "is not UTF-8 from its byte 2 on"]);
    others("chat_template.jinja", &vec![b' '; (1 << 20) + 1], &["the file has 1048577 bytes, limit 1048576"]);
}

#[test]
fn refuses_bad_indices() {
    let shard = weights(&["a"]);
    let index = |name: &str, content: &str, says: &[&str]| {
        let files: [(&str, &[u8]); 3] =
            [CONFIG, ("model.safetensors.index.json", content.as_bytes()), ("s.safetensors", &shard)];
        refused_folder(name, &files, says);
    };
    let map = |file: &str| format!(r#"{{"weight_map":{{"a":"{file}"}}}}"#);
    index("not JSON", "x", &["`index` is not valid from byte 0 on"]);
    index("no map", "{}", &["missing field `weight_map`"]);
    index("an empty map", r#"{"weight_map":{}}"#, &["`weight_map` is missing"]);
    index("a number", r#"{"weight_map":{"a":1}}"#, &["`index` is not valid"]);
    index(
        "twice",
        r#"{"weight_map":{"a":"s.safetensors","a":"s.safetensors"}}"#,
        &["weight_map key `a` is there twice"],
    );
    for name in ["../s.safetensors", "/etc/passwd", "..", ".", "", "x/s", "./s", "x\\\\s", "C:s", "s\\u0000"]
    {
        index(name, &map(name), &["`weight_map` names the file", "only plain file names"]);
    }
    index("a missing shard", &map("t.safetensors"), &["cannot read", "t.safetensors"]);
    index(
        "a tensor not there",
        r#"{"weight_map":{"b":"s.safetensors"}}"#,
        &["puts tensor `b` in `s.safetensors`"],
    );
    let files: Vec<String> = (0..513).map(|n| format!("\"{n}\":\"{n}\"")).collect();
    index("too many files", &format!("{{\"weight_map\":{{{}}}}}", files.join(",")), &["more than 512 files"]);
}

#[test]
fn refuses_tensors_in_two_shards() {
    let (first, second) = (weights(&["a", "b"]), weights(&["b"]));
    let index = br#"{"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}"#;
    let files: [(&str, &[u8]); 4] = [
        CONFIG,
        ("model.safetensors.index.json", index),
        ("1.safetensors", &first),
        ("2.safetensors", &second),
    ];
    refused_folder("two shards", &files, &["2.safetensors is not usable", "tensor `b` is there twice"]);
}

#[cfg(unix)]
#[test]
fn follows_the_links_of_the_cache_only() {
    use std::os::unix::fs::symlink;
    let model = weights(&["a"]);
    let cache = Folder::with(&[("blobs/c0", CONFIG.1), ("blobs/w0", &model), ("outside", &model)]);
    let snapshot = cache.path("snapshots/abc");
    std::fs::create_dir_all(&snapshot).unwrap();
    symlink("../../blobs/c0", snapshot.join("config.json")).unwrap();
    symlink("../../blobs/w0", snapshot.join("model.safetensors")).unwrap();
    assert!(matches!(open(&snapshot, Access::Mapped), Ok(ModelFiles::HuggingFace { .. })));

    let swap = |target: &Path| {
        std::fs::remove_file(snapshot.join("model.safetensors")).unwrap();
        symlink(target, snapshot.join("model.safetensors")).unwrap();
    };
    swap(Path::new("../../outside"));
    refused("a link out of blobs", &snapshot, 0, &["is a link out of the model folder"]);
    swap(&cache.path("outside"));
    refused("an absolute link", &snapshot, 0, &["is a link out of the model folder"]);
    symlink("../outside", cache.path("blobs/w1")).unwrap();
    swap(Path::new("../../blobs/w1"));
    refused("a blob that is a link", &snapshot, 0, &["is a link out of the model folder"]);
    swap(Path::new("../../blobs/none"));
    refused("a link to nothing", &snapshot, 0, &["cannot read", "model.safetensors"]);
    swap(Path::new("../../blobs"));
    refused("a link to a folder", &snapshot, 0, &["is a link out of the model folder"]);

    let plain = Folder::with(&[CONFIG]);
    symlink(cache.path("blobs/w0"), plain.path("model.safetensors")).unwrap();
    refused("a link from a plain folder", plain.root(), 0, &["only the Hugging Face cache's links"]);
}

#[cfg(unix)]
#[test]
fn opens_regular_files_only() {
    let model = weights(&["a"]);
    let folder = Folder::with(&[CONFIG, ("other", &model)]);
    let weights = folder.path("model.safetensors");
    std::fs::hard_link(folder.path("other"), &weights).unwrap();
    refused("a hard link", folder.root(), 0, &["has 2 hard links, limit 1"]);
    std::fs::remove_file(&weights).unwrap();
    std::fs::create_dir(&weights).unwrap();
    refused("a folder", folder.root(), 0, &["model.safetensors is no regular file"]);
    std::fs::remove_dir(&weights).unwrap();
    // Opening a pipe would block: this test would not end.
    assert!(std::process::Command::new("mkfifo").arg(&weights).status().unwrap().success());
    refused("a pipe", folder.root(), 0, &["model.safetensors is no regular file"]);
    refused("a pipe by name", &weights, 0, &["model.safetensors is no regular file"]);
}

/// Part `number` of `count`, with one tensor.
fn part(number: u16, count: u16, total: i32, tensor: &str) -> Vec<u8> {
    GgufWriter::new()
        .entry("split.no", GgufValue::U16(number))
        .entry("split.count", GgufValue::U16(count))
        .entry("split.tensors.count", GgufValue::I32(total))
        .tensor(tensor, DType::F32, &[2], &[number as u8; 8])
        .finish()
}

fn first_part(files: &[(&str, &[u8])]) -> (Folder, std::path::PathBuf) {
    let folder = Folder::with(files);
    let first = folder.path("m-00001-of-00002.gguf");
    (folder, first)
}

#[test]
fn opens_all_parts_from_the_first() {
    let (one, two) = (part(0, 2, 2, "a"), part(1, 2, 2, "b"));
    let (folder, first) = first_part(&[("m-00001-of-00002.gguf", &one), ("m-00002-of-00002.gguf", &two)]);
    let Ok(ModelFiles::Gguf(gguf)) = open(&first, Access::Mapped) else { panic!("a split model") };
    for (name, file) in [("a", 0), ("b", 1)] {
        let info = gguf.tensors.get(name).unwrap();
        assert_eq!(info.file, file);
        assert_eq!(gguf.tensors.bytes(info, 0..8).unwrap()[..], [file as u8; 8]);
    }
    let second = folder.path("m-00002-of-00002.gguf");
    refused(
        "the second part",
        &second,
        0,
        &["this is part 2 of a split model: open", "m-00001-of-00002.gguf"],
    );
}

#[test]
fn refuses_parts_that_do_not_belong_together() {
    let (one, two) = (part(0, 2, 2, "a"), part(1, 2, 2, "b"));
    let pair = |name: &str, one: &[u8], two: &[u8], says: &[&str]| {
        let (_folder, first) = first_part(&[("m-00001-of-00002.gguf", one), ("m-00002-of-00002.gguf", two)]);
        refused(name, &first, one.len() + two.len(), says);
    };
    pair("the same part twice", &one, &one, &["m-00002-of-00002.gguf", "`split.no` is 0, expected 1"]);
    pair("a part of another set", &one, &part(1, 3, 2, "b"), &["`split.count` is 3, expected 2"]);
    pair("a part that is no part", &one, &GgufWriter::new().finish(), &["`split.no` is missing"]);
    pair(
        "a tensor in both",
        &one,
        &part(1, 2, 2, "a"),
        &["m-00002-of-00002.gguf", "tensor `a` is there twice"],
    );
    pair("too few tensors", &part(0, 2, 3, "a"), &two, &["`split.tensors.count` is 3, expected 2"]);
    pair(
        "a name that says otherwise",
        &part(0, 3, 2, "a"),
        &two,
        &["`split.count` is 3", "-00001-of-00003.gguf"],
    );
    pair("65,535 parts", &part(0, u16::MAX, 2, "a"), &two, &["`split.count` is 65535, beyond the 512 files"]);
    pair("no second part", &one, b"", &["m-00002-of-00002.gguf is empty"]);
    let (_folder, first) = first_part(&[("m-00001-of-00002.gguf", &one)]);
    refused("a missing part", &first, one.len(), &["cannot read", "m-00002-of-00002.gguf"]);
    let text = Raw::entry("split.count", 8).text("2");
    refused_file("split.gguf", &text.0, &["`split.count` is string, expected u64"]);
}
