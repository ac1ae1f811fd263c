//! Branches, loops, sequences and optional values.

use super::{Context, Datum, f64s, from_f64, run_graph, tensor, truth};
use crate::ops::fact::{axis, dims};
use crate::ops::{Body, FlexAttention, Loop, Scan, TensorOp};
use kun_tensor::{DType, Elements, Tensor};
use std::sync::Arc;

/// Rounds of a loop without an end.
const MOST_ROUNDS: i64 = 1 << 32;

fn tensor_of<'a>(operands: &[Option<&'a Datum>], i: usize) -> Result<Option<&'a Arc<Tensor>>, String> {
    match operands.get(i).copied().flatten() {
        None | Some(Datum::Nothing) => Ok(None),
        Some(Datum::Tensor(tensor)) => Ok(Some(tensor)),
        Some(Datum::Sequence(_)) => Err(format!("operand {i} is a sequence")),
    }
}

fn required<'a>(operands: &[Option<&'a Datum>], i: usize) -> Result<&'a Arc<Tensor>, String> {
    tensor_of(operands, i)?.ok_or_else(|| format!("operand {i} is missing"))
}

fn sequence<'a>(operands: &[Option<&'a Datum>], i: usize) -> Result<&'a [Datum], String> {
    match operands.get(i).copied().flatten() {
        Some(Datum::Sequence(items)) => Ok(items),
        _ => Err(format!("operand {i} is no sequence")),
    }
}

fn index(operands: &[Option<&Datum>], i: usize, length: usize) -> Result<Option<usize>, String> {
    let Some(tensor) = tensor_of(operands, i)? else { return Ok(None) };
    let [value] = super::integers(tensor)?[..] else { return Err(format!("operand {i} is not one integer")) };
    let from_end = if value < 0 { value + length as i64 } else { value };
    usize::try_from(from_end)
        .ok()
        .filter(|&at| at <= length)
        .map(Some)
        .ok_or_else(|| format!("position {value} of {length}"))
}

pub(crate) fn run(
    op: &TensorOp,
    operands: &[Option<&Datum>],
    results: usize,
    context: &Context<'_>,
) -> Result<Vec<Datum>, String> {
    let owned = |i: usize| operands.get(i).copied().flatten().cloned();
    match op {
        TensorOp::If { then, otherwise } => {
            let body = if truth(required(operands, 0)?)? { then } else { otherwise };
            run_graph(&body.graph, operands[1..].iter().map(|x| x.cloned()), context)
        }
        TensorOp::Loop(looped) => run_loop(looped, operands, context),
        TensorOp::Scan(scan) => run_scan(scan, operands, context),
        TensorOp::FlexAttention(flex) => flex_attention(flex, operands, context),
        TensorOp::SequenceConstruct => {
            let items: Option<Vec<Datum>> = operands.iter().map(|x| x.cloned()).collect();
            Ok(vec![Datum::Sequence(items.ok_or("an item is missing")?)])
        }
        TensorOp::SequenceEmpty => Ok(vec![Datum::Sequence(Vec::new())]),
        TensorOp::SequenceInsert => {
            let mut items = sequence(operands, 0)?.to_vec();
            let at = index(operands, 2, items.len())?.unwrap_or(items.len());
            items.insert(at, owned(1).ok_or("no item")?);
            Ok(vec![Datum::Sequence(items)])
        }
        TensorOp::SequenceErase => {
            let mut items = sequence(operands, 0)?.to_vec();
            let at = index(operands, 1, items.len())?.unwrap_or(items.len().saturating_sub(1));
            if at >= items.len() {
                return Err(format!("position {at} of {}", items.len()));
            }
            items.remove(at);
            Ok(vec![Datum::Sequence(items)])
        }
        TensorOp::SequenceAt => {
            let items = sequence(operands, 0)?;
            let at = index(operands, 1, items.len())?.ok_or("no position")?;
            Ok(vec![items.get(at).cloned().ok_or_else(|| format!("position {at} of {}", items.len()))?])
        }
        TensorOp::SequenceLength => {
            Ok(vec![Datum::from(Tensor::scalar(sequence(operands, 0)?.len() as i64))])
        }
        TensorOp::SplitToSequence { axis, keep_dims } => {
            split(required(operands, 0)?, tensor_of(operands, 1)?, *axis, *keep_dims)
        }
        TensorOp::ConcatFromSequence { axis, new_axis } => {
            let items = sequence(operands, 0)?;
            Ok(vec![Datum::from(joined(items, *axis, *new_axis)?)])
        }
        TensorOp::SequenceMap(body) => sequence_map(body, operands, results, context),
        TensorOp::Optional => Ok(vec![owned(0).unwrap_or(Datum::Nothing)]),
        TensorOp::OptionalGet => match owned(0) {
            None | Some(Datum::Nothing) => Err("the optional value is not there".into()),
            Some(datum) => Ok(vec![datum]),
        },
        TensorOp::OptionalHas => {
            let has = !matches!(owned(0), None | Some(Datum::Nothing));
            Ok(vec![Datum::from(Tensor::scalar(has))])
        }
        _ => Err("an operation on tensors alone".into()),
    }
}

/// Tensors side by side along an axis, which may be new.
fn joined(items: &[Datum], at: i64, new_axis: bool) -> Result<Tensor, String> {
    let tensors: Option<Vec<&Arc<Tensor>>> = items.iter().map(Datum::tensor).collect();
    let tensors = tensors.ok_or("items that are no tensors")?;
    if !new_axis {
        return super::layout::concat(&tensors.iter().map(|t| &***t).collect::<Vec<_>>(), at);
    }
    let wide: Vec<Tensor> =
        tensors.iter().map(|t| super::layout::unsqueeze(t, &[at])).collect::<Result<_, _>>()?;
    super::layout::concat(&wide.iter().collect::<Vec<_>>(), at)
}

fn split(
    x: &Tensor,
    lengths: Option<&Arc<Tensor>>,
    split_axis: i64,
    keep_dims: bool,
) -> Result<Vec<Datum>, String> {
    let a = axis(split_axis, x.shape().len())?;
    let length = x.shape()[a];
    let (parts, squeeze) = match lengths {
        Some(given) if given.shape().is_empty() => {
            let each = dims(&super::integers(given)?)?[0].max(1);
            ((0..length).step_by(each).map(|i| each.min(length - i) as i64).collect::<Vec<_>>(), false)
        }
        Some(given) => (super::integers(given)?, false),
        None => (vec![1; length], !keep_dims),
    };
    let parts = super::layout::split(x, split_axis, Some(&parts), parts.len())?;
    let items = parts
        .into_iter()
        .map(|part| {
            Ok(Datum::from(if squeeze { super::layout::squeeze(&part, Some(&[a as i64]))? } else { part }))
        })
        .collect::<Result<Vec<_>, String>>()?;
    Ok(vec![Datum::Sequence(items)])
}

fn run_loop(looped: &Loop, operands: &[Option<&Datum>], context: &Context<'_>) -> Result<Vec<Datum>, String> {
    let trips = match tensor_of(operands, 0)? {
        Some(trips) => super::integers(trips)?.first().copied().ok_or("no trip count")?,
        None => MOST_ROUNDS,
    };
    let mut going = tensor_of(operands, 1)?.map_or(Ok(true), |c| truth(c))?;
    let carried = looped.carried;
    if operands.len() != 2 + carried + looped.body.captures {
        return Err(format!("{} operands of a loop", operands.len()));
    }
    let mut values: Vec<Option<Datum>> = operands[2..2 + carried].iter().map(|x| x.cloned()).collect();
    let captured = &operands[2 + carried..];
    let mut collected: Vec<Vec<Datum>> = vec![Vec::new(); looped.body.graph.outputs.len() - 1 - carried];
    let mut round = 0i64;
    while going && round < trips {
        let inputs = [Some(Datum::from(Tensor::scalar(round))), Some(Datum::from(Tensor::scalar(true)))]
            .into_iter()
            .chain(values)
            .chain(captured.iter().map(|x| x.cloned()));
        let mut results = run_graph(&looped.body.graph, inputs, context)?.into_iter();
        let condition = results.next().ok_or("no condition")?;
        going = truth(condition.tensor().ok_or("a condition that is no tensor")?)?;
        values = results.by_ref().take(carried).map(Some).collect();
        collected.iter_mut().zip(results).for_each(|(list, datum)| list.push(datum));
        round += 1;
    }
    let mut out: Vec<Datum> = values.into_iter().map(|v| v.unwrap_or(Datum::Nothing)).collect();
    for (i, list) in collected.iter().enumerate() {
        if list.is_empty() {
            out.push(Datum::from(nothing_collected(&looped.body, 1 + carried + i)?));
        } else {
            out.push(Datum::from(joined(list, 0, true)?));
        }
    }
    Ok(out)
}

/// What a loop of no rounds collects: as the body declares it, with a length of 0.
fn nothing_collected(body: &Body, output: usize) -> Result<Tensor, String> {
    let info = body.graph.value(body.graph.outputs[output]);
    let rest = info.shape.iter().map(|dim| match dim {
        crate::graph::Dim::Const(n) => *n,
        _ => 0,
    });
    let shape = std::iter::once(0).chain(rest).collect::<Vec<_>>();
    tensor(shape, Elements::zeros(info.dtype, 0).ok_or("no plain type")?)
}

fn run_scan(scan: &Scan, operands: &[Option<&Datum>], context: &Context<'_>) -> Result<Vec<Datum>, String> {
    if scan.batched {
        return run_batched_scan(scan, operands, context);
    }
    let mut states: Vec<Option<Datum>> = operands[..scan.states].iter().map(|x| x.cloned()).collect();
    let captured = &operands[scan.states + scan.scanned..];
    let mut slices: Vec<Vec<Tensor>> = Vec::new();
    for i in 0..scan.scanned {
        let x = required(operands, scan.states + i)?;
        let a = axis(scan.input_axes.get(i).copied().unwrap_or(0), x.shape().len())?;
        let mut parts = super::layout::split(x, a as i64, Some(&vec![1; x.shape()[a]]), x.shape()[a])?;
        if scan.input_reverse.get(i) == Some(&true) {
            parts.reverse();
        }
        slices.push(
            parts
                .into_iter()
                .map(|p| super::layout::squeeze(&p, Some(&[a as i64])))
                .collect::<Result<_, _>>()?,
        );
    }
    let rounds = slices.first().map_or(0, Vec::len);
    if slices.iter().any(|s| s.len() != rounds) {
        return Err("operands of different lengths".into());
    }
    let mut collected: Vec<Vec<Datum>> = vec![Vec::new(); scan.body.graph.outputs.len() - scan.states];
    for round in 0..rounds {
        let inputs = states
            .into_iter()
            .chain(slices.iter().map(|s| Some(Datum::from(s[round].clone()))))
            .chain(captured.iter().map(|x| x.cloned()));
        let mut results = run_graph(&scan.body.graph, inputs, context)?.into_iter();
        states = results.by_ref().take(scan.states).map(Some).collect();
        collected.iter_mut().zip(results).for_each(|(list, datum)| list.push(datum));
    }
    let mut out: Vec<Datum> = states.into_iter().map(|v| v.unwrap_or(Datum::Nothing)).collect();
    for (i, list) in collected.iter_mut().enumerate() {
        if scan.output_reverse.get(i) == Some(&true) {
            list.reverse();
        }
        if list.is_empty() {
            out.push(Datum::from(nothing_collected(&scan.body, scan.states + i)?));
        } else {
            out.push(Datum::from(joined(list, scan.output_axes.get(i).copied().unwrap_or(0), true)?));
        }
    }
    Ok(out)
}

/// Version 8: one scan per item of the batch.
fn run_batched_scan(
    scan: &Scan,
    operands: &[Option<&Datum>],
    context: &Context<'_>,
) -> Result<Vec<Datum>, String> {
    if tensor_of(operands, 0)?.is_some_and(|lengths| !lengths.elements().is_empty()) {
        return Err("lengths of a scan of version 8".into());
    }
    let own = scan.states + scan.scanned;
    let batch = required(operands, 1)?.shape().first().copied().unwrap_or(0);
    let single = Scan { batched: false, ..scan.clone() };
    let mut all: Vec<Vec<Datum>> = Vec::new();
    for b in 0..batch {
        let mut items: Vec<Datum> = Vec::new();
        for i in 0..own {
            let x = required(operands, 1 + i)?;
            items.push(Datum::from(super::gather::gather(x, &Tensor::scalar(b as i64), 0)?));
        }
        let given: Vec<Option<&Datum>> =
            items.iter().map(Some).chain(operands[1 + own..].iter().copied()).collect();
        let results = run_scan(&single, &given, context)?;
        all.resize(results.len(), Vec::new());
        all.iter_mut().zip(results).for_each(|(list, datum)| list.push(datum));
    }
    all.iter().map(|list| joined(list, 0, true).map(Datum::from)).collect()
}

fn sequence_map(
    body: &Body,
    operands: &[Option<&Datum>],
    results: usize,
    context: &Context<'_>,
) -> Result<Vec<Datum>, String> {
    let length = sequence(operands, 0)?.len();
    let own = operands.len() - body.captures;
    let mut out: Vec<Vec<Datum>> = vec![Vec::new(); results];
    for i in 0..length {
        let given = operands.iter().enumerate().map(|(n, x)| match x {
            Some(Datum::Sequence(items)) if n < own => items.get(i).cloned(),
            x => x.cloned(),
        });
        let items = run_graph(&body.graph, given, context)?;
        out.iter_mut().zip(items).for_each(|(list, datum)| list.push(datum));
    }
    Ok(out.into_iter().map(Datum::Sequence).collect())
}

fn flex_attention(
    flex: &FlexAttention,
    operands: &[Option<&Datum>],
    context: &Context<'_>,
) -> Result<Vec<Datum>, String> {
    let (q, k, v) = (required(operands, 0)?, required(operands, 1)?, required(operands, 2)?);
    let captured = &operands[3..];
    let narrow = matches!(q.dtype(), DType::F16 | DType::BF16);
    let dtype = flex.softmax_type.unwrap_or(if narrow { DType::F32 } else { q.dtype() });
    let (shape, values) = super::attention::scores(q, k, flex.scale)?;
    let modified =
        |body: &Option<Body>, values: Vec<f64>, captured: &[Option<&Datum>]| -> Result<Vec<f64>, String> {
            let Some(body) = body else { return Ok(values) };
            let given = Datum::from(from_f64(shape.clone(), values, dtype)?);
            let inputs = std::iter::once(Some(given)).chain(captured.iter().map(|x| x.cloned()));
            let results = run_graph(&body.graph, inputs, context)?;
            let result = results.first().and_then(Datum::tensor).ok_or("no result")?;
            if result.shape() != shape {
                return Err(format!("scores of {shape:?} became {:?}", result.shape()));
            }
            f64s(result)
        };
    let mut values = modified(&flex.score_mod, values, &captured[..flex.score_captures.min(captured.len())])?;
    super::attention::softmax_rows(&mut values, shape[3]);
    let values = modified(&flex.prob_mod, values, &captured[flex.score_captures.min(captured.len())..])?;
    let (out_shape, out) = super::attention::weighted(&values, &shape, v)?;
    Ok(vec![Datum::from(from_f64(out_shape, out, q.dtype())?)])
}
