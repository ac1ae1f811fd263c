//! Where lines of text are: a probability map to turned rectangles (DB, arXiv:1911.08947).

use super::quad::Quad;
use crate::pixels::fit::Placement;
use crate::pixels::resize::{Filter, resize_u8};
use crate::pixels::{Image, Map};
use crate::vision::input::Input;
use crate::vision::output::{take, wrong};
use crate::{Task, TaskError};
use kun_tensor::Tensors;
use std::sync::Arc;

/// Text detection as PaddleOCR's networks do it; the numbers are those of their own programs.
#[derive(Clone, Debug)]
pub struct FindText {
    /// Normalisation; its size and fit are not used.
    pub input: Input,
    /// The probability map.
    pub output: String,
    /// Probability above which a pixel is text.
    pub pixel_threshold: f32,
    /// Mean probability below which a rectangle is none.
    pub box_threshold: f32,
    /// How far a rectangle grows: the map shrinks lines.
    pub unclip: f32,
    /// The short side is at least this; smaller pictures are enlarged.
    pub least_side: usize,
    /// The long side is at most this; larger pictures are reduced.
    pub most_side: usize,
}

/// Most rectangles looked at.
const MAX_CANDIDATES: usize = 3_000;

impl FindText {
    /// With the usual numbers.
    pub fn new(input: Input, output: String) -> FindText {
        FindText {
            input,
            output,
            pixel_threshold: 0.3,
            box_threshold: 0.5,
            unclip: 1.6,
            least_side: 736,
            most_side: 2000,
        }
    }

    /// Pixels of the network's input, multiples of 32.
    fn size_for(&self, width: usize, height: usize) -> (usize, usize) {
        let (short, long) = (width.min(height) as f64, width.max(height) as f64);
        let mut scale = (self.most_side as f64 / long).min(1.0);
        if short * scale < self.least_side as f64 {
            // A long strip is not blown up without end.
            scale = (self.least_side as f64 / short).min((2 * self.most_side) as f64 / long);
        }
        let side = |n: usize| ((n as f64 * scale / 32.0).round() as usize).max(1) * 32;
        (side(width), side(height))
    }
}

impl Task for FindText {
    type Input = Arc<Image>;
    type Output = Vec<(Quad, f32)>;
    type Context = Placement;

    fn prepare(&self, image: Arc<Image>) -> Result<(Tensors, Placement), TaskError> {
        let source = (image.width(), image.height());
        let size = self.size_for(source.0, source.1);
        let samples = resize_u8(&image.rgb8(), source, 3, size, Filter::Bilinear);
        let tensor = self.input.tensor(&samples, size)?;
        let scale = (size.0 as f32 / source.0 as f32, size.1 as f32 / source.1 as f32);
        let placement = Placement { source, input: size, scale, offset: (0.0, 0.0) };
        Ok((Tensors::from([(self.input.name.clone(), tensor)]), placement))
    }

    fn finish(&self, outputs: Tensors, placement: Placement) -> Result<Vec<(Quad, f32)>, TaskError> {
        let ([h, w], values) = take::<2>(&outputs, &self.output)?;
        let map = Map::new(w, h, values.into_owned()).map_err(|e| wrong(&self.output, e.to_string()))?;
        let (scale_x, scale_y) = (placement.source.0 as f32 / w as f32, placement.source.1 as f32 / h as f32);
        let mut found = Vec::new();
        for points in components(&map, self.pixel_threshold).into_iter().take(MAX_CANDIDATES) {
            let Some(quad) = Quad::around(&points) else { continue };
            if quad.width().min(quad.height()) < 3.0 {
                continue;
            }
            let score = mean_inside(&map, &quad);
            if score < self.box_threshold {
                continue;
            }
            let (width, height) = (quad.width(), quad.height());
            let grown = quad.grown(width * height * self.unclip / (2.0 * (width + height)));
            if grown.width().min(grown.height()) < 5.0 {
                continue;
            }
            let (most_x, most_y) = (placement.source.0 as f32, placement.source.1 as f32);
            let quad =
                grown.map(|(x, y)| ((x * scale_x).clamp(0.0, most_x), (y * scale_y).clamp(0.0, most_y)));
            if quad.width() > 3.0 && quad.height() > 3.0 {
                found.push((quad, score));
            }
        }
        Ok(found)
    }
}

/// The outer points of each connected part of the pixels above a threshold, grown by a pixel to the right and down.
fn components(map: &Map, threshold: f32) -> Vec<Vec<(f32, f32)>> {
    let (w, h) = (map.width(), map.height());
    let hit = |x: usize, y: usize| map.at(x, y) > threshold;
    let mut open = vec![false; w * h];
    for y in 0..h {
        for x in 0..w {
            open[y * w + x] = hit(x, y)
                || (x > 0 && hit(x - 1, y))
                || (y > 0 && (hit(x, y - 1) || (x > 0 && hit(x - 1, y - 1))));
        }
    }
    let mut parts = Vec::new();
    let mut stack = Vec::new();
    for start in 0..w * h {
        if !std::mem::take(&mut open[start]) {
            continue;
        }
        stack.push(start);
        // The first and last pixel of every row are all that a hull needs.
        let mut rows = std::collections::BTreeMap::<usize, (usize, usize)>::new();
        while let Some(at) = stack.pop() {
            let (x, y) = (at % w, at / w);
            let row = rows.entry(y).or_insert((x, x));
            *row = (row.0.min(x), row.1.max(x));
            for ny in y.saturating_sub(1)..(y + 2).min(h) {
                for nx in x.saturating_sub(1)..(x + 2).min(w) {
                    if std::mem::take(&mut open[ny * w + nx]) {
                        stack.push(ny * w + nx);
                    }
                }
            }
        }
        let corners = |(y, (a, b)): (usize, (usize, usize))| [(a as f32, y as f32), (b as f32, y as f32)];
        parts.push(rows.into_iter().flat_map(corners).collect());
    }
    parts
}

fn mean_inside(map: &Map, quad: &Quad) -> f32 {
    let area = quad.bounds().clip(map.width() - 1, map.height() - 1);
    let (mut sum, mut count) = (0.0f64, 0u32);
    for y in area.y1 as usize..=area.y2.ceil() as usize {
        for x in area.x1 as usize..=area.x2.ceil() as usize {
            if quad.contains(x as f32, y as f32) {
                sum += f64::from(map.at(x, y));
                count += 1;
            }
        }
    }
    if count == 0 { 0.0 } else { (sum / f64::from(count)) as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kun_tensor::Tensor;

    #[test]
    fn two_lines_give_two_rectangles_that_cover_them() {
        let task = FindText::new(Input::rgb("x", 1, 1), "y".into());
        let image = Arc::new(Image::filled(736, 736, [255; 3]));
        let (_, placement) = task.prepare(image).unwrap();
        let (w, h) = placement.input;
        let mut values = vec![0.0f32; w * h];
        for (top, left, right) in [(100, 50, 400), (300, 60, 200)] {
            for y in top..top + 12 {
                values[y * w + left..y * w + right].fill(0.9);
            }
        }
        // A speck is no line.
        values[500 * w + 500] = 1.0;
        let y = Tensor::f32([1, 1, h, w], values).unwrap();
        let found = task.finish(Tensors::from([("y".to_owned(), y)]), placement).unwrap();
        assert_eq!(found.len(), 2, "{found:?}");
        let bounds = found[0].0.bounds();
        assert!(bounds.x1 < 45.0 && bounds.x2 > 405.0 && bounds.y1 < 95.0 && bounds.y2 > 117.0, "{bounds:?}");
        assert!(found[0].1 > 0.8);
    }

    #[test]
    fn sizes_are_multiples_of_32_within_bounds() {
        let task = FindText::new(Input::rgb("x", 1, 1), "y".into());
        assert_eq!(task.size_for(736, 736), (736, 736));
        assert_eq!(task.size_for(2480, 3508), (1408, 2016));
        assert_eq!(task.size_for(150, 50), (2208, 736));
        let (w, h) = task.size_for(1, 100_000);
        assert!(w >= 32 && h <= 4032, "{w} {h}");
    }
}
