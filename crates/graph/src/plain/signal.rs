//! Fourier transforms and windows.

use super::reduce::around;
use super::{Args, Context, f64s, from_f64};
use crate::ops::Window;
use crate::ops::fact::axis;
use crate::ops::generate::WindowKind;
use kun_tensor::{DType, Tensor};
use std::f64::consts::TAU;

pub(crate) fn window(window: &Window, size: i64, context: &Context<'_>) -> Result<Tensor, String> {
    let size = usize::try_from(size).map_err(|_| format!("a window of {size}"))?;
    context.check_size(size, DType::F64)?;
    let period = if window.periodic { size as f64 } else { size as f64 - 1.0 };
    let value = |i: usize| {
        let angle = TAU * i as f64 / period;
        match window.kind {
            WindowKind::Hann => 0.5 - 0.5 * angle.cos(),
            WindowKind::Hamming => 25.0 / 46.0 - 21.0 / 46.0 * angle.cos(),
            WindowKind::Blackman => 0.42 - 0.5 * angle.cos() + 0.08 * (2.0 * angle).cos(),
        }
    };
    from_f64([size], (0..size).map(value).collect(), window.dtype)
}

pub(crate) fn mel_weights(dtype: DType, x: &Args<'_>, context: &Context<'_>) -> Result<Tensor, String> {
    let (bins, length, rate) = (x.integer(0)?, x.integer(1)?, x.integer(2)? as f64);
    let (low, high) = (x.number(3)?, x.number(4)?);
    let bad = || format!("{bins} bins of a spectrum of {length}");
    let bins = usize::try_from(bins).map_err(|_| bad())?;
    let rows = usize::try_from(length / 2 + 1).map_err(|_| bad())?;
    context.check_size(bins.saturating_mul(rows), DType::F64)?;
    let mel = |hertz: f64| 2595.0 * (hertz / 700.0).ln_1p() / 10f64.ln();
    let step = (mel(high) - mel(low)) / (bins as f64 + 2.0);
    let edges: Vec<usize> = (0..bins + 2)
        .map(|i| {
            let hertz = 700.0 * ((i as f64 * step + mel(low)) / 2595.0 * 10f64.ln()).exp_m1();
            ((length as f64 + 1.0) * hertz / rate).floor().max(0.0) as usize
        })
        .collect();
    let mut out = vec![0.0; rows * bins];
    let mut set = |row: usize, bin: usize, value: f64| {
        if let Some(cell) = out.get_mut(row * bins + bin) {
            *cell = value;
        }
    };
    for bin in 0..bins {
        let (left, centre, right) = (edges[bin], edges[bin + 1], edges[bin + 2]);
        if left == centre {
            set(centre, bin, 1.0);
        }
        for row in left..=centre.min(rows) {
            if centre > left {
                set(row, bin, (row - left) as f64 / (centre - left) as f64);
            }
        }
        for row in centre..right.min(rows) {
            set(row, bin, (right - row) as f64 / (right - centre) as f64);
        }
    }
    from_f64([rows, bins], out, dtype)
}

/// The transform of `(re, im)`, of any length; `sign` -1 forward, 1 backward, unscaled.
fn transform(re: &[f64], im: &[f64], sign: f64) -> (Vec<f64>, Vec<f64>) {
    let n = re.len();
    // Halve while the length is even, then sum what is left directly.
    if n > 16 && n.is_multiple_of(2) {
        let part =
            |values: &[f64], odd: usize| values.iter().skip(odd).step_by(2).copied().collect::<Vec<_>>();
        let even = transform(&part(re, 0), &part(im, 0), sign);
        let odd = transform(&part(re, 1), &part(im, 1), sign);
        let (mut out_re, mut out_im) = (vec![0.0; n], vec![0.0; n]);
        for k in 0..n / 2 {
            let (s, c) = (sign * TAU * k as f64 / n as f64).sin_cos();
            let (a, b) = (odd.0[k] * c - odd.1[k] * s, odd.0[k] * s + odd.1[k] * c);
            (out_re[k], out_im[k]) = (even.0[k] + a, even.1[k] + b);
            (out_re[k + n / 2], out_im[k + n / 2]) = (even.0[k] - a, even.1[k] - b);
        }
        return (out_re, out_im);
    }
    let turns: Vec<(f64, f64)> = (0..n).map(|i| (sign * TAU * i as f64 / n as f64).sin_cos()).collect();
    (0..n)
        .map(|k| {
            let mut sum = (0.0, 0.0);
            for i in 0..n {
                let (s, c) = turns[i * k % n];
                sum.0 += re[i] * c - im[i] * s;
                sum.1 += re[i] * s + im[i] * c;
            }
            sum
        })
        .unzip()
}

pub(crate) fn dft(
    x: &Args<'_>,
    inverse: bool,
    onesided: bool,
    context: &Context<'_>,
) -> Result<Tensor, String> {
    let data = x.get(0)?;
    let rank = data.shape().len();
    let at = axis(x.optional_number(2)?.map_or(-2, |a| a as i64), rank)?;
    let parts = data.shape().last().copied().unwrap_or(0);
    if rank < 2 || at == rank - 1 || !(1..=2).contains(&parts) {
        return Err(format!("a transform along {at} of {:?}", data.shape()));
    }
    let input = data.shape()[at];
    let natural = if inverse && onesided { 2 * input.saturating_sub(1) } else { input };
    let length = match x.optional_i64s(1)?.as_deref() {
        Some(&[length]) => usize::try_from(length).map_err(|_| format!("a length of {length}"))?,
        _ => natural,
    };
    let half = onesided && !inverse;
    let kept = if half { length / 2 + 1 } else { length };
    let out_parts = if inverse && onesided { 1 } else { 2 };
    let mut shape = data.shape().to_vec();
    shape[at] = kept;
    shape[rank - 1] = out_parts;
    context.check_size(crate::ops::fact::count(&shape)?, DType::F64)?;
    context.check_size(length, DType::F64)?;
    let values = f64s(data)?;
    let (outer, _, inner) = around(&data.shape()[..rank - 1], at)?;
    let mut out = vec![0.0; outer * kept * inner * out_parts];
    for o in 0..outer {
        for i in 0..inner {
            let element = |n: usize, part: usize| values[((o * input + n) * inner + i) * parts + part];
            let (mut re, mut im) = (vec![0.0; length], vec![0.0; length]);
            for n in 0..length.min(input) {
                re[n] = element(n, 0);
                im[n] = if parts == 2 { element(n, 1) } else { 0.0 };
            }
            if inverse && onesided {
                // The other half is the conjugate of the first.
                for n in length / 2 + 1..length {
                    (re[n], im[n]) = (re[length - n], -im[length - n]);
                }
            }
            let (mut re, mut im) = transform(&re, &im, if inverse { 1.0 } else { -1.0 });
            if inverse {
                re.iter_mut().chain(&mut im).for_each(|v| *v /= length as f64);
            }
            for n in 0..kept {
                let to = ((o * kept + n) * inner + i) * out_parts;
                out[to] = re[n];
                if out_parts == 2 {
                    out[to + 1] = im[n];
                }
            }
        }
    }
    from_f64(shape, out, data.dtype())
}

pub(crate) fn stft(x: &Args<'_>, onesided: bool, context: &Context<'_>) -> Result<Tensor, String> {
    let data = x.get(0)?;
    let (batch, length, parts) = match data.shape() {
        &[batch, length, parts] => (batch, length, parts),
        &[batch, length] => (batch, length, 1),
        shape => return Err(format!("{shape:?} is no signal")),
    };
    let step = usize::try_from(x.integer(1)?).unwrap_or(0);
    let window = x.optional(2).map(f64s).transpose()?;
    let given = x.optional_i64s(3)?.and_then(|l| l.first().copied()).and_then(|l| usize::try_from(l).ok());
    let frame = given.or(window.as_ref().map(Vec::len)).unwrap_or(length);
    if step == 0 || frame == 0 || frame > length || !(1..=2).contains(&parts) {
        return Err(format!("frames of {frame} each {step} of {length}"));
    }
    let window = window.unwrap_or_else(|| vec![1.0; frame]);
    if window.len() != frame {
        return Err(format!("a window of {} for frames of {frame}", window.len()));
    }
    let frames = 1 + (length - frame) / step;
    let kept = if onesided { frame / 2 + 1 } else { frame };
    context.check_size(batch.saturating_mul(frames).saturating_mul(kept * 2), DType::F64)?;
    let values = f64s(data)?;
    let mut out = Vec::with_capacity(batch * frames * kept * 2);
    for b in 0..batch {
        for f in 0..frames {
            let element =
                |n: usize, part: usize| values[(b * length + f * step + n) * parts + part] * window[n];
            let re: Vec<f64> = (0..frame).map(|n| element(n, 0)).collect();
            let im: Vec<f64> = (0..frame).map(|n| if parts == 2 { element(n, 1) } else { 0.0 }).collect();
            let (re, im) = transform(&re, &im, -1.0);
            (0..kept).for_each(|k| out.extend([re[k], im[k]]));
        }
    }
    from_f64([batch, frames, kept, 2], out, data.dtype())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halving_agrees_with_the_sum() {
        for n in [1, 3, 16, 24, 40, 64] {
            let re: Vec<f64> = (0..n).map(|i| ((i * 7) % 11) as f64).collect();
            let im: Vec<f64> = (0..n).map(|i| ((i * 5) % 13) as f64).collect();
            let (fast_re, fast_im) = transform(&re, &im, -1.0);
            for k in 0..n {
                let (mut a, mut b) = (0.0, 0.0);
                for i in 0..n {
                    let angle = -TAU * (i * k) as f64 / n as f64;
                    a += re[i] * angle.cos() - im[i] * angle.sin();
                    b += re[i] * angle.sin() + im[i] * angle.cos();
                }
                assert!((a - fast_re[k]).abs() + (b - fast_im[k]).abs() < 1e-9, "{n} {k}");
            }
        }
    }
}
