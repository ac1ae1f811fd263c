//! Source blocks to packed panels.

use super::PANEL_ROWS;
use super::scheme::{GROUP, GroupScale, High, IQ4_VALUES, Low, Scheme, Sections, TYPES, scheme};
use kun_tensor::DType;

/// One group of one row, in the order of its columns.
struct Group {
    /// The stored values, without sign.
    values: [u8; GROUP],
    /// The bytes that this row adds to the group scales: scale(s) first, offset(s) after.
    scale: [u8; 4],
}

/// Packs rows of a quantised type; `rows` holds up to 16 whole rows of `row_bytes`, `out` one zeroed panel.
pub fn pack_quantized(dtype: DType, at: &Sections, row_bytes: usize, rows: &[u8], out: &mut [u8]) {
    match dtype {
        DType::Q4_0 => pack::<0>(at, row_bytes, rows, out),
        DType::Q4_1 => pack::<1>(at, row_bytes, rows, out),
        DType::Q5_0 => pack::<2>(at, row_bytes, rows, out),
        DType::Q5_1 => pack::<3>(at, row_bytes, rows, out),
        DType::Q8_0 => pack::<4>(at, row_bytes, rows, out),
        DType::Q2K => pack::<5>(at, row_bytes, rows, out),
        DType::Q3K => pack::<6>(at, row_bytes, rows, out),
        DType::Q4K => pack::<7>(at, row_bytes, rows, out),
        DType::Q5K => pack::<8>(at, row_bytes, rows, out),
        DType::Q6K => pack::<9>(at, row_bytes, rows, out),
        DType::Iq4Nl => pack::<10>(at, row_bytes, rows, out),
        DType::Iq4Xs => pack::<11>(at, row_bytes, rows, out),
        _ => {}
    }
}

/// One copy per type, so that nothing is asked per group: packing is most of the time that loading takes.
fn pack<const S: usize>(at: &Sections, row_bytes: usize, rows: &[u8], out: &mut [u8]) {
    let (dtype, scheme) = const { (TYPES[S], scheme(S)) };
    let block_groups = dtype.block_len() / GROUP;
    let (supers, rest) = out.split_at_mut(at.scales);
    let (scales, rest) = rest.split_at_mut(at.low - at.scales);
    let (low, high) = rest.split_at_mut(at.high - at.low);
    // Blocks outside, rows inside: the cache lines of a group are filled by its 16 rows one after the other.
    for b in 0..at.groups / block_groups {
        for (r, row) in rows.chunks_exact(row_bytes).enumerate() {
            let block = &row[b * dtype.block_bytes()..][..dtype.block_bytes()];
            if scheme.super_bytes() > 0 {
                put_super_scales(
                    dtype,
                    block,
                    r,
                    &mut supers[b * scheme.super_bytes()..][..scheme.super_bytes()],
                );
            }
            for i in 0..block_groups {
                let g = b * block_groups + i;
                let group = read_group(dtype, block, i);
                put_scales(
                    &scheme,
                    &group,
                    r,
                    &mut scales[g * scheme.scale_bytes()..][..scheme.scale_bytes()],
                );
                let mut steps = [0u32; 8];
                for (step, bytes) in steps.iter_mut().zip(group.values.as_chunks::<4>().0) {
                    *step = u32::from_le_bytes(*bytes);
                }
                put_low(scheme.low, &steps, r, &mut low[g * scheme.low_bytes()..][..scheme.low_bytes()]);
                if scheme.high_bytes() > 0 {
                    let high_shift = if matches!(scheme.low, Low::Pairs) { 2 } else { 4 };
                    let high = &mut high[g * scheme.high_bytes()..][..scheme.high_bytes()];
                    put_high(scheme.high, high_shift, &steps, r, high);
                }
            }
        }
    }
}

#[inline(always)]
fn put_dword(out: &mut [u8], line: usize, r: usize, value: u32) {
    let at = line * 64 + r * 4;
    out[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[inline(always)]
fn put_low(low: Low, steps: &[u32; 8], r: usize, out: &mut [u8]) {
    match low {
        Low::Bytes => steps.iter().enumerate().for_each(|(s, v)| put_dword(out, s, r, *v)),
        Low::Nibbles => {
            for s in 0..4 {
                put_dword(out, s, r, (steps[s] & 0x0f0f_0f0f) | ((steps[s + 4] & 0x0f0f_0f0f) << 4));
            }
        }
        Low::Pairs => put_pairs(steps, 0, r, out),
    }
}

#[inline(always)]
fn put_high(high: High, shift: u32, steps: &[u32; 8], r: usize, out: &mut [u8]) {
    match high {
        High::None => {}
        High::Pairs => put_pairs(steps, shift, r, out),
        High::Bit => {
            for (s, v) in steps.iter().enumerate() {
                // Gathers bits 0, 8, 16 and 24 into bits 24 to 27.
                let nibble = (((v >> shift) & 0x0101_0101).wrapping_mul(0x0102_0408) >> 24) & 0xf;
                out[s * 8 + r / 2] |= (nibble << (4 * (r % 2))) as u8;
            }
        }
    }
}

#[inline(always)]
fn put_pairs(steps: &[u32; 8], shift: u32, r: usize, out: &mut [u8]) {
    for line in 0..2 {
        let value = (0..4).fold(0, |v, i| v | (((steps[line * 4 + i] >> shift) & 0x0303_0303) << (2 * i)));
        put_dword(out, line, r, value);
    }
}

#[inline(always)]
fn put_super_scales(dtype: DType, block: &[u8], r: usize, out: &mut [u8]) {
    let (d, dmin) = match dtype {
        DType::Q2K => (Some(80), Some(82)),
        DType::Q3K => (Some(108), None),
        DType::Q4K | DType::Q5K => (Some(0), Some(2)),
        DType::Q6K => (Some(208), None),
        DType::Iq4Xs => (Some(0), None),
        _ => (None, None),
    };
    if let Some(d) = d {
        out[r * 2..r * 2 + 2].copy_from_slice(&block[d..d + 2]);
    }
    if let Some(dmin) = dmin {
        out[32 + r * 2..34 + r * 2].copy_from_slice(&block[dmin..dmin + 2]);
    }
}

#[inline(always)]
fn put_scales(scheme: &Scheme, group: &Group, r: usize, out: &mut [u8]) {
    let s = group.scale;
    match scheme.scale {
        GroupScale::Half => out[r * 2..r * 2 + 2].copy_from_slice(&s[..2]),
        GroupScale::HalfAndOffset => {
            out[r * 2..r * 2 + 2].copy_from_slice(&s[..2]);
            out[32 + r * 2..34 + r * 2].copy_from_slice(&s[2..]);
        }
        GroupScale::Int8 => out[r] = s[0],
        GroupScale::Int8Halves | GroupScale::ByteAndOffset | GroupScale::NibblesHalves => {
            out[r] = s[0];
            out[PANEL_ROWS + r] = s[1];
        }
    }
}

/// Reads group `i` of a source block (ggml's block structs, little-endian).
#[inline(always)]
fn read_group(dtype: DType, block: &[u8], i: usize) -> Group {
    let mut values = [0u8; GROUP];
    let mut scale = [0u8; 4];
    match dtype {
        DType::Q4_0 | DType::Iq4Nl => {
            scale[..2].copy_from_slice(&block[..2]);
            nibbles(&block[2..18], &mut values);
        }
        DType::Q4_1 => {
            scale.copy_from_slice(&block[..4]);
            nibbles(&block[4..20], &mut values);
        }
        DType::Q5_0 => {
            scale[..2].copy_from_slice(&block[..2]);
            nibbles(&block[6..22], &mut values);
            fifth_bits(&block[2..6], &mut values);
        }
        DType::Q5_1 => {
            scale.copy_from_slice(&block[..4]);
            nibbles(&block[8..24], &mut values);
            fifth_bits(&block[4..8], &mut values);
        }
        DType::Q8_0 => {
            scale[..2].copy_from_slice(&block[..2]);
            values.iter_mut().zip(&block[2..34]).for_each(|(v, b)| *v = b ^ 0x80);
        }
        DType::Q2K => {
            scale[..2].copy_from_slice(&block[2 * i..2 * i + 2]);
            pairs(&block[16..80], i, &mut values);
        }
        DType::Q3K => {
            scale[..2]
                .copy_from_slice(&[q3_scale(&block[96..108], 2 * i), q3_scale(&block[96..108], 2 * i + 1)]);
            pairs(&block[32..96], i, &mut values);
            values.iter_mut().zip(&block[..32]).for_each(|(v, h)| *v |= (h >> i & 1) << 2);
        }
        DType::Q4K => {
            scale[..2].copy_from_slice(&q4_scale(&block[4..16], i));
            half_bytes(&block[16..144], i, &mut values);
        }
        DType::Q5K => {
            scale[..2].copy_from_slice(&q4_scale(&block[4..16], i));
            half_bytes(&block[48..176], i, &mut values);
            values.iter_mut().zip(&block[16..48]).for_each(|(v, h)| *v |= (h >> i & 1) << 4);
        }
        DType::Q6K => {
            scale[..2].copy_from_slice(&block[192 + 2 * i..194 + 2 * i]);
            let (half, part) = (i / 4, i % 4);
            let low = &block[half * 64 + part % 2 * 32..][..32];
            let high = &block[128 + half * 32..][..32];
            for ((v, l), h) in values.iter_mut().zip(low).zip(high) {
                *v = (l >> (part / 2 * 4) & 0xf) | (h >> (2 * part) & 3) << 4;
            }
        }
        DType::Iq4Xs => {
            let high = u16::from_le_bytes([block[2], block[3]]) >> (2 * i) & 3;
            let low = block[4 + i / 2] >> (4 * (i % 2)) & 0xf;
            scale[0] = (low | (high as u8) << 4).wrapping_sub(32);
            nibbles(&block[8 + 16 * i..24 + 16 * i], &mut values);
        }
        _ => {}
    }
    Group { values, scale }
}

#[inline(always)]
fn nibbles(bytes: &[u8], values: &mut [u8; GROUP]) {
    let (low, high) = values.split_at_mut(16);
    for ((b, l), h) in bytes.iter().zip(low).zip(high) {
        (*l, *h) = (b & 0xf, b >> 4);
    }
}

#[inline(always)]
fn fifth_bits(bytes: &[u8], values: &mut [u8; GROUP]) {
    let bits = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    for (s, values) in values.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        // Spreads four bits over four bytes.
        let spread = ((bits >> (4 * s) & 0xf).wrapping_mul(0x0020_4081) & 0x0101_0101) << 4;
        *values = (u32::from_le_bytes(*values) | spread).to_le_bytes();
    }
}

/// Q4_K and Q5_K: 32 bytes hold two groups, the even one in the low nibbles.
#[inline(always)]
fn half_bytes(bytes: &[u8], i: usize, values: &mut [u8; GROUP]) {
    let shift = 4 * (i % 2);
    values.iter_mut().zip(&bytes[i / 2 * 32..]).for_each(|(v, b)| *v = b >> shift & 0xf);
}

/// Q2_K and Q3_K: 32 bytes hold four groups, two bits each.
#[inline(always)]
fn pairs(bytes: &[u8], i: usize, values: &mut [u8; GROUP]) {
    let shift = 2 * (i % 4);
    values.iter_mut().zip(&bytes[i / 4 * 32..]).for_each(|(v, b)| *v = b >> shift & 3);
}

/// The 6-bit scale and offset of group `j` in the 12 bytes of a Q4_K or Q5_K block.
#[inline(always)]
fn q4_scale(s: &[u8], j: usize) -> [u8; 2] {
    if j < 4 {
        [s[j] & 63, s[j + 4] & 63]
    } else {
        [(s[j + 4] & 0xf) | (s[j - 4] >> 6) << 4, (s[j + 4] >> 4) | (s[j] >> 6) << 4]
    }
}

/// The signed 6-bit scale of half group `j` in the 12 bytes of a Q3_K block.
#[inline(always)]
fn q3_scale(s: &[u8], j: usize) -> u8 {
    let low = s[j % 8] >> (j / 8 * 4) & 0xf;
    let high = s[8 + j % 4] >> (j / 4 * 2) & 3;
    (low | high << 4).wrapping_sub(32)
}

/// Packs rows of a plain type: `UNIT` bytes of one row (two bf16, else one element) lie together, then the next row's.
pub fn pack_plain<const UNIT: usize>(row_bytes: usize, rows: &[u8], out: &mut [u8]) {
    /// Units of each row that are placed before the next row's turn, so that lines of the output are filled while in cache.
    const BLOCK: usize = 64;
    let (slots, _) = out.as_chunks_mut::<UNIT>();
    for (b, slots) in slots.chunks_mut(BLOCK * PANEL_ROWS).enumerate() {
        for (r, row) in rows.chunks_exact(row_bytes).enumerate() {
            let source = &row[(b * BLOCK * UNIT).min(row_bytes)..row_bytes.min((b + 1) * BLOCK * UNIT)];
            let (units, rest) = source.as_chunks::<UNIT>();
            let mut slots = slots.iter_mut().skip(r).step_by(PANEL_ROWS);
            for (unit, slot) in units.iter().zip(&mut slots) {
                *slot = *unit;
            }
            if let (false, Some(slot)) = (rest.is_empty(), slots.next()) {
                slot[..rest.len()].copy_from_slice(rest);
            }
        }
    }
}

/// The table of IQ4 values as unsigned bytes with 128 for zero.
pub const IQ4_UNSIGNED: [u8; 16] = {
    let mut table = [0; 16];
    let mut i = 0;
    while i < 16 {
        table[i] = (IQ4_VALUES[i] as u8) ^ 0x80;
        i += 1;
    }
    table
};
