//! One f32 value per pixel: depth, probability, one class's logits.

use super::PixelError;
use super::resize::{Filter, resize_f32};

/// `[H, W]`, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    width: usize,
    height: usize,
    values: Vec<f32>,
}

impl Map {
    /// A map of `height` rows.
    ///
    /// # Errors
    /// [`PixelError::Samples`] if the values do not fill it or there are none.
    pub fn new(width: usize, height: usize, values: Vec<f32>) -> Result<Map, PixelError> {
        if values.is_empty() || width.checked_mul(height) != Some(values.len()) {
            return Err(PixelError::Samples { width, height, channels: 1, samples: values.len() });
        }
        Ok(Map { width, height, values })
    }

    /// Values in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The values, row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Takes the values out.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }

    /// The value at a place inside.
    pub fn at(&self, x: usize, y: usize) -> f32 {
        self.values[y * self.width + x]
    }

    /// Resized; pixel centres lie at half-integers, as PyTorch's `align_corners=False` has it.
    pub fn resize(&self, width: usize, height: usize, filter: Filter) -> Map {
        let (width, height) = (width.max(1), height.max(1));
        if (width, height) == (self.width, self.height) {
            return self.clone();
        }
        let values = resize_f32(&self.values, self.width, self.height, width, height, filter);
        Map { width, height, values }
    }

    /// A rectangle of it, cut to the map.
    ///
    /// # Errors
    /// [`PixelError::Samples`] if nothing is left.
    pub fn crop(&self, x: usize, y: usize, width: usize, height: usize) -> Result<Map, PixelError> {
        let width = width.min(self.width.saturating_sub(x));
        let height = height.min(self.height.saturating_sub(y));
        let values = (y..y + height)
            .flat_map(|row| &self.values[row * self.width + x..row * self.width + x + width])
            .copied()
            .collect();
        Map::new(width, height, values)
    }

    /// The smallest and the largest finite value; `(0, 0)` if there is none.
    pub fn range(&self) -> (f32, f32) {
        let finite = self.values.iter().copied().filter(|v| v.is_finite());
        let (low, high) = finite.fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        if low <= high { (low, high) } else { (0.0, 0.0) }
    }
}
