//! BERT's layers with rotary positions: Nomic (arXiv:2402.01613), GTE (arXiv:2407.19669), Jina v3 (arXiv:2409.10173).

use crate::ModelError;
use crate::encoder::head::HeadNames;
use crate::encoder::names::{Names, Projections};
use crate::encoder::{EncoderConfig, FeedForward, LayerKind, Positions, Settings};

const NAMES: Names = Names {
    projections: Projections::Separate {
        query: "layers.{}.self_attn.q_proj",
        key: "layers.{}.self_attn.k_proj",
        value: "layers.{}.self_attn.v_proj",
    },
    attention_output: "layers.{}.self_attn.o_proj",
    attention_norm: "layers.{}.post_attention_layernorm",
    gate: "layers.{}.mlp.gate_proj",
    up: "layers.{}.mlp.up_proj",
    down: "layers.{}.mlp.down_proj",
    ffn_norm: "layers.{}.post_mlp_layernorm",
    ..Names::BERT
};

fn rotary(settings: &Settings<'_>, default_base: f64) -> Result<EncoderConfig, ModelError> {
    settings.expect("rope_parameters.rope_type", "default")?;
    let base = settings.number("rope_theta", default_base, 1.0..=1e12)?;
    let base = settings.number("rope_parameters.rope_theta", base, 1.0..=1e12)?;
    let mut config = EncoderConfig::from_settings(settings)?;
    config.layers.fill(LayerKind { reach: None, rope_base: Some(base) });
    Ok(EncoderConfig { positions: Positions::Rotary, head_names: HeadNames::BERT, ..config })
}

/// Nomic: gated, without biases.
pub fn nomic_bert(settings: &Settings<'_>) -> Result<EncoderConfig, ModelError> {
    Ok(EncoderConfig {
        feed_forward: FeedForward::Gated,
        activation: settings.function("hidden_act", "silu")?,
        attention_bias: false,
        ffn_bias: false,
        ffn_output_bias: false,
        names: Names { root: "nomic_bert", ..NAMES },
        ..rotary(settings, 1000.0)?
    })
}

/// GTE: gated, with biases but for the gate.
pub fn gte(settings: &Settings<'_>) -> Result<EncoderConfig, ModelError> {
    Ok(EncoderConfig {
        feed_forward: FeedForward::Gated,
        ffn_bias: false,
        names: Names { root: "gte", ..NAMES },
        ignored: &["lm_head.", "pooler."],
        ..rotary(settings, 160_000.0)?
    })
}

/// Jina v3 without its adapters: BERT's feed-forward.
pub fn jina_v3(settings: &Settings<'_>) -> Result<EncoderConfig, ModelError> {
    Ok(EncoderConfig {
        names: Names {
            root: "roberta",
            gate: "layers.{}.mlp.fc1",
            up: "",
            down: "layers.{}.mlp.fc2",
            ..NAMES
        },
        head_names: HeadNames::ROBERTA,
        ignored: &["lm_head.", "pooler."],
        ..rotary(settings, 20_000.0)?
    })
}
