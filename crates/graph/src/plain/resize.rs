//! Operations that sample an image between its pixels.

use super::reduce::around;
use super::{Args, f64s, from_f64};
use crate::ops::fact::{axis, count, dims};
use crate::ops::resize::affine_grid_shape;
use crate::ops::{Coordinates, GridPadding, GridSample, Interpolation, NearestRounding, Resize, SampleMode};
use kun_tensor::Tensor;

/// The input pixels and weights of one output pixel along one axis; none if it lies outside.
type Taps = Option<Vec<(usize, f64)>>;

fn cubic(a: f64, x: f64) -> f64 {
    let x = x.abs();
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}

/// Where output pixel `i` of `output` lies among the `input` pixels.
fn coordinate(mode: Coordinates, i: usize, input: usize, output: usize, scale: f64, roi: (f64, f64)) -> f64 {
    let (i, last) = (i as f64, input as f64 - 1.0);
    // The length that the scale asks for, which may not be whole.
    let resized = scale * input as f64;
    match mode {
        Coordinates::HalfPixel => (i + 0.5) / scale - 0.5,
        Coordinates::HalfPixelSymmetric => {
            let adjusted = output as f64 / resized;
            input as f64 / 2.0 * (1.0 - adjusted) + (i + 0.5) / scale - 0.5
        }
        Coordinates::PytorchHalfPixel if output == 1 => -0.5,
        Coordinates::PytorchHalfPixel => (i + 0.5) / scale - 0.5,
        Coordinates::AlignCorners if output == 1 => 0.0,
        Coordinates::AlignCorners => i * last / (resized - 1.0),
        Coordinates::Asymmetric => i / scale,
        Coordinates::TfHalfPixelForNearest => (i + 0.5) / scale,
        Coordinates::TfCropAndResize if output == 1 => (roi.0 + roi.1) / 2.0 * last,
        Coordinates::TfCropAndResize => roi.0 * last + i * (roi.1 - roi.0) * last / (output as f64 - 1.0),
    }
}

fn taps(resize: &Resize, x: f64, input: usize, scale: f64) -> Taps {
    let last = input as f64 - 1.0;
    if resize.coordinates == Coordinates::TfCropAndResize && !(0.0..=last).contains(&x) {
        return None;
    }
    let nearest = |x: f64| Some(vec![(x.clamp(0.0, last) as usize, 1.0)]);
    let (support, weight): (f64, Box<dyn Fn(f64) -> f64>) = match resize.interpolation {
        Interpolation::Nearest(rounding) => {
            // Coordinates are computed in f32 elsewhere: a half that misses by rounding is a half.
            let x = if (x * 2.0 - (x * 2.0).round()).abs() < 1e-6 { (x * 2.0).round() / 2.0 } else { x };
            return nearest(match rounding {
                NearestRounding::RoundPreferFloor => (x - 0.5).ceil(),
                NearestRounding::RoundPreferCeil => (x + 0.5).floor(),
                NearestRounding::Floor => x.floor(),
                NearestRounding::Ceil => x.ceil(),
            });
        }
        Interpolation::Linear => (1.0, Box::new(|d: f64| (1.0 - d.abs()).max(0.0))),
        Interpolation::Cubic { a } => (2.0, Box::new(move |d: f64| cubic(f64::from(a), d))),
    };
    let squeeze = if resize.antialias { scale.min(1.0) } else { 1.0 };
    let reach = support / squeeze;
    let (first, end) = ((x - reach).floor() as i64, (x + reach).ceil() as i64);
    let mut taps: Vec<(usize, f64)> = Vec::new();
    for i in first..=end {
        let weight = weight((i as f64 - x) * squeeze);
        let inside = (0..input as i64).contains(&i);
        if weight != 0.0 && (inside || !resize.exclude_outside) {
            taps.push((i.clamp(0, input as i64 - 1) as usize, weight));
        }
    }
    let sum: f64 = taps.iter().map(|(_, w)| w).sum();
    if resize.antialias || resize.exclude_outside {
        taps.iter_mut().for_each(|(_, w)| *w /= sum);
    }
    Some(taps)
}

/// The input pixels and weights of every output pixel along one axis; `None` where some lie outside.
pub(crate) fn axis_taps(
    resize: &Resize,
    input: usize,
    output: usize,
    scale: f32,
) -> Option<Vec<Vec<(usize, f64)>>> {
    if resize.coordinates == Coordinates::TfCropAndResize || input == 0 {
        return None;
    }
    let scale = f64::from(scale);
    if input == output && (scale - 1.0).abs() < 1e-9 {
        return Some((0..output).map(|i| vec![(i, 1.0)]).collect());
    }
    let place = |i| coordinate(resize.coordinates, i, input, output, scale, (0.0, 1.0));
    (0..output).map(|i| taps(resize, place(i), input, scale)).collect()
}

pub(crate) fn resize(resize: &Resize, x: &Args<'_>) -> Result<Tensor, String> {
    let data = x.get(0)?;
    let scales = x.optional(2).map(super::f32s).transpose()?.filter(|s| !s.is_empty());
    let sizes = x.optional_i64s(3)?;
    let (shape, factors) = resize.size(data.shape(), scales.as_deref(), sizes.as_deref())?;
    let regions = x.optional(1).map(f64s).transpose()?.filter(|r| !r.is_empty());
    let rank = shape.len();
    let axes: Vec<usize> = match resize.axes.is_empty() {
        true => (0..rank).collect(),
        false => resize.axes.iter().map(|&a| axis(a, rank)).collect::<Result<_, _>>()?,
    };
    let region = |d: usize| match (&regions, axes.iter().position(|&a| a == d)) {
        (Some(r), Some(at)) if r.len() == 2 * axes.len() => (r[at], r[axes.len() + at]),
        _ => (0.0, 1.0),
    };
    if data.elements().is_empty() || count(&shape)? == 0 {
        return from_f64(shape, Vec::new(), data.dtype());
    }
    let mut values = f64s(data)?;
    let mut now = data.shape().to_vec();
    for d in (0..rank).rev() {
        let (input, output, scale) = (now[d], shape[d], f64::from(factors[d]));
        let crop = resize.coordinates == Coordinates::TfCropAndResize && axes.contains(&d);
        if input == output && (scale - 1.0).abs() < 1e-9 && !crop {
            continue;
        }
        let all: Vec<Taps> = (0..output)
            .map(|i| {
                taps(resize, coordinate(resize.coordinates, i, input, output, scale, region(d)), input, scale)
            })
            .collect();
        let (outer, _, inner) = around(&now, d)?;
        let mut out = Vec::with_capacity(outer * output * inner);
        for o in 0..outer {
            let plane = &values[o * input * inner..(o + 1) * input * inner];
            for taps in &all {
                match taps {
                    // NaN marks what lies outside until the end.
                    None => out.resize(out.len() + inner, f64::NAN),
                    Some(taps) if inner == 1 => out.push(taps.iter().map(|&(i, w)| plane[i] * w).sum()),
                    Some(taps) => {
                        let start = out.len();
                        out.resize(start + inner, 0.0);
                        for &(i, w) in taps {
                            let row = &plane[i * inner..(i + 1) * inner];
                            out[start..].iter_mut().zip(row).for_each(|(out, v)| *out += v * w);
                        }
                    }
                }
            }
        }
        now[d] = output;
        values = out;
    }
    if resize.coordinates == Coordinates::TfCropAndResize {
        let outside = f64::from(resize.extrapolation);
        values.iter_mut().filter(|v| v.is_nan()).for_each(|v| *v = outside);
    }
    from_f64(shape, values, data.dtype())
}

fn reflect(x: f64, low: f64, high: f64) -> f64 {
    let range = high - low;
    if range <= 0.0 {
        return low;
    }
    let (over, from_low) = if x < low {
        (low - x, true)
    } else if x > high {
        (x - high, false)
    } else {
        return x;
    };
    let turns = (over / range).trunc();
    let rest = over - turns * range;
    if (turns % 2.0 == 0.0) == from_low { low + rest } else { high - rest }
}

/// The pixels of an axis that a place lies between, and their weights; without those that count as zero.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GridTaps {
    taps: [(usize, f64); 4],
    count: usize,
}

impl GridTaps {
    pub(crate) fn as_slice(&self) -> &[(usize, f64)] {
        &self.taps[..self.count]
    }

    #[inline]
    fn push(&mut self, pixel: usize, weight: f64) {
        self.taps[self.count] = (pixel, weight);
        self.count += 1;
    }
}

/// `x.floor()`, without a call where that is one.
#[inline]
fn floor(x: f64) -> f64 {
    // Whole numbers up to here are i64.
    if x.abs() < 1e15 {
        let toward_zero = x as i64 as f64;
        return if toward_zero > x { toward_zero - 1.0 } else { toward_zero };
    }
    x.floor()
}

/// Finds those of an axis of `length` pixels and coordinate `v` of a grid.
#[inline]
pub(crate) fn grid_taps(sample: &GridSample, v: f64, length: usize, taps: &mut GridTaps) {
    let GridSample { mode, padding, align_corners } = *sample;
    let length = length as f64;
    let last = length - 1.0;
    let (mut p, low, high) = match align_corners {
        true => ((v + 1.0) / 2.0 * last, 0.0, last),
        false => (((v + 1.0) * length - 1.0) / 2.0, -0.5, length - 0.5),
    };
    p = f64::from(p as f32);
    if mode == SampleMode::Nearest {
        p = p.round_ties_even();
    }
    if p < low || p > high {
        match padding {
            GridPadding::Border => p = p.clamp(0.0, last),
            GridPadding::Reflection => p = reflect(p, low, high),
            GridPadding::Zeros => {}
        }
    }
    taps.count = 0;
    let mut push = |i: f64, weight: f64| match padding {
        _ if (0.0..=last).contains(&i) => taps.push(i as usize, weight),
        GridPadding::Zeros => {}
        GridPadding::Border => taps.push(i.clamp(0.0, last) as usize, weight),
        GridPadding::Reflection => taps.push(reflect(i, low, high).clamp(0.0, last) as usize, weight),
    };
    let base = floor(p);
    match mode {
        SampleMode::Nearest => push(p.trunc(), 1.0),
        SampleMode::Linear => {
            push(base, 1.0 - (p - base));
            push(base + 1.0, p - base);
        }
        SampleMode::Cubic => {
            (-1..3).map(|k| base + f64::from(k)).for_each(|i| push(i, cubic(-0.75, p - i)));
        }
    }
}

pub(crate) fn grid_sample(sample: &GridSample, x: &Tensor, grid: &Tensor) -> Result<Tensor, String> {
    let (&[n, c], spatial) = x.shape().split_at(2.min(x.shape().len())) else {
        return Err(format!("{:?} has no channels", x.shape()));
    };
    let rank = spatial.len();
    let places = match grid.shape() {
        [batch, places @ .., last] if *batch == n && *last == rank && places.len() == rank => places,
        shape => return Err(format!("a grid of {shape:?} for {:?}", x.shape())),
    };
    let (values, coordinates) = (f64s(x)?, f64s(grid)?);
    let (size, count) = (count(spatial)?, count(places)?);
    let strides = super::layout::strides(spatial);
    let mut out = vec![0.0; n * c * count];
    for batch in 0..n {
        for place in 0..count {
            let at = (batch * count + place) * rank;
            // By dimension: offsets and weights.
            let mut taps: Vec<(usize, f64)> = vec![(0, 1.0)];
            for d in 0..rank {
                // Coordinates come innermost first.
                let v = coordinates[at + rank - 1 - d];
                let mut near = GridTaps::default();
                grid_taps(sample, v, spatial[d], &mut near);
                taps = taps
                    .iter()
                    .flat_map(|&(offset, weight)| {
                        let (strides, near) = (&strides, &near);
                        near.as_slice().iter().map(move |&(i, w)| (offset + i * strides[d], weight * w))
                    })
                    .collect();
            }
            for channel in 0..c {
                let plane = &values[(batch * c + channel) * size..][..size];
                out[(batch * c + channel) * count + place] = taps.iter().map(|&(i, w)| plane[i] * w).sum();
            }
        }
    }
    from_f64([&[n, c], places].concat(), out, x.dtype())
}

pub(crate) fn affine_grid(theta: &Tensor, size: &[i64], align_corners: bool) -> Result<Tensor, String> {
    let shape = affine_grid_shape(&dims(size)?)?;
    let (n, rank) = (shape[0], shape[shape.len() - 1]);
    if theta.shape() != [n, rank, rank + 1] {
        return Err(format!("a transformation of {:?} for {shape:?}", theta.shape()));
    }
    let theta_values = f64s(theta)?;
    let spatial = &shape[1..shape.len() - 1];
    let strides = super::layout::strides(spatial);
    let count = count(spatial)?;
    let at = |i: usize, length: usize| match align_corners {
        true if length == 1 => 0.0,
        true => -1.0 + 2.0 * i as f64 / (length as f64 - 1.0),
        false => -1.0 + (2.0 * i as f64 + 1.0) / length as f64,
    };
    let mut out = Vec::with_capacity(n * count * rank);
    for batch in 0..n {
        let theta = &theta_values[batch * rank * (rank + 1)..][..rank * (rank + 1)];
        for place in 0..count {
            // Innermost first, then 1.
            let base: Vec<f64> = (0..rank)
                .rev()
                .map(|d| at(place / strides[d] % spatial[d], spatial[d]))
                .chain([1.0])
                .collect();
            for row in theta.chunks(rank + 1) {
                out.push(row.iter().zip(&base).map(|(t, b)| t * b).sum());
            }
        }
    }
    from_f64(shape, out, theta.dtype())
}
