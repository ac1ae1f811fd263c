use super::*;
use crate::image::diffusion::lenient_json;
use serde_json::{Value, json};

/// As `pattern` in `tools/golden/diffusion.py`.
fn pattern(draw: usize, count: usize) -> Vec<f32> {
    let at = |i: usize| (1.4 * (12.9898 * i as f64 + 78.233 * (draw + 1) as f64).sin()) as f32;
    (1..=count).map(at).collect()
}

fn row(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn near(found: &[f32], wanted: &[f32]) -> f32 {
    assert_eq!(found.len(), wanted.len());
    let size = wanted.iter().map(|v| v.abs()).fold(0.0, f32::max);
    found.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / size
}

#[test]
fn samples_are_those_of_diffusers() {
    let text = include_str!("../../../../../../testdata/diffusion/schedulers.json");
    let cases: Vec<Value> = serde_json::from_str(text).unwrap();
    assert!(cases.len() > 50);
    let mut wrong = Vec::new();
    for case in &cases {
        let config = SchedulerConfig::from_json(&case["config"]).unwrap();
        let steps = case["steps"].as_u64().unwrap() as usize;
        let mut scheduler = Scheduler::new(&config, steps).unwrap();
        let mut draw = 0;
        let mut fresh = || {
            draw += 1;
            pattern(draw - 1, 12)
        };
        let noise = fresh();
        let mut sample = match case["begin"].as_u64() {
            None => noise.iter().map(|v| v * scheduler.initial_scale()).collect(),
            Some(begin) => {
                scheduler.begin((steps as f64 - begin as f64 + 0.5) / steps as f64).unwrap();
                let picture: Vec<f32> = pattern(100, 12).iter().map(|v| v * 0.5).collect();
                scheduler.noised(&picture, &noise)
            }
        };
        let name = format!(
            "{} {steps} {} {}",
            case["config"]["_class_name"],
            case["config"]["timestep_spacing"],
            case["config"]["prediction_type"]
        );
        let times: Vec<f32> = scheduler.timesteps()[scheduler.at..].iter().map(|t| *t as f32).collect();
        let wanted = row(&case["timesteps"]);
        let apart = times.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        if times.len() != wanted.len() || apart > 2e-3 {
            wrong.push(format!("{name}: timesteps {times:?}, not {wanted:?}"));
            continue;
        }
        if near(&sample, &row(&case["begun"])) > 1e-5 {
            wrong.push(format!("{name}: begins with {sample:?}"));
        }
        let mut first = None;
        while scheduler.passes() > 0 {
            let time = scheduler.timestep();
            let output: Vec<f32> = scheduler
                .scaled(&sample)
                .iter()
                .map(|v| f64::from(*v))
                .map(|x| (0.6 * (1.1 * x + 0.003 * time).sin() + 0.2 * x) as f32)
                .collect();
            sample = scheduler.step(&output, &sample, &mut fresh);
            first.get_or_insert_with(|| sample.clone());
        }
        let begun = near(&first.unwrap(), &row(&case["first"]));
        let ended = near(&sample, &row(&case["last"]));
        // At a level of 4096, f32 leaves the reference itself no more digits.
        let most = if config.betas.zero_snr { 1e-4 } else { 1e-5 };
        if begun > most || ended > most {
            wrong.push(format!("{name}: {begun} after the first step, {ended} after the last"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn what_is_not_known_is_named() {
    for (config, wanted) in [
        (json!({}), "DDIMScheduler, PNDMScheduler"),
        (json!({ "_class_name": "HeunDiscreteScheduler" }), "HeunDiscreteScheduler"),
        (json!({ "_class_name": "DDIMScheduler", "beta_schedule": "sigmoid" }), "linear, scaled_linear"),
        (json!({ "_class_name": "DDIMScheduler", "prediction_type": 5 }), "epsilon, v_prediction"),
        (json!({ "_class_name": "DDIMScheduler", "thresholding": true }), "thresholding"),
        (json!({ "_class_name": "DDIMScheduler", "trained_betas": [0.1] }), "trained_betas"),
        (json!({ "_class_name": "DDIMScheduler", "steps_offset": -1 }), "steps_offset"),
        (json!({ "_class_name": "EulerDiscreteScheduler", "timestep_spacing": "odd" }), "trailing"),
        (json!({ "_class_name": "EulerDiscreteScheduler", "use_beta_sigmas": true }), "use_beta_sigmas"),
        (json!({ "_class_name": "DPMSolverMultistepScheduler", "solver_order": 3 }), "solver_order"),
        (
            json!({ "_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver" }),
            "dpmsolver++",
        ),
    ] {
        let error = SchedulerConfig::from_json(&config).unwrap_err().to_string();
        assert!(error.contains(wanted), "{config}: {error}");
    }
    for (name, value) in [
        ("num_train_timesteps", json!(1u64 << 40)),
        ("num_train_timesteps", json!(0)),
        ("beta_start", json!(0.0)),
        ("beta_end", json!(1.5)),
    ] {
        let mut config = json!({ "_class_name": "DDIMScheduler" });
        config[name] = value;
        let config = SchedulerConfig::from_json(&config).unwrap();
        assert!(Scheduler::new(&config, 4).is_err(), "{name}");
    }
}

#[test]
fn hostile_numbers_of_steps_and_strengths_are_refused() {
    for class in [
        "DDIMScheduler",
        "PNDMScheduler",
        "EulerDiscreteScheduler",
        "DPMSolverMultistepScheduler",
        "LCMScheduler",
    ] {
        let mut config = json!({ "_class_name": class, "steps_offset": 1u64 << 40, "skip_prk_steps": true });
        for steps in [1, 2, 3, 49, 999] {
            let parsed = SchedulerConfig::from_json(&config).unwrap();
            let Ok(mut scheduler) = Scheduler::new(&parsed, steps) else { continue };
            let mut sample = vec![0.5; 2];
            while scheduler.passes() > 0 {
                sample = scheduler.step(&[0.1, 0.2], &sample, &mut || vec![0.0; 2]);
            }
        }
        config["steps_offset"] = json!(1);
        let parsed = SchedulerConfig::from_json(&config).unwrap();
        for steps in [0, 1001, usize::MAX] {
            assert!(Scheduler::new(&parsed, steps).is_err(), "{class} {steps}");
        }
        let mut scheduler = Scheduler::new(&parsed, 10).unwrap();
        assert!(
            scheduler.begin(0.05).is_err()
                && scheduler.begin(f64::NAN).is_err()
                && scheduler.begin(-1.0).is_err()
        );
        assert!(scheduler.begin(0.5).is_ok() && scheduler.begin(9.0).is_ok());
    }
}

#[test]
fn pythons_infinities_are_read() {
    let text = r#"{"a": -Infinity, "b": "NaN \" Infinity", "c": [NaN, 1]}"#;
    let value: Value = serde_json::from_str(&lenient_json(text)).unwrap();
    assert_eq!(value, json!({ "a": null, "b": "NaN \" Infinity", "c": [null, 1] }));
}
