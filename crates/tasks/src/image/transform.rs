//! What a picture-to-picture network takes and gives, one tile at a time.

use crate::pixels::{Filter, Image, Map, PixelError};
use crate::vision::input::{ColorOrder, Input, InputSize, Layout};
use crate::vision::output::{take, values, wrong};
use crate::{Task, TaskError};
use kun_tensor::{Tensor, Tensors};

/// How a picture's colours go through the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colors {
    /// Three planes at once.
    Together,
    /// Each plane alone through a grey network.
    Apart,
}

/// A picture-to-picture network.
#[derive(Clone, Debug, PartialEq)]
pub struct Transform {
    /// Normalisation; tiles are given on the scale 0 to 255.
    pub input: Input,
    /// The output.
    pub output: String,
    /// Whether the output is `[H, W, C]`.
    pub output_pixels: bool,
    /// First channel of the picture in the output.
    pub first_channel: usize,
    /// Factor from the output to the scale 0 to 255.
    pub output_scale: f32,
    /// How colours go through.
    pub colors: Colors,
    /// Sides of a tile are multiples of this.
    pub multiple: usize,
    /// Pixels around a tile that its middle depends on.
    pub overlap: usize,
    /// The network sees a picture of one small size, from which it brightens the whole.
    pub gains: bool,
    /// The network looks at the whole picture: cut into tiles, each would come out differently.
    pub whole: bool,
}

impl Transform {
    /// A network over tiles of any size.
    pub fn new(input: Input, output: &str) -> Transform {
        let colors = if input.order == ColorOrder::Gray { Colors::Apart } else { Colors::Together };
        Transform {
            output: output.to_owned(),
            output_pixels: input.layout == Layout::Pixels,
            first_channel: 0,
            output_scale: 1.0 / input.scale,
            colors,
            multiple: 1,
            overlap: 64,
            gains: false,
            whole: false,
            input,
        }
    }

    /// The only size of a tile, if the network has but one.
    pub fn fixed_tile(&self) -> Option<(usize, usize)> {
        match self.input.size {
            InputSize::Fixed { width, height } => Some((width, height)),
            InputSize::ShortSide { .. } => None,
        }
    }
}

/// One tile through a [`Transform`]: planes `[channels, h, w]` on the scale 0 to 255 in, planes out.
#[derive(Clone, Debug)]
pub struct TransformTile(pub Transform);

impl Task for TransformTile {
    type Input = (usize, usize, Vec<f32>);
    type Output = (usize, usize, Vec<f32>);
    type Context = ();

    fn prepare(&self, (width, height, planes): Self::Input) -> Result<(Tensors, ()), TaskError> {
        let input = &self.0.input;
        let channels = input.order.channels();
        let plane = width * height;
        if planes.len() != channels * plane {
            let what = format!("{} samples in a tile of {channels}x{height}x{width}", planes.len());
            return Err(TaskError::Input { what });
        }
        let source = |c: usize| if input.order == ColorOrder::Bgr { 2 - c } else { c };
        let value =
            |c: usize, i: usize| (planes[source(c) * plane + i] * input.scale - input.mean[c]) / input.std[c];
        let tensor = match input.layout {
            Layout::Planes => {
                let values = (0..channels).flat_map(|c| (0..plane).map(move |i| value(c, i))).collect();
                Tensor::f32([channels, height, width], values)?
            }
            Layout::Pixels => {
                let values = (0..plane).flat_map(|i| (0..channels).map(move |c| value(c, i))).collect();
                Tensor::f32([height, width, channels], values)?
            }
        };
        let tensor = input.convert(tensor)?;
        Ok((Tensors::from([(input.name.clone(), tensor)]), ()))
    }

    fn finish(&self, outputs: Tensors, (): ()) -> Result<Self::Output, TaskError> {
        let name = &self.0.output;
        let channels = self.0.input.order.channels();
        let (width, height, total, found) = match (take::<3>(&outputs, name), self.0.output_pixels) {
            (Ok(([h, w, c], found)), true) => (w, h, c, found),
            (Ok(([c, h, w], found)), false) => (w, h, c, found),
            // A grey network's single channel may have been taken for a batch.
            (Err(error), _) => match take::<2>(&outputs, name) {
                Ok(([h, w], found)) => (w, h, 1, found),
                Err(_) => return Err(error),
            },
        };
        let first = self.0.first_channel;
        if total < first + channels {
            return Err(wrong(name, format!("{total} channels, {} are needed", first + channels)));
        }
        let source = |c: usize| first + if self.0.input.order == ColorOrder::Bgr { 2 - c } else { c };
        let plane = width * height;
        let mut planes = Vec::with_capacity(channels * plane);
        for c in 0..channels {
            let c = source(c);
            match self.0.output_pixels {
                true => planes.extend((0..plane).map(|i| found[i * total + c] * self.0.output_scale)),
                false => {
                    planes.extend(found[c * plane..(c + 1) * plane].iter().map(|v| v * self.0.output_scale));
                }
            }
        }
        if let Some(bad) = planes.iter().find(|v| !v.is_finite()) {
            return Err(wrong(name, format!("the network gave {bad}")));
        }
        Ok((width, height, planes))
    }
}

impl Input {
    /// An f32 tensor in the input's element type.
    fn convert(&self, tensor: Tensor) -> Result<Tensor, TaskError> {
        use crate::vision::input::ElementKind;
        use kun_tensor::Elements;
        let elements = match self.kind {
            ElementKind::F32 => return Ok(tensor),
            ElementKind::F16 => {
                Elements::F16(values(&tensor).iter().map(|&v| half::f16::from_f32(v)).collect())
            }
            ElementKind::U8 => {
                Elements::U8(values(&tensor).iter().map(|v| v.round().clamp(0.0, 255.0) as u8).collect())
            }
            ElementKind::I32 => Elements::I32(values(&tensor).iter().map(|v| v.round() as i32).collect()),
        };
        Ok(Tensor::new(tensor.shape().to_vec(), elements)?)
    }
}

/// How much brighter a network made each place of a small copy: carried over to the large picture it brightens that,
/// keeping every detail.
#[derive(Clone, Debug)]
pub struct Gains {
    planes: Vec<Map>,
}

impl Gains {
    /// From what went in and what came out, planes `[3, h, w]` on the scale 0 to 255.
    ///
    /// # Errors
    /// Those of [`Map::new`].
    pub fn new(width: usize, height: usize, before: &[f32], after: &[f32]) -> Result<Gains, PixelError> {
        // A dark pixel's own ratio is all noise: 8 levels on both sides keep it near that of its neighbours.
        let gain = |(b, a): (&f32, &f32)| (a + 8.0) / (b + 8.0);
        let plane = width * height;
        let planes = before
            .chunks_exact(plane)
            .zip(after.chunks_exact(plane))
            .map(|(before, after)| Map::new(width, height, before.iter().zip(after).map(gain).collect()))
            .collect::<Result<_, _>>()?;
        Ok(Gains { planes })
    }

    /// The whole picture brightened; alpha and bits stay.
    ///
    /// # Errors
    /// Those of [`Image::new`].
    pub fn apply(&self, image: &Image) -> Result<Image, PixelError> {
        let (width, height) = (image.width(), image.height());
        let mut planes = Vec::new();
        for (c, gain) in self.planes.iter().enumerate() {
            let gain = gain.resize(width, height, Filter::Bilinear);
            let from = image.plane(if image.is_gray() { 0 } else { c });
            planes.push(from.iter().zip(gain.values()).map(|(v, g)| (v + 8.0) * g - 8.0).collect());
        }
        planes.extend(image.alpha());
        Image::from_planes(width, height, &planes, image.bits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(transform: Transform, planes: Vec<f32>) -> Vec<f32> {
        let (input, output) = (transform.input.name.clone(), transform.output.clone());
        let task = TransformTile(transform);
        let (mut tensors, ()) = task.prepare((2, 1, planes)).unwrap();
        let tensor = tensors.remove(&input).unwrap();
        task.finish(Tensors::from([(output, tensor)]), ()).unwrap().2
    }

    #[test]
    fn what_goes_in_comes_out_of_a_network_that_changes_nothing() {
        let planes = vec![0.0, 51.0, 102.0, 153.0, 204.0, 255.0];
        for (layout, order) in [
            (Layout::Planes, ColorOrder::Rgb),
            (Layout::Pixels, ColorOrder::Rgb),
            (Layout::Planes, ColorOrder::Bgr),
        ] {
            let input = Input { layout, order, ..Input::rgb("x", 2, 1) };
            let out = through(Transform::new(input, "y"), planes.clone());
            assert!(
                out.iter().zip(&planes).all(|(a, b)| (a - b).abs() < 1e-3),
                "{layout:?} {order:?}: {out:?}"
            );
        }
    }

    #[test]
    fn gains_of_the_same_size_give_the_networks_picture() {
        let image = Image::rgb(2, 2, vec![10; 12]).unwrap();
        let after: Vec<f32> = (0..12).map(|i| 20.0 * i as f32).collect();
        let gains = Gains::new(2, 2, &[10.0; 12], &after).unwrap();
        let out = gains.apply(&image).unwrap();
        assert_eq!(out.to_rgb8(), [0, 80, 160, 20, 100, 180, 40, 120, 200, 60, 140, 220]);
    }
}
