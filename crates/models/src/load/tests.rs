use super::{LoadOptions, load};
use crate::ModelError;
use kun_formats::gguf::{Array, Gguf, Value};
use kun_formats::{ModelFiles, TensorInfo};
use kun_tensor::DType;
use kun_tensor::storage::Access;
use kun_testkit::golden;
use std::sync::Arc;

fn gguf(name: &str) -> Gguf {
    let path = golden::testdata().join(format!("models/{name}/{name}.gguf"));
    match kun_formats::open(&path, Access::Mapped).unwrap() {
        ModelFiles::Gguf(gguf) => gguf,
        ModelFiles::HuggingFace { .. } => panic!("{} is a folder", path.display()),
    }
}

fn folder(name: &str) -> ModelFiles {
    kun_formats::open(&golden::testdata().join(format!("models/{name}/hf")), Access::Mapped).unwrap()
}

/// The message of the error that loading `files` gives.
fn refusal(files: ModelFiles) -> String {
    match load(Arc::new(files), &LoadOptions::default()) {
        Ok(model) => panic!("loaded: {:?}", model.info),
        Err(error) => error.to_string(),
    }
}

fn with_entry(name: &str, key: &str, value: Option<Value>) -> ModelFiles {
    let mut gguf = gguf(name);
    match value {
        Some(value) => gguf.metadata.entries.insert(key.to_owned(), value),
        None => gguf.metadata.entries.remove(key),
    };
    ModelFiles::Gguf(gguf)
}

fn with_config(name: &str, change: impl FnOnce(&mut serde_json::Value)) -> ModelFiles {
    let mut files = folder(name);
    if let ModelFiles::HuggingFace { config, .. } = &mut files {
        change(&mut config.config);
    }
    files
}

#[test]
fn bad_settings_of_gguf_files_are_named() {
    let table: Vec<(&str, &str, Option<Value>, &str)> = vec![
        (
            "llama2",
            "general.architecture",
            Some(Value::String("gpt9".into())),
            "known: llama, mistral, qwen2",
        ),
        ("llama2", "general.architecture", Some(Value::U32(1)), "not a string"),
        ("llama2", "general.architecture", None, "missing"),
        ("llama2", "llama.embedding_length", None, "`llama.embedding_length`: missing"),
        ("llama2", "llama.embedding_length", Some(Value::U32(0)), "0 is not within 1 to"),
        ("llama2", "llama.embedding_length", Some(Value::U64(u64::MAX)), "is not within 1 to"),
        ("llama2", "llama.embedding_length", Some(Value::I32(-32)), "not a whole number"),
        ("llama2", "llama.embedding_length", Some(Value::F32(32.0)), "not a whole number"),
        ("llama2", "llama.embedding_length", Some(Value::U32(64)), "[96, 32], wanted [96, 64]"),
        ("llama2", "llama.block_count", Some(Value::U32(0)), "0 is not within"),
        ("llama2", "llama.block_count", Some(Value::U32(3)), "tensor `blk.2."),
        ("llama2", "llama.block_count", Some(Value::U32(1)), "`blk.1."),
        ("llama2", "llama.block_count", Some(Value::U32(1 << 31)), "is not within 1 to 1024"),
        ("llama2", "llama.feed_forward_length", Some(Value::U32(63)), "wanted [63, 32]"),
        (
            "llama2",
            "llama.feed_forward_length",
            Some(Value::Array(Array::U32(vec![64, 32]))),
            "differs between layers",
        ),
        (
            "llama2",
            "llama.feed_forward_length",
            Some(Value::Array(Array::U32(vec![]))),
            "differs between layers",
        ),
        ("llama2", "llama.attention.head_count", Some(Value::U32(0)), "0 is not within"),
        (
            "llama2",
            "llama.attention.head_count",
            Some(Value::U32(5)),
            "5 query heads are not a multiple of 4",
        ),
        ("llama2", "llama.attention.head_count_kv", Some(Value::U32(0)), "0 is not within"),
        ("llama2", "llama.attention.head_count_kv", Some(Value::U32(3)), "not a multiple of 3"),
        ("llama2", "llama.attention.head_count_kv", Some(Value::U32(2)), "`blk.0.attn_k.weight`"),
        ("llama2", "llama.attention.key_length", Some(Value::U32(0)), "0 is not within"),
        ("llama2", "llama.attention.key_length", Some(Value::U32(16)), "wanted [64, 32]"),
        ("llama2", "llama.attention.value_length", Some(Value::U32(4)), "differs from the key's 8"),
        ("llama2", "llama.attention.layer_norm_rms_epsilon", None, "missing"),
        ("llama2", "llama.attention.layer_norm_rms_epsilon", Some(Value::F32(f32::NAN)), "NaN is not within"),
        ("llama2", "llama.attention.layer_norm_rms_epsilon", Some(Value::F32(-1.0)), "-1 is not within"),
        ("llama2", "llama.context_length", Some(Value::U32(0)), "0 is not within"),
        ("llama2", "llama.rope.dimension_count", Some(Value::U32(7)), "an even number"),
        ("llama2", "llama.rope.dimension_count", Some(Value::U32(10)), "10 is not within 2 to 8"),
        ("llama2", "llama.rope.freq_base", Some(Value::F32(0.0)), "0 is not within"),
        ("llama2", "llama.rope.freq_base", Some(Value::F32(f32::INFINITY)), "inf is not within"),
        (
            "llama2",
            "llama.rope.scaling.type",
            Some(Value::String("longrope".into())),
            "`longrope` is not supported",
        ),
        (
            "llama2",
            "llama.rope.scaling.type",
            Some(Value::String("linear".into())),
            "rope.scaling.factor`: missing",
        ),
        ("llama_linear_bias", "llama.rope.scaling.factor", Some(Value::F32(0.0)), "0 is not within"),
        ("qwen2_yarn", "qwen2.rope.scaling.yarn_ext_factor", Some(Value::F32(0.5)), "0.5 is not supported"),
        ("llama2", "llama.expert_count", Some(Value::U32(8)), "8 experts"),
        ("llama2", "llama.vocab_size", Some(Value::U32(95)), "96 rows for a `llama.vocab_size` of 95"),
        (
            "llama2",
            "tokenizer.ggml.tokens",
            Some(Value::Array(Array::String(vec!["a".into()]))),
            "vocabulary of 1",
        ),
        ("mistral", "llama.attention.sliding_window", Some(Value::String("24".into())), "not a whole number"),
        ("mistral", "llama.attention.sliding_window_pattern", Some(Value::U32(2)), "differs by layer"),
        (
            "llama_linear_bias",
            "general.architecture",
            Some(Value::String("qwen2".into())),
            "`qwen2.embedding_length`",
        ),
    ];
    for (name, key, value, wanted) in table {
        let label = format!("{name}: {key} = {value:?}");
        let message = refusal(with_entry(name, key, value));
        assert!(message.contains(wanted), "{label}: `{message}` does not say `{wanted}`");
    }
}

#[test]
fn bad_settings_of_folders_are_named() {
    use serde_json::{Value as Json, json};
    let table: Vec<(&str, &str, Json, &str)> = vec![
        ("llama2", "model_type", json!("gpt9"), "known: llama"),
        ("llama2", "model_type", Json::Null, "missing"),
        ("llama2", "hidden_size", json!("32"), "not a whole number"),
        ("llama2", "hidden_size", json!(-32), "not a whole number"),
        ("llama2", "hidden_size", json!(1e300), "not a whole number"),
        ("llama2", "num_hidden_layers", json!(1), "`model.layers.1."),
        ("llama2", "hidden_act", json!("gelu"), "`gelu` is not supported"),
        ("llama2", "quantization_config", json!({"quant_method": "gptq"}), "`gptq` weights"),
        ("llama2", "attention_bias", json!(true), "`model.layers.0.self_attn.q_proj.bias`: missing"),
        ("llama2", "attention_bias", json!("yes"), "neither true nor false"),
        ("llama_linear_bias", "mlp_bias", json!(false), "has no place in architecture `llama`"),
        ("llama2", "rope_scaling", json!({"rope_type": "longrope"}), "`longrope` is not supported"),
        ("llama2", "rope_scaling", json!({"rope_type": "linear"}), "`rope_scaling.factor`: missing"),
        (
            "llama3",
            "rope_scaling",
            json!({"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4}),
            "4 is not above the low factor 4",
        ),
        ("llama2", "partial_rotary_factor", json!(0.2), "an even number"),
        ("llama2", "tie_word_embeddings", json!(1), "neither true nor false"),
        ("smollm3", "no_rope_layers", json!([1, 0]), "2 entries for 4 layers"),
        ("smollm3", "no_rope_layers", json!([1, "a", 1, 1]), "not a list of whole numbers"),
        ("smollm3", "no_rope_layer_interval", json!(0), "0 is not within"),
        ("qwen2", "vocab_size", json!(97), "96 rows for a `vocab_size` of 97"),
        ("qwen3", "num_key_value_heads", json!(4), "k_proj.weight"),
    ];
    for (name, key, value, wanted) in table {
        let label = format!("{name}: {key} = {value}");
        let message = refusal(with_config(name, |config| config[key] = value));
        assert!(message.contains(wanted), "{label}: `{message}` does not say `{wanted}`");
    }
}

#[test]
fn windows_follow_the_layer_types() {
    use serde_json::json;
    let with = |types: serde_json::Value| {
        with_config("qwen2", |config| {
            config["use_sliding_window"] = json!(true);
            config["sliding_window"] = json!(16);
            config["layer_types"] = types;
        })
    };
    let windows = |files: &ModelFiles| -> Vec<_> {
        let meta = crate::metadata::Metadata::new(files).unwrap();
        crate::registry::describe(&meta).unwrap().layers.iter().map(|layer| layer.window_tokens).collect()
    };
    assert_eq!(windows(&with(json!(["full_attention", "sliding_attention"]))), [None, Some(16)]);
    assert!(refusal(with(json!(["full_attention"]))).contains("1 entries for 2 layers"));
    assert!(refusal(with(json!(["full_attention", "chunked"]))).contains("`chunked` is not supported"));
    let older = with_config("qwen2", |config| {
        config["use_sliding_window"] = json!(true);
        config["sliding_window"] = json!(16);
        config["max_window_layers"] = json!(1);
        config.as_object_mut().unwrap().remove("layer_types");
    });
    assert_eq!(windows(&older), [None, Some(16)]);
    let silent = with_config("mistral", |config| {
        config.as_object_mut().unwrap().remove("sliding_window");
    });
    assert_eq!(windows(&silent), [Some(4096), Some(4096)]);
    let without = with_config("mistral", |config| config["sliding_window"] = json!(null));
    assert_eq!(windows(&without), [None, None]);
}

#[test]
fn bad_tensors_are_named() {
    let with = |name: &str, change: &dyn Fn(&mut Gguf)| {
        let mut gguf = gguf(name);
        change(&mut gguf);
        refusal(ModelFiles::Gguf(gguf))
    };
    let edit = |tensor: &str, change: &dyn Fn(&mut TensorInfo)| {
        with("llama3", &|gguf| change(gguf.tensors.tensors.get_mut(tensor).unwrap()))
    };
    let missing = with("llama3", &|gguf| {
        gguf.tensors.tensors.remove("blk.1.ffn_up.weight");
    });
    assert_eq!(missing, "tensor `blk.1.ffn_up.weight`: missing; wanted shape [64, 32]");
    let no_table = with("llama3", &|gguf| {
        gguf.tensors.tensors.remove("token_embd.weight");
    });
    assert_eq!(no_table, "tensor `token_embd.weight`: missing");
    let turned = edit("blk.0.ffn_down.weight", &|tensor| tensor.shape.reverse());
    assert_eq!(turned, "tensor `blk.0.ffn_down.weight`: shape [64, 32], wanted [32, 64]");
    let whole = edit("blk.0.ffn_down.weight", &|tensor| tensor.dtype = DType::I16);
    assert_eq!(whole, "tensor `blk.0.ffn_down.weight`: type i16 cannot be a weight");
    let blocks = edit("blk.0.ffn_up.weight", &|tensor| tensor.dtype = DType::Q4K);
    assert_eq!(blocks, "tensor `blk.0.ffn_up.weight`: rows of 32 do not fill q4_k blocks of 256");
    let norm = edit("output_norm.weight", &|tensor| tensor.dtype = DType::Q8_0);
    assert_eq!(norm, "tensor `output_norm.weight`: type q8_0, wanted f32, f16 or bf16");
    let flat = edit("token_embd.weight", &|tensor| tensor.shape = vec![96 * 32]);
    assert!(flat.contains("is no table"), "{flat}");
    let divisors = edit("rope_freqs.weight", &|tensor| tensor.shape = vec![4]);
    assert!(divisors.contains("wanted f32 [8]"), "{divisors}");
    let norm_data = |gguf: &mut Gguf| {
        // Of the same length, but zero where the divisors should be: the biases of nothing.
        let zeros = gguf.tensors.tensors["blk.0.attn_q.weight"].clone();
        let divisors = gguf.tensors.tensors.get_mut("rope_freqs.weight").unwrap();
        (divisors.offset, divisors.dtype) = (zeros.offset, DType::F16);
        divisors.len = 16;
    };
    assert!(with("llama3", &norm_data).contains("cannot divide a frequency"));
    let spare = with("llama3", &|gguf| {
        let norm = gguf.tensors.tensors["output_norm.weight"].clone();
        gguf.tensors.tensors.insert("blk.0.attn_sinks.weight".into(), norm);
    });
    assert_eq!(spare, "tensor `blk.0.attn_sinks.weight`: has no place in architecture `llama` as described");
}

#[test]
fn quantizing_encodes_the_rows_of_float_matrices() {
    let files = Arc::new(folder("qwen2"));
    let plain = load(Arc::clone(&files), &LoadOptions::default()).unwrap();
    let q8_0 = load(files, &LoadOptions { quantize: Some(DType::Q8_0) }).unwrap();
    let name = "model.layers.1.mlp.down_proj.weight";
    assert_eq!(plain.weights.info(name), Some((DType::BF16, vec![32, 64])));
    assert_eq!(q8_0.weights.info(name), Some((DType::Q8_0, vec![32, 64])));
    assert_eq!((plain.info.quantization.as_str(), q8_0.info.quantization.as_str()), ("bf16", "q8_0"));

    let stored = plain.weights.rows(name, 3..7).unwrap();
    let mut values = vec![0.0; 4 * 64];
    kun_tensor::quant::decode(DType::BF16, &stored, &mut values).unwrap();
    let mut expected = vec![0; DType::Q8_0.bytes_for(4 * 64).unwrap()];
    kun_tensor::quant::encode(DType::Q8_0, &values, &mut expected).unwrap();
    assert_eq!(q8_0.weights.rows(name, 3..7).unwrap(), expected);

    // Vectors are given as f32 either way.
    let norm = "model.layers.1.input_layernorm.weight";
    assert_eq!(q8_0.weights.info(norm), Some((DType::F32, vec![32])));
    assert_eq!(q8_0.weights.rows(norm, 0..1).unwrap().len(), 4 * 32);
    assert!(q8_0.weights.rows(norm, 0..2).is_err());
    assert!(q8_0.weights.rows("model.layers.9.mlp.down_proj.weight", 0..1).is_err());

    let in_file = q8_0.graph.weights.iter().filter(|weight| weight.constant.is_none());
    let rows = |shape: &[usize]| if shape.len() == 1 { 1 } else { shape[0] };
    let bytes: usize = in_file.map(|w| q8_0.weights.rows(&w.name, 0..rows(&w.shape)).unwrap().len()).sum();
    assert_eq!(bytes as u64, q8_0.info.weights_bytes);
}

#[test]
fn only_types_that_can_be_encoded_are_taken() {
    let files = Arc::new(folder("qwen2"));
    for dtype in [DType::I8, DType::F64, DType::Bool] {
        let Err(ModelError::Config { key, what }) =
            load(Arc::clone(&files), &LoadOptions { quantize: Some(dtype) }).map(|model| model.info)
        else {
            panic!("{dtype} was taken");
        };
        assert_eq!(key, "quantize");
        assert!(what.contains("q8_0"), "{what}");
    }
}

mod properties {
    use super::{Arc, Array, LoadOptions, ModelFiles, Value, gguf, load};
    use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            (0u32..200).prop_map(Value::U32),
            any::<u32>().prop_map(Value::U32),
            any::<u64>().prop_map(Value::U64),
            any::<i32>().prop_map(Value::I32),
            any::<f32>().prop_map(Value::F32),
            any::<f64>().prop_map(Value::F64),
            any::<bool>().prop_map(Value::Bool),
            prop_oneof![Just("yarn"), Just("linear"), Just("llama3"), Just("none"), Just("x")]
                .prop_map(|text| Value::String(text.to_owned())),
            proptest::collection::vec(0u32..9, 0..4).prop_map(|list| Value::Array(Array::U32(list))),
        ]
    }

    proptest! {
        #[test]
        fn any_metadata_loads_or_is_refused(changes in proptest::collection::vec((0usize..64, value()), 1..6)) {
            for name in ["llama3", "qwen2_yarn", "smollm3"] {
                let mut gguf = gguf(name);
                let mut keys: Vec<String> = gguf.metadata.entries.keys().cloned().collect();
                for extra in ["attention.sliding_window", "rope.scaling.yarn_log_multiplier", "rope.scaling.attn_factor"] {
                    keys.push(format!("{}.{extra}", name.split('_').next().unwrap()));
                }
                for (key, value) in &changes {
                    gguf.metadata.entries.insert(keys[key % keys.len()].clone(), value.clone());
                }
                // Either is fine; a panic is not.
                let _ = load(Arc::new(ModelFiles::Gguf(gguf)), &LoadOptions::default());
            }
        }
    }
}
