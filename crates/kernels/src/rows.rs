//! Softmax of whole rows.

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
    let count = x.len() / width;
    vector::run(isa, Softmax { x: x.as_ptr(), out: out.as_mut_ptr(), count, width, scale });
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
    let count = x.len() / width;
    vector::run(isa, Softmax { x: x.as_ptr(), out: x.as_mut_ptr(), count, width, scale });
    Ok(())
}

/// `x` may be `out`; both are valid for `count` rows of `width` elements.
struct Softmax {
    x: *const f32,
    out: *mut f32,
    count: usize,
    width: usize,
    scale: f32,
}

impl Kernel for Softmax {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(mut self, v: V) {
        // Short rows overlap if they share a call.
        for _ in 0..self.count {
            self.row(v);
            (self.x, self.out) = (self.x.wrapping_add(self.width), self.out.wrapping_add(self.width));
        }
    }
}

impl Softmax {
    #[inline(always)]
    fn row<V: Vector>(&self, v: V) {
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

/// `out = log(softmax(x))` of each consecutive group of `width` elements.
///
/// # Errors
/// As [`softmax`].
pub fn log_softmax(isa: Isa, x: &[f32], width: usize, out: &mut [f32]) -> Result<(), KernelError> {
    KernelError::check("softmax", x.len(), out.len())?;
    if x.is_empty() {
        return Ok(());
    }
    KernelError::check_groups("softmax", x.len(), width)?;
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        vector::run(isa, LogSoftmax { x, out });
    }
    Ok(())
}

struct LogSoftmax<'a> {
    x: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for LogSoftmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let whole = self.x.len() / V::LANES * V::LANES;
        let (vectors, rest) = self.x.split_at(whole);
        // SAFETY: chunks are a vector long.
        let load = |x: &[f32]| unsafe { v.load(x.as_ptr()) };
        let tops =
            vectors.chunks_exact(V::LANES).fold(v.splat(f32::NEG_INFINITY), |top, x| v.max(top, load(x)));
        let top = rest.iter().fold(v.max_lane(tops), |top, x| top.max(*x));
        // A row of minus infinity has no largest element to subtract.
        let shift = v.splat(if top == f32::NEG_INFINITY { 0.0 } else { -top });
        let exp = |x: V::F32| math::exp(v, v.add(x, shift));
        let sums = vectors.chunks_exact(V::LANES).fold(v.splat(0.0), |sum, x| v.add(sum, exp(load(x))));
        let mut last = [0.0; vector::MAX_LANES];
        v.store_part(&mut last[..V::LANES], exp(v.load_part(rest)));
        let total = v.sum(sums) + last[..rest.len()].iter().sum::<f32>();
        let shift = v.sub(shift, v.splat(total.ln()));
        for (x, out) in vectors.chunks_exact(V::LANES).zip(self.out.chunks_exact_mut(V::LANES)) {
            // SAFETY: chunks are a vector long.
            unsafe { v.store(out.as_mut_ptr(), v.add(load(x), shift)) };
        }
        v.store_part(&mut self.out[whole..], v.add(v.load_part(rest), shift));
    }
}

#[cfg(test)]
mod tests {
    use super::{log_softmax, softmax, softmax_in_place};
    use crate::Isa;
    use crate::gemm::tests::{assert_close, numbers};

    #[test]
    fn logarithms_of_softmax_reach_where_softmax_is_0() {
        for isa in Isa::available() {
            for width in 1..70 {
                let x: Vec<f32> = numbers(width as u64, 2 * width).iter().map(|x| x * 300.0).collect();
                let mut out = vec![f32::NAN; x.len()];
                log_softmax(isa, &x, width, &mut out).unwrap();
                for (x, out) in x.chunks_exact(width).zip(out.chunks_exact(width)) {
                    let top = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let total: f64 = x.iter().map(|x| f64::from(x - top).exp()).sum();
                    for (x, out) in x.iter().zip(out) {
                        let expected = f64::from(x - top) - total.ln();
                        assert!(
                            (f64::from(*out) - expected).abs() < 1e-4,
                            "{}: {out} {expected}",
                            isa.name()
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn rows_equal_their_definition() {
        for isa in Isa::available() {
            for width in 1..70 {
                let x = numbers(width as u64, 3 * width);
                let mut soft = Vec::new();
                for row in x.chunks_exact(width) {
                    let exps: Vec<f64> = row.iter().map(|x| (f64::from(*x) * 3.0).exp()).collect();
                    let total: f64 = exps.iter().sum();
                    soft.extend(exps.iter().map(|e| (e / total) as f32));
                }
                let mut out = vec![0.0; x.len()];
                softmax(isa, &x, width, 3.0, &mut out).unwrap();
                assert_close(&out, &soft, 1e-6, "softmax");
                let mut same = x.clone();
                softmax_in_place(isa, &mut same, width, 3.0).unwrap();
                assert_eq!(same, out);
            }
        }
    }
}
