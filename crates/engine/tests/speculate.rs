//! Guesses at the next tokens change no bit of an answer, and answers do not depend on what else runs.
#![allow(clippy::unwrap_used)]

use kun_engine::{
    Class, Constraint, Engine, Event, GenerateRequest, GenerateStream, LoadOptions, LoadedModel, Prompt,
    SamplingOptions, Speculate, Usage,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/models/llm/stories260k");

fn load(options: LoadOptions) -> Arc<LoadedModel> {
    let options = LoadOptions { threads: Some(1), ..options };
    Engine::new().load(&PathBuf::from(FOLDER).join("stories260k.f32.gguf"), &options).unwrap()
}

/// Ids, log-probabilities as bits, text.
type Bits = (Vec<u32>, Vec<u32>, String);

fn ask(model: &LoadedModel, request: GenerateRequest) -> (Bits, Usage) {
    answer(Engine::new().generate(model, request).unwrap())
}

fn answer(stream: GenerateStream) -> (Bits, Usage) {
    let (mut ids, mut bits, mut all) = (Vec::new(), Vec::new(), String::new());
    for event in stream {
        match event.unwrap() {
            Event::Token { id, text, logprob, .. } => {
                ids.push(id);
                bits.extend(logprob.map(|l| l.logprob.to_bits()));
                all += &text;
            }
            Event::Done { text, usage, .. } => return ((ids, bits, all + &text), usage),
        }
    }
    panic!("no end");
}

/// A text that repeats itself, so that guesses are right now and then.
const ECHO: &str =
    "Once upon a time, there was a little girl named Lily. Lily liked to play. Once upon a time, there was a";

fn requests() -> Vec<GenerateRequest> {
    let with = |temperature: f32, seed: u64, prompt: &str| GenerateRequest {
        sampling: SamplingOptions { temperature, seed: Some(seed), ..SamplingOptions::default() },
        max_tokens: Some(60),
        logprobs: Some(0),
        ignore_end: true,
        ..GenerateRequest::new(Prompt::Text(prompt.to_owned()))
    };
    let mut all = vec![with(0.0, 1, ECHO), with(0.0, 1, "The dog"), with(0.6, 2, ECHO), with(1.0, 3, ECHO)];
    all.extend((4..12).map(|seed| with(0.8, seed, ECHO)));
    let mut penal = with(0.7, 20, ECHO);
    penal.sampling.repetition_penalty = 1.3;
    penal.sampling.top_k = 40;
    let mut stopped = with(0.0, 1, ECHO);
    stopped.stop = vec![" she".to_owned()];
    let mut short = with(0.0, 1, ECHO);
    short.max_tokens = Some(3);
    let mut held = with(0.9, 21, ECHO);
    held.constraint = Some(Constraint::Regex("[a-z ]{10,40}\\.".to_owned()));
    held.ignore_end = false;
    all.extend([penal, stopped, short, held]);
    all
}

#[test]
fn answers_have_the_same_bits_with_guesses_of_either_kind() {
    let plain = load(LoadOptions::default());
    let lookup = load(LoadOptions { speculate: Speculate::Lookup, ..LoadOptions::default() });
    let draft = Speculate::Model(PathBuf::from(FOLDER).join("stories260k.q8_0.gguf"));
    let draft = load(LoadOptions { speculate: draft, ..LoadOptions::default() });
    let (mut right, mut wrong) = ([0, 0], [0, 0]);
    for request in requests() {
        let (expected, usage) = ask(&plain, request.clone());
        assert_eq!((usage.guessed_tokens, usage.right_guesses), (0, 0));
        for (kind, model) in [&lookup, &draft].into_iter().enumerate() {
            let (bits, own) = ask(model, request.clone());
            assert_eq!(bits, expected, "{request:?}");
            assert_eq!(
                (own.completion_tokens, own.decode_steps),
                (usage.completion_tokens, usage.decode_steps)
            );
            right[kind] += own.right_guesses;
            wrong[kind] += own.guessed_tokens - own.right_guesses;
        }
    }
    // Guesses of both kinds were right and wrong, or nothing was shown.
    assert!(right.iter().chain(&wrong).all(|count| *count > 0), "{right:?} right, {wrong:?} wrong");
    assert!(right[1] > 100, "{right:?}: a model of the same weights guesses well");
    for model in [plain, lookup, draft] {
        // An answer is there a moment before its pages are given back.
        let started = Instant::now();
        while model.pages().in_use > 0 && started.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let pages = model.pages();
        assert_eq!((pages.in_use, pages.cached + pages.free), (0, pages.total));
    }
}

#[test]
fn answers_alone_and_in_a_crowd_that_pushes_them_out_have_the_same_bits() {
    for speculate in [Speculate::Off, Speculate::Lookup] {
        // Three contexts' worth of pages for eight answers, and bulk work that gives way.
        let crowded = load(LoadOptions {
            max_sequences: Some(8),
            context_tokens: Some(256),
            cache_tokens: Some(768),
            prefill_tokens: Some(32),
            speculate: speculate.clone(),
            ..LoadOptions::default()
        });
        let alone = load(LoadOptions { context_tokens: Some(256), ..LoadOptions::default() });
        let requests: Vec<GenerateRequest> = requests()
            .into_iter()
            .enumerate()
            .map(|(index, request)| GenerateRequest {
                max_tokens: Some(120),
                class: if index % 2 == 0 { Class::Bulk } else { Class::Interactive },
                ..request
            })
            .collect();
        let expected: Vec<Bits> = requests.iter().map(|r| ask(&alone, r.clone()).0).collect();
        let crowd: Vec<Bits> = std::thread::scope(|scope| {
            // In one step, or the first might end before the last has come.
            let streams = Engine::new().generate_together(&crowded, requests.clone()).unwrap();
            let threads: Vec<_> =
                streams.into_iter().map(|stream| scope.spawn(|| answer(stream).0)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(expected == crowd, "{speculate:?}: an answer depends on the crowd");
        assert!(crowded.preemptions() > 0, "nobody was pushed out: the test shows nothing");
    }
}
