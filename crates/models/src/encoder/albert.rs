//! ALBERT (arXiv:1909.11942).

use crate::ModelError;
use crate::encoder::head::{Dense, HeadNames};
use crate::encoder::names::{Names, Projections};
use crate::encoder::settings::wrong;
use crate::encoder::{EncoderConfig, Settings};
use kun_graph::UnaryOp;

/// BERT's layers, all with the weights of one, over narrower embeddings.
pub fn albert(settings: &Settings<'_>) -> Result<EncoderConfig, ModelError> {
    for key in ["num_hidden_groups", "inner_group_num"] {
        let count = settings.optional_count(key, 0..=1024)?.unwrap_or(1);
        if count != 1 {
            return Err(wrong(key, format!("{count}: only 1 is supported")));
        }
    }
    let layer = "encoder.albert_layer_groups.0.albert_layers.0.";
    debug_assert!(NAMES.gate.starts_with(layer));
    let config = EncoderConfig::from_settings(settings)?;
    Ok(EncoderConfig {
        activation: settings.function("hidden_act", "gelu_new")?,
        shared_layers: true,
        names: NAMES,
        head_names: HeadNames {
            before: Some(Dense { name: "pooler", inside: true, bias: true, function: Some(UnaryOp::Tanh) }),
            ..HeadNames::BERT
        },
        ignored: &["predictions.", "sop_classifier.", "pooler."],
        ..config
    })
}

const NAMES: Names = Names {
    root: "albert",
    embedding_projection: "encoder.embedding_hidden_mapping_in",
    projections: Projections::Separate {
        query: "encoder.albert_layer_groups.0.albert_layers.0.attention.query",
        key: "encoder.albert_layer_groups.0.albert_layers.0.attention.key",
        value: "encoder.albert_layer_groups.0.albert_layers.0.attention.value",
    },
    attention_output: "encoder.albert_layer_groups.0.albert_layers.0.attention.dense",
    attention_norm: "encoder.albert_layer_groups.0.albert_layers.0.attention.LayerNorm",
    gate: "encoder.albert_layer_groups.0.albert_layers.0.ffn",
    down: "encoder.albert_layer_groups.0.albert_layers.0.ffn_output",
    ffn_norm: "encoder.albert_layer_groups.0.albert_layers.0.full_layer_layer_norm",
    ..Names::BERT
};
