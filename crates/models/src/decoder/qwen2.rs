//! Qwen 2 and 2.5.

use crate::ModelError;
use crate::decoder::config::DecoderConfig;
use crate::metadata::Metadata;

/// Qwen 2 (arXiv:2407.10671): the Llama layout, plus biases on queries, keys and values.
pub fn qwen2(meta: &Metadata<'_>) -> Result<DecoderConfig, ModelError> {
    DecoderConfig { qkv_bias: true, attention_output_bias: false, ..DecoderConfig::from_metadata(meta)? }
        .windowed_by_layer(meta)
}
