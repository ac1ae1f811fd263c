//! Q4_K: 8 groups of 32 elements as `d * scale * q - dmin * min`, `q` in 4 bits, `scale` and `min` in 6.

use super::{fit, read_f16, write_f16};

/// Elements per block.
pub const LEN: usize = 256;
/// Bytes per block.
pub const BYTES: usize = 144;
/// Elements that share a scale and a minimum.
pub const GROUP: usize = 32;
/// Groups in a block.
pub const GROUPS: usize = LEN / GROUP;
/// Factor `d` on the scales, f16.
pub const D: usize = 0;
/// Factor `dmin` on the minima, f16.
pub const DMIN: usize = 2;
/// 12 bytes for [`unpack_scales`].
pub const SCALES: usize = 4;
/// Bytes of packed scales and minima.
pub const SCALE_BYTES: usize = 12;
/// 128 bytes: four runs of 32, each with an even group in its low nibbles and the next in its high ones.
pub const NIBBLES: usize = 16;

/// Decodes one block.
pub fn decode(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let (d, dmin) = (read_f16(block, D), read_f16(block, DMIN));
    let (scales, mins) = unpack_scales(block, SCALES);
    for (pair, out) in out.as_chunks_mut::<{ 2 * GROUP }>().0.iter_mut().enumerate() {
        let scale = |group: usize| (d * f32::from(scales[group]), dmin * f32::from(mins[group]));
        let ((even, even_min), (odd, odd_min)) = (scale(2 * pair), scale(2 * pair + 1));
        for i in 0..GROUP {
            let byte = block[NIBBLES + pair * GROUP + i];
            out[i] = even * f32::from(byte & 15) - even_min;
            out[i + GROUP] = odd * f32::from(byte >> 4) - odd_min;
        }
    }
}

/// Encodes one block; each group gets the scale and minimum of least squared error.
pub fn encode(values: &[f32; LEN], block: &mut [u8; BYTES]) {
    let quants = encode_groups(values, block, 15.0, D, DMIN, SCALES);
    for (pair, quants) in quants.as_chunks::<{ 2 * GROUP }>().0.iter().enumerate() {
        for i in 0..GROUP {
            block[NIBBLES + pair * GROUP + i] = quants[i] | quants[i + GROUP] << 4;
        }
    }
}

/// The scales and minima of the 8 groups, 6 bits each, from the 12 bytes at `at`.
///
/// Groups 0 to 3 lie in the low 6 bits of bytes 0 to 3 (scales) and 4 to 7 (minima); groups 4 to 7 have their low 4
/// bits in bytes 8 to 11 (scale low, minimum high nibble) and their upper 2 bits on top of bytes 0 to 7.
pub fn unpack_scales(block: &[u8], at: usize) -> ([u8; GROUPS], [u8; GROUPS]) {
    let packed = &block[at..at + SCALE_BYTES];
    let (mut scales, mut mins) = ([0; GROUPS], [0; GROUPS]);
    for i in 0..4 {
        scales[i] = packed[i] & 63;
        mins[i] = packed[i + 4] & 63;
        scales[i + 4] = packed[i + 8] & 15 | packed[i] >> 6 << 4;
        mins[i + 4] = packed[i + 8] >> 4 | packed[i + 4] >> 6 << 4;
    }
    (scales, mins)
}

/// The reverse of [`unpack_scales`].
fn pack_scales(scales: &[u8; GROUPS], mins: &[u8; GROUPS], block: &mut [u8], at: usize) {
    let packed = &mut block[at..at + SCALE_BYTES];
    for i in 0..4 {
        packed[i] = scales[i] | scales[i + 4] >> 4 << 6;
        packed[i + 4] = mins[i] | mins[i + 4] >> 4 << 6;
        packed[i + 8] = scales[i + 4] & 15 | mins[i + 4] << 4;
    }
}

/// Fits the groups with quants of `0 ..= highest`, writes factors, scales and minima, and returns the quants.
pub(super) fn encode_groups(
    values: &[f32; LEN],
    block: &mut [u8],
    highest: f32,
    d_at: usize,
    dmin_at: usize,
    scales_at: usize,
) -> [u8; LEN] {
    let mut fits = [fit::Affine::default(); GROUPS];
    for (fit, values) in fits.iter_mut().zip(values.as_chunks::<GROUP>().0) {
        *fit = fit::affine(values, highest);
    }
    let d = write_f16(block, d_at, fits.iter().fold(0.0, |m: f32, f| m.max(f.scale)) / 63.0);
    let dmin = write_f16(block, dmin_at, fits.iter().fold(0.0, |m: f32, f| m.max(f.min)) / 63.0);
    let (mut scales, mut mins, mut quants) = ([0; GROUPS], [0; GROUPS], [0; LEN]);
    let groups = values.as_chunks::<GROUP>().0.iter().zip(quants.as_chunks_mut::<GROUP>().0);
    for (group, (values, quants)) in groups.enumerate() {
        scales[group] = fit::nearest(fits[group].scale * fit::inverse(d), 0.0, 63.0) as u8;
        mins[group] = fit::nearest(fits[group].min * fit::inverse(dmin), 0.0, 63.0) as u8;
        let min = dmin * f32::from(mins[group]);
        let inverse = fit::inverse(d * f32::from(scales[group]));
        *quants = values.map(|x| fit::nearest((x + min) * inverse, 0.0, highest) as u8);
    }
    pack_scales(&scales, &mins, block, scales_at);
    quants
}
