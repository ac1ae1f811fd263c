//! A contact sheet: many small pictures with their names on one page.

use super::{Canvas, text};
use crate::pixels::resize::{Filter, resize_u8};
use crate::pixels::{Image, PixelError};

/// Longest side of a picture on the sheet.
const CELL: usize = 256;
const GAP: usize = 12;
const CAPTION: usize = 24;
const PAPER: [u8; 3] = [246, 246, 248];
const INK: [u8; 3] = [32, 34, 40];

/// A picture of a contact sheet, kept small until the sheet is made.
#[derive(Clone, Debug)]
pub struct Thumbnail {
    image: Image,
    caption: String,
}

impl Thumbnail {
    /// A small copy of a picture with a caption.
    ///
    /// # Errors
    /// Those of [`Image::new`].
    pub fn new(image: &Image, caption: &str) -> Result<Thumbnail, PixelError> {
        let (w, h) = (image.width(), image.height());
        let scale = (CELL as f64 / w.max(h) as f64).min(1.0);
        let size =
            ((w as f64 * scale).round().max(1.0) as usize, (h as f64 * scale).round().max(1.0) as usize);
        let drawn = Canvas::over(image).into_image()?;
        let samples = resize_u8(&drawn.to_rgb8(), (w, h), 3, size, Filter::Bicubic);
        Ok(Thumbnail { image: Image::rgb(size.0, size.1, samples)?, caption: caption.to_owned() })
    }
}

/// Most pictures on one sheet; it stays below 64 megapixels.
pub const MAX_PICTURES: usize = 800;

/// The sheet of the first [`MAX_PICTURES`] thumbnails, about as wide as high.
///
/// # Errors
/// Those of [`Image::new`].
pub fn contact_sheet(thumbnails: &[Thumbnail]) -> Result<Image, PixelError> {
    let thumbnails = &thumbnails[..thumbnails.len().min(MAX_PICTURES)];
    let columns = (thumbnails.len() as f64).sqrt().ceil().max(1.0) as usize;
    let rows = thumbnails.len().div_ceil(columns).max(1);
    let (cell_w, cell_h) = (CELL + GAP, CELL + CAPTION + GAP);
    let page = Image::filled(columns * cell_w + GAP, rows * cell_h + GAP, PAPER);
    let mut canvas = Canvas::over(&page);
    for (i, thumbnail) in thumbnails.iter().enumerate() {
        let (left, top) = (GAP + i % columns * cell_w, GAP + i / columns * cell_h);
        let image = &thumbnail.image;
        canvas.paste(image, left + (CELL - image.width()) / 2, top + (CELL - image.height()) / 2);
        let caption = text::shorten(&thumbnail.caption, 14.0, CELL as f32);
        let x = left as f32 + (CELL as f32 - text::width(&caption, 14.0)) / 2.0;
        text::write(&mut canvas, (x, (top + CELL + 5) as f32), &caption, 14.0, INK);
    }
    canvas.into_image()
}
