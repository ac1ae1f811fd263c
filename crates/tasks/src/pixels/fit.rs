//! Fitting a picture into a network's input, and finding the way back.

use super::boxes::Box2;
use super::resize::{Filter, resize_rows, resize_u8};

/// How a picture gets the size of the input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fit {
    /// Stretched, whatever its shape.
    Stretch,
    /// Scaled to lie inside, the rest filled.
    Letterbox {
        /// Grey level of the rest, 0 to 255.
        fill: u8,
        /// Where the picture lies.
        place: Place,
    },
    /// Its short side scaled to `short_side`, then the middle cut out; smaller pictures are scaled up.
    CenterCrop {
        /// Pixels of the short side before the cut.
        short_side: usize,
    },
}

/// Where a picture lies in a letterbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Top left.
    Corner,
    /// In the middle.
    Middle,
}

/// Where a picture came to lie: `input = source * scale + offset`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placement {
    /// Pixels of the source.
    pub source: (usize, usize),
    /// Pixels of the input.
    pub input: (usize, usize),
    /// Horizontal and vertical.
    pub scale: (f32, f32),
    /// In pixels of the input; negative where the source is cut.
    pub offset: (f32, f32),
}

impl Placement {
    /// A place in the input as a place in the source.
    pub fn to_source(&self, x: f32, y: f32) -> (f32, f32) {
        ((x - self.offset.0) / self.scale.0, (y - self.offset.1) / self.scale.1)
    }

    /// A box in the input as a box in the source, cut to it.
    pub fn box_to_source(&self, b: Box2) -> Box2 {
        let (x1, y1) = self.to_source(b.x1, b.y1);
        let (x2, y2) = self.to_source(b.x2, b.y2);
        Box2::new(x1, y1, x2, y2).clip(self.source.0, self.source.1)
    }

    /// The part of the input that the source fills: `x, y, width, height`, whole pixels.
    pub fn content(&self) -> (usize, usize, usize, usize) {
        let axis = |offset: f32, scale: f32, source: usize, input: usize| {
            let start = offset.max(0.0).round() as usize;
            let end = (offset + scale * source as f32).round().max(0.0) as usize;
            let start = start.min(input.saturating_sub(1));
            (start, end.clamp(start + 1, input.max(start + 1)) - start)
        };
        let (x, width) = axis(self.offset.0, self.scale.0, self.source.0, self.input.0);
        let (y, height) = axis(self.offset.1, self.scale.1, self.source.1, self.input.1);
        (x, y, width, height)
    }
}

/// Fits interleaved 8-bit samples of `channels` into `[out_h, out_w, channels]`.
pub fn fit(
    samples: &[u8],
    (w, h): (usize, usize),
    channels: usize,
    (out_w, out_h): (usize, usize),
    how: Fit,
    filter: Filter,
) -> (Vec<u8>, Placement) {
    let ratio = |out: usize, source: usize| out as f32 / source as f32;
    match how {
        Fit::Stretch => {
            let out = resize_u8(samples, (w, h), channels, (out_w, out_h), filter);
            let scale = (ratio(out_w, w), ratio(out_h, h));
            (out, Placement { source: (w, h), input: (out_w, out_h), scale, offset: (0.0, 0.0) })
        }
        Fit::Letterbox { fill, place } => {
            let scale = (out_w as f64 / w as f64).min(out_h as f64 / h as f64);
            let size = |n: usize, most: usize| ((n as f64 * scale).round() as usize).clamp(1, most);
            let (inner_w, inner_h) = (size(w, out_w), size(h, out_h));
            let (x, y) = match place {
                Place::Corner => (0, 0),
                Place::Middle => ((out_w - inner_w) / 2, (out_h - inner_h) / 2),
            };
            let mut out = vec![fill; out_w * out_h * channels];
            resize_rows(samples, (w, h), channels, (inner_w, inner_h), filter, |row, pixels| {
                let at = ((row + y) * out_w + x) * channels;
                out[at..at + pixels.len()].copy_from_slice(pixels);
            });
            let scale = (scale as f32, scale as f32);
            let offset = (x as f32, y as f32);
            (out, Placement { source: (w, h), input: (out_w, out_h), scale, offset })
        }
        Fit::CenterCrop { short_side } => {
            let short = short_side.max(1) as f64 / w.min(h) as f64;
            let size = |n: usize, least: usize| ((n as f64 * short + 1e-9) as usize).max(least);
            let (inner_w, inner_h) = (size(w, out_w), size(h, out_h));
            let (x, y) = ((inner_w - out_w) / 2, (inner_h - out_h) / 2);
            let mut out = Vec::with_capacity(out_w * out_h * channels);
            resize_rows(samples, (w, h), channels, (inner_w, inner_h), filter, |row, pixels| {
                if (y..y + out_h).contains(&row) {
                    out.extend_from_slice(&pixels[x * channels..(x + out_w) * channels]);
                }
            });
            let scale = (ratio(inner_w, w), ratio(inner_h, h));
            let offset = (-(x as f32), -(y as f32));
            (out, Placement { source: (w, h), input: (out_w, out_h), scale, offset })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(w: usize, h: usize, out: (usize, usize), how: Fit) -> Placement {
        fit(&vec![200; w * h * 3], (w, h), 3, out, how, Filter::Bilinear).1
    }

    #[test]
    fn boxes_find_their_way_back() {
        let whole = Box2::new(0.0, 0.0, 640.0, 480.0);
        for (how, input) in [
            (Fit::Stretch, Box2::new(0.0, 0.0, 320.0, 320.0)),
            (Fit::Letterbox { fill: 114, place: Place::Corner }, Box2::new(0.0, 0.0, 320.0, 240.0)),
            (Fit::Letterbox { fill: 114, place: Place::Middle }, Box2::new(0.0, 40.0, 320.0, 280.0)),
        ] {
            let placement = place(640, 480, (320, 320), how);
            assert_eq!(placement.box_to_source(input), whole, "{how:?}");
            let (x, y, w, h) = placement.content();
            let content = Box2::new(x as f32, y as f32, (x + w) as f32, (y + h) as f32);
            assert_eq!(content, input, "{how:?}");
        }
    }

    #[test]
    fn a_centre_crop_takes_the_middle() {
        let placement = place(400, 256, (224, 224), Fit::CenterCrop { short_side: 256 });
        assert_eq!((placement.scale, placement.offset), ((1.0, 1.0), (-88.0, -16.0)));
        assert_eq!(place(10, 10, (224, 224), Fit::CenterCrop { short_side: 8 }).offset, (0.0, 0.0));
    }

    #[test]
    fn extreme_shapes_keep_a_pixel() {
        for (w, h) in [(1, 1), (5000, 1), (1, 5000)] {
            for place_at in [Place::Corner, Place::Middle] {
                let (out, placement) = fit(
                    &vec![9; w * h],
                    (w, h),
                    1,
                    (32, 16),
                    Fit::Letterbox { fill: 0, place: place_at },
                    Filter::Bilinear,
                );
                assert!(out.len() == 512 && out.contains(&9), "{w}x{h} {placement:?}");
            }
        }
    }
}
