//! A picture to the bytes of a file.

use super::{Image, PixelError, Samples};
use image::codecs::bmp::BmpEncoder;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::codecs::tiff::TiffEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder};
use std::io::Cursor;

/// Formats that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Lossless, any picture.
    Png,
    /// Quality 92, no alpha, 8 bits.
    Jpeg,
    /// Lossless, 8 bits.
    WebP,
    /// 8 bits, no alpha.
    Bmp,
    /// Lossless, any picture.
    Tiff,
}

impl FileKind {
    /// Of a file name's ending, without the dot.
    pub fn from_extension(extension: &str) -> Option<FileKind> {
        Some(match extension.to_ascii_lowercase().as_str() {
            "png" => FileKind::Png,
            "jpg" | "jpeg" => FileKind::Jpeg,
            "webp" => FileKind::WebP,
            "bmp" => FileKind::Bmp,
            "tif" | "tiff" => FileKind::Tiff,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            FileKind::Png => "PNG",
            FileKind::Jpeg => "JPEG",
            FileKind::WebP => "WebP",
            FileKind::Bmp => "BMP",
            FileKind::Tiff => "TIFF",
        }
    }

    fn keeps_alpha(self) -> bool {
        !matches!(self, FileKind::Jpeg | FileKind::Bmp)
    }

    fn keeps_16_bits(self) -> bool {
        matches!(self, FileKind::Png | FileKind::Tiff)
    }
}

/// The bytes of a file. Alpha is laid over white and 16 bits are rounded where the format has none.
///
/// # Errors
/// [`PixelError::Encode`].
pub fn encode(image: &Image, kind: FileKind) -> Result<Vec<u8>, PixelError> {
    let flat;
    let mut image = image;
    if image.has_alpha() && !kind.keeps_alpha() || image.bits() == 16 && !kind.keeps_16_bits() {
        flat = flatten(image, kind.keeps_alpha())?;
        image = &flat;
    }
    let fail = |what: String| PixelError::Encode { kind: kind.name(), what };
    let side = |n: usize| u32::try_from(n).map_err(|_| fail(format!("a side of {n} pixels")));
    let (width, height) = (side(image.width())?, side(image.height())?);
    let (bytes, color) = match image.samples() {
        Samples::U8(samples) => (
            std::borrow::Cow::Borrowed(samples.as_slice()),
            match image.channels() {
                1 => ExtendedColorType::L8,
                2 => ExtendedColorType::La8,
                3 => ExtendedColorType::Rgb8,
                _ => ExtendedColorType::Rgba8,
            },
        ),
        Samples::U16(samples) => {
            // The encoders take native bytes and turn them round themselves.
            let bytes = samples.iter().flat_map(|v| v.to_ne_bytes()).collect::<Vec<_>>();
            (
                bytes.into(),
                match image.channels() {
                    1 => ExtendedColorType::L16,
                    2 => ExtendedColorType::La16,
                    3 => ExtendedColorType::Rgb16,
                    _ => ExtendedColorType::Rgba16,
                },
            )
        }
    };
    let mut out = Vec::new();
    let written = match kind {
        FileKind::Png => {
            PngEncoder::new_with_quality(&mut out, CompressionType::Default, FilterType::Adaptive)
                .write_image(&bytes, width, height, color)
        }
        FileKind::Jpeg => {
            JpegEncoder::new_with_quality(&mut out, 92).write_image(&bytes, width, height, color)
        }
        FileKind::WebP => WebPEncoder::new_lossless(&mut out).write_image(&bytes, width, height, color),
        FileKind::Bmp => BmpEncoder::new(&mut out).write_image(&bytes, width, height, color),
        FileKind::Tiff => TiffEncoder::new(Cursor::new(&mut out)).write_image(&bytes, width, height, color),
    };
    written.map_err(|error| fail(error.to_string()))?;
    Ok(out)
}

/// 8 bits; alpha kept or laid over white.
fn flatten(image: &Image, keep_alpha: bool) -> Result<Image, PixelError> {
    let alpha = image.alpha();
    let colors = if image.is_gray() { 1 } else { 3 };
    let mut planes: Vec<Vec<f32>> = (0..colors).map(|c| image.plane(c)).collect();
    match alpha {
        Some(alpha) if keep_alpha => planes.push(alpha),
        Some(alpha) => planes.iter_mut().for_each(|plane| {
            plane.iter_mut().zip(&alpha).for_each(|(v, a)| *v = 255.0 + (*v - 255.0) * a / 255.0);
        }),
        None => {}
    }
    Image::from_planes(image.width(), image.height(), &planes, 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pixels::{DecodeLimits, decode};

    fn ramp(channels: usize, bits: usize) -> Image {
        let n = 6 * 5 * channels;
        let samples = match bits {
            16 => Samples::U16((0..n).map(|i| (i * 521 % 65_536) as u16).collect()),
            _ => Samples::U8((0..n).map(|i| (i * 7 % 256) as u8).collect()),
        };
        Image::new(6, 5, channels, samples).unwrap()
    }

    #[test]
    fn lossless_formats_give_the_same_picture_back() {
        for kind in [FileKind::Png, FileKind::Tiff, FileKind::WebP, FileKind::Bmp] {
            for bits in [8, 16] {
                for channels in 1..=4 {
                    let image = ramp(channels, bits);
                    let file = match encode(&image, kind) {
                        Ok(file) => file,
                        // TIFF has no grey with alpha here.
                        Err(PixelError::Encode { .. }) if kind == FileKind::Tiff && channels == 2 => continue,
                        Err(error) => panic!("{kind:?} {channels} {bits}: {error}"),
                    };
                    let back = decode(&file, DecodeLimits::default()).unwrap().image;
                    let exact = bits == 8 || kind.keeps_16_bits();
                    if exact && back.channels() == channels {
                        assert_eq!(back, image, "{kind:?} {channels} {bits}");
                    }
                    // What a format widens to RGB stays the same to the eye.
                    if kind.keeps_alpha() || channels % 2 == 1 {
                        assert_eq!(back.to_rgb8(), image.to_rgb8(), "{kind:?} {channels} {bits}");
                        let round = |v: Vec<f32>| v.iter().map(|v| v.round()).collect::<Vec<_>>();
                        let (back, image) = (back.alpha().map(round), image.alpha().map(round));
                        assert_eq!(back, image, "{kind:?} {channels} {bits}");
                    }
                }
            }
        }
    }

    #[test]
    fn jpeg_lays_alpha_over_white() {
        let clear = Image::new(16, 16, 4, Samples::U8([0, 0, 0, 0].repeat(256))).unwrap();
        let back = decode(&encode(&clear, FileKind::Jpeg).unwrap(), DecodeLimits::default()).unwrap().image;
        assert!(back.to_rgb8().iter().all(|&v| v > 250));
    }
}
