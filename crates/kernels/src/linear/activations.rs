//! Activations, prepared once per row for every matrix that multiplies with them.

use super::scheme::GROUP;
use crate::{Isa, KernelError};
use half::bf16;
use std::ops::Range;

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
        Int8Row { scale, sums: scale + groups * 4, bytes: scale + groups * (4 + sums.bytes()) }
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

    /// Where in an int8 row of `k` columns the columns `columns` lie: their values, their scales and their sums, as bytes.
    /// None in other formats, or if the columns are not whole groups of such a row.
    pub fn int8_ranges(self, k: usize, columns: Range<usize>) -> Option<[Range<usize>; 3]> {
        let ActivationFormat::Int8(sums) = self else { return None };
        let whole = columns.start.is_multiple_of(GROUP) && columns.end.is_multiple_of(GROUP);
        if !whole || columns.start > columns.end || columns.end > k || !k.is_multiple_of(GROUP) {
            return None;
        }
        let at = Int8Row::new(k / GROUP, sums);
        let (first, last) = (columns.start / GROUP, columns.end / GROUP);
        let of = |start: usize, each: usize| start + first * each..start + last * each;
        Some([columns, of(at.scale, 4), of(at.sums, sums.bytes())])
    }
}

impl GroupSums {
    /// Bytes that the sums of one group take.
    pub(super) const fn bytes(self) -> usize {
        if self.halves { 8 } else { 4 }
    }
}

/// Memory for some groups of an int8 row: their values, their scales and their sums.
pub(super) type Int8Parts<'a> = [&'a mut [u8]; 3];

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
            ActivationFormat::Int8(sums) => {
                let at = Int8Row::new(k / GROUP, sums);
                let (values, rest) = out.split_at_mut(at.scale);
                let (scales, rest) = rest.split_at_mut(at.sums - at.scale);
                groups_to_int8(isa, sums, x, [values, scales, &mut rest[..at.bytes - at.sums]]);
            }
        }
    }
    Ok(())
}

/// Prepares some whole groups of columns of one int8 row: the same bytes as [`prepare`] makes of the whole row. `parts` is the
/// memory at [`ActivationFormat::int8_ranges`].
///
/// # Errors
/// [`KernelError::Shape`] if the format is another or the lengths disagree.
pub fn prepare_columns(
    isa: Isa,
    format: ActivationFormat,
    x: &[f32],
    parts: [&mut [u8]; 3],
) -> Result<(), KernelError> {
    let expected = format.int8_ranges(x.len(), 0..x.len()).map(|ranges| ranges.map(|range| range.len()));
    let given = [parts[0].len(), parts[1].len(), parts[2].len()];
    match format {
        ActivationFormat::Int8(sums) if expected == Some(given) => groups_to_int8(isa, sums, x, parts),
        _ => {
            let what = format!("{} values into {given:?} bytes of {format:?}", x.len());
            return Err(KernelError::Shape { kernel: "prepare", what });
        }
    }
    Ok(())
}

/// Rounds whole groups to int8; `parts` has room for them.
fn groups_to_int8(isa: Isa, sums: GroupSums, x: &[f32], parts: Int8Parts<'_>) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Isa::Avx512` is only made where the machine has these features.
        Isa::Avx512 | Isa::Avx512Bf16 => unsafe { super::avx512::prepare_int8(x, sums, parts) },
        _ => prepare_int8(x, sums, parts),
    }
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

fn prepare_int8(x: &[f32], sums: GroupSums, [values, scales, of_sums]: Int8Parts<'_>) {
    let groups = x.chunks_exact(GROUP).zip(values.chunks_exact_mut(GROUP)).zip(scales.chunks_exact_mut(4));
    for (((x, values), to), of_sums) in groups.zip(of_sums.chunks_exact_mut(sums.bytes())) {
        let largest = x.iter().fold(0f32, |m, v| m.max(v.abs()));
        let (inverse, scale) = (if largest > 0.0 { 127.0 / largest } else { 0.0 }, largest / 127.0);
        let mut of_halves = [0i32; 2];
        for (i, (v, value)) in x.iter().zip(values).enumerate() {
            // A cast from f32 saturates and turns NaN into 0.
            let q = (v * inverse).round_ties_even() as i8;
            of_halves[i / 16] += i32::from(q);
            *value = q.to_ne_bytes()[0];
        }
        to.copy_from_slice(&scale.to_ne_bytes());
        let of = |sum: i32| match sums.zero_shift {
            None => (sum as f32 * scale).to_ne_bytes(),
            Some(shift) => (-(sum << shift)).to_ne_bytes(),
        };
        if sums.halves {
            of_sums[..4].copy_from_slice(&of(of_halves[0]));
            of_sums[4..].copy_from_slice(&of(of_halves[1]));
        } else {
            of_sums.copy_from_slice(&of(of_halves[0] + of_halves[1]));
        }
    }
}
