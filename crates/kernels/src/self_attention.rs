//! Attention within one sequence whose queries, keys and values are all there: no cache, no mask but a window.
//!
//! One head of one sequence is two small matrix products with a softmax between them. Keys are laid out once as columns;
//! then six queries at a time go through all three parts while their scores stay in the first-level cache. A query's
//! result is computed in one order of operations whatever other queries share the call.

use crate::vector::{self, Kernel, Vector, math};
use crate::{Isa, KernelError};

/// Queries that go together.
const ROWS: usize = 6;
/// The most columns of registers that [`Vector::COLUMNS`] states.
const MAX_COLUMNS: usize = 4;

/// One head's rows in a `[T, H * Dh]` tensor.
#[derive(Clone, Copy, Debug)]
pub struct HeadRows<'a> {
    /// From the first element of the first row's head on.
    pub data: &'a [f32],
    /// Elements between rows.
    pub row_stride: usize,
}

/// Where the results of one head go: row `i` starts at `data[i * row_stride]`.
///
/// Threads share one output and write disjoint heads and rows, which a `&mut [f32]` cannot say; hence a pointer.
#[derive(Clone, Copy, Debug)]
pub struct HeadOutput {
    /// First element of row 0.
    pub data: *mut f32,
    /// Elements between rows.
    pub row_stride: usize,
}

/// One head of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct SelfAttention<'a> {
    /// Tokens of the sequence: rows of keys and values.
    pub tokens: usize,
    /// Queries, of the rows `first_query ..`.
    pub queries: HeadRows<'a>,
    /// The position of the first query in the sequence.
    pub first_query: usize,
    /// How many queries there are.
    pub query_count: usize,
    /// Keys of all tokens.
    pub keys: HeadRows<'a>,
    /// Values of all tokens.
    pub values: HeadRows<'a>,
    /// `Dh`.
    pub head_dim: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Only tokens at most this far away are seen.
    pub reach: Option<usize>,
    /// Added to the scores by distance: query `i` and key `j` get `bias[tokens - 1 + j - i]`; `2 * tokens - 1` long.
    pub bias: Option<&'a [f32]>,
    /// Added to the scores, `[query_count, tokens]`.
    pub mask: Option<&'a [f32]>,
}

/// Bytes of scratch that [`self_attention`] needs for sequences of up to `tokens` tokens.
pub const fn scratch_bytes(tokens: usize, head_dim: usize) -> usize {
    // Keys as columns, scores of the queries that go together, and values where heads are no whole registers.
    let padded = tokens.next_multiple_of(vector::MAX_LANES);
    let head = head_dim.next_multiple_of(vector::MAX_LANES);
    (padded * (head_dim + ROWS) + padded * head) * 4 + vector::MAX_LANES * 4
}

/// `softmax(q . k^T * scale + bias) . v` for some queries of one head.
///
/// # Errors
/// [`KernelError::Shape`] if lengths disagree.
///
/// # Safety
/// `out` must be valid for writing `query_count` rows of `head_dim` elements at its stride, and no other thread may touch
/// them meanwhile.
pub unsafe fn self_attention(
    isa: Isa,
    task: &SelfAttention<'_>,
    out: HeadOutput,
    scratch: &mut [u8],
) -> Result<(), KernelError> {
    let wrong = |what: String| Err(KernelError::Shape { kernel: "self_attention", what });
    let SelfAttention { tokens, first_query, query_count, head_dim, .. } = *task;
    let fits = |rows: HeadRows<'_>, count: usize| {
        count == 0
            || (count - 1)
                .checked_mul(rows.row_stride)
                .and_then(|at| at.checked_add(head_dim))
                .is_some_and(|end| end <= rows.data.len())
    };
    if head_dim == 0 || first_query.checked_add(query_count).is_none_or(|end| end > tokens) {
        return wrong(format!("{query_count} queries from {first_query} of {tokens} in heads of {head_dim}"));
    }
    if !fits(task.queries, query_count) || !fits(task.keys, tokens) || !fits(task.values, tokens) {
        return wrong(format!("{tokens} rows of {head_dim} are more than the tensors hold"));
    }
    if task.bias.is_some_and(|bias| bias.len() + 1 != 2 * tokens)
        || task.mask.is_some_and(|mask| mask.len() != query_count * tokens)
        || scratch.len() < scratch_bytes(tokens, head_dim)
    {
        return wrong(format!("{} bytes of scratch, or a bias of another length", scratch.len()));
    }
    // SAFETY: any bytes are floats.
    let (_, scratch, _) = unsafe { scratch.align_to_mut::<f32>() };
    vector::run(isa, Head { task, out, scratch });
    Ok(())
}

/// Bytes of scratch that [`dot_products`] needs for `columns` columns.
pub const fn dot_scratch_bytes(columns: usize, head_dim: usize) -> usize {
    (columns.next_multiple_of(vector::MAX_LANES) * head_dim + vector::MAX_LANES) * 4
}

/// Elements that [`dot_products`] writes: rows and columns, each rounded up.
pub const fn dot_len(rows: usize, columns: usize) -> usize {
    rows.next_multiple_of(ROWS) * columns.next_multiple_of(vector::MAX_LANES)
}

/// `out[i][j] = rows[i] . columns[j]`; rows of `out` are `columns`, rounded up to 16, elements apart.
///
/// # Errors
/// [`KernelError::Shape`] if lengths disagree.
pub fn dot_products(
    isa: Isa,
    rows: (HeadRows<'_>, usize),
    columns: (HeadRows<'_>, usize),
    head_dim: usize,
    out: &mut [f32],
    scratch: &mut [u8],
) -> Result<(), KernelError> {
    let fits = |(rows, count): (HeadRows<'_>, usize)| {
        count > 0 && ((count - 1) * rows.row_stride + head_dim) <= rows.data.len()
    };
    if !fits(rows)
        || !fits(columns)
        || head_dim == 0
        || out.len() < dot_len(rows.1, columns.1)
        || scratch.len() < dot_scratch_bytes(columns.1, head_dim)
    {
        let what = format!("{} by {} products in {} elements", rows.1, columns.1, out.len());
        return Err(KernelError::Shape { kernel: "dot_products", what });
    }
    // SAFETY: any bytes are floats.
    let (_, scratch, _) = unsafe { scratch.align_to_mut::<f32>() };
    vector::run(isa, Dots { rows, columns, head_dim, out, scratch });
    Ok(())
}

/// Checked arguments of [`dot_products`].
struct Dots<'a> {
    rows: (HeadRows<'a>, usize),
    columns: (HeadRows<'a>, usize),
    head_dim: usize,
    out: &'a mut [f32],
    scratch: &'a mut [f32],
}

impl Kernel for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let ((rows, count), (keys, n)) = (self.rows, self.columns);
        let padded = n.next_multiple_of(vector::MAX_LANES);
        let columns = &mut self.scratch[..padded * self.head_dim];
        transpose::<V>(v, keys, n, self.head_dim, padded, columns);
        for first in (0..count).step_by(ROWS) {
            let row = |r: usize| (first + r).min(count - 1) * rows.row_stride;
            let queries: [&[f32]; ROWS] = std::array::from_fn(|r| &rows.data[row(r)..]);
            let scores = &mut self.out[first * padded..(first + ROWS) * padded];
            v.call(Products {
                queries,
                columns,
                scores,
                head_dim: self.head_dim,
                padded,
                from: 0,
                end: padded,
            });
        }
    }
}

/// A checked task.
struct Head<'a> {
    task: &'a SelfAttention<'a>,
    out: HeadOutput,
    scratch: &'a mut [f32],
}

/// Scores below any other, of keys that are not seen.
const UNSEEN: f32 = f32::NEG_INFINITY;

impl Kernel for Head<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        const { assert!(V::COLUMNS <= MAX_COLUMNS && V::LANES <= vector::MAX_LANES) };
        let SelfAttention { tokens, head_dim, query_count, first_query, keys, values, .. } = *self.task;
        let padded = tokens.next_multiple_of(V::LANES);
        let head_padded = head_dim.next_multiple_of(V::LANES);
        let (columns, rest) = self.scratch.split_at_mut(padded * head_dim);
        let (scores, rest) = rest.split_at_mut(padded * ROWS);
        transpose::<V>(v, keys, tokens, head_dim, padded, columns);
        // Values are read where they are, unless the last register of a row would reach past it.
        let values = if head_padded == head_dim {
            values
        } else {
            let packed = &mut rest[..tokens * head_padded];
            packed.fill(0.0);
            for (i, row) in packed.chunks_exact_mut(head_padded).enumerate() {
                row[..head_dim].copy_from_slice(&values.data[i * values.row_stride..][..head_dim]);
            }
            HeadRows { data: packed, row_stride: head_padded }
        };
        for first in (0..query_count).step_by(ROWS) {
            let rows = ROWS.min(query_count - first);
            // Missing rows repeat the last one.
            let query = |r: usize| (first + r.min(rows - 1)) * self.task.queries.row_stride;
            let queries: [&[f32]; ROWS] = std::array::from_fn(|r| &self.task.queries.data[query(r)..]);
            // Keys that any of the queries sees, from the border of a register on.
            let (from, to) = match self.task.reach {
                None => (0, tokens),
                Some(reach) => (
                    (first_query + first).saturating_sub(reach) / V::LANES * V::LANES,
                    (first_query + first + rows).saturating_add(reach).min(tokens),
                ),
            };
            let end = to.next_multiple_of(V::LANES);
            v.call(Products { queries, columns, scores, head_dim, padded, from, end });
            let mut totals = [1.0f32; ROWS];
            for (r, total) in totals.iter_mut().enumerate().take(rows) {
                let row = &mut scores[r * padded + from..r * padded + end];
                let at = first_query + first + r;
                let seen = match self.task.reach {
                    None => 0..tokens,
                    Some(reach) => at.saturating_sub(reach)..(at + 1).saturating_add(reach).min(tokens),
                };
                let bias = self.task.bias.map(|bias| &bias[tokens - 1 - at + from..][..to - from]);
                let mask = self.task.mask.map(|mask| &mask[(first + r) * tokens + from..][..to - from]);
                *total =
                    softmax::<V>(v, row, self.task.scale, bias, mask, seen.start - from..seen.end - from);
            }
            let out = self.out.data.wrapping_add(first * self.out.row_stride);
            let out = HeadOutput { data: out, ..self.out };
            v.call(Mix { scores, values, padded, head_dim, from, to, totals, rows, out });
        }
    }
}

/// `columns[d][j] = keys[j][d]`; the columns past the last token are zero.
#[inline(always)]
fn transpose<V: Vector>(
    _: V,
    keys: HeadRows<'_>,
    tokens: usize,
    head_dim: usize,
    padded: usize,
    columns: &mut [f32],
) {
    let mut first = 0;
    while first < padded {
        // As many rows as a cache line is long: each line of the columns is written at once.
        let count = vector::MAX_LANES.min(padded - first);
        for d in 0..head_dim {
            let line = &mut columns[d * padded + first..][..count];
            for (i, x) in line.iter_mut().enumerate() {
                let j = first + i;
                *x = if j < tokens { keys.data[j * keys.row_stride + d] } else { 0.0 };
            }
        }
        first += count;
    }
}

/// `scores[r][j] = queries[r] . keys[j]` for `j` in `from .. end`, whole registers.
struct Products<'a> {
    queries: [&'a [f32]; ROWS],
    columns: &'a [f32],
    scores: &'a mut [f32],
    head_dim: usize,
    padded: usize,
    from: usize,
    end: usize,
}

impl Kernel for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(mut self, v: V) {
        let mut j = self.from;
        while j + V::COLUMNS * V::LANES <= self.end {
            self.block::<V, MAX_COLUMNS>(v, j, V::COLUMNS);
            j += V::COLUMNS * V::LANES;
        }
        while j < self.end {
            self.block::<V, 1>(v, j, 1);
            j += V::LANES;
        }
    }
}

impl Products<'_> {
    /// `used` of `C` registers from column `j` on; `used` is known where this becomes part of its caller.
    #[inline(always)]
    fn block<V: Vector, const C: usize>(&mut self, v: V, j: usize, used: usize) {
        let mut acc = [[v.splat(0.0); C]; ROWS];
        let pointers = self.queries.map(<[f32]>::as_ptr);
        let mut column = self.columns.as_ptr().wrapping_add(j);
        for d in 0..self.head_dim {
            // SAFETY: each query has `head_dim` elements, and `used` registers from column `j` lie in row `d` of the columns.
            unsafe {
                let mut keys = [v.splat(0.0); C];
                for (c, key) in keys.iter_mut().enumerate().take(used) {
                    *key = v.load(column.add(c * V::LANES));
                }
                for (acc, query) in acc.iter_mut().zip(pointers) {
                    let q = v.splat(*query.add(d));
                    for (acc, key) in acc.iter_mut().zip(keys).take(used) {
                        *acc = v.fma(q, key, *acc);
                    }
                }
            }
            column = column.wrapping_add(self.padded);
        }
        for (r, acc) in acc.iter().enumerate() {
            for (c, acc) in acc.iter().enumerate().take(used) {
                let at = r * self.padded + j + c * V::LANES;
                let to = &mut self.scores[at..at + V::LANES];
                // SAFETY: `to` has `LANES` elements.
                unsafe { v.store(to.as_mut_ptr(), *acc) };
            }
        }
    }
}

/// Turns scores into `e^(scale * score + bias - largest)`, zero outside `seen`, and gives their sum. `scores` is whole
/// registers; `bias` and `mask` may be shorter.
#[inline(always)]
fn softmax<V: Vector>(
    v: V,
    scores: &mut [f32],
    scale: f32,
    bias: Option<&[f32]>,
    mask: Option<&[f32]>,
    seen: std::ops::Range<usize>,
) -> f32 {
    scores[..seen.start].fill(UNSEEN);
    scores[seen.end..].fill(UNSEEN);
    let scale = v.splat(scale);
    let mut largest = v.splat(UNSEEN);
    for (i, part) in scores.chunks_exact_mut(V::LANES).enumerate() {
        // SAFETY: `part` has `LANES` elements.
        let mut x = v.mul(unsafe { v.load(part.as_ptr()) }, scale);
        for more in [bias, mask].into_iter().flatten() {
            let more = &more[(i * V::LANES).min(more.len())..];
            let whole = more.len() >= V::LANES;
            // SAFETY: there are `LANES` elements where they are loaded at once.
            let more = if whole { unsafe { v.load(more.as_ptr()) } } else { v.load_part(more) };
            x = v.add(x, more);
        }
        // SAFETY: as above.
        unsafe { v.store(part.as_mut_ptr(), x) };
        largest = v.max(largest, x);
    }
    let largest = v.splat(v.max_lane(largest));
    let mut sum = v.splat(0.0);
    for part in scores.chunks_exact_mut(V::LANES) {
        // SAFETY: as above.
        let p = math::exp(v, v.sub(unsafe { v.load(part.as_ptr()) }, largest));
        // SAFETY: as above.
        unsafe { v.store(part.as_mut_ptr(), p) };
        sum = v.add(sum, p);
    }
    v.sum(sum)
}

/// `out[r] = sum over j of scores[r][j] * values[j] / totals[r]`; rows of values are whole registers.
struct Mix<'a> {
    scores: &'a [f32],
    values: HeadRows<'a>,
    padded: usize,
    head_dim: usize,
    from: usize,
    to: usize,
    totals: [f32; ROWS],
    rows: usize,
    out: HeadOutput,
}

impl Kernel for Mix<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let head_padded = self.head_dim.next_multiple_of(V::LANES);
        let mut d = 0;
        while d + V::COLUMNS * V::LANES <= head_padded {
            self.block::<V, MAX_COLUMNS>(v, d, V::COLUMNS);
            d += V::COLUMNS * V::LANES;
        }
        while d + 2 * V::LANES <= head_padded && V::COLUMNS > 2 {
            self.block::<V, 2>(v, d, 2);
            d += 2 * V::LANES;
        }
        while d < head_padded {
            self.block::<V, 1>(v, d, 1);
            d += V::LANES;
        }
    }
}

impl Mix<'_> {
    #[inline(always)]
    fn block<V: Vector, const C: usize>(&self, v: V, d: usize, used: usize) {
        let mut acc = [[v.splat(0.0); C]; ROWS];
        let mut value = self.values.data.as_ptr().wrapping_add(self.from * self.values.row_stride + d);
        let scores = &self.scores[..ROWS * self.padded];
        for j in self.from..self.to {
            // SAFETY: row `j` of the values has `used` registers from element `d`, and each row of scores `padded` elements.
            unsafe {
                let mut row = [v.splat(0.0); C];
                for (c, x) in row.iter_mut().enumerate().take(used) {
                    *x = v.load(value.add(c * V::LANES));
                }
                for (r, acc) in acc.iter_mut().enumerate() {
                    let p = v.splat(*scores.get_unchecked(r * self.padded + j));
                    for (acc, x) in acc.iter_mut().zip(row).take(used) {
                        *acc = v.fma(p, x, *acc);
                    }
                }
            }
            value = value.wrapping_add(self.values.row_stride);
        }
        for (r, acc) in acc.iter().enumerate().take(self.rows) {
            let scale = v.splat(1.0 / self.totals[r]);
            for (c, acc) in acc.iter().enumerate().take(used) {
                let at = d + c * V::LANES;
                let y = v.mul(*acc, scale);
                let len = V::LANES.min(self.head_dim - at);
                let to = self.out.data.wrapping_add(r * self.out.row_stride + at);
                // SAFETY: the caller of `self_attention` vouches for row `r`, which has `len` more elements from `at`.
                unsafe {
                    if len == V::LANES {
                        v.store(to, y);
                    } else {
                        v.store_part(std::slice::from_raw_parts_mut(to, len), y);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
