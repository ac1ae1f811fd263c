//! Turned rectangles.

use crate::pixels::{Box2, Image, PixelError};

/// Four corners: top left, top right, bottom right, bottom left as the line is read; pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quad(pub [(f32, f32); 4]);

fn distance(a: (f32, f32), b: (f32, f32)) -> f32 {
    (a.0 - b.0).hypot(a.1 - b.1)
}

impl Quad {
    /// The rectangle of a box.
    pub fn from_box(b: Box2) -> Quad {
        Quad([(b.x1, b.y1), (b.x2, b.y1), (b.x2, b.y2), (b.x1, b.y2)])
    }

    /// Along the line.
    pub fn width(&self) -> f32 {
        distance(self.0[0], self.0[1]).max(distance(self.0[3], self.0[2]))
    }

    /// Across the line.
    pub fn height(&self) -> f32 {
        distance(self.0[0], self.0[3]).max(distance(self.0[1], self.0[2]))
    }

    /// The upright box around it.
    pub fn bounds(&self) -> Box2 {
        self.0
            .iter()
            .fold(Box2::new(f32::INFINITY, f32::INFINITY, f32::NEG_INFINITY, f32::NEG_INFINITY), |b, p| {
                Box2::new(b.x1.min(p.0), b.y1.min(p.1), b.x2.max(p.0), b.y2.max(p.1))
            })
    }

    /// The smallest rectangle around points, turned as it must be.
    pub fn around(points: &[(f32, f32)]) -> Option<Quad> {
        let hull = convex_hull(points);
        if hull.len() < 2 {
            let &(x, y) = hull.first()?;
            return Some(Quad([(x, y); 4]));
        }
        let mut best: Option<(f32, [(f32, f32); 4])> = None;
        for (i, &a) in hull.iter().enumerate() {
            let b = hull[(i + 1) % hull.len()];
            let length = distance(a, b);
            if length == 0.0 {
                continue;
            }
            let (ux, uy) = ((b.0 - a.0) / length, (b.1 - a.1) / length);
            let (mut u, mut v) = ((f32::INFINITY, f32::NEG_INFINITY), (f32::INFINITY, f32::NEG_INFINITY));
            for p in &hull {
                let (dx, dy) = (p.0 - a.0, p.1 - a.1);
                let (along, across) = (dx * ux + dy * uy, dy * ux - dx * uy);
                u = (u.0.min(along), u.1.max(along));
                v = (v.0.min(across), v.1.max(across));
            }
            let area = (u.1 - u.0) * (v.1 - v.0);
            if best.as_ref().is_none_or(|(least, _)| area < *least) {
                let corner = |s: f32, t: f32| (a.0 + s * ux - t * uy, a.1 + s * uy + t * ux);
                best = Some((area, [corner(u.0, v.0), corner(u.1, v.0), corner(u.1, v.1), corner(u.0, v.1)]));
            }
        }
        best.map(|(_, corners)| Quad(corners).ordered())
    }

    /// Corners in reading order, as PaddleOCR orders them: the two left ones by height, the two right ones by height.
    fn ordered(self) -> Quad {
        let mut corners = self.0;
        corners.sort_by(|a, b| a.0.total_cmp(&b.0));
        let [a, b, c, d] = corners;
        let (top_left, bottom_left) = if a.1 <= b.1 { (a, b) } else { (b, a) };
        let (top_right, bottom_right) = if c.1 <= d.1 { (c, d) } else { (d, c) };
        Quad([top_left, top_right, bottom_right, bottom_left])
    }

    /// Every side moved out by `distance`.
    pub fn grown(&self, by: f32) -> Quad {
        let unit = |a: (f32, f32), b: (f32, f32)| {
            let length = distance(a, b).max(1e-6);
            ((b.0 - a.0) / length, (b.1 - a.1) / length)
        };
        let along = unit(self.0[0], self.0[1]);
        let across = unit(self.0[0], self.0[3]);
        let moved = |p: (f32, f32), s: f32, t: f32| {
            (p.0 + by * (s * along.0 + t * across.0), p.1 + by * (s * along.1 + t * across.1))
        };
        let [a, b, c, d] = self.0;
        Quad([moved(a, -1.0, -1.0), moved(b, 1.0, -1.0), moved(c, 1.0, 1.0), moved(d, -1.0, 1.0)])
    }

    /// Every corner moved.
    pub fn map(&self, f: impl Fn((f32, f32)) -> (f32, f32)) -> Quad {
        Quad(self.0.map(f))
    }

    /// Whether a point lies inside or on an edge.
    pub fn contains(&self, x: f32, y: f32) -> bool {
        let side = |i: usize| {
            let ((ax, ay), (bx, by)) = (self.0[i], self.0[(i + 1) % 4]);
            (bx - ax) * (y - ay) - (by - ay) * (x - ax)
        };
        let sides = [side(0), side(1), side(2), side(3)];
        sides.iter().all(|s| *s >= -1e-3) || sides.iter().all(|s| *s <= 1e-3)
    }

    /// The RGB picture inside, turned level. Pixels outside the picture repeat its edge.
    ///
    /// # Errors
    /// [`PixelError::Size`] if it has no area.
    pub fn cut(&self, image: &Image) -> Result<Image, PixelError> {
        let side = |n: f32| (n.round().max(1.0) as usize).min(image.width() + image.height());
        let (width, height) = (side(self.width()), side(self.height()));
        let rgb = image.rgb8();
        let (w, h) = (image.width(), image.height());
        let [a, b, _, d] = self.0;
        let mut samples = Vec::with_capacity(width * height * 3);
        for row in 0..height {
            let t = (row as f32 + 0.5) / height as f32;
            for column in 0..width {
                let s = (column as f32 + 0.5) / width as f32;
                let x = a.0 + s * (b.0 - a.0) + t * (d.0 - a.0) - 0.5;
                let y = a.1 + s * (b.1 - a.1) + t * (d.1 - a.1) - 0.5;
                let (x, y) = (x.clamp(0.0, (w - 1) as f32), y.clamp(0.0, (h - 1) as f32));
                let (x0, y0) = (x as usize, y as usize);
                let (x1, y1) = ((x0 + 1).min(w - 1), (y0 + 1).min(h - 1));
                let (fx, fy) = (x - x0 as f32, y - y0 as f32);
                let at = |x: usize, y: usize, c: usize| f32::from(rgb[(y * w + x) * 3 + c]);
                for c in 0..3 {
                    let top = at(x0, y0, c) * (1.0 - fx) + at(x1, y0, c) * fx;
                    let bottom = at(x0, y1, c) * (1.0 - fx) + at(x1, y1, c) * fx;
                    samples.push((top * (1.0 - fy) + bottom * fy).round() as u8);
                }
            }
        }
        Image::rgb(width, height, samples)
    }
}

/// The hull's corners, counter-clockwise seen with y upwards (monotone chain).
fn convex_hull(points: &[(f32, f32)]) -> Vec<(f32, f32)> {
    let mut points: Vec<_> = points.iter().copied().filter(|p| p.0.is_finite() && p.1.is_finite()).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    points.dedup();
    if points.len() < 3 {
        return points;
    }
    let cross =
        |o: (f32, f32), a: (f32, f32), b: (f32, f32)| (a.0 - o.0) * (b.1 - o.1) - (a.1 - o.1) * (b.0 - o.0);
    let half = |points: &mut dyn Iterator<Item = (f32, f32)>| {
        let mut chain: Vec<(f32, f32)> = Vec::new();
        for p in points {
            while chain.len() >= 2 && cross(chain[chain.len() - 2], chain[chain.len() - 1], p) <= 0.0 {
                chain.pop();
            }
            chain.push(p);
        }
        chain.pop();
        chain
    };
    let mut hull = half(&mut points.iter().copied());
    hull.extend(half(&mut points.iter().rev().copied()));
    hull
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_rectangle_turns_with_its_points() {
        let level: Vec<(f32, f32)> =
            (0..30).flat_map(|x| (0..5).map(move |y| (x as f32, y as f32))).collect();
        let quad = Quad::around(&level).unwrap();
        assert_eq!(quad, Quad([(0.0, 0.0), (29.0, 0.0), (29.0, 4.0), (0.0, 4.0)]));
        let angle = 0.2f32;
        let turned: Vec<_> = level
            .iter()
            .map(|&(x, y)| (x * angle.cos() - y * angle.sin() + 50.0, x * angle.sin() + y * angle.cos()))
            .collect();
        let quad = Quad::around(&turned).unwrap();
        assert!((quad.width() - 29.0).abs() < 0.01 && (quad.height() - 4.0).abs() < 0.01, "{quad:?}");
        assert!(quad.contains(60.0, 4.0) && !quad.contains(60.0, 12.0));
        let grown = quad.grown(2.0);
        assert!((grown.width() - 33.0).abs() < 0.01 && (grown.height() - 8.0).abs() < 0.01);
    }

    #[test]
    fn a_cut_of_a_level_box_is_the_crop() {
        let image = Image::rgb(5, 4, (0..60).collect()).unwrap();
        let cut = Quad::from_box(Box2::new(1.0, 1.0, 4.0, 3.0)).cut(&image).unwrap();
        assert_eq!(cut, image.crop(1, 1, 3, 2).unwrap());
    }

    #[test]
    fn few_points_are_no_failure() {
        assert!(Quad::around(&[]).is_none());
        assert_eq!(Quad::around(&[(3.0, 4.0)]).unwrap().width(), 0.0);
        assert_eq!(Quad::around(&[(0.0, 0.0), (3.0, 4.0)]).unwrap().width(), 5.0);
    }
}
