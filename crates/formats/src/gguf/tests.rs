//! Real files.

use super::{Array, Gguf, Value};
use kun_tensor::DType;
use kun_tensor::storage::Access;
use std::path::PathBuf;

fn models() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/models"))
}

#[test]
fn reads_a_llama_file() {
    for access in [Access::Mapped, Access::Read] {
        let gguf = Gguf::open(&models().join("llm/stories260k/stories260k.f32.gguf"), access).unwrap();
        let meta = &gguf.metadata;
        assert_eq!(gguf.version, 3);
        assert_eq!(meta.str("general.architecture").unwrap(), "llama");
        assert_eq!(meta.u32("llama.block_count").unwrap(), 5);
        assert_eq!(meta.u64("llama.embedding_length").unwrap(), 64);
        assert_eq!(meta.strings("tokenizer.ggml.tokens").unwrap().len(), 512);
        assert_eq!(meta.f32s("tokenizer.ggml.scores").unwrap().len(), 512);
        let embedding = gguf.tensors.get("token_embd.weight").unwrap();
        assert_eq!((embedding.dtype, &embedding.shape[..]), (DType::F32, &[512, 64][..]));
        assert_eq!(gguf.tensors.bytes(embedding, 0..embedding.len).unwrap().len(), 512 * 64 * 4);
        assert!(matches!(meta.get("tokenizer.ggml.tokens"), Some(Value::Array(Array::String(_)))));
    }
}
