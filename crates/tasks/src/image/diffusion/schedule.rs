//! Timesteps and noise levels for a number of steps.

use super::config::{ScheduleKind, SchedulerConfig, Spacing};
use crate::TaskError;

/// Where a solver stops.
#[derive(Clone, Debug, Default)]
pub(super) struct Stops {
    /// Timesteps, one for each pass of the network.
    pub(super) times: Vec<f64>,
    /// Noise levels, one more; of solvers that go by them.
    pub(super) sigmas: Vec<f64>,
    /// Of the passes, how many are Runge-Kutta's.
    pub(super) prk: usize,
}

fn interpolated(values: &[f64], at: f64) -> f64 {
    let at = at.clamp(0.0, (values.len() - 1) as f64);
    let (low, part) = (at.floor() as usize, at.fract());
    let high = (low + 1).min(values.len() - 1);
    values[low] + (values[high] - values[low]) * part
}

/// The timestep at which a level would stand, between those that are there.
fn time_of(sigma: f64, logs: &[f64]) -> f64 {
    let log = sigma.max(1e-10).ln();
    let below = logs.partition_point(|level| *level <= log).saturating_sub(1);
    let low = below.min(logs.len() - 2);
    let part = ((logs[low] - log) / (logs[low] - logs[low + 1])).clamp(0.0, 1.0);
    (1.0 - part) * low as f64 + part * (low + 1) as f64
}

/// Levels of arXiv:2206.00364, equation 5.
fn karras(high: f64, low: f64, steps: usize) -> Vec<f64> {
    let (low, high) = (low.powf(1.0 / 7.0), high.powf(1.0 / 7.0));
    let at = |i: usize| if steps == 1 { 0.0 } else { i as f64 / (steps - 1) as f64 };
    (0..steps).map(|i| (high + at(i) * (low - high)).powi(7)).collect()
}

/// Downwards, for solvers with one pass a step.
fn spaced(config: &SchedulerConfig, steps: usize, whole: bool) -> Vec<f64> {
    let count = config.betas.count;
    let up: Vec<f64> = match config.spacing {
        Spacing::Linspace => {
            let width = if steps == 1 { 0.0 } else { (count - 1) as f64 / (steps - 1) as f64 };
            let at =
                |i: usize| if i + 1 == steps && steps > 1 { (count - 1) as f64 } else { i as f64 * width };
            let exact = (0..steps).map(at);
            if whole {
                exact.map(f64::round_ties_even).collect()
            } else {
                exact.map(|t| f64::from(t as f32)).collect()
            }
        }
        Spacing::Leading => {
            let ratio = count / steps;
            (0..steps).map(|i| (i * ratio + config.steps_offset) as f64).collect()
        }
        Spacing::Trailing => return trailing(count, steps),
    };
    up.into_iter().rev().collect()
}

fn trailing(count: usize, steps: usize) -> Vec<f64> {
    let ratio = count as f64 / steps as f64;
    let stops = (count as f64 / ratio).ceil() as usize;
    (0..stops).map(|i| (count as f64 - i as f64 * ratio).round_ties_even() - 1.0).collect()
}

/// DPM-Solver leaves the last timestep out.
fn spaced_for_dpm(config: &SchedulerConfig, steps: usize) -> Vec<f64> {
    let count = config.betas.count;
    match config.spacing {
        Spacing::Linspace => {
            let width = (count - 1) as f64 / steps as f64;
            let at = |i: usize| if i == steps { (count - 1) as f64 } else { i as f64 * width };
            (1..=steps).rev().map(|i| at(i).round_ties_even()).collect()
        }
        Spacing::Leading => {
            let ratio = count / (steps + 1);
            (1..=steps).rev().map(|i| (i * ratio + config.steps_offset) as f64).collect()
        }
        Spacing::Trailing => trailing(count, steps),
    }
}

/// Linear multistep takes the second timestep twice; with Runge-Kutta, the first three are split.
fn pndm(config: &SchedulerConfig, steps: usize, skip_prk: bool) -> Stops {
    let mut up = spaced(config, steps, true);
    up.reverse();
    if skip_prk {
        let last = up.len().saturating_sub(1);
        let again = (last > 0).then(|| up[last - 1]);
        let times: Vec<f64> =
            up[..last].iter().copied().chain(again).chain(up.last().copied()).rev().collect();
        return Stops { times, ..Stops::default() };
    }
    let half = (config.betas.count / steps / 2) as f64;
    let ends: Vec<f64> = up[up.len().saturating_sub(4)..].iter().flat_map(|t| [*t, *t + half]).collect();
    let doubled: Vec<f64> = ends[..ends.len() - 1].iter().flat_map(|t| [*t, *t]).collect();
    let mut times: Vec<f64> = doubled[1..doubled.len() - 1].iter().rev().copied().collect();
    let prk = times.len();
    times.extend(up[..up.len().saturating_sub(3)].iter().rev());
    Stops { times, prk, ..Stops::default() }
}

impl Stops {
    pub(super) fn new(config: &SchedulerConfig, alphas: &[f64], steps: usize) -> Result<Stops, TaskError> {
        // A standard deviation for each timestep, in f32 as the reference has it.
        let level = |alpha: &f64| f64::from((((1.0 - *alpha as f32) / *alpha as f32) as f64).sqrt() as f32);
        let levels: Vec<f64> = alphas.iter().map(level).collect();
        let logs = || levels.iter().map(|level| f64::from(level.ln() as f32)).collect::<Vec<f64>>();
        let ended = |mut sigmas: Vec<f64>, to_sigma_min: bool| {
            sigmas.push(if to_sigma_min { levels[0] } else { 0.0 });
            sigmas.into_iter().map(|sigma| f64::from(sigma as f32)).collect::<Vec<f64>>()
        };
        Ok(match config.kind {
            ScheduleKind::Ddim { .. } => Stops { times: spaced(config, steps, true), ..Stops::default() },
            ScheduleKind::Pndm { skip_prk, .. } => {
                if !skip_prk && steps < 4 {
                    let what = format!("{steps} steps; this scheduler takes 4 or more");
                    return Err(TaskError::Input { what });
                }
                pndm(config, steps, skip_prk)
            }
            ScheduleKind::EulerAncestral => {
                let times = spaced(config, steps, false);
                let sigmas = times.iter().map(|t| interpolated(&levels, *t)).collect();
                Stops { sigmas: ended(sigmas, false), times, prk: 0 }
            }
            ScheduleKind::Euler { karras: wanted, to_sigma_min } => {
                let mut times = spaced(config, steps, false);
                let mut sigmas: Vec<f64> = times.iter().map(|t| interpolated(&levels, *t)).collect();
                if wanted {
                    let logs = logs();
                    sigmas = karras(sigmas[0], sigmas[sigmas.len() - 1], steps);
                    times = sigmas.iter().map(|sigma| f64::from(time_of(*sigma, &logs) as f32)).collect();
                }
                Stops { sigmas: ended(sigmas, to_sigma_min), times, prk: 0 }
            }
            ScheduleKind::DpmSolver { karras: wanted, to_sigma_min, .. } => {
                let mut times = spaced_for_dpm(config, steps);
                let mut sigmas: Vec<f64> = times.iter().map(|t| interpolated(&levels, *t)).collect();
                if wanted {
                    let logs = logs();
                    sigmas = karras(levels[levels.len() - 1], levels[0], steps);
                    times = sigmas.iter().map(|sigma| time_of(*sigma, &logs).round_ties_even()).collect();
                }
                Stops { sigmas: ended(sigmas, to_sigma_min), times, prk: 0 }
            }
            ScheduleKind::Lcm { original_steps, .. } => {
                if original_steps == 0 || original_steps > config.betas.count || steps > original_steps {
                    let what = format!("{steps} steps; this scheduler takes 1 to {original_steps}");
                    return Err(TaskError::Input { what });
                }
                let every = config.betas.count / original_steps;
                let at = |i: usize| (i as f64 * original_steps as f64 / steps as f64).floor() as usize;
                let times = (0..steps).map(|i| ((original_steps - at(i)) * every - 1) as f64).collect();
                Stops { times, ..Stops::default() }
            }
        })
    }
}
