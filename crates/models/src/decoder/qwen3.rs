//! Qwen 3.

use crate::ModelError;
use crate::decoder::config::DecoderConfig;
use crate::metadata::Metadata;

/// Qwen 3 (arXiv:2505.09388): the Llama layout, plus an RMS norm on every query and key head.
pub fn qwen3(meta: &Metadata<'_>) -> Result<DecoderConfig, ModelError> {
    DecoderConfig { qk_norm: true, ..DecoderConfig::from_metadata(meta)? }.windowed_by_layer(meta)
}
