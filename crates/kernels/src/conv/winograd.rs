//! 3×3 convolutions of stride 1 with a quarter of the products: F(4×4, 3×3) (arXiv:1509.09308).
//!
//! A tile of 6×6 inputs gives 4×4 outputs. Inputs and weights are transformed, then each of the 36 places is a product of
//! its own, and sums are transformed back. Its error is about ten times that of a plain sum. In bf16 tiles are smaller:
//! see `winograd/pairs.rs`.

mod pairs;
mod weights;

pub use weights::{pack, pack_panel};

use super::depthwise::{finish, finish_long};
use super::{Geometry, Images};
use crate::KernelError;
use crate::gemm::tile::{Part, Rows};
use crate::gemm::{Epilogue, Matrix, Panels, Scratch, Target, blocks};
use crate::vector::{self, Kernel, MAX_LANES, Vector};
use std::ops::Range;

/// Places of a transformed tile.
const PLACES: usize = 36;
/// Rows and columns of outputs that a tile gives.
const OUT: usize = 4;
/// Tiles that are transformed together: few enough for the second-level cache, many enough to share weights.
const BLOCK: usize = 24;

/// Whether a convolution has the form that this file computes.
pub fn fits(geometry: &Geometry) -> bool {
    geometry.kernel == [3, 3] && geometry.stride == [1, 1] && geometry.dilation == [1, 1]
}

/// Rows and columns of outputs that a tile gives.
fn each(panels: &Panels) -> usize {
    if panels.has_pairs() { pairs::OUT } else { OUT }
}

/// Places of a transformed tile.
pub fn places(panels: &Panels) -> usize {
    if panels.has_pairs() { pairs::PLACES } else { PLACES }
}

/// Tiles of all images.
pub fn tiles(geometry: &Geometry, panels: &Panels) -> usize {
    let each = each(panels);
    geometry.batch * geometry.output[0].div_ceil(each) * geometry.output[1].div_ceil(each)
}

/// Elements of packed weights.
pub fn packed_len(panels: &Panels) -> usize {
    places(panels) * panels.packed_len()
}

/// A convolution of the form of [`fits`].
#[derive(Clone, Copy, Debug)]
pub struct Winograd<'a> {
    /// Sizes.
    pub geometry: &'a Geometry,
    /// Layout of `[outputs, channels]`.
    pub panels: &'a Panels,
    /// From [`pack`].
    pub packed: &'a [f32],
    /// Input.
    pub x: Images<'a>,
    /// What happens to sums.
    pub epilogue: Epilogue<'a>,
    /// Row `r` is output pixel `r`.
    pub out: Target,
}

impl Winograd<'_> {
    /// Computes the tiles `tiles` of the panels `columns`.
    ///
    /// # Errors
    /// [`KernelError::Shape`] if lengths disagree or the convolution is not of this form.
    ///
    /// # Safety
    /// `out` must be valid for writes of the pixels of these tiles and the outputs of these panels, which no other thread
    /// touches meanwhile; a residual must be valid for reading the same.
    pub unsafe fn run(
        &self,
        tiles: Range<usize>,
        columns: Range<usize>,
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        let (geometry, panels) = (self.geometry, self.panels);
        let (_, channels) = panels.shape();
        self.x.check("winograd", geometry, channels)?;
        self.epilogue.check("winograd", panels.padded())?;
        KernelError::check("winograd", self.packed.len(), packed_len(panels))?;
        if !fits(geometry) || tiles.end > self::tiles(geometry, panels) || columns.end > panels.count() {
            let what = format!("tiles {tiles:?}, panels {columns:?} of {geometry:?}");
            return Err(KernelError::Shape { kernel: "winograd", what });
        }
        if tiles.is_empty() || columns.is_empty() || channels == 0 {
            return Ok(());
        }
        let first = panels.panel(columns.start).first;
        let last = panels.panel(columns.end - 1);
        let lanes = crate::gemm::lanes(panels.isa());
        let width = last.first + last.vectors * lanes - first;
        let halves = panels.has_pairs();
        let (depth, most) = if halves {
            (pairs::words(channels, lanes), pairs::block(channels))
        } else {
            (channels.next_multiple_of(lanes), BLOCK)
        };
        let most = most.min(tiles.len());
        let places = places(panels);
        // A line more than the tiles need, so that places do not fall on the same lines of the cache.
        let (x_place, y_place) = (most * depth + MAX_LANES, most * width + MAX_LANES);
        resize(&mut scratch.floats, places * x_place);
        resize(&mut scratch.more, places * y_place);
        resize(&mut scratch.zeros, channels.next_multiple_of(lanes));
        for tiles in blocks(tiles, most) {
            let block = Block { task: self, tiles: tiles.clone(), depth, place: x_place };
            let (out, zeros) = (&mut scratch.floats, &scratch.zeros[..]);
            if halves {
                vector::run_pairs(pairs::Inward { block: &block, zeros, out });
            } else {
                vector::run(panels.isa(), Inward { block: &block, zeros, out });
            }
            let first_panel = panels.panel(columns.start).offset;
            for place in 0..places {
                let next = self.packed.get((place + 1) * panels.packed_len() + first_panel..);
                let tile = [scratch.floats[place * x_place..].as_ptr()];
                panels.run(Part {
                    panels,
                    matrix: Matrix::Packed(
                        &self.packed[place * panels.packed_len()..][..panels.packed_len()],
                    ),
                    x: Rows::Even(&tile, depth),
                    taps: 1,
                    depth: panels.words(channels),
                    rows: 0..tiles.len(),
                    columns: columns.clone(),
                    epilogue: Epilogue::default(),
                    out: Target {
                        data: scratch.more[place * y_place..].as_mut_ptr().wrapping_sub(first),
                        stride: width,
                    },
                    next: next.map_or(std::ptr::null(), <[f32]>::as_ptr),
                });
            }
            let block = Block { place: y_place, ..block };
            let (y, outputs) = (&scratch.more[..], first..(first + width).min(panels.shape().0));
            if halves {
                vector::run(panels.isa(), pairs::Outward { block: &block, y, width, outputs });
            } else {
                vector::run(panels.isa(), Outward { block: &block, y, width, outputs });
            }
        }
        Ok(())
    }
}

fn resize(buffer: &mut Vec<f32>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
}

struct Block<'a> {
    task: &'a Winograd<'a>,
    tiles: Range<usize>,
    /// Words of a transformed tile at one place.
    depth: usize,
    /// Elements of a place.
    place: usize,
}

impl Block<'_> {
    /// Image, and the first output row and column, of a tile.
    fn corner(&self, tile: usize) -> [usize; 3] {
        let each = each(self.task.panels);
        let [height, width] = self.task.geometry.output.map(|len| len.div_ceil(each));
        [tile / (height * width), tile / width % height * each, tile % width * each]
    }
}

struct Inward<'a> {
    block: &'a Block<'a>,
    zeros: &'a [f32],
    out: &'a mut [f32],
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
                    (geometry.source(0, row, i / 6), geometry.source(1, column, i % 6))
                {
                    *pointer = task.x.data[task.x.at([image, y, x])..].as_ptr();
                }
            }
            let mut c = 0;
            while c < channels {
                let lanes = V::LANES.min(channels - c);
                let mut columns = [[v.splat(0.0); 6]; 6];
                for (x, column) in columns.iter_mut().enumerate() {
                    let d: [V::F32; 6] = std::array::from_fn(|y| {
                        let from = pointers[y * 6 + x].wrapping_add(c);
                        // SAFETY: every pixel, and the zeros, hold `channels` elements, of which `lanes` are left.
                        unsafe {
                            if lanes == V::LANES {
                                v.load(from)
                            } else {
                                v.load_part(std::slice::from_raw_parts(from, lanes))
                            }
                        }
                    });
                    *column = inward(v, d);
                }
                let to = self.out[t * depth + c..].as_mut_ptr();
                #[allow(clippy::needless_range_loop, reason = "a row of columns")]
                for y in 0..6 {
                    let row = inward(v, std::array::from_fn(|x| columns[x][y]));
                    for (x, value) in row.into_iter().enumerate() {
                        // SAFETY: `out` holds `PLACES` places of `BLOCK` tiles of `depth`, whole vectors.
                        unsafe { v.store(to.add((y * 6 + x) * place), value) };
                    }
                }
                c += V::LANES;
            }
        }
    }
}

/// Six inputs of a row or column to six places.
#[inline(always)]
fn inward<V: Vector>(v: V, d: [V::F32; 6]) -> [V::F32; 6] {
    let (four, two, minus_four, minus_five) = (v.splat(4.0), v.splat(2.0), v.splat(-4.0), v.splat(-5.0));
    let even = v.fma(d[2], minus_four, d[4]);
    let odd = v.fma(d[1], minus_four, d[3]);
    let (even_half, odd_half) = (v.sub(d[4], d[2]), v.mul(two, v.sub(d[3], d[1])));
    [
        v.fma(four, d[0], v.fma(minus_five, d[2], d[4])),
        v.add(even, odd),
        v.sub(even, odd),
        v.add(even_half, odd_half),
        v.sub(even_half, odd_half),
        v.fma(four, d[1], v.fma(minus_five, d[3], d[5])),
    ]
}

struct Outward<'a> {
    block: &'a Block<'a>,
    y: &'a [f32],
    width: usize,
    outputs: Range<usize>,
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
            let mut c = self.outputs.start;
            while c < self.outputs.end {
                let lanes = V::LANES.min(self.outputs.end - c);
                let from = self.y[t * self.width + c - self.outputs.start..].as_ptr();
                let mut half = [[v.splat(0.0); OUT]; 6];
                for (x, half) in half.iter_mut().enumerate() {
                    // SAFETY: `y` holds `PLACES` places of `BLOCK` tiles of `width`, whole vectors.
                    let m = std::array::from_fn(|y| unsafe { v.load(from.add((y * 6 + x) * place)) });
                    *half = outward(v, m);
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
                    for (x, sum) in
                        outward(v, std::array::from_fn(|x| half[x][y])).into_iter().enumerate().take(across)
                    {
                        let sum = v.add(sum, bias);
                        // SAFETY: the caller of `run` vouches for the output.
                        unsafe { finish(v, &task.epilogue, task.out, first + x, c, lanes, sum) };
                    }
                }
                c += V::LANES;
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

/// Six places of a row or column to four outputs.
#[inline(always)]
fn outward<V: Vector>(v: V, m: [V::F32; 6]) -> [V::F32; OUT] {
    let (a, b) = (v.add(m[1], m[2]), v.sub(m[1], m[2]));
    let (c, d) = (v.add(m[3], m[4]), v.sub(m[3], m[4]));
    [
        v.add(m[0], v.add(a, c)),
        v.fma(v.splat(2.0), d, b),
        v.fma(v.splat(4.0), c, a),
        v.add(v.fma(v.splat(8.0), d, b), m[5]),
    ]
}
