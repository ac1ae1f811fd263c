//! Normalisation.

use super::convolution::image;
use super::{Args, f64s, from_f64};
use crate::ops::fact::{axis, count, distinct_axes};
use crate::ops::{BatchNorm, LayerNorm, LocalNorm};
use kun_tensor::{DType, Tensor};

fn mean_and_variance(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n)
}

pub(crate) fn batch(norm: &BatchNorm, x: &Args<'_>) -> Result<Vec<Tensor>, String> {
    let data = x.get(0)?;
    let (c, size) = match data.shape() {
        [_, c, spatial @ ..] => (*c, count(spatial)?),
        _ => (1, 1),
    };
    let mut parameters = Vec::new();
    for i in 1..5 {
        let values = f64s(x.get(i)?)?;
        if values.len() != c {
            return Err(format!("{} values for {c} channels", values.len()));
        }
        parameters.push(values);
    }
    let mut values = f64s(data)?;
    let mut running = Vec::new();
    if norm.training {
        let momentum = f64::from(norm.momentum);
        let mut statistics = (vec![0.0; c], vec![0.0; c]);
        for channel in 0..c {
            let all: Vec<f64> =
                values.chunks(size.max(1)).skip(channel).step_by(c.max(1)).flatten().copied().collect();
            (statistics.0[channel], statistics.1[channel]) = mean_and_variance(&all);
        }
        for (i, new) in [(2, &statistics.0), (3, &statistics.1)] {
            let mixed =
                parameters[i].iter().zip(new).map(|(old, new)| old * momentum + new * (1.0 - momentum));
            running.push(from_f64([c], mixed.collect(), x.get(i + 1)?.dtype())?);
        }
        (parameters[2], parameters[3]) = statistics;
    }
    for (i, channel) in values.chunks_mut(size.max(1)).enumerate() {
        let i = i % c;
        let factor = parameters[0][i] / (parameters[3][i] + f64::from(norm.epsilon)).sqrt();
        let (mean, bias) = (parameters[2][i], parameters[1][i]);
        channel.iter_mut().for_each(|x| *x = (*x - mean) * factor + bias);
    }
    running.insert(0, from_f64(data.shape(), values, data.dtype())?);
    Ok(running)
}

/// Every chunk of `length` values to mean 0 and variance 1.
fn normalize(values: &mut [f64], length: usize, epsilon: f64) {
    for chunk in values.chunks_mut(length.max(1)) {
        let (mean, variance) = mean_and_variance(chunk);
        let factor = 1.0 / (variance + epsilon).sqrt();
        chunk.iter_mut().for_each(|x| *x = (*x - mean) * factor);
    }
}

/// Scale and bias of every channel of `[N, C, ..]`.
fn affine(values: &mut [f64], c: usize, size: usize, scale: &[f64], bias: &[f64]) {
    for (i, channel) in values.chunks_mut(size.max(1)).enumerate() {
        let i = i % c;
        channel.iter_mut().for_each(|x| *x = *x * scale[i] + bias[i]);
    }
}

pub(crate) fn instance(epsilon: f32, x: &Tensor, scale: &Tensor, bias: &Tensor) -> Result<Tensor, String> {
    let (_, c, spatial) = image(x)?;
    let size = count(spatial)?;
    let (scale, bias) = (f64s(scale)?, f64s(bias)?);
    if scale.len() != c || bias.len() != c {
        return Err(format!("{} scales for {c} channels", scale.len()));
    }
    let mut values = f64s(x)?;
    normalize(&mut values, size, f64::from(epsilon));
    affine(&mut values, c, size, &scale, &bias);
    from_f64(x.shape(), values, x.dtype())
}

pub(crate) fn group(
    groups: usize,
    epsilon: f32,
    x: &Tensor,
    scale: &Tensor,
    bias: &Tensor,
) -> Result<Tensor, String> {
    let (_, c, spatial) = image(x)?;
    let size = count(spatial)?;
    if groups == 0 || !c.is_multiple_of(groups) {
        return Err(format!("{groups} groups of {c} channels"));
    }
    // Before version 21 there was one scale a group.
    let per_channel = |values: Vec<f64>| match values.len() {
        n if n == c => Ok(values),
        n if n == groups => Ok(values.iter().flat_map(|v| std::iter::repeat_n(*v, c / groups)).collect()),
        n => Err(format!("{n} scales for {c} channels")),
    };
    let (scale, bias) = (per_channel(f64s(scale)?)?, per_channel(f64s(bias)?)?);
    let mut values = f64s(x)?;
    normalize(&mut values, c / groups * size, f64::from(epsilon));
    affine(&mut values, c, size, &scale, &bias);
    from_f64(x.shape(), values, x.dtype())
}

/// A scale or bias stretched over the normalised dimensions.
fn stretched(x: &Tensor, over: &[usize]) -> Result<Vec<f64>, String> {
    let shape = x.shape();
    // Leading dimensions of 1 are allowed.
    let extra = shape.len().saturating_sub(over.len());
    if shape[..extra].iter().any(|&d| d != 1) {
        return Err(format!("a scale of {shape:?} over {over:?}"));
    }
    let x = x.clone().reshaped(&shape[extra..]).map_err(|e| e.to_string())?;
    let wanted: Vec<i64> = over.iter().map(|&d| d as i64).collect();
    let values = f64s(&super::layout::expand(&x, &wanted)?)?;
    if values.len() != count(over)? {
        return Err(format!("a scale of {shape:?} over {over:?}"));
    }
    Ok(values)
}

pub(crate) fn layer(
    norm: &LayerNorm,
    x: &Tensor,
    scale: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Vec<Tensor>, String> {
    let from = axis(norm.axis, x.shape().len())?;
    let over = &x.shape()[from..];
    let length = count(over)?;
    let scale = stretched(scale, over)?;
    let bias = bias.map(|b| stretched(b, over)).transpose()?;
    let mut values = f64s(x)?;
    let (mut means, mut inverses) = (Vec::new(), Vec::new());
    for chunk in values.chunks_mut(length.max(1)) {
        let (mean, variance) = mean_and_variance(chunk);
        let inverse = 1.0 / (variance + f64::from(norm.epsilon)).sqrt();
        for (i, x) in chunk.iter_mut().enumerate() {
            *x = (*x - mean) * inverse * scale[i] + bias.as_ref().map_or(0.0, |b| b[i]);
        }
        means.push(mean);
        inverses.push(inverse);
    }
    let statistics: Vec<usize> =
        x.shape().iter().enumerate().map(|(i, &d)| if i < from { d } else { 1 }).collect();
    Ok(vec![
        from_f64(x.shape(), values, x.dtype())?,
        from_f64(statistics.clone(), means, DType::F32)?,
        from_f64(statistics, inverses, DType::F32)?,
    ])
}

pub(crate) fn rms(norm: &LayerNorm, x: &Tensor, scale: &Tensor) -> Result<Vec<Tensor>, String> {
    let from = axis(norm.axis, x.shape().len())?;
    let over = &x.shape()[from..];
    let length = count(over)?;
    let scale = stretched(scale, over)?;
    let mut values = f64s(x)?;
    let mut inverses = Vec::new();
    for chunk in values.chunks_mut(length.max(1)) {
        let square = chunk.iter().map(|x| x * x).sum::<f64>() / chunk.len() as f64;
        let inverse = 1.0 / (square + f64::from(norm.epsilon)).sqrt();
        chunk.iter_mut().zip(&scale).for_each(|(x, s)| *x = *x * inverse * s);
        inverses.push(inverse);
    }
    let statistics: Vec<usize> =
        x.shape().iter().enumerate().map(|(i, &d)| if i < from { d } else { 1 }).collect();
    let inverses = from_f64(statistics, inverses, DType::F32)?;
    Ok(vec![from_f64(x.shape(), values, x.dtype())?, inverses.clone(), inverses])
}

pub(crate) fn local(norm: &LocalNorm, x: &Tensor) -> Result<Tensor, String> {
    let (n, c, spatial) = image(x)?;
    let size = count(spatial)?;
    let values = f64s(x)?;
    let mut out = vec![0.0; values.len()];
    for batch in 0..n {
        for channel in 0..c {
            let first = channel.saturating_sub(norm.size.saturating_sub(1) / 2);
            let last = (channel + norm.size / 2).min(c - 1);
            for i in 0..size {
                let square: f64 =
                    (first..=last).map(|k| values[(batch * c + k) * size + i]).map(|x| x * x).sum();
                let scale = f64::from(norm.bias) + f64::from(norm.alpha) / norm.size as f64 * square;
                let at = (batch * c + channel) * size + i;
                out[at] = values[at] / scale.powf(f64::from(norm.beta));
            }
        }
    }
    from_f64(x.shape(), out, x.dtype())
}

pub(crate) fn mean_variance(x: &Tensor, axes: &[i64]) -> Result<Tensor, String> {
    let mut axes = distinct_axes(axes, x.shape().len())?;
    axes.sort_unstable();
    let order: Vec<usize> =
        (0..x.shape().len()).filter(|d| !axes.contains(d)).chain(axes.iter().copied()).collect();
    let length = count(&axes.iter().map(|&a| x.shape()[a]).collect::<Vec<_>>())?;
    let moved = super::layout::transpose(x, &order)?;
    let mut values = f64s(&moved)?;
    for chunk in values.chunks_mut(length.max(1)) {
        let (mean, variance) = mean_and_variance(chunk);
        chunk.iter_mut().for_each(|x| *x = (*x - mean) / (variance.sqrt() + 1e-9));
    }
    let back: Vec<usize> =
        (0..order.len()).map(|d| order.iter().position(|&o| o == d).unwrap_or(d)).collect();
    super::layout::transpose(&from_f64(moved.shape(), values, x.dtype())?, &back)
}
