//! u8 codes that stand for numbers: to and from f32, functions as tables, windows.

use crate::conv::{Geometry, Images};
use crate::gemm::quads::Code;
use crate::vector::{self, Kernel, Vector};
use crate::{Isa, KernelError};
use std::ops::Range;
use std::sync::OnceLock;

/// A function from codes to codes.
pub type Table = [u8; 256];

/// `out = codes` as numbers.
///
/// # Errors
/// [`KernelError::Shape`] if lengths differ.
pub fn decode(isa: Isa, code: Code, codes: &[u8], out: &mut [f32]) -> Result<(), KernelError> {
    KernelError::check("decode", codes.len(), out.len())?;
    vector::run(isa, Decode { code, codes, out });
    Ok(())
}

struct Decode<'a> {
    code: Code,
    codes: &'a [u8],
    out: &'a mut [f32],
}

impl Kernel for Decode<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let (zero, scale) = (v.splat_i32(-i32::from(self.code.zero)), v.splat(self.code.scale));
        let whole = self.codes.len() / V::LANES * V::LANES;
        for at in (0..whole).step_by(V::LANES) {
            // SAFETY: a whole vector is left of both.
            unsafe {
                let x = v.to_f32(v.add_i32(v.load_u8(self.codes.as_ptr().add(at)), zero));
                v.store(self.out.as_mut_ptr().add(at), v.mul(x, scale));
            }
        }
        for (out, &code) in self.out[whole..].iter_mut().zip(&self.codes[whole..]) {
            *out = self.code.decode(code);
        }
    }
}

/// `out` = the codes nearest to `x`.
///
/// # Errors
/// [`KernelError::Shape`] if lengths differ.
pub fn encode(isa: Isa, code: Code, x: &[f32], out: &mut [u8]) -> Result<(), KernelError> {
    KernelError::check("encode", x.len(), out.len())?;
    vector::run(isa, Encode { code, x, out });
    Ok(())
}

struct Encode<'a> {
    code: Code,
    x: &'a [f32],
    out: &'a mut [u8],
}

impl Kernel for Encode<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        // Far behind the ends, and exact.
        let (low, high, scale) = (v.splat(-1024.0), v.splat(1024.0), v.splat(self.code.scale));
        let whole = self.x.len() / V::LANES * V::LANES;
        for at in (0..whole).step_by(V::LANES) {
            // SAFETY: a whole vector is left of both.
            unsafe {
                let x = v.div(v.load(self.x.as_ptr().add(at)), scale);
                let x = v.to_i32(v.min(high, v.max(x, low)));
                v.store_codes(self.out.as_mut_ptr().add(at), [x], [self.code.zero, 0, 255]);
            }
        }
        for (out, &x) in self.out[whole..].iter_mut().zip(&self.x[whole..]) {
            *out = self.code.encode(x);
        }
    }
}

/// The least and the largest of `x` and 0; NaN counts for nothing.
pub fn bounds(isa: Isa, x: &[f32]) -> [f32; 2] {
    vector::run(isa, Bounds { x })
}

struct Bounds<'a> {
    x: &'a [f32],
}

impl Kernel for Bounds<'_> {
    type Output = [f32; 2];

    #[inline(always)]
    fn run<V: Vector>(self, v: V) -> [f32; 2] {
        let whole = self.x.len() / V::LANES * V::LANES;
        let (mut low, mut high) = (v.splat(0.0), v.splat(0.0));
        for at in (0..whole).step_by(V::LANES) {
            // SAFETY: a whole vector is left. The second operand stays where the first is NaN.
            let x = unsafe { v.load(self.x.as_ptr().add(at)) };
            (low, high) = (v.min(x, low), v.max(x, high));
        }
        let (low, high) = (-v.max_lane(v.sub(v.splat(0.0), low)), v.max_lane(high));
        let rest = &self.x[whole..];
        [rest.iter().copied().fold(low, f32::min), rest.iter().copied().fold(high, f32::max)]
    }
}

/// Whether this machine looks up 64 bytes at once.
fn has_byte_permutes() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        {
            Isa::detect() >= Isa::Avx512 && std::arch::is_x86_feature_detected!("avx512vbmi")
        }
        #[cfg(not(target_arch = "x86_64"))]
        false
    })
}

/// Replaces codes by what `table` makes of them: `rows` rows of `width`, `stride` apart.
///
/// # Safety
/// `data` must be valid for reading and writing these rows, which no other thread touches meanwhile.
pub(crate) unsafe fn map_rows(table: &Table, data: *mut u8, rows: usize, width: usize, stride: usize) {
    if stride == width {
        // SAFETY: passed on; rows lie one after the other.
        return map(table, unsafe { std::slice::from_raw_parts_mut(data, rows * width) });
    }
    for row in 0..rows {
        // SAFETY: passed on.
        let codes = unsafe { std::slice::from_raw_parts_mut(data.add(row * stride), width) };
        map(table, codes);
    }
}

/// Replaces codes by what `table` makes of them.
pub fn map(table: &Table, codes: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if has_byte_permutes() {
        // SAFETY: the machine has the instructions, as asked.
        return unsafe { permute::map(table, codes) };
    }
    let _ = has_byte_permutes;
    codes.iter_mut().for_each(|code| *code = table[usize::from(*code)]);
}

#[cfg(target_arch = "x86_64")]
mod permute {
    //! Tables in four registers.

    use super::Table;
    #[allow(clippy::wildcard_imports, reason = "intrinsics carry their prefix")]
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
    pub(super) fn map(table: &Table, codes: &mut [u8]) {
        // SAFETY: a table has four registers; whole ones of the codes, and then those that are left, are read and written.
        unsafe {
            let part = |i: usize| _mm512_loadu_si512(table.as_ptr().add(64 * i).cast());
            let parts = [part(0), part(1), part(2), part(3)];
            let mut at = 0;
            while at < codes.len() {
                let left = codes.len() - at;
                let mask = if left >= 64 { u64::MAX } else { (1 << left) - 1 };
                let to = codes.as_mut_ptr().add(at).cast();
                let x = _mm512_maskz_loadu_epi8(mask, to);
                let low = _mm512_permutex2var_epi8(parts[0], x, parts[1]);
                let high = _mm512_permutex2var_epi8(parts[2], x, parts[3]);
                let upper = _mm512_movepi8_mask(x);
                _mm512_mask_storeu_epi8(to, mask, _mm512_mask_blend_epi8(upper, low, high));
                at += 64;
            }
        }
    }
}

/// The largest code of windows over images whose channels lie together.
#[derive(Clone, Copy, Debug)]
pub struct CodesPool<'a> {
    /// Sizes.
    pub geometry: &'a Geometry,
    /// Channels.
    pub channels: usize,
    /// Input.
    pub x: Images<'a, u8>,
}

impl CodesPool<'_> {
    /// Computes output row `row` (of all images) into `out`, pixels `stride` apart.
    ///
    /// # Errors
    /// [`KernelError::Shape`] if lengths disagree.
    pub fn run(&self, isa: Isa, row: usize, out: &mut [u8], stride: usize) -> Result<(), KernelError> {
        let geometry = self.geometry;
        self.x.check("pool", geometry, self.channels)?;
        let needed = (geometry.output[1].max(1) - 1) * stride + self.channels;
        if row >= geometry.batch * geometry.output[0] || out.len() < needed {
            let what = format!("row {row} of {geometry:?} into {} codes", out.len());
            return Err(KernelError::Shape { kernel: "pool", what });
        }
        vector::run(isa, Largest { task: self, row, out, stride });
        Ok(())
    }
}

struct Largest<'a> {
    task: &'a CodesPool<'a>,
    row: usize,
    out: &'a mut [u8],
    stride: usize,
}

impl Kernel for Largest<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, _: V) {
        let CodesPool { geometry, channels, x } = *self.task;
        let (image, row) = (self.row / geometry.output[0], self.row % geometry.output[0]);
        for column in 0..geometry.output[1] {
            let out = &mut self.out[column * self.stride..][..channels];
            out.fill(0);
            for ky in 0..geometry.kernel[0] {
                let Some(y) = geometry.source(0, row, ky) else { continue };
                for kx in 0..geometry.kernel[1] {
                    let Some(at) = geometry.source(1, column, kx) else { continue };
                    let from = &x.data[x.at([image, y, at])..][..channels];
                    out.iter_mut().zip(from).for_each(|(out, x)| *out = (*out).max(*x));
                }
            }
        }
    }
}

/// Adds `rows` rows of `sums.len()` codes at a distance of `stride` to `sums`.
///
/// # Errors
/// [`KernelError::Shape`] if `codes` is too short.
pub fn add_rows(
    codes: &[u8],
    rows: Range<usize>,
    stride: usize,
    sums: &mut [u32],
) -> Result<(), KernelError> {
    if rows.is_empty() {
        return Ok(());
    }
    if (rows.end - 1) * stride + sums.len() > codes.len() {
        let what = format!("rows {rows:?} of {} of {} codes", sums.len(), codes.len());
        return Err(KernelError::Shape { kernel: "sum of codes", what });
    }
    for row in rows {
        let from = &codes[row * stride..][..sums.len()];
        sums.iter_mut().zip(from).for_each(|(sum, &code)| *sum += u32::from(code));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
