//! Text encoders: one graph that reads whole texts in both directions, described by an [`EncoderConfig`].

pub mod albert;
pub mod alibi;
pub mod bert;
pub mod config;
pub mod deberta;
mod decoder;
pub mod distilbert;
pub mod electra;
mod gguf;
mod graph;
pub mod head;
pub mod load;
pub mod modernbert;
pub mod mpnet;
pub mod names;
pub mod rotary;
pub mod sentence;
pub mod settings;

pub use config::{EncoderConfig, FeedForward, LayerKind, NormOrder, Positions};
pub use head::{Head, Judge, Pooling};
pub use load::{Encoder, EncoderInfo, EncoderOptions, load};
pub use settings::Settings;

use crate::ModelError;

/// Turns settings into a description.
pub type Describe = fn(&Settings<'_>) -> Result<EncoderConfig, ModelError>;

/// Names as `model_type` of `config.json` has them.
pub const ARCHITECTURES: &[(&str, Describe)] = &[
    ("bert", bert::bert),
    ("roberta", bert::roberta),
    ("xlm-roberta", bert::roberta),
    ("camembert", bert::roberta),
    ("distilbert", distilbert::distilbert),
    ("mpnet", mpnet::mpnet),
    ("deberta-v2", deberta::deberta_v2),
    ("electra", electra::electra),
    ("albert", albert::albert),
    ("modernbert", modernbert::modernbert),
    ("nomic_bert", rotary::nomic_bert),
    ("gte", rotary::gte),
    (alibi::JINA_V2, alibi::jina_v2),
    ("jina_embeddings_v3", rotary::jina_v3),
];

/// Whether the model in `files` is read as an encoder: it has the layers of one, or those of a decoder with a head that
/// embeds or classifies.
pub fn is_encoder(files: &kun_formats::ModelFiles) -> bool {
    match files {
        kun_formats::ModelFiles::Gguf(gguf) => {
            let name = gguf.metadata.optional_str("general.architecture").ok().flatten();
            name.is_some_and(|name| gguf::knows(name) || gguf::pools(gguf, name))
        }
        kun_formats::ModelFiles::HuggingFace { config, .. } => {
            let name = config.optional_str("model_type").ok().flatten().unwrap_or_default();
            let classifies = load::class(config).ends_with("ForSequenceClassification");
            !config.sentence_modules.is_empty() || knows(name) || (classifies && crate::registry::knows(name))
        }
    }
}

/// Whether an architecture is one of these.
pub fn knows(architecture: &str) -> bool {
    ARCHITECTURES.iter().any(|(known, _)| *known == architecture)
}

/// The description of the model.
///
/// # Errors
/// [`ModelError::Architecture`] naming the known ones, or what the description finds wrong.
pub fn describe(settings: &Settings<'_>) -> Result<EncoderConfig, ModelError> {
    let name = settings.architecture();
    match ARCHITECTURES.iter().find(|(known, _)| *known == name) {
        Some((_, describe)) => describe(settings),
        None => Err(ModelError::Architecture {
            name: name.to_owned(),
            known: ARCHITECTURES.iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", "),
        }),
    }
}
