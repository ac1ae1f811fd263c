//! Files to the two graphs of an encoder-decoder and their weights.

use crate::encoder::settings::Settings;
use crate::metadata::Metadata;
use crate::seq2seq::config::{Fall, MAX_CONTEXT, Positions};
use crate::seq2seq::{Generation, describe, gguf, graph};
use crate::weights::Declared;
use crate::{ModelError, ModelInfo};
use kun_formats::ModelFiles;
use kun_graph::{Graph, WeightSource};
use kun_tensor::DType;
use std::sync::Arc;

/// How an encoder-decoder is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seq2SeqOptions {
    /// Give float matrices as this type; `None`: as stored.
    pub quantize: Option<DType>,
    /// Longest source, where the model has no limit of its own or a higher one; `None`: 1024.
    pub max_source_tokens: Option<usize>,
}

/// What the engine wants to know of an encoder-decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Seq2SeqInfo {
    /// As of every model; layers and heads are the decoder's.
    pub model: ModelInfo,
    /// Longest source, special tokens included.
    pub max_source_tokens: usize,
    /// Longest answer that positions allow.
    pub max_target_tokens: usize,
    /// The row of positions that the first token takes; `None`: the graphs have no such input.
    pub first_position: Option<usize>,
    /// A token that takes the row before the first position, wherever it stands (M2M100's padding).
    pub unplaced: Option<u32>,
    /// Layers of the decoder, each with keys and values of the source.
    pub decoder_layers: usize,
    /// Width of these keys and values.
    pub source_width: usize,
    /// How the folder wants answers searched.
    pub generation: Generation,
}

/// An encoder-decoder ready for a backend; see [`crate::seq2seq`].
pub struct Seq2Seq {
    /// The graph that reads.
    pub encoder: Graph,
    /// The graph that writes.
    pub decoder: Graph,
    /// By the weight names of both.
    pub weights: Box<dyn WeightSource>,
    /// The description.
    pub info: Seq2SeqInfo,
}

/// Longest source and answer unless asked or stated otherwise.
const DEFAULT_TOKENS: usize = 1024;

/// Describes the encoder-decoder in `files`.
///
/// # Errors
/// [`ModelError`].
pub fn load(files: Arc<ModelFiles>, options: &Seq2SeqOptions) -> Result<Seq2Seq, ModelError> {
    let meta = Metadata::new(&files)?;
    let (config, generation) = match files.as_ref() {
        ModelFiles::HuggingFace { config: folder, .. } => {
            let settings = Settings::new(&folder.config)?;
            (describe(&settings, meta.tensors())?, Generation::read(folder)?)
        }
        ModelFiles::Gguf(_) if meta.architecture() != gguf::ARCHITECTURE => {
            return Err(ModelError::Architecture {
                name: meta.architecture().to_owned(),
                known: gguf::ARCHITECTURE.to_owned(),
            });
        }
        ModelFiles::Gguf(file) => gguf::describe(file)?,
    };
    generation.check(config.vocab_size)?;
    let asked = options.max_source_tokens.unwrap_or(DEFAULT_TOKENS).clamp(1, MAX_CONTEXT);
    let max_source_tokens = config.max_tokens.map_or(asked, |own| own.min(asked));
    let mut declared = Declared::new(&meta, options.quantize, false)?;
    let mut weights = graph::Weights { config: &config, declared: &mut declared };
    let encoder = graph::encoder(&mut weights)?;
    let decoder = graph::decoder(&mut weights, max_source_tokens)?;
    let spare = declared.unused().find(|name| config.names.ignored.iter().all(|end| !name.ends_with(end)));
    if let Some(name) = spare {
        let what = format!("has no place in architecture `{}` as described", meta.architecture());
        return Err(ModelError::Tensor { name: name.to_owned(), what });
    }
    let stack = config.decoder;
    let info = Seq2SeqInfo {
        model: ModelInfo {
            architecture: meta.architecture().to_owned(),
            name: meta.name().map(str::to_owned),
            license: meta.license().map(str::to_owned),
            parameters: declared.parameters(),
            weights_bytes: declared.bytes(),
            quantization: declared.commonest_type().map(|dtype| dtype.name().to_owned()).unwrap_or_default(),
            context_tokens: max_source_tokens,
            vocab_size: config.vocab_size,
            width: config.width,
            layers: stack.layers,
            heads: stack.heads,
            kv_heads: stack.heads,
            head_dim: stack.head_dim,
        },
        max_source_tokens,
        max_target_tokens: config.max_tokens.unwrap_or(DEFAULT_TOKENS),
        first_position: match config.positions {
            Positions::Buckets { .. } => None,
            Positions::Learned { first, .. } | Positions::Sinusoidal { first, .. } => Some(first),
        },
        unplaced: match config.positions {
            Positions::Sinusoidal { fall: Fall::ByHalfLessOne, .. } => generation.pad,
            _ => None,
        },
        decoder_layers: stack.layers,
        source_width: stack.heads * stack.head_dim,
        generation,
    };
    let weights = Box::new(declared.into_source(Arc::clone(&files)));
    Ok(Seq2Seq { encoder, decoder, weights, info })
}
