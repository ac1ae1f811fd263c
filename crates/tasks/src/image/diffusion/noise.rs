//! How much noise training has mixed in at each of its timesteps.

use crate::TaskError;

/// How the variance of the noise grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BetaSchedule {
    /// Evenly.
    Linear,
    /// Its root grows evenly: Stable Diffusion.
    ScaledLinear,
    /// By a cosine (arXiv:2102.09672).
    Cosine,
}

/// The schedule of a model's training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Betas {
    /// How variances grow.
    pub schedule: BetaSchedule,
    /// The first.
    pub start: f64,
    /// The last.
    pub end: f64,
    /// Timesteps.
    pub count: usize,
    /// Shifted so that nothing of the picture is left at the last timestep (arXiv:2305.08891).
    pub zero_snr: bool,
}

/// The most timesteps that a model may have been trained with.
pub const MAX_TRAIN_TIMESTEPS: usize = 100_000;

impl Betas {
    /// Share of the picture's variance that is left at each timestep, as f32 numbers the way PyTorch rounds them.
    ///
    /// # Errors
    /// [`TaskError::Input`] for numbers that are no schedule.
    pub fn alphas_cumprod(&self) -> Result<Vec<f64>, TaskError> {
        let (start, end, count) = (self.start, self.end, self.count);
        let bad = |what: String| TaskError::Input { what };
        if !(2..=MAX_TRAIN_TIMESTEPS).contains(&count) {
            return Err(bad(format!("num_train_timesteps is {count}, from 2 to {MAX_TRAIN_TIMESTEPS}")));
        }
        if !(start > 0.0 && start <= end && end < 1.0) {
            return Err(bad(format!("beta_start {start} and beta_end {end}: 0 < start <= end < 1")));
        }
        let betas: Vec<f32> = match self.schedule {
            BetaSchedule::Linear => linspace(start as f32, end as f32, count),
            BetaSchedule::ScaledLinear => {
                linspace(start.sqrt() as f32, end.sqrt() as f32, count).into_iter().map(|b| b * b).collect()
            }
            BetaSchedule::Cosine => {
                let bar = |t: f64| ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
                let at = |i: usize| i as f64 / count as f64;
                (0..count).map(|i| (1.0 - bar(at(i + 1)) / bar(at(i))).min(0.999) as f32).collect()
            }
        };
        let betas = if self.zero_snr { zero_snr(&betas) } else { betas };
        Ok(cumulated(&betas).into_iter().map(f64::from).collect())
    }
}

/// Products are kept in f64 and rounded, as PyTorch does on a CPU.
fn cumulated(betas: &[f32]) -> Vec<f32> {
    let mut product = 1.0_f64;
    betas
        .iter()
        .map(|beta| {
            product *= f64::from(1.0 - beta);
            product as f32
        })
        .collect()
}

/// `torch.linspace` in f32: from the nearer end.
fn linspace(start: f32, end: f32, count: usize) -> Vec<f32> {
    let step = (end - start) / (count - 1) as f32;
    (0..count)
        .map(|i| if i < count / 2 { start + step * i as f32 } else { end - step * (count - 1 - i) as f32 })
        .collect()
}

fn zero_snr(betas: &[f32]) -> Vec<f32> {
    let roots: Vec<f32> = cumulated(betas).into_iter().map(f32::sqrt).collect();
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else { return Vec::new() };
    let bars: Vec<f32> =
        roots.iter().map(|root| ((root - last) * (first / (first - last))).powi(2)).collect();
    let mut before = 1.0;
    bars.into_iter()
        .map(|bar| {
            let beta = 1.0 - bar / before;
            before = bar;
            beta
        })
        .collect()
}
