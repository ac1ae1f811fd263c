//! Boxes: overlap, and keeping one of many that say the same.

/// `x1 y1 x2 y2` in pixels of the picture; the right and lower edges lie outside.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Box2 {
    /// Left.
    pub x1: f32,
    /// Top.
    pub y1: f32,
    /// Right.
    pub x2: f32,
    /// Bottom.
    pub y2: f32,
}

impl Box2 {
    /// From its corners.
    pub fn new(x1: f32, y1: f32, x2: f32, y2: f32) -> Box2 {
        Box2 { x1, y1, x2, y2 }
    }

    /// From its centre and size.
    pub fn centered(cx: f32, cy: f32, width: f32, height: f32) -> Box2 {
        Box2::new(cx - width / 2.0, cy - height / 2.0, cx + width / 2.0, cy + height / 2.0)
    }

    /// Its width, at least 0.
    pub fn width(&self) -> f32 {
        (self.x2 - self.x1).max(0.0)
    }

    /// Its height, at least 0.
    pub fn height(&self) -> f32 {
        (self.y2 - self.y1).max(0.0)
    }

    /// Its area.
    pub fn area(&self) -> f32 {
        self.width() * self.height()
    }

    /// The area of both over the area of either; 0 where neither has any.
    pub fn iou(&self, other: &Box2) -> f32 {
        let width = (self.x2.min(other.x2) - self.x1.max(other.x1)).max(0.0);
        let height = (self.y2.min(other.y2) - self.y1.max(other.y1)).max(0.0);
        let both = width * height;
        let either = self.area() + other.area() - both;
        if either > 0.0 { both / either } else { 0.0 }
    }

    /// Cut to a picture of this size.
    pub fn clip(&self, width: usize, height: usize) -> Box2 {
        let (w, h) = (width as f32, height as f32);
        Box2::new(self.x1.clamp(0.0, w), self.y1.clamp(0.0, h), self.x2.clamp(0.0, w), self.y2.clamp(0.0, h))
    }

    /// Whether every edge is a finite number.
    pub fn is_finite(&self) -> bool {
        [self.x1, self.y1, self.x2, self.y2].iter().all(|v| v.is_finite())
    }
}

/// Which boxes may suppress each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suppress {
    /// Only boxes of the same class.
    PerClass,
    /// All.
    Across,
}

/// Most candidates that take part; the best ones. It bounds the work on a picture that is all noise.
const MAX_CANDIDATES: usize = 5_000;

/// Greedy non-maximum suppression of `(box, score, class)`: indices of the boxes kept, best score first. A box goes if
/// it overlaps a better one by more than `iou`.
pub fn suppress(candidates: &[(Box2, f32, usize)], iou: f32, how: Suppress) -> Vec<usize> {
    let mut order: Vec<usize> = (0..candidates.len()).filter(|&i| candidates[i].0.is_finite()).collect();
    order.sort_by(|&a, &b| candidates[b].1.total_cmp(&candidates[a].1).then(a.cmp(&b)));
    order.truncate(MAX_CANDIDATES);
    let mut kept: Vec<usize> = Vec::new();
    for i in order {
        let (candidate, _, class) = &candidates[i];
        let hidden = kept.iter().any(|&k| {
            let (better, _, other) = &candidates[k];
            (how == Suppress::Across || class == other) && candidate.iou(better) > iou
        });
        if !hidden {
            kept.push(i);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_is_a_share_of_the_union() {
        let a = Box2::new(0.0, 0.0, 10.0, 10.0);
        assert_eq!(a.iou(&a), 1.0);
        assert_eq!(a.iou(&Box2::new(5.0, 0.0, 15.0, 10.0)), 50.0 / 150.0);
        assert_eq!(a.iou(&Box2::new(20.0, 0.0, 30.0, 10.0)), 0.0);
        assert_eq!(Box2::new(1.0, 1.0, 1.0, 1.0).iou(&Box2::new(1.0, 1.0, 1.0, 1.0)), 0.0);
    }

    #[test]
    fn the_best_of_a_heap_is_kept_in_each_class() {
        let at = |x: f32| Box2::new(x, 0.0, x + 10.0, 10.0);
        let boxes = [(at(0.0), 0.5, 0), (at(1.0), 0.9, 0), (at(1.0), 0.8, 1), (at(50.0), 0.1, 0)];
        assert_eq!(suppress(&boxes, 0.5, Suppress::PerClass), [1, 2, 3]);
        assert_eq!(suppress(&boxes, 0.5, Suppress::Across), [1, 3]);
        assert_eq!(suppress(&[(at(f32::NAN), 1.0, 0)], 0.5, Suppress::Across), [0usize; 0]);
    }
}
