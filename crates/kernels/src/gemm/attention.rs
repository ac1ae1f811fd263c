//! Attention of one head over keys and values that lie in memory as they were computed.

use super::{Epilogue, Matrix, Panels, Product, Scratch, Target, lanes};
use crate::{Isa, KernelError, chain, rows};
use std::ops::Range;

/// Queries that are worked on together: scores of a few hundred keys stay in the second-level cache.
const BLOCK: usize = 48;

/// `out = softmax(scale * q . k^T + mask) . v` for one head. All strides are elements between rows.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Keys.
    pub keys: usize,
    /// Width of queries and keys.
    pub dim: usize,
    /// Width of values.
    pub value_dim: usize,
    /// `[queries, dim]`.
    pub q: &'a [f32],
    /// Of `q`.
    pub q_stride: usize,
    /// `[keys, dim]`.
    pub k: &'a [f32],
    /// Of `k`.
    pub k_stride: usize,
    /// `[keys, value_dim]`.
    pub v: &'a [f32],
    /// Of `v`.
    pub v_stride: usize,
    /// Factor on the scores; positive.
    pub scale: f32,
    /// Products in bf16, where the machine has them.
    pub bf16: bool,
    /// Added to the scores: `[queries, keys]` at a stride, which is 0 for one row for all.
    pub mask: Option<(&'a [f32], usize)>,
    /// `[queries, value_dim]`.
    pub out: Target,
}

impl Attention<'_> {
    /// Computes the queries `queries`.
    ///
    /// # Errors
    /// [`KernelError::Shape`] if lengths disagree.
    ///
    /// # Safety
    /// `out` must be valid for writes of these queries, which no other thread touches meanwhile.
    pub unsafe fn run(
        &self,
        isa: Isa,
        queries: Range<usize>,
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        let layout = |n, k| Panels::with_precision(isa, self.bf16, n, 1, k);
        self.compute(&layout(self.keys, self.dim), &layout(self.value_dim, self.keys), queries, scratch)
    }

    fn compute(
        &self,
        scores: &Panels,
        values: &Panels,
        queries: Range<usize>,
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        let Scratch { floats, more, rounded, .. } = scratch;
        let (keys, isa) = (self.keys, scores.isa());
        let direct = self.value_dim.is_multiple_of(lanes(values.isa())) && !values.has_pairs();
        let packed_values = if direct { 0 } else { values.packed_len() };
        let packed = scores.packed_len() + packed_values;
        if floats.len() < packed {
            floats.resize(packed, 0.0);
        }
        let (packed_keys, packed_values) = floats[..packed].split_at_mut(scores.packed_len());
        scores.pack(self.k, self.k_stride, 1, packed_keys)?;
        let matrix = if direct {
            Matrix::Rows(self.v, self.v_stride)
        } else {
            values.pack(self.v, 1, self.v_stride, packed_values)?;
            Matrix::Packed(packed_values)
        };
        if more.len() < BLOCK * keys {
            more.resize(BLOCK * keys, 0.0);
        }
        for block in super::blocks(queries, BLOCK) {
            let weights = &mut more[..block.len() * keys];
            let product = Product {
                panels: scores,
                matrix: Matrix::Packed(packed_keys),
                x: &self.q[(block.start * self.q_stride).min(self.q.len())..],
                x_stride: self.q_stride,
                epilogue: Epilogue::default(),
                out: Target { data: weights.as_mut_ptr(), stride: keys },
            };
            // SAFETY: `weights` holds a row of keys for each query of the block.
            unsafe { product.run_with(0..block.len(), 0..scores.count(), rounded)? };
            if let Some((mask, stride)) = self.mask {
                self.add_mask(isa, mask, stride, block.clone(), weights)?;
                rows::softmax_in_place(isa, weights, keys, 1.0)?;
            } else {
                rows::softmax_in_place(isa, weights, keys, self.scale)?;
            }
            let product = Product {
                panels: values,
                matrix,
                x: weights,
                x_stride: keys,
                epilogue: Epilogue::default(),
                out: Target {
                    data: self.out.data.wrapping_add(block.start * self.out.stride),
                    stride: self.out.stride,
                },
            };
            // SAFETY: the caller of `run` vouches for the output.
            unsafe { product.run_with(0..block.len(), 0..values.count(), rounded)? };
        }
        Ok(())
    }

    /// `scores = scale * scores + mask`.
    fn add_mask(
        &self,
        isa: Isa,
        mask: &[f32],
        stride: usize,
        block: Range<usize>,
        scores: &mut [f32],
    ) -> Result<(), KernelError> {
        use chain::{Function, Operand, Source, Step};
        let steps = [
            Step { function: Function::Mul, a: Source::Operand(0), b: Source::Number(self.scale) },
            Step { function: Function::Add, a: Source::Step(0), b: Source::Operand(1) },
        ];
        let (mut copy, mut scratch) = (vec![0.0; self.keys], Vec::new());
        for (query, scores) in block.zip(scores.chunks_exact_mut(self.keys.max(1))) {
            let mask =
                mask.get(query * stride..query * stride + self.keys).ok_or_else(|| KernelError::Shape {
                    kernel: "attention",
                    what: format!("a mask of {} elements for query {query}", mask.len()),
                })?;
            copy.copy_from_slice(scores);
            chain::run(isa, &steps, &[Operand::Slice(&copy), Operand::Slice(mask)], scores, &mut scratch)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Attention;
    use crate::Isa;
    use crate::gemm::tests::{assert_close, numbers};
    use crate::gemm::{Scratch, Target};

    #[test]
    fn heads_equal_their_definition() {
        for isa in Isa::available() {
            for (queries, keys, dim, value_dim) in [(1, 1, 8, 16), (50, 70, 64, 64), (7, 19, 40, 20)] {
                let (q, k) = (numbers(1, queries * (dim + 2)), numbers(2, keys * (dim + 3)));
                let (v, bias) = (numbers(3, keys * (value_dim + 1)), numbers(4, queries * keys));
                for (mask, bf16) in [
                    (None, false),
                    (Some((&bias[..], keys)), false),
                    (Some((&bias[..keys], 0)), false),
                    (None, true),
                ] {
                    let mut expected = Vec::new();
                    for query in 0..queries {
                        let scores: Vec<f64> = (0..keys)
                            .map(|key| {
                                let dot = |d: usize| {
                                    f64::from(q[query * (dim + 2) + d]) * f64::from(k[key * (dim + 3) + d])
                                };
                                let dot: f64 = (0..dim).map(dot).sum();
                                let mask = mask.map_or(0.0, |(mask, stride)| mask[query * stride + key]);
                                (dot * 0.3 + f64::from(mask)).exp()
                            })
                            .collect();
                        let total: f64 = scores.iter().sum();
                        expected.extend((0..value_dim).map(|d| {
                            let sum: f64 = (0..keys)
                                .map(|key| scores[key] * f64::from(v[key * (value_dim + 1) + d]))
                                .sum();
                            (sum / total) as f32
                        }));
                    }
                    let mut out = vec![0.0; queries * value_dim];
                    let head = Attention {
                        keys,
                        dim,
                        value_dim,
                        q: &q,
                        q_stride: dim + 2,
                        k: &k,
                        k_stride: dim + 3,
                        v: &v,
                        v_stride: value_dim + 1,
                        scale: 0.3,
                        bf16,
                        mask,
                        out: Target { data: out.as_mut_ptr(), stride: value_dim },
                    };
                    let mut scratch = Scratch::default();
                    // SAFETY: `out` holds all queries.
                    unsafe {
                        head.run(isa, 0..queries / 2, &mut scratch).unwrap();
                        head.run(isa, queries / 2..queries, &mut scratch).unwrap();
                    }
                    let bound = if bf16 { 1e-2 } else { 3e-6 };
                    assert_close(&out, &expected, bound, &format!("{isa:?} {queries} {keys} {dim} {bf16}"));
                }
            }
        }
    }
}
