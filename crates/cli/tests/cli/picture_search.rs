//! Pictures and texts in one space, with the tiny model of `tools/golden/clip.py`.

use crate::support::Scratch;
use serde_json::{Value, json};
use std::path::Path;

fn model() -> String {
    format!("{}/../../testdata/clip", env!("CARGO_MANIFEST_DIR"))
}

/// A folder with two pictures of other colours, a broken one and a text.
fn photos(scratch: &Scratch) -> String {
    let folder = scratch.path().join("photos");
    std::fs::create_dir_all(&folder).unwrap();
    let own = Path::new(&model()).join("picture.png");
    std::fs::copy(&own, folder.join("b.png")).unwrap();
    // A 2x2 bitmap of 24 bits, all blue.
    let mut bitmap = b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x02\0\0\0\x02\0\0\0\x01\0\x18\0".to_vec();
    bitmap.resize(54, 0);
    bitmap.extend(*b"\xff\0\0\xff\0\0\0\0\xff\0\0\xff\0\0\0\0");
    std::fs::write(folder.join("a.bmp"), bitmap).unwrap();
    std::fs::write(folder.join("c.png"), b"\x89PNG\r\n\x1a\n broken").unwrap();
    std::fs::write(folder.join("d.txt"), "a text").unwrap();
    folder.to_str().unwrap().to_owned()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

#[test]
fn pictures_and_texts_become_vectors_of_one_width() {
    let scratch = Scratch::new();
    let photos = photos(&scratch);
    let ran = scratch.run(&["embed", &photos, "-m", &model(), "--jsonl"]).expect(1);
    let rows = lines(&ran.stdout);
    assert_eq!(rows.len(), 3);
    assert!(rows[0]["file"].as_str().unwrap().ends_with("a.bmp"));
    assert!(rows[2]["error"].as_str().unwrap().contains("c.png"), "{}", rows[2]);
    let golden: Value =
        serde_json::from_slice(&std::fs::read(Path::new(&model()).join("golden.json")).unwrap()).unwrap();
    let (found, wanted) = (numbers(&rows[1]["embedding"]), numbers(&golden["image"]));
    let cosine: f64 = found.iter().zip(&wanted).map(|(a, b)| a * b).sum();
    assert!(cosine > 0.9999, "{cosine}");

    let ran = scratch.run(&["embed", "a photo of a cat", "-m", &model(), "--jsonl"]).expect(0);
    assert_eq!(numbers(&lines(&ran.stdout)[0]["embedding"]).len(), wanted.len());
}

#[test]
fn a_folder_of_pictures_is_found_by_words_and_by_a_picture() {
    let scratch = Scratch::new();
    let photos = photos(&scratch);
    let made = scratch.run(&["index", &photos, "-m", &model(), "-o", "p.kun", "--json"]).expect(0);
    assert!(made.stderr.contains("c.png"), "{}", made.stderr);
    let made = made.json();
    assert_eq!((&made["passages"], &made["skipped"]), (&json!(2), &json!(2)));
    let own = Path::new(&model()).join("picture.png");
    let hits = scratch.run(&["search", own.to_str().unwrap(), "--index", "p.kun", "--jsonl"]).expect(0);
    let hits = lines(&hits.stdout);
    assert_eq!((hits.len(), &hits[0]["file"]), (2, &json!("b.png")));
    assert!(hits[0]["score"].as_f64().unwrap() > 0.9999);
    let hits = scratch.run(&["search", "two dogs", "--index", "p.kun", "-n", "1", "--jsonl"]).expect(0);
    assert_eq!(lines(&hits.stdout).len(), 1);
    let again = scratch.run(&["index", &photos, "-m", &model(), "-o", "p.kun", "--json"]).expect(0).json();
    assert_eq!((&again["unchanged"], &again["embedded"]), (&json!(3), &json!(0)));
}

#[test]
fn labels_of_ones_own_are_scored_for_a_picture() {
    let scratch = Scratch::new();
    let own = format!("{}/picture.png", model());
    let args = ["classify", &own, "-m", &model(), "--labels", "cat,dog,fox", "--jsonl"];
    let rows = lines(&scratch.run(&args).expect(0).stdout);
    let scores: Vec<f64> =
        rows[0]["scores"].as_object().unwrap().values().map(|s| s.as_f64().unwrap()).collect();
    assert!(scores.len() == 3 && (scores.iter().sum::<f64>() - 1.0).abs() < 1e-4, "{rows:?}");
    let without = scratch.run(&["classify", &own, "--labels", "cat,dog"]).expect(2);
    assert!(without.stderr.contains("-m"), "{}", without.stderr);
}
