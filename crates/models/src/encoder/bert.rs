//! BERT (arXiv:1810.04805), and RoBERTa (arXiv:1907.11692) with XLM-R (arXiv:1911.02116) and CamemBERT in its layout.

use crate::ModelError;
use crate::encoder::head::HeadNames;
use crate::encoder::names::Names;
use crate::encoder::{EncoderConfig, Settings};

/// BERT, and what calls itself BERT but counts distances.
pub fn bert(settings: &Settings<'_>) -> Result<EncoderConfig, ModelError> {
    if settings.word("position_embedding_type", "absolute")? == "alibi" {
        return super::alibi::jina_v2(settings);
    }
    EncoderConfig::from_settings(settings)
}

/// RoBERTa: positions count from the padding token's id on.
pub fn roberta(settings: &Settings<'_>) -> Result<EncoderConfig, ModelError> {
    let padding = settings.optional_count("pad_token_id", 0..=64)?.unwrap_or(1);
    let config = EncoderConfig {
        names: Names { root: "roberta", ..Names::BERT },
        head_names: HeadNames::ROBERTA,
        ignored: &["lm_head.", "pooler."],
        ..EncoderConfig::from_settings(settings)?
    };
    config.positions_from(padding + 1)
}
