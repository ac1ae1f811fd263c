//! Operations that only move elements or change the shape.

use super::{Args, tensor};
use crate::ops::fact::{axis, broadcast, count, dims, distinct_axes};
use crate::ops::layout::{
    block_shape, concat_shape, flat, pad_amounts, padded, permutation, reshape_shape, shape_range,
    slice_ranges, split_lengths, squeezed, tiled, unsqueezed,
};
use crate::ops::{Blocks, PadMode};
use kun_tensor::elements::SliceMap;
use kun_tensor::{Elements, Tensor};

/// Copies blocks of neighbouring elements; a start of `usize::MAX` leaves the default.
struct Copy<I> {
    block: usize,
    count: usize,
    starts: I,
}

impl<I: Iterator<Item = usize>> SliceMap for Copy<I> {
    fn map<T: Clone + Default>(&mut self, values: &[T]) -> Vec<T> {
        let mut out = Vec::with_capacity(self.count);
        for start in &mut self.starts {
            if start == usize::MAX {
                out.resize(out.len() + self.block, T::default());
            } else if self.block == 1 {
                out.push(values[start].clone());
            } else {
                out.extend_from_slice(&values[start..start + self.block]);
            }
        }
        out
    }
}

/// A tensor of `shape` made of blocks of `block` elements of `x` that start at `starts`.
pub(crate) fn blocks(
    x: &Tensor,
    shape: Vec<usize>,
    block: usize,
    starts: impl Iterator<Item = usize>,
) -> Result<Tensor, String> {
    let count = count(&shape)?;
    if count == 0 {
        return tensor(shape, Elements::zeros(x.dtype(), 0).ok_or("no plain type")?);
    }
    let elements = x.elements().map(&mut Copy { block, count, starts });
    tensor(shape, elements)
}

/// Row-major strides.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i];
    }
    strides
}

/// The offsets `start + sum of index * stride` for every index of `shape`, in order.
pub(crate) struct Walk {
    shape: Vec<usize>,
    strides: Vec<isize>,
    index: Vec<usize>,
    at: isize,
    left: usize,
}

impl Walk {
    pub(crate) fn new(shape: &[usize], strides: &[isize], start: usize) -> Walk {
        Walk {
            shape: shape.to_vec(),
            strides: strides.to_vec(),
            index: vec![0; shape.len()],
            at: start.cast_signed(),
            left: shape.iter().product(),
        }
    }
}

impl Iterator for Walk {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let now = self.at.cast_unsigned();
        for d in (0..self.shape.len()).rev() {
            self.index[d] += 1;
            self.at += self.strides[d];
            if self.index[d] < self.shape[d] {
                break;
            }
            self.at -= self.strides[d] * self.shape[d].cast_signed();
            self.index[d] = 0;
        }
        Some(now)
    }
}

/// A tensor of `shape` whose element at each index is that of `x` at `start + index * strides`.
pub(crate) fn strided(
    x: &Tensor,
    shape: Vec<usize>,
    steps: &[isize],
    start: usize,
) -> Result<Tensor, String> {
    // Trailing dimensions that lie together are copied as one block.
    let mut block = 1;
    let mut outer = shape.len();
    while outer > 0 && steps[outer - 1] == block as isize {
        block *= shape[outer - 1];
        outer -= 1;
    }
    if shape.contains(&0) {
        return blocks(x, shape, 1, std::iter::empty());
    }
    let walk = Walk::new(&shape[..outer], &steps[..outer], start);
    blocks(x, shape, block, walk)
}

fn reshaped(x: &Tensor, shape: Vec<usize>) -> Result<Tensor, String> {
    tensor(shape, x.elements().clone())
}

pub(crate) fn reshape(x: &Tensor, wanted: &[i64], allow_zero: bool) -> Result<Tensor, String> {
    reshaped(x, reshape_shape(x.shape(), wanted, allow_zero)?)
}

pub(crate) fn flatten(x: &Tensor, axis: i64) -> Result<Tensor, String> {
    reshaped(x, flat(x.shape(), axis)?)
}

pub(crate) fn squeeze(x: &Tensor, axes: Option<&[i64]>) -> Result<Tensor, String> {
    reshaped(x, squeezed(x.shape(), axes)?)
}

pub(crate) fn unsqueeze(x: &Tensor, axes: &[i64]) -> Result<Tensor, String> {
    reshaped(x, unsqueezed(x.shape(), axes)?)
}

pub(crate) fn transpose(x: &Tensor, axes: &[usize]) -> Result<Tensor, String> {
    let axes = permutation(axes, x.shape().len())?;
    let from = strides(x.shape());
    let shape: Vec<usize> = axes.iter().map(|&a| x.shape()[a]).collect();
    let steps: Vec<isize> = axes.iter().map(|&a| from[a].cast_signed()).collect();
    strided(x, shape, &steps, 0)
}

pub(crate) fn concat(operands: &[&Tensor], at: i64) -> Result<Tensor, String> {
    let shapes: Vec<&[usize]> = operands.iter().map(|x| x.shape()).collect();
    let shape = concat_shape(&shapes, at)?;
    let a = axis(at, shape.len())?;
    let outer = count(&shape[..a])?;
    let mut elements = Elements::zeros(operands[0].dtype(), 0).ok_or("no plain type")?;
    for i in 0..outer {
        for x in operands {
            let block = x.elements().len() / outer.max(1);
            append(&mut elements, x.elements(), i * block..(i + 1) * block)?;
        }
    }
    tensor(shape, elements)
}

fn append(to: &mut Elements, from: &Elements, range: std::ops::Range<usize>) -> Result<(), String> {
    macro_rules! extend {
        ($($variant:ident),*) => {
            match (to, from) {
                $((Elements::$variant(to), Elements::$variant(from)) => to.extend_from_slice(&from[range]),)*
                (Elements::Narrow(a, to), Elements::Narrow(b, from)) if a == b => to.extend_from_slice(&from[range]),
                (to, from) => return Err(format!("{} beside {}", to.dtype(), from.dtype())),
            }
        };
    }
    extend!(F64, F32, F16, BF16, I64, I32, I16, I8, U64, U32, U16, U8, Bool, Text);
    Ok(())
}

pub(crate) fn split(
    x: &Tensor,
    at: i64,
    lengths: Option<&[i64]>,
    parts: usize,
) -> Result<Vec<Tensor>, String> {
    let a = axis(at, x.shape().len())?;
    let lengths = split_lengths(x.shape()[a], lengths, parts)?;
    let steps: Vec<isize> = strides(x.shape()).into_iter().map(usize::cast_signed).collect();
    let mut start = 0;
    lengths
        .into_iter()
        .map(|length| {
            let mut shape = x.shape().to_vec();
            shape[a] = length;
            let part = strided(x, shape, &steps, start * steps[a].unsigned_abs());
            start += length;
            part
        })
        .collect()
}

pub(crate) fn slice(x: &Args<'_>) -> Result<Tensor, String> {
    let data = x.get(0)?;
    let (starts, ends) = (x.i64s(1)?, x.i64s(2)?);
    let (axes, steps) = (x.optional_i64s(3)?, x.optional_i64s(4)?);
    let ranges = slice_ranges(data.shape(), &starts, &ends, axes.as_deref(), steps.as_deref())?;
    let strides = strides(data.shape());
    let start = ranges.iter().zip(&strides).map(|(range, stride)| range.start * stride).sum();
    let steps: Vec<isize> =
        ranges.iter().zip(&strides).map(|(range, stride)| range.step * stride.cast_signed()).collect();
    strided(data, ranges.iter().map(|range| range.length).collect(), &steps, start)
}

/// `x` stretched to `shape`, with which it broadcasts.
pub(crate) fn stretched(x: &Tensor, shape: &[usize]) -> Result<Tensor, String> {
    let steps = super::elementwise::stretched_strides(x.shape(), shape);
    let steps: Vec<isize> = steps.into_iter().map(usize::cast_signed).collect();
    strided(x, shape.to_vec(), &steps, 0)
}

pub(crate) fn expand(x: &Tensor, wanted: &[i64]) -> Result<Tensor, String> {
    stretched(x, &broadcast(&[x.shape(), &dims(wanted)?])?)
}

pub(crate) fn tile(x: &Tensor, repeats: &[i64]) -> Result<Tensor, String> {
    let shape = tiled(x.shape(), repeats)?;
    gathered(x, &shape, |d, i| Some(i % x.shape()[d].max(1)))
}

/// A tensor of `shape` whose element at an index is that of `x` where `from(dimension, index)` says, or the default.
fn gathered(
    x: &Tensor,
    shape: &[usize],
    from: impl Fn(usize, usize) -> Option<usize>,
) -> Result<Tensor, String> {
    let strides = strides(x.shape());
    let tables: Vec<Vec<usize>> = shape
        .iter()
        .enumerate()
        .map(|(d, &length)| {
            (0..length).map(|i| from(d, i).map_or(usize::MAX, |from| from * strides[d])).collect()
        })
        .collect();
    let ones = vec![0isize; shape.len()];
    let mut index = vec![0usize; shape.len()];
    let starts = Walk::new(shape, &ones, 0).map(|_| {
        let mut offset = 0usize;
        for (table, &i) in tables.iter().zip(&index) {
            offset =
                if table[i] == usize::MAX || offset == usize::MAX { usize::MAX } else { offset + table[i] };
        }
        for d in (0..shape.len()).rev() {
            index[d] += 1;
            if index[d] < shape[d] {
                break;
            }
            index[d] = 0;
        }
        offset
    });
    blocks(x, shape.to_vec(), 1, starts)
}

/// Which of `length` places stands at `at`, which may lie before or behind them; none if a constant does.
fn pad_place(mode: PadMode, at: i64, length: usize) -> Option<usize> {
    let length = length as i64;
    let at = match mode {
        _ if (0..length).contains(&at) => at,
        PadMode::Constant => return None,
        PadMode::Edge => at.clamp(0, length - 1),
        PadMode::Wrap => at.rem_euclid(length),
        PadMode::Reflect if length == 1 => 0,
        PadMode::Reflect => {
            let at = at.rem_euclid(2 * (length - 1));
            if at < length { at } else { 2 * (length - 1) - at }
        }
    };
    usize::try_from(at).ok()
}

/// Along each dimension of a tensor of `shape`, none of them 0, padded by `pads` (along `axes`, or all): which place stands
/// at each; none where a constant does.
pub(crate) fn pad_places(
    mode: PadMode,
    shape: &[usize],
    pads: &[i64],
    axes: Option<&[i64]>,
) -> Result<Vec<Vec<Option<usize>>>, String> {
    let amounts = pad_amounts(shape.len(), pads, axes)?;
    let along = |d: usize, length: usize| {
        let place = |i: usize| pad_place(mode, i as i64 - amounts[d].0, shape[d]);
        (0..length).map(place).collect()
    };
    Ok(padded(shape, &amounts)?.into_iter().enumerate().map(|(d, length)| along(d, length)).collect())
}

pub(crate) fn pad(mode: PadMode, x: &Args<'_>) -> Result<Tensor, String> {
    let data = x.get(0)?;
    let amounts = pad_amounts(data.shape().len(), &x.i64s(1)?, x.optional_i64s(3)?.as_deref())?;
    let shape = padded(data.shape(), &amounts)?;
    if count(&shape)? > 0 && data.elements().is_empty() && mode != PadMode::Constant {
        return Err(format!("nothing to repeat in {:?}", data.shape()));
    }
    let from = |d: usize, i: usize| pad_place(mode, i as i64 - amounts[d].0, data.shape()[d]);
    let value = x.optional(2).filter(|value| !value.elements().is_empty());
    let Some(value) = value.filter(|_| mode == PadMode::Constant) else {
        return gathered(data, &shape, from);
    };
    // The value stands behind the data, so that padding copies it.
    if value.dtype() != data.dtype() {
        return Err(format!("padding of {} with {}", data.dtype(), value.dtype()));
    }
    let mut elements = data.elements().clone();
    append(&mut elements, value.elements(), 0..1)?;
    let with_value = tensor([elements.len()], elements)?;
    // Place 0 is padding: places count from 1.
    let places = Elements::I64((1..=data.elements().len() as i64).collect());
    let places = gathered(&tensor(data.shape(), places)?, &shape, from)?;
    let end = data.elements().len();
    let starts = super::values::<i64>(&places)?.iter().map(|&p| if p == 0 { end } else { p as usize - 1 });
    blocks(&with_value, shape, 1, starts)
}

pub(crate) fn depth_to_space(blocks: &Blocks, x: &Tensor) -> Result<Tensor, String> {
    let shape = block_shape(x.shape(), blocks.size, false)?;
    let (b, [n, c, h, w]) = (blocks.size, sizes(x)?);
    let c = c / (b * b);
    let (wide, axes) = match blocks.columns_first {
        true => (vec![n, c, b, b, h, w], [0, 1, 4, 2, 5, 3]),
        false => (vec![n, b, b, c, h, w], [0, 3, 4, 1, 5, 2]),
    };
    reshaped(&transpose(&reshaped(x, wide)?, &axes)?, shape)
}

pub(crate) fn space_to_depth(blocks: &Blocks, x: &Tensor) -> Result<Tensor, String> {
    let shape = block_shape(x.shape(), blocks.size, true)?;
    let (b, [n, c, h, w]) = (blocks.size, sizes(x)?);
    let axes = if blocks.columns_first { [0, 1, 3, 5, 2, 4] } else { [0, 3, 5, 1, 2, 4] };
    reshaped(&transpose(&reshaped(x, vec![n, c, h / b, b, w / b, b])?, &axes)?, shape)
}

fn sizes(x: &Tensor) -> Result<[usize; 4], String> {
    x.shape().try_into().map_err(|_| format!("{:?} is no image", x.shape()))
}

pub(crate) fn shape(x: &Tensor, start: i64, end: Option<i64>) -> Tensor {
    let range = shape_range(x.shape().len(), start, end);
    Tensor::list(x.shape()[range].iter().map(|&d| d as i64).collect())
}

pub(crate) fn center_crop_pad(x: &Tensor, wanted: &[i64], axes: &[i64]) -> Result<Tensor, String> {
    let rank = x.shape().len();
    let axes = if axes.is_empty() { (0..rank).collect() } else { distinct_axes(axes, rank)? };
    let wanted = dims(wanted)?;
    if wanted.len() != axes.len() {
        return Err(format!("{} lengths for {} dimensions", wanted.len(), axes.len()));
    }
    let mut shape = x.shape().to_vec();
    axes.iter().zip(&wanted).for_each(|(&a, &length)| shape[a] = length);
    gathered(x, &shape, |d, i| {
        let (have, want) = (x.shape()[d], shape[d]);
        if want <= have {
            Some(i + (have - want) / 2)
        } else {
            i.checked_sub((want - have) / 2).filter(|&i| i < have)
        }
    })
}

pub(crate) fn reverse_sequence(
    x: &Tensor,
    lengths: &[i64],
    time_axis: usize,
    batch_axis: usize,
) -> Result<Tensor, String> {
    let shape = x.shape();
    if time_axis >= shape.len() || batch_axis >= shape.len() || lengths.len() != shape[batch_axis] {
        return Err(format!("{} lengths for {shape:?}", lengths.len()));
    }
    let strides = strides(shape);
    let walk = Walk::new(shape, &strides.iter().map(|s| s.cast_signed()).collect::<Vec<_>>(), 0);
    let starts = walk.map(|at| {
        let (t, b) =
            (at / strides[time_axis] % shape[time_axis], at / strides[batch_axis] % shape[batch_axis]);
        let length = usize::try_from(lengths[b]).unwrap_or(0).min(shape[time_axis]);
        if t < length { at - t * strides[time_axis] + (length - 1 - t) * strides[time_axis] } else { at }
    });
    blocks(x, shape.to_vec(), 1, starts)
}

pub(crate) fn triangle(x: &Tensor, k: i64, upper: bool) -> Result<Tensor, String> {
    let &[.., rows, columns] = x.shape() else { return Err(format!("{:?} is no matrix", x.shape())) };
    let starts = (0..x.elements().len()).map(|at| {
        let (row, column) = ((at / columns % rows) as i64, (at % columns) as i64);
        let distance = column - row;
        if if upper { distance >= k } else { distance <= k } { at } else { usize::MAX }
    });
    blocks(x, x.shape().to_vec(), 1, starts)
}
