//! Llama 2 and 3, SmolLM 2, and everything else that was published in their layout.

use crate::ModelError;
use crate::decoder::config::{DecoderConfig, window_tokens};
use crate::metadata::{Format, Metadata};

/// Llama (arXiv:2302.13971, arXiv:2407.21783). GGUF files of Mistral are of this architecture, too.
pub fn llama(meta: &Metadata<'_>) -> Result<DecoderConfig, ModelError> {
    let window = if meta.format() == Format::Gguf { window_tokens(meta)? } else { None };
    Ok(DecoderConfig::from_metadata(meta)?.windowed(window).interleaved_in_gguf(meta))
}
