//! Q5_0: 32 elements as `d * (q - 16)`, `q` in 5 bits.

use super::{fit, read_f16, write_f16};

/// Elements per block.
pub const LEN: usize = 32;
/// Bytes per block.
pub const BYTES: usize = 22;
/// Scale `d`, f16.
pub const D: usize = 0;
/// 4 bytes, a little-endian u32: bit `i` is the fifth bit of element `i`.
pub const HIGH_BITS: usize = 2;
/// 16 bytes: elements 0 to 15 in the low nibbles, 16 to 31 in the high ones.
pub const NIBBLES: usize = 6;

/// Decodes one block.
pub fn decode(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = read_f16(block, D);
    let quants = unpack(block, HIGH_BITS, NIBBLES);
    for (out, q) in out.iter_mut().zip(quants) {
        *out = d * (f32::from(q) - 16.0);
    }
}

/// Encodes one block: the element of largest magnitude becomes -16.
pub fn encode(values: &[f32; LEN], block: &mut [u8; BYTES]) {
    let d = fit::peak(values) / -16.0;
    let inverse = fit::inverse(d);
    write_f16(block, D, d);
    let quants = values.map(|x| (x * inverse + 16.5).clamp(0.0, 31.0) as u8);
    pack(&quants, block, HIGH_BITS, NIBBLES);
}

/// The 32 five-bit numbers of a block with its fifth bits and nibbles at the given bytes.
pub(super) fn unpack(block: &[u8], high_bits: usize, nibbles: usize) -> [u8; LEN] {
    let high = u32::from_le_bytes([
        block[high_bits],
        block[high_bits + 1],
        block[high_bits + 2],
        block[high_bits + 3],
    ]);
    let fifth = |i: usize| ((high >> i & 1) << 4) as u8;
    let mut quants = [0; LEN];
    for i in 0..LEN / 2 {
        let byte = block[nibbles + i];
        quants[i] = byte & 15 | fifth(i);
        quants[i + LEN / 2] = byte >> 4 | fifth(i + LEN / 2);
    }
    quants
}

/// The reverse of [`unpack`].
pub(super) fn pack(quants: &[u8; LEN], block: &mut [u8], high_bits: usize, nibbles: usize) {
    let mut high = 0u32;
    for (i, q) in quants.iter().enumerate() {
        high |= u32::from(q >> 4) << i;
    }
    block[high_bits..high_bits + 4].copy_from_slice(&high.to_le_bytes());
    for i in 0..LEN / 2 {
        block[nibbles + i] = quants[i] & 15 | quants[i + LEN / 2] << 4;
    }
}
