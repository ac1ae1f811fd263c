//! Operators of the domain `com.microsoft` that exporters and optimisers leave in models, from standard operations.

use super::call::Call;
use super::convolution::window;
use kun_graph::ops::matmul::NBits;
use kun_graph::ops::{
    AttentionAttributes, Binary, Cast, Gemm, LayerNorm, PoolKind, Quantize, RotaryEmbedding, Round, Unary,
};
use kun_graph::{TensorOp, ValueId};
use kun_tensor::DType;

const ABSENT: ValueId = ValueId::ABSENT;

pub(super) fn import(call: &mut Call<'_, '_>) -> Result<bool, String> {
    match call.proto.op_type.as_str() {
        "Gelu" => call.same(TensorOp::Unary(Unary::Gelu { tanh: false })),
        "QuickGelu" => {
            let alpha = call.float_or("alpha", 1.702);
            call.same(TensorOp::Unary(Unary::Swish { alpha }))
        }
        "BiasGelu" => {
            let sum = binary(call, Binary::Add, call.input(0), call.input(1));
            call.finish(TensorOp::Unary(Unary::Gelu { tanh: false }), vec![sum])
        }
        "FastGelu" => {
            let x = plus(call, call.input(0), call.input(1));
            call.finish(TensorOp::Unary(Unary::Gelu { tanh: true }), vec![x])
        }
        "FusedConv" => fused_conv(call),
        "Attention" => {
            let packed = call.value(TensorOp::MatMul, vec![call.input(0), call.input(1)]);
            let packed = plus(call, packed, call.input(2));
            packed_attention(call, packed, [call.input(3), call.input(4), call.input(5)])
        }
        "QAttention" => {
            let operands = [0, 1, 6, 7].map(|i| call.input(i)).to_vec();
            let product = call.value(TensorOp::MatMulInteger, operands);
            let packed = rescaled(call, product, call.input(3), call.input(4));
            let packed = plus(call, packed, call.input(2));
            packed_attention(call, packed, [call.input(5), call.input(8), ABSENT])
        }
        "MultiHeadAttention" => multi_head_attention(call),
        "GroupQueryAttention" => group_query_attention(call),
        "RotaryEmbedding" => {
            let rotary = RotaryEmbedding {
                heads: call.count_or("num_heads", 0)?,
                rotary_dim: call.count_or("rotary_embedding_dim", 0)?,
                interleaved: call.flag("interleaved"),
            };
            let inputs = [0, 2, 3, 1].map(|i| call.input(i)).to_vec();
            call.finish(TensorOp::RotaryEmbedding(rotary), inputs)
        }
        "SkipLayerNormalization" => skip_norm(call, false),
        "SkipSimplifiedLayerNormalization" => skip_norm(call, true),
        "SimplifiedLayerNormalization" => {
            let norm = LayerNorm { axis: call.int_or("axis", -1), epsilon: call.float_or("epsilon", 1e-5) };
            call.same(TensorOp::RmsNorm(norm))
        }
        "DynamicQuantizeMatMul" => {
            let quantized = call.values(TensorOp::DynamicQuantizeLinear, vec![call.input(0)], 3);
            let operands = vec![quantized[0], call.input(1), quantized[2], call.input(3)];
            let product = call.value(TensorOp::MatMulInteger, operands);
            let real = rescaled(call, product, quantized[1], call.input(2));
            let sum = plus(call, real, call.input(4));
            call.give(vec![sum])
        }
        "MatMulIntegerToFloat" => {
            let operands = [0, 1, 4, 5].map(|i| call.input(i)).to_vec();
            let product = call.value(TensorOp::MatMulInteger, operands);
            let real = rescaled(call, product, call.input(2), call.input(3));
            let sum = plus(call, real, call.input(6));
            call.give(vec![sum])
        }
        "MatMulNBits" => {
            let bits = NBits {
                k: call.count_or("K", 0)?,
                n: call.count_or("N", 0)?,
                bits: call.count_or("bits", 4)?,
                block: call.count_or("block_size", 0)?,
            };
            call.same(TensorOp::MatMulNBits(bits))
        }
        "QuantizeLinear" | "DequantizeLinear" => {
            let quantize =
                Quantize { axis: call.int_or("axis", 1), block: call.count_or("block_size", 0)?, ..PLAIN };
            let op = match call.proto.op_type.as_str() {
                "QuantizeLinear" => TensorOp::QuantizeLinear(quantize),
                _ => TensorOp::DequantizeLinear(quantize),
            };
            call.same(op)
        }
        "QLinearAdd" | "QLinearMul" => {
            let op = if call.proto.op_type == "QLinearAdd" { Binary::Add } else { Binary::Mul };
            let a = real(call, 0);
            let b = real(call, 3);
            let y = binary(call, op, a, b);
            quantized(call, y, 6)
        }
        "QLinearSigmoid" => {
            let x = real(call, 0);
            let y = call.value(TensorOp::Unary(Unary::Sigmoid), vec![x]);
            quantized(call, y, 3)
        }
        "QLinearLeakyRelu" => {
            let alpha = call.float_or("alpha", 0.01);
            let x = real(call, 0);
            let y = call.value(TensorOp::Unary(Unary::LeakyRelu { alpha }), vec![x]);
            quantized(call, y, 3)
        }
        "QLinearGlobalAveragePool" if !call.flag("channels_last") => {
            let x = real(call, 0);
            let y = call.value(TensorOp::GlobalPool(PoolKind::Average { include_pad: false }), vec![x]);
            quantized(call, y, 3)
        }
        "QGemm" => {
            let transpose_b = call.flag("transB");
            let (alpha, transpose_a) = (call.float_or("alpha", 1.0), call.flag("transA"));
            let a = real(call, 0);
            let operands = [3, 4, 5].map(|i| call.input(i)).to_vec();
            let by_output = Quantize { axis: i64::from(!transpose_b), ..PLAIN };
            let b = call.value(TensorOp::DequantizeLinear(by_output), operands);
            let mut operands = vec![a, b];
            if call.input(6) != ABSENT {
                // In units of products of codes.
                operands.push(rescaled(call, call.input(6), call.input(1), call.input(4)));
            }
            let gemm = Gemm { alpha, beta: alpha, transpose_a, transpose_b };
            let y = call.value(TensorOp::Gemm(gemm), operands);
            if call.input(7) == ABSENT { call.give(vec![y]) } else { quantized(call, y, 7) }
        }
        "QLinearConcat" => {
            let axis = call.int("axis").ok_or("attribute `axis` is missing")?;
            let parts = (2..call.inputs.len()).step_by(3).map(|i| real(call, i)).collect();
            let y = call.value(TensorOp::Concat { axis }, parts);
            quantized(call, y, 0)
        }
        _ => Ok(false),
    }
}

const PLAIN: Quantize = Quantize { axis: 1, block: 0, dtype: None, saturate: true };

/// Operand `i` with the scale and zero point after it, as numbers.
fn real(call: &mut Call<'_, '_>, i: usize) -> ValueId {
    let operands = vec![call.input(i), call.input(i + 1), call.input(i + 2)];
    call.value(TensorOp::DequantizeLinear(PLAIN), operands)
}

/// The result, quantised by the scale and zero point that are operands `i` and `i + 1`.
fn quantized(call: &mut Call<'_, '_>, y: ValueId, i: usize) -> Result<bool, String> {
    let operands = vec![y, call.input(i), call.input(i + 1)];
    call.finish(TensorOp::QuantizeLinear(PLAIN), operands)
}

fn binary(call: &mut Call<'_, '_>, op: Binary, a: ValueId, b: ValueId) -> ValueId {
    call.value(TensorOp::Binary(op), vec![a, b])
}

/// The sum, or `x` alone if there is nothing to add.
fn plus(call: &mut Call<'_, '_>, x: ValueId, y: ValueId) -> ValueId {
    if y == ABSENT { x } else { binary(call, Binary::Add, x, y) }
}

/// An i32 product times both scales.
fn rescaled(call: &mut Call<'_, '_>, product: ValueId, a: ValueId, b: ValueId) -> ValueId {
    let cast = Cast { to: DType::F32, saturate: true, round: Round::Up };
    let product = call.value(TensorOp::Cast(cast), vec![product]);
    let scale = binary(call, Binary::Mul, a, b);
    binary(call, Binary::Mul, product, scale)
}

fn fused_conv(call: &mut Call<'_, '_>) -> Result<bool, String> {
    let conv = window(call)?;
    let operands = [0, 1, 2].map(|i| call.input(i)).to_vec();
    let y = call.value(TensorOp::Conv(conv), operands);
    let y = plus(call, y, call.input(3));
    let parameter = |i: usize, default: f32| {
        call.floats("activation_params").and_then(|p| p.get(i)).copied().unwrap_or(default)
    };
    let op = match call.text_or("activation", "")? {
        "" => return call.give(vec![y]),
        "Relu" => Unary::Relu,
        "Sigmoid" => Unary::Sigmoid,
        "Tanh" => Unary::Tanh,
        "LeakyRelu" => Unary::LeakyRelu { alpha: parameter(0, 0.01) },
        "HardSigmoid" => Unary::HardSigmoid { alpha: parameter(0, 0.2), beta: parameter(1, 0.5) },
        "Clip" => {
            let bounds = [parameter(0, f32::MIN), parameter(1, f32::MAX)];
            let bounds = bounds.map(|bound| call.constant(kun_tensor::Tensor::scalar(bound)));
            return call.finish(TensorOp::Clip, vec![y, bounds[0], bounds[1]]);
        }
        other => return Err(format!("attribute `activation` is `{}`", other.escape_debug())),
    };
    call.finish(TensorOp::Unary(op), vec![y])
}

fn skip_norm(call: &mut Call<'_, '_>, simplified: bool) -> Result<bool, String> {
    let sum = binary(call, Binary::Add, call.input(0), call.input(1));
    let sum = plus(call, sum, call.input(if simplified { 3 } else { 4 }));
    let epsilon = call.float_or("epsilon", 1e-12);
    let norm = LayerNorm { axis: -1, epsilon };
    let mut results = match simplified {
        true => call.values(TensorOp::RmsNorm(norm), vec![sum, call.input(2)], 3),
        false => call.values(TensorOp::LayerNorm(norm), vec![sum, call.input(2), call.input(3)], 3),
    };
    results.push(sum);
    call.give(results)
}

fn attributes(call: &Call<'_, '_>) -> Result<AttentionAttributes, String> {
    let heads = call.count_or("num_heads", 0)?;
    Ok(AttentionAttributes {
        heads,
        kv_heads: call.count_or("kv_num_heads", heads)?,
        scale: call.float("scale").filter(|&s| s != 0.0),
        softcap: call.float_or("softcap", 0.0),
        causal: call.flag("unidirectional"),
        window: (None, None),
        scores_output: 0,
        softmax_type: None,
    })
}

/// Part `i` of a value whose leading dimension holds keys and values.
fn half(call: &mut Call<'_, '_>, x: ValueId, i: i64) -> ValueId {
    if x == ABSENT {
        return ABSENT;
    }
    let index = call.constant(kun_tensor::Tensor::scalar(i));
    call.value(TensorOp::Gather { axis: 0 }, vec![x, index])
}

/// Queries, keys and values side by side in the last dimension.
fn packed_attention(
    call: &mut Call<'_, '_>,
    packed: ValueId,
    [mask, past, bias]: [ValueId; 3],
) -> Result<bool, String> {
    if call.flag("do_rotary") {
        return Err("rotation inside attention".into());
    }
    let attributes = attributes(call)?;
    let mut operands = vec![packed];
    if let Some(sizes) = call.ints("qkv_hidden_sizes").filter(|s| !s.is_empty()) {
        operands.push(call.list(sizes));
    }
    let parts = call.values(TensorOp::Split { axis: -1 }, operands, 3);
    let (key, value) = (half(call, past, 0), half(call, past, 1));
    let operands = vec![parts[0], parts[1], parts[2], bias, key, value, ABSENT, mask];
    let results = call.values(TensorOp::Attention(attributes), operands, 3);
    if call.outputs() < 2 {
        return call.give(vec![results[0]]);
    }
    let axes = call.list(&[0]);
    let halves =
        [results[1], results[2]].map(|half| call.value(TensorOp::Unsqueeze, vec![half, axes])).to_vec();
    let present = call.value(TensorOp::Concat { axis: 0 }, halves);
    call.give(vec![results[0], present])
}

/// `[N, H, S, Dh]` to `[N, S, H * Dh]`.
fn joined(call: &mut Call<'_, '_>, y: ValueId) -> ValueId {
    let turned = call.value(TensorOp::Transpose(vec![0, 2, 1, 3]), vec![y]);
    let shape = call.list(&[0, 0, -1]);
    call.value(TensorOp::Reshape { allow_zero: false }, vec![turned, shape])
}

fn multi_head_attention(call: &mut Call<'_, '_>) -> Result<bool, String> {
    let attributes = attributes(call)?;
    let (mut q, mut k, mut v) = (call.input(0), call.input(1), call.input(2));
    let packed = k == ABSENT;
    if packed {
        // [N, S, H, 3, Dh]
        let part = |call: &mut Call<'_, '_>, i: i64| {
            let index = call.constant(kun_tensor::Tensor::scalar(i));
            let part = call.value(TensorOp::Gather { axis: 3 }, vec![call.input(0), index]);
            call.value(TensorOp::Transpose(vec![0, 2, 1, 3]), vec![part])
        };
        (q, k, v) = (part(call, 0), part(call, 1), part(call, 2));
    } else if v == ABSENT {
        return Err("keys and values packed together".into());
    }
    if call.has_input(3) {
        if packed {
            return Err("a bias for packed queries, keys and values".into());
        }
        let parts = call.values(TensorOp::Split { axis: 0 }, vec![call.input(3)], 3);
        q = plus(call, q, parts[0]);
        k = plus(call, k, parts[1]);
        v = plus(call, v, parts[2]);
    }
    let (mask, bias) = (call.input(4), call.input(5));
    let operands = vec![q, k, v, bias, call.input(6), call.input(7), ABSENT, mask];
    let mut results = call.values(TensorOp::Attention(attributes), operands, 4);
    if packed {
        results[0] = joined(call, results[0]);
    }
    call.give(results)
}

fn group_query_attention(call: &mut Call<'_, '_>) -> Result<bool, String> {
    let mut attributes = attributes(call)?;
    attributes.causal = true;
    attributes.window.0 = call.int("local_window_size").and_then(|w| usize::try_from(w).ok());
    if call.flag("smooth_softmax") || call.has_input(11) {
        return Err("a softmax with a sink".into());
    }
    let (mut q, mut k, mut v) = (call.input(0), call.input(1), call.input(2));
    let (heads, kv) = (attributes.heads as i64, attributes.kv_heads as i64);
    let split = |call: &mut Call<'_, '_>, x: ValueId, heads: i64| {
        let shape = call.list(&[0, 0, heads, -1]);
        let x = call.value(TensorOp::Reshape { allow_zero: false }, vec![x, shape]);
        call.value(TensorOp::Transpose(vec![0, 2, 1, 3]), vec![x])
    };
    if k == ABSENT {
        let all = split(call, q, heads + 2 * kv);
        let lengths = call.list(&[heads, kv, kv]);
        let parts = call.values(TensorOp::Split { axis: 1 }, vec![all, lengths], 3);
        (q, k, v) = (parts[0], parts[1], parts[2]);
    } else {
        (q, k, v) = (split(call, q, heads), split(call, k, kv), split(call, v, kv));
    }
    let past = call.input(3);
    if call.flag("do_rotary") {
        let rotary =
            RotaryEmbedding { heads: 0, rotary_dim: 0, interleaved: call.flag("rotary_interleaved") };
        let positions = if call.has_input(9) {
            call.input(9)
        } else if past == ABSENT {
            call.list(&[0])
        } else {
            call.value(TensorOp::Shape { start: 2, end: Some(3) }, vec![past])
        };
        let (cos, sin) = (call.input(7), call.input(8));
        q = call.value(TensorOp::RotaryEmbedding(rotary), vec![q, cos, sin, positions]);
        k = call.value(TensorOp::RotaryEmbedding(rotary), vec![k, cos, sin, positions]);
    }
    let operands = vec![q, k, v, call.input(10), past, call.input(4)];
    let mut results = call.values(TensorOp::Attention(attributes), operands, 3);
    results[0] = joined(call, results[0]);
    call.give(results)
}
