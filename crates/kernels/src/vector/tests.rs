use super::{Kernel, MAX_LANES, Vector, math, run};
use crate::Isa;

/// Which function of [`math`] to try.
#[derive(Clone, Copy, Debug)]
enum Function {
    Exp,
    Exp2,
    Sigmoid,
    Silu,
    QuickSigmoid,
    QuickSilu,
    Tanh,
    Gelu,
    QuickGelu,
    GeluTanh,
}

struct Apply(Function, f32);

impl Kernel for Apply {
    type Output = f32;

    #[inline(always)]
    fn run<V: Vector>(self, v: V) -> f32 {
        let x = v.splat(self.1);
        let y = match self.0 {
            Function::Exp => math::exp(v, x),
            Function::Exp2 => math::exp2(v, x),
            Function::Sigmoid => math::sigmoid(v, x),
            Function::Silu => math::silu(v, x),
            Function::QuickSigmoid => math::quick_sigmoid(v, x),
            Function::QuickSilu => math::quick_silu(v, x),
            Function::Tanh => math::tanh(v, x),
            Function::Gelu => math::gelu(v, x),
            Function::QuickGelu => math::quick_gelu(v, x),
            Function::GeluTanh => math::gelu_tanh(v, x),
        };
        let mut out = [0.0; MAX_LANES];
        v.store_part(&mut out, y);
        assert!(out[..V::LANES].iter().all(|y| y.to_bits() == out[0].to_bits()));
        out[0]
    }
}

/// erfc by its continued fraction or series, to about 1e-15.
fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    if x < 3.0 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-18 {
            n += 1.0;
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        return 1.0 - sum * 2.0 / std::f64::consts::PI.sqrt();
    }
    let fraction = (1..=80).rev().fold(0.0, |below, k| f64::from(k) / 2.0 / (x + below));
    (-x * x).exp() / std::f64::consts::PI.sqrt() / (x + fraction)
}

fn exact(function: Function, x: f64) -> f64 {
    match function {
        Function::Exp => x.exp(),
        Function::Exp2 => x.exp2(),
        Function::Sigmoid | Function::QuickSigmoid => 1.0 / (1.0 + (-x).exp()),
        Function::Silu | Function::QuickSilu => x / (1.0 + (-x).exp()),
        Function::Tanh => x.tanh(),
        Function::Gelu | Function::QuickGelu => x / 2.0 * erfc(-x / 2.0f64.sqrt()),
        Function::GeluTanh => {
            x / (1.0 + (-2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).exp())
        }
    }
}

#[test]
fn functions_are_close_to_exact_in_relative_terms() {
    let cases = [
        (Function::Exp, -87.0, 88.0, 3e-7),
        (Function::Exp2, -126.0, 127.9, 2e-7),
        (Function::Sigmoid, -80.0, 80.0, 4e-7),
        (Function::Silu, -80.0, 80.0, 4e-7),
        (Function::QuickSigmoid, -8.0, 80.0, 2e-6),
        (Function::QuickSigmoid, -80.0, -8.0, 1e-5),
        (Function::QuickSilu, -8.0, 80.0, 2e-6),
        (Function::QuickSilu, -80.0, -8.0, 1e-5),
        (Function::Tanh, -12.0, 12.0, 4e-7),
        // The argument's own rounding grows with it far out, where the results hardly count.
        (Function::Gelu, -2.5, 9.0, 2e-6),
        (Function::GeluTanh, -2.5, 9.0, 2e-6),
        (Function::Gelu, -9.0, -2.5, 3e-5),
        (Function::GeluTanh, -7.0, -2.5, 3e-5),
    ];
    for isa in Isa::available() {
        for (function, low, high, bound) in cases {
            let mut worst = (0.0, 0.0);
            for i in 0..=20_000 {
                let x = (low + (high - low) * f64::from(i) / 20_000.0) as f32;
                let (y, e) = (f64::from(run(isa, Apply(function, x))), exact(function, f64::from(x)));
                let error = ((y - e) / e).abs();
                if error > worst.0 {
                    worst = (error, x);
                }
            }
            assert!(worst.0 <= bound, "{isa:?} {function:?}: error {:e} at {}", worst.0, worst.1);
        }
    }
}

#[test]
fn the_quick_gelu_is_close_in_terms_of_its_argument() {
    for isa in Isa::available() {
        for i in -20_000..=20_000 {
            let x = i as f32 * 1e-3;
            let y = f64::from(run(isa, Apply(Function::QuickGelu, x)));
            let error = (y - exact(Function::Gelu, f64::from(x))).abs();
            assert!(error <= 5e-7 * f64::from(x).abs(), "{isa:?}: error {error:e} at {x}");
        }
        assert!(run(isa, Apply(Function::QuickGelu, -1e30)).abs() < 3e-6);
    }
}

#[test]
fn exponentials_end_where_f32_ends() {
    for isa in Isa::available() {
        for (function, scale) in [(Function::Exp, 1.0), (Function::Exp2, std::f32::consts::LOG2_E)] {
            let at = |x: f32| run(isa, Apply(function, x * scale));
            assert_eq!(at(f32::NEG_INFINITY).to_bits(), 0, "{isa:?} {function:?}");
            assert_eq!(at(-1e30).to_bits(), 0);
            assert_eq!(at(-110.0).to_bits(), 0);
            assert!(at(-95.0) > 0.0 && at(-95.0) < f32::MIN_POSITIVE);
            assert_eq!(at(0.0), 1.0);
            assert_eq!(at(89.0), f32::INFINITY);
            assert_eq!(at(f32::INFINITY), f32::INFINITY);
            assert!(at(f32::NAN).is_nan());
        }
        for function in [
            Function::Sigmoid,
            Function::Silu,
            Function::QuickSilu,
            Function::Tanh,
            Function::Gelu,
            Function::QuickGelu,
            Function::GeluTanh,
        ] {
            assert!(run(isa, Apply(function, f32::NAN)).is_nan(), "{isa:?} {function:?}");
        }
        assert_eq!(run(isa, Apply(Function::Tanh, 1e10)), 1.0);
        assert_eq!(run(isa, Apply(Function::Tanh, -1e10)), -1.0);
        assert_eq!(run(isa, Apply(Function::Silu, -1e10)), 0.0);
        assert_eq!(run(isa, Apply(Function::QuickSigmoid, f32::INFINITY)), 1.0);
        assert!(run(isa, Apply(Function::QuickSigmoid, f32::NEG_INFINITY)) < 1e-37);
        assert_eq!(run(isa, Apply(Function::Gelu, 1e10)), 1e10);
        assert_eq!(run(isa, Apply(Function::GeluTanh, 1e10)), 1e10);
    }
}

/// Every operation on known lanes; returns what disagrees.
struct Operations;

impl Kernel for Operations {
    type Output = Vec<&'static str>;

    #[inline(always)]
    fn run<V: Vector>(self, v: V) -> Vec<&'static str> {
        let a: Vec<f32> = (0..V::LANES).map(|i| i as f32 * 1.25 - 3.0).collect();
        let b: Vec<f32> = (0..V::LANES).map(|i| 2.0 - (i * i) as f32 * 0.5).collect();
        let (x, y) = (v.load_part(&a), v.load_part(&b));
        let mut wrong = Vec::new();
        let mut check = |name, got: V::F32, want: &dyn Fn(usize) -> f32| {
            let mut lanes = vec![0.0; V::LANES];
            v.store_part(&mut lanes, got);
            if (0..V::LANES).any(|i| lanes[i] != want(i)) {
                wrong.push(name);
            }
        };
        check("splat", v.splat(2.5), &|_| 2.5);
        check("add", v.add(x, y), &|i| a[i] + b[i]);
        check("sub", v.sub(x, y), &|i| a[i] - b[i]);
        check("mul", v.mul(x, y), &|i| a[i] * b[i]);
        check("div", v.div(x, v.splat(3.0)), &|i| a[i] / 3.0);
        let near = v.sub(
            v.mul(v.reciprocal(v.add(v.mul(x, x), v.splat(0.5))), v.add(v.mul(x, x), v.splat(0.5))),
            v.splat(1.0),
        );
        check("reciprocal", v.round(v.mul(near, v.splat(1e6))), &|_| 0.0);
        check("fma", v.fma(x, y, x), &|i| a[i].mul_add(b[i], a[i]));
        check("max", v.max(x, y), &|i| a[i].max(b[i]));
        check("min", v.min(x, y), &|i| a[i].min(b[i]));
        check("sqrt", v.sqrt(v.mul(x, x)), &|i| a[i].abs());
        check("round", v.round(v.mul(x, v.splat(2.0))), &|i| (a[i] * 2.0).round_ties_even());
        check("power", v.times_power_of_two(x, v.splat(-3.0)), &|i| a[i] / 8.0);
        check("select", v.select_less(x, y, v.splat(1.0), y), &|i| if a[i] < b[i] { 1.0 } else { b[i] });
        check("swap", v.swap_pairs(x), &|i| a[i ^ 1]);
        check("part", v.load_part(&a[..3]), &|i| if i < 3 { a[i] } else { 0.0 });
        let bytes: Vec<u8> = (0..V::LANES).map(|i| (i as i8 * 11 - 90) as u8).collect();
        // SAFETY: `bytes` has `LANES` elements.
        check("i8", unsafe { v.load_i8(bytes.as_ptr()) }, &|i| f32::from(i as i8 * 11 - 90));
        let mut halves = vec![0u8; 2 * V::LANES];
        // SAFETY: `halves` has two bytes for each lane.
        let back = unsafe {
            v.store_f16(halves.as_mut_ptr(), v.div(x, v.splat(3.0)));
            v.load_f16(halves.as_ptr())
        };
        check("f16", back, &|i| half::f16::from_f32(a[i] / 3.0).to_f32());
        let mut some = [7.0; 4];
        v.store_part(&mut some[..3], x);
        if some != [a[0], a[1], a[2], 7.0] {
            wrong.push("store_part");
        }
        if v.sum(x) != a.iter().sum::<f32>() {
            wrong.push("sum");
        }
        if v.max_lane(y) != 2.0 || v.max_lane(x) != a[V::LANES - 1] {
            wrong.push("max_lane");
        }
        wrong
    }
}

#[test]
fn operations_do_what_they_say() {
    for isa in Isa::available() {
        assert_eq!(run(isa, Operations), Vec::<&str>::new(), "{isa:?}");
    }
}

#[test]
fn a_level_that_the_machine_lacks_falls_back() {
    for isa in [Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Neon] {
        assert_eq!(run(isa, Apply(Function::Exp, 0.0)), 1.0);
    }
}
