//! Element types without blocks.

/// Reads `N`-byte elements.
pub(super) fn decode<const N: usize>(bytes: &[u8], out: &mut [f32], read: impl Fn([u8; N]) -> f32) {
    for (bytes, out) in bytes.as_chunks().0.iter().zip(out) {
        *out = read(*bytes);
    }
}

/// Writes `N`-byte elements.
pub(super) fn encode<const N: usize>(values: &[f32], out: &mut [u8], write: impl Fn(f32) -> [u8; N]) {
    for (value, out) in values.iter().zip(out.as_chunks_mut().0) {
        *out = write(*value);
    }
}

/// The upper half of an f32.
pub fn bf16_to_f32(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}

/// Rounds to the nearest bf16, ties to even; every NaN becomes a quiet one.
pub fn f32_to_bf16(x: f32) -> [u8; 2] {
    half::bf16::from_f32(x).to_le_bytes()
}
