//! The most that a core's arithmetic units do: dot products on registers alone, for comparing kernels with.

use crate::Isa;
use std::hint::black_box;

/// What is multiplied and added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// f32, fused multiply-add.
    F32,
    /// Pairs of bf16 into f32.
    Bf16,
    /// Groups of four int8 into i32.
    Int8,
}

/// Runs `rounds` rounds on the calling thread and gives the operations done (a multiplication and an addition are
/// two), or `None` if `isa` has no instruction for this arithmetic. A round is about 20 ns.
///
/// # Panics
/// If `isa` is none of [`Isa::available`].
pub fn run(isa: Isa, arithmetic: Arithmetic, rounds: u64) -> Option<u64> {
    assert!(Isa::available().contains(&isa), "{isa:?} is not of this machine");
    let per_round = match (isa, arithmetic) {
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512 | Isa::Avx512Bf16, Arithmetic::F32) => {
            // SAFETY: checked above: this machine has the level, and the level includes AVX-512 F.
            unsafe { x86::f32_512(rounds) };
            x86::CHAINS * 16 * 2
        }
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512 | Isa::Avx512Bf16, Arithmetic::Int8) => {
            // SAFETY: checked above: this machine has the level, and the level includes VNNI.
            unsafe { x86::int8_512(rounds) };
            x86::CHAINS * 64 * 2
        }
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512Bf16, Arithmetic::Bf16) => {
            // SAFETY: checked above: this machine has the level, and the level includes BF16.
            unsafe { x86::bf16_512(rounds) };
            x86::CHAINS * 32 * 2
        }
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, Arithmetic::F32) => {
            // SAFETY: checked above: this machine has the level, and the level includes FMA.
            unsafe { x86::f32_256(rounds) };
            x86::CHAINS_256 * 8 * 2
        }
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, Arithmetic::Int8) => {
            // SAFETY: checked above: this machine has the level.
            unsafe { x86::int8_256(rounds) };
            x86::CHAINS_256 * 32 * 2
        }
        #[cfg(target_arch = "aarch64")]
        (Isa::Neon, Arithmetic::F32) => {
            // SAFETY: checked above: this machine has the level.
            unsafe { arm::f32_128(rounds) };
            arm::CHAINS * 4 * 2
        }
        #[cfg(target_arch = "aarch64")]
        (Isa::Neon, Arithmetic::Int8) => {
            // SAFETY: checked above: this machine has the level, and the level includes `dotprod`.
            unsafe { arm::int8_128(rounds) };
            arm::CHAINS * 16 * 2
        }
        (Isa::Scalar, Arithmetic::F32) => {
            scalar_f32(rounds);
            SCALAR_CHAINS * 2
        }
        _ => return None,
    };
    Some(per_round as u64 * rounds)
}

const SCALAR_CHAINS: usize = 32;

fn scalar_f32(rounds: u64) {
    let (a, b) = (black_box([0.5f32; SCALAR_CHAINS]), black_box([0.25f32; SCALAR_CHAINS]));
    let mut sums = [0.0f32; SCALAR_CHAINS];
    for _ in 0..rounds {
        for lane in 0..SCALAR_CHAINS {
            sums[lane] = sums[lane] * a[lane] + b[lane];
        }
    }
    black_box(sums);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        _mm256_add_epi32, _mm256_fmadd_ps, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi8,
        _mm256_set1_epi16, _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256, _mm512_dpbf16_ps,
        _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_set1_epi8, _mm512_set1_ps, _mm512_setzero_ps,
        _mm512_setzero_si512,
    };
    use std::hint::black_box;

    /// Independent sums: the latency of four cycles times two units, and room to spare.
    pub(super) const CHAINS: usize = 16;
    /// Fewer registers.
    pub(super) const CHAINS_256: usize = 12;

    #[target_feature(enable = "avx512f")]
    pub(super) fn f32_512(rounds: u64) {
        let (a, b) = (_mm512_set1_ps(black_box(0.5)), _mm512_set1_ps(black_box(0.25)));
        let mut sums = [_mm512_setzero_ps(); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn int8_512(rounds: u64) {
        let (a, b) = (_mm512_set1_epi8(black_box(3)), _mm512_set1_epi8(black_box(-2)));
        let mut sums = [_mm512_setzero_si512(); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn bf16_512(rounds: u64) {
        // SAFETY: both are 512 bits, and any bits are bf16 values.
        let a = unsafe {
            std::mem::transmute::<std::arch::x86_64::__m512i, std::arch::x86_64::__m512bh>(_mm512_set1_epi8(
                black_box(0x3c),
            ))
        };
        let mut sums = [_mm512_setzero_ps(); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, a, a);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn f32_256(rounds: u64) {
        let (a, b) = (_mm256_set1_ps(black_box(0.5)), _mm256_set1_ps(black_box(0.25)));
        let mut sums = [_mm256_setzero_ps(); CHAINS_256];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
    }

    /// Three instructions where VNNI has one.
    #[target_feature(enable = "avx2")]
    pub(super) fn int8_256(rounds: u64) {
        let ones = _mm256_set1_epi16(black_box(1));
        let (mut a, b) = (_mm256_set1_epi8(black_box(3)), _mm256_set1_epi8(black_box(-2)));
        let mut sums = [_mm256_setzero_si256(); CHAINS_256];
        for _ in 0..rounds {
            // Without a change the products would be computed once, before the loop.
            a = _mm256_add_epi32(a, ones);
            for (i, sum) in sums.iter_mut().enumerate() {
                let x = _mm256_add_epi32(a, _mm256_set1_epi8(i as i8));
                let products = _mm256_madd_epi16(_mm256_maddubs_epi16(x, b), ones);
                *sum = _mm256_add_epi32(*sum, products);
            }
        }
        black_box(sums);
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::{vdupq_n_f32, vdupq_n_s8, vdupq_n_s32, vfmaq_f32};
    use std::hint::black_box;

    pub(super) const CHAINS: usize = 16;

    #[target_feature(enable = "neon")]
    pub(super) fn f32_128(rounds: u64) {
        let (a, b) = (vdupq_n_f32(black_box(0.5)), vdupq_n_f32(black_box(0.25)));
        let mut sums = [vdupq_n_f32(1.0); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = vfmaq_f32(*sum, a, b);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "neon,dotprod")]
    pub(super) fn int8_128(rounds: u64) {
        let (a, b) = (vdupq_n_s8(black_box(3)), vdupq_n_s8(black_box(-2)));
        let mut sums = [vdupq_n_s32(0); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                // SAFETY: the instruction reads and writes registers only. (The intrinsic is not stable.)
                unsafe {
                    std::arch::asm!(
                        "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
                        sum = inout(vreg) *sum,
                        a = in(vreg) a,
                        b = in(vreg) b,
                        options(pure, nomem, nostack, preserves_flags),
                    );
                }
            }
        }
        black_box(sums);
    }
}

#[cfg(test)]
mod tests {
    use super::{Arithmetic, run};
    use crate::Isa;
    use std::time::Instant;

    #[test]
    fn rates_are_those_of_a_processor_and_not_of_an_emptied_loop() {
        for isa in Isa::available() {
            for arithmetic in [Arithmetic::F32, Arithmetic::Bf16, Arithmetic::Int8] {
                let started = Instant::now();
                let Some(operations) = run(isa, arithmetic, 300_000) else { continue };
                let rate = operations as f64 / started.elapsed().as_secs_f64();
                assert!(rate > 1e8 && rate < 5e12, "{isa:?} {arithmetic:?}: {rate:e} operations/s");
                println!("{isa:?} {arithmetic:?}: {:.1} G/s", rate / 1e9);
            }
        }
        assert!(run(Isa::Scalar, Arithmetic::F32, 1).is_some());
    }
}
