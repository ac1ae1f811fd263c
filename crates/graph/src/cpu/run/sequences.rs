//! Steps in which the tokens of a sequence meet without a cache: attention in both directions, and pooling.

use super::{PLANNED, Run, Scratch, each_row};
use crate::backend::Sequence;
use crate::cpu::plan::{DisentangledStep, SelfAttentionStep, Slot};
use crate::cpu::shared::split_floats;
use crate::cpu::threads::{Panicked, Worker};
use crate::graph::{DisentangledSpec, Pool};
use kun_kernels::self_attention::{self, HeadRows, SelfAttention, dot_products};

/// Queries of one sequence that make one task per head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Row of the sequence's first token in the batch.
    row: usize,
    /// Tokens of the sequence.
    tokens: usize,
    /// The first query, counted in the sequence.
    first: usize,
    queries: usize,
}

/// Queries of a task: many, since each task lays out all keys of its sequence.
const STRETCH_QUERIES: usize = 192;

/// The stretches of all sequences, those with most work first.
pub(crate) fn stretches(sequences: &[Sequence<'_>]) -> Vec<Stretch> {
    let mut stretches = Vec::new();
    let mut row = 0;
    for sequence in sequences {
        let tokens = sequence.tokens;
        // Of one size, so that threads end together.
        let count = tokens.div_ceil(STRETCH_QUERIES).max(1);
        let size = tokens.div_ceil(count).max(1);
        stretches.extend((0..tokens).step_by(size).map(|first| {
            let queries = size.min(tokens - first);
            Stretch { row, tokens, first, queries }
        }));
        row += tokens;
    }
    stretches.sort_by_key(|stretch| std::cmp::Reverse(stretch.queries * stretch.tokens));
    stretches
}

fn longest(run: &Run<'_>) -> usize {
    run.bound.sequences.iter().map(|sequence| sequence.tokens).max().unwrap_or(1)
}

/// Works out the biases of all heads for the longest sequence.
pub(super) fn distance_table(run: &Run<'_>, table: usize, worker: &Worker<'_>) -> Result<(), Panicked> {
    let table = &run.plan.distances[table];
    let longest = longest(run);
    let width = 2 * longest - 1;
    let values = &run.constants[table.constant];
    each_row(worker, table.heads, width * 16, |head| {
        let row = run.write(table.out, head * width, width);
        for (bias, distance) in row.iter_mut().zip(1 - longest as i64..) {
            *bias = table.bias.value(values, table.heads, head, distance);
        }
    })
}

/// Scores that are worth a task of their own.
const TASK_SCORES: usize = 4096;

pub(super) fn attention(
    run: &Run<'_>,
    step: &SelfAttentionStep,
    worker: &Worker<'_>,
    scratch: &mut Scratch<'_>,
) -> Result<(), Panicked> {
    let spec = &step.spec;
    let (heads, dh, group) = (spec.heads, spec.head_dim, spec.heads / spec.kv_heads);
    let (width, kv_width) = (heads * dh, spec.kv_heads * dh);
    let t: usize = run.bound.sequences.iter().map(|sequence| sequence.tokens).sum();
    let longest = longest(run);
    let bias_width = 2 * longest - 1;
    // Small tasks go together: neighbours in the list are of like size.
    let first = run.stretches.first().map_or(1, |s| s.queries * s.tokens);
    let together = (TASK_SCORES / first.max(1)).clamp(1, heads * 4);
    let count = run.stretches.len() * heads;
    worker.phase(count.div_ceil(together), |task| {
        let (q, k, v) = (
            run.read(step.q, 0, t * width),
            run.read(step.k, 0, t * kv_width),
            run.read(step.v, 0, t * kv_width),
        );
        let biases = step.distances.map(|table| {
            let table = &run.plan.distances[table];
            run.read(table.out, 0, heads * bias_width)
        });
        let out = run.columns(step.out, t, width);
        for index in task * together..((task + 1) * together).min(count) {
            let (stretch, head) = (&run.stretches[index / heads], index % heads);
            let Stretch { row, tokens, first, queries } = *stretch;
            let (column, kv_column) = (head * dh, head / group * dh);
            let rows = |data, row_stride| HeadRows { data, row_stride };
            let task = SelfAttention {
                tokens,
                queries: rows(&q[(row + first) * width + column..], width),
                first_query: first,
                query_count: queries,
                keys: rows(&k[row * kv_width + kv_column..], kv_width),
                values: rows(&v[row * kv_width + kv_column..], kv_width),
                head_dim: dh,
                scale: spec.scale,
                reach: spec.reach,
                bias: biases.map(|b| &b[head * bias_width + longest - tokens..][..2 * tokens - 1]),
                mask: None,
            };
            out.attend(run.isa(), &task, row + first, column, scratch.kernel).expect(PLANNED);
        }
    })
}

/// Floats of a task's part of the scratch, in order: products with the distances of keys, those with the distances of
/// queries, and their sum for each query and key.
fn disentangled_parts(tokens: usize, spec: &DisentangledSpec) -> [usize; 3] {
    let (queries, rows) = (tokens.min(STRETCH_QUERIES), 2 * spec.span.min(tokens));
    let products = |count| self_attention::dot_len(count, rows);
    [products(queries), products(tokens), queries * tokens]
}

/// Bytes of scratch of one thread for sequences of up to `tokens` tokens.
pub(crate) fn disentangled_scratch(tokens: usize, spec: &DisentangledSpec) -> usize {
    let floats: usize = disentangled_parts(tokens, spec).iter().sum();
    let attention = self_attention::scratch_bytes(tokens, spec.head_dim);
    let dots = self_attention::dot_scratch_bytes(2 * spec.span.min(tokens), spec.head_dim);
    floats * 4 + attention.max(dots) + 64
}

/// Attention of one head over content and distances.
pub(super) fn disentangled(
    run: &Run<'_>,
    step: &DisentangledStep,
    worker: &Worker<'_>,
    scratch: &mut Scratch<'_>,
) -> Result<(), Panicked> {
    let spec = &step.spec;
    let (heads, dh) = (spec.heads, spec.head_dim);
    let width = heads * dh;
    let t: usize = run.bound.sequences.iter().map(|sequence| sequence.tokens).sum();
    worker.phase(run.stretches.len() * heads, |task| {
        let (stretch, head) = (&run.stretches[task / heads], task % heads);
        let Stretch { row, tokens, first, queries } = *stretch;
        let at = |slot: Slot, row: usize| HeadRows {
            data: &run.read(slot, 0, t * width)[row * width + head * dh..],
            row_stride: width,
        };
        let (q, k, v) = (at(step.q, row + first), at(step.k, row), at(step.v, row));
        // The rows of the tables that this sequence needs, without a gap.
        let far = tokens as i64 - 1;
        let (low, high) = (spec.row(-far), spec.row(far));
        let count = high - low + 1;
        let stride = count.next_multiple_of(16);
        let [keys_len, queries_len, sum_len] = disentangled_parts(tokens, spec);
        let (floats, kernel) = split_floats(scratch.kernel, keys_len + queries_len + sum_len);
        let (to_position, rest) = floats.split_at_mut(keys_len);
        let (to_content, sum) = rest.split_at_mut(queries_len);
        let sum = &mut sum[..queries * tokens];
        sum.fill(0.0);
        for (which, (rows, n)) in [(q, queries), (k, tokens)].into_iter().enumerate() {
            let Some(slot) = step.distances[which] else { continue };
            let table = &run.read(slot, 0, 2 * spec.span * width)[low * width + head * dh..];
            let columns = (HeadRows { data: table, row_stride: width }, count);
            let out = if which == 0 { &mut *to_position } else { &mut *to_content };
            dot_products(run.isa(), (rows, n), columns, dh, out, kernel).expect(PLANNED);
        }
        // By distance, since a logarithm for each score would take longer than the score.
        let rows: Vec<u32> = (-far..=far).map(|distance| (spec.row(distance) - low) as u32).collect();
        for (i, line) in sum.chunks_exact_mut(tokens).enumerate() {
            for (j, sum) in line.iter_mut().enumerate() {
                let column = rows[first + i + tokens - 1 - j] as usize;
                if step.distances[0].is_some() {
                    *sum += to_position[i * stride + column];
                }
                if step.distances[1].is_some() {
                    *sum += to_content[j * stride + column];
                }
                *sum *= spec.scale;
            }
        }
        let task = SelfAttention {
            tokens,
            queries: q,
            first_query: first,
            query_count: queries,
            keys: k,
            values: v,
            head_dim: dh,
            scale: spec.scale,
            reach: None,
            bias: None,
            mask: Some(sum),
        };
        let out = run.columns(step.out, t, width);
        out.attend(run.isa(), &task, row + first, head * dh, kernel).expect(PLANNED);
    })
}

pub(super) fn pool(
    run: &Run<'_>,
    pool: Pool,
    (x, width): (Slot, usize),
    out: Slot,
    worker: &Worker<'_>,
) -> Result<(), Panicked> {
    let sequences = run.bound.sequences;
    let mut firsts = Vec::with_capacity(sequences.len());
    let mut row = 0;
    for sequence in sequences {
        firsts.push(row);
        row += sequence.tokens;
    }
    let tokens = row / sequences.len().max(1);
    each_row(worker, sequences.len(), width * tokens.max(1), |index| {
        let n = sequences[index].tokens;
        let rows = run.read(x, firsts[index] * width, n * width);
        let to = run.write(out, index * width, width);
        to.copy_from_slice(&rows[..width]);
        for (i, row) in rows.chunks_exact(width).enumerate().skip(1) {
            let both = to.iter_mut().zip(row);
            match pool {
                Pool::Mean | Pool::MeanRoot => both.for_each(|(to, x)| *to += x),
                Pool::Max => both.for_each(|(to, x)| *to = to.max(*x)),
                Pool::Weighted => both.for_each(|(to, x)| *to += x * (i + 1) as f32),
            }
        }
        let divisor = match pool {
            Pool::Mean => n as f32,
            Pool::MeanRoot => (n as f32).sqrt(),
            Pool::Weighted => (n * (n + 1) / 2) as f32,
            Pool::Max => return,
        };
        to.iter_mut().for_each(|to| *to /= divisor);
    })
}
