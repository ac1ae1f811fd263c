//! Activations, prepared once per row for every matrix that multiplies with them.

use super::scheme::GROUP;
use crate::{Isa, KernelError};
use half::bf16;

/// What a packed matrix multiplies with: how activations must be prepared by [`prepare`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ActivationFormat {
    /// f32 values as they are.
    F32,
    /// Rounded to bf16.
    Bf16,
    /// int8 in groups of 32 columns, each with its scale and its sums.
    Int8,
}

/// Byte offsets inside a row prepared as [`ActivationFormat::Int8`] with `groups` groups.
#[derive(Clone, Copy, Debug)]
pub struct Int8Row {
    /// f32 per group: the scale.
    pub scale: usize,
    /// i32 per group: minus the sum of its values.
    pub minus_sum: usize,
    /// i32 per half group: minus the sum of its values.
    pub minus_half_sum: usize,
    /// f32 per group: scale times sum.
    pub scaled_sum: usize,
    /// f32 per half group: scale times sum.
    pub scaled_half_sum: usize,
    /// Bytes used of the row.
    pub bytes: usize,
}

impl Int8Row {
    /// The offsets; the int8 values start at 0.
    pub const fn new(groups: usize) -> Int8Row {
        let scale = groups * GROUP;
        Int8Row {
            scale,
            minus_sum: scale + groups * 4,
            minus_half_sum: scale + groups * 8,
            scaled_sum: scale + groups * 16,
            scaled_half_sum: scale + groups * 20,
            bytes: scale + groups * 28,
        }
    }
}

impl ActivationFormat {
    /// Bytes of one prepared row of `k` elements; a multiple of 64.
    pub const fn row_bytes(self, k: usize) -> usize {
        let bytes = match self {
            ActivationFormat::F32 => k * 4,
            ActivationFormat::Bf16 => k * 2,
            ActivationFormat::Int8 => Int8Row::new(k.div_ceil(GROUP)).bytes,
        };
        if matches!(self, ActivationFormat::F32) {
            // Rows that fill whole lines are multiplied where they are.
            return bytes.next_multiple_of(64);
        }
        // An odd number of cache lines: rows a power of two apart would all fall into the same few sets of the cache.
        (bytes.div_ceil(64) | 1) * 64
    }
}

/// Prepares activations: `x` is `[T, K]` row-major, `out` is `[T, row_bytes(K)]`.
///
/// An int8 row needs `k` to be a multiple of 32.
///
/// # Errors
/// [`KernelError::Shape`] if the lengths disagree.
pub fn prepare(
    isa: Isa,
    format: ActivationFormat,
    k: usize,
    x: &[f32],
    out: &mut [u8],
) -> Result<(), KernelError> {
    let row_bytes = format.row_bytes(k);
    let rows = x.len().checked_div(k).unwrap_or(0);
    if rows * k != x.len()
        || out.len() != rows * row_bytes
        || (format == ActivationFormat::Int8 && !k.is_multiple_of(GROUP))
    {
        let what = format!("{} values in rows of {k}, {} bytes of {format:?}", x.len(), out.len());
        return Err(KernelError::Shape { kernel: "prepare", what });
    }
    for (x, out) in x.chunks_exact(k.max(1)).zip(out.chunks_exact_mut(row_bytes.max(1))) {
        if format == ActivationFormat::Bf16 {
            // The second column of the last step of an odd row is multiplied too, by a weight of zero.
            out[2 * k..].fill(0);
        }
        match format {
            ActivationFormat::F32 => {
                for (x, out) in x.iter().zip(out.chunks_exact_mut(4)) {
                    out.copy_from_slice(&x.to_ne_bytes());
                }
            }
            ActivationFormat::Bf16 => round_to_bf16(isa, x, &mut out[..2 * k]),
            ActivationFormat::Int8 => match isa {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `Isa::Avx512` is only made where the machine has these features; `out` is one prepared row of `k / GROUP` groups, as checked.
                Isa::Avx512 | Isa::Avx512Bf16 => unsafe { super::avx512::prepare_int8(x, out) },
                _ => prepare_int8(x, out),
            },
        }
    }
    Ok(())
}

/// Rounds `x` to bf16; `out` has two bytes for each.
pub(crate) fn round_to_bf16(isa: Isa, x: &[f32], out: &mut [u8]) {
    debug_assert_eq!(out.len(), 2 * x.len());
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Isa::Avx512Bf16` is only made where the machine has these features.
        Isa::Avx512Bf16 => unsafe { super::avx512::prepare_bf16(x, out) },
        _ => prepare_bf16(x, out),
    }
}

pub(super) fn prepare_bf16(x: &[f32], out: &mut [u8]) {
    for (x, out) in x.iter().zip(out.chunks_exact_mut(2)) {
        out.copy_from_slice(&bf16::from_f32(*x).to_bits().to_ne_bytes());
    }
}

fn prepare_int8(x: &[f32], out: &mut [u8]) {
    let at = Int8Row::new(x.len() / GROUP);
    for (g, x) in x.chunks_exact(GROUP).enumerate() {
        let largest = x.iter().fold(0f32, |m, v| m.max(v.abs()));
        let scale = largest / 127.0;
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        let mut sums = [0i32; 2];
        for (i, v) in x.iter().enumerate() {
            // A cast from f32 saturates and turns NaN into 0.
            let q = (v * inverse).round_ties_even() as i8;
            sums[i / 16] += i32::from(q);
            out[g * GROUP + i] = q.to_ne_bytes()[0];
        }
        let mut put = |offset: usize, bytes: [u8; 4]| out[offset..offset + 4].copy_from_slice(&bytes);
        put(at.scale + g * 4, scale.to_ne_bytes());
        put(at.minus_sum + g * 4, (-(sums[0] + sums[1])).to_ne_bytes());
        put(at.scaled_sum + g * 4, ((sums[0] + sums[1]) as f32 * scale).to_ne_bytes());
        for (h, sum) in sums.iter().enumerate() {
            put(at.minus_half_sum + (2 * g + h) * 4, (-sum).to_ne_bytes());
            put(at.scaled_half_sum + (2 * g + h) * 4, (*sum as f32 * scale).to_ne_bytes());
        }
    }
}
