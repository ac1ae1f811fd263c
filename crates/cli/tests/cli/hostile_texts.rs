//! Empty, huge, broken and control-ridden texts, given to every verb that reads texts: an answer or an error that says what
//! is wrong with which, never a crash.

use crate::support::{Ran, Scratch, stories};
use crate::texts::{lines, model};

/// Ten million bytes without a line's end, in words too long for the vocabulary: one token each.
fn huge() -> Vec<u8> {
    let mut text = [b"x".repeat(120), b" ".to_vec()].concat().repeat(10_000_000 / 121 + 1);
    text.truncate(10_000_000);
    text
}

const CONTROL: &[u8] = b"a\x00b\x01\x1b[31mc\x7f\xc2\x85d \xe2\x80\xae\xef\xbf\xbd\xf0\x9f\xa6\x8a";
const BROKEN: &[u8] = b"good\nbad \xff\xfe byte\ngood \xc3";

struct Verb {
    args: Vec<String>,
    /// What becomes of a text of ten million bytes: read in parts, or refused; `None`: another like it is tried.
    reads_huge: Option<bool>,
}

fn verbs(scratch: &Scratch) -> Vec<Verb> {
    let embedder = model(scratch, "bert", &[]);
    let classifier = model(scratch, "bert_sequence", &["contradiction", "neutral", "entailment"]);
    let tagger = model(scratch, "bert_tokens", &["O", "B-PER", "I-PER"]);
    let span = model(scratch, "bert_span", &[]);
    let verb = |args: &[&str], reads_huge| {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Verb { args, reads_huge }
    };
    vec![
        verb(&["embed", "-m", &embedder], Some(false)),
        verb(&["embed", "-m", &embedder, "--truncate", "--encoding", "binary"], None),
        verb(&["rerank", "query", "-m", &embedder, "--truncate"], Some(true)),
        verb(&["classify", "-m", &classifier], Some(false)),
        verb(&["classify", "-m", &classifier, "--labels", "a,b"], None),
        verb(&["classify", "-m", &embedder, "--labels", "a,b", "--truncate"], None),
        verb(&["extract", "-m", &tagger], Some(true)),
        verb(&["extract", "--pii", "--redact"], Some(true)),
        verb(&["answer", "who?", "-m", &span], Some(true)),
    ]
}

fn run(scratch: &Scratch, verb: &Verb, stdin: &[u8]) -> Ran {
    let args: Vec<&str> = verb.args.iter().map(String::as_str).chain(["--jsonl"]).collect();
    let ran = scratch.run_with_stdin(&args, stdin);
    assert!(ran.code.is_some_and(|code| code <= 2), "{args:?}: {:?} {}", ran.code, ran.stderr);
    assert!(!ran.stderr.contains("panicked"), "{args:?}: {}", ran.stderr);
    ran
}

#[test]
fn no_text_is_no_row() {
    let scratch = Scratch::new();
    for verb in verbs(&scratch) {
        for nothing in [&b""[..], b"\n", b" \t\n\n"] {
            let ran = run(&scratch, &verb, nothing);
            let answers = lines(&ran).into_iter().filter(|row| row.get("error").is_none());
            assert_eq!(answers.count(), 0, "{:?}: {ran:?}", verb.args);
        }
    }
}

#[test]
fn ten_million_bytes_are_read_in_parts_or_refused() {
    let scratch = Scratch::new();
    let huge = huge();
    for verb in verbs(&scratch) {
        let Some(reads) = verb.reads_huge else { continue };
        let ran = run(&scratch, &verb, &huge);
        assert_eq!(ran.code == Some(0), reads, "{:?}: {}", verb.args, ran.stderr);
        assert!(reads || (ran.stdout + &ran.stderr).contains("tokens"), "{:?}", verb.args);
    }
}

#[test]
fn control_characters_are_text() {
    let scratch = Scratch::new();
    for verb in verbs(&scratch) {
        let ran = run(&scratch, &verb, CONTROL);
        assert_eq!((ran.code, lines(&ran).len()), (Some(0), 1), "{:?}: {ran:?}", verb.args);
        // JSON has them escaped.
        assert!(!ran.stdout.contains(['\u{0}', '\u{1}', '\u{1b}']), "{ran:?}");
    }
}

#[test]
fn broken_text_is_an_error_of_its_row() {
    let scratch = Scratch::new();
    for verb in verbs(&scratch) {
        let ran = run(&scratch, &verb, BROKEN);
        assert_eq!(ran.code, Some(1), "{:?}: {ran:?}", verb.args);
        assert!((ran.stdout.clone() + &ran.stderr).contains("UTF-8"), "{:?}: {ran:?}", verb.args);
        let good = lines(&ran).into_iter().filter(|row| row.get("error").is_none());
        // A document is one text, whatever its lines.
        let expected = if verb.args[0] == "answer" { 0 } else { 1 };
        assert_eq!(good.count(), expected, "{:?}: {ran:?}", verb.args);
    }
}

#[test]
fn documents_are_checked_before_they_are_translated_or_summarised() {
    let scratch = Scratch::new();
    let folder = |name: &str| format!("{}/../../testdata/seq2seq/{name}", env!("CARGO_MANIFEST_DIR"));
    let (marian, bart) = (folder("marian"), folder("bart"));
    let translate = ["translate", "-m", &marian, "--to", "deu", "--threads", "1"];
    let summarize = ["summarize", "-m", &bart, "--threads", "1", "--max-tokens", "4"];
    let by_chat = ["translate", "-m", &stories(), "--to", "deu", "--max-tokens", "2"];
    for args in [&translate[..], &summarize, &by_chat] {
        for (text, code) in [(&b""[..], 2), (b" \n\t", 2), (BROKEN, 2), (CONTROL, 0)] {
            let ran = scratch.run_with_stdin(args, text);
            assert_eq!(ran.code, Some(code), "{args:?} {text:?}: {ran:?}");
        }
        let blank = [vec![b'\n'; 10_000_000], b"a".to_vec()].concat();
        let ran = scratch.run_with_stdin(args, &blank);
        assert_eq!(ran.code, Some(0), "{args:?}: {}", ran.stderr);
        let summarises = args[0] == "summarize";
        assert!(summarises || ran.stdout.lines().count() == 10_000_001, "{}", ran.stdout.lines().count());
    }
}

#[test]
fn tables_and_folders_of_odd_texts_are_trained_on_and_indexed() {
    let scratch = Scratch::new();
    let embedder = model(&scratch, "bert", &[]);
    let rows = "abc,low\n\u{1}\u{7f},low\n,low\nxyz,high\nzyx,high\n\u{202e}x,high\n";
    scratch.write("rows.csv", &format!("text,label\n{rows}"));
    let train =
        ["train-head", &embedder, "--file", "rows.csv", "-o", "h.head", "--holdout-every", "0", "--json"];
    let ran = scratch.run(&train);
    assert!(ran.code.is_some_and(|code| code <= 2) && !ran.stderr.contains("panicked"), "{ran:?}");
    for (name, text) in [("empty.txt", &b""[..]), ("control.txt", CONTROL), ("broken.txt", BROKEN)] {
        scratch.write("notes/x.txt", "abc");
        std::fs::write(scratch.path().join("notes").join(name), text).unwrap();
    }
    std::fs::write(scratch.path().join("notes/long.txt"), &huge()[..500_000]).unwrap();
    let made = scratch.run(&["index", "notes", "-o", "n.kun", "-m", &embedder, "--json"]);
    assert!(made.code.is_some_and(|code| code <= 1), "{made:?}");
    for query in ["abc", "\u{1}", "\u{202e}🦊"] {
        scratch.run(&["search", query, "--index", "n.kun", "--json"]).expect(0);
    }
    assert_eq!(scratch.run(&["search", " ", "--index", "n.kun"]).code, Some(2));
}
