//! Functions of whole rows: softmax, and normalisation by mean and variance.

use crate::vector::{self, Kernel, Vector, math};
use crate::{Isa, KernelError};

/// `out = softmax(scale * x)` of each consecutive group of `width` elements; `scale` is positive.
///
/// # Errors
/// [`KernelError::Shape`] if the lengths differ or `width` does not divide them.
pub fn softmax(isa: Isa, x: &[f32], width: usize, scale: f32, out: &mut [f32]) -> Result<(), KernelError> {
    KernelError::check("softmax", x.len(), out.len())?;
    if x.is_empty() {
        return Ok(());
    }
    KernelError::check_groups("softmax", x.len(), width)?;
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        vector::run(isa, Softmax { x: x.as_ptr(), out: out.as_mut_ptr(), width, scale });
    }
    Ok(())
}

/// As [`softmax`], in place.
///
/// # Errors
/// As [`softmax`].
pub fn softmax_in_place(isa: Isa, x: &mut [f32], width: usize, scale: f32) -> Result<(), KernelError> {
    if x.is_empty() {
        return Ok(());
    }
    KernelError::check_groups("softmax", x.len(), width)?;
    for x in x.chunks_exact_mut(width) {
        vector::run(isa, Softmax { x: x.as_ptr(), out: x.as_mut_ptr(), width, scale });
    }
    Ok(())
}

/// `x` may be `out`; both are valid for `width` elements.
struct Softmax {
    x: *const f32,
    out: *mut f32,
    width: usize,
    scale: f32,
}

impl Kernel for Softmax {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let whole = self.width / V::LANES * V::LANES;
        // SAFETY: `whole <= width` (here and below), and slices of the rest are gone before anything is written.
        let rest = || unsafe { std::slice::from_raw_parts(self.x.add(whole), self.width - whole) };
        let mut top = f32::NEG_INFINITY;
        if whole > 0 {
            // SAFETY: as above.
            let mut tops = unsafe { v.load(self.x) };
            for i in (V::LANES..whole).step_by(V::LANES) {
                // SAFETY: as above.
                tops = v.max(tops, unsafe { v.load(self.x.add(i)) });
            }
            top = v.max_lane(tops);
        }
        top = rest().iter().fold(top, |top, &x| top.max(x));
        // A row of minus infinity has no largest element to subtract.
        let shift = if top == f32::NEG_INFINITY { 0.0 } else { -top * self.scale };
        let (scale, shift) = (v.splat(self.scale), v.splat(shift));
        let mut sums = v.splat(0.0);
        for i in (0..whole).step_by(V::LANES) {
            // SAFETY: as above.
            unsafe {
                let y = math::exp(v, v.fma(v.load(self.x.add(i)), scale, shift));
                v.store(self.out.add(i), y);
                sums = v.add(sums, y);
            }
        }
        let mut total = v.sum(sums);
        let mut last = [0.0; vector::MAX_LANES];
        let count = self.width - whole;
        if count > 0 {
            v.store_part(&mut last[..V::LANES], math::exp(v, v.fma(v.load_part(rest()), scale, shift)));
            total += last[..count].iter().sum::<f32>();
        }
        let inverse = 1.0 / total;
        for i in (0..whole).step_by(V::LANES) {
            // SAFETY: as above.
            unsafe { v.store(self.out.add(i), v.mul(v.load(self.out.add(i)), v.splat(inverse))) };
        }
        for (i, y) in last[..count].iter().enumerate() {
            // SAFETY: as above.
            unsafe { *self.out.add(whole + i) = y * inverse };
        }
    }
}

/// Norms each consecutive group of `weight.len()` elements: `out = (x - mean) / sqrt(variance + eps) * weight + bias`
/// (arXiv:1607.06450). An empty `bias` is zero.
///
/// # Errors
/// [`KernelError::Shape`] if lengths disagree.
pub fn layer_norm(
    isa: Isa,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    out: &mut [f32],
) -> Result<(), KernelError> {
    KernelError::check("layer_norm", x.len(), out.len())?;
    if x.is_empty() {
        return Ok(());
    }
    KernelError::check_groups("layer_norm", x.len(), weight.len())?;
    if !bias.is_empty() {
        KernelError::check("layer_norm", bias.len(), weight.len())?;
    }
    for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
        vector::run(isa, LayerNorm { x, weight, bias, eps, out });
    }
    Ok(())
}

struct LayerNorm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

#[inline(always)]
fn part<V: Vector>(v: V, from: &[f32]) -> V::F32 {
    if from.len() >= V::LANES {
        // SAFETY: as long as a vector.
        unsafe { v.load(from.as_ptr()) }
    } else {
        v.load_part(from)
    }
}

impl Kernel for LayerNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let len = self.x.len();
        let mut sums = [v.splat(0.0); 2];
        for (i, x) in self.x.chunks(V::LANES).enumerate() {
            sums[i % 2] = v.add(sums[i % 2], part(v, x));
        }
        let mean = v.sum(v.add(sums[0], sums[1])) / len as f32;
        let mut squares = [v.splat(0.0); 2];
        for (i, x) in self.x.chunks(V::LANES).enumerate() {
            if x.len() == V::LANES {
                let d = v.sub(part(v, x), v.splat(mean));
                squares[i % 2] = v.fma(d, d, squares[i % 2]);
            } else {
                // Lanes beyond the end would count as elements of 0.
                let rest: f32 = x.iter().map(|x| (x - mean) * (x - mean)).sum();
                squares[0] = v.add(squares[0], v.load_part(&[rest]));
            }
        }
        let variance = v.sum(v.add(squares[0], squares[1])) / len as f32;
        let scale = v.splat(1.0 / (variance + self.eps).sqrt());
        for (i, out) in self.out.chunks_mut(V::LANES).enumerate() {
            let at = i * V::LANES;
            let d = v.mul(v.sub(part(v, &self.x[at..]), v.splat(mean)), scale);
            let bias = if self.bias.is_empty() { v.splat(0.0) } else { part(v, &self.bias[at..]) };
            let y = v.fma(d, part(v, &self.weight[at..]), bias);
            if out.len() == V::LANES {
                // SAFETY: as long as a vector.
                unsafe { v.store(out.as_mut_ptr(), y) };
            } else {
                v.store_part(out, y);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{layer_norm, softmax, softmax_in_place};
    use crate::Isa;
    use crate::gemm::tests::{assert_close, numbers};

    #[test]
    fn rows_equal_their_definition() {
        for isa in Isa::available() {
            for width in 1..70 {
                let x = numbers(width as u64, 3 * width);
                let (weight, bias) = (numbers(8, width), numbers(9, width));
                let (mut soft, mut norm) = (Vec::new(), Vec::new());
                for row in x.chunks_exact(width) {
                    let exps: Vec<f64> = row.iter().map(|x| (f64::from(*x) * 3.0).exp()).collect();
                    let total: f64 = exps.iter().sum();
                    soft.extend(exps.iter().map(|e| (e / total) as f32));
                    let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / width as f64;
                    let variance =
                        row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / width as f64;
                    norm.extend(row.iter().enumerate().map(|(i, x)| {
                        let y = (f64::from(*x) - mean) / (variance + 1e-3).sqrt();
                        (y * f64::from(weight[i]) + f64::from(bias[i])) as f32
                    }));
                }
                let mut out = vec![0.0; x.len()];
                softmax(isa, &x, width, 3.0, &mut out).unwrap();
                assert_close(&out, &soft, 1e-6, "softmax");
                let mut same = x.clone();
                softmax_in_place(isa, &mut same, width, 3.0).unwrap();
                assert_eq!(same, out);
                layer_norm(isa, &x, &weight, &bias, 1e-3, &mut out).unwrap();
                assert_close(&out, &norm, 2e-6, "layer norm");
            }
        }
    }
}
