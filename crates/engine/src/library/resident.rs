//! A loaded model of any kind.

use crate::load::total;
use crate::seq2seq::is_seq2seq;
use crate::{
    DiffusionModel, EncodeOptions, Engine, EngineError, LoadOptions, LoadedEncoder, LoadedModel, Loading,
    OcrModel, Seq2SeqModel, Speculate, VisionModel, VisionOptions, Words,
};
use kun_tasks::describe::Verb;
use std::path::Path;
use std::sync::Arc;

/// What a model is loaded for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// Texts, in whatever way its files are for.
    #[default]
    Text,
    /// Pictures.
    Pictures(Verb),
    /// Texts in the space of a model's pictures.
    Words,
    /// Reading the text of pictures.
    Pages,
    /// Drawing pictures from words.
    Drawing,
}

/// A loaded model of any kind.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Resident {
    /// Generates text.
    Decoder(Arc<LoadedModel>),
    /// Turns texts into vectors or scores.
    Encoder(Arc<LoadedEncoder>),
    /// Turns texts into texts.
    Seq2Seq(Arc<Seq2SeqModel>),
    /// Sees or makes pictures.
    Pictures(Arc<VisionModel>),
    /// Turns texts into vectors beside those of pictures.
    Words(Arc<Words>),
    /// Reads the text of pictures.
    Pages(Arc<OcrModel>),
    /// Draws pictures from words.
    Drawing(Arc<DiffusionModel>),
}

impl Resident {
    /// Bytes it takes.
    pub fn memory_bytes(&self) -> u64 {
        match self {
            Resident::Decoder(model) => total(&model.memory()),
            Resident::Encoder(model) => total(&model.memory()),
            Resident::Seq2Seq(model) => total(&model.memory()),
            Resident::Pictures(model) => model.memory_bytes(),
            Resident::Words(model) => model.memory_bytes(),
            Resident::Pages(model) => model.memory_bytes(),
            Resident::Drawing(model) => model.memory_bytes(),
        }
    }

    /// Whether it answers nothing any more, by a fault of its worker.
    pub(super) fn has_failed(&self) -> bool {
        match self {
            Resident::Decoder(model) => model.has_failed(),
            Resident::Encoder(model) => model.model().has_failed(),
            Resident::Seq2Seq(model) => model.has_failed(),
            Resident::Pictures(model) => model.has_failed(),
            Resident::Words(model) => model.has_failed(),
            Resident::Pages(model) => model.has_failed(),
            // Each of its networks runs on the thread of whoever asks.
            Resident::Drawing(_) => false,
        }
    }

    /// Whether somebody holds it besides the library.
    pub(super) fn in_use(&self) -> bool {
        let holders = match self {
            Resident::Decoder(model) => Arc::strong_count(model),
            Resident::Encoder(model) => Arc::strong_count(model),
            Resident::Seq2Seq(model) => Arc::strong_count(model),
            Resident::Pictures(model) => Arc::strong_count(model),
            Resident::Words(model) => Arc::strong_count(model),
            Resident::Pages(model) => Arc::strong_count(model),
            Resident::Drawing(model) => Arc::strong_count(model),
        };
        holders > 1
    }

    /// Loads the model at `path`; one for texts is of whatever kind its files are.
    pub(super) fn load(
        engine: &Engine,
        path: &Path,
        used_for: Use,
        options: &LoadOptions,
        report: impl Fn(Loading) + Send + Sync,
    ) -> Result<Resident, EngineError> {
        let pictures = VisionOptions {
            threads: options.threads,
            max_memory_bytes: options.max_memory_bytes,
            no_mmap: options.no_mmap,
            ..VisionOptions::default()
        };
        match used_for {
            Use::Pictures(verb) => {
                Ok(Resident::Pictures(Arc::new(VisionModel::open(path, verb, &pictures)?)))
            }
            Use::Words => Ok(Resident::Words(Arc::new(Words::open(path, &pictures)?))),
            Use::Pages => {
                let folder = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
                Ok(Resident::Pages(Arc::new(OcrModel::open(folder, &pictures)?)))
            }
            Use::Drawing => Ok(Resident::Drawing(Arc::new(DiffusionModel::open(path, &pictures)?))),
            Use::Text if path == crate::null::path() => Ok(Resident::Decoder(engine.load(path, options)?)),
            Use::Text if is_seq2seq(path) => {
                // Its own numbers of rows and tokens are other numbers than a decoder's.
                let options = LoadOptions {
                    threads: options.threads,
                    max_memory_bytes: options.max_memory_bytes,
                    no_mmap: options.no_mmap,
                    ..LoadOptions::default()
                };
                Ok(Resident::Seq2Seq(Arc::new(engine.load_seq2seq(path, &options)?)))
            }
            Use::Text if crate::encode::is_encoder(path)? => {
                let options = EncodeOptions {
                    threads: options.threads,
                    max_memory_bytes: options.max_memory_bytes,
                    no_mmap: options.no_mmap,
                    ranks: true,
                    ..EncodeOptions::default()
                };
                Ok(Resident::Encoder(engine.load_encoder(path, &options, report)?))
            }
            Use::Text => Ok(Resident::Decoder(decoder(engine, path, options, report)?)),
        }
    }
}

/// A draft model guesses for models of its own vocabulary; for itself and others, guesses are looked up.
fn decoder(
    engine: &Engine,
    path: &Path,
    options: &LoadOptions,
    report: impl Fn(Loading) + Send + Sync,
) -> Result<Arc<LoadedModel>, EngineError> {
    let looked_up = LoadOptions { speculate: Speculate::Lookup, ..options.clone() };
    match &options.speculate {
        Speculate::Model(draft) if draft == path => engine.load_with_progress(path, &looked_up, report),
        Speculate::Model(_) => match engine.load_with_progress(path, options, &report) {
            Err(EngineError::Unsuitable { .. }) => engine.load_with_progress(path, &looked_up, report),
            loaded => loaded,
        },
        Speculate::Off | Speculate::Lookup => engine.load_with_progress(path, options, report),
    }
}
