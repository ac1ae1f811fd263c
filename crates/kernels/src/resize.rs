//! Images of another size: every output is a weighted sum of a few rows and columns of the input.

use crate::chain::{self, Function, Operand, Source, Step};
use crate::conv::Images;
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
        return across(line(indices[0])?, columns, channels, out, out_stride);
    }
    let mut sum = vec![0.0; width * channels];
    for (&index, &weight) in indices.iter().zip(weights) {
        add(isa, line(index)?, weight, &mut sum, scratch)?;
    }
    across(&sum, columns, channels, out, out_stride)
}

/// `sum += weight * x`.
fn add(isa: Isa, x: &[f32], weight: f32, sum: &mut [f32], scratch: &mut Vec<f32>) -> Result<(), KernelError> {
    let steps = [
        Step { function: Function::Mul, a: Source::Operand(0), b: Source::Number(weight) },
        Step { function: Function::Add, a: Source::Step(0), b: Source::Operand(1) },
    ];
    let mut piece = [0.0; chain::BLOCK];
    for (x, sum) in x.chunks(chain::BLOCK).zip(sum.chunks_mut(chain::BLOCK)) {
        let out = &mut piece[..sum.len()];
        chain::run(isa, &steps, &[Operand::Slice(x), Operand::Slice(sum)], out, scratch)?;
        sum.copy_from_slice(out);
    }
    Ok(())
}

fn across(
    line: &[f32],
    columns: &Axis,
    channels: usize,
    out: &mut [f32],
    out_stride: usize,
) -> Result<(), KernelError> {
    let taps = columns.taps;
    let copy = columns.is_copy();
    let pairs = columns.indices.chunks_exact(taps).zip(columns.weights.chunks_exact(taps));
    for (out, (indices, weights)) in out.chunks_mut(out_stride).zip(pairs) {
        let out = &mut out[..channels];
        if copy {
            out.copy_from_slice(&line[indices[0] * channels..][..channels]);
            continue;
        }
        out.fill(0.0);
        for (&index, &weight) in indices.iter().zip(weights) {
            let x = &line[index * channels..][..channels];
            for (out, x) in out.iter_mut().zip(x) {
                *out += weight * x;
            }
        }
    }
    Ok(())
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
