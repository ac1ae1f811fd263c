//! ModernBERT (arXiv:2412.13663).

use crate::ModelError;
use crate::encoder::config::MAX_LAYERS;
use crate::encoder::head::{Dense, HeadNames, Pooling};
use crate::encoder::names::{Names, Projections};
use crate::encoder::settings::wrong;
use crate::encoder::{EncoderConfig, FeedForward, LayerKind, NormOrder, Positions, Settings};

/// Norms first, rotary positions, gated feed-forwards, and layers that see only their surroundings between some that
/// see everything.
pub fn modernbert(settings: &Settings<'_>) -> Result<EncoderConfig, ModelError> {
    let config = EncoderConfig::from_settings(settings)?;
    let reach = settings.optional_count("local_attention", 2..=1 << 20)?.unwrap_or(128) / 2;
    let every = settings.optional_count("global_attn_every_n_layers", 1..=MAX_LAYERS)?.unwrap_or(3);
    let types = settings.get("layer_types").and_then(serde_json::Value::as_array);
    if let Some(types) = types
        && types.len() != config.layers.len()
    {
        let what = format!("{} entries for {} layers", types.len(), config.layers.len());
        return Err(wrong("layer_types", what));
    }
    let base = |new: &str, old: &str, default: f64| {
        let base = settings.number(old, default, 1.0..=1e12)?;
        settings.expect(&format!("rope_parameters.{new}.rope_type"), "default")?;
        settings.number(&format!("rope_parameters.{new}.rope_theta"), base, 1.0..=1e12)
    };
    let far = base("full_attention", "global_rope_theta", 160_000.0)?;
    let near = base("sliding_attention", "local_rope_theta", 10_000.0)?;
    let layer = |index: usize| {
        let local = match types {
            Some(types) => match types[index].as_str() {
                Some("sliding_attention") => true,
                Some("full_attention") => false,
                _ => return Err(wrong("layer_types", format!("entry {index} is not known"))),
            },
            None => !index.is_multiple_of(every),
        };
        Ok(match local {
            true => LayerKind { reach: Some(reach), rope_base: Some(near) },
            false => LayerKind { reach: None, rope_base: Some(far) },
        })
    };
    let layers = (0..config.layers.len()).map(layer).collect::<Result<Vec<_>, ModelError>>()?;
    let mlp_bias = settings.flag("mlp_bias", false)?;
    let pooling = match settings.word("classifier_pooling", "cls")? {
        "cls" => Pooling::First,
        "mean" => Pooling::Mean,
        other => {
            return Err(wrong("classifier_pooling", format!("`{other}` is not supported; known: cls, mean")));
        }
    };
    let head = Dense {
        name: "head.dense",
        inside: false,
        bias: settings.flag("classifier_bias", false)?,
        function: Some(settings.function("classifier_activation", "gelu")?),
    };
    let norm_bias = settings.flag("norm_bias", false)?;
    Ok(EncoderConfig {
        positions: Positions::Rotary,
        token_types: 0,
        norm_eps: crate::decoder::config::narrow(settings.number("norm_eps", 1e-5, 0.0..=1.0)?),
        norm_bias,
        norm_order: NormOrder::Before,
        layers,
        feed_forward: FeedForward::GatedJoined,
        activation: settings.function("hidden_activation", "gelu")?,
        attention_bias: settings.flag("attention_bias", false)?,
        ffn_bias: mlp_bias,
        ffn_output_bias: mlp_bias,
        names: Names {
            root: "model",
            words: "embeddings.tok_embeddings",
            embedding_norm: "embeddings.norm",
            projections: Projections::Joined("layers.{}.attn.Wqkv"),
            attention_output: "layers.{}.attn.Wo",
            attention_norm: "layers.{}.attn_norm",
            gate: "layers.{}.mlp.Wi",
            down: "layers.{}.mlp.Wo",
            ffn_norm: "layers.{}.mlp_norm",
            final_norm: "final_norm",
            ..Names::BERT
        },
        head_names: HeadNames {
            before: Some(head),
            norm: Some("head.norm"),
            before_tokens: true,
            span: "classifier",
            ..HeadNames::BERT
        }
        .pooled_by(pooling),
        ignored: &["head.", "decoder."],
        ..config
    })
}
