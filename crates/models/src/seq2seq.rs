//! Encoder-decoders: one graph reads a source in both directions, another writes the answer token by token.
//!
//! The encoder's graph takes `tokens` i32 `[T]` and, where the model has positions of its own, `positions` i32 `[T]`
//! (rows of its table: see [`Seq2SeqInfo::first_position`]). It gives `states` `[T, D]` and, for every layer `i` of the
//! decoder, `keys.i` and `values.i` `[T, H * Dh]`: cross-attention's view of the source, computed once.
//!
//! The decoder's graph takes `tokens`, `positions` likewise, `rows` i32 `[R]`, `spans` i32 `[T, 2]` (the rows of each
//! token's source) and all `keys.i` and `values.i` as f32 `[U, H * Dh]`; it gives `logits` `[R, V]`. Continuations of one
//! source share its rows.

pub mod bart;
pub mod config;
pub mod generation;
mod gguf;
mod graph;
pub mod load;
pub mod t5;

pub use config::Seq2SeqConfig;
pub use generation::{EarlyStopping, Generation};
pub use load::{Seq2Seq, Seq2SeqInfo, Seq2SeqOptions, load};

use crate::ModelError;
use crate::encoder::settings::Settings;
use kun_formats::TensorTable;

/// Turns settings into a description; the tensors tell what no setting does.
pub type Describe = fn(&Settings<'_>, &TensorTable) -> Result<Seq2SeqConfig, ModelError>;

/// Names as `model_type` of `config.json` has them.
pub const ARCHITECTURES: &[(&str, Describe)] = &[
    ("t5", t5::t5),
    ("mt5", t5::mt5),
    ("bart", bart::bart),
    ("mbart", bart::mbart),
    ("marian", bart::marian),
    ("m2m_100", bart::m2m100),
];

/// Whether an architecture is one of these.
pub fn knows(architecture: &str) -> bool {
    ARCHITECTURES.iter().any(|(known, _)| *known == architecture)
}

/// The description of the model.
///
/// # Errors
/// [`ModelError::Architecture`] naming the known ones, or what the description finds wrong.
pub fn describe(settings: &Settings<'_>, tensors: &TensorTable) -> Result<Seq2SeqConfig, ModelError> {
    let name = settings.architecture();
    match ARCHITECTURES.iter().find(|(known, _)| *known == name) {
        Some((_, describe)) => describe(settings, tensors),
        None => Err(ModelError::Architecture {
            name: name.to_owned(),
            known: ARCHITECTURES.iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", "),
        }),
    }
}
