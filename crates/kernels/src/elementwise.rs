//! Functions of single elements, and of pairs of elements of two tensors of one shape.

use crate::vector::{self, Kernel, Vector, math};
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
    /// `x * sigmoid(1.702 x)`.
    GeluQuick,
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
    vector::run(isa, Map { op, x: x.as_ptr(), times: None, out: out.as_mut_ptr(), len: out.len() });
    Ok(())
}

/// `x = op(x)`, element by element.
pub fn unary_in_place(isa: Isa, op: UnaryOp, x: &mut [f32]) {
    let (out, len) = (x.as_mut_ptr(), x.len());
    vector::run(isa, Map { op, x: out, times: None, out, len });
}

/// `out = op(gate) * up`, element by element: the gate of a feed-forward (arXiv:2002.05202).
///
/// # Errors
/// [`KernelError::Shape`] if the lengths differ.
pub fn gated(isa: Isa, op: UnaryOp, gate: &[f32], up: &[f32], out: &mut [f32]) -> Result<(), KernelError> {
    KernelError::check("gated", gate.len(), out.len())?;
    KernelError::check("gated", up.len(), out.len())?;
    let times = Some(up.as_ptr());
    vector::run(isa, Map { op, x: gate.as_ptr(), times, out: out.as_mut_ptr(), len: out.len() });
    Ok(())
}

/// `out = op(a, b)`, element by element; all of one length.
///
/// `Max` and `Min` give `b` where either is NaN.
///
/// # Errors
/// [`KernelError::Shape`] if the lengths differ.
pub fn binary(isa: Isa, op: BinaryOp, a: &[f32], b: &[f32], out: &mut [f32]) -> Result<(), KernelError> {
    KernelError::check("binary", a.len(), out.len())?;
    KernelError::check("binary", b.len(), out.len())?;
    if op == BinaryOp::Pow {
        for ((a, b), out) in a.iter().zip(b).zip(out) {
            *out = a.powf(*b);
        }
    } else {
        vector::run(isa, Zip { op, a, b, out });
    }
    Ok(())
}

/// `out = op(x) [* times]`. `x` may be `out`; all pointers are valid for `len` elements.
struct Map {
    op: UnaryOp,
    x: *const f32,
    times: Option<*const f32>,
    out: *mut f32,
    len: usize,
}

impl Kernel for Map {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        match self.op {
            UnaryOp::Neg => self.each::<V, Neg>(v),
            UnaryOp::Exp => self.each::<V, Exp>(v),
            UnaryOp::Sqrt => self.each::<V, Sqrt>(v),
            UnaryOp::Recip => self.each::<V, Recip>(v),
            UnaryOp::Relu => self.each::<V, Relu>(v),
            UnaryOp::Sigmoid => self.each::<V, Sigmoid>(v),
            UnaryOp::Tanh => self.each::<V, Tanh>(v),
            UnaryOp::Silu => self.each::<V, Silu>(v),
            UnaryOp::Gelu => self.each::<V, Gelu>(v),
            UnaryOp::GeluTanh => self.each::<V, GeluTanh>(v),
            UnaryOp::GeluQuick => self.each::<V, GeluQuick>(v),
        }
    }
}

impl Map {
    #[inline(always)]
    fn each<V: Vector, F: Function>(self, v: V) {
        let whole = self.len / V::LANES * V::LANES;
        let mut i = 0;
        while i < whole {
            // SAFETY: the pointers are valid for `len` elements, and `i + LANES <= len`.
            unsafe {
                let mut y = F::apply(v, v.load(self.x.add(i)));
                if let Some(times) = self.times {
                    y = v.mul(y, v.load(times.add(i)));
                }
                v.store(self.out.add(i), y);
            }
            i += V::LANES;
        }
        if i < self.len {
            // The rest goes through the same instructions, so that a value never depends on its place.
            // SAFETY: the pointers are valid for `len` elements; the slice is gone before anything is written.
            let part = |from: *const f32| unsafe {
                v.load_part(std::slice::from_raw_parts(from.add(i), self.len - i))
            };
            let mut y = F::apply(v, part(self.x));
            if let Some(times) = self.times {
                y = v.mul(y, part(times));
            }
            // SAFETY: as above, and no other slice of `out` is alive.
            v.store_part(unsafe { std::slice::from_raw_parts_mut(self.out.add(i), self.len - i) }, y);
        }
    }
}

/// A function of one vector, known where it is compiled so that no loop asks for it.
trait Function {
    fn apply<V: Vector>(v: V, x: V::F32) -> V::F32;
}

struct Neg;
struct Exp;
struct Sqrt;
struct Recip;
struct Relu;
struct Sigmoid;
struct Tanh;
struct Silu;
struct Gelu;
struct GeluTanh;
struct GeluQuick;

impl Function for Neg {
    #[inline(always)]
    fn apply<V: Vector>(v: V, x: V::F32) -> V::F32 {
        math::negate(v, x)
    }
}

impl Function for Exp {
    #[inline(always)]
    fn apply<V: Vector>(v: V, x: V::F32) -> V::F32 {
        math::exp(v, x)
    }
}

impl Function for Sqrt {
    #[inline(always)]
    fn apply<V: Vector>(v: V, x: V::F32) -> V::F32 {
        v.sqrt(x)
    }
}

impl Function for Recip {
    #[inline(always)]
    fn apply<V: Vector>(v: V, x: V::F32) -> V::F32 {
        v.div(v.splat(1.0), x)
    }
}

impl Function for Relu {
    #[inline(always)]
    fn apply<V: Vector>(v: V, x: V::F32) -> V::F32 {
        v.max(v.splat(0.0), x)
    }
}

impl Function for Sigmoid {
    #[inline(always)]
    fn apply<V: Vector>(v: V, x: V::F32) -> V::F32 {
        math::sigmoid(v, x)
    }
}

impl Function for Tanh {
    #[inline(always)]
    fn apply<V: Vector>(v: V, x: V::F32) -> V::F32 {
        math::tanh(v, x)
    }
}

impl Function for Silu {
    #[inline(always)]
    fn apply<V: Vector>(v: V, x: V::F32) -> V::F32 {
        math::silu(v, x)
    }
}

impl Function for Gelu {
    #[inline(always)]
    fn apply<V: Vector>(v: V, x: V::F32) -> V::F32 {
        math::gelu(v, x)
    }
}

impl Function for GeluTanh {
    #[inline(always)]
    fn apply<V: Vector>(v: V, x: V::F32) -> V::F32 {
        math::gelu_tanh(v, x)
    }
}

impl Function for GeluQuick {
    #[inline(always)]
    fn apply<V: Vector>(v: V, x: V::F32) -> V::F32 {
        v.div(x, v.add(v.splat(1.0), math::exp(v, v.mul(x, v.splat(-1.702)))))
    }
}

/// `out = op(a, b)`; the slices are of one length.
struct Zip<'a> {
    op: BinaryOp,
    a: &'a [f32],
    b: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Zip<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let parts = self.a.chunks(V::LANES).zip(self.b.chunks(V::LANES)).zip(self.out.chunks_mut(V::LANES));
        for ((a, b), out) in parts {
            let whole = out.len() == V::LANES;
            let (x, y) = if whole {
                // SAFETY: all three chunks are `LANES` long, as their slices have one length.
                unsafe { (v.load(a.as_ptr()), v.load(b.as_ptr())) }
            } else {
                (v.load_part(a), v.load_part(b))
            };
            let z = match self.op {
                BinaryOp::Add => v.add(x, y),
                BinaryOp::Sub => v.sub(x, y),
                BinaryOp::Mul => v.mul(x, y),
                BinaryOp::Div => v.div(x, y),
                BinaryOp::Max => v.max(x, y),
                BinaryOp::Min => v.min(x, y),
                // Has no vector form; `binary` keeps it out.
                BinaryOp::Pow => x,
            };
            if whole {
                // SAFETY: as above.
                unsafe { v.store(out.as_mut_ptr(), z) };
            } else {
                v.store_part(out, z);
            }
        }
    }
}

#[cfg(test)]
mod tests;
