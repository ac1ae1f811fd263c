//! The engine's front door on a real model of 260 thousand weights.
#![allow(clippy::unwrap_used)]

use kun_engine::{
    ChatFormat, ChatMessage, Engine, EngineError, Event, FinishReason, GenerateRequest, LoadOptions,
    LoadedModel, Prompt, Role, SamplingOptions, Usage,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/models/llm/stories260k");
const FORMS: [(&str, &str); 3] = [
    ("stories260k.f32.gguf", "stories260k.f32.gguf"),
    ("stories260k.q8_0.gguf", "stories260k.q8_0.gguf"),
    ("hf", "stories260k.f32.gguf"),
];

fn load(name: &str, options: &LoadOptions) -> Arc<LoadedModel> {
    Engine::new().load(&PathBuf::from(FOLDER).join(name), options).unwrap()
}

fn tiny(max_sequences: usize, threads: usize) -> Arc<LoadedModel> {
    let options =
        LoadOptions { threads: Some(threads), max_sequences: Some(max_sequences), ..LoadOptions::default() };
    load("stories260k.f32.gguf", &options)
}

fn greedy(prompt: Prompt, max_tokens: usize) -> GenerateRequest {
    GenerateRequest {
        sampling: SamplingOptions { temperature: 0.0, ..SamplingOptions::default() },
        max_tokens: Some(max_tokens),
        ..GenerateRequest::new(prompt)
    }
}

#[derive(Debug, Default, PartialEq)]
struct Answer {
    ids: Vec<u32>,
    text: String,
    reason: Option<FinishReason>,
    usage: Usage,
}

fn collect(stream: impl Iterator<Item = Result<Event, EngineError>>) -> Answer {
    let mut answer = Answer::default();
    for event in stream {
        assert_eq!(answer.reason, None, "an event after the end");
        match event.unwrap() {
            Event::Token { id, text, .. } => {
                answer.ids.push(id);
                answer.text += &text;
            }
            Event::Done { reason, text, usage } => {
                answer.text += &text;
                (answer.reason, answer.usage) = (Some(reason), usage);
            }
        }
    }
    assert!(answer.reason.is_some(), "the stream must end with Done");
    answer
}

fn ask(model: &LoadedModel, request: GenerateRequest) -> Answer {
    collect(Engine::new().generate(model, request).unwrap())
}

fn wait_until_free(model: &LoadedModel) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let counts = model.pages();
        assert_eq!(counts.in_use + counts.cached + counts.free, counts.total);
        if counts.in_use == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "pages are never freed: {counts:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Quantised activations may swap the two likeliest tokens where they are close; then the texts part.
fn follow_to_a_near_tie(model: &LoadedModel, prompt: &str, ids: &[u64]) {
    let request = GenerateRequest { logprobs: Some(2), ..greedy(Prompt::Text(prompt.to_owned()), ids.len()) };
    for (step, (event, expected)) in Engine::new().generate(model, request).unwrap().zip(ids).enumerate() {
        let Event::Token { id, top_logprobs, .. } = event.unwrap() else { panic!("ended at {step}") };
        if u64::from(id) != *expected {
            let [first, second] = &top_logprobs[..] else { panic!("two were asked for") };
            assert_eq!(u64::from(second.id), *expected, "{prompt:?}, step {step}");
            assert!(first.logprob - second.logprob < 0.2, "{prompt:?}, step {step}: no near tie");
            assert!(step > 8, "{prompt:?} parts at step {step}");
            return;
        }
    }
}

#[test]
fn short_prompts_that_begin_alike_share_their_beginning() {
    let ask_for = |model: &LoadedModel, prompt: &str| ask(model, greedy(Prompt::Text(prompt.to_owned()), 40));
    let first = "Once upon a time, there was a little girl named Lily. She";
    let second = "Once upon a time, there was a little girl named Sue, and";
    for (file, _) in FORMS {
        let alone = ask_for(&load(file, &LoadOptions::default()), second);
        let model = load(file, &LoadOptions::default());
        ask_for(&model, first);
        let after = ask_for(&model, second);
        assert_eq!((alone.usage.cached_tokens, after.ids), (0, alone.ids));
        assert!((8..alone.usage.prompt_tokens).contains(&after.usage.cached_tokens), "{:?}", after.usage);
    }
}

#[test]
fn greedy_text_equals_the_reference_in_every_format() {
    let expected = std::fs::read(format!("{FOLDER}/expected/expected.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
    for (file, reference) in FORMS {
        let model = load(file, &LoadOptions::default());
        let cases = expected["models"][reference].as_array().unwrap();
        assert_eq!(cases.len(), 5);
        for case in cases {
            let prompt = case["prompt"].as_str().unwrap();
            let ids: Vec<u64> =
                case["greedy_ids"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect();
            if file.contains("q8_0") {
                follow_to_a_near_tie(&model, prompt, &ids);
                continue;
            }
            let answer = ask(&model, greedy(Prompt::Text(prompt.to_owned()), ids.len()));
            let got: Vec<u64> = answer.ids.iter().map(|id| u64::from(*id)).collect();
            assert_eq!(got, ids, "{file}: {prompt:?}");
            let text = format!("{prompt}{}", answer.text);
            assert_eq!(text.trim_start(), case["greedy_text"].as_str().unwrap(), "{file}: {prompt:?}");
            assert_eq!(answer.reason, Some(FinishReason::Length));
            assert_eq!(answer.usage.prompt_tokens, case["prompt_ids"].as_array().unwrap().len());
            assert_eq!(answer.usage.completion_tokens, ids.len());
            assert_eq!(answer.usage.decode_steps, ids.len() - 1);
            assert!(answer.usage.time_to_first_token >= answer.usage.prefill_time);
        }
        wait_until_free(&model);
    }
}

#[test]
fn a_crowd_changes_no_answer() {
    let prompts =
        ["", "Once upon a time", "Lily", "The big red ball", "One day, a little dog named Max", "A"];
    let requests: Vec<GenerateRequest> = (0..12)
        .map(|i| {
            let mut request = greedy(Prompt::Text(prompts[i % 6].repeat(1 + i % 5)), 20 + 9 * i);
            request.sampling.temperature = [0.0, 0.8][i / 6];
            request.sampling.seed = Some(i as u64);
            request.sampling.top_p = 0.95;
            request.sampling.repetition_penalty = 1.1;
            request
        })
        .collect();
    let alone: Vec<Answer> = {
        let model = tiny(1, 1);
        requests.iter().map(|r| ask(&model, r.clone())).collect()
    };
    let options = LoadOptions {
        threads: Some(2),
        max_sequences: Some(5),
        prefill_tokens: Some(7),
        ..LoadOptions::default()
    };
    let model = load("stories260k.f32.gguf", &options);
    let engine = Engine::new();
    let streams: Vec<_> = requests.iter().map(|r| engine.generate(&model, r.clone()).unwrap()).collect();
    for (index, (stream, alone)) in streams.into_iter().zip(alone).enumerate() {
        let crowded = collect(stream);
        assert_eq!(crowded.ids, alone.ids, "request {index}");
        assert_eq!(crowded.text, alone.text, "request {index}");
        assert_eq!(crowded.reason, alone.reason, "request {index}");
    }
    wait_until_free(&model);
    assert!(model.take_decode_times().keys().any(|sequences| *sequences == 5), "decodes were never batched");
    assert!(model.take_decode_times().is_empty());
}

#[test]
fn a_client_that_leaves_frees_its_pages_and_disturbs_nobody() {
    let model = tiny(3, 2);
    let engine = Engine::new();
    let undisturbed = ask(&model, greedy(Prompt::Text("Once upon a time".to_owned()), 200));
    for leave_after in [0usize, 1, 2, 17] {
        let long = Prompt::Text("Tom and Lily went to the park. ".repeat(12));
        let mut leavers: Vec<_> =
            (0..5).map(|_| engine.generate(&model, greedy(long.clone(), 250)).unwrap()).collect();
        let staying =
            engine.generate(&model, greedy(Prompt::Text("Once upon a time".to_owned()), 200)).unwrap();
        for stream in &mut leavers {
            if leave_after > 0 {
                assert!(matches!(stream.next(), Some(Ok(Event::Token { .. }))));
            }
            for _ in 1..leave_after {
                stream.next();
            }
            stream.canceller().cancel();
        }
        drop(leavers);
        assert_eq!(collect(staying).ids, undisturbed.ids);
        wait_until_free(&model);
    }
}

#[test]
fn a_cancelled_answer_still_ends_with_its_counts() {
    let model = tiny(1, 1);
    let mut request = greedy(Prompt::Text("Once".to_owned()), 400);
    request.ignore_end = true;
    let mut stream = Engine::new().generate(&model, request).unwrap();
    let first = stream.next();
    assert!(matches!(first, Some(Ok(Event::Token { .. }))));
    stream.canceller().cancel();
    let answer = collect(stream);
    assert_eq!(answer.reason, Some(FinishReason::Cancelled));
    assert_eq!(answer.usage.completion_tokens, answer.ids.len() + 1);
    assert!(answer.ids.len() < 399);
}

#[test]
fn a_prompt_is_never_cut() {
    let model = tiny(1, 1);
    assert_eq!(model.context_tokens(), 512);
    let full = ask(&model, greedy(Prompt::Tokens(vec![1; 512]), 5));
    assert_eq!((full.ids.len(), full.reason), (1, Some(FinishReason::Length)));
    let error = Engine::new().generate(&model, greedy(Prompt::Tokens(vec![1; 513]), 5)).unwrap_err();
    assert_eq!(error.to_string(), "the prompt has 513 tokens, the context holds 512");
    let nearly =
        ask(&model, GenerateRequest { ignore_end: true, ..greedy(Prompt::Tokens(vec![1; 500]), 100) });
    assert_eq!((nearly.ids.len(), nearly.reason), (13, Some(FinishReason::Length)));
}

#[test]
fn stop_strings_end_the_answer_and_are_no_part_of_it() {
    let model = tiny(1, 1);
    let whole = ask(&model, greedy(Prompt::Text(String::new()), 64)).text;
    let stop = "little girl";
    let mut request = greedy(Prompt::Text(String::new()), 64);
    request.stop = vec!["not in it".to_owned(), stop.to_owned()];
    let answer = ask(&model, request);
    assert_eq!(answer.reason, Some(FinishReason::Stop));
    assert_eq!(answer.text, whole[..whole.find(stop).unwrap()]);
    assert!(answer.ids.len() < 64);
}

#[test]
fn logprobs_agree_with_scores() {
    let model = tiny(1, 2);
    let prompt = model.tokenize("Once upon a time").unwrap();
    let mut request = greedy(Prompt::Tokens(prompt.clone()), 30);
    request.logprobs = Some(3);
    let mut tokens = prompt.clone();
    let mut logprobs = Vec::new();
    for event in Engine::new().generate(&model, request).unwrap() {
        if let Event::Token { id, logprob, top_logprobs, .. } = event.unwrap() {
            let logprob = logprob.unwrap();
            assert_eq!(logprob.id, id);
            assert_eq!(top_logprobs.len(), 3);
            assert_eq!(top_logprobs[0], logprob, "greedy picks the likeliest");
            assert!(top_logprobs.windows(2).all(|w| w[0].logprob >= w[1].logprob));
            tokens.push(id);
            logprobs.push(logprob.logprob);
        }
    }
    assert_eq!(logprobs.len(), 30);
    assert_eq!(model.score(&tokens, prompt.len()).unwrap(), logprobs);
}

#[test]
fn scores_do_not_depend_on_how_the_text_is_cut_into_steps() {
    let tokens: Vec<u32> = (0..300u32).map(|i| 3 + (i * 37) % 500).collect();
    let score = |prefill: usize, rows: usize, threads: usize| {
        let options = LoadOptions {
            threads: Some(threads),
            prefill_tokens: Some(prefill),
            output_rows: Some(rows),
            ..LoadOptions::default()
        };
        let model = load("stories260k.q8_0.gguf", &options);
        [1, 150, 299].map(|first| {
            let scores = model.score(&tokens, first).unwrap();
            assert_eq!(scores.len(), 300 - first);
            scores
        })
    };
    let whole = score(512, 512, 1);
    assert_eq!(whole[0][149..], whole[1]);
    assert_eq!(whole[0][298..], whole[2]);
    assert_eq!(score(64, 16, 2), whole);
    assert_eq!(score(33, 5, 2), whole);
}

#[test]
fn parameters_out_of_range_are_named() {
    let model = tiny(1, 1);
    type Change = fn(&mut GenerateRequest);
    let table: [(&str, Change); 26] = [
        ("temperature", |r| r.sampling.temperature = f32::NAN),
        ("temperature", |r| r.sampling.temperature = -0.1),
        ("temperature", |r| r.sampling.temperature = f32::INFINITY),
        ("top_p", |r| r.sampling.top_p = 1.1),
        ("top_p", |r| r.sampling.top_p = f32::NAN),
        ("min_p", |r| r.sampling.min_p = -1.0),
        ("typical_p", |r| r.sampling.typical_p = 2.0),
        ("repetition_penalty", |r| r.sampling.repetition_penalty = 0.0),
        ("repetition_penalty", |r| r.sampling.repetition_penalty = -1.0),
        ("repetition_penalty", |r| r.sampling.repetition_penalty = 1e-30),
        ("frequency_penalty", |r| r.sampling.frequency_penalty = f32::NAN),
        ("presence_penalty", |r| r.sampling.presence_penalty = 1e9),
        ("logit_bias", |r| r.sampling.logit_bias = vec![(512, 1.0)]),
        ("logit_bias", |r| r.sampling.logit_bias = vec![(5, f32::NAN)]),
        ("logit_bias", |r| r.sampling.logit_bias = vec![(5, 1.0); 70_000]),
        ("max_tokens", |r| r.max_tokens = Some(0)),
        ("logprobs", |r| r.logprobs = Some(1_000_000_000)),
        ("stop", |r| r.stop = vec![String::new()]),
        ("stop", |r| r.stop = vec!["x".to_owned(); 100_000]),
        ("stop", |r| r.stop = vec!["x".repeat(1 << 20)]),
        ("template_variables", |r| r.template_variables = vec![("messages".to_owned(), true)]),
        ("template_variables", |r| r.template_variables = vec![("__class__".to_owned(), true)]),
        ("template_variables", |r| r.template_variables = vec![("a".to_owned(), true); 1000]),
        ("messages", |r| r.prompt = Prompt::Chat(Vec::new())),
        ("prompt", |r| r.prompt = Prompt::Tokens(Vec::new())),
        ("prompt", |r| r.prompt = Prompt::Tokens(vec![1, 512])),
    ];
    for (index, (name, change)) in table.into_iter().enumerate() {
        let mut request = GenerateRequest::new(Prompt::Text("Once".to_owned()));
        change(&mut request);
        match Engine::new().generate(&model, request) {
            Err(EngineError::Parameter { name: got, what }) => {
                assert_eq!(got, name, "row {index}");
                assert!(!what.is_empty());
            }
            other => panic!("row {index}: {other:?}"),
        }
    }
    assert!(matches!(model.score(&[1, 2], 0), Err(EngineError::Parameter { .. })));
    assert!(matches!(model.score(&[1, 2], 2), Err(EngineError::Parameter { .. })));
    assert!(matches!(model.score(&[1, 900], 1), Err(EngineError::Parameter { .. })));
    assert!(matches!(model.score(&[1; 600], 1), Err(EngineError::ContextExceeded { .. })));
    let any = GenerateRequest { max_tokens: Some(usize::MAX), ..greedy(Prompt::Text("Once".to_owned()), 1) };
    assert!(ask(&model, any).ids.len() <= 513);
}

#[test]
fn what_does_not_fit_is_refused_with_the_figures_of_fit() {
    let engine = Engine::new();
    let path = PathBuf::from(FOLDER).join("stories260k.f32.gguf");
    let roomy = engine.fit(&path, &LoadOptions::default()).unwrap();
    assert_eq!((roomy.context_tokens, roomy.max_context_tokens), (512, Some(512)));
    let sum =
        |f: &kun_engine::Fit| (f.memory.weights_bytes + f.memory.kv_bytes + f.memory.workspace_bytes) as u64;
    let exact = LoadOptions { max_memory_bytes: Some(sum(&roomy)), ..LoadOptions::default() };
    assert_eq!(engine.fit(&path, &exact).unwrap().context_tokens, 512);
    engine.load(&path, &exact).unwrap();

    let less = LoadOptions { max_memory_bytes: Some(sum(&roomy) - 1), ..LoadOptions::default() };
    let fit = engine.fit(&path, &less).unwrap();
    assert_eq!(fit.max_context_tokens, Some(448));
    assert_eq!(engine.load(&path, &less).unwrap().context_tokens(), 448);

    let asked = LoadOptions { context_tokens: Some(512), ..less };
    match engine.load(&path, &asked) {
        Err(EngineError::DoesNotFit { needed_bytes, available_bytes, .. }) => {
            assert_eq!((needed_bytes, available_bytes), (sum(&roomy), sum(&roomy) - 1));
        }
        other => panic!("{other:?}"),
    }
    let tiny = LoadOptions { max_memory_bytes: Some(1000), ..LoadOptions::default() };
    assert_eq!(engine.fit(&path, &tiny).unwrap().max_context_tokens, None);
    assert!(matches!(engine.load(&path, &tiny), Err(EngineError::DoesNotFit { .. })));

    for bad in [
        LoadOptions { context_tokens: Some(513), ..LoadOptions::default() },
        LoadOptions { context_tokens: Some(0), ..LoadOptions::default() },
        LoadOptions { threads: Some(0), ..LoadOptions::default() },
        LoadOptions { threads: Some(1 << 30), ..LoadOptions::default() },
        LoadOptions { max_sequences: Some(usize::MAX), ..LoadOptions::default() },
        LoadOptions { prefill_tokens: Some(0), ..LoadOptions::default() },
        LoadOptions { output_rows: Some(0), ..LoadOptions::default() },
    ] {
        assert!(matches!(engine.fit(&path, &bad), Err(EngineError::Parameter { .. })), "{bad:?}");
    }
}

#[test]
fn a_model_without_a_template_is_given_plain_text() {
    let model = tiny(1, 1);
    assert_eq!(model.chat_format(), ChatFormat::Plain);
    assert!(!model.has_chat_template());
    let message = ChatMessage::new(Role::User, "Once upon a time".to_owned());
    let chat = ask(&model, greedy(Prompt::Chat(vec![message]), 20));
    let text = ask(&model, greedy(Prompt::Text("Once upon a time".to_owned()), 20));
    assert_eq!(chat.ids, text.ids);
}

#[test]
fn streams_outlive_their_model() {
    let model = tiny(1, 1);
    let stream = Engine::new().generate(&model, greedy(Prompt::Text("Once".to_owned()), 30)).unwrap();
    drop(model);
    assert_eq!(collect(stream).ids.len(), 30);
}

#[test]
fn reading_instead_of_mapping_changes_nothing_and_progress_reaches_the_end() {
    let path = PathBuf::from(FOLDER).join("stories260k.q8_0.gguf");
    let mapped = load("stories260k.q8_0.gguf", &LoadOptions::default());
    let seen = std::sync::Mutex::new(Vec::new());
    let options = LoadOptions { no_mmap: true, ..LoadOptions::default() };
    let read = Engine::new().load_with_progress(&path, &options, |p| seen.lock().unwrap().push(p)).unwrap();
    let tokens: Vec<u32> = (3..200).collect();
    assert_eq!(mapped.score(&tokens, 1).unwrap(), read.score(&tokens, 1).unwrap());
    let seen = seen.into_inner().unwrap();
    let most = seen.iter().map(|p| p.done_bytes).max().unwrap();
    assert!(seen.iter().all(|p| p.done_bytes <= p.total_bytes && p.total_bytes == seen[0].total_bytes));
    assert!(most * 10 >= seen[0].total_bytes * 9, "{most} of {}", seen[0].total_bytes);
}

#[test]
fn a_cache_type_that_the_heads_do_not_fill_is_refused() {
    // Heads of 8 elements cannot be stored in groups of 32.
    let options = LoadOptions { kv_type: kun_engine::KvType::Q8_0, ..LoadOptions::default() };
    let path = PathBuf::from(FOLDER).join("stories260k.f32.gguf");
    assert!(matches!(Engine::new().fit(&path, &options), Err(EngineError::Compile(_))));
    assert!(matches!(Engine::new().load(&path, &options), Err(EngineError::Compile(_))));
}

#[test]
fn files_that_are_no_models_are_typed_errors() {
    let engine = Engine::new();
    let missing = engine.load(&PathBuf::from(FOLDER).join("missing.gguf"), &LoadOptions::default());
    assert!(matches!(missing, Err(EngineError::Format(_))));
    let vocabulary = PathBuf::from(FOLDER).join("../../tokenizers/gpt-2/ggml-vocab-gpt-2.gguf");
    let unknown = engine.load(&vocabulary, &LoadOptions::default());
    assert!(matches!(unknown, Err(EngineError::Model(_))), "{unknown:?}");
}
