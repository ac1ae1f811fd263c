//! The noise that a picture begins as.

use crate::sampler::rng::Rng;

/// Standard normal numbers (Box and Muller, doi:10.1214/aoms/1177706645) of a seed's stream, made one after another, so that
/// they do not depend on threads.
#[derive(Clone, Debug)]
pub struct Normals {
    rng: Rng,
    /// The second of a pair.
    kept: Option<f64>,
}

impl Normals {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Normals {
        Normals { rng: Rng::new(seed), kept: None }
    }

    /// The next `count` numbers.
    pub fn take(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.next() as f32).collect()
    }

    fn next(&mut self) -> f64 {
        if let Some(kept) = self.kept.take() {
            return kept;
        }
        // From 0 up, but never 0.
        let radius = (-2.0 * (1.0 - self.rng.next_f64()).ln()).sqrt();
        let (sine, cosine) = (std::f64::consts::TAU * self.rng.next_f64()).sin_cos();
        self.kept = Some(radius * sine);
        radius * cosine
    }
}

/// A seed that nobody chose, short enough for JSON's numbers.
pub fn fresh_seed() -> u64 {
    Rng::from_entropy().next_u64() >> 16
}

#[cfg(test)]
mod tests {
    use super::Normals;

    #[test]
    fn numbers_are_normal_and_a_seed_gives_them_again() {
        let values = Normals::new(7).take(100_000);
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / 1e5;
        let power = |n: i32| values.iter().map(|v| f64::from(*v).powi(n)).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.02 && (power(2) - 1.0).abs() < 0.02 && (power(4) - 3.0).abs() < 0.1);
        let mut again = Normals::new(7);
        assert_eq!([again.take(3), again.take(2)].concat(), values[..5]);
        assert_ne!(Normals::new(8).take(1), values[..1]);
    }
}
