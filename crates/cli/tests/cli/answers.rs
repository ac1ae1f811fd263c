//! `kun run` with a prompt.

use crate::support::{Scratch, expected, shared, stories};

const KEYS: [&str; 8] = [
    "text",
    "model",
    "finish_reason",
    "usage",
    "load_ms",
    "ttft_ms",
    "prefill_tokens_per_s",
    "decode_tokens_per_s",
];

fn greedy(model: &str, prompt: &str, more: &[&str]) -> serde_json::Value {
    let mut args = vec!["run", model, prompt, "--raw", "--temperature", "0", "--json"];
    args.extend(more);
    Scratch::new().run(&args).expect(0).json()
}

#[test]
fn every_format_gives_the_reference_text_and_tokens() {
    let expected = expected();
    for file in ["stories260k.f32.gguf", "hf"] {
        for case in expected["models"]["stories260k.f32.gguf"].as_array().unwrap() {
            let ids = case["greedy_ids"].as_array().unwrap();
            let count = ids.len().to_string();
            let model = shared(&format!("models/llm/stories260k/{file}"));
            let got = greedy(&model, case["prompt"].as_str().unwrap(), &["-n", &count, "--tokens"]);
            assert_eq!(got["tokens"].as_array().unwrap(), ids, "{file}");
            let text = got["text"].as_str().unwrap();
            let said = case["greedy_text"].as_str().unwrap();
            assert!(said.ends_with(text.trim_start()), "{file}: {text:?} is not the end of {said:?}");
        }
    }
}

#[test]
fn json_has_the_promised_keys_and_counts() {
    let got = greedy(&stories(), "Once upon a time", &["-n", "8"]);
    for key in KEYS {
        assert!(!got[key].is_null(), "{key}: {got}");
    }
    assert_eq!(got.as_object().unwrap().len(), KEYS.len(), "tokens only on request: {got}");
    assert_eq!(got["finish_reason"], "length");
    assert_eq!(got["usage"]["completion_tokens"], 8);
    let prompt = got["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(prompt > 3, "{got}");
    assert_eq!(got["usage"]["total_tokens"].as_u64(), Some(prompt + 8));
    for key in ["load_ms", "ttft_ms", "prefill_tokens_per_s", "decode_tokens_per_s"] {
        assert!(got[key].as_f64().unwrap() > 0.0, "{key}: {got}");
    }
}

#[test]
fn logprobs_are_sorted_and_belong_to_the_greedy_tokens() {
    let got = greedy(&stories(), "Once", &["-n", "4", "--logprobs", "3", "--tokens"]);
    let entries = got["logprobs"].as_array().unwrap();
    assert_eq!(entries.len(), 4);
    for (entry, id) in entries.iter().zip(got["tokens"].as_array().unwrap()) {
        let top = entry["top"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        assert_eq!((&top[0]["id"], &entry["id"]), (id, id), "greedy picks the likeliest");
        let values: Vec<_> = top.iter().map(|t| t["logprob"].as_f64().unwrap()).collect();
        assert!(values.is_sorted_by(|a, b| a >= b) && values[0] <= 0.0, "{values:?}");
    }
}

#[test]
fn the_plain_answer_is_the_text_alone() {
    let json = greedy(&stories(), "Once upon a time", &["-n", "8"]);
    let args = ["run", &stories(), "Once upon a time", "--raw", "--temperature", "0", "-n", "8"];
    let plain = Scratch::new().run(&args).expect(0);
    assert_eq!(plain.stdout, format!("{}\n", json["text"].as_str().unwrap()));
    assert_eq!(plain.stderr, "");
}

#[test]
fn stdin_is_the_document_and_stands_before_the_prompt() {
    let args = ["run", &stories(), "there was", "--raw", "--temperature", "0", "-n", "8", "--json"];
    let piped = Scratch::new().run_with_stdin(&args, b"Once upon a time ").expect(0).json();
    let whole = greedy(&stories(), "Once upon a time there was", &["-n", "8"]);
    assert_eq!(piped["text"], whole["text"]);
    assert_eq!(piped["usage"], whole["usage"]);
    let args = ["run", &stories(), "-", "--raw", "--temperature", "0", "-n", "8", "--json"];
    let alone = Scratch::new().run_with_stdin(&args, b"Once upon a time there was").expect(0).json();
    assert_eq!(alone["text"], whole["text"]);
}

#[test]
fn a_document_that_is_no_text_is_misuse() {
    let ran = Scratch::new().run_with_stdin(&["run", &stories(), "sum up"], b"abc\xff\xfe").expect(2);
    assert!(ran.stderr.contains("UTF-8") && ran.stderr.contains("byte 3"), "{}", ran.stderr);
    let ran = Scratch::new().run(&["run", &stories()]).expect(2);
    assert!(ran.stderr.contains("no prompt"), "{}", ran.stderr);
}

#[test]
fn a_seed_repeats_and_a_stop_text_ends_the_answer() {
    let sample = |seed: &str| {
        let more = ["--temperature", "1", "--seed", seed, "-n", "24", "--json"];
        let model = stories();
        let mut args = vec!["run", model.as_str(), "Once", "--raw"];
        args.extend(more);
        Scratch::new().run(&args).expect(0).json()["text"].clone()
    };
    assert_eq!(sample("7"), sample("7"));
    assert_ne!(sample("7"), sample("8"));
    let whole = greedy(&stories(), "Once upon a time", &["-n", "40"]);
    let whole = whole["text"].as_str().unwrap();
    let stopped = greedy(&stories(), "Once upon a time", &["-n", "40", "--stop", "."]);
    assert_eq!(stopped["finish_reason"], "stop");
    assert_eq!(stopped["text"].as_str().unwrap(), whole.split('.').next().unwrap());
}

#[test]
fn a_prompt_longer_than_the_context_is_refused_with_both_numbers() {
    let long = "Once upon a time ".repeat(100);
    let ran = Scratch::new().run(&["run", &stories(), &long, "--raw", "--context", "64"]).expect(4);
    assert!(ran.stderr.contains("64") && ran.stderr.contains("hint:"), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
}

#[test]
fn a_full_context_ends_the_answer_with_a_warning() {
    let args = ["run", &stories(), "Once", "--raw", "--context", "32", "--ignore-end"];
    let ran = Scratch::new().run(&args).expect(0);
    assert!(ran.stderr.contains("context of 32 tokens is full"), "{}", ran.stderr);
    assert!(!ran.stdout.is_empty());
}

#[test]
fn parameters_out_of_range_and_wrong_flags_are_misuse() {
    let model = stories();
    for flags in [
        &["--temperature", "-1"][..],
        &["--temperature", "warm"],
        &["--top-p", "2"],
        &["--top-p", "NaN"],
        &["--logit-bias", "99999=1"],
        &["--max-tokens", "0"],
        &["--kv-type", "q3"],
        &["--quantize", "f99"],
        &["--max-memory", "8XB"],
        &["--tokens"],
        &["--no-such-flag"],
        &["one", "prompt", "too", "many"],
    ] {
        let mut args = vec!["run", model.as_str(), "Once"];
        args.extend(flags);
        let ran = Scratch::new().run(&args).expect(2);
        assert!(ran.stdout.is_empty() && ran.stderr.contains("error"), "{flags:?}: {ran:?}");
    }
}
