//! ONNX models through the engine's front door: the ONNX project's own cases, and real models.
#![allow(clippy::unwrap_used)]

use kun_engine::onnx::check::{Outcome, check};
use kun_engine::onnx::{OnnxOptions, OnnxPass, arrays, has_bf16};
use kun_engine::{Pass, PassModel};
use kun_tensor::{Tensor, Tensors};
use kun_testkit::golden;
use std::path::{Path, PathBuf};

fn shared() -> PathBuf {
    golden::shared().expect("these tests need ../shared beside the repository")
}

/// Cases that do not pass, each with the reason; `docs/onnx.md` lists them as well.
const KNOWN: [(&str, &str); 14] = [
    ("test_attention_3d_causal_bf16", "expected values carry NumPy's bf16 rounding of every step"),
    ("test_attention_3d_causal_bf16_expanded", "as above"),
    ("test_attention_4d_attn_mask_causal_bf16", "as above"),
    ("test_attention_4d_attn_mask_causal_bf16_expanded", "as above"),
    ("test_attention_4d_causal_bf16", "as above"),
    ("test_attention_4d_causal_bf16_expanded", "as above"),
    ("test_attention_4d_causal_fp16", "as above, f16"),
    ("test_attention_4d_causal_fp16_expanded", "as above, f16"),
    ("test_attention_4d_causal_padded_kv_bf16", "as above"),
    ("test_attention_4d_causal_padded_kv_bf16_expanded", "as above"),
    ("test_attention_4d_padded_kv_bf16", "as above"),
    ("test_attention_4d_padded_kv_bf16_expanded", "as above"),
    ("test_dft_inverse", "expected zeros carry NumPy's f32 rounding, 2e-7 against a tolerance of 1e-7"),
    ("test_dft_inverse_opset19", "as above"),
];

#[test]
fn passes_the_onnx_projects_cases() {
    passes(&OnnxOptions { threads: Some(1), ..OnnxOptions::default() });
}

#[test]
fn passes_the_onnx_projects_cases_by_plain_definitions() {
    passes(&OnnxOptions { plain: true, ..OnnxOptions::default() });
}

fn passes(options: &OnnxOptions) {
    let cases = check(&shared().join("onnx-node-tests"), options, |_| {}).unwrap();
    assert_eq!(cases.len(), 1884);
    let failed: Vec<(&str, &str)> = cases
        .iter()
        .filter_map(|case| match &case.outcome {
            Outcome::Failed(what) => Some((case.name.as_str(), what.as_str())),
            _ => None,
        })
        .collect();
    let passed = cases.iter().filter(|case| case.outcome == Outcome::Passed).count();
    let names: Vec<&str> = failed.iter().map(|(name, _)| *name).collect();
    assert!(names.iter().all(|name| KNOWN.iter().any(|(known, _)| known == name)), "{failed:#?}");
    assert!(passed * 100 >= (passed + failed.len()) * 97, "{passed} passed, {} failed", failed.len());
}

#[test]
fn the_page_lists_what_is_left_out_and_what_fails() {
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/onnx.md")).unwrap();
    for (operator, reason) in kun_engine::onnx::check::EXCLUDED {
        let name = operator.rsplit('.').next().unwrap();
        assert!(page.contains(&format!("`{name}`")) && page.contains(reason), "{operator}: {reason}");
    }
    for (name, _) in KNOWN {
        assert!(page.contains(name.trim_end_matches("_expanded")), "{name}");
    }
}

/// The picture or array of a model's `expected` folder as its input tensor, by the `[input]` of its `model.toml`.
fn input(folder: &Path, description: &toml::Table) -> (String, Tensor) {
    let input = description["input"].as_table().unwrap();
    let name = input["name"].as_str().unwrap().to_owned();
    if folder.join("expected/input.npy").is_file() {
        return (name, arrays::read(&folder.join("expected/input.npy")).unwrap());
    }
    let picture = image::open(folder.join("expected/input.png")).unwrap().to_rgb8();
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let list = |key: &str| -> Vec<f32> {
        input[key].as_array().unwrap().iter().map(|v| v.as_float().unwrap() as f32).collect()
    };
    let scale = input["scale"].as_float().unwrap() as f32;
    let (mean, deviation) = (list("mean"), list("std"));
    let bgr = input["color"].as_str() == Some("BGR");
    let pixel = |y: usize, x: usize, c: usize| {
        let raw = picture.get_pixel(x as u32, y as u32)[if bgr { 2 - c } else { c }];
        (f32::from(raw) * scale - mean[c]) / deviation[c]
    };
    let (mut values, planes) = (Vec::new(), input["layout"].as_str() == Some("NCHW"));
    if planes {
        for c in 0..3 {
            for y in 0..height {
                values.extend((0..width).map(|x| pixel(y, x, c)));
            }
        }
        return (name, Tensor::f32([1, 3, height, width], values).unwrap());
    }
    for y in 0..height {
        for x in 0..width {
            values.extend((0..3).map(|c| pixel(y, x, c)));
        }
    }
    (name, Tensor::f32([1, height, width, 3], values).unwrap())
}

/// Runs the model in `folder` on its picture and compares every output, thinned as the expected one is.
fn equals_its_expected_outputs(folder: &Path) {
    let text = std::fs::read_to_string(folder.join("model.toml")).unwrap();
    let description: toml::Table = text.parse().unwrap();
    let file = folder.join(description["file"].as_str().unwrap());
    let mut model = OnnxPass::open(&file, &OnnxOptions::default()).unwrap();
    let outputs = model.infer(&Tensors::from([input(folder, &description)])).unwrap();
    let text = std::fs::read_to_string(folder.join("expected/expected.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
    for output in expected["outputs"].as_array().unwrap() {
        let name = output["name"].as_str().unwrap();
        let shape: Vec<usize> =
            output["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as usize).collect();
        let actual = &outputs[name];
        assert_eq!(actual.shape(), shape, "{name}");
        let stride = output["stride"].as_u64().unwrap_or(1) as usize;
        let wanted = arrays::read(&folder.join("expected").join(output["file"].as_str().unwrap())).unwrap();
        let wanted = wanted.as_f32().unwrap();
        let actual: Vec<f32> = actual.as_f32().unwrap().iter().step_by(stride).copied().collect();
        assert_eq!(actual.len(), wanted.len());
        let rms = |values: &mut dyn Iterator<Item = f32>| {
            (values.map(|v| f64::from(v) * f64::from(v)).sum::<f64>() / wanted.len() as f64).sqrt()
        };
        let error = rms(&mut actual.iter().zip(wanted).map(|(a, w)| a - w));
        let size = rms(&mut wanted.iter().copied());
        assert!(error <= 1e-4 * size, "{}, output {name}: {error} of {size}", folder.display());
    }
}

#[test]
fn real_models_equal_their_expected_outputs() {
    let mut count = 0;
    for task in std::fs::read_dir(shared().join("models")).unwrap() {
        let task = task.unwrap().path();
        if !task.is_dir() {
            continue;
        }
        for model in std::fs::read_dir(task).unwrap() {
            let folder = model.unwrap().path();
            let is_onnx = std::fs::read_to_string(folder.join("model.toml"))
                .is_ok_and(|text| text.contains("format = \"onnx\""));
            if is_onnx {
                equals_its_expected_outputs(&folder);
                count += 1;
            }
        }
    }
    assert_eq!(count, 21);
}

#[test]
fn bf16_stays_near_f32() {
    for (model, file) in [("squeezenet1.1", "squeezenet1.1.onnx"), ("mobilenet_v2", "mobilenet_v2.onnx")] {
        let folder = shared().join("models/classify").join(model);
        let description: toml::Table =
            std::fs::read_to_string(folder.join("model.toml")).unwrap().parse().unwrap();
        let (name, picture) = input(&folder, &description);
        let [f32, bf16] = [false, true].map(|bf16| {
            let options = OnnxOptions { bf16, ..OnnxOptions::default() };
            let mut pass = OnnxPass::open(&folder.join(file), &options).unwrap();
            let outputs = pass.infer(&Tensors::from([(name.clone(), picture.clone())])).unwrap();
            outputs.into_values().next().unwrap().as_f32().unwrap().to_vec()
        });
        let top = |values: &[f32]| (0..values.len()).max_by(|a, b| values[*a].total_cmp(&values[*b]));
        assert_eq!(top(&bf16), top(&f32), "{model}");
        let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>().sqrt();
        let error = norm(&mut bf16.iter().zip(&f32).map(|(a, b)| a - b)) / norm(&mut f32.iter().copied());
        assert!(error < 0.03, "{model}: relative error {error}");
        // Equal bits would mean that nothing was computed in bf16.
        assert_eq!(error > 0.0, has_bf16(), "{model}");
    }
}

#[test]
fn items_without_a_batch_dimension_share_a_run() {
    let folder = shared().join("models/classify/squeezenet1.1");
    let description: toml::Table =
        std::fs::read_to_string(folder.join("model.toml")).unwrap().parse().unwrap();
    let (name, picture) = input(&folder, &description);
    let mut model = OnnxPass::open(&folder.join("squeezenet1.1.onnx"), &OnnxOptions::default()).unwrap();
    let whole = model.infer(&Tensors::from([(name.clone(), picture.clone())])).unwrap();
    assert!(model.max_batch() > 1 && model.budget() == model.max_batch());
    let item = Tensors::from([(name, picture.reshaped([3, 224, 224]).unwrap())]);
    let model = PassModel::start(model).unwrap();
    for result in model.infer(vec![item.clone(), item]) {
        let result = result.unwrap();
        let (name, logits) = result.first_key_value().unwrap();
        assert_eq!(logits.shape(), [1000]);
        assert_eq!(logits.as_f32(), whole[name].as_f32());
    }
}

#[test]
fn items_that_wait_are_run_side_by_side_with_the_same_answers() {
    let folder = shared().join("models/detect/yolox_nano");
    let description: toml::Table =
        std::fs::read_to_string(folder.join("model.toml")).unwrap().parse().unwrap();
    let (name, picture) = input(&folder, &description);
    let options = OnnxOptions { threads: Some(3), ..OnnxOptions::default() };
    let mut model = OnnxPass::open(&folder.join("yolox_nano.onnx"), &options).unwrap();
    let memory = model.memory();
    // Each has its own brightness, one in the middle another size.
    let whole = |i: usize| {
        let values = picture.as_f32().unwrap().iter().map(|v| v * (1.0 - i as f32 / 40.0)).collect();
        Tensor::f32(picture.shape(), values).unwrap()
    };
    let alone: Vec<Tensors> =
        (0..20).map(|i| model.infer(&Tensors::from([(name.clone(), whole(i))])).unwrap()).collect();
    assert_eq!(model.max_batch(), 1);
    let model = PassModel::start(model).unwrap();
    let item = |i: usize| Tensors::from([(name.clone(), whole(i).reshaped(&picture.shape()[1..]).unwrap())]);
    let one = model.infer(vec![item(0)]).pop().unwrap().unwrap();
    let before = memory.bytes();
    let mut items: Vec<Tensors> = (0..20).map(item).collect();
    items[9] = Tensors::from([(name.clone(), Tensor::f32([3, 8, 8], vec![0.0; 192]).unwrap())]);
    let answers = model.infer(items);
    model.infer(vec![item(0)]);
    assert!(memory.bytes() > before, "every thread has memory of its own");
    assert_eq!(answers.len(), 20);
    for (i, (answer, alone)) in answers.into_iter().zip(&alone).enumerate() {
        if i == 9 {
            assert!(answer.is_err());
            continue;
        }
        let answer = answer.unwrap();
        for (name, tensor) in alone {
            assert_eq!(answer[name].shape(), &tensor.shape()[1..]);
            assert_eq!(answer[name].as_f32(), tensor.as_f32(), "picture {i}");
        }
    }
    assert!(one.iter().all(|(name, tensor)| tensor.as_f32() == alone[0][name].as_f32()));
}

#[test]
fn wrong_inputs_are_told() {
    let file = shared().join("models/classify/cifar10-resnet8/cifar10-resnet8.onnx");
    let mut model = OnnxPass::open(&file, &OnnxOptions::default()).unwrap();
    let zeros = |shape: &[usize]| Tensor::f32(shape, vec![0.0; shape.iter().product()]).unwrap();
    for (name, shape) in [("image", &[1, 4, 32, 32][..]), ("picture", &[1, 3, 32, 32]), ("image", &[3])] {
        let inputs = Tensors::from([(name.to_owned(), zeros(shape))]);
        assert!(model.infer(&inputs).is_err(), "{name} {shape:?}");
    }
    assert!(model.infer(&Tensors::new()).is_err());
    let tight = OnnxOptions { max_memory_bytes: Some(400_000), ..OnnxOptions::default() };
    let mut model = OnnxPass::open(&file, &tight).unwrap();
    assert!(model.infer(&Tensors::from([("image".to_owned(), zeros(&[1, 3, 32, 32]))])).is_err());
}

#[test]
fn quantised_networks_answer_as_onnxruntime() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/quantized");
    let inputs: Tensors =
        [("x".to_owned(), arrays::read(&folder.join("x.npy")).unwrap())].into_iter().collect();
    // The scale of the last codes.
    let unit = 0.012_960_17;
    for name in ["network", "operators"] {
        let expected = arrays::read(&folder.join(format!("{name}.npy"))).unwrap();
        for plain in [false, true] {
            let options = OnnxOptions { plain, ..OnnxOptions::default() };
            let mut pass = OnnxPass::open(&folder.join(format!("{name}.onnx")), &options).unwrap();
            let outputs = pass.infer(&inputs).unwrap();
            let (_, actual) = outputs.iter().next().unwrap();
            let (actual, expected) = (actual.as_f32().unwrap(), expected.as_f32().unwrap());
            for (a, b) in actual.iter().zip(expected) {
                assert!((a - b).abs() < 1.5 * unit, "{name}, plain {plain}: {actual:?} for {expected:?}");
            }
        }
    }
}
