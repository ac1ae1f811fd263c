//! The text tasks against the pipelines of `transformers` (`tools/golden/text_tasks.py`): recorded logits, own tokenizer.
// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used)]

use kun_tasks::scores::ranked;
use kun_tasks::text::answer::{Place, SpanOptions, Window, answers};
use kun_tasks::text::classify::Activation;
use kun_tasks::text::extract::{Aggregation, Entity, Tags, Token, entities};
use kun_tasks::text::windows::windows;
use kun_tasks::text::zero_shot::NliHead;
use kun_testkit::golden;
use kun_text::{Special, Tokenizer, characters};
use serde::Deserialize;
use serde_json::json;

fn read<T: serde::de::DeserializeOwned>(name: &str) -> T {
    golden::json(&golden::testdata().join("tasks").join(name))
}

fn tokenizer(name: &str, unknown: &str) -> Tokenizer {
    let file = std::fs::read(golden::testdata().join("tasks").join(name)).unwrap();
    Tokenizer::from_json(&file, Some(&json!({ "unk_token": unknown }))).unwrap()
}

fn near(a: f32, b: f32) -> bool {
    (a - b).abs() < 2e-5
}

#[derive(Deserialize)]
struct Extracted {
    labels: Vec<String>,
    cases: Vec<ExtractCase>,
}

type Found = (String, f32, usize, usize);

#[derive(Deserialize)]
struct ExtractCase {
    text: String,
    none: Option<Vec<Found>>,
    simple: Vec<Found>,
    first: Vec<Found>,
    average: Vec<Found>,
    max: Vec<Found>,
    logits: Vec<f32>,
}

/// Entities in characters, as Python counts.
fn in_characters(text: &str, entities: &[Entity]) -> Vec<Found> {
    let ranges: Vec<_> = entities.iter().map(|e| e.start..e.end).collect();
    let ranges = characters(text, &ranges);
    entities.iter().zip(ranges).map(|(e, r)| (e.label.clone(), e.score, r.start, r.end)).collect()
}

fn check_entities(tokenizer: &Tokenizer, file: &str, count: usize) {
    let golden: Extracted = read(file);
    assert_eq!(golden.cases.len(), count);
    let tags = Tags::new(&golden.labels);
    for case in golden.cases {
        let pieces = tokenizer.pieces(&case.text, Special::Plain).unwrap();
        let tokens = Token::of(&case.text, &pieces, tokenizer);
        for (aggregation, expected) in [
            (Aggregation::None, case.none),
            (Aggregation::Simple, Some(case.simple)),
            (Aggregation::First, Some(case.first)),
            (Aggregation::Average, Some(case.average)),
            (Aggregation::Max, Some(case.max)),
        ] {
            let Some(expected) = expected else { continue };
            let got = in_characters(&case.text, &entities(&tokens, &case.logits, &tags, aggregation));
            let same = got.len() == expected.len()
                && got
                    .iter()
                    .zip(&expected)
                    .all(|(a, b)| (&a.0, a.2, a.3) == (&b.0, b.2, b.3) && near(a.1, b.1));
            assert!(same, "{:?} {aggregation:?}:\n {got:?}\n {expected:?}", case.text);
        }
    }
}

#[test]
fn entities_have_the_places_of_the_pipeline_in_200_sentences() {
    check_entities(&tokenizer("wordpiece.tokenizer.json", "[UNK]"), "extract_wordpiece.json", 200);
}

#[test]
fn entities_of_a_tokenizer_without_words_have_its_places_too() {
    check_entities(&tokenizer("byte_level.tokenizer.json", "<unk>"), "extract_byte_level.json", 60);
}

#[derive(Deserialize)]
struct Answered {
    max_seq_len: usize,
    doc_stride: usize,
    cases: Vec<AnswerCase>,
}

#[derive(Deserialize)]
struct AnswerCase {
    question: String,
    document: String,
    top_k: usize,
    max_answer_len: usize,
    handle_impossible_answer: bool,
    windows: Vec<Logits>,
    answers: Vec<(f32, usize, usize, String)>,
}

#[derive(Deserialize)]
struct Logits {
    start: Vec<f32>,
    end: Vec<f32>,
}

#[test]
fn answers_over_windows_have_the_pipelines_places_and_scores() {
    let golden: Answered = read("answer.json");
    let tokenizer = tokenizer("wordpiece.tokenizer.json", "[UNK]");
    for case in golden.cases {
        let question = tokenizer.pieces(&case.question, Special::Plain).unwrap();
        let document = tokenizer.pieces(&case.document, Special::Plain).unwrap();
        let room = golden.max_seq_len - tokenizer.added_tokens(true) - question.len();
        let ranges = windows(document.len(), room, golden.doc_stride);
        assert_eq!(ranges.len(), case.windows.len());
        let places: Vec<_> = ranges
            .iter()
            .map(|range| Place::of(&tokenizer.join(&question, Some(&document.slice(range.clone())))))
            .collect();
        let read: Vec<Window<'_>> = case
            .windows
            .iter()
            .zip(&places)
            .map(|(logits, places)| {
                assert_eq!(logits.start.len(), places.len());
                Window { start: &logits.start, end: &logits.end, places }
            })
            .collect();
        let options = SpanOptions {
            max_tokens: case.max_answer_len,
            top_k: case.top_k,
            may_be_none: case.handle_impossible_answer,
        };
        let got = answers(&case.document, &read, &options);
        assert_eq!(got.len(), case.answers.len());
        for (answer, (score, start, end, text)) in got.iter().zip(&case.answers) {
            let place = characters(&case.document, std::slice::from_ref(&answer.bytes)).remove(0);
            assert_eq!((&case.document[answer.bytes.clone()], place), (text.as_str(), *start..*end));
            assert!(near(answer.score, *score), "{} {score}", answer.score);
        }
    }
}

#[derive(Deserialize)]
struct ClassifyCase {
    labels: Vec<String>,
    problem_type: Option<String>,
    logits: Vec<f32>,
    scores: Vec<(String, f32)>,
}

fn check_scores(labels: &[String], got: &[f32], expected: &[(String, f32)]) {
    for (place, (_, score)) in ranked(got).into_iter().zip(expected) {
        assert!(near(got[place], *score), "{}: {} {score}", labels[place], got[place]);
    }
    // Equal scores may come in any order.
    for (label, score) in expected {
        let place = labels.iter().position(|l| l == label).unwrap();
        assert!(near(got[place], *score), "{label}: {} {score}", got[place]);
    }
    assert_eq!(got.len(), expected.len());
}

#[test]
fn classifiers_score_as_the_pipeline() {
    let cases: Vec<ClassifyCase> = read("classify.json");
    assert_eq!(cases.len(), 12);
    for case in cases {
        let activation = Activation::of(case.problem_type.as_deref(), case.labels.len());
        check_scores(&case.labels, &activation.scores(&case.logits), &case.scores);
    }
}

#[derive(Deserialize)]
struct ZeroShotCase {
    head: Vec<String>,
    labels: Vec<String>,
    multi: bool,
    logits: Vec<Vec<f32>>,
    scores: Vec<(String, f32)>,
}

#[test]
fn hypotheses_score_as_the_pipeline() {
    let cases: Vec<ZeroShotCase> = read("zero_shot.json");
    assert_eq!(cases.len(), 6);
    for case in cases {
        let head = NliHead::of(&case.head).unwrap();
        check_scores(&case.labels, &head.scores(&case.logits, case.multi), &case.scores);
    }
}
