//! Copies between tensors whose dimensions lie in different orders.

use crate::KernelError;
use std::ops::Range;

/// Elements of each side of a piece that is transposed at a time: 16 lines of a cache each.
const TILE: usize = 16;

/// A copy, with its dimensions merged where memory allows. Make it once and run parts of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Lengths; the last dimension is dense in the output.
    shape: Vec<usize>,
    from: Vec<usize>,
    to: Vec<usize>,
}

impl Copy {
    /// A copy of a tensor of `shape` from strides `from` to strides `to`.
    ///
    /// # Panics
    /// If the ranks differ.
    pub fn new(shape: &[usize], from: &[usize], to: &[usize]) -> Copy {
        assert!(shape.len() == from.len() && shape.len() == to.len(), "strides of one rank");
        let mut order: Vec<usize> = (0..shape.len()).filter(|&i| shape[i] != 1).collect();
        order.sort_by_key(|&i| std::cmp::Reverse((to[i], i)));
        let mut copy = Copy { shape: Vec::new(), from: Vec::new(), to: Vec::new() };
        for i in order {
            if let (Some(len), Some(f), Some(t)) =
                (copy.shape.last_mut(), copy.from.last_mut(), copy.to.last_mut())
                && *f == from[i] * shape[i]
                && *t == to[i] * shape[i]
            {
                (*len, *f, *t) = (*len * shape[i], from[i], to[i]);
                continue;
            }
            copy.shape.push(shape[i]);
            copy.from.push(from[i]);
            copy.to.push(to[i]);
        }
        if copy.shape.is_empty() {
            (copy.shape, copy.from, copy.to) = (vec![1], vec![1], vec![1]);
        }
        copy
    }

    /// Pieces that the first dimension can be split into.
    pub fn pieces(&self) -> usize {
        self.shape[0]
    }

    /// Elements of the output from the first to the last, both included.
    pub fn extent(&self) -> usize {
        if self.shape.contains(&0) {
            return 0;
        }
        1 + self.shape.iter().zip(&self.to).map(|(n, s)| (n - 1) * s).sum::<usize>()
    }

    /// Elements of a piece.
    pub fn piece_elements(&self) -> usize {
        self.shape[1..].iter().product()
    }

    /// Copies the pieces `pieces` from `x` to `out`.
    ///
    /// # Errors
    /// [`KernelError::Shape`] if `x` is too short.
    ///
    /// # Safety
    /// `out` must be valid for writing the elements of these pieces, which no other thread touches meanwhile.
    pub unsafe fn run<T: std::marker::Copy>(
        &self,
        pieces: Range<usize>,
        x: &[T],
        out: *mut T,
    ) -> Result<(), KernelError> {
        if pieces.is_empty() || self.shape.contains(&0) {
            return Ok(());
        }
        let mut last = (pieces.end - 1) * self.from[0];
        last += self.shape.iter().zip(&self.from).skip(1).map(|(n, s)| (n - 1) * s).sum::<usize>();
        if last >= x.len() || pieces.end > self.shape[0] {
            let what = format!("element {last} of {}, pieces {pieces:?} of {:?}", x.len(), self.shape);
            return Err(KernelError::Shape { kernel: "copy", what });
        }
        let mut shape = self.shape.clone();
        shape[0] = pieces.len();
        let x = x[pieces.start * self.from[0]..].as_ptr();
        let out = out.wrapping_add(pieces.start * self.to[0]);
        // SAFETY: the last element that is read lies in `x`; the caller vouches for `out`.
        unsafe { self.walk(&shape, x, out) };
        Ok(())
    }

    unsafe fn walk<T: std::marker::Copy>(&self, shape: &[usize], x: *const T, out: *mut T) {
        let rank = shape.len();
        let inner = rank - 1;
        // The dimension whose elements are nearest in the input, if it is not the last; with that one it makes a matrix if it
        // is dense there or lines would be short.
        let nearest = (0..inner).rev().min_by_key(|&i| self.from[i]);
        let transpose = nearest.filter(|&i| {
            self.from[inner] != 1 && self.to[inner] == 1 && (self.from[i] == 1 || shape[inner] < TILE)
        });
        let outer: Vec<usize> = (0..inner).filter(|&i| Some(i) != transpose).collect();
        let count: usize = outer.iter().map(|&i| shape[i]).product();
        let mut index = vec![0; outer.len()];
        let (mut x, mut out) = (x, out);
        for _ in 0..count {
            // SAFETY: offsets of elements of the tensor.
            unsafe {
                match transpose {
                    Some(d) => {
                        let (rows, columns) = (shape[d], shape[inner]);
                        swap([rows, columns], x, [self.from[d], self.from[inner]], out, self.to[d]);
                    }
                    None => line(shape[inner], x, self.from[inner], out, self.to[inner]),
                }
            }
            for (place, &d) in index.iter_mut().zip(&outer).rev() {
                *place += 1;
                x = x.wrapping_add(self.from[d]);
                out = out.wrapping_add(self.to[d]);
                if *place < shape[d] {
                    break;
                }
                *place = 0;
                x = x.wrapping_sub(self.from[d] * shape[d]);
                out = out.wrapping_sub(self.to[d] * shape[d]);
            }
        }
    }
}

unsafe fn line<T: std::marker::Copy>(len: usize, x: *const T, from: usize, out: *mut T, to: usize) {
    // SAFETY: the caller passes a line of the tensor.
    unsafe {
        if from == 1 && to == 1 {
            std::ptr::copy_nonoverlapping(x, out, len);
            return;
        }
        for i in 0..len {
            *out.add(i * to) = *x.add(i * from);
        }
    }
}

/// `out[r * to + c] = x[r * from[0] + c * from[1]]`.
unsafe fn swap<T: std::marker::Copy>(
    [rows, columns]: [usize; 2],
    x: *const T,
    from: [usize; 2],
    out: *mut T,
    to: usize,
) {
    for r0 in (0..rows).step_by(TILE) {
        for c0 in (0..columns).step_by(TILE) {
            let (height, width) = (TILE.min(rows - r0), TILE.min(columns - c0));
            // SAFETY: the caller passes a matrix of the tensor.
            unsafe {
                let (x, out) = (x.add(r0 * from[0] + c0 * from[1]), out.add(r0 * to + c0));
                if height == TILE && width == TILE && from[0] == 1 {
                    for r in 0..TILE {
                        for c in 0..TILE {
                            *out.add(r * to + c) = *x.add(r + c * from[1]);
                        }
                    }
                } else {
                    for r in 0..height {
                        for c in 0..width {
                            *out.add(r * to + c) = *x.add(r * from[0] + c * from[1]);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Copy;
    use crate::gemm::tests::numbers;

    #[test]
    fn copies_go_where_the_strides_say() {
        for (shape, from, to) in [
            (vec![2, 3, 5, 7], vec![105, 35, 7, 1], vec![105, 1, 21, 3]),
            (vec![1, 40, 20, 20], vec![0, 1, 800, 40], vec![0, 400, 20, 1]),
            (vec![2, 3, 4], vec![12, 4, 1], vec![12, 4, 1]),
            (vec![3, 4], vec![1, 0], vec![5, 1]),
            (vec![], vec![], vec![]),
            (vec![2, 2, 3, 4, 4], vec![1, 2, 4, 12, 48], vec![96, 48, 16, 4, 1]),
            (vec![5], vec![2], vec![3]),
            (vec![1, 3, 20, 21], vec![0, 1800, 84, 2], vec![0, 1, 252, 12]),
            (vec![3, 20], vec![1, 0], vec![1, 3]),
        ] {
            let x = numbers(1, 20000);
            let copy = Copy::new(&shape, &from, &to);
            let (mut out, mut expected) = (vec![0.0; 20000], vec![0.0; 20000]);
            let half = copy.pieces() / 2;
            // SAFETY: `out` is long enough for all strides above.
            unsafe {
                copy.run(0..half, &x, out.as_mut_ptr()).unwrap();
                copy.run(half..copy.pieces(), &x, out.as_mut_ptr()).unwrap();
            }
            let count: usize = shape.iter().product();
            for i in 0..count {
                let (mut rest, mut at, mut place) = (i, 0, 0);
                for d in (0..shape.len()).rev() {
                    at += rest % shape[d] * from[d];
                    place += rest % shape[d] * to[d];
                    rest /= shape[d];
                }
                expected[place] = x[at];
            }
            assert_eq!(out, expected, "{shape:?}");
        }
        // SAFETY: refused before anything is written.
        let short = unsafe { Copy::new(&[2], &[3], &[1]).run(0..2, &[0.0; 3], std::ptr::null_mut()) };
        assert!(short.is_err());
    }
}
