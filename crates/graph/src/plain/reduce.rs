//! Operations along axes.

use super::number::{Number, with_numbers};
use super::{from_f64, tensor};
use crate::ops::fact::{axis, count};
use crate::ops::reduce::reduced;
use crate::ops::{ArgReduce, Cumulate, Reduce, ReduceKind, SoftmaxKind};
use kun_tensor::{DType, Element, Elements, Tensor};

/// Elements before, along and after an axis.
pub(crate) fn around(shape: &[usize], at: usize) -> Result<(usize, usize, usize), String> {
    Ok((count(&shape[..at])?, shape[at], count(&shape[at + 1..])?))
}

pub(crate) fn reduce(reduce: &Reduce, x: &Tensor, named: Option<&[i64]>) -> Result<Tensor, String> {
    let axes = reduce.axes(named, x.shape().len())?;
    let shape = reduced(x.shape(), &axes, reduce.keep_dims);
    // Reduced dimensions last, then each row is one result.
    let order: Vec<usize> =
        (0..x.shape().len()).filter(|d| !axes.contains(d)).chain(axes.iter().copied()).collect();
    let in_order = order.iter().copied().eq(0..order.len());
    let moved =
        if in_order || x.shape().is_empty() { None } else { Some(super::layout::transpose(x, &order)?) };
    let x = moved.as_ref().unwrap_or(x);
    let row = count(
        &axes
            .iter()
            .map(|&a| order.iter().position(|&o| o == a).map_or(1, |p| x.shape()[p]))
            .collect::<Vec<_>>(),
    )?;
    let rows = count(&shape)?;
    let kind = reduce.kind;
    if let Elements::Bool(values) = x.elements() {
        let result = |values: &[bool]| match kind {
            ReduceKind::Max => values.contains(&true),
            _ => !values.contains(&false),
        };
        if !matches!(kind, ReduceKind::Max | ReduceKind::Min) {
            return Err(format!("{kind:?} of bool"));
        }
        let out = (0..rows).map(|r| result(&values[r * row..(r + 1) * row])).collect();
        return tensor(shape, Elements::Bool(out));
    }
    with_numbers!(x.elements(), values => {
        let out = (0..rows).map(|r| reduce_row(kind, &values[r * row..(r + 1) * row])).collect();
        tensor(shape, Element::wrap(out))
    })
}

fn reduce_row<T: Number>(kind: ReduceKind, row: &[T]) -> T {
    let is_float = matches!(T::DTYPE, DType::F64 | DType::F32 | DType::F16 | DType::BF16);
    let sum = |f: &dyn Fn(f64) -> f64| row.iter().map(|x| f(x.to_f64())).sum::<f64>();
    let fold = |f: &dyn Fn(T, T) -> T| row.iter().copied().reduce(f);
    match kind {
        ReduceKind::Max => fold(&|a, b| if a.is_nan() || a > b { a } else { b })
            .unwrap_or_else(|| if is_float { T::from_f64(f64::NEG_INFINITY) } else { T::from_f64(f64::MIN) }),
        ReduceKind::Min => fold(&|a, b| if a.is_nan() || a < b { a } else { b })
            .unwrap_or_else(|| T::from_f64(f64::INFINITY)),
        ReduceKind::Sum if !is_float => fold(&T::add).unwrap_or(T::ZERO),
        ReduceKind::Prod if !is_float => fold(&T::mul).unwrap_or(T::ONE),
        ReduceKind::SumSquare if !is_float => row.iter().fold(T::ZERO, |sum, &x| sum.add(x.mul(x))),
        ReduceKind::Sum => T::from_f64(sum(&|x| x)),
        ReduceKind::Mean => {
            let mean = sum(&|x| x) / row.len() as f64;
            T::from_f64(if is_float { mean } else { mean.floor() })
        }
        ReduceKind::Prod => T::from_f64(row.iter().map(|x| x.to_f64()).product()),
        ReduceKind::L1 => T::from_f64(sum(&f64::abs)),
        ReduceKind::L2 => T::from_f64(sum(&|x| x * x).sqrt()),
        ReduceKind::SumSquare => T::from_f64(sum(&|x| x * x)),
        ReduceKind::LogSum => T::from_f64(sum(&|x| x).ln()),
        ReduceKind::LogSumExp => {
            let most = row.iter().map(|x| x.to_f64()).fold(f64::NEG_INFINITY, f64::max);
            if !most.is_finite() {
                return T::from_f64(most);
            }
            T::from_f64(sum(&|x| (x - most).exp()).ln() + most)
        }
    }
}

pub(crate) fn arg(arg: &ArgReduce, x: &Tensor) -> Result<Tensor, String> {
    let at = axis(arg.axis, x.shape().len())?;
    let (outer, length, inner) = around(x.shape(), at)?;
    if length == 0 {
        return Err(format!("no element along axis {at} of {:?}", x.shape()));
    }
    let shape = reduced(x.shape(), &[at], arg.keep_dims);
    with_numbers!(x.elements(), values => {
        let mut out = Vec::with_capacity(outer * inner);
        for o in 0..outer {
            for i in 0..inner {
                let mut best = 0;
                for n in 1..length {
                    let (a, b) = (values[(o * length + n) * inner + i], values[(o * length + best) * inner + i]);
                    let better = if arg.largest { a > b } else { a < b };
                    if better || (arg.last && a == b) {
                        best = n;
                    }
                }
                out.push(best as i64);
            }
        }
        tensor(shape, Elements::I64(out))
    })
}

pub(crate) fn cumulate(cumulate: &Cumulate, x: &Tensor, at: i64) -> Result<Tensor, String> {
    let at = axis(at, x.shape().len())?;
    let (outer, length, inner) = around(x.shape(), at)?;
    with_numbers!(x.elements(), values => tensor(x.shape(), Element::wrap(running(cumulate, values, outer, length, inner))))
}

fn running<T: Number>(
    cumulate: &Cumulate,
    values: &[T],
    outer: usize,
    length: usize,
    inner: usize,
) -> Vec<T> {
    let mut out = vec![T::ZERO; values.len()];
    for o in 0..outer {
        for i in 0..inner {
            let mut sum = if cumulate.product { T::ONE } else { T::ZERO };
            for n in 0..length {
                let n = if cumulate.reverse { length - 1 - n } else { n };
                let at = (o * length + n) * inner + i;
                let next = if cumulate.product { sum.mul(values[at]) } else { sum.add(values[at]) };
                out[at] = if cumulate.exclusive { sum } else { next };
                sum = next;
            }
        }
    }
    out
}

/// Softmax and its relatives of `values`, `[outer, length, inner]` along the middle, in place.
pub(crate) fn softmax_values(
    kind: SoftmaxKind,
    values: &mut [f64],
    outer: usize,
    length: usize,
    inner: usize,
) {
    for o in 0..outer {
        for i in 0..inner {
            let at = |n: usize| (o * length + n) * inner + i;
            let most = (0..length).map(|n| values[at(n)]).fold(f64::NEG_INFINITY, f64::max);
            if kind == SoftmaxKind::Hardmax {
                let first = (0..length).find(|&n| values[at(n)] == most);
                (0..length).for_each(|n| values[at(n)] = f64::from(u8::from(Some(n) == first)));
                continue;
            }
            let sum: f64 = (0..length).map(|n| (values[at(n)] - most).exp()).sum();
            for n in 0..length {
                let shifted = values[at(n)] - most;
                values[at(n)] =
                    if kind == SoftmaxKind::Softmax { shifted.exp() / sum } else { shifted - sum.ln() };
            }
        }
    }
}

pub(crate) fn softmax(x: &Tensor, at: i64, kind: SoftmaxKind) -> Result<Tensor, String> {
    let at = axis(at, x.shape().len())?;
    let (outer, length, inner) = around(x.shape(), at)?;
    let mut values = super::f64s(x)?;
    softmax_values(kind, &mut values, outer, length, inner);
    from_f64(x.shape(), values, x.dtype())
}

pub(crate) fn softmax_flat(x: &Tensor, at: i64, kind: SoftmaxKind) -> Result<Tensor, String> {
    let matrix = crate::ops::layout::flat(x.shape(), at)?;
    let mut values = super::f64s(x)?;
    softmax_values(kind, &mut values, matrix[0], matrix[1], 1);
    from_f64(x.shape(), values, x.dtype())
}

pub(crate) fn lp_normalize(x: &Tensor, at: i64, p: i64) -> Result<Tensor, String> {
    let at = axis(at, x.shape().len())?;
    let (outer, length, inner) = around(x.shape(), at)?;
    let mut values = super::f64s(x)?;
    for o in 0..outer {
        for i in 0..inner {
            let at = |n: usize| (o * length + n) * inner + i;
            let norm = match p {
                1 => (0..length).map(|n| values[at(n)].abs()).sum(),
                2 => (0..length).map(|n| values[at(n)] * values[at(n)]).sum::<f64>().sqrt(),
                _ => return Err(format!("a norm of {p}")),
            };
            (0..length).for_each(|n| values[at(n)] = if norm == 0.0 { 0.0 } else { values[at(n)] / norm });
        }
    }
    from_f64(x.shape(), values, x.dtype())
}
