//! Rates of the linear kernels on one thread: `linear_speed [N K]`.
use kun_kernels::Isa;
use kun_kernels::linear::{Output, PackedLayout, prepare};
use kun_tensor::DType;
use kun_tensor::storage::HugeBuffer;
use std::time::Instant;

fn main() {
    let args: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let (n, k) = (args.first().copied().unwrap_or(2048), args.get(1).copied().unwrap_or(2048));
    let isa = Isa::detect();
    for dtype in [
        DType::Q4_0,
        DType::Q4_1,
        DType::Q5_0,
        DType::Q5_1,
        DType::Q8_0,
        DType::Q2K,
        DType::Q3K,
        DType::Q4K,
        DType::Q5K,
        DType::Q6K,
        DType::Iq4Nl,
        DType::Iq4Xs,
        DType::F16,
        DType::BF16,
        DType::F32,
    ] {
        if std::env::args().nth(3).is_some_and(|only| only != dtype.name()) {
            continue;
        }
        let Ok(layout) = PackedLayout::new(isa, dtype, n, k) else { continue };
        let mut packed = HugeBuffer::zeroed(layout.bytes()).expect("memory");
        let row = dtype.bytes_for(k).expect("whole blocks");
        let source: Vec<u8> = (0..row * 16).map(|i| (i * 7919 >> 3) as u8 & 0x3b).collect();
        let mut pack_ns = f64::MAX;
        for _ in 0..5 {
            let started = Instant::now();
            for out in packed.as_mut_slice().chunks_mut(layout.panel_bytes()) {
                layout.pack_panel(&source, out).expect("shapes");
            }
            pack_ns = pack_ns.min(started.elapsed().as_secs_f64() * 1e9 / (n * k) as f64);
        }
        print!("{:7} pack {pack_ns:5.2} ns/element ", dtype.name());
        for t in [1, 2, 4, 8, 16, 32, 128, 512] {
            let x: Vec<f32> = (0..t * k).map(|i| ((i * 31) % 97) as f32 / 97.0 - 0.5).collect();
            let mut prepared = vec![0; t * layout.activation().row_bytes(k)];
            prepare(isa, layout.activation(), k, &x, &mut prepared).expect("shapes");
            let mut out = vec![0f32; t * n];
            let mut scratch = vec![0; layout.scratch_bytes()];
            let mut best = f64::MAX;
            for _ in 0..if t == 512 { 5 } else { 20 } {
                let started = Instant::now();
                for panels in (0..layout.panels()).step_by(8) {
                    let target = Output { data: out.as_mut_ptr(), row_stride: n, accumulate: false };
                    let panels = panels..layout.panels().min(panels + 8);
                    // SAFETY: `out` has `t` rows of `n` columns.
                    unsafe {
                        layout
                            .matmul(packed.as_slice(), &prepared, t, panels, None, target, &mut scratch)
                            .expect("shapes")
                    };
                }
                best = best.min(started.elapsed().as_secs_f64());
            }
            print!(
                "| t {t}: {:6.1} GOP/s {:5.1} GB/s ",
                2.0 * (t * n * k) as f64 / best / 1e9,
                layout.bytes() as f64 / best / 1e9
            );
        }
        println!();
    }
}
