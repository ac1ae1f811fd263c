//! A picture in memory: grey or RGB, with or without alpha, 8 or 16 bits.

use super::PixelError;
use std::borrow::Cow;

/// The samples of an [`Image`], row by row, the samples of a pixel side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Samples {
    U8(Vec<u8>),
    U16(Vec<u16>),
}

impl Samples {
    fn len(&self) -> usize {
        match self {
            Samples::U8(samples) => samples.len(),
            Samples::U16(samples) => samples.len(),
        }
    }
}

/// A picture, upright: what EXIF says about turning it has been done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    width: usize,
    height: usize,
    channels: usize,
    samples: Samples,
}

impl Image {
    /// A picture of `channels` samples a pixel: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
    ///
    /// # Errors
    /// [`PixelError::Size`] without pixels, [`PixelError::Samples`] if the samples do not fill it.
    pub fn new(width: usize, height: usize, channels: usize, samples: Samples) -> Result<Image, PixelError> {
        if width == 0 || height == 0 {
            return Err(PixelError::Size { width: width as u64, height: height as u64 });
        }
        let wanted = width.checked_mul(height).and_then(|n| n.checked_mul(channels));
        if !(1..=4).contains(&channels) || wanted != Some(samples.len()) {
            return Err(PixelError::Samples { width, height, channels, samples: samples.len() });
        }
        Ok(Image { width, height, channels, samples })
    }

    /// An 8-bit RGB picture.
    ///
    /// # Errors
    /// As [`Image::new`].
    pub fn rgb(width: usize, height: usize, samples: Vec<u8>) -> Result<Image, PixelError> {
        Image::new(width, height, 3, Samples::U8(samples))
    }

    /// An 8-bit RGB picture of one colour; at least one pixel in each direction.
    pub fn filled(width: usize, height: usize, color: [u8; 3]) -> Image {
        let (width, height) = (width.max(1), height.max(1));
        let samples = color.iter().copied().cycle().take(3 * width * height).collect();
        Image { width, height, channels: 3, samples: Samples::U8(samples) }
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Samples of a pixel, 1 to 4.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The samples.
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// 8 or 16.
    pub fn bits(&self) -> usize {
        match self.samples {
            Samples::U8(_) => 8,
            Samples::U16(_) => 16,
        }
    }

    /// Whether the last sample of a pixel is its alpha.
    pub fn has_alpha(&self) -> bool {
        self.channels.is_multiple_of(2)
    }

    /// Whether its colour is one sample.
    pub fn is_gray(&self) -> bool {
        self.channels <= 2
    }

    /// The 8-bit samples, 16-bit ones rounded.
    fn bytes(&self) -> Cow<'_, [u8]> {
        match &self.samples {
            Samples::U8(samples) => samples.into(),
            Samples::U16(samples) => samples.iter().map(|&v| narrow(v)).collect::<Vec<_>>().into(),
        }
    }

    /// 8-bit RGB samples; alpha is dropped, grey is repeated. Borrowed where the picture is that already.
    pub fn rgb8(&self) -> Cow<'_, [u8]> {
        let bytes = self.bytes();
        match self.channels {
            1 => bytes.iter().flat_map(|&v| [v; 3]).collect(),
            2 => bytes.chunks_exact(2).flat_map(|p| [p[0]; 3]).collect(),
            3 => bytes,
            _ => bytes.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect(),
        }
    }

    /// [`Image::rgb8`], owned.
    pub fn to_rgb8(&self) -> Vec<u8> {
        self.rgb8().into_owned()
    }

    /// 8-bit grey samples; of RGB the luma of ITU-R 601, rounded as Pillow does.
    pub fn to_gray8(&self) -> Vec<u8> {
        let bytes = self.bytes();
        if self.is_gray() {
            return bytes.chunks_exact(self.channels).map(|p| p[0]).collect();
        }
        let luma = |p: &[u8]| {
            let sum = u32::from(p[0]) * 19_595 + u32::from(p[1]) * 38_470 + u32::from(p[2]) * 7_471;
            ((sum + 0x8000) >> 16) as u8
        };
        bytes.chunks_exact(self.channels).map(luma).collect()
    }

    /// The same picture as 8-bit RGB.
    pub fn to_rgb(&self) -> Image {
        Image { width: self.width, height: self.height, channels: 3, samples: Samples::U8(self.to_rgb8()) }
    }

    /// One sample of every pixel on the scale 0 to 255, 16-bit ones with their fractions.
    ///
    /// # Panics
    /// If the picture has no such channel.
    pub fn plane(&self, channel: usize) -> Vec<f32> {
        assert!(channel < self.channels, "channel {channel} of {}", self.channels);
        let step = self.channels;
        match &self.samples {
            Samples::U8(samples) => {
                samples.iter().skip(channel).step_by(step).map(|&v| f32::from(v)).collect()
            }
            Samples::U16(samples) => {
                samples.iter().skip(channel).step_by(step).map(|&v| f32::from(v) / 257.0).collect()
            }
        }
    }

    /// The alpha samples on the scale 0 to 255, if there are any.
    pub fn alpha(&self) -> Option<Vec<f32>> {
        self.has_alpha().then(|| self.plane(self.channels - 1))
    }

    /// A picture from planes on the scale 0 to 255, clipped and rounded to `bits` (8 or 16).
    ///
    /// # Errors
    /// As [`Image::new`].
    pub fn from_planes(
        width: usize,
        height: usize,
        planes: &[Vec<f32>],
        bits: usize,
    ) -> Result<Image, PixelError> {
        let pixels = planes.iter().map(Vec::len).min().unwrap_or(0);
        let values = (0..pixels).flat_map(|i| planes.iter().map(move |plane| plane[i]));
        let samples = match bits {
            16 => Samples::U16(values.map(|v| (v * 257.0).round().clamp(0.0, 65_535.0) as u16).collect()),
            _ => Samples::U8(values.map(|v| v.round().clamp(0.0, 255.0) as u8).collect()),
        };
        Image::new(width, height, planes.len(), samples)
    }

    /// The picture turned by 180 degrees.
    pub fn turned_around(&self) -> Image {
        fn turn<T: Copy>(samples: &[T], channels: usize) -> Vec<T> {
            samples.chunks_exact(channels).rev().flatten().copied().collect()
        }
        let samples = match &self.samples {
            Samples::U8(samples) => Samples::U8(turn(samples, self.channels)),
            Samples::U16(samples) => Samples::U16(turn(samples, self.channels)),
        };
        Image { samples, ..*self }
    }

    /// A rectangle of it; `x + width` and `y + height` are cut to the picture.
    ///
    /// # Errors
    /// [`PixelError::Size`] if nothing is left.
    pub fn crop(&self, x: usize, y: usize, width: usize, height: usize) -> Result<Image, PixelError> {
        let width = width.min(self.width.saturating_sub(x));
        let height = height.min(self.height.saturating_sub(y));
        let rows = (y..y + height).map(|row| {
            let start = (row * self.width + x) * self.channels;
            start..start + width * self.channels
        });
        let samples = match &self.samples {
            Samples::U8(samples) => Samples::U8(rows.flat_map(|r| samples[r].iter().copied()).collect()),
            Samples::U16(samples) => Samples::U16(rows.flat_map(|r| samples[r].iter().copied()).collect()),
        };
        Image::new(width, height, self.channels, samples)
    }
}

/// 16 bits to 8, rounded.
fn narrow(value: u16) -> u8 {
    ((u32::from(value) + 128) / 257) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_convert_as_pillow_does() {
        let rgba = Image::new(2, 1, 4, Samples::U8(vec![255, 0, 0, 9, 10, 20, 30, 255])).unwrap();
        assert_eq!(rgba.to_rgb8(), [255, 0, 0, 10, 20, 30]);
        // PIL: Image.fromarray([[[255,0,0],[10,20,30]]]).convert("L") -> 76, 18
        assert_eq!(rgba.to_gray8(), [76, 18]);
        assert_eq!(rgba.alpha(), Some(vec![9.0, 255.0]));
        let deep = Image::new(1, 1, 1, Samples::U16(vec![65_535])).unwrap();
        assert_eq!((deep.to_rgb8(), deep.plane(0), deep.bits()), (vec![255; 3], vec![255.0], 16));
    }

    #[test]
    fn sixteen_bits_survive_planes() {
        let samples: Vec<u16> = (0..=u16::MAX).collect();
        let image = Image::new(256, 256, 1, Samples::U16(samples)).unwrap();
        assert_eq!(Image::from_planes(256, 256, &[image.plane(0)], 16).unwrap(), image);
    }

    #[test]
    fn crops_are_cut_to_the_picture() {
        let image = Image::rgb(3, 2, (0..18).collect()).unwrap();
        assert_eq!(image.crop(1, 1, 9, 9).unwrap(), Image::rgb(2, 1, vec![12, 13, 14, 15, 16, 17]).unwrap());
        assert!(image.crop(3, 0, 1, 1).is_err());
        assert!(Image::rgb(3, 2, vec![0; 17]).is_err());
    }
}
