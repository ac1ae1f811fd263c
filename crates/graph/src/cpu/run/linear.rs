//! Linear steps: rows prepared once, then panels of all matrices shared out over the threads.

use super::{PLANNED, Run, Scratch, each_row};
use crate::cpu::plan::{
    Chunk, GATED_PANELS, GATED_ROWS, Gated, INT8_ROWS_TOGETHER, LinearPart, LinearStep, RowSource,
    WIDE_BLOCK, WIDE_ROWS, Work, private_rows,
};
use crate::cpu::shared::{as_bytes, matmul_apart};
use crate::cpu::threads::{Panicked, Worker};
use kun_kernels::elementwise;
use kun_kernels::linear::{After, Panels, prepare};
use std::ops::Range;

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
    let is_there = step.direct || matches!(step.source, RowSource::Prepared);
    let private_count = if is_there { 0 } else { private_rows(t, step.k) };
    if !is_there && private_count == 0 {
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
    let (most, together) = match step.gated {
        _ if wide => (WIDE_BLOCK, ROWS_TOGETHER),
        Some(_) => (GATED_ROWS, INT8_ROWS_TOGETHER),
        None => (t, 1),
    };
    // Blocks of one size, whole groups of the rows that kernels take together, so that threads end together.
    let block = t.div_ceil(t.div_ceil(most)).next_multiple_of(together);
    let blocks = t.div_ceil(block);
    let body = |task: usize| {
        let rows = task % blocks * block..((task % blocks + 1) * block).min(t);
        if !is_prepared {
            // Inside a task, while the operands are sure to be there still.
            prepare_all(run, step, t, row_scratch, private);
            is_prepared = true;
        }
        let chunk = &chunks[task / blocks];
        // Many rows go over the same weights many times, and would ask each time.
        let many = wide || t > GATED_ROWS;
        let after = if many { None } else { after(run, step, worker.index, task) };
        let after = after.unwrap_or(After::UNKNOWN);
        let private = (private_count > 0).then_some(&private[..]);
        match &step.gated {
            Some(gated) => {
                let scratch = (&mut **row_scratch, &mut **kernel);
                multiply_gated(run, step, gated, (chunk, after), t, rows, private, scratch);
            }
            None => multiply(run, step, (chunk, after), t, rows, private, kernel),
        }
    };
    match step.chunks.firsts.as_slice() {
        firsts if firsts.len() == worker.threads + 1 && !wide => {
            worker.phase_from(|i| firsts[i] * blocks, body)
        }
        _ => worker.phase_by_place(chunks.len() * blocks, body),
    }
}

/// What thread `thread` multiplies after one of its own tasks.
fn after(run: &Run<'_>, step: &LinearStep, thread: usize, task: usize) -> Option<After> {
    let own =
        |step: &LinearStep| Some(*step.chunks.firsts.get(thread)?..*step.chunks.firsts.get(thread + 1)?);
    let rest = own(step).filter(|own| own.contains(&task)).map(|own| &step.chunks.all[task..own.end])?;
    // Its tasks follow each other in one matrix, then in another, then in the next linear step.
    let matrix = rest[0].matrix;
    let here = rest.iter().take_while(|chunk| chunk.matrix == matrix);
    let until = here.last()?.panels.end;
    let (step, next) = match rest.iter().find(|chunk| chunk.matrix != matrix) {
        Some(next) => (step, next),
        None => match &run.plan.steps[step.next?].work {
            Work::Linear(next) => (next, next.chunks.all.get(own(next)?.start)?),
            _ => return None,
        },
    };
    Some(After { until, then: weights_at(run, &step.parts[next.matrix], next.panels.start) })
}

/// Where a panel of a matrix begins.
fn weights_at(run: &Run<'_>, part: &LinearPart, panel: usize) -> *const u8 {
    run.weights.address(run.plan.matrices[part.matrix].offset + panel * part.layout.panel_bytes())
}

/// Multiplies the rows `rows` of `t` with a chunk, with `after` to come; `private` holds all rows if this thread prepared them
/// for itself.
fn multiply(
    run: &Run<'_>,
    step: &LinearStep,
    (chunk, after): (&Chunk, After),
    t: usize,
    rows: Range<usize>,
    private: Option<&[u8]>,
    kernel: &mut [u8],
) {
    let part = &step.parts[chunk.matrix];
    let x = operand(run, step, part.format, t, rows.clone(), private);
    let (n, _) = part.layout.shape();
    let out = run.columns(part.out, t, n);
    if let Some(residual) = step.residual.filter(|r| run.place(*r) != run.place(part.out)) {
        let columns = part.layout.columns(&chunk.panels);
        for row in rows.clone() {
            out.row_mut(row, columns.clone()).copy_from_slice(run.read(
                residual,
                row * n + columns.start,
                columns.len(),
            ));
        }
    }
    let (packed, bias) = weights(run, part);
    let panels = Panels { packed, range: chunk.panels.clone(), after };
    out.matmul(rows.clone(), &part.layout, panels, x, bias, step.residual.is_some(), kernel).expect(PLANNED);
    if let Some(function) = part.function {
        let columns = part.layout.columns(&chunk.panels);
        for row in rows {
            elementwise::unary_in_place(run.isa(), function, out.row_mut(row, columns.clone()));
        }
    }
}

/// Multiplies the rows `rows` of `t`, at most [`GATED_ROWS`], with a chunk of both matrices, some panels at a time, and prepares
/// what is made of the results, which stay in the scratch.
fn multiply_gated(
    run: &Run<'_>,
    step: &LinearStep,
    gated: &Gated,
    (chunk, after): (&Chunk, After),
    t: usize,
    rows: Range<usize>,
    private: Option<&[u8]>,
    (scratch, kernel): (&mut [f32], &mut [u8]),
) {
    let [gate, up] = &step.parts[..] else { unreachable!("a gate and what it is applied to") };
    for first in chunk.panels.clone().step_by(GATED_PANELS) {
        let panels = first..(first + GATED_PANELS).min(chunk.panels.end);
        let columns = gate.layout.columns(&panels);
        let width = columns.len();
        let parts = gated.out.parts(columns);
        let (gates, rest) = scratch.split_at_mut(rows.len() * width);
        let (ups, rest) = rest.split_at_mut(rows.len() * width);
        // The panels of both take turns.
        let turn = |then: *const u8| After { until: panels.end, then };
        let ends = panels.end >= after.until;
        let next = if ends { after.then } else { weights_at(run, gate, panels.end) };
        let both =
            [(gate, &mut *gates, turn(weights_at(run, up, panels.start))), (up, &mut *ups, turn(next))];
        for (part, out, after) in both {
            let x = operand(run, step, part.format, t, rows.clone(), private);
            let (packed, bias) = weights(run, part);
            let panels = Panels { packed, range: panels.clone(), after };
            matmul_apart(&part.layout, panels, x, bias, out, kernel).expect(PLANNED);
        }
        let made = &mut rest[..width];
        let results = gates.chunks_exact(width).zip(ups.chunks_exact(width));
        for (row, (gate, up)) in rows.clone().zip(results) {
            elementwise::gated(run.isa(), gated.op, gate, up, made).expect(PLANNED);
            run.prepare_columns(&gated.out, row, &parts, made);
        }
    }
}

/// The bytes and the bias of a matrix.
fn weights<'s>(run: &Run<'s>, part: &LinearPart) -> (&'s [u8], Option<&'s [f32]>) {
    let matrix = &run.plan.matrices[part.matrix];
    let packed = run.weights.bytes(matrix.offset..matrix.offset + matrix.bytes);
    (packed, part.bias.map(|bias| run.constants[bias].as_slice()))
}

/// The rows `rows` of `t` as format `format` of the step wants them.
fn operand<'s>(
    run: &Run<'s>,
    step: &LinearStep,
    format: usize,
    t: usize,
    rows: Range<usize>,
    private: Option<&'s [u8]>,
) -> &'s [u8] {
    let (of_matrix, at) = step.prepared[format];
    let row_bytes = of_matrix.row_bytes(step.k);
    match (&step.source, private) {
        (RowSource::Copy { x }, _) if step.direct => {
            as_bytes(run.read(*x, rows.start * step.k, rows.len() * step.k))
        }
        (_, Some(private)) => {
            let before: usize = step.prepared[..format].iter().map(|(f, _)| t * f.row_bytes(step.k)).sum();
            &private[before + rows.start * row_bytes..before + rows.end * row_bytes]
        }
        _ => {
            let start = run.arena_offset(at);
            run.arena.bytes(start + rows.start * row_bytes..start + rows.end * row_bytes)
        }
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
