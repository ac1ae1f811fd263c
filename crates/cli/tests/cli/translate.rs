//! `kun translate` and `kun summarize`, with tiny models whose answers mean nothing: what counts is their form.

use crate::support::{Scratch, stories};

fn model(name: &str) -> String {
    format!("{}/../../testdata/seq2seq/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn translate(name: &str, more: &[&str]) -> crate::support::Ran {
    let model = model(name);
    let mut args = vec!["translate", "-m", &model, "--threads", "1"];
    args.extend(more);
    Scratch::new().run(&args)
}

#[test]
fn lines_blank_lines_and_indents_stay() {
    let text = "The frog sleeps. Tom asked!\n\n  The garden is small.\n";
    let ran = translate("marian", &["--to", "deu", text]).expect(0);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{ran:?}");
    assert!(!lines[0].trim().is_empty() && lines[1].is_empty() && lines[2].starts_with("  "), "{ran:?}");
    assert_eq!(ran.stderr, "");
    // The same, sentence by sentence.
    let alone = translate("marian", &["--to", "de", "The frog sleeps."]).expect(0);
    assert!(lines[0].starts_with(alone.stdout.trim()), "{alone:?} {ran:?}");
}

#[test]
fn json_and_files_name_the_model() {
    let ran = translate("nllb", &["--from", "en", "--to", "fra", "The frog.", "--json"]).expect(0);
    let document = ran.json();
    assert_eq!(document["answered_by"], "translation model");
    assert_eq!((&document["to"], &document["from"]), (&"fra".into(), &"en".into()));
    assert!(document["text"].is_string() && document["model"].as_str().unwrap().contains("nllb"));
    let scratch = Scratch::new();
    let (input, model) = (scratch.write("in.txt", "The frog.\n\nThe dog.\n"), model("m2m100"));
    let args =
        ["translate", "-m", &model, "--from", "eng", "--to", "fra", input.to_str().unwrap(), "-o", "out.txt"];
    assert_eq!(scratch.run(&args).expect(0).stdout, "");
    assert_eq!(std::fs::read_to_string(scratch.path().join("out.txt")).unwrap().lines().count(), 3);
}

#[test]
fn languages_that_are_not_there_are_named() {
    let lacking = translate("nllb", &["--from", "eng", "--to", "tlh", "Hello"]).expect(2);
    assert!(lacking.stderr.contains("tlh") && lacking.stderr.contains("ace_Latn"), "{lacking:?}");
    let unknown = translate("nllb", &["--from", "eng", "--to", "the moon", "Hello"]).expect(2);
    assert!(unknown.stderr.contains("the moon"), "{unknown:?}");
    let untold = translate("nllb", &["--to", "fra", "Hello"]).expect(2);
    assert!(untold.stderr.contains("told"), "{untold:?}");
    let other = translate("marian", &["--to", "spa", "Hello"]).expect(2);
    assert!(other.stderr.contains("Spanish") && other.stderr.contains(">>deu<<"), "{other:?}");
}

#[test]
fn long_texts_are_summarised_in_windows() {
    let text = "The small frog sleeps in the garden. ".repeat(12);
    let model = model("bart");
    // Random weights do not shorten by themselves.
    let bounded = ["summarize", "-m", &model, &text, "--json", "--max-tokens", "8"];
    let ran = Scratch::new().run(&bounded).expect(0);
    let document = ran.json();
    assert!(document["windows"].as_u64().unwrap() > 1, "{document}");
    assert!(ran.stderr.contains("summary of their summaries"), "{ran:?}");
    let short = Scratch::new().run(&["summarize", "-m", &model, "The frog sleeps.", "--json"]).expect(0);
    assert_eq!(short.json()["windows"], 1);
    let wrong =
        Scratch::new().run(&["summarize", "-m", &crate::translate::model("marian"), "Hello"]).expect(2);
    assert!(wrong.stderr.contains("cannot summarise"), "{wrong:?}");
}

#[test]
fn a_chat_model_answers_where_no_other_is_named_and_says_so() {
    let args = ["translate", "-m", &stories(), "--to", "deu", "Hello\n\nYou", "--json", "--max-tokens", "4"];
    let ran = Scratch::new().run(&args).expect(0);
    let document = ran.json();
    assert_eq!(document["answered_by"], "chat model");
    assert_eq!(document["text"].as_str().unwrap().lines().count(), 3, "{document}");
    assert!(ran.stderr.contains("chat model"), "{ran:?}");
}

#[test]
fn pickles_are_refused_with_a_way_out() {
    let scratch = Scratch::new();
    scratch.write("m/config.json", "{\"model_type\": \"t5\"}");
    scratch.write("m/pytorch_model.bin", "x");
    let ran = scratch.run(&["translate", "-m", "./m", "--to", "deu", "Hello"]);
    assert_ne!(ran.code, Some(0));
    assert!(ran.stderr.contains("save_pretrained"), "{ran:?}");
    assert_eq!(scratch.run(&["translate", "-m", "./m", "--to", "deu", " "]).code, Some(2));
}
