//! `scheduler_config.json`.

use super::noise::{BetaSchedule, Betas};
use crate::TaskError;
use serde_json::Value;

/// Which solver takes the steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ScheduleKind {
    /// DDIM (arXiv:2010.02502), without noise on the way.
    Ddim {
        /// Keep the predicted picture within this.
        clip: Option<f64>,
        /// What is left of the noise behind the last step: none, or that of the first timestep.
        alpha_to_one: bool,
    },
    /// Pseudo linear multistep (arXiv:2202.09778).
    Pndm {
        /// Begin without Runge-Kutta steps.
        skip_prk: bool,
        /// As [`ScheduleKind::Ddim`]'s.
        alpha_to_one: bool,
    },
    /// Euler's method over noise levels (arXiv:2206.00364).
    Euler {
        /// Levels of arXiv:2206.00364.
        karras: bool,
        /// The last step ends at the smallest level of training instead of none.
        to_sigma_min: bool,
    },
    /// Euler's method with fresh noise after each step.
    EulerAncestral,
    /// DPM-Solver++ (arXiv:2211.01095), multistep.
    DpmSolver {
        /// 1 or 2.
        order: usize,
        /// Heun's form of the second order instead of the midpoint's.
        heun: bool,
        /// As [`ScheduleKind::Euler`]'s.
        karras: bool,
        /// As [`ScheduleKind::Euler`]'s.
        to_sigma_min: bool,
        /// Fewer than 15 steps end with lower orders.
        lower_order_final: bool,
        /// The last step is one of the first order.
        euler_at_final: bool,
    },
    /// Latent consistency (arXiv:2310.04378).
    Lcm {
        /// Steps of the solver that it was distilled from.
        original_steps: usize,
        /// Factor of timesteps in the boundary condition.
        timestep_scaling: f64,
        /// As [`ScheduleKind::Ddim`]'s.
        clip: Option<f64>,
        /// As [`ScheduleKind::Ddim`]'s.
        alpha_to_one: bool,
    },
}

/// What the network gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prediction {
    /// The noise.
    Epsilon,
    /// Velocity (arXiv:2202.00512).
    Velocity,
    /// The picture.
    Sample,
}

/// Where timesteps lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// Every n-th from the first.
    Leading,
    /// Evenly from the first to the last.
    Linspace,
    /// Every n-th down from the last.
    Trailing,
}

/// What a scheduler does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SchedulerConfig {
    /// The solver.
    pub kind: ScheduleKind,
    /// The noise of training.
    pub betas: Betas,
    /// What the network gives.
    pub prediction: Prediction,
    /// Where timesteps lie.
    pub spacing: Spacing,
    /// Added to timesteps of [`Spacing::Leading`].
    pub steps_offset: usize,
}

const CLASSES: [&str; 6] = [
    "DDIMScheduler",
    "PNDMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "LCMScheduler",
];

fn bad(what: String) -> TaskError {
    TaskError::Input { what }
}

/// A JSON object with the defaults of its class.
struct Keys<'a>(&'a Value);

impl Keys<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, TaskError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| bad(format!("{key} is {value}, not true or false")))
    }

    fn number(&self, key: &str, default: f64) -> Result<f64, TaskError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_f64().ok_or_else(|| bad(format!("{key} is {value}, not a number")))
    }

    fn count(&self, key: &str, default: usize) -> Result<usize, TaskError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
        count.ok_or_else(|| bad(format!("{key} is {value}, not a count")))
    }

    fn word<T: Copy>(&self, key: &str, default: T, known: &[(&str, T)]) -> Result<T, TaskError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let found = known.iter().find(|(word, _)| value.as_str() == Some(word));
        found.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
            bad(format!("{key} is {value}; known are {}", words.join(", ")))
        })
    }

    /// Refuses what would change the picture and is not computed.
    fn neutral(&self, keys: &[&str]) -> Result<(), TaskError> {
        match keys.iter().find(|key| self.get(key).is_some_and(|value| *value != Value::Bool(false))) {
            Some(key) => Err(bad(format!("{key} is {}, which is not computed", self.0[*key]))),
            None => Ok(()),
        }
    }
}

impl SchedulerConfig {
    /// From the object of a `scheduler_config.json`. Keys of other classes, which files carry along, have no effect, as in
    /// diffusers.
    ///
    /// # Errors
    /// [`TaskError::Input`] naming the key, its value and what is known.
    pub fn from_json(value: &Value) -> Result<SchedulerConfig, TaskError> {
        let keys = Keys(value);
        let class = value.get("_class_name").and_then(Value::as_str).unwrap_or_default();
        let lcm = class == "LCMScheduler";
        let alpha_to_one = keys.flag("set_alpha_to_one", class != "PNDMScheduler")?;
        let range = keys.number("clip_sample_range", 1.0)?;
        let clip = keys.flag("clip_sample", class == "DDIMScheduler")?.then_some(range);
        let karras = keys.flag("use_karras_sigmas", false)?;
        let sigma_min = [("zero", false), ("sigma_min", true)];
        let to_sigma_min = keys.word("final_sigmas_type", false, &sigma_min)?;
        let kind = match class {
            "DDIMScheduler" => ScheduleKind::Ddim { clip, alpha_to_one },
            "PNDMScheduler" => {
                ScheduleKind::Pndm { skip_prk: keys.flag("skip_prk_steps", false)?, alpha_to_one }
            }
            "EulerDiscreteScheduler" => {
                keys.word("interpolation_type", (), &[("linear", ())])?;
                keys.word("timestep_type", (), &[("discrete", ())])?;
                keys.neutral(&["sigma_min", "sigma_max"])?;
                ScheduleKind::Euler { karras, to_sigma_min }
            }
            "EulerAncestralDiscreteScheduler" => ScheduleKind::EulerAncestral,
            "DPMSolverMultistepScheduler" => {
                let order = keys.count("solver_order", 2)?;
                if !(1..=2).contains(&order) {
                    return Err(bad(format!("solver_order is {order}; 1 and 2 are known")));
                }
                keys.word("algorithm_type", (), &[("dpmsolver++", ())])?;
                keys.neutral(&[
                    "use_lu_lambdas",
                    "use_flow_sigmas",
                    "lambda_min_clipped",
                    "variance_type",
                    "use_dynamic_shifting",
                ])?;
                ScheduleKind::DpmSolver {
                    order,
                    heun: keys.word("solver_type", false, &[("midpoint", false), ("heun", true)])?,
                    karras,
                    to_sigma_min,
                    lower_order_final: keys.flag("lower_order_final", true)?,
                    euler_at_final: keys.flag("euler_at_final", false)?,
                }
            }
            "LCMScheduler" => ScheduleKind::Lcm {
                original_steps: keys.count("original_inference_steps", 50)?,
                timestep_scaling: keys.number("timestep_scaling", 10.0)?,
                clip,
                alpha_to_one,
            },
            _ => return Err(bad(format!("_class_name is {class:?}; known are {}", CLASSES.join(", ")))),
        };
        keys.neutral(&["trained_betas", "thresholding", "use_exponential_sigmas", "use_beta_sigmas"])?;
        let usual = if lcm { BetaSchedule::ScaledLinear } else { BetaSchedule::Linear };
        let schedules = [
            ("linear", BetaSchedule::Linear),
            ("scaled_linear", BetaSchedule::ScaledLinear),
            ("squaredcos_cap_v2", BetaSchedule::Cosine),
        ];
        let betas = Betas {
            schedule: keys.word("beta_schedule", usual, &schedules)?,
            start: keys.number("beta_start", if lcm { 0.00085 } else { 0.0001 })?,
            end: keys.number("beta_end", if lcm { 0.012 } else { 0.02 })?,
            count: keys.count("num_train_timesteps", 1000)?,
            zero_snr: keys.flag("rescale_betas_zero_snr", false)?,
        };
        let predictions = [
            ("epsilon", Prediction::Epsilon),
            ("v_prediction", Prediction::Velocity),
            ("sample", Prediction::Sample),
        ];
        let spacings =
            [("leading", Spacing::Leading), ("linspace", Spacing::Linspace), ("trailing", Spacing::Trailing)];
        let leads = matches!(class, "DDIMScheduler" | "PNDMScheduler" | "LCMScheduler");
        let usual = if leads { Spacing::Leading } else { Spacing::Linspace };
        Ok(SchedulerConfig {
            kind,
            betas,
            prediction: keys.word("prediction_type", Prediction::Epsilon, &predictions)?,
            spacing: keys.word("timestep_spacing", usual, &spacings)?,
            steps_offset: keys.count("steps_offset", 0)?,
        })
    }
}

/// JSON as Python writes it: numbers that JSON has no word for become null.
pub fn lenient_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut quoted = false;
    while let Some(c) = rest.chars().next() {
        if !quoted {
            let words = ["-Infinity", "Infinity", "NaN"];
            if let Some(after) = words.iter().find_map(|word| rest.strip_prefix(word)) {
                out.push_str("null");
                rest = after;
                continue;
            }
        }
        let mut taken = c.len_utf8();
        if quoted && c == '\\' {
            taken += rest[taken..].chars().next().map_or(0, char::len_utf8);
        }
        quoted ^= c == '"';
        out.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    out
}
