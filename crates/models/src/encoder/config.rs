//! What differs between encoders, read from settings and range-checked.

use crate::ModelError;
use crate::encoder::Settings;
use crate::encoder::head::HeadNames;
use crate::encoder::names::Names;
use crate::encoder::settings::wrong;
use kun_graph::UnaryOp;

/// Widest layer or feed-forward that a file may state.
pub const MAX_WIDTH: usize = 1 << 20;
/// Most layers that a file may state.
pub const MAX_LAYERS: usize = 1024;
/// Most heads that a file may state.
pub const MAX_HEADS: usize = 4096;
/// Largest vocabulary that a file may state.
pub const MAX_VOCAB: usize = 1 << 24;
/// Longest text that a file may state.
pub const MAX_CONTEXT: usize = 1 << 20;
/// Most token types that a file may state.
pub const MAX_TYPES: usize = 1 << 12;

/// An encoder, by its numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// `D`.
    pub width: usize,
    /// `E`: width of the embeddings.
    pub embedding_width: usize,
    /// `F`.
    pub ffn_width: usize,
    /// `Hq`.
    pub heads: usize,
    /// `V`.
    pub vocab_size: usize,
    /// Longest text, special tokens included.
    pub context_tokens: usize,
    /// How positions enter.
    pub positions: Positions,
    /// Kinds of token types; 0: the model has none.
    pub token_types: usize,
    /// Added to the variance in every norm.
    pub norm_eps: f32,
    /// Whether norms have biases.
    pub norm_bias: bool,
    /// Where norms stand.
    pub norm_order: NormOrder,
    /// What differs from layer to layer.
    pub layers: Vec<LayerKind>,
    /// All layers have the weights of one.
    pub shared_layers: bool,
    /// The feed-forward.
    pub feed_forward: FeedForward,
    /// Its function.
    pub activation: UnaryOp,
    /// Biases of the query, key and value projections, and of attention's output.
    pub attention_bias: bool,
    /// Biases of the feed-forward's input projections.
    pub ffn_bias: bool,
    /// Bias of the feed-forward's output projection.
    pub ffn_output_bias: bool,
    /// What the weights are called.
    pub names: Names,
    /// What the weights of heads are called, and what stands before them.
    pub head_names: HeadNames,
    /// Beginnings of names that heads for other purposes have: nothing is lost by leaving these out.
    pub ignored: &'static [&'static str],
}

/// How the order of tokens enters.
#[derive(Clone, Debug, PartialEq)]
pub enum Positions {
    /// A table that is added to the embeddings.
    Learned {
        /// Rows of the table.
        rows: usize,
        /// The row of a text's first token.
        first: usize,
    },
    /// Queries and keys turn with it; the frequencies are those of each layer.
    Rotary,
    /// Distances lower the scores of each head by a slope (ALiBi).
    Slopes(Vec<f32>),
    /// A learned table, and a bias by distance that all layers share.
    LearnedAndBuckets {
        /// Rows of the table of positions.
        rows: usize,
        /// Its first row.
        first: usize,
        /// Rows of the table of biases.
        buckets: usize,
        /// Distances from here on share a bucket.
        max_distance: usize,
        /// The module of the biases.
        name: &'static str,
    },
    /// Content and distance are compared apart (DeBERTa).
    Disentangled(Disentangled),
}

/// Disentangled attention (arXiv:2006.03654).
#[derive(Clone, Debug, PartialEq)]
pub struct Disentangled {
    /// Rows of the table of absolute positions added to the embeddings; 0: none.
    pub rows: usize,
    /// Distances of one direction that have a row of their own in the table of distances.
    pub span: usize,
    /// With buckets: distances from here on share the last one. `None`: distances are not bucketed.
    pub max_distance: Option<usize>,
    /// The keys' distance to the query's content.
    pub content_to_position: bool,
    /// The query's distance to the keys' content.
    pub position_to_content: bool,
    /// Distances go through the projections of the content.
    pub shared_projections: bool,
    /// The table of distances is normed.
    pub norm: bool,
}

/// Where norms stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormOrder {
    /// After attention and feed-forward, over the sum with their input.
    After,
    /// Before them. The first layer's attention takes the normed embeddings as they are.
    Before,
}

/// The feed-forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedForward {
    /// `down(f(up(x)))`.
    Plain,
    /// `down(f(gate(x)) * up(x))`.
    Gated,
    /// The same; gate stands above up in one matrix.
    GatedJoined,
}

/// What one layer has of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerKind {
    /// Tokens at most this far away are seen.
    pub reach: Option<usize>,
    /// Base of the rotary frequencies.
    pub rope_base: Option<f64>,
}

impl LayerKind {
    /// Every token is seen, and nothing turns.
    pub const FULL: LayerKind = LayerKind { reach: None, rope_base: None };
}

impl EncoderConfig {
    /// The BERT layout with the file's numbers: what the architectures have in common.
    ///
    /// # Errors
    /// [`ModelError::Config`] naming the key, the value and its limits.
    pub fn from_settings(settings: &Settings<'_>) -> Result<EncoderConfig, ModelError> {
        settings.expect("position_embedding_type", "absolute")?;
        EncoderConfig::common(settings)
    }

    /// The same, whatever the kind of positions.
    ///
    /// # Errors
    /// [`ModelError::Config`] naming the key, the value and its limits.
    pub fn common(settings: &Settings<'_>) -> Result<EncoderConfig, ModelError> {
        if settings.flag("is_decoder", false)? {
            return Err(wrong("is_decoder", "true: this architecture is supported as encoder only"));
        }
        let width = settings.count("hidden_size", 1..=MAX_WIDTH)?;
        let heads = settings.count("num_attention_heads", 1..=MAX_HEADS)?;
        if !width.is_multiple_of(heads) {
            return Err(wrong(
                "num_attention_heads",
                format!("{heads} heads do not divide the width {width}"),
            ));
        }
        let rows = settings.count("max_position_embeddings", 1..=MAX_CONTEXT)?;
        let layers = settings.count("num_hidden_layers", 1..=MAX_LAYERS)?;
        Ok(EncoderConfig {
            width,
            embedding_width: settings.optional_count("embedding_size", 1..=MAX_WIDTH)?.unwrap_or(width),
            ffn_width: settings.count("intermediate_size", 1..=MAX_WIDTH)?,
            heads,
            vocab_size: settings.count("vocab_size", 1..=MAX_VOCAB)?,
            context_tokens: rows,
            positions: Positions::Learned { rows, first: 0 },
            token_types: settings.optional_count("type_vocab_size", 0..=MAX_TYPES)?.unwrap_or(2),
            norm_eps: crate::decoder::config::narrow(settings.number("layer_norm_eps", 1e-12, 0.0..=1.0)?),
            norm_bias: true,
            norm_order: NormOrder::After,
            layers: vec![LayerKind::FULL; layers],
            shared_layers: false,
            feed_forward: FeedForward::Plain,
            activation: settings.function("hidden_act", "gelu")?,
            attention_bias: true,
            ffn_bias: true,
            ffn_output_bias: true,
            names: Names::BERT,
            head_names: HeadNames::BERT,
            ignored: &["cls.", "pooler."],
        })
    }

    /// `Dh`.
    pub fn head_dim(&self) -> usize {
        self.width / self.heads
    }

    /// Positions count from `first`, which the table leaves room for: texts are shorter by as much.
    pub fn positions_from(mut self, first: usize) -> Result<EncoderConfig, ModelError> {
        let rows = self.context_tokens;
        if rows <= first {
            return Err(wrong("max_position_embeddings", format!("{rows} leave no room after {first}")));
        }
        self.positions = Positions::Learned { rows, first };
        self.context_tokens = rows - first;
        Ok(self)
    }
}
