//! Layer norm (arXiv:1607.06450).

use crate::vector::{self, Kernel, Vector};
use crate::{Isa, KernelError};

/// `out = (x - mean(x)) / sqrt(variance(x) + eps) * weight (+ bias)` over one row; all of one length.
///
/// # Errors
/// [`KernelError::Shape`] if lengths differ.
pub fn layer_norm(
    isa: Isa,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    eps: f32,
    out: &mut [f32],
) -> Result<(), KernelError> {
    for len in [x.len(), weight.len()].into_iter().chain(bias.map(<[f32]>::len)) {
        KernelError::check("layer_norm", len, out.len())?;
    }
    vector::run(isa, LayerNorm { x, weight, bias, eps, out });
    Ok(())
}

/// The slices are of one length.
struct LayerNorm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    eps: f32,
    out: &'a mut [f32],
}

/// Accumulators of the sums, to hide the latency of the additions.
const SUMS: usize = 4;

impl LayerNorm<'_> {
    /// Sum over the row of `x - center`, or of its square.
    #[inline(always)]
    fn sum<V: Vector, const SQUARE: bool>(&self, v: V, center: V::F32) -> f32 {
        let whole = self.x.len() / V::LANES * V::LANES;
        let add = |x: V::F32, sum: V::F32| {
            let x = v.sub(x, center);
            if SQUARE { v.fma(x, x, sum) } else { v.add(x, sum) }
        };
        let mut sums = [v.splat(0.0); SUMS];
        let mut i = 0;
        while i + SUMS * V::LANES <= whole {
            for (column, sum) in sums.iter_mut().enumerate() {
                // SAFETY: `i + SUMS * LANES` elements lie in `x`.
                *sum = add(unsafe { v.load(self.x.as_ptr().add(i + column * V::LANES)) }, *sum);
            }
            i += SUMS * V::LANES;
        }
        while i < whole {
            // SAFETY: `i + LANES <= whole <= len`.
            sums[0] = add(unsafe { v.load(self.x.as_ptr().add(i)) }, sums[0]);
            i += V::LANES;
        }
        let mut sum = v.sum(v.add(v.add(sums[0], sums[1]), v.add(sums[2], sums[3])));
        let mut lane = [0.0];
        v.store_part(&mut lane, center);
        for x in &self.x[whole..] {
            let x = x - lane[0];
            sum += if SQUARE { x * x } else { x };
        }
        sum
    }
}

impl Kernel for LayerNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let len = self.x.len();
        let whole = len / V::LANES * V::LANES;
        let mean = v.splat(self.sum::<V, false>(v, v.splat(0.0)) / len as f32);
        let variance = self.sum::<V, true>(v, mean) / len as f32;
        let scale = v.splat(1.0 / (variance + self.eps).sqrt());
        let zero = v.splat(0.0);
        let mut i = 0;
        while i < whole {
            // SAFETY: `i + LANES <= whole <= len`, the length of all slices.
            unsafe {
                let x = v.mul(v.sub(v.load(self.x.as_ptr().add(i)), mean), scale);
                let bias = self.bias.map_or(zero, |bias| v.load(bias.as_ptr().add(i)));
                v.store(self.out.as_mut_ptr().add(i), v.fma(x, v.load(self.weight.as_ptr().add(i)), bias));
            }
            i += V::LANES;
        }
        let x = v.mul(v.sub(v.load_part(&self.x[whole..]), mean), scale);
        let bias = self.bias.map_or(zero, |bias| v.load_part(&bias[whole..]));
        v.store_part(&mut self.out[whole..], v.fma(x, v.load_part(&self.weight[whole..]), bias));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_its_definition_on_every_isa() {
        for len in (1..130).chain([384, 1000]) {
            let x: Vec<f32> = (0..len).map(|i| ((i * 37) % 101) as f32 / 25.0 - 1.0).collect();
            let weight: Vec<f32> = (0..len).map(|i| 1.0 + (i % 7) as f32 / 10.0).collect();
            let bias: Vec<f32> = (0..len).map(|i| (i % 5) as f32 - 2.0).collect();
            let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / len as f64;
            let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / len as f64;
            for isa in Isa::available() {
                for bias in [None, Some(&bias[..])] {
                    let mut out = vec![f32::NAN; len];
                    layer_norm(isa, &x, &weight, bias, 1e-5, &mut out).unwrap();
                    for i in 0..len {
                        let y = (f64::from(x[i]) - mean) / (variance + 1e-5).sqrt() * f64::from(weight[i])
                            + bias.map_or(0.0, |b| f64::from(b[i]));
                        assert!(
                            (f64::from(out[i]) - y).abs() < 1e-5,
                            "{} {len} {i}: {} {y}",
                            isa.name(),
                            out[i]
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn lengths_must_agree() {
        let mut out = [0.0; 3];
        assert!(layer_norm(Isa::Scalar, &[0.0; 3], &[1.0; 3], Some(&[0.0; 2]), 1e-5, &mut out).is_err());
        assert!(layer_norm(Isa::Scalar, &[0.0; 3], &[1.0; 2], None, 1e-5, &mut out).is_err());
        assert!(layer_norm(Isa::Scalar, &[0.0; 2], &[1.0; 3], None, 1e-5, &mut out).is_err());
    }
}
