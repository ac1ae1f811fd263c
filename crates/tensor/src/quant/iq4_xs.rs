//! IQ4_XS: 8 groups of 32 elements as `d * (scale - 32) * LEVELS[q]`, `q` in 4 bits, `scale` in 6.

use super::iq4_nl::{LEVELS, fit_scale, nearest_level};
use super::{fit, read_f16, write_f16};

/// Elements per block.
pub const LEN: usize = 256;
/// Bytes per block.
pub const BYTES: usize = 136;
/// Elements that share a scale.
pub const GROUP: usize = 32;
/// Groups in a block.
pub const GROUPS: usize = LEN / GROUP;
/// Factor `d` on the scales, f16.
pub const D: usize = 0;
/// A little-endian u16: bits `2g` and `2g + 1` are the upper bits of the scale of group `g`.
pub const SCALES_HIGH: usize = 2;
/// 4 bytes: the low 4 bits of the scales, an even group in the low nibble and the next in the high one.
pub const SCALES_LOW: usize = 4;
/// 128 bytes, 16 per group: its elements 0 to 15 in the low nibbles, 16 to 31 in the high ones.
pub const NIBBLES: usize = 8;

/// Decodes one block.
pub fn decode(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = read_f16(block, D);
    let scales = unpack_scales(block);
    for (group, out) in out.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
        let scale = d * f32::from(scales[group]);
        for i in 0..GROUP / 2 {
            let byte = block[NIBBLES + group * GROUP / 2 + i];
            out[i] = scale * f32::from(LEVELS[usize::from(byte & 15)]);
            out[i + GROUP / 2] = scale * f32::from(LEVELS[usize::from(byte >> 4)]);
        }
    }
}

/// Encodes one block; each group gets the scale of least squared error.
pub fn encode(values: &[f32; LEN], block: &mut [u8; BYTES]) {
    let mut fits = [0.0f32; GROUPS];
    for (fit, values) in fits.iter_mut().zip(values.as_chunks::<GROUP>().0) {
        *fit = fit_scale(values);
    }
    // The scale of largest magnitude becomes -32, the end with one step more.
    let d = write_f16(block, D, fit::peak(&fits) / -32.0);
    let mut high = 0u16;
    block[SCALES_LOW..NIBBLES].fill(0);
    for (group, values) in values.as_chunks::<GROUP>().0.iter().enumerate() {
        let scale = fit::nearest(fits[group] * fit::inverse(d), -32.0, 31.0);
        let stored = (scale + 32.0) as u8;
        block[SCALES_LOW + group / 2] |= (stored & 15) << (group % 2 * 4);
        high |= u16::from(stored >> 4) << (2 * group);
        let inverse = fit::inverse(d * scale);
        for i in 0..GROUP / 2 {
            block[NIBBLES + group * GROUP / 2 + i] =
                nearest_level(values[i] * inverse) | nearest_level(values[i + GROUP / 2] * inverse) << 4;
        }
    }
    block[SCALES_HIGH..SCALES_HIGH + 2].copy_from_slice(&high.to_le_bytes());
}

/// The scales of the 8 groups, less 32.
pub fn unpack_scales(block: &[u8; BYTES]) -> [i8; GROUPS] {
    let high = u16::from_le_bytes([block[SCALES_HIGH], block[SCALES_HIGH + 1]]);
    std::array::from_fn(|group| {
        let low = block[SCALES_LOW + group / 2] >> (group % 2 * 4) & 15;
        (low | ((high >> (2 * group) & 3) << 4) as u8) as i8 - 32
    })
}
