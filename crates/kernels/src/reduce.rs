//! Sums and extremes: of a row, or of many rows element by element.

use crate::vector::{self, Kernel, Vector};
use crate::{Isa, KernelError};

/// What becomes of many elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Their sum.
    Sum,
    /// The sum of their magnitudes.
    Magnitudes,
    /// The sum of their squares.
    Squares,
    /// The largest.
    Max,
    /// The least.
    Min,
}

impl Reduction {
    /// What nothing is reduced to.
    pub fn start(self) -> f32 {
        match self {
            Reduction::Sum | Reduction::Magnitudes | Reduction::Squares => 0.0,
            Reduction::Max => f32::NEG_INFINITY,
            Reduction::Min => f32::INFINITY,
        }
    }

    fn is_sum(self) -> bool {
        matches!(self, Reduction::Sum | Reduction::Magnitudes | Reduction::Squares)
    }

    /// `so_far` with one element more.
    #[inline(always)]
    fn add<V: Vector>(self, v: V, so_far: V::F32, x: V::F32) -> V::F32 {
        match self {
            Reduction::Sum => v.add(so_far, x),
            Reduction::Magnitudes => v.add(so_far, v.max(x, v.sub(v.splat(0.0), x))),
            Reduction::Squares => v.fma(x, x, so_far),
            Reduction::Max => v.max(so_far, x),
            Reduction::Min => v.min(so_far, x),
        }
    }

    /// What two parts come to.
    #[inline(always)]
    fn join<V: Vector>(self, v: V, a: V::F32, b: V::F32) -> V::F32 {
        if self.is_sum() { v.add(a, b) } else { self.add(v, a, b) }
    }

    fn add_one(self, so_far: f32, x: f32) -> f32 {
        match self {
            Reduction::Sum => so_far + x,
            Reduction::Magnitudes => so_far + x.abs(),
            Reduction::Squares => so_far + x * x,
            Reduction::Max => so_far.max(x),
            Reduction::Min => so_far.min(x),
        }
    }
}

/// All of a row.
pub fn row(isa: Isa, reduction: Reduction, x: &[f32]) -> f32 {
    vector::run(isa, Row { reduction, x })
}

struct Row<'a> {
    reduction: Reduction,
    x: &'a [f32],
}

impl Kernel for Row<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<V: Vector>(self, v: V) -> f32 {
        match self.reduction {
            // A loop for each, without questions in it.
            Reduction::Sum => self.reduce(v, Reduction::Sum),
            Reduction::Magnitudes => self.reduce(v, Reduction::Magnitudes),
            Reduction::Squares => self.reduce(v, Reduction::Squares),
            Reduction::Max => self.reduce(v, Reduction::Max),
            Reduction::Min => self.reduce(v, Reduction::Min),
        }
    }
}

impl Row<'_> {
    #[inline(always)]
    fn reduce<V: Vector>(&self, v: V, by: Reduction) -> f32 {
        const PARTS: usize = 4;
        let mut parts = [v.splat(by.start()); PARTS];
        let groups = self.x.chunks_exact(PARTS * V::LANES);
        let rest = groups.remainder();
        for group in groups {
            for (i, part) in parts.iter_mut().enumerate() {
                // SAFETY: a group has a vector for each part.
                *part = by.add(v, *part, unsafe { v.load(group.as_ptr().add(i * V::LANES)) });
            }
        }
        let all = by.join(v, by.join(v, parts[0], parts[1]), by.join(v, parts[2], parts[3]));
        let all = match by {
            Reduction::Max => v.max_lane(all),
            Reduction::Min => -v.max_lane(v.sub(v.splat(0.0), all)),
            _ => v.sum(all),
        };
        rest.iter().fold(all, |all, x| by.add_one(all, *x))
    }
}

/// Rows that are summed up before they join what came before: long sums stay exact.
const TOGETHER: usize = 64;

/// Reduces `rows` rows of `out.len()` elements, `stride` apart, element by element.
///
/// # Errors
/// [`KernelError::Shape`] if `x` is too short.
pub fn rows(
    isa: Isa,
    reduction: Reduction,
    x: &[f32],
    rows: usize,
    stride: usize,
    out: &mut [f32],
) -> Result<(), KernelError> {
    if rows > 0 && x.len() < (rows - 1) * stride + out.len() {
        let what = format!("{} elements of {rows} rows at a distance of {stride}", x.len());
        return Err(KernelError::Shape { kernel: "reduce", what });
    }
    vector::run(isa, Rows { reduction, x, rows, stride, out });
    Ok(())
}

struct Rows<'a> {
    reduction: Reduction,
    x: &'a [f32],
    rows: usize,
    stride: usize,
    out: &'a mut [f32],
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(mut self, v: V) {
        match self.reduction {
            Reduction::Sum => self.reduce(v, Reduction::Sum),
            Reduction::Magnitudes => self.reduce(v, Reduction::Magnitudes),
            Reduction::Squares => self.reduce(v, Reduction::Squares),
            Reduction::Max => self.reduce(v, Reduction::Max),
            Reduction::Min => self.reduce(v, Reduction::Min),
        }
    }
}

impl Rows<'_> {
    #[inline(always)]
    fn reduce<V: Vector>(&mut self, v: V, by: Reduction) {
        for (i, out) in self.out.chunks_mut(V::LANES).enumerate() {
            let mut all = v.splat(by.start());
            for first in (0..self.rows).step_by(TOGETHER) {
                let mut part = v.splat(by.start());
                for row in first..(first + TOGETHER).min(self.rows) {
                    let from = &self.x[row * self.stride + i * V::LANES..][..out.len()];
                    let x = if out.len() == V::LANES {
                        // SAFETY: a whole vector.
                        unsafe { v.load(from.as_ptr()) }
                    } else {
                        v.load_part(from)
                    };
                    part = by.add(v, part, x);
                }
                all = by.join(v, all, part);
            }
            v.store_part(out, all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_its_definition_on_every_isa() {
        let all = [Reduction::Sum, Reduction::Magnitudes, Reduction::Squares, Reduction::Max, Reduction::Min];
        for (count, width, stride) in [(1, 1, 1), (5, 3, 4), (70, 16, 16), (200, 37, 40), (3, 100, 100)] {
            let x: Vec<f32> = (0..count * stride).map(|i| ((i * 37) % 101) as f32 / 25.0 - 1.7).collect();
            for (reduction, isa) in
                all.into_iter().flat_map(|by| Isa::available().into_iter().map(move |isa| (by, isa)))
            {
                let expected = |values: &mut dyn Iterator<Item = f32>| match reduction {
                    Reduction::Sum => values.map(f64::from).sum(),
                    Reduction::Magnitudes => values.map(|x| f64::from(x.abs())).sum(),
                    Reduction::Squares => values.map(|x| f64::from(x) * f64::from(x)).sum(),
                    Reduction::Max => f64::from(values.fold(f32::NEG_INFINITY, f32::max)),
                    Reduction::Min => f64::from(values.fold(f32::INFINITY, f32::min)),
                };
                let near =
                    |a: f32, b: f64| assert!((f64::from(a) - b).abs() <= 1e-5 * b.abs().max(1.0), "{a} {b}");
                let mut out = vec![f32::NAN; width];
                rows(isa, reduction, &x, count, stride, &mut out).unwrap();
                for (c, y) in out.iter().enumerate() {
                    near(*y, expected(&mut (0..count).map(|r| x[r * stride + c])));
                }
                near(row(isa, reduction, &x), expected(&mut x.iter().copied()));
                assert!(rows(isa, reduction, &x, count + 1, stride, &mut out).is_err());
            }
        }
    }
}
