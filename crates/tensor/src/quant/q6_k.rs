//! Q6_K: 16 groups of 16 elements as `d * scale * (q - 32)`, `q` in 6 bits, `scale` an int8.

use super::{fit, read_f16, write_f16};

/// Elements per block.
pub const LEN: usize = 256;
/// Bytes per block.
pub const BYTES: usize = 210;
/// Elements that share a scale.
pub const GROUP: usize = 16;
/// Groups in a block.
pub const GROUPS: usize = LEN / GROUP;
/// 128 bytes, the low 4 bits: two runs of 64, each with 64 elements in its low nibbles and the next 64 in its high ones.
pub const NIBBLES: usize = 0;
/// 64 bytes, the upper 2 bits: two runs of 32, each with four times 32 elements at bits 0, 2, 4 and 6.
pub const HIGH_BITS: usize = 128;
/// 16 int8, one per group.
pub const SCALES: usize = 192;
/// Factor `d` on the scales, f16.
pub const D: usize = 208;

/// Decodes one block.
pub fn decode(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = read_f16(block, D);
    for (group, out) in out.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
        let scale = d * f32::from(block[SCALES + group] as i8);
        let (nibbles, shift, high, high_shift) = place(group);
        for (i, out) in out.iter_mut().enumerate() {
            let q = block[nibbles + i] >> shift & 15 | (block[high + i] >> high_shift & 3) << 4;
            *out = scale * (f32::from(q) - 32.0);
        }
    }
}

/// Encodes one block; each group gets the scale of least squared error.
pub fn encode(values: &[f32; LEN], block: &mut [u8; BYTES]) {
    let mut fits = [0.0f32; GROUPS];
    for (fit, values) in fits.iter_mut().zip(values.as_chunks::<GROUP>().0) {
        *fit = fit::symmetric(values, -32.0, 31.0);
    }
    // The scale of largest magnitude becomes -128, the end with one step more.
    let d = write_f16(block, D, fit::peak(&fits) / -128.0);
    block[..SCALES].fill(0);
    for (group, values) in values.as_chunks::<GROUP>().0.iter().enumerate() {
        let scale = fit::nearest(fits[group] * fit::inverse(d), -128.0, 127.0);
        block[SCALES + group] = scale as i8 as u8;
        let inverse = fit::inverse(d * scale);
        let (nibbles, shift, high, high_shift) = place(group);
        for (i, x) in values.iter().enumerate() {
            let q = (fit::nearest(x * inverse, -32.0, 31.0) + 32.0) as u8;
            block[nibbles + i] |= (q & 15) << shift;
            block[high + i] |= q >> 4 << high_shift;
        }
    }
}

/// Where the elements of a group lie: byte and shift of their low 4 bits, byte and shift of the upper 2.
fn place(group: usize) -> (usize, usize, usize, usize) {
    let (half, within) = (group / 8, group % 8);
    (
        NIBBLES + half * 64 + within % 4 * GROUP,
        within / 4 * 4,
        HIGH_BITS + half * 32 + within % 2 * GROUP,
        within / 2 * 2,
    )
}
