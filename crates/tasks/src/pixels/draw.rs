//! Drawing over a picture: boxes, masks, key points, labels, coloured maps.

pub mod palette;
pub mod sheet;
pub mod text;

use super::{Box2, Image, Map, Mask, PixelError, Samples};

/// An 8-bit RGB picture to draw on.
#[derive(Clone, Debug)]
pub struct Canvas {
    width: usize,
    height: usize,
    samples: Vec<u8>,
}

impl Canvas {
    /// On a copy of a picture; transparent parts lie over white.
    pub fn over(image: &Image) -> Canvas {
        let mut samples = image.to_rgb8();
        if let Some(alpha) = image.alpha() {
            for (pixel, alpha) in samples.chunks_exact_mut(3).zip(alpha) {
                pixel.iter_mut().for_each(|v| *v = (255.0 + (f32::from(*v) - 255.0) * alpha / 255.0) as u8);
            }
        }
        Canvas { width: image.width(), height: image.height(), samples }
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The drawn picture.
    ///
    /// # Errors
    /// Those of [`Image::new`].
    pub fn into_image(self) -> Result<Image, PixelError> {
        Image::new(self.width, self.height, 3, Samples::U8(self.samples))
    }

    /// Thickness of lines that suits the picture, in pixels.
    pub fn line_width(&self) -> f32 {
        (self.width.min(self.height) as f32 / 240.0).clamp(1.5, 12.0)
    }

    /// Height of letters that suits the picture, in pixels.
    pub fn text_height(&self) -> f32 {
        (self.width.min(self.height) as f32 / 28.0).clamp(12.0, 64.0)
    }

    /// Mixes a colour into a pixel; places outside are left out.
    pub fn blend(&mut self, x: isize, y: isize, color: [u8; 3], amount: f32) {
        if x < 0 || y < 0 || x as usize >= self.width || y as usize >= self.height {
            return;
        }
        let at = (y as usize * self.width + x as usize) * 3;
        for (sample, color) in self.samples[at..at + 3].iter_mut().zip(color) {
            let mixed = f32::from(*sample) + (f32::from(color) - f32::from(*sample)) * amount.clamp(0.0, 1.0);
            *sample = mixed.round() as u8;
        }
    }

    /// Paints a rectangle.
    pub fn fill(&mut self, area: Box2, color: [u8; 3], amount: f32) {
        let area = area.clip(self.width, self.height);
        for y in area.y1.round() as isize..area.y2.round() as isize {
            for x in area.x1.round() as isize..area.x2.round() as isize {
                self.blend(x, y, color, amount);
            }
        }
    }

    /// Draws a rectangle's edge, inside of it.
    pub fn outline(&mut self, area: Box2, color: [u8; 3], line: f32) {
        let a = area.clip(self.width, self.height);
        let line = line.min(a.width() / 2.0).min(a.height() / 2.0).max(1.0);
        self.fill(Box2::new(a.x1, a.y1, a.x2, a.y1 + line), color, 1.0);
        self.fill(Box2::new(a.x1, a.y2 - line, a.x2, a.y2), color, 1.0);
        self.fill(Box2::new(a.x1, a.y1 + line, a.x1 + line, a.y2 - line), color, 1.0);
        self.fill(Box2::new(a.x2 - line, a.y1 + line, a.x2, a.y2 - line), color, 1.0);
    }

    /// Draws a line with round ends.
    pub fn line(&mut self, from: (f32, f32), to: (f32, f32), color: [u8; 3], width: f32) {
        let radius = width / 2.0;
        let area = Box2::new(from.0.min(to.0), from.1.min(to.1), from.0.max(to.0), from.1.max(to.1));
        if !area.is_finite() {
            return;
        }
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let length = dx * dx + dy * dy;
        self.shade(area, radius + 1.0, color, |x, y| {
            let along = if length > 0.0 { ((x - from.0) * dx + (y - from.1) * dy) / length } else { 0.0 };
            let along = along.clamp(0.0, 1.0);
            let distance = (x - from.0 - along * dx).hypot(y - from.1 - along * dy);
            radius + 0.5 - distance
        });
    }

    /// Draws a closed polygon's edge.
    pub fn polygon(&mut self, corners: &[(f32, f32)], color: [u8; 3], width: f32) {
        for (i, &from) in corners.iter().enumerate() {
            self.line(from, corners[(i + 1) % corners.len()], color, width);
        }
    }

    /// Paints a disc.
    pub fn disc(&mut self, center: (f32, f32), radius: f32, color: [u8; 3]) {
        let area = Box2::new(center.0, center.1, center.0, center.1);
        if area.is_finite() {
            self.shade(area, radius + 1.0, color, |x, y| radius + 0.5 - (x - center.0).hypot(y - center.1));
        }
    }

    /// Mixes a colour by a coverage in an area grown by `margin`.
    fn shade(&mut self, area: Box2, margin: f32, color: [u8; 3], coverage: impl Fn(f32, f32) -> f32) {
        let grown = Box2::new(area.x1 - margin, area.y1 - margin, area.x2 + margin, area.y2 + margin);
        let grown = grown.clip(self.width, self.height);
        for y in grown.y1.floor() as usize..grown.y2.ceil() as usize {
            for x in grown.x1.floor() as usize..grown.x2.ceil() as usize {
                let amount = coverage(x as f32 + 0.5, y as f32 + 0.5);
                if amount > 0.0 {
                    self.blend(x as isize, y as isize, color, amount);
                }
            }
        }
    }

    /// Tints a mask's pixels and draws its edge. `left` and `top` say where the mask lies.
    pub fn mask(&mut self, mask: &Mask, (left, top): (usize, usize), color: [u8; 3], line: f32) {
        let reach = (line.round() as isize).max(1);
        for y in 0..mask.height() as isize {
            for x in 0..mask.width() as isize {
                if !mask.at(x, y) {
                    continue;
                }
                let edge = [(reach, 0), (-reach, 0), (0, reach), (0, -reach)]
                    .iter()
                    .any(|(dx, dy)| !mask.at(x + dx, y + dy));
                let amount = if edge { 1.0 } else { 0.45 };
                self.blend(x + left as isize, y + top as isize, color, amount);
            }
        }
    }

    /// Writes a label on a plate of its colour, above the box if there is room, else inside.
    pub fn label(&mut self, at: (f32, f32), words: &str, color: [u8; 3], height: f32) {
        let pad = (height * 0.22).round();
        let width = text::width(words, height);
        let plate_h = (height * 1.18).round() + pad;
        let x = at.0.min(self.width as f32 - width - 2.0 * pad).max(0.0).round();
        let y = if at.1 >= plate_h { at.1 - plate_h } else { at.1 };
        let y = y.min(self.height as f32 - plate_h).max(0.0).round();
        self.fill(Box2::new(x, y, x + width + 2.0 * pad, y + plate_h), color, 1.0);
        text::write(self, (x + pad, y + pad / 2.0), words, height, palette::ink_on(color));
    }

    /// Lays another picture over this one, its upper left corner at `(left, top)`.
    pub fn paste(&mut self, image: &Image, left: usize, top: usize) {
        let rgb = image.to_rgb8();
        let columns = image.width().min(self.width.saturating_sub(left));
        for (y, row) in rgb.chunks_exact(image.width() * 3).enumerate() {
            if top + y >= self.height {
                break;
            }
            let at = ((top + y) * self.width + left) * 3;
            self.samples[at..at + columns * 3].copy_from_slice(&row[..columns * 3]);
        }
    }
}

/// A map as a picture: its smallest value dark blue, its largest dark red (the Turbo colours).
///
/// # Errors
/// Those of [`Image::new`].
pub fn colored(map: &Map) -> Result<Image, PixelError> {
    let (low, high) = map.range();
    let span = if high > low { high - low } else { 1.0 };
    let color = |v: &f32| palette::turbo(if v.is_finite() { (v - low) / span } else { 0.0 });
    Image::rgb(map.width(), map.height(), map.values().iter().flat_map(color).collect())
}
