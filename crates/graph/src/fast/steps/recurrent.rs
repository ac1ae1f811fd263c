//! Recurrent layers, whose steps follow each other.

use super::{PLANNED, part};
use crate::cpu::shared::{Region, SharedSlice};
use crate::cpu::{Panicked, Worker};
use crate::fast::memory::{Memory, Thread};
use crate::fast::pack::Packed;
use crate::fast::view::View;
use crate::ops::Cell;
use kun_kernels::gemm::{Activation, Epilogue, Matrix, Panels, Product, Residual, Scratch};
use kun_kernels::{Isa, recurrent};
use std::ops::Range;

/// Operations of a step for which another thread is worth waiting for.
const TASK: usize = 1 << 17;

/// The steps of a recurrent layer, after the product with their inputs.
#[derive(Debug)]
pub(crate) struct RecurrentStep {
    pub cell: Cell,
    /// Whether each direction begins with the last step.
    pub reverse: Vec<bool>,
    /// Of one gate.
    pub panels: Panels,
    /// The gates of all directions, one after the other.
    pub packed: Packed,
    /// Padded, for each direction: added to what the reset gate is a factor of; or none.
    pub late_bias: Vec<f32>,
    /// What the inputs add to gates: `[steps, batch, directions * gates * hidden]`, the last dimension dense.
    pub x: View,
    /// The states before the first step, `[directions, batch, hidden]` without gaps.
    pub h: View,
    /// The same of cells, and memory for those after the last step.
    pub cells: Option<(View, View)>,
    /// Memory for states that were reset.
    pub reset: Option<View>,
    /// All states, `[steps, directions, batch, hidden]` without gaps.
    pub y: View,
}

/// Which hidden elements of which direction a task makes at which step.
struct Place {
    direction: usize,
    step: usize,
    panels: Range<usize>,
}

impl RecurrentStep {
    pub(super) fn views(&self) -> Vec<&View> {
        let cells = self.cells.iter().flat_map(|(before, after)| [before, after]);
        [&self.x, &self.h, &self.y].into_iter().chain(cells).chain(&self.reset).collect()
    }

    /// Multiplications and additions of one step of one direction.
    fn step_operations(&self) -> usize {
        let hidden = self.panels.shape().0;
        2 * self.x.shape[1] * self.cell.gates() * hidden * hidden
    }

    /// Those of all steps.
    pub(super) fn operations(&self) -> usize {
        self.x.shape[0] * self.reverse.len() * self.step_operations()
    }

    pub(super) fn run(
        &self,
        isa: Isa,
        memory: &Memory<'_>,
        worker: &Worker<'_>,
        thread: &mut Thread,
    ) -> Result<(), Panicked> {
        let (steps, directions, panels) = (self.x.shape[0], self.reverse.len(), self.panels.count());
        let parts = (worker.threads / directions).min(self.step_operations() / TASK).clamp(1, panels);
        if parts == 1 {
            // Nobody waits for anybody.
            return worker.phase_by_place(directions, |direction| {
                for step in 0..steps {
                    let place = Place { direction, step, panels: 0..panels };
                    self.reset(isa, &place, memory, thread);
                    self.advance(isa, &place, memory, thread);
                }
            });
        }
        for step in 0..steps {
            let place = |task: usize| Place {
                direction: task / parts,
                step,
                panels: part(panels, parts, task % parts),
            };
            if self.reset.is_some() {
                worker.phase_by_place(directions * parts, |task| {
                    self.reset(isa, &place(task), memory, thread);
                })?;
            }
            worker.phase_by_place(directions * parts, |task| {
                self.advance(isa, &place(task), memory, thread);
            })?;
        }
        Ok(())
    }

    /// Elements of the states of one direction.
    fn size(&self) -> usize {
        self.x.shape[1] * self.panels.shape().0
    }

    /// The hidden elements of some panels.
    fn elements(&self, panels: &Range<usize>) -> Range<usize> {
        let end = self.panels.panel_outputs(panels.end - 1).end;
        self.panels.panel_outputs(panels.start).start..end
    }

    /// Where the `step`th step of a direction is in the sequence.
    fn at(&self, direction: usize, step: usize) -> usize {
        if self.reverse[direction] { self.x.shape[0] - 1 - step } else { step }
    }

    /// Where the states after a step begin.
    fn after(&self, direction: usize, step: usize) -> usize {
        (self.at(direction, step) * self.reverse.len() + direction) * self.size()
    }

    /// The states before a step.
    fn before<'a>(&self, place: &Place, memory: &Memory<'a>) -> &'a [f32] {
        match place.step.checked_sub(1) {
            Some(step) => memory.part(&self.y, self.after(place.direction, step), self.size()),
            None => memory.part(&self.h, place.direction * self.size(), self.size()),
        }
    }

    /// Where what the inputs add to a gate begins.
    fn of_inputs(&self, place: &Place, gate: usize) -> usize {
        let index = place.direction * self.cell.gates() + gate;
        self.at(place.direction, place.step) * self.x.strides[0] + index * self.panels.shape().0
    }

    /// The sums of a gate, `state` times its matrix and what is added, to rows from element `first` of a region.
    fn product(
        &self,
        place: &Place,
        gate: usize,
        state: &[f32],
        activation: Activation,
        memory: &Memory<'_>,
        (region, first): (Region<'_>, usize),
        scratch: &mut Scratch,
    ) {
        let (batch, hidden) = (self.x.shape[1], self.panels.shape().0);
        let (padded, each) = (self.panels.padded(), self.panels.packed_len());
        let index = place.direction * self.cell.gates() + gate;
        // The reset gate comes between them.
        let late = gate == 2 && self.cell == Cell::Gru { linear_before_reset: true };
        let bias = if late && !self.late_bias.is_empty() {
            &self.late_bias[place.direction * padded..][..padded]
        } else {
            &[]
        };
        let residual = (!late).then(|| Residual {
            data: memory.read(&self.x)[self.of_inputs(place, gate)..].as_ptr(),
            stride: self.x.strides[1],
            after: false,
        });
        let product = Product {
            panels: &self.panels,
            matrix: Matrix::Packed(self.packed.floats(index * each..(index + 1) * each)),
            x: state,
            x_stride: hidden,
            epilogue: Epilogue { bias, activation, slopes: &[], residual },
            out: region.target_at(first, hidden),
        };
        region.product(&product, 0..batch, place.panels.clone(), scratch).expect(PLANNED);
    }

    /// States times the reset gate, where the product comes after it.
    fn reset(&self, isa: Isa, place: &Place, memory: &Memory<'_>, thread: &mut Thread) {
        let Some(reset) = &self.reset else { return };
        let (size, hidden) = (self.size(), self.panels.shape().0);
        let elements = self.elements(&place.panels);
        let state = self.before(place, memory);
        let Thread { packed: sums, kernel, .. } = thread;
        sums.resize(sums.len().max(size), 0.0);
        let region = Region::in_slice(SharedSlice::new(sums), 0, size);
        self.product(place, 1, state, Activation::None, memory, (region, 0), kernel);
        for row in (0..size).step_by(hidden) {
            let own = row + elements.start..row + elements.end;
            let start = place.direction * size + own.start;
            let to = memory.region(reset).row_mut(start, own.len());
            recurrent::reset(isa, &sums[own.clone()], &state[own], to).expect(PLANNED);
        }
    }

    /// The states after a step.
    fn advance(&self, isa: Isa, place: &Place, memory: &Memory<'_>, thread: &mut Thread) {
        let (size, hidden, gates) = (self.size(), self.panels.shape().0, self.cell.gates());
        let elements = self.elements(&place.panels);
        let (state, after) = (self.before(place, memory), self.after(place.direction, place.step));
        let Thread { packed: sums, kernel, .. } = thread;
        if self.cell == Cell::Rnn {
            let region = memory.region(&self.y);
            self.product(place, 0, state, Activation::Tanh, memory, (region, after), kernel);
            return;
        }
        sums.resize(sums.len().max(gates * size), 0.0);
        let region = Region::in_slice(SharedSlice::new(sums), 0, gates * size);
        for gate in 0..gates {
            let state = match &self.reset {
                Some(_) if gate == 1 => continue,
                Some(reset) if gate == 2 => memory.part(reset, place.direction * size, size),
                _ => state,
            };
            self.product(place, gate, state, Activation::None, memory, (region, gate * size), kernel);
        }
        for item in 0..self.x.shape[1] {
            let own = item * hidden + elements.start..item * hidden + elements.end;
            let to = memory.region(&self.y).row_mut(after + own.start, own.len());
            let sums = |gate: usize| &sums[gate * size + own.start..gate * size + own.end];
            match self.cell {
                Cell::Rnn => unreachable!("a product is all of it"),
                Cell::Gru { linear_before_reset } => {
                    let first = self.of_inputs(place, 2) + item * self.x.strides[1] + elements.start;
                    let (hidden, late) = if linear_before_reset {
                        let hidden = &memory.read(&self.x)[first..][..own.len()];
                        (hidden, Some([sums(1), sums(2)]))
                    } else {
                        (sums(2), None)
                    };
                    recurrent::gru(isa, [sums(0), hidden], late, &state[own.clone()], to).expect(PLANNED);
                }
                Cell::Lstm { input_forget } => {
                    let (before, cells) = self.cells.as_ref().expect("planned for this cell");
                    let start = place.direction * size + own.start;
                    let c = memory.region(cells).row_mut(start, own.len());
                    if place.step == 0 {
                        c.copy_from_slice(memory.part(before, start, own.len()));
                    }
                    let gates = [0, 1, 2, 3].map(sums);
                    recurrent::lstm(isa, gates, input_forget, c, to).expect(PLANNED);
                }
            }
        }
    }
}
