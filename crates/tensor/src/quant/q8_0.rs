//! Q8_0: 32 elements as `d * q`, `q` an int8.

use super::{fit, read_f16, write_f16};

/// Elements per block.
pub const LEN: usize = 32;
/// Bytes per block.
pub const BYTES: usize = 34;
/// Scale `d`, f16.
pub const D: usize = 0;
/// 32 int8 in the order of the elements.
pub const QUANTS: usize = 2;

/// Decodes one block.
pub fn decode(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = read_f16(block, D);
    for (out, &q) in out.iter_mut().zip(&block[QUANTS..]) {
        *out = f32::from(q as i8) * d;
    }
}

/// Encodes one block: the element of largest magnitude becomes ±127.
pub fn encode(values: &[f32; LEN], block: &mut [u8; BYTES]) {
    let d = fit::peak(values).abs() / 127.0;
    let inverse = fit::inverse(d);
    write_f16(block, D, d);
    for (x, q) in values.iter().zip(&mut block[QUANTS..]) {
        *q = (x * inverse).round() as i8 as u8;
    }
}
