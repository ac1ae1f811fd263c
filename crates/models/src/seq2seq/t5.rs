//! T5 (arXiv:1910.10683), T5 1.1, Flan-T5 (arXiv:2210.11416) and mT5 (arXiv:2010.11934).

use crate::ModelError;
use crate::decoder::config::narrow;
use crate::encoder::settings::{Settings, function, wrong};
use crate::seq2seq::config::{
    AttentionNames, MAX_HEADS, MAX_LAYERS, MAX_VOCAB, MAX_WIDTH, Names, NormKind, Norms, Positions,
    Seq2SeqConfig, Stack, StackNames,
};
use kun_formats::TensorTable;
use kun_graph::UnaryOp;

/// T5: logits are scaled down unless the configuration says that embeddings are not tied (1.1 and later).
pub fn t5(settings: &Settings<'_>, tensors: &TensorTable) -> Result<Seq2SeqConfig, ModelError> {
    let tied = settings.flag("tie_word_embeddings", true)?;
    let scaled = settings.flag("scale_decoder_outputs", tied)?;
    let config = mt5(settings, tensors)?;
    let logits_scale = if scaled { narrow((config.width as f64).powf(-0.5)) } else { 1.0 };
    Ok(Seq2SeqConfig { logits_scale, ..config })
}

/// mT5: the layout of T5 1.1.
pub fn mt5(settings: &Settings<'_>, tensors: &TensorTable) -> Result<Seq2SeqConfig, ModelError> {
    let heads = settings.count("num_heads", 1..=MAX_HEADS)?;
    let head_dim = settings.count("d_kv", 1..=1024)?;
    let ffn_width = settings.count("d_ff", 1..=MAX_WIDTH)?;
    let layers = settings.count("num_layers", 1..=MAX_LAYERS)?;
    let decoder_layers = settings.optional_count("num_decoder_layers", 1..=MAX_LAYERS)?.unwrap_or(layers);
    let (gated, activation) = feed_forward(settings)?;
    let buckets = settings.optional_count("relative_attention_num_buckets", 4..=1 << 16)?.unwrap_or(32);
    let max_distance =
        settings.optional_count("relative_attention_max_distance", 3..=1 << 20)?.unwrap_or(128);
    if buckets % 2 != 0 || max_distance <= buckets / 2 {
        let what = format!("{buckets} buckets up to a distance of {max_distance}");
        return Err(wrong("relative_attention_num_buckets", what));
    }
    let stack = Stack { layers, heads, head_dim, ffn_width };
    let has = |name: &str| tensors.get(name).is_some();
    let table = |name: &str| if has("shared.weight") { "shared.weight".to_owned() } else { name.to_owned() };
    Ok(Seq2SeqConfig {
        width: settings.count("d_model", 1..=MAX_WIDTH)?,
        vocab_size: settings.count("vocab_size", 1..=MAX_VOCAB)?,
        encoder: stack,
        decoder: Stack { layers: decoder_layers, ..stack },
        positions: Positions::Buckets { buckets, max_distance },
        norms: Norms { kind: NormKind::Rms, before: true, embedding: false, last: true },
        norm_eps: narrow(settings.number("layer_norm_epsilon", 1e-6, 0.0..=1.0)?),
        gated,
        activation,
        biases: false,
        embedding_scale: 1.0,
        attention_scale: 1.0,
        logits_scale: 1.0,
        max_tokens: None,
        names: Names {
            encoder_table: table("encoder.embed_tokens.weight"),
            decoder_table: table("decoder.embed_tokens.weight"),
            output: has("lm_head.weight").then(|| "lm_head.weight".to_owned()),
            logits_bias: None,
            encoder: if gated {
                StackNames { up: "encoder.block.{}.layer.1.DenseReluDense.wi_1", ..ENCODER }
            } else {
                ENCODER
            },
            decoder: if gated {
                StackNames { up: "decoder.block.{}.layer.2.DenseReluDense.wi_1", ..DECODER }
            } else {
                DECODER
            },
            // The last one was written by the first versions of the library, and is read by none.
            ignored: &["embed_tokens.weight", "EncDecAttention.relative_attention_bias.weight"],
        },
    })
}

/// `relu`, `gated-gelu`, ..: whether it is gated, and by what.
fn feed_forward(settings: &Settings<'_>) -> Result<(bool, UnaryOp), ModelError> {
    let key = "feed_forward_proj";
    let text = settings.word(key, "relu")?;
    let (gated, name) = match text.strip_prefix("gated-") {
        // The approximation by tanh, whatever the name says.
        Some("gelu") => (true, "gelu_new"),
        Some(name) => (true, name),
        None => (false, text),
    };
    let activation = function(name).ok_or_else(|| wrong(key, format!("`{text}` is not supported")))?;
    Ok((gated, activation))
}

const ENCODER: StackNames = StackNames {
    positions: "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
    embedding_norm: "",
    last_norm: "encoder.final_layer_norm",
    attention: AttentionNames {
        query: "encoder.block.{}.layer.0.SelfAttention.q",
        key: "encoder.block.{}.layer.0.SelfAttention.k",
        value: "encoder.block.{}.layer.0.SelfAttention.v",
        output: "encoder.block.{}.layer.0.SelfAttention.o",
        norm: "encoder.block.{}.layer.0.layer_norm",
    },
    cross: None,
    gate: "encoder.block.{}.layer.1.DenseReluDense.wi_0",
    up: "encoder.block.{}.layer.1.DenseReluDense.wi",
    down: "encoder.block.{}.layer.1.DenseReluDense.wo",
    ffn_norm: "encoder.block.{}.layer.1.layer_norm",
};

const DECODER: StackNames = StackNames {
    positions: "decoder.block.0.layer.0.SelfAttention.relative_attention_bias",
    embedding_norm: "",
    last_norm: "decoder.final_layer_norm",
    attention: AttentionNames {
        query: "decoder.block.{}.layer.0.SelfAttention.q",
        key: "decoder.block.{}.layer.0.SelfAttention.k",
        value: "decoder.block.{}.layer.0.SelfAttention.v",
        output: "decoder.block.{}.layer.0.SelfAttention.o",
        norm: "decoder.block.{}.layer.0.layer_norm",
    },
    cross: Some(AttentionNames {
        query: "decoder.block.{}.layer.1.EncDecAttention.q",
        key: "decoder.block.{}.layer.1.EncDecAttention.k",
        value: "decoder.block.{}.layer.1.EncDecAttention.v",
        output: "decoder.block.{}.layer.1.EncDecAttention.o",
        norm: "decoder.block.{}.layer.1.layer_norm",
    }),
    gate: "decoder.block.{}.layer.2.DenseReluDense.wi_0",
    up: "decoder.block.{}.layer.2.DenseReluDense.wi",
    down: "decoder.block.{}.layer.2.DenseReluDense.wo",
    ffn_norm: "decoder.block.{}.layer.2.layer_norm",
};
