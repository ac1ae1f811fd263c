//! Rotary position embedding (arXiv:2104.09864).

use crate::vector::{self, Kernel, MAX_LANES, Vector};
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
    match style {
        RopeStyle::Halves => vector::run(isa, Halves { head_dim, cos, sin, x }),
        RopeStyle::Interleaved => vector::run(isa, Interleaved { head_dim, cos, sin, x }),
    }
    Ok(())
}

/// `x` is whole heads of `head_dim` elements, at least twice as many as `cos` and `sin` have each.
struct Halves<'a> {
    head_dim: usize,
    cos: &'a [f32],
    sin: &'a [f32],
    x: &'a mut [f32],
}

impl Kernel for Halves<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let half = self.cos.len();
        for head in self.x.chunks_exact_mut(self.head_dim) {
            let (first, second) = head[..2 * half].split_at_mut(half);
            let halves = first.chunks_mut(V::LANES).zip(second.chunks_mut(V::LANES));
            let tables = self.cos.chunks(V::LANES).zip(self.sin.chunks(V::LANES));
            for ((first, second), (cos, sin)) in halves.zip(tables) {
                if cos.len() == V::LANES {
                    // SAFETY: all four chunks are `LANES` long, as they cut slices of one length.
                    unsafe {
                        let (a, b) = (v.load(first.as_ptr()), v.load(second.as_ptr()));
                        let (cos, sin) = (v.load(cos.as_ptr()), v.load(sin.as_ptr()));
                        let (a, b) = turn(v, a, b, cos, sin);
                        v.store(first.as_mut_ptr(), a);
                        v.store(second.as_mut_ptr(), b);
                    }
                } else {
                    let (cos, sin) = (v.load_part(cos), v.load_part(sin));
                    let (a, b) = turn(v, v.load_part(first), v.load_part(second), cos, sin);
                    v.store_part(first, a);
                    v.store_part(second, b);
                }
            }
        }
    }
}

#[inline(always)]
fn turn<V: Vector>(v: V, a: V::F32, b: V::F32, cos: V::F32, sin: V::F32) -> (V::F32, V::F32) {
    (v.sub(v.mul(a, cos), v.mul(b, sin)), v.add(v.mul(b, cos), v.mul(a, sin)))
}

/// As [`Halves`], with neighbours turning together.
struct Interleaved<'a> {
    head_dim: usize,
    cos: &'a [f32],
    sin: &'a [f32],
    x: &'a mut [f32],
}

impl Kernel for Interleaved<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let pairs = V::LANES / 2;
        for (block, (cos, sin)) in self.cos.chunks(pairs).zip(self.sin.chunks(pairs)).enumerate() {
            // Each angle serves two lanes; the first of a pair takes the sine with a minus.
            let (mut cosines, mut sines) = ([0.0; MAX_LANES], [0.0; MAX_LANES]);
            for (i, (cos, sin)) in cos.iter().zip(sin).enumerate() {
                (cosines[2 * i], cosines[2 * i + 1]) = (*cos, *cos);
                (sines[2 * i], sines[2 * i + 1]) = (-sin, *sin);
            }
            let (cosines, sines) = (v.load_part(&cosines), v.load_part(&sines));
            for head in self.x.chunks_exact_mut(self.head_dim) {
                let part = &mut head[block * V::LANES..][..2 * cos.len()];
                if part.len() == V::LANES {
                    // SAFETY: `part` is `LANES` long.
                    unsafe {
                        let x = v.load(part.as_ptr());
                        let y = v.add(v.mul(x, cosines), v.mul(v.swap_pairs(x), sines));
                        v.store(part.as_mut_ptr(), y);
                    }
                } else {
                    let x = v.load_part(part);
                    v.store_part(part, v.add(v.mul(x, cosines), v.mul(v.swap_pairs(x), sines)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
