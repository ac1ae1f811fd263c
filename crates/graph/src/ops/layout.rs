//! Operations that only move elements or change the shape.

use super::TensorOp;
use super::fact::{Fact, Facts, axis, broadcast, count, dims, distinct_axes, shaped};

/// What lies around a padded tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum PadMode {
    Constant,
    Reflect,
    Edge,
    Wrap,
}

/// Blocks of pixels in channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Pixels of a block in each dimension.
    pub size: usize,
    /// Whether channels are the outer index rather than the pixels of a block.
    pub columns_first: bool,
}

/// One dimension of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First index.
    pub start: usize,
    /// Distance, negative from the end.
    pub step: isize,
    /// How many.
    pub length: usize,
}

/// The shape that `wanted` means for `from`, with 0 and -1 resolved.
///
/// # Errors
/// If the number of elements changes.
pub fn reshape_shape(from: &[usize], wanted: &[i64], allow_zero: bool) -> Result<Vec<usize>, String> {
    let misfit = || format!("{from:?} does not become {wanted:?}");
    let mut shape = Vec::with_capacity(wanted.len());
    let mut open = None;
    for (i, &dim) in wanted.iter().enumerate() {
        match dim {
            0 if !allow_zero => shape.push(*from.get(i).ok_or_else(misfit)?),
            -1 if open.is_none() => {
                open = Some(i);
                shape.push(1);
            }
            dim => shape.push(usize::try_from(dim).map_err(|_| misfit())?),
        }
    }
    let (have, want) = (count(from)?, count(&shape)?);
    match open {
        Some(i) if want > 0 && have.is_multiple_of(want) => shape[i] = have / want,
        None if have == want => {}
        _ => return Err(misfit()),
    }
    Ok(shape)
}

/// Each dimension of `shape` after a slice.
///
/// # Errors
/// If lists differ in length, an axis does not exist or a step is 0.
pub fn slice_ranges(
    shape: &[usize],
    starts: &[i64],
    ends: &[i64],
    axes: Option<&[i64]>,
    steps: Option<&[i64]>,
) -> Result<Vec<Range>, String> {
    let default: Vec<i64> = (0..starts.len() as i64).collect();
    let axes = distinct_axes(axes.unwrap_or(&default), shape.len())?;
    if ends.len() != starts.len()
        || axes.len() != starts.len()
        || steps.is_some_and(|s| s.len() != starts.len())
    {
        return Err(format!("{} starts, {} ends, {} axes", starts.len(), ends.len(), axes.len()));
    }
    let mut ranges: Vec<Range> = shape.iter().map(|&length| Range { start: 0, step: 1, length }).collect();
    for (i, &a) in axes.iter().enumerate() {
        let length = shape[a] as i64;
        let step = steps.map_or(1, |steps| steps[i]);
        let from_end = |x: i64| if x < 0 { x.saturating_add(length) } else { x };
        let (start, end) = (from_end(starts[i]), from_end(ends[i]));
        let (start, count) = match step {
            0 => return Err("a step of 0".into()),
            1.. => {
                let (start, end) = (start.clamp(0, length), end.clamp(0, length));
                (start, (end - start).max(0).cast_unsigned().div_ceil(step.cast_unsigned()))
            }
            _ => {
                let (start, end) = (start.clamp(-1, length - 1), end.clamp(-1, length - 1));
                (start, (start - end).max(0).cast_unsigned().div_ceil(step.unsigned_abs()))
            }
        };
        ranges[a] = Range {
            start: usize::try_from(start).unwrap_or(0),
            step: isize::try_from(step.clamp(-(length.max(1)), length.max(1))).unwrap_or(1),
            length: count as usize,
        };
    }
    Ok(ranges)
}

/// Elements added before and after each dimension; negative ones are cut off.
///
/// # Errors
/// If lists do not fit.
pub fn pad_amounts(rank: usize, pads: &[i64], axes: Option<&[i64]>) -> Result<Vec<(i64, i64)>, String> {
    let axes = match axes {
        Some(axes) => axes.iter().map(|&a| axis(a, rank)).collect::<Result<Vec<_>, _>>()?,
        None => (0..rank).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(format!("{} pads for {} dimensions", pads.len(), axes.len()));
    }
    let mut amounts = vec![(0, 0); rank];
    for (i, &a) in axes.iter().enumerate() {
        amounts[a] = (pads[i], pads[axes.len() + i]);
    }
    Ok(amounts)
}

/// The shape after padding by `amounts`.
///
/// # Errors
/// If more is cut off than is there.
pub fn padded(shape: &[usize], amounts: &[(i64, i64)]) -> Result<Vec<usize>, String> {
    let length = |(&dim, &(before, after)): (&usize, &(i64, i64))| {
        i64::try_from(dim)
            .ok()
            .and_then(|d| d.checked_add(before)?.checked_add(after))
            .and_then(|d| usize::try_from(d).ok())
            .ok_or_else(|| format!("pads of {before} and {after} around {dim}"))
    };
    shape.iter().zip(amounts).map(length).collect()
}

/// The lengths of a split of `length`.
///
/// # Errors
/// If they do not add up.
pub fn split_lengths(length: usize, lengths: Option<&[i64]>, parts: usize) -> Result<Vec<usize>, String> {
    match lengths {
        Some(lengths) => {
            let lengths = dims(lengths)?;
            if lengths.iter().try_fold(0usize, |n, &l| n.checked_add(l)) != Some(length) {
                return Err(format!("{length} does not split into {lengths:?}"));
            }
            Ok(lengths)
        }
        None if parts == 0 => Err("a split into no parts".into()),
        None => {
            let each = length.div_ceil(parts);
            Ok((0..parts).map(|i| length.saturating_sub(i * each).min(each)).collect())
        }
    }
}

/// `shape` without the dimensions `axes` of 1.
///
/// # Errors
/// If one is not 1.
pub fn squeezed(shape: &[usize], axes: Option<&[i64]>) -> Result<Vec<usize>, String> {
    let axes = match axes {
        Some(axes) => distinct_axes(axes, shape.len())?,
        None => (0..shape.len()).filter(|&i| shape[i] == 1).collect(),
    };
    if let Some(&a) = axes.iter().find(|&&a| shape[a] != 1) {
        return Err(format!("dimension {a} of {shape:?} is not 1"));
    }
    Ok(shape.iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, &d)| d).collect())
}

/// `shape` with dimensions of 1 at `axes`.
///
/// # Errors
/// If one does not exist.
pub fn unsqueezed(shape: &[usize], axes: &[i64]) -> Result<Vec<usize>, String> {
    let rank = shape.len() + axes.len();
    let axes = distinct_axes(axes, rank)?;
    let mut rest = shape.iter();
    Ok((0..rank).map(|i| if axes.contains(&i) { 1 } else { *rest.next().unwrap_or(&1) }).collect())
}

/// The permutation that `axes` of a transpose means.
///
/// # Errors
/// If it is none.
pub fn permutation(axes: &[usize], rank: usize) -> Result<Vec<usize>, String> {
    if axes.is_empty() {
        return Ok((0..rank).rev().collect());
    }
    let mut sorted = axes.to_vec();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..rank) {
        return Err(format!("{axes:?} for {rank} dimensions"));
    }
    Ok(axes.to_vec())
}

/// `[N, C, H, W]` after blocks of pixels moved into channels (or back, if `to_depth` is false).
///
/// # Errors
/// If it does not divide.
pub fn block_shape(shape: &[usize], size: usize, to_depth: bool) -> Result<Vec<usize>, String> {
    let misfit = || format!("blocks of {size} in {shape:?}");
    let (&[n, c, h, w], Some(square)) = (shape, size.checked_mul(size)) else { return Err(misfit()) };
    let fits = size > 0 && if to_depth { h % size == 0 && w % size == 0 } else { c % square == 0 };
    match (fits, to_depth) {
        (false, _) => Err(misfit()),
        (_, true) => Ok(vec![n, c * square, h / size, w / size]),
        (_, false) => Ok(vec![n, c / square, h * size, w * size]),
    }
}

/// Which part of the dimensions [`TensorOp::Shape`] gives.
pub(crate) fn shape_range(rank: usize, start: i64, end: Option<i64>) -> std::ops::Range<usize> {
    let rank = rank as i64;
    let clamp = |x: i64| (if x < 0 { x.saturating_add(rank) } else { x }).clamp(0, rank) as usize;
    let (start, end) = (clamp(start), end.map_or(rank as usize, clamp));
    start..end.max(start)
}

pub(crate) fn infer(op: &TensorOp, x: &Facts<'_>) -> Result<Vec<Fact>, String> {
    let unknown = || Ok(Vec::new());
    if let TensorOp::Concat { axis: a } = op {
        let shapes: Option<Vec<&[usize]>> = (0..x.len()).map(|i| x.shape(i)).collect();
        return Ok(x.like(0, shapes.map(|shapes| concat_shape(&shapes, *a)).transpose()?));
    }
    let Some(shape) = x.shape(0) else { return unknown() };
    let result = match op {
        TensorOp::Reshape { allow_zero } => {
            let Some(wanted) = x.i64s(1) else { return unknown() };
            reshape_shape(shape, &wanted, *allow_zero)?
        }
        TensorOp::Flatten { axis } => flat(shape, *axis)?,
        TensorOp::Squeeze => {
            let Some(axes) = x.optional_i64s(1) else { return unknown() };
            squeezed(shape, axes.as_deref())?
        }
        TensorOp::Unsqueeze => {
            let Some(axes) = x.i64s(1) else { return unknown() };
            unsqueezed(shape, &axes)?
        }
        TensorOp::Transpose(axes) => permutation(axes, shape.len())?.iter().map(|&a| shape[a]).collect(),
        TensorOp::Split { axis: a } => {
            // Without lengths, the number of results decides: see `ops::infer`.
            let Some(Some(lengths)) = x.optional_i64s(1) else { return unknown() };
            return split_facts(x, shape, *a, Some(&lengths), 0);
        }
        TensorOp::Slice => {
            let lists = (x.i64s(1), x.i64s(2), x.optional_i64s(3), x.optional_i64s(4));
            let (Some(starts), Some(ends), Some(axes), Some(steps)) = lists else { return unknown() };
            let ranges = slice_ranges(shape, &starts, &ends, axes.as_deref(), steps.as_deref())?;
            ranges.iter().map(|range| range.length).collect()
        }
        TensorOp::Expand => {
            let Some(wanted) = x.i64s(1) else { return unknown() };
            broadcast(&[shape, &dims(&wanted)?])?
        }
        TensorOp::Tile => {
            let Some(repeats) = x.i64s(1) else { return unknown() };
            tiled(shape, &repeats)?
        }
        TensorOp::Pad(_) => {
            let (Some(pads), Some(axes)) = (x.i64s(1), x.optional_i64s(3)) else { return unknown() };
            padded(shape, &pad_amounts(shape.len(), &pads, axes.as_deref())?)?
        }
        TensorOp::DepthToSpace(blocks) => block_shape(shape, blocks.size, false)?,
        TensorOp::SpaceToDepth(blocks) => block_shape(shape, blocks.size, true)?,
        TensorOp::Shape { start, end } => {
            let dims: Vec<i64> =
                shape[shape_range(shape.len(), *start, *end)].iter().map(|&d| d as i64).collect();
            return Ok(vec![Fact::Known(kun_tensor::Tensor::list(dims).into())]);
        }
        TensorOp::Size => {
            let elements = count(shape)? as i64;
            return Ok(vec![Fact::Known(kun_tensor::Tensor::scalar(elements).into())]);
        }
        TensorOp::CenterCropPad { axes } => {
            let Some(wanted) = x.i64s(1) else { return unknown() };
            let wanted = dims(&wanted)?;
            let axes = match axes.is_empty() {
                true => (0..shape.len()).collect(),
                false => distinct_axes(axes, shape.len())?,
            };
            if axes.len() != wanted.len() {
                return Err(format!("{} lengths for {} dimensions", wanted.len(), axes.len()));
            }
            let mut shape = shape.to_vec();
            axes.iter().zip(&wanted).for_each(|(&a, &length)| shape[a] = length);
            shape
        }
        _ => shape.to_vec(),
    };
    Ok(x.like(0, Some(result)))
}

/// The results of a split into `parts`.
pub(crate) fn split_facts(
    x: &Facts<'_>,
    shape: &[usize],
    split_axis: i64,
    lengths: Option<&[i64]>,
    parts: usize,
) -> Result<Vec<Fact>, String> {
    let a = axis(split_axis, shape.len())?;
    let part = |length: usize| {
        let mut part = shape.to_vec();
        part[a] = length;
        shaped(x.dtype(0), Some(part))
    };
    Ok(split_lengths(shape[a], lengths, parts)?.into_iter().map(part).collect())
}

/// The matrix of a [`TensorOp::Flatten`].
pub(crate) fn flat(shape: &[usize], at: i64) -> Result<Vec<usize>, String> {
    let at = if at == shape.len() as i64 { shape.len() } else { axis(at, shape.len())? };
    Ok(vec![count(&shape[..at])?, count(&shape[at..])?])
}

/// The shape of operands joined along an axis.
pub(crate) fn concat_shape(shapes: &[&[usize]], at: i64) -> Result<Vec<usize>, String> {
    let misfit = || format!("shapes {shapes:?} do not join along axis {at}");
    let first = shapes.first().ok_or_else(misfit)?;
    let a = axis(at, first.len())?;
    let mut out = first.to_vec();
    for shape in &shapes[1..] {
        if shape.len() != out.len() || (0..out.len()).any(|i| i != a && shape[i] != out[i]) {
            return Err(misfit());
        }
        out[a] = out[a].checked_add(shape[a]).ok_or_else(misfit)?;
    }
    Ok(out)
}

/// The shape after repeating.
pub(crate) fn tiled(shape: &[usize], repeats: &[i64]) -> Result<Vec<usize>, String> {
    let misfit = || format!("{shape:?} repeated {repeats:?} times");
    if repeats.len() != shape.len() {
        return Err(misfit());
    }
    let repeats = dims(repeats)?;
    shape.iter().zip(&repeats).map(|(&d, &r)| d.checked_mul(r).ok_or_else(misfit)).collect()
}
