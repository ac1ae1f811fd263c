//! Images of another size: every output is a weighted sum of a few rows and columns of the input.

use crate::conv::Images;
use crate::vector::{self, Kernel, Vector};
use crate::{Isa, KernelError};

/// One axis: output `i` is the sum of `weights[i * taps + t] * input[indices[i * taps + t]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// Inputs of an output.
    pub taps: usize,
    /// Which.
    pub indices: Vec<usize>,
    /// How much of each.
    pub weights: Vec<f32>,
}

impl Axis {
    /// Outputs.
    pub fn len(&self) -> usize {
        self.indices.len() / self.taps.max(1)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    fn is_copy(&self) -> bool {
        self.taps == 1 && self.weights.iter().all(|&w| w == 1.0)
    }
}

/// Writes output row `row` of image `image` to `out`, whose pixels are `out_stride` apart. Input rows must be dense.
///
/// # Errors
/// [`KernelError::Shape`] if an index or a length does not fit.
pub fn row(
    isa: Isa,
    x: Images<'_>,
    (image, row): (usize, usize),
    width: usize,
    channels: usize,
    rows: &Axis,
    columns: &Axis,
    out: &mut [f32],
    out_stride: usize,
    scratch: &mut Vec<f32>,
) -> Result<(), KernelError> {
    KernelError::check("resize", x.pixel_stride, channels)?;
    KernelError::check("resize", out.len() + out_stride, columns.len() * out_stride + channels)?;
    if row >= rows.len() || columns.indices.iter().any(|&i| i >= width) {
        let what = format!("row {row} of {}, columns of {width}", rows.len());
        return Err(KernelError::Shape { kernel: "resize", what });
    }
    let line = |index: usize| {
        let start = image * x.image_stride + index * x.row_stride;
        x.data.get(start..start + width * channels).ok_or_else(|| KernelError::Shape {
            kernel: "resize",
            what: format!("row {index} of image {image} is outside of {} elements", x.data.len()),
        })
    };
    let indices = &rows.indices[row * rows.taps..][..rows.taps];
    let weights = &rows.weights[row * rows.taps..][..rows.taps];
    if rows.is_copy() {
        vector::run(isa, Across { line: line(indices[0])?, columns, channels, out, out_stride });
        return Ok(());
    }
    let lines = indices.iter().map(|&index| line(index)).collect::<Result<Vec<_>, _>>()?;
    scratch.resize((width * channels).max(scratch.len()), 0.0);
    let sum = &mut scratch[..width * channels];
    vector::run(isa, Down { lines: &lines, weights, sum });
    vector::run(isa, Across { line: sum, columns, channels, out, out_stride });
    Ok(())
}

/// `sum = ` the sum of lines times their weights.
struct Down<'a> {
    lines: &'a [&'a [f32]],
    weights: &'a [f32],
    sum: &'a mut [f32],
}

impl Kernel for Down<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        for at in (0..self.sum.len()).step_by(V::LANES) {
            let mut sum = v.splat(0.0);
            for (line, &weight) in self.lines.iter().zip(self.weights) {
                sum = v.fma(load(v, line, at), v.splat(weight), sum);
            }
            store(v, self.sum, at, sum);
        }
    }
}

/// Pixels of a row from a line of the input's width.
struct Across<'a> {
    line: &'a [f32],
    columns: &'a Axis,
    channels: usize,
    out: &'a mut [f32],
    out_stride: usize,
}

impl Kernel for Across<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Across { line, columns, channels, out, out_stride } = self;
        let taps = columns.taps;
        let copy = columns.is_copy();
        let pairs = columns.indices.chunks_exact(taps).zip(columns.weights.chunks_exact(taps));
        for (out, (indices, weights)) in out.chunks_mut(out_stride).zip(pairs) {
            let out = &mut out[..channels];
            if copy {
                out.copy_from_slice(&line[indices[0] * channels..][..channels]);
                continue;
            }
            if let [out] = out {
                *out = indices.iter().zip(weights).map(|(&index, &weight)| weight * line[index]).sum();
                continue;
            }
            for at in (0..channels).step_by(V::LANES) {
                let mut sum = v.splat(0.0);
                for (&index, &weight) in indices.iter().zip(weights) {
                    let x = load(v, &line[index * channels..][..channels], at);
                    sum = v.fma(x, v.splat(weight), sum);
                }
                store(v, out, at, sum);
            }
        }
    }
}

/// A vector of `from` from `at` on, or what is left.
#[inline(always)]
fn load<V: Vector>(v: V, from: &[f32], at: usize) -> V::F32 {
    let rest = &from[at..];
    if rest.len() >= V::LANES {
        // SAFETY: a whole vector is left.
        unsafe { v.load(rest.as_ptr()) }
    } else {
        v.load_part(rest)
    }
}

/// Writes a vector from `at` on, as far as there is room.
#[inline(always)]
fn store<V: Vector>(v: V, to: &mut [f32], at: usize, x: V::F32) {
    let rest = &mut to[at..];
    if rest.len() >= V::LANES {
        // SAFETY: a whole vector is left.
        unsafe { v.store(rest.as_mut_ptr(), x) };
    } else {
        v.store_part(rest, x);
    }
}

#[cfg(test)]
mod tests {
    use super::{Axis, row};
    use crate::Isa;
    use crate::conv::Images;
    use crate::gemm::tests::{assert_close, numbers};

    #[test]
    fn rows_are_weighted_sums() {
        let rows = Axis { taps: 2, indices: vec![0, 1, 1, 2], weights: vec![0.25, 0.75, 0.5, 0.5] };
        let columns = Axis { taps: 1, indices: vec![3, 0, 0], weights: vec![1.0; 3] };
        let x = numbers(1, 3 * 4 * 5);
        let images = Images { data: &x, image_stride: 60, row_stride: 20, pixel_stride: 5 };
        for isa in Isa::available() {
            let mut out = vec![0.0; 15];
            row(isa, images, (0, 1), 4, 5, &rows, &columns, &mut out, 5, &mut Vec::new()).unwrap();
            let at = |y: usize, x_: usize, c: usize| x[y * 20 + x_ * 5 + c];
            let expected: Vec<f32> = (0..15)
                .map(|i| {
                    let (column, c) = ([3, 0, 0][i / 5], i % 5);
                    0.5 * at(1, column, c) + 0.5 * at(2, column, c)
                })
                .collect();
            assert_close(&out, &expected, 1e-6, "resize");
            assert!(row(isa, images, (1, 1), 4, 5, &rows, &columns, &mut out, 5, &mut Vec::new()).is_err());
        }
    }
}
