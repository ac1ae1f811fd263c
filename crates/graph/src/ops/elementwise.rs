//! Operations on one element at a time.

use super::TensorOp;
use super::fact::{Fact, Facts, broadcast, shaped};
use kun_tensor::DType;

/// Functions of one element.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Unary {
    Abs,
    Acos,
    Acosh,
    Asin,
    Asinh,
    Atan,
    Atanh,
    BitwiseNot,
    Ceil,
    Cos,
    Cosh,
    Erf,
    Exp,
    Floor,
    IsNan,
    Log,
    Mish,
    Neg,
    Not,
    Reciprocal,
    Relu,
    /// Halves to even.
    Round,
    Sigmoid,
    Sign,
    Sin,
    Sinh,
    Softplus,
    Softsign,
    Sqrt,
    Tan,
    Tanh,
    /// `x * clamp(x / 6 + 1/2, 0, 1)`.
    HardSwish,
    /// `clamp(alpha * x + beta, 0, 1)`.
    HardSigmoid {
        alpha: f32,
        beta: f32,
    },
    /// `max(0, x) + min(0, alpha * (exp(x / alpha) - 1))`.
    Celu {
        alpha: f32,
    },
    /// `x` or `alpha * (exp(x) - 1)` below 0.
    Elu {
        alpha: f32,
    },
    /// `x * (1 + erf(x / sqrt 2)) / 2`, or its approximation by `tanh`.
    Gelu {
        tanh: bool,
    },
    /// `x` or `alpha * x` below 0.
    LeakyRelu {
        alpha: f32,
    },
    /// `gamma * x` or `gamma * alpha * (exp(x) - 1)` at and below 0.
    Selu {
        alpha: f32,
        gamma: f32,
    },
    /// Towards 0 by `bias` beyond `lambda`, else 0.
    Shrink {
        bias: f32,
        lambda: f32,
    },
    /// `x * sigmoid(alpha * x)`: SiLU for 1, QuickGelu for 1.702.
    Swish {
        alpha: f32,
    },
    /// `x` above `alpha`, else 0.
    ThresholdedRelu {
        alpha: f32,
    },
    /// Which infinities count.
    IsInf {
        negative: bool,
        positive: bool,
    },
}

/// Functions of two elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    /// The sign of the divisor for integers; `fmod` if `truncated`.
    Mod {
        truncated: bool,
    },
    PRelu,
    BitShift {
        left: bool,
    },
    BitwiseAnd,
    BitwiseOr,
    BitwiseXor,
    And,
    Or,
    Xor,
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Functions of any number of elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Variadic {
    Max,
    Min,
    Mean,
    Sum,
}

/// A change of element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cast {
    /// The new type.
    pub to: DType,
    /// Whether 8-bit floats stop at their largest number.
    pub saturate: bool,
    /// For powers of two only.
    pub round: Round,
}

/// How a scale between two powers of two is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Round {
    Up,
    Down,
    Nearest,
}

pub(crate) fn infer(op: &TensorOp, x: &Facts<'_>) -> Result<Vec<Fact>, String> {
    let same = |dtype: Option<DType>| vec![shaped(dtype, x.shape(0).map(<[usize]>::to_vec))];
    let joined = || -> Result<Option<Vec<usize>>, String> {
        let shapes: Option<Vec<&[usize]>> = (0..x.len()).map(|i| x.shape(i)).collect();
        shapes.map(|shapes| broadcast(&shapes)).transpose()
    };
    Ok(match op {
        TensorOp::Unary(Unary::IsNan | Unary::IsInf { .. }) => same(Some(DType::Bool)),
        TensorOp::Cast(cast) => same(Some(cast.to)),
        TensorOp::CastLike(_) => same(x.dtype(1)),
        TensorOp::BitCast(to) => same(Some(*to)),
        TensorOp::Binary(op) => {
            let dtype = match op {
                Binary::Equal
                | Binary::Less
                | Binary::LessOrEqual
                | Binary::Greater
                | Binary::GreaterOrEqual => Some(DType::Bool),
                _ => x.dtype(0),
            };
            vec![shaped(dtype, joined()?)]
        }
        TensorOp::Where => vec![shaped(x.dtype(1), joined()?)],
        TensorOp::Variadic(_) => vec![shaped(x.dtype(0), joined()?)],
        TensorOp::Dropout => {
            let shape = x.shape(0).map(<[usize]>::to_vec);
            vec![shaped(x.dtype(0), shape.clone()), shaped(Some(DType::Bool), shape)]
        }
        _ => same(x.dtype(0)),
    })
}
