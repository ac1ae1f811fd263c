//! Decoders that embed (Qwen3-Embedding, E5-Mistral) or score (Qwen3-Reranker): their own layers, without a cache, and one
//! row per text.

use crate::ModelError;
use crate::decoder::DecoderConfig;
use crate::decoder::graph::{layer, rotation};
use crate::encoder::graph::put_embedding;
use crate::encoder::head::{Head, Scorer};
use crate::layers::attention::{norm_heads, rotate};
use crate::layers::{Linear, linear, mlp};
use crate::metadata::Metadata;
use crate::names::{Kind, Part};
use crate::weights::{Declared, Precision};
use kun_graph::builder::Value;
use kun_graph::graph::{BinaryOp, Dim, DistanceBias, SelfAttentionSpec, Sym};
use kun_graph::{Builder, Graph};
use kun_tensor::DType;

/// Builds the graph of `config` that ends in `head`: an embedding, or the scores that `scorer` gives.
///
/// # Errors
/// [`ModelError::Tensor`] if a weight is missing or has the wrong shape or type.
pub(super) fn build(
    config: &DecoderConfig,
    (head, scorer): (&Head, Option<&Scorer>),
    meta: &Metadata<'_>,
    weights: &mut Declared<'_>,
) -> Result<Graph, ModelError> {
    let g = Builder::new();
    let tokens = g.input("tokens", DType::I32, &[Dim::Sym(Sym::Tokens)]);
    let positions = g.input("positions", DType::I32, &[Dim::Sym(Sym::Tokens)]);
    let table = weights.matrix(&g, Part::TokenEmbedding, config.vocab_size, config.width)?;
    let rotation = rotation(&g, config, meta)?;
    // Half of the rows are for keys after the query, which no query sees.
    let unseen = [0.0, f32::NEG_INFINITY].map(|bias| vec![bias; 2 * config.heads]).concat();
    let order = g.constant("causal order", &[4, config.heads], &unseen);
    let order = DistanceBias::Buckets { table: order, max_distance: 2 };
    let mut x = g.embedding(table, tokens); // [T, D]
    for index in 0..config.layers.len() {
        let w = layer(&g, config, index, rotation, weights)?;
        x = g.scope(&format!("layer {index}"), |g| {
            let (a, input) = (&w.attention, g.rms_norm(x, w.attention_norm, config.norm_eps));
            let (q_norm, k_norm) = a.qk_norm.unzip();
            let q = rotate(g, norm_heads(g, linear(g, input, &a.query), q_norm, a), positions, a);
            let k = rotate(g, norm_heads(g, linear(g, input, &a.key), k_norm, a), positions, a);
            let spec = SelfAttentionSpec {
                heads: config.heads,
                kv_heads: config.kv_heads,
                head_dim: config.head_dim,
                scale: a.spec.scale,
                reach: a.spec.window_tokens.map(|window| window - 1),
                bias: Some(order),
            };
            let attended = g.self_attention(q, k, linear(g, input, &a.value), spec); // [T, Hq * Dh]
            let x = g.add(x, linear(g, attended, &w.attention_output));
            g.add(x, mlp(g, g.rms_norm(x, w.ffn_norm, config.norm_eps), &w.mlp)) // [T, D]
        });
    }
    let norm = weights.vector(&g, Part::OutputNorm, Kind::Weight, config.width)?;
    let x = g.rms_norm(x, norm, config.norm_eps);
    match (head, scorer) {
        (Head::Sequence { labels }, Some(scorer)) => {
            put_scores(&g, scorer, *labels, x, config.width, weights)?
        }
        _ => put_embedding(&g, head, x, config.width, weights)?,
    }
    Ok(g.finish()?)
}

/// Output `logits` `[R, L]` of the rows of `x` `[T, D]` that stand for the texts.
fn put_scores(
    g: &Builder,
    scorer: &Scorer,
    labels: usize,
    x: Value,
    width: usize,
    weights: &mut Declared<'_>,
) -> Result<(), ModelError> {
    let rows = g.input("rows", DType::I32, &[Dim::Sym(Sym::Rows)]);
    let x = g.select_rows(x, rows); // [R, D]
    let mut scores = |table: &str, row: Option<usize>, n: usize| -> Result<Value, ModelError> {
        let weight = weights.part(g, table, row.map(|row| row..row + n), &[n, width], Precision::Asked)?;
        Ok(linear(g, x, &Linear { weight, bias: None })) // [R, n]
    };
    let logits = match scorer {
        Scorer::Rows(table) => scores(table, None, labels)?,
        Scorer::Difference { table, yes, no } => {
            let agrees = scores(table, Some(*yes), 1)?;
            match no {
                Some(no) => g.binary(BinaryOp::Sub, agrees, scores(table, Some(*no), 1)?),
                None => agrees,
            }
        }
    };
    g.output("logits", logits);
    Ok(())
}
