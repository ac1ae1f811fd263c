use super::{BinaryOp, UnaryOp, binary, gated, unary, unary_in_place};
use crate::{Isa, KernelError};

const UNARY: [UnaryOp; 11] = [
    UnaryOp::Neg,
    UnaryOp::Exp,
    UnaryOp::Sqrt,
    UnaryOp::Recip,
    UnaryOp::Relu,
    UnaryOp::Sigmoid,
    UnaryOp::Tanh,
    UnaryOp::Silu,
    UnaryOp::Gelu,
    UnaryOp::GeluTanh,
    UnaryOp::GeluQuick,
];
const BINARY: [BinaryOp; 7] =
    [BinaryOp::Add, BinaryOp::Sub, BinaryOp::Mul, BinaryOp::Div, BinaryOp::Max, BinaryOp::Min, BinaryOp::Pow];

fn numbers(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 22) as f32 - 1.99
        })
        .collect()
}

fn close(a: f32, b: f32) -> bool {
    a == b || (a - b).abs() <= 2e-6 * a.abs().max(b.abs()) || a.is_nan() && b.is_nan()
}

fn exact(op: UnaryOp, x: f32) -> f32 {
    let x = f64::from(x);
    let y = match op {
        UnaryOp::Neg => -x,
        UnaryOp::Exp => x.exp(),
        UnaryOp::Sqrt => x.sqrt(),
        UnaryOp::Recip => 1.0 / x,
        UnaryOp::Relu => x.max(0.0),
        UnaryOp::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        UnaryOp::Tanh => x.tanh(),
        UnaryOp::Silu => x / (1.0 + (-x).exp()),
        UnaryOp::GeluQuick => x / (1.0 + (-1.702 * x).exp()),
        // `vector::math` tests them against their definitions.
        UnaryOp::Gelu | UnaryOp::GeluTanh => return f32::NAN,
    };
    y as f32
}

#[test]
fn every_length_and_offset_gives_the_same_values() {
    for isa in Isa::available() {
        for op in UNARY {
            // The whole buffer at once is the standard; `exact` judges it.
            let all = numbers(200, 1);
            let mut standard = vec![0.0; all.len()];
            unary(isa, op, &all, &mut standard).unwrap();
            if !matches!(op, UnaryOp::Gelu | UnaryOp::GeluTanh) {
                for (x, y) in all.iter().zip(&standard) {
                    assert!(close(*y, exact(op, *x)), "{isa:?} {op:?} of {x}: {y}");
                }
            }
            let up = numbers(200, 2);
            for len in 0..=130 {
                let start = len % 5;
                let (x, expected) = (&all[start..start + len], &standard[start..start + len]);
                let mut out = vec![7.0; len + 2];
                unary(isa, op, x, &mut out[1..=len]).unwrap();
                assert!(out[1..=len].iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits()));
                assert!(out[0] == 7.0 && out[len + 1] == 7.0, "{isa:?} {op:?} wrote beyond {len}");
                let mut place = x.to_vec();
                unary_in_place(isa, op, &mut place);
                assert!(place.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits()));
                gated(isa, op, x, &up[..len], &mut out[1..=len]).unwrap();
                for i in 0..len {
                    assert_eq!(out[1 + i].to_bits(), (expected[i] * up[i]).to_bits(), "{isa:?} {op:?}");
                }
                assert!(out[0] == 7.0 && out[len + 1] == 7.0);
            }
        }
    }
}

#[test]
fn pairs_agree_with_scalar_arithmetic() {
    for isa in Isa::available() {
        for op in BINARY {
            for len in 0..=130 {
                let (a, b) = (numbers(len + 3, 3), numbers(len, 4));
                let a = &a[3..];
                let mut out = vec![7.0; len + 1];
                binary(isa, op, a, &b, &mut out[..len]).unwrap();
                assert_eq!(out[len], 7.0);
                for i in 0..len {
                    let expected = match op {
                        BinaryOp::Add => a[i] + b[i],
                        BinaryOp::Sub => a[i] - b[i],
                        BinaryOp::Mul => a[i] * b[i],
                        BinaryOp::Div => a[i] / b[i],
                        BinaryOp::Max => a[i].max(b[i]),
                        BinaryOp::Min => a[i].min(b[i]),
                        BinaryOp::Pow => a[i].powf(b[i]),
                    };
                    assert!(out[i] == expected || out[i].is_nan() && expected.is_nan(), "{isa:?} {op:?}");
                }
            }
        }
    }
}

#[test]
fn lengths_that_differ_are_refused() {
    let (isa, x, mut out) = (Isa::detect(), [0.0; 4], [0.0; 3]);
    assert!(matches!(unary(isa, UnaryOp::Neg, &x, &mut out), Err(KernelError::Shape { .. })));
    assert!(binary(isa, BinaryOp::Add, &x[..3], &x, &mut out).is_err());
    assert!(gated(isa, UnaryOp::Silu, &x[..3], &x, &mut out).is_err());
}
