//! T5 in GGUF files, as llama.cpp's converter writes it: settings under the names of `config.json`.

use crate::ModelError;
use crate::encoder::settings::Settings;
use crate::seq2seq::config::{AttentionNames, Names, StackNames};
use crate::seq2seq::{Generation, Seq2SeqConfig, t5};
use kun_formats::gguf::Value;
use kun_formats::{Gguf, HfConfig};
use serde_json::{Map, Value as Json, json};

/// What the format calls T5, 1.1, Flan-T5 and mT5 alike.
pub(super) const ARCHITECTURE: &str = "t5";

/// Settings by their GGUF names and by those of `config.json`; later ones hold.
const SETTINGS: [(&str, &str); 13] = [
    ("t5.embedding_length", "d_model"),
    ("t5.feed_forward_length", "d_ff"),
    ("t5.attention.head_count", "num_heads"),
    ("t5.attention.key_length", "d_kv"),
    ("t5.block_count", "num_layers"),
    ("t5.decoder_block_count", "num_decoder_layers"),
    ("t5.attention.layer_norm_epsilon", "layer_norm_epsilon"),
    ("t5.attention.layer_norm_rms_epsilon", "layer_norm_epsilon"),
    ("t5.attention.relative_buckets_count", "relative_attention_num_buckets"),
    ("t5.decoder_start_token_id", "decoder_start_token_id"),
    ("tokenizer.ggml.bos_token_id", "bos_token_id"),
    ("tokenizer.ggml.eos_token_id", "eos_token_id"),
    ("tokenizer.ggml.padding_token_id", "pad_token_id"),
];

/// The description of the model in `gguf` and the settings of its search, which are those of greedy search: the format
/// holds no others.
///
/// # Errors
/// [`ModelError::Config`] naming the key, under its name in `config.json`.
pub(super) fn describe(gguf: &Gguf) -> Result<(Seq2SeqConfig, Generation), ModelError> {
    let has = |name: &str| gguf.tensors.get(name).is_some();
    let mut settings = Map::new();
    for (key, name) in SETTINGS {
        let value = match gguf.metadata.get(key) {
            Some(Value::U32(value)) => json!(value),
            Some(Value::U64(value)) => json!(value),
            Some(Value::I32(value)) => json!(value),
            Some(Value::F32(value)) => json!(f64::from(*value)),
            _ => continue,
        };
        settings.insert(name.to_owned(), value);
    }
    let rows = gguf.tensors.get("token_embd.weight").and_then(|table| table.shape.first().copied());
    settings.insert("vocab_size".to_owned(), json!(rows));
    settings.insert("model_type".to_owned(), json!(ARCHITECTURE));
    // Only the first T5 has no matrix of its own for the logits, and scales them down.
    settings.insert("tie_word_embeddings".to_owned(), json!(!has("output.weight")));
    let gated = has("enc.blk.0.ffn_gate.weight");
    settings.insert("feed_forward_proj".to_owned(), json!(if gated { "gated-gelu" } else { "relu" }));
    let settings = Json::Object(settings);
    let config = t5::t5(&Settings::new(&settings)?, &gguf.tensors)?;
    let names = Names {
        encoder_table: "token_embd.weight".to_owned(),
        decoder_table: "token_embd.weight".to_owned(),
        output: has("output.weight").then(|| "output.weight".to_owned()),
        logits_bias: None,
        encoder: ENCODER,
        decoder: DECODER,
        ignored: &["cross_attn_rel_b.weight"],
    };
    let generation = Generation::read(&HfConfig { config: settings, ..HfConfig::default() })?;
    Ok((Seq2SeqConfig { names, ..config }, generation))
}

const ENCODER: StackNames = StackNames {
    positions: "enc.blk.0.attn_rel_b",
    embedding_norm: "",
    last_norm: "enc.output_norm",
    attention: AttentionNames {
        query: "enc.blk.{}.attn_q",
        key: "enc.blk.{}.attn_k",
        value: "enc.blk.{}.attn_v",
        output: "enc.blk.{}.attn_o",
        norm: "enc.blk.{}.attn_norm",
    },
    cross: None,
    gate: "enc.blk.{}.ffn_gate",
    up: "enc.blk.{}.ffn_up",
    down: "enc.blk.{}.ffn_down",
    ffn_norm: "enc.blk.{}.ffn_norm",
};

const DECODER: StackNames = StackNames {
    positions: "dec.blk.0.attn_rel_b",
    embedding_norm: "",
    last_norm: "dec.output_norm",
    attention: AttentionNames {
        query: "dec.blk.{}.attn_q",
        key: "dec.blk.{}.attn_k",
        value: "dec.blk.{}.attn_v",
        output: "dec.blk.{}.attn_o",
        norm: "dec.blk.{}.attn_norm",
    },
    cross: Some(AttentionNames {
        query: "dec.blk.{}.cross_attn_q",
        key: "dec.blk.{}.cross_attn_k",
        value: "dec.blk.{}.cross_attn_v",
        output: "dec.blk.{}.cross_attn_o",
        norm: "dec.blk.{}.cross_attn_norm",
    }),
    gate: "dec.blk.{}.ffn_gate",
    up: "dec.blk.{}.ffn_up",
    down: "dec.blk.{}.ffn_down",
    ffn_norm: "dec.blk.{}.ffn_norm",
};
