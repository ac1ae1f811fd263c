//! ELECTRA (arXiv:2003.10555).

use crate::ModelError;
use crate::encoder::head::{Dense, HeadNames, Pooling};
use crate::encoder::names::Names;
use crate::encoder::{EncoderConfig, Settings};
use kun_graph::UnaryOp;

/// BERT's layers; small ones have narrower embeddings, which one projection widens.
pub fn electra(settings: &Settings<'_>) -> Result<EncoderConfig, ModelError> {
    Ok(EncoderConfig {
        names: Names { root: "electra", ..Names::BERT },
        head_names: HeadNames {
            before: Some(Dense {
                name: "classifier.dense",
                inside: false,
                bias: true,
                function: Some(UnaryOp::Gelu),
            }),
            sequence: "classifier.out_proj",
            ..HeadNames::BERT
        }
        .pooled_by(Pooling::First),
        ignored: &["discriminator_predictions.", "generator_predictions.", "generator_lm_head."],
        ..EncoderConfig::from_settings(settings)?
    })
}
