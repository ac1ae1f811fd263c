//! Element-wise programs and other work on rows.

use super::products::row_stride;
use super::{PIECE, PLANNED, part};
use crate::cpu::{Panicked, Worker};
use crate::fast::memory::{Memory, Thread};
use crate::fast::view::View;
use crate::ops::ReduceKind;
use kun_kernels::Isa;
use kun_kernels::chain::{self, Operand, Out};
use kun_kernels::gemm::quads::Code;
use kun_kernels::pool::add_rows;
use kun_kernels::reduce::{self, Reduction};
use std::ops::Range;

/// An element-wise program over dimensions that lie in the order of the result.
#[derive(Debug)]
pub(crate) struct ChainStep {
    pub steps: Vec<chain::Step>,
    pub inputs: Vec<View>,
    pub out: View,
    /// What the codes of each input stand for, of those that are held as codes.
    pub codes: Vec<Option<Code>>,
    /// What those of the result do.
    pub code: Option<Code>,
}

/// Parts of an image whose rows are added up on their own, whatever threads there are.
pub(crate) const MEAN_PARTS: usize = 4;

/// The mean of all pixels; the channels of a pixel lie together. `sums` is `[MEAN_PARTS, N, C]`.
///
/// Parts are of rows, not channels, as the threads that made the rows have them in their caches.
pub(super) fn mean(
    isa: Isa,
    [x, sums, out]: [&View; 3],
    memory: &Memory<'_>,
    worker: &Worker<'_>,
) -> Result<(), Panicked> {
    let &[batch, channels, height, width] = &x.shape[..] else { unreachable!("images have four dimensions") };
    let whole = batch * channels;
    worker.phase_by_place(batch * MEAN_PARTS, |task| {
        let (image, index) = (task / MEAN_PARTS, task % MEAN_PARTS);
        let to = memory.region(sums).row_mut(index * whole + image * channels, channels);
        to.fill(0.0);
        for row in part(height, MEAN_PARTS, index) {
            let from = &memory.read(x)[image * x.strides[0] + row * x.strides[2]..];
            add_rows(isa, from, width, x.strides[3], to).expect(PLANNED);
        }
    })?;
    worker.phase_by_place(1, |_| {
        let to = memory.region(out).row_mut(0, whole);
        to.fill(0.0);
        add_rows(isa, memory.read(sums), MEAN_PARTS, whole, to).expect(PLANNED);
        let factor = 1.0 / (height * width) as f32;
        to.iter_mut().for_each(|x| *x *= factor);
    })
}

/// Some dimensions reduced to one number each: `[outer, reduced, inner]` to `[outer, inner]`, both without gaps.
#[derive(Debug)]
pub(crate) struct ReduceStep {
    pub x: View,
    pub out: View,
    pub sizes: [usize; 3],
    pub kind: ReduceKind,
}

impl ReduceStep {
    pub(super) fn run(&self, isa: Isa, memory: &Memory<'_>, worker: &Worker<'_>) -> Result<(), Panicked> {
        let [outer, reduced, inner] = self.sizes;
        let reduction = match self.kind {
            ReduceKind::L1 => Reduction::Magnitudes,
            ReduceKind::L2 | ReduceKind::SumSquare => Reduction::Squares,
            ReduceKind::Max => Reduction::Max,
            ReduceKind::Min => Reduction::Min,
            ReduceKind::Sum | ReduceKind::Mean | ReduceKind::LogSum => Reduction::Sum,
            ReduceKind::LogSumExp | ReduceKind::Prod => unreachable!("not lowered"),
        };
        let last = |x: f32| match self.kind {
            ReduceKind::Mean => x / reduced as f32,
            ReduceKind::L2 => x.sqrt(),
            ReduceKind::LogSum => x.ln(),
            _ => x,
        };
        // Columns of a part, so that a row of it is worth a task.
        let width = inner.min(PIECE / 8);
        let parts = inner.div_ceil(width);
        let group = (PIECE / (reduced * width)).max(1);
        let tasks = outer * parts;
        worker.phase_by_place(tasks.div_ceil(group), |task| {
            let data = memory.read(&self.x);
            for at in task * group..((task + 1) * group).min(tasks) {
                let (row, first) = (at / parts, at % parts * width);
                let columns = width.min(inner - first);
                let to = memory.region(&self.out).row_mut(row * inner + first, columns);
                let from = &data[row * reduced * inner + first..];
                if inner == 1 {
                    to[0] = reduce::row(isa, reduction, &from[..reduced]);
                } else {
                    reduce::rows(isa, reduction, from, reduced, inner, to).expect(PLANNED);
                }
                to.iter_mut().for_each(|x| *x = last(*x));
            }
        })
    }
}

/// Calls `body` for all rows, several at a time if they lie together; the width is between operand and result.
pub(super) fn each_row(
    [x, out]: [&View; 2],
    memory: &Memory<'_>,
    worker: &Worker<'_>,
    mut body: impl FnMut(&[f32], usize, &mut [f32]),
) -> Result<(), Panicked> {
    let width = out.shape.last().copied().unwrap_or(1);
    let ((count, from), to) = (x.rows().expect("rows were planned"), row_stride(out));
    let group = (PIECE / 4 / width.max(1)).max(1);
    worker.phase_by_place(count.div_ceil(group), |task| {
        let data = memory.read(x);
        let rows = task * group..((task + 1) * group).min(count);
        if from == width && to == width {
            let len = rows.len() * width;
            let to = memory.region(out).row_mut(rows.start * width, len);
            return body(&data[rows.start * width..][..len], width, to);
        }
        for row in rows {
            body(&data[row * from..][..width], width, memory.region(out).row_mut(row * to, width));
        }
    })
}

impl ChainStep {
    pub(super) fn run(
        &self,
        isa: Isa,
        memory: &Memory<'_>,
        worker: &Worker<'_>,
        thread: &mut Thread,
    ) -> Result<(), Panicked> {
        let inner = self.out.shape.last().copied().unwrap_or(1);
        let outer: usize = self.out.shape[..self.out.shape.len().saturating_sub(1)].iter().product();
        if let Some(lines) = self.lines_together() {
            return self.run_lines(isa, lines, memory, worker, thread);
        }
        if let Some(lines) = self.short_lines() {
            return self.run_gathered(isa, lines, memory, worker, thread);
        }
        // Long lines are split as well.
        let pieces = inner.div_ceil(PIECE);
        let group = (PIECE / inner.max(1)).max(1);
        worker.phase_by_place(outer.div_ceil(group) * pieces, |task| {
            let columns = part(inner, pieces, task % pieces);
            let first = task / pieces * group;
            for line in first..(first + group).min(outer) {
                let mut operands = [Operand::Number(0.0); 16];
                for (index, (operand, view)) in operands.iter_mut().zip(&self.inputs).enumerate() {
                    let at = line_at(view, line);
                    *operand = if view.strides.last() == Some(&0) || inner == 1 {
                        Operand::Number(self.number(memory, index, at))
                    } else {
                        self.elements(memory, index, at + columns.start..at + columns.end)
                    };
                }
                let at = line_at(&self.out, line) + columns.start;
                let out = self.out(memory, at, columns.len());
                chain::run_into(isa, &self.steps, &operands[..self.inputs.len()], out, &mut thread.chain)
                    .expect(PLANNED);
            }
        })
    }

    /// Elements of an input that lie together.
    fn elements<'a>(&self, memory: &Memory<'a>, index: usize, range: Range<usize>) -> Operand<'a> {
        let view = &self.inputs[index];
        match self.codes.get(index) {
            Some(&Some(code)) => Operand::Codes(&memory.codes(view)[range], code),
            _ => Operand::Slice(&memory.read(view)[range]),
        }
    }

    /// One element of an input.
    fn number(&self, memory: &Memory<'_>, index: usize, at: usize) -> f32 {
        match self.elements(memory, index, at..at + 1) {
            Operand::Codes(codes, code) => code.decode(codes[0]),
            Operand::Slice(slice) => slice[0],
            Operand::Number(x) => x,
        }
    }

    /// The elements of an input from `first` on that are the same along a line, as often as `lines` are long.
    fn spread<'a>(
        &self,
        memory: &Memory<'_>,
        index: usize,
        first: usize,
        lines: impl ExactSizeIterator<Item = &'a mut [f32]>,
    ) {
        let view = &self.inputs[index];
        let stride = view.strides[view.strides.len() - 2];
        let end = first + lines.len().saturating_sub(1) * stride + 1;
        match self.elements(memory, index, first..end) {
            Operand::Slice(numbers) => {
                lines.zip(numbers.iter().step_by(stride)).for_each(|(line, x)| line.fill(*x));
            }
            Operand::Codes(codes, code) => {
                lines.zip(codes.iter().step_by(stride)).for_each(|(line, x)| line.fill(code.decode(*x)));
            }
            Operand::Number(_) => {}
        }
    }

    /// A part of the result that lies together.
    fn out<'a>(&self, memory: &Memory<'a>, start: usize, len: usize) -> Out<'a> {
        match self.code {
            Some(code) => Out::Codes(memory.code_region(&self.out).row_mut(start, len), code),
            None => Out::Numbers(memory.region(&self.out).row_mut(start, len)),
        }
    }
}

/// Whether an operand is one number along each line, and another along the next.
fn is_spread(view: &View) -> bool {
    matches!(view.strides[..], [.., down, 0] if down > 0)
}

/// How the lines of a result, `lines` of which are one, are dealt out.
struct Groups {
    /// Elements of a line.
    inner: usize,
    /// Lines of a plane.
    count: usize,
    /// Lines of a task.
    group: usize,
    /// Tasks of a plane.
    pieces: usize,
    /// All tasks.
    tasks: usize,
}

impl ChainStep {
    fn groups(&self, lines: usize) -> Groups {
        let rank = self.out.shape.len();
        let (inner, count) = (self.out.shape[rank - 1], self.out.shape[rank - 2]);
        let outer: usize = self.out.shape[..rank - 2].iter().product();
        let group = (PIECE / inner).next_multiple_of(lines).min(count.next_multiple_of(lines));
        let pieces = count.div_ceil(group);
        Groups { inner, count, group, pieces, tasks: outer * pieces }
    }

    /// How many lines are worked on as one, if they are short and lie one after the other but for operands that are the
    /// same for all of them, or all along each.
    fn lines_together(&self) -> Option<usize> {
        let inner = *self.out.shape.last()?;
        let d = self.out.shape.len().checked_sub(2)?;
        let fits = |view: &View| match (view.strides[d], view.strides[d + 1]) {
            (stride, 1) => stride == inner || stride == 0,
            (_, stride) => stride == 0,
        };
        let lines = (chain::BLOCK / inner.max(1)).min(self.out.shape[d]);
        let together = self.out.strides[d] == inner && self.out.strides[d + 1] == 1;
        (lines > 1 && inner > 1 && together && self.inputs.iter().all(fits)).then_some(lines)
    }

    /// [`ChainStep::run`] with `lines` lines as one.
    fn run_lines(
        &self,
        isa: Isa,
        lines: usize,
        memory: &Memory<'_>,
        worker: &Worker<'_>,
        thread: &mut Thread,
    ) -> Result<(), Panicked> {
        let rank = self.out.shape.len();
        let Groups { inner, count, group, pieces, tasks } = self.groups(lines);
        worker.phase_by_place(tasks, |task| {
            let (index, first) = (task / pieces, task % pieces * group);
            let at = |view: &View, line: usize| line_at(view, index * count + line);
            // Operands that are the same for every line, as often as there are lines.
            let repeated = |view: &View| view.strides[rank - 2] == 0 && view.strides[rank - 1] == 1;
            thread.packed.clear();
            for (index, view) in self.inputs.iter().enumerate().filter(|(_, view)| repeated(view)) {
                let first = at(view, 0);
                let line = self.elements(memory, index, first..first + inner);
                for _ in 0..lines {
                    match line {
                        Operand::Slice(line) => thread.packed.extend_from_slice(line),
                        Operand::Codes(codes, code) => {
                            thread.packed.extend(codes.iter().map(|x| code.decode(*x)));
                        }
                        Operand::Number(_) => {}
                    }
                }
            }
            // Behind them, those that are the same along each line.
            let made = thread.packed.len();
            let spread = self.inputs.iter().filter(|view| is_spread(view)).count();
            thread.packed.resize(made + spread * lines * inner, 0.0);
            let (copies, spread) = thread.packed.split_at_mut(made);
            for start in (first..(first + group).min(count)).step_by(lines) {
                let length = lines.min(count - start) * inner;
                let mut copies = copies.chunks_exact(lines * inner);
                let mut spread = spread.chunks_exact_mut(lines * inner);
                let mut operands = [Operand::Number(0.0); 16];
                for (index, (operand, view)) in operands.iter_mut().zip(&self.inputs).enumerate() {
                    let first = at(view, start);
                    *operand = if is_spread(view) {
                        let to = &mut spread.next().expect("room for each")[..length];
                        self.spread(memory, index, first, to.chunks_exact_mut(inner));
                        Operand::Slice(to)
                    } else if view.strides[rank - 1] == 0 {
                        Operand::Number(self.number(memory, index, first))
                    } else if view.strides[rank - 2] == 0 {
                        Operand::Slice(&copies.next().expect("a copy of each")[..length])
                    } else {
                        self.elements(memory, index, first..first + length)
                    };
                }
                let out = self.out(memory, at(&self.out, start), length);
                chain::run_into(isa, &self.steps, &operands[..self.inputs.len()], out, &mut thread.chain)
                    .expect(PLANNED);
            }
        })
    }
}

impl ChainStep {
    /// How many lines are gathered and worked on as one, if they are short.
    fn short_lines(&self) -> Option<usize> {
        let inner = *self.out.shape.last()?;
        let d = self.out.shape.len().checked_sub(2)?;
        let fits = |view: &View| view.strides[d + 1] <= 1;
        let lines = (chain::BLOCK / inner.max(1)).min(self.out.shape[d]);
        let short = lines > 3 && inner > 1;
        (short && self.out.strides[d + 1] == 1 && self.inputs.iter().all(fits)).then_some(lines)
    }

    /// [`ChainStep::run`] with `lines` lines as one, which lie anywhere.
    fn run_gathered(
        &self,
        isa: Isa,
        lines: usize,
        memory: &Memory<'_>,
        worker: &Worker<'_>,
        thread: &mut Thread,
    ) -> Result<(), Panicked> {
        let rank = self.out.shape.len();
        let Groups { inner, count, group, pieces, tasks } = self.groups(lines);
        let (numbers, codes) = (&mut thread.packed, &mut thread.codes);
        worker.phase_by_place(tasks, |task| {
            let (index, first) = (task / pieces, task % pieces * group);
            let at = |view: &View, line: usize| line_at(view, index * count + line);
            for start in (first..(first + group).min(count)).step_by(lines) {
                let together = lines.min(count - start);
                let length = together * inner;
                numbers.clear();
                codes.clear();
                for (index, view) in self.inputs.iter().enumerate() {
                    if is_spread(view) {
                        let made = numbers.len();
                        numbers.resize(made + length, 0.0);
                        let to = numbers[made..].chunks_exact_mut(inner);
                        self.spread(memory, index, at(view, start), to);
                    }
                    if view.strides[rank - 1] == 0 {
                        continue;
                    }
                    for line in start..start + together {
                        let first = at(view, line);
                        match self.elements(memory, index, first..first + inner) {
                            Operand::Codes(line, _) => codes.extend_from_slice(line),
                            Operand::Slice(line) => numbers.extend_from_slice(line),
                            Operand::Number(_) => {}
                        }
                    }
                }
                let (made, places) = (numbers.len(), codes.len());
                // The result behind them.
                numbers.resize(made + length, 0.0);
                codes.resize(places + length, 0);
                let (numbers, result) = numbers.split_at_mut(made);
                let (codes, coded) = codes.split_at_mut(places);
                let (mut numbers, mut codes) = (numbers.chunks_exact(length), codes.chunks_exact(length));
                let mut operands = [Operand::Number(0.0); 16];
                for (index, (operand, view)) in operands.iter_mut().zip(&self.inputs).enumerate() {
                    *operand = match self.codes.get(index) {
                        _ if is_spread(view) => Operand::Slice(numbers.next().expect("gathered")),
                        _ if view.strides[rank - 1] == 0 => {
                            Operand::Number(self.number(memory, index, at(view, start)))
                        }
                        Some(&Some(code)) => Operand::Codes(codes.next().expect("gathered"), code),
                        _ => Operand::Slice(numbers.next().expect("gathered")),
                    };
                }
                let out = match self.code {
                    Some(code) => Out::Codes(&mut *coded, code),
                    None => Out::Numbers(&mut *result),
                };
                chain::run_into(isa, &self.steps, &operands[..self.inputs.len()], out, &mut thread.chain)
                    .expect(PLANNED);
                for line in 0..together {
                    let from = line * inner..(line + 1) * inner;
                    match self.out(memory, at(&self.out, start + line), inner) {
                        Out::Codes(to, _) => to.copy_from_slice(&coded[from]),
                        Out::Numbers(to) => to.copy_from_slice(&result[from]),
                    }
                }
            }
        })
    }
}

/// Offset of the `index`th line of a view, all dimensions but the last being counted.
fn line_at(view: &View, mut index: usize) -> usize {
    let mut at = 0;
    for d in (0..view.shape.len().saturating_sub(1)).rev() {
        at += index % view.shape[d] * view.strides[d];
        index /= view.shape[d];
    }
    at
}
