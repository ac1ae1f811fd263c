//! From the noise that a network predicts to the next sample.

use super::config::{Prediction, ScheduleKind, SchedulerConfig, Spacing};
use super::schedule::Stops;
use crate::TaskError;

/// The most steps that are taken.
pub const MAX_STEPS: usize = 1000;

/// A solver on its way from noise to a picture.
#[derive(Clone, Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    alphas: Vec<f64>,
    stops: Stops,
    steps: usize,
    /// The pass that comes.
    at: usize,
    begun_at: usize,
    /// What earlier passes gave, the newest last.
    outputs: Vec<Vec<f32>>,
    /// Sum of the passes of a Runge-Kutta step so far.
    sum: Vec<f32>,
    /// The sample that this step, of several passes, began with.
    kept: Vec<f32>,
}

/// Fresh noise of the sample's size, standard normal.
pub type FreshNoise<'a> = dyn FnMut() -> Vec<f32> + 'a;

/// Sum of samples, each by its factor.
fn mix<const N: usize>(terms: [(f64, &[f32]); N]) -> Vec<f32> {
    let count = terms.iter().map(|(_, values)| values.len()).min().unwrap_or(0);
    (0..count)
        .map(|i| terms.iter().map(|(factor, values)| factor * f64::from(values[i])).sum::<f64>() as f32)
        .collect()
}

impl Scheduler {
    /// A solver with so many steps.
    ///
    /// # Errors
    /// [`TaskError::Input`] for steps that it does not take, and a noise schedule that is none.
    pub fn new(config: &SchedulerConfig, steps: usize) -> Result<Scheduler, TaskError> {
        let mut alphas = config.betas.alphas_cumprod()?;
        let most = MAX_STEPS.min(config.betas.count);
        if !(1..=most).contains(&steps) {
            return Err(TaskError::Input { what: format!("{steps} steps; from 1 to {most} are taken") });
        }
        let by_level = matches!(
            config.kind,
            ScheduleKind::Euler { .. } | ScheduleKind::EulerAncestral | ScheduleKind::DpmSolver { .. }
        );
        if let (true, true, Some(last)) = (by_level, config.betas.zero_snr, alphas.last_mut()) {
            // A level must be finite.
            *last = f64::from(2.0_f32.powi(-24));
        }
        let stops = Stops::new(config, &alphas, steps)?;
        Ok(Scheduler {
            config: *config,
            alphas,
            stops,
            steps,
            at: 0,
            begun_at: 0,
            outputs: Vec::new(),
            sum: Vec::new(),
            kept: Vec::new(),
        })
    }

    /// The timestep of each pass of the network.
    pub fn timesteps(&self) -> &[f64] {
        &self.stops.times
    }

    /// Passes of the network that are left.
    pub fn passes(&self) -> usize {
        self.stops.times.len() - self.at
    }

    /// The timestep of the pass that comes.
    pub fn timestep(&self) -> f64 {
        self.stops.times.get(self.at).copied().unwrap_or(0.0)
    }

    /// Begins later, where a picture is changed by `strength`: 1 is all of the way, 0 none of it.
    ///
    /// # Errors
    /// [`TaskError::Input`] where no step would be left.
    pub fn begin(&mut self, strength: f64) -> Result<(), TaskError> {
        let taken = ((self.steps as f64 * strength) as usize).min(self.steps);
        if taken == 0 {
            let what = format!("strength {strength} of {} steps leaves none to take", self.steps);
            return Err(TaskError::Input { what });
        }
        self.at = self.steps - taken;
        self.begun_at = self.at;
        Ok(())
    }

    /// What standard normal noise is multiplied with to begin.
    pub fn initial_scale(&self) -> f32 {
        let high = self.stops.sigmas.iter().copied().fold(0.0, f64::max);
        match (self.config.kind, self.config.spacing) {
            (ScheduleKind::Euler { .. } | ScheduleKind::EulerAncestral, Spacing::Leading) => {
                (high * high + 1.0).sqrt() as f32
            }
            (ScheduleKind::Euler { .. } | ScheduleKind::EulerAncestral, _) => high as f32,
            _ => 1.0,
        }
    }

    /// The sample as the network takes it in the pass that comes.
    pub fn scaled(&self, sample: &[f32]) -> Vec<f32> {
        match self.config.kind {
            ScheduleKind::Euler { .. } | ScheduleKind::EulerAncestral => {
                let sigma = self.sigma(self.at);
                mix([(1.0 / (sigma * sigma + 1.0).sqrt(), sample)])
            }
            _ => sample.to_vec(),
        }
    }

    /// `picture` with as much noise as it has before the pass that comes; behind the last one, with none.
    pub fn noised(&self, picture: &[f32], noise: &[f32]) -> Vec<f32> {
        if self.passes() == 0 {
            return picture.to_vec();
        }
        match self.config.kind {
            ScheduleKind::Euler { .. } | ScheduleKind::EulerAncestral => {
                mix([(1.0, picture), (self.sigma(self.at), noise)])
            }
            ScheduleKind::DpmSolver { .. } => {
                let (alpha, sigma) = parts(self.sigma(self.at));
                mix([(alpha, picture), (sigma, noise)])
            }
            _ => {
                let alpha = self.alpha(self.timestep());
                mix([(alpha.sqrt(), picture), ((1.0 - alpha).sqrt(), noise)])
            }
        }
    }

    /// The next sample from what the network gave for this one.
    pub fn step(&mut self, output: &[f32], sample: &[f32], noise: &mut FreshNoise<'_>) -> Vec<f32> {
        let next = match self.config.kind {
            ScheduleKind::Ddim { clip, .. } => self.ddim(output, sample, clip),
            ScheduleKind::Pndm { .. } if self.at - self.begun_at < self.stops.prk => self.prk(output, sample),
            ScheduleKind::Pndm { .. } => self.plms(output, sample),
            ScheduleKind::Euler { .. } => self.euler(output, sample),
            ScheduleKind::EulerAncestral => self.euler_ancestral(output, sample, noise),
            ScheduleKind::DpmSolver { .. } => self.dpm(output, sample),
            ScheduleKind::Lcm { timestep_scaling, clip, .. } => {
                self.lcm(output, sample, timestep_scaling, clip, noise)
            }
        };
        self.at += 1;
        next
    }

    /// The whole picture as the network sees it in this sample, before [`Scheduler::step`] goes on.
    pub fn estimate(&self, output: &[f32], sample: &[f32]) -> Vec<f32> {
        match self.config.kind {
            ScheduleKind::Euler { .. } | ScheduleKind::EulerAncestral => {
                self.picture_at_level(output, sample, self.sigma(self.at))
            }
            ScheduleKind::DpmSolver { .. } => {
                let (alpha, sigma) = parts(self.sigma(self.at));
                self.picture(output, sample, alpha, sigma)
            }
            _ => {
                let alpha = self.alpha(self.timestep());
                self.picture(output, sample, alpha.sqrt(), (1.0 - alpha).sqrt())
            }
        }
    }

    fn sigma(&self, at: usize) -> f64 {
        self.stops.sigmas.get(at).copied().unwrap_or(0.0)
    }

    /// What is left of the picture at a timestep; before the first, all or what the first has.
    fn alpha(&self, time: f64) -> f64 {
        if time < 0.0 {
            let to_one = match self.config.kind {
                ScheduleKind::Ddim { alpha_to_one, .. }
                | ScheduleKind::Pndm { alpha_to_one, .. }
                | ScheduleKind::Lcm { alpha_to_one, .. } => alpha_to_one,
                _ => true,
            };
            return if to_one { 1.0 } else { self.alphas[0] };
        }
        self.alphas[(time as usize).min(self.alphas.len() - 1)]
    }

    /// Timesteps between two stops.
    fn stride(&self) -> f64 {
        (self.config.betas.count / self.steps) as f64
    }

    /// The picture that the network sees in the sample, where `alpha` and `sigma` are the shares of picture and noise.
    fn picture(&self, output: &[f32], sample: &[f32], alpha: f64, sigma: f64) -> Vec<f32> {
        match self.config.prediction {
            Prediction::Epsilon => mix([(1.0 / alpha, sample), (-sigma / alpha, output)]),
            Prediction::Velocity => mix([(alpha, sample), (-sigma, output)]),
            Prediction::Sample => output.to_vec(),
        }
    }

    fn ddim(&self, output: &[f32], sample: &[f32], clip: Option<f64>) -> Vec<f32> {
        let time = self.timestep();
        let (now, next) = (self.alpha(time), self.alpha(time - self.stride()));
        let (alpha, sigma) = (now.sqrt(), (1.0 - now).sqrt());
        let mut picture = self.picture(output, sample, alpha, sigma);
        let noise = match self.config.prediction {
            Prediction::Epsilon => output.to_vec(),
            Prediction::Velocity => mix([(alpha, output), (sigma, sample)]),
            Prediction::Sample => mix([(1.0 / sigma, sample), (-alpha / sigma, &picture)]),
        };
        clip_to(&mut picture, clip);
        mix([(next.sqrt(), &picture), ((1.0 - next).sqrt(), &noise)])
    }

    /// Formula 9 of arXiv:2202.09778.
    fn transfer(&self, sample: &[f32], time: f64, to: f64, output: &[f32]) -> Vec<f32> {
        let (now, next) = (self.alpha(time), self.alpha(to));
        let noise = match self.config.prediction {
            Prediction::Velocity => mix([(now.sqrt(), output), ((1.0 - now).sqrt(), sample)]),
            _ => output.to_vec(),
        };
        let divisor = now * (1.0 - next).sqrt() + (now * (1.0 - now) * next).sqrt();
        mix([((next / now).sqrt(), sample), (-(next - now) / divisor, &noise)])
    }

    fn prk(&mut self, output: &[f32], sample: &[f32]) -> Vec<f32> {
        let pass = self.at - self.begun_at;
        let half = (self.config.betas.count / self.steps / 2) as f64;
        let to = self.timestep() - if pass % 2 == 1 { 0.0 } else { half };
        let time = self.stops.times[self.begun_at + pass / 4 * 4];
        let used = match pass % 4 {
            0 => {
                self.sum = mix([(1.0 / 6.0, output)]);
                self.outputs.push(output.to_vec());
                self.kept = sample.to_vec();
                output.to_vec()
            }
            3 => mix([(1.0, &self.sum), (1.0 / 6.0, output)]),
            _ => {
                self.sum = mix([(1.0, &self.sum), (1.0 / 3.0, output)]);
                output.to_vec()
            }
        };
        self.transfer(&self.kept, time, to, &used)
    }

    fn plms(&mut self, output: &[f32], sample: &[f32]) -> Vec<f32> {
        let pass = self.at - self.begun_at;
        let stride = self.stride();
        let (mut time, mut to) = (self.timestep(), self.timestep() - stride);
        if pass == 1 {
            // The first step again, from its own sample, with what its end says.
            (time, to) = (time + stride, time);
            let first = self.outputs.last().cloned().unwrap_or_default();
            let used = mix([(0.5, output), (0.5, &first)]);
            let kept = std::mem::take(&mut self.kept);
            return self.transfer(&kept, time, to, &used);
        }
        let keep = self.outputs.len().saturating_sub(3);
        self.outputs.drain(..keep);
        self.outputs.push(output.to_vec());
        if pass == 0 {
            self.kept = sample.to_vec();
        }
        let used = match self.outputs.as_slice() {
            [a, b, c, d] => mix([(55.0 / 24.0, d), (-59.0 / 24.0, c), (37.0 / 24.0, b), (-9.0 / 24.0, a)]),
            [a, b, c] => mix([(23.0 / 12.0, c), (-16.0 / 12.0, b), (5.0 / 12.0, a)]),
            [a, b] => mix([(1.5, b), (-0.5, a)]),
            _ => output.to_vec(),
        };
        self.transfer(sample, time, to, &used)
    }

    /// The picture of a sample that keeps its variance of 1 beside the noise's.
    fn picture_at_level(&self, output: &[f32], sample: &[f32], sigma: f64) -> Vec<f32> {
        match self.config.prediction {
            Prediction::Epsilon => mix([(1.0, sample), (-sigma, output)]),
            Prediction::Velocity => {
                let whole = sigma * sigma + 1.0;
                mix([(-sigma / whole.sqrt(), output), (1.0 / whole, sample)])
            }
            Prediction::Sample => output.to_vec(),
        }
    }

    fn euler(&self, output: &[f32], sample: &[f32]) -> Vec<f32> {
        let (sigma, next) = (self.sigma(self.at), self.sigma(self.at + 1));
        let picture = self.picture_at_level(output, sample, sigma);
        let way = (next - sigma) / sigma;
        mix([(1.0 + way, sample), (-way, &picture)])
    }

    fn euler_ancestral(&self, output: &[f32], sample: &[f32], noise: &mut FreshNoise<'_>) -> Vec<f32> {
        let (sigma, next) = (self.sigma(self.at), self.sigma(self.at + 1));
        let picture = self.picture_at_level(output, sample, sigma);
        let up = (next.powi(2) * (sigma.powi(2) - next.powi(2)) / sigma.powi(2)).max(0.0).sqrt();
        let down = (next.powi(2) - up.powi(2)).max(0.0).sqrt();
        let way = (down - sigma) / sigma;
        mix([(1.0 + way, sample), (-way, &picture), (up, &noise())])
    }

    fn dpm(&mut self, output: &[f32], sample: &[f32]) -> Vec<f32> {
        let ScheduleKind::DpmSolver { order, heun, to_sigma_min, lower_order_final, euler_at_final, .. } =
            self.config.kind
        else {
            return sample.to_vec();
        };
        let count = self.stops.times.len();
        let is_last = self.at + 1 == count;
        let first_order = is_last && (euler_at_final || lower_order_final && count < 15 || !to_sigma_min);
        let (alpha, sigma) = parts(self.sigma(self.at));
        let (next_alpha, next_sigma) = parts(self.sigma(self.at + 1));
        let picture = self.picture(output, sample, alpha, sigma);
        let lambda = |alpha: f64, sigma: f64| alpha.ln() - sigma.ln();
        let h = lambda(next_alpha, next_sigma) - lambda(alpha, sigma);
        let gain = (-h).exp_m1();
        let before = self.outputs.pop();
        let next = match &before {
            Some(before) if order > 1 && !first_order => {
                let (old_alpha, old_sigma) = parts(self.sigma(self.at - 1));
                let r = (lambda(alpha, sigma) - lambda(old_alpha, old_sigma)) / h;
                let slope = mix([(1.0 / r, &picture), (-1.0 / r, before)]);
                let factor = if heun { next_alpha * (gain / h + 1.0) } else { -0.5 * next_alpha * gain };
                mix([(next_sigma / sigma, sample), (-next_alpha * gain, &picture), (factor, &slope)])
            }
            _ => mix([(next_sigma / sigma, sample), (-next_alpha * gain, &picture)]),
        };
        self.outputs.push(picture);
        next
    }

    fn lcm(
        &self,
        output: &[f32],
        sample: &[f32],
        scaling: f64,
        clip: Option<f64>,
        noise: &mut FreshNoise<'_>,
    ) -> Vec<f32> {
        let time = self.timestep();
        let is_last = self.at + 1 == self.stops.times.len();
        let next = self.alpha(self.stops.times.get(self.at + 1).copied().unwrap_or(time));
        let now = self.alpha(time);
        let mut picture = self.picture(output, sample, now.sqrt(), (1.0 - now).sqrt());
        clip_to(&mut picture, clip);
        let scaled = time * scaling;
        let skip = 0.25 / (scaled * scaled + 0.25);
        let out = scaled / (scaled * scaled + 0.25).sqrt();
        let denoised = mix([(out, &picture), (skip, sample)]);
        match is_last {
            true => denoised,
            false => mix([(next.sqrt(), &denoised), ((1.0 - next).sqrt(), &noise())]),
        }
    }
}

/// Shares of picture and noise at a level, whose squares sum to 1.
fn parts(sigma: f64) -> (f64, f64) {
    let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
    (alpha, sigma * alpha)
}

fn clip_to(picture: &mut [f32], clip: Option<f64>) {
    if let Some(range) = clip {
        let range = range as f32;
        picture.iter_mut().for_each(|v| *v = v.max(-range).min(range));
    }
}

#[cfg(test)]
mod tests;
