//! Q5_1: 32 elements as `d * q + m`, `q` in 5 bits.

use super::q5_0::{pack, unpack};
use super::{fit, read_f16, write_f16};

/// Elements per block.
pub const LEN: usize = 32;
/// Bytes per block.
pub const BYTES: usize = 24;
/// Scale `d`, f16.
pub const D: usize = 0;
/// Smallest value `m`, f16.
pub const M: usize = 2;
/// 4 bytes, a little-endian u32: bit `i` is the fifth bit of element `i`.
pub const HIGH_BITS: usize = 4;
/// 16 bytes: elements 0 to 15 in the low nibbles, 16 to 31 in the high ones.
pub const NIBBLES: usize = 8;

/// Decodes one block.
pub fn decode(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let (d, m) = (read_f16(block, D), read_f16(block, M));
    let quants = unpack(block, HIGH_BITS, NIBBLES);
    for (out, q) in out.iter_mut().zip(quants) {
        *out = d * f32::from(q) + m;
    }
}

/// Encodes one block between its smallest and largest element.
pub fn encode(values: &[f32; LEN], block: &mut [u8; BYTES]) {
    let (low, high) = fit::bounds(values);
    let d = (high - low) / 31.0;
    let inverse = fit::inverse(d);
    write_f16(block, D, d);
    write_f16(block, M, low);
    let quants = values.map(|x| ((x - low) * inverse + 0.5).clamp(0.0, 31.0) as u8);
    pack(&quants, block, HIGH_BITS, NIBBLES);
}
