//! A picture to the tensor that a network takes.

use crate::TaskError;
use crate::pixels::fit::{Fit, Placement, fit};
use crate::pixels::{Filter, Image};
use kun_tensor::{Elements, Tensor, Tensors};

/// Order of the colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ColorOrder {
    Rgb,
    Bgr,
    Gray,
}

impl ColorOrder {
    /// Channels of the input.
    pub fn channels(self) -> usize {
        if self == ColorOrder::Gray { 1 } else { 3 }
    }
}

/// Order of the dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[C, H, W]`.
    Planes,
    /// `[H, W, C]`.
    Pixels,
}

/// Type of the elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ElementKind {
    F32,
    F16,
    U8,
    I32,
}

/// Size of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputSize {
    /// Always this.
    Fixed {
        /// Pixels in a row.
        width: usize,
        /// Rows.
        height: usize,
    },
    /// The picture's own shape, its short side near `short_side`, both sides multiples of `multiple`.
    ShortSide {
        /// Pixels.
        short_side: usize,
        /// Of both sides.
        multiple: usize,
    },
}

/// How a picture becomes a tensor: `x = (pixel * scale - mean) / std` of 8-bit samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Name of the tensor.
    pub name: String,
    /// Its size.
    pub size: InputSize,
    /// Order of its dimensions.
    pub layout: Layout,
    /// Order of its colours.
    pub order: ColorOrder,
    /// Type of its elements.
    pub kind: ElementKind,
    /// Factor of the samples.
    pub scale: f32,
    /// Taken off, by channel in the network's order.
    pub mean: [f32; 3],
    /// Divisor, by channel in the network's order.
    pub std: [f32; 3],
    /// How a picture gets the input's size.
    pub fit: Fit,
    /// How it is resampled.
    pub filter: Filter,
    /// An input that says which pixels are the picture's, `[height, width]` ones as i64, where the network has it.
    pub mask: Option<(String, [usize; 2])>,
}

impl Input {
    /// An RGB input of a fixed size, 0 to 1, stretched.
    pub fn rgb(name: &str, width: usize, height: usize) -> Input {
        Input {
            name: name.to_owned(),
            size: InputSize::Fixed { width, height },
            layout: Layout::Planes,
            order: ColorOrder::Rgb,
            kind: ElementKind::F32,
            scale: 1.0 / 255.0,
            mean: [0.0; 3],
            std: [1.0; 3],
            fit: Fit::Stretch,
            filter: Filter::Bilinear,
            mask: None,
        }
    }

    /// Pixels of the input for a picture of this size: width and height.
    pub fn size_for(&self, width: usize, height: usize) -> (usize, usize) {
        match self.size {
            InputSize::Fixed { width, height } => (width, height),
            InputSize::ShortSide { short_side, multiple } => {
                let scale = short_side as f64 / width.min(height) as f64;
                let side = |n: usize| {
                    let steps = (n as f64 * scale / multiple as f64).round() as usize;
                    // A strip of a picture must not become a giant input.
                    steps.clamp(1, (short_side * 4).div_ceil(multiple)) * multiple
                };
                (side(width), side(height))
            }
        }
    }

    /// Every input of the network, and where the picture came to lie.
    ///
    /// # Errors
    /// As [`Input::prepare`].
    pub fn tensors(&self, image: &Image) -> Result<(Tensors, Placement), TaskError> {
        let (tensor, placement) = self.prepare(image)?;
        let mut tensors = Tensors::from([(self.name.clone(), tensor)]);
        if let Some((name, [height, width])) = &self.mask {
            let ones = Tensor::new([*height, *width], Elements::I64(vec![1; height * width]))?;
            tensors.insert(name.clone(), ones);
        }
        Ok((tensors, placement))
    }

    /// The tensor without a batch dimension, and where the picture came to lie in it.
    ///
    /// # Errors
    /// [`TaskError::Input`] if the input has no pixels.
    pub fn prepare(&self, image: &Image) -> Result<(Tensor, Placement), TaskError> {
        let size = self.size_for(image.width(), image.height());
        if size.0 == 0 || size.1 == 0 {
            return Err(TaskError::Input { what: "the network's input has no pixels".to_owned() });
        }
        let gray = self.order == ColorOrder::Gray;
        let samples = if gray { image.to_gray8().into() } else { image.rgb8() };
        let channels = self.order.channels();
        let source = (image.width(), image.height());
        let (samples, placement) = fit(&samples, source, channels, size, self.fit, self.filter);
        Ok((self.tensor(&samples, size)?, placement))
    }

    /// The tensor of interleaved 8-bit samples (grey, or RGB whatever the network's order) of the input's size.
    ///
    /// # Errors
    /// [`TaskError::Shape`] if the samples do not fill it.
    pub fn tensor(&self, samples: &[u8], (width, height): (usize, usize)) -> Result<Tensor, TaskError> {
        let channels = self.order.channels();
        let source = |c: usize| if self.order == ColorOrder::Bgr { 2 - c } else { c };
        // One division a value and level: 256 levels a channel.
        let tables: Vec<[f32; 256]> = (0..channels)
            .map(|c| std::array::from_fn(|v| (v as f32 * self.scale - self.mean[c]) / self.std[c]))
            .collect();
        let pixels = samples.chunks_exact(channels);
        let mut values = Vec::with_capacity(samples.len());
        let shape = match self.layout {
            Layout::Planes => {
                for (c, table) in tables.iter().enumerate() {
                    let source = source(c);
                    values.extend(pixels.clone().map(|pixel| table[usize::from(pixel[source])]));
                }
                vec![channels, height, width]
            }
            Layout::Pixels => {
                for pixel in pixels {
                    values.extend((0..channels).map(|c| tables[c][usize::from(pixel[source(c)])]));
                }
                vec![height, width, channels]
            }
        };
        let elements = match self.kind {
            ElementKind::F32 => Elements::F32(values),
            ElementKind::F16 => Elements::F16(values.into_iter().map(half::f16::from_f32).collect()),
            ElementKind::U8 => Elements::U8(values.into_iter().map(|v| v.round() as u8).collect()),
            ElementKind::I32 => Elements::I32(values.into_iter().map(|v| v.round() as i32).collect()),
        };
        Ok(Tensor::new(shape, elements)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_and_dimensions_come_in_the_networks_order() {
        let image = Image::rgb(2, 1, vec![10, 20, 30, 40, 50, 60]).unwrap();
        let mut input = Input { scale: 1.0, ..Input::rgb("x", 2, 1) };
        let values = |input: &Input| {
            let (tensor, _) = input.prepare(&image).unwrap();
            (tensor.shape().to_vec(), tensor.as_f32().unwrap().to_vec())
        };
        assert_eq!(values(&input), (vec![3, 1, 2], vec![10.0, 40.0, 20.0, 50.0, 30.0, 60.0]));
        input.order = ColorOrder::Bgr;
        assert_eq!(values(&input).1, [30.0, 60.0, 20.0, 50.0, 10.0, 40.0]);
        input.layout = Layout::Pixels;
        input.mean = [30.0, 20.0, 10.0];
        input.std = [2.0, 1.0, 1.0];
        assert_eq!(values(&input), (vec![1, 2, 3], vec![0.0, 0.0, 0.0, 15.0, 30.0, 30.0]));
        input.order = ColorOrder::Gray;
        assert_eq!(values(&input).0, [1, 2, 1]);
    }

    #[test]
    fn short_sides_keep_the_shape_in_steps() {
        let size = InputSize::ShortSide { short_side: 518, multiple: 14 };
        let input = Input { size, ..Input::rgb("x", 1, 1) };
        assert_eq!(input.size_for(640, 480), (686, 518));
        assert_eq!(input.size_for(1, 100_000), (518, 2072));
    }
}
