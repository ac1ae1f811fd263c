//! Where a value lies: a place, and the distance in memory between neighbours of each dimension.

use crate::graph::ValueId;

/// Memory that views are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A buffer of the arena.
    Buffer(usize),
    /// A tensor that came from outside or from a plain step.
    Datum(ValueId),
    /// A constant of the plan.
    Constant(usize),
    /// An output of the graph.
    Output(usize),
}

/// A tensor in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub place: Place,
    /// Of the first element, in elements.
    pub offset: usize,
    pub shape: Vec<usize>,
    /// Elements between neighbours; 0 where all are the same one.
    pub strides: Vec<usize>,
    /// Whether elements are u8 codes, not f32.
    pub codes: bool,
}

/// Strides of a row-major tensor.
pub(crate) fn dense_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i];
    }
    strides
}

/// Strides of a tensor without gaps whose dimensions lie in the order `order`, outermost first.
pub(crate) fn ordered_strides(shape: &[usize], order: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; shape.len()];
    let mut step = 1;
    for &i in order.iter().rev() {
        strides[i] = step;
        step *= shape[i];
    }
    strides
}

/// Strides of `[N, C, H, W]` (or `[N, C, L]`) with the channels of a pixel together.
pub(crate) fn channels_last_strides(shape: &[usize]) -> Vec<usize> {
    let order: Vec<usize> = std::iter::once(0).chain(2..shape.len()).chain([1]).collect();
    ordered_strides(shape, &order)
}

impl View {
    pub(crate) fn dense(place: Place, shape: &[usize]) -> View {
        View { place, offset: 0, shape: shape.to_vec(), strides: dense_strides(shape), codes: false }
    }

    pub(crate) fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Elements of memory from the first to the last, both included.
    pub(crate) fn extent(&self) -> usize {
        if self.shape.contains(&0) {
            return 0;
        }
        1 + self.shape.iter().zip(&self.strides).map(|(n, s)| (n - 1) * s).sum::<usize>()
    }

    /// Whether elements lie one after the other in the order of their indices.
    pub(crate) fn is_dense(&self) -> bool {
        let dense = dense_strides(&self.shape);
        self.shape.iter().zip(&self.strides).zip(dense).all(|((&n, &s), d)| n <= 1 || s == d)
    }

    pub(crate) fn permuted(&self, axes: &[usize]) -> View {
        let pick = |of: &[usize]| axes.iter().map(|&i| of[i]).collect();
        View { shape: pick(&self.shape), strides: pick(&self.strides), ..self.clone() }
    }

    pub(crate) fn sliced(&self, axis: usize, start: usize, step: usize, length: usize) -> View {
        let mut view = self.clone();
        if length > 0 {
            view.offset += start * self.strides[axis];
        }
        view.shape[axis] = length;
        view.strides[axis] *= step;
        view
    }

    /// The view as an operand of something of shape `shape`.
    pub(crate) fn broadcast(&self, shape: &[usize]) -> Option<View> {
        let lead = shape.len().checked_sub(self.shape.len())?;
        let mut strides = vec![0; shape.len()];
        for (i, (&n, &s)) in self.shape.iter().zip(&self.strides).enumerate() {
            if n == shape[lead + i] {
                strides[lead + i] = if n == 1 { 0 } else { s };
            } else if n != 1 {
                return None;
            }
        }
        Some(View { shape: shape.to_vec(), strides, ..self.clone() })
    }

    /// The same elements in another shape, if no element has to move.
    pub(crate) fn reshaped(&self, shape: &[usize]) -> Option<View> {
        let mut strides = vec![0; shape.len()];
        if self.elements() == 0 {
            return Some(View { shape: shape.to_vec(), strides, ..self.clone() });
        }
        let old: Vec<(usize, usize)> =
            self.shape.iter().copied().zip(self.strides.iter().copied()).filter(|(n, _)| *n != 1).collect();
        let new: Vec<usize> = (0..shape.len()).filter(|&i| shape[i] != 1).collect();
        let (mut o, mut n) = (0, 0);
        while o < old.len() {
            // The smallest groups of dimensions on both sides with as many elements.
            let (first_old, first_new) = (o, n);
            let (mut have, mut want) = (old[o].0, shape[*new.get(n)?]);
            (o, n) = (o + 1, n + 1);
            while have != want {
                if have < want {
                    have *= old.get(o)?.0;
                    o += 1;
                } else {
                    want *= shape[*new.get(n)?];
                    n += 1;
                }
            }
            let mergeable = old[first_old..o].windows(2).all(|pair| pair[0].1 == pair[1].1 * pair[1].0);
            if !mergeable {
                return None;
            }
            let mut step = old[o - 1].1;
            for &i in new[first_new..n].iter().rev() {
                strides[i] = step;
                step *= shape[i];
            }
        }
        Some(View { shape: shape.to_vec(), strides, ..self.clone() })
    }

    /// All dimensions but the last as one: how many rows, and the distance between them. Rows must be dense.
    pub(crate) fn rows(&self) -> Option<(usize, usize)> {
        let last = self.shape.len().checked_sub(1)?;
        if self.strides[last] != 1 && self.shape[last] != 1 {
            return None;
        }
        let outer = View {
            shape: self.shape[..last].to_vec(),
            strides: self.strides[..last].to_vec(),
            ..self.clone()
        };
        let count = outer.elements();
        let merged = outer.reshaped(&[count])?;
        Some((count, merged.strides[0]))
    }

    /// Dimensions from the one with the largest distance to the one with the smallest.
    pub(crate) fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.shape.len()).collect();
        order.sort_by_key(|&i| (std::cmp::Reverse(self.strides[i] * usize::from(self.shape[i] > 1)), i));
        // Dimensions of 1 take no part; they may stand anywhere.
        order
    }
}

#[cfg(test)]
mod tests {
    use super::{Place, View, channels_last_strides, dense_strides};

    fn view(shape: &[usize], strides: &[usize]) -> View {
        View {
            place: Place::Buffer(0),
            offset: 0,
            shape: shape.to_vec(),
            strides: strides.to_vec(),
            codes: false,
        }
    }

    fn places(view: &View) -> Vec<usize> {
        (0..view.elements())
            .map(|i| {
                let (mut rest, mut at) = (i, view.offset);
                for d in (0..view.shape.len()).rev() {
                    at += rest % view.shape[d] * view.strides[d];
                    rest /= view.shape[d];
                }
                at
            })
            .collect()
    }

    #[test]
    fn a_reshaped_view_names_the_same_elements() {
        let image = view(&[2, 6, 4, 5], &channels_last_strides(&[2, 6, 4, 5]));
        for shape in [vec![2, 6, 20], vec![2, 3, 2, 4, 5], vec![2, 6, 2, 2, 5, 1], vec![1, 2, 6, 4, 5]] {
            assert_eq!(places(&image.reshaped(&shape).unwrap()), places(&image), "{shape:?}");
        }
        assert_eq!(image.reshaped(&[2, 120]), None);
        assert_eq!(image.reshaped(&[12, 20]), None);
        let tokens = image.reshaped(&[2, 6, 20]).unwrap().permuted(&[0, 2, 1]);
        assert!(tokens.is_dense());
        assert_eq!(tokens.rows(), Some((40, 6)));
        let scalar = view(&[1, 1], &[0, 0]);
        assert_eq!(places(&scalar.reshaped(&[]).unwrap()), [0]);
        assert_eq!(places(&view(&[], &[]).reshaped(&[1, 1]).unwrap()), [0]);
    }

    #[test]
    fn slices_and_broadcasts_keep_to_their_memory() {
        let x = view(&[3, 8], &dense_strides(&[3, 8]));
        let part = x.sliced(1, 2, 3, 2);
        assert_eq!(places(&part), [2, 5, 10, 13, 18, 21]);
        assert_eq!(part.offset + part.extent(), 22);
        let row = x.sliced(0, 1, 1, 1).broadcast(&[2, 4, 8]).unwrap();
        assert_eq!(row.strides, [0, 0, 1]);
        assert_eq!(x.broadcast(&[4, 8]), None);
        assert_eq!(x.order(), [0, 1]);
        assert_eq!(x.permuted(&[1, 0]).order(), [1, 0]);
    }
}
