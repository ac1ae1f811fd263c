//! DistilBERT (arXiv:1910.01108).

use crate::ModelError;
use crate::encoder::config::{MAX_CONTEXT, MAX_HEADS, MAX_LAYERS, MAX_VOCAB, MAX_WIDTH};
use crate::encoder::head::{Dense, HeadNames, Pooling};
use crate::encoder::names::{Names, Projections};
use crate::encoder::settings::wrong;
use crate::encoder::{EncoderConfig, FeedForward, LayerKind, NormOrder, Positions, Settings};
use kun_graph::UnaryOp;

/// BERT's layers without token types, under other names.
pub fn distilbert(settings: &Settings<'_>) -> Result<EncoderConfig, ModelError> {
    let width = settings.count("dim", 1..=MAX_WIDTH)?;
    let heads = settings.count("n_heads", 1..=MAX_HEADS)?;
    if !width.is_multiple_of(heads) {
        return Err(wrong("n_heads", format!("{heads} heads do not divide the width {width}")));
    }
    let rows = settings.count("max_position_embeddings", 1..=MAX_CONTEXT)?;
    Ok(EncoderConfig {
        width,
        embedding_width: width,
        ffn_width: settings.count("hidden_dim", 1..=MAX_WIDTH)?,
        heads,
        vocab_size: settings.count("vocab_size", 1..=MAX_VOCAB)?,
        context_tokens: rows,
        positions: Positions::Learned { rows, first: 0 },
        token_types: 0,
        norm_eps: 1e-12,
        norm_bias: true,
        norm_order: NormOrder::After,
        layers: vec![LayerKind::FULL; settings.count("n_layers", 1..=MAX_LAYERS)?],
        shared_layers: false,
        feed_forward: FeedForward::Plain,
        activation: settings.function("activation", "gelu")?,
        attention_bias: true,
        ffn_bias: true,
        ffn_output_bias: true,
        names: Names {
            root: "distilbert",
            projections: Projections::Separate {
                query: "transformer.layer.{}.attention.q_lin",
                key: "transformer.layer.{}.attention.k_lin",
                value: "transformer.layer.{}.attention.v_lin",
            },
            attention_output: "transformer.layer.{}.attention.out_lin",
            attention_norm: "transformer.layer.{}.sa_layer_norm",
            gate: "transformer.layer.{}.ffn.lin1",
            down: "transformer.layer.{}.ffn.lin2",
            ffn_norm: "transformer.layer.{}.output_layer_norm",
            ..Names::BERT
        },
        head_names: HeadNames {
            before: Some(Dense {
                name: "pre_classifier",
                inside: false,
                bias: true,
                function: Some(UnaryOp::Relu),
            }),
            ..HeadNames::BERT
        }
        .pooled_by(Pooling::First),
        ignored: &["vocab_transform.", "vocab_layer_norm.", "vocab_projector."],
    })
}
