//! What is done with one page of keys and values.

// Rows and columns of registers index several arrays at once.
#![allow(clippy::needless_range_loop)]

use super::{KvLayout, KvType, PAGE};
use crate::attention::layout::GROUP;
use crate::vector::{Kernel, MAX_LANES, Vector, math};
use std::f32::consts::LOG2_E;
use std::ops::Range;

/// Query rows that are worked on together: with [`Vector::COLUMNS`] they fill the registers.
pub(super) const BLOCK_ROWS: usize = 6;

/// A matrix whose elements become f32 as they are loaded.
trait Matrix: Copy {
    /// Elements `column ..` of row `row`, a whole vector.
    ///
    /// # Safety
    /// The matrix must have them.
    unsafe fn load<V: Vector>(self, v: V, row: usize, column: usize) -> V::F32;
}

/// f32 elements.
#[derive(Clone, Copy)]
pub(super) struct Floats {
    data: *const f32,
    stride: usize,
}

/// f16 elements.
#[derive(Clone, Copy)]
pub(super) struct Halves {
    data: *const u8,
    stride: usize,
}

/// int8 keys, `[Dh][64]`, and their scales, `[Dh / 32][64]`.
#[derive(Clone, Copy)]
pub(super) struct ByteKeys {
    data: *const u8,
    scales: *const f32,
}

/// int8 values, `[64][Dh]`, and their scales, `[Dh / 32][64]`.
#[derive(Clone, Copy)]
pub(super) struct ByteValues {
    data: *const u8,
    stride: usize,
    scales: *const f32,
}

impl Matrix for Floats {
    #[inline(always)]
    unsafe fn load<V: Vector>(self, v: V, row: usize, column: usize) -> V::F32 {
        // SAFETY: the caller promises that the elements exist.
        unsafe { v.load(self.data.add(row * self.stride + column)) }
    }
}

impl Matrix for Halves {
    #[inline(always)]
    unsafe fn load<V: Vector>(self, v: V, row: usize, column: usize) -> V::F32 {
        // SAFETY: the caller promises that the elements exist.
        unsafe { v.load_f16(self.data.add(2 * (row * self.stride + column))) }
    }
}

impl Matrix for ByteKeys {
    #[inline(always)]
    unsafe fn load<V: Vector>(self, v: V, row: usize, column: usize) -> V::F32 {
        // SAFETY: the caller promises that the elements exist, and with them their scales.
        unsafe {
            let scale = v.load(self.scales.add(row / GROUP * PAGE + column));
            v.mul(v.load_i8(self.data.add(row * PAGE + column)), scale)
        }
    }
}

impl Matrix for ByteValues {
    #[inline(always)]
    unsafe fn load<V: Vector>(self, v: V, row: usize, column: usize) -> V::F32 {
        // SAFETY: the caller promises that the elements exist, and with them their scale; a vector never crosses
        // groups, as its lanes divide 32.
        unsafe {
            let scale = v.splat(*self.scales.add(column / GROUP * PAGE + row));
            v.mul(v.load_i8(self.data.add(row * self.stride + column)), scale)
        }
    }
}

/// Where the keys and values of a page are read from.
#[derive(Clone, Copy)]
pub(super) enum Source {
    /// [`KvType::F32`] as stored, or others widened.
    Floats(Floats, Floats),
    /// [`KvType::F16`] as stored.
    Halves(Halves, Halves),
    /// [`KvType::Q8_0`] as stored, with the scales widened.
    Bytes(ByteKeys, ByteValues),
}

impl Source {
    /// The page part `bytes` as it is stored; its scales go to the two scratch parts.
    ///
    /// # Panics
    /// If `bytes` is not [`KvLayout::head_bytes`] long or a scratch part is too short.
    #[inline(always)]
    pub(super) fn new<V: Vector>(
        v: V,
        layout: &KvLayout,
        bytes: &[u8],
        key_scales: &mut [f32],
        value_scales: &mut [f32],
    ) -> Source {
        assert_eq!(bytes.len(), layout.head_bytes());
        let (keys, values) = bytes.split_at(layout.values_at());
        match layout.dtype() {
            KvType::F16 => Source::Halves(
                Halves { data: keys.as_ptr(), stride: PAGE },
                Halves { data: values.as_ptr(), stride: layout.padded_dim() },
            ),
            KvType::F32 => {
                let floats = |part: &[u8]| {
                    assert!(part.as_ptr().cast::<f32>().is_aligned(), "pages of f32 are aligned");
                    part.as_ptr().cast::<f32>()
                };
                Source::Floats(
                    Floats { data: floats(keys), stride: PAGE },
                    Floats { data: floats(values), stride: layout.padded_dim() },
                )
            }
            KvType::Q8_0 => {
                let elements = PAGE * layout.head_dim();
                widen_scales(v, &keys[elements..], &mut key_scales[..layout.scales()]);
                widen_scales(v, &values[elements..], &mut value_scales[..layout.scales()]);
                Source::Bytes(
                    ByteKeys { data: keys.as_ptr(), scales: key_scales.as_ptr() },
                    ByteValues {
                        data: values.as_ptr(),
                        stride: layout.head_dim(),
                        scales: value_scales.as_ptr(),
                    },
                )
            }
        }
    }

    /// The same keys, and the values of the first `slots` slots, as f32 in the scratch.
    ///
    /// # Safety
    /// What `self` reads from must be alive.
    #[inline(always)]
    pub(super) unsafe fn widen<V: Vector>(
        self,
        v: V,
        layout: &KvLayout,
        slots: usize,
        keys: &mut [f32],
        values: &mut [f32],
    ) -> Source {
        let padded = layout.padded_dim();
        let (keys, values) = (&mut keys[..PAGE * layout.head_dim()], &mut values[..slots * padded]);
        // SAFETY: the rows and columns are those of the layout.
        unsafe {
            match self {
                Source::Floats(..) => return self,
                Source::Halves(from_keys, from_values) => {
                    widen_rows(v, from_keys, PAGE, keys);
                    widen_rows(v, from_values, padded, values);
                }
                Source::Bytes(from_keys, from_values) => {
                    widen_rows(v, from_keys, PAGE, keys);
                    widen_rows(v, from_values, padded, values);
                }
            }
        }
        Source::Floats(
            Floats { data: keys.as_ptr(), stride: PAGE },
            Floats { data: values.as_ptr(), stride: padded },
        )
    }
}

#[inline(always)]
fn widen_scales<V: Vector>(v: V, halves: &[u8], scales: &mut [f32]) {
    assert_eq!(halves.len(), 2 * scales.len());
    for (halves, scales) in halves.chunks_exact(2 * V::LANES).zip(scales.chunks_exact_mut(V::LANES)) {
        // SAFETY: both chunks have as many elements as the vector has lanes; 64 divides their number.
        unsafe { v.store(scales.as_mut_ptr(), v.load_f16(halves.as_ptr())) };
    }
}

/// # Safety
/// `from` must have the rows of `to`, which are `columns` long: whole vectors.
#[inline(always)]
unsafe fn widen_rows<V: Vector, M: Matrix>(v: V, from: M, columns: usize, to: &mut [f32]) {
    for (row, to) in to.chunks_exact_mut(columns).enumerate() {
        for (i, to) in to.chunks_exact_mut(V::LANES).enumerate() {
            // SAFETY: the caller promises the row; `to` is a whole vector.
            unsafe { v.store(to.as_mut_ptr(), from.load(v, row, i * V::LANES)) };
        }
    }
}

/// Memory that is read soon, asked for piece by piece in the steps of a loop over other memory: pages of the cache lie
/// scattered, and nobody else foresees where the next one is.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    at: *const u8,
    lines: usize,
    lines_a_step: usize,
}

/// Bytes that the processor fetches together.
const LINE: usize = 64;

impl Ahead {
    /// All of `part` in `steps` steps.
    #[inline(always)]
    fn new(part: Part, steps: usize) -> Ahead {
        let lines = part.len / LINE;
        Ahead { at: part.at, lines, lines_a_step: lines.div_ceil(steps.max(1)) }
    }

    #[inline(always)]
    fn step<V: Vector>(&mut self, v: V) {
        for _ in 0..self.lines_a_step.min(self.lines) {
            v.prefetch(self.at.cast());
            self.at = self.at.wrapping_add(LINE);
            self.lines -= 1;
        }
    }
}

/// Bytes that others may write meanwhile: they are named, not read.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) at: *const u8,
    pub(super) len: usize,
}

impl Default for Part {
    fn default() -> Part {
        Part { at: std::ptr::null(), len: 0 }
    }
}

/// What is read after a page's keys, and after its values.
#[derive(Clone, Copy, Default)]
pub(super) struct Next {
    pub(super) values: Part,
    pub(super) keys: Part,
}

/// The state of all query rows of a call, in scratch memory.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    /// Elements of a query row.
    pub(super) head_dim: usize,
    /// Elements between rows of queries and of sums; whole vectors.
    pub(super) padded_dim: usize,
    /// `[rows][padded_dim]`, scaled for scores to base 2.
    pub(super) queries: *const f32,
    /// `[rows][padded_dim]`: weighted sums of values.
    pub(super) sums: *mut f32,
    /// `[rows][MAX_LANES]`: sums of weights, by lane.
    pub(super) totals: *mut f32,
    /// `[rows]`: largest scores so far.
    pub(super) largest: *mut f32,
    /// `[BLOCK_ROWS][64]`: scores of the block at work, then weights.
    pub(super) weights: *mut f32,
}

/// Query rows that see something of a page, and which of its slots.
#[derive(Default)]
pub(super) struct Block<'a> {
    rows: [usize; BLOCK_ROWS],
    seen: [Range<usize>; BLOCK_ROWS],
    biases: [Bias<'a>; BLOCK_ROWS],
    len: usize,
}

/// What is added to the scores of a row by distance.
#[derive(Clone, Copy, Default)]
pub(super) struct Bias<'a> {
    /// By distance; the last one holds for all farther ones. Empty: nothing is added.
    pub(super) by_distance: &'a [f32],
    /// Distance of the page's first slot.
    pub(super) first: usize,
}

impl Bias<'_> {
    /// Adds to the scores, to base 2, of the slots `seen`, none of which is after the query.
    fn add(&self, scores: &mut [f32], seen: Range<usize>) {
        let Some(last) = self.by_distance.len().checked_sub(1) else { return };
        for slot in seen {
            scores[slot] += self.by_distance[(self.first - slot).min(last)] * LOG2_E;
        }
    }
}

impl<'a> Block<'a> {
    pub(super) fn push(&mut self, row: usize, seen: Range<usize>, bias: Bias<'a>) {
        self.rows[self.len] = row;
        self.seen[self.len] = seen;
        self.biases[self.len] = bias;
        self.len += 1;
    }

    pub(super) fn is_full(&self) -> bool {
        self.len == BLOCK_ROWS
    }

    /// Adds the page to the state of the rows.
    ///
    /// # Safety
    /// `state` must have the rows, and what `source` reads from must be alive.
    #[inline(always)]
    pub(super) unsafe fn compute<V: Vector>(&self, v: V, source: Source, state: Rows, next: Next) {
        // SAFETY: as promised by the caller.
        unsafe {
            match source {
                Source::Floats(keys, values) => self.with(v, keys, values, state, next),
                Source::Halves(keys, values) => self.with(v, keys, values, state, next),
                Source::Bytes(keys, values) => self.with(v, keys, values, state, next),
            }
        }
    }

    /// # Safety
    /// As for [`Block::compute`].
    #[inline(always)]
    unsafe fn with<V: Vector, K: Matrix, W: Matrix>(
        &self,
        v: V,
        keys: K,
        values: W,
        state: Rows,
        next: Next,
    ) {
        // SAFETY: as promised by the caller.
        unsafe {
            match self.len {
                1 => self.with_rows::<V, K, W, 1>(v, keys, values, state, next),
                2 => self.with_rows::<V, K, W, 2>(v, keys, values, state, next),
                3 => self.with_rows::<V, K, W, 3>(v, keys, values, state, next),
                4 => self.with_rows::<V, K, W, 4>(v, keys, values, state, next),
                5 => self.with_rows::<V, K, W, 5>(v, keys, values, state, next),
                6 => self.with_rows::<V, K, W, 6>(v, keys, values, state, next),
                _ => {}
            }
        }
    }

    /// # Safety
    /// As for [`Block::compute`].
    #[inline(always)]
    unsafe fn with_rows<V: Vector, K: Matrix, W: Matrix, const R: usize>(
        &self,
        v: V,
        keys: K,
        values: W,
        state: Rows,
        next: Next,
    ) {
        let (dim, padded) = (state.head_dim, state.padded_dim);
        // SAFETY: the caller promises the rows, and the scratch behind `state` was cut for them.
        unsafe {
            let (mut queries, mut sums, mut weights) =
                ([state.queries; R], [state.sums; R], [state.weights.cast_const(); R]);
            for r in 0..R {
                queries[r] = state.queries.add(self.rows[r] * padded);
                sums[r] = state.sums.add(self.rows[r] * padded);
                weights[r] = state.weights.add(r * PAGE);
            }
            let slots = self.seen[..R].iter().map(|seen| seen.end).max().unwrap_or(0);
            let ahead = Ahead::new(next.values, dim);
            v.call(Scores { keys, head_dim: dim, slots, queries, out: state.weights, ahead });
            for r in 0..R {
                let weights = state.weights.add(r * PAGE);
                self.biases[r].add(std::slice::from_raw_parts_mut(weights, PAGE), self.seen[r].clone());
                v.call(Soften { row: self.rows[r], seen: self.seen[r].clone(), weights, state });
            }
            // Slots that a row does not see may hold anything, so that a weight of 0 would not do: every row adds just
            // what it sees, in order, and together with the others what all of them see.
            let mut shared = 0..PAGE;
            for seen in &self.seen[..R] {
                shared = shared.start.max(seen.start)..shared.end.min(seen.end);
            }
            if shared.is_empty() {
                // All of a row is before what is shared, then.
                shared = PAGE..PAGE;
            }
            for r in 0..R {
                let slots = self.seen[r].start..shared.start.min(self.seen[r].end);
                weigh(v, values, slots, padded, [weights[r]], [sums[r]], Part::default());
            }
            weigh(v, values, shared.clone(), padded, weights, sums, next.keys);
            for r in 0..R {
                weigh(
                    v,
                    values,
                    shared.end..self.seen[r].end,
                    padded,
                    [weights[r]],
                    [sums[r]],
                    Part::default(),
                );
            }
        }
    }
}

/// Scores of the first `slots` keys for `R` rows, and of some more: `out[r][slot] = queries[r] . keys[..][slot]`.
///
/// `keys` is `[head_dim][64]`, the queries `[head_dim]`, `out` `[R][64]`.
struct Scores<K, const R: usize> {
    keys: K,
    head_dim: usize,
    slots: usize,
    queries: [*const f32; R],
    out: *mut f32,
    ahead: Ahead,
}

impl<K: Matrix, const R: usize> Kernel for Scores<K, R> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(mut self, v: V) {
        let mut first = 0;
        while first < self.slots {
            first += match (self.slots - first).div_ceil(V::LANES) {
                3.. if V::COLUMNS == 4 => self.columns::<V, 4>(v, first),
                2.. => self.columns::<V, 2>(v, first),
                _ => self.columns::<V, 1>(v, first),
            };
        }
    }
}

impl<K: Matrix, const R: usize> Scores<K, R> {
    /// The scores of `C` vectors of slots from `first` on; their number.
    #[inline(always)]
    fn columns<V: Vector, const C: usize>(&mut self, v: V, first: usize) -> usize {
        let mut sums = [[v.splat(0.0); C]; R];
        // SAFETY: keys and queries have `head_dim` rows and elements, the columns are below 64, and `out` is `[R][64]`.
        unsafe {
            add_rows(v, self.keys, 0..self.head_dim, first, self.queries, &mut self.ahead, &mut sums);
            for (r, sums) in sums.iter().enumerate() {
                store_all(v, self.out.add(r * PAGE + first), sums);
            }
        }
        C * V::LANES
    }
}

/// `sums[r] += factors[r][row] * matrix[row][column ..]` for the rows in `rows`, in order.
///
/// # Safety
/// `matrix` must have the rows, with `C` vectors from `column` on, and each of `factors` an element for each row.
#[inline(always)]
unsafe fn add_rows<V: Vector, M: Matrix, const R: usize, const C: usize>(
    v: V,
    matrix: M,
    rows: Range<usize>,
    column: usize,
    factors: [*const f32; R],
    ahead: &mut Ahead,
    sums: &mut [[V::F32; C]; R],
) {
    for row in rows {
        ahead.step(v);
        // SAFETY: promised by the caller.
        unsafe {
            let mut x = [v.splat(0.0); C];
            for (c, x) in x.iter_mut().enumerate() {
                *x = matrix.load(v, row, column + c * V::LANES);
            }
            for r in 0..R {
                let factor = v.splat(*factors[r].add(row));
                for c in 0..C {
                    sums[r][c] = v.fma(factor, x[c], sums[r][c]);
                }
            }
        }
    }
}

/// Stores vectors one behind the other.
///
/// # Safety
/// `to` must be valid for writing them.
#[inline(always)]
unsafe fn store_all<V: Vector, const C: usize>(v: V, to: *mut f32, x: &[V::F32; C]) {
    for (c, x) in x.iter().enumerate() {
        // SAFETY: promised by the caller.
        unsafe { v.store(to.add(c * V::LANES), *x) };
    }
}

/// Turns the scores of a row into weights relative to its largest score so far, and brings its sums to the same scale.
///
/// `state` has the row; `weights` is `[64]`.
struct Soften {
    row: usize,
    seen: Range<usize>,
    weights: *mut f32,
    state: Rows,
}

impl Kernel for Soften {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Soften { row, seen, weights, state } = self;
        // SAFETY: `weights` has 64 elements, and nothing else refers to them now.
        let page = unsafe { std::slice::from_raw_parts_mut(weights, PAGE) };
        page[..seen.start].fill(f32::NEG_INFINITY);
        page[seen.end..].fill(f32::NEG_INFINITY);
        // SAFETY: every load and store stays within the 64 weights or the row's part of `state`.
        unsafe {
            let mut top = v.load(weights);
            for i in 1..PAGE / V::LANES {
                top = v.max(top, v.load(weights.add(i * V::LANES)));
            }
            let (before, top) = (*state.largest.add(row), v.max_lane(top));
            let total = state.totals.add(row * MAX_LANES);
            let mut largest = before;
            if top > before {
                largest = top;
                *state.largest.add(row) = top;
                let correction = math::exp2(v, v.splat(before - top));
                v.store(total, v.mul(v.load(total), correction));
                let sums = state.sums.add(row * state.padded_dim);
                for i in 0..state.padded_dim / V::LANES {
                    v.store(sums.add(i * V::LANES), v.mul(v.load(sums.add(i * V::LANES)), correction));
                }
            }
            let largest = v.splat(largest);
            let mut sum = v.load(total);
            for i in 0..PAGE / V::LANES {
                let at = weights.add(i * V::LANES);
                let weight = math::exp2(v, v.sub(v.load(at), largest));
                v.store(at, weight);
                sum = v.add(sum, weight);
            }
            v.store(total, sum);
        }
    }
}

/// Calls [`Weigh`] unless there is nothing to add.
#[inline(always)]
fn weigh<V: Vector, W: Matrix, const R: usize>(
    v: V,
    values: W,
    slots: Range<usize>,
    padded_dim: usize,
    weights: [*const f32; R],
    sums: [*mut f32; R],
    next: Part,
) {
    if !slots.is_empty() {
        let ahead = Ahead::new(next, slots.len());
        v.call(Weigh { values, slots, padded_dim, weights, sums, ahead });
    }
}

/// `sums[r] += weights[r][slot] * values[slot]` for the slots in `slots`, in order.
///
/// `values` has the slots in rows of `padded_dim`; weights are `[64]`, sums `[padded_dim]`.
struct Weigh<W, const R: usize> {
    values: W,
    slots: Range<usize>,
    padded_dim: usize,
    weights: [*const f32; R],
    sums: [*mut f32; R],
    ahead: Ahead,
}

impl<W: Matrix, const R: usize> Kernel for Weigh<W, R> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(mut self, v: V) {
        let mut column = 0;
        while column + 4 * V::LANES <= self.padded_dim && V::COLUMNS == 4 {
            self.columns::<V, 4>(v, column);
            column += 4 * V::LANES;
        }
        while column + 2 * V::LANES <= self.padded_dim {
            self.columns::<V, 2>(v, column);
            column += 2 * V::LANES;
        }
        if column < self.padded_dim {
            self.columns::<V, 1>(v, column);
        }
    }
}

impl<W: Matrix, const R: usize> Weigh<W, R> {
    #[inline(always)]
    fn columns<V: Vector, const C: usize>(&mut self, v: V, column: usize) {
        // SAFETY: `column + C * LANES` is at most `padded_dim`, and the slots are below 64.
        unsafe {
            let mut block = [[v.splat(0.0); C]; R];
            for r in 0..R {
                for c in 0..C {
                    block[r][c] = v.load(self.sums[r].add(column + c * V::LANES));
                }
            }
            add_rows(v, self.values, self.slots.clone(), column, self.weights, &mut self.ahead, &mut block);
            for (r, block) in block.iter().enumerate() {
                store_all(v, self.sums[r].add(column), block);
            }
        }
    }
}
