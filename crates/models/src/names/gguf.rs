//! Names in GGUF files, as llama.cpp's converter writes them.

use crate::names::{Kind, LayerPart, Part, Setting};

/// The tensor's name: `blk.3.attn_q.weight`.
pub fn tensor(part: Part, kind: Kind) -> String {
    let kind = kind.suffix();
    match part {
        Part::TokenEmbedding => format!("token_embd.{kind}"),
        Part::OutputNorm => format!("output_norm.{kind}"),
        Part::Output => format!("output.{kind}"),
        Part::RopeDivisors => format!("rope_freqs.{kind}"),
        Part::Layer(layer, part) => format!("blk.{layer}.{}.{kind}", layer_part(part)),
    }
}

fn layer_part(part: LayerPart) -> &'static str {
    match part {
        LayerPart::AttentionNorm => "attn_norm",
        LayerPart::Query => "attn_q",
        LayerPart::Key => "attn_k",
        LayerPart::Value => "attn_v",
        LayerPart::AttentionOutput => "attn_output",
        LayerPart::QueryNorm => "attn_q_norm",
        LayerPart::KeyNorm => "attn_k_norm",
        LayerPart::FfnNorm => "ffn_norm",
        LayerPart::Gate => "ffn_gate",
        LayerPart::Up => "ffn_up",
        LayerPart::Down => "ffn_down",
    }
}

/// The key without the architecture in front, or `None` if the format cannot state it.
pub fn setting(setting: Setting) -> Option<&'static str> {
    Some(match setting {
        Setting::Width => "embedding_length",
        Setting::Layers => "block_count",
        Setting::FfnWidth => "feed_forward_length",
        Setting::Heads => "attention.head_count",
        Setting::KvHeads => "attention.head_count_kv",
        Setting::HeadDim => "attention.key_length",
        Setting::ValueDim => "attention.value_length",
        Setting::NormEps => "attention.layer_norm_rms_epsilon",
        Setting::VocabSize => "vocab_size",
        Setting::ContextTokens => "context_length",
        Setting::RopeBase => "rope.freq_base",
        Setting::RotaryDim => "rope.dimension_count",
        Setting::RopeScaling => "rope.scaling.type",
        Setting::RopeFactor => "rope.scaling.factor",
        Setting::RopeOriginalContext => "rope.scaling.original_context_length",
        Setting::RopeMagnitude => "rope.scaling.attn_factor",
        Setting::RopeBetaFast => "rope.scaling.yarn_beta_fast",
        Setting::RopeBetaSlow => "rope.scaling.yarn_beta_slow",
        Setting::RopeLogMultiplier => "rope.scaling.yarn_log_multiplier",
        Setting::RopeExtrapolation => "rope.scaling.yarn_ext_factor",
        Setting::Window => "attention.sliding_window",
        Setting::LayerTypes => "attention.sliding_window_pattern",
        Setting::Experts => "expert_count",
        Setting::RotaryShare
        | Setting::RopeLowFactor
        | Setting::RopeHighFactor
        | Setting::RopeTruncate
        | Setting::RopeScaleAll
        | Setting::UseWindow
        | Setting::FirstWindowLayer
        | Setting::RopeLayers
        | Setting::NoRopeInterval
        | Setting::AttentionBias
        | Setting::MlpBias
        | Setting::TiedEmbeddings
        | Setting::Activation
        | Setting::Quantization => return None,
    })
}

/// Tensors that files hold although nothing is lost by leaving them out.
pub fn may_be_ignored(name: &str) -> bool {
    name.ends_with(".attn_rot_embd.weight") || name.ends_with(".rot_embd.weight")
}
