//! What differs between encoder-decoders.

use kun_graph::UnaryOp;

/// Widest layer or feed-forward that a file may state.
pub const MAX_WIDTH: usize = 1 << 20;
/// Most layers of a stack that a file may state.
pub const MAX_LAYERS: usize = 256;
/// Most heads that a file may state.
pub const MAX_HEADS: usize = 4096;
/// Largest vocabulary that a file may state.
pub const MAX_VOCAB: usize = 1 << 24;
/// Longest text that a file may state.
pub const MAX_CONTEXT: usize = 1 << 20;

/// An encoder-decoder, by its numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Seq2SeqConfig {
    /// `D`.
    pub width: usize,
    /// `V`.
    pub vocab_size: usize,
    /// The stack that reads.
    pub encoder: Stack,
    /// The stack that writes.
    pub decoder: Stack,
    /// How the order of tokens enters.
    pub positions: Positions,
    /// Which norms stand where.
    pub norms: Norms,
    /// Added to the variance or the mean square in every norm.
    pub norm_eps: f32,
    /// The feed-forward is `down(f(gate(x)) * up(x))`, not `down(f(up(x)))`.
    pub gated: bool,
    /// `f`.
    pub activation: UnaryOp,
    /// Projections have biases.
    pub biases: bool,
    /// Factor on token embeddings.
    pub embedding_scale: f32,
    /// Factor on attention scores.
    pub attention_scale: f32,
    /// Factor on what the projection to logits reads.
    pub logits_scale: f32,
    /// The longest source and answer that positions allow; `None`: no limit of the model's own.
    pub max_tokens: Option<usize>,
    /// The weights' names.
    pub names: Names,
}

/// One of the two stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Layers.
    pub layers: usize,
    /// `H`.
    pub heads: usize,
    /// `Dh`.
    pub head_dim: usize,
    /// `F`.
    pub ffn_width: usize,
}

/// How the order of tokens enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    /// A bias by distance, of the first layer's weights, in all layers of a stack (T5).
    Buckets {
        /// Rows of its table.
        buckets: usize,
        /// Distances from here on share the last bucket.
        max_distance: usize,
    },
    /// A learned table of `rows` rows; the first token takes row `first`.
    Learned {
        /// Rows.
        rows: usize,
        /// Row of the first token.
        first: usize,
    },
    /// Sines and cosines (arXiv:1706.03762), first all sines.
    Sinusoidal {
        /// Rows.
        rows: usize,
        /// The position that the first token is given.
        first: usize,
        /// How frequencies fall.
        fall: Fall,
    },
}

/// How the frequencies of sinusoidal positions fall over `half` pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fall {
    /// `10000^(-i / half)`.
    ByHalf,
    /// `10000^(-i / (half - 1))`: the last frequency is 1/10000 itself.
    ByHalfLessOne,
}

/// Which norms stand where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Norms {
    /// What norms do.
    pub kind: NormKind,
    /// Before attention and feed-forward, not after the sum with their input.
    pub before: bool,
    /// One over the embeddings.
    pub embedding: bool,
    /// One after the last layer.
    pub last: bool,
}

/// What norms do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Root mean square, without bias.
    Rms,
    /// Layer norm with bias.
    Layer,
}

/// What the weights are called; `{}` stands for a layer's number.
#[derive(Clone, Debug, PartialEq)]
pub struct Names {
    /// `[V, D]`: embeddings of the source's tokens.
    pub encoder_table: String,
    /// `[V, D]`: embeddings of the answer's tokens.
    pub decoder_table: String,
    /// `[V, D]`: the projection to logits, if it is not the decoder's table.
    pub output: Option<String>,
    /// `[1, V]`: added to the logits.
    pub logits_bias: Option<String>,
    /// Modules of the encoder.
    pub encoder: StackNames,
    /// Modules of the decoder.
    pub decoder: StackNames,
    /// Ends of names that files hold although nothing is lost by leaving them out.
    pub ignored: &'static [&'static str],
}

/// Modules of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackNames {
    /// The table of positions, or of biases by distance.
    pub positions: &'static str,
    /// The norm over the embeddings.
    pub embedding_norm: &'static str,
    /// The norm after the last layer.
    pub last_norm: &'static str,
    /// Self-attention.
    pub attention: AttentionNames,
    /// Attention to the source; the encoder has none.
    pub cross: Option<AttentionNames>,
    /// The gate's projection, if gated.
    pub gate: &'static str,
    /// The feed-forward's first projection.
    pub up: &'static str,
    /// Its second.
    pub down: &'static str,
    /// Its norm.
    pub ffn_norm: &'static str,
}

/// Modules of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionNames {
    /// Queries.
    pub query: &'static str,
    /// Keys.
    pub key: &'static str,
    /// Values.
    pub value: &'static str,
    /// The output projection.
    pub output: &'static str,
    /// Its norm.
    pub norm: &'static str,
}
