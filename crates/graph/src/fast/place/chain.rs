//! Element-wise programs.

use super::Placer;
use crate::backend::CompileError;
use crate::fast::lower::Input;
use crate::fast::steps::{ChainStep, Work};
use crate::fast::view::{View, ordered_strides};
use crate::graph::ValueId;
use kun_kernels::chain::Step;

impl Placer<'_> {
    pub(super) fn chain(
        &mut self,
        steps: Vec<Step>,
        inputs: &[Input],
        output: ValueId,
    ) -> Result<(), CompileError> {
        let shape = self.result_shape(output);
        let mut views = Vec::new();
        for input in inputs {
            let view = self.view(input)?;
            views.push(view.broadcast(&shape).ok_or_else(|| self.fail("operands do not broadcast".into()))?);
        }
        // The result lies like the operand that has as many elements, if one does.
        let like =
            views.iter().find(|view| view.shape.iter().zip(&view.strides).all(|(&n, &s)| n == 1 || s > 0));
        let order = like.map_or_else(|| (0..shape.len()).collect(), View::order);
        let out = self.result(output, |shape| ordered_strides(shape, &order));
        let order = out.order();
        // Operands must be dense along the result's innermost dimension, or the same all along it.
        if let Some(inner) = order.iter().rev().copied().find(|&d| shape[d] > 1) {
            for view in &mut views {
                if view.strides[inner] > 1 {
                    let strides = ordered_strides(&shape, &order);
                    *view = self.copied(view.clone(), strides);
                }
            }
        }
        let step = merged(steps, views, out, &order);
        self.push(Work::Chain(Box::new(step)));
        Ok(())
    }
}

/// The program over as few dimensions as the strides allow, in the order `order`.
fn merged(steps: Vec<Step>, inputs: Vec<View>, out: View, order: &[usize]) -> ChainStep {
    let all: Vec<&View> = std::iter::once(&out).chain(&inputs).collect();
    let mut shape: Vec<usize> = Vec::new();
    let mut strides: Vec<Vec<usize>> = vec![Vec::new(); all.len()];
    for &d in order.iter().filter(|&&d| out.shape[d] != 1) {
        let n = out.shape[d];
        let joins = !shape.is_empty()
            && all.iter().zip(&strides).all(|(view, known)| known.last() == Some(&(view.strides[d] * n)));
        if joins {
            *shape.last_mut().expect("not empty") *= n;
            for (view, known) in all.iter().zip(&mut strides) {
                *known.last_mut().expect("as long as the shape") = view.strides[d];
            }
        } else {
            shape.push(n);
            all.iter().zip(&mut strides).for_each(|(view, known)| known.push(view.strides[d]));
        }
    }
    if shape.is_empty() {
        shape.push(1);
        strides.iter_mut().for_each(|known| known.push(1));
    }
    let mut strides = strides.into_iter();
    let mut remake = |view: &View| View {
        shape: shape.clone(),
        strides: strides.next().expect("strides of every view"),
        ..view.clone()
    };
    let out = remake(&out);
    let inputs = inputs.iter().map(&mut remake).collect();
    ChainStep { steps, inputs, out }
}
