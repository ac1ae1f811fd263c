//! Functions of single elements, and of pairs of elements of two tensors of one shape.

use crate::{Isa, KernelError};

/// Functions of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum UnaryOp {
    Neg,
    Exp,
    Sqrt,
    Recip,
    Relu,
    Sigmoid,
    Tanh,
    /// `x * sigmoid(x)` (arXiv:1702.03118).
    Silu,
    /// With the error function.
    Gelu,
    /// With the tanh approximation (arXiv:1606.08415).
    GeluTanh,
}

/// Functions of two operands, with NumPy broadcasting where a graph uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Max,
    Min,
    Pow,
}

/// `out = op(x)`, element by element.
///
/// # Errors
/// [`KernelError::Shape`] if the lengths differ.
pub fn unary(isa: Isa, op: UnaryOp, x: &[f32], out: &mut [f32]) -> Result<(), KernelError> {
    KernelError::check("unary", x.len(), out.len())?;
    out.copy_from_slice(x);
    unary_in_place(isa, op, out);
    Ok(())
}

/// `x = op(x)`, element by element.
pub fn unary_in_place(isa: Isa, op: UnaryOp, x: &mut [f32]) {
    let _ = isa;
    for value in x {
        *value = apply_unary(op, *value);
    }
}

/// `out = op(a, b)`, element by element; all of one length.
///
/// # Errors
/// [`KernelError::Shape`] if the lengths differ.
pub fn binary(isa: Isa, op: BinaryOp, a: &[f32], b: &[f32], out: &mut [f32]) -> Result<(), KernelError> {
    let _ = isa;
    KernelError::check("binary", a.len(), out.len())?;
    KernelError::check("binary", b.len(), out.len())?;
    for ((&a, &b), out) in a.iter().zip(b).zip(out) {
        *out = match op {
            BinaryOp::Add => a + b,
            BinaryOp::Sub => a - b,
            BinaryOp::Mul => a * b,
            BinaryOp::Div => a / b,
            BinaryOp::Max => a.max(b),
            BinaryOp::Min => a.min(b),
            BinaryOp::Pow => a.powf(b),
        };
    }
    Ok(())
}

/// `out = op(gate) * up`, element by element: the gate of a feed-forward (arXiv:2002.05202).
///
/// # Errors
/// [`KernelError::Shape`] if the lengths differ.
pub fn gated(isa: Isa, op: UnaryOp, gate: &[f32], up: &[f32], out: &mut [f32]) -> Result<(), KernelError> {
    let _ = isa;
    KernelError::check("gated", gate.len(), out.len())?;
    KernelError::check("gated", up.len(), out.len())?;
    for ((&gate, &up), out) in gate.iter().zip(up).zip(out) {
        *out = apply_unary(op, gate) * up;
    }
    Ok(())
}

fn apply_unary(op: UnaryOp, x: f32) -> f32 {
    match op {
        UnaryOp::Neg => -x,
        UnaryOp::Exp => x.exp(),
        UnaryOp::Sqrt => x.sqrt(),
        UnaryOp::Recip => 1.0 / x,
        UnaryOp::Relu => x.max(0.0),
        UnaryOp::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        UnaryOp::Tanh => x.tanh(),
        UnaryOp::Silu => x / (1.0 + (-x).exp()),
        UnaryOp::Gelu => 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)),
        UnaryOp::GeluTanh => 0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044_715 * x * x * x)).tanh()),
    }
}

/// Abramowitz and Stegun 7.1.26, absolute error 1.5e-7.
fn erf(x: f32) -> f32 {
    let x64 = f64::from(x.abs());
    let t = 1.0 / (1.0 + 0.327_591_1 * x64);
    let p = t
        * (0.254_829_592
            + t * (-0.284_496_736 + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    ((1.0 - p * (-x64 * x64).exp()) as f32).copysign(x)
}
