//! The definitions of the operations, on dense f32 tensors.

use crate::graph::{
    BinaryOp, CrossAttentionSpec, DisentangledSpec, Pool, RopeSpec, RopeStyle, SelfAttentionSpec, UnaryOp,
};

/// A dense tensor.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor {
    /// Outermost first.
    pub(crate) shape: Vec<usize>,
    /// Row-major.
    pub(crate) data: Vec<f32>,
}

pub(crate) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// Rows `ids` of `table` `[V, D]`.
pub(crate) fn rows(table: &Tensor, ids: &[i32]) -> Tensor {
    let d = table.shape[1];
    let data = ids.iter().flat_map(|&id| &table.data[id as usize * d..][..d]).copied().collect();
    Tensor { shape: vec![ids.len(), d], data }
}

/// `x [.., K] . w [N, K]^T (+ bias [N])`.
pub(crate) fn linear(x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let (n, k) = (w.shape[0], w.shape[1]);
    let mut data = Vec::with_capacity(x.data.len() / k * n);
    for row in x.data.chunks_exact(k) {
        for (i, w) in w.data.chunks_exact(k).enumerate() {
            data.push((dot(row, w) + bias.map_or(0.0, |b| f64::from(b.data[i]))) as f32);
        }
    }
    let mut shape = x.shape.clone();
    *shape.last_mut().expect("x has a last dimension") = n;
    Tensor { shape, data }
}

/// Root-mean-square norm of every group of `weight.len()` elements (arXiv:1910.07467).
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Tensor {
    let group = weight.data.len();
    let mut data = Vec::with_capacity(x.data.len());
    for x in x.data.chunks_exact(group) {
        let scale = 1.0 / (dot(x, x) / group as f64 + f64::from(eps)).sqrt();
        data.extend(x.iter().zip(&weight.data).map(|(&x, &w)| (f64::from(x) * scale * f64::from(w)) as f32));
    }
    Tensor { shape: x.shape.clone(), data }
}

/// Layer norm of every row (arXiv:1607.06450).
pub(crate) fn layer_norm(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, eps: f32) -> Tensor {
    let d = weight.data.len();
    let mut data = Vec::with_capacity(x.data.len());
    for x in x.data.chunks_exact(d) {
        let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / d as f64;
        let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / d as f64;
        let scale = 1.0 / (variance + f64::from(eps)).sqrt();
        data.extend((0..d).map(|i| {
            let bias = bias.map_or(0.0, |b| f64::from(b.data[i]));
            ((f64::from(x[i]) - mean) * scale * f64::from(weight.data[i]) + bias) as f32
        }));
    }
    Tensor { shape: x.shape.clone(), data }
}

/// One row per sequence of `x [T, D]`; `lengths` are their tokens.
pub(crate) fn pool(x: &Tensor, pool: Pool, lengths: &[usize]) -> Tensor {
    let d = x.shape[1];
    let mut data = Vec::with_capacity(lengths.len() * d);
    let mut first = 0;
    for &n in lengths {
        let rows = &x.data[first * d..(first + n) * d];
        first += n;
        data.extend((0..d).map(|i| {
            let column = rows.iter().skip(i).step_by(d).map(|&x| f64::from(x));
            let y = match pool {
                Pool::Mean => column.sum::<f64>() / n as f64,
                Pool::MeanRoot => column.sum::<f64>() / (n as f64).sqrt(),
                Pool::Max => column.fold(f64::NEG_INFINITY, f64::max),
                Pool::Weighted => {
                    let total = (n * (n + 1) / 2) as f64;
                    column.zip(1u32..).map(|(x, weight)| x * f64::from(weight)).sum::<f64>() / total
                }
            };
            y as f32
        }));
    }
    Tensor { shape: vec![lengths.len(), d], data }
}

/// Attention of all tokens of a sequence to all of it; `table` is the weight of the spec's bias.
pub(crate) fn self_attention(
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    spec: &SelfAttentionSpec,
    table: Option<&Tensor>,
    lengths: &[usize],
) -> Tensor {
    let (dh, group) = (spec.head_dim, spec.heads / spec.kv_heads);
    let row = |x: &Tensor, t: usize, head: usize| x.data[t * x.shape[1] + head * dh..][..dh].to_vec();
    let mut data = vec![0.0; q.data.len()];
    let mut first = 0;
    for &n in lengths {
        for (i, head) in (0..n).flat_map(|i| (0..spec.heads).map(move |head| (i, head))) {
            let query = row(q, first + i, head);
            let seen: Vec<usize> =
                (0..n).filter(|j| spec.reach.is_none_or(|reach| j.abs_diff(i) <= reach)).collect();
            let scores: Vec<f64> = seen
                .iter()
                .map(|&j| {
                    let bias = match (&spec.bias, table) {
                        (Some(bias), Some(table)) => {
                            let distance = j as i64 - i as i64;
                            f64::from(bias.value(&table.data, spec.heads, head, distance))
                        }
                        _ => 0.0,
                    };
                    dot(&query, &row(k, first + j, head / group)) * f64::from(spec.scale) + bias
                })
                .collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            for d in 0..dh {
                let mixed: f64 = seen
                    .iter()
                    .zip(&weights)
                    .map(|(&j, w)| w * f64::from(row(v, first + j, head / group)[d]))
                    .sum();
                data[(first + i) * q.shape[1] + head * dh + d] = (mixed / total) as f32;
            }
        }
        first += n;
    }
    Tensor { shape: q.shape.clone(), data }
}

/// Attention of each token to the rows of its span.
pub(crate) fn cross_attention(
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    spans: &[i32],
    spec: &CrossAttentionSpec,
) -> Tensor {
    let (dh, width) = (spec.head_dim, spec.heads * spec.head_dim);
    let mut data = vec![0.0; q.data.len()];
    for (t, span) in spans.chunks_exact(2).enumerate() {
        for at in (0..width).step_by(dh) {
            let row = |x: &'_ Tensor, j: usize| x.data[j * width + at..][..dh].to_vec();
            let rows = span[0] as usize..span[1] as usize;
            let scores: Vec<f64> =
                rows.clone().map(|j| dot(&row(q, t), &row(k, j)) * f64::from(spec.scale)).collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            for d in 0..dh {
                let mixed: f64 =
                    rows.clone().zip(&weights).map(|(j, w)| w * f64::from(v.data[j * width + at + d])).sum();
                data[t * width + at + d] = (mixed / total) as f32;
            }
        }
    }
    Tensor { shape: q.shape.clone(), data }
}

/// Attention that compares content and distance apart.
pub(crate) fn disentangled_attention(
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    (key_distances, query_distances): (Option<&Tensor>, Option<&Tensor>),
    spec: &DisentangledSpec,
    lengths: &[usize],
) -> Tensor {
    let (dh, width) = (spec.head_dim, q.shape[1]);
    let row = |x: &Tensor, t: usize, head: usize| x.data[t * width + head * dh..][..dh].to_vec();
    let mut data = vec![0.0; q.data.len()];
    let mut first = 0;
    for &n in lengths {
        for (i, head) in (0..n).flat_map(|i| (0..spec.heads).map(move |head| (i, head))) {
            let query = row(q, first + i, head);
            let scores: Vec<f64> = (0..n)
                .map(|j| {
                    let (key, at) = (row(k, first + j, head), spec.row(i as i64 - j as i64));
                    let to_position = key_distances.map_or(0.0, |table| dot(&query, &row(table, at, head)));
                    let to_content = query_distances.map_or(0.0, |table| dot(&key, &row(table, at, head)));
                    (dot(&query, &key) + to_position + to_content) * f64::from(spec.scale)
                })
                .collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            for d in 0..dh {
                let values = weights.iter().enumerate();
                let mixed: f64 = values.map(|(j, w)| w * f64::from(row(v, first + j, head)[d])).sum();
                data[(first + i) * width + head * dh + d] = (mixed / total) as f32;
            }
        }
        first += n;
    }
    Tensor { shape: q.shape.clone(), data }
}

/// Rotary position embedding (arXiv:2104.09864). The angle is rounded to f32, as the models' own code does.
pub(crate) fn rope(x: &Tensor, positions: &[i32], spec: &RopeSpec, frequencies: &Tensor) -> Tensor {
    let half = spec.rotary_dim / 2;
    let mut data = x.data.clone();
    for (row, &position) in data.chunks_exact_mut(x.shape[1]).zip(positions) {
        for head in row.chunks_exact_mut(spec.head_dim) {
            for (i, &frequency) in frequencies.data.iter().enumerate() {
                let (sin, cos) = f64::from(position as f32 * frequency).sin_cos();
                let (sin, cos) = (sin * f64::from(spec.magnitude), cos * f64::from(spec.magnitude));
                let (first, second) = match spec.style {
                    RopeStyle::Interleaved => (2 * i, 2 * i + 1),
                    RopeStyle::Halves => (i, i + half),
                };
                let (a, b) = (f64::from(head[first]), f64::from(head[second]));
                head[first] = (a * cos - b * sin) as f32;
                head[second] = (b * cos + a * sin) as f32;
            }
        }
    }
    Tensor { shape: x.shape.clone(), data }
}

pub(crate) fn unary(op: UnaryOp, x: &Tensor) -> Tensor {
    let data = x.data.iter().map(|&x| unary_element(op, f64::from(x)) as f32).collect();
    Tensor { shape: x.shape.clone(), data }
}

fn unary_element(op: UnaryOp, x: f64) -> f64 {
    match op {
        UnaryOp::Neg => -x,
        UnaryOp::Exp => x.exp(),
        UnaryOp::Sqrt => x.sqrt(),
        UnaryOp::Recip => 1.0 / x,
        UnaryOp::Relu => x.max(0.0),
        UnaryOp::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        UnaryOp::Tanh => x.tanh(),
        UnaryOp::Silu => x / (1.0 + (-x).exp()),
        UnaryOp::GeluQuick => x / (1.0 + (-1.702 * x).exp()),
        UnaryOp::Gelu => 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        UnaryOp::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        _ => unreachable!("this crate is built with its kernels, and defines every operation they have"),
    }
}

/// With NumPy broadcasting.
pub(crate) fn binary(op: BinaryOp, a: &Tensor, b: &Tensor) -> Tensor {
    let rank = a.shape.len().max(b.shape.len());
    let padded = |t: &Tensor| {
        let mut shape = vec![1; rank - t.shape.len()];
        shape.extend(&t.shape);
        shape
    };
    let (a_shape, b_shape) = (padded(a), padded(b));
    let shape: Vec<usize> = a_shape.iter().zip(&b_shape).map(|(&a, &b)| if a == 1 { b } else { a }).collect();
    let elements: usize = shape.iter().product();
    let data = (0..elements)
        .map(|flat| {
            let (mut rest, mut at_a, mut at_b, mut step_a, mut step_b) = (flat, 0, 0, 1, 1);
            for d in (0..rank).rev() {
                let index = rest % shape[d];
                rest /= shape[d];
                at_a += if a_shape[d] == 1 { 0 } else { index * step_a };
                at_b += if b_shape[d] == 1 { 0 } else { index * step_b };
                step_a *= a_shape[d];
                step_b *= b_shape[d];
            }
            binary_element(op, a.data[at_a], b.data[at_b])
        })
        .collect();
    Tensor { shape, data }
}

fn binary_element(op: BinaryOp, a: f32, b: f32) -> f32 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Max => a.max(b),
        BinaryOp::Min => a.min(b),
        BinaryOp::Pow => f64::from(a).powf(f64::from(b)) as f32,
        _ => unreachable!("this crate is built with its kernels, and defines every operation they have"),
    }
}

/// The error function, to f64 accuracy: its Taylor series near 0, a continued fraction of its complement beyond.
fn erf(x: f64) -> f64 {
    let magnitude = x.abs();
    let result = if magnitude < 2.5 {
        let (mut term, mut sum) = (magnitude, magnitude);
        for n in 1..80 {
            term *= -magnitude * magnitude / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        let fraction = (1..60).rev().fold(magnitude, |f, n| magnitude + f64::from(n) / 2.0 / f);
        1.0 - (-magnitude * magnitude).exp() / (fraction * std::f64::consts::PI.sqrt())
    };
    result.copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_matches_tabled_values() {
        for (x, y) in [
            (0.0, 0.0),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.0, 0.995_322_265_018_952_7),
            (3.0, 0.999_977_909_503_001_4),
            (-1.0, -0.842_700_792_949_714_9),
        ] {
            assert!((erf(x) - y).abs() < 1e-13, "erf({x}) = {}", erf(x));
        }
    }

    #[test]
    fn binary_stretches_dimensions_of_one() {
        let a = Tensor { shape: vec![2, 1], data: vec![1.0, 2.0] };
        let b = Tensor { shape: vec![3], data: vec![10.0, 20.0, 30.0] };
        let c = binary(BinaryOp::Add, &a, &b);
        assert_eq!(c, Tensor { shape: vec![2, 3], data: vec![11.0, 21.0, 31.0, 12.0, 22.0, 32.0] });
    }
}
