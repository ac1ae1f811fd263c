//! One vector of f32 per instruction set, and the one place where a kernel enters an instruction set.
//!
//! A kernel is written once, generic over [`Vector`], and started with [`run`].

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

use crate::Isa;

/// The most lanes of any instruction set.
pub(crate) const MAX_LANES: usize = 16;

/// `f` of every place. `std::array::from_fn` is compiled anew for each closure in many layers; kernels have thousands.
#[inline(always)]
pub(crate) fn array<T: Copy, const N: usize>(f: impl Fn(usize) -> T) -> [T; N] {
    let mut all = [f(0); N];
    for (i, one) in all.iter_mut().enumerate().skip(1) {
        *one = f(i);
    }
    all
}

/// Proof that an instruction set is there, and its operations on vectors of f32.
///
/// Methods must be `inline(always)`, so that they become part of the function that has the instruction set enabled.
pub(crate) trait Vector: Copy {
    /// A register of [`Vector::LANES`] f32.
    type F32: Copy;
    /// A register of [`Vector::LANES`] i32.
    type I32: Copy;
    /// What [`Vector::dot`] takes from every element of its first operand.
    const DOT_OFFSET: i32;
    /// Lanes of a register.
    const LANES: usize;
    /// Registers that a blocked kernel may use as accumulators beside each other in each of six rows.
    const COLUMNS: usize;

    /// Runs `kernel` as a function of its own, which keeps large kernels apart for the compiler.
    fn call<K: Kernel>(self, kernel: K) -> K::Output;

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::F32;
    /// Loads [`Vector::LANES`] elements.
    ///
    /// # Safety
    /// `from` must be valid for reading them; it need not be aligned.
    unsafe fn load(self, from: *const f32) -> Self::F32;
    /// Stores [`Vector::LANES`] elements.
    ///
    /// # Safety
    /// `to` must be valid for writing them; it need not be aligned.
    unsafe fn store(self, to: *mut f32, x: Self::F32);
    /// Asks for the line at `from`, whatever is there, to be in the second-level cache soon.
    #[inline(always)]
    fn prefetch(self, _from: *const f32) {}
    /// Loads [`Vector::LANES`] f16 elements.
    ///
    /// # Safety
    /// `from` must be valid for reading two bytes each; it need not be aligned.
    unsafe fn load_f16(self, from: *const u8) -> Self::F32;
    /// Stores [`Vector::LANES`] elements as f16, rounded to nearest even.
    ///
    /// # Safety
    /// `to` must be valid for writing two bytes each; it need not be aligned.
    unsafe fn store_f16(self, to: *mut u8, x: Self::F32);
    /// Loads [`Vector::LANES`] int8 elements.
    ///
    /// # Safety
    /// `from` must be valid for reading one byte each.
    unsafe fn load_i8(self, from: *const u8) -> Self::F32;

    /// `a + b`.
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a - b`.
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b`.
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a / b`.
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b + c`, rounded once where the instruction set can.
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// What a product adds to its sum: [`Vector::fma`], or, in [`run_pairs`], `c` plus the products of the two bf16 that
    /// each lane of `a` and `b` holds.
    #[inline(always)]
    fn multiply_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        self.fma(a, b, c)
    }
    /// Two registers of neighbours as one of bf16 pairs, rounded to nearest even; in [`run_pairs`] alone.
    #[inline(always)]
    fn pairs(self, _first: Self::F32, _second: Self::F32) -> Self::F32 {
        unreachable!("asked for with bf16 dot products only")
    }
    /// The larger; `b` if either is NaN.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The smaller; `b` if either is NaN.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// Square root.
    fn sqrt(self, x: Self::F32) -> Self::F32;
    /// The nearest whole number, ties to even; for magnitudes below 2^22.
    fn round(self, x: Self::F32) -> Self::F32;
    /// `x * 2^n` for whole `n` of -200 to 200 and `x` of about 1; reaches denormals and infinity.
    fn times_power_of_two(self, x: Self::F32, n: Self::F32) -> Self::F32;
    /// `x` where `a < b`, else `y`.
    fn select_less(self, a: Self::F32, b: Self::F32, x: Self::F32, y: Self::F32) -> Self::F32;
    /// Lanes `2i` and `2i + 1` change places.
    fn swap_pairs(self, x: Self::F32) -> Self::F32;
    /// Sum of the lanes, always in one order.
    fn sum(self, x: Self::F32) -> f32;
    /// The largest lane.
    fn max_lane(self, x: Self::F32) -> f32;

    /// Loads [`Vector::LANES`] i32.
    ///
    /// # Safety
    /// `from` must be valid for reading four bytes each; it need not be aligned.
    unsafe fn load_i32(self, from: *const u8) -> Self::I32;
    /// Stores [`Vector::LANES`] i32.
    ///
    /// # Safety
    /// `to` must be valid for writing four bytes each; it need not be aligned.
    unsafe fn store_i32(self, to: *mut u8, x: Self::I32);
    /// Loads [`Vector::LANES`] u8.
    ///
    /// # Safety
    /// `from` must be valid for reading one byte each.
    unsafe fn load_u8(self, from: *const u8) -> Self::I32;
    /// Stores the low byte of [`Vector::LANES`] elements.
    ///
    /// # Safety
    /// `to` must be valid for writing one byte each.
    unsafe fn store_u8(self, to: *mut u8, x: Self::I32);
    /// `x` in every lane.
    fn splat_i32(self, x: i32) -> Self::I32;
    /// `c` plus the sum of four products in each lane: of the u8 of `a`, each less [`Vector::DOT_OFFSET`], with the i8 of
    /// `b`.
    fn dot(self, a: Self::I32, b: Self::I32, c: Self::I32) -> Self::I32;
    /// `a + b`.
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// The larger.
    fn max_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// The smaller.
    fn min_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// As f32.
    fn to_f32(self, x: Self::I32) -> Self::F32;
    /// The nearest whole number, ties to even; for magnitudes below 2^31.
    fn to_i32(self, x: Self::F32) -> Self::I32;

    /// `x + zero`, no lower than `low` and no higher than `high`, as bytes one after the other; `zero` is a u8.
    ///
    /// # Safety
    /// `to` must be valid for writing `C` times [`Vector::LANES`] bytes.
    #[inline(always)]
    unsafe fn store_codes<const C: usize>(self, to: *mut u8, x: [Self::I32; C], [zero, low, high]: [u8; 3]) {
        let splat = |x: u8| self.splat_i32(i32::from(x));
        let (zero, low, high) = (splat(zero), splat(low), splat(high));
        for (c, x) in x.into_iter().enumerate() {
            let x = self.min_i32(high, self.max_i32(low, self.add_i32(x, zero)));
            // SAFETY: passed on.
            unsafe { self.store_u8(to.add(c * Self::LANES), x) };
        }
    }

    /// `1 / x` for `x` of 2^-126 to 2^126, but for a rounding or two.
    #[inline(always)]
    fn reciprocal(self, x: Self::F32) -> Self::F32 {
        self.div(self.splat(1.0), x)
    }

    /// Loads the first elements of `from`, at most [`Vector::LANES`]; the other lanes are 0.
    #[inline(always)]
    fn load_part(self, from: &[f32]) -> Self::F32 {
        let mut lanes = [0.0; MAX_LANES];
        for (lane, x) in lanes.iter_mut().zip(&from[..from.len().min(Self::LANES)]) {
            *lane = *x;
        }
        // SAFETY: `lanes` is as long as the longest vector.
        unsafe { self.load(lanes.as_ptr()) }
    }

    /// Stores the first lanes of `x`, as many as `to` is long, at most [`Vector::LANES`].
    #[inline(always)]
    fn store_part(self, to: &mut [f32], x: Self::F32) {
        let mut lanes = [0.0; MAX_LANES];
        // SAFETY: `lanes` is as long as the longest vector.
        unsafe { self.store(lanes.as_mut_ptr(), x) };
        for (x, lane) in to.iter_mut().zip(&lanes[..Self::LANES]) {
            *x = *lane;
        }
    }
}

/// A computation written once for every instruction set.
pub(crate) trait Kernel {
    /// What it returns.
    type Output;
    /// Computes it; must be `inline(always)`.
    fn run<V: Vector>(self, v: V) -> Self::Output;
}

/// Runs `kernel` on `isa`, or on this machine's best level if it lacks that one.
#[inline]
pub(crate) fn run<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    match isa.min(Isa::detect()) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: levels of an architecture include those below, and this machine's is no lower.
        Isa::Avx2 => unsafe { avx2::run(kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx512 | Isa::Avx512Bf16 => unsafe { avx512::run(kernel) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above; no other level above `Scalar` is ever this machine's.
        Isa::Neon => unsafe { neon::run(kernel) },
        _ => kernel.run(scalar::Scalar),
    }
}

/// [`Vector::DOT_OFFSET`].
struct DotOffset;

impl Kernel for DotOffset {
    type Output = i32;

    #[inline(always)]
    fn run<V: Vector>(self, _: V) -> i32 {
        V::DOT_OFFSET
    }
}

/// What dot products of `isa` take from every u8.
pub(crate) fn dot_offset(isa: Isa) -> i32 {
    run(isa, DotOffset)
}

/// Whether [`run_pairs`] is there.
pub(crate) fn has_pairs(isa: Isa) -> bool {
    isa.has_bf16() && Isa::detect() == isa
}

/// Runs `kernel` with bf16 dot products as its [`Vector::multiply_add`]; only after [`has_pairs`].
#[inline]
pub(crate) fn run_pairs<K: Kernel>(kernel: K) -> K::Output {
    assert!(has_pairs(Isa::Avx512Bf16), "asked for by whoever calls this");
    #[cfg(target_arch = "x86_64")]
    // SAFETY: this machine has it, as asserted.
    unsafe {
        avx512::run_pairs(kernel)
    }
    #[cfg(not(target_arch = "x86_64"))]
    kernel.run(scalar::Scalar)
}

#[cfg(test)]
mod tests;
