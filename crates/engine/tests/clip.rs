//! A model of pictures and texts against transformers (`tools/golden/clip.py`).
#![allow(clippy::unwrap_used)]

use kun_engine::tasks::describe::Verb;
use kun_engine::tasks::pixels::{DecodeLimits, decode};
use kun_engine::vision::fits;
use kun_engine::{VisionModel, VisionOptions, Words};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/clip")
}

fn golden() -> Value {
    serde_json::from_slice(&std::fs::read(folder().join("golden.json")).unwrap()).unwrap()
}

fn vector(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt()
}

#[test]
fn pictures_and_texts_have_the_vectors_of_transformers() {
    let golden = golden();
    let pictures = VisionModel::open(&folder(), Verb::Embed, &VisionOptions::default()).unwrap();
    let bytes = std::fs::read(folder().join("picture.png")).unwrap();
    let image = Arc::new(decode(&bytes, DecodeLimits::default()).unwrap().image);
    let found = pictures.embed(&[image.clone(), image]).unwrap();
    for vector_found in &found {
        let apart = distance(vector_found.as_ref().unwrap(), &vector(&golden["image"]));
        // Pillow and Kun resize with the same filter but round at other places.
        assert!(apart < 5e-3, "the picture's vector is {apart} off");
    }

    let words = Words::open(&folder(), &VisionOptions::default()).unwrap();
    let rows = golden["texts"].as_array().unwrap();
    let texts: Vec<String> = rows.iter().map(|row| row["text"].as_str().unwrap().to_owned()).collect();
    let vectors: Vec<Vec<f32>> = words.embed(&texts).into_iter().map(Result::unwrap).collect();
    for (row, found) in rows.iter().zip(&vectors) {
        let apart = distance(found, &vector(&row["vector"]));
        assert!(apart < 1e-4, "{}: {apart} off", row["text"]);
    }

    let scores = fits(found[0].as_ref().unwrap(), &vectors);
    assert!((scores.iter().sum::<f32>() - 1.0).abs() < 1e-5);
}

#[test]
fn a_text_that_is_too_long_is_refused_with_both_numbers() {
    let words =
        Words::open(&folder(), &VisionOptions { threads: Some(1), ..VisionOptions::default() }).unwrap();
    let results = words.embed(&["cat ".repeat(40), "cat".to_owned()]);
    let error = results[0].as_ref().unwrap_err().to_string();
    assert!(error.contains("42 tokens") && error.contains("1 to 16"), "{error}");
    assert!(results[1].is_ok());
}

#[test]
fn a_model_of_pictures_alone_says_so() {
    let dir = tempdir();
    std::fs::copy(folder().join("onnx/vision_model.onnx"), dir.join("vision_model.onnx")).unwrap();
    let error = Words::open(&dir, &VisionOptions::default()).unwrap_err().to_string();
    assert!(error.contains("text_model.onnx"), "{error}");
    std::fs::remove_dir_all(&dir).unwrap();
}

fn tempdir() -> PathBuf {
    let dir = std::env::temp_dir().join(format!("kun-clip-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}
