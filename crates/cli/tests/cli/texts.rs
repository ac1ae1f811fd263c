//! The verbs that read texts, with tiny random models: what they say is no matter, how they say it is.

use crate::support::{Ran, Scratch, stories};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A model of `testdata/encoders` with a tokenizer of single letters and labels of its own.
pub fn model(scratch: &Scratch, name: &str, labels: &[&str]) -> String {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/encoders").join(name);
    let folder = scratch.path().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(from.join("model.safetensors"), folder.join("model.safetensors")).unwrap();
    let config = std::fs::read_to_string(from.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    if !labels.is_empty() {
        config["id2label"] = labels.iter().enumerate().map(|(i, l)| (i.to_string(), json!(l))).collect();
        config["label2id"] = labels.iter().enumerate().map(|(i, l)| ((*l).to_owned(), json!(i))).collect();
    }
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    std::fs::write(folder.join("tokenizer.json"), tokenizer().to_string()).unwrap();
    folder.to_str().unwrap().to_owned()
}

fn tokenizer() -> Value {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let letters = ('a'..='z').map(String::from).chain(('a'..='z').map(|c| format!("##{c}")));
    let tokens: Vec<String> = special.iter().cloned().chain(letters).collect();
    let vocabulary: Value = tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
    let added: Vec<Value> = special
        .iter()
        .enumerate()
        .map(|(id, content)| {
            json!({ "id": id, "content": content, "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false })
        })
        .collect();
    json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": { "type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2] },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocabulary },
    })
}

fn classifier(scratch: &Scratch) -> String {
    model(scratch, "bert_sequence", &["contradiction", "neutral", "entailment"])
}

pub fn lines(ran: &Ran) -> Vec<Value> {
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn file(scratch: &Scratch, name: &str) -> String {
    std::fs::read_to_string(scratch.path().join(name)).unwrap()
}

#[test]
fn classify_scores_every_label_of_the_model_or_of_ones_own() {
    let scratch = Scratch::new();
    let model = classifier(&scratch);
    let ran = scratch.run(&["classify", "a bird", "two cats", "-m", &model, "--json"]).expect(0).json();
    let rows = ran["rows"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[1]["text"], &rows[1]["index"]), (2, &json!("two cats"), &json!(1)));
    let sum: f64 = rows[0]["scores"].as_object().unwrap().values().map(|s| s.as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-5 && rows[0]["scores"].as_object().unwrap().len() == 3, "{rows:?}");
    assert!(!ran["model"].as_str().unwrap().is_empty());

    let own = ["classify", "a bird", "-m", &model, "--labels", "bird,fish", "--jsonl"];
    let row = lines(&scratch.run(&own).expect(0)).remove(0);
    assert!(["bird", "fish"].contains(&row["label"].as_str().unwrap()), "{row}");
    let many = ["classify", "a bird", "-m", &model, "--labels", "bird,fish", "--multi-label", "--json"];
    let row = scratch.run(&many).expect(0).json()["rows"][0].clone();
    assert!(row["labels"].is_array() && row["scores"]["fish"].as_f64().is_some(), "{row}");
}

#[test]
fn any_number_of_labels_hold_from_a_threshold_on() {
    let scratch = Scratch::new();
    let embedder = model(&scratch, "bert", &[]);
    let labels = ["classify", "a bird", "--labels", "bird,fish", "--multi-label", "--json", "-m"];
    let similar = [&labels[..], &[embedder.as_str()]].concat();
    let refused = scratch.run(&similar).expect(2);
    assert!(refused.stderr.contains("threshold"), "{}", refused.stderr);
    for (threshold, holding) in [("-1", 2), ("1.01", 0)] {
        let given = format!("--threshold={threshold}");
        let row = scratch.run(&[&similar[..], &[&given]].concat()).expect(0).json()["rows"][0].clone();
        assert_eq!(row["labels"].as_array().unwrap().len(), holding, "{row}");
    }

    // A model that chats is asked about each label by itself.
    let row = scratch.run(&[&labels[..], &[&stories()]].concat()).expect(0).json()["rows"][0].clone();
    let scores: Vec<f64> = ["bird", "fish"].map(|label| row["scores"][label].as_f64().unwrap()).to_vec();
    assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)), "{row}");
    assert_eq!(row["labels"].as_array().unwrap().len(), scores.iter().filter(|score| **score >= 0.5).count());
}

#[test]
fn a_bad_row_has_its_own_error_and_exit_code_1() {
    let scratch = Scratch::new();
    let model = classifier(&scratch);
    let mut input = b"first\n\nbad \xff\n".to_vec();
    input.extend("long ".repeat(200).into_bytes());
    input.extend(b"\nbell \x07 last\n");
    let ran = scratch.run_with_stdin(&["classify", "-m", &model, "--jsonl"], &input).expect(1);
    let rows = lines(&ran);
    let errors: Vec<&str> = rows.iter().map(|r| r["error"].as_str().unwrap_or_default()).collect();
    assert_eq!(errors.len(), 5);
    assert!(errors[0].is_empty() && errors[4].is_empty(), "{errors:?}");
    assert!(
        errors[1].contains("empty") && errors[2].contains("UTF-8") && errors[3].contains("tokens"),
        "{errors:?}"
    );
    assert!(ran.stderr.contains("3 of 5 rows failed"), "{}", ran.stderr);
    let cut = scratch.run_with_stdin(&["classify", "-m", &model, "--jsonl", "--truncate"], &input).expect(1);
    assert!(lines(&cut)[3]["truncated_from"].as_u64().unwrap() > 100, "{}", cut.stdout);
}

#[test]
fn tables_come_in_and_go_out_in_order() {
    let scratch = Scratch::new();
    let model = classifier(&scratch);
    let rows: String =
        (0..3000).map(|n| format!("{n},\"text, number {}\"\n", "x".repeat(n % 7 + 1))).collect();
    scratch.write("in.csv", &format!("id,words\n{rows}"));
    let args = ["classify", "in.csv", "--column", "words", "-m", &model, "-o", "out.tsv"];
    let ran = scratch.run(&args).expect(0);
    assert!(ran.stdout.is_empty());
    let out = file(&scratch, "out.tsv");
    assert_eq!(out.lines().next(), Some("index\ttext\tlabel\tscore\tscores\terror"));
    for (n, line) in out.lines().skip(1).enumerate() {
        let expected = format!("{n}\ttext, number {}\t", "x".repeat(n % 7 + 1));
        assert!(line.starts_with(&expected), "{line}");
    }
    assert_eq!(out.lines().count(), 3001);
    let missing = scratch.run(&["classify", "in.csv", "--column", "nope", "-m", &model]).expect(2);
    assert!(missing.stderr.contains("`words`"), "{}", missing.stderr);
    scratch.run(&["classify", "absent.csv", "-m", &model]).expect(2);
}

#[test]
fn without_labels_or_model_it_says_what_to_give() {
    let scratch = Scratch::new();
    let ran = scratch.run(&["classify", "a text"]).expect(2);
    assert!(ran.stderr.contains("--labels"), "{}", ran.stderr);
    let ran = scratch.run(&["extract", "a text"]).expect(2);
    assert!(ran.stderr.contains("--pii"), "{}", ran.stderr);
    let wrong = model(&scratch, "bert_tokens", &["O", "B-PER", "I-PER"]);
    let ran = scratch.run(&["classify", "a text", "-m", &wrong]).expect(2);
    assert!(ran.stderr.contains("no classifier of texts"), "{}", ran.stderr);
}

#[test]
fn extract_gives_places_in_characters_over_windows() {
    let scratch = Scratch::new();
    let model = model(&scratch, "bert_tokens", &["O", "B-PER", "I-PER"]);
    // Far longer than the model's 48 positions.
    let text = "Zoë met josé in köln ".repeat(20);
    let ran =
        scratch.run(&["extract", &text, "-m", &model, "--json", "--aggregation", "first"]).expect(0).json();
    let characters: Vec<char> = text.chars().collect();
    let entities = ran["rows"][0]["entities"].as_array().unwrap();
    let mut at = 0;
    for entity in entities {
        let (start, end) =
            (entity["start"].as_u64().unwrap() as usize, entity["end"].as_u64().unwrap() as usize);
        assert!(at <= start && start < end, "{entity}");
        assert_eq!(entity["text"], characters[start..end].iter().collect::<String>());
        assert_eq!(entity["label"], "PER");
        at = end;
    }
}

#[test]
fn a_chat_model_finds_kinds_of_ones_own_and_only_what_is_there() {
    let scratch = Scratch::new();
    let text = "Ada Lovelace met Charles Babbage in London.";
    let args = ["extract", text, "-m", &stories(), "--labels", "person,place", "--json"];
    let ran = scratch.run(&args);
    let document = ran.json();
    assert!(document["model"].as_str().unwrap().contains("stories"), "{document}");
    assert!(ran.stderr.contains("answers"), "{}", ran.stderr);
    // A model of 260 thousand weights knows nothing: its list may be empty or endless, never invented.
    let row = &document["rows"][0];
    let characters: Vec<char> = text.chars().collect();
    for entity in row["entities"].as_array().into_iter().flatten() {
        let range = entity["start"].as_u64().unwrap() as usize..entity["end"].as_u64().unwrap() as usize;
        assert_eq!(entity["text"], characters[range].iter().collect::<String>());
        assert!(["person", "place"].contains(&entity["label"].as_str().unwrap()), "{entity}");
    }
    assert!(row["entities"].is_array() || row["error"].as_str().unwrap().contains("no end"), "{document}");
    let unlabelled = scratch.run(&["extract", text, "-m", &stories()]).expect(2);
    assert!(unlabelled.stderr.contains("--labels"), "{}", unlabelled.stderr);
    let nobody = scratch.run(&["extract", text, "--labels", "person"]).expect(2);
    assert!(nobody.stderr.contains("kun pull"), "{}", nobody.stderr);
}

#[test]
fn labels_keep_only_some_of_a_taggers_kinds() {
    let scratch = Scratch::new();
    let tagger = model(&scratch, "bert_tokens", &["O", "B-PER", "I-LOC"]);
    let all = scratch.run(&["extract", "ada in köln met zoe", "-m", &tagger, "--json"]).expect(0).json();
    let args = ["extract", "ada in köln met zoe", "-m", &tagger, "--labels", "loc", "--json"];
    let some = scratch.run(&args).expect(0).json();
    let of = |document: &Value| document["rows"][0]["entities"].as_array().unwrap().clone();
    let wanted: Vec<Value> = of(&all).into_iter().filter(|e| e["label"] == "LOC").collect();
    assert_eq!(of(&some), wanted);
    let other = scratch.run(&["extract", "ada", "-m", &tagger, "--labels", "date"]).expect(2);
    assert!(other.stderr.contains("PER, LOC"), "{}", other.stderr);
}

#[test]
fn personal_data_is_found_and_redacted_without_a_model() {
    let scratch = Scratch::new();
    let text = "Write to jo@example.org or call +49 30 901820.";
    let ran = scratch.run(&["extract", text, "--pii", "--redact"]).expect(0);
    assert_eq!(ran.stdout, "Write to [EMAIL] or call [PHONE].\n");
    let row = scratch.run(&["extract", text, "--pii", "--json"]).expect(0).json()["rows"][0].clone();
    assert_eq!(row["entities"][0]["text"], "jo@example.org");
    assert_eq!((&row["entities"][0]["start"], &row["entities"][0]["end"]), (&json!(9), &json!(23)));
    let hidden = scratch.run(&["extract", text, "--pii", "--redact", "--json"]).expect(0);
    assert!(!hidden.stdout.contains("jo@example.org"), "{}", hidden.stdout);
}

#[test]
fn answer_points_into_a_long_document() {
    let scratch = Scratch::new();
    let model = model(&scratch, "bert_span", &[]);
    let document = "the tower was built by ada in köln. ".repeat(30);
    scratch.write("tower.txt", &document);
    let args = ["answer", "who?", "--file", "tower.txt", "-m", &model, "--top", "3", "--json"];
    let row = scratch.run(&args).expect(0).json()["rows"][0].clone();
    let characters: Vec<char> = document.chars().collect();
    let answers = row["answers"].as_array().unwrap();
    assert_eq!(answers.len(), 3);
    for answer in answers {
        let range = answer["start"].as_u64().unwrap() as usize..answer["end"].as_u64().unwrap() as usize;
        assert_eq!(answer["answer"], characters[range].iter().collect::<String>());
    }
    assert_eq!(row["answer"], answers[0]["answer"]);
    let question = "who ".repeat(30);
    let ran = scratch.run(&["answer", &question, "--file", "tower.txt", "-m", &model]).expect(2);
    assert!(ran.stderr.contains("tokens"), "{}", ran.stderr);
}

/// An embedder, and a table of two kinds of words.
fn words(scratch: &Scratch) -> (String, PathBuf) {
    let model = model(scratch, "bert", &[]);
    let word = |n: usize| {
        let letters = if n.is_multiple_of(2) { "abc" } else { "xyz" };
        (0..n % 5 + 3).map(|i| letters.as_bytes()[(n / 2 + i) % 3] as char).collect::<String>()
    };
    let rows: String =
        (0..200).map(|n| format!("{},{}\n", word(n), if n % 2 == 0 { "low" } else { "high" })).collect();
    let file = scratch.write("words.csv", &format!("text,label\n{rows}"));
    (model, file)
}

#[test]
fn a_trained_head_classifies_with_the_model_that_it_names() {
    let scratch = Scratch::new();
    let (model, _) = words(&scratch);
    let args = ["train-head", &model, "--file", "words.csv", "-o", "words.head", "--json"];
    let trained = scratch.run(&args).expect(0).json();
    assert_eq!((&trained["rows"], &trained["held_out_rows"]), (&json!(160), &json!(40)));
    assert_eq!(trained["labels"], json!(["high", "low"]));
    assert!(trained["accuracy"].as_f64().unwrap() > 0.8, "{trained}");
    let row = scratch.run(&["classify", "abcab", "--head", "words.head", "--json"]).expect(0).json()["rows"]
        [0]
    .clone();
    assert_eq!(row["label"], "low");
    let eval = ["eval", "classify", &model, "--file", "words.csv", "--head", "words.head", "--json"];
    assert!(scratch.run(&eval).expect(0).json()["accuracy"].as_f64().unwrap() > 0.8);
    scratch.write("no.head", "no head");
    scratch.run(&["classify", "abc", "--head", "no.head"]).expect(2);
}

#[test]
fn an_index_is_searched_and_updated() {
    let scratch = Scratch::new();
    let (model, _) = words(&scratch);
    scratch.write("notes/a.txt", "abc abc\n\naaaa");
    scratch.write("notes/sub/b.md", "xyz zyx");
    let index = |more: &[&str]| {
        let args = [&["index", "notes", "-o", "n.kun", "-m", &model, "--json"], more].concat();
        scratch.run(&args).expect(0).json()
    };
    let made = index(&["--check"]);
    assert_eq!((&made["files"], &made["added"], &made["recall_at_10"]), (&json!(2), &json!(2), &json!(1.0)));
    let found = scratch.run(&["search", "xyz zyx", "--index", "n.kun", "--json"]).expect(0).json();
    let best = &found["rows"][0];
    assert_eq!(
        (&best["file"], &best["line"], &best["text"]),
        (&json!("sub/b.md"), &json!(1), &json!("xyz zyx"))
    );
    assert!(best["score"].as_f64().unwrap() > 0.999);
    scratch.write("notes/a.txt", "changed");
    let updated = index(&[]);
    assert_eq!(
        (&updated["changed"], &updated["unchanged"], &updated["embedded"]),
        (&json!(1), &json!(1), &json!(1))
    );
    scratch.run(&["search", "x", "--index", "none.kun"]).expect(2);
    scratch.write("bad.kun", "kunindex");
    scratch.run(&["search", "x", "--index", "bad.kun"]).expect(2);
}

#[test]
fn evaluations_have_the_promised_keys() {
    let scratch = Scratch::new();
    let (model, _) = words(&scratch);
    scratch.write("pairs.csv", "abc,abc,5\nabc,abd,4\nabc,xyz,0\n");
    let sts = scratch.run(&["eval", "sts", &model, "--file", "pairs.csv", "--json"]).expect(0).json();
    assert!(sts["spearman"].as_f64().unwrap() > 0.0, "{sts}");
    scratch.write(
        "beir/corpus.jsonl",
        "{\"_id\":\"1\",\"title\":\"\",\"text\":\"abc\"}\n{\"_id\":\"2\",\"title\":\"\",\"text\":\"xyz\"}\n",
    );
    scratch.write("beir/queries.jsonl", "{\"_id\":\"q\",\"text\":\"abc\"}\n");
    scratch.write("beir/qrels.tsv", "query-id\tcorpus-id\tscore\nq\t1\t1\n");
    let found = scratch.run(&["eval", "retrieval", &model, "--file", "beir", "--json"]).expect(0).json();
    assert_eq!((&found["ndcg_at_10"], &found["queries"]), (&json!(1.0), &json!(1)));
    let args = [
        "eval",
        "classify",
        &model,
        "--file",
        "words.csv",
        "--rename",
        "low=abc",
        "--rename",
        "high=xyz",
        "--json",
    ];
    let accuracy = scratch.run(&args).expect(0).json();
    assert!(accuracy["accuracy"].as_f64().is_some(), "{accuracy}");
}
