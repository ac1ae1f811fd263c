//! Operations that sample an image between its pixels.

use super::TensorOp;
use super::fact::{Fact, Facts, axis, dims};

/// A change of size.
#[derive(Clone, Debug, PartialEq)]
pub struct Resize {
    /// Which dimensions the sizes, scales and regions name; all if empty.
    pub axes: Vec<i64>,
    /// How values between pixels are found.
    pub interpolation: Interpolation,
    /// Where an output pixel lies in the input.
    pub coordinates: Coordinates,
    /// Whether the filter widens when the image shrinks.
    pub antialias: bool,
    /// Whether weights outside the image are dropped and the rest rescaled (cubic only).
    pub exclude_outside: bool,
    /// The value outside with [`Coordinates::TfCropAndResize`].
    pub extrapolation: f32,
    /// How sizes keep the aspect ratio.
    pub target: ResizeTarget,
}

/// How values between pixels are found.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Interpolation {
    Nearest(NearestRounding),
    Linear,
    /// With this coefficient, -0.75 mostly.
    Cubic {
        a: f32,
    },
}

/// Which pixel is the nearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum NearestRounding {
    RoundPreferFloor,
    RoundPreferCeil,
    Floor,
    Ceil,
}

/// Where an output pixel lies in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Coordinates {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    /// Version 10 only: halves on the input's side alone.
    TfHalfPixelForNearest,
    TfCropAndResize,
}

/// How sizes keep the aspect ratio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ResizeTarget {
    Stretch,
    NotLarger,
    NotSmaller,
}

impl Resize {
    /// The size and the scale of every dimension, from the `scales` and `sizes` given.
    ///
    /// # Errors
    /// If they do not fit.
    pub fn size(
        &self,
        shape: &[usize],
        scales: Option<&[f32]>,
        sizes: Option<&[i64]>,
    ) -> Result<(Vec<usize>, Vec<f32>), String> {
        let rank = shape.len();
        let axes: Vec<usize> = match self.axes.is_empty() {
            true => (0..rank).collect(),
            false => self.axes.iter().map(|&a| axis(a, rank)).collect::<Result<_, _>>()?,
        };
        let mut out = shape.to_vec();
        let mut factors = vec![1.0; rank];
        let given = scales.map(<[f32]>::len).or(sizes.map(<[i64]>::len));
        if given != Some(axes.len()) {
            return Err(format!("{given:?} scales or sizes for {} dimensions", axes.len()));
        }
        if let Some(scales) = scales {
            for (&a, &scale) in axes.iter().zip(scales) {
                if scale.is_nan() || scale <= 0.0 {
                    return Err(format!("a scale of {scale}"));
                }
                factors[a] = scale;
                let length = (shape[a] as f64 * f64::from(scale)).floor();
                if length > u32::MAX.into() {
                    return Err(format!("a scale of {scale} for {}", shape[a]));
                }
                out[a] = length as usize;
            }
        } else if let Some(sizes) = sizes {
            let sizes = dims(sizes)?;
            let ratio = |(&a, &size): (&usize, &usize)| size as f32 / shape[a] as f32;
            let common = match self.target {
                ResizeTarget::Stretch => None,
                ResizeTarget::NotLarger => axes.iter().zip(&sizes).map(ratio).reduce(f32::min),
                ResizeTarget::NotSmaller => axes.iter().zip(&sizes).map(ratio).reduce(f32::max),
            };
            for (&a, &size) in axes.iter().zip(&sizes) {
                (out[a], factors[a]) = match common {
                    Some(factor) => ((factor * shape[a] as f32).round() as usize, factor),
                    None => (size, size as f32 / shape[a] as f32),
                };
            }
        }
        Ok((out, factors))
    }
}

/// Samples at the places that a grid names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct GridSample {
    pub mode: SampleMode,
    pub padding: GridPadding,
    /// Whether -1 and 1 are the centres of the outer pixels rather than their outer edges.
    pub align_corners: bool,
}

/// How values between pixels are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SampleMode {
    Linear,
    Nearest,
    Cubic,
}

/// What lies outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum GridPadding {
    Zeros,
    Border,
    Reflection,
}

pub(crate) fn infer(op: &TensorOp, x: &Facts<'_>) -> Result<Vec<Fact>, String> {
    Ok(match op {
        TensorOp::Resize(resize) => {
            let Some(shape) = x.shape(0) else { return Ok(Vec::new()) };
            let scales = x.0.get(2).and_then(|f| f.tensor()).and_then(|t| t.elements().to_f32());
            let scales = scales.filter(|scales| !scales.is_empty());
            let sizes = x.i64s(3);
            if scales.is_none() && sizes.is_none() {
                return Ok(Vec::new());
            }
            x.like(0, Some(resize.size(shape, scales.as_deref(), sizes.as_deref())?.0))
        }
        TensorOp::GridSample(_) => {
            let (Some(shape), Some(grid)) = (x.shape(0), x.shape(1)) else { return Ok(Vec::new()) };
            if shape.len() < 3 || grid.len() != shape.len() {
                return Err(format!("a grid of {grid:?} for {shape:?}"));
            }
            x.like(0, Some([&shape[..2], &grid[1..grid.len() - 1]].concat()))
        }
        TensorOp::AffineGrid { .. } => {
            let Some(size) = x.i64s(1) else { return Ok(Vec::new()) };
            x.like(0, Some(affine_grid_shape(&dims(&size)?)?))
        }
        _ => Vec::new(),
    })
}

/// The shape of a grid for an image of `size`, `[N, C, H, W]` or `[N, C, D, H, W]`.
pub(crate) fn affine_grid_shape(size: &[usize]) -> Result<Vec<usize>, String> {
    match *size {
        [n, _, h, w] => Ok(vec![n, h, w, 2]),
        [n, _, d, h, w] => Ok(vec![n, d, h, w, 3]),
        _ => Err(format!("a grid for an image of {size:?}")),
    }
}
