//! MPNet (arXiv:2004.09297).

use crate::ModelError;
use crate::encoder::head::HeadNames;
use crate::encoder::names::{Names, Projections};
use crate::encoder::{EncoderConfig, Positions, Settings};

/// Distances of MPNet's biases beyond this share a bucket.
const MAX_DISTANCE: usize = 128;

/// BERT's layers, with a bias by distance that all of them share; positions count from the padding token's id on.
pub fn mpnet(settings: &Settings<'_>) -> Result<EncoderConfig, ModelError> {
    let padding = settings.optional_count("pad_token_id", 0..=64)?.unwrap_or(1);
    let config = EncoderConfig {
        token_types: 0,
        names: Names {
            root: "mpnet",
            projections: Projections::Separate {
                query: "encoder.layer.{}.attention.attn.q",
                key: "encoder.layer.{}.attention.attn.k",
                value: "encoder.layer.{}.attention.attn.v",
            },
            attention_output: "encoder.layer.{}.attention.attn.o",
            attention_norm: "encoder.layer.{}.attention.LayerNorm",
            ..Names::BERT
        },
        head_names: HeadNames::ROBERTA,
        ignored: &["lm_head.", "pooler."],
        ..EncoderConfig::from_settings(settings)?
    };
    let mut config = config.positions_from(padding + 1)?;
    if let Positions::Learned { rows, first } = config.positions {
        config.positions = Positions::LearnedAndBuckets {
            rows,
            first,
            buckets: settings.optional_count("relative_attention_num_buckets", 4..=4096)?.unwrap_or(32),
            max_distance: MAX_DISTANCE,
            name: "encoder.relative_attention_bias",
        };
    }
    Ok(config)
}
