//! Operations that pick or place elements by index.

use super::layout::{Walk, blocks, strides};
use super::number::{Number, with_numbers};
use super::reduce::around;
use super::{Args, tensor};
use crate::ops::fact::{axis, count};
use crate::ops::gather::{gather_nd_shape, top_count};
use crate::ops::{Scatter, TopK};
use kun_tensor::{Element, Elements, Tensor, with_elements};
use std::cmp::Ordering;

/// `index` of `length` elements, negative from the end.
fn at(index: i64, length: usize) -> Result<usize, String> {
    let positive = if index < 0 { index.saturating_add(length as i64) } else { index };
    usize::try_from(positive)
        .ok()
        .filter(|&i| i < length)
        .ok_or_else(|| format!("index {index} of {length} elements"))
}

pub(crate) fn gather(x: &Tensor, indices: &Tensor, gather_axis: i64) -> Result<Tensor, String> {
    let a = axis(gather_axis, x.shape().len())?;
    let (outer, length, inner) = around(x.shape(), a)?;
    let rows = super::integers(indices)?.iter().map(|&i| at(i, length)).collect::<Result<Vec<_>, _>>()?;
    let shape = [&x.shape()[..a], indices.shape(), &x.shape()[a + 1..]].concat();
    let rows = &rows;
    let starts = (0..outer).flat_map(|o| rows.iter().map(move |row| (o * length + row) * inner));
    blocks(x, shape, inner, starts)
}

/// For every index of `indices`: the offset in a tensor of `shape` with the index along `a` replaced.
fn element_offsets(shape: &[usize], indices: &Tensor, a: usize) -> Result<Vec<usize>, String> {
    let misfit = || format!("indices {:?} into {shape:?}", indices.shape());
    if indices.shape().len() != shape.len() {
        return Err(misfit());
    }
    if (0..shape.len()).any(|d| d != a && indices.shape()[d] > shape[d]) {
        return Err(misfit());
    }
    let to = strides(shape);
    let steps: Vec<isize> =
        to.iter().enumerate().map(|(d, s)| if d == a { 0 } else { s.cast_signed() }).collect();
    Walk::new(indices.shape(), &steps, 0)
        .zip(super::integers(indices)?)
        .map(|(base, index)| Ok(base + at(index, shape[a])? * to[a]))
        .collect()
}

pub(crate) fn gather_elements(x: &Tensor, indices: &Tensor, gather_axis: i64) -> Result<Tensor, String> {
    let a = axis(gather_axis, x.shape().len())?;
    let offsets = element_offsets(x.shape(), indices, a)?;
    blocks(x, indices.shape().to_vec(), 1, offsets.into_iter())
}

/// Offsets of the blocks that index vectors name, after `batch` shared dimensions, and the size of a block.
fn block_offsets(shape: &[usize], indices: &Tensor, batch: usize) -> Result<(Vec<usize>, usize), String> {
    let depth = indices.shape().last().copied().unwrap_or(0);
    let strides = strides(shape);
    let block = count(&shape[batch + depth..])?;
    let batches = count(&shape[..batch])?;
    let values = super::integers(indices)?;
    let vectors = count(&indices.shape()[..indices.shape().len() - 1])?;
    let per_batch = vectors.checked_div(batches).unwrap_or(0);
    let batch_stride = count(&shape[batch..])?;
    let offsets = (0..vectors)
        .map(|v| {
            let mut offset = v.checked_div(per_batch).unwrap_or(0) * batch_stride;
            for (d, &index) in values[v * depth..(v + 1) * depth].iter().enumerate() {
                offset += at(index, shape[batch + d])? * strides[batch + d];
            }
            Ok(offset)
        })
        .collect::<Result<Vec<_>, String>>()?;
    Ok((offsets, block))
}

pub(crate) fn gather_nd(x: &Tensor, indices: &Tensor, batch_dims: usize) -> Result<Tensor, String> {
    let shape = gather_nd_shape(x.shape(), indices.shape(), batch_dims)?;
    let (offsets, block) = block_offsets(x.shape(), indices, batch_dims)?;
    blocks(x, shape, block, offsets.into_iter())
}

fn combine<T: Number>(reduction: Scatter, old: T, new: T) -> T {
    match reduction {
        Scatter::Replace => new,
        Scatter::Add => old.add(new),
        Scatter::Mul => old.mul(new),
        Scatter::Max => {
            if new > old {
                new
            } else {
                old
            }
        }
        Scatter::Min => {
            if new < old {
                new
            } else {
                old
            }
        }
    }
}

/// `x` with `updates`, in blocks of `block` elements, put at `offsets`.
fn place(
    x: &Tensor,
    updates: &Tensor,
    offsets: &[usize],
    block: usize,
    reduction: Scatter,
) -> Result<Tensor, String> {
    if offsets.len() * block != updates.elements().len() || x.dtype() != updates.dtype() {
        return Err(format!("updates of {} {:?}", updates.dtype(), updates.shape()));
    }
    let mut elements = x.elements().clone();
    if reduction == Scatter::Replace {
        macro_rules! replace {
            ($($variant:ident),*) => {
                match (&mut elements, updates.elements()) {
                    $((Elements::$variant(out), Elements::$variant(new)) => {
                        for (i, &offset) in offsets.iter().enumerate() {
                            out[offset..offset + block].clone_from_slice(&new[i * block..(i + 1) * block]);
                        }
                    })*
                    (Elements::Narrow(_, out), Elements::Narrow(_, new)) => {
                        for (i, &offset) in offsets.iter().enumerate() {
                            out[offset..offset + block].copy_from_slice(&new[i * block..(i + 1) * block]);
                        }
                    }
                    _ => return Err("types differ".to_owned()),
                }
            };
        }
        replace!(F64, F32, F16, BF16, I64, I32, I16, I8, U64, U32, U16, U8, Bool, Text);
        return tensor(x.shape(), elements);
    }
    if let (Elements::Bool(out), Elements::Bool(new)) = (&mut elements, updates.elements()) {
        for (i, &offset) in offsets.iter().enumerate() {
            for j in 0..block {
                let (old, new) = (out[offset + j], new[i * block + j]);
                out[offset + j] = match reduction {
                    Scatter::Add | Scatter::Max => old | new,
                    _ => old & new,
                };
            }
        }
        return tensor(x.shape(), elements);
    }
    with_numbers!(&mut elements, out => {
        let new = super::values(updates)?;
        for (i, &offset) in offsets.iter().enumerate() {
            for j in 0..block {
                out[offset + j] = combine(reduction, out[offset + j], new[i * block + j]);
            }
        }
    });
    tensor(x.shape(), elements)
}

pub(crate) fn scatter_elements(
    x: &Tensor,
    indices: &Tensor,
    updates: &Tensor,
    scatter_axis: i64,
    reduction: Scatter,
) -> Result<Tensor, String> {
    let a = axis(scatter_axis, x.shape().len())?;
    let offsets = element_offsets(x.shape(), indices, a)?;
    place(x, updates, &offsets, 1, reduction)
}

pub(crate) fn scatter_nd(
    x: &Tensor,
    indices: &Tensor,
    updates: &Tensor,
    reduction: Scatter,
) -> Result<Tensor, String> {
    gather_nd_shape(x.shape(), indices.shape(), 0)?;
    let (offsets, block) = block_offsets(x.shape(), indices, 0)?;
    place(x, updates, &offsets, block, reduction)
}

pub(crate) fn tensor_scatter(
    past: &Tensor,
    update: &Tensor,
    starts: Option<&[i64]>,
    scatter_axis: i64,
    circular: bool,
) -> Result<Tensor, String> {
    let a = axis(scatter_axis, past.shape().len())?;
    let (outer, length, inner) = around(past.shape(), a)?;
    let misfit = || format!("an update of {:?} into {:?}", update.shape(), past.shape());
    if update.shape().len() != past.shape().len() || a == 0 {
        return Err(misfit());
    }
    let new = update.shape()[a];
    let batch = past.shape()[0];
    if update.elements().len() != outer * new * inner || starts.is_some_and(|s| s.len() != batch) {
        return Err(misfit());
    }
    let mut offsets = Vec::with_capacity(outer * new);
    for o in 0..outer {
        let start = starts.map_or(0, |starts| starts[o / (outer / batch.max(1)).max(1)]);
        for s in 0..new {
            let position = usize::try_from(start).map_err(|_| misfit())? + s;
            let position = if circular { position % length } else { position };
            if position >= length {
                return Err(misfit());
            }
            offsets.push((o * length + position) * inner);
        }
    }
    place(past, update, &offsets, inner, Scatter::Replace)
}

pub(crate) fn one_hot(x: &Args<'_>, at_axis: i64) -> Result<Tensor, String> {
    let indices = x.get(0)?;
    let depth = x.number(1)?;
    let a = axis(at_axis, indices.shape().len() + 1)?;
    let depth =
        if (0.0..1e9).contains(&depth) { depth as usize } else { return Err(format!("a depth of {depth}")) };
    let (outer, inner) = (count(&indices.shape()[..a])?, count(&indices.shape()[a..])?);
    let mut shape = indices.shape().to_vec();
    shape.insert(a, depth);
    let classes = super::f64s(indices)?;
    let starts = (0..outer).flat_map(|o| {
        let classes = &classes;
        (0..depth).flat_map(move |d| {
            (0..inner).map(move |i| {
                let class = classes[o * inner + i];
                let class = if class < 0.0 { class + depth as f64 } else { class };
                usize::from(class == d as f64)
            })
        })
    });
    let values = x.get(2)?;
    if values.elements().len() != 2 {
        return Err("values for off and on are needed".into());
    }
    blocks(values, shape, 1, starts)
}

pub(crate) fn compress(x: &Tensor, condition: &Tensor, at_axis: Option<i64>) -> Result<Tensor, String> {
    let keep = super::values::<bool>(condition)?;
    let (flat, a) = match at_axis {
        Some(a) => (x.shape().to_vec(), axis(a, x.shape().len())?),
        None => (vec![x.elements().len()], 0),
    };
    let (outer, length, inner) = around(&flat, a)?;
    let kept: Vec<usize> = (0..length.min(keep.len())).filter(|&i| keep[i]).collect();
    let mut shape = flat;
    shape[a] = kept.len();
    let kept = &kept;
    let starts = (0..outer).flat_map(|o| kept.iter().map(move |k| (o * length + k) * inner));
    blocks(x, shape, inner, starts)
}

pub(crate) fn non_zero(x: &Tensor) -> Result<Tensor, String> {
    let places: Vec<usize> = with_elements!(x.elements(), values => {
        let zero = zero_of(values);
        values.iter().enumerate().filter(|(_, v)| **v != zero).map(|(i, _)| i).collect()
    });
    let (shape, strides) = (x.shape(), strides(x.shape()));
    let mut out = Vec::with_capacity(places.len() * shape.len());
    for d in 0..shape.len() {
        out.extend(places.iter().map(|p| (p / strides[d] % shape[d]) as i64));
    }
    tensor([shape.len(), places.len()], Elements::I64(out))
}

fn zero_of<T: Default>(_: &[T]) -> T {
    T::default()
}

pub(crate) fn unique(x: &Tensor, at_axis: Option<i64>, sorted: bool) -> Result<Vec<Tensor>, String> {
    let (flat, a) = match at_axis {
        Some(a) => (x.shape().to_vec(), axis(a, x.shape().len())?),
        None => (vec![x.elements().len()], 0),
    };
    let (outer, length, inner) = around(&flat, a)?;
    // A slice is compared as the list of its elements.
    let compare = |i: usize, j: usize| -> Ordering {
        for o in 0..outer {
            for k in 0..inner {
                let (p, q) = ((o * length + i) * inner + k, (o * length + j) * inner + k);
                let order =
                    with_elements!(x.elements(), v => v[p].partial_cmp(&v[q]).unwrap_or(Ordering::Equal));
                if order != Ordering::Equal {
                    return order;
                }
            }
        }
        Ordering::Equal
    };
    let mut order: Vec<usize> = (0..length).collect();
    order.sort_by(|&i, &j| compare(i, j).then(i.cmp(&j)));
    // Groups of equals, each with its first appearance in front.
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for i in order {
        match groups.last_mut() {
            Some(group) if compare(group[0], i) == Ordering::Equal => group.push(i),
            _ => groups.push(vec![i]),
        }
    }
    if !sorted {
        groups.sort_by_key(|group| group[0]);
    }
    let mut inverse = vec![0i64; length];
    for (g, group) in groups.iter().enumerate() {
        group.iter().for_each(|&i| inverse[i] = g as i64);
    }
    let mut shape = flat;
    shape[a] = groups.len();
    let first = &groups;
    let starts = (0..outer).flat_map(|o| first.iter().map(move |g| (o * length + g[0]) * inner));
    Ok(vec![
        blocks(x, shape, inner, starts)?,
        Tensor::list(groups.iter().map(|g| g[0] as i64).collect()),
        Tensor::list(inverse),
        Tensor::list(groups.iter().map(|g| g.len() as i64).collect()),
    ])
}

pub(crate) fn top_k(top: &TopK, x: &Tensor, k: &[i64]) -> Result<Vec<Tensor>, String> {
    let a = axis(top.axis, x.shape().len())?;
    let (outer, length, inner) = around(x.shape(), a)?;
    let k = top_count(k, length)?;
    let mut shape = x.shape().to_vec();
    shape[a] = k;
    with_numbers!(x.elements(), values => {
        let mut best = vec![values.first().copied(); outer * k * inner];
        let mut places = vec![0i64; outer * k * inner];
        for o in 0..outer {
            for i in 0..inner {
                let value = |n: usize| values[(o * length + n) * inner + i];
                let mut order: Vec<usize> = (0..length).collect();
                let compare = |&p: &usize, &q: &usize| {
                    let ascending = value(p).partial_cmp(&value(q)).unwrap_or(Ordering::Equal);
                    (if top.largest { ascending.reverse() } else { ascending }).then(p.cmp(&q))
                };
                if k > 0 && k < length {
                    order.select_nth_unstable_by(k - 1, compare);
                    order.truncate(k);
                }
                order.sort_by(compare);
                for (n, &p) in order.iter().take(k).enumerate() {
                    best[(o * k + n) * inner + i] = Some(value(p));
                    places[(o * k + n) * inner + i] = p as i64;
                }
            }
        }
        let best = best.into_iter().flatten().collect();
        Ok(vec![tensor(shape.clone(), Element::wrap(best))?, tensor(shape, Elements::I64(places))?])
    })
}
