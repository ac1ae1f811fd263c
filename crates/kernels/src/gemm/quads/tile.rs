//! The micro-kernel of codes, and the walk over the tiles of a block of rows.

use super::super::tile::{Tiles, dispatch};
use super::super::{Panels, ROWS, blocks};
use super::{CodesAdded, CodesTarget, Scaling};
use crate::vector::{self, Kernel, MAX_LANES, Vector};
use std::mem::MaybeUninit;
use std::ops::Range;

/// Most rows of a tile of one or two vectors.
const MOST_ROWS: usize = 2 * ROWS;
/// Most vectors of a panel.
const MOST_COLUMNS: usize = 4;

/// Where the pieces lie that rows consist of.
#[derive(Clone, Copy)]
pub(crate) enum Rows<'a> {
    /// Piece `t` of row `r` starts `r` times a distance after pointer `t`.
    Even(&'a [*const u8], usize),
    /// Piece `t` of row `r` starts at pointer `r * taps + t`.
    Any(&'a [*const u8]),
}

/// A block of rows times some panels. Checked by whoever makes it.
#[derive(Clone)]
pub(crate) struct Part<'a> {
    pub panels: &'a Panels,
    pub packed: &'a [u8],
    pub x: Rows<'a>,
    /// Pieces that a row consists of.
    pub taps: usize,
    /// Quads of a piece; `taps * words` are the matrix's steps.
    pub words: usize,
    /// Rows of the output; the first of them is row 0 of `x`.
    pub rows: Range<usize>,
    pub columns: Range<usize>,
    pub scaling: Scaling<'a>,
    pub out: CodesTarget,
}

impl Kernel for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let (pointers, step, stride) = match self.x {
            Rows::Even(pointers, stride) => (pointers, 0, stride),
            Rows::Any(pointers) => (pointers, self.taps, 0),
        };
        let scaling = &self.scaling;
        for column in self.columns.clone() {
            let panel = self.panels.panel(column);
            // Narrow panels leave registers for more rows.
            let height = (ROWS * V::COLUMNS / panel.vectors).min(MOST_ROWS);
            for tile in blocks(0..self.rows.len(), height) {
                let row = self.rows.start + tile.start;
                let args = Args {
                    pointers: pointers[tile.start * step..].as_ptr(),
                    pointer_step: step,
                    taps: self.taps,
                    skip: tile.start * stride,
                    stride,
                    words: self.words,
                    b: self.packed[4 * panel.offset..].as_ptr(),
                    b_stride: 4 * panel.vectors * V::LANES,
                    width: panel.width,
                    start: scaling.start[panel.first..].as_ptr().cast(),
                    rows: match scaling.rows {
                        [] => std::ptr::null(),
                        rows => rows[row..row + tile.len()].as_ptr(),
                    },
                    scale: scaling.scale[panel.first..].as_ptr(),
                    bias: match scaling.bias {
                        [] => std::ptr::null(),
                        bias => bias[panel.first..].as_ptr(),
                    },
                    codes: scaling.codes,
                    numbers: scaling.numbers,
                    added: scaling.added.map(|added| CodesAdded {
                        data: added.data.wrapping_add(row * added.stride + panel.first),
                        ..added
                    }),
                    out: match self.out {
                        CodesTarget::Codes { data, stride } => {
                            let data = data.wrapping_add(row * stride + panel.first);
                            CodesTarget::Codes { data, stride }
                        }
                        CodesTarget::Numbers { data, stride } => {
                            let data = data.wrapping_add(row * stride + panel.first);
                            CodesTarget::Numbers { data, stride }
                        }
                    },
                };
                // SAFETY: whoever made the part vouches for its pointers, the matrix and the output.
                unsafe { dispatch(v, tile.len(), panel.vectors, &args) };
            }
        }
    }
}

/// One tile. Every pointer stands for all that the tile reads or writes.
struct Args {
    /// Pieces of the first row.
    pointers: *const *const u8,
    /// Pointers between rows.
    pointer_step: usize,
    taps: usize,
    /// Bytes after each pointer to skip.
    skip: usize,
    /// Bytes between rows that share pointers.
    stride: usize,
    words: usize,
    b: *const u8,
    b_stride: usize,
    /// Outputs to write; the last vector may be partly padding.
    width: usize,
    start: *const u8,
    /// What the sums of each row begin with as well, or null.
    rows: *const i32,
    scale: *const f32,
    bias: *const f32,
    codes: [u8; 3],
    numbers: [f32; 2],
    added: Option<CodesAdded>,
    out: CodesTarget,
}

impl Tiles for Args {
    #[inline(always)]
    unsafe fn tile<V: Vector, const R: usize, const C: usize>(&self, v: V) {
        // SAFETY: the pointers are valid for `taps * words` steps, `R` rows and `C` vectors; the last vector of an output
        // is written in part.
        unsafe {
            let mut sums = [[v.splat_i32(0); C]; R];
            for c in 0..C {
                let start = v.load_i32(self.start.add(4 * c * V::LANES));
                for row in &mut sums {
                    row[c] = start;
                }
            }
            if !self.rows.is_null() {
                for (r, row) in sums.iter_mut().enumerate() {
                    let start = v.splat_i32(*self.rows.add(r));
                    for sum in row {
                        *sum = v.add_i32(*sum, start);
                    }
                }
            }
            let mut b = self.b;
            for tap in 0..self.taps {
                let rows: [*const u8; R] = vector::array(|r| {
                    (*self.pointers.add(r * self.pointer_step + tap)).add(r * self.stride + self.skip)
                });
                for k in 0..self.words {
                    let weights: [V::I32; C] = vector::array(|c| v.load_i32(b.add(4 * c * V::LANES)));
                    for r in 0..R {
                        let x = v.splat_i32(rows[r].add(4 * k).cast::<i32>().read_unaligned());
                        for c in 0..C {
                            sums[r][c] = v.dot(x, weights[c], sums[r][c]);
                        }
                    }
                    b = b.add(self.b_stride);
                }
            }
            let mut numbers = [[v.splat(0.0); C]; R];
            for c in 0..C {
                let scale = v.load(self.scale.add(c * V::LANES));
                if self.bias.is_null() {
                    for r in 0..R {
                        numbers[r][c] = v.mul(v.to_f32(sums[r][c]), scale);
                    }
                } else {
                    let bias = v.load(self.bias.add(c * V::LANES));
                    for r in 0..R {
                        numbers[r][c] = v.fma(v.to_f32(sums[r][c]), scale, bias);
                    }
                }
            }
            match self.out {
                CodesTarget::Codes { data, stride } => self.codes(v, &numbers, data, stride),
                CodesTarget::Numbers { data, stride } => self.numbers(v, &numbers, data, stride),
            }
        }
    }
}

impl Args {
    /// Writes codes.
    #[inline(always)]
    unsafe fn codes<V: Vector, const R: usize, const C: usize>(
        &self,
        v: V,
        numbers: &[[V::F32; C]; R],
        data: *mut u8,
        stride: usize,
    ) {
        // SAFETY: as for the tile; buffers hold a row, or all rows, of a panel.
        unsafe {
            if let Some(added) = &self.added {
                let mut buffer = [MaybeUninit::<[u8; 4]>::uninit(); ROWS * MOST_COLUMNS * MAX_LANES];
                let codes: *mut u8 = buffer.as_mut_ptr().cast();
                for (r, numbers) in numbers.iter().enumerate() {
                    for (c, &x) in numbers.iter().enumerate() {
                        v.store_i32(codes.add(4 * (r * C + c) * V::LANES), v.to_i32(x));
                    }
                }
                v.call(Add { args: self, added, rows: R, columns: C, codes, data, stride });
                return;
            }
            let mut buffer = [0u8; MOST_COLUMNS * MAX_LANES];
            let whole = self.width == C * V::LANES;
            for (r, numbers) in numbers.iter().enumerate() {
                let to = data.add(r * stride);
                let target = if whole { to } else { buffer.as_mut_ptr() };
                let mut codes = [v.splat_i32(0); C];
                for (code, &x) in codes.iter_mut().zip(numbers) {
                    *code = v.to_i32(x);
                }
                v.store_codes(target, codes, self.codes);
                if !whole {
                    std::ptr::copy_nonoverlapping(buffer.as_ptr(), to, self.width);
                }
            }
        }
    }

    /// Writes numbers.
    #[inline(always)]
    unsafe fn numbers<V: Vector, const R: usize, const C: usize>(
        &self,
        v: V,
        numbers: &[[V::F32; C]; R],
        data: *mut f32,
        stride: usize,
    ) {
        let [low, high] = self.numbers.map(|x| v.splat(x));
        for (r, numbers) in numbers.iter().enumerate() {
            for (c, &x) in numbers.iter().enumerate() {
                let rest = self.width - (c * V::LANES).min(self.width);
                let x = v.min(high, v.max(low, x));
                // SAFETY: as for the tile.
                unsafe {
                    let to = data.add(r * stride + c * V::LANES);
                    if rest >= V::LANES {
                        v.store(to, x);
                    } else {
                        v.store_part(std::slice::from_raw_parts_mut(to, rest), x);
                    }
                }
            }
        }
    }
}

/// Adds codes to those of a tile, which lie as i32, less their zero, in rows of whole registers. A function of its own, which
/// is not unrolled.
struct Add<'a> {
    args: &'a Args,
    added: &'a CodesAdded,
    rows: usize,
    columns: usize,
    codes: *const u8,
    data: *mut u8,
    stride: usize,
}

/// What [`Add`] needs in registers.
struct Sum<V: Vector> {
    low: V::I32,
    high: V::I32,
    own: V::F32,
    factor: V::F32,
    away: V::I32,
}

impl<V: Vector> Sum<V> {
    /// The code of a sum, less its zero, from a register of codes at `code` and one of what is added at `other`.
    ///
    /// # Safety
    /// Both must be valid for reading a register.
    #[inline(always)]
    unsafe fn of(&self, v: V, code: *const u8, other: *const u8) -> V::I32 {
        // SAFETY: passed on.
        let (code, other) = unsafe { (v.load_i32(code), v.load_u8(other)) };
        let other = v.to_f32(v.add_i32(other, self.away));
        let code = v.to_f32(v.min_i32(self.high, v.max_i32(self.low, code)));
        v.to_i32(v.fma(code, self.own, v.mul(other, self.factor)))
    }
}

impl Kernel for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let added = self.added;
        let [zero, low, high] = self.args.codes;
        let bound = |x: u8| v.splat_i32(i32::from(x) - i32::from(zero));
        let sum: Sum<V> = Sum {
            low: bound(low),
            high: bound(high),
            own: v.splat(added.own),
            factor: v.splat(added.factor),
            away: v.splat_i32(-i32::from(added.zero)),
        };
        let width = self.args.width;
        for r in 0..self.rows {
            let from = added.data.wrapping_add(r * added.stride);
            let to = self.data.wrapping_add(r * self.stride);
            let codes = self.codes.wrapping_add(4 * r * self.columns * V::LANES);
            if width == MOST_COLUMNS * V::LANES {
                let mut sums = [v.splat_i32(0); MOST_COLUMNS];
                for (c, to) in sums.iter_mut().enumerate() {
                    let at = c * V::LANES;
                    // SAFETY: whoever calls this vouches for the tile.
                    *to = unsafe { sum.of(v, codes.wrapping_add(4 * at), from.wrapping_add(at)) };
                }
                // SAFETY: as above.
                unsafe { v.store_codes(to, sums, added.bounds) };
                continue;
            }
            for c in 0..self.columns {
                let at = c * V::LANES;
                let lanes = V::LANES.min(width - at.min(width));
                // SAFETY: whoever calls this vouches for the tile; parts of registers go through `part`.
                unsafe {
                    let (from, to) = (from.add(at), to.add(at));
                    let mut part = [0u8; MAX_LANES];
                    let whole = lanes == V::LANES;
                    if !whole {
                        std::ptr::copy_nonoverlapping(from, part.as_mut_ptr(), lanes);
                    }
                    let other = if whole { from } else { part.as_ptr() };
                    let sum = sum.of(v, codes.add(4 * at), other);
                    let target = if whole { to } else { part.as_mut_ptr() };
                    v.store_codes(target, [sum], added.bounds);
                    if !whole {
                        std::ptr::copy_nonoverlapping(part.as_ptr(), to, lanes);
                    }
                }
            }
        }
    }
}
