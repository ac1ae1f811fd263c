//! The vocabulary of a trusted GGUF file. `text` imports no other crate of Kun, not even in tests, so that it
//! can be built and fuzzed alone.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use crate::Vocabulary;

enum Value {
    Number(f64),
    Text(String),
    List(Vec<Value>),
}

impl Value {
    fn number(&self) -> f64 {
        let Value::Number(number) = self else { panic!("not a number") };
        *number
    }
    fn text(&self) -> String {
        let Value::Text(text) = self else { panic!("not a text") };
        text.clone()
    }
    fn list(&self) -> &[Value] {
        let Value::List(list) = self else { panic!("not a list") };
        list
    }
}

struct Reader(BufReader<File>);

impl Reader {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }
    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }
    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }
    fn text(&mut self) -> String {
        let mut bytes = vec![0; self.u64() as usize];
        self.0.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }
    fn value(&mut self, kind: u32) -> Value {
        Value::Number(match kind {
            0 | 7 => f64::from(self.bytes::<1>()[0]),
            1 => f64::from(i8::from_le_bytes(self.bytes())),
            2 => f64::from(u16::from_le_bytes(self.bytes())),
            3 => f64::from(i16::from_le_bytes(self.bytes())),
            4 => f64::from(self.u32()),
            5 => f64::from(i32::from_le_bytes(self.bytes())),
            6 => f64::from(f32::from_le_bytes(self.bytes())),
            8 => return Value::Text(self.text()),
            9 => {
                let (kind, len) = (self.u32(), self.u64());
                return Value::List((0..len).map(|_| self.value(kind)).collect());
            }
            10 | 11 => self.u64() as f64,
            12 => f64::from_le_bytes(self.bytes()),
            other => panic!("metadata type {other}"),
        })
    }
}

/// Reads the metadata of the GGUF file at `path`.
fn metadata(path: &Path) -> HashMap<String, Value> {
    let mut reader = Reader(BufReader::new(File::open(path).unwrap()));
    assert_eq!(&reader.bytes::<4>(), b"GGUF");
    let (_version, _tensors, entries) = (reader.u32(), reader.u64(), reader.u64());
    (0..entries)
        .map(|_| {
            let name = reader.text();
            let kind = reader.u32();
            (name, reader.value(kind))
        })
        .collect()
}

/// Reads the vocabulary of the GGUF file at `path`.
pub fn read(path: &Path) -> Vocabulary {
    let metadata = metadata(path);
    let get = |name: &str| metadata.get(&format!("tokenizer.ggml.{name}"));
    let list = |name: &str| get(name).map(Value::list).unwrap_or_default();
    let id = |name: &str| get(name).map(|value| value.number() as u32);
    let flag = |name: &str| get(name).map(|value| value.number() != 0.0);
    Vocabulary {
        model: get("model").unwrap().text(),
        pre: get("pre").map(Value::text).unwrap_or_default(),
        tokens: list("tokens").iter().map(Value::text).collect(),
        scores: list("scores").iter().map(|v| v.number() as f32).collect(),
        types: list("token_type").iter().map(|v| v.number() as i32).collect(),
        merges: list("merges").iter().map(Value::text).collect(),
        bos: id("bos_token_id"),
        eos: id("eos_token_id"),
        eot: id("eot_token_id"),
        unk: id("unknown_token_id"),
        sep: id("seperator_token_id"),
        pad: id("padding_token_id"),
        add_bos: flag("add_bos_token"),
        add_eos: flag("add_eos_token"),
        add_space_prefix: flag("add_space_prefix"),
        ..Vocabulary::default()
    }
}
