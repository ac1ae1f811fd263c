use super::{HeadOutput, HeadRows, SelfAttention, scratch_bytes, self_attention};
use crate::Isa;

struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn below(&mut self, limit: usize) -> usize {
        ((self.next() + 1.0) / 2.0 * limit as f32) as usize
    }

    fn take(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.next()).collect()
    }
}

/// The definition, in f64: one query.
fn expected(task: &SelfAttention<'_>, i: usize) -> Vec<f64> {
    let row = |rows: HeadRows<'_>, i: usize| -> Vec<f64> {
        rows.data[i * rows.row_stride..][..task.head_dim].iter().map(|&x| f64::from(x)).collect()
    };
    let (at, q) = (task.first_query + i, row(task.queries, i));
    let scores: Vec<f64> = (0..task.tokens)
        .map(|j| {
            if task.reach.is_some_and(|reach| j.abs_diff(at) > reach) {
                return f64::NEG_INFINITY;
            }
            let dot: f64 = q.iter().zip(row(task.keys, j)).map(|(q, k)| q * k).sum();
            let bias = task.bias.map_or(0.0, |bias| f64::from(bias[task.tokens - 1 + j - at]));
            let mask = task.mask.map_or(0.0, |mask| f64::from(mask[i * task.tokens + j]));
            dot * f64::from(task.scale) + bias + mask
        })
        .collect();
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
    let total: f64 = weights.iter().sum();
    (0..task.head_dim)
        .map(|d| weights.iter().enumerate().map(|(j, w)| w * row(task.values, j)[d]).sum::<f64>() / total)
        .collect()
}

fn compute(isa: Isa, task: &SelfAttention<'_>, stride: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; task.query_count * stride];
    let mut scratch = vec![0xff; scratch_bytes(task.tokens, task.head_dim)];
    // SAFETY: `out` has all rows.
    unsafe {
        let out = HeadOutput { data: out.as_mut_ptr(), row_stride: stride };
        self_attention(isa, task, out, &mut scratch).unwrap();
    }
    out
}

#[test]
fn agrees_with_its_definition_on_every_isa() {
    let mut numbers = Numbers(1);
    for case in 0..120 {
        let tokens = if case < 40 { 1 + case } else { 1 + numbers.below(150) };
        let head_dim = [4, 8, 16, 20, 32, 48, 64, 80, 128][numbers.below(9)];
        let stride = head_dim * (1 + numbers.below(3));
        let first_query = numbers.below(tokens);
        let query_count = 1 + numbers.below(tokens - first_query);
        let mut rows = |count: usize| numbers.take((count - 1) * stride + head_dim);
        let (q, k, x) = (rows(query_count), rows(tokens), rows(tokens));
        let bias = (case % 3 == 1).then(|| numbers.take(2 * tokens - 1));
        let mask = (case % 4 == 1).then(|| numbers.take(query_count * tokens));
        let task = SelfAttention {
            tokens,
            queries: HeadRows { data: &q, row_stride: stride },
            first_query,
            query_count,
            keys: HeadRows { data: &k, row_stride: stride },
            values: HeadRows { data: &x, row_stride: stride },
            head_dim,
            scale: 0.3 + numbers.next().abs(),
            reach: (case % 2 == 1).then(|| numbers.below(40)),
            bias: bias.as_deref(),
            mask: mask.as_deref(),
        };
        for isa in Isa::available() {
            let out = compute(isa, &task, stride);
            for i in 0..query_count {
                let row = &out[i * stride..(i + 1) * stride];
                for (d, y) in expected(&task, i).into_iter().enumerate() {
                    let error = (f64::from(row[d]) - y).abs();
                    assert!(error < 3e-6, "{} case {case}, query {i}, {d}: {} {y}", isa.name(), row[d]);
                }
                assert!(row[head_dim..].iter().all(|x| x.is_nan()), "wrote past a head");
            }
        }
    }
}

#[test]
fn a_query_does_not_depend_on_those_beside_it() {
    let mut numbers = Numbers(2);
    let (tokens, head_dim) = (45, 32);
    let (q, k, x) = (numbers.take(tokens * 32), numbers.take(tokens * 32), numbers.take(tokens * 32));
    let rows = |data| HeadRows { data, row_stride: head_dim };
    for reach in [None, Some(9)] {
        let whole = SelfAttention {
            tokens,
            queries: rows(&q),
            first_query: 0,
            query_count: tokens,
            keys: rows(&k),
            values: rows(&x),
            head_dim,
            scale: 0.2,
            reach,
            bias: None,
            mask: None,
        };
        for isa in Isa::available() {
            let all = compute(isa, &whole, head_dim);
            for i in 0..tokens {
                let one = SelfAttention {
                    queries: rows(&q[i * head_dim..]),
                    first_query: i,
                    query_count: 1,
                    ..whole
                };
                assert_eq!(compute(isa, &one, head_dim), all[i * head_dim..(i + 1) * head_dim]);
            }
        }
    }
}

#[test]
fn refuses_what_does_not_fit() {
    let data = [0.0; 64];
    let rows = HeadRows { data: &data, row_stride: 8 };
    let good = SelfAttention {
        tokens: 8,
        queries: rows,
        first_query: 0,
        query_count: 8,
        keys: rows,
        values: rows,
        head_dim: 8,
        scale: 1.0,
        reach: None,
        bias: None,
        mask: None,
    };
    let mut out = [0.0; 64];
    let mut scratch = vec![0; scratch_bytes(8, 8)];
    let mut run = |task: &SelfAttention<'_>, scratch: &mut [u8]| {
        // SAFETY: `out` has 8 rows, and no task that passes the checks has more.
        unsafe {
            let out = HeadOutput { data: out.as_mut_ptr(), row_stride: 8 };
            self_attention(Isa::detect(), task, out, scratch).is_ok()
        }
    };
    assert!(run(&good, &mut scratch));
    assert!(!run(&good, &mut scratch[1..]));
    assert!(!run(&SelfAttention { tokens: 9, ..good }, &mut scratch));
    assert!(!run(&SelfAttention { first_query: 1, ..good }, &mut scratch));
    assert!(!run(&SelfAttention { head_dim: 9, ..good }, &mut scratch));
    assert!(!run(&SelfAttention { bias: Some(&data[..16]), ..good }, &mut scratch));
    assert!(!run(&SelfAttention { mask: Some(&data[..63]), ..good }, &mut scratch));
}
