//! Operations that make values from little: constants, ranges, random numbers, windows.

use super::TensorOp;
use super::fact::{Fact, Facts, dims, shaped};
use kun_tensor::DType;

/// Random numbers, from a generator of our own; the seed decides them if there is one.
#[derive(Clone, Debug, PartialEq)]
pub struct Random {
    /// What they are.
    pub kind: Distribution,
    /// Element type; that of the operand if none.
    pub dtype: Option<DType>,
    /// Their shape; that of the operand if none.
    pub shape: Option<Vec<usize>>,
    /// Where they start.
    pub seed: Option<f32>,
}

/// How random numbers are spread.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Distribution {
    Normal {
        mean: f32,
        scale: f32,
    },
    Uniform {
        low: f32,
        high: f32,
    },
    /// 1 with the probability that the operand says, else 0.
    Bernoulli,
    /// Classes `[N, samples]` with the unnormalised log probabilities `[N, classes]` of the operand.
    Multinomial {
        samples: usize,
    },
}

/// A window of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Which one.
    pub kind: WindowKind,
    /// Whether it is made to be repeated.
    pub periodic: bool,
    /// Element type.
    pub dtype: DType,
}

/// Windows by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum WindowKind {
    Hann,
    Hamming,
    Blackman,
}

pub(crate) fn infer(op: &TensorOp, x: &Facts<'_>) -> Result<Vec<Fact>, String> {
    let same = || x.shape(0).map(<[usize]>::to_vec);
    Ok(match op {
        TensorOp::ConstantOfShape(value) => {
            let shape = x.i64s(0).map(|shape| dims(&shape)).transpose()?;
            vec![shaped(Some(value.dtype()), shape)]
        }
        TensorOp::EyeLike { dtype, .. } => vec![shaped(dtype.or(x.dtype(0)), same())],
        TensorOp::Random(random) => {
            let shape = match (random.kind, same()) {
                (Distribution::Multinomial { samples }, Some(shape)) => {
                    shape.first().map(|&n| vec![n, samples])
                }
                (_, shape) => random.shape.clone().or(shape),
            };
            vec![shaped(random.dtype.or(x.dtype(0)), shape)]
        }
        _ => Vec::new(),
    })
}
