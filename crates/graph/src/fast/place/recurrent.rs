//! Recurrent layers: one product for the inputs of all steps, then the steps.

use super::Placer;
use crate::backend::CompileError;
use crate::fast::lower::{Input, Layer};
use crate::fast::pack::Layout;
use crate::fast::steps::{Ending, MultiplyStep, RecurrentStep, Work};
use crate::fast::view::{View, dense_strides, ordered_strides};
use crate::graph::ValueId;
use crate::ops::Cell;
use kun_kernels::gemm::{Activation, Panels};
use std::sync::Arc;

impl Placer<'_> {
    pub(super) fn recurrent(&mut self, layer: Layer, inputs: &[Input]) -> Result<(), CompileError> {
        let (directions, hidden) = (layer.reverse.len(), layer.hidden);
        let gates = layer.cell.gates();
        let x = self.view(&inputs[0])?;
        let x = self.rows(x);
        let sums = self.of_inputs(&layer, x);
        let sums = if layer.batch_first { sums?.permuted(&[1, 0, 2]) } else { sums? };
        let (steps, batch) = (sums.shape[0], sums.shape[1]);

        let mut given = inputs[1..].iter();
        let mut initial = [None, None];
        for (at, is_given) in layer.initial.into_iter().enumerate() {
            initial[at] = if is_given { given.next() } else { None };
        }
        let [h, c] = initial;
        let states = [directions, batch, hidden];
        let h = self.initial(h, layer.batch_first, states)?;
        let panels = Panels::with_precision(self.isa, self.bf16, hidden, 1, hidden);
        let groups = directions * gates;
        let layout = Layout::Direct { panels: panels.clone(), groups, taps: 1 };
        let packed = self.packer.packed(self.sources[&layer.recurrent].0, layout, &[])?;

        let [all, last, last_cells] = layer.results;
        let shape = [steps, directions, batch, hidden];
        let y = match all {
            Some(id) if layer.batch_first => {
                let order = [1, 2, 0, 3];
                self.result(id, |shape| ordered_strides(shape, &order)).permuted(&order)
            }
            Some(id) => self.result(id, dense_strides),
            None => self.buffer(&shape, dense_strides(&shape), false),
        };
        let cells = if matches!(layer.cell, Cell::Lstm { .. }) {
            let out = match last_cells {
                Some(id) => self.state(id, layer.batch_first),
                None => self.buffer(&states, dense_strides(&states), false),
            };
            Some((self.initial(c, layer.batch_first, states)?, out))
        } else {
            None
        };
        let reset = match layer.cell {
            Cell::Gru { linear_before_reset: false } => {
                Some(self.buffer(&states, dense_strides(&states), false))
            }
            _ => None,
        };
        let late_bias = layer.late_bias.chunks_exact(hidden).flat_map(|bias| panels.pad(bias)).collect();
        let step = RecurrentStep {
            cell: layer.cell,
            reverse: layer.reverse.clone(),
            panels,
            packed,
            late_bias,
            x: sums,
            h,
            cells,
            reset,
            y: y.clone(),
        };
        self.push(Work::Recurrent(Box::new(step)));
        match last {
            Some(id) => self.last_states(id, &layer, &y),
            None => Ok(()),
        }
    }

    /// What the inputs of all steps add to the gates.
    fn of_inputs(&mut self, layer: &Layer, x: View) -> Result<View, CompileError> {
        let wide = layer.reverse.len() * layer.cell.gates() * layer.hidden;
        let panels = Panels::with_precision(self.isa, self.bf16, wide, 1, layer.inputs);
        let layout = Layout::Matrix { panels: panels.clone(), n_stride: layer.inputs, k_stride: 1 };
        let packed = self.packer.packed(self.sources[&layer.weight].0, layout, &[])?;
        let bias = if layer.bias.is_empty() { Vec::new() } else { panels.pad(&layer.bias) };
        let ending = Ending { bias, activation: Activation::None, slopes: Vec::new(), residual: None };
        let shape = [x.shape[0], x.shape[1], wide];
        let out = self.buffer(&shape, dense_strides(&shape), false);
        self.push(Work::Multiply(Box::new(MultiplyStep { panels, packed, ending, x, out: out.clone() })));
        Ok(out)
    }

    /// The states of all directions that a layer begins with, without gaps; zeros if they are not given.
    fn initial(
        &mut self,
        given: Option<&Input>,
        batch_first: bool,
        shape: [usize; 3],
    ) -> Result<View, CompileError> {
        let Some(given) = given else {
            let zeros = Arc::from(vec![0.0; shape.iter().product()]);
            return self.view(&Input::Constant(zeros, shape.to_vec()));
        };
        let view = self.view(given)?;
        let view = if batch_first { view.permuted(&[1, 0, 2]) } else { view };
        Ok(self.dense(view))
    }

    /// Memory for a result, as `[directions, batch, hidden]` without gaps.
    fn state(&mut self, id: ValueId, batch_first: bool) -> View {
        if batch_first {
            let order = [1, 0, 2];
            self.result(id, |shape| ordered_strides(shape, &order)).permuted(&order)
        } else {
            self.result(id, dense_strides)
        }
    }

    /// The hidden states after the last step of each direction: part of all of them, where they have one place.
    fn last_states(&mut self, id: ValueId, layer: &Layer, y: &View) -> Result<(), CompileError> {
        let &[steps, _, batch, hidden] = &y.shape[..] else {
            unreachable!("all states have four dimensions")
        };
        let mut of_each = Vec::new();
        for (direction, reverse) in layer.reverse.iter().enumerate() {
            let step = if *reverse { 0 } else { steps - 1 };
            let own = y.sliced(0, step, 1, 1).sliced(1, direction, 1, 1);
            let own = own.reshaped(&[1, batch, hidden]);
            of_each.push(own.ok_or_else(|| self.fail("the shapes do not fit".into()))?);
        }
        if let [own] = &of_each[..] {
            let own = if layer.batch_first { own.permuted(&[1, 0, 2]) } else { own.clone() };
            self.views.insert(id, own);
            return Ok(());
        }
        let out = self.state(id, layer.batch_first);
        for (direction, own) in of_each.into_iter().enumerate() {
            self.copy(own, out.sliced(0, direction, 1, 1));
        }
        Ok(())
    }
}
