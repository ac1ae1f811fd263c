//! Resizing as Pillow before 13 does it, bit for bit on 8-bit pictures: filters widen when a picture shrinks, 8-bit weights have
//! 22 fractional bits, rows are resampled before columns and rounded in between.

use kun_kernels::Isa;
use kun_kernels::resample::{FRACTION_BITS, Taps, blend, lines};

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

    /// The weights of a position as whole numbers of [`FRACTION_BITS`] fractional bits.
    fn fixed(&self, position: usize) -> Vec<i32> {
        let one = f64::from(1 << FRACTION_BITS);
        let values = &self.values[position * self.taps..][..self.spans[position].1];
        values.iter().map(|v| (v * one + 0.5f64.copysign(*v)) as i32).collect()
    }
}

/// Resizes interleaved 8-bit samples, `[h, w, channels]` to `[out_h, out_w, channels]`; equals Pillow's `resize`.
///
/// # Panics
/// If the samples do not fill the size, or a size is 0.
pub fn resize_u8(
    samples: &[u8],
    size: (usize, usize),
    channels: usize,
    (out_w, out_h): (usize, usize),
    filter: Filter,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(out_w * out_h * channels);
    resize_rows(samples, size, channels, (out_w, out_h), filter, |_, row| out.extend_from_slice(row));
    out
}

/// [`resize_u8`], one row of the result after the other: its number and its samples.
///
/// # Panics
/// As [`resize_u8`], or if there are no or more than 4 channels.
pub fn resize_rows(
    samples: &[u8],
    (w, h): (usize, usize),
    channels: usize,
    (out_w, out_h): (usize, usize),
    filter: Filter,
    mut row: impl FnMut(usize, &[u8]),
) {
    assert!(samples.len() == w * h * channels && out_w > 0 && out_h > 0, "{w}x{h} to {out_w}x{out_h}");
    assert!((1..=4).contains(&channels), "{channels} channels");
    let line = w * channels;
    if (w, h) == (out_w, out_h) {
        return samples.chunks_exact(line).enumerate().for_each(|(y, samples)| row(y, samples));
    }
    if filter == Filter::Nearest {
        let all = nearest(samples, (w, h), channels, (out_w, out_h));
        return all.chunks_exact(out_w * channels).enumerate().for_each(|(y, samples)| row(y, samples));
    }
    let mut source = Lines::new(samples, (w, h), channels, out_w, filter);
    if h == out_h {
        return (0..h).for_each(|y| row(y, source.upto(y, 1)[0]));
    }
    let (weights, isa) = (Weights::new(h, out_h, filter), Isa::detect());
    let mut out = vec![0; out_w * channels];
    for (y, &(first, count)) in weights.spans.iter().enumerate() {
        blend(isa, &source.upto(first, count), &weights.fixed(y), &mut out)
            .expect("lines are as long as results");
        row(y, &out);
    }
}

/// The lines of a picture in another width; the last few are kept, as the next rows of the result are made from them.
struct Lines<'a> {
    samples: &'a [u8],
    /// Samples of a line of the picture, and how many lines it has.
    size: (usize, usize),
    channels: usize,
    /// None if the width stays.
    axis: Option<Taps>,
    /// Two lines of the picture, with room behind.
    inputs: [Vec<u8>; 2],
    /// Line `y` is `kept[y % kept.len()]`.
    kept: Vec<Vec<u8>>,
    /// Lines that were made.
    made: usize,
}

impl<'a> Lines<'a> {
    fn new(
        samples: &'a [u8],
        (w, h): (usize, usize),
        channels: usize,
        out_w: usize,
        filter: Filter,
    ) -> Lines<'a> {
        let axis = (w != out_w).then(|| {
            let weights = Weights::new(w, out_w, filter);
            let fixed: Vec<Vec<i32>> = (0..out_w).map(|position| weights.fixed(position)).collect();
            Taps::new(weights.spans.iter().map(|span| span.0).collect(), &fixed)
        });
        let room = axis.as_ref().map_or(0, |axis| axis.input_len(channels).max(w * channels));
        let inputs = [vec![0; room], vec![0; room]];
        Lines { samples, size: (w * channels, h), channels, axis, inputs, kept: Vec::new(), made: 0 }
    }

    /// Lines from `first` on; never before those that were asked for last.
    fn upto(&mut self, first: usize, count: usize) -> Vec<&[u8]> {
        let (line, lines_in_all) = self.size;
        let source = |y: usize| &self.samples[y * line..(y + 1) * line];
        let Some(axis) = &self.axis else { return (first..first + count).map(source).collect() };
        // Lines are made in pairs: with one more than asked for, none of these is overwritten.
        let most = (count + 2).next_multiple_of(2);
        if self.kept.len() < most {
            self.kept.resize(most, Vec::new());
            self.kept.iter_mut().for_each(|line| line.resize(axis.output_len(self.channels), 0));
            self.made = first / 2 * 2;
        }
        while self.made < first + count {
            let y = self.made;
            for (input, y) in self.inputs.iter_mut().zip([y, (y + 1).min(lines_in_all - 1)]) {
                input[..line].copy_from_slice(source(y));
            }
            let at = y % self.kept.len();
            let [a, b] = self.kept.get_disjoint_mut([at, at + 1]).expect("pairs begin at even places");
            lines(Isa::detect(), [&self.inputs[0], &self.inputs[1]], self.channels, axis, [a, b])
                .expect("lines have room");
            self.made += 2;
        }
        let width = axis.len() * self.channels;
        (first..first + count).map(|y| &self.kept[y % self.kept.len()][..width]).collect()
    }
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
