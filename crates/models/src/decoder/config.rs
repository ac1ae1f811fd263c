//! What differs between decoders, read from metadata and range-checked.

use crate::ModelError;
use crate::decoder::rope::RopeConfig;
use crate::metadata::{Format, Metadata};
use crate::names::{Kind, LayerPart, Part, Setting};
use kun_graph::graph::RopeStyle;

/// Widest `D`, `F` or row of heads that a file may state.
const MAX_WIDTH: usize = 1 << 20;
/// Most layers that a file may state.
const MAX_LAYERS: usize = 1024;
/// Most heads that a file may state.
const MAX_HEADS: usize = 4096;
/// Widest head that a file may state.
const MAX_HEAD_DIM: usize = 1024;
/// Largest vocabulary that a file may state.
const MAX_VOCAB: usize = 1 << 24;
/// Longest context that a file may state: positions are i32.
pub(crate) const MAX_CONTEXT: usize = 1 << 30;

/// A decoder, by its numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// `D`.
    pub width: usize,
    /// `F`.
    pub ffn_width: usize,
    /// `Hq`; a multiple of `kv_heads`.
    pub heads: usize,
    /// `Hkv`.
    pub kv_heads: usize,
    /// `Dh`.
    pub head_dim: usize,
    /// `V`.
    pub vocab_size: usize,
    /// Positions the model is made for.
    pub context_tokens: usize,
    /// Added to the mean square in every norm.
    pub norm_eps: f32,
    /// How positions turn queries and keys.
    pub rope: RopeConfig,
    /// What differs from layer to layer.
    pub layers: Vec<LayerConfig>,
    /// RMS norm on every query and key head, before the rotation.
    pub qk_norm: bool,
    /// Biases of the query, key and value projections.
    pub qkv_bias: bool,
    /// Bias of the attention's output projection.
    pub attention_output_bias: bool,
    /// Biases of the feed-forward's three projections.
    pub mlp_bias: bool,
    /// The token embedding is also the projection to logits.
    pub tied_embeddings: bool,
}

/// What one layer has of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerConfig {
    /// Queries and keys are turned by their position.
    pub rope: bool,
    /// Only the last this many positions are seen, counting the query's own.
    pub window_tokens: Option<usize>,
}

impl LayerConfig {
    /// Turned by position, and every earlier position is seen.
    pub const FULL: LayerConfig = LayerConfig { rope: true, window_tokens: None };
}

impl DecoderConfig {
    /// The Llama layout with the file's numbers: what the architectures have in common.
    ///
    /// # Errors
    /// [`ModelError::Config`] naming the key, the value and its limits.
    pub fn from_metadata(meta: &Metadata<'_>) -> Result<DecoderConfig, ModelError> {
        refuse_what_would_be_wrong(meta)?;
        let width = meta.count(Setting::Width, 1..=MAX_WIDTH)?;
        let heads = meta.count(Setting::Heads, 1..=MAX_HEADS)?;
        let kv_heads = meta.optional_count(Setting::KvHeads, 1..=MAX_HEADS)?.unwrap_or(heads);
        if !heads.is_multiple_of(kv_heads) {
            let what = format!("{heads} query heads are not a multiple of {kv_heads}");
            return Err(meta.error(Setting::KvHeads, what));
        }
        let head_dim = head_dim(meta, width, heads)?;
        let layers = meta.count(Setting::Layers, 1..=MAX_LAYERS)?;
        let vocab_size = vocab_size(meta)?;
        let stated_context = meta.count(Setting::ContextTokens, 1..=MAX_CONTEXT)?;
        let rope = RopeConfig::from_metadata(meta, head_dim, stated_context)?;
        let bias = |setting, part| match meta.format() {
            Format::Gguf => Ok::<_, ModelError>(meta.has_tensor(Part::Layer(0, part), Kind::Bias)),
            Format::HuggingFace => Ok(meta.optional_flag(setting)?.unwrap_or(false)),
        };
        Ok(DecoderConfig {
            width,
            ffn_width: meta.count(Setting::FfnWidth, 1..=MAX_WIDTH)?,
            heads,
            kv_heads,
            head_dim,
            vocab_size,
            context_tokens: rope.scaling.context_tokens(stated_context),
            norm_eps: narrow(meta.number(Setting::NormEps, 0.0..=1.0)?),
            rope,
            layers: vec![LayerConfig::FULL; layers],
            qk_norm: false,
            qkv_bias: bias(Setting::AttentionBias, LayerPart::Query)?,
            attention_output_bias: bias(Setting::AttentionBias, LayerPart::AttentionOutput)?,
            mlp_bias: bias(Setting::MlpBias, LayerPart::Gate)?,
            tied_embeddings: tied_embeddings(meta)?,
        })
    }

    /// GGUF files of this architecture turn neighbouring elements, their rows having been reordered for it.
    pub fn interleaved_in_gguf(mut self, meta: &Metadata<'_>) -> DecoderConfig {
        if meta.format() == Format::Gguf {
            self.rope.style = RopeStyle::Interleaved;
        }
        self
    }

    /// Every layer sees only the last `window_tokens` positions.
    pub fn windowed(mut self, window_tokens: Option<usize>) -> DecoderConfig {
        for layer in &mut self.layers {
            layer.window_tokens = window_tokens;
        }
        self
    }

    /// The layers that `layer_types` or `max_window_layers` name see only `sliding_window` positions, if
    /// `use_sliding_window` says so: Qwen and SmolLM 3.
    ///
    /// # Errors
    /// [`ModelError::Config`] if the settings contradict each other.
    pub fn windowed_by_layer(mut self, meta: &Metadata<'_>) -> Result<DecoderConfig, ModelError> {
        if !meta.optional_flag(Setting::UseWindow)?.unwrap_or(false) {
            return Ok(self);
        }
        let Some(window) = window_tokens(meta)? else { return Ok(self) };
        let types = meta.optional_words(Setting::LayerTypes)?;
        let first = meta.optional_count(Setting::FirstWindowLayer, 0..=MAX_LAYERS)?.unwrap_or(0);
        if let Some(types) = &types
            && types.len() != self.layers.len()
        {
            let what = format!("{} entries for {} layers", types.len(), self.layers.len());
            return Err(meta.error(Setting::LayerTypes, what));
        }
        for (index, layer) in self.layers.iter_mut().enumerate() {
            let windowed = match types.as_ref().map(|types| types[index]) {
                None => index >= first,
                Some("sliding_attention") => true,
                Some("full_attention") => false,
                Some(other) => {
                    return Err(meta.error(Setting::LayerTypes, format!("`{other}` is not supported")));
                }
            };
            layer.window_tokens = windowed.then_some(window);
        }
        Ok(self)
    }
}

/// The window that the file states, if it does.
///
/// # Errors
/// [`ModelError::Config`] if it is out of range.
pub fn window_tokens(meta: &Metadata<'_>) -> Result<Option<usize>, ModelError> {
    // llama.cpp writes 0 for none.
    Ok(meta.optional_count(Setting::Window, 0..=usize::MAX)?.filter(|window| *window > 0))
}

/// Narrows a range-checked setting; the loss of digits is the file's own format.
#[allow(clippy::cast_possible_truncation)]
pub(crate) fn narrow(value: f64) -> f32 {
    value as f32
}

/// Settings that change the result and have no meaning here: better no answer than a wrong one.
fn refuse_what_would_be_wrong(meta: &Metadata<'_>) -> Result<(), ModelError> {
    if let Some(experts) = meta.optional_count(Setting::Experts, 0..=usize::MAX)?
        && experts > 0
    {
        return Err(meta.error(Setting::Experts, format!("{experts} experts: mixtures are not supported")));
    }
    if let Some(activation) = meta.optional_text(Setting::Activation)?
        && activation != "silu"
    {
        return Err(meta.error(Setting::Activation, format!("`{activation}` is not supported; known: silu")));
    }
    if let Some(method) = meta.optional_text(Setting::Quantization)? {
        let what =
            format!("`{method}` weights are not supported; take the unquantised folder or a GGUF file");
        return Err(meta.error(Setting::Quantization, what));
    }
    if meta.format() == Format::Gguf && meta.states(Setting::LayerTypes) {
        return Err(meta.error(Setting::LayerTypes, "a window that differs by layer is not supported"));
    }
    Ok(())
}

fn head_dim(meta: &Metadata<'_>, width: usize, heads: usize) -> Result<usize, ModelError> {
    let head_dim = match meta.optional_count(Setting::HeadDim, 1..=MAX_HEAD_DIM)? {
        Some(head_dim) => head_dim,
        None if width.is_multiple_of(heads) && width / heads <= MAX_HEAD_DIM => width / heads,
        None => {
            let what =
                format!("{heads} heads do not divide the width {width} into heads of at most {MAX_HEAD_DIM}");
            return Err(meta.error(Setting::Heads, what));
        }
    };
    let value_dim = meta.optional_count(Setting::ValueDim, 1..=MAX_HEAD_DIM)?.unwrap_or(head_dim);
    if value_dim != head_dim {
        let what = format!("{value_dim} differs from the key's {head_dim}, which is not supported");
        return Err(meta.error(Setting::ValueDim, what));
    }
    if heads * head_dim > MAX_WIDTH {
        let what = format!("{heads} heads of {head_dim} are wider than {MAX_WIDTH}");
        return Err(meta.error(Setting::Heads, what));
    }
    Ok(head_dim)
}

/// Rows of the token embedding; the vocabulary and the setting must agree with it.
fn vocab_size(meta: &Metadata<'_>) -> Result<usize, ModelError> {
    let name = meta.tensor_name(Part::TokenEmbedding, Kind::Weight).unwrap_or_default();
    let error = |what: String| ModelError::Tensor { name: name.clone(), what };
    let table = meta.tensors().get(&name).ok_or_else(|| error("missing".to_owned()))?;
    let rows = match table.shape.as_slice() {
        [rows, _] if (1..=MAX_VOCAB).contains(rows) => *rows,
        shape => return Err(error(format!("shape {shape:?} is no table of 1 to {MAX_VOCAB} rows"))),
    };
    if let Some(entries) = meta.vocabulary_entries() {
        // The vocabulary decides in GGUF files: some state a different `vocab_size` for the tokenizer alone.
        if entries != rows {
            return Err(error(format!("{rows} rows for a vocabulary of {entries} tokens")));
        }
    } else if let Some(stated) = meta.optional_count(Setting::VocabSize, 1..=MAX_VOCAB)?
        && stated != rows
    {
        return Err(error(format!("{rows} rows for a `{}` of {stated}", meta.key(Setting::VocabSize))));
    }
    Ok(rows)
}

fn tied_embeddings(meta: &Metadata<'_>) -> Result<bool, ModelError> {
    let separate = meta.has_tensor(Part::Output, Kind::Weight);
    Ok(meta.optional_flag(Setting::TiedEmbeddings)?.unwrap_or(!separate))
}
