//! Shape inference: the one place that knows which operands an operation takes and what comes out.

use crate::graph::{Dim, DistanceBias, Op, Sym, ValueInfo, WeightId, WeightInfo};
use kun_tensor::DType;

/// Element type and dimensions of one result.
pub type Inferred = (DType, Vec<Dim>);

/// Results of `op` for operands `inputs`; `weights` is the graph's table.
///
/// # Errors
/// What does not fit, with the numbers.
pub fn infer(op: &Op, inputs: &[&ValueInfo], weights: &[WeightInfo]) -> Result<Vec<Inferred>, String> {
    let one = |dtype: DType, shape: Vec<Dim>| Ok(vec![(dtype, shape)]);
    match op {
        Op::Embedding { table } => {
            let [ids] = operands(inputs)?;
            is(ids, DType::I32, "ids")?;
            let [_, d] = weight_dims(weights, *table)?;
            let mut shape = ids.shape.clone();
            shape.push(Dim::Const(d));
            one(DType::F32, shape)
        }
        Op::Linear { weights: matrices, biases, residual } => {
            let x = if *residual {
                let [x, _] = operands(inputs)?;
                x
            } else {
                let [x] = operands(inputs)?;
                x
            };
            is(x, DType::F32, "x")?;
            let k = last(x, "x")?;
            if matrices.is_empty() || matrices.len() != biases.len() {
                return Err(format!("{} weights and {} biases", matrices.len(), biases.len()));
            }
            if *residual && matrices.len() != 1 {
                return Err(format!("a residual needs one weight, there are {}", matrices.len()));
            }
            let mut results = Vec::with_capacity(matrices.len());
            for (matrix, bias) in matrices.iter().zip(biases) {
                let [n, wide] = weight_dims(weights, *matrix)?;
                if wide != k {
                    return Err(format!("x has rows of {k}, the weight is [{n}, {wide}]"));
                }
                if let Some(bias) = bias {
                    let [m] = weight_dims(weights, *bias)?;
                    if m != n {
                        return Err(format!("a bias of {m} for {n} outputs"));
                    }
                }
                let mut shape = x.shape.clone();
                *shape.last_mut().expect("x has a last dimension") = Dim::Const(n);
                results.push((DType::F32, shape));
            }
            if *residual {
                is(inputs[1], DType::F32, "residual")?;
                same(&results[0].1, &inputs[1].shape, "output and residual")?;
            }
            Ok(results)
        }
        Op::RmsNorm { weight, eps } => {
            let [x] = operands(inputs)?;
            is(x, DType::F32, "x")?;
            let [group] = weight_dims(weights, *weight)?;
            let d = last(x, "x")?;
            if !d.is_multiple_of(group) {
                return Err(format!("rows of {d} do not split into groups of {group}"));
            }
            epsilon(*eps)?;
            one(DType::F32, x.shape.clone())
        }
        Op::LayerNorm { weight, bias, eps } => {
            let [x] = operands(inputs)?;
            is(x, DType::F32, "x")?;
            let d = last(x, "x")?;
            for id in [Some(*weight), *bias].into_iter().flatten() {
                let [len] = weight_dims(weights, id)?;
                if len != d {
                    return Err(format!("rows of {d} and a weight of {len}"));
                }
            }
            epsilon(*eps)?;
            one(DType::F32, x.shape.clone())
        }
        Op::AddRmsNorm { weight, eps } => {
            let [x, delta] = operands(inputs)?;
            is(x, DType::F32, "x")?;
            is(delta, DType::F32, "delta")?;
            same(&x.shape, &delta.shape, "x and delta")?;
            let [d] = weight_dims(weights, *weight)?;
            if last(x, "x")? != d {
                return Err(format!("rows of {} and a weight of {d}", last(x, "x")?));
            }
            epsilon(*eps)?;
            Ok(vec![(DType::F32, x.shape.clone()), (DType::F32, x.shape.clone())])
        }
        Op::Rope(spec) => {
            let [x, positions] = operands(inputs)?;
            is(x, DType::F32, "x")?;
            let width = matrix_width(x, "x")?;
            token_ids(positions, x, "positions")?;
            let [half] = weight_dims(weights, spec.inverse_frequencies)?;
            if spec.head_dim == 0 || !width.is_multiple_of(spec.head_dim) {
                return Err(format!("rows of {width} do not split into heads of {}", spec.head_dim));
            }
            if Some(spec.rotary_dim) != half.checked_mul(2) || spec.rotary_dim > spec.head_dim {
                return Err(format!(
                    "{} turning elements with {half} frequencies in heads of {}",
                    spec.rotary_dim, spec.head_dim
                ));
            }
            one(DType::F32, x.shape.clone())
        }
        Op::Attention(spec) => {
            let [q, k, v] = operands(inputs)?;
            heads([q, k, v], spec.heads, spec.kv_heads, spec.head_dim)?;
            if spec.window_tokens == Some(0) {
                return Err("a window of no tokens".into());
            }
            if !spec.scale.is_finite() {
                return Err(format!("a scale of {}", spec.scale));
            }
            match spec.bias {
                None => {}
                Some(DistanceBias::Slopes(_)) => return Err("slopes with a cache are not supported".into()),
                Some(DistanceBias::Buckets { table, max_distance }) => {
                    let [buckets, n] = weight_dims(weights, table)?;
                    let exact = buckets / 2;
                    if n != spec.heads || exact == 0 || max_distance <= exact {
                        return Err(format!(
                            "a bias of [{buckets}, {n}] up to {max_distance} for {} heads",
                            spec.heads
                        ));
                    }
                }
            }
            one(DType::F32, q.shape.clone())
        }
        Op::CrossAttention(spec) => {
            let [q, k, v, spans] = operands(inputs)?;
            if spec.heads == 0 || spec.head_dim == 0 || spec.max_rows == 0 {
                return Err("no heads, heads of no width, or no rows".into());
            }
            for (value, name) in [(q, "q"), (k, "k"), (v, "v")] {
                is(value, DType::F32, name)?;
                let width = matrix_width(value, name)?;
                if Some(width) != spec.heads.checked_mul(spec.head_dim) {
                    return Err(format!(
                        "{name} has rows of {width}, not {} heads of {}",
                        spec.heads, spec.head_dim
                    ));
                }
            }
            same(&k.shape, &v.shape, "k and v")?;
            is(spans, DType::I32, "spans")?;
            same(&spans.shape, &[q.shape[0], Dim::Const(2)], "spans")?;
            if !(spec.scale.is_finite() && spec.scale > 0.0) {
                return Err(format!("a scale of {}", spec.scale));
            }
            one(DType::F32, q.shape.clone())
        }
        Op::SelfAttention(spec) => {
            let [q, k, v] = operands(inputs)?;
            heads([q, k, v], spec.heads, spec.kv_heads, spec.head_dim)?;
            if !(spec.scale.is_finite() && spec.scale > 0.0) {
                return Err(format!("a scale of {}", spec.scale));
            }
            match spec.bias {
                Some(DistanceBias::Slopes(slopes)) => {
                    let [n] = weight_dims(weights, slopes)?;
                    if n != spec.heads {
                        return Err(format!("{n} slopes for {} heads", spec.heads));
                    }
                }
                Some(DistanceBias::Buckets { table, max_distance }) => {
                    let [buckets, n] = weight_dims(weights, table)?;
                    let exact = buckets / 4;
                    if n != spec.heads || exact == 0 || !buckets.is_multiple_of(2) || max_distance <= exact {
                        return Err(format!(
                            "a bias of [{buckets}, {n}] up to {max_distance} for {} heads",
                            spec.heads
                        ));
                    }
                }
                None => {}
            }
            one(DType::F32, q.shape.clone())
        }
        Op::DisentangledAttention(spec) => {
            let tables = usize::from(spec.content_to_position) + usize::from(spec.position_to_content);
            let (Some((&[q, k, v], distances)), true) =
                (inputs.split_first_chunk::<3>(), inputs.len() == 3 + tables)
            else {
                return Err(format!("takes {} operands, has {}", 3 + tables, inputs.len()));
            };
            heads([q, k, v], spec.heads, spec.heads, spec.head_dim)?;
            if !(spec.scale.is_finite() && spec.scale > 0.0) || spec.span == 0 {
                return Err(format!("a scale of {} over a span of {}", spec.scale, spec.span));
            }
            if spec.max_distance.is_some_and(|far| spec.span < 4 || far <= spec.span / 2 + 1) {
                return Err(format!("{} buckets up to {:?}", spec.span, spec.max_distance));
            }
            let rows = spec.span.checked_mul(2).ok_or("the span overflows")?;
            for table in distances {
                is(table, DType::F32, "distances")?;
                if table.shape != [Dim::Const(rows), q.shape[1]] {
                    return Err(format!("distances of {} for a span of {}", show(&table.shape), spec.span));
                }
            }
            one(DType::F32, q.shape.clone())
        }
        Op::Pool(_) => {
            let [x] = operands(inputs)?;
            is(x, DType::F32, "x")?;
            let d = matrix_width(x, "x")?;
            if x.shape[0] != Dim::Sym(Sym::Tokens) {
                return Err(format!("x has shape {}, not a row per token", show(&x.shape)));
            }
            one(DType::F32, vec![Dim::Sym(Sym::Seqs), Dim::Const(d)])
        }
        Op::Gated(_) => {
            let [gate, up] = operands(inputs)?;
            is(gate, DType::F32, "gate")?;
            is(up, DType::F32, "up")?;
            same(&gate.shape, &up.shape, "gate and up")?;
            one(DType::F32, gate.shape.clone())
        }
        Op::Unary(_) => {
            let [x] = operands(inputs)?;
            is(x, DType::F32, "x")?;
            one(DType::F32, x.shape.clone())
        }
        Op::Binary(_) => {
            let [a, b] = operands(inputs)?;
            is(a, DType::F32, "a")?;
            is(b, DType::F32, "b")?;
            one(DType::F32, broadcast(&a.shape, &b.shape)?)
        }
        Op::Weight(weight) => {
            let [] = operands(inputs)?;
            let info = weights.get(weight.0 as usize).ok_or("no such weight")?;
            one(DType::F32, info.shape.iter().map(|&d| Dim::Const(d)).collect())
        }
        Op::SelectRows => {
            let [x, rows] = operands(inputs)?;
            is(x, DType::F32, "x")?;
            matrix_width(x, "x")?;
            is(rows, DType::I32, "rows")?;
            if rows.shape.len() != 1 {
                return Err(format!("rows has shape {}", show(&rows.shape)));
            }
            one(DType::F32, vec![rows.shape[0], x.shape[1]])
        }
        Op::Tensor(_) => Err("a tensor operation has no shape before those of the inputs are known".into()),
    }
}

/// Queries, keys and values of attention.
fn heads([q, k, v]: [&ValueInfo; 3], heads: usize, kv_heads: usize, head_dim: usize) -> Result<(), String> {
    for (value, name) in [(q, "q"), (k, "k"), (v, "v")] {
        is(value, DType::F32, name)?;
    }
    if kv_heads == 0 || head_dim == 0 || heads == 0 {
        return Err("no heads, or heads of no width".into());
    }
    if !heads.is_multiple_of(kv_heads) {
        return Err(format!("{heads} query heads over {kv_heads} key heads"));
    }
    for (value, heads, name) in [(q, heads, "q"), (k, kv_heads, "k"), (v, kv_heads, "v")] {
        let width = matrix_width(value, name)?;
        if Some(width) != heads.checked_mul(head_dim) {
            return Err(format!("{name} has rows of {width}, not {heads} heads of {head_dim}"));
        }
        same(&q.shape[..1], &value.shape[..1], "tokens of q and of k or v")?;
    }
    Ok(())
}

/// NumPy's rule: shapes align at the last dimension, and a dimension of 1 stretches.
fn broadcast(a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>, String> {
    let rank = a.len().max(b.len());
    let at =
        |shape: &[Dim], i: usize| (i + shape.len()).checked_sub(rank).map_or(Dim::Const(1), |j| shape[j]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Ok(x),
            (x, Dim::Const(1)) => Ok(x),
            (Dim::Const(1), y) => Ok(y),
            _ => Err(format!("{} does not broadcast with {}", show(a), show(b))),
        })
        .collect()
}

fn operands<'a, const N: usize>(inputs: &[&'a ValueInfo]) -> Result<[&'a ValueInfo; N], String> {
    inputs.try_into().map_err(|_| format!("takes {N} operands, has {}", inputs.len()))
}

fn weight_dims<const N: usize>(weights: &[WeightInfo], id: WeightId) -> Result<[usize; N], String> {
    let info = weights.get(id.0 as usize).ok_or("no such weight")?;
    info.shape
        .as_slice()
        .try_into()
        .map_err(|_| format!("weight `{}` has {} dimensions, not {N}", info.name, info.shape.len()))
}

fn is(value: &ValueInfo, dtype: DType, name: &str) -> Result<(), String> {
    if value.dtype == dtype { Ok(()) } else { Err(format!("{name} is {}, not {dtype}", value.dtype)) }
}

fn last(value: &ValueInfo, name: &str) -> Result<usize, String> {
    match value.shape.last() {
        Some(Dim::Const(d)) => Ok(*d),
        _ => Err(format!("the last dimension of {name} {} is not known", show(&value.shape))),
    }
}

fn matrix_width(value: &ValueInfo, name: &str) -> Result<usize, String> {
    if value.shape.len() != 2 {
        return Err(format!("{name} has shape {}, not two dimensions", show(&value.shape)));
    }
    last(value, name)
}

fn token_ids(ids: &ValueInfo, x: &ValueInfo, name: &str) -> Result<(), String> {
    is(ids, DType::I32, name)?;
    same(&ids.shape, &x.shape[..1], name)
}

fn same(a: &[Dim], b: &[Dim], what: &str) -> Result<(), String> {
    if a == b { Ok(()) } else { Err(format!("{what}: {} and {}", show(a), show(b))) }
}

fn epsilon(eps: f32) -> Result<(), String> {
    if eps >= 0.0 && eps.is_finite() { Ok(()) } else { Err(format!("an epsilon of {eps}")) }
}

/// `[T, 576]`.
pub fn show(shape: &[Dim]) -> String {
    let dims: Vec<String> = shape
        .iter()
        .map(|dim| match dim {
            Dim::Const(n) => n.to_string(),
            Dim::Sym(sym) => sym.letter().to_string(),
            Dim::Named(_) | Dim::Unknown => "?".to_owned(),
        })
        .collect();
    format!("[{}]", dims.join(", "))
}
