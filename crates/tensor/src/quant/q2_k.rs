//! Q2_K: 16 groups of 16 elements as `d * scale * q - dmin * min`, `q` in 2 bits, `scale` and `min` in 4.

use super::{fit, read_f16, write_f16};

/// Elements per block.
pub const LEN: usize = 256;
/// Bytes per block.
pub const BYTES: usize = 84;
/// Elements that share a scale and a minimum.
pub const GROUP: usize = 16;
/// Groups in a block.
pub const GROUPS: usize = LEN / GROUP;
/// 16 bytes, one per group: scale in the low nibble, minimum in the high one.
pub const SCALES: usize = 0;
/// 64 bytes: two runs of 32, each with four times 32 elements at bits 0, 2, 4 and 6.
pub const PAIRS: usize = 16;
/// Factor `d` on the scales, f16.
pub const D: usize = 80;
/// Factor `dmin` on the minima, f16.
pub const DMIN: usize = 82;

/// Decodes one block.
pub fn decode(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let (d, dmin) = (read_f16(block, D), read_f16(block, DMIN));
    for (group, out) in out.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
        let scales = block[SCALES + group];
        let (scale, min) = (d * f32::from(scales & 15), dmin * f32::from(scales >> 4));
        let (at, shift) = place(group);
        for (out, byte) in out.iter_mut().zip(&block[at..at + GROUP]) {
            *out = scale * f32::from(byte >> shift & 3) - min;
        }
    }
}

/// Encodes one block; each group gets the scale and minimum of least squared error.
pub fn encode(values: &[f32; LEN], block: &mut [u8; BYTES]) {
    let mut fits = [fit::Affine::default(); GROUPS];
    for (fit, values) in fits.iter_mut().zip(values.as_chunks::<GROUP>().0) {
        *fit = fit::affine(values, 3.0);
    }
    let d = write_f16(block, D, fits.iter().fold(0.0, |m: f32, f| m.max(f.scale)) / 15.0);
    let dmin = write_f16(block, DMIN, fits.iter().fold(0.0, |m: f32, f| m.max(f.min)) / 15.0);
    block[PAIRS..D].fill(0);
    for (group, values) in values.as_chunks::<GROUP>().0.iter().enumerate() {
        let scale = fit::nearest(fits[group].scale * fit::inverse(d), 0.0, 15.0) as u8;
        let min = fit::nearest(fits[group].min * fit::inverse(dmin), 0.0, 15.0) as u8;
        block[SCALES + group] = scale | min << 4;
        let (low, inverse) = (dmin * f32::from(min), fit::inverse(d * f32::from(scale)));
        let (at, shift) = place(group);
        for (x, byte) in values.iter().zip(&mut block[at..at + GROUP]) {
            *byte |= (fit::nearest((x + low) * inverse, 0.0, 3.0) as u8) << shift;
        }
    }
}

/// First byte and shift of the elements of a group.
fn place(group: usize) -> (usize, usize) {
    (PAIRS + group / 8 * 32 + group % 2 * GROUP, group % 8 / 2 * 2)
}
