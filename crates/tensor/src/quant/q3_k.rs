//! Q3_K: 16 groups of 16 elements as `d * (scale - 32) * (q - 4)`, `q` in 3 bits, `scale` in 6.

use super::{fit, read_f16, write_f16};

/// Elements per block.
pub const LEN: usize = 256;
/// Bytes per block.
pub const BYTES: usize = 110;
/// Elements that share a scale.
pub const GROUP: usize = 16;
/// Groups in a block.
pub const GROUPS: usize = LEN / GROUP;
/// 32 bytes: bit `e / 32` of byte `e % 32` is the third bit of element `e`.
pub const HIGH_BITS: usize = 0;
/// 64 bytes: two runs of 32, each with four times 32 elements at bits 0, 2, 4 and 6.
pub const PAIRS: usize = 32;
/// 12 bytes for [`unpack_scales`].
pub const SCALES: usize = 96;
/// Factor `d` on the scales, f16.
pub const D: usize = 108;

/// Decodes one block.
pub fn decode(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = read_f16(block, D);
    let scales = unpack_scales(block);
    for (group, out) in out.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
        let scale = d * f32::from(scales[group]);
        let (pairs, shift, high, bit) = place(group);
        for (i, out) in out.iter_mut().enumerate() {
            let q = block[pairs + i] >> shift & 3 | (block[high + i] >> bit & 1) << 2;
            *out = scale * (f32::from(q) - 4.0);
        }
    }
}

/// Encodes one block; each group gets the scale of least squared error.
pub fn encode(values: &[f32; LEN], block: &mut [u8; BYTES]) {
    let mut fits = [0.0f32; GROUPS];
    for (fit, values) in fits.iter_mut().zip(values.as_chunks::<GROUP>().0) {
        *fit = fit::symmetric(values, -4.0, 3.0);
    }
    // The scale of largest magnitude becomes -32, the end with one step more.
    let d = write_f16(block, D, fit::peak(&fits) / -32.0);
    block[..D].fill(0);
    for (group, values) in values.as_chunks::<GROUP>().0.iter().enumerate() {
        let scale = fit::nearest(fits[group] * fit::inverse(d), -32.0, 31.0);
        let stored = (scale + 32.0) as u8;
        block[SCALES + group % 8] |= (stored & 15) << (group / 8 * 4);
        block[SCALES + 8 + group % 4] |= stored >> 4 << (group / 4 * 2);
        let inverse = fit::inverse(d * scale);
        let (pairs, shift, high, bit) = place(group);
        for (i, x) in values.iter().enumerate() {
            let q = (fit::nearest(x * inverse, -4.0, 3.0) + 4.0) as u8;
            block[pairs + i] |= (q & 3) << shift;
            block[high + i] |= q >> 2 << bit;
        }
    }
}

/// The scales of the 16 groups, less 32: low 4 bits in bytes 0 to 7 (groups 8 to 15 in the high nibbles), upper 2 bits
/// in bytes 8 to 11 (four groups a byte, 4 apart).
pub fn unpack_scales(block: &[u8; BYTES]) -> [i8; GROUPS] {
    std::array::from_fn(|group| {
        let low = block[SCALES + group % 8] >> (group / 8 * 4) & 15;
        let high = block[SCALES + 8 + group % 4] >> (group / 4 * 2) & 3;
        (low | high << 4) as i8 - 32
    })
}

/// Where the elements of a group lie: byte and shift of their low 2 bits, byte and shift of the third.
fn place(group: usize) -> (usize, usize, usize, usize) {
    let half = group % 2 * GROUP;
    (PAIRS + group / 8 * 32 + half, group % 8 / 2 * 2, HIGH_BITS + half, group / 2)
}
