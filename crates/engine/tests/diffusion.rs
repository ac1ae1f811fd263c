//! A tiny Stable Diffusion against diffusers (`tools/golden/diffusion.py`).
#![allow(clippy::unwrap_used)]

use kun_engine::onnx::arrays;
use kun_engine::tasks::pixels::{DecodeLimits, Image, decode};
use kun_engine::vision::Stage;
use kun_engine::{DiffusionModel, DrawRequest, EngineError, VisionOptions};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/diffusion")
}

fn copied(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copied(&path, &target),
            false => assert!(std::fs::copy(&path, &target).is_ok()),
        }
    }
}

/// A copy of the tiny model that a test may change.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("kun-diffusion-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        copied(&data().join("tiny"), &folder);
        Folder(folder)
    }

    fn with_unet(self, name: &str) -> Folder {
        copied(&data().join(name), &self.0);
        self
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.0.join(file), text).unwrap();
    }

    fn open(&self) -> Result<DiffusionModel, EngineError> {
        DiffusionModel::open(&self.0, &VisionOptions { threads: Some(2), ..VisionOptions::default() })
    }

    fn refusal(&self) -> String {
        self.open().unwrap_err().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn picture(name: &str) -> Arc<Image> {
    let bytes = std::fs::read(data().join(name)).unwrap();
    Arc::new(decode(&bytes, DecodeLimits::default()).unwrap().image)
}

/// As `pattern` in the script.
fn pattern(draw: usize, count: usize) -> Vec<f32> {
    let at = |i: usize| (1.4 * (12.9898 * i as f64 + 78.233 * (draw + 1) as f64).sin()) as f32;
    (1..=count).map(at).collect()
}

fn request() -> DrawRequest {
    DrawRequest {
        prompt: "a photo of a fox and the dog".to_owned(),
        negative: "cats".to_owned(),
        width: Some(64),
        height: Some(32),
        steps: Some(3),
        seed: 7,
        ..DrawRequest::default()
    }
}

#[test]
fn pictures_are_those_of_diffusers() {
    let golden: Value = serde_json::from_slice(&std::fs::read(data().join("golden.json")).unwrap()).unwrap();
    for run in golden["runs"].as_array().unwrap() {
        let name = run["name"].as_str().unwrap();
        let folder = match name {
            "guided" => Folder::new().with_unet("tiny_guided"),
            "inpaint9" => Folder::new().with_unet("tiny_inpaint"),
            _ => Folder::new(),
        };
        folder.write("scheduler/scheduler_config.json", &run["scheduler"].to_string());
        let model = folder.open().unwrap();
        let strength = run["strength"].as_f64().map(|v| v as f32);
        let request = DrawRequest {
            prompt: golden["prompt"].as_str().unwrap().to_owned(),
            negative: golden["negative"].as_str().unwrap().to_owned(),
            steps: run["steps"].as_u64().map(|n| n as usize),
            guidance: run["guidance"].as_f64().map(|v| v as f32),
            picture: strength.map(|_| picture("picture.png")),
            mask: name.starts_with("inpaint").then(|| picture("mask.png")),
            strength,
            ..request()
        };
        let mut draw = 0;
        let mut noise = |count: usize| {
            draw += 1;
            pattern(draw - 1, count)
        };
        let drawn = model.draw_from(&request, &mut noise, &mut |_, _| true).unwrap();
        let wanted = arrays::read(&data().join(format!("{name}.npy"))).unwrap();
        assert_eq!(wanted.shape(), [3, drawn.height, drawn.width]);
        let apart =
            drawn.values.iter().zip(wanted.as_f32().unwrap()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-3, "{name}: {apart} off");
    }
}

#[test]
fn a_seed_gives_its_picture_again_at_any_number_of_threads() {
    let open = |threads| {
        let options = VisionOptions { threads: Some(threads), ..VisionOptions::default() };
        DiffusionModel::open(&data().join("tiny"), &options).unwrap()
    };
    let (one, three) = (open(1), open(3));
    let draw = |model: &DiffusionModel, seed| {
        model.draw(&DrawRequest { seed, ..request() }, &mut |_, _| true).unwrap().to_rgb8()
    };
    let first = draw(&one, 7);
    assert_eq!(first.len(), 64 * 32 * 3);
    assert!(first == draw(&three, 7) && first == draw(&one, 7));
    assert!(first != draw(&one, 8));
    assert!(one.memory_bytes() > 300_000);
}

#[test]
fn partial_pictures_change_nothing_and_near_the_picture() {
    let golden: Value = serde_json::from_slice(&std::fs::read(data().join("golden.json")).unwrap()).unwrap();
    let apart = |a: &Image, b: &Image| -> u64 {
        a.to_rgb8().iter().zip(b.to_rgb8()).map(|(a, b)| u64::from(a.abs_diff(b))).sum()
    };
    for run in golden["runs"].as_array().unwrap() {
        let folder = Folder::new();
        folder.write("scheduler/scheduler_config.json", &run["scheduler"].to_string());
        let model = folder.open().unwrap();
        for masked in [false, true] {
            let request = DrawRequest {
                steps: Some(12),
                picture: masked.then(|| picture("picture.png")),
                mask: masked.then(|| picture("mask.png")),
                ..request()
            };
            let plan = model.plan(&request).unwrap();
            let (mut partial, mut passes) = (Vec::new(), Vec::new());
            let drawn = model.draw_in_stages(&request, 3, &mut |stage| {
                match stage {
                    Stage::Passes { done, all } => passes.push((done, all)),
                    Stage::Partial(image) => partial.push(image),
                }
                true
            });
            let drawn = drawn.unwrap();
            let plain = model.draw(&request, &mut |_, _| true).unwrap();
            assert!(plain.to_rgb8() == drawn.to_rgb8(), "{run}");
            assert_eq!(passes.len(), plan.passes + 2);
            assert_eq!(partial.len(), 3);
            assert_eq!((partial[0].width(), partial[0].height()), (plan.width, plan.height));
            let first = apart(&partial[0], &drawn);
            assert!(apart(&partial[2], &drawn) < first, "{run}: the last one is no nearer than {first}");
        }
    }
    let mut stages = 0;
    let left = Folder::new().open().unwrap().draw_in_stages(&request(), 1, &mut |stage| {
        stages += 1;
        matches!(stage, Stage::Passes { .. })
    });
    assert!(matches!(left, Err(EngineError::Cancelled)));
    assert_eq!(stages, 3, "two passes begin before the partial picture, which ends the work");
}

#[test]
fn what_cannot_be_drawn_is_refused_before_anything_runs() {
    let folder = Folder::new();
    let model = folder.open().unwrap();
    let refusal = |request: DrawRequest| {
        model.draw(&request, &mut |_, _| panic!("a pass was run")).unwrap_err().to_string()
    };
    for (request, wanted) in [
        (DrawRequest { width: Some(65), ..request() }, "no multiple of 16, as 64 and 80 are"),
        (DrawRequest { width: Some(0), ..request() }, "from 16 to 4096"),
        (DrawRequest { height: Some(1 << 40), ..request() }, "from 16 to 4096"),
        (DrawRequest { steps: Some(0), ..request() }, "from 1 to 1000"),
        (DrawRequest { steps: Some(1001), ..request() }, "from 1 to 1000"),
        (DrawRequest { guidance: Some(f32::NAN), ..request() }, "from 0 to 100"),
        (DrawRequest { prompt: "cat ".repeat(90), ..request() }, "92 tokens, the context holds 77"),
        (DrawRequest { negative: "cat ".repeat(90), ..request() }, "92 tokens"),
        (DrawRequest { mask: Some(picture("mask.png")), ..request() }, "needs the picture"),
        (
            DrawRequest { picture: Some(picture("picture.png")), strength: Some(0.1), ..request() },
            "leaves none to take",
        ),
        (
            DrawRequest { picture: Some(picture("picture.png")), strength: Some(2.0), ..request() },
            "from 0 to 1",
        ),
    ] {
        let found = refusal(request);
        assert!(found.contains(wanted), "{found}");
    }
    let long = DrawRequest { prompt: "cat ".repeat(90), truncate: true, ..request() };
    assert!(model.plan(&long).is_ok());
    let mut passes = 0;
    let cancelled = model.draw(&request(), &mut |_, _| {
        passes += 1;
        passes < 3
    });
    assert!(matches!(cancelled, Err(EngineError::Cancelled)) && passes == 3);
    std::fs::remove_dir_all(folder.0.join("vae_encoder")).unwrap();
    let model = folder.open().unwrap();
    let change = DrawRequest { picture: Some(picture("picture.png")), ..request() };
    assert!(matches!(model.plan(&change), Err(EngineError::Unsuitable { .. })));
    let filler = Folder::new().with_unet("tiny_inpaint").open().unwrap();
    assert!(matches!(filler.plan(&request()), Err(EngineError::Unsuitable { .. })));
}

#[test]
fn memory_is_stated_and_refused_where_it_does_not_fit() {
    let open = |bytes| {
        let options = VisionOptions { max_memory_bytes: Some(bytes), ..VisionOptions::default() };
        DiffusionModel::open(&data().join("tiny"), &options)
    };
    assert!(matches!(open(100_000), Err(EngineError::DoesNotFit { .. })));
    let plan = open(1 << 30).unwrap().plan(&request()).unwrap();
    assert!(plan.workspace_bytes > 10_000 && plan.weights_bytes > 300_000, "{plan:?}");
    let tight = open(plan.weights_bytes + plan.workspace_bytes / 2).unwrap();
    assert!(matches!(tight.plan(&request()), Err(EngineError::DoesNotFit { .. })));
}

#[test]
fn hostile_folders_are_refused_with_the_reason() {
    let folder = Folder::new();
    std::fs::remove_file(folder.0.join("unet/model.onnx")).unwrap();
    let found = folder.refusal();
    assert!(found.contains("unet/model.onnx") && found.contains("optimum-cli"), "{found}");
    for (file, text, wanted) in [
        ("model_index.json", r#"{"_class_name": "FluxPipeline"}"#, "FluxPipeline"),
        ("model_index.json", "[", "model_index.json"),
        ("scheduler/scheduler_config.json", r#"{"_class_name": "HeunDiscreteScheduler"}"#, "PNDMScheduler"),
        ("scheduler/scheduler_config.json", "{", "scheduler_config.json"),
        ("unet/config.json", r#"{"sample_size": 1e300}"#, "sample_size"),
        ("unet/config.json", r#"{"block_out_channels": [1,1,1,1,1,1,1,1,1]}"#, "9 entries"),
        ("vae_decoder/config.json", r#"{"scaling_factor": 0}"#, "scaling_factor"),
        ("vae_decoder/config.json", r#"{"latent_channels": 99999999999}"#, "latent_channels"),
        ("text_encoder/config.json", r#"{"max_position_embeddings": 1}"#, "max_position_embeddings"),
        ("tokenizer/vocab.json", "{}", "<|startoftext|>"),
        ("tokenizer/special_tokens_map.json", r#"{"pad_token": "nothing"}"#, "nothing"),
        ("unet/model.onnx", "no graph", ""),
    ] {
        let folder = Folder::new();
        folder.write(file, text);
        let found = folder.refusal();
        assert!(found.contains(wanted), "{file}: {found}");
    }
    // Networks that do not belong together end in errors, not in panics.
    for (file, config) in [
        ("unet/config.json", json!({ "sample_size": 8, "in_channels": 4, "cross_attention_dim": 16 })),
        ("vae_decoder/config.json", json!({ "block_out_channels": [4, 8], "latent_channels": 4 })),
        ("text_encoder/config.json", json!({ "max_position_embeddings": 200 })),
    ] {
        let folder = Folder::new();
        folder.write(file, &config.to_string());
        if let Ok(model) = folder.open() {
            let _ = model.draw(&DrawRequest { width: None, height: None, ..request() }, &mut |_, _| true);
        }
    }
    let nan = Folder::new();
    nan.write("vae_decoder/config.json", r#"{"block_out_channels": [4,4,8,8], "scaling_factor": 1e-6}"#);
    let _ = nan.open().unwrap().draw(&request(), &mut |_, _| true);
}
