//! Attention steps: norms and turns of heads, the write to the cache, and the look at it.

use super::{PLANNED, Run, Scratch};
use crate::backend::{PAGE_TOKENS, Sequence};
use crate::cpu::plan::{ATTENTION_ROWS, AttentionStep, HeadWork};
use crate::cpu::threads::{Panicked, Worker};
use kun_kernels::attention::{Query, attend};
use kun_kernels::norm;

/// Query tokens of one sequence that make one task per key/value head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tile {
    sequence: usize,
    /// Row of its first token in the batch.
    row: usize,
    /// Position of its first token.
    position: usize,
    tokens: usize,
}

/// Tokens of one sequence that go to one page: written by one task per head, so that threads never share a cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageRun {
    page: u32,
    slot: usize,
    row: usize,
    tokens: usize,
}

/// Query tokens in a tile.
const TILE_TOKENS: usize = 16;

/// Tiles of all sequences, those that look at most positions first.
pub(crate) fn tiles(sequences: &[Sequence<'_>]) -> Vec<Tile> {
    let mut tiles = Vec::new();
    let mut row = 0;
    for (index, sequence) in sequences.iter().enumerate() {
        for first in (0..sequence.tokens).step_by(TILE_TOKENS) {
            let tokens = TILE_TOKENS.min(sequence.tokens - first);
            let position = sequence.start + first;
            tiles.push(Tile { sequence: index, row: row + first, position, tokens });
        }
        row += sequence.tokens;
    }
    tiles.sort_by_key(|tile| std::cmp::Reverse(tile.tokens * (tile.position + tile.tokens)));
    tiles
}

/// The new tokens of all sequences, cut at the borders of pages.
pub(crate) fn page_runs(sequences: &[Sequence<'_>]) -> Vec<PageRun> {
    let mut runs = Vec::new();
    let mut row = 0;
    for sequence in sequences {
        let (mut position, end) = (sequence.start, sequence.start + sequence.tokens);
        while position < end {
            let slot = position % PAGE_TOKENS;
            let tokens = (PAGE_TOKENS - slot).min(end - position);
            runs.push(PageRun { page: sequence.pages[position / PAGE_TOKENS], slot, row, tokens });
            position += tokens;
            row += tokens;
        }
    }
    runs
}

pub(super) fn run(
    run: &Run<'_>,
    step: &AttentionStep,
    worker: &Worker<'_>,
    scratch: &mut Scratch<'_>,
) -> Result<(), Panicked> {
    let heads = step.pages.layout.kv_heads();
    // With one token a sequence, nobody but the task that writes a key looks at it: one phase is enough.
    let alone = run.bound.sequences.iter().all(|sequence| sequence.tokens == 1);
    if !alone {
        worker.phase(run.pages.len() * heads, |task| {
            write(run, step, &run.pages[task / heads], task % heads, scratch);
        })?;
    }
    worker.phase_by_place(run.tiles.len() * heads, |task| {
        let (tile, head) = (&run.tiles[task / heads], task % heads);
        if !alone {
            return look(run, step, tile, head, None, scratch);
        }
        let last_page = |tile: &Tile| {
            let page = run.bound.sequences[tile.sequence].pages[tile.position / PAGE_TOKENS];
            PageRun { page, slot: tile.position % PAGE_TOKENS, row: tile.row, tokens: 1 }
        };
        write(run, step, &last_page(tile), head, scratch);
        // What the next task is about to touch is asked for while this one works.
        let (next, head_of_next) = (run.tiles.get((task + 1) / heads), (task + 1) % heads);
        if let Some(to) = next.map(last_page) {
            let part = run.cache.head_address(&step.pages, to.page, head_of_next);
            step.pages.layout.prefetch_slot(run.isa(), part, to.slot);
        }
        let then = next.map(|tile| first_page(run, step, tile, head_of_next));
        look(run, step, tile, head, then, scratch);
    })
}

impl<'a> Run<'a> {
    /// Biases of a query head by distance.
    fn backward(&self, index: usize, head: usize) -> &'a [f32] {
        let distances = self.plan.backward[index].distances();
        &self.constants[self.plan.constants.len() + index][head * distances..][..distances]
    }
}

/// Norms and turns the heads `x` of the token in row `row`, in place.
fn work_on(
    run: &Run<'_>,
    work: &HeadWork,
    head_dim: usize,
    row: usize,
    x: &mut [f32],
    temporary: &mut [f32],
) {
    if let Some((weight, eps)) = work.norm {
        let copy = &mut temporary[..x.len()];
        copy.copy_from_slice(x);
        norm::rms_norm(run.isa(), copy, &run.constants[weight], eps, x).expect(PLANNED);
    }
    if let Some(turn) = &work.turn {
        run.turn(turn, head_dim, row, x);
    }
}

/// Puts the keys and values of one head into one page.
fn write(run: &Run<'_>, step: &AttentionStep, to: &PageRun, head: usize, scratch: &mut Scratch<'_>) {
    let layout = &step.pages.layout;
    let (dh, width) = (layout.head_dim(), layout.kv_heads() * layout.head_dim());
    let page = run.cache.head_mut(&step.pages, to.page, head);
    for i in 0..to.tokens {
        let at = (to.row + i) * width + head * dh;
        let key = if step.k_work == HeadWork::default() {
            run.read(step.k, at, dh)
        } else {
            let key = run.write(step.k, at, dh);
            work_on(run, &step.k_work, dh, to.row + i, key, scratch.row);
            key
        };
        layout.write(run.isa(), page, to.slot + i, key, run.read(step.v, at, dh)).expect(PLANNED);
    }
}

/// Where one head's part of the first page is that a tile looks at.
fn first_page(run: &Run<'_>, step: &AttentionStep, tile: &Tile, head: usize) -> *const u8 {
    let first = step.window_tokens.map_or(0, |window| (tile.position + 1).saturating_sub(window));
    let page = run.bound.sequences[tile.sequence].pages[first / PAGE_TOKENS];
    run.cache.head_address(&step.pages, page, head)
}

/// Attention of the queries of a tile that share one key/value head; `then` is where the next one begins.
fn look(
    run: &Run<'_>,
    step: &AttentionStep,
    tile: &Tile,
    head: usize,
    then: Option<*const u8>,
    scratch: &mut Scratch<'_>,
) {
    let layout = &step.pages.layout;
    let dh = layout.head_dim();
    let (group, width) = (step.heads / layout.kv_heads(), step.heads * dh);
    let first = head * group * dh;
    if step.q_work != HeadWork::default() {
        for i in 0..tile.tokens {
            let row = tile.row + i;
            let queries = run.write(step.q, row * width + first, group * dh);
            work_on(run, &step.q_work, dh, row, queries, scratch.row);
        }
    }
    let pages = run.bound.sequences[tile.sequence].pages;
    let page = |index: usize| run.cache.head(&step.pages, pages[index], head);
    let mut queries = [Query { q: &[], position: 0, bias: &[] }; ATTENTION_ROWS];
    let mut out: [&mut [f32]; ATTENTION_ROWS] = std::array::from_fn(|_| &mut [][..]);
    let rows = tile.tokens * group;
    for start in (0..rows).step_by(ATTENTION_ROWS) {
        let count = ATTENTION_ROWS.min(rows - start);
        for (i, (query, out)) in queries.iter_mut().zip(&mut out).take(count).enumerate() {
            let (token, member) = ((start + i) / group, (start + i) % group);
            let at = (tile.row + token) * width + first + member * dh;
            let bias = step.bias.map_or(&[][..], |index| run.backward(index, head * group + member));
            *query = Query { q: run.read(step.q, at, dh), position: tile.position + token, bias };
            *out = run.write(step.out, at, dh);
        }
        attend(
            run.isa(),
            layout,
            &queries[..count],
            &page,
            then,
            step.scale,
            step.window_tokens,
            &mut out[..count],
            scratch.kernel,
        )
        .expect(PLANNED);
    }
    if let Some(prepared) = &step.prepared {
        let parts = prepared.parts(first..first + group * dh);
        for row in tile.row..tile.row + tile.tokens {
            let made = run.read(step.out, row * width + first, group * dh);
            run.prepare_columns(prepared, row, &parts, made);
        }
    }
}
