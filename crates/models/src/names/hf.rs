//! Names in Hugging Face folders: `config.json` and safetensors.

use crate::names::{Kind, LayerPart, Part, Setting};

/// The tensor's name: `model.layers.3.self_attn.q_proj.weight`; `None` if the format has no such tensor.
pub fn tensor(part: Part, kind: Kind) -> Option<String> {
    let kind = kind.suffix();
    Some(match part {
        Part::TokenEmbedding => format!("model.embed_tokens.{kind}"),
        Part::OutputNorm => format!("model.norm.{kind}"),
        Part::Output => format!("lm_head.{kind}"),
        Part::RopeDivisors => return None,
        Part::Layer(layer, part) => format!("model.layers.{layer}.{}.{kind}", layer_part(part)),
    })
}

fn layer_part(part: LayerPart) -> &'static str {
    match part {
        LayerPart::AttentionNorm => "input_layernorm",
        LayerPart::Query => "self_attn.q_proj",
        LayerPart::Key => "self_attn.k_proj",
        LayerPart::Value => "self_attn.v_proj",
        LayerPart::AttentionOutput => "self_attn.o_proj",
        LayerPart::QueryNorm => "self_attn.q_norm",
        LayerPart::KeyNorm => "self_attn.k_norm",
        LayerPart::FfnNorm => "post_attention_layernorm",
        LayerPart::Gate => "mlp.gate_proj",
        LayerPart::Up => "mlp.up_proj",
        LayerPart::Down => "mlp.down_proj",
    }
}

/// Paths into `config.json`, the first present one counts. Folders written by transformers 5 keep rotary settings
/// under `rope_parameters`, older ones at the top and under `rope_scaling`.
pub fn setting(setting: Setting) -> &'static [&'static str] {
    match setting {
        Setting::Width => &["hidden_size"],
        Setting::Layers => &["num_hidden_layers"],
        Setting::FfnWidth => &["intermediate_size"],
        Setting::Heads => &["num_attention_heads"],
        Setting::KvHeads => &["num_key_value_heads"],
        Setting::HeadDim => &["head_dim"],
        Setting::NormEps => &["rms_norm_eps"],
        Setting::VocabSize => &["vocab_size"],
        Setting::ContextTokens => &["max_position_embeddings"],
        Setting::RopeBase => &["rope_parameters.rope_theta", "rope_theta"],
        Setting::RotaryShare => &["rope_parameters.partial_rotary_factor", "partial_rotary_factor"],
        Setting::RopeScaling => &["rope_parameters.rope_type", "rope_scaling.rope_type", "rope_scaling.type"],
        Setting::RopeFactor => &["rope_parameters.factor", "rope_scaling.factor"],
        Setting::RopeOriginalContext => &[
            "rope_parameters.original_max_position_embeddings",
            "rope_scaling.original_max_position_embeddings",
            "original_max_position_embeddings",
        ],
        Setting::RopeLowFactor => &["rope_parameters.low_freq_factor", "rope_scaling.low_freq_factor"],
        Setting::RopeHighFactor => &["rope_parameters.high_freq_factor", "rope_scaling.high_freq_factor"],
        Setting::RopeMagnitude => &["rope_parameters.attention_factor", "rope_scaling.attention_factor"],
        Setting::RopeBetaFast => &["rope_parameters.beta_fast", "rope_scaling.beta_fast"],
        Setting::RopeBetaSlow => &["rope_parameters.beta_slow", "rope_scaling.beta_slow"],
        Setting::RopeTruncate => &["rope_parameters.truncate", "rope_scaling.truncate"],
        Setting::RopeLogMultiplier => &["rope_parameters.mscale", "rope_scaling.mscale"],
        Setting::RopeScaleAll => &["rope_parameters.mscale_all_dim", "rope_scaling.mscale_all_dim"],
        Setting::Window => &["sliding_window"],
        Setting::UseWindow => &["use_sliding_window"],
        Setting::FirstWindowLayer => &["max_window_layers"],
        Setting::LayerTypes => &["layer_types"],
        Setting::RopeLayers => &["no_rope_layers"],
        Setting::NoRopeInterval => &["no_rope_layer_interval"],
        Setting::AttentionBias => &["attention_bias"],
        Setting::MlpBias => &["mlp_bias"],
        Setting::TiedEmbeddings => &["tie_word_embeddings"],
        Setting::Activation => &["hidden_act"],
        Setting::Experts => &["num_experts", "num_local_experts"],
        Setting::Quantization => &["quantization_config.quant_method"],
        Setting::ValueDim | Setting::RotaryDim | Setting::RopeExtrapolation => &[],
    }
}

/// Tensors that files hold although nothing is lost by leaving them out.
pub fn may_be_ignored(name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq")
}
