//! Bytes of a file to a picture. The size is read and judged before anything is decoded.

use super::{Image, PixelError, Samples};
use image::error::ImageError;
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use std::io::Cursor;
use std::panic::{UnwindSafe, catch_unwind};

/// How large a picture may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Millions of pixels.
    pub megapixels: usize,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        DecodeLimits { megapixels: 64 }
    }
}

impl DecodeLimits {
    fn pixels(self) -> u64 {
        (self.megapixels as u64).saturating_mul(1_000_000)
    }

    /// Bytes that decoding may allocate: the samples at their widest, and a quarter for the decoder's own buffers.
    fn bytes(self) -> u64 {
        self.pixels().saturating_mul(10).saturating_add(8 << 20)
    }
}

/// Longest side of a picture; longer ones than this are made to break programs.
const MAX_SIDE: u64 = 65_535;

/// A picture and what there is to say about its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Upright.
    pub image: Image,
    /// The file is an animation; this is its first frame.
    pub first_frame: bool,
}

/// Whether a file begins like a picture that can be read.
pub fn is_picture(head: &[u8]) -> bool {
    guess(head).is_some()
}

fn guess(bytes: &[u8]) -> Option<ImageFormat> {
    let format = image::guess_format(bytes).ok()?;
    matches!(
        format,
        ImageFormat::Png
            | ImageFormat::Jpeg
            | ImageFormat::WebP
            | ImageFormat::Bmp
            | ImageFormat::Gif
            | ImageFormat::Tiff
    )
    .then_some(format)
}

/// What is known of a picture before it is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Pixels in a row, before it is turned upright.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// One of the formats that the web is made of: PNG, JPEG, WebP or GIF.
    pub is_usual: bool,
}

/// Reads the header of a picture.
///
/// # Errors
/// [`PixelError::Format`], [`PixelError::Broken`], [`PixelError::Size`].
pub fn header(bytes: &[u8]) -> Result<Header, PixelError> {
    guarded(|| read_header(bytes))
}

/// A decoder that fails in a way of its own has met a broken picture.
fn guarded<T>(read: impl FnOnce() -> Result<T, PixelError> + UnwindSafe) -> Result<T, PixelError> {
    let given_up = |_| Err(PixelError::Broken { what: "its decoder gave up".to_owned() });
    catch_unwind(read).unwrap_or_else(given_up)
}

fn read_header(bytes: &[u8]) -> Result<Header, PixelError> {
    let format = guess(bytes).ok_or(PixelError::Format)?;
    let reader = ImageReader::with_format(Cursor::new(bytes), format);
    let limits = DecodeLimits::default();
    let (width, height) = reader.into_dimensions().map_err(|error| translate(error, limits))?;
    if width == 0 || height == 0 {
        return Err(PixelError::Size { width: width.into(), height: height.into() });
    }
    let usual = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Gif];
    Ok(Header { width, height, is_usual: usual.contains(&format) })
}

/// Decodes a PNG, JPEG, WebP, BMP, GIF or TIFF and turns it upright. Of an animation the first frame is taken.
///
/// # Errors
/// [`PixelError::Format`], [`PixelError::TooLarge`] and [`PixelError::Size`] before anything is decoded,
/// [`PixelError::Color`] for pixels of other kinds, [`PixelError::Memory`], [`PixelError::Broken`].
pub fn decode(bytes: &[u8], limits: DecodeLimits) -> Result<Decoded, PixelError> {
    guarded(|| read(bytes, limits))
}

fn read(bytes: &[u8], limits: DecodeLimits) -> Result<Decoded, PixelError> {
    let format = guess(bytes).ok_or(PixelError::Format)?;
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(budget(limits));
    let broken = |error| translate(error, limits);
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    check_size(width.into(), height.into(), limits)?;
    if decoder.total_bytes() > limits.bytes() {
        return Err(PixelError::Memory { limit_bytes: limits.bytes() });
    }
    decoder.set_limits(budget(limits)).map_err(broken)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let color = decoder.color_type();
    let mut picture = DynamicImage::from_decoder(decoder).map_err(broken)?;
    picture.apply_orientation(orientation);
    Ok(Decoded { image: convert(picture, color)?, first_frame: is_animated(bytes, format) })
}

fn budget(limits: DecodeLimits) -> Limits {
    let mut budget = Limits::default();
    budget.max_image_width = u32::try_from(MAX_SIDE).ok();
    budget.max_image_height = u32::try_from(MAX_SIDE).ok();
    budget.max_alloc = Some(limits.bytes());
    budget
}

fn check_size(width: u64, height: u64, limits: DecodeLimits) -> Result<(), PixelError> {
    if width == 0 || height == 0 {
        return Err(PixelError::Size { width, height });
    }
    let pixels = width.saturating_mul(height);
    if pixels > limits.pixels() || width > MAX_SIDE || height > MAX_SIDE {
        let megapixels = pixels as f64 / 1e6;
        return Err(PixelError::TooLarge { width, height, megapixels, limit: limits.megapixels });
    }
    Ok(())
}

fn translate(error: ImageError, limits: DecodeLimits) -> PixelError {
    match error {
        ImageError::Limits(_) => PixelError::Memory { limit_bytes: limits.bytes() },
        ImageError::Unsupported(what) => PixelError::Color { what: what.to_string() },
        other => PixelError::Broken { what: other.to_string() },
    }
}

fn convert(picture: DynamicImage, color: ColorType) -> Result<Image, PixelError> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let (channels, samples) = match picture {
        DynamicImage::ImageLuma8(p) => (1, Samples::U8(p.into_raw())),
        DynamicImage::ImageLumaA8(p) => (2, Samples::U8(p.into_raw())),
        DynamicImage::ImageRgb8(p) => (3, Samples::U8(p.into_raw())),
        DynamicImage::ImageRgba8(p) => (4, Samples::U8(p.into_raw())),
        DynamicImage::ImageLuma16(p) => (1, Samples::U16(p.into_raw())),
        DynamicImage::ImageLumaA16(p) => (2, Samples::U16(p.into_raw())),
        DynamicImage::ImageRgb16(p) => (3, Samples::U16(p.into_raw())),
        DynamicImage::ImageRgba16(p) => (4, Samples::U16(p.into_raw())),
        _ => return Err(PixelError::Color { what: format!("{color:?}") }),
    };
    Image::new(width, height, channels, samples)
}

/// Whether the file holds more frames than the one that was decoded.
fn is_animated(bytes: &[u8], format: ImageFormat) -> bool {
    match format {
        ImageFormat::WebP => bytes.get(12..16) == Some(b"VP8X") && bytes.get(20).is_some_and(|f| f & 2 != 0),
        ImageFormat::Png => {
            bytes.get(..1024.min(bytes.len())).is_some_and(|h| h.windows(4).any(|w| w == b"acTL"))
        }
        // A second image descriptor is behind the first; the loop extension says it sooner.
        ImageFormat::Gif => bytes.windows(11).take(4096).any(|w| w == b"NETSCAPE2.0"),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
