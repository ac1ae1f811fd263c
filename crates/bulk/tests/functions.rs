//! Functions over models: tiny random ones of `testdata`, and those of `../shared`.
// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used)]

use kun_bulk::store::{StoreOptions, Stores};
use kun_bulk::{Call, Context, FoundModel, Job, Models, OutsideError, Registry, Report, RunOptions, check};
use kun_engine::{EmbedOptions, EncodeOptions, Engine};
use kun_testkit::Scratch;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Takes a model's name as its path.
struct Paths;

impl Models for Paths {
    fn find(&self, task: &str, name: Option<&str>) -> Result<FoundModel, OutsideError> {
        let name = name.ok_or_else(|| format!("`{task}` without a model"))?;
        Ok(FoundModel { name: name.to_owned(), path: PathBuf::from(name) })
    }
}

fn map(scratch: &Scratch, input: &str, calls: &[String], output: &str) -> Report {
    let mut job = Job::default();
    job.input.uri = vec![input.to_owned()];
    job.output.uri = scratch.uri(output);
    job.map = calls.iter().map(|call| Call::parse(call).unwrap()).collect();
    let stores = Stores::new(StoreOptions::default());
    let context = Context::new(Engine::new(), Arc::new(Paths), stores.clone(), Some(1));
    check(&job, &Registry::builtin(), &context, &stores)
        .unwrap()
        .run(&RunOptions::default(), &|_| {})
        .unwrap()
}

fn read(scratch: &Scratch, output: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(scratch.path(output)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn shared(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared").join(file);
    assert!(path.exists(), "{} is missing: these tests need ../shared beside the repository", path.display());
    path.canonicalize().unwrap().to_str().unwrap().to_owned()
}

/// An encoder of `testdata` with a tokenizer of single letters and labels of its own.
fn encoder(scratch: &Scratch, name: &str, labels: &[&str]) -> String {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/encoders").join(name);
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let letters = ('a'..='z').map(String::from).chain(('a'..='z').map(|c| format!("##{c}")));
    let vocabulary: Value =
        special.iter().cloned().chain(letters).enumerate().map(|(id, token)| (token, json!(id))).collect();
    let flags = json!({ "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false });
    let added = special.iter().enumerate().map(|(id, content)| {
        let mut token = flags.clone();
        (token["id"], token["content"]) = (json!(id), json!(content));
        token
    });
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": { "type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2] },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocabulary },
    });
    let mut config: Value =
        serde_json::from_str(&std::fs::read_to_string(from.join("config.json")).unwrap()).unwrap();
    if !labels.is_empty() {
        config["id2label"] = labels.iter().enumerate().map(|(i, l)| (i.to_string(), json!(l))).collect();
        config["label2id"] = labels.iter().enumerate().map(|(i, l)| ((*l).to_owned(), json!(i))).collect();
    }
    scratch.write(&format!("{name}/tokenizer.json"), tokenizer.to_string());
    scratch.write(&format!("{name}/config.json"), config.to_string());
    scratch
        .write(&format!("{name}/model.safetensors"), std::fs::read(from.join("model.safetensors")).unwrap());
    scratch.path(name).to_str().unwrap().to_owned()
}

/// Texts of letters that the tokenizer knows, each another.
fn texts(count: usize) -> Vec<String> {
    let word = |n: usize| -> String { [n / 26, n % 26].map(|n| char::from(b'a' + n as u8)).iter().collect() };
    (0..count).map(|n| format!("{} b{}", word(n), word(n * 7 % count))).collect()
}

#[test]
fn vectors_are_the_engines_own() {
    let scratch = Scratch::new("embed");
    let model = encoder(&scratch, "bert", &[]);
    let texts = texts(300);
    let input = scratch.write("in.txt", texts.join("\n"));
    let report = map(&scratch, &input, &[format!("embed(text, model = '{model}') as v")], "out.jsonl");
    assert_eq!((report.status.rows, report.status.errors), (300, 0));
    let loaded = Engine::new().load_encoder(Path::new(&model), &EncodeOptions::default(), |_| {}).unwrap();
    let vectors = loaded.embed(&texts, &EmbedOptions::default()).unwrap();
    for (row, vector) in read(&scratch, "out.jsonl").iter().zip(vectors) {
        let own: Vec<f32> = row["v"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
        assert_eq!(own, vector.unwrap().vector, "{row}");
    }
}

#[test]
fn encoders_judge_rows_and_bad_ones_say_why() {
    let scratch = Scratch::new("judge");
    let classifier = encoder(&scratch, "bert_sequence", &["contradiction", "neutral", "entailment"]);
    let (tokens, spans) =
        (encoder(&scratch, "bert_tokens", &["O", "B-PER", "I-PER"]), encoder(&scratch, "bert_span", &[]));
    let embedder = encoder(&scratch, "bert", &[]);
    let long = "word ".repeat(3000);
    let lines = [json!({ "t": "a bird" }), json!({ "t": long }), json!({ "t": " " }), json!({ "t": null })];
    let input = scratch.write("in.jsonl", lines.map(|line| line.to_string()).join("\n"));
    let calls = [
        format!("classify(t, model = '{classifier}') as kind"),
        format!("classify(t, model = '{classifier}', labels = 'bird,fish', multi_label = true) as labels"),
        format!("rerank('a fish', t, model = '{embedder}') as score"),
        format!("extract(t, model = '{tokens}') as names"),
        format!("answer('a fish', t, model = '{spans}') as span"),
    ];
    let report = map(&scratch, &input, &calls, "out.jsonl");
    assert_eq!((report.status.rows, report.status.errors), (4, 3));
    let rows = read(&scratch, "out.jsonl");
    assert!(["contradiction", "neutral", "entailment"].contains(&rows[0]["kind"]["label"].as_str().unwrap()));
    assert!(
        rows[0]["labels"].is_array() && rows[0]["score"].is_number() && rows[0]["names"].is_array(),
        "{}",
        rows[0]
    );
    assert!(rows[0]["_error"].is_null() && rows[0].get("span").is_some(), "{}", rows[0]);
    // Windows read a text of any length; what has none is told for each function.
    assert!(rows[1]["kind"].is_null() && rows[1]["names"].is_array());
    for (row, words) in [(1, "kind: fatal: the text has"), (2, "the text is empty"), (3, "NULL")] {
        assert!(rows[row]["_error"].as_str().unwrap().contains(words), "{}", rows[row]["_error"]);
    }
}

#[test]
fn personal_data_with_a_form_takes_no_model() {
    let scratch = Scratch::new("forms");
    let lines = [json!({ "t": "Write to jo@mail.example, please." }), json!({ "t": "Nothing here." })];
    let input = scratch.write("in.jsonl", lines.map(|line| line.to_string()).join("\n"));
    let report = map(&scratch, &input, &["extract(t, pii = true) as found".to_owned()], "out.jsonl");
    assert_eq!((report.status.rows, report.status.errors), (2, 0));
    let rows = read(&scratch, "out.jsonl");
    let found = &rows[0]["found"][0];
    assert_eq!((&found["label"], &found["text"]), (&json!("EMAIL"), &json!("jo@mail.example")), "{found}");
    assert_eq!((&found["start"], &found["end"]), (&json!(9), &json!(24)));
    assert_eq!(rows[1]["found"], json!([]));
}

#[test]
fn a_chat_model_answers_each_row_the_same_way_again() {
    let scratch = Scratch::new("generate");
    let model = shared("models/llm/stories260k/stories260k.f32.gguf");
    let input = scratch.write("in.csv", "who,what\nLily,ball\nTom,cat\nLily,ball\n");
    let schema = r#"{"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"], "additionalProperties": false}"#;
    let calls = [
        format!("generate('Once, {{who}} had a {{what}}.', model = '{model}', max_tokens = 12) as story"),
        format!("generate('{{who}}?', model = '{model}', max_tokens = 60, schema = '{schema}') as answer"),
    ];
    let report = map(&scratch, &input, &calls, "a.jsonl");
    assert!(report.status.errors == 0 && report.status.tokens > 20, "{report:?}");
    map(&scratch, &input, &calls, "b.jsonl");
    let rows = read(&scratch, "a.jsonl");
    assert_eq!(rows, read(&scratch, "b.jsonl"));
    assert!(
        rows.iter()
            .all(|row| !row["story"].as_str().unwrap().is_empty() && row["answer"]["yes"].is_boolean())
    );
    assert_eq!(rows[0]["story"], rows[2]["story"]);
}

#[test]
fn texts_are_translated_and_summarised() {
    let scratch = Scratch::new("write");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/seq2seq/t5");
    let model = model.canonicalize().unwrap().to_str().unwrap().to_owned();
    let input = scratch.write("in.txt", "The fox sleeps. It dreams.\n\nA bird\n");
    let calls = [
        format!("translate(text, to = 'deu', from = 'eng', model = '{model}', max_tokens = 8) as german"),
        format!("summarize(text, model = '{model}', max_tokens = 8) as short"),
    ];
    for output in ["a.jsonl", "b.jsonl"] {
        let report = map(&scratch, &input, &calls, output);
        assert_eq!((report.status.rows, report.status.errors), (3, 1), "an empty line has no translation");
    }
    let rows = read(&scratch, "a.jsonl");
    assert_eq!(rows, read(&scratch, "b.jsonl"));
    assert!(rows[0]["german"].is_string() && rows[2]["short"].is_string() && rows[1]["short"].is_null());
}

#[test]
fn pictures_are_seen_and_made_and_a_bad_one_stops_nobody() {
    let scratch = Scratch::new("pictures");
    for name in ["000000000009.jpg", "000000000025.jpg"] {
        let image = std::fs::read(shared(&format!("eval/coco8/images/{name}"))).unwrap();
        scratch.write(&format!("photos/{name}"), &image);
        scratch.write(&format!("photos/zz-cut-{name}"), &image[..200]);
    }
    scratch.write("photos/zz-text.png", "no picture");
    let half = std::fs::read(shared("eval/coco8/images/000000000009.jpg")).unwrap();
    scratch.write("photos/zz-half.jpg", &half[..half.len() / 2]);
    let photos = scratch.path("photos").to_str().unwrap().to_owned();
    let call = format!("detect(image, model = '{}') as things", shared("models/detect/yolox_nano"));
    let report = map(&scratch, &photos, &[call], "things.jsonl");
    assert_eq!((report.status.rows, report.status.errors), (6, 4));
    let rows = read(&scratch, "things.jsonl");
    let thing = &rows[0]["things"][0];
    assert!(thing["label"].is_string() && thing["x2"].as_f64() > thing["x1"].as_f64(), "{}", rows[0]);
    assert!(rows[2..].iter().all(|row| row["_error"].is_string() && row["things"].is_null()));

    // Pictures made from pictures are files beside the table of a folder, and bytes in the table of a file.
    let small = scratch
        .write("small/bird.png", std::fs::read(shared("eval/denoise/kodim03_grey_sigma25.png")).unwrap());
    let folder = Path::new(&small).parent().unwrap().to_str().unwrap().to_owned();
    let call = format!("denoise(image, model = '{}') as clean", shared("models/denoise/dncnn_25"));
    assert!(map(&scratch, &folder, &[call], "made/").complete);
    let made: Vec<PathBuf> =
        std::fs::read_dir(scratch.path("made/clean")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(made.len() == 1 && std::fs::read(&made[0]).unwrap().starts_with(b"\x89PNG"), "{made:?}");
}
