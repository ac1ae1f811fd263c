//! Functions over a real model: a tiny random one of `testdata`.

use super::support::{Scratch, Session};
use kun_engine::{EmbedOptions, EncodeOptions, Engine};
use serde_json::{Value, json};
use std::path::Path;

/// An encoder of `testdata` with a tokenizer of single letters.
fn encoder(scratch: &Scratch) -> String {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/encoders/bert");
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let letters = ('a'..='z').map(String::from).chain(('a'..='z').map(|c| format!("##{c}")));
    let vocabulary: Value =
        special.iter().cloned().chain(letters).enumerate().map(|(id, token)| (token, json!(id))).collect();
    let token = |(id, content): (usize, &String)| json!({ "id": id, "content": content, "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false });
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": special.iter().enumerate().map(token).collect::<Vec<_>>(),
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": { "type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2] },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocabulary },
    });
    scratch.write("bert/tokenizer.json", tokenizer.to_string());
    for file in ["config.json", "model.safetensors"] {
        scratch.write(&format!("bert/{file}"), std::fs::read(from.join(file)).unwrap());
    }
    scratch.uri("bert")
}

#[test]
fn vectors_are_the_engines_own_and_the_nearest_comes_first() {
    let scratch = Scratch::new("embed");
    let model = encoder(&scratch);
    let word = |n: usize| -> String { [n / 26, n % 26].map(|n| char::from(b'a' + n as u8)).iter().collect() };
    let texts: Vec<String> = (0..300).map(|n| format!("{} b{}", word(n), word(n * 7 % 300))).collect();
    scratch.write("in.txt", texts.join("\n"));
    let session = Session::new();
    let input = scratch.uri("in.txt");
    let rows = session.rows(&format!("SELECT embed(text, model = '{model}') FROM '{input}'")).unwrap();
    let loaded = Engine::new().load_encoder(Path::new(&model), &EncodeOptions::default(), |_| {}).unwrap();
    let vectors = loaded.embed(&texts, &EmbedOptions::default()).unwrap();
    for (row, vector) in rows.iter().zip(vectors) {
        let own: Vec<f32> = serde_json::from_str(row).unwrap();
        assert_eq!(own, vector.unwrap().vector);
    }
    let nearest = format!(
        "SELECT text, round(cosine(embed(text, model = '{model}'), embed('{0}', model = '{model}')), 4) AS s \
         FROM '{input}' ORDER BY s DESC LIMIT 1",
        texts[123]
    );
    assert_eq!(session.rows(&nearest).unwrap(), [format!("{},1.0", texts[123])]);
    // A text that is too long fails, and is told.
    let long = format!("SELECT embed(repeat('a ', 5000), model = '{model}') IS NULL");
    assert_eq!(session.rows(&long).unwrap(), ["true"]);
    let failures = session.sql.take_failures().unwrap();
    assert!(failures.rows == 1 && failures.first.contains("tokens"), "{failures:?}");
}

#[test]
fn prompts_name_columns_in_braces() {
    let scratch = Scratch::new("generate");
    let model = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/models/llm/stories260k/stories260k.f32.gguf");
    assert!(
        model.exists(),
        "{} is missing: these tests need ../shared beside the repository",
        model.display()
    );
    let model = model.canonicalize().unwrap().to_str().unwrap().to_owned();
    let input = scratch.write("in.csv", "who,what\nLily,ball\nTom,cat\n");
    let session = Session::new();
    let call = |prompt: &str| format!("generate({prompt}, model = '{model}', max_tokens = 12)");
    let (braces, sum) =
        (call("'Once, {who} had a {i.what}.'"), call("'Once, ' || who || ' had a ' || what || '.'"));
    let rows =
        session.rows(&format!("SELECT {braces} = {sum}, length({braces}) > 5 FROM '{input}' i")).unwrap();
    assert_eq!(rows, ["true,true", "true,true"]);
}
