//! Q5_K: 8 groups of 32 elements as `d * scale * q - dmin * min`, `q` in 5 bits, `scale` and `min` in 6.

use super::q4_k::{encode_groups, unpack_scales};
use super::read_f16;

/// Elements per block.
pub const LEN: usize = 256;
/// Bytes per block.
pub const BYTES: usize = 176;
/// Elements that share a scale and a minimum.
pub const GROUP: usize = 32;
/// Factor `d` on the scales, f16.
pub const D: usize = 0;
/// Factor `dmin` on the minima, f16.
pub const DMIN: usize = 2;
/// 12 bytes for [`unpack_scales`].
pub const SCALES: usize = 4;
/// 32 bytes: bit `g` of byte `i` is the fifth bit of element `i` of group `g`.
pub const HIGH_BITS: usize = 16;
/// 128 bytes: four runs of 32, each with an even group in its low nibbles and the next in its high ones.
pub const NIBBLES: usize = 48;

/// Decodes one block.
pub fn decode(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let (d, dmin) = (read_f16(block, D), read_f16(block, DMIN));
    let (scales, mins) = unpack_scales(block, SCALES);
    for (pair, out) in out.as_chunks_mut::<{ 2 * GROUP }>().0.iter_mut().enumerate() {
        let scale = |group: usize| (d * f32::from(scales[group]), dmin * f32::from(mins[group]));
        let ((even, even_min), (odd, odd_min)) = (scale(2 * pair), scale(2 * pair + 1));
        for i in 0..GROUP {
            let (byte, high) = (block[NIBBLES + pair * GROUP + i], block[HIGH_BITS + i] >> (2 * pair));
            out[i] = even * f32::from(byte & 15 | (high & 1) << 4) - even_min;
            out[i + GROUP] = odd * f32::from(byte >> 4 | (high & 2) << 3) - odd_min;
        }
    }
}

/// Encodes one block; each group gets the scale and minimum of least squared error.
pub fn encode(values: &[f32; LEN], block: &mut [u8; BYTES]) {
    let quants = encode_groups(values, block, 31.0, D, DMIN, SCALES);
    block[HIGH_BITS..NIBBLES].fill(0);
    for (pair, quants) in quants.as_chunks::<{ 2 * GROUP }>().0.iter().enumerate() {
        for i in 0..GROUP {
            let (even, odd) = (quants[i], quants[i + GROUP]);
            block[NIBBLES + pair * GROUP + i] = even & 15 | odd << 4;
            block[HIGH_BITS + i] |= (even >> 4 | odd >> 4 << 1) << (2 * pair);
        }
    }
}
