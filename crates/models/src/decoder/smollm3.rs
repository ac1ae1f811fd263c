//! SmolLM 3.

use crate::ModelError;
use crate::decoder::config::DecoderConfig;
use crate::metadata::Metadata;
use crate::names::Setting;

/// GGUF files do not state it.
const INTERVAL: usize = 4;

/// SmolLM 3: the Llama layout, with every fourth layer blind to positions (NoPE, arXiv:2501.18795).
pub fn smollm3(meta: &Metadata<'_>) -> Result<DecoderConfig, ModelError> {
    let mut config = DecoderConfig::from_metadata(meta)?.interleaved_in_gguf(meta).windowed_by_layer(meta)?;
    let listed = meta.optional_counts(Setting::RopeLayers)?;
    let interval = meta.optional_count(Setting::NoRopeInterval, 1..=usize::MAX)?.unwrap_or(INTERVAL);
    if let Some(listed) = &listed
        && listed.len() != config.layers.len()
    {
        let what = format!("{} entries for {} layers", listed.len(), config.layers.len());
        return Err(meta.error(Setting::RopeLayers, what));
    }
    for (index, layer) in config.layers.iter_mut().enumerate() {
        layer.rope = match &listed {
            Some(listed) => listed[index] != 0,
            None => !(index + 1).is_multiple_of(interval),
        };
    }
    Ok(config)
}
