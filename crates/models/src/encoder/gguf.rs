//! Encoders in GGUF files, as llama.cpp's converter writes them: their settings under the names of `config.json`.

use crate::ModelError;
use crate::encoder::head::{Head, Pooling};
use crate::encoder::names::{Names, Projections};
use crate::encoder::settings::wrong;
use crate::encoder::{EncoderConfig, FeedForward, Settings, describe};
use kun_formats::Gguf;
use kun_formats::gguf::Value;
use serde_json::{Map, Value as Json, json};

/// Settings by their GGUF names, the architecture left out, and by those of `config.json`.
const SETTINGS: [(&str, &str); 8] = [
    ("embedding_length", "hidden_size"),
    ("feed_forward_length", "intermediate_size"),
    ("attention.head_count", "num_attention_heads"),
    ("block_count", "num_hidden_layers"),
    ("context_length", "max_position_embeddings"),
    ("attention.layer_norm_epsilon", "layer_norm_eps"),
    ("rope.freq_base", "rope_theta"),
    ("vocab_size", "vocab_size"),
];

const NAMES: Names = Names {
    root: "",
    words: "token_embd",
    positions: "position_embd",
    types: "token_types",
    embedding_norm: "token_embd_norm",
    embedding_projection: "",
    projections: Projections::Separate {
        query: "blk.{}.attn_q",
        key: "blk.{}.attn_k",
        value: "blk.{}.attn_v",
    },
    attention_output: "blk.{}.attn_output",
    attention_norm: "blk.{}.attn_output_norm",
    gate: "blk.{}.ffn_up",
    up: "",
    down: "blk.{}.ffn_down",
    ffn_norm: "blk.{}.layer_output_norm",
    final_norm: "",
};

/// The architectures and what `config.json` calls them.
const ARCHITECTURES: [(&str, &str); 2] = [("bert", "bert"), ("nomic-bert", "nomic_bert")];

/// Whether a file of this architecture is an encoder.
pub(super) fn knows(architecture: &str) -> bool {
    ARCHITECTURES.iter().any(|(known, _)| *known == architecture)
}

/// The description of the encoder in `gguf`, its settings, and what stands on top.
pub(super) fn describe_gguf(
    gguf: &Gguf,
    architecture: &str,
) -> Result<(EncoderConfig, Json, Head), ModelError> {
    let mut settings = Map::new();
    let known = ARCHITECTURES.iter().find(|(known, _)| *known == architecture);
    let (_, model_type) = known.ok_or_else(|| ModelError::Architecture {
        name: architecture.to_owned(),
        known: ARCHITECTURES.map(|(known, _)| known).join(", "),
    })?;
    settings.insert("model_type".to_owned(), json!(model_type));
    for (key, name) in SETTINGS {
        let value = match gguf.metadata.get(&format!("{architecture}.{key}")) {
            Some(Value::U32(value)) => json!(value),
            Some(Value::U64(value)) => json!(value),
            Some(Value::I32(value)) => json!(value),
            Some(Value::F32(value)) => json!(f64::from(*value)),
            _ => continue,
        };
        settings.insert(name.to_owned(), value);
    }
    let rows = |name: &str| gguf.tensors.get(name).and_then(|tensor| tensor.shape.first().copied());
    if let Some(rows) = rows("token_embd.weight") {
        settings.insert("vocab_size".to_owned(), json!(rows));
    }
    settings.insert("type_vocab_size".to_owned(), json!(rows("token_types.weight").unwrap_or(0)));
    if let Some(rows) = rows("position_embd.weight") {
        settings.insert("max_position_embeddings".to_owned(), json!(rows));
    }
    let settings = Json::Object(settings);
    let config = describe(&Settings::new(&settings)?)?;
    let gated = config.feed_forward != FeedForward::Plain;
    let joined = rows("blk.0.attn_qkv.weight").is_some();
    let names = Names {
        projections: if joined { Projections::Joined("blk.{}.attn_qkv") } else { NAMES.projections },
        gate: if gated { "blk.{}.ffn_gate" } else { NAMES.gate },
        up: if gated { "blk.{}.ffn_up" } else { "" },
        ..NAMES
    };
    let config = EncoderConfig {
        // Nomic's first models have no biases, later ones may.
        attention_bias: rows("blk.0.attn_output.bias").is_some(),
        names,
        ignored: &["cls", "rope_freqs"],
        ..config
    };
    let key = format!("{architecture}.pooling_type");
    let pooling = match gguf.metadata.get(&key) {
        None | Some(Value::U32(0 | 1)) => Pooling::Mean,
        Some(Value::U32(2)) => Pooling::First,
        Some(Value::U32(3)) => Pooling::Last,
        Some(Value::U32(4)) => return Err(wrong(&key, "ranking models in GGUF files are not supported")),
        _ => return Err(wrong(&key, "is not known")),
    };
    Ok((config, settings, Head::Embedding { pooling, dense: Vec::new(), normalize: true }))
}
