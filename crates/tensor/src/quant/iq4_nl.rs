//! IQ4_NL: 32 elements as `d * LEVELS[q]`, `q` in 4 bits.

use super::{fit, read_f16, write_f16};

/// Elements per block.
pub const LEN: usize = 32;
/// Bytes per block.
pub const BYTES: usize = 18;
/// Scale `d`, f16.
pub const D: usize = 0;
/// 16 bytes: elements 0 to 15 in the low nibbles, 16 to 31 in the high ones.
pub const NIBBLES: usize = 2;
/// The values that a nibble stands for: closer together around zero, where most weights are.
pub const LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Decodes one block.
pub fn decode(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = read_f16(block, D);
    for i in 0..LEN / 2 {
        let byte = block[NIBBLES + i];
        out[i] = d * f32::from(LEVELS[usize::from(byte & 15)]);
        out[i + LEN / 2] = d * f32::from(LEVELS[usize::from(byte >> 4)]);
    }
}

/// Encodes one block with the scale of least squared error.
pub fn encode(values: &[f32; LEN], block: &mut [u8; BYTES]) {
    let d = write_f16(block, D, fit_scale(values));
    let inverse = fit::inverse(d);
    for i in 0..LEN / 2 {
        block[NIBBLES + i] =
            nearest_level(values[i] * inverse) | nearest_level(values[i + LEN / 2] * inverse) << 4;
    }
}

/// Index of the level closest to `x`.
pub(super) fn nearest_level(x: f32) -> u8 {
    // A level is passed once `x` lies beyond the middle between it and the next.
    LEVELS.windows(2).map(|pair| u8::from(2.0 * x > f32::from(pair[0]) + f32::from(pair[1]))).sum()
}

/// The scale whose levels fit `values` best.
pub(super) fn fit_scale(values: &[f32; LEN]) -> f32 {
    fit::scale_by_search(values, f32::from(LEVELS[0]), 1.0, |x| {
        f32::from(LEVELS[usize::from(nearest_level(x))])
    })
}
