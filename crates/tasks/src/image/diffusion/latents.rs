//! Guidance, masks, and pictures as the networks have them.

use crate::TaskError;
use crate::pixels::{Filter, Image, Map, PixelError};
use kun_tensor::{DType, Elements, Tensor};

/// Away from what is not wanted: `without + scale * (with - without)` (arXiv:2207.12598).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guidance(pub f32);

impl Guidance {
    /// Whether it changes anything.
    pub fn is_on(self) -> bool {
        self.0 > 1.0
    }

    /// Of what the network gave without and with the prompt.
    pub fn apply(self, without: &[f32], with: &[f32]) -> Vec<f32> {
        without.iter().zip(with).map(|(a, b)| a + self.0 * (b - a)).collect()
    }
}

/// How a network that was taught guidance is told it: sines and cosines of `1000 (scale - 1)`, `[D]`.
pub fn guidance_embedding(scale: f32, width: usize) -> Vec<f32> {
    let half = width / 2;
    let step = 10_000_f32.ln() / half.saturating_sub(1).max(1) as f32;
    let angles: Vec<f32> = (0..half).map(|i| (scale - 1.0) * 1000.0 * (-step * i as f32).exp()).collect();
    let sines = angles.iter().map(|a| a.sin());
    let mut values: Vec<f32> = sines.chain(angles.iter().map(|a| a.cos())).collect();
    values.resize(width, 0.0);
    values
}

/// A picture of the wanted size as networks take it: planes `[3, H, W]` from -1 to 1. Alpha is laid over white.
///
/// # Errors
/// Those of [`Map::new`].
pub fn to_signed(image: &Image, width: usize, height: usize) -> Result<Vec<f32>, PixelError> {
    let alpha = image.alpha();
    let mut out = Vec::with_capacity(3 * width * height);
    for c in 0..3 {
        let mut plane = image.plane(if image.is_gray() { 0 } else { c });
        if let Some(alpha) = &alpha {
            plane.iter_mut().zip(alpha).for_each(|(v, a)| *v = 255.0 + (*v - 255.0) * a / 255.0);
        }
        let plane = resized(image, plane, width, height)?;
        out.extend(plane.iter().map(|v| v.round().clamp(0.0, 255.0) / 127.5 - 1.0));
    }
    Ok(out)
}

fn resized(image: &Image, plane: Vec<f32>, width: usize, height: usize) -> Result<Vec<f32>, PixelError> {
    if (image.width(), image.height()) == (width, height) {
        return Ok(plane);
    }
    Ok(Map::new(image.width(), image.height(), plane)?.resize(width, height, Filter::Lanczos).into_values())
}

/// Planes `[3, H, W]` from -1 to 1 to a scale from 0 to 1.
pub fn to_pixels(planes: &[f32]) -> Vec<f32> {
    planes.iter().map(|v| (v / 2.0 + 0.5).clamp(0.0, 1.0)).collect()
}

/// A tensor of whatever type an input has.
///
/// # Errors
/// [`TaskError::Input`] for types that hold no numbers of a network, [`TaskError::Shape`].
pub fn tensor(shape: &[usize], values: Vec<f32>, dtype: DType) -> Result<Tensor, TaskError> {
    let elements = match dtype {
        DType::F32 => Elements::F32(values),
        DType::F64 => Elements::F64(values.into_iter().map(f64::from).collect()),
        DType::F16 => Elements::F16(values.into_iter().map(half::f16::from_f32).collect()),
        DType::BF16 => Elements::BF16(values.into_iter().map(half::bf16::from_f32).collect()),
        DType::I64 => Elements::I64(values.into_iter().map(|v| v as i64).collect()),
        DType::I32 => Elements::I32(values.into_iter().map(|v| v as i32).collect()),
        other => return Err(TaskError::Input { what: format!("an input of type {}", other.name()) }),
    };
    Ok(Tensor::new(shape, elements)?)
}

/// What of a picture is to be drawn anew.
#[derive(Clone, Debug, PartialEq)]
pub struct LatentMask {
    width: usize,
    height: usize,
    /// Of pixels, `[H, W]`.
    pixels: Vec<bool>,
}

impl LatentMask {
    /// Of a picture of any size: where it is transparent, or where it has no alpha, where it is white.
    ///
    /// # Errors
    /// Those of [`Map::new`].
    pub fn new(mask: &Image, width: usize, height: usize) -> Result<LatentMask, PixelError> {
        let plane = match mask.alpha() {
            Some(alpha) => alpha.into_iter().map(|a| 255.0 - a).collect(),
            None => mask.to_gray8().into_iter().map(f32::from).collect(),
        };
        let pixels = resized(mask, plane, width, height)?.into_iter().map(|v| v >= 127.5).collect();
        Ok(LatentMask { width, height, pixels })
    }

    /// Whether anything is to be drawn.
    pub fn is_empty(&self) -> bool {
        !self.pixels.iter().any(|drawn| *drawn)
    }

    /// `[H / factor, W / factor]`: 1 where it is drawn.
    pub fn latents(&self, factor: usize) -> Vec<f32> {
        let (columns, rows) = (self.width / factor, self.height / factor);
        let at = |y: usize, x: usize| f32::from(u8::from(self.pixels[y * factor * self.width + x * factor]));
        (0..rows).flat_map(|y| (0..columns).map(move |x| (y, x))).map(|(y, x)| at(y, x)).collect()
    }

    /// `planes` `[C, H, W]` of the whole picture, 0 where it is drawn.
    pub fn hide(&self, planes: &[f32]) -> Vec<f32> {
        let keep = self.pixels.iter().map(|drawn| if *drawn { 0.0 } else { 1.0 });
        planes.iter().zip(keep.cycle()).map(|(v, keep)| v * keep).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pixels::Samples;

    #[test]
    fn masks_are_white_or_transparent_where_something_is_drawn() {
        let gray = Image::new(4, 2, 1, Samples::U8(vec![255, 255, 0, 0, 200, 9, 130, 0])).unwrap();
        let mask = LatentMask::new(&gray, 4, 2).unwrap();
        assert_eq!(mask.latents(2), [1.0, 0.0]);
        assert_eq!(mask.hide(&[5.0; 8]), [0.0, 0.0, 5.0, 5.0, 0.0, 5.0, 0.0, 5.0]);
        let clear = Image::new(2, 1, 2, Samples::U8(vec![255, 255, 255, 0])).unwrap();
        assert_eq!(LatentMask::new(&clear, 2, 1).unwrap().latents(1), [0.0, 1.0]);
        assert!(LatentMask::new(&Image::filled(2, 2, [0; 3]), 2, 2).unwrap().is_empty());
    }

    #[test]
    fn guidance_moves_away_from_what_is_not_wanted() {
        assert_eq!(Guidance(3.0).apply(&[1.0, 0.0], &[2.0, 0.0]), [4.0, 0.0]);
        assert!(!Guidance(1.0).is_on() && Guidance(1.1).is_on());
        assert_eq!(guidance_embedding(1.0, 5), [0.0, 0.0, 1.0, 1.0, 0.0]);
    }

    #[test]
    fn pixels_keep_their_values() {
        let image = Image::rgb(2, 1, vec![0, 255, 51, 255, 0, 102]).unwrap();
        let pixels = to_pixels(&to_signed(&image, 2, 1).unwrap());
        let wanted = [0.0, 1.0, 1.0, 0.0, 0.2, 0.4];
        assert!(pixels.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6), "{pixels:?}");
    }
}
