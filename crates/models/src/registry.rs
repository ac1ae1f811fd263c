//! Every architecture by name: one line each.

use crate::ModelError;
use crate::decoder::{DecoderConfig, llama, mistral, qwen2, qwen3, smollm3};
use crate::metadata::Metadata;

/// Turns metadata into a description.
pub type Describe = fn(&Metadata<'_>) -> Result<DecoderConfig, ModelError>;

/// Names as in `general.architecture` of GGUF files and `model_type` of `config.json`.
pub const ARCHITECTURES: &[(&str, Describe)] = &[
    ("llama", llama::llama),
    ("mistral", mistral::mistral),
    ("qwen2", qwen2::qwen2),
    ("qwen3", qwen3::qwen3),
    ("smollm3", smollm3::smollm3),
];

/// Whether an architecture is one of these.
pub fn knows(architecture: &str) -> bool {
    ARCHITECTURES.iter().any(|(known, _)| *known == architecture)
}

/// The description of the model.
///
/// # Errors
/// [`ModelError::Architecture`] naming the known ones, or what the description finds wrong.
pub fn describe(meta: &Metadata<'_>) -> Result<DecoderConfig, ModelError> {
    let name = meta.architecture();
    match ARCHITECTURES.iter().find(|(known, _)| *known == name) {
        Some((_, describe)) => describe(meta),
        None => Err(ModelError::Architecture {
            name: name.to_owned(),
            known: ARCHITECTURES.iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", "),
        }),
    }
}
