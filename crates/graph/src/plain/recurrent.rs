//! Recurrent layers.

use super::elementwise::function;
use super::matmul::multiply;
use super::{Args, f64s, from_f64};
use crate::ops::{Cell, Direction, Recurrent, Unary};
use kun_tensor::Tensor;

/// Weights of one direction.
struct Weights {
    /// `[inputs, gates * H]`.
    w: Vec<f64>,
    /// `[H, gates * H]`.
    r: Vec<f64>,
    /// `[gates * H]` each.
    w_bias: Vec<f64>,
    r_bias: Vec<f64>,
    /// Peepholes of input, output and forget gate, `[3 * H]`.
    peepholes: Option<Vec<f64>>,
    activations: Vec<Unary>,
}

struct Sizes {
    batch: usize,
    inputs: usize,
    hidden: usize,
}

fn transposed(values: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    (0..columns).flat_map(|c| (0..rows).map(move |r| values[r * columns + c])).collect()
}

pub(crate) fn run(recurrent: &Recurrent, x: &Args<'_>) -> Result<Vec<Tensor>, String> {
    let data = x.get(0)?;
    let dtype = data.dtype();
    let turned = |x: &Tensor, rank: usize| {
        let mut axes: Vec<usize> = (0..rank).collect();
        axes.swap(0, 1);
        super::layout::transpose(x, &axes)
    };
    let data = if recurrent.batch_first { turned(data, 3)? } else { data.clone() };
    let &[steps, batch, inputs] = data.shape() else {
        return Err(format!("{:?} is no sequence", data.shape()));
    };
    let (gates, directions) = (recurrent.cell.gates(), recurrent.directions());
    let hidden =
        if recurrent.hidden > 0 { recurrent.hidden } else { x.get(2)?.shape().last().copied().unwrap_or(0) };
    let sizes = Sizes { batch, inputs, hidden };
    let all = |i: usize, each: usize| -> Result<Option<Vec<f64>>, String> {
        let Some(list) = x.optional(i) else { return Ok(None) };
        let values = f64s(list)?;
        if values.len() == directions * each {
            Ok(Some(values))
        } else {
            Err(format!("operand {i} is {:?}, not {directions} x {each}", list.shape()))
        }
    };
    let initial = |i: usize| -> Result<Vec<f64>, String> {
        if let (true, Some(list)) = (recurrent.batch_first, x.optional(i)) {
            return f64s(&turned(list, 3)?);
        }
        Ok(all(i, batch * hidden)?.unwrap_or_else(|| vec![0.0; directions * batch * hidden]))
    };
    let w = all(1, gates * hidden * inputs)?.ok_or("no weights")?;
    let r = all(2, gates * hidden * hidden)?.ok_or("no recurrent weights")?;
    let bias = all(3, 2 * gates * hidden)?;
    let lengths = x.optional_i64s(4)?;
    if lengths.as_ref().is_some_and(|l| l.len() != batch) {
        return Err(format!("lengths for {batch} items are needed"));
    }
    let peepholes = all(7, 3 * hidden)?;
    let (mut h, mut c) = (initial(5)?, initial(6)?);
    if h.len() != directions * batch * hidden || c.len() != h.len() {
        return Err("an initial state of another size".into());
    }
    let values = f64s(&data)?;
    let mut y = vec![0.0; steps * directions * batch * hidden];
    let each = recurrent.activations.len() / directions;
    for d in 0..directions {
        let part = |list: &[f64]| {
            let size = list.len() / directions;
            list[d * size..(d + 1) * size].to_vec()
        };
        let (w_bias, r_bias) = match &bias {
            Some(bias) => {
                let both = part(bias);
                let (w, r) = both.split_at(gates * hidden);
                (w.to_vec(), r.to_vec())
            }
            None => (vec![0.0; gates * hidden], vec![0.0; gates * hidden]),
        };
        let weights = Weights {
            w: transposed(&part(&w), gates * hidden, inputs),
            r: transposed(&part(&r), gates * hidden, hidden),
            w_bias,
            r_bias,
            peepholes: peepholes.as_deref().map(part),
            activations: recurrent.activations[d * each..(d + 1) * each].to_vec(),
        };
        let reverse = d == 1 || recurrent.direction == Direction::Reverse;
        let size = batch * hidden;
        let (h, c) = (&mut h[d * size..(d + 1) * size], &mut c[d * size..(d + 1) * size]);
        for step in 0..steps {
            // By item: the step that is read, or none beyond its length.
            let at = |b: usize| {
                let length =
                    lengths.as_ref().map_or(steps, |l| usize::try_from(l[b]).unwrap_or(0).min(steps));
                (step < length).then(|| if reverse { length - 1 - step } else { step })
            };
            let mut input = vec![0.0; batch * inputs];
            for b in 0..batch {
                if let Some(at) = at(b) {
                    input[b * inputs..(b + 1) * inputs]
                        .copy_from_slice(&values[(at * batch + b) * inputs..][..inputs]);
                }
            }
            let (new_h, new_c) = advance(recurrent, &weights, &sizes, &input, h, c);
            for b in 0..batch {
                let Some(at) = at(b) else { continue };
                let range = b * hidden..(b + 1) * hidden;
                h[range.clone()].copy_from_slice(&new_h[range.clone()]);
                c[range.clone()].copy_from_slice(&new_c[range.clone()]);
                y[((at * directions + d) * batch + b) * hidden..][..hidden].copy_from_slice(&new_h[range]);
            }
        }
    }
    let y = from_f64([steps, directions, batch, hidden], y, dtype)?;
    let h = from_f64([directions, batch, hidden], h, dtype)?;
    let c = from_f64([directions, batch, hidden], c, dtype)?;
    if recurrent.batch_first {
        return Ok(vec![super::layout::transpose(&y, &[2, 0, 1, 3])?, turned(&h, 3)?, turned(&c, 3)?]);
    }
    Ok(vec![y, h, c])
}

/// The next hidden and cell state of every item.
fn advance(
    recurrent: &Recurrent,
    weights: &Weights,
    sizes: &Sizes,
    input: &[f64],
    h: &[f64],
    c: &[f64],
) -> (Vec<f64>, Vec<f64>) {
    let (n, wide) = (sizes.hidden, recurrent.cell.gates() * sizes.hidden);
    let product = |a: &[f64], b: &[f64], k: usize, bias: &[f64], columns: usize| {
        let mut out: Vec<f64> = std::iter::repeat_n(bias, sizes.batch).flatten().copied().collect();
        multiply(a, b, &mut out, k, columns);
        out
    };
    let clip = |v: f64| recurrent.clip.map_or(v, |clip| v.clamp(-f64::from(clip), f64::from(clip)));
    let act =
        |i: usize, v: f64| function(weights.activations.get(i).copied().unwrap_or(Unary::Tanh), clip(v));
    let from_input = product(input, &weights.w, sizes.inputs, &weights.w_bias, wide);
    let from_state = product(h, &weights.r, n, &weights.r_bias, wide);
    let (mut new_h, mut new_c) = (vec![0.0; h.len()], c.to_vec());
    let at = |b: usize, gate: usize, j: usize| b * wide + gate * n + j;
    let sum = |b: usize, gate: usize, j: usize| from_input[at(b, gate, j)] + from_state[at(b, gate, j)];
    match recurrent.cell {
        Cell::Rnn => {
            new_h.iter_mut().enumerate().for_each(|(i, h)| *h = act(0, sum(i / n, 0, i % n)));
        }
        Cell::Gru { linear_before_reset } => {
            let reset: Vec<f64> = (0..h.len()).map(|i| act(0, sum(i / n, 1, i % n))).collect();
            // Without it, the state is reset before the recurrent product of the hidden gate.
            let after_reset = (!linear_before_reset).then(|| {
                let state: Vec<f64> = h.iter().zip(&reset).map(|(h, r)| h * r).collect();
                product(&state, &weights.r, n, &weights.r_bias, wide)
            });
            for i in 0..h.len() {
                let (b, j) = (i / n, i % n);
                let update = act(0, sum(b, 0, j));
                let recurrent_part = match &after_reset {
                    Some(after) => after[at(b, 2, j)],
                    None => reset[i] * from_state[at(b, 2, j)],
                };
                let new = act(1, from_input[at(b, 2, j)] + recurrent_part);
                new_h[i] = (1.0 - update) * new + update * h[i];
            }
        }
        Cell::Lstm { input_forget } => {
            let peephole =
                |gate: usize, j: usize| weights.peepholes.as_ref().map_or(0.0, |p| p[gate * n + j]);
            for i in 0..h.len() {
                let (b, j) = (i / n, i % n);
                let input_gate = act(0, sum(b, 0, j) + peephole(0, j) * c[i]);
                let forget = match input_forget {
                    true => 1.0 - input_gate,
                    false => act(0, sum(b, 2, j) + peephole(2, j) * c[i]),
                };
                new_c[i] = forget * c[i] + input_gate * act(1, sum(b, 3, j));
                let output = act(0, sum(b, 1, j) + peephole(1, j) * new_c[i]);
                new_h[i] =
                    output * function(weights.activations.get(2).copied().unwrap_or(Unary::Tanh), new_c[i]);
            }
        }
    }
    (new_h, new_c)
}
