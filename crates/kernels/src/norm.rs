//! Root-mean-square norm (arXiv:1910.07467).

use crate::{Isa, KernelError};

/// Norms each consecutive group of `weight.len()` elements: `out = x / sqrt(mean(x²) + eps) * weight`.
///
/// `x` and `out` are `[.., D]` with `D` a multiple of `weight.len()`: the whole row, or each head of it.
///
/// # Errors
/// [`KernelError::Shape`] if the lengths of `x` and `out` differ or `weight` does not divide them.
pub fn rms_norm(isa: Isa, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) -> Result<(), KernelError> {
    let _ = isa;
    KernelError::check("rms_norm", x.len(), out.len())?;
    KernelError::check_groups("rms_norm", x.len(), weight.len())?;
    for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
        norm_group(x, weight, eps, out);
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
    for ((x, delta), sum) in x.iter().zip(delta).zip(sum.iter_mut()) {
        *sum = x + delta;
    }
    rms_norm(isa, sum, weight, eps, out)
}

fn norm_group(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let squares: f32 = x.iter().map(|x| x * x).sum();
    let scale = 1.0 / (squares / x.len() as f32 + eps).sqrt();
    for ((x, weight), out) in x.iter().zip(weight).zip(out) {
        *out = x * scale * weight;
    }
}
