//! Walks the steps of a plan on every thread of the pool.

mod attention;
mod cross;
mod linear;
pub(crate) mod sequences;

use crate::backend::{OutputTensor, Outputs, RunError, TensorRef};
use crate::bind::{Bound, Sizes};
use crate::cpu::CpuProgram;
use crate::cpu::kv_pages::KvPages;
use crate::cpu::plan::{MatrixForm, Place, Plan, Prepared, RowSource, Slot, Work};
use crate::cpu::shared::{Block, Columns, SharedSlice};
use crate::cpu::threads::{Panicked, Worker};
use crate::graph::{BinaryOp, Dim};
use kun_kernels::linear::prepare_columns;
use kun_kernels::{Isa, elementwise, layer_norm, norm, rope};
use kun_tensor::quant;
use std::ops::Range;
use std::sync::Mutex;
use std::time::Instant;

/// Everything that the steps of one run look at.
pub(crate) struct Run<'a> {
    plan: &'a Plan,
    bound: &'a Bound<'a>,
    constants: &'a [Vec<f32>],
    weights: &'a Block,
    arena: &'a Block,
    cache: &'a KvPages,
    outputs: Vec<SharedSlice<'a>>,
    tiles: Vec<attention::Tile>,
    pages: Vec<attention::PageRun>,
    stretches: Vec<sequences::Stretch>,
}

/// The memory that a thread has for itself.
struct Scratch<'a> {
    row: &'a mut [f32],
    prepared: &'a mut [u8],
    kernel: &'a mut [u8],
}

/// Kernels are called with the sizes that the plan was made from.
const PLANNED: &str = "planned sizes fit the kernel";

/// Runs the whole plan once; `bound` is checked.
pub(crate) fn run(
    program: &mut CpuProgram,
    bound: &Bound<'_>,
    outputs: &mut Outputs,
) -> Result<(), RunError> {
    let plan = &program.plan;
    let shared = output_slices(plan, &bound.sizes, outputs)?;
    let run = Run {
        plan,
        bound,
        constants: &program.constants,
        weights: &program.weights,
        arena: &program.arena,
        cache: &program.cache,
        outputs: shared,
        tiles: if plan.page_bytes > 0 { attention::tiles(bound.sequences) } else { Vec::new() },
        pages: if plan.page_bytes > 0 { attention::page_runs(bound.sequences) } else { Vec::new() },
        stretches: sequences::stretches(bound.sequences),
    };
    let warm = program.warm;
    let profile = program.profile.as_mut().map(Mutex::new);
    let result = program.pool.run(program.threads, |worker| {
        let mut scratch = run.scratch(worker.index);
        for (index, step) in plan.steps.iter().enumerate().filter(|(_, step)| !(step.once && warm)) {
            let started = profile.as_ref().filter(|_| worker.index == 0).map(|_| Instant::now());
            run.step(&step.work, worker, &mut scratch)?;
            if let (Some(profile), Some(started)) = (&profile, started) {
                profile
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .add(index, started.elapsed());
            }
        }
        Ok(())
    });
    drop(run);
    program.warm |= result.is_ok();
    result.map_err(|Panicked| RunError::Failed)
}

/// Sizes the caller's buffers, drops those of other programs, and lends them in the plan's order.
fn output_slices<'a>(
    plan: &Plan,
    sizes: &Sizes,
    outputs: &'a mut Outputs,
) -> Result<Vec<SharedSlice<'a>>, RunError> {
    outputs.tensors.retain(|name, _| plan.outputs.iter().any(|(known, _)| known == name));
    for (name, shape) in &plan.outputs {
        let unknown =
            || RunError::Input { name: name.clone(), what: "its shape is not bound by the inputs".into() };
        let shape = sizes.shape(shape).ok_or_else(unknown)?;
        let elements = shape.iter().product();
        let OutputTensor { shape: known, data } = outputs.tensors.entry(name.clone()).or_default();
        *known = shape;
        data.resize(elements, 0.0);
    }
    let mut slices: Vec<Option<SharedSlice<'a>>> = vec![None; plan.outputs.len()];
    for (name, tensor) in &mut outputs.tensors {
        if let Some(index) = plan.outputs.iter().position(|(known, _)| known == name) {
            slices[index] = Some(SharedSlice::new(&mut tensor.data));
        }
    }
    Ok(slices.into_iter().map(|slice| slice.expect("every output has an entry")).collect())
}

impl<'a> Run<'a> {
    fn isa(&self) -> Isa {
        self.plan.isa
    }

    fn scratch(&self, thread: usize) -> Scratch<'a> {
        let layout = &self.plan.scratch;
        let start = layout.start + thread * layout.stride;
        Scratch {
            row: self.arena.floats_mut(start, layout.prepared / 4),
            prepared: self.arena.bytes_mut(start + layout.prepared..start + layout.kernel),
            kernel: self.arena.bytes_mut(start + layout.kernel..start + layout.stride),
        }
    }

    fn place(&self, slot: Slot) -> Place {
        self.plan.places[slot.0]
    }

    /// Elements that no task of the step writes.
    fn read(&self, slot: Slot, start: usize, len: usize) -> &'a [f32] {
        match self.place(slot) {
            Place::Arena(offset) => self.arena.floats(offset + start * 4, len),
            Place::Output(index) => self.outputs[index].get(start..start + len),
            Place::Constant(index) => &self.constants[index][start..start + len],
            Place::Input(index) => match self.bound.tensors[index] {
                TensorRef::F32(data, _) => &data[start..start + len],
                TensorRef::I32(..) => unreachable!("indices are not read as numbers"),
            },
            Place::Nowhere => unreachable!("a tensor inside a step is read by that step only"),
        }
    }

    /// Elements that belong to the calling task alone.
    #[allow(clippy::mut_from_ref)]
    fn write(&self, slot: Slot, start: usize, len: usize) -> &'a mut [f32] {
        match self.place(slot) {
            Place::Arena(offset) => self.arena.floats_mut(offset + start * 4, len),
            Place::Output(index) => self.outputs[index].get_mut(start..start + len),
            place => unreachable!("{place:?} is never written"),
        }
    }

    /// A `[t, width]` tensor of which tasks write columns.
    fn columns(&self, slot: Slot, t: usize, width: usize) -> Columns<'a> {
        match self.place(slot) {
            Place::Arena(offset) => Columns::in_block(self.arena, offset, t, width),
            Place::Output(index) => Columns::in_slice(self.outputs[index], t, width),
            place => unreachable!("{place:?} is never written"),
        }
    }

    /// Prepared rows; slots of bytes are always in the arena.
    fn arena_offset(&self, slot: Slot) -> usize {
        match self.place(slot) {
            Place::Arena(offset) => offset,
            place => unreachable!("prepared rows are at {place:?}"),
        }
    }

    /// Prepares the values `x` of row `row`, which go to the `parts` of it; these belong to the calling task alone.
    fn prepare_columns(&self, to: &Prepared, row: usize, parts: &[Range<usize>; 3], x: &[f32]) {
        let start = self.arena_offset(to.at) + row * to.format.row_bytes(to.width);
        let parts = parts.each_ref().map(|part| self.arena.bytes_mut(start + part.start..start + part.end));
        prepare_columns(self.isa(), to.format, x, parts).expect(PLANNED);
    }

    fn indices(&self, input: usize) -> &'a [i32] {
        match self.bound.tensors[input] {
            TensorRef::I32(data, _) => data,
            TensorRef::F32(..) => unreachable!("the contract checked the type"),
        }
    }

    fn count(&self, dims: &[Dim]) -> usize {
        self.bound.sizes.elements(dims).expect("the contract bound every length")
    }

    fn step(&self, work: &Work, worker: &Worker<'_>, scratch: &mut Scratch<'_>) -> Result<(), Panicked> {
        match work {
            Work::RopeTable(table) => self.rope_table(*table, worker),
            Work::DistanceTable(table) => sequences::distance_table(self, *table, worker),
            Work::Embedding { ids, matrix, width, out } => {
                self.embedding(self.indices(*ids), *matrix, *width, *out, worker)
            }
            Work::SelectRows { x, rows, width, out } => {
                let rows = self.indices(*rows);
                each_row(worker, rows.len(), *width, |row| {
                    let from = rows[row] as usize * width;
                    self.write(*out, row * width, *width).copy_from_slice(self.read(*x, from, *width));
                })
            }
            Work::Rows { source, rows, width, out } => each_row(worker, self.count(rows), *width, |row| {
                self.row(source, row, *width, self.write(*out, row * width, *width));
            }),
            Work::AddNorm { x, delta, sum, out, rows, width, weight, eps } => {
                each_row(worker, self.count(rows), *width, |row| {
                    let at = row * width;
                    norm::add_rms_norm(
                        self.isa(),
                        self.read(*x, at, *width),
                        self.read(*delta, at, *width),
                        &self.constants[*weight],
                        *eps,
                        self.write(*sum, at, *width),
                        self.write(*out, at, *width),
                    )
                    .expect(PLANNED);
                })
            }
            Work::Rope { x, turn, head_dim, width, out } => {
                let table = &self.plan.tables[turn.table];
                each_row(worker, self.indices(table.positions).len(), *width, |row| {
                    let to = self.write(*out, row * width, *width);
                    if self.place(*x) != self.place(*out) {
                        to.copy_from_slice(self.read(*x, row * width, *width));
                    }
                    self.turn(turn, *head_dim, row, to);
                })
            }
            Work::Unary { op, x, shape, out } => {
                let elements = self.count(shape);
                each_piece(worker, elements, |start, len| {
                    let to = self.write(*out, start, len);
                    if self.place(*x) == self.place(*out) {
                        elementwise::unary_in_place(self.isa(), *op, to);
                    } else {
                        elementwise::unary(self.isa(), *op, self.read(*x, start, len), to).expect(PLANNED);
                    }
                })
            }
            Work::Binary { op, a, b, shape, out } => self.binary(*op, a, b, shape, *out, worker),
            Work::Linear(step) => linear::run(self, step, worker, scratch),
            Work::Attention(step) => attention::run(self, step, worker, scratch),
            Work::CrossAttention(step) => cross::attention(self, step, worker, scratch),
            Work::SelfAttention(step) => sequences::attention(self, step, worker, scratch),
            Work::Disentangled(step) => sequences::disentangled(self, step, worker, scratch),
            Work::Pool { pool, x, width, out } => sequences::pool(self, *pool, (*x, *width), *out, worker),
        }
    }

    /// Makes one row of `width` elements.
    fn row(&self, source: &RowSource, row: usize, width: usize, out: &mut [f32]) {
        let at = row * width;
        match source {
            RowSource::Copy { x } => out.copy_from_slice(self.read(*x, at, width)),
            RowSource::Norm { x, weight, eps } => {
                let x = self.read(*x, at, width);
                norm::rms_norm(self.isa(), x, &self.constants[*weight], *eps, out).expect(PLANNED);
            }
            RowSource::LayerNorm { x, weight, bias, eps } => {
                let x = self.read(*x, at, width);
                let bias = bias.map(|bias| self.constants[bias].as_slice());
                layer_norm::layer_norm(self.isa(), x, &self.constants[*weight], bias, *eps, out)
                    .expect(PLANNED);
            }
            RowSource::Gated { gate, up, op } => {
                let (gate, up) = (self.read(*gate, at, width), self.read(*up, at, width));
                elementwise::gated(self.isa(), *op, gate, up, out).expect(PLANNED);
            }
            RowSource::Prepared => unreachable!("prepared rows are not made"),
        }
    }

    fn rope_table(&self, table: usize, worker: &Worker<'_>) -> Result<(), Panicked> {
        let table = &self.plan.tables[table];
        let positions = self.indices(table.positions);
        each_row(worker, positions.len(), table.half * 16, |row| {
            let at = row * table.half;
            rope::rope_table(
                &self.constants[table.frequencies],
                positions[row] as usize,
                table.magnitude,
                self.write(table.cos, at, table.half),
                self.write(table.sin, at, table.half),
            )
            .expect(PLANNED);
        })
    }

    /// Turns the heads of `x`, which belong to token `row`.
    fn turn(&self, turn: &crate::cpu::plan::Turn, head_dim: usize, row: usize, x: &mut [f32]) {
        let table = &self.plan.tables[turn.table];
        let (at, half) = (row * table.half, table.half);
        let (cos, sin) = (self.read(table.cos, at, half), self.read(table.sin, at, half));
        rope::rope(self.isa(), turn.style, head_dim, turn.rotary_dim, cos, sin, x).expect(PLANNED);
    }

    fn embedding(
        &self,
        ids: &[i32],
        matrix: usize,
        width: usize,
        out: Slot,
        worker: &Worker<'_>,
    ) -> Result<(), Panicked> {
        let matrix = &self.plan.matrices[matrix];
        let bytes = self.weights.bytes(matrix.offset..matrix.offset + matrix.bytes);
        each_row(worker, ids.len(), width, |row| {
            let to = self.write(out, row * width, width);
            let id = ids[row] as usize;
            match &matrix.form {
                MatrixForm::Packed { layout, .. } => layout.decode_row(bytes, id, to).expect(PLANNED),
                MatrixForm::Stored { row_bytes, dtype } => {
                    let stored = &bytes[id * row_bytes..(id + 1) * row_bytes];
                    quant::decode(*dtype, stored, to).expect(PLANNED);
                }
            }
        })
    }

    fn binary(
        &self,
        op: BinaryOp,
        a: &(Slot, Vec<Dim>),
        b: &(Slot, Vec<Dim>),
        shape: &[Dim],
        out: Slot,
        worker: &Worker<'_>,
    ) -> Result<(), Panicked> {
        if a.1 == b.1 {
            return each_piece(worker, self.count(shape), |start, len| {
                let (a, b) = (self.read(a.0, start, len), self.read(b.0, start, len));
                elementwise::binary(self.isa(), op, a, b, self.write(out, start, len)).expect(PLANNED);
            });
        }
        let lengths = self.bound.sizes.shape(shape).expect("the contract bound every length");
        let width = lengths.last().copied().unwrap_or(1);
        let rows = lengths.iter().rev().skip(1).product();
        let row_of = |(slot, dims): &(Slot, Vec<Dim>), row: usize| {
            let own = self.bound.sizes.shape(dims).expect("the contract bound every length");
            let own_width = own.last().copied().unwrap_or(1);
            let (mut rest, mut at, mut step) = (row, 0, own_width);
            let outer = own.len().saturating_sub(1);
            for (i, &length) in lengths.iter().rev().skip(1).enumerate() {
                let index = rest % length;
                rest /= length;
                let own_length = if i < outer { own[outer - 1 - i] } else { 1 };
                at += if own_length == 1 { 0 } else { index * step };
                step *= own_length;
            }
            self.read(*slot, at, own_width)
        };
        each_row(worker, rows, width, |row| {
            let to = self.write(out, row * width, width);
            let (a, b) = (row_of(a, row), row_of(b, row));
            if a.len() == width && b.len() == width {
                elementwise::binary(self.isa(), op, a, b, to).expect(PLANNED);
            } else {
                // One of the two is a single number.
                for (i, to) in to.iter_mut().enumerate() {
                    let pair = (&a[i % a.len()..=i % a.len()], &b[i % b.len()..=i % b.len()]);
                    elementwise::binary(Isa::Scalar, op, pair.0, pair.1, std::slice::from_mut(to))
                        .expect(PLANNED);
                }
            }
        })
    }
}

/// Elements worth a claim of their own in row-wise steps.
const PIECE: usize = 4096;

/// A phase that calls `body` for every row, in tasks of about [`PIECE`] elements.
fn each_row(
    worker: &Worker<'_>,
    rows: usize,
    width: usize,
    mut body: impl FnMut(usize),
) -> Result<(), Panicked> {
    // Tasks of one size, so that threads end together.
    let of_a_thread = rows.div_ceil(worker.threads).max(1);
    let tasks = of_a_thread.div_ceil((PIECE / width.max(1)).max(1));
    let group = of_a_thread.div_ceil(tasks);
    worker.phase_by_place(rows.div_ceil(group), |task| {
        (task * group..((task + 1) * group).min(rows)).for_each(&mut body);
    })
}

/// A phase that calls `body` for pieces of `elements` elements.
fn each_piece(
    worker: &Worker<'_>,
    elements: usize,
    mut body: impl FnMut(usize, usize),
) -> Result<(), Panicked> {
    worker.phase_by_place(elements.div_ceil(PIECE), |task| {
        let start = task * PIECE;
        body(start, PIECE.min(elements - start));
    })
}
