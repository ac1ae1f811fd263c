//! Images sampled between their pixels: every output pixel is a weighted sum of a few pixels, each where it likes.

use crate::vector::{self, Kernel, Vector};
use crate::{Isa, KernelError};

/// The most pixels of a sum.
pub const MOST: usize = 4;

/// The pixels of one sum.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    count: usize,
    places: [usize; MOST],
    weights: [f32; MOST],
}

impl Sample {
    /// Adds the pixel whose channels start at `place`.
    ///
    /// # Panics
    /// If there are [`MOST`] of them.
    pub fn push(&mut self, place: usize, weight: f32) {
        (self.places[self.count], self.weights[self.count]) = (place, weight);
        self.count += 1;
    }
}

/// Writes a pixel of `channels` channels for each of `samples` to `out`, `stride` apart; those without pixels are 0.
///
/// # Errors
/// [`KernelError::Shape`] if a place lies outside of `x` or `out` has another length.
pub fn pixels(
    isa: Isa,
    x: &[f32],
    channels: usize,
    samples: &[Sample],
    stride: usize,
    out: &mut [f32],
) -> Result<(), KernelError> {
    let kernel = "grid_sample";
    if samples.is_empty() {
        return KernelError::check(kernel, out.len(), 0);
    }
    if channels == 0 || stride < channels {
        let what = format!("pixels of {channels} channels at a distance of {stride}");
        return Err(KernelError::Shape { kernel, what });
    }
    KernelError::check(kernel, out.len(), (samples.len() - 1) * stride + channels)?;
    let places = samples.iter().flat_map(|sample| &sample.places[..sample.count]);
    if let Some(place) = places.copied().find(|&place| x.len() < channels || place > x.len() - channels) {
        let what = format!("{channels} channels at {place} of {}", x.len());
        return Err(KernelError::Shape { kernel, what });
    }
    vector::run(isa, Pixels { x, channels, samples, stride, out });
    Ok(())
}

struct Pixels<'a> {
    x: &'a [f32],
    channels: usize,
    samples: &'a [Sample],
    stride: usize,
    out: &'a mut [f32],
}

impl Kernel for Pixels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Self { x, channels, samples, stride, out } = self;
        for (sample, out) in samples.iter().zip(out.chunks_mut(stride)) {
            let out = &mut out[..channels];
            let weights = &sample.weights[..sample.count];
            let mut rows: [&[f32]; MOST] = [&[]; MOST];
            for (row, &place) in rows.iter_mut().zip(&sample.places[..sample.count]) {
                *row = &x[place..][..channels];
            }
            if channels < V::LANES {
                for (c, out) in out.iter_mut().enumerate() {
                    *out = rows.iter().zip(weights).map(|(row, weight)| row[c] * weight).sum();
                }
                continue;
            }
            for at in (0..channels).step_by(V::LANES) {
                // The last vector covers some of the one before once more.
                let at = at.min(channels - V::LANES);
                let mut sum = v.splat(0.0);
                for (row, &weight) in rows.iter().zip(weights) {
                    // SAFETY: every row that has a weight is `channels` long, and a whole vector is left of it.
                    sum = v.fma(unsafe { v.load(row.as_ptr().add(at)) }, v.splat(weight), sum);
                }
                // SAFETY: a whole vector is left.
                unsafe { v.store(out.as_mut_ptr().add(at), sum) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST, Sample, pixels};
    use crate::Isa;
    use crate::gemm::tests::{assert_close, numbers};

    #[test]
    fn grid_sample_sums_pixels_on_every_isa() {
        for (channels, stride) in [(1, 1), (3, 5), (16, 16), (37, 40)] {
            let x = numbers(1, 7 * channels);
            let samples: Vec<Sample> = (0..9)
                .map(|i| {
                    let mut sample = Sample::default();
                    (0..i % (MOST + 1)).for_each(|t| {
                        sample.push((3 * i + 2 * t) % 7 * channels, t as f32 * 0.5 - i as f32);
                    });
                    sample
                })
                .collect();
            let expected: Vec<f32> = (0..8 * stride + channels)
                .map(|i| {
                    let (sample, c) = (&samples[i / stride], i % stride);
                    if c >= channels {
                        return 7.0;
                    }
                    (0..sample.count).map(|t| x[sample.places[t] + c] * sample.weights[t]).sum()
                })
                .collect();
            for isa in Isa::available() {
                let mut out = vec![7.0; expected.len()];
                pixels(isa, &x, channels, &samples, stride, &mut out).unwrap();
                assert_close(&out, &expected, 1e-6, "grid sample");
                assert!(pixels(isa, &x, channels, &samples, stride, &mut out[1..]).is_err());
                let mut outside = Sample::default();
                outside.push(6 * channels + 1, 1.0);
                assert!(pixels(isa, &x, channels, &[outside], stride, &mut out[..channels]).is_err());
            }
        }
    }
}
