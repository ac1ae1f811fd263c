//! Instance norm (arXiv:1607.08022): every channel of every image by its own mean and variance.
//!
//! Where a channel lies together, [`normalize`] does it; where the channels of a pixel do, [`crate::pool::add_rows`],
//! [`add_squares`] and [`scale_rows`] are its passes.

use crate::vector::{self, Kernel, Vector};
use crate::{Isa, KernelError};

/// `out = (x - mean(x)) / sqrt(variance(x) + epsilon) * weight + bias`.
///
/// # Errors
/// [`KernelError::Shape`] if lengths differ.
pub fn normalize(
    isa: Isa,
    x: &[f32],
    [weight, bias, epsilon]: [f32; 3],
    out: &mut [f32],
) -> Result<(), KernelError> {
    KernelError::check("instance_norm", x.len(), out.len())?;
    let mean = vector::run(isa, Sum { x, center: 0.0, square: false }) / x.len() as f32;
    let variance = vector::run(isa, Sum { x, center: mean, square: true }) / x.len() as f32;
    let factor = weight / (variance + epsilon).sqrt();
    vector::run(isa, Scale { x, factor, shift: bias - mean * factor, out });
    Ok(())
}

/// The sum of `x - center`, or of its square.
struct Sum<'a> {
    x: &'a [f32],
    center: f32,
    square: bool,
}

impl Kernel for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<V: Vector>(self, v: V) -> f32 {
        const SUMS: usize = 4;
        let center = v.splat(self.center);
        let add = |x: V::F32, sum: V::F32| {
            let x = v.sub(x, center);
            if self.square { v.fma(x, x, sum) } else { v.add(x, sum) }
        };
        let mut sums = [v.splat(0.0); SUMS];
        let groups = self.x.chunks_exact(SUMS * V::LANES);
        let rest = groups.remainder();
        for group in groups {
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: a group has as many vectors as there are sums.
                *sum = add(unsafe { v.load(group.as_ptr().add(i * V::LANES)) }, *sum);
            }
        }
        let sum = v.sum(v.add(v.add(sums[0], sums[1]), v.add(sums[2], sums[3])));
        let each = |x: &f32| (x - self.center) * if self.square { x - self.center } else { 1.0 };
        sum + rest.iter().map(each).sum::<f32>()
    }
}

struct Scale<'a> {
    x: &'a [f32],
    factor: f32,
    shift: f32,
    out: &'a mut [f32],
}

impl Kernel for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let (factor, shift) = (v.splat(self.factor), v.splat(self.shift));
        for (x, out) in self.x.chunks(V::LANES).zip(self.out.chunks_mut(V::LANES)) {
            if x.len() == V::LANES {
                // SAFETY: both are a vector long.
                unsafe { v.store(out.as_mut_ptr(), v.fma(v.load(x.as_ptr()), factor, shift)) };
            } else {
                v.store_part(out, v.fma(v.load_part(x), factor, shift));
            }
        }
    }
}

fn check_rows(
    kernel: &'static str,
    len: usize,
    rows: usize,
    stride: usize,
    width: usize,
) -> Result<(), KernelError> {
    if rows > 0 && len < (rows - 1) * stride + width {
        let what = format!("{len} elements of {rows} rows at a distance of {stride}");
        return Err(KernelError::Shape { kernel, what });
    }
    Ok(())
}

/// Adds the squares of `x - mean` of `rows` rows of `sums.len()` elements at a distance of `stride` to `sums`.
///
/// # Errors
/// [`KernelError::Shape`] if `x` is too short or `mean` of another length.
pub fn add_squares(
    isa: Isa,
    x: &[f32],
    rows: usize,
    stride: usize,
    mean: &[f32],
    sums: &mut [f32],
) -> Result<(), KernelError> {
    check_rows("add_squares", x.len(), rows, stride, sums.len())?;
    KernelError::check("add_squares", mean.len(), sums.len())?;
    vector::run(isa, AddSquares { x, rows, stride, mean, sums });
    Ok(())
}

struct AddSquares<'a> {
    x: &'a [f32],
    rows: usize,
    stride: usize,
    mean: &'a [f32],
    sums: &'a mut [f32],
}

impl Kernel for AddSquares<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Self { x, rows, stride, mean, sums } = self;
        for (i, (mean, sums)) in mean.chunks(V::LANES).zip(sums.chunks_mut(V::LANES)).enumerate() {
            let (center, mut sum) = (v.load_part(mean), v.load_part(sums));
            for row in 0..rows {
                let from = &x[row * stride + i * V::LANES..][..sums.len()];
                let x = if from.len() == V::LANES {
                    // SAFETY: a whole vector.
                    unsafe { v.load(from.as_ptr()) }
                } else {
                    v.load_part(from)
                };
                let x = v.sub(x, center);
                sum = v.fma(x, x, sum);
            }
            v.store_part(sums, sum);
        }
    }
}

/// `out = x * factor + shift` for `rows` rows of `factor.len()` elements, `strides` apart in `x` and `out`.
///
/// # Errors
/// [`KernelError::Shape`] if lengths disagree.
pub fn scale_rows(
    isa: Isa,
    x: &[f32],
    rows: usize,
    strides: [usize; 2],
    [factor, shift]: [&[f32]; 2],
    out: &mut [f32],
) -> Result<(), KernelError> {
    check_rows("scale_rows", x.len(), rows, strides[0], factor.len())?;
    check_rows("scale_rows", out.len(), rows, strides[1], factor.len())?;
    KernelError::check("scale_rows", shift.len(), factor.len())?;
    vector::run(isa, ScaleRows { x, rows, strides, factor, shift, out });
    Ok(())
}

struct ScaleRows<'a> {
    x: &'a [f32],
    rows: usize,
    strides: [usize; 2],
    factor: &'a [f32],
    shift: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for ScaleRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Self { x, rows, strides: [from, to], factor, shift, out } = self;
        let whole = factor.len() / V::LANES * V::LANES;
        for row in 0..rows {
            let x = &x[row * from..][..factor.len()];
            let out = &mut out[row * to..][..factor.len()];
            for c in (0..whole).step_by(V::LANES) {
                // SAFETY: a whole vector is left of all four.
                unsafe {
                    let [x, factor, shift] = [x, factor, shift].map(|values| v.load(values.as_ptr().add(c)));
                    v.store(out.as_mut_ptr().add(c), v.fma(x, factor, shift));
                }
            }
            if whole < factor.len() {
                let [x, factor, shift] = [x, factor, shift].map(|values| v.load_part(&values[whole..]));
                v.store_part(&mut out[whole..], v.fma(x, factor, shift));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_agree_with_the_definition_on_every_isa() {
        for (rows, width, stride) in [(1, 1, 1), (5, 3, 4), (70, 16, 16), (129, 37, 40)] {
            let x: Vec<f32> = (0..rows * stride).map(|i| ((i * 37) % 101) as f32 / 25.0 + 3.0).collect();
            let [weight, bias, epsilon] = [1.5, -0.25, 1e-5];
            let expected: Vec<f64> = (0..rows * width)
                .map(|i| {
                    let column = |row: usize| f64::from(x[row * stride + i % width]);
                    let mean = (0..rows).map(column).sum::<f64>() / rows as f64;
                    let variance = (0..rows).map(|r| (column(r) - mean).powi(2)).sum::<f64>() / rows as f64;
                    (column(i / width) - mean) / (variance + f64::from(epsilon)).sqrt() * 1.5 - 0.25
                })
                .collect();
            for isa in Isa::available() {
                let near =
                    |a: f32, b: f64| assert!((f64::from(a) - b).abs() < 2e-4, "{}: {a} {b}", isa.name());
                for c in 0..width {
                    let column: Vec<f32> = (0..rows).map(|r| x[r * stride + c]).collect();
                    let mut out = vec![f32::NAN; rows];
                    normalize(isa, &column, [weight, bias, epsilon], &mut out).unwrap();
                    out.iter().enumerate().for_each(|(r, y)| near(*y, expected[r * width + c]));
                }
                let mut mean = vec![0.0; width];
                crate::pool::add_rows(isa, &x, rows, stride, &mut mean).unwrap();
                mean.iter_mut().for_each(|sum| *sum /= rows as f32);
                let mut squares = vec![0.0; width];
                add_squares(isa, &x, rows, stride, &mean, &mut squares).unwrap();
                let factor: Vec<f32> =
                    squares.iter().map(|sum| weight / (sum / rows as f32 + epsilon).sqrt()).collect();
                let shift: Vec<f32> = mean.iter().zip(&factor).map(|(mean, f)| bias - mean * f).collect();
                let mut out = vec![f32::NAN; rows * width];
                scale_rows(isa, &x, rows, [stride, width], [&factor, &shift], &mut out).unwrap();
                out.iter().zip(&expected).for_each(|(y, expected)| near(*y, *expected));
            }
            let short = scale_rows(Isa::detect(), &x, rows + 1, [stride, width], [&[1.0], &[0.0]], &mut []);
            assert!(short.is_err());
        }
    }
}
