//! Linear steps: rows prepared once, then panels of all matrices shared out over the threads.

use super::{PLANNED, Run, Scratch, each_row};
use crate::cpu::plan::{LinearStep, RowSource, WIDE_BLOCK, WIDE_ROWS, private_rows};
use crate::cpu::shared::as_bytes;
use crate::cpu::threads::{Panicked, Worker};
use kun_kernels::elementwise;
use kun_kernels::linear::prepare;

/// Rows that kernels of plain types multiply together.
const ROWS_TOGETHER: usize = 6;

pub(super) fn run(
    run: &Run<'_>,
    step: &LinearStep,
    worker: &Worker<'_>,
    scratch: &mut Scratch<'_>,
) -> Result<(), Panicked> {
    let t = run.count(&step.rows);
    if t == 0 {
        return Ok(());
    }
    let Scratch { row: row_scratch, prepared: private, kernel } = scratch;
    let private_count = if step.direct { 0 } else { private_rows(t, step.k) };
    if !step.direct && private_count == 0 {
        each_row(worker, t, step.k, |row| {
            let values = made_row(run, step, row, row_scratch);
            for (format, at) in &step.prepared {
                let bytes = format.row_bytes(step.k);
                let start = run.arena_offset(*at) + row * bytes;
                let out = run.arena.bytes_mut(start..start + bytes);
                prepare(run.isa(), *format, step.k, values, out).expect(PLANNED);
            }
        })?;
    }

    let mut is_prepared = private_count == 0;
    let wide = t >= WIDE_ROWS && !step.wide_chunks.is_empty();
    let chunks = if wide { &step.wide_chunks } else { &step.chunks.all };
    // Blocks of one size, whole groups of the rows that kernels take together, so that threads end together.
    let blocks = if wide { t.div_ceil(WIDE_BLOCK) } else { 1 };
    let block = if wide { t.div_ceil(blocks).next_multiple_of(ROWS_TOGETHER) } else { t };
    let blocks = t.div_ceil(block);
    let multiply = |task: usize| {
        let rows = task % blocks * block..((task % blocks + 1) * block).min(t);
        if !is_prepared {
            // Inside a task, while the operands are sure to be there still.
            prepare_all(run, step, t, row_scratch, private);
            is_prepared = true;
        }
        let chunk = &chunks[task / blocks];
        let part = &step.parts[chunk.matrix];
        let (format, at) = step.prepared[part.format];
        let row_bytes = format.row_bytes(step.k);
        let x = match &step.source {
            RowSource::Copy { x } if step.direct => {
                as_bytes(run.read(*x, rows.start * step.k, rows.len() * step.k))
            }
            _ if private_count > 0 => {
                let before: usize =
                    step.prepared[..part.format].iter().map(|(f, _)| t * f.row_bytes(step.k)).sum();
                &private[before + rows.start * row_bytes..before + rows.end * row_bytes]
            }
            _ => {
                let start = run.arena_offset(at);
                run.arena.bytes(start + rows.start * row_bytes..start + rows.end * row_bytes)
            }
        };
        let (n, _) = part.layout.shape();
        let out = run.columns(part.out, t, n);
        if let Some(residual) = step.residual.filter(|r| run.place(*r) != run.place(part.out)) {
            let columns = chunk.columns(n);
            for row in rows.clone() {
                out.row_mut(row, columns.clone()).copy_from_slice(run.read(
                    residual,
                    row * n + columns.start,
                    columns.len(),
                ));
            }
        }
        let matrix = &run.plan.matrices[part.matrix];
        let packed = run.weights.bytes(matrix.offset..matrix.offset + matrix.bytes);
        let bias = part.bias.map(|bias| run.constants[bias].as_slice());
        let panels = chunk.panels.clone();
        out.matmul(rows.clone(), &part.layout, packed, x, panels, bias, step.residual.is_some(), kernel)
            .expect(PLANNED);
        if let Some(function) = part.function {
            let columns = chunk.columns(n);
            for row in rows {
                elementwise::unary_in_place(run.isa(), function, out.row_mut(row, columns.clone()));
            }
        }
    };
    match step.chunks.firsts.as_slice() {
        firsts if firsts.len() == worker.threads + 1 && !wide => worker.phase_from(|i| firsts[i], multiply),
        _ => worker.phase_by_place(chunks.len() * blocks, multiply),
    }
}

/// Prepares all rows for one thread, format after format.
fn prepare_all(run: &Run<'_>, step: &LinearStep, t: usize, row_scratch: &mut [f32], private: &mut [u8]) {
    for row in 0..t {
        let mut start = 0;
        let values = made_row(run, step, row, row_scratch);
        for (format, _) in &step.prepared {
            let bytes = format.row_bytes(step.k);
            let out = &mut private[start + row * bytes..start + (row + 1) * bytes];
            prepare(run.isa(), *format, step.k, values, out).expect(PLANNED);
            start += t * bytes;
        }
    }
}

/// One row of the operand: where it lies, or made in `scratch`.
fn made_row<'s>(run: &Run<'s>, step: &LinearStep, row: usize, scratch: &'s mut [f32]) -> &'s [f32] {
    match &step.source {
        RowSource::Copy { x } => run.read(*x, row * step.k, step.k),
        source => {
            let out = &mut scratch[..step.k];
            run.row(source, row, step.k, out);
            out
        }
    }
}
