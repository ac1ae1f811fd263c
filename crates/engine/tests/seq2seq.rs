//! Answers of tiny encoder-decoders, token by token as transformers gives them.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use kun_engine::seq2seq::Generation;
use kun_engine::{Engine, EngineError, LoadOptions, SamplingOptions, Seq2SeqModel};
use kun_testkit::golden;
use kun_text::seq2seq::Beginning;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// One search of a golden file.
struct Case {
    name: String,
    options: Value,
    source: Vec<u32>,
    output: Vec<u32>,
}

fn cases(golden: &Value) -> Vec<Case> {
    let ids = |value: &Value| -> Vec<u32> {
        value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
    };
    let case = |case: &Value| Case {
        name: case["name"].as_str().unwrap().to_owned(),
        options: case["options"].clone(),
        source: ids(&case["source"]),
        output: ids(&case["output"]),
    };
    golden["cases"].as_array().unwrap().iter().map(case).collect()
}

fn load(name: &str, rows: usize) -> (Seq2SeqModel, Vec<Case>) {
    let folder = golden::testdata().join("seq2seq").join(name);
    let options = LoadOptions {
        threads: Some(2),
        max_sequences: Some(rows),
        quantize: Some(kun_engine::DType::F32),
        ..LoadOptions::default()
    };
    let model = Engine::new().load_seq2seq(&folder, &options).unwrap_or_else(|e| panic!("{name}: {e:?}"));
    let beside = folder.extension().map(|_| folder.with_extension("json"));
    (model, cases(&golden::json(&beside.unwrap_or_else(|| folder.join("golden.json")))))
}

fn settings(model: &Seq2SeqModel, case: &Case) -> Generation {
    let mut generation = model.generation().clone();
    generation.apply(&case.options).unwrap();
    generation
}

#[test]
fn greedy_and_beam_search_match_transformers() {
    for name in golden::SEQ2SEQ {
        let (model, cases) = load(name, 16);
        for case in &cases {
            let generation = settings(&model, case);
            let never = Arc::default();
            let sources = std::slice::from_ref(&case.source);
            let answers = model.generate(sources, Beginning::default(), &generation, None, &never);
            let answer = answers.into_iter().next().unwrap().unwrap();
            assert_eq!(answer.tokens, case.output, "{name} {} {}", case.name, case.options);
        }
    }
}

#[test]
fn a_gguf_vocabulary_gives_the_ids_of_transformers() {
    for name in ["gguf/t5.gguf", "gguf/flan_t5.gguf"] {
        let (model, _) = load(name, 4);
        let file = golden::testdata().join("seq2seq").join(name).with_extension("json");
        let golden: Value = golden::json(&file);
        let direction = model.direction(None, None).unwrap();
        for case in golden["texts"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let ids: Value = model.encode(text, &direction).unwrap().into();
            // What a user writes is text to us, whatever it spells.
            assert_eq!(
                ids == case["ids"],
                !text.contains("<pad>"),
                "{name} {text:?}: {ids}, not {}",
                case["ids"]
            );
        }
    }
}

#[test]
fn an_answer_does_not_depend_on_the_batch_around_it() {
    for name in golden::SEQ2SEQ {
        let (model, cases) = load(name, 9);
        let beam = cases.iter().find(|case| case.name == "beam").unwrap();
        let generation = settings(&model, beam);
        let sources: Vec<Vec<u32>> =
            (0..3).flat_map(|_| cases.iter().map(|case| case.source.clone())).collect();
        let never = Arc::default();
        let together = model.generate(&sources, Beginning::default(), &generation, None, &never);
        for (source, answer) in sources.iter().zip(together) {
            let alone = model
                .generate(std::slice::from_ref(source), Beginning::default(), &generation, None, &never)
                .remove(0);
            let (answer, alone) = (answer.unwrap(), alone.unwrap());
            assert_eq!(answer.tokens, alone.tokens, "{name}");
            assert_eq!(answer.score.to_bits(), alone.score.to_bits(), "{name}");
        }
    }
}

#[test]
fn sources_that_are_too_long_or_no_tokens_are_refused() {
    let (model, cases) = load("bart", 8);
    let own = model.generation().clone();
    let good = cases[0].source.clone();
    let limit = model.max_source_tokens();
    assert_eq!(limit, 64);
    let sources = [vec![5; limit], vec![5; limit + 1], vec![], vec![5, 1 << 20], good];
    let results = model.generate(&sources, Beginning::default(), &own, None, &Arc::default());
    assert!(results[0].is_ok() && results[4].is_ok());
    assert!(matches!(
        results[1],
        Err(EngineError::ContextExceeded { prompt_tokens: 65, context_tokens: 64 })
    ));
    assert!(matches!(results[2], Err(EngineError::Parameter { name: "source", .. })));
    assert!(matches!(results[3], Err(EngineError::Parameter { name: "source", .. })));
    let many = Generation { num_beams: 9, ..own.clone() };
    let results = model.generate(&sources[4..], Beginning::default(), &many, None, &Arc::default());
    assert!(matches!(results[0], Err(EngineError::Parameter { name: "num_beams", .. })));
    let strange = Generation { forced_bos: Some(1 << 20), ..own };
    let results = model.generate(&sources[4..], Beginning::default(), &strange, None, &Arc::default());
    assert!(results[0].is_err());
}

#[test]
fn a_caller_can_leave_and_sampling_repeats_with_its_seed() {
    let (model, cases) = load("marian", 8);
    let own = model.generation().clone();
    let sources = vec![cases[0].source.clone(); 40];
    let cancelled = Arc::new(AtomicBool::new(true));
    let results = model.generate(&sources, Beginning::default(), &own, None, &cancelled);
    assert!(results.iter().all(|result| matches!(result, Err(EngineError::Cancelled))));
    cancelled.store(false, Ordering::Relaxed);
    let sampling = SamplingOptions { temperature: 1.5, seed: Some(3), ..SamplingOptions::default() };
    let mut seen = Vec::new();
    for _ in 0..2 {
        let results = model.generate(&sources[..1], Beginning::default(), &own, Some(&sampling), &cancelled);
        seen.push(results.into_iter().next().unwrap().unwrap().tokens);
    }
    assert_eq!(seen[0], seen[1]);
}
