use super::{Code, CodesAdded, CodesProduct, CodesTarget, SLACK, Scaling, row_starts, starts};
use crate::Isa;
use crate::gemm::Panels;
use crate::gemm::tests::{assert_close, numbers};

/// Codes of 0 to 255, always the same.
pub(crate) fn codes(seed: u64, len: usize) -> Vec<u8> {
    numbers(seed, len).into_iter().map(|x| (x * 127.5 + 127.5) as u8).collect()
}

/// Weights of -128 to 127, always the same.
pub(crate) fn weights(seed: u64, len: usize) -> Vec<i8> {
    codes(seed, len).into_iter().map(u8::cast_signed).collect()
}

/// Scales of about that which makes codes of sums of `depth` products.
pub(crate) fn scales(seed: u64, outputs: usize, depth: usize) -> Vec<f32> {
    let unit = 1.0 / (80.0 * (depth as f32).sqrt());
    numbers(seed, outputs).into_iter().map(|x| (x.abs() + 0.5) * unit).collect()
}

/// Fills `panels` with what is behind the last output.
pub(crate) fn pad_i32(panels: &Panels, values: Vec<i32>) -> Vec<i32> {
    let mut values = values;
    values.resize(panels.padded(), 0);
    values
}

/// The nearest code, by the definition.
pub(crate) fn nearest(x: f32, [zero, low, high]: [u8; 3]) -> u8 {
    (x.round_ties_even() + f32::from(zero)).clamp(f32::from(low), f32::from(high)) as u8
}

#[test]
fn products_of_codes_equal_their_definition() {
    for isa in Isa::available() {
        for (m, n, k) in [(1, 1, 1), (7, 64, 27), (13, 80, 33), (6, 200, 5), (70, 33, 130), (3, 16, 4000)] {
            let stride = k + 2;
            let zero = 37;
            let mut x = codes(1, m * stride);
            x.resize(x.len() + SLACK, 255);
            let (w, bias) =
                (weights(2, n * k), codes(3, n).into_iter().map(|b| i32::from(b) * 9).collect::<Vec<_>>());
            let scale = scales(4, n, k);
            let summand = numbers(5, n);
            let other = codes(6, m * n);
            let panels = Panels::quads(isa, n, 1, k);
            let mut packed = vec![0; 4 * panels.packed_len()];
            let sums = panels.pack_quads(&w, [k, 1], &mut packed).unwrap();
            let start = pad_i32(&panels, starts(isa, zero, &sums, &bias));
            let sum = |r: usize, o: usize| {
                let product =
                    |i: usize| (i32::from(x[r * stride + i]) - i32::from(zero)) * i32::from(w[o * k + i]);
                bias[o] + (0..k).map(product).sum::<i32>()
            };
            let bounds = [100, 90, 240];
            for (with_bias, with_other) in [(false, false), (true, false), (false, true)] {
                let number = |r: usize, o: usize| {
                    let sum = sum(r, o) as f32;
                    if with_bias {
                        f64::from(sum) * f64::from(scale[o]) + f64::from(summand[o])
                    } else {
                        f64::from(sum * scale[o])
                    }
                };
                let padded = panels.pad(&summand);
                let added = with_other.then_some(CodesAdded {
                    data: other.as_ptr(),
                    stride: n,
                    own: 0.5,
                    factor: 0.75,
                    zero: 11,
                    bounds: [60, 60, 255],
                });
                let scaling = Scaling {
                    start: &start,
                    rows: &[],
                    scale: &panels.pad(&scale),
                    bias: if with_bias { &padded } else { &[] },
                    codes: bounds,
                    numbers: [-1.0, f32::INFINITY],
                    added,
                };
                let mut table = [0; 256];
                (0..256).for_each(|i| table[i] = (255 - i) as u8);
                let mut out = vec![0u8; m * n];
                let target = CodesTarget::Codes { data: out.as_mut_ptr(), stride: n };
                let task = CodesProduct {
                    panels: &panels,
                    packed: &packed,
                    x: &x,
                    x_stride: stride,
                    scaling,
                    table: with_bias.then_some(&table),
                    out: target,
                };
                // SAFETY: `out` holds all rows.
                unsafe { task.run(0..m, 0..panels.count()).unwrap() };
                for (i, &actual) in out.iter().enumerate() {
                    let code = nearest(number(i / n, i % n) as f32, bounds);
                    let expected = match with_other {
                        true => {
                            let own = (f32::from(code) - 100.0) * 0.5;
                            nearest(own + (f32::from(other[i]) - 11.0) * 0.75, [60, 60, 255])
                        }
                        false if with_bias => 255 - code,
                        false => code,
                    };
                    // The machine may round a sum once where the definition rounds twice.
                    let most = u8::from(with_bias);
                    assert!(
                        actual.abs_diff(expected) <= most,
                        "{isa:?} {m} {n} {k}: {actual} for {expected} at {i}"
                    );
                }
                if with_other {
                    continue;
                }
                let mut out = vec![0f32; m * n];
                let target = CodesTarget::Numbers { data: out.as_mut_ptr(), stride: n };
                // SAFETY: `out` holds all rows.
                unsafe {
                    CodesProduct { out: target, table: None, ..task }.run(0..m, 0..panels.count()).unwrap()
                };
                let expected: Vec<f32> = (0..m * n).map(|i| number(i / n, i % n).max(-1.0) as f32).collect();
                assert_close(&out, &expected, 1e-6, "numbers");
            }
            // Without the bytes behind the last row.
            let short = &x[..m * stride - 2 - usize::from(k % 4 == 0)];
            let task = CodesProduct {
                panels: &panels,
                packed: &packed,
                x: short,
                x_stride: stride,
                scaling: Scaling {
                    start: &start,
                    rows: &[],
                    scale: &panels.pad(&scale),
                    bias: &[],
                    codes: [0, 0, 255],
                    numbers: [0.0; 2],
                    added: None,
                },
                table: None,
                out: CodesTarget::Codes { data: std::ptr::null_mut(), stride: n },
            };
            // SAFETY: nothing is written.
            assert!(unsafe { task.run(0..m, 0..panels.count()) }.is_err());
        }
    }
}

#[test]
fn codes_are_the_nearest_and_halves_go_to_even() {
    let code = Code { scale: 0.5, zero: 3 };
    for (x, expected) in
        [(0.0, 3), (0.25, 3), (0.75, 5), (-0.25, 3), (-0.76, 1), (1e30, 255), (-1e30, 0), (f32::NAN, 0)]
    {
        assert_eq!(code.encode(x), expected, "{x}");
    }
    assert_eq!(code.decode(5), 1.0);
}

#[test]
fn products_of_computed_codes_are_whole() {
    for isa in Isa::available() {
        for (m, n, k) in [(1, 1, 1), (7, 40, 33), (13, 21, 64), (3, 130, 6), (5, 64, 197)] {
            for (by_row, zeros) in [(false, [120, 131]), (true, [0, 128]), (true, [255, 0])] {
                let (a, b) = (codes(1, m * k + SLACK), codes(2, n * k));
                let strides = if by_row { [k, 1] } else { [1, n] };
                let panels = Panels::quads(isa, n, 1, k);
                let (mut packed, mut sums, mut rows) = (vec![7; 4 * panels.packed_len()], vec![], vec![]);
                panels.pack_codes(&b, strides, &mut packed, &mut sums).unwrap();
                row_starts(isa, &a, [m, k, k], zeros, &mut rows).unwrap();
                let mut start = starts(isa, zeros[0], &sums, &[]);
                start.resize(panels.padded(), 0);
                let mut out = vec![0f32; m * n];
                let task = CodesProduct {
                    panels: &panels,
                    packed: &packed,
                    x: &a,
                    x_stride: k,
                    scaling: Scaling {
                        start: &start,
                        rows: &rows,
                        scale: &vec![1.0; panels.padded()],
                        bias: &[],
                        codes: [0, 0, 255],
                        numbers: [f32::NEG_INFINITY, f32::INFINITY],
                        added: None,
                    },
                    table: None,
                    out: CodesTarget::Numbers { data: out.as_mut_ptr(), stride: n },
                };
                // SAFETY: `out` holds all rows.
                unsafe { task.run(0..m, 0..panels.count()).unwrap() };
                for (i, &actual) in out.iter().enumerate() {
                    let at = |d: usize| b[i % n * strides[0] + d * strides[1]];
                    let one = |d: usize| {
                        (i32::from(a[i / n * k + d]) - i32::from(zeros[0]))
                            * (i32::from(at(d)) - i32::from(zeros[1]))
                    };
                    assert_eq!(actual, (0..k).map(one).sum::<i32>() as f32, "{isa:?} {m} {n} {k} {i}");
                }
                assert!(panels.pack_codes(&b[1..], strides, &mut packed, &mut sums).is_err());
            }
        }
    }
}
