//! Convolutions: windows become columns of a matrix, a chunk of output positions at a time.

use super::matmul::multiply;
use super::number::Number;
use super::{Args, Context, from_f32, from_f64, tensor};
use crate::ops::fact::{count, dims};
use crate::ops::{CausalConvolution, Convolution, Geometry, TransposedConvolution};
use kun_tensor::{DType, Elements, Tensor};

/// Output positions whose columns are made at once.
const CHUNK: usize = 2048;
/// Stands for a window element outside the input.
pub(crate) const OUTSIDE: usize = usize::MAX;

/// For output positions `from..to` (row-major) and every window element: the place in the input, or [`OUTSIDE`].
/// `[window elements, positions]`.
pub(crate) fn places(geometry: &Geometry, from: usize, to: usize) -> Vec<usize> {
    let rank = geometry.input.len();
    let window: usize = geometry.kernel.iter().product();
    let strides = super::layout::strides(&geometry.input);
    let out_strides = super::layout::strides(&geometry.output);
    let kernel_strides = super::layout::strides(&geometry.kernel);
    // By dimension, output index and window index: the offset in the input.
    let tables: Vec<Vec<usize>> = (0..rank)
        .map(|d| {
            let mut table = Vec::with_capacity(geometry.output[d] * geometry.kernel[d]);
            for o in 0..geometry.output[d] {
                for k in 0..geometry.kernel[d] {
                    let at = (o * geometry.strides[d] + k * geometry.dilations[d])
                        .checked_sub(geometry.pad_begin[d]);
                    table.push(at.filter(|&at| at < geometry.input[d]).map_or(OUTSIDE, |at| at * strides[d]));
                }
            }
            table
        })
        .collect();
    let mut places = Vec::with_capacity(window * (to - from));
    for k in 0..window {
        for o in from..to {
            let mut at = 0;
            for d in 0..rank {
                let kd = k / kernel_strides[d] % geometry.kernel[d];
                let od = o / out_strides[d] % geometry.output[d];
                let offset = tables[d][od * geometry.kernel[d] + kd];
                at = if offset == OUTSIDE || at == OUTSIDE { OUTSIDE } else { at + offset };
            }
            places.push(at);
        }
    }
    places
}

/// Sizes of `[N, C, ..]` and the spatial part.
pub(crate) fn image(x: &Tensor) -> Result<(usize, usize, &[usize]), String> {
    match x.shape() {
        [n, c, spatial @ ..] => Ok((*n, *c, spatial)),
        shape => Err(format!("{shape:?} has no channels")),
    }
}

fn convolve<T: Number>(
    x: &[T],
    w: &[T],
    bias: Option<&[T]>,
    (n, c, m, groups): (usize, usize, usize, usize),
    geometry: &Geometry,
) -> Result<Vec<T>, String> {
    let (cg, mg) = (c / groups, m / groups);
    let (size, out_size) = (count(&geometry.input)?, count(&geometry.output)?);
    let window: usize = count(&geometry.kernel)?;
    let mut out = vec![T::ZERO; n * m * out_size];
    if let Some(bias) = bias {
        for (i, channel) in out.chunks_mut(out_size.max(1)).enumerate() {
            channel.fill(bias[i % m]);
        }
    }
    // A 1x1 window without padding is a plain product.
    let plain = window == 1 && geometry.strides.iter().all(|&s| s == 1) && geometry.input == geometry.output;
    if plain {
        for batch in 0..n {
            for g in 0..groups {
                let x = &x[(batch * c + g * cg) * size..][..cg * size];
                let out = &mut out[(batch * m + g * mg) * size..][..mg * size];
                multiply(&w[g * mg * cg..][..mg * cg], x, out, cg, size);
            }
        }
        return Ok(out);
    }
    let mut columns = vec![T::ZERO; cg * window * CHUNK.min(out_size)];
    let mut partial = vec![T::ZERO; mg * CHUNK.min(out_size)];
    for from in (0..out_size).step_by(CHUNK) {
        let to = (from + CHUNK).min(out_size);
        let length = to - from;
        let places = places(geometry, from, to);
        for batch in 0..n {
            for g in 0..groups {
                if mg == 1 && cg == 1 {
                    let channel = &x[(batch * c + g) * size..][..size];
                    let out = &mut out[(batch * m + g) * out_size + from..][..length];
                    for (k, weight) in w[g * window..][..window].iter().enumerate() {
                        for (out, &at) in out.iter_mut().zip(&places[k * length..][..length]) {
                            if at != OUTSIDE {
                                *out = out.add(channel[at].mul(*weight));
                            }
                        }
                    }
                    continue;
                }
                for (channel, columns) in
                    columns[..cg * window * length].chunks_mut(window * length).enumerate()
                {
                    let channel = &x[(batch * c + g * cg + channel) * size..][..size];
                    for (column, &at) in columns.iter_mut().zip(&places) {
                        *column = if at == OUTSIDE { T::ZERO } else { channel[at] };
                    }
                }
                let weights = &w[g * mg * cg * window..][..mg * cg * window];
                let partial = &mut partial[..mg * length];
                partial.fill(T::ZERO);
                multiply(weights, &columns[..cg * window * length], partial, cg * window, length);
                for (channel, partial) in partial.chunks(length).enumerate() {
                    let out = &mut out[(batch * m + g * mg + channel) * out_size + from..][..length];
                    out.iter_mut().zip(partial).for_each(|(out, p)| *out = out.add(*p));
                }
            }
        }
    }
    Ok(out)
}

/// The geometry and `(N, C, M, groups)` of a convolution, checked.
fn prepared(conv: &Convolution, x: &Tensor, w: &Tensor) -> Result<(Geometry, [usize; 4]), String> {
    let (n, c, input) = image(x)?;
    let (m, per_group, kernel) = image(w)?;
    let groups = conv.groups;
    if groups == 0 || per_group.checked_mul(groups) != Some(c) || !m.is_multiple_of(groups) {
        return Err(format!("{c} channels, {groups} groups, weights for {per_group}"));
    }
    Ok((conv.geometry(input, kernel)?, [n, c, m, groups]))
}

fn result_shape(n: usize, m: usize, geometry: &Geometry) -> Vec<usize> {
    [&[n, m], &geometry.output[..]].concat()
}

pub(crate) fn conv(
    conv: &Convolution,
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Tensor, String> {
    let (geometry, [n, c, m, groups]) = prepared(conv, x, w)?;
    let shape = result_shape(n, m, &geometry);
    if bias.is_some_and(|b| b.elements().len() != m) {
        return Err(format!("a bias for {m} channels"));
    }
    let sizes = (n, c, m, groups);
    if x.dtype() == DType::F64 {
        let bias = bias.map(super::values).transpose()?;
        return tensor(
            shape,
            Elements::F64(convolve(super::values(x)?, super::values(w)?, bias, sizes, &geometry)?),
        );
    }
    if let (Some(x), Some(w)) = (x.as_f32(), w.as_f32()) {
        let bias = bias.map(super::values).transpose()?;
        return tensor(shape, Elements::F32(convolve(x, w, bias, sizes, &geometry)?));
    }
    let bias = bias.map(super::f32s).transpose()?;
    let values = convolve(&super::f32s(x)?, &super::f32s(w)?, bias.as_deref(), sizes, &geometry)?;
    from_f32(shape, values, x.dtype())
}

/// Zero-centred values of a quantised weight, whose zero points are one or one per output channel.
fn centred_weights(w: &Tensor, zero: Option<&Tensor>) -> Result<Vec<i32>, String> {
    let (m, ..) = image(w)?;
    let mut values: Vec<i32> = super::integers(w)?.iter().map(|&v| v as i32).collect();
    if let Some(zero) = zero {
        let zeros = super::integers(zero)?;
        let per = values.len() / m.max(1);
        match zeros.len() {
            1 => values.iter_mut().for_each(|v| *v -= zeros[0] as i32),
            n if n == m => {
                values.iter_mut().enumerate().for_each(|(i, v)| *v -= zeros[i / per.max(1)] as i32)
            }
            n => return Err(format!("{n} zero points for {m} channels")),
        }
    }
    Ok(values)
}

pub(crate) fn integer(conv: &Convolution, x: &Args<'_>) -> Result<Tensor, String> {
    let (data, w) = (x.get(0)?, x.get(1)?);
    let (geometry, [n, c, m, groups]) = prepared(conv, data, w)?;
    let values = super::matmul::centred(data, x.optional(2), true)?;
    let weights = centred_weights(w, x.optional(3))?;
    let out = convolve(&values, &weights, None, (n, c, m, groups), &geometry)?;
    tensor(result_shape(n, m, &geometry), Elements::I32(out))
}

pub(crate) fn qlinear(conv: &Convolution, x: &Args<'_>) -> Result<Tensor, String> {
    let (data, w) = (x.get(0)?, x.get(3)?);
    let (geometry, [n, c, m, groups]) = prepared(conv, data, w)?;
    let values = super::matmul::centred(data, x.optional(2), true)?;
    let weights = centred_weights(w, x.optional(5))?;
    let bias: Option<Vec<i32>> = x
        .optional(8)
        .map(|b| Ok::<_, String>(super::integers(b)?.iter().map(|&v| v as i32).collect()))
        .transpose()?;
    if bias.as_ref().is_some_and(|b| b.len() != m) {
        return Err(format!("a bias for {m} channels"));
    }
    let sums = convolve(&values, &weights, bias.as_deref(), (n, c, m, groups), &geometry)?;
    let (x_scale, w_scales) = (x.number(1)?, super::f64s(x.get(4)?)?);
    let (y_scale, y_zero) = (x.number(6)?, x.number(7)?);
    if w_scales.len() != 1 && w_scales.len() != m {
        return Err(format!("{} scales for {m} channels", w_scales.len()));
    }
    let dtype = x.get(7)?.dtype();
    let size = count(&geometry.output)?.max(1);
    let quantized = sums.iter().enumerate().map(|(i, &sum)| {
        let w_scale = w_scales[if w_scales.len() == 1 { 0 } else { i / size % m }];
        super::quantize::to_integer(f64::from(sum) * x_scale * w_scale / y_scale, y_zero, dtype)
    });
    from_f64(result_shape(n, m, &geometry), quantized.collect(), dtype)
}

pub(crate) fn transposed(
    conv: &TransposedConvolution,
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Tensor, String> {
    let (n, c, operand) = image(x)?;
    let (from, per_group, kernel) = image(w)?;
    let groups = conv.convolution.groups;
    if groups == 0 || from != c || !c.is_multiple_of(groups) {
        return Err(format!("{c} channels, {groups} groups, weights for {from}"));
    }
    let geometry = conv.geometry(operand, kernel)?;
    let (m, cg) = (per_group * groups, c / groups);
    let (size, out_size, window) = (count(operand)?, count(&geometry.input)?, count(kernel)?);
    let (values, weights) = (super::f32s(x)?, super::f32s(w)?);
    let mut out = vec![0f32; n * m * out_size];
    if let Some(bias) = bias {
        let bias = super::f32s(bias)?;
        if bias.len() != m {
            return Err(format!("a bias for {m} channels"));
        }
        out.chunks_mut(out_size.max(1)).enumerate().for_each(|(i, channel)| channel.fill(bias[i % m]));
    }
    // Weights of a group as [M/g * window, C/g].
    let rows = per_group * window;
    for g in 0..groups {
        let mut turned = vec![0f32; rows * cg];
        for i in 0..cg {
            for r in 0..rows {
                turned[r * cg + i] = weights[(g * cg + i) * rows + r];
            }
        }
        for from in (0..size).step_by(CHUNK) {
            let length = CHUNK.min(size - from);
            let places = places(&geometry, from, from + length);
            for batch in 0..n {
                let mut chunk = Vec::with_capacity(cg * length);
                for i in 0..cg {
                    chunk.extend_from_slice(&values[(batch * c + g * cg + i) * size + from..][..length]);
                }
                let mut spread = vec![0f32; rows * length];
                multiply(&turned, &chunk, &mut spread, cg, length);
                for (channel, spread) in spread.chunks(window * length).enumerate() {
                    let out = &mut out[(batch * m + g * per_group + channel) * out_size..][..out_size];
                    for (&at, v) in places.iter().zip(spread) {
                        if at != OUTSIDE {
                            out[at] += v;
                        }
                    }
                }
            }
        }
    }
    from_f32([&[n, m], &geometry.input[..]].concat(), out, x.dtype())
}

pub(crate) fn deformable(conv: &Convolution, offset_groups: usize, x: &Args<'_>) -> Result<Tensor, String> {
    let (data, w, offset) = (x.get(0)?, x.get(1)?, x.get(2)?);
    let (geometry, [n, c, m, groups]) = prepared(conv, data, w)?;
    let (&[h, width], &[oh, ow], &[kh, kw]) =
        (&geometry.input[..], &geometry.output[..], &geometry.kernel[..])
    else {
        return Err("only images are supported".into());
    };
    let (size, window) = (oh * ow, kh * kw);
    let offsets = super::f64s(offset)?;
    let mask = x.optional(4).map(super::f64s).transpose()?;
    if offset_groups == 0
        || !c.is_multiple_of(offset_groups)
        || offsets.len() != n * offset_groups * 2 * window * size
        || mask.as_ref().is_some_and(|mask| mask.len() != n * offset_groups * window * size)
    {
        return Err(format!("offsets {:?} in {offset_groups} groups", offset.shape()));
    }
    let (values, weights) = (super::f64s(data)?, super::f64s(w)?);
    let bias = x.optional(3).map(super::f64s).transpose()?;
    if bias.as_ref().is_some_and(|b| b.len() != m) {
        return Err(format!("a bias for {m} channels"));
    }
    let (cg, mg) = (c / groups, m / groups);
    let mut out = vec![0.0; n * m * size];
    let mut columns = vec![0.0; c * window];
    for batch in 0..n {
        for p in 0..size {
            for channel in 0..c {
                let group = channel / (c / offset_groups);
                for k in 0..window {
                    let base = (batch * offset_groups + group) * window + k;
                    let dy = offsets[base * 2 * size + p];
                    let dx = offsets[(base * 2 + 1) * size + p];
                    let y = (p / ow * geometry.strides[0] + k / kw * geometry.dilations[0]) as f64
                        - geometry.pad_begin[0] as f64
                        + dy;
                    let xx = (p % ow * geometry.strides[1] + k % kw * geometry.dilations[1]) as f64
                        - geometry.pad_begin[1] as f64
                        + dx;
                    let plane = &values[(batch * c + channel) * h * width..][..h * width];
                    let factor = mask.as_ref().map_or(1.0, |mask| mask[base * size + p]);
                    columns[channel * window + k] = factor * bilinear(plane, h, width, y, xx);
                }
            }
            for o in 0..m {
                let first = o / mg * cg * window;
                let weights = &weights[o * cg * window..][..cg * window];
                let sum: f64 = weights.iter().zip(&columns[first..]).map(|(w, x)| w * x).sum();
                out[(batch * m + o) * size + p] = sum + bias.as_ref().map_or(0.0, |b| b[o]);
            }
        }
    }
    from_f64(result_shape(n, m, &geometry), out, data.dtype())
}

/// The value between pixels; 0 outside.
fn bilinear(plane: &[f64], h: usize, w: usize, y: f64, x: f64) -> f64 {
    let (y0, x0) = (y.floor(), x.floor());
    let pixel = |y: f64, x: f64| {
        if y >= 0.0 && x >= 0.0 && y < h as f64 && x < w as f64 {
            plane[y as usize * w + x as usize]
        } else {
            0.0
        }
    };
    let (fy, fx) = (y - y0, x - x0);
    pixel(y0, x0) * (1.0 - fy) * (1.0 - fx)
        + pixel(y0, x0 + 1.0) * (1.0 - fy) * fx
        + pixel(y0 + 1.0, x0) * fy * (1.0 - fx)
        + pixel(y0 + 1.0, x0 + 1.0) * fy * fx
}

pub(crate) fn causal(causal: &CausalConvolution, x: &Args<'_>) -> Result<Vec<Tensor>, String> {
    let (data, w) = (x.get(0)?, x.get(1)?);
    let (&[n, c, length], &[wc, _, k]) = (data.shape(), w.shape()) else {
        return Err(format!("{:?} and {:?}", data.shape(), w.shape()));
    };
    let keep = k.saturating_sub(1);
    let (values, weights) = (super::f32s(data)?, super::f32s(w)?);
    let bias = x.optional(2).map(super::f32s).transpose()?;
    let past = x.optional(3).map(super::f32s).transpose()?;
    if wc != c
        || weights.len() != c * k
        || bias.as_ref().is_some_and(|b| b.len() != c)
        || past.as_ref().is_some_and(|p| p.len() != n * c * keep)
    {
        return Err(format!("weights {:?} for {c} channels", w.shape()));
    }
    let (mut out, mut state) = (Vec::with_capacity(values.len()), Vec::with_capacity(n * c * keep));
    for row in 0..n * c {
        let mut line =
            past.as_ref().map_or_else(|| vec![0.0; keep], |p| p[row * keep..(row + 1) * keep].to_vec());
        line.extend_from_slice(&values[row * length..(row + 1) * length]);
        let weights = &weights[row % c * k..][..k];
        for t in 0..length {
            let sum: f32 = weights.iter().zip(&line[t..t + k]).map(|(w, x)| w * x).sum();
            let sum = sum + bias.as_ref().map_or(0.0, |b| b[row % c]);
            out.push(if causal.silu { sum / (1.0 + (-sum).exp()) } else { sum });
        }
        state.extend_from_slice(&line[line.len() - keep..]);
    }
    Ok(vec![from_f32(data.shape(), out, data.dtype())?, from_f32([n, c, keep], state, data.dtype())?])
}

pub(crate) fn col2im(conv: &Convolution, x: &Args<'_>, context: &Context<'_>) -> Result<Tensor, String> {
    let data = x.get(0)?;
    let (input, kernel) = (dims(&x.i64s(1)?)?, dims(&x.i64s(2)?)?);
    let geometry = conv.geometry(&input, &kernel)?;
    let (window, size, out_size) = (count(&kernel)?, count(&geometry.output)?, count(&input)?);
    let &[n, rows, columns] = data.shape() else { return Err(format!("{:?} are no columns", data.shape())) };
    if window == 0 || !rows.is_multiple_of(window) || columns != size {
        return Err(format!("columns {:?} for a window of {kernel:?}", data.shape()));
    }
    let c = rows / window;
    context.check_size(n.saturating_mul(c).saturating_mul(out_size), DType::F64)?;
    let values = super::f64s(data)?;
    let places = places(&geometry, 0, size);
    let mut out = vec![0.0; n * c * out_size];
    for (channel, out) in out.chunks_mut(out_size.max(1)).enumerate() {
        for (&at, v) in places.iter().zip(&values[channel * window * size..]) {
            if at != OUTSIDE {
                out[at] += v;
            }
        }
    }
    from_f64([&[n, c], &input[..]].concat(), out, data.dtype())
}
