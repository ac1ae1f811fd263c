//! Measurements on a real model of 260 thousand weights.
#![allow(clippy::unwrap_used)]

use kun_engine::{Engine, LoadOptions};
use kun_evals::quality::{PerplexityOptions, perplexity};
use kun_evals::speed::{BenchOptions, Phase, bench};
use std::path::{Path, PathBuf};

const SHARED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");

fn model(file: &str) -> PathBuf {
    Path::new(SHARED).join("models/llm/stories260k").join(file)
}

#[test]
fn likelihoods_equal_the_published_ones() {
    let text = std::fs::read_to_string(format!("{SHARED}/eval/text/wikitext-2-test.txt")).unwrap();
    let text: String = text.chars().take(8192).collect();
    for (file, expected) in
        [("stories260k.f32.gguf", 5.88988), ("stories260k.q8_0.gguf", 5.88814), ("hf", 5.88988)]
    {
        let options = LoadOptions { output_rows: Some(64), ..LoadOptions::default() };
        let model = Engine::new().load(&model(file), &options).unwrap();
        // Windows of 255 tokens of the text, each after the beginning token.
        let tokens = model.tokenize(&text).unwrap();
        let mut nll = Vec::new();
        for window in tokens[1..].chunks_exact(255).take(8) {
            let window: Vec<u32> = [1].into_iter().chain(window.iter().copied()).collect();
            nll.extend(model.score(&window, 1).unwrap());
        }
        assert_eq!(nll.len(), 2040);
        let mean = -nll.iter().map(|l| f64::from(*l)).sum::<f64>() / 2040.0;
        assert!((mean - expected).abs() < 1e-3, "{file}: {mean}, {expected} expected");
    }
}

#[test]
fn perplexity_scores_the_second_half_of_every_window() {
    let text = std::fs::read_to_string(format!("{SHARED}/eval/text/tinyshakespeare-200k.txt")).unwrap();
    let model = Engine::new().load(&model("stories260k.f32.gguf"), &LoadOptions::default()).unwrap();
    let options = PerplexityOptions { context_tokens: 128, max_windows: Some(3) };
    let mut steps = Vec::new();
    let result = perplexity(&model, &text, &options, |p| steps.push((p.windows, p.total_windows))).unwrap();
    assert_eq!(steps, [(1, 3), (2, 3), (3, 3)]);
    assert_eq!((result.windows, result.scored_tokens), (3, 3 * (128 - 64 - 1)));
    let tokens = model.tokenize(text.trim_end_matches('\n')).unwrap();
    assert_eq!(result.text_tokens, tokens.len());
    let mut sum = 0.0;
    for window in tokens.chunks_exact(128).take(3) {
        let mut window = window.to_vec();
        window[0] = 1;
        let scores = model.score(&window, 1).unwrap();
        sum -= scores[64..].iter().map(|l| f64::from(*l)).sum::<f64>();
    }
    assert!((result.nll - sum / 189.0).abs() < 1e-9);
    assert!((result.perplexity - result.nll.exp()).abs() < 1e-9);
    assert!(result.perplexity_error > 0.0 && result.perplexity_error < result.perplexity);

    let short = perplexity(&model, "Too short.", &options, |_| {}).unwrap_err();
    assert!(short.to_string().contains("two windows of 128"), "{short}");
    let wide = PerplexityOptions { context_tokens: 513, max_windows: None };
    assert!(perplexity(&model, &text, &wide, |_| {}).unwrap_err().to_string().contains("512"));
}

#[test]
fn bench_measures_every_phase_asked_for() {
    let options = BenchOptions {
        prompt_tokens: 64,
        decode_tokens: 16,
        batch: vec![1, 4],
        repetitions: 2,
        load: LoadOptions { threads: Some(2), ..LoadOptions::default() },
        limits: true,
    };
    let mut seen = 0;
    let result = bench(&Engine::new(), &model("stories260k.q8_0.gguf"), &options, |_| seen += 1).unwrap();
    let phases: Vec<_> = result.rows.iter().map(|r| (r.phase, r.tokens, r.sequences)).collect();
    assert_eq!(phases, [(Phase::Prefill, 64, 1), (Phase::Decode, 16, 1), (Phase::Decode, 16, 4)]);
    assert_eq!(seen, 3);
    for row in &result.rows {
        assert_eq!(row.repetitions.len(), 2);
        assert!(row.tokens_per_s > 1.0 && row.tokens_per_s.is_finite(), "{row:?}");
        assert!(row.share_of_limit.unwrap() > 0.0, "{row:?}");
    }
    assert!(result.step_bytes > 200_000 && result.step_bytes < 400_000, "{}", result.step_bytes);
    assert_eq!(result.threads, 2);
}
