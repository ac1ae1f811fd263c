//! Attention and what belongs to it.

use super::call::Call;
use super::import::{Failure, free_names};
use kun_graph::TensorOp;
use kun_graph::ops::{AttentionAttributes, FlexAttention, LinearAttention, RotaryEmbedding};

pub(super) fn import(call: &mut Call<'_, '_>) -> Result<bool, Failure> {
    Ok(match call.proto.op_type.as_str() {
        "Attention" => {
            let window = |name: &str| call.int(name).and_then(|w| usize::try_from(w).ok());
            let attributes = AttentionAttributes {
                heads: call.count_or("q_num_heads", 0)?,
                kv_heads: call.count_or("kv_num_heads", 0)?,
                scale: call.float("scale"),
                softcap: call.float_or("softcap", 0.0),
                causal: call.flag("is_causal"),
                window: (window("left_window_size"), window("right_window_size")),
                scores_output: call.int_or("qk_matmul_output_mode", 0),
                softmax_type: call.dtype("softmax_precision")?,
            };
            call.same(TensorOp::Attention(attributes))?
        }
        "LinearAttention" => {
            let (gated, delta) = match call.text_or("update_rule", "gated_delta")? {
                "linear" => (false, false),
                "gated" => (true, false),
                "delta" => (false, true),
                "gated_delta" => (true, true),
                other => return Err(format!("attribute `update_rule` is `{other}`").into()),
            };
            let attributes = LinearAttention {
                heads: call.count_or("q_num_heads", 0)?,
                kv_heads: call.count_or("kv_num_heads", 0)?,
                scale: call.float_or("scale", 0.0),
                gated,
                delta,
            };
            call.same(TensorOp::LinearAttention(attributes))?
        }
        "RotaryEmbedding" => {
            let rotary = RotaryEmbedding {
                heads: call.count_or("num_heads", 0)?,
                rotary_dim: call.count_or("rotary_embedding_dim", 0)?,
                interleaved: call.flag("interleaved"),
            };
            call.same(TensorOp::RotaryEmbedding(rotary))?
        }
        "FlexAttention" => flex(call)?,
        _ => false,
    })
}

fn flex(call: &mut Call<'_, '_>) -> Result<bool, Failure> {
    let mut inputs = call.inputs[..call.inputs.len().min(3)].to_vec();
    let mut bodies = Vec::new();
    let mut score_captures = 0;
    for name in ["score_mod", "prob_mod"] {
        if !call.has(name) {
            bodies.push(None);
            continue;
        }
        let graph = call.graph(name)?;
        let captured = free_names(graph);
        if name == "score_mod" {
            score_captures = captured.len();
        }
        bodies.push(Some(call.importer.body(graph, &captured, call.frame)?));
        inputs.extend(call.captured(&captured)?);
    }
    let prob_mod = bodies.pop().flatten();
    let flex = FlexAttention {
        scale: call.float("scale"),
        score_mod: bodies.pop().flatten(),
        prob_mod,
        softmax_type: call.dtype("softmax_precision")?,
        score_captures,
    };
    Ok(call.finish(TensorOp::FlexAttention(Box::new(flex)), inputs)?)
}
