//! Resizing as Pillow before 13 does it, bit for bit on 8-bit pictures: filters widen when a picture shrinks, 8-bit weights have
//! 22 fractional bits, rows are resampled before columns and rounded in between.

/// How pixels are weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Filter {
    /// The pixel whose area holds the centre.
    Nearest,
    /// A triangle of half-width 1.
    Bilinear,
    /// Cubic convolution with a = -0.5, half-width 2.
    Bicubic,
    /// A windowed sinc of half-width 3.
    Lanczos,
}

impl Filter {
    fn support(self) -> f64 {
        match self {
            Filter::Nearest => 0.5,
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
            Filter::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let sinc = |x: f64| {
            if x == 0.0 {
                return 1.0;
            }
            let x = x * std::f64::consts::PI;
            x.sin() / x
        };
        let distance = x.abs();
        match self {
            Filter::Nearest => 1.0,
            Filter::Bilinear if distance < 1.0 => 1.0 - distance,
            Filter::Bicubic if distance < 1.0 => {
                ((A + 2.0) * distance - (A + 3.0)) * distance * distance + 1.0
            }
            Filter::Bicubic if distance < 2.0 => (((distance - 5.0) * distance + 8.0) * distance - 4.0) * A,
            Filter::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            _ => 0.0,
        }
    }
}

/// The weights of every output position along one axis.
struct Weights {
    /// First input position and how many follow.
    spans: Vec<(usize, usize)>,
    /// `taps` weights a position, summing to 1.
    values: Vec<f64>,
    taps: usize,
}

impl Weights {
    fn new(input: usize, output: usize, filter: Filter) -> Weights {
        let scale = input as f64 / output as f64;
        let stretch = scale.max(1.0);
        let support = filter.support() * stretch;
        let taps = support.ceil() as usize * 2 + 1;
        let mut spans = Vec::with_capacity(output);
        let mut values = vec![0.0; output * taps];
        for (position, row) in values.chunks_exact_mut(taps).enumerate() {
            let center = (position as f64 + 0.5) * scale;
            let first = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(input);
            let count = end.saturating_sub(first);
            let mut sum = 0.0;
            for (i, value) in row[..count].iter_mut().enumerate() {
                *value = filter.weight(((i + first) as f64 - center + 0.5) / stretch);
                sum += *value;
            }
            if sum != 0.0 {
                row[..count].iter_mut().for_each(|value| *value /= sum);
            }
            spans.push((first, count));
        }
        Weights { spans, values, taps }
    }

    fn fixed(&self) -> Vec<i32> {
        let one = f64::from(1 << FRACTION_BITS);
        self.values.iter().map(|v| (v * one + 0.5f64.copysign(*v)) as i32).collect()
    }
}

const FRACTION_BITS: u32 = 32 - 8 - 2;

/// Resizes interleaved 8-bit samples, `[h, w, channels]` to `[out_h, out_w, channels]`; equals Pillow's `resize`.
///
/// # Panics
/// If the samples do not fill the size, or a size is 0.
pub fn resize_u8(
    samples: &[u8],
    (w, h): (usize, usize),
    channels: usize,
    (out_w, out_h): (usize, usize),
    filter: Filter,
) -> Vec<u8> {
    assert!(samples.len() == w * h * channels && out_w > 0 && out_h > 0, "{w}x{h} to {out_w}x{out_h}");
    if (w, h) == (out_w, out_h) {
        return samples.to_vec();
    }
    if filter == Filter::Nearest {
        return nearest(samples, (w, h), channels, (out_w, out_h));
    }
    let rows = if w == out_w { samples.to_vec() } else { narrow_rows(samples, w, channels, out_w, filter) };
    if h == out_h { rows } else { narrow_columns(&rows, out_w * channels, h, out_h, filter) }
}

fn round_fixed(sum: i32) -> u8 {
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}

/// `[h, w, c]` to `[h, out_w, c]`.
fn narrow_rows(samples: &[u8], w: usize, channels: usize, out_w: usize, filter: Filter) -> Vec<u8> {
    let weights = Weights::new(w, out_w, filter);
    match channels {
        1 => narrow_rows_of::<1>(samples, w, &weights),
        2 => narrow_rows_of::<2>(samples, w, &weights),
        3 => narrow_rows_of::<3>(samples, w, &weights),
        _ => narrow_rows_of::<4>(samples, w, &weights),
    }
}

fn narrow_rows_of<const C: usize>(samples: &[u8], w: usize, weights: &Weights) -> Vec<u8> {
    let fixed = weights.fixed();
    let mut out = Vec::with_capacity(samples.len() / w * weights.spans.len());
    for row in samples.as_chunks::<C>().0.chunks_exact(w) {
        for (&(first, count), taps) in weights.spans.iter().zip(fixed.chunks_exact(weights.taps)) {
            let mut sums = [1 << (FRACTION_BITS - 1); C];
            for (pixel, &weight) in row[first..first + count].iter().zip(taps) {
                pixel.iter().zip(&mut sums).for_each(|(&v, sum)| *sum += i32::from(v) * weight);
            }
            out.extend(sums.map(round_fixed));
        }
    }
    out
}

/// `[h, n]` to `[out_h, n]`.
fn narrow_columns(samples: &[u8], n: usize, h: usize, out_h: usize, filter: Filter) -> Vec<u8> {
    let weights = Weights::new(h, out_h, filter);
    let fixed = weights.fixed();
    let mut out = Vec::with_capacity(n * out_h);
    let mut sums = vec![0i32; n];
    for (&(first, count), taps) in weights.spans.iter().zip(fixed.chunks_exact(weights.taps)) {
        sums.fill(1 << (FRACTION_BITS - 1));
        for (row, &weight) in samples[first * n..(first + count) * n].chunks_exact(n).zip(taps) {
            row.iter().zip(&mut sums).for_each(|(&v, sum)| *sum += i32::from(v) * weight);
        }
        out.extend(sums.iter().map(|&sum| round_fixed(sum)));
    }
    out
}

fn nearest<T: Copy>(
    samples: &[T],
    (w, h): (usize, usize),
    channels: usize,
    (out_w, out_h): (usize, usize),
) -> Vec<T> {
    let places = |input: usize, output: usize| {
        let scale = input as f64 / output as f64;
        // Summed up step by step, as Pillow does: where a centre falls on an edge, rounding decides.
        let mut at = scale * 0.5;
        let mut step = || {
            let here = at as usize;
            at += scale;
            here.min(input - 1)
        };
        (0..output).map(|_| step()).collect::<Vec<_>>()
    };
    let columns = places(w, out_w);
    let mut out = Vec::with_capacity(out_w * out_h * channels);
    for y in places(h, out_h) {
        for x in &columns {
            let at = (y * w + x) * channels;
            out.extend_from_slice(&samples[at..at + channels]);
        }
    }
    out
}

/// Resizes one plane of f32, with the same weights and no rounding.
///
/// # Panics
/// If the values do not fill `w * h`, or a size is 0.
pub fn resize_f32(
    values: &[f32],
    w: usize,
    h: usize,
    out_w: usize,
    out_h: usize,
    filter: Filter,
) -> Vec<f32> {
    assert!(values.len() == w * h && w * h * out_w * out_h > 0, "{w}x{h} to {out_w}x{out_h}");
    if filter == Filter::Nearest {
        return nearest(values, (w, h), 1, (out_w, out_h));
    }
    let rows = if w == out_w {
        values.to_vec()
    } else {
        let weights = Weights::new(w, out_w, filter);
        let mut out = Vec::with_capacity(h * out_w);
        for row in values.chunks_exact(w) {
            for (&(first, count), taps) in weights.spans.iter().zip(weights.values.chunks_exact(weights.taps))
            {
                let sum: f64 =
                    row[first..first + count].iter().zip(taps).map(|(&v, t)| f64::from(v) * t).sum();
                out.push(sum as f32);
            }
        }
        out
    };
    if h == out_h {
        return rows;
    }
    let weights = Weights::new(h, out_h, filter);
    let mut out = vec![0.0f32; out_w * out_h];
    for ((&(first, count), taps), out) in
        weights.spans.iter().zip(weights.values.chunks_exact(weights.taps)).zip(out.chunks_exact_mut(out_w))
    {
        for (row, &weight) in rows[first * out_w..(first + count) * out_w].chunks_exact(out_w).zip(taps) {
            row.iter().zip(&mut *out).for_each(|(&v, sum)| *sum += v * weight as f32);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use kun_testkit::golden;

    /// The picture that `tools/golden/pixels.py` also makes.
    fn picture(w: usize, h: usize, channels: usize) -> Vec<u8> {
        let mut state = 12_345u32;
        (0..w * h * channels)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect()
    }

    #[derive(serde::Deserialize)]
    struct Case {
        size: [usize; 2],
        channels: usize,
        to: [usize; 2],
        filter: String,
        sum: u64,
        head: Vec<u8>,
        crc: u32,
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
        })
    }

    #[test]
    fn equals_pillow_bit_for_bit() {
        let cases: Vec<Case> = golden::json(&golden::testdata().join("vision/resize.json"));
        assert!(cases.len() >= 20);
        for case in cases {
            let filter = match case.filter.as_str() {
                "nearest" => Filter::Nearest,
                "bilinear" => Filter::Bilinear,
                "bicubic" => Filter::Bicubic,
                "lanczos" => Filter::Lanczos,
                other => panic!("{other}"),
            };
            let ([w, h], [out_w, out_h]) = (case.size, case.to);
            let samples = picture(w, h, case.channels);
            let out = resize_u8(&samples, (w, h), case.channels, (out_w, out_h), filter);
            let what = format!("{:?} {w}x{h} to {out_w}x{out_h}", filter);
            assert_eq!(&out[..case.head.len()], &case.head[..], "{what}");
            assert_eq!(out.iter().map(|&v| u64::from(v)).sum::<u64>(), case.sum, "{what}");
            assert_eq!(crc32(&out), case.crc, "{what}");
        }
    }

    #[test]
    fn f32_agrees_with_u8() {
        let samples = picture(37, 23, 1);
        let floats: Vec<f32> = samples.iter().map(|&v| f32::from(v)).collect();
        for filter in [Filter::Nearest, Filter::Bilinear] {
            for to in [(11, 50), (80, 7), (37, 9), (1, 1)] {
                let bytes = resize_u8(&samples, (37, 23), 1, to, filter);
                let values = resize_f32(&floats, 37, 23, to.0, to.1, filter);
                let off = bytes.iter().zip(&values).map(|(&b, v)| (f32::from(b) - v.clamp(0.0, 255.0)).abs());
                assert!(off.fold(0.0, f32::max) <= 2.0, "{filter:?} {to:?}");
            }
        }
    }
}
