//! Products of matrices.

use super::number::{Number, with_numbers};
use super::{Args, from_f64, tensor};
use crate::ops::Gemm;
use crate::ops::fact::{broadcast, count};
use crate::ops::matmul::{NBits, einsum_shape, gemm_shape, matmul_shape};
use kun_tensor::{DType, Element, Elements, Tensor};

/// `out += a [m, k] @ b [k, n]`, four rows at a time so that `b` is read a quarter as often.
pub(crate) fn multiply<T: Number>(a: &[T], b: &[T], out: &mut [T], k: usize, n: usize) {
    if n == 0 || k == 0 {
        return;
    }
    for (a, out) in a.chunks(4 * k).zip(out.chunks_mut(4 * n)) {
        if a.len() == 4 * k {
            let (r0, rest) = out.split_at_mut(n);
            let (r1, rest) = rest.split_at_mut(n);
            let (r2, r3) = rest.split_at_mut(n);
            for (i, b) in b.chunks_exact(n).enumerate() {
                let (x0, x1, x2, x3) = (a[i], a[k + i], a[2 * k + i], a[3 * k + i]);
                for ((((b, r0), r1), r2), r3) in
                    b.iter().zip(&mut *r0).zip(&mut *r1).zip(&mut *r2).zip(&mut *r3)
                {
                    *r0 = r0.add(x0.mul(*b));
                    *r1 = r1.add(x1.mul(*b));
                    *r2 = r2.add(x2.mul(*b));
                    *r3 = r3.add(x3.mul(*b));
                }
            }
        } else {
            for (a, out) in a.chunks_exact(k).zip(out.chunks_exact_mut(n)) {
                for (x, b) in a.iter().zip(b.chunks_exact(n)) {
                    out.iter_mut().zip(b).for_each(|(out, b)| *out = out.add(x.mul(*b)));
                }
            }
        }
    }
}

/// The batched product; the shape is that of [`matmul_shape`].
fn product<T: Number>(a: (&[T], &[usize]), b: (&[T], &[usize])) -> Result<(Vec<usize>, Vec<T>), String> {
    let shape = matmul_shape(a.1, b.1)?;
    let wide = |s: &[usize], left: bool| match (s, left) {
        (&[k], true) => vec![1, k],
        (&[k], false) => vec![k, 1],
        (s, _) => s.to_vec(),
    };
    let (sa, sb) = (wide(a.1, true), wide(b.1, false));
    let (batch_a, &[m, k]) = sa.split_at(sa.len() - 2) else { return Err("no matrix".into()) };
    let (batch_b, &[_, n]) = sb.split_at(sb.len() - 2) else { return Err("no matrix".into()) };
    let batch = broadcast(&[batch_a, batch_b])?;
    let offsets = |s: &[usize], size: usize| {
        let steps = super::elementwise::stretched_strides(s, &batch);
        let steps: Vec<isize> = steps.into_iter().map(|x| (x * size).cast_signed()).collect();
        super::layout::Walk::new(&batch, &steps, 0)
    };
    let mut out = vec![T::ZERO; count(&shape)?];
    let pairs = offsets(batch_a, m * k).zip(offsets(batch_b, k * n));
    for (out, (i, j)) in out.chunks_mut((m * n).max(1)).zip(pairs) {
        multiply(&a.0[i..i + m * k], &b.0[j..j + k * n], out, k, n);
    }
    Ok((shape, out))
}

/// As f32 for types narrower than that.
fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

pub(crate) fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor, String> {
    if a.dtype() != b.dtype() {
        return Err(format!("{} @ {}", a.dtype(), b.dtype()));
    }
    if is_half(a.dtype()) {
        let (x, y) = (super::f32s(a)?, super::f32s(b)?);
        let (shape, values) = product((&x, a.shape()), (&y, b.shape()))?;
        return super::from_f32(shape, values, a.dtype());
    }
    with_numbers!(a.elements(), x => {
        let (shape, values) = product((&x[..], a.shape()), (super::values(b)?, b.shape()))?;
        tensor(shape, Element::wrap(values))
    })
}

pub(crate) fn gemm(gemm: &Gemm, a: &Tensor, b: &Tensor, c: Option<&Tensor>) -> Result<Tensor, String> {
    let (m, _, n) = gemm_shape(gemm, a.shape(), b.shape())?;
    let turned =
        |x: &Tensor, turn: bool| if turn { super::layout::transpose(x, &[1, 0]) } else { Ok(x.clone()) };
    let (a, b) = (turned(a, gemm.transpose_a)?, turned(b, gemm.transpose_b)?);
    let dtype = a.dtype();
    if dtype == DType::F32 {
        let (_, mut values) =
            product((super::values::<f32>(&a)?, a.shape()), (super::values(&b)?, b.shape()))?;
        if gemm.alpha != 1.0 {
            values.iter_mut().for_each(|v| *v *= gemm.alpha);
        }
        if let Some(c) = c.filter(|_| gemm.beta != 0.0) {
            let c = super::layout::expand(c, &[m as i64, n as i64])?;
            let c = super::values::<f32>(&c)?;
            if c.len() != values.len() {
                return Err(format!("a sum of {:?}", [m, n]));
            }
            values.iter_mut().zip(c).for_each(|(v, c)| *v += gemm.beta * c);
        }
        return tensor([m, n], Elements::F32(values));
    }
    let (_, mut values) = product((&super::f64s(&a)?, a.shape()), (&super::f64s(&b)?, b.shape()))?;
    values.iter_mut().for_each(|v| *v *= f64::from(gemm.alpha));
    if let Some(c) = c {
        let c = super::layout::expand(c, &[m as i64, n as i64])?;
        values.iter_mut().zip(super::f64s(&c)?).for_each(|(v, c)| *v += f64::from(gemm.beta) * c);
    }
    from_f64([m, n], values, dtype)
}

/// `x` as i32 less its zero point, one for all, one a row (`per_row`) or one a column.
pub(crate) fn centred(x: &Tensor, zero: Option<&Tensor>, per_row: bool) -> Result<Vec<i32>, String> {
    let narrow = |x: &Tensor| -> Result<Vec<i32>, String> {
        Ok(super::integers(x)?.iter().map(|&v| v as i32).collect())
    };
    let mut values = narrow(x)?;
    let Some(zero) = zero else { return Ok(values) };
    let zeros = narrow(zero)?;
    let columns = x.shape().last().copied().unwrap_or(1);
    let rows = if x.shape().len() > 1 { x.shape()[x.shape().len() - 2] } else { 1 };
    match zeros.len() {
        1 => values.iter_mut().for_each(|v| *v -= zeros[0]),
        n if per_row && n == rows => {
            values.iter_mut().enumerate().for_each(|(i, v)| *v -= zeros[i / columns % rows]);
        }
        n if !per_row && n == columns => {
            values.iter_mut().enumerate().for_each(|(i, v)| *v -= zeros[i % columns]);
        }
        n if n > 1 && values.len().is_multiple_of(n) && zero.shape().len() == x.shape().len() => {
            let zeros = super::layout::stretched(zero, x.shape())?;
            values.iter_mut().zip(narrow(&zeros)?).for_each(|(v, z)| *v -= z);
        }
        n => return Err(format!("{n} zero points for {:?}", x.shape())),
    }
    Ok(values)
}

pub(crate) fn matmul_integer(x: &Args<'_>) -> Result<Tensor, String> {
    let (a, b) = (x.get(0)?, x.get(1)?);
    let left = centred(a, x.optional(2), true)?;
    let right = centred(b, x.optional(3), false)?;
    let (shape, values) = product((&left, a.shape()), (&right, b.shape()))?;
    tensor(shape, Elements::I32(values))
}

pub(crate) fn qlinear_matmul(x: &Args<'_>) -> Result<Tensor, String> {
    let (a, b) = (x.get(0)?, x.get(3)?);
    let left = centred(a, x.optional(2), true)?;
    let right = centred(b, x.optional(5), false)?;
    let (shape, values) = product((&left, a.shape()), (&right, b.shape()))?;
    let (sa, sb) = (super::f64s(x.get(1)?)?, super::f64s(x.get(4)?)?);
    let columns = shape.last().copied().unwrap_or(1).max(1);
    let rows = if shape.len() > 1 { shape[shape.len() - 2].max(1) } else { 1 };
    let pick = |scales: &[f64], i: usize| scales[if scales.len() == 1 { 0 } else { i }];
    if !(sa.len() == 1 || sa.len() == rows) || !(sb.len() == 1 || sb.len() == columns) {
        return Err(format!("{} and {} scales for {shape:?}", sa.len(), sb.len()));
    }
    let (scale, zero) = (x.number(6)?, x.number(7)?);
    let real = values
        .iter()
        .enumerate()
        .map(|(i, &v)| f64::from(v) * pick(&sa, i / columns % rows) * pick(&sb, i % columns));
    let dtype = x.get(7)?.dtype();
    let quantized = real.map(|v| super::quantize::to_integer(v / scale, zero, dtype)).collect();
    from_f64(shape, quantized, dtype)
}

pub(crate) fn matmul_nbits(bits: &NBits, x: &Args<'_>) -> Result<Tensor, String> {
    let (a, packed, scales) = (x.get(0)?, x.get(1)?, super::f32s(x.get(2)?)?);
    let NBits { k, n, bits, block } = *bits;
    if !matches!(bits, 2 | 4 | 8) || block == 0 || x.optional(4).is_some() {
        return Err(format!("weights of {bits} bits in blocks of {block}"));
    }
    let blocks = k.div_ceil(block);
    let bytes = super::values::<u8>(packed)?;
    let row_bytes = blocks * (block * bits).div_ceil(8);
    if bytes.len() != n * row_bytes || scales.len() != n * blocks {
        return Err(format!("{} bytes and {} scales for [{n}, {k}]", bytes.len(), scales.len()));
    }
    let code = |bytes: &[u8], i: usize| {
        let per = 8 / bits;
        f32::from(bytes[i / per] >> (i % per * bits) & (0xffu8 >> (8 - bits)))
    };
    let zeros: Vec<f32> = match x.optional(3) {
        None => vec![f32::from(1u16 << (bits - 1)); n * blocks],
        Some(zeros) => match zeros.elements() {
            Elements::U8(bytes) if bits < 8 => {
                let row = (blocks * bits).div_ceil(8);
                if bytes.len() != n * row {
                    return Err(format!("{} bytes of zero points", bytes.len()));
                }
                (0..n * blocks).map(|i| code(&bytes[i / blocks * row..], i % blocks)).collect()
            }
            _ => super::f32s(zeros)?,
        },
    };
    if zeros.len() != n * blocks {
        return Err(format!("{} zero points for {} blocks", zeros.len(), n * blocks));
    }
    // [K, N], as the product wants it.
    let mut weights = vec![0f32; k * n];
    for row in 0..n {
        let codes = &bytes[row * row_bytes..(row + 1) * row_bytes];
        for i in 0..k {
            let at = row * blocks + i / block;
            weights[i * n + row] = (code(codes, i) - zeros[at]) * scales[at];
        }
    }
    let values = super::f32s(a)?;
    let (shape, mut out) = product((&values, a.shape()), (&weights, &[k, n]))?;
    if let Some(bias) = x.optional(5) {
        let bias = super::f32s(bias)?;
        if bias.len() != n {
            return Err(format!("a bias of {}", bias.len()));
        }
        out.iter_mut().enumerate().for_each(|(i, v)| *v += bias[i % n]);
    }
    super::from_f32(shape, out, a.dtype())
}

pub(crate) fn einsum(equation: &str, operands: &[&Tensor]) -> Result<Tensor, String> {
    let shapes: Vec<&[usize]> = operands.iter().map(|x| x.shape()).collect();
    let (parsed, shape) = einsum_shape(equation, &shapes)?;
    let dtype = operands.first().ok_or("no operands")?.dtype();
    // Two operands at a time: joined along shared labels as a batched product, what nobody needs later summed away.
    let mut terms: Vec<(Vec<u32>, Tensor)> = Vec::new();
    for (labels, x) in parsed.operands.iter().zip(operands) {
        terms.push(diagonal(labels, &from_f64(x.shape(), super::f64s(x)?, DType::F64)?)?);
    }
    while terms.len() > 1 {
        let (a, b) = (terms.remove(0), terms.remove(0));
        let wanted =
            |l: u32| parsed.output.contains(&l) || terms.iter().any(|(labels, _)| labels.contains(&l));
        terms.insert(0, contract(a, b, wanted)?);
    }
    let (labels, x) = terms.pop().ok_or("no operands")?;
    let (labels, x) =
        contract((labels, x), (Vec::new(), Tensor::scalar(1.0f64)), |l| parsed.output.contains(&l))?;
    let axes: Vec<usize> = parsed
        .output
        .iter()
        .map(|l| labels.iter().position(|m| m == l).ok_or("a label of the result is unknown"))
        .collect::<Result<_, _>>()?;
    let moved = if axes.is_empty() { x } else { super::layout::transpose(&x, &axes)? };
    from_f64(shape, super::f64s(&moved)?, dtype)
}

/// A term with each label once: repeated ones become a diagonal.
fn diagonal(labels: &[u32], x: &Tensor) -> Result<(Vec<u32>, Tensor), String> {
    let strides = super::layout::strides(x.shape());
    let (mut kept, mut shape, mut steps) = (Vec::new(), Vec::new(), Vec::<isize>::new());
    for (d, &label) in labels.iter().enumerate() {
        match kept.iter().position(|&k| k == label) {
            Some(at) if shape[at] == x.shape()[d] => steps[at] += strides[d].cast_signed(),
            Some(_) => return Err(format!("a diagonal of {:?}", x.shape())),
            None => {
                kept.push(label);
                shape.push(x.shape()[d]);
                steps.push(strides[d].cast_signed());
            }
        }
    }
    Ok((kept, super::layout::strided(x, shape, &steps, 0)?))
}

/// The product of two terms, summed over labels that nobody wants.
fn contract(
    (la, a): (Vec<u32>, Tensor),
    (lb, b): (Vec<u32>, Tensor),
    wanted: impl Fn(u32) -> bool,
) -> Result<(Vec<u32>, Tensor), String> {
    let dim = |labels: &[u32], x: &Tensor, l: u32| labels.iter().position(|&m| m == l).map(|d| x.shape()[d]);
    let shared: Vec<u32> = la.iter().copied().filter(|&l| lb.contains(&l)).collect();
    let batch: Vec<u32> = shared.iter().copied().filter(|&l| wanted(l)).collect();
    let sum: Vec<u32> = shared.iter().copied().filter(|&l| !wanted(l)).collect();
    let only_a: Vec<u32> = la.iter().copied().filter(|l| !lb.contains(l)).collect();
    let only_b: Vec<u32> = lb.iter().copied().filter(|l| !la.contains(l)).collect();
    let length = |l: u32| -> Result<usize, String> {
        match (dim(&la, &a, l), dim(&lb, &b, l)) {
            (Some(x), Some(y)) if x == y || y == 1 => Ok(x),
            (Some(1), Some(y)) => Ok(y),
            (Some(x), None) | (None, Some(x)) => Ok(x),
            (x, y) => Err(format!("lengths {x:?} and {y:?} of one label")),
        }
    };
    let arranged = |labels: &[u32], x: &Tensor, groups: [&[u32]; 3]| -> Result<Tensor, String> {
        let order: Vec<u32> = groups.concat();
        let axes: Vec<usize> = order.iter().filter_map(|l| labels.iter().position(|m| m == l)).collect();
        let moved = if axes.is_empty() { x.clone() } else { super::layout::transpose(x, &axes)? };
        let full = order.iter().map(|&l| length(l)).collect::<Result<Vec<_>, _>>()?;
        let stretched = super::layout::stretched(&moved, &full)?;
        let sizes = groups
            .iter()
            .map(|g| count(&g.iter().map(|&l| length(l)).collect::<Result<Vec<_>, _>>()?))
            .collect::<Result<Vec<_>, _>>()?;
        stretched.reshaped(sizes).map_err(|e| e.to_string())
    };
    let left = arranged(&la, &a, [&batch, &only_a, &sum])?;
    let right = arranged(&lb, &b, [&batch, &sum, &only_b])?;
    let (_, values) = product(
        (super::values::<f64>(&left)?, left.shape()),
        (super::values::<f64>(&right)?, right.shape()),
    )?;
    let labels = [batch, only_a, only_b].concat();
    let shape = labels.iter().map(|&l| length(l)).collect::<Result<Vec<_>, _>>()?;
    let mut result = (labels, tensor(shape, Elements::F64(values))?);
    // Labels of one term alone that nobody wants are summed now.
    while let Some(at) = result.0.iter().position(|&l| !wanted(l)) {
        let (outer, length, inner) = super::reduce::around(result.1.shape(), at)?;
        let values = super::values::<f64>(&result.1)?;
        let mut summed = vec![0.0; outer * inner];
        for o in 0..outer {
            for n in 0..length {
                for i in 0..inner {
                    summed[o * inner + i] += values[(o * length + n) * inner + i];
                }
            }
        }
        let mut shape = result.1.shape().to_vec();
        shape.remove(at);
        result.0.remove(at);
        result.1 = tensor(shape, Elements::F64(summed))?;
    }
    Ok(result)
}

pub(crate) fn determinant(x: &Tensor) -> Result<Tensor, String> {
    let (batch, &[n, columns]) = x.shape().split_at(x.shape().len().saturating_sub(2)) else {
        return Err(format!("{:?} is no matrix", x.shape()));
    };
    if n != columns {
        return Err(format!("{:?} is not square", x.shape()));
    }
    let mut values = super::f64s(x)?;
    let determinants = values.chunks_mut((n * n).max(1)).map(|m| {
        let mut product = 1.0;
        for i in 0..n {
            let pivot =
                (i..n).max_by(|&p, &q| m[p * n + i].abs().total_cmp(&m[q * n + i].abs())).unwrap_or(i);
            if m[pivot * n + i] == 0.0 {
                return 0.0;
            }
            if pivot != i {
                (0..n).for_each(|j| m.swap(i * n + j, pivot * n + j));
                product = -product;
            }
            product *= m[i * n + i];
            for row in i + 1..n {
                let factor = m[row * n + i] / m[i * n + i];
                (i..n).for_each(|j| m[row * n + j] -= factor * m[i * n + j]);
            }
        }
        product
    });
    from_f64(batch, determinants.collect(), x.dtype())
}
