//! Root-mean-square norm (arXiv:1910.07467).

use crate::elementwise::{self, BinaryOp};
use crate::vector::{self, Kernel, Vector};
use crate::{Isa, KernelError};

/// Norms each consecutive group of `weight.len()` elements: `out = x / sqrt(mean(x²) + eps) * weight`.
///
/// `x` and `out` are `[.., D]` with `D` a multiple of `weight.len()`: the whole row, or each head of it.
///
/// # Errors
/// [`KernelError::Shape`] if the lengths of `x` and `out` differ or `weight` does not divide them.
pub fn rms_norm(isa: Isa, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) -> Result<(), KernelError> {
    KernelError::check("rms_norm", x.len(), out.len())?;
    KernelError::check_groups("rms_norm", x.len(), weight.len())?;
    for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
        vector::run(isa, RmsNorm { x, weight, eps, out });
    }
    Ok(())
}

/// `sum = x + delta`, then `out = rms_norm(sum)`.
///
/// # Errors
/// [`KernelError::Shape`] if the lengths of `x`, `delta`, `sum` and `out` differ or `weight` does not divide them.
pub fn add_rms_norm(
    isa: Isa,
    x: &[f32],
    delta: &[f32],
    weight: &[f32],
    eps: f32,
    sum: &mut [f32],
    out: &mut [f32],
) -> Result<(), KernelError> {
    KernelError::check("add_rms_norm", x.len(), sum.len())?;
    KernelError::check("add_rms_norm", delta.len(), sum.len())?;
    elementwise::binary(isa, BinaryOp::Add, x, delta, sum)?;
    rms_norm(isa, sum, weight, eps, out)
}

/// One group; the slices are of one length.
struct RmsNorm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

/// Accumulators of the sum of squares, to hide the latency of the additions.
const SUMS: usize = 4;

impl Kernel for RmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let len = self.x.len();
        let whole = len / V::LANES * V::LANES;
        let mut sums = [v.splat(0.0); SUMS];
        let mut i = 0;
        while i + SUMS * V::LANES <= whole {
            for (column, sum) in sums.iter_mut().enumerate() {
                // SAFETY: `i + SUMS * LANES` elements lie in `x`.
                let x = unsafe { v.load(self.x.as_ptr().add(i + column * V::LANES)) };
                *sum = v.fma(x, x, *sum);
            }
            i += SUMS * V::LANES;
        }
        while i < whole {
            // SAFETY: `i + LANES <= whole <= len`.
            let x = unsafe { v.load(self.x.as_ptr().add(i)) };
            sums[0] = v.fma(x, x, sums[0]);
            i += V::LANES;
        }
        let rest = v.load_part(&self.x[whole..]);
        sums[0] = v.fma(rest, rest, sums[0]);
        let squares = v.sum(v.add(v.add(sums[0], sums[1]), v.add(sums[2], sums[3])));
        let scale = v.splat(1.0 / (squares / len as f32 + self.eps).sqrt());

        i = 0;
        while i < whole {
            // SAFETY: `i + LANES <= whole <= len`, the length of all three slices.
            unsafe {
                let x = v.load(self.x.as_ptr().add(i));
                let weight = v.load(self.weight.as_ptr().add(i));
                v.store(self.out.as_mut_ptr().add(i), v.mul(v.mul(x, scale), weight));
            }
            i += V::LANES;
        }
        v.store_part(&mut self.out[whole..], v.mul(v.mul(rest, scale), v.load_part(&self.weight[whole..])));
    }
}

#[cfg(test)]
mod tests;
