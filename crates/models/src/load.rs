//! Files to graph and weights.

use crate::ModelError;
use crate::decoder;
use crate::metadata::Metadata;
use crate::registry;
use crate::weights::Declared;
use kun_formats::ModelFiles;
use kun_graph::{Graph, WeightSource};
use kun_tensor::DType;
use std::sync::Arc;

/// How weights are loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Encode the matrices of an f32/f16/bf16 model as this type at load; those that are quantised already stay.
    pub quantize: Option<DType>,
}

/// What people and the engine want to know of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelInfo {
    /// `llama`, `qwen2`, `qwen3`, ..
    pub architecture: String,
    /// As the file names it.
    pub name: Option<String>,
    /// Licence, as the file states it.
    pub license: Option<String>,
    /// Number of weights' elements.
    pub parameters: u64,
    /// Bytes of the weights as stored (or as quantised at load).
    pub weights_bytes: u64,
    /// Commonest type of the linear weights, such as `q4_k`.
    pub quantization: String,
    /// Positions the model was trained for.
    pub context_tokens: usize,
    /// `V`.
    pub vocab_size: usize,
    /// `D`.
    pub width: usize,
    /// Layers.
    pub layers: usize,
    /// `Hq`.
    pub heads: usize,
    /// `Hkv`.
    pub kv_heads: usize,
    /// `Dh`.
    pub head_dim: usize,
}

/// A model ready for a backend.
///
/// A language model's graph has inputs `tokens` i32 `[T]`, `positions` i32 `[T]`, `rows` i32 `[R]` and output `logits` `[R, V]`.
pub struct Model {
    /// Built once, unoptimised.
    pub graph: Graph,
    /// By the graph's weight names.
    pub weights: Box<dyn WeightSource>,
    /// The description.
    pub info: ModelInfo,
}

/// Describes the model in `files`.
///
/// # Errors
/// [`ModelError`].
pub fn load(files: Arc<ModelFiles>, options: &LoadOptions) -> Result<Model, ModelError> {
    let meta = Metadata::new(&files)?;
    let config = registry::describe(&meta)?;
    let mut weights = Declared::new(&meta, options.quantize, config.tied_embeddings)?;
    let graph = decoder::build(&config, &meta, &mut weights)?;
    weights.check_complete()?;
    let info = ModelInfo {
        architecture: meta.architecture().to_owned(),
        name: meta.name().map(str::to_owned),
        license: meta.license().map(str::to_owned),
        parameters: weights.parameters(),
        weights_bytes: weights.bytes(),
        quantization: weights.commonest_type().map(|dtype| dtype.name().to_owned()).unwrap_or_default(),
        context_tokens: config.context_tokens,
        vocab_size: config.vocab_size,
        width: config.width,
        layers: config.layers.len(),
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
    };
    let weights = Box::new(weights.into_source(Arc::clone(&files)));
    Ok(Model { graph, weights, info })
}

#[cfg(test)]
mod tests;
