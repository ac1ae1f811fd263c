//! A panel unpacked to bytes and f32 scales: the form that every instruction set can multiply with.

use super::PANEL_ROWS;
use super::pack::IQ4_UNSIGNED;
use super::scheme::{GROUP, GroupScale, High, Low, Scheme, Sections};
use half::f16;

/// Bytes of the values of one group of a tile: 8 steps of 16 rows of 4 columns.
pub const GROUP_BYTES: usize = GROUP * PANEL_ROWS;

/// Where the parts of a tile start, in bytes; a tile holds a whole panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileLayout {
    /// f32 x 16 per group, or per half group.
    pub scales: usize,
    /// Likewise, if the scheme has offsets.
    pub offsets: usize,
    /// Bytes in all.
    pub bytes: usize,
}

impl TileLayout {
    /// The layout for a panel of `groups` groups.
    pub const fn new(scheme: &Scheme, groups: usize) -> TileLayout {
        let parts = if scheme.has_halves() { 2 } else { 1 };
        let scales = groups * GROUP_BYTES;
        let offsets = scales + groups * parts * 64;
        let bytes = if scheme.has_offset() { offsets + groups * parts * 64 } else { offsets };
        TileLayout { scales, offsets, bytes }
    }
}

/// Scales and offsets of the 16 rows of half `half` of group `g`; equal halves where the scheme has whole groups.
///
/// A value is `scale * (q - zero)`, or `scale * q + offset` for schemes with offsets. `halves` widens 16 f16.
#[inline(always)]
pub fn scales_of(
    scheme: &Scheme,
    at: &Sections,
    panel: &[u8],
    (g, half): (usize, usize),
    halves: impl Fn(&[u8]) -> [f32; PANEL_ROWS],
) -> ([f32; PANEL_ROWS], [f32; PANEL_ROWS]) {
    let s = &panel[at.scales + g * scheme.scale_bytes()..][..scheme.scale_bytes()];
    let sup = &panel[g / 8 * scheme.super_bytes()..];
    let none = [0.0; PANEL_ROWS];
    let times = |scale: [f32; PANEL_ROWS], by: &dyn Fn(usize) -> f32| -> [f32; PANEL_ROWS] {
        std::array::from_fn(|r| scale[r] * by(r))
    };
    let second = half * PANEL_ROWS;
    match scheme.scale {
        GroupScale::Half => (halves(s), none),
        GroupScale::HalfAndOffset => (halves(s), halves(&s[32..])),
        GroupScale::Int8 => (times(halves(sup), &|r| f32::from(s[r] as i8)), none),
        GroupScale::Int8Halves => (times(halves(sup), &|r| f32::from(s[second + r] as i8)), none),
        GroupScale::ByteAndOffset => (
            times(halves(sup), &|r| f32::from(s[r])),
            times(halves(&sup[32..]), &|r| -f32::from(s[PANEL_ROWS + r])),
        ),
        GroupScale::NibblesHalves => (
            times(halves(sup), &|r| f32::from(s[second + r] & 0xf)),
            times(halves(&sup[32..]), &|r| -f32::from(s[second + r] >> 4)),
        ),
    }
}

/// Widens 16 f16, little-endian.
pub fn halves(bytes: &[u8]) -> [f32; PANEL_ROWS] {
    std::array::from_fn(|r| {
        f16::from_bits(u16::from_le_bytes([bytes[2 * r], bytes[2 * r + 1]])).to_f32_const()
    })
}

/// Unpacks the values of group `g` of a panel into `out` ([`GROUP_BYTES`]).
#[inline(always)]
pub fn unpack_group(scheme: &Scheme, at: &Sections, panel: &[u8], g: usize, out: &mut [u8]) {
    let low = &panel[at.low + g * scheme.low_bytes()..][..scheme.low_bytes()];
    match scheme.low {
        Low::Bytes => out.copy_from_slice(low),
        Low::Nibbles => {
            let (first, second) = out.split_at_mut(GROUP_BYTES / 2);
            for ((b, l), h) in low.iter().zip(first).zip(second) {
                (*l, *h) = (b & 0xf, b >> 4);
            }
            if scheme.table {
                out.iter_mut().for_each(|v| *v = IQ4_UNSIGNED[usize::from(*v & 0xf)]);
            }
        }
        Low::Pairs => unpack_pairs(low, 0, out),
    }
    let high = &panel[at.high + g * scheme.high_bytes()..][..scheme.high_bytes()];
    let shift = if scheme.low == Low::Pairs { 2 } else { 4 };
    match scheme.high {
        High::None => {}
        High::Pairs => unpack_pairs(high, shift, out),
        High::Bit => {
            for (bits, out) in high.iter().zip(out.chunks_exact_mut(8)) {
                out.iter_mut().enumerate().for_each(|(i, v)| *v |= (bits >> i & 1) << shift);
            }
        }
    }
}

#[inline(always)]
fn unpack_pairs(lines: &[u8], shift: u32, out: &mut [u8]) {
    for (line, out) in lines.chunks_exact(64).zip(out.chunks_exact_mut(GROUP_BYTES / 2)) {
        for (i, out) in out.chunks_exact_mut(64).enumerate() {
            out.iter_mut().zip(line).for_each(|(v, b)| *v |= (b >> (2 * i) & 3) << shift);
        }
    }
}

/// Unpacks a whole panel into `tile` (`TileLayout::bytes`).
#[inline(always)]
pub fn unpack_panel(
    scheme: &Scheme,
    at: &Sections,
    panel: &[u8],
    tile: &mut [u8],
    halves: impl Fn(&[u8]) -> [f32; PANEL_ROWS] + Copy,
) {
    let layout = TileLayout::new(scheme, at.groups);
    let parts = if scheme.has_halves() { 2 } else { 1 };
    let put = |out: &mut [u8], values: [f32; PANEL_ROWS]| {
        out.chunks_exact_mut(4).zip(values).for_each(|(out, v)| out.copy_from_slice(&v.to_ne_bytes()));
    };
    for g in 0..at.groups {
        let values = &mut tile[g * GROUP_BYTES..(g + 1) * GROUP_BYTES];
        if scheme.low == Low::Pairs {
            values.fill(0);
        }
        unpack_group(scheme, at, panel, g, values);
        for part in 0..parts {
            let (scale, offset) = scales_of(scheme, at, panel, (g, part), halves);
            let i = (g * parts + part) * 64;
            put(&mut tile[layout.scales + i..][..64], scale);
            if scheme.has_offset() {
                put(&mut tile[layout.offsets + i..][..64], offset);
            }
        }
    }
}

/// Decodes row `r` of a panel to f32.
pub fn decode_row(scheme: &Scheme, at: &Sections, panel: &[u8], r: usize, out: &mut [f32]) {
    let mut values = [0u8; GROUP_BYTES];
    let zero = if scheme.has_offset() { 0 } else { 1i32 << scheme.zero_shift };
    for (g, out) in out.chunks_exact_mut(GROUP).enumerate() {
        if scheme.low == Low::Pairs {
            values.fill(0);
        }
        unpack_group(scheme, at, panel, g, &mut values);
        for (half, out) in out.chunks_exact_mut(GROUP / 2).enumerate() {
            let (scale, offset) = scales_of(scheme, at, panel, (g, half), halves);
            for (c, out) in out.iter_mut().enumerate() {
                let q = i32::from(values[(half * 4 + c / 4) * 64 + r * 4 + c % 4]) - zero;
                *out = scale[r] * q as f32 + offset[r];
            }
        }
    }
}
