//! Rates of the kernels between the linear layers, on one thread: elements are floating-point operations in the
//! attention prefill group, bytes moved elsewhere. `cargo bench -p kun-kernels --bench kernels`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kun_kernels::Isa;
use kun_kernels::attention::{KvLayout, KvType, Query, attend};
use kun_kernels::elementwise::{UnaryOp, gated, unary};
use kun_kernels::norm::rms_norm;
use kun_kernels::rope::{RopeStyle, rope};
use std::hint::black_box;

fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 0.37).sin()).collect()
}

fn elementwise(c: &mut Criterion) {
    let mut group = c.benchmark_group("elementwise");
    let (x, up, mut out) = (numbers(8192), numbers(8192), vec![0.0; 8192]);
    for isa in Isa::available() {
        group.throughput(Throughput::Bytes(2 * 4 * 8192));
        for op in [UnaryOp::Exp, UnaryOp::Gelu, UnaryOp::Tanh] {
            group.bench_function(BenchmarkId::new(format!("{op:?}"), isa.name()), |b| {
                b.iter(|| unary(isa, op, black_box(&x), &mut out));
            });
        }
        group.throughput(Throughput::Bytes(3 * 4 * 8192));
        group.bench_function(BenchmarkId::new("gated silu", isa.name()), |b| {
            b.iter(|| gated(isa, UnaryOp::Silu, black_box(&x), &up, &mut out));
        });
    }
}

fn rows(c: &mut Criterion) {
    let mut group = c.benchmark_group("rows");
    let (x, mut out) = (numbers(2048), vec![0.0; 2048]);
    let (weight, cos, sin) = (numbers(2048), numbers(32), numbers(32));
    group.throughput(Throughput::Bytes(2 * 4 * 2048));
    for isa in Isa::available() {
        group.bench_function(BenchmarkId::new("rms norm", isa.name()), |b| {
            b.iter(|| rms_norm(isa, black_box(&x), &weight, 1e-5, &mut out));
        });
        for style in [RopeStyle::Halves, RopeStyle::Interleaved] {
            group.bench_function(BenchmarkId::new(format!("rope {style:?}"), isa.name()), |b| {
                b.iter(|| rope(isa, style, 64, 64, black_box(&cos), &sin, &mut out));
            });
        }
    }
}

/// One head's pages of `tokens` tokens.
fn cache(layout: &KvLayout, tokens: usize) -> Vec<Vec<u8>> {
    let mut pages = vec![vec![0; layout.page_bytes()]; tokens.div_ceil(KvLayout::PAGE_TOKENS)];
    let (k, v) = (numbers(layout.head_dim()), numbers(layout.head_dim()));
    for token in 0..tokens {
        let page = &mut pages[token / KvLayout::PAGE_TOKENS];
        layout.write(Isa::detect(), page, token % KvLayout::PAGE_TOKENS, &k, &v).expect("sizes agree");
    }
    pages
}

fn attention(c: &mut Criterion) {
    const TOKENS: usize = 512;
    // Query rows of a call.
    const TILE: usize = 64;
    for (group_heads, head_dim) in [(3, 64), (4, 128)] {
        let mut group = c.benchmark_group(format!("attention {group_heads} x {head_dim}"));
        for dtype in [KvType::F16, KvType::Q8_0] {
            let layout = KvLayout::new(dtype, 1, head_dim).expect("a good shape");
            let rows = TOKENS * group_heads;
            let queries = numbers(rows * head_dim);
            let queries: Vec<_> = (queries.chunks(head_dim).enumerate())
                .map(|(row, q)| Query { q, position: row / group_heads, bias: &[] })
                .collect();
            let mut out = vec![0.0; rows * head_dim];
            let mut scratch = vec![0; layout.scratch_bytes(TILE)];
            let pages = cache(&layout, 4096);
            for isa in Isa::available() {
                let operations = group_heads * 4 * head_dim * TOKENS * (TOKENS + 1) / 2;
                group.throughput(Throughput::Elements(operations as u64));
                group.bench_function(BenchmarkId::new(format!("prefill 512 {dtype:?}"), isa.name()), |b| {
                    b.iter(|| {
                        let mut out: Vec<_> = out.chunks_mut(head_dim).collect();
                        for (queries, out) in queries.chunks(TILE).zip(out.chunks_mut(TILE)) {
                            attend(isa, &layout, queries, &|i| &pages[i], None, 0.1, None, out, &mut scratch)
                                .expect("sizes agree");
                        }
                    });
                });
                for context in [512, 4096] {
                    group.throughput(Throughput::Bytes((context / 64 * layout.page_bytes()) as u64));
                    let last: Vec<_> = queries[..group_heads]
                        .iter()
                        .map(|query| Query { position: context - 1, ..*query })
                        .collect();
                    let name = format!("decode {context} {dtype:?}");
                    group.bench_function(BenchmarkId::new(name, isa.name()), |b| {
                        b.iter(|| {
                            let mut out: Vec<_> = out.chunks_mut(head_dim).take(group_heads).collect();
                            attend(
                                isa,
                                &layout,
                                &last,
                                &|i| &pages[i],
                                None,
                                0.1,
                                None,
                                &mut out,
                                &mut scratch,
                            )
                        });
                    });
                }
            }
        }
    }
}

criterion_group! {
    name = kernels;
    config = Criterion::default()
        .without_plots()
        .warm_up_time(std::time::Duration::from_millis(100))
        .measurement_time(std::time::Duration::from_millis(300))
        .sample_size(20);
    targets = elementwise, rows, attention
}
criterion_main!(kernels);
