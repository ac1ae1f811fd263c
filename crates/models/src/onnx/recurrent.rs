//! Recurrent layers.

use super::call::Call;
use kun_graph::TensorOp;
use kun_graph::ops::{Cell, Direction, Recurrent, Unary};

pub(super) fn import(call: &mut Call<'_, '_>) -> Result<bool, String> {
    let (cell, defaults): (Cell, &[&str]) = match call.proto.op_type.as_str() {
        "RNN" => (Cell::Rnn, &["Tanh"]),
        "GRU" => (Cell::Gru { linear_before_reset: call.flag("linear_before_reset") }, &["Sigmoid", "Tanh"]),
        "LSTM" => (Cell::Lstm { input_forget: call.flag("input_forget") }, &["Sigmoid", "Tanh", "Tanh"]),
        _ => return Ok(false),
    };
    let direction = match call.text_or("direction", "forward")? {
        "forward" => Direction::Forward,
        "reverse" => Direction::Reverse,
        "bidirectional" => Direction::Both,
        other => return Err(format!("attribute `direction` is `{other}`")),
    };
    let directions = if direction == Direction::Both { 2 } else { 1 };
    let names = call
        .texts("activations")?
        .unwrap_or_else(|| defaults.repeat(directions).into_iter().map(str::to_owned).collect());
    if names.len() != defaults.len() * directions {
        return Err(format!("{} activations, {} are needed", names.len(), defaults.len() * directions));
    }
    let (alphas, betas) = (call.floats("activation_alpha"), call.floats("activation_beta"));
    let (mut alphas, mut betas) =
        (alphas.unwrap_or_default().iter().copied(), betas.unwrap_or_default().iter().copied());
    let activations = names
        .iter()
        .map(|name| activation(name, &mut alphas, &mut betas))
        .collect::<Result<Vec<_>, String>>()?;
    let recurrent = Recurrent {
        cell,
        direction,
        hidden: call.count_or("hidden_size", 0)?,
        activations,
        clip: call.float("clip"),
        batch_first: call.flag("layout"),
    };
    // A cell state is operand 6 and peepholes are operand 7 of an LSTM only.
    call.same(TensorOp::Recurrent(recurrent))
}

/// Activations take what they need of the lists, in order.
fn activation(
    name: &str,
    alphas: &mut impl Iterator<Item = f32>,
    betas: &mut impl Iterator<Item = f32>,
) -> Result<Unary, String> {
    Ok(match name.to_ascii_lowercase().as_str() {
        "relu" => Unary::Relu,
        "tanh" => Unary::Tanh,
        "sigmoid" => Unary::Sigmoid,
        "softsign" => Unary::Softsign,
        "softplus" => Unary::Softplus,
        "leakyrelu" => Unary::LeakyRelu { alpha: alphas.next().unwrap_or(0.01) },
        "thresholdedrelu" => Unary::ThresholdedRelu { alpha: alphas.next().unwrap_or(1.0) },
        "elu" => Unary::Elu { alpha: alphas.next().unwrap_or(1.0) },
        "hardsigmoid" => {
            Unary::HardSigmoid { alpha: alphas.next().unwrap_or(0.2), beta: betas.next().unwrap_or(0.5) }
        }
        _ => return Err(format!("activation `{}`", name.escape_debug())),
    })
}
