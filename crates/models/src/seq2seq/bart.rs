//! BART (arXiv:1910.13461) and its kin: mBART (arXiv:2001.08210), Marian (arXiv:1804.00344), M2M100 (arXiv:2010.11125) and
//! NLLB (arXiv:2207.04672).

use crate::ModelError;
use crate::decoder::config::narrow;
use crate::encoder::settings::{Settings, wrong};
use crate::seq2seq::config::{
    AttentionNames, Fall, MAX_CONTEXT, MAX_HEADS, MAX_LAYERS, MAX_VOCAB, MAX_WIDTH, Names, NormKind, Norms,
    Positions, Seq2SeqConfig, Stack, StackNames,
};
use kun_formats::TensorTable;

/// BART: learned positions after two unused rows, norms after the sums.
pub fn bart(settings: &Settings<'_>, tensors: &TensorTable) -> Result<Seq2SeqConfig, ModelError> {
    for key in ["normalize_before", "add_final_layer_norm", "static_position_embeddings"] {
        if settings.flag(key, false)? {
            return Err(wrong(key, "true is not supported for `bart`"));
        }
    }
    let config = layout(settings, tensors)?;
    let rows = settings.count("max_position_embeddings", 1..=MAX_CONTEXT)?;
    Ok(Seq2SeqConfig { positions: Positions::Learned { rows: rows + 2, first: 2 }, ..config })
}

/// mBART: BART with norms before, and one more after the last layer.
pub fn mbart(settings: &Settings<'_>, tensors: &TensorTable) -> Result<Seq2SeqConfig, ModelError> {
    let config = layout(settings, tensors)?;
    let rows = settings.count("max_position_embeddings", 1..=MAX_CONTEXT)?;
    Ok(Seq2SeqConfig {
        positions: Positions::Learned { rows: rows + 2, first: 2 },
        norms: Norms { before: true, last: true, ..config.norms },
        ..config
    })
}

/// Marian: BART without a norm over embeddings, and with sinusoidal positions.
pub fn marian(settings: &Settings<'_>, tensors: &TensorTable) -> Result<Seq2SeqConfig, ModelError> {
    for key in ["normalize_before", "add_final_layer_norm", "normalize_embedding"] {
        if settings.flag(key, false)? {
            return Err(wrong(key, "true is not supported for `marian`"));
        }
    }
    let config = layout(settings, tensors)?;
    let rows = settings.count("max_position_embeddings", 1..=MAX_CONTEXT)?;
    Ok(Seq2SeqConfig {
        positions: Positions::Sinusoidal { rows, first: 0, fall: Fall::ByHalf },
        norms: Norms { embedding: false, ..config.norms },
        ..config
    })
}

/// M2M100 and NLLB: mBART without a norm over embeddings, and with sinusoidal positions after the padding token's.
pub fn m2m100(settings: &Settings<'_>, tensors: &TensorTable) -> Result<Seq2SeqConfig, ModelError> {
    let config = layout(settings, tensors)?;
    let rows = settings.count("max_position_embeddings", 1..=MAX_CONTEXT)?;
    let padding = settings.optional_count("pad_token_id", 0..=64)?.unwrap_or(1);
    Ok(Seq2SeqConfig {
        positions: Positions::Sinusoidal { rows, first: padding + 1, fall: Fall::ByHalfLessOne },
        norms: Norms { before: true, embedding: false, last: true, ..config.norms },
        ..config
    })
}

/// What they have in common.
fn layout(settings: &Settings<'_>, tensors: &TensorTable) -> Result<Seq2SeqConfig, ModelError> {
    let width = settings.count("d_model", 2..=MAX_WIDTH)?;
    let stack = |kind: &str| {
        let key = |name: &str| format!("{kind}_{name}");
        let heads = settings.count(&key("attention_heads"), 1..=MAX_HEADS)?;
        if !width.is_multiple_of(heads) {
            let what = format!("{heads} heads do not divide the width {width}");
            return Err(wrong(&key("attention_heads"), what));
        }
        Ok(Stack {
            layers: settings.count(&key("layers"), 1..=MAX_LAYERS)?,
            heads,
            head_dim: width / heads,
            ffn_width: settings.count(&key("ffn_dim"), 1..=MAX_WIDTH)?,
        })
    };
    let (encoder, decoder) = (stack("encoder")?, stack("decoder")?);
    if encoder.head_dim != decoder.head_dim {
        let what = format!("{} heads, the encoder has {}", decoder.heads, encoder.heads);
        return Err(wrong("decoder_attention_heads", what));
    }
    let vocab_size = settings.count("vocab_size", 1..=MAX_VOCAB)?;
    let written = settings.optional_count("decoder_vocab_size", 1..=MAX_VOCAB)?.unwrap_or(vocab_size);
    if written != vocab_size {
        let what = format!("{written}, the encoder's is {vocab_size}: two vocabularies are not supported");
        return Err(wrong("decoder_vocab_size", what));
    }
    let has = |name: &str| tensors.get(name).is_some();
    let shared = has("model.shared.weight") && settings.flag("share_encoder_decoder_embeddings", true)?;
    let table = |name: &str| if shared { "model.shared.weight".to_owned() } else { name.to_owned() };
    let tied = settings.flag("tie_word_embeddings", true)?;
    let rows = settings.count("max_position_embeddings", 1..=MAX_CONTEXT)?;
    let scaled = settings.flag("scale_embedding", false)?;
    Ok(Seq2SeqConfig {
        width,
        vocab_size,
        encoder,
        decoder,
        positions: Positions::Learned { rows, first: 0 },
        norms: Norms { kind: NormKind::Layer, before: false, embedding: true, last: false },
        norm_eps: 1e-5,
        gated: false,
        activation: settings.function("activation_function", "gelu")?,
        biases: true,
        embedding_scale: if scaled { narrow((width as f64).sqrt()) } else { 1.0 },
        attention_scale: narrow((encoder.head_dim as f64).powf(-0.5)),
        logits_scale: 1.0,
        max_tokens: Some(rows),
        names: Names {
            encoder_table: table("model.encoder.embed_tokens.weight"),
            decoder_table: table("model.decoder.embed_tokens.weight"),
            output: (!tied || !shared && has("lm_head.weight")).then(|| "lm_head.weight".to_owned()),
            logits_bias: has("final_logits_bias").then(|| "final_logits_bias".to_owned()),
            encoder: ENCODER,
            decoder: DECODER,
            // Copies of tables that are shared or computed.
            ignored: &[
                "embed_tokens.weight",
                "lm_head.weight",
                "embed_positions.weights",
                "embed_positions.weight",
                "embed_positions._float_tensor",
                "model.shared.weight",
            ],
        },
    })
}

const ENCODER: StackNames = StackNames {
    positions: "model.encoder.embed_positions",
    embedding_norm: "model.encoder.layernorm_embedding",
    last_norm: "model.encoder.layer_norm",
    attention: AttentionNames {
        query: "model.encoder.layers.{}.self_attn.q_proj",
        key: "model.encoder.layers.{}.self_attn.k_proj",
        value: "model.encoder.layers.{}.self_attn.v_proj",
        output: "model.encoder.layers.{}.self_attn.out_proj",
        norm: "model.encoder.layers.{}.self_attn_layer_norm",
    },
    cross: None,
    gate: "",
    up: "model.encoder.layers.{}.fc1",
    down: "model.encoder.layers.{}.fc2",
    ffn_norm: "model.encoder.layers.{}.final_layer_norm",
};

const DECODER: StackNames = StackNames {
    positions: "model.decoder.embed_positions",
    embedding_norm: "model.decoder.layernorm_embedding",
    last_norm: "model.decoder.layer_norm",
    attention: AttentionNames {
        query: "model.decoder.layers.{}.self_attn.q_proj",
        key: "model.decoder.layers.{}.self_attn.k_proj",
        value: "model.decoder.layers.{}.self_attn.v_proj",
        output: "model.decoder.layers.{}.self_attn.out_proj",
        norm: "model.decoder.layers.{}.self_attn_layer_norm",
    },
    cross: Some(AttentionNames {
        query: "model.decoder.layers.{}.encoder_attn.q_proj",
        key: "model.decoder.layers.{}.encoder_attn.k_proj",
        value: "model.decoder.layers.{}.encoder_attn.v_proj",
        output: "model.decoder.layers.{}.encoder_attn.out_proj",
        norm: "model.decoder.layers.{}.encoder_attn_layer_norm",
    }),
    gate: "",
    up: "model.decoder.layers.{}.fc1",
    down: "model.decoder.layers.{}.fc2",
    ffn_norm: "model.decoder.layers.{}.final_layer_norm",
};
