//! Tiny random-weight models of every architecture against the logits of transformers, from both formats.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "support/runner.rs"]
mod runner;

use kun_formats::ModelFiles;
use kun_formats::gguf::Value;
use kun_graph::{Backend, CpuBackend, ReferenceBackend};
use kun_models::{LoadOptions, Model};
use kun_tensor::DType;
use kun_tensor::storage::Access;
use kun_testkit::{Tolerance, golden};
use runner::{Runner, load};
use std::path::PathBuf;
use std::sync::Arc;

const MODELS: [&str; 9] = [
    "llama2",
    "llama3",
    "llama_linear_bias",
    "mistral",
    "smollm2",
    "smollm3",
    "qwen2",
    "qwen2_yarn",
    "qwen3",
];

/// What `tools/golden/tiny_decoders.py` writes.
#[derive(serde::Deserialize)]
struct Golden {
    tokens: Vec<i32>,
    /// Positions whose logits are kept.
    rows: Vec<usize>,
    logits: Vec<Vec<f32>>,
}

fn folder(name: &str) -> PathBuf {
    golden::testdata().join("models").join(name)
}

fn both_formats(name: &str) -> [PathBuf; 2] {
    [folder(name).join(format!("{name}.gguf")), folder(name).join("hf")]
}

fn check(name: &str, backend: &impl Backend, model: &Model, tolerance: Tolerance) {
    let golden: Golden = golden::json(&folder(name).join("golden.json"));
    let count = golden.tokens.len();
    assert_eq!(golden.rows.len(), golden.logits.len());
    let mut runner = Runner::new(backend, model, count);
    for (how, chunks) in [
        ("in one go", vec![count]),
        ("in chunks", vec![5, 1, 27, 40, count - 73]),
        ("token by token", vec![1; count]),
    ] {
        runner.restart();
        let mut start = 0;
        for chunk in chunks {
            let end = start + chunk;
            let kept: Vec<usize> =
                (0..golden.rows.len()).filter(|i| (start..end).contains(&golden.rows[*i])).collect();
            let rows: Vec<usize> = kept.iter().map(|i| golden.rows[*i]).collect();
            // A program may be asked for no logits at all.
            let logits = runner.run(&golden.tokens[start..end], &rows);
            let expected: Vec<f32> = kept.iter().flat_map(|i| golden.logits[*i].iter().copied()).collect();
            tolerance.assert(&format!("{name} {how}, tokens {start}..{end}"), &logits, &expected);
            start = end;
        }
    }
}

#[test]
fn reference_logits_match_transformers() {
    for name in MODELS {
        for path in both_formats(name) {
            check(name, &ReferenceBackend, &load(&path, None), Tolerance::AbsoluteMax(2e-5));
        }
    }
}

/// What the goldens are for: a setting misread by a little moves the logits far beyond the tolerance.
#[test]
fn misread_settings_show_in_the_logits() {
    let number = |value: f32| Value::F32(value);
    let table = [
        ("llama2", "llama.rope.freq_base", number(20_000.0)),
        ("llama2", "llama.attention.layer_norm_rms_epsilon", number(1e-2)),
        ("llama3", "llama.rope.scaling.type", Value::String("dropped".into())),
        ("llama_linear_bias", "llama.rope.scaling.factor", number(2.0)),
        ("mistral", "llama.attention.sliding_window", Value::U32(25)),
        ("smollm3", "smollm3.rope.freq_base", number(10_000.0)),
        ("smollm3", "general.architecture", Value::String("llama".into())),
        ("qwen2_yarn", "qwen2.rope.scaling.factor", number(3.0)),
        ("qwen2_yarn", "qwen2.rope.scaling.type", Value::String("linear".into())),
        ("qwen3", "qwen3.rope.freq_base", number(10_000.0)),
    ];
    for (name, key, value) in table {
        let path = folder(name).join(format!("{name}.gguf"));
        let Ok(ModelFiles::Gguf(mut gguf)) = kun_formats::open(&path, Access::Mapped) else {
            panic!("{} does not open as GGUF", path.display());
        };
        let entries = &mut gguf.metadata.entries;
        let label = format!("{name} with {key} = {value:?}");
        if value == Value::String("dropped".into()) {
            gguf.tensors.tensors.remove("rope_freqs.weight");
        } else if let (Value::String(architecture), "general.architecture") = (&value, key) {
            let renamed: Vec<_> = entries
                .iter()
                .filter_map(|(key, value)| {
                    Some((format!("{architecture}.{}", key.strip_prefix("smollm3.")?), value.clone()))
                })
                .collect();
            entries.extend(renamed);
            entries.insert(key.to_owned(), value);
        } else {
            entries.insert(key.to_owned(), value);
        }
        let model = kun_models::load(Arc::new(ModelFiles::Gguf(gguf)), &LoadOptions::default()).unwrap();
        let golden: Golden = golden::json(&folder(name).join("golden.json"));
        let logits =
            Runner::new(&ReferenceBackend, &model, golden.tokens.len()).run(&golden.tokens, &golden.rows);
        let difference = Tolerance::AbsoluteMax(5e-3).check(&logits, &golden.logits.concat());
        assert!(difference.is_err(), "{label}: no difference above 5e-3");
    }
}

/// The cache of the CPU's keys and values is f16, which alone moves these logits by up to 7e-4.
#[test]
fn cpu_logits_match_transformers_in_f32() {
    let backend = CpuBackend::new(2).unwrap();
    for name in MODELS {
        for path in both_formats(name) {
            let model = load(&path, Some(DType::F32));
            check(name, &backend, &model, Tolerance::AbsoluteMax(1e-3));
        }
    }
}

/// Kernels may round activations to the type of the weights.
#[test]
fn cpu_logits_stay_close_with_weights_as_stored() {
    let backend = CpuBackend::new(2).unwrap();
    for name in MODELS {
        for path in both_formats(name) {
            check(name, &backend, &load(&path, None), Tolerance::RelativeRms(2e-2));
        }
    }
}
