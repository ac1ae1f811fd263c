use super::{RopeConfig, RopeScaling};
use crate::metadata::Metadata;
use kun_formats::hf_config::HfConfig;
use kun_formats::{ModelFiles, TensorTable};
use kun_graph::graph::RopeStyle;
use kun_testkit::{Tolerance, golden};

/// What `tools/golden/rope_frequencies.py` writes.
#[derive(serde::Deserialize)]
struct Case {
    config: serde_json::Value,
    magnitude: f32,
    inverse_frequencies: Vec<f32>,
}

fn rope(config: &serde_json::Value) -> RopeConfig {
    let context = usize::try_from(config["max_position_embeddings"].as_u64().unwrap()).unwrap();
    let head_dim = usize::try_from(config["head_dim"].as_u64().unwrap()).unwrap();
    let config = HfConfig { config: config.clone(), ..HfConfig::default() };
    let files = ModelFiles::HuggingFace { config: Box::new(config), tensors: TensorTable::default() };
    RopeConfig::from_metadata(&Metadata::new(&files).unwrap(), head_dim, context).unwrap()
}

#[test]
fn frequencies_match_transformers_for_every_scaling() {
    let cases: Vec<Case> = golden::json(&golden::testdata().join("models/rope_frequencies.json"));
    assert!(cases.len() >= 12);
    for case in cases {
        let rope = rope(&case.config);
        let label = case.config.to_string();
        // transformers computes in f32.
        for (found, expected) in rope.inverse_frequencies(None).iter().zip(&case.inverse_frequencies) {
            Tolerance::RelativeRms(1e-5).assert(&label, &[*found], &[*expected]);
        }
        assert_eq!(rope.inverse_frequencies(None).len(), case.inverse_frequencies.len());
        Tolerance::Ulps(1).assert(&label, &[rope.scaling.magnitude()], &[case.magnitude]);
    }
}

#[test]
fn divisors_of_the_file_divide_each_frequency() {
    let rope = RopeConfig {
        style: RopeStyle::Interleaved,
        base: 100.0,
        rotary_dim: 4,
        scaling: RopeScaling::Linear { factor: 2.0 },
    };
    Tolerance::Ulps(1).assert("divided", &rope.inverse_frequencies(Some(&[1.0, 8.0])), &[0.5, 0.1 / 16.0]);
}

#[test]
fn yarn_stretches_the_context_that_the_file_states() {
    let yarn = RopeScaling::Yarn {
        factor: 4.0,
        original_context: 32768.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        truncate: true,
        magnitude: 1.0,
    };
    assert_eq!(yarn.context_tokens(32768), 131_072);
    assert_eq!(yarn.context_tokens(200_000), 200_000);
    assert_eq!(RopeScaling::None.context_tokens(2048), 2048);
}
