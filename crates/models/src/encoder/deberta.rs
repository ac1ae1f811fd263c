//! DeBERTa v2 and v3 (arXiv:2006.03654, arXiv:2111.09543).

use crate::ModelError;
use crate::encoder::config::{Disentangled, MAX_CONTEXT};
use crate::encoder::head::{Dense, HeadNames};
use crate::encoder::names::{Names, Projections};
use crate::encoder::settings::wrong;
use crate::encoder::{EncoderConfig, Positions, Settings};
use serde_json::Value;

/// BERT's layers with attention that compares content and distance apart.
pub fn deberta_v2(settings: &Settings<'_>) -> Result<EncoderConfig, ModelError> {
    let config = EncoderConfig::from_settings(settings)?;
    if !settings.flag("relative_attention", false)? {
        return Err(wrong("relative_attention", "false is not supported"));
    }
    if settings.optional_count("conv_kernel_size", 0..=64)?.unwrap_or(0) > 0 {
        return Err(wrong("conv_kernel_size", "the convolution of the large v2 models is not supported"));
    }
    // -1 stands for none in both.
    let count = |key: &str| match settings.get(key).and_then(Value::as_i64) {
        Some(negative) if negative < 0 => Ok(None),
        _ => settings.optional_count(key, 0..=MAX_CONTEXT).map(|count| count.filter(|count| *count > 0)),
    };
    let far = count("max_relative_positions")?.unwrap_or(config.context_tokens);
    let buckets = count("position_buckets")?;
    let kinds: Vec<&str> = match settings.get("pos_att_type") {
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(text)) => text.split('|').collect(),
        _ => Vec::new(),
    };
    let norms = settings.word("norm_rel_ebd", "none")?.to_ascii_lowercase();
    let biased = settings.flag("position_biased_input", true)?;
    Ok(EncoderConfig {
        positions: Positions::Disentangled(Disentangled {
            rows: if biased { config.context_tokens } else { 0 },
            span: buckets.unwrap_or(far),
            max_distance: buckets.map(|_| far),
            content_to_position: kinds.contains(&"c2p"),
            position_to_content: kinds.contains(&"p2c"),
            shared_projections: settings.flag("share_att_key", false)?,
            norm: norms.split('|').any(|norm| norm.trim() == "layer_norm"),
        }),
        names: Names {
            root: "deberta",
            projections: Projections::Separate {
                query: "encoder.layer.{}.attention.self.query_proj",
                key: "encoder.layer.{}.attention.self.key_proj",
                value: "encoder.layer.{}.attention.self.value_proj",
            },
            ..Names::BERT
        },
        head_names: HeadNames {
            before: Some(Dense {
                name: "pooler.dense",
                inside: false,
                bias: true,
                function: Some(settings.function("pooler_hidden_act", "gelu")?),
            }),
            ..HeadNames::BERT
        },
        ignored: &["cls.", "pooler.", "lm_predictions.", "mask_predictions."],
        ..config
    })
}
