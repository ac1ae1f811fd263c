//! Pools.

use super::convolution::{OUTSIDE, image, places};
use super::number::{Number, with_numbers};
use super::{Args, Context, from_f64, tensor};
use crate::ops::fact::{count, dims};
use crate::ops::{Geometry, Pool, PoolKind};
use kun_tensor::{Element, Elements, Tensor};

pub(crate) fn pool(pool: &Pool, x: &Tensor) -> Result<Vec<Tensor>, String> {
    let (n, c, input) = image(x)?;
    let geometry = pool.geometry(input)?;
    let shape = [&[n, c], &geometry.output[..]].concat();
    let (size, out_size, window) = (count(input)?, count(&geometry.output)?, count(&pool.kernel)?);
    let places = places(&geometry, 0, out_size);
    if pool.kind == PoolKind::Max {
        return with_numbers!(x.elements(), values => {
            let (best, at) = largest(values, size, out_size, &places);
            let at = at.into_iter().enumerate().map(|(i, at)| index(pool, input, size, i / out_size.max(1), at));
            Ok(vec![tensor(shape.clone(), Element::wrap(best))?, tensor(shape, Elements::I64(at.collect()))?])
        });
    }
    let values = super::f64s(x)?;
    let counts: Vec<f64> = match pool.kind {
        PoolKind::Average { include_pad: true } => padded_counts(&geometry, out_size),
        _ => (0..out_size)
            .map(|o| (0..window).filter(|k| places[k * out_size + o] != OUTSIDE).count() as f64)
            .collect(),
    };
    let mut out = Vec::with_capacity(n * c * out_size);
    for channel in values.chunks(size.max(1)) {
        for o in 0..out_size {
            let seen = (0..window)
                .map(|k| places[k * out_size + o])
                .filter(|&at| at != OUTSIDE)
                .map(|at| channel[at]);
            out.push(match pool.kind {
                PoolKind::Lp { p } => norm(p, seen),
                _ => seen.sum::<f64>() / counts[o],
            });
        }
    }
    Ok(vec![from_f64(shape, out, x.dtype())?])
}

fn norm(p: i64, values: impl Iterator<Item = f64>) -> f64 {
    let p = p as f64;
    values.map(|x| x.abs().powf(p)).sum::<f64>().powf(1.0 / p)
}

/// By output position: window elements inside the padded input.
fn padded_counts(geometry: &Geometry, out_size: usize) -> Vec<f64> {
    let strides = super::layout::strides(&geometry.output);
    let inside = |d: usize, o: usize| {
        let end = geometry.pad_begin[d] + geometry.input[d] + geometry.pad_end[d];
        let first = o * geometry.strides[d];
        (0..geometry.kernel[d]).filter(|k| first + k * geometry.dilations[d] < end).count()
    };
    (0..out_size)
        .map(|o| {
            let all = (0..geometry.input.len()).map(|d| inside(d, o / strides[d] % geometry.output[d]));
            all.product::<usize>() as f64
        })
        .collect()
}

/// The largest element of each window and its place.
fn largest<T: Number>(values: &[T], size: usize, out_size: usize, places: &[usize]) -> (Vec<T>, Vec<usize>) {
    let least =
        if T::from_f64(f64::NEG_INFINITY) < T::ZERO { T::from_f64(f64::NEG_INFINITY) } else { T::ZERO };
    let channels = values.len() / size.max(1);
    let mut best = vec![least; channels * out_size];
    let mut at = vec![OUTSIDE; channels * out_size];
    for c in 0..channels {
        let channel = &values[c * size..(c + 1) * size];
        let (best, at) = (&mut best[c * out_size..][..out_size], &mut at[c * out_size..][..out_size]);
        for places in places.chunks(out_size.max(1)) {
            for ((best, at), &place) in best.iter_mut().zip(&mut *at).zip(places) {
                if place != OUTSIDE && (*at == OUTSIDE || channel[place] > *best) {
                    *best = channel[place];
                    *at = place;
                }
            }
        }
    }
    (best, at)
}

/// The index of a maximum as ONNX counts it: over the whole tensor.
fn index(pool: &Pool, input: &[usize], size: usize, channel: usize, at: usize) -> i64 {
    if at == OUTSIDE {
        return -1;
    }
    let at = if pool.column_major {
        let strides = super::layout::strides(input);
        let (mut column, mut step) = (0, 1);
        for (d, &length) in input.iter().enumerate() {
            column += at / strides[d] % length * step;
            step *= length;
        }
        column
    } else {
        at
    };
    (channel * size + at) as i64
}

pub(crate) fn global(kind: PoolKind, x: &Tensor) -> Result<Tensor, String> {
    let (n, c, spatial) = image(x)?;
    let size = count(spatial)?;
    let values = super::f64s(x)?;
    let result = |channel: &[f64]| match kind {
        PoolKind::Max => channel.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        PoolKind::Average { .. } => channel.iter().sum::<f64>() / size as f64,
        PoolKind::Lp { p } => norm(p, channel.iter().copied()),
    };
    let out = values.chunks(size.max(1)).map(result).collect();
    let mut shape = vec![n, c];
    shape.resize(2 + spatial.len(), 1);
    from_f64(shape, out, x.dtype())
}

pub(crate) fn max_unpool(pool: &Pool, x: &Args<'_>, context: &Context<'_>) -> Result<Tensor, String> {
    let (data, indices) = (x.get(0)?, x.i64s(1)?);
    let (n, c, input) = image(data)?;
    let spatial: Vec<usize> = (0..input.len())
        .map(|d| {
            let list = |values: &[usize], i: usize| values.get(i).copied().unwrap_or(1);
            let pads = match &pool.window.padding {
                crate::ops::Padding::Explicit(pads) if !pads.is_empty() => pads[d] + pads[input.len() + d],
                _ => 0,
            };
            ((input[d].saturating_sub(1)) * list(&pool.window.strides, d) + pool.kernel[d])
                .saturating_sub(pads)
        })
        .collect();
    let natural = [&[n, c], &spatial[..]].concat();
    let shape = x.optional_i64s(2)?.map(|s| dims(&s)).transpose()?.unwrap_or_else(|| natural.clone());
    let total = count(&shape)?;
    context.check_size(total, data.dtype())?;
    if indices.len() != data.elements().len() || shape.len() != natural.len() {
        return Err(format!("{} indices for {:?}", indices.len(), data.shape()));
    }
    let mut starts = vec![usize::MAX; total];
    let (from, to) = (super::layout::strides(&natural), super::layout::strides(&shape));
    for (i, &index) in indices.iter().enumerate() {
        let bad = || format!("index {index} of {natural:?}");
        let index = usize::try_from(index).map_err(|_| bad())?;
        // Indices count in the natural size; a larger size keeps the coordinates.
        let at: usize = (0..shape.len()).map(|d| index / from[d] % natural[d].max(1) * to[d]).sum();
        *starts.get_mut(at).ok_or_else(bad)? = i;
    }
    super::layout::blocks(data, shape, 1, starts.into_iter())
}
