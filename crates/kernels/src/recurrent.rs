//! What recurrent layers do with the sums of their gates: the states that follow.

use crate::vector::{self, Kernel, Vector, math};
use crate::{Isa, KernelError};

/// The next states of a long short-term memory (Hochreiter and Schmidhuber, 1997): `gates` are the sums of its input, output,
/// forget and cell gates, `c` the cell state, which becomes the next one, and `h` becomes the hidden state. With `coupled`,
/// the forget gate is one minus the input gate.
///
/// # Errors
/// [`KernelError::Shape`] if lengths differ.
pub fn lstm(
    isa: Isa,
    gates: [&[f32]; 4],
    coupled: bool,
    c: &mut [f32],
    h: &mut [f32],
) -> Result<(), KernelError> {
    for len in gates.iter().map(|gate| gate.len()).chain([c.len()]) {
        KernelError::check("lstm", len, h.len())?;
    }
    vector::run(isa, Lstm { gates, coupled, c, h });
    Ok(())
}

struct Lstm<'a> {
    gates: [&'a [f32]; 4],
    coupled: bool,
    c: &'a mut [f32],
    h: &'a mut [f32],
}

impl Kernel for Lstm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let one = v.splat(1.0);
        let chunks = self.c.chunks_mut(V::LANES).zip(self.h.chunks_mut(V::LANES));
        for (i, (c, h)) in chunks.enumerate() {
            let at = i * V::LANES..i * V::LANES + h.len();
            let [input, output, forget, cell] = self.gates.map(|gate| load(v, &gate[at.clone()]));
            let input = math::sigmoid(v, input);
            let forget = if self.coupled { v.sub(one, input) } else { math::sigmoid(v, forget) };
            let next = v.fma(forget, load(v, c), v.mul(input, math::tanh(v, cell)));
            store(v, c, next);
            store(v, h, v.mul(math::sigmoid(v, output), math::tanh(v, next)));
        }
    }
}

/// `sigmoid(gate) * h`: the state of which a gated recurrent unit (arXiv:1406.1078) makes the sums of its hidden gate.
///
/// # Errors
/// [`KernelError::Shape`] if lengths differ.
pub fn reset(isa: Isa, gate: &[f32], h: &[f32], out: &mut [f32]) -> Result<(), KernelError> {
    KernelError::check("reset", gate.len(), out.len())?;
    KernelError::check("reset", h.len(), out.len())?;
    vector::run(isa, Reset { gate, h, out });
    Ok(())
}

struct Reset<'a> {
    gate: &'a [f32],
    h: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Reset<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let operands = self.gate.chunks(V::LANES).zip(self.h.chunks(V::LANES));
        for ((gate, h), out) in operands.zip(self.out.chunks_mut(V::LANES)) {
            store(v, out, v.mul(math::sigmoid(v, load(v, gate)), load(v, h)));
        }
    }
}

/// The next state of a gated recurrent unit: `update` and `hidden` are the sums of two of its gates and `h` is its state.
/// With `late`, the sum of the reset gate and what it is a factor of is added to the hidden gate.
///
/// # Errors
/// [`KernelError::Shape`] if lengths differ.
pub fn gru(
    isa: Isa,
    [update, hidden]: [&[f32]; 2],
    late: Option<[&[f32]; 2]>,
    h: &[f32],
    out: &mut [f32],
) -> Result<(), KernelError> {
    for operand in [update, hidden, h].into_iter().chain(late.into_iter().flatten()) {
        KernelError::check("gru", operand.len(), out.len())?;
    }
    vector::run(isa, Gru { update, hidden, late, h, out });
    Ok(())
}

struct Gru<'a> {
    update: &'a [f32],
    hidden: &'a [f32],
    late: Option<[&'a [f32]; 2]>,
    h: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Gru<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        for (i, out) in self.out.chunks_mut(V::LANES).enumerate() {
            let at = i * V::LANES..i * V::LANES + out.len();
            let [update, mut hidden, h] =
                [self.update, self.hidden, self.h].map(|operand| load(v, &operand[at.clone()]));
            if let Some(late) = self.late {
                let [gate, of] = late.map(|operand| load(v, &operand[at.clone()]));
                hidden = v.fma(math::sigmoid(v, gate), of, hidden);
            }
            let new = math::tanh(v, hidden);
            store(v, out, v.fma(math::sigmoid(v, update), v.sub(h, new), new));
        }
    }
}

#[inline(always)]
fn load<V: Vector>(v: V, from: &[f32]) -> V::F32 {
    if from.len() == V::LANES {
        // SAFETY: a whole vector.
        unsafe { v.load(from.as_ptr()) }
    } else {
        v.load_part(from)
    }
}

#[inline(always)]
fn store<V: Vector>(v: V, to: &mut [f32], x: V::F32) {
    if to.len() == V::LANES {
        // SAFETY: a whole vector.
        unsafe { v.store(to.as_mut_ptr(), x) };
    } else {
        v.store_part(to, x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sigmoid(x: f32) -> f32 {
        1.0 / (1.0 + (-x).exp())
    }

    fn near(isa: Isa, actual: &[f32], expected: impl Fn(usize) -> f32) {
        for (i, y) in actual.iter().enumerate() {
            assert!((y - expected(i)).abs() < 2e-6, "{}: {y} {}", isa.name(), expected(i));
        }
    }

    #[test]
    fn states_agree_with_their_definition_on_every_isa() {
        for len in [1, 7, 16, 37] {
            let numbers = |seed: usize| -> Vec<f32> {
                (0..len).map(|i| ((i * 37 + seed * 53) % 101) as f32 / 20.0 - 2.5).collect()
            };
            let [a, b, c, d, e] = [1, 2, 3, 4, 5].map(numbers);
            for isa in Isa::available() {
                for coupled in [false, true] {
                    let (mut cell, mut h) = (e.clone(), vec![f32::NAN; len]);
                    lstm(isa, [&a, &b, &c, &d], coupled, &mut cell, &mut h).unwrap();
                    let next = |i: usize| {
                        let forget = if coupled { 1.0 - sigmoid(a[i]) } else { sigmoid(c[i]) };
                        forget * e[i] + sigmoid(a[i]) * d[i].tanh()
                    };
                    near(isa, &cell, next);
                    near(isa, &h, |i| sigmoid(b[i]) * next(i).tanh());
                }
                let mut out = vec![f32::NAN; len];
                reset(isa, &a, &b, &mut out).unwrap();
                near(isa, &out, |i| sigmoid(a[i]) * b[i]);
                for late in [None, Some([&d[..], &e[..]])] {
                    gru(isa, [&a, &b], late, &c, &mut out).unwrap();
                    near(isa, &out, |i| {
                        let more = late.map_or(0.0, |_| sigmoid(d[i]) * e[i]);
                        let (z, new) = (sigmoid(a[i]), (b[i] + more).tanh());
                        (1.0 - z) * new + z * c[i]
                    });
                }
            }
            let isa = Isa::detect();
            assert!(lstm(isa, [&a, &b, &c, &d], false, &mut [], &mut [0.0]).is_err());
            assert!(reset(isa, &a, &b, &mut []).is_err());
            assert!(gru(isa, [&a, &b], None, &[], &mut vec![0.0; len]).is_err());
        }
    }
}
