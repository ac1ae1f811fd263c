//! Causal attention over a paged cache of keys and values.
//!
//! The softmax is taken page by page, in the order of positions, with the same operations whatever rows share a call.

mod layout;
mod page;

pub use layout::{KvLayout, KvType};

use crate::vector::{self, Kernel, MAX_LANES, Vector};
use crate::{Isa, KernelError};
use page::{BLOCK_ROWS, Bias, Block, Next, Part, Rows, Source};
use std::f32::consts::LOG2_E;
use std::ops::Range;

const PAGE: usize = KvLayout::PAGE_TOKENS;

/// One query row: a head of a token.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// `[Dh]`.
    pub q: &'a [f32],
    /// Position of its token in the sequence; it sees itself and everything before.
    pub position: usize,
    /// Added to the score of a key so many positions before; the last one holds for all farther ones. May be empty.
    pub bias: &'a [f32],
}

/// Attention of query rows of one sequence over one key/value head: `out[r] = softmax(scale * q[r] K^T + bias) V`.
///
/// `queries` and `out` have one entry per row, `[Dh]` each; the rows are the heads of the group, token by token. A query
/// at position `p` sees positions `max(0, p + 1 - window_tokens) ..= p`, all of which must have been written.
/// `pages(i)` is the [`KvLayout::head_range`] of the page with positions `i * 64 ..`; `then` says where the one is that
/// the call after this one begins with, if that is known; nothing is read there.
///
/// Pages of [`KvType::F32`] must be aligned for f32.
///
/// The result of a row does not depend on the other rows of the call, down to the last bit.
///
/// # Errors
/// [`KernelError::Shape`] if a length disagrees, or `window_tokens` is 0.
pub fn attend<'p>(
    isa: Isa,
    layout: &KvLayout,
    queries: &[Query<'_>],
    pages: &dyn Fn(usize) -> &'p [u8],
    then: Option<*const u8>,
    scale: f32,
    window_tokens: Option<usize>,
    out: &mut [&mut [f32]],
    scratch: &mut [u8],
) -> Result<(), KernelError> {
    KernelError::check("attention", queries.len(), out.len())?;
    for (query, out) in queries.iter().zip(out.iter()) {
        KernelError::check("attention", query.q.len(), layout.head_dim())?;
        KernelError::check("attention", out.len(), layout.head_dim())?;
    }
    if window_tokens == Some(0) {
        return Err(KernelError::Shape { kernel: "attention", what: "a window of 0 tokens".to_owned() });
    }
    let needed = layout.scratch_bytes(queries.len());
    if scratch.len() < needed {
        return Err(KernelError::Shape {
            kernel: "attention",
            what: format!("{} bytes of scratch where {needed} belong", scratch.len()),
        });
    }
    vector::run(isa, Attend { layout, queries, pages, then, scale, window_tokens, out, scratch })
}

impl KvLayout {
    /// Bytes of scratch that [`attend`] needs for `rows` query rows.
    pub fn scratch_bytes(&self, rows: usize) -> usize {
        // One line of the cache more, to start on one.
        Scratch::floats(self, rows) * 4 + 64
    }
}

/// The parts of the scratch memory. Rows of queries and sums are padded as values are.
struct Scratch<'a> {
    /// `[rows][Dh]`, times the scale.
    queries: &'a mut [f32],
    /// `[rows][Dh]`: weighted sums of values.
    sums: &'a mut [f32],
    /// `[rows][MAX_LANES]`: sums of weights, by lane.
    totals: &'a mut [f32],
    /// `[rows]`: largest scores.
    largest: &'a mut [f32],
    /// `[BLOCK_ROWS][64]`: scores, then weights.
    weights: &'a mut [f32],
    /// `[Dh][64]`.
    keys: &'a mut [f32],
    /// `[64][Dh]`.
    values: &'a mut [f32],
    /// `[Dh / 32][64]` each: scales of keys and values.
    key_scales: &'a mut [f32],
    value_scales: &'a mut [f32],
}

impl<'a> Scratch<'a> {
    /// Lengths of the parts, in order; all but the last of `rows` floats come in whole cache lines.
    fn lengths(layout: &KvLayout, rows: usize) -> [usize; 9] {
        let (dim, padded) = (layout.head_dim(), layout.padded_dim());
        let scales = match layout.dtype() {
            KvType::F16 | KvType::F32 => 0,
            KvType::Q8_0 => layout.scales(),
        };
        let largest = rows.next_multiple_of(MAX_LANES);
        let (keys, values) = (PAGE * dim, PAGE * padded);
        [
            rows * padded,
            rows * padded,
            rows * MAX_LANES,
            largest,
            BLOCK_ROWS * PAGE,
            keys,
            values,
            scales,
            scales,
        ]
    }

    fn floats(layout: &KvLayout, rows: usize) -> usize {
        Self::lengths(layout, rows).iter().sum()
    }

    /// Cuts `bytes`, which has at least [`KvLayout::scratch_bytes`].
    fn new(layout: &KvLayout, rows: usize, bytes: &'a mut [u8]) -> Scratch<'a> {
        let skip = bytes.as_ptr().align_offset(64);
        // SAFETY: every four bytes are an f32.
        let (_, mut rest, _) = unsafe { bytes[skip..].align_to_mut::<f32>() };
        let [queries, sums, totals, largest, weights, keys, values, key_scales, value_scales] =
            Self::lengths(layout, rows).map(|len| {
                let (part, after) = std::mem::take(&mut rest).split_at_mut(len);
                rest = after;
                part
            });
        Scratch { queries, sums, totals, largest, weights, keys, values, key_scales, value_scales }
    }
}

struct Attend<'a, 'b, 'p> {
    layout: &'a KvLayout,
    queries: &'a [Query<'a>],
    pages: &'a dyn Fn(usize) -> &'p [u8],
    then: Option<*const u8>,
    scale: f32,
    window_tokens: Option<usize>,
    out: &'a mut [&'b mut [f32]],
    scratch: &'a mut [u8],
}

impl Attend<'_, '_, '_> {
    /// Slots of page `page` that a query at `position` sees.
    fn seen(&self, page: usize, position: usize) -> Range<usize> {
        let slot = |position: usize| position.saturating_sub(page * PAGE).min(PAGE);
        slot(self.first_seen(position))..slot(position.saturating_add(1))
    }

    /// The first position that a query at `position` sees.
    fn first_seen(&self, position: usize) -> usize {
        self.window_tokens.map_or(0, |window| position.saturating_add(1).saturating_sub(window))
    }
}

impl Kernel for Attend<'_, '_, '_> {
    type Output = Result<(), KernelError>;

    #[inline(always)]
    fn run<V: Vector>(mut self, v: V) -> Result<(), KernelError> {
        let (layout, rows) = (self.layout, self.queries.len());
        let padded = layout.padded_dim();
        let bytes = std::mem::take(&mut self.scratch);
        let scratch = Scratch::new(layout, rows, bytes);

        // Weights are powers of two, so that the factor serves the change of base too.
        let scale = self.scale * LOG2_E;
        for (query, row) in self.queries.iter().zip(scratch.queries.chunks_exact_mut(padded)) {
            for (q, out) in query.q.iter().zip(row) {
                *out = q * scale;
            }
        }
        scratch.sums.fill(0.0);
        scratch.totals.fill(0.0);
        scratch.largest.fill(f32::NEG_INFINITY);
        let state = Rows {
            padded_dim: padded,
            head_dim: layout.head_dim(),
            queries: scratch.queries.as_ptr(),
            sums: scratch.sums.as_mut_ptr(),
            totals: scratch.totals.as_mut_ptr(),
            largest: scratch.largest.as_mut_ptr(),
            weights: scratch.weights.as_mut_ptr(),
        };

        let positions = || self.queries.iter().map(|query| query.position);
        let first = positions().map(|p| self.first_seen(p)).min().unwrap_or(0) / PAGE;
        let end = positions().max().map_or(0, |p| p / PAGE + 1);
        for page in first..end {
            let bytes = (self.pages)(page);
            KernelError::check("attention", bytes.len(), layout.head_bytes())?;
            let slots = positions().map(|p| self.seen(page, p).end).max().unwrap_or(0);
            let mut next = Next::default();
            let mut source = Source::new(v, layout, bytes, scratch.key_scales, scratch.value_scales);
            if rows > BLOCK_ROWS {
                // Several blocks share one conversion.
                // SAFETY: `source` reads from `bytes` and the scratch.
                source = unsafe { source.widen(v, layout, slots, scratch.keys, scratch.values) };
            } else {
                let following = (page + 1 < end).then(|| (self.pages)(page + 1).as_ptr());
                next.values =
                    Part { at: bytes[layout.values_at()..].as_ptr(), len: layout.values_len(slots) };
                if let Some(at) = following.or(self.then) {
                    next.keys = Part { at, len: layout.values_at() };
                }
            }
            let mut block = Block::default();
            for (row, query) in self.queries.iter().enumerate() {
                let seen = self.seen(page, query.position);
                if !seen.is_empty() {
                    let bias =
                        Bias { by_distance: query.bias, first: query.position.saturating_sub(page * PAGE) };
                    block.push(row, seen, bias);
                }
                if block.is_full() || row + 1 == rows {
                    // SAFETY: `row` is below `rows`, which `state` has; `source` reads from this page or the scratch.
                    unsafe { block.compute(v, source, state, next) };
                    block = Block::default();
                }
            }
        }

        for (row, out) in self.out.iter_mut().enumerate() {
            // SAFETY: a row of totals has as many floats as the longest vector has lanes.
            let total = v.sum(unsafe { v.load(scratch.totals[row * MAX_LANES..][..MAX_LANES].as_ptr()) });
            for (out, sum) in out.iter_mut().zip(&scratch.sums[row * padded..]) {
                *out = sum / total;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
