use super::{add_rms_norm, rms_norm};
use crate::Isa;

fn numbers(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn naive(x: &[f32], weight: &[f32], eps: f32) -> Vec<f64> {
    x.chunks(weight.len())
        .flat_map(|x| {
            let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / x.len() as f64;
            let scale = 1.0 / (mean + f64::from(eps)).sqrt();
            x.iter().zip(weight).map(move |(x, w)| f64::from(*x) * scale * f64::from(*w))
        })
        .collect()
}

#[test]
fn agrees_with_f64_for_every_length() {
    for isa in Isa::available() {
        for len in 1..=130 {
            let (x, weight) = (numbers(3 * len, 1), numbers(len, 2));
            let mut out = vec![0.0; x.len()];
            rms_norm(isa, &x, &weight, 1e-5, &mut out).unwrap();
            for (a, b) in out.iter().zip(naive(&x, &weight, 1e-5)) {
                assert!((f64::from(*a) - b).abs() <= 1e-6 * b.abs(), "{isa:?} {len}: {a} {b}");
            }
        }
    }
}

#[test]
fn a_group_does_not_depend_on_its_neighbours() {
    for isa in Isa::available() {
        for len in [1, 7, 64, 130, 576] {
            let (x, weight) = (numbers(4 * len, 3), numbers(len, 4));
            let mut all = vec![0.0; x.len()];
            rms_norm(isa, &x, &weight, 1e-6, &mut all).unwrap();
            for (x, all) in x.chunks(len).zip(all.chunks(len)) {
                let mut one = vec![0.0; len];
                rms_norm(isa, x, &weight, 1e-6, &mut one).unwrap();
                assert_eq!(one, all);
            }
        }
    }
}

#[test]
fn adds_first_when_asked() {
    for isa in Isa::available() {
        let (x, delta, weight) = (numbers(99, 5), numbers(99, 6), numbers(33, 7));
        let (mut sum, mut out, mut expected) = (vec![0.0; 99], vec![0.0; 99], vec![0.0; 99]);
        add_rms_norm(isa, &x, &delta, &weight, 1e-5, &mut sum, &mut out).unwrap();
        assert!((0..99).all(|i| sum[i] == x[i] + delta[i]));
        rms_norm(isa, &sum, &weight, 1e-5, &mut expected).unwrap();
        assert_eq!(out, expected);
    }
}

#[test]
fn shapes_that_disagree_are_refused() {
    let (isa, x, mut out, mut sum) = (Isa::detect(), [1.0; 6], [0.0; 6], [0.0; 5]);
    assert!(rms_norm(isa, &x, &[1.0; 4], 0.0, &mut out).is_err());
    assert!(rms_norm(isa, &x, &[], 0.0, &mut out).is_err());
    assert!(rms_norm(isa, &x, &[1.0; 3], 0.0, &mut out[..3]).is_err());
    assert!(add_rms_norm(isa, &x, &x, &[1.0; 3], 0.0, &mut sum, &mut out).is_err());
}
