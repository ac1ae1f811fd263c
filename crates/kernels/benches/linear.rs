//! Rates of the linear kernels on one thread, by element type and rows of activations; elements are arithmetic
//! operations, to set beside the peaks of `kun doctor`. `cargo bench -p kun-kernels --bench linear [-- q4_k]`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kun_kernels::Isa;
use kun_kernels::linear::{After, Output, PackedLayout, Panels, prepare};
use kun_tensor::DType;
use kun_tensor::storage::HugeBuffer;

const N: usize = 2048;
const K: usize = 2048;

fn linear(c: &mut Criterion) {
    let isa = Isa::detect();
    for dtype in DType::ALL {
        let Ok(layout) = PackedLayout::new(isa, dtype, N, K) else { continue };
        let mut group = c.benchmark_group(dtype.name());
        let mut packed = HugeBuffer::zeroed(layout.bytes()).expect("memory for a small matrix");
        let row_bytes = dtype.bytes_for(K).expect("whole blocks");
        // Bits that make no scale infinite.
        let source: Vec<u8> = (0..row_bytes * 16).map(|i| ((i * 7919) >> 3) as u8 & 0x3b).collect();
        group.throughput(Throughput::Elements((N * K) as u64));
        group.bench_function("pack", |b| {
            b.iter(|| {
                for out in packed.as_mut_slice().chunks_mut(layout.panel_bytes()) {
                    layout.pack_panel(&source, out).expect("matching lengths");
                }
            });
        });
        for rows in [1, 4, 16, 512] {
            let x: Vec<f32> = (0..rows * K).map(|i| ((i * 31) % 97) as f32 / 97.0 - 0.5).collect();
            let mut prepared = vec![0; rows * layout.activation().row_bytes(K)];
            prepare(isa, layout.activation(), K, &x, &mut prepared).expect("matching lengths");
            let (mut out, mut scratch) = (vec![0f32; rows * N], vec![0; layout.scratch_bytes()]);
            group.throughput(Throughput::Elements((2 * rows * N * K) as u64));
            group.bench_function(BenchmarkId::new("rows", rows), |b| {
                b.iter(|| {
                    for first in (0..layout.panels()).step_by(8) {
                        let range = first..layout.panels().min(first + 8);
                        let panels = Panels { packed: packed.as_slice(), range, after: After::UNKNOWN };
                        let target = Output { data: out.as_mut_ptr(), row_stride: N, accumulate: false };
                        // SAFETY: `out` has all rows of all columns, and this is the only thread.
                        unsafe {
                            layout
                                .matmul(panels, &prepared, rows, None, target, &mut scratch)
                                .expect("matching lengths");
                        }
                    }
                });
            });
        }
    }
}

criterion_group!(benches, linear);
criterion_main!(benches);
