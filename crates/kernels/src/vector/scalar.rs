//! Plain Rust: four lanes, which is what every 64-bit machine has at least.

use super::{Kernel, Vector};
use half::f16;

const LANES: usize = 4;
type Lanes = [f32; LANES];

/// The instruction set that is always there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scalar;

#[inline(always)]
fn zip(a: Lanes, b: Lanes, f: impl Fn(f32, f32) -> f32) -> Lanes {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

impl Vector for Scalar {
    type F32 = Lanes;
    type I32 = [i32; LANES];
    const DOT_OFFSET: i32 = 0;
    const LANES: usize = LANES;
    // Six rows by two fill 12 of the 16 registers that any x86-64 has.
    const COLUMNS: usize = 2;

    #[inline(never)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Lanes {
        [x; LANES]
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Lanes {
        // SAFETY: the caller promises `LANES` readable elements.
        unsafe { from.cast::<Lanes>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, x: Lanes) {
        // SAFETY: the caller promises `LANES` writable elements.
        unsafe { to.cast::<Lanes>().write_unaligned(x) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const u8) -> Lanes {
        // SAFETY: the caller promises `LANES` readable pairs of bytes.
        let bytes = unsafe { from.cast::<[[u8; 2]; LANES]>().read_unaligned() };
        bytes.map(|b| f16::from_le_bytes(b).to_f32())
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u8, x: Lanes) {
        let bytes = x.map(|x| f16::from_f32(x).to_le_bytes());
        // SAFETY: the caller promises `LANES` writable pairs of bytes.
        unsafe { to.cast::<[[u8; 2]; LANES]>().write_unaligned(bytes) }
    }

    #[inline(always)]
    unsafe fn load_i8(self, from: *const u8) -> Lanes {
        // SAFETY: the caller promises `LANES` readable bytes.
        let bytes = unsafe { from.cast::<[i8; LANES]>().read_unaligned() };
        bytes.map(f32::from)
    }

    #[inline(always)]
    fn add(self, a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn fma(self, a: Lanes, b: Lanes, c: Lanes) -> Lanes {
        // `mul_add` would call into the C library on machines without the instruction.
        self.add(self.mul(a, b), c)
    }

    #[inline(always)]
    fn max(self, a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn sqrt(self, x: Lanes) -> Lanes {
        x.map(f32::sqrt)
    }

    #[inline(always)]
    fn round(self, x: Lanes) -> Lanes {
        // Adding 1.5 * 2^23 leaves no bits for the fraction; the addition rounds it away.
        let magic = [12_582_912.0; LANES];
        self.sub(self.add(x, magic), magic)
    }

    #[inline(always)]
    fn times_power_of_two(self, x: Lanes, n: Lanes) -> Lanes {
        // Two factors, since one cannot express the powers beyond the normal range.
        let power = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
        zip(x, n, |x, n| {
            let n = n as i32;
            let half = n >> 1;
            x * power(half) * power(n - half)
        })
    }

    #[inline(always)]
    fn select_less(self, a: Lanes, b: Lanes, x: Lanes, y: Lanes) -> Lanes {
        let pick = |i: usize| if a[i] < b[i] { x[i] } else { y[i] };
        [pick(0), pick(1), pick(2), pick(3)]
    }

    #[inline(always)]
    fn swap_pairs(self, [a, b, c, d]: Lanes) -> Lanes {
        [b, a, d, c]
    }

    #[inline(always)]
    fn sum(self, [a, b, c, d]: Lanes) -> f32 {
        (a + c) + (b + d)
    }

    #[inline(always)]
    fn max_lane(self, [a, b, c, d]: Lanes) -> f32 {
        a.max(c).max(b.max(d))
    }

    #[inline(always)]
    unsafe fn load_i32(self, from: *const u8) -> Self::I32 {
        // SAFETY: the caller promises `LANES` readable words.
        unsafe { from.cast::<[i32; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store_i32(self, to: *mut u8, x: Self::I32) {
        // SAFETY: the caller promises `LANES` writable words.
        unsafe { to.cast::<[i32; LANES]>().write_unaligned(x) }
    }

    #[inline(always)]
    unsafe fn load_u8(self, from: *const u8) -> Self::I32 {
        // SAFETY: the caller promises `LANES` readable bytes.
        unsafe { from.cast::<[u8; LANES]>().read_unaligned() }.map(i32::from)
    }

    #[inline(always)]
    unsafe fn store_u8(self, to: *mut u8, x: Self::I32) {
        // SAFETY: the caller promises `LANES` writable bytes.
        unsafe { to.cast::<[u8; LANES]>().write_unaligned(x.map(|x| x as u8)) }
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> Self::I32 {
        [x; LANES]
    }

    #[inline(always)]
    fn dot(self, a: Self::I32, b: Self::I32, c: Self::I32) -> Self::I32 {
        let one = |i: usize| {
            let (a, b) = (a[i].to_le_bytes(), b[i].to_le_bytes().map(|b| b as i8));
            let product = |j: usize| i32::from(a[j]) * i32::from(b[j]);
            c[i].wrapping_add(product(0) + product(1) + product(2) + product(3))
        };
        [one(0), one(1), one(2), one(3)]
    }

    #[inline(always)]
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }

    #[inline(always)]
    fn max_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        std::array::from_fn(|i| a[i].max(b[i]))
    }

    #[inline(always)]
    fn min_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        std::array::from_fn(|i| a[i].min(b[i]))
    }

    #[inline(always)]
    fn to_f32(self, x: Self::I32) -> Lanes {
        x.map(|x| x as f32)
    }

    #[inline(always)]
    fn to_i32(self, x: Lanes) -> Self::I32 {
        x.map(|x| x.round_ties_even() as i32)
    }
}
