//! Operators on one element at a time.

use super::call::Call;
use kun_graph::TensorOp;
use kun_graph::ops::{Binary, Cast, Round, Unary, Variadic};
use kun_tensor::{DType, Tensor};

pub(super) fn import(call: &mut Call<'_, '_>) -> Result<bool, String> {
    if let Some(op) = unary(call)? {
        return call.same(TensorOp::Unary(op));
    }
    if let Some(op) = binary(call)? {
        if op == Binary::PRelu && call.version < 7 {
            return channel_slope(call);
        }
        return call.same(TensorOp::Binary(op));
    }
    match call.proto.op_type.as_str() {
        "Max" => call.same(TensorOp::Variadic(Variadic::Max)),
        "Min" => call.same(TensorOp::Variadic(Variadic::Min)),
        "Mean" => call.same(TensorOp::Variadic(Variadic::Mean)),
        "Sum" => call.same(TensorOp::Variadic(Variadic::Sum)),
        "Identity" => call.same(TensorOp::Identity),
        "Where" => call.same(TensorOp::Where),
        "SwiGLU" => {
            let alpha = call.float_or("alpha", 1.0);
            call.same(TensorOp::SwiGlu(alpha))
        }
        "Clip" if call.version < 11 => {
            let mut inputs = vec![call.input(0)];
            for (name, default) in [("min", f32::MIN), ("max", f32::MAX)] {
                let bound = call.float_or(name, default);
                // The type of the bound is that of the operand.
                let constant = call.constant(Tensor::scalar(bound));
                let cast = Cast { to: DType::F32, saturate: true, round: Round::Up };
                inputs.push(call.value(TensorOp::CastLike(cast), vec![constant, inputs[0]]));
            }
            call.finish(TensorOp::Clip, inputs)
        }
        "Clip" => call.same(TensorOp::Clip),
        "Cast" => {
            let to = call.dtype("to")?.ok_or("attribute `to` is missing")?;
            let cast = cast(call, to)?;
            call.same(TensorOp::Cast(cast))
        }
        "CastLike" => {
            let cast = cast(call, DType::F32)?;
            call.same(TensorOp::CastLike(cast))
        }
        "BitCast" => {
            let to = call.dtype("to")?.ok_or("attribute `to` is missing")?;
            call.same(TensorOp::BitCast(to))
        }
        "Dropout" => {
            let mut inputs = call.inputs.clone();
            if call.version < 12 {
                inputs.truncate(1);
            }
            call.finish(TensorOp::Dropout, inputs)
        }
        _ => Ok(false),
    }
}

/// Before version 7 a list of slopes belonged to the channels.
fn channel_slope(call: &mut Call<'_, '_>) -> Result<bool, String> {
    let rank = |id: kun_graph::ValueId| {
        let info = call.frame.graph.values.get(id.0 as usize)?;
        (info.kind == kun_graph::ValueKind::Tensor).then_some(info.shape.len())
    };
    let spatial = rank(call.input(0)).map_or(0, |rank| rank.saturating_sub(2));
    let shape: Vec<i64> = std::iter::once(-1).chain(std::iter::repeat_n(1, spatial)).collect();
    let shape = call.list(&shape);
    let slope = call.value(TensorOp::Reshape { allow_zero: false }, vec![call.input(1), shape]);
    let x = call.input(0);
    call.finish(TensorOp::Binary(Binary::PRelu), vec![x, slope])
}

fn cast(call: &Call<'_, '_>, to: DType) -> Result<Cast, String> {
    let round = match call.text_or("round_mode", "up")? {
        "up" => Round::Up,
        "down" => Round::Down,
        "nearest" => Round::Nearest,
        other => return Err(format!("attribute `round_mode` is `{other}`")),
    };
    Ok(Cast { to, saturate: call.int_or("saturate", 1) != 0, round })
}

fn unary(call: &Call<'_, '_>) -> Result<Option<Unary>, String> {
    let alpha = |default: f32| call.float_or("alpha", default);
    Ok(Some(match call.proto.op_type.as_str() {
        "Abs" => Unary::Abs,
        "Acos" => Unary::Acos,
        "Acosh" => Unary::Acosh,
        "Asin" => Unary::Asin,
        "Asinh" => Unary::Asinh,
        "Atan" => Unary::Atan,
        "Atanh" => Unary::Atanh,
        "BitwiseNot" => Unary::BitwiseNot,
        "Ceil" => Unary::Ceil,
        "Cos" => Unary::Cos,
        "Cosh" => Unary::Cosh,
        "Erf" => Unary::Erf,
        "Exp" => Unary::Exp,
        "Floor" => Unary::Floor,
        "IsNaN" => Unary::IsNan,
        "Log" => Unary::Log,
        "Mish" => Unary::Mish,
        "Neg" => Unary::Neg,
        "Not" => Unary::Not,
        "Reciprocal" => Unary::Reciprocal,
        "Relu" => Unary::Relu,
        "Round" => Unary::Round,
        "Sigmoid" => Unary::Sigmoid,
        "Sign" => Unary::Sign,
        "Sin" => Unary::Sin,
        "Sinh" => Unary::Sinh,
        "Softplus" => Unary::Softplus,
        "Softsign" => Unary::Softsign,
        "Sqrt" => Unary::Sqrt,
        "Tan" => Unary::Tan,
        "Tanh" => Unary::Tanh,
        "HardSwish" => Unary::HardSwish,
        "HardSigmoid" => Unary::HardSigmoid { alpha: alpha(0.2), beta: call.float_or("beta", 0.5) },
        "Celu" => Unary::Celu { alpha: alpha(1.0) },
        "Elu" => Unary::Elu { alpha: alpha(1.0) },
        "Gelu" => Unary::Gelu { tanh: call.text_or("approximate", "none")? == "tanh" },
        "LeakyRelu" => Unary::LeakyRelu { alpha: alpha(0.01) },
        "Selu" => Unary::Selu { alpha: alpha(1.673_263_2), gamma: call.float_or("gamma", 1.050_701) },
        "Shrink" => Unary::Shrink { bias: call.float_or("bias", 0.0), lambda: call.float_or("lambd", 0.5) },
        "Swish" => Unary::Swish { alpha: alpha(1.0) },
        "ThresholdedRelu" => Unary::ThresholdedRelu { alpha: alpha(1.0) },
        "IsInf" => Unary::IsInf {
            negative: call.int_or("detect_negative", 1) != 0,
            positive: call.int_or("detect_positive", 1) != 0,
        },
        _ => return Ok(None),
    }))
}

fn binary(call: &Call<'_, '_>) -> Result<Option<Binary>, String> {
    Ok(Some(match call.proto.op_type.as_str() {
        "Add" => Binary::Add,
        "Sub" => Binary::Sub,
        "Mul" => Binary::Mul,
        "Div" => Binary::Div,
        "Pow" => Binary::Pow,
        "Mod" => Binary::Mod { truncated: call.flag("fmod") },
        "PRelu" => Binary::PRelu,
        "BitShift" => match call.text_or("direction", "")? {
            "LEFT" => Binary::BitShift { left: true },
            "RIGHT" => Binary::BitShift { left: false },
            other => return Err(format!("attribute `direction` is `{other}`")),
        },
        "BitwiseAnd" => Binary::BitwiseAnd,
        "BitwiseOr" => Binary::BitwiseOr,
        "BitwiseXor" => Binary::BitwiseXor,
        "And" => Binary::And,
        "Or" => Binary::Or,
        "Xor" => Binary::Xor,
        "Equal" => Binary::Equal,
        "Less" => Binary::Less,
        "LessOrEqual" => Binary::LessOrEqual,
        "Greater" => Binary::Greater,
        "GreaterOrEqual" => Binary::GreaterOrEqual,
        _ => return Ok(None),
    }))
}
