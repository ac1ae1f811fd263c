use super::{KvLayout, KvType, PAGE, Query, attend};
use crate::Isa;
use half::f16;

/// Numbers between -1 and 1, the same in every run.
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

/// One head's cache of some tokens; the bytes that no token wrote are NaN or huge.
struct Cache {
    layout: KvLayout,
    pages: Vec<Vec<u8>>,
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    /// By distance, for all queries.
    bias: Vec<f32>,
}

impl Cache {
    fn random(isa: Isa, dtype: KvType, head_dim: usize, tokens: usize, numbers: &mut Numbers) -> Cache {
        let layout = KvLayout::new(dtype, 1, head_dim).unwrap();
        let mut pages = vec![vec![0xff; layout.page_bytes()]; tokens.div_ceil(PAGE)];
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for token in 0..tokens {
            let (k, v) = (numbers.take(head_dim), numbers.take(head_dim));
            layout.write(isa, &mut pages[token / PAGE], token % PAGE, &k, &v).unwrap();
            keys.push(k);
            values.push(v);
        }
        Cache { layout, pages, keys, values, bias: Vec::new() }
    }

    fn attend(
        &self,
        isa: Isa,
        queries: &[(Vec<f32>, usize)],
        scale: f32,
        window: Option<usize>,
    ) -> Vec<Vec<f32>> {
        let mut out = vec![vec![f32::NAN; self.layout.head_dim()]; queries.len()];
        let mut rows: Vec<&mut [f32]> = out.iter_mut().map(Vec::as_mut_slice).collect();
        let queries: Vec<Query<'_>> =
            queries.iter().map(|(q, position)| Query { q, position: *position, bias: &self.bias }).collect();
        let mut scratch = vec![0xff; self.layout.scratch_bytes(queries.len())];
        attend(
            isa,
            &self.layout,
            &queries,
            &|i| &self.pages[i],
            Some(self.pages[0].as_ptr()),
            scale,
            window,
            &mut rows,
            &mut scratch,
        )
        .unwrap();
        out
    }

    /// In f64, from what was written.
    fn naive(&self, query: &[f32], position: usize, scale: f32, window: Option<usize>) -> Vec<f64> {
        let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
        let scores: Vec<f64> = (first..=position)
            .map(|i| {
                let dot: f64 =
                    query.iter().zip(&self.keys[i]).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                let bias = self.bias.get(position - i).or(self.bias.last()).copied().unwrap_or(0.0);
                dot * f64::from(scale) + f64::from(bias)
            })
            .collect();
        let top = scores.iter().fold(f64::NEG_INFINITY, |m, s| m.max(*s));
        let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
        let total: f64 = weights.iter().sum();
        (0..query.len())
            .map(|d| {
                let sum: f64 =
                    weights.iter().enumerate().map(|(i, w)| w * f64::from(self.values[first + i][d])).sum();
                sum / total
            })
            .collect()
    }
}

fn bits(rows: &[Vec<f32>]) -> Vec<Vec<u32>> {
    rows.iter().map(|row| row.iter().map(|x| x.to_bits()).collect()).collect()
}

/// A cache, queries with their positions, a scale and a window.
type Case = (Cache, Vec<(Vec<f32>, usize)>, f32, Option<usize>);

/// A case of any kind.
fn random_case(isa: Isa, dtype: KvType, numbers: &mut Numbers) -> Case {
    let dims: &[usize] = match dtype {
        KvType::F16 | KvType::F32 => &[1, 8, 17, 40, 64, 80, 96, 128],
        KvType::Q8_0 => &[32, 64, 96, 128],
    };
    let head_dim = dims[numbers.below(dims.len())];
    let tokens = 1 + numbers.below(300);
    let mut cache = Cache::random(isa, dtype, head_dim, tokens, numbers);
    if numbers.below(2) == 0 {
        let len = 1 + numbers.below(100);
        cache.bias = numbers.take(len);
    }
    let (group, steps) = (1 + numbers.below(4), 1 + numbers.below(tokens.min(12)));
    let mut queries = Vec::new();
    for step in 0..steps {
        for _ in 0..group {
            queries.push((numbers.take(head_dim), tokens - steps + step));
        }
    }
    let window = (numbers.below(2) == 0).then(|| 1 + numbers.below(150));
    let scale = 4.0 / (head_dim as f32).sqrt();
    (cache, queries, scale, window)
}

#[test]
fn agrees_with_naive_attention_on_ragged_cases() {
    for isa in Isa::available() {
        // f16 has 11 bits; int8 about 7, which both scores and values feel.
        for (dtype, bound) in [(KvType::F16, 2e-3), (KvType::Q8_0, 4e-2), (KvType::F32, 3e-5)] {
            let mut numbers = Numbers(11);
            for case in 0..60 {
                let (cache, queries, scale, window) = random_case(isa, dtype, &mut numbers);
                let out = cache.attend(isa, &queries, scale, window);
                for ((q, position), out) in queries.iter().zip(&out) {
                    let expected = cache.naive(q, *position, scale, window);
                    for (a, b) in out.iter().zip(&expected) {
                        assert!((f64::from(*a) - b).abs() <= bound, "{isa:?} {dtype:?} {case}: {a} {b}");
                    }
                }
            }
        }
    }
}

#[test]
fn agrees_closely_where_the_cache_loses_nothing() {
    for isa in Isa::available() {
        let mut numbers = Numbers(12);
        for _ in 0..20 {
            let (mut cache, queries, scale, window) = random_case(isa, KvType::F16, &mut numbers);
            for row in cache.keys.iter_mut().chain(&mut cache.values) {
                row.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32());
            }
            let out = cache.attend(isa, &queries, scale, window);
            for ((q, position), out) in queries.iter().zip(&out) {
                for (a, b) in out.iter().zip(cache.naive(q, *position, scale, window)) {
                    assert!((f64::from(*a) - b).abs() <= 3e-6, "{isa:?}: {a} {b}");
                }
            }
        }
    }
}

#[test]
fn a_row_never_depends_on_the_rows_beside_it() {
    for isa in Isa::available() {
        for dtype in [KvType::F16, KvType::Q8_0, KvType::F32] {
            let mut numbers = Numbers(13);
            for _ in 0..40 {
                let (cache, queries, scale, window) = random_case(isa, dtype, &mut numbers);
                let together = bits(&cache.attend(isa, &queries, scale, window));
                let mut start = 0;
                while start < queries.len() {
                    let end = (start + 1 + numbers.below(9)).min(queries.len());
                    let apart = bits(&cache.attend(isa, &queries[start..end], scale, window));
                    assert_eq!(apart, together[start..end], "{isa:?} {dtype:?}");
                    start = end;
                }
                for (query, row) in queries.iter().zip(&together) {
                    let alone = bits(&cache.attend(isa, std::slice::from_ref(query), scale, window));
                    assert_eq!(alone[0], *row, "{isa:?} {dtype:?}");
                }
            }
        }
    }
}

#[test]
fn later_tokens_change_nothing() {
    for isa in Isa::available() {
        for dtype in [KvType::F16, KvType::Q8_0, KvType::F32] {
            let mut numbers = Numbers(14);
            let mut cache = Cache::random(isa, dtype, 64, 70, &mut numbers);
            let queries: Vec<_> = (60..70).map(|position| (numbers.take(64), position)).collect();
            let alone: Vec<_> = queries
                .iter()
                .flat_map(|query| cache.attend(isa, std::slice::from_ref(query), 0.3, None))
                .collect();
            // The next token brings infinities into the page.
            let bad = vec![f32::INFINITY; 64];
            cache.layout.write(isa, &mut cache.pages[1], 6, &bad, &bad).unwrap();
            assert_eq!(bits(&cache.attend(isa, &queries, 0.3, None)), bits(&alone), "{isa:?} {dtype:?}");
        }
    }
}

#[test]
fn the_instruction_sets_store_the_same_bytes() {
    for dtype in [KvType::F16, KvType::Q8_0, KvType::F32] {
        let pages: Vec<_> = Isa::available()
            .into_iter()
            .map(|isa| Cache::random(isa, dtype, 96, 65, &mut Numbers(15)).pages)
            .collect();
        assert!(pages.iter().all(|p| *p == pages[0]), "{dtype:?}");
    }
}

#[test]
fn heads_share_a_page_without_overlap() {
    for dtype in [KvType::F16, KvType::Q8_0, KvType::F32] {
        let layout = KvLayout::new(dtype, 3, 64).unwrap();
        let ranges: Vec<_> = (0..3).map(|head| layout.head_range(head)).collect();
        assert_eq!(ranges[0].start, 0);
        assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert_eq!(ranges[2].end, layout.page_bytes());
        assert!(layout.page_bytes().is_multiple_of(64));
    }
    assert_eq!(KvLayout::new(KvType::F16, 3, 64).unwrap().page_bytes(), 3 * 64 * 64 * 2 * 2);
    assert_eq!(KvLayout::new(KvType::Q8_0, 3, 64).unwrap().page_bytes(), 3 * 64 * (64 + 4) * 2);
}

#[test]
fn shapes_that_disagree_are_refused() {
    assert!(KvLayout::new(KvType::Q8_0, 1, 48).is_err());
    assert!(KvLayout::new(KvType::F16, 0, 64).is_err());
    assert!(KvLayout::new(KvType::F16, 1, usize::MAX).is_err());
    let (isa, layout) = (Isa::detect(), KvLayout::new(KvType::F16, 1, 8).unwrap());
    let mut page = vec![0; layout.page_bytes()];
    let x = [0.0; 8];
    assert!(layout.write(isa, &mut page, 64, &x, &x).is_err());
    assert!(layout.write(isa, &mut page, 0, &x[..7], &x).is_err());
    assert!(layout.write(isa, &mut page[1..], 0, &x, &x).is_err());
    let mut scratch = vec![0; layout.scratch_bytes(1)];
    let run = |q: &[f32], page: &[u8], window, out: usize, scratch: &mut [u8]| {
        let mut out = vec![0.0; out];
        attend(
            isa,
            &layout,
            &[Query { q, position: 0, bias: &[] }],
            &|_| page,
            None,
            1.0,
            window,
            &mut [&mut out[..]],
            scratch,
        )
        .is_err()
    };
    assert!(!run(&x, &page, None, 8, &mut scratch));
    assert!(run(&x[..7], &page, None, 8, &mut scratch));
    assert!(run(&x, &page[1..], None, 8, &mut scratch));
    assert!(run(&x, &page, Some(0), 8, &mut scratch));
    assert!(run(&x, &page, None, 9, &mut scratch));
    assert!(run(&x, &page, None, 8, &mut scratch[1..]));
}
