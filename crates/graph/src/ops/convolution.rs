//! Operations with a window that moves over the spatial dimensions of `[N, C, D1, D2, ..]`.

use super::TensorOp;
use super::fact::{Fact, Facts, shaped};
use kun_tensor::DType;

/// What lies around the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Padding {
    /// Elements before each spatial dimension, then after each; empty for none.
    Explicit(Vec<usize>),
    /// As much as makes the output `ceil(input / stride)` long; the odd one at the end.
    SameUpper,
    /// As [`Padding::SameUpper`], the odd one at the start.
    SameLower,
    /// None.
    Valid,
}

/// A window, with its attributes as the file gives them: empty lists stand for 1 in each dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// Steps of the window.
    pub strides: Vec<usize>,
    /// Distance of its elements.
    pub dilations: Vec<usize>,
    /// What lies around.
    pub padding: Padding,
    /// Groups of channels that do not meet.
    pub groups: usize,
}

/// A window over an input of known size, every list as long as there are spatial dimensions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Geometry {
    pub input: Vec<usize>,
    pub kernel: Vec<usize>,
    pub strides: Vec<usize>,
    pub dilations: Vec<usize>,
    pub pad_begin: Vec<usize>,
    pub pad_end: Vec<usize>,
    pub output: Vec<usize>,
}

fn listed(values: &[usize], rank: usize, name: &str) -> Result<Vec<usize>, String> {
    match values.len() {
        0 => Ok(vec![1; rank]),
        n if n != rank => Err(format!("{n} {name} for {rank} spatial dimensions")),
        _ if values.contains(&0) => Err(format!("{name} {values:?}")),
        _ => Ok(values.to_vec()),
    }
}

impl Convolution {
    /// The window over an input of spatial size `input`.
    ///
    /// # Errors
    /// If the lists do not fit, or the window is larger than the padded input.
    pub fn geometry(&self, input: &[usize], kernel: &[usize]) -> Result<Geometry, String> {
        self.geometry_with(input, kernel, false)
    }

    fn geometry_with(&self, input: &[usize], kernel: &[usize], ceil: bool) -> Result<Geometry, String> {
        let rank = input.len();
        if kernel.len() != rank {
            return Err(format!("a window of {kernel:?} over {input:?}"));
        }
        let strides = listed(&self.strides, rank, "strides")?;
        let dilations = listed(&self.dilations, rank, "dilations")?;
        let mut geometry = Geometry {
            input: input.to_vec(),
            kernel: kernel.to_vec(),
            pad_begin: vec![0; rank],
            pad_end: vec![0; rank],
            output: Vec::with_capacity(rank),
            strides,
            dilations,
        };
        for i in 0..rank {
            let (stride, dilation) = (geometry.strides[i], geometry.dilations[i]);
            let too_large = || format!("a window of {kernel:?} over {input:?}");
            let extent = kernel[i]
                .checked_sub(1)
                .and_then(|k| k.checked_mul(dilation))
                .and_then(|k| k.checked_add(1))
                .ok_or_else(too_large)?;
            let (begin, end) = match &self.padding {
                Padding::Explicit(pads) if pads.is_empty() => (0, 0),
                Padding::Explicit(pads) if pads.len() == 2 * rank => (pads[i], pads[rank + i]),
                Padding::Explicit(pads) => return Err(format!("{} pads for {rank} dimensions", pads.len())),
                Padding::Valid => (0, 0),
                Padding::SameUpper | Padding::SameLower => {
                    let out = input[i].div_ceil(stride);
                    let total =
                        (out.saturating_sub(1) * stride).saturating_add(extent).saturating_sub(input[i]);
                    let (less, more) = (total / 2, total - total / 2);
                    if self.padding == Padding::SameUpper { (less, more) } else { (more, less) }
                }
            };
            let padded =
                input[i].checked_add(begin).and_then(|n| n.checked_add(end)).ok_or_else(too_large)?;
            let free = padded.checked_sub(extent).ok_or_else(too_large)?;
            let mut out = if ceil { free.div_ceil(stride) } else { free / stride } + 1;
            // A window that would start in the padding at the end has nothing to see.
            if ceil && (out - 1) * stride >= input[i] + begin {
                out -= 1;
            }
            geometry.pad_begin[i] = begin;
            geometry.pad_end[i] = end;
            geometry.output.push(out);
        }
        Ok(geometry)
    }
}

/// The gradient of a convolution: every input element spreads over a window of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransposedConvolution {
    /// Window, padding, groups.
    pub convolution: Convolution,
    /// Added to one side of the output; empty for none.
    pub output_padding: Vec<usize>,
    /// The spatial size wanted, which decides the padding; empty if not given.
    pub output_shape: Vec<usize>,
}

impl TransposedConvolution {
    /// The geometry of the convolution whose gradient this is: its `input` is the result here, its `output` the operand
    /// here.
    ///
    /// # Errors
    /// If the lists do not fit.
    pub fn geometry(&self, operand: &[usize], kernel: &[usize]) -> Result<Geometry, String> {
        let rank = operand.len();
        let convolution = &self.convolution;
        let misfit = || format!("a window of {kernel:?} over {operand:?}");
        if kernel.len() != rank {
            return Err(misfit());
        }
        let strides = listed(&convolution.strides, rank, "strides")?;
        let dilations = listed(&convolution.dilations, rank, "dilations")?;
        let extra = match self.output_padding.len() {
            0 => vec![0; rank],
            n if n == rank => self.output_padding.clone(),
            n => return Err(format!("{n} output paddings for {rank} dimensions")),
        };
        let (mut pad_begin, mut pad_end, mut result) = (vec![0; rank], vec![0; rank], vec![0; rank]);
        for i in 0..rank {
            let full = operand[i]
                .checked_sub(1)
                .and_then(|n| n.checked_mul(strides[i]))
                .and_then(|n| n.checked_add(extra[i]))
                .and_then(|n| {
                    n.checked_add(kernel[i].checked_sub(1)?.checked_mul(dilations[i])?.checked_add(1)?)
                })
                .ok_or_else(misfit)?;
            let wanted = match (self.output_shape.len(), &convolution.padding) {
                (n, _) if n > 0 && n < rank => return Err(format!("an output of {:?}", self.output_shape)),
                (n, _) if n > 0 => Some(self.output_shape[n - rank + i]),
                (_, Padding::SameUpper | Padding::SameLower) => Some(operand[i] * strides[i]),
                _ => None,
            };
            match wanted {
                Some(wanted) => {
                    let total = full.saturating_sub(wanted);
                    let (less, more) = (total / 2, total - total / 2);
                    let lower = convolution.padding == Padding::SameLower;
                    (pad_begin[i], pad_end[i]) = if lower { (more, less) } else { (less, more) };
                    result[i] = wanted;
                }
                None => {
                    if let Padding::Explicit(pads) = &convolution.padding
                        && !pads.is_empty()
                    {
                        if pads.len() != 2 * rank {
                            return Err(format!("{} pads for {rank} dimensions", pads.len()));
                        }
                        (pad_begin[i], pad_end[i]) = (pads[i], pads[rank + i]);
                    }
                    result[i] = full.checked_sub(pad_begin[i] + pad_end[i]).ok_or_else(misfit)?;
                }
            }
        }
        Ok(Geometry {
            input: result,
            kernel: kernel.to_vec(),
            strides,
            dilations,
            pad_begin,
            pad_end,
            output: operand.to_vec(),
        })
    }
}

/// A causal convolution of each channel that remembers what it saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CausalConvolution {
    /// Whether SiLU follows.
    pub silu: bool,
}

/// What a pool computes of its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// The largest.
    Max,
    /// The mean.
    Average {
        /// Whether padding counts.
        include_pad: bool,
    },
    /// The `p`-norm.
    Lp {
        /// Its exponent.
        p: i64,
    },
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// What it computes.
    pub kind: PoolKind,
    /// Size of the window.
    pub kernel: Vec<usize>,
    /// Window and padding; one group.
    pub window: Convolution,
    /// Whether the output's size is rounded up.
    pub ceil: bool,
    /// Whether indices of a maximum count columns first.
    pub column_major: bool,
}

impl Pool {
    /// The window over an input of spatial size `input`.
    ///
    /// # Errors
    /// If the lists do not fit, or the window is larger than the padded input.
    pub fn geometry(&self, input: &[usize]) -> Result<Geometry, String> {
        self.window.geometry_with(input, &self.kernel, self.ceil)
    }
}

/// Pools of fixed size from regions of any size (arXiv:1703.06870).
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct RoiAlign {
    pub output_height: usize,
    pub output_width: usize,
    /// Samples per output pixel and dimension; 0 for as many as the region has pixels.
    pub sampling_ratio: usize,
    /// From region to feature map.
    pub spatial_scale: f32,
    /// The largest sample rather than their mean.
    pub max: bool,
    /// Whether pixel centres lie at halves.
    pub half_pixel: bool,
}

/// Batch and channels, and what comes after them.
type Outer<'a> = (&'a [usize], &'a [usize]);

pub(crate) fn infer(op: &TensorOp, x: &Facts<'_>) -> Result<Vec<Fact>, String> {
    let spatial = |i: usize| -> Result<Option<Outer<'_>>, String> {
        match x.shape(i) {
            Some(shape) if shape.len() < 2 => Err(format!("{shape:?} has no channels")),
            Some(shape) => Ok(Some(shape.split_at(2))),
            None => Ok(None),
        }
    };
    let convolved = |convolution: &Convolution, w: usize| -> Result<Option<Vec<usize>>, String> {
        let (Some((outer, input)), Some((channels, kernel))) = (spatial(0)?, spatial(w)?) else {
            return Ok(None);
        };
        let (groups, want) = (convolution.groups, channels[1].saturating_mul(convolution.groups));
        if groups == 0 || want != outer[1] || !channels[0].is_multiple_of(groups) {
            return Err(format!("{} channels, {groups} groups, weights for {}", outer[1], channels[1]));
        }
        let mut shape = vec![outer[0], channels[0]];
        shape.extend(convolution.geometry(input, kernel)?.output);
        Ok(Some(shape))
    };
    Ok(match op {
        TensorOp::Conv(convolution) => x.like(0, convolved(convolution, 1)?),
        TensorOp::DeformConv { convolution, .. } => x.like(0, convolved(convolution, 1)?),
        TensorOp::ConvInteger(convolution) => vec![shaped(Some(DType::I32), convolved(convolution, 1)?)],
        TensorOp::QLinearConv(convolution) => vec![shaped(x.dtype(7), convolved(convolution, 3)?)],
        TensorOp::ConvTranspose(transposed) => {
            let (Some((outer, operand)), Some((channels, kernel))) = (spatial(0)?, spatial(1)?) else {
                return Ok(Vec::new());
            };
            let groups = transposed.convolution.groups;
            if groups == 0 || channels[0] != outer[1] || !outer[1].is_multiple_of(groups) {
                return Err(format!("{} channels, {groups} groups, weights for {}", outer[1], channels[0]));
            }
            let mut shape = vec![outer[0], channels[1].saturating_mul(groups)];
            shape.extend(transposed.geometry(operand, kernel)?.input);
            x.like(0, Some(shape))
        }
        TensorOp::CausalConv(_) => {
            let (Some(shape), Some(w)) = (x.shape(0), x.shape(1)) else { return Ok(Vec::new()) };
            let (&[n, c, _], &[_, _, k]) = (shape, w) else { return Err(format!("{shape:?} and {w:?}")) };
            let state = vec![n, c, k.saturating_sub(1)];
            vec![shaped(x.dtype(0), Some(shape.to_vec())), shaped(x.dtype(0), Some(state))]
        }
        TensorOp::Pool(pool) => {
            let Some((outer, input)) = spatial(0)? else { return Ok(Vec::new()) };
            let mut shape = outer.to_vec();
            shape.extend(pool.geometry(input)?.output);
            vec![shaped(x.dtype(0), Some(shape.clone())), shaped(Some(DType::I64), Some(shape))]
        }
        TensorOp::GlobalPool(_) => {
            let Some((outer, input)) = spatial(0)? else { return Ok(Vec::new()) };
            let mut shape = outer.to_vec();
            shape.resize(2 + input.len(), 1);
            x.like(0, Some(shape))
        }
        TensorOp::RoiAlign(roi) => {
            let (Some((outer, _)), Some(regions)) = (spatial(0)?, x.shape(1)) else { return Ok(Vec::new()) };
            let count = regions.first().copied().unwrap_or(0);
            x.like(0, Some(vec![count, outer[1], roi.output_height, roi.output_width]))
        }
        _ => Vec::new(),
    })
}
