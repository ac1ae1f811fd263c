//! F(2×2, 3×3) in bf16: a tile of 4×4 inputs gives 2×2 outputs with 16 products for 36.
//!
//! Inputs and weights are transformed in f32 and rounded then. Both transforms only add and halve, so that the error stays
//! below twice that of rounded inputs and weights, which larger tiles would multiply. Sums are f32.

use super::{Block, finish, finish_long};
use crate::gemm::tile::{load_first, store_first};
use crate::vector::{Kernel, Vector};
use std::ops::Range;

/// Places of a transformed tile.
pub(super) const PLACES: usize = 16;
/// Rows and columns of outputs that a tile gives.
pub(super) const OUT: usize = 2;

/// Words of the channels of a tile at one place: every vector of channels makes half a vector.
pub(super) fn words(channels: usize, lanes: usize) -> usize {
    channels.div_ceil(lanes) * lanes / 2
}

/// Tiles that are transformed together: their transformed inputs take a part of the second-level cache.
pub(super) fn block(channels: usize) -> usize {
    const BYTES: usize = 192 << 10;
    (BYTES / (2 * PLACES * channels.max(1))).clamp(24, 96)
}

/// Three taps of a row or column to four places.
#[inline(always)]
pub(super) fn outer([a, b, c]: [f32; 3]) -> [f32; 4] {
    let ends = 0.5 * (a + c);
    [a, ends + 0.5 * b, ends - 0.5 * b, c]
}

/// Transforms the inputs of a block of tiles.
pub(super) struct Inward<'a> {
    pub block: &'a Block<'a>,
    pub zeros: &'a [f32],
    pub out: &'a mut [f32],
}

impl Kernel for Inward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Block { task, ref tiles, depth, place } = *self.block;
        let geometry = task.geometry;
        let (_, channels) = task.panels.shape();
        for (t, tile) in tiles.clone().enumerate() {
            let [image, row, column] = self.block.corner(tile);
            let mut pointers = [self.zeros.as_ptr(); PLACES];
            for (i, pointer) in pointers.iter_mut().enumerate() {
                if let (Some(y), Some(x)) =
                    (geometry.source(0, row, i / 4), geometry.source(1, column, i % 4))
                {
                    *pointer = task.x.data[task.x.at([image, y, x])..].as_ptr();
                }
            }
            for c in (0..channels).step_by(V::LANES) {
                let mut columns = [[v.splat(0.0); 4]; 4];
                for (x, column) in columns.iter_mut().enumerate() {
                    // SAFETY: every pixel, and the zeros, hold `channels` elements.
                    *column = inward(
                        v,
                        std::array::from_fn(|y| unsafe {
                            load_first(v, pointers[y * 4 + x].wrapping_add(c), channels - c)
                        }),
                    );
                }
                let to = self.out[t * depth + c / 2..].as_mut_ptr();
                #[allow(clippy::needless_range_loop, reason = "a row of columns")]
                for y in 0..4 {
                    let row = inward(v, std::array::from_fn(|x| columns[x][y]));
                    for (x, value) in row.into_iter().enumerate() {
                        // SAFETY: `out` holds `PLACES` places of all tiles of `depth`, whole halves of vectors.
                        unsafe {
                            let to = to.add((y * 4 + x) * place);
                            store_first(v, to, V::LANES / 2, v.pairs(value, v.splat(0.0)));
                        }
                    }
                }
            }
        }
    }
}

/// Four inputs of a row or column to four places.
#[inline(always)]
fn inward<V: Vector>(v: V, d: [V::F32; 4]) -> [V::F32; 4] {
    [v.sub(d[0], d[2]), v.add(d[1], d[2]), v.sub(d[2], d[1]), v.sub(d[1], d[3])]
}

/// Transforms sums back and writes the outputs of a block of tiles.
pub(super) struct Outward<'a> {
    pub block: &'a Block<'a>,
    pub y: &'a [f32],
    pub width: usize,
    pub outputs: Range<usize>,
}

impl Kernel for Outward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Block { task, ref tiles, place, .. } = *self.block;
        let [height, width] = task.geometry.output;
        for (t, tile) in tiles.clone().enumerate() {
            let [image, row, column] = self.block.corner(tile);
            let (rows, across) = (OUT.min(height - row), OUT.min(width - column));
            for c in self.outputs.clone().step_by(V::LANES) {
                let lanes = V::LANES.min(self.outputs.end - c);
                let from = self.y[t * self.width + c - self.outputs.start..].as_ptr();
                let mut half = [[v.splat(0.0); OUT]; 4];
                for (x, half) in half.iter_mut().enumerate() {
                    // SAFETY: `y` holds `PLACES` places of all tiles of `width`, whole vectors.
                    *half =
                        outward(v, std::array::from_fn(|y| unsafe { v.load(from.add((y * 4 + x) * place)) }));
                }
                let bias = if task.epilogue.bias.is_empty() {
                    v.splat(0.0)
                } else {
                    // SAFETY: biases are padded to whole vectors.
                    unsafe { v.load(task.epilogue.bias[c..].as_ptr()) }
                };
                #[allow(clippy::needless_range_loop, reason = "a row of columns")]
                for y in 0..rows {
                    let first = (image * height + row + y) * width + column;
                    let sums = outward(v, std::array::from_fn(|x| half[x][y]));
                    for (x, sum) in sums.into_iter().enumerate().take(across) {
                        let sum = v.add(sum, bias);
                        // SAFETY: the caller of `run` vouches for the output.
                        unsafe { finish(v, &task.epilogue, task.out, first + x, c, lanes, sum) };
                    }
                }
            }
            for y in 0..rows {
                let first = (image * height + row + y) * width + column;
                let outputs = self.outputs.clone();
                // SAFETY: as above.
                unsafe {
                    let pixels = first..first + across;
                    finish_long(v, &task.epilogue, task.out, pixels, outputs.start, outputs.len());
                }
            }
        }
    }
}

/// Four places of a row or column to two outputs.
#[inline(always)]
fn outward<V: Vector>(v: V, m: [V::F32; 4]) -> [V::F32; OUT] {
    [v.add(v.add(m[0], m[1]), m[2]), v.sub(v.sub(m[1], m[2]), m[3])]
}
