//! Real models.

use super::{ModelFiles, architecture, open};
use crate::FormatError;
use kun_tensor::DType;
use kun_tensor::storage::Access;
use std::path::PathBuf;

fn models() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/models"))
}

#[test]
fn opens_one_model_in_three_forms() {
    let folder = models().join("llm/stories260k");
    let mut embeddings = Vec::new();
    for name in ["stories260k.f32.gguf", "stories260k.q8_0.gguf"] {
        let Ok(ModelFiles::Gguf(gguf)) = open(&folder.join(name), Access::Mapped) else {
            panic!("{name} is a GGUF file")
        };
        assert_eq!(gguf.metadata.u32("llama.attention.head_count").unwrap(), 8);
        assert_eq!(architecture(&folder.join(name)).as_deref(), Some("llama"));
        let info = gguf.tensors.get("token_embd.weight").unwrap().clone();
        embeddings.push((info.dtype, info.shape.clone(), gguf.tensors.bytes(&info, 0..32).unwrap().to_vec()));
    }
    assert_eq!(architecture(&folder.join("hf")).as_deref(), Some("llama"));
    assert_eq!(architecture(&folder.join("hf/config.json")), None);
    let Ok(ModelFiles::HuggingFace { config, tensors }) = open(&folder.join("hf"), Access::Read) else {
        panic!("a folder with safetensors")
    };
    assert_eq!(config.u32("num_attention_heads").unwrap(), 8);
    assert_eq!(config.str("model_type").unwrap(), "llama");
    assert!(config.f32("rms_norm_eps").unwrap() < 1e-3);
    assert!(config.tokenizer_json.starts_with(b"{"));
    assert!(config.generation.is_object() && config.tokenizer_config.is_object());
    let info = tensors.get("model.embed_tokens.weight").unwrap();
    let folder_embedding = (info.dtype, info.shape.clone(), tensors.bytes(info, 0..32).unwrap().to_vec());
    assert_eq!(embeddings[0], folder_embedding);
    assert_eq!((embeddings[1].0, &embeddings[1].1), (DType::Q8_0, &folder_embedding.1));
    let covered: u64 = tensors.tensors.values().map(|info| info.len).sum();
    assert!(covered < tensors.files[0].len() && covered > tensors.files[0].len() * 9 / 10);
}

#[test]
fn opens_every_vocabulary() {
    for (name, tokens, model) in [
        ("bert-bge", 30_522, "bert"),
        ("gpt-2", 50_257, "gpt2"),
        ("llama-spm", 32_000, "llama"),
        ("phi-3", 32_064, "llama"),
    ] {
        let path = models().join(format!("tokenizers/{name}/ggml-vocab-{name}.gguf"));
        let Ok(ModelFiles::Gguf(gguf)) = open(&path, Access::Read) else { panic!("{name} is a GGUF file") };
        assert_eq!(gguf.metadata.str("tokenizer.ggml.model").unwrap(), model);
        assert_eq!(gguf.metadata.strings("tokenizer.ggml.tokens").unwrap().len(), tokens);
        assert_eq!(gguf.metadata.i32s("tokenizer.ggml.token_type").unwrap().len(), tokens);
    }
}

#[test]
fn says_that_a_real_onnx_model_comes_later() {
    let error = open(&models().join("face/yunet/yunet_120x160.onnx"), Access::Mapped).unwrap_err();
    assert!(matches!(error, FormatError::NotSupported { kind: "an ONNX model", .. }), "{error}");
}
