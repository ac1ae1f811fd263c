//! Products of computed matrices, and attention.

use super::Placer;
use crate::backend::CompileError;
use crate::fast::lower::Input;
use crate::fast::steps::Work;
use crate::fast::view::{View, dense_strides, ordered_strides};
use crate::graph::ValueId;
use kun_kernels::gemm::Panels;

impl Placer<'_> {
    pub(super) fn matmul(&mut self, inputs: &[Input], output: ValueId) -> Result<(), CompileError> {
        let shape = self.result_shape(output);
        let rank = shape.len();
        let (a, b) = (self.view(&inputs[0])?, self.view(&inputs[1])?);
        let (m, k, n) = (shape[rank - 2], a.shape[a.shape.len() - 1], shape[rank - 1]);
        let spread = |view: &View, last: [usize; 2]| {
            let whole: Vec<usize> = shape[..rank - 2].iter().copied().chain(last).collect();
            view.broadcast(&whole)
        };
        let a = if k == 1 || a.strides[a.strides.len() - 1] == 1 { a } else { self.dense(a) };
        let (Some(mut a), Some(b)) = (spread(&a, [m, k]), spread(&b, [k, n])) else {
            return Err(self.fail("operands do not broadcast".into()));
        };
        if m == 1 {
            a.strides[rank - 2] = k;
        }
        let out = self.result(output, dense_strides);
        let panels = Panels::new(self.isa, n, k);
        self.push(Work::MatMul { a, b, out, panels });
        Ok(())
    }

    pub(super) fn attend(
        &mut self,
        scale: f32,
        inputs: &[Input],
        output: ValueId,
    ) -> Result<(), CompileError> {
        let rank = self.result_shape(output).len();
        let (last, row) = (rank - 1, rank - 2);
        let (q, k, v) = (self.view(&inputs[0])?, self.view(&inputs[1])?, self.view(&inputs[2])?);
        let q = if q.strides[last] == 1 { q } else { self.dense(q) };
        let v = if v.strides[last] == 1 { v } else { self.dense(v) };
        let k = if k.strides[row] == 1 {
            k
        } else {
            let order: Vec<usize> = (0..row).chain([last, row]).collect();
            let strides = ordered_strides(&k.shape, &order);
            self.copied(k, strides)
        };
        let mask = match inputs.get(3) {
            Some(mask) => {
                let mask = self.view(mask)?;
                let mask = if mask.strides.last() == Some(&1) { mask } else { self.dense(mask) };
                let whole: Vec<usize> = q.shape[..last].iter().copied().chain([k.shape[last]]).collect();
                let spread = mask.broadcast(&whole).filter(|mask| mask.strides[last] == 1);
                match spread {
                    Some(mask) => Some(mask),
                    None => {
                        let wide = mask.broadcast(&whole);
                        let wide = wide.ok_or_else(|| self.fail("a mask that does not broadcast".into()))?;
                        Some(self.dense(wide))
                    }
                }
            }
            None => None,
        };
        // Heads beside each other, as what follows reads them.
        let out = self.result(output, |shape| {
            if rank == 4 { ordered_strides(shape, &[0, 2, 1, 3]) } else { dense_strides(shape) }
        });
        self.push(Work::Attend { q, k, v, mask, out, scale, bf16: self.bf16 });
        Ok(())
    }
}
