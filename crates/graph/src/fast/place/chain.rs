//! Element-wise programs.

use super::Placer;
use crate::backend::CompileError;
use crate::fast::lower::Input;
use crate::fast::steps::{ChainStep, TableStep, Work};
use crate::fast::view::{View, ordered_strides};
use crate::graph::ValueId;
use kun_kernels::chain::{Function, Source, Step};
use kun_kernels::gemm::Activation;
use kun_kernels::gemm::quads::Code;

impl Placer<'_> {
    pub(super) fn chain(
        &mut self,
        steps: Vec<Step>,
        inputs: &[Input],
        output: ValueId,
        code: Option<Code>,
    ) -> Result<(), CompileError> {
        let shape = self.result_shape(output);
        let (mut views, mut codes) = (Vec::new(), Vec::new());
        for input in inputs {
            let (view, code) = match self.held(input) {
                Some((view, code)) => (view, Some(code)),
                None => (self.view(input)?, None),
            };
            codes.push(code);
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
        let step = ChainStep { codes, code, ..merged(steps, views, out, &order) };
        self.push(Work::Chain(Box::new(step)));
        Ok(())
    }

    /// Writes a value in other codes, or as codes.
    pub(super) fn convert(&mut self, from: View, code: Option<Code>, to: View, as_code: Option<Code>) {
        let function = Function::Activation(Activation::None);
        let steps = vec![Step { function, a: Source::Operand(0), b: Source::Number(0.0) }];
        let order = to.order();
        let inner = order.iter().rev().copied().find(|&d| to.shape[d] > 1);
        let from = match inner {
            Some(inner) if from.strides[inner] > 1 => {
                let strides = ordered_strides(&from.shape, &order);
                self.copied(from, strides)
            }
            _ => from,
        };
        if let (Some(code), Some(as_code)) = (code, as_code) {
            // Dimensions of 1 take no part.
            let longer: Vec<usize> = order.iter().copied().filter(|&d| to.shape[d] > 1).collect();
            let (x, out) = (from.permuted(&longer), to.permuted(&longer));
            if !longer.is_empty() && x.rows().is_some() && out.rows().is_some() {
                let table = std::array::from_fn(|i| as_code.encode(code.decode(i as u8)));
                self.push(Work::Table(Box::new(TableStep { table: Box::new(table), x, out })));
                return;
            }
        }
        let step = ChainStep { codes: vec![code], code: as_code, ..merged(steps, vec![from], to, &order) };
        self.push(Work::Chain(Box::new(step)));
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
    ChainStep { steps, inputs, out, codes: Vec::new(), code: None }
}
