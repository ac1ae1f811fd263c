use std::path::PathBuf;

use super::*;
use gguf_vocabulary::read as read_gguf;

mod gguf_vocabulary;

fn shared(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")).join(path)
}

/// The cases of llama.cpp's vocabulary test: texts, and their ids without beginning or end tokens.
fn check_vectors(name: &str) {
    let base = shared(&format!("models/tokenizers/{name}/ggml-vocab-{name}.gguf"));
    let tokenizer = Tokenizer::from_vocabulary(read_gguf(&base)).unwrap();
    let read = |extension: &str| std::fs::read_to_string(format!("{}.{extension}", base.display())).unwrap();
    let (inputs, outputs) = (read("inp"), read("out"));
    let texts: Vec<&str> = inputs.split("\n__ggml_vocab_test__\n").collect();
    let lines: Vec<&str> = outputs.lines().collect();
    assert!(texts.len() >= 45 && lines.len() >= 45);
    for (text, line) in texts.iter().zip(&lines) {
        let expected: Vec<u32> = line.split_whitespace().map(|id| id.parse().unwrap()).collect();
        assert_eq!(tokenizer.encode(text, Special::Plain).unwrap(), expected, "{name}: {text:?}");
    }
}

#[test]
fn gpt_2_vectors_match() {
    check_vectors("gpt-2");
}

#[test]
fn llama_sentencepiece_vectors_match() {
    check_vectors("llama-spm");
}

#[test]
fn phi_3_vectors_match() {
    check_vectors("phi-3");
}

#[test]
fn bert_vectors_match() {
    check_vectors("bert-bge");
}

#[test]
fn stories_vectors_match_from_gguf_and_json() {
    let folder = shared("models/llm/stories260k");
    let read = |path: &str| std::fs::read(folder.join(path)).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&read("expected/expected.json")).unwrap();
    let config = serde_json::from_slice(&read("hf/tokenizer_config.json")).unwrap();
    let gguf = Tokenizer::from_vocabulary(read_gguf(&folder.join("stories260k.f32.gguf"))).unwrap();
    let json = Tokenizer::from_json(&read("hf/tokenizer.json"), Some(&config)).unwrap();
    let vectors = expected["tokenizer_vectors"].as_array().unwrap();
    assert!(!vectors.is_empty());
    for vector in vectors {
        let text = vector["text"].as_str().unwrap();
        let ids: Vec<u32> = serde_json::from_value(vector["ids"].clone()).unwrap();
        for (kind, tokenizer) in [("gguf", &gguf), ("json", &json)] {
            assert_eq!(tokenizer.encode_prompt(text, Special::Plain).unwrap(), ids, "{kind}: {text:?}");
            assert_eq!(tokenizer.decode(&ids), text, "{kind}");
            assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(2)), "{kind}");
        }
        for &id in &ids {
            assert_eq!(gguf.token_bytes(id), json.token_bytes(id), "token {id}");
        }
    }
}
