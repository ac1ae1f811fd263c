//! Answers drawn over their picture.

use super::classify::Class;
use super::depth::DepthMap;
use super::detect::Detection;
use super::faces::Face;
use super::ocr::Page;
use super::pose::{Person, bones};
use super::segment::{Instance, SegmentMap};
use crate::pixels::draw::{Canvas, colored, palette, text};
use crate::pixels::{Box2, Filter, Image, PixelError};

fn percent(score: f32) -> String {
    format!("{:.0} %", score * 100.0)
}

/// The classes as a plate in the upper left corner.
///
/// # Errors
/// Those of [`Image::new`], as for the others here.
pub fn classes(image: &Image, classes: &[Class]) -> Result<Image, PixelError> {
    let mut canvas = Canvas::over(image);
    let height = canvas.text_height();
    let rows: Vec<String> = classes.iter().map(|c| format!("{}  {}", c.label, percent(c.score))).collect();
    let most = canvas.width() as f32 - 1.2 * height;
    let rows: Vec<String> = rows.iter().map(|row| text::shorten(row, height, most)).collect();
    let widest = rows.iter().map(|row| text::width(row, height)).fold(0.0, f32::max);
    let (pad, step) = (height * 0.4, height * 1.25);
    let plate = Box2::new(0.0, 0.0, widest + 2.0 * pad, rows.len() as f32 * step + 1.4 * pad);
    canvas.fill(plate, [16, 16, 20], 0.72);
    for (i, row) in rows.iter().enumerate() {
        let ink = if i == 0 { [255; 3] } else { [200, 204, 212] };
        text::write(&mut canvas, (pad, pad + i as f32 * step), row, height, ink);
    }
    canvas.into_image()
}

/// Boxes with their labels; the best lie on top.
///
/// # Errors
/// As [`classes`].
pub fn detections(image: &Image, found: &[Detection]) -> Result<Image, PixelError> {
    let mut canvas = Canvas::over(image);
    boxes(&mut canvas, found);
    canvas.into_image()
}

fn boxes(canvas: &mut Canvas, found: &[Detection]) {
    let (line, height) = (canvas.line_width(), canvas.text_height());
    for detection in found.iter().rev() {
        canvas.outline(detection.area, palette::color(detection.class), line);
    }
    for detection in found.iter().rev() {
        let words = format!("{} {}", detection.label, percent(detection.score));
        let at = (detection.area.x1, detection.area.y1);
        canvas.label(at, &words, palette::color(detection.class), height);
    }
}

/// Instances: tinted pixels, boxes and labels, each instance with a colour of its own.
///
/// # Errors
/// As [`classes`].
pub fn instances(image: &Image, found: &[Instance]) -> Result<Image, PixelError> {
    let mut canvas = Canvas::over(image);
    let line = canvas.line_width();
    for (i, instance) in found.iter().enumerate().rev() {
        canvas.mask(&instance.mask, (0, 0), palette::color(i), line);
    }
    let height = canvas.text_height();
    for (i, instance) in found.iter().enumerate().rev() {
        let detection = &instance.detection;
        let words = format!("{} {}", detection.label, percent(detection.score));
        canvas.label((detection.area.x1, detection.area.y1), &words, palette::color(i), height);
    }
    canvas.into_image()
}

/// Classes of pixels: tinted, with a label on the largest part of each. Class 0 stays clear where it is named a
/// background.
///
/// # Errors
/// As [`classes`].
pub fn segments(image: &Image, map: &SegmentMap, labels: &[String]) -> Result<Image, PixelError> {
    let mut canvas = Canvas::over(image);
    let (line, height) = (canvas.line_width(), canvas.text_height());
    let shown: Vec<usize> =
        map.areas().into_iter().map(|(class, _)| class).filter(|&c| !is_background(c, labels)).collect();
    for &class in &shown {
        canvas.mask(&map.mask(class), (0, 0), palette::color(class), line);
    }
    for &class in &shown {
        let Some(bounds) = map.mask(class).bounds() else { continue };
        let words = super::output::label(labels, class);
        let x = (bounds.x1 + bounds.x2 - text::width(&words, height)) / 2.0;
        canvas.label((x, bounds.y1 + 1.6 * height), &words, palette::color(class), height);
    }
    canvas.into_image()
}

/// Whether a class is the ground that things stand out from.
pub fn is_background(class: usize, labels: &[String]) -> bool {
    class == 0
        && labels.first().is_some_and(|l| l.eq_ignore_ascii_case("background") || l == "__background__")
}

/// The depth map in colours: near is red, far is blue.
///
/// # Errors
/// As [`classes`].
pub fn depth(depth: &DepthMap) -> Result<Image, PixelError> {
    colored(&depth.nearness())
}

/// Depth as a 16-bit grey picture: near is white.
///
/// # Errors
/// As [`classes`].
pub fn depth_gray(depth: &DepthMap) -> Result<Image, PixelError> {
    let near = depth.nearness().resize(depth.map.width(), depth.map.height(), Filter::Nearest);
    let plane = near.values().iter().map(|v| v * 255.0).collect();
    Image::from_planes(near.width(), near.height(), &[plane], 16)
}

/// Key points and the lines between them. Points that the network is unsure of are left out.
///
/// # Errors
/// As [`classes`].
pub fn people(image: &Image, found: &[Person], threshold: f32) -> Result<Image, PixelError> {
    let mut canvas = Canvas::over(image);
    let line = canvas.line_width();
    for (i, person) in found.iter().enumerate() {
        if let Some(area) = person.area {
            canvas.outline(area, palette::color(i), line);
        }
        let sure = |k: usize| person.points.get(k).filter(|p| p.score >= threshold);
        for (n, &(a, b)) in bones(person.points.len()).iter().enumerate() {
            if let (Some(a), Some(b)) = (sure(a), sure(b)) {
                canvas.line((a.x, a.y), (b.x, b.y), palette::color(n + 1), line * 1.6);
            }
        }
        for point in (0..person.points.len()).filter_map(sure) {
            canvas.disc((point.x, point.y), line * 1.9, [255; 3]);
            canvas.disc((point.x, point.y), line * 1.3, palette::color(i));
        }
    }
    canvas.into_image()
}

/// Faces with their landmarks.
///
/// # Errors
/// As [`classes`].
pub fn faces(image: &Image, found: &[Face]) -> Result<Image, PixelError> {
    let mut canvas = Canvas::over(image);
    let (line, height) = (canvas.line_width(), canvas.text_height());
    for face in found.iter().rev() {
        canvas.outline(face.area, palette::color(1), line);
        for (k, &place) in face.landmarks.iter().enumerate() {
            canvas.disc(place, line * 1.6, [255; 3]);
            canvas.disc(place, line * 1.1, palette::color(k + 2));
        }
        canvas.label((face.area.x1, face.area.y1), &percent(face.score), palette::color(1), height);
    }
    canvas.into_image()
}

/// Lines of text framed and numbered in reading order; the text itself where the font has its letters.
///
/// # Errors
/// As [`classes`].
pub fn page(image: &Image, page: &Page) -> Result<Image, PixelError> {
    let mut canvas = Canvas::over(image);
    let line = canvas.line_width();
    for (i, found) in page.lines().enumerate() {
        canvas.polygon(&found.quad.0, palette::color(i), line * 0.8);
    }
    for (i, found) in page.lines().enumerate() {
        let height = (found.quad.height() * 0.42).clamp(9.0, 28.0);
        let at = found.quad.0[0];
        canvas.label((at.0, at.1 + 0.4 * height), &(i + 1).to_string(), palette::color(i), height);
    }
    canvas.into_image()
}
