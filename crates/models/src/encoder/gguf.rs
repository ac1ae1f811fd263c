//! Encoders in GGUF files, as llama.cpp's converter writes them: their settings under the names of `config.json`.

use crate::ModelError;
use crate::encoder::head::{Dense, Head, HeadNames, Pooling};
use crate::encoder::names::{Names, Projections};
use crate::encoder::settings::wrong;
use crate::encoder::{EncoderConfig, FeedForward, NormOrder, Settings, describe};
use kun_formats::Gguf;
use kun_formats::gguf::{Array, Value};
use kun_graph::UnaryOp;
use serde_json::{Map, Value as Json, json};

/// Settings by their GGUF names, the architecture left out, and by those of `config.json`.
const SETTINGS: [(&str, &str); 13] = [
    ("embedding_length", "hidden_size"),
    ("feed_forward_length", "intermediate_size"),
    ("attention.head_count", "num_attention_heads"),
    ("block_count", "num_hidden_layers"),
    ("context_length", "max_position_embeddings"),
    ("attention.layer_norm_epsilon", "layer_norm_eps"),
    ("attention.layer_norm_epsilon", "norm_eps"),
    ("attention.sliding_window", "local_attention"),
    ("attention.sliding_window_pattern", "global_attn_every_n_layers"),
    ("rope.freq_base", "rope_theta"),
    ("rope.freq_base", "global_rope_theta"),
    ("rope.freq_base_swa", "local_rope_theta"),
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

/// ModernBERT's, whose norms come first.
const NAMES_BEFORE: Names = Names {
    projections: Projections::Joined("blk.{}.attn_qkv"),
    attention_norm: "blk.{}.attn_norm",
    ffn_norm: "blk.{}.ffn_norm",
    final_norm: "output_norm",
    ..NAMES
};

/// The architectures and what `config.json` calls them.
const ARCHITECTURES: [(&str, &str); 5] = [
    ("bert", "bert"),
    ("nomic-bert", "nomic_bert"),
    ("jina-bert-v2", super::alibi::JINA_V2),
    ("jina-bert-v3", "jina_embeddings_v3"),
    ("modern-bert", "modernbert"),
];

/// The matrix that scores texts.
pub(super) const CLASSIFIER: &str = "cls.output.weight";

/// How a file makes one row of those of a text.
pub(super) enum Pooled {
    /// Into a vector.
    By(Pooling),
    /// Into so many scores.
    Ranked(usize),
}

/// Whether a file of this architecture is an encoder.
pub(super) fn knows(architecture: &str) -> bool {
    ARCHITECTURES.iter().any(|(known, _)| *known == architecture)
}

/// Whether a file says how rows are pooled: a decoder that embeds or ranks.
pub(super) fn pools(gguf: &Gguf, architecture: &str) -> bool {
    let pooling = gguf.metadata.get(&format!("{architecture}.pooling_type"));
    pooling.is_some_and(|pooling| *pooling != Value::U32(0))
}

/// What a file says about pooling; `None`: nothing.
pub(super) fn pooled(gguf: &Gguf, architecture: &str) -> Result<Option<Pooled>, ModelError> {
    let key = format!("{architecture}.pooling_type");
    Ok(Some(match gguf.metadata.get(&key) {
        None | Some(Value::U32(0)) => return Ok(None),
        Some(Value::U32(1)) => Pooled::By(Pooling::Mean),
        Some(Value::U32(2)) => Pooled::By(Pooling::First),
        Some(Value::U32(3)) => Pooled::By(Pooling::Last),
        Some(Value::U32(4)) => match gguf.tensors.get(CLASSIFIER).and_then(|t| t.shape.first().copied()) {
            Some(labels) if (1..=super::load::MAX_LABELS).contains(&labels) => Pooled::Ranked(labels),
            _ => return Err(wrong(&key, format!("ranking takes a tensor `{CLASSIFIER}`"))),
        },
        _ => return Err(wrong(&key, "is not known")),
    }))
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
            Some(Value::Array(Array::Bool(near))) => {
                let kind = |near: &bool| if *near { "sliding_attention" } else { "full_attention" };
                settings.insert("layer_types".to_owned(), near.iter().map(kind).collect());
                continue;
            }
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
    let has = |name: &str| rows(name).is_some();
    let names = match config.norm_order {
        NormOrder::Before => NAMES_BEFORE,
        NormOrder::After => names(&config, has),
    };
    let head = match pooled(gguf, architecture)? {
        None => Head::Embedding { pooling: Pooling::Mean, dense: Vec::new(), normalize: true },
        Some(Pooled::By(pooling)) => Head::Embedding { pooling, dense: Vec::new(), normalize: true },
        Some(Pooled::Ranked(_)) if config.norm_order == NormOrder::Before => {
            let key = format!("{architecture}.pooling_type");
            return Err(wrong(&key, "ranking models of this architecture are not supported in GGUF files"));
        }
        Some(Pooled::Ranked(labels)) => Head::Sequence { labels },
    };
    let dense = Dense { name: "cls", inside: true, bias: has("cls.bias"), function: Some(UnaryOp::Tanh) };
    let config = EncoderConfig {
        // Nomic's first models have no biases, later ones may.
        attention_bias: has("blk.0.attn_output.bias"),
        norm_bias: has("token_embd_norm.bias"),
        // Both forms of the second Jina models: gate and up in one matrix, or apart.
        feed_forward: match config.feed_forward {
            FeedForward::GatedJoined if has("blk.0.ffn_gate.weight") => FeedForward::Gated,
            other => other,
        },
        names,
        head_names: HeadNames {
            before: has("cls.weight").then_some(dense),
            sequence: "cls.output",
            ..HeadNames::BERT
        },
        ignored: &["cls", "rope_freqs"],
        ..config
    };
    Ok((config, settings, head))
}

/// The names of layers whose norms come after them.
fn names(config: &EncoderConfig, has: impl Fn(&str) -> bool) -> Names {
    let apart = config.feed_forward == FeedForward::Gated || has("blk.0.ffn_gate.weight");
    Names {
        projections: match has("blk.0.attn_qkv.weight") {
            true => Projections::Joined("blk.{}.attn_qkv"),
            false => NAMES.projections,
        },
        gate: if apart { "blk.{}.ffn_gate" } else { NAMES.gate },
        up: if apart { "blk.{}.ffn_up" } else { "" },
        ..NAMES
    }
}
