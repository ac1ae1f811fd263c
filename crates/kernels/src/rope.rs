//! Rotary position embedding (arXiv:2104.09864).

use crate::{Isa, KernelError};

/// Which elements of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RopeStyle {
    /// Elements `2i` and `2i + 1`: Llama in GGUF files.
    Interleaved,
    /// Elements `i` and `i + rotary_dim / 2`: Hugging Face weights, Qwen.
    Halves,
}

/// Cosine and sine of the angles at one position, times `magnitude`; all slices are `[rotary_dim / 2]`.
///
/// The angle is rounded to f32 before its sine is taken, as the reference implementations of the models do.
///
/// # Errors
/// [`KernelError::Shape`] if the lengths differ.
pub fn rope_table(
    inverse_frequencies: &[f32],
    position: usize,
    magnitude: f32,
    cos: &mut [f32],
    sin: &mut [f32],
) -> Result<(), KernelError> {
    KernelError::check("rope_table", inverse_frequencies.len(), cos.len())?;
    KernelError::check("rope_table", inverse_frequencies.len(), sin.len())?;
    for ((frequency, cos), sin) in inverse_frequencies.iter().zip(cos).zip(sin) {
        let (s, c) = (position as f32 * frequency).sin_cos();
        *cos = c * magnitude;
        *sin = s * magnitude;
    }
    Ok(())
}

/// Turns every head of one token, in place: `x` is `[H * Dh]`, `cos` and `sin` come from [`rope_table`].
///
/// Only the first `rotary_dim` elements of each head turn.
///
/// # Errors
/// [`KernelError::Shape`] if `rotary_dim` is odd or above `head_dim`, `head_dim` does not divide `x`, or a table is
/// not `rotary_dim / 2` long.
pub fn rope(
    isa: Isa,
    style: RopeStyle,
    head_dim: usize,
    rotary_dim: usize,
    cos: &[f32],
    sin: &[f32],
    x: &mut [f32],
) -> Result<(), KernelError> {
    let _ = isa;
    KernelError::check_groups("rope", x.len(), head_dim)?;
    if !rotary_dim.is_multiple_of(2) || rotary_dim > head_dim {
        return Err(KernelError::Shape {
            kernel: "rope",
            what: format!("rotary_dim {rotary_dim} is odd or above head_dim {head_dim}"),
        });
    }
    let half = rotary_dim / 2;
    KernelError::check("rope", cos.len(), half)?;
    KernelError::check("rope", sin.len(), half)?;
    for head in x.chunks_exact_mut(head_dim) {
        for i in 0..half {
            let (first, second) = match style {
                RopeStyle::Interleaved => (2 * i, 2 * i + 1),
                RopeStyle::Halves => (i, i + half),
            };
            let (a, b) = (head[first], head[second]);
            head[first] = a * cos[i] - b * sin[i];
            head[second] = b * cos[i] + a * sin[i];
        }
    }
    Ok(())
}
