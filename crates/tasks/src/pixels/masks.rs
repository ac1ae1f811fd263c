//! Which pixels belong to a thing.

use super::boxes::Box2;

/// A yes or no for every pixel, row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    width: usize,
    height: usize,
    bits: Vec<bool>,
}

impl Mask {
    /// From `height` rows of bits; missing ones are `false`, more are dropped.
    pub fn new(width: usize, height: usize, mut bits: Vec<bool>) -> Mask {
        bits.resize(width * height, false);
        Mask { width, height, bits }
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The bits, row by row.
    pub fn bits(&self) -> &[bool] {
        &self.bits
    }

    /// Whether a pixel belongs to it; pixels outside do not.
    pub fn at(&self, x: isize, y: isize) -> bool {
        let inside = x >= 0 && y >= 0 && (x as usize) < self.width && (y as usize) < self.height;
        inside && self.bits[y as usize * self.width + x as usize]
    }

    /// Pixels that belong to it.
    pub fn area(&self) -> usize {
        self.bits.iter().filter(|bit| **bit).count()
    }

    /// The smallest box around it.
    pub fn bounds(&self) -> Option<Box2> {
        let rows = self.bits.chunks_exact(self.width.max(1));
        let (mut x1, mut y1, mut x2, mut y2) = (usize::MAX, usize::MAX, 0, 0);
        for (y, row) in rows.enumerate() {
            let Some(first) = row.iter().position(|bit| *bit) else { continue };
            let last = row.iter().rposition(|bit| *bit).unwrap_or(first);
            (x1, y1, x2, y2) = (x1.min(first), y1.min(y), x2.max(last + 1), y + 1);
        }
        (x1 != usize::MAX).then(|| Box2::new(x1 as f32, y1 as f32, x2 as f32, y2 as f32))
    }

    /// Pixels of both over pixels of either.
    pub fn iou(&self, other: &Mask) -> f64 {
        let pairs = || self.bits.iter().zip(&other.bits);
        let both = pairs().filter(|(a, b)| **a && **b).count();
        let either = pairs().filter(|(a, b)| **a || **b).count();
        if either == 0 { 0.0 } else { both as f64 / either as f64 }
    }

    /// COCO's run lengths: column by column, beginning with pixels outside.
    pub fn run_lengths(&self) -> Vec<u32> {
        let mut runs = Vec::new();
        let (mut run, mut current) = (0, false);
        for x in 0..self.width {
            for y in 0..self.height {
                let bit = self.bits[y * self.width + x];
                if bit != current {
                    runs.push(run);
                    (run, current) = (0, bit);
                }
                run += 1;
            }
        }
        runs.push(run);
        runs
    }

    /// COCO's text form of [`Mask::run_lengths`].
    pub fn run_length_text(&self) -> String {
        let runs = self.run_lengths();
        let mut text = String::new();
        for (i, &run) in runs.iter().enumerate() {
            let mut value = i64::from(run) - if i > 2 { i64::from(runs[i - 2]) } else { 0 };
            loop {
                let mut digit = (value & 0x1f) as u8;
                value >>= 5;
                let more = if digit & 0x10 != 0 { value != -1 } else { value != 0 };
                if more {
                    digit |= 0x20;
                }
                text.push(char::from(digit + 48));
                if !more {
                    break;
                }
            }
        }
        text
    }

    /// The corners of the outline of its largest part, clockwise, in pixel corners.
    pub fn outline(&self) -> Vec<(usize, usize)> {
        let mut seen = vec![false; self.bits.len()];
        let mut best: Vec<(usize, usize)> = Vec::new();
        let mut best_area = 0.0;
        for start in 0..self.bits.len() {
            let (x, y) = ((start % self.width) as isize, (start / self.width) as isize);
            // A part's first pixel in reading order has nothing above and nothing to its left.
            if !self.bits[start] || seen[start] || self.at(x, y - 1) || self.at(x - 1, y) {
                continue;
            }
            let corners = self.walk(x, y, &mut seen);
            let area = polygon_area(&corners);
            if area > best_area {
                (best, best_area) = (corners, area);
            }
        }
        best
    }

    /// Follows the edge from the upper left corner of a pixel, the part to the right hand.
    fn walk(&self, x: isize, y: isize, seen: &mut [bool]) -> Vec<(usize, usize)> {
        const STEPS: [(isize, isize); 4] = [(1, 0), (0, 1), (-1, 0), (0, -1)];
        // The pixel on the right hand of a step and the one on the left, from the corner it leaves.
        const RIGHT: [(isize, isize); 4] = [(0, 0), (-1, 0), (-1, -1), (0, -1)];
        const LEFT: [(isize, isize); 4] = [(0, -1), (0, 0), (-1, 0), (-1, -1)];
        let (mut cx, mut cy, mut heading) = (x, y, 0usize);
        let mut corners = Vec::new();
        loop {
            let (lx, ly) = LEFT[heading];
            let (rx, ry) = RIGHT[heading];
            let turn = if self.at(cx + lx, cy + ly) {
                3
            } else if self.at(cx + rx, cy + ry) {
                0
            } else {
                1
            };
            if turn != 0 {
                corners.push((cx as usize, cy as usize));
                heading = (heading + turn) % 4;
            }
            let (rx, ry) = RIGHT[heading];
            if self.at(cx + rx, cy + ry) {
                seen[(cy + ry) as usize * self.width + (cx + rx) as usize] = true;
            }
            let (dx, dy) = STEPS[heading];
            (cx, cy) = (cx + dx, cy + dy);
            if (cx, cy) == (x, y) {
                if corners.first() != Some(&(x as usize, y as usize)) {
                    corners.insert(0, (x as usize, y as usize));
                }
                return corners;
            }
        }
    }
}

/// The area inside a polygon.
pub fn polygon_area(corners: &[(usize, usize)]) -> f64 {
    let next = corners.iter().cycle().skip(1);
    let twice: f64 =
        corners.iter().zip(next).map(|(a, b)| a.0 as f64 * b.1 as f64 - b.0 as f64 * a.1 as f64).sum();
    twice.abs() / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(rows: &[&str]) -> Mask {
        let bits = rows.iter().flat_map(|row| row.bytes().map(|b| b == b'#')).collect();
        Mask::new(rows[0].len(), rows.len(), bits)
    }

    #[test]
    fn run_lengths_are_those_of_pycocotools() {
        let m = mask(&["....", ".##.", ".##.", "...."]);
        assert_eq!(m.run_lengths(), [5, 2, 2, 2, 5]);
        // pycocotools.mask.encode of this mask, Fortran order.
        assert_eq!(m.run_length_text(), "52203");
        assert_eq!(mask(&["##", "##"]).run_lengths(), [0, 4]);
        assert_eq!((m.area(), m.bounds()), (4, Some(Box2::new(1.0, 1.0, 3.0, 3.0))));
        assert_eq!(mask(&["."]).bounds(), None);
    }

    #[test]
    fn outlines_go_round_the_largest_part() {
        let m = mask(&["#....", "..##.", "..###", "..#.."]);
        let outline = m.outline();
        assert_eq!(outline, [(2, 1), (4, 1), (4, 2), (5, 2), (5, 3), (3, 3), (3, 4), (2, 4)]);
        assert_eq!(polygon_area(&outline), 6.0);
        assert_eq!(mask(&["#"]).outline(), [(0, 0), (1, 0), (1, 1), (0, 1)]);
        assert!(mask(&["..", ".."]).outline().is_empty());
    }

    #[test]
    fn every_small_mask_has_an_outline_that_ends() {
        for bits in 0..1u32 << 12 {
            let m = Mask::new(4, 3, (0..12).map(|i| bits >> i & 1 == 1).collect());
            assert_eq!(m.outline().is_empty(), bits == 0, "{bits:b}");
        }
    }
}
