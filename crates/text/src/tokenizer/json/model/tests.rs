//! Every kind of model beside the `tokenizers` crate's own, on random vocabularies and texts.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokenizers::{Model as _, ModelWrapper};

use super::*;

fn read(model: &Value) -> Model {
    Model::read(&RawValue::from_string(model.to_string()).unwrap()).unwrap()
}

/// Both give the same ids at the same places, or both give an error.
fn same(model: &Value, texts: &[String]) {
    let theirs: ModelWrapper = serde_json::from_value(model.clone()).unwrap();
    let ours = read(model);
    for text in texts.iter().filter(|text| !text.is_empty()) {
        let placed = |tokens: Vec<Token>| -> Vec<_> { tokens.iter().map(|t| (t.id, t.offsets)).collect() };
        let expected = theirs.tokenize(text).map(placed).ok();
        assert_eq!(ours.tokenize(text).map(placed).ok(), expected, "{text:?} {model}");
        assert_eq!(ours.find(text), theirs.token_to_id(text), "{text:?}");
    }
    for id in 0..100 {
        assert_eq!(ours.text(id).map(str::to_owned), theirs.id_to_token(id), "token {id} {model}");
    }
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[abcé漢<]{1,40}", 1..8)
}

fn pieces() -> impl Strategy<Value = Vec<String>> {
    let pieces = prop::collection::vec("[abcé漢<]{1,4}", 0..40);
    pieces.prop_map(|pieces| pieces.into_iter().collect::<BTreeSet<_>>().into_iter().collect())
}

/// Tokens that spell bytes: all, or all but one.
fn bytes(all: bool) -> Vec<String> {
    (0..256 - usize::from(!all)).map(|byte| format!("<0x{byte:02X}>")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn unigram(
        pieces in pieces(),
        scores in prop::collection::vec(-6i32..2, 60),
        unknown in prop::option::of(0usize..3),
        fallback: (bool, bool),
        texts in texts(),
    ) {
        let mut all = vec!["<unk>".to_owned(), "c漢".into(), "bb".into()];
        all.extend(pieces);
        if fallback.0 {
            all.extend(bytes(fallback.1));
        }
        // Whole scores make ties, thirds do not.
        let score = |at: usize| f64::from(scores[at % scores.len()]) / if at.is_multiple_of(5) { 3.0 } else { 1.0 };
        let vocab: Vec<_> = all.iter().enumerate().map(|(at, piece)| json!([piece, score(at)])).collect();
        let model = json!({"type": "Unigram", "unk_id": unknown, "vocab": vocab, "byte_fallback": fallback.0});
        if unknown.is_some() {
            same(&model, &texts);
        }
    }

    #[test]
    fn byte_pairs(
        pieces in pieces(),
        seeds in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..40),
        flags in prop::array::uniform5(any::<bool>()),
        affixes in (prop::sample::select(vec!["", "", "#"]), prop::sample::select(vec!["", "", "</w>"])),
        unknown in prop::option::of(prop::sample::select(vec!["<unk>", "missing"])),
        texts in texts(),
    ) {
        let [fuse, fallback, every_byte, whole, legacy] = flags;
        let (prefix, suffix) = affixes;
        let mut tokens: Vec<String> = vec!["<unk>".into(), "a".into(), "b".into()];
        tokens.extend(["#a", "a</w>", "#é", "#b</w>"].map(String::from));
        tokens.extend(pieces);
        tokens.extend(if fallback { bytes(every_byte) } else { Vec::new() });
        let mut merges = Vec::new();
        for (left, right) in seeds {
            let (left, right) = (left.get(&tokens).clone(), right.get(&tokens).clone());
            if let Some(rest) = right.strip_prefix(prefix) {
                tokens.push(format!("{left}{rest}"));
                merges.push(if legacy { json!(format!("{left} {right}")) } else { json!([left, right]) });
            }
        }
        let mut seen = BTreeSet::new();
        tokens.retain(|token| seen.insert(token.clone()));
        let vocab: serde_json::Map<_, _> =
            tokens.iter().enumerate().map(|(at, token)| (token.clone(), json!(at * 3 % 1000))).collect();
        prop_assume!(tokens.len() < 1000);
        let none_if_empty = |affix: &str| if affix.is_empty() { Value::Null } else { json!(affix) };
        same(&json!({
            "type": "BPE", "dropout": null, "unk_token": unknown, "vocab": vocab, "merges": merges,
            "continuing_subword_prefix": none_if_empty(prefix), "end_of_word_suffix": none_if_empty(suffix),
            "fuse_unk": fuse, "byte_fallback": fallback, "ignore_merges": whole,
        }), &texts);
    }

    #[test]
    fn word_pieces(
        pieces in pieces(),
        later in pieces(),
        prefix in prop::sample::select(vec!["##", "", "a"]),
        unknown in prop::sample::select(vec!["[UNK]", "missing"]),
        max in prop::sample::select(vec![5, 20, 100]),
        texts in texts(),
    ) {
        let mut tokens: BTreeSet<String> = ["[UNK]".to_owned()].into();
        tokens.extend(pieces);
        tokens.extend(later.into_iter().map(|piece| format!("{prefix}{piece}")));
        let vocab: serde_json::Map<_, _> = tokens.into_iter().zip((0..).map(|id| json!(id))).collect();
        same(&json!({"type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": prefix,
            "max_input_chars_per_word": max, "vocab": vocab}), &texts);
    }

    #[test]
    fn whole_words(pieces in pieces(), unknown in prop::sample::select(vec!["a", "missing"]), texts in texts()) {
        let vocab: serde_json::Map<_, _> = pieces.into_iter().zip((0..).map(|id| json!(id * 2))).collect();
        same(&json!({"type": "WordLevel", "vocab": vocab, "unk_token": unknown}), &texts);
    }
}

#[test]
fn models_without_a_type_are_told_by_their_fields() {
    let vocab = json!({"a": 0, "b": 1, "ab": 2, "##b": 3});
    assert!(matches!(read(&json!({"vocab": vocab, "merges": ["a b"]})), Model::Bpe(_)));
    assert!(matches!(read(&json!({"vocab": [["a", 0]], "unk_id": 0})), Model::Unigram(_)));
    assert!(matches!(read(&json!({"vocab": vocab, "max_input_chars_per_word": 9})), Model::WordPiece(_)));
    assert!(matches!(read(&json!({"vocab": vocab, "unk_token": "a"})), Model::WordLevel(_)));
}

#[test]
fn what_is_wrong_is_named() {
    let vocab = json!({"a": 0, "b": 1, "ab": 2});
    for (model, says) in [
        (json!({"type": "BPE", "vocab": vocab}), "missing field `merges`"),
        (json!({"type": "BPE", "merges": []}), "missing field `vocab`"),
        (json!({"type": "BPE", "vocab": vocab, "merges": ["a z"]}), "merge 0 has `z`, no token"),
        (json!({"type": "BPE", "vocab": vocab, "merges": ["a b", ["b", "a"]]}), "merge 1 has `ba`, no token"),
        (json!({"type": "BPE", "vocab": vocab, "merges": ["a b c"]}), "merge 0 is not two parts"),
        (json!({"type": "BPE", "vocab": vocab, "merges": [["a"]]}), "invalid length 1"),
        (json!({"type": "BPE", "vocab": [["a", 0]], "merges": []}), "a list is for Unigram"),
        (json!({"type": "Unigram", "vocab": vocab}), "a list is for Unigram"),
        (json!({"type": "Unigram", "vocab": [["a", 0]], "unk_id": 1}), "unk_id 1 of 1"),
        (json!({"type": "Unigram", "vocab": [["a".repeat(600), 0]]}), "600 bytes, limit 512"),
        (json!({"type": "Other", "vocab": vocab}), "type `Other`"),
        (json!({"type": "WordLevel", "vocab": vocab, "unk_token": "x".repeat(65)}), "65 bytes, limit 64"),
    ] {
        let raw = RawValue::from_string(model.to_string()).unwrap();
        let error = Model::read(&raw).err().unwrap_or_else(|| panic!("{model} is not refused")).to_string();
        assert!(
            error.starts_with("tokenizer: tokenizer.json: model") && error.contains(says),
            "{error}: {says}"
        );
    }
}
