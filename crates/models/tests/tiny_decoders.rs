//! Tiny random-weight models of every architecture against the logits of transformers, from both formats.

#[path = "support/runner.rs"]
mod runner;

use kun_graph::{Backend, ReferenceBackend};
use kun_models::Model;
use kun_testkit::{Tolerance, golden};
use runner::{Runner, load};
use std::path::PathBuf;

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
            check(name, &ReferenceBackend, &load(&path, None), Tolerance::AbsoluteMax(1e-3));
        }
    }
}
