//! NEON: 4 lanes.

use super::{Kernel, Vector};
use half::f16;
#[allow(clippy::wildcard_imports, reason = "intrinsics carry their prefix")]
use std::arch::aarch64::*;

/// Proof that NEON and its half-precision conversions are there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neon(());

/// Runs `kernel` with the instruction set enabled.
#[inline(never)]
#[target_feature(enable = "neon,dotprod,fp16")]
pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Neon(()))
}

impl Vector for Neon {
    type F32 = float32x4_t;
    type I32 = int32x4_t;
    // Its dot products are of i8: the elements lose 128.
    const DOT_OFFSET: i32 = 128;
    const LANES: usize = 4;
    // Six rows by four, four loads and a broadcast fill 29 of the 32 registers.
    const COLUMNS: usize = 4;

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` proves the instruction set.
        unsafe { run(kernel) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { vdupq_n_f32(x) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::F32 {
        // SAFETY: `self` proves the instruction set; the caller vouches for the pointer.
        unsafe { vld1q_f32(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, x: Self::F32) {
        // SAFETY: `self` proves the instruction set; the caller vouches for the pointer.
        unsafe { vst1q_f32(to, x) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const u8) -> Self::F32 {
        let x: float32x4_t;
        // SAFETY: `self` proves the instruction set; the caller vouches for the 8 bytes, and nothing else is touched.
        // The intrinsics for this need the unstable f16 type.
        unsafe {
            std::arch::asm!(
                "ldr {x:d}, [{from}]",
                "fcvtl {x:v}.4s, {x:v}.4h",
                from = in(reg) from,
                x = out(vreg) x,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        x
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u8, x: Self::F32) {
        let mut lanes = [0.0; 4];
        // SAFETY: `self` proves the instruction set; `lanes` has four elements.
        unsafe { vst1q_f32(lanes.as_mut_ptr(), x) };
        let bytes = lanes.map(|x| f16::from_f32(x).to_le_bytes());
        // SAFETY: the caller vouches for the 8 bytes.
        unsafe { to.cast::<[[u8; 2]; 4]>().write_unaligned(bytes) }
    }

    #[inline(always)]
    unsafe fn load_i8(self, from: *const u8) -> Self::F32 {
        // SAFETY: the caller vouches for the 4 bytes.
        let lanes = unsafe { from.cast::<[i8; 4]>().read_unaligned() }.map(i32::from);
        // SAFETY: `self` proves the instruction set; `lanes` has four elements.
        unsafe { vcvtq_f32_s32(vld1q_s32(lanes.as_ptr())) }
    }

    #[inline(always)]
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { vaddq_f32(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { vsubq_f32(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { vmulq_f32(a, b) }
    }

    #[inline(always)]
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { vdivq_f32(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { vfmaq_f32(c, a, b) }
    }

    #[inline(always)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        self.select_less(b, a, a, b)
    }

    #[inline(always)]
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        self.select_less(a, b, a, b)
    }

    #[inline(always)]
    fn sqrt(self, x: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { vsqrtq_f32(x) }
    }

    #[inline(always)]
    fn round(self, x: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { vrndnq_f32(x) }
    }

    #[inline(always)]
    fn times_power_of_two(self, x: Self::F32, n: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the instruction set.
        unsafe {
            // Two factors, since one cannot express the powers beyond the normal range.
            let n = vcvtq_s32_f32(n);
            let half = vshrq_n_s32::<1>(n);
            let bias = vdupq_n_s32(127);
            let low = vshlq_n_s32::<23>(vaddq_s32(half, bias));
            let high = vshlq_n_s32::<23>(vaddq_s32(vsubq_s32(n, half), bias));
            vmulq_f32(vmulq_f32(x, vreinterpretq_f32_s32(low)), vreinterpretq_f32_s32(high))
        }
    }

    #[inline(always)]
    fn select_less(self, a: Self::F32, b: Self::F32, x: Self::F32, y: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { vbslq_f32(vcltq_f32(a, b), x, y) }
    }

    #[inline(always)]
    fn swap_pairs(self, x: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { vrev64q_f32(x) }
    }

    #[inline(always)]
    fn sum(self, x: Self::F32) -> f32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { vaddvq_f32(x) }
    }

    #[inline(always)]
    fn max_lane(self, x: Self::F32) -> f32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { vmaxvq_f32(x) }
    }

    #[inline(always)]
    unsafe fn load_i32(self, from: *const u8) -> Self::I32 {
        // SAFETY: `self` proves the instruction set; the caller vouches for the pointer.
        unsafe { vreinterpretq_s32_u8(vld1q_u8(from)) }
    }

    #[inline(always)]
    unsafe fn store_i32(self, to: *mut u8, x: Self::I32) {
        // SAFETY: `self` proves the instruction set; the caller vouches for the pointer.
        unsafe { vst1q_u8(to, vreinterpretq_u8_s32(x)) }
    }

    #[inline(always)]
    unsafe fn load_u8(self, from: *const u8) -> Self::I32 {
        // SAFETY: the caller vouches for the 4 bytes.
        let lanes = unsafe { from.cast::<[u8; 4]>().read_unaligned() }.map(i32::from);
        // SAFETY: `self` proves the instruction set; `lanes` has four elements.
        unsafe { vld1q_s32(lanes.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn store_u8(self, to: *mut u8, x: Self::I32) {
        let mut lanes = [0; 4];
        // SAFETY: `self` proves the instruction set; `lanes` has four elements.
        unsafe { vst1q_s32(lanes.as_mut_ptr(), x) };
        // SAFETY: the caller vouches for the 4 bytes.
        unsafe { to.cast::<[u8; 4]>().write_unaligned(lanes.map(|x| x as u8)) }
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> Self::I32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { vdupq_n_s32(x) }
    }

    #[inline(always)]
    fn dot(self, a: Self::I32, b: Self::I32, c: Self::I32) -> Self::I32 {
        let mut sums = c;
        // SAFETY: `self` proves the instruction set, `dotprod` included; nothing but registers is
        // touched. The intrinsic for this is unstable.
        unsafe {
            let a = vreinterpretq_s32_u8(veorq_u8(vreinterpretq_u8_s32(a), vdupq_n_u8(0x80)));
            std::arch::asm!(
                "sdot {sums:v}.4s, {a:v}.16b, {b:v}.16b",
                sums = inout(vreg) sums,
                a = in(vreg) a,
                b = in(vreg) b,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sums
    }

    #[inline(always)]
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { vaddq_s32(a, b) }
    }

    #[inline(always)]
    fn max_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { vmaxq_s32(a, b) }
    }

    #[inline(always)]
    fn min_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { vminq_s32(a, b) }
    }

    #[inline(always)]
    fn to_f32(self, x: Self::I32) -> Self::F32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { vcvtq_f32_s32(x) }
    }

    #[inline(always)]
    fn to_i32(self, x: Self::F32) -> Self::I32 {
        // SAFETY: `self` proves the instruction set.
        unsafe { vcvtnq_s32_f32(x) }
    }
}
