//! Element-wise programs: several functions in one pass over memory.

use crate::gemm::Activation;
use crate::gemm::activation::{Loop, One};
use crate::gemm::quads::Code;
use crate::vector::{self, Kernel, Vector, math};
use crate::{Isa, KernelError, codes};

/// Elements that are worked on together; intermediate results of a few blocks stay in the first-level cache.
pub const BLOCK: usize = 512;

/// What a step reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source {
    /// The result of an earlier step.
    Step(usize),
    /// An operand of the program.
    Operand(usize),
    /// The same number for every element.
    Number(f32),
}

/// A function of one or two elements.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Function {
    Activation(Activation),
    Neg,
    Abs,
    Exp,
    Log,
    Sqrt,
    Reciprocal,
    Floor,
    Ceil,
    /// To the nearest whole number, ties to even.
    Round,
    Sin,
    Cos,
    Erf,
    Softplus,
    Add,
    Sub,
    Mul,
    Div,
    Max,
    Min,
    Pow,
    /// `a`, or `a * b` below 0.
    Slope,
}

impl Function {
    /// Whether it reads two elements.
    pub fn is_binary(self) -> bool {
        use Function::{Add, Div, Max, Min, Mul, Pow, Slope, Sub};
        matches!(self, Add | Sub | Mul | Div | Max | Min | Pow | Slope)
    }
}

/// One step; the last one's result is the program's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// What it computes.
    pub function: Function,
    /// First operand.
    pub a: Source,
    /// Second operand of binary functions.
    pub b: Source,
}

/// An operand for a run of elements.
#[derive(Clone, Copy, Debug)]
pub enum Operand<'a> {
    /// As many elements as the result has.
    Slice(&'a [f32]),
    /// As many codes, of which each stands for a number.
    Codes(&'a [u8], Code),
    /// One for all.
    Number(f32),
}

/// Where results go.
#[derive(Debug)]
pub enum Out<'a> {
    /// As they are.
    Numbers(&'a mut [f32]),
    /// As the nearest codes.
    Codes(&'a mut [u8], Code),
}

/// Runs `steps` for the elements of `out`; `scratch` grows as needed.
///
/// # Errors
/// [`KernelError::Shape`] if a length or an index does not fit.
pub fn run(
    isa: Isa,
    steps: &[Step],
    operands: &[Operand<'_>],
    out: &mut [f32],
    scratch: &mut Vec<f32>,
) -> Result<(), KernelError> {
    run_into(isa, steps, operands, Out::Numbers(out), scratch)
}

/// [`run`], with results as numbers or codes.
///
/// # Errors
/// As for [`run`].
pub fn run_into(
    isa: Isa,
    steps: &[Step],
    operands: &[Operand<'_>],
    mut out: Out<'_>,
    scratch: &mut Vec<f32>,
) -> Result<(), KernelError> {
    let fail = |what: String| Err(KernelError::Shape { kernel: "chain", what });
    let count = match &out {
        Out::Numbers(out) => out.len(),
        Out::Codes(out, _) => out.len(),
    };
    for operand in operands {
        match operand {
            Operand::Slice(slice) => KernelError::check("chain", slice.len(), count)?,
            Operand::Codes(codes, _) => KernelError::check("chain", codes.len(), count)?,
            Operand::Number(_) => {}
        }
    }
    for (index, step) in steps.iter().enumerate() {
        for source in [step.a, step.b] {
            let known = match source {
                Source::Step(i) => i < index,
                Source::Operand(i) => i < operands.len(),
                Source::Number(_) => true,
            };
            if !known {
                return fail(format!("step {index} reads {source:?}"));
            }
        }
    }
    if steps.is_empty() {
        return fail("no steps".to_owned());
    }
    let results = (steps.len() + 1) * BLOCK;
    let needed = results + operands.len() * BLOCK;
    if scratch.len() < needed {
        scratch.resize(needed, 0.0);
    }
    let (results, decoded) = scratch.split_at_mut(results);
    for start in (0..count).step_by(BLOCK) {
        let len = BLOCK.min(count - start);
        for (operand, to) in operands.iter().zip(decoded.chunks_exact_mut(BLOCK)) {
            if let Operand::Codes(codes, code) = operand {
                codes::decode(isa, *code, &codes[start..start + len], &mut to[..len])?;
            }
        }
        for (index, step) in steps.iter().enumerate() {
            let (before, rest) = results.split_at_mut(index * BLOCK);
            let pick = |source: Source| match source {
                Source::Step(i) => Operand::Slice(&before[i * BLOCK..][..len]),
                Source::Number(x) => Operand::Number(x),
                Source::Operand(i) => match operands[i] {
                    Operand::Slice(slice) => Operand::Slice(&slice[start..start + len]),
                    Operand::Codes(..) => Operand::Slice(&decoded[i * BLOCK..][..len]),
                    number => number,
                },
            };
            let (a, b) = (pick(step.a), pick(step.b));
            let out = match &mut out {
                Out::Numbers(out) if index + 1 == steps.len() => &mut out[start..start + len],
                _ => &mut rest[..len],
            };
            vector::run(isa, Apply { function: step.function, a, b, out });
        }
        if let Out::Codes(out, code) = &mut out {
            let last = &results[(steps.len() - 1) * BLOCK..][..len];
            codes::encode(isa, *code, last, &mut out[start..start + len])?;
        }
    }
    Ok(())
}

/// One step over a block.
struct Apply<'a> {
    function: Function,
    a: Operand<'a>,
    b: Operand<'a>,
    out: &'a mut [f32],
}

/// A function of two vectors, known where it is compiled.
trait Two: Copy {
    fn apply<V: Vector>(self, v: V, a: V::F32, b: V::F32) -> V::F32;
}

/// A function by its place in [`Kernel::run`].
#[derive(Clone, Copy)]
struct Fixed<const F: u8>;

const NEG: u8 = 0;
const ABS: u8 = 1;
const EXP: u8 = 2;
const SQRT: u8 = 3;
const RECIPROCAL: u8 = 4;
const ERF: u8 = 5;
const SQUARE: u8 = 6;
const COPY: u8 = 7;

impl<const F: u8> One for Fixed<F> {
    #[inline(always)]
    fn apply<V: Vector>(self, v: V, x: V::F32) -> V::F32 {
        match F {
            NEG => math::negate(v, x),
            ABS => v.select_less(x, v.splat(0.0), math::negate(v, x), x),
            EXP => math::exp(v, x),
            SQRT => v.sqrt(x),
            RECIPROCAL => v.div(v.splat(1.0), x),
            ERF => math::erf(v, x),
            SQUARE => v.mul(x, x),
            _ => x,
        }
    }
}

const ADD: u8 = 0;
const SUB: u8 = 1;
const MUL: u8 = 2;
const DIV: u8 = 3;
const MAX: u8 = 4;
const MIN: u8 = 5;

impl<const F: u8> Two for Fixed<F> {
    #[inline(always)]
    fn apply<V: Vector>(self, v: V, a: V::F32, b: V::F32) -> V::F32 {
        match F {
            ADD => v.add(a, b),
            SUB => v.sub(a, b),
            MUL => v.mul(a, b),
            DIV => v.div(a, b),
            MAX => v.max(a, b),
            MIN => v.min(a, b),
            _ => v.select_less(a, v.splat(0.0), v.mul(a, b), a),
        }
    }
}

const SLOPE: u8 = 6;

impl Kernel for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        match self.function {
            Function::Add => self.binary(v, Fixed::<ADD>),
            Function::Sub => self.binary(v, Fixed::<SUB>),
            Function::Mul => self.binary(v, Fixed::<MUL>),
            Function::Div => self.binary(v, Fixed::<DIV>),
            Function::Max => self.binary(v, Fixed::<MAX>),
            Function::Min => self.binary(v, Fixed::<MIN>),
            Function::Slope => self.binary(v, Fixed::<SLOPE>),
            Function::Pow => match self.b {
                Operand::Number(2.0) => Loop::run(self, v, Fixed::<SQUARE>),
                Operand::Number(0.5) => Loop::run(self, v, Fixed::<SQRT>),
                _ => self.plain(f32::powf),
            },
            Function::Neg => Loop::run(self, v, Fixed::<NEG>),
            Function::Abs => Loop::run(self, v, Fixed::<ABS>),
            Function::Exp => Loop::run(self, v, Fixed::<EXP>),
            Function::Sqrt => Loop::run(self, v, Fixed::<SQRT>),
            Function::Reciprocal => Loop::run(self, v, Fixed::<RECIPROCAL>),
            Function::Erf => Loop::run(self, v, Fixed::<ERF>),
            Function::Log => self.plain(|x, _| x.ln()),
            Function::Floor => self.plain(|x, _| x.floor()),
            Function::Ceil => self.plain(|x, _| x.ceil()),
            Function::Round => self.plain(|x, _| x.round_ties_even()),
            Function::Sin => self.plain(|x, _| x.sin()),
            Function::Cos => self.plain(|x, _| x.cos()),
            Function::Softplus => self.plain(|x, _| x.max(0.0) + (-x.abs()).exp().ln_1p()),
            Function::Activation(Activation::None | Activation::Slopes) => Loop::run(self, v, Fixed::<COPY>),
            Function::Activation(activation) => activation.each(v, self),
        }
    }
}

/// `LANES` elements from `at`, or those that are left.
#[inline(always)]
fn load<V: Vector>(v: V, from: &Operand<'_>, at: usize) -> V::F32 {
    match from {
        Operand::Number(x) => v.splat(*x),
        Operand::Slice(slice) if slice.len() - at >= V::LANES => {
            // SAFETY: a whole vector is left.
            unsafe { v.load(slice.as_ptr().add(at)) }
        }
        Operand::Slice(slice) => v.load_part(&slice[at..]),
        Operand::Codes(..) => unreachable!("codes are decoded before"),
    }
}

/// Writes `x` from `at` on, as far as there is room.
#[inline(always)]
fn store<V: Vector>(v: V, out: &mut [f32], at: usize, x: V::F32) {
    if out.len() - at >= V::LANES {
        // SAFETY: a whole vector is left.
        unsafe { v.store(out.as_mut_ptr().add(at), x) };
    } else {
        v.store_part(&mut out[at..], x);
    }
}

impl<V: Vector> Loop<V> for Apply<'_> {
    #[inline(always)]
    fn run<F: One>(self, v: V, function: F) {
        for at in (0..self.out.len()).step_by(V::LANES) {
            store(v, self.out, at, function.apply(v, load(v, &self.a, at)));
        }
    }
}

impl Apply<'_> {
    #[inline(always)]
    fn binary<V: Vector, F: Two>(self, v: V, function: F) {
        for at in (0..self.out.len()).step_by(V::LANES) {
            store(v, self.out, at, function.apply(v, load(v, &self.a, at), load(v, &self.b, at)));
        }
    }

    #[inline(always)]
    fn plain(self, f: impl Fn(f32, f32) -> f32) {
        let at = |operand: &Operand<'_>, i: usize| match operand {
            Operand::Number(x) => *x,
            Operand::Slice(slice) => slice[i],
            Operand::Codes(..) => unreachable!("codes are decoded before"),
        };
        for (i, out) in self.out.iter_mut().enumerate() {
            *out = f(at(&self.a, i), at(&self.b, i));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Function, Operand, Source, Step, run};
    use crate::Isa;
    use crate::gemm::tests::{assert_close, numbers};

    #[test]
    fn programs_equal_their_steps() {
        for isa in Isa::available() {
            for len in [0, 1, 15, 16, 17, 130, 1300] {
                let (x, y) = (numbers(1, len), numbers(2, len));
                let steps = [
                    Step { function: Function::Mul, a: Source::Operand(0), b: Source::Operand(1) },
                    Step { function: Function::Erf, a: Source::Step(0), b: Source::Number(0.0) },
                    Step { function: Function::Pow, a: Source::Step(1), b: Source::Number(2.0) },
                    Step { function: Function::Slope, a: Source::Operand(2), b: Source::Operand(0) },
                    Step { function: Function::Sub, a: Source::Step(2), b: Source::Step(3) },
                ];
                let operands = [Operand::Slice(&x), Operand::Slice(&y), Operand::Number(-0.5)];
                let mut out = vec![0.0; len];
                run(isa, &steps, &operands, &mut out, &mut Vec::new()).unwrap();
                let erf = |x: f64| {
                    let mut sum = 0.0;
                    for i in 0..2000 {
                        let t = x * (f64::from(i) + 0.5) / 2000.0;
                        sum += (-t * t).exp() * x / 2000.0;
                    }
                    sum * 2.0 / std::f64::consts::PI.sqrt()
                };
                let one = |i: usize| (erf(f64::from(x[i] * y[i])).powi(2) + 0.5 * f64::from(x[i])) as f32;
                let expected: Vec<f32> = (0..len).map(one).collect();
                assert_close(&out, &expected, 1e-6, "chain");
            }
        }
        let forward = [Step { function: Function::Neg, a: Source::Step(0), b: Source::Number(0.0) }];
        assert!(run(Isa::Scalar, &forward, &[], &mut [0.0], &mut Vec::new()).is_err());
        assert!(run(Isa::Scalar, &[], &[], &mut [0.0], &mut Vec::new()).is_err());
    }
}
