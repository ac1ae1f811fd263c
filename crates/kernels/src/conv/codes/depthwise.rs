//! Convolutions of each channel of codes by itself.

use super::super::{Geometry, Images};
use crate::codes::{Table, map_rows};
use crate::gemm::quads::Scaling;
use crate::gemm::{Scratch, blocks};
use crate::vector::{self, Kernel, MAX_LANES, Vector};
use crate::{Isa, KernelError};
use std::ops::Range;

/// Most output columns that are computed together: 16 sums, six weights and two inputs fill 24 registers of AVX-512.
const STRIP: usize = 8;
/// Registers of channels that are computed together.
const COLUMNS: usize = 2;

/// A convolution of codes with one filter for each channel, from codes to codes.
#[derive(Clone, Copy, Debug)]
pub struct CodesDepthwise<'a> {
    /// Sizes.
    pub geometry: &'a Geometry,
    /// Channels.
    pub channels: usize,
    /// `[taps, padded]`, each in a word of its own; see [`pack`].
    pub weights: &'a [u8],
    /// Input.
    pub x: Images<'a, u8>,
    /// What stands for 0 in the input.
    pub zero: u8,
    /// What happens to sums; nothing is added.
    pub scaling: Scaling<'a>,
    /// Applied to results.
    pub table: Option<&'a Table>,
    /// First element of output pixel 0.
    pub out: *mut u8,
    /// Elements between output pixels.
    pub stride: usize,
}

/// `[channels, taps]` weights as [`CodesDepthwise`] reads them, of which `padded` channels fill whole registers, and the sum
/// for each channel.
///
/// # Errors
/// [`KernelError::Shape`] if a length is wrong.
pub fn pack(weights: &[i8], taps: usize, padded: usize, out: &mut [u8]) -> Result<Vec<i32>, KernelError> {
    KernelError::check("depthwise", out.len(), 4 * taps * padded)?;
    KernelError::check_groups("depthwise", weights.len(), taps)?;
    out.fill(0);
    for (c, filter) in weights.chunks_exact(taps).enumerate() {
        for (tap, weight) in filter.iter().enumerate() {
            out[4 * (tap * padded + c)] = weight.cast_unsigned();
        }
    }
    Ok(weights.chunks_exact(taps).map(|filter| filter.iter().map(|&w| i32::from(w)).sum()).collect())
}

impl CodesDepthwise<'_> {
    /// Computes the output rows `rows` (of all images) for the channels `channels`.
    ///
    /// # Errors
    /// [`KernelError::Shape`] if lengths disagree.
    ///
    /// # Safety
    /// `out` must be valid for writes of these pixels and channels, which no other thread touches meanwhile.
    pub unsafe fn run(
        &self,
        isa: Isa,
        rows: Range<usize>,
        channels: Range<usize>,
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        let geometry = self.geometry;
        self.x.check("depthwise", geometry, self.channels)?;
        let padded = self.channels.next_multiple_of(crate::gemm::lanes(isa));
        KernelError::check("depthwise", self.weights.len(), 4 * geometry.taps() * padded)?;
        self.scaling.check("depthwise", padded)?;
        let most = geometry.batch * geometry.output[0];
        if rows.end > most || channels.end > self.channels || self.scaling.added.is_some() {
            let what = format!("rows {rows:?} of {most}, channels {channels:?} of {}", self.channels);
            return Err(KernelError::Shape { kernel: "depthwise", what });
        }
        if geometry.output[1] == 0 || channels.is_empty() {
            return Ok(());
        }
        scratch.zero_codes.clear();
        scratch.zero_codes.resize(self.channels, self.zero);
        let (width, zeros) = (geometry.line_columns(), scratch.zero_codes.as_ptr());
        for row in rows {
            self.x.line_pointers(geometry, row, geometry.input[0], zeros, &mut scratch.code_pointers);
            let pointers = &scratch.code_pointers[..];
            let channels = channels.clone();
            vector::run(isa, Row { task: self, row, channels: channels.clone(), width, padded, pointers });
            if let Some(table) = self.table {
                let first = row * geometry.output[1] * self.stride + channels.start;
                // SAFETY: this row was written just before.
                unsafe {
                    map_rows(table, self.out.add(first), geometry.output[1], channels.len(), self.stride);
                }
            }
        }
        Ok(())
    }
}

/// One output row.
struct Row<'a> {
    task: &'a CodesDepthwise<'a>,
    row: usize,
    channels: Range<usize>,
    /// Columns of a line.
    width: usize,
    /// Channels with the padding.
    padded: usize,
    /// `[kernel rows][width]`.
    pointers: &'a [*const u8],
}

impl Kernel for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let geometry = self.task.geometry;
        for columns in blocks(0..geometry.output[1], STRIP) {
            match (geometry.kernel[1], geometry.stride[1], geometry.dilation[1]) {
                (3, 1, 1) => self.strip::<V, 3, 1>(v, columns),
                (3, 2, 1) => self.strip::<V, 3, 2>(v, columns),
                (5, 1, 1) => self.strip::<V, 5, 1>(v, columns),
                (5, 2, 1) => self.strip::<V, 5, 2>(v, columns),
                _ => self.strip::<V, 0, 0>(v, columns),
            }
        }
    }
}

impl Row<'_> {
    #[inline(always)]
    fn strip<V: Vector, const K: usize, const S: usize>(&self, v: V, columns: Range<usize>) {
        let (row, column) = (self, columns.start);
        match columns.len() {
            1 => v.call(Strip::<1, K, S> { row, column }),
            2 => v.call(Strip::<2, K, S> { row, column }),
            3 => v.call(Strip::<3, K, S> { row, column }),
            4 => v.call(Strip::<4, K, S> { row, column }),
            5 => v.call(Strip::<5, K, S> { row, column }),
            6 => v.call(Strip::<6, K, S> { row, column }),
            7 => v.call(Strip::<7, K, S> { row, column }),
            8 => v.call(Strip::<8, K, S> { row, column }),
            _ => unreachable!("strips have at most eight columns"),
        }
    }
}

/// `N` columns from `column`, of a kernel of `K` columns at a stride of `S`: neighbours share what they load. `K` is 0 for any
/// kernel.
struct Strip<'a, const N: usize, const K: usize, const S: usize> {
    row: &'a Row<'a>,
    column: usize,
}

impl<const N: usize, const K: usize, const S: usize> Kernel for Strip<'_, N, K, S> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let channels = self.row.channels.clone();
        let mut c = channels.start;
        while c < channels.end {
            let rest = channels.end - c;
            if rest >= COLUMNS * V::LANES {
                self.sums::<V, COLUMNS>(v, c, COLUMNS * V::LANES);
                c += COLUMNS * V::LANES;
            } else {
                let lanes = rest.min(V::LANES);
                self.sums::<V, 1>(v, c, lanes);
                c += lanes;
            }
        }
    }
}

impl<const N: usize, const K: usize, const S: usize> Strip<'_, N, K, S> {
    /// `lanes` channels from `c`, in `C` registers.
    #[inline(always)]
    fn sums<V: Vector, const C: usize>(&self, v: V, c: usize, lanes: usize) {
        let (row, task) = (self.row, self.row.task);
        let geometry = task.geometry;
        let [kernel_rows, kernel_columns] = geometry.kernel;
        let load = |from: *const u8| -> [V::I32; C] {
            // SAFETY: pointers stand for `channels` codes, of which `lanes` are left from `c`.
            unsafe {
                let from = from.add(c);
                if lanes == C * V::LANES {
                    return vector::array(|i| v.load_u8(from.add(i * V::LANES)));
                }
                let mut part = [0u8; COLUMNS * MAX_LANES];
                std::ptr::copy_nonoverlapping(from, part.as_mut_ptr(), lanes);
                vector::array(|i| v.load_u8(part.as_ptr().add(i * V::LANES)))
            }
        };
        // SAFETY: weights and factors have `padded` elements.
        let word = |from: *const u8, i: usize| unsafe { v.load_i32(from.add(4 * (c + i * V::LANES))) };
        let start: [V::I32; C] = vector::array(|i| word(task.scaling.start.as_ptr().cast(), i));
        let mut sums = [start; N];
        for ky in 0..kernel_rows {
            let line = &row.pointers[ky * row.width + self.column * geometry.stride[1]..(ky + 1) * row.width];
            let weight = |kx: usize| -> [V::I32; C] {
                let at = 4 * (ky * kernel_columns + kx) * row.padded;
                vector::array(|i| word(task.weights[at..].as_ptr(), i))
            };
            if K == 0 {
                for kx in 0..kernel_columns {
                    let weight = weight(kx);
                    for (i, sums) in sums.iter_mut().enumerate() {
                        let x = load(line[i * geometry.stride[1] + kx * geometry.dilation[1]]);
                        for (sum, (x, weight)) in sums.iter_mut().zip(x.into_iter().zip(weight)) {
                            *sum = v.dot(x, weight, *sum);
                        }
                    }
                }
                continue;
            }
            let weights: [[V::I32; C]; K] = vector::array(weight);
            let line = &line[..(N - 1) * S + K];
            for (at, pointer) in line.iter().enumerate() {
                let x = load(*pointer);
                for (i, sums) in sums.iter_mut().enumerate() {
                    if at >= i * S && at < i * S + K {
                        for (sum, (x, weight)) in sums.iter_mut().zip(x.into_iter().zip(weights[at - i * S]))
                        {
                            *sum = v.dot(x, weight, *sum);
                        }
                    }
                }
            }
        }
        self.write(v, sums, c, lanes);
    }

    #[inline(always)]
    fn write<V: Vector, const C: usize>(&self, v: V, sums: [[V::I32; C]; N], c: usize, lanes: usize) {
        let (task, scaling) = (self.row.task, &self.row.task.scaling);
        // SAFETY: factors and summands have `padded` elements.
        let of = |values: &[f32], i: usize| unsafe { v.load(values.as_ptr().add(c + i * V::LANES)) };
        let scale: [V::F32; C] = vector::array(|i| of(scaling.scale, i));
        let bias: [V::F32; C] = vector::array(|i| match scaling.bias {
            [] => v.splat(0.0),
            bias => of(bias, i),
        });
        let code = |column: usize, i: usize| v.to_i32(v.fma(v.to_f32(sums[column][i]), scale[i], bias[i]));
        let first = self.row.row * task.geometry.output[1] + self.column;
        let mut buffer = [0u8; 2 * COLUMNS * MAX_LANES];
        for column in (0..N).step_by(2) {
            // SAFETY: the caller of `CodesDepthwise::run` vouches for the output; the buffer holds four registers.
            unsafe {
                let to = task.out.add((first + column) * task.stride + c);
                if C == COLUMNS && column + 1 < N {
                    // Four registers are cheaper to narrow together.
                    let both =
                        [code(column, 0), code(column, C - 1), code(column + 1, 0), code(column + 1, C - 1)];
                    v.store_codes(buffer.as_mut_ptr(), both, scaling.codes);
                    std::ptr::copy_nonoverlapping(buffer.as_ptr(), to, COLUMNS * V::LANES);
                    let second = buffer.as_ptr().add(COLUMNS * V::LANES);
                    std::ptr::copy_nonoverlapping(second, to.add(task.stride), COLUMNS * V::LANES);
                    continue;
                }
                for (column, to) in [(column, to), (column + 1, to.wrapping_add(task.stride))] {
                    if column < N {
                        let codes: [V::I32; C] = vector::array(|i| code(column, i));
                        v.store_codes(buffer.as_mut_ptr(), codes, scaling.codes);
                        std::ptr::copy_nonoverlapping(buffer.as_ptr(), to, lanes);
                    }
                }
            }
        }
    }
}
