//! Attention to rows that the caller keeps: an encoded source, which all its continuations share.

use super::{PLANNED, Run, Scratch};
use crate::cpu::plan::CrossAttentionStep;
use crate::cpu::threads::{Panicked, Worker};
use kun_kernels::self_attention::{HeadRows, SelfAttention};
use std::ops::Range;

/// Tokens beside each other that see the same rows.
struct Group {
    tokens: Range<usize>,
    rows: Range<usize>,
}

fn groups(spans: &[i32]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (t, span) in spans.chunks_exact(2).enumerate() {
        let rows = span[0] as usize..span[1] as usize;
        match groups.last_mut() {
            Some(group) if group.rows == rows => group.tokens.end = t + 1,
            _ => groups.push(Group { tokens: t..t + 1, rows }),
        }
    }
    groups
}

fn part(data: &[f32], first: usize, row_stride: usize) -> HeadRows<'_> {
    HeadRows { data: &data[first..], row_stride }
}

pub(super) fn attention(
    run: &Run<'_>,
    step: &CrossAttentionStep,
    worker: &Worker<'_>,
    scratch: &mut Scratch<'_>,
) -> Result<(), Panicked> {
    let spec = &step.spec;
    let (heads, dh, width) = (spec.heads, spec.head_dim, spec.heads * spec.head_dim);
    let spans = run.indices(step.spans);
    let (t, groups) = (spans.len() / 2, groups(spans));
    let end = groups.iter().map(|group| group.rows.end).max().unwrap_or(0);
    worker.phase(groups.len() * heads, |task| {
        let (group, column) = (&groups[task / heads], task % heads * dh);
        let rows = group.rows.clone();
        let (k, v) = (run.read(step.k, 0, end * width), run.read(step.v, 0, end * width));
        let q = run.read(step.q, 0, t * width);
        let out = run.columns(step.out, t, width);
        // The kernel takes as many queries as there are keys.
        for first in group.tokens.clone().step_by(rows.len()) {
            let task = SelfAttention {
                tokens: rows.len(),
                queries: part(q, first * width + column, width),
                first_query: 0,
                query_count: rows.len().min(group.tokens.end - first),
                keys: part(k, rows.start * width + column, width),
                values: part(v, rows.start * width + column, width),
                head_dim: dh,
                scale: spec.scale,
                reach: None,
                bias: None,
                mask: None,
            };
            out.attend(run.isa(), &task, first, column, scratch.kernel).expect(PLANNED);
        }
    })
}
