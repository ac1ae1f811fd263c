//! Windows that move over images and keep the largest element or the mean.

use crate::conv::{Geometry, Images};
use crate::gemm::tile::{load_first, store_first};
use crate::gemm::{Scratch, Target};
use crate::vector::{self, Kernel, Vector};
use crate::{Isa, KernelError};
use std::ops::Range;

/// What is kept of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The largest element.
    Max,
    /// The mean of the elements inside of the image.
    Mean,
    /// The sum of the elements inside of the image, divided by the size of the window.
    MeanOfWindow,
}

/// A pooling.
#[derive(Clone, Copy, Debug)]
pub struct Pool<'a> {
    /// What is kept.
    pub pooling: Pooling,
    /// Sizes.
    pub geometry: &'a Geometry,
    /// Channels.
    pub channels: usize,
    /// Input.
    pub x: Images<'a>,
    /// Row `r` is output pixel `r`.
    pub out: Target,
}

impl Pool<'_> {
    /// Computes the output rows `rows` (of all images).
    ///
    /// # Errors
    /// [`KernelError::Shape`] if lengths disagree.
    ///
    /// # Safety
    /// `out` must be valid for writes of these pixels, which no other thread touches meanwhile.
    pub unsafe fn run(&self, isa: Isa, rows: Range<usize>, scratch: &mut Scratch) -> Result<(), KernelError> {
        let geometry = self.geometry;
        self.x.check("pool", geometry, self.channels)?;
        if rows.end > geometry.batch * geometry.output[0] {
            let what = format!("rows {rows:?} of {geometry:?}");
            return Err(KernelError::Shape { kernel: "pool", what });
        }
        if geometry.output[1] == 0 {
            return Ok(());
        }
        let Scratch { pointers, floats, .. } = scratch;
        // What every window may see outside of the image.
        let nothing = if self.pooling == Pooling::Max { f32::NEG_INFINITY } else { 0.0 };
        floats.clear();
        floats.resize(self.channels, nothing);
        for row in rows {
            let inside = self.x.line_pointers(geometry, row, geometry.input[0], floats.as_ptr(), pointers);
            let part = Row { task: self, row, inside: inside.len(), pointers };
            match self.pooling {
                Pooling::Max => vector::run(isa, Max(part)),
                _ => vector::run(isa, Mean(part)),
            }
        }
        Ok(())
    }
}

/// One output row.
struct Row<'a> {
    task: &'a Pool<'a>,
    row: usize,
    /// Rows of the window that are inside of the image.
    inside: usize,
    /// `[kernel rows][columns]`.
    pointers: &'a [*const f32],
}

impl Row<'_> {
    /// Joins all places of every window, starting from `start`; `factor` is for its number of columns inside of the image.
    #[inline(always)]
    fn fold<V: Vector>(
        &self,
        v: V,
        start: f32,
        join: impl Fn(V::F32, V::F32) -> V::F32,
        factor: impl Fn(usize) -> f32,
    ) {
        let (task, geometry) = (self.task, self.task.geometry);
        let [kernel_rows, kernel_columns] = geometry.kernel;
        let width = geometry.line_columns();
        for column in 0..geometry.output[1] {
            let columns = (0..kernel_columns).filter(|&kx| geometry.source(1, column, kx).is_some()).count();
            let factor = v.splat(factor(columns));
            let first = column * geometry.stride[1];
            for c in (0..task.channels).step_by(V::LANES) {
                let lanes = task.channels - c;
                let mut kept = v.splat(start);
                for ky in 0..kernel_rows {
                    for kx in 0..kernel_columns {
                        let from = self.pointers[ky * width + first + kx * geometry.dilation[1]];
                        // SAFETY: pointers stand for all channels of a pixel.
                        kept = join(kept, unsafe { load_first(v, from.add(c), lanes) });
                    }
                }
                let pixel = self.row * geometry.output[1] + column;
                // SAFETY: the caller of `run` vouches for the output.
                unsafe {
                    store_first(
                        v,
                        task.out.data.add(pixel * task.out.stride + c),
                        lanes,
                        v.mul(kept, factor),
                    );
                }
            }
        }
    }
}

struct Max<'a>(Row<'a>);
struct Mean<'a>(Row<'a>);

impl Kernel for Max<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        self.0.fold(
            v,
            f32::NEG_INFINITY,
            #[inline(always)]
            |kept, x| v.max(kept, x),
            |_| 1.0,
        );
    }
}

impl Kernel for Mean<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let of_window = self.0.task.pooling == Pooling::MeanOfWindow;
        let (taps, inside) = (self.0.task.geometry.taps(), self.0.inside);
        let count = |columns: usize| if of_window { taps } else { inside * columns };
        self.0.fold(
            v,
            0.0,
            #[inline(always)]
            |kept, x| v.add(kept, x),
            |columns| 1.0 / count(columns) as f32,
        );
    }
}

/// Adds `rows` rows of `sums.len()` elements at a distance of `stride` to `sums`.
///
/// # Errors
/// [`KernelError::Shape`] if `x` is too short.
pub fn add_rows(
    isa: Isa,
    x: &[f32],
    rows: usize,
    stride: usize,
    sums: &mut [f32],
) -> Result<(), KernelError> {
    if rows > 0 && x.len() < (rows - 1) * stride + sums.len() {
        let what = format!("{} elements of {rows} rows at a distance of {stride}", x.len());
        return Err(KernelError::Shape { kernel: "add_rows", what });
    }
    vector::run(isa, AddRows { x, rows, stride, sums });
    Ok(())
}

struct AddRows<'a> {
    x: &'a [f32],
    rows: usize,
    stride: usize,
    sums: &'a mut [f32],
}

impl Kernel for AddRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(mut self, v: V) {
        let mut c = 0;
        while c + 4 * V::LANES <= self.sums.len() {
            self.add::<V, 4>(v, c, V::LANES);
            c += 4 * V::LANES;
        }
        while c < self.sums.len() {
            let lanes = V::LANES.min(self.sums.len() - c);
            self.add::<V, 1>(v, c, lanes);
            c += lanes;
        }
    }
}

impl AddRows<'_> {
    /// Adds `N` vectors from `c`; one of fewer `lanes` if `N` is 1.
    #[inline(always)]
    fn add<V: Vector, const N: usize>(&mut self, v: V, c: usize, lanes: usize) {
        let load = |x: &[f32], at: usize| {
            if lanes == V::LANES {
                // SAFETY: the slice of `N` vectors was made for this.
                unsafe { v.load(x.as_ptr().add(at * V::LANES)) }
            } else {
                v.load_part(x)
            }
        };
        let width = if N == 1 { lanes } else { N * V::LANES };
        let to = &mut self.sums[c..][..width];
        let mut sums: [V::F32; N] = std::array::from_fn(|i| load(to, i));
        for row in 0..self.rows {
            let x = &self.x[row * self.stride + c..][..width];
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = v.add(*sum, load(x, i));
            }
        }
        for (to, sum) in to.chunks_mut(V::LANES).zip(sums) {
            v.store_part(to, sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Pool, Pooling, add_rows};
    use crate::Isa;
    use crate::conv::Images;
    use crate::conv::tests::geometry;
    use crate::gemm::tests::{assert_close, numbers};
    use crate::gemm::{Scratch, Target};

    #[test]
    fn pools_equal_their_definition() {
        for isa in Isa::available() {
            for (channels, g) in [
                (16, geometry(2, [9, 8], [3, 3], 2, 1, 1)),
                (5, geometry(1, [9, 8], [2, 3], 1, 1, 0)),
                (33, geometry(1, [7, 7], [5, 5], 1, 1, 2)),
            ] {
                let x = numbers(1, g.batch * g.input[0] * g.input[1] * channels);
                for pooling in [Pooling::Max, Pooling::Mean, Pooling::MeanOfWindow] {
                    let mut expected = Vec::new();
                    for i in 0..g.pixels() * channels {
                        let [image, row, column] = g.place(i / channels);
                        let seen: Vec<f32> = (0..g.taps())
                            .filter_map(|tap| {
                                let y = g.source(0, row, tap / g.kernel[1])?;
                                let at = g.source(1, column, tap % g.kernel[1])?;
                                let pixel = (image * g.input[0] + y) * g.input[1] + at;
                                Some(x[pixel * channels + i % channels])
                            })
                            .collect();
                        let sum: f32 = seen.iter().sum();
                        expected.push(match pooling {
                            Pooling::Max => seen.iter().copied().fold(f32::NEG_INFINITY, f32::max),
                            Pooling::Mean => sum / seen.len() as f32,
                            Pooling::MeanOfWindow => sum / g.taps() as f32,
                        });
                    }
                    let mut out = vec![0.0; expected.len()];
                    let row_stride = g.input[1] * channels;
                    let images = Images {
                        data: &x,
                        image_stride: g.input[0] * row_stride,
                        row_stride,
                        pixel_stride: channels,
                    };
                    let out_target = Target { data: out.as_mut_ptr(), stride: channels };
                    let task = Pool { pooling, geometry: &g, channels, x: images, out: out_target };
                    // SAFETY: `out` holds all pixels.
                    unsafe { task.run(isa, 0..g.batch * g.output[0], &mut Scratch::default()).unwrap() };
                    assert_close(&out, &expected, 1e-6, &format!("{pooling:?} {g:?}"));
                }
            }
        }
    }

    #[test]
    fn rows_are_added() {
        for isa in Isa::available() {
            let x = numbers(1, 100);
            let mut sums = vec![1.0; 23];
            add_rows(isa, &x, 3, 30, &mut sums).unwrap();
            let expected: Vec<f32> = (0..23).map(|c| 1.0 + x[c] + x[30 + c] + x[60 + c]).collect();
            assert_close(&sums, &expected, 1e-6, "sums");
            assert!(add_rows(isa, &x, 4, 30, &mut sums).is_err());
        }
    }
}
