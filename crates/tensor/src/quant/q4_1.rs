//! Q4_1: 32 elements as `d * q + m`, `q` in 4 bits.

use super::{fit, read_f16, write_f16};

/// Elements per block.
pub const LEN: usize = 32;
/// Bytes per block.
pub const BYTES: usize = 20;
/// Scale `d`, f16.
pub const D: usize = 0;
/// Smallest value `m`, f16.
pub const M: usize = 2;
/// 16 bytes: elements 0 to 15 in the low nibbles, 16 to 31 in the high ones.
pub const NIBBLES: usize = 4;

/// Decodes one block.
pub fn decode(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let (d, m) = (read_f16(block, D), read_f16(block, M));
    for i in 0..LEN / 2 {
        let byte = block[NIBBLES + i];
        out[i] = d * f32::from(byte & 15) + m;
        out[i + LEN / 2] = d * f32::from(byte >> 4) + m;
    }
}

/// Encodes one block between its smallest and largest element.
pub fn encode(values: &[f32; LEN], block: &mut [u8; BYTES]) {
    let (low, high) = fit::bounds(values);
    let d = (high - low) / 15.0;
    let inverse = fit::inverse(d);
    write_f16(block, D, d);
    write_f16(block, M, low);
    let quant = |x: f32| ((x - low) * inverse + 0.5).clamp(0.0, 15.0) as u8;
    for i in 0..LEN / 2 {
        block[NIBBLES + i] = quant(values[i]) | quant(values[i + LEN / 2]) << 4;
    }
}
