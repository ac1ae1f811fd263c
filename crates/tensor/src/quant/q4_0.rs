//! Q4_0: 32 elements as `d * (q - 8)`, `q` in 4 bits.

use super::{fit, read_f16, write_f16};

/// Elements per block.
pub const LEN: usize = 32;
/// Bytes per block.
pub const BYTES: usize = 18;
/// Scale `d`, f16.
pub const D: usize = 0;
/// 16 bytes: elements 0 to 15 in the low nibbles, 16 to 31 in the high ones.
pub const NIBBLES: usize = 2;

/// Decodes one block.
pub fn decode(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = read_f16(block, D);
    for i in 0..LEN / 2 {
        let byte = block[NIBBLES + i];
        out[i] = d * (f32::from(byte & 15) - 8.0);
        out[i + LEN / 2] = d * (f32::from(byte >> 4) - 8.0);
    }
}

/// Encodes one block: the element of largest magnitude becomes -8.
pub fn encode(values: &[f32; LEN], block: &mut [u8; BYTES]) {
    let d = fit::peak(values) / -8.0;
    let inverse = fit::inverse(d);
    write_f16(block, D, d);
    let quant = |x: f32| (x * inverse + 8.5).clamp(0.0, 15.0) as u8;
    for i in 0..LEN / 2 {
        block[NIBBLES + i] = quant(values[i]) | quant(values[i + LEN / 2]) << 4;
    }
}
