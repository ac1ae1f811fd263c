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
    Int8(GroupSums),
}

/// The sums of values that an int8 row holds, as the weights that it is multiplied with want them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupSums {
    /// One for each half of a group, not for the whole.
    pub(super) halves: bool,
    /// The stored weight that means 0 is 2 to this power; `None` where weights have offsets.
    pub(super) zero_shift: Option<u32>,
}

/// Byte offsets inside a row prepared as [`ActivationFormat::Int8`].
#[derive(Clone, Copy, Debug)]
pub struct Int8Row {
    /// f32 per group: the scale.
    pub scale: usize,
    /// Per group or half: where weights have offsets, an f32, the scale times the sum of the values; else an i32, minus the
    /// sum times the stored weight that means 0.
    pub sums: usize,
    /// Bytes used of the row.
    pub bytes: usize,
}

impl Int8Row {
    /// The offsets in a row of `groups` groups; the int8 values start at 0.
    pub const fn new(groups: usize, sums: GroupSums) -> Int8Row {
        let scale = groups * GROUP;
        let of_sums = if sums.halves { 8 } else { 4 };
        Int8Row { scale, sums: scale + groups * 4, bytes: scale + groups * (4 + of_sums) }
    }
}

impl ActivationFormat {
    /// Bytes of one prepared row of `k` elements; a multiple of 64.
    pub const fn row_bytes(self, k: usize) -> usize {
        let bytes = match self {
            ActivationFormat::F32 => k * 4,
            ActivationFormat::Bf16 => k * 2,
            ActivationFormat::Int8(sums) => Int8Row::new(k.div_ceil(GROUP), sums).bytes,
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
        || (matches!(format, ActivationFormat::Int8(_)) && !k.is_multiple_of(GROUP))
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
            ActivationFormat::Int8(sums) => match isa {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `Isa::Avx512` is only made where the machine has these features; `out` is one prepared row of `k / GROUP` groups, as checked.
                Isa::Avx512 | Isa::Avx512Bf16 => unsafe { super::avx512::prepare_int8(x, sums, out) },
                _ => prepare_int8(x, sums, out),
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

fn prepare_int8(x: &[f32], sums: GroupSums, out: &mut [u8]) {
    let at = Int8Row::new(x.len() / GROUP, sums);
    for (g, x) in x.chunks_exact(GROUP).enumerate() {
        let largest = x.iter().fold(0f32, |m, v| m.max(v.abs()));
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        let mut of_halves = [0i32; 2];
        for (i, v) in x.iter().enumerate() {
            // A cast from f32 saturates and turns NaN into 0.
            let q = (v * inverse).round_ties_even() as i8;
            of_halves[i / 16] += i32::from(q);
            out[g * GROUP + i] = q.to_ne_bytes()[0];
        }
        put_sums(g, largest / 127.0, of_halves, sums, &at, out);
    }
}

/// Writes the scale of group `g` of row `out`, and what is asked for of the sums of its halves.
fn put_sums(g: usize, scale: f32, of_halves: [i32; 2], sums: GroupSums, at: &Int8Row, out: &mut [u8]) {
    let mut put = |offset: usize, bytes: [u8; 4]| out[offset..offset + 4].copy_from_slice(&bytes);
    put(at.scale + g * 4, scale.to_ne_bytes());
    let of = |sum: i32| match sums.zero_shift {
        None => (sum as f32 * scale).to_ne_bytes(),
        Some(shift) => (-(sum << shift)).to_ne_bytes(),
    };
    if sums.halves {
        put(at.sums + g * 8, of(of_halves[0]));
        put(at.sums + g * 8 + 4, of(of_halves[1]));
    } else {
        put(at.sums + g * 4, of(of_halves[0] + of_halves[1]));
    }
}
