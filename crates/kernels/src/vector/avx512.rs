//! AVX-512: 16 lanes.

use super::{Kernel, Vector};
#[allow(clippy::wildcard_imports, reason = "intrinsics carry their prefix")]
use std::arch::x86_64::*;

use std::mem::transmute;

/// Proof of Avx512, and of its bf16 dot products if it has `PAIRS`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512<const PAIRS: bool>(());

/// Runs `kernel` with the instruction set enabled.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512::<false>(()))
}

/// The same with bf16 dot products.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
pub(super) fn run_pairs<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512::<true>(()))
}

/// Round to nearest even; exceptions off, whole numbers kept.
const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

/// The first `len` lanes.
#[inline(always)]
fn first(len: usize) -> __mmask16 {
    ((1u32 << len.min(16)) - 1) as __mmask16
}

impl<const PAIRS: bool> Vector for Avx512<PAIRS> {
    type F32 = __m512;
    type I32 = __m512i;
    const DOT_OFFSET: i32 = 0;
    const LANES: usize = 16;
    // Six rows by four, four loads and a broadcast fill 29 of the 32 registers.
    const COLUMNS: usize = 4;

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` proves the instruction set.
        unsafe { if PAIRS { run_pairs(kernel) } else { run(kernel) } }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::F32 {
        // SAFETY: `self` proves the instruction set; the caller vouches for the pointer.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, x: Self::F32) {
        // SAFETY: `self` proves the instruction set; the caller vouches for the pointer.
        unsafe { _mm512_storeu_ps(to, x) }
    }

    #[inline(always)]
    fn prefetch(self, from: *const f32) {
        // SAFETY: a hint that may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const u8) -> Self::F32 {
        // SAFETY: `self` proves the instruction set; the caller vouches for the pointer.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u8, x: Self::F32) {
        // SAFETY: `self` proves the instruction set; the caller vouches for the pointer.
        unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<NEAREST>(x)) }
    }

    #[inline(always)]
    unsafe fn load_i8(self, from: *const u8) -> Self::F32 {
        // SAFETY: `self` proves the instruction set; the caller vouches for the pointer.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) }
    }

    #[inline(always)]
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn multiply_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        if !PAIRS {
            return self.fma(a, b, c);
        }
        // SAFETY: `self` proves the instruction set; registers of the same size, of which any bits are valid.
        unsafe { _mm512_dpbf16_ps(c, transmute::<__m512, __m512bh>(a), transmute::<__m512, __m512bh>(b)) }
    }

    #[inline(always)]
    fn pairs(self, first: Self::F32, second: Self::F32) -> Self::F32 {
        assert!(PAIRS, "asked for with bf16 dot products only");
        // SAFETY: `self` proves the instruction set; registers of the same size, of which any bits are valid.
        unsafe { transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(second, first)) }
    }

    #[inline(always)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn sqrt(self, x: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { _mm512_sqrt_ps(x) }
    }

    #[inline(always)]
    fn round(self, x: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { _mm512_roundscale_ps::<NEAREST>(x) }
    }

    #[inline(always)]
    fn times_power_of_two(self, x: Self::F32, n: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { _mm512_scalef_ps(x, n) }
    }

    #[inline(always)]
    fn select_less(self, a: Self::F32, b: Self::F32, x: Self::F32, y: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x) }
    }

    #[inline(always)]
    fn swap_pairs(self, x: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { _mm512_permute_ps::<0b10_11_00_01>(x) }
    }

    #[inline(always)]
    fn sum(self, x: Self::F32) -> f32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { _mm512_reduce_add_ps(x) }
    }

    #[inline(always)]
    fn reciprocal(self, x: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the instruction set.
        unsafe {
            let near = _mm512_rcp14_ps(x);
            _mm512_fmadd_ps(near, _mm512_fnmadd_ps(x, near, _mm512_set1_ps(1.0)), near)
        }
    }

    #[inline(always)]
    fn load_part(self, from: &[f32]) -> Self::F32 {
        // SAFETY: `self` proves the instruction set; lanes behind the slice are not read.
        unsafe { _mm512_maskz_loadu_ps(first(from.len()), from.as_ptr()) }
    }

    #[inline(always)]
    fn store_part(self, to: &mut [f32], x: Self::F32) {
        // SAFETY: `self` proves the instruction set; lanes behind the slice are not written.
        unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), first(to.len()), x) }
    }

    #[inline(always)]
    fn max_lane(self, x: Self::F32) -> f32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { _mm512_reduce_max_ps(x) }
    }

    #[inline(always)]
    unsafe fn load_i32(self, from: *const u8) -> Self::I32 {
        // SAFETY: `self` proves the instruction set; the caller vouches for the pointer.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store_i32(self, to: *mut u8, x: Self::I32) {
        // SAFETY: `self` proves the instruction set; the caller vouches for the pointer.
        unsafe { _mm512_storeu_si512(to.cast(), x) }
    }

    #[inline(always)]
    unsafe fn load_u8(self, from: *const u8) -> Self::I32 {
        // SAFETY: `self` proves the instruction set; the caller vouches for the pointer.
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn store_u8(self, to: *mut u8, x: Self::I32) {
        // SAFETY: `self` proves the instruction set; the caller vouches for the pointer.
        unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(x)) }
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> Self::I32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { _mm512_set1_epi32(x) }
    }

    #[inline(always)]
    fn dot(self, a: Self::I32, b: Self::I32, c: Self::I32) -> Self::I32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { _mm512_dpbusd_epi32(c, a, b) }
    }

    #[inline(always)]
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { _mm512_add_epi32(a, b) }
    }

    #[inline(always)]
    fn max_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { _mm512_max_epi32(a, b) }
    }

    #[inline(always)]
    fn min_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { _mm512_min_epi32(a, b) }
    }

    #[inline(always)]
    fn to_f32(self, x: Self::I32) -> Self::F32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { _mm512_cvtepi32_ps(x) }
    }

    #[inline(always)]
    fn to_i32(self, x: Self::F32) -> Self::I32 {
        // SAFETY: `self` proves the instruction set; the rounding mode is the default one.
        unsafe { _mm512_cvtps_epi32(x) }
    }

    #[inline(always)]
    unsafe fn store_codes<const C: usize>(self, to: *mut u8, x: [Self::I32; C], [zero, low, high]: [u8; 3]) {
        // SAFETY: `self` proves the instruction set; the caller vouches for the pointer.
        unsafe {
            if C == 4 {
                // Saturated twice: to 16 bits, in which `zero` is added, and to bytes.
                let zero = _mm512_set1_epi16(i16::from(zero));
                let pack = |a, b| _mm512_adds_epi16(_mm512_packs_epi32(a, b), zero);
                let bytes = _mm512_packus_epi16(pack(x[0], x[1]), pack(x[2], x[3]));
                // Each quarter holds four elements of every operand.
                let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
                let bytes = _mm512_permutexvar_epi32(order, bytes);
                let (low, high) = (_mm512_set1_epi8(low.cast_signed()), _mm512_set1_epi8(high.cast_signed()));
                let bytes = _mm512_min_epu8(high, _mm512_max_epu8(low, bytes));
                _mm512_storeu_si512(to.cast(), bytes);
                return;
            }
            let splat = |x: u8| _mm512_set1_epi32(i32::from(x));
            let (zero, low, high) = (splat(zero), splat(low), splat(high));
            for (c, x) in x.into_iter().enumerate() {
                let x = _mm512_min_epi32(high, _mm512_max_epi32(low, _mm512_add_epi32(x, zero)));
                _mm_storeu_si128(to.add(c * Self::LANES).cast(), _mm512_cvtepi32_epi8(x));
            }
        }
    }
}
