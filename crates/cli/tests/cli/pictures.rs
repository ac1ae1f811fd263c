//! The verbs that look at pictures, on the models and data beside the repository.

use crate::support::{Scratch, shared};
use serde_json::Value;

fn model(name: &str) -> String {
    shared(&format!("models/{name}"))
}

fn eval(args: &[&str]) -> Value {
    Scratch::new().run(&[&["eval"], args, &["--json"]].concat()).expect(0).json()
}

#[test]
fn classification_equals_the_reference() {
    let measured =
        eval(&["classify", &model("classify/squeezenet1.1"), "--file", &shared("eval/imagenet150")]);
    assert_eq!((&measured["top1"], &measured["top5"]), (&98.into(), &124.into()), "{measured}");
}

#[test]
fn detection_equals_the_reference() {
    let measured = eval(&["detect", &model("detect/yolox_nano"), "--data", &shared("eval/coco8")]);
    let counts = ["matched", "detections", "boxes"].map(|key| measured[key].as_u64().unwrap());
    assert_eq!(counts, [13, 18, 30], "{measured}");
}

#[test]
fn segmentation_equals_the_reference() {
    let (bird, mask) = (shared("eval/seg/bird.png"), shared("eval/seg/bird_mask.png"));
    let measured = eval(&["segment", &model("segment/deeplabv3"), "--input", &bird, "--target", &mask]);
    let iou = measured["foreground_iou"].as_f64().unwrap();
    assert!((iou - 0.877).abs() < 0.002, "{measured}");
}

#[test]
fn made_pictures_are_as_near_as_the_references() {
    let denoised = eval(&[
        "image",
        "denoise",
        &model("denoise/dncnn_25"),
        "--input",
        &format!("{}/*_sigma25.png", shared("eval/denoise")),
        "--target",
        &format!("{}/*_clean.png", shared("eval/denoise")),
    ]);
    assert!((denoised["psnr"].as_f64().unwrap() - 31.29).abs() < 0.01, "{denoised}");
    let upscaled = eval(&[
        "image",
        "upscale",
        &model("upscale/carn_m_x4"),
        "--input",
        &shared("eval/set5/lr_x4"),
        "--target",
        &shared("eval/set5"),
    ]);
    assert!((upscaled["psnr"].as_f64().unwrap() - 31.89).abs() < 0.01, "{upscaled}");
}

#[test]
fn a_bad_picture_is_told_and_the_others_are_done() {
    let scratch = Scratch::new();
    scratch.write("in/bad.jpg", "not a picture");
    std::fs::copy(shared("eval/coco8/images/000000000009.jpg"), scratch.path().join("in/good.jpg")).unwrap();
    let model = model("detect/yolox_nano");
    let ran = scratch
        .run(&["detect", "in", "-m", &model, "--json", "--sheet", "sheet.png", "--coco", "coco.json"])
        .expect(1);
    let answers = ran.json();
    assert!(answers[0]["error"].as_str().unwrap().contains("not a picture"), "{answers}");
    assert_eq!(answers[1]["detections"][0]["label"], "bowl", "{answers}");
    assert!(ran.stderr.contains("bad.jpg"), "{}", ran.stderr);
    let coco: Value =
        serde_json::from_slice(&std::fs::read(scratch.path().join("coco.json")).unwrap()).unwrap();
    assert_eq!(coco["images"].as_array().unwrap().len(), 1);
    assert!(std::fs::metadata(scratch.path().join("sheet.png")).unwrap().len() > 1000);
    let ran = scratch.run(&["detect", "in/good.jpg", "-m", &model, "--max-megapixels", "0"]).expect(2);
    assert!(ran.stderr.contains("max-megapixels"), "{}", ran.stderr);
}

#[test]
fn pictures_come_from_stdin_and_go_into_files() {
    let scratch = Scratch::new();
    let bytes = std::fs::read(shared("eval/seg/bird.png")).unwrap();
    let ran =
        scratch.run_with_stdin(&["cutout", "-", "-m", &model("segment/selfie"), "-o", "out.png"], &bytes);
    let ran = ran.expect(0);
    assert!(ran.stdout.is_empty(), "{ran:?}");
    let png = std::fs::read(scratch.path().join("out.png")).unwrap();
    // Colour type 6: RGB with alpha.
    assert_eq!((&png[1..4], png[25]), (&b"PNG"[..], 6));
    let ran =
        scratch.run(&["upscale", &shared("eval/seg/bird.png"), "-m", &model("upscale/carn_m_x2")]).expect(2);
    assert!(ran.stderr.contains("-o"), "{}", ran.stderr);
}

#[test]
fn an_undescribed_model_says_how_to_describe_it() {
    let scratch = Scratch::new();
    let from = shared("models/classify/squeezenet1.1/squeezenet1.1.onnx");
    std::fs::copy(from, scratch.path().join("net.onnx")).unwrap();
    let ran = scratch.run(&["classify", &shared("eval/seg/bird.png"), "-m", "./net.onnx"]).expect(2);
    assert!(
        ran.stderr.contains("model.toml") && ran.stderr.contains("image-classification"),
        "{}",
        ran.stderr
    );
}
