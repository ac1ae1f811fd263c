//! Attention and what belongs to it.

use super::matmul::multiply;
use super::{Args, f64s, from_f64, tensor};
use crate::ops::fact::{broadcast, count};
use crate::ops::{AttentionAttributes, LinearAttention, RotaryEmbedding};
use kun_tensor::{DType, Elements, Tensor};

/// `[N, H, S, D]` from that or from `[N, S, H * D]`.
fn split_heads(x: &Tensor, heads: usize) -> Result<Tensor, String> {
    match *x.shape() {
        [_, _, _, _] => Ok(x.clone()),
        [n, s, width] if heads > 0 && width.is_multiple_of(heads) => {
            let wide = x.clone().reshaped([n, s, heads, width / heads]).map_err(|e| e.to_string())?;
            super::layout::transpose(&wide, &[0, 2, 1, 3])
        }
        ref shape => Err(format!("{shape:?} in {heads} heads")),
    }
}

/// The values rounded to what `dtype` holds.
fn rounded(values: Vec<f64>, dtype: DType) -> Result<Vec<f64>, String> {
    if dtype == DType::F64 {
        return Ok(values);
    }
    f64s(&from_f64([values.len()], values, dtype)?)
}

/// Products of queries and keys, `[N, Hq, S, L]` as f64, each side scaled by the root of `scale` in its own type.
pub(crate) fn scores(q: &Tensor, k: &Tensor, scale: Option<f32>) -> Result<(Vec<usize>, Vec<f64>), String> {
    let (&[n, hq, s, d], &[nk, hk, l, dk]) = (q.shape(), k.shape()) else {
        return Err(format!("queries {:?}, keys {:?}", q.shape(), k.shape()));
    };
    if n != nk || d != dk || hk == 0 || !hq.is_multiple_of(hk) {
        return Err(format!("queries {:?}, keys {:?}", q.shape(), k.shape()));
    }
    let root = scale.map_or_else(|| 1.0 / (d as f64).sqrt(), f64::from).sqrt();
    let root = rounded(vec![root], q.dtype())?[0];
    let scaled = |x: &Tensor| rounded(f64s(x)?.into_iter().map(|v| v * root).collect(), q.dtype());
    let (queries, keys) = (scaled(q)?, scaled(k)?);
    let mut out = vec![0.0; n * hq * s * l];
    for (i, out) in out.chunks_mut((s * l).max(1)).enumerate() {
        let (batch, head) = (i / hq, i % hq / (hq / hk));
        let keys = &keys[(batch * hk + head) * l * d..][..l * d];
        let mut turned = vec![0.0; l * d];
        for j in 0..l {
            (0..d).for_each(|c| turned[c * l + j] = keys[j * d + c]);
        }
        multiply(&queries[i * s * d..][..s * d], &turned, out, d, l);
    }
    Ok((vec![n, hq, s, l], out))
}

/// Probabilities times values, `[N, Hq, S, Dv]`.
pub(crate) fn weighted(
    probabilities: &[f64],
    shape: &[usize],
    v: &Tensor,
) -> Result<(Vec<usize>, Vec<f64>), String> {
    let (&[n, hq, s, l], &[nv, hk, lv, dv]) = (shape, v.shape()) else {
        return Err(format!("values {:?}", v.shape()));
    };
    if n != nv || l != lv || hk == 0 || !hq.is_multiple_of(hk) {
        return Err(format!("probabilities {shape:?}, values {:?}", v.shape()));
    }
    let values = f64s(v)?;
    let mut out = vec![0.0; n * hq * s * dv];
    for (i, out) in out.chunks_mut((s * dv).max(1)).enumerate() {
        let (batch, head) = (i / hq, i % hq / (hq / hk));
        multiply(
            &probabilities[i * s * l..][..s * l],
            &values[(batch * hk + head) * l * dv..][..l * dv],
            out,
            l,
            dv,
        );
    }
    Ok((vec![n, hq, s, dv], out))
}

/// Softmax of every row of `length`; a row of which nothing is seen becomes 0.
pub(crate) fn softmax_rows(values: &mut [f64], length: usize) {
    for row in values.chunks_mut(length.max(1)) {
        let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if most == f64::NEG_INFINITY {
            row.fill(0.0);
            continue;
        }
        let sum: f64 = row.iter().map(|v| (v - most).exp()).sum();
        row.iter_mut().for_each(|v| *v = (*v - most).exp() / sum);
    }
}

pub(crate) fn attention(
    attributes: &AttentionAttributes,
    x: &Args<'_>,
    results: usize,
) -> Result<Vec<Tensor>, String> {
    let flat = x.get(0)?.shape().len() == 3;
    let q = split_heads(x.get(0)?, attributes.heads)?;
    let mut k = split_heads(x.get(1)?, attributes.kv_heads)?;
    let mut v = split_heads(x.get(2)?, attributes.kv_heads)?;
    let past = x.optional(4).map_or(0, |past| past.shape().get(2).copied().unwrap_or(0));
    if let (Some(past_k), Some(past_v)) = (x.optional(4), x.optional(5)) {
        k = super::layout::concat(&[past_k, &k], 2)?;
        v = super::layout::concat(&[past_v, &v], 2)?;
    }
    let (shape, mut values) = scores(&q, &k, attributes.scale)?;
    values = rounded(values, q.dtype())?;
    let [n, hq, s, l] = shape[..] else { return Err("no scores".into()) };
    let mut shown = (attributes.scores_output == 0 && results > 3).then(|| values.clone());
    if attributes.softcap > 0.0 {
        let cap = f64::from(attributes.softcap);
        values.iter_mut().for_each(|v| *v = cap * (*v / cap).tanh());
        values = rounded(values, q.dtype())?;
    }
    if attributes.scores_output == 1 {
        shown = Some(values.clone());
    }
    let bias = bias(attributes, x, [n, hq, s, l], past)?;
    for (v, b) in values.iter_mut().zip(&bias) {
        // What is masked stays so, whatever the score is.
        *v = if *b == f64::NEG_INFINITY { *b } else { *v + b };
    }
    if attributes.scores_output == 2 {
        shown = Some(values.clone());
    }
    softmax_rows(&mut values, l);
    if attributes.scores_output == 3 {
        shown = Some(values.clone());
    }
    values = rounded(values, q.dtype())?;
    let (out_shape, out) = weighted(&values, &shape, &v)?;
    let mut y = from_f64(out_shape.clone(), out, q.dtype())?;
    if flat {
        y = super::layout::transpose(&y, &[0, 2, 1, 3])?
            .reshaped([n, s, hq * out_shape[3]])
            .map_err(|e| e.to_string())?;
    }
    let shown = from_f64(shape, shown.unwrap_or(values), q.dtype())?;
    Ok(vec![y, k, v, shown])
}

/// What is added to the scores: the mask, and negative infinity where a query does not look.
fn bias(
    attributes: &AttentionAttributes,
    x: &Args<'_>,
    [n, hq, s, l]: [usize; 4],
    past: usize,
) -> Result<Vec<f64>, String> {
    let mut bias = vec![0.0; n * hq * s * l];
    if let Some(mask) = x.optional(3) {
        let wide = mask.shape().last().copied().unwrap_or(1);
        let values: Vec<f64> = match mask.elements() {
            Elements::Bool(seen) => seen.iter().map(|&s| if s { 0.0 } else { f64::NEG_INFINITY }).collect(),
            _ => f64s(mask)?,
        };
        let mut shape = mask.shape().to_vec();
        let values = if wide < l && (wide != 1 || shape.len() < 2) {
            // Keys beyond the mask are not seen.
            if let Some(last) = shape.last_mut() {
                *last = l;
            }
            let pad = || std::iter::repeat_n(f64::NEG_INFINITY, l - wide);
            values.chunks(wide.max(1)).flat_map(|row| row.iter().copied().chain(pad())).collect()
        } else {
            values
        };
        if broadcast(&[&shape, &[n, hq, s, l]])? != [n, hq, s, l] {
            return Err(format!("a mask of {shape:?} for {:?}", [n, hq, s, l]));
        }
        let full = super::layout::stretched(&tensor(shape, Elements::F64(values))?, &[n, hq, s, l])?;
        bias = f64s(&full)?;
    }
    if let Some(keys) = x.optional(7) {
        let seen = super::integers(keys)?;
        let hidden = |batch: usize, row: usize, key: usize| match seen.len() {
            // Lengths, or one flag per key, or one per query and key.
            len if len == n && keys.shape().len() == 1 => Ok(key as i64 >= seen[batch]),
            len if len == n * l => Ok(seen[batch * l + key] == 0),
            len if len == n * s * l => Ok(seen[(batch * s + row) * l + key] == 0),
            _ => Err(format!("a key mask of {:?} for {:?}", keys.shape(), [n, hq, s, l])),
        };
        for (i, bias) in bias.iter_mut().enumerate() {
            if hidden(i / (hq * s * l).max(1), i / l % s, i % l)? {
                *bias = f64::NEG_INFINITY;
            }
        }
    }
    let valid = x.optional_i64s(6)?;
    if valid.as_ref().is_some_and(|v| v.len() != n) {
        return Err(format!("valid keys for {n} items are needed"));
    }
    let (left, right) = attributes.window;
    for (i, bias) in bias.iter_mut().enumerate() {
        let (batch, row, key) = (i / (hq * s * l).max(1), (i / l % s) as i64, (i % l) as i64);
        let offset = match &valid {
            Some(valid) if x.optional(4).is_none() => valid[batch] - s as i64,
            _ => past as i64,
        };
        let position = row + offset;
        let hidden = attributes.causal && key > position
            || left.is_some_and(|left| position - key > left as i64)
            || right.is_some_and(|right| key - position > right as i64)
            || valid.as_ref().is_some_and(|valid| key >= valid[batch]);
        if hidden {
            *bias = f64::NEG_INFINITY;
        }
    }
    Ok(bias)
}

pub(crate) fn linear(attributes: &LinearAttention, x: &Args<'_>) -> Result<Vec<Tensor>, String> {
    let (q, k, v) = (x.get(0)?, x.get(1)?, x.get(2)?);
    let (heads, kv) = (attributes.heads, attributes.kv_heads);
    let (&[n, t, qw], &[_, _, kw], &[_, _, vw]) = (q.shape(), k.shape(), v.shape()) else {
        return Err(format!("{:?}, {:?}, {:?}", q.shape(), k.shape(), v.shape()));
    };
    let dk = qw / heads.max(1);
    let dv = vw / kv.max(1);
    let misfit = || format!("{heads} and {kv} heads of {:?}, {:?}, {:?}", q.shape(), k.shape(), v.shape());
    if heads == 0
        || kv == 0
        || !heads.is_multiple_of(kv)
        || kw != kv * dk
        || qw != heads * dk
        || vw != kv * dv
    {
        return Err(misfit());
    }
    let (queries, keys, values) = (f64s(q)?, f64s(k)?, f64s(v)?);
    let decay = x.optional(4).map(f64s).transpose()?.filter(|_| attributes.gated);
    let beta = x.optional(5).map(f64s).transpose()?.filter(|_| attributes.delta);
    let width = |list: &Option<Vec<f64>>| list.as_ref().map_or(0, |l| l.len() / (n * t).max(1));
    let (decay_width, beta_width) = (width(&decay), width(&beta));
    if values.len() != n * t * vw
        || keys.len() != n * t * kw
        || (attributes.gated && decay_width != kv && decay_width != kv * dk)
        || (attributes.delta && beta_width != kv && beta_width != 1)
    {
        return Err(misfit());
    }
    let mut state = match x.optional(3) {
        Some(past) if past.elements().len() == n * kv * dk * dv => f64s(past)?,
        Some(past) => return Err(format!("a state of {:?}", past.shape())),
        None => vec![0.0; n * kv * dk * dv],
    };
    let scale = if attributes.scale == 0.0 { 1.0 / (dk as f64).sqrt() } else { f64::from(attributes.scale) };
    let mut out = vec![0.0; n * t * heads * dv];
    for batch in 0..n {
        for step in 0..t {
            let row = batch * t + step;
            for head in 0..kv {
                let state = &mut state[(batch * kv + head) * dk * dv..][..dk * dv];
                let key = &keys[row * kw + head * dk..][..dk];
                let mut value = values[row * vw + head * dv..][..dv].to_vec();
                if let Some(decay) = &decay {
                    for i in 0..dk {
                        let at = if decay_width == kv { head } else { head * dk + i };
                        let factor = decay[row * decay_width + at].exp();
                        state[i * dv..(i + 1) * dv].iter_mut().for_each(|s| *s *= factor);
                    }
                }
                if let Some(beta) = &beta {
                    let beta = beta[row * beta_width + if beta_width == 1 { 0 } else { head }];
                    for (m, value) in value.iter_mut().enumerate() {
                        let held: f64 = (0..dk).map(|i| state[i * dv + m] * key[i]).sum();
                        *value = beta * (*value - held);
                    }
                }
                for i in 0..dk {
                    for m in 0..dv {
                        state[i * dv + m] += key[i] * value[m];
                    }
                }
                for h in head * (heads / kv)..(head + 1) * (heads / kv) {
                    let query = &queries[row * qw + h * dk..][..dk];
                    for m in 0..dv {
                        let sum: f64 = (0..dk).map(|i| query[i] * state[i * dv + m]).sum();
                        out[(row * heads + h) * dv + m] = scale * sum;
                    }
                }
            }
        }
    }
    let state_type = x.optional(3).map_or(q.dtype(), Tensor::dtype);
    Ok(vec![from_f64([n, t, heads * dv], out, q.dtype())?, from_f64([n, kv, dk, dv], state, state_type)?])
}

pub(crate) fn rotary(rotary: &RotaryEmbedding, x: &Args<'_>) -> Result<Tensor, String> {
    let data = x.get(0)?;
    // Without a number of heads, the angles say how wide one is.
    let wide = x.get(1)?.shape().last().map_or(0, |half| 2 * half);
    let heads = match (rotary.heads, data.shape()) {
        (0, &[_, _, width]) if wide > 0 => width / wide,
        (heads, _) => heads,
    };
    let heads4 = split_heads(data, heads)?;
    let &[n, heads, s, d] = heads4.shape() else { return Err("no heads".into()) };
    let turning = if rotary.rotary_dim == 0 { d } else { rotary.rotary_dim };
    let half = turning / 2;
    let (cosines, sines) = (f64s(x.get(1)?)?, f64s(x.get(2)?)?);
    let positions = x.optional_i64s(3)?;
    if turning > d || half == 0 || !cosines.len().is_multiple_of(half) || cosines.len() != sines.len() {
        return Err(format!("{turning} of {d} elements turn, angles {:?}", x.get(1)?.shape()));
    }
    let rows = cosines.len() / half;
    let row = |batch: usize, step: usize| -> Result<usize, String> {
        let row = match &positions {
            // One position is the first of all.
            Some(p) if p.len() == 1 && n * s != 1 => usize::try_from(p[0]).ok().map(|p| p + step),
            Some(p) if p.len() == n * s => usize::try_from(p[batch * s + step]).ok(),
            Some(_) => None,
            None => Some(if rows == s { step } else { batch * s + step }),
        };
        row.filter(|&row| row < rows).ok_or_else(|| format!("positions for {n} x {s}, {rows} angles"))
    };
    let mut values = f64s(&heads4)?;
    for batch in 0..n {
        for step in 0..s {
            let row = row(batch, step)? * half;
            for head in 0..heads {
                let line = &mut values[((batch * heads + head) * s + step) * d..][..d];
                for i in 0..half {
                    let (a, b) = if rotary.interleaved { (2 * i, 2 * i + 1) } else { (i, i + half) };
                    let (cos, sin) = (cosines[row + i], sines[row + i]);
                    (line[a], line[b]) = (line[a] * cos - line[b] * sin, line[a] * sin + line[b] * cos);
                }
            }
        }
    }
    let turned = from_f64([n, heads, s, d], values, data.dtype())?;
    if data.shape().len() == 4 {
        return Ok(turned);
    }
    let back = super::layout::transpose(&turned, &[0, 2, 1, 3])?;
    count(data.shape())?;
    back.reshaped(data.shape()).map_err(|e| e.to_string())
}
