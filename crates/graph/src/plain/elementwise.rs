//! Functions of one, two or more elements, with broadcasting, and changes of type.

use super::number::{Number, erf, with_numbers};
use super::{Args, tensor};
use crate::ops::fact::broadcast;
use crate::ops::{Binary, Cast, Round, Unary, Variadic};
use half::{bf16, f16};
use kun_tensor::narrow::{self, Scale};
use kun_tensor::{DType, Element, Elements, Tensor};

/// Strides of `shape` inside `out`, 0 where it stretches.
pub(crate) fn stretched_strides(shape: &[usize], out: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; out.len()];
    let offset = out.len() - shape.len();
    let mut stride = 1;
    for i in (0..shape.len()).rev() {
        if shape[i] != 1 {
            strides[offset + i] = stride;
        }
        stride *= shape[i];
    }
    strides
}

/// The rows along the last dimension of a shape: where each begins in every operand.
struct Rows<'a, const N: usize> {
    outer: &'a [usize],
    strides: [&'a [usize]; N],
    index: Vec<usize>,
    /// Of the next row; none after the last.
    offsets: Option<[usize; N]>,
}

impl<'a, const N: usize> Rows<'a, N> {
    fn new(shape: &'a [usize], strides: [&'a [usize]; N]) -> Rows<'a, N> {
        let outer = &shape[..shape.len().saturating_sub(1)];
        let offsets = (!shape.contains(&0)).then_some([0; N]);
        Rows { outer, strides, index: vec![0; outer.len()], offsets }
    }
}

impl<const N: usize> Iterator for Rows<'_, N> {
    type Item = [usize; N];

    #[inline(never)]
    fn next(&mut self) -> Option<[usize; N]> {
        let current = self.offsets.take()?;
        let mut offsets = current;
        for d in (0..self.outer.len()).rev() {
            self.index[d] += 1;
            for (offset, strides) in offsets.iter_mut().zip(self.strides) {
                *offset += strides[d];
            }
            if self.index[d] < self.outer[d] {
                self.offsets = Some(offsets);
                break;
            }
            for (offset, strides) in offsets.iter_mut().zip(self.strides) {
                *offset -= strides[d] * self.outer[d];
            }
            self.index[d] = 0;
        }
        Some(current)
    }
}

/// How the elements of two operands meet.
struct Pairs {
    shape: Vec<usize>,
    count: usize,
    strides: [Vec<usize>; 2],
    /// Elements of a row, and from one to the next in each operand.
    length: usize,
    steps: [usize; 2],
}

impl Pairs {
    fn new(a: &[usize], b: &[usize]) -> Result<Pairs, String> {
        let shape = broadcast(&[a, b])?;
        let count = crate::ops::fact::count(&shape)?;
        let strides = [stretched_strides(a, &shape), stretched_strides(b, &shape)];
        let steps = [0, 1].map(|i| strides[i].last().copied().unwrap_or(0));
        let length = shape.last().copied().unwrap_or(1);
        Ok(Pairs { shape, count, strides, length, steps })
    }

    fn rows(&self) -> Rows<'_, 2> {
        Rows::new(&self.shape, [&self.strides[0], &self.strides[1]])
    }
}

/// `f` of every pair of elements, with broadcasting.
///
/// Compiled for every function and type, so whatever depends on neither is done by [`Pairs`].
pub(crate) fn zip<A: Clone, B: Clone, R>(
    (a, a_shape): (&[A], &[usize]),
    (b, b_shape): (&[B], &[usize]),
    f: impl Fn(&A, &B) -> R,
) -> Result<(Vec<usize>, Vec<R>), String> {
    let pairs = Pairs::new(a_shape, b_shape)?;
    if a.len() == pairs.count && b.len() == pairs.count {
        return Ok((pairs.shape, a.iter().zip(b).map(|(a, b)| f(a, b)).collect()));
    }
    let mut out = Vec::with_capacity(pairs.count);
    for [at_a, at_b] in pairs.rows() {
        let pair = |i: usize| f(&a[at_a + i * pairs.steps[0]], &b[at_b + i * pairs.steps[1]]);
        out.extend((0..pairs.length).map(pair));
    }
    Ok((pairs.shape, out))
}

fn map<T: Element + Copy>(shape: &[usize], values: &[T], f: impl Fn(T) -> T) -> Result<Tensor, String> {
    tensor(shape, T::wrap(values.iter().map(|&x| f(x)).collect()))
}

/// A function of one element of a float.
pub(crate) fn function(op: Unary, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let softplus = |x: f64| if x > 30.0 { x } else { x.exp().ln_1p() };
    match op {
        Unary::Abs => x.abs(),
        Unary::Acos => x.acos(),
        Unary::Acosh => x.acosh(),
        Unary::Asin => x.asin(),
        Unary::Asinh => x.asinh(),
        Unary::Atan => x.atan(),
        Unary::Atanh => x.atanh(),
        Unary::Ceil => x.ceil(),
        Unary::Cos => x.cos(),
        Unary::Cosh => x.cosh(),
        Unary::Erf => erf(x),
        Unary::Exp => x.exp(),
        Unary::Floor => x.floor(),
        Unary::Log => x.ln(),
        Unary::Mish => x * softplus(x).tanh(),
        Unary::Neg => -x,
        Unary::Reciprocal => 1.0 / x,
        Unary::Relu => {
            if x < 0.0 {
                0.0
            } else {
                x
            }
        }
        Unary::Round => x.round_ties_even(),
        Unary::Sigmoid => sigmoid(x),
        Unary::Sign => {
            if x == 0.0 || x.is_nan() {
                x
            } else {
                x.signum()
            }
        }
        Unary::Sin => x.sin(),
        Unary::Sinh => x.sinh(),
        Unary::Softplus => softplus(x),
        Unary::Softsign => x / (1.0 + x.abs()),
        Unary::Sqrt => x.sqrt(),
        Unary::Tan => x.tan(),
        Unary::Tanh => x.tanh(),
        Unary::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        Unary::HardSigmoid { alpha, beta } => (f64::from(alpha) * x + f64::from(beta)).clamp(0.0, 1.0),
        Unary::Celu { alpha } => {
            let alpha = f64::from(alpha);
            x.max(0.0) + (alpha * (x / alpha).exp_m1()).min(0.0)
        }
        Unary::Elu { alpha } => {
            if x < 0.0 {
                f64::from(alpha) * x.exp_m1()
            } else {
                x
            }
        }
        Unary::Gelu { tanh: false } => 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Unary::Gelu { tanh: true } => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        Unary::LeakyRelu { alpha } => {
            if x < 0.0 {
                f64::from(alpha) * x
            } else {
                x
            }
        }
        Unary::Selu { alpha, gamma } => {
            f64::from(gamma) * if x > 0.0 { x } else { f64::from(alpha) * x.exp_m1() }
        }
        Unary::Shrink { bias, lambda } => {
            let (bias, lambda) = (f64::from(bias), f64::from(lambda));
            if x < -lambda {
                x + bias
            } else if x > lambda {
                x - bias
            } else {
                0.0
            }
        }
        Unary::Swish { alpha } => x * sigmoid(f64::from(alpha) * x),
        Unary::ThresholdedRelu { alpha } => {
            if x > f64::from(alpha) {
                x
            } else {
                0.0
            }
        }
        Unary::BitwiseNot | Unary::Not | Unary::IsNan | Unary::IsInf { .. } => f64::NAN,
    }
}

pub(crate) fn unary(op: Unary, x: &Tensor) -> Result<Tensor, String> {
    let shape = x.shape();
    let unfit = || format!("{op:?} of {}", x.dtype());
    match op {
        Unary::IsNan | Unary::IsInf { .. } => {
            let values = super::f64s(x)?;
            let test = |v: &f64| match op {
                Unary::IsInf { negative, positive } => {
                    v.is_infinite() && if *v > 0.0 { positive } else { negative }
                }
                _ => v.is_nan(),
            };
            return tensor(shape, Elements::Bool(values.iter().map(test).collect()));
        }
        _ => {}
    }
    macro_rules! integer {
        ($values:expr, $neg:expr, $abs:expr, $sign:expr, $signed:expr) => {
            match op {
                Unary::Abs => map(shape, $values, $abs),
                Unary::Neg if $signed => map(shape, $values, $neg),
                Unary::Sign => map(shape, $values, $sign),
                Unary::BitwiseNot => map(shape, $values, |x| !x),
                Unary::Relu => map(shape, $values, |x| x.max(0)),
                Unary::Ceil | Unary::Floor | Unary::Round => Ok(x.clone()),
                _ => Err(unfit()),
            }
        };
    }
    match x.elements() {
        Elements::Bool(values) if op == Unary::Not => map(shape, values, |x| !x),
        _ if matches!(op, Unary::Not) => Err(unfit()),
        Elements::I64(v) => integer!(v, |x| x.wrapping_neg(), |x| x.wrapping_abs(), |x| x.signum(), true),
        Elements::I32(v) => integer!(v, |x| x.wrapping_neg(), |x| x.wrapping_abs(), |x| x.signum(), true),
        Elements::I16(v) => integer!(v, |x| x.wrapping_neg(), |x| x.wrapping_abs(), |x| x.signum(), true),
        Elements::I8(v) => integer!(v, |x| x.wrapping_neg(), |x| x.wrapping_abs(), |x| x.signum(), true),
        Elements::U64(v) => integer!(v, |x| x, |x| x, |x| x.min(1), false),
        Elements::U32(v) => integer!(v, |x| x, |x| x, |x| x.min(1), false),
        Elements::U16(v) => integer!(v, |x| x, |x| x, |x| x.min(1), false),
        Elements::U8(v) => integer!(v, |x| x, |x| x, |x| x.min(1), false),
        _ if op == Unary::BitwiseNot => Err(unfit()),
        Elements::F32(values) => match op {
            Unary::Relu => map(shape, values, |x| if x < 0.0 { 0.0 } else { x }),
            Unary::Sigmoid => map(shape, values, |x| 1.0 / (1.0 + (-x).exp())),
            Unary::HardSwish => map(shape, values, |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
            _ => map(shape, values, |x| function(op, f64::from(x)) as f32),
        },
        Elements::F64(values) => map(shape, values, |x| function(op, x)),
        Elements::F16(values) => map(shape, values, |x| f16::from_f64(function(op, x.to_f64()))),
        Elements::BF16(values) => map(shape, values, |x| bf16::from_f64(function(op, x.to_f64()))),
        _ => Err(unfit()),
    }
}

fn compared<T: PartialOrd + Clone>(
    op: Binary,
    a: (&[T], &[usize]),
    b: (&[T], &[usize]),
) -> Result<Tensor, String> {
    let (shape, values) = match op {
        Binary::Equal => zip(a, b, |a, b| a == b),
        Binary::Less => zip(a, b, |a, b| a < b),
        Binary::LessOrEqual => zip(a, b, |a, b| a <= b),
        Binary::Greater => zip(a, b, |a, b| a > b),
        _ => zip(a, b, |a, b| a >= b),
    }?;
    tensor(shape, Elements::Bool(values))
}

fn arithmetic<T: Number>(op: Binary, a: (&[T], &[usize]), b: (&[T], &[usize])) -> Result<Tensor, String> {
    let (shape, values) = match op {
        Binary::Add => zip(a, b, |a, b| a.add(*b)),
        Binary::Sub => zip(a, b, |a, b| a.sub(*b)),
        Binary::Mul => zip(a, b, |a, b| a.mul(*b)),
        Binary::Div => zip(a, b, |a, b| a.div(*b)),
        Binary::Mod { truncated: true } => zip(a, b, |a, b| a.truncated_mod(*b)),
        Binary::Mod { truncated: false } => zip(a, b, |a, b| a.floor_mod(*b)),
        Binary::PRelu => zip(a, b, |a, b| if *a < T::ZERO { a.mul(*b) } else { *a }),
        _ => Err(format!("{op:?} of {}", T::DTYPE)),
    }?;
    tensor(shape, T::wrap(values))
}

pub(crate) fn binary(op: Binary, a: &Tensor, b: &Tensor) -> Result<Tensor, String> {
    let (sa, sb) = (a.shape(), b.shape());
    if op == Binary::Pow {
        return pow(a, b);
    }
    if a.dtype() != b.dtype() {
        return Err(format!("{op:?} of {} and {}", a.dtype(), b.dtype()));
    }
    match op {
        Binary::And | Binary::Or | Binary::Xor => {
            let (a, b) = ((super::values::<bool>(a)?, sa), (super::values::<bool>(b)?, sb));
            let (shape, values) = match op {
                Binary::And => zip(a, b, |a, b| *a && *b),
                Binary::Or => zip(a, b, |a, b| *a || *b),
                _ => zip(a, b, |a, b| a != b),
            }?;
            return tensor(shape, Elements::Bool(values));
        }
        Binary::BitShift { .. } | Binary::BitwiseAnd | Binary::BitwiseOr | Binary::BitwiseXor => {
            return bitwise(op, a, b);
        }
        Binary::Equal if matches!(a.elements(), Elements::Bool(_)) => {
            return compared(op, (super::values::<bool>(a)?, sa), (super::values::<bool>(b)?, sb));
        }
        Binary::Equal if matches!(a.elements(), Elements::Text(_)) => {
            return compared(op, (super::values::<String>(a)?, sa), (super::values::<String>(b)?, sb));
        }
        _ => {}
    }
    with_numbers!(a.elements(), left => {
        let right = super::values(b)?;
        match op {
            Binary::Equal | Binary::Less | Binary::LessOrEqual | Binary::Greater | Binary::GreaterOrEqual => {
                compared(op, (left, sa), (right, sb))
            }
            _ => arithmetic(op, (left, sa), (right, sb)),
        }
    })
}

fn bitwise(op: Binary, a: &Tensor, b: &Tensor) -> Result<Tensor, String> {
    macro_rules! bits {
        ($($variant:ident),*) => {
            match (a.elements(), b.elements()) {
                $((Elements::$variant(x), Elements::$variant(y)) => {
                    let (x, y) = ((&x[..], a.shape()), (&y[..], b.shape()));
                    let (shape, values) = match op {
                        Binary::BitwiseAnd => zip(x, y, |x, y| x & y),
                        Binary::BitwiseOr => zip(x, y, |x, y| x | y),
                        Binary::BitwiseXor => zip(x, y, |x, y| x ^ y),
                        Binary::BitShift { left: true } => {
                            zip(x, y, |x, y| u32::try_from(*y).ok().and_then(|y| x.checked_shl(y)).unwrap_or(0))
                        }
                        // Beyond the width only the sign is left.
                        _ => zip(x, y, |x, y| {
                            let sign = if Number::to_f64(*x) < 0.0 { !0 } else { 0 };
                            u32::try_from(*y).ok().and_then(|y| x.checked_shr(y)).unwrap_or(sign)
                        }),
                    }?;
                    tensor(shape, Elements::$variant(values))
                })*
                _ => Err(format!("{op:?} of {}", a.dtype())),
            }
        };
    }
    bits!(I64, I32, I16, I8, U64, U32, U16, U8)
}

fn pow(a: &Tensor, b: &Tensor) -> Result<Tensor, String> {
    let whole = super::ops::fact::integers(b.elements());
    with_numbers!(a.elements(), base => {
        let base = (&base[..], a.shape());
        let is_integer = !matches!(a.dtype(), DType::F64 | DType::F32 | DType::F16 | DType::BF16);
        match whole {
            Some(exponents) if is_integer => {
                let (shape, values) = zip(base, (&exponents, b.shape()), |&x, &n| integer_power(x, n))?;
                tensor(shape, Element::wrap(values))
            }
            _ => power(base, (&super::f64s(b)?, b.shape())),
        }
    })
}

fn power<T: Number>(base: (&[T], &[usize]), exponent: (&[f64], &[usize])) -> Result<Tensor, String> {
    let (shape, values) = zip(base, exponent, |x, &n| {
        let x = x.to_f64();
        T::from_f64(if n == 2.0 { x * x } else { x.powf(n) })
    })?;
    tensor(shape, T::wrap(values))
}

fn integer_power<T: Number>(base: T, exponent: i64) -> T {
    if exponent < 0 {
        return T::from_f64(base.to_f64().powf(exponent as f64));
    }
    let (mut base, mut n, mut product) = (base, exponent, T::ONE);
    while n > 0 {
        if n & 1 == 1 {
            product = product.mul(base);
        }
        base = base.mul(base);
        n >>= 1;
    }
    product
}

pub(crate) fn variadic(op: Variadic, operands: &[&Tensor]) -> Result<Tensor, String> {
    let (first, rest) = operands.split_first().ok_or("no operands")?;
    let mut sum = Tensor::clone(first);
    for x in rest {
        if x.dtype() != sum.dtype() {
            return Err(format!("{op:?} of {} and {}", sum.dtype(), x.dtype()));
        }
        sum = with_numbers!(sum.elements(), a => {
            let (a, b) = ((&a[..], sum.shape()), (super::values(x)?, x.shape()));
            let (shape, values) = match op {
                Variadic::Max => zip(a, b, |a, b| if a.is_nan() || *a > *b { *a } else { *b }),
                Variadic::Min => zip(a, b, |a, b| if a.is_nan() || *a < *b { *a } else { *b }),
                Variadic::Mean | Variadic::Sum => zip(a, b, |a, b| a.add(*b)),
            }?;
            tensor(shape, Element::wrap(values))?
        });
    }
    if op == Variadic::Mean {
        let count = operands.len() as f64;
        return with_numbers!(sum.elements(), v => {
            tensor(sum.shape(), Element::wrap(v.iter().map(|x| divided(*x, count)).collect()))
        });
    }
    Ok(sum)
}

fn divided<T: Number>(x: T, by: f64) -> T {
    T::from_f64(x.to_f64() / by)
}

pub(crate) fn clip(x: &Tensor, least: Option<&Tensor>, most: Option<&Tensor>) -> Result<Tensor, String> {
    with_numbers!(x.elements(), v => {
        let bound = |bound: Option<&Tensor>| match bound.map(super::values).transpose()? {
            None => Ok(None),
            Some([value]) => Ok(Some(*value)),
            Some(other) => Err(format!("a bound of {} values", other.len())),
        };
        let (least, most) = (bound(least)?, bound(most)?);
        map(x.shape(), v, |x| {
            let x = if least.is_some_and(|l| x < l) { least.unwrap_or(x) } else { x };
            if most.is_some_and(|m| x > m) { most.unwrap_or(x) } else { x }
        })
    })
}

/// `Where`.
pub(crate) fn select(condition: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor, String> {
    let test = super::values::<bool>(condition)?;
    let shape = broadcast(&[condition.shape(), a.shape(), b.shape()])?;
    if a.dtype() != b.dtype() {
        return Err(format!("{} or {}", a.dtype(), b.dtype()));
    }
    let strides = [condition.shape(), a.shape(), b.shape()].map(|s| stretched_strides(s, &shape));
    let (length, steps) = match shape.last() {
        Some(&length) => (length, strides.each_ref().map(|s| s[s.len() - 1])),
        None => (1, [0; 3]),
    };
    let count = crate::ops::fact::count(&shape)?;
    let rows = || Rows::new(&shape, strides.each_ref().map(Vec::as_slice));
    macro_rules! pick {
        ($($variant:ident),*) => {
            match (a.elements(), b.elements()) {
                $((Elements::$variant(x), Elements::$variant(y)) => {
                    let mut out = Vec::with_capacity(count);
                    for [c, i, j] in rows() {
                        out.extend((0..length).map(|n| {
                            let chosen = if test[c + n * steps[0]] { &x[i + n * steps[1]] } else { &y[j + n * steps[2]] };
                            chosen.clone()
                        }));
                    }
                    Elements::$variant(out)
                })*
                (Elements::Narrow(dtype, x), Elements::Narrow(_, y)) => {
                    let mut out = Vec::with_capacity(count);
                    for [c, i, j] in rows() {
                        out.extend((0..length).map(|n| {
                            if test[c + n * steps[0]] { x[i + n * steps[1]] } else { y[j + n * steps[2]] }
                        }));
                    }
                    Elements::Narrow(*dtype, out)
                }
                _ => return Err(format!("{} or {}", a.dtype(), b.dtype())),
            }
        };
    }
    let elements = pick!(F64, F32, F16, BF16, I64, I32, I16, I8, U64, U32, U16, U8, Bool, Text);
    tensor(shape, elements)
}

pub(crate) fn swiglu(alpha: f32, gate: &Tensor, up: &Tensor) -> Result<Tensor, String> {
    let gated = unary(Unary::Swish { alpha }, gate)?;
    binary(Binary::Mul, &gated, up)
}

pub(crate) fn dropout(x: &Args<'_>) -> Result<Vec<Tensor>, String> {
    let training = x.optional(2).map(super::truth).transpose()?.unwrap_or(false);
    let ratio = x.optional_number(1)?.unwrap_or(0.5);
    if training && ratio != 0.0 {
        return Err("dropout in training mode".into());
    }
    let values = x.get(0)?;
    let mask = tensor(values.shape(), Elements::Bool(vec![true; values.elements().len()]))?;
    Ok(vec![values.clone(), mask])
}

/// The values as elements of type `to`.
pub(crate) fn cast_to(x: &Elements, to: DType) -> Result<Elements, String> {
    cast_elements(x, &Cast { to, saturate: true, round: Round::Up })
}

/// `x` as f32.
pub(crate) fn widened(x: &Tensor) -> Result<Tensor, String> {
    tensor(x.shape(), cast_to(x.elements(), DType::F32)?)
}

pub(crate) fn cast(x: &Tensor, cast: &Cast) -> Result<Tensor, String> {
    tensor(x.shape(), cast_elements(x.elements(), cast)?)
}

fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16)
        || dtype.is_narrow() && !matches!(dtype, DType::I4 | DType::U4 | DType::I2 | DType::U2)
}

fn cast_elements(x: &Elements, cast: &Cast) -> Result<Elements, String> {
    if x.dtype() == cast.to {
        return Ok(x.clone());
    }
    if let Elements::Text(texts) = x {
        let parsed = texts.iter().map(|text| parse(text)).collect::<Result<Vec<f64>, String>>()?;
        return cast_elements(&Elements::F64(parsed), cast);
    }
    let unfit = || format!("a cast of {} to {}", x.dtype(), cast.to);
    macro_rules! integers {
        ($type:ty) => {
            match x {
                Elements::U64(v) => v.iter().map(|&x| x as $type).collect(),
                x if is_float(x.dtype()) => {
                    x.to_f64().ok_or_else(unfit)?.into_iter().map(|x| x as i64 as $type).collect()
                }
                x => x.to_i64().ok_or_else(unfit)?.into_iter().map(|x| x as $type).collect::<Vec<$type>>(),
            }
        };
    }
    Ok(match cast.to {
        DType::F64 => Elements::F64(x.to_f64().ok_or_else(unfit)?),
        DType::F32 => Elements::F32(x.to_f32().ok_or_else(unfit)?),
        DType::F16 => match x {
            Elements::F64(v) => Elements::F16(v.iter().map(|&x| f16::from_f64(x)).collect()),
            x => Elements::F16(x.to_f32().ok_or_else(unfit)?.into_iter().map(f16::from_f32).collect()),
        },
        DType::BF16 => match x {
            Elements::F64(v) => Elements::BF16(v.iter().map(|&x| bf16::from_f64(x)).collect()),
            x => Elements::BF16(x.to_f32().ok_or_else(unfit)?.into_iter().map(bf16::from_f32).collect()),
        },
        DType::I64 => Elements::I64(integers!(i64)),
        DType::I32 => Elements::I32(integers!(i32)),
        DType::I16 => Elements::I16(integers!(i16)),
        DType::I8 => Elements::I8(integers!(i8)),
        DType::U64 => match x {
            x if is_float(x.dtype()) => {
                Elements::U64(x.to_f64().ok_or_else(unfit)?.into_iter().map(|x| x as u64).collect())
            }
            _ => Elements::U64(integers!(u64)),
        },
        DType::U32 => Elements::U32(integers!(u32)),
        DType::U16 => Elements::U16(integers!(u16)),
        DType::U8 => Elements::U8(integers!(u8)),
        DType::Bool => Elements::Bool(x.to_f64().ok_or_else(unfit)?.into_iter().map(|x| x != 0.0).collect()),
        DType::Text => Elements::Text(texts(x).ok_or_else(unfit)?),
        DType::F8E8M0 => {
            let round = match cast.round {
                Round::Up => Scale::Up,
                Round::Down => Scale::Down,
                Round::Nearest => Scale::Nearest,
            };
            let code = |x: f32| narrow::scale_code(x, round, cast.saturate);
            Elements::Narrow(cast.to, x.to_f32().ok_or_else(unfit)?.into_iter().map(code).collect())
        }
        to if to.is_narrow() => {
            let rounded = is_float(x.dtype()) && !is_float(to);
            let code = |x: f32| {
                let x = if rounded { x.round_ties_even() } else { x };
                narrow::encode(to, x, cast.saturate)
            };
            Elements::Narrow(to, x.to_f32().ok_or_else(unfit)?.into_iter().map(code).collect())
        }
        _ => return Err(unfit()),
    })
}

fn parse(text: &str) -> Result<f64, String> {
    let trimmed = text.trim();
    match trimmed.to_ascii_lowercase().as_str() {
        "inf" | "+inf" => Ok(f64::INFINITY),
        "-inf" => Ok(f64::NEG_INFINITY),
        "nan" => Ok(f64::NAN),
        _ => trimmed.parse().map_err(|_| format!("`{}` is no number", text.escape_debug())),
    }
}

fn texts(x: &Elements) -> Option<Vec<String>> {
    Some(match x {
        Elements::F32(v) => v.iter().map(|x| number_text(&format!("{x:?}"), f64::from(*x))).collect(),
        Elements::F64(v) => v.iter().map(|x| number_text(&format!("{x:?}"), *x)).collect(),
        Elements::I64(v) => v.iter().map(i64::to_string).collect(),
        Elements::U64(v) => v.iter().map(u64::to_string).collect(),
        Elements::Bool(v) => v.iter().map(|x| if *x { "True" } else { "False" }.to_owned()).collect(),
        x if is_float(x.dtype()) => {
            x.to_f32()?.iter().map(|x| number_text(&format!("{x:?}"), f64::from(*x))).collect()
        }
        x => x.to_i64()?.iter().map(i64::to_string).collect(),
    })
}

/// Rust's shortest text of a float, with the names and exponents of C.
fn number_text(text: &str, value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "INF" } else { "-INF" }.to_owned();
    }
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |d| ('-', d));
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        None => text.to_owned(),
    }
}

pub(crate) fn bit_cast(x: &Tensor, to: DType) -> Result<Tensor, String> {
    let unfit = || format!("the bits of {} as {to}", x.dtype());
    if x.dtype().block_bytes() != to.block_bytes() || narrow::bits(x.dtype()) != narrow::bits(to) {
        return Err(unfit());
    }
    let bytes = x.elements().to_le_bytes().ok_or_else(unfit)?;
    tensor(x.shape(), Elements::from_le_bytes(to, &bytes).ok_or_else(unfit)?)
}
