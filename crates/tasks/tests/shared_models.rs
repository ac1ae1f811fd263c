//! Answers read from the outputs that a reference engine gave for the models beside the repository.
// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used)]

use kun_tasks::Task;
use kun_tasks::pixels::{Box2, DecodeLimits, Image, decode};
use kun_tasks::vision::{BoxHead, Detect, FaceHead, Faces, Input, Matte, MatteActivation, input::ColorOrder};
use kun_tensor::{Tensor, Tensors};
use kun_testkit::golden;
use std::path::PathBuf;
use std::sync::Arc;

fn expected(model: &str) -> PathBuf {
    let shared = golden::shared().expect("these tests need ../shared beside the repository");
    shared.join("models").join(model).join("expected")
}

fn input(model: &str) -> Arc<Image> {
    let bytes = std::fs::read(expected(model).join("input.png")).unwrap();
    Arc::new(decode(&bytes, DecodeLimits::default()).unwrap().image)
}

fn outputs(model: &str, names: &[(&str, &str)]) -> Tensors {
    let load = |(name, file): &(&str, &str)| {
        let array = golden::npy(&expected(model).join(file));
        ((*name).to_owned(), Tensor::f32(array.shape, array.data).unwrap())
    };
    names.iter().map(load).collect()
}

fn json(model: &str) -> serde_json::Value {
    golden::json(&expected(model).join("expected.json"))
}

fn same_box(found: Box2, wanted: &serde_json::Value, size: (f32, f32)) {
    let at = |i: usize| wanted[i].as_f64().unwrap() as f32;
    let wanted = Box2::new(at(0) * size.0, at(1) * size.1, at(2) * size.0, at(3) * size.1);
    assert!(found.iou(&wanted) > 0.995, "{found:?} {wanted:?}");
}

#[test]
fn fastestdet_finds_the_reference_boxes() {
    let model = "detect/fastestdet";
    let input_spec = Input { order: ColorOrder::Bgr, ..Input::rgb("input.1", 352, 352) };
    let task = Detect::new(input_spec, BoxHead::Cells { output: "758".into() }, vec!["person".into()]);
    let (tensors, placement) = task.prepare(input(model)).unwrap();
    let first: Vec<f32> = tensors["input.1"].as_f32().unwrap()[..8].to_vec();
    let report = json(model);
    let wanted: Vec<f32> = serde_json::from_value(report["input_tensor"]["first8"].clone()).unwrap();
    assert!(first.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-6), "{first:?} {wanted:?}");
    let found = task.finish(outputs(model, &[("758", "758.npy")]), placement).unwrap();
    let wanted = report["detections"].as_array().unwrap();
    assert_eq!(found.len(), wanted.len());
    for (found, wanted) in found.iter().zip(wanted) {
        assert_eq!((found.class as u64, found.label.as_str()), (wanted["cls"].as_u64().unwrap(), "person"));
        assert!((f64::from(found.score) - wanted["score"].as_f64().unwrap()).abs() < 1e-4);
        same_box(found.area, &wanted["box"], (1.0, 1.0));
    }
}

#[test]
fn yunet_and_ultraface_find_the_reference_faces() {
    let yunet = FaceHead::YuNetPriors { loc: "loc".into(), conf: "conf".into(), iou: "iou".into() };
    let corners = FaceHead::Corners { scores: "scores".into(), boxes: "boxes".into() };
    let cases = [
        (
            "face/yunet",
            yunet,
            (160, 120),
            0.6,
            &[("loc", "loc.npy"), ("conf", "conf.npy"), ("iou", "iou.npy")][..],
        ),
        ("face/ultraface", corners, (320, 240), 0.7, &[("scores", "scores.npy"), ("boxes", "boxes.npy")][..]),
    ];
    for (model, head, (w, h), threshold, files) in cases {
        let task = Faces { input: Input::rgb("input", w, h), head, threshold, iou: 0.3 };
        let (_, placement) = task.prepare(input(model)).unwrap();
        let found = task.finish(outputs(model, files), placement).unwrap();
        let report = json(model);
        let wanted = report["detections"].as_array().unwrap();
        assert_eq!(found.len(), wanted.len(), "{model}");
        for (found, wanted) in found.iter().zip(wanted) {
            let size = if model == "face/yunet" { (1.0, 1.0) } else { (w as f32, h as f32) };
            same_box(found.area, &wanted["box"], size);
            let Some(points) = wanted["landmarks"].as_array() else { continue };
            for (&(x, y), wanted) in found.landmarks.iter().zip(points) {
                let off = (f64::from(x) - wanted[0].as_f64().unwrap()).abs()
                    + (f64::from(y) - wanted[1].as_f64().unwrap()).abs();
                assert!(off < 0.05, "{model}: {off}");
            }
        }
    }
}

#[test]
fn a_matte_covers_what_the_reference_says() {
    let model = "segment/selfie";
    let task = Matte {
        input: Input::rgb("image", 256, 256),
        output: "mask".into(),
        activation: MatteActivation::None,
    };
    let (_, placement) = task.prepare(input(model)).unwrap();
    let matte = task.finish(outputs(model, &[("mask", "mask.npy")]), placement).unwrap();
    let share = matte.values().iter().filter(|v| **v > 0.5).count() as f64 / matte.values().len() as f64;
    assert!((share - json(model)["fg_fraction"].as_f64().unwrap()).abs() < 1e-6);
}
