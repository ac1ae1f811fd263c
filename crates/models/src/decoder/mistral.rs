//! Mistral.

use crate::ModelError;
use crate::decoder::config::{DecoderConfig, window_tokens};
use crate::metadata::Metadata;
use crate::names::Setting;

/// The window of Mistral v0.1, whose configuration may leave it out; later versions say `null`.
const FIRST_WINDOW: usize = 4096;

/// Mistral (arXiv:2310.06825): the Llama layout, with a sliding window in v0.1.
pub fn mistral(meta: &Metadata<'_>) -> Result<DecoderConfig, ModelError> {
    let window = if meta.states(Setting::Window) { window_tokens(meta)? } else { Some(FIRST_WINDOW) };
    Ok(DecoderConfig::from_metadata(meta)?.windowed(window).interleaved_in_gguf(meta))
}
