//! What weights and settings are called in each format.

pub mod gguf;
pub mod hf;

/// A weight of a decoder, by what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// `[V, D]`.
    TokenEmbedding,
    /// `[D]`: norm after the last layer.
    OutputNorm,
    /// `[V, D]`: the projection to logits.
    Output,
    /// `[rotary_dim / 2]`: divisors of the rotary frequencies; GGUF only.
    RopeDivisors,
    /// Part of one layer, counted from 0.
    Layer(usize, LayerPart),
}

/// A weight of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LayerPart {
    /// `[D]`: norm before attention.
    AttentionNorm,
    /// `[Hq * Dh, D]`.
    Query,
    /// `[Hkv * Dh, D]`.
    Key,
    /// `[Hkv * Dh, D]`.
    Value,
    /// `[D, Hq * Dh]`.
    AttentionOutput,
    /// `[Dh]`: norm of each query head.
    QueryNorm,
    /// `[Dh]`: norm of each key head.
    KeyNorm,
    /// `[D]`: norm before the feed-forward.
    FfnNorm,
    /// `[F, D]`.
    Gate,
    /// `[F, D]`.
    Up,
    /// `[D, F]`.
    Down,
}

/// Which of a layer's two tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The matrix, or the factors of a norm.
    Weight,
    /// Added to the output.
    Bias,
}

impl Kind {
    /// The last word of the file's name for it.
    fn suffix(self) -> &'static str {
        match self {
            Kind::Weight => "weight",
            Kind::Bias => "bias",
        }
    }
}

/// A hyper-parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Setting {
    Width,
    Layers,
    FfnWidth,
    Heads,
    KvHeads,
    HeadDim,
    /// Width of a value head, where a file can tell it apart from the key's.
    ValueDim,
    NormEps,
    VocabSize,
    ContextTokens,
    RopeBase,
    RotaryDim,
    /// Share of a head that turns, instead of [`Setting::RotaryDim`].
    RotaryShare,
    RopeScaling,
    RopeFactor,
    RopeOriginalContext,
    RopeLowFactor,
    RopeHighFactor,
    RopeMagnitude,
    RopeBetaFast,
    RopeBetaSlow,
    RopeTruncate,
    RopeLogMultiplier,
    RopeScaleAll,
    RopeExtrapolation,
    Window,
    UseWindow,
    /// Layers from this one on are windowed (older Qwen configurations).
    FirstWindowLayer,
    LayerTypes,
    /// 1 per layer with rotary positions, 0 per layer without.
    RopeLayers,
    /// Every n-th layer has no positions.
    NoRopeInterval,
    AttentionBias,
    MlpBias,
    TiedEmbeddings,
    Activation,
    Experts,
    Quantization,
}
