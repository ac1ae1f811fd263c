//! Products of matrices.

use super::TensorOp;
use super::fact::{Fact, Facts, broadcast, shaped};
use kun_tensor::DType;

/// `alpha * a' @ b' + beta * c`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gemm {
    /// Factor on the product.
    pub alpha: f32,
    /// Factor on `c`.
    pub beta: f32,
    /// Whether `a` is stored transposed.
    pub transpose_a: bool,
    /// Whether `b` is stored transposed.
    pub transpose_b: bool,
}

/// Weights `[N, K]` in blocks along `K`, `bits` bits each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct NBits {
    pub k: usize,
    pub n: usize,
    pub bits: usize,
    pub block: usize,
}

/// The shape of `a @ b` by NumPy's rules.
///
/// # Errors
/// If they do not fit.
pub fn matmul_shape(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let misfit = || format!("{a:?} @ {b:?}");
    if a.is_empty() || b.is_empty() {
        return Err(misfit());
    }
    let (rows, k) = if a.len() == 1 { (None, a[0]) } else { (Some(a[a.len() - 2]), a[a.len() - 1]) };
    let (depth, columns) = if b.len() == 1 { (b[0], None) } else { (b[b.len() - 2], Some(b[b.len() - 1])) };
    if k != depth {
        return Err(misfit());
    }
    let batch = |s: &[usize]| s[..s.len().saturating_sub(2)].to_vec();
    let mut shape = broadcast(&[&batch(a), &batch(b)]).map_err(|_| misfit())?;
    shape.extend(rows);
    shape.extend(columns);
    Ok(shape)
}

/// Rows, depth and columns of a [`Gemm`].
///
/// # Errors
/// If the operands do not fit.
pub fn gemm_shape(gemm: &Gemm, a: &[usize], b: &[usize]) -> Result<(usize, usize, usize), String> {
    let (&[a0, a1], &[b0, b1]) = (a, b) else { return Err(format!("{a:?} and {b:?} are no matrices")) };
    let (m, k) = if gemm.transpose_a { (a1, a0) } else { (a0, a1) };
    let (depth, n) = if gemm.transpose_b { (b1, b0) } else { (b0, b1) };
    if k == depth { Ok((m, k, n)) } else { Err(format!("depths {k} and {depth} of {a:?} and {b:?}")) }
}

/// One term of an einsum: labels of the operand's dimensions, with those of `..` numbered from 256 on.
pub(crate) struct Einsum {
    pub(crate) operands: Vec<Vec<u32>>,
    pub(crate) output: Vec<u32>,
}

/// Reads an equation for operands of these ranks.
pub(crate) fn parse_einsum(equation: &str, ranks: &[usize]) -> Result<Einsum, String> {
    let text: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match text.split_once("->") {
        Some((left, right)) => (left.to_owned(), Some(right.to_owned())),
        None => (text, None),
    };
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != ranks.len() {
        return Err(format!("`{equation}` has {} terms for {} operands", terms.len(), ranks.len()));
    }
    let letters = |term: &str| term.chars().filter(char::is_ascii_alphabetic).count();
    let widest = terms
        .iter()
        .zip(ranks)
        .filter(|(term, _)| term.contains("..."))
        .map(|(term, &rank)| rank.saturating_sub(letters(term)))
        .max()
        .unwrap_or(0);
    let labels = |term: &str, rank: Option<usize>| -> Result<Vec<u32>, String> {
        let dots = rank.map_or(widest, |rank| rank.saturating_sub(letters(term)));
        let dot_labels = (widest - dots.min(widest)..widest).map(|i| 256 + i as u32);
        let mut out = Vec::new();
        let (before, after) = term.split_once("...").map_or((term, None), |(b, a)| (b, Some(a)));
        for part in [Some(before), after] {
            if let Some(part) = part {
                for c in part.chars() {
                    if !c.is_ascii_alphabetic() {
                        return Err(format!("`{c}` in `{equation}`"));
                    }
                    out.push(u32::from(c));
                }
            }
            if part == Some(before) && after.is_some() && out.len() == before.len() {
                out.extend(dot_labels.clone());
            }
        }
        if let Some(rank) = rank
            && out.len() != rank
        {
            return Err(format!("`{term}` for {rank} dimensions"));
        }
        Ok(out)
    };
    let operands = terms
        .iter()
        .zip(ranks)
        .map(|(term, &rank)| labels(term, Some(rank)))
        .collect::<Result<Vec<_>, _>>()?;
    let output = match right {
        Some(right) => labels(&right, None)?,
        None => {
            let mut all: Vec<u32> = operands.concat();
            all.sort_unstable();
            let mut once: Vec<u32> = all
                .iter()
                .copied()
                .filter(|l| *l < 256 && all.iter().filter(|m| *m == l).count() == 1)
                .collect();
            let mut out: Vec<u32> = (0..widest as u32).map(|i| 256 + i).collect();
            out.append(&mut once);
            out
        }
    };
    Ok(Einsum { operands, output })
}

pub(crate) fn infer(op: &TensorOp, x: &Facts<'_>) -> Result<Vec<Fact>, String> {
    let product = |a: usize, b: usize| match (x.shape(a), x.shape(b)) {
        (Some(a), Some(b)) => matmul_shape(a, b).map(Some),
        _ => Ok(None),
    };
    Ok(match op {
        TensorOp::MatMul => x.like(0, product(0, 1)?),
        TensorOp::Gemm(gemm) => {
            let (Some(a), Some(b)) = (x.shape(0), x.shape(1)) else { return Ok(Vec::new()) };
            let (m, _, n) = gemm_shape(gemm, a, b)?;
            x.like(0, Some(vec![m, n]))
        }
        TensorOp::MatMulInteger => vec![shaped(Some(DType::I32), product(0, 1)?)],
        TensorOp::QLinearMatMul => vec![shaped(x.dtype(7), product(0, 3)?)],
        TensorOp::MatMulNBits(bits) => {
            let Some((_, batch)) = x.shape(0).and_then(<[usize]>::split_last) else { return Ok(Vec::new()) };
            let mut shape = batch.to_vec();
            shape.push(bits.n);
            x.like(0, Some(shape))
        }
        TensorOp::Einsum(equation) => {
            let shapes: Option<Vec<&[usize]>> = (0..x.len()).map(|i| x.shape(i)).collect();
            let Some(shapes) = shapes else { return Ok(Vec::new()) };
            x.like(0, Some(einsum_shape(equation, &shapes)?.1))
        }
        _ => Vec::new(),
    })
}

/// The parsed equation and the shape of its result.
pub(crate) fn einsum_shape(equation: &str, shapes: &[&[usize]]) -> Result<(Einsum, Vec<usize>), String> {
    let ranks: Vec<usize> = shapes.iter().map(|s| s.len()).collect();
    let einsum = parse_einsum(equation, &ranks)?;
    let length = |label: u32| -> Result<usize, String> {
        let mut length = None;
        for (labels, shape) in einsum.operands.iter().zip(shapes) {
            for (&l, &dim) in labels.iter().zip(*shape) {
                if l == label && length.is_none_or(|known| known == 1) {
                    length = Some(dim);
                }
            }
        }
        length.ok_or_else(|| format!("`{equation}` has a result dimension that no operand has"))
    };
    let shape = einsum.output.iter().map(|&l| length(l)).collect::<Result<_, _>>()?;
    Ok((einsum, shape))
}
