//! Operations that make values from little.

use super::number::with_numbers;
use super::{Args, Context, from_f64, tensor};
use crate::ops::Random;
use crate::ops::fact::{count, dims};
use crate::ops::generate::Distribution;
use kun_tensor::{DType, Element, Elements, Tensor};

pub(crate) fn constant_of_shape(value: &Tensor, shape: &[i64]) -> Result<Tensor, String> {
    let shape = dims(shape)?;
    if value.elements().len() != 1 {
        return Err("one value is needed".into());
    }
    let count = count(&shape)?;
    super::layout::blocks(value, shape, 1, std::iter::repeat_n(0, count))
}

pub(crate) fn range(x: &Args<'_>, context: &Context<'_>) -> Result<Tensor, String> {
    let (start, limit, delta) = (x.number(0)?, x.number(1)?, x.number(2)?);
    if delta == 0.0 || !delta.is_finite() {
        return Err(format!("a step of {delta}"));
    }
    let dtype = x.get(0)?.dtype();
    let length = ((limit - start) / delta).ceil().max(0.0);
    if length.is_nan() || length > 1e15 {
        return Err(format!("a range from {start} to {limit} by {delta}"));
    }
    context.check_size(length as usize, dtype)?;
    with_numbers!(x.get(0)?.elements(), v => {
        let (first, step) = (v[0], super::values(x.get(2)?)?[0]);
        let values = (0..length as usize).map(|i| nth(first, step, i)).collect();
        tensor([length as usize], Element::wrap(values))
    })
}

fn nth<T: super::number::Number>(first: T, step: T, i: usize) -> T {
    match T::DTYPE {
        // Halves would not count beyond 2048.
        DType::F64 | DType::F32 | DType::F16 | DType::BF16 => {
            T::from_f64(first.to_f64() + step.to_f64() * i as f64)
        }
        _ => first.add(step.mul(T::from_f64(i as f64))),
    }
}

pub(crate) fn eye(x: &Tensor, dtype: Option<DType>, k: i64) -> Result<Tensor, String> {
    let &[rows, columns] = x.shape() else { return Err(format!("{:?} is no matrix", x.shape())) };
    let values = (0..rows * columns)
        .map(|i| f64::from(u8::from((i % columns) as i64 - (i / columns) as i64 == k)))
        .collect();
    from_f64([rows, columns], values, dtype.unwrap_or(x.dtype()))
}

/// SplitMix64: small and good enough for noise that a model asks for.
struct Generator(u64);

impl Generator {
    fn new(seed: Option<f32>) -> Generator {
        let seed = seed.map_or_else(
            || {
                use std::hash::{BuildHasher, Hasher, RandomState};
                RandomState::new().build_hasher().finish()
            },
            |seed| u64::from(seed.to_bits()),
        );
        Generator(seed)
    }

    /// Uniform in `[0, 1)`.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.next(), self.next());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

pub(crate) fn random(random: &Random, x: Option<&Tensor>) -> Result<Tensor, String> {
    let mut generator = Generator::new(random.seed);
    let dtype = random.dtype.or(x.map(Tensor::dtype)).unwrap_or(DType::F32);
    let shape = random.shape.clone().or_else(|| x.map(|x| x.shape().to_vec())).ok_or("no shape")?;
    let elements = count(&shape)?;
    let values: Vec<f64> = match random.kind {
        Distribution::Normal { mean, scale } => {
            (0..elements).map(|_| f64::from(mean) + f64::from(scale) * generator.normal()).collect()
        }
        Distribution::Uniform { low, high } => {
            let (low, high) = (f64::from(low), f64::from(high));
            (0..elements).map(|_| low + (high - low) * generator.next()).collect()
        }
        Distribution::Bernoulli => {
            let odds = super::f64s(x.ok_or("no probabilities")?)?;
            odds.into_iter().map(|p| f64::from(u8::from(generator.next() < p))).collect()
        }
        Distribution::Multinomial { samples } => {
            let x = x.ok_or("no probabilities")?;
            let &[n, classes] = x.shape() else { return Err(format!("{:?} is no matrix", x.shape())) };
            let logits = super::f64s(x)?;
            let mut out = Vec::with_capacity(n * samples);
            for row in logits.chunks(classes.max(1)) {
                let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = row.iter().map(|l| (l - most).exp()).sum();
                for _ in 0..samples {
                    let mut left = generator.next() * total;
                    let class = row.iter().position(|l| {
                        left -= (l - most).exp();
                        left < 0.0
                    });
                    out.push(class.unwrap_or(classes.saturating_sub(1)) as f64);
                }
            }
            return from_f64([n, samples], out, dtype);
        }
    };
    if dtype == DType::Bool {
        return tensor(shape, Elements::Bool(values.into_iter().map(|v| v != 0.0).collect()));
    }
    from_f64(shape, values, dtype)
}
