//! A decoder's graph.

use crate::ModelError;
use crate::decoder::DecoderConfig;
use crate::layers::{Attention, Linear, Mlp, Rotation, attention, linear, mlp};
use crate::metadata::Metadata;
use crate::names::{Kind, LayerPart, Part};
use crate::weights::Declared;
use kun_graph::graph::{AttentionSpec, Dim, Sym, WeightId};
use kun_graph::{Builder, Graph};
use kun_tensor::DType;

/// Weights of one layer.
pub(crate) struct Layer {
    pub(crate) attention_norm: WeightId,
    pub(crate) attention: Attention,
    pub(crate) attention_output: Linear,
    pub(crate) ffn_norm: WeightId,
    pub(crate) mlp: Mlp,
}

/// Builds the graph of `config`, declaring every weight that it takes.
///
/// Inputs are `tokens` i32 `[T]`, `positions` i32 `[T]` and `rows` i32 `[R]`; the output is `logits` `[R, V]`.
///
/// # Errors
/// [`ModelError::Tensor`] if a weight is missing or has the wrong shape or type.
pub fn build(
    config: &DecoderConfig,
    meta: &Metadata<'_>,
    weights: &mut Declared<'_>,
) -> Result<Graph, ModelError> {
    let g = Builder::new();
    let tokens = g.input("tokens", DType::I32, &[Dim::Sym(Sym::Tokens)]);
    let positions = g.input("positions", DType::I32, &[Dim::Sym(Sym::Tokens)]);
    let rows = g.input("rows", DType::I32, &[Dim::Sym(Sym::Rows)]);

    let table = weights.matrix(&g, Part::TokenEmbedding, config.vocab_size, config.width)?;
    let rotation = rotation(&g, config, meta)?;
    let mut x = g.embedding(table, tokens); // [T, D]
    for index in 0..config.layers.len() {
        let w = layer(&g, config, index, rotation, weights)?;
        x = g.scope(&format!("layer {index}"), |g| {
            let mut heads =
                attention(g, g.rms_norm(x, w.attention_norm, config.norm_eps), positions, &w.attention);
            let mut residual = x;
            // Past the last attention tokens no longer meet: only those whose logits are wanted go on.
            if index + 1 == config.layers.len() {
                heads = g.select_rows(heads, rows); // [R, Hq * Dh]
                residual = g.select_rows(x, rows); // [R, D]
            }
            let x = g.add(residual, linear(g, heads, &w.attention_output));
            g.add(x, mlp(g, g.rms_norm(x, w.ffn_norm, config.norm_eps), &w.mlp))
        });
    }
    let norm = weights.vector(&g, Part::OutputNorm, Kind::Weight, config.width)?;
    let output = match config.tied_embeddings {
        true => Linear { weight: table, bias: None },
        false => weights.linear(&g, Part::Output, config.vocab_size, config.width, false)?,
    };
    let logits = linear(&g, g.rms_norm(x, norm, config.norm_eps), &output); // [R, V]
    g.output("logits", logits);
    Ok(g.finish()?)
}

pub(crate) fn layer(
    g: &Builder,
    config: &DecoderConfig,
    index: usize,
    rotation: Rotation,
    weights: &mut Declared<'_>,
) -> Result<Layer, ModelError> {
    let DecoderConfig { width, ffn_width, heads, kv_heads, head_dim, .. } = *config;
    let part = |part| Part::Layer(index, part);
    let (q_rows, kv_rows) = (heads * head_dim, kv_heads * head_dim);
    let (qkv_bias, mlp_bias) = (config.qkv_bias, config.mlp_bias);
    let qk_norm = match config.qk_norm {
        true => Some((
            weights.vector(g, part(LayerPart::QueryNorm), Kind::Weight, head_dim)?,
            weights.vector(g, part(LayerPart::KeyNorm), Kind::Weight, head_dim)?,
        )),
        false => None,
    };
    #[allow(clippy::cast_precision_loss)]
    let scale = (head_dim as f32).sqrt().recip();
    let window_tokens = config.layers[index].window_tokens;
    Ok(Layer {
        attention_norm: weights.vector(g, part(LayerPart::AttentionNorm), Kind::Weight, width)?,
        attention: Attention {
            query: weights.linear(g, part(LayerPart::Query), q_rows, width, qkv_bias)?,
            key: weights.linear(g, part(LayerPart::Key), kv_rows, width, qkv_bias)?,
            value: weights.linear(g, part(LayerPart::Value), kv_rows, width, qkv_bias)?,
            qk_norm,
            norm_eps: config.norm_eps,
            rotation: config.layers[index].rope.then_some(rotation),
            spec: AttentionSpec { layer: index, heads, kv_heads, head_dim, scale, window_tokens, bias: None },
        },
        attention_output: weights.linear(
            g,
            part(LayerPart::AttentionOutput),
            width,
            q_rows,
            config.attention_output_bias,
        )?,
        ffn_norm: weights.vector(g, part(LayerPart::FfnNorm), Kind::Weight, width)?,
        mlp: Mlp {
            gate: weights.linear(g, part(LayerPart::Gate), ffn_width, width, mlp_bias)?,
            up: weights.linear(g, part(LayerPart::Up), ffn_width, width, mlp_bias)?,
            down: weights.linear(g, part(LayerPart::Down), width, ffn_width, mlp_bias)?,
        },
    })
}

pub(crate) fn rotation(
    g: &Builder,
    config: &DecoderConfig,
    meta: &Metadata<'_>,
) -> Result<Rotation, ModelError> {
    let divisors = crate::weights::rope_divisors(meta, config.rope.rotary_dim / 2)?;
    let values = config.rope.inverse_frequencies(divisors.as_deref());
    Ok(Rotation {
        style: config.rope.style,
        inverse_frequencies: g.constant("rope inverse frequencies", &[values.len()], &values),
        magnitude: config.rope.scaling.magnitude(),
    })
}
