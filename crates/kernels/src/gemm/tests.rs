use super::{Activation, Epilogue, Matrix, Panels, Product, Residual, Scratch, Target, lanes};
use crate::Isa;

/// Numbers of about -1 to 1, always the same.
pub(crate) fn numbers(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

pub(crate) fn assert_close(actual: &[f32], expected: &[f32], bound: f64, what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    let square = |x: f64| x * x;
    let error: f64 = actual.iter().zip(expected).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let norm: f64 = expected.iter().map(|b| square(f64::from(*b))).sum();
    let relative = (error / norm.max(1e-30)).sqrt();
    assert!(relative <= bound || actual.is_empty(), "{what}: relative error {relative:e}");
}

fn function(activation: Activation, x: f64, slope: f64) -> f64 {
    match activation {
        Activation::None => x,
        Activation::Clamp { low, high } => x.clamp(f64::from(low), f64::from(high)),
        Activation::Slopes => {
            if x < 0.0 {
                x * slope
            } else {
                x
            }
        }
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        _ => unreachable!(),
    }
}

/// The layouts of an `[n, pieces * depth]` matrix: of f32, in narrow registers if they suffice, and of bf16 where the machine
/// has it.
pub(crate) fn layouts(isa: Isa, n: usize, pieces: usize, depth: usize) -> impl Iterator<Item = Panels> {
    let plain = [Panels::new(isa, n, pieces * depth), Panels::with_precision(isa, false, n, pieces, depth)];
    plain.into_iter().chain(Panels::pairs(isa, n, pieces, depth))
}

/// What products with `panels` see of `values`.
pub(crate) fn seen(panels: &Panels, values: &[f32]) -> Vec<f32> {
    let round = |x: &f32| if panels.has_pairs() { half::bf16::from_f32(*x).to_f32() } else { *x };
    values.iter().map(round).collect()
}

#[test]
fn products_equal_their_definition() {
    for isa in Isa::available() {
        for (m, n, k) in [
            (1, 1, 1),
            (7, 64, 27),
            (13, 80, 33),
            (6, 200, 5),
            (49, 24, 64),
            (3, 0, 4),
            (0, 5, 4),
            (9, 21, 1700),
        ] {
            for panels in layouts(isa, n, 1, k) {
                let (x, w) = (numbers(1, m * (k + 3)), numbers(2, n * k));
                let (seen_x, seen_w) = (seen(&panels, &x), seen(&panels, &w));
                let (bias, slopes, other) = (numbers(3, n), numbers(4, n), numbers(5, m * n));
                let mut packed = vec![f32::NAN; panels.packed_len()];
                panels.pack(&w, k, 1, &mut packed).unwrap();
                for (activation, residual) in [
                    (Activation::None, None),
                    (Activation::RELU, Some(false)),
                    (Activation::RELU, Some(true)),
                    (Activation::Slopes, None),
                    (Activation::Silu, Some(true)),
                    (Activation::HardSwish, Some(false)),
                ] {
                    let sum = |r: usize, c: usize| {
                        let sum: f64 = (0..k)
                            .map(|i| f64::from(seen_x[r * (k + 3) + i]) * f64::from(seen_w[c * k + i]))
                            .sum();
                        let other = f64::from(other[r * n + c]);
                        let sum =
                            sum + f64::from(bias[c]) + if residual == Some(false) { other } else { 0.0 };
                        let y = function(activation, sum, f64::from(slopes[c]));
                        (y + if residual == Some(true) { other } else { 0.0 }) as f32
                    };
                    let expected: Vec<f32> = (0..m * n).map(|i| sum(i / n, i % n)).collect();
                    let (bias, slopes) = (panels.pad(&bias), panels.pad(&slopes));
                    let mut out = vec![7.0; m * (n + 2)];
                    let product = Product {
                        panels: &panels,
                        matrix: Matrix::Packed(&packed),
                        x: &x,
                        x_stride: k + 3,
                        epilogue: Epilogue {
                            bias: &bias,
                            activation,
                            slopes: if activation == Activation::Slopes { &slopes } else { &[] },
                            residual: residual.map(|after| Residual {
                                data: other.as_ptr(),
                                stride: n,
                                after,
                            }),
                        },
                        out: Target { data: out.as_mut_ptr(), stride: n + 2 },
                    };
                    for columns in 0..panels.count() {
                        // SAFETY: `out` and `other` hold all rows.
                        unsafe {
                            product.run(0..m / 2, columns..columns + 1, &mut Scratch::default()).unwrap()
                        };
                        // SAFETY: as above.
                        unsafe {
                            product.run(m / 2..m, columns..columns + 1, &mut Scratch::default()).unwrap()
                        };
                    }
                    let mut rows = Vec::new();
                    for row in out.chunks_exact(n + 2) {
                        rows.extend_from_slice(&row[..n]);
                        assert_eq!(row[n..], [7.0, 7.0], "wrote beside its outputs");
                    }
                    assert_close(&rows, &expected, 4e-6, &format!("{panels:?} {m} rows {activation:?}"));
                }
            }
        }
    }
}

#[test]
fn unpacked_matrices_give_the_same_bits() {
    for isa in Isa::available() {
        let (m, n, k, stride) = (11, 5 * lanes(isa), 19, 5 * lanes(isa) + 3);
        let (x, w) = (numbers(1, m * k), numbers(2, k * stride));
        let panels = Panels::new(isa, n, k);
        let mut packed = vec![0.0; panels.packed_len()];
        panels.pack(&w, 1, stride, &mut packed).unwrap();
        let mut results = [vec![0.0; m * n], vec![1.0; m * n]];
        for (out, matrix) in results.iter_mut().zip([Matrix::Packed(&packed), Matrix::Rows(&w, stride)]) {
            let out = Target { data: out.as_mut_ptr(), stride: n };
            let product =
                Product { panels: &panels, matrix, x: &x, x_stride: k, epilogue: Epilogue::default(), out };
            // SAFETY: `out` holds all rows.
            unsafe { product.run(0..m, 0..panels.count(), &mut Scratch::default()).unwrap() };
        }
        assert_eq!(results[0], results[1]);
    }
}

#[test]
fn wrong_lengths_are_refused() {
    let panels = Panels::new(Isa::Scalar, 5, 3);
    assert!(panels.pack(&[0.0; 14], 3, 1, &mut vec![0.0; panels.packed_len()]).is_err());
    assert!(panels.pack(&[0.0; 15], 3, 1, &mut [0.0; 3]).is_err());
    let (packed, mut out) = (vec![0.0; panels.packed_len()], [0.0; 10]);
    let mut product = Product {
        panels: &panels,
        matrix: Matrix::Packed(&packed),
        x: &[0.0; 5],
        x_stride: 3,
        epilogue: Epilogue::default(),
        out: Target { data: out.as_mut_ptr(), stride: 5 },
    };
    // SAFETY: refused before anything is written.
    assert!(unsafe { product.run(0..2, 0..panels.count(), &mut Scratch::default()) }.is_err());
    product.x_stride = 0;
    product.epilogue.bias = &[0.0; 5];
    // SAFETY: as above.
    assert!(unsafe { product.run(0..2, 0..panels.count(), &mut Scratch::default()) }.is_err());
}

#[test]
fn matrices_packed_in_parts_are_the_same() {
    for isa in Isa::available() {
        for (n, k) in [(5, 6), (70, 33), (200, 130)] {
            for panels in layouts(isa, n, 1, k) {
                for strides in [[k, 1], [1, n]] {
                    let w = numbers(2, n * k);
                    let (mut whole, mut parts) = (vec![f32::NAN; panels.packed_len()], Vec::new());
                    panels.pack(&w, strides[0], strides[1], &mut whole).unwrap();
                    parts.resize(panels.packed_len(), f32::NAN);
                    for panel in 0..panels.count() {
                        let first = panels.panel_outputs(panel).start * strides[0];
                        for depths in [0..2, 2..4, 4..k] {
                            let from = &w[first + depths.start * strides[1]..];
                            let to = panels.packed_range(panel, depths.clone());
                            panels.pack_part(panel, depths, from, strides, &mut parts[to]).unwrap();
                        }
                    }
                    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&parts), bits(&whole), "{isa:?} {n} {k} {strides:?}");
                }
            }
        }
    }
    for panels in layouts(Isa::detect(), 8, 1, 6).filter(Panels::has_pairs) {
        let len = panels.packed_range(0, 1..4).len();
        assert!(panels.pack_part(0, 1..4, &[0.0; 48], [6, 1], &mut vec![0.0; len]).is_err(), "half a pair");
    }
}
