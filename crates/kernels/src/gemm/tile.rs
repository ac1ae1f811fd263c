//! The micro-kernel, and the walk over the tiles of a block of rows.

use super::activation::{Identity, Loop, One};
use super::{Activation, Epilogue, Matrix, Panels, ROWS, Target, blocks};
use crate::vector::{self, Kernel, MAX_LANES, Vector};
use std::mem::MaybeUninit;
use std::ops::Range;

/// Steps of `k` after which sums go to memory and the next panel's follow, so that rows and a panel stay in the second-level
/// cache however long they are.
pub(crate) const SEGMENT: usize = 768;

/// Elements of a line of the cache.
const LINE: usize = 16;
/// Products of a step from which on a tile asks for the weights that follow its own.
const ASKS: usize = 12;

/// Most rows of a tile of one or two vectors.
const MOST_ROWS: usize = 2 * ROWS;
/// Most vectors of a panel.
const MOST_COLUMNS: usize = 4;

/// Where the pieces lie that rows consist of.
#[derive(Clone, Copy)]
pub(crate) enum Rows<'a> {
    /// Piece `t` of row `r` starts `r` times a distance after pointer `t`.
    Even(&'a [*const f32], usize),
    /// Piece `t` of row `r` starts at pointer `r * taps + t`.
    Any(&'a [*const f32]),
}

/// A block of rows times some panels. Checked by whoever makes it.
#[derive(Clone)]
pub(crate) struct Part<'a> {
    pub panels: &'a Panels,
    pub matrix: Matrix<'a>,
    pub x: Rows<'a>,
    /// Pieces that a row consists of.
    pub taps: usize,
    /// Words of a piece; `taps * depth` are the matrix's steps.
    pub depth: usize,
    /// Rows of the output; the first of them is row 0 of `x`.
    pub rows: Range<usize>,
    pub columns: Range<usize>,
    pub epilogue: Epilogue<'a>,
    pub out: Target,
    /// The first of these panels of the matrix that is multiplied next, or null.
    pub next: *const f32,
}

impl Kernel for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        if self.taps == 1 {
            let count = self.depth.div_ceil(SEGMENT).max(1);
            for i in 0..count {
                let (start, end) = (self.depth * i / count, self.depth * (i + 1) / count);
                self.segment(v, 0..1, start..end);
            }
            return;
        }
        let count = (self.taps * self.depth).div_ceil(SEGMENT).clamp(1, self.taps);
        for i in 0..count {
            self.segment(v, self.taps * i / count..self.taps * (i + 1) / count, 0..self.depth);
        }
    }
}

impl Part<'_> {
    /// Adds the products of some taps, and some elements of each.
    #[inline(always)]
    fn segment<V: Vector>(&self, v: V, taps: Range<usize>, depth: Range<usize>) {
        let epilogue = &self.epilogue;
        let step = taps.start * self.depth + depth.start;
        let (resume, last) = (step > 0, taps.end == self.taps && depth.end == self.depth);
        let (low, high) = if last { epilogue.activation.bounds() } else { Activation::None.bounds() };
        let (pointers, step_of_row, stride) = match self.x {
            Rows::Even(pointers, stride) => (pointers, 0, stride),
            Rows::Any(pointers) => (pointers, self.taps, 0),
        };
        for column in self.columns.clone() {
            let panel = self.panels.panel(column);
            // Narrow panels leave registers for more rows.
            let height = (ROWS * V::COLUMNS / panel.vectors).min(MOST_ROWS);
            let (b, b_stride) = self.matrix.panel(&panel, V::LANES);
            let (ahead, lines) = self.ahead(column, step, taps.len() * depth.len(), last, V::LANES);
            let part = |values: &[f32]| {
                if values.is_empty() { std::ptr::null() } else { values[panel.first..].as_ptr() }
            };
            for (index, tile) in blocks(0..self.rows.len(), height).enumerate() {
                let row = self.rows.start + tile.start;
                let residual = epilogue.residual.map(|residual| {
                    let at = row * residual.stride + panel.first;
                    (residual.data.wrapping_add(at), residual.stride, residual.after)
                });
                let args = Args {
                    pointers: pointers[tile.start * step_of_row + taps.start..].as_ptr(),
                    pointer_step: step_of_row,
                    taps: taps.len(),
                    skip: tile.start * stride + depth.start,
                    stride,
                    depth: depth.len(),
                    b: b.wrapping_add(step * b_stride),
                    b_stride,
                    ahead: if index < lines {
                        ahead.wrapping_add(index * taps.len() * depth.len() * LINE)
                    } else {
                        std::ptr::null()
                    },
                    out: self.out.data.wrapping_add(row * self.out.stride + panel.first),
                    out_stride: self.out.stride,
                    width: panel.width,
                    bias: part(epilogue.bias),
                    slopes: part(epilogue.slopes),
                    residual,
                    low,
                    high,
                    activation: epilogue.activation,
                    resume,
                    last,
                };
                // SAFETY: whoever made the part vouches for its pointers, the matrix and the output.
                unsafe { dispatch(v, tile.len(), panel.vectors, &args) };
            }
        }
    }
}

impl Part<'_> {
    /// The weights that follow the `steps` steps from `step` on of panel `column`, and how many lines a step of them takes.
    #[inline(always)]
    fn ahead(
        &self,
        column: usize,
        step: usize,
        steps: usize,
        last: bool,
        lanes: usize,
    ) -> (*const f32, usize) {
        if let Matrix::Rows(..) = self.matrix {
            return (std::ptr::null(), 0);
        }
        let of = |column: usize| {
            let panel = self.panels.panel(column);
            (self.matrix.panel(&panel, lanes), panel.vectors * lanes / LINE)
        };
        if column + 1 < self.columns.end {
            let ((b, stride), lines) = of(column + 1);
            return (b.wrapping_add(step * stride), lines);
        }
        let ((b, stride), lines) = of(self.columns.start);
        if last {
            (self.next, if self.next.is_null() { 0 } else { lines })
        } else {
            (b.wrapping_add((step + steps) * stride), lines)
        }
    }
}

/// One tile. Every pointer stands for all that the tile reads or writes.
pub(crate) struct Args {
    /// Pieces of the first row.
    pub pointers: *const *const f32,
    /// Pointers between rows.
    pub pointer_step: usize,
    pub taps: usize,
    /// Elements after each pointer to skip.
    pub skip: usize,
    /// Elements between rows that share pointers.
    pub stride: usize,
    pub depth: usize,
    pub b: *const f32,
    pub b_stride: usize,
    /// Asked for meanwhile, a line a step, unless null.
    pub ahead: *const f32,
    pub out: *mut f32,
    pub out_stride: usize,
    /// Outputs to write; the last vector may be partly padding.
    pub width: usize,
    pub bias: *const f32,
    pub slopes: *const f32,
    pub residual: Option<(*const f32, usize, bool)>,
    /// Bounds of the sums, if that is all of the activation and these are all products.
    pub low: f32,
    pub high: f32,
    pub activation: Activation,
    /// Sums start from what the output holds.
    pub resume: bool,
    /// These are all products: the epilogue follows.
    pub last: bool,
}

impl Args {
    /// Whether sums are written as they are, but for a residual and then bounds.
    #[inline(always)]
    fn is_plain(&self) -> bool {
        let after = matches!(self.residual, Some((.., true)));
        !self.last || self.slopes.is_null() && !after && !self.activation.is_long()
    }
}

/// What computes tiles of rows by vectors.
pub(crate) trait Tiles {
    /// Computes one of `R` by `C`; must be `inline(always)`.
    ///
    /// # Safety
    /// Its pointers must be valid for what they stand for.
    unsafe fn tile<V: Vector, const R: usize, const C: usize>(&self, v: V);
}

impl Tiles for Args {
    #[inline(always)]
    unsafe fn tile<V: Vector, const R: usize, const C: usize>(&self, v: V) {
        // SAFETY: passed on.
        unsafe { Tile::<R, C>(self).compute(v) }
    }
}

/// Runs the tile of `rows` by `columns` vectors.
///
/// # Safety
/// The pointers of `tiles` must be valid for what they stand for.
#[inline(always)]
pub(crate) unsafe fn dispatch<V: Vector, T: Tiles>(v: V, rows: usize, columns: usize, tiles: &T) {
    match columns {
        1 => by_many_rows::<V, T, 1>(v, rows, tiles),
        2 => by_many_rows::<V, T, 2>(v, rows, tiles),
        3 => by_more_rows::<V, T, 3>(v, rows, tiles),
        4 => by_rows::<V, T, 4>(v, rows, tiles),
        _ => unreachable!("panels have at most four vectors"),
    }
}

#[inline(always)]
fn by_rows<V: Vector, T: Tiles, const C: usize>(v: V, rows: usize, tiles: &T) {
    if C > V::COLUMNS {
        unreachable!("panels are no wider than the registers allow");
    }
    match rows {
        1 => v.call(Call::<T, 1, C>(tiles)),
        2 => v.call(Call::<T, 2, C>(tiles)),
        3 => v.call(Call::<T, 3, C>(tiles)),
        4 => v.call(Call::<T, 4, C>(tiles)),
        5 => v.call(Call::<T, 5, C>(tiles)),
        6 => v.call(Call::<T, 6, C>(tiles)),
        _ => unreachable!("wide tiles have at most six rows"),
    }
}

#[inline(always)]
fn by_more_rows<V: Vector, T: Tiles, const C: usize>(v: V, rows: usize, tiles: &T) {
    match rows {
        7 => v.call(Call::<T, 7, C>(tiles)),
        8 => v.call(Call::<T, 8, C>(tiles)),
        _ => by_rows::<V, T, C>(v, rows, tiles),
    }
}

#[inline(always)]
fn by_many_rows<V: Vector, T: Tiles, const C: usize>(v: V, rows: usize, tiles: &T) {
    match rows {
        9 => v.call(Call::<T, 9, C>(tiles)),
        10 => v.call(Call::<T, 10, C>(tiles)),
        11 => v.call(Call::<T, 11, C>(tiles)),
        12 => v.call(Call::<T, 12, C>(tiles)),
        _ => by_more_rows::<V, T, C>(v, rows, tiles),
    }
}

/// A tile as a function of its own.
struct Call<'a, T, const R: usize, const C: usize>(&'a T);

impl<T: Tiles, const R: usize, const C: usize> Kernel for Call<'_, T, R, C> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        // SAFETY: the caller of `dispatch` vouches for the pointers.
        unsafe { self.0.tile::<V, R, C>(v) }
    }
}

struct Tile<'a, const R: usize, const C: usize>(&'a Args);

impl<const R: usize, const C: usize> Tile<'_, R, C> {
    #[inline(always)]
    unsafe fn compute<V: Vector>(self, v: V) {
        let args = self.0;
        // SAFETY: the pointers are valid for `taps * depth` steps, `R` rows and `C` vectors; the last vector of an output
        // is written in part.
        unsafe {
            // The last vector may be partly padding.
            let lanes = |c: usize| if c + 1 < C { V::LANES } else { args.width - c * V::LANES };
            let mut sums = [[v.splat(0.0); C]; R];
            if args.resume {
                for (r, row) in sums.iter_mut().enumerate() {
                    for (c, sum) in row.iter_mut().enumerate() {
                        let from = args.out.add(r * args.out_stride + c * V::LANES);
                        *sum = load_first(v, from, lanes(c));
                    }
                }
            } else if !args.bias.is_null() {
                for c in 0..C {
                    let bias = v.load(args.bias.add(c * V::LANES));
                    for row in &mut sums {
                        row[c] = bias;
                    }
                }
            }
            let mut b = args.b;
            // What is there already is asked for again at no cost.
            let (mut ahead, line) = if args.ahead.is_null() { (b, 0) } else { (args.ahead, LINE) };
            for tap in 0..args.taps {
                let rows: [*const f32; R] = vector::array(|r| {
                    (*args.pointers.add(r * args.pointer_step + tap)).add(r * args.stride + args.skip)
                });
                for k in 0..args.depth {
                    if R * C >= ASKS {
                        v.prefetch(ahead);
                        ahead = ahead.wrapping_add(line);
                    }
                    let weights: [V::F32; C] = vector::array(|c| v.load(b.add(c * V::LANES)));
                    for r in 0..R {
                        let x = v.splat(*rows[r].add(k));
                        for c in 0..C {
                            sums[r][c] = v.multiply_add(x, weights[c], sums[r][c]);
                        }
                    }
                    b = b.add(args.b_stride);
                }
            }
            if args.is_plain() {
                if let Some((data, stride, _)) = args.residual
                    && args.last
                {
                    for (r, row) in sums.iter_mut().enumerate() {
                        for (c, sum) in row.iter_mut().enumerate() {
                            let other = load_first(v, data.add(r * stride + c * V::LANES), lanes(c));
                            *sum = v.add(*sum, other);
                        }
                    }
                }
                let (low, high) = (v.splat(args.low), v.splat(args.high));
                for (r, row) in sums.iter().enumerate() {
                    for (c, &sum) in row.iter().enumerate() {
                        let to = args.out.add(r * args.out_stride + c * V::LANES);
                        store_first(v, to, lanes(c), v.min(high, v.max(low, sum)));
                    }
                }
                return;
            }
            // The rest goes through a buffer and a function of its own, which is not unrolled.
            let mut buffer = [MaybeUninit::<f32>::uninit(); ROWS * MOST_COLUMNS * MAX_LANES];
            let to: *mut f32 = buffer.as_mut_ptr().cast();
            for (r, row) in sums.iter().enumerate() {
                for (c, &sum) in row.iter().enumerate() {
                    v.store(to.add((r * C + c) * V::LANES), sum);
                }
            }
            v.call(Ending { args, rows: R, sums: to, stride: C * V::LANES });
        }
    }
}

/// The first `lanes` elements at `from`, at most a vector; the other lanes are 0.
///
/// # Safety
/// `from` must be valid for reading them.
#[inline(always)]
pub(crate) unsafe fn load_first<V: Vector>(v: V, from: *const f32, lanes: usize) -> V::F32 {
    // SAFETY: the caller vouches for the pointer.
    unsafe {
        if lanes >= V::LANES { v.load(from) } else { v.load_part(std::slice::from_raw_parts(from, lanes)) }
    }
}

/// Stores the first `lanes` elements of `x`, at most all.
///
/// # Safety
/// `to` must be valid for writing them.
#[inline(always)]
pub(crate) unsafe fn store_first<V: Vector>(v: V, to: *mut f32, lanes: usize, x: V::F32) {
    // SAFETY: the caller vouches for the pointer.
    unsafe {
        if lanes >= V::LANES {
            v.store(to, x);
        } else {
            v.store_part(std::slice::from_raw_parts_mut(to, lanes), x);
        }
    }
}

/// Writes sums that need more than a residual and bounds.
struct Ending<'a> {
    args: &'a Args,
    rows: usize,
    sums: *const f32,
    stride: usize,
}

impl Kernel for Ending<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        match self.args.activation {
            Activation::None | Activation::Slopes => self.write(v, Identity, self.args.residual),
            activation => activation.each(v, self),
        }
    }
}

impl<V: Vector> Loop<V> for Ending<'_> {
    #[inline(always)]
    fn run<F: One>(self, v: V, function: F) {
        self.write(v, function, self.args.residual);
    }
}

impl Ending<'_> {
    #[inline(always)]
    fn write<V: Vector, F: One>(&self, v: V, function: F, residual: Option<(*const f32, usize, bool)>) {
        let args = self.args;
        // Branches that are the same for all elements stay out of the loop of the most frequent case.
        let alone = residual.is_none() && args.slopes.is_null();
        for r in 0..self.rows {
            // SAFETY: as for the tile, whose sums and output these are.
            unsafe {
                let (sums, out) = (self.sums.add(r * self.stride), args.out.add(r * args.out_stride));
                for at in (0..args.width).step_by(V::LANES) {
                    let lanes = V::LANES.min(args.width - at);
                    let mut x = v.load(sums.add(at));
                    if alone {
                        store_first(v, out.add(at), lanes, function.apply(v, x));
                        continue;
                    }
                    let other = match residual {
                        Some((data, stride, _)) => load_first(v, data.add(r * stride + at), lanes),
                        None => v.splat(0.0),
                    };
                    let after = matches!(residual, Some((.., true)));
                    if residual.is_some() && !after {
                        x = v.add(x, other);
                    }
                    x = function.apply(v, x);
                    if !args.slopes.is_null() {
                        x = v.select_less(x, v.splat(0.0), v.mul(x, v.load(args.slopes.add(at))), x);
                    }
                    if after {
                        x = v.add(x, other);
                    }
                    store_first(v, out.add(at), lanes, x);
                }
            }
        }
    }
}

/// Applies a long function to what was just written, then adds the residual that comes after it.
pub(crate) struct Finish {
    pub activation: Activation,
    pub rows: usize,
    pub width: usize,
    pub out: *mut f32,
    pub out_stride: usize,
    pub residual: Option<(*const f32, usize)>,
}

impl Kernel for Finish {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        self.activation.each(v, &self);
    }
}

impl<V: Vector> Loop<V> for &Finish {
    #[inline(always)]
    fn run<F: One>(self, v: V, function: F) {
        for r in 0..self.rows {
            for at in (0..self.width).step_by(V::LANES) {
                let lanes = self.width - at;
                // SAFETY: whoever made this wrote as much before, and vouches for a residual of the same size.
                unsafe {
                    let out = self.out.add(r * self.out_stride + at);
                    let mut x = function.apply(v, load_first(v, out, lanes));
                    if let Some((data, stride)) = self.residual {
                        x = v.add(x, load_first(v, data.add(r * stride + at), lanes));
                    }
                    store_first(v, out, lanes, x);
                }
            }
        }
    }
}
