//! Names, the store, memory.

use crate::support::{Scratch, shared, stories};
use kun_testkit::gguf_writer::{GgufValue, GgufWriter};

#[test]
fn an_unknown_model_is_exit_code_3_with_a_hint() {
    let ran = Scratch::new().run(&["run", "no-such-model", "hi", "--offline"]).expect(3);
    assert!(ran.stderr.contains("no-such-model") && ran.stderr.contains("hint:"), "{}", ran.stderr);
    let ran = Scratch::new().run(&["run", "./missing.gguf", "hi"]).expect(3);
    assert!(ran.stderr.contains("missing.gguf"), "{}", ran.stderr);
}

#[test]
fn a_missing_part_of_a_model_is_exit_code_3_with_its_name() {
    let scratch = Scratch::new();
    let part = GgufWriter::new()
        .entry("split.no", GgufValue::U16(0))
        .entry("split.count", GgufValue::U16(2))
        .entry("split.tensors.count", GgufValue::I32(0));
    std::fs::write(scratch.path().join("m-00001-of-00002.gguf"), part.finish()).unwrap();
    let ran = scratch.run(&["run", "./m-00001-of-00002.gguf", "hi"]).expect(3);
    assert!(ran.stderr.contains("m-00002-of-00002.gguf") && ran.stderr.contains("hint:"), "{}", ran.stderr);
}

#[test]
fn a_model_that_is_not_here_cannot_be_had_offline() {
    let ran = Scratch::new().run(&["--offline", "hello"]);
    assert!(matches!(ran.code, Some(3 | 5)), "{ran:?}");
    assert!(ran.stderr.contains("smollm2") && ran.stdout.is_empty(), "{ran:?}");
}

#[test]
fn a_model_that_does_not_fit_is_exit_code_4_with_the_figures() {
    let ran = Scratch::new().run(&["run", &stories(), "hi", "--raw", "--max-memory", "64KiB"]).expect(4);
    assert!(ran.stderr.contains("65536") && ran.stderr.contains("hint:"), "{}", ran.stderr);
    let ran = Scratch::new().run(&["fit", &stories(), "--max-memory", "64KiB", "--json"]).expect(4);
    let fit = ran.json();
    assert_eq!((&fit["fits"], &fit["available_bytes"]), (&false.into(), &65_536.into()));
}

#[test]
fn fit_adds_up_and_show_describes() {
    let fit = Scratch::new().run(&["fit", &stories(), "--context", "256", "--json"]).expect(0).json();
    assert_eq!(fit["context_tokens"], 256);
    let bytes = |key: &str| fit[key].as_u64().unwrap();
    assert_eq!(bytes("needed_bytes"), bytes("weights_bytes") + bytes("kv_bytes") + bytes("workspace_bytes"));
    assert!(bytes("weights_bytes") >= 260_032 && bytes("available_bytes") > bytes("needed_bytes"), "{fit}");
    let plain = Scratch::new().run(&["fit", &stories()]).expect(0);
    assert!(plain.stdout.contains("verdict") && plain.stdout.contains("fits"), "{}", plain.stdout);

    for model in [stories(), shared("models/llm/stories260k/hf")] {
        let shown = Scratch::new().run(&["show", &model, "--json"]).expect(0).json();
        assert_eq!(
            [
                &shown["architecture"],
                &shown["layers"],
                &shown["heads"],
                &shown["kv_heads"],
                &shown["vocab_size"]
            ],
            [&serde_json::json!("llama"), &5.into(), &8.into(), &4.into(), &512.into()]
        );
    }
}

#[test]
fn encoders_and_encoder_decoders_are_described_too() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata");
    for (model, kind, longest) in [
        ("encoders/bert", "embeds", 48),
        ("encoders/bert_sequence", "classifies", 48),
        ("encoders/bert_tokens", "extracts", 48),
        ("encoders/bert_span", "answers", 48),
        ("encoders/qwen3_reranker", "ranks", 2048),
        ("encoders/gguf/qwen3_embedding.gguf", "embeds", 48),
        ("seq2seq/marian", "rewrites", 64),
        ("seq2seq/t5", "rewrites", 1024),
    ] {
        let path = format!("{root}/{model}");
        let fit = Scratch::new().run(&["fit", &path, "--json"]).expect(0).json();
        assert_eq!((&fit["kind"], &fit["fits"]), (&kind.into(), &true.into()), "{model}");
        assert_eq!(fit["max_context_tokens"], longest, "{model}");
        let bytes = |key: &str| fit[key].as_u64().unwrap();
        assert_eq!(
            bytes("needed_bytes"),
            bytes("weights_bytes") + bytes("kv_bytes") + bytes("workspace_bytes")
        );
        assert_eq!(Scratch::new().run(&["show", &path, "--json"]).expect(0).json()["kind"], kind, "{model}");
        let plain = Scratch::new().run(&["fit", &path]).expect(0).stdout;
        assert!(plain.contains("the longest text"), "{plain}");
        Scratch::new().run(&["fit", &path, "--max-memory", "1KiB"]).expect(4);
    }
}

#[test]
fn files_that_are_no_model_are_misuse() {
    let scratch = Scratch::new();
    scratch.write("bad.gguf", "GGUF and then nothing of sense");
    scratch.write("empty.gguf", "");
    scratch.write("folder/config.json", "{}");
    for file in ["./bad.gguf", "./empty.gguf", "./folder"] {
        let ran = scratch.run(&["run", file, "hi"]).expect(2);
        assert!(ran.stderr.starts_with("error: ") && ran.stdout.is_empty(), "{file}: {ran:?}");
    }
}

#[test]
fn show_knows_picture_models_and_those_not_here() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata");
    let clip = Scratch::new().run(&["show", &format!("{root}/clip"), "--json"]).expect(0).json();
    let networks = clip["networks"].as_array().unwrap();
    assert_eq!(networks.len(), 2, "{clip}");
    for network in networks {
        assert!(
            network["parameters"].as_u64().unwrap() > 0 && network["opset"].as_i64().unwrap() > 6,
            "{network}"
        );
    }
    let style = Scratch::new().run(&["show", &shared("models/style/candy")]).expect(0).stdout;
    assert!(style.contains("candy.onnx") && style.contains("1.7 M"), "{style}");

    let known = Scratch::new().run(&["show", "movenet", "--json"]).expect(0).json();
    assert_eq!(
        [&known["name"], &known["task"], &known["license"], &known["path"]],
        [
            &serde_json::json!("movenet-lightning"),
            &"pose".into(),
            &"Apache-2.0".into(),
            &serde_json::Value::Null
        ]
    );
    let plain = Scratch::new().run(&["show", "movenet"]).expect(0).stdout;
    assert!(plain.contains("9.0 MiB") && plain.contains("kun pull movenet-lightning"), "{plain}");
}

#[test]
fn an_empty_store_lists_nothing() {
    let scratch = Scratch::new();
    assert_eq!(scratch.run(&["ls", "--json"]).expect(0).json(), serde_json::json!([]));
    let ran = scratch.run(&["ls"]).expect(0);
    assert!(ran.stdout.is_empty() && ran.stderr.contains("kun pull"), "{ran:?}");
    scratch.run(&["verify", "--json"]).expect(0);
    scratch.run(&["rm", "no-such-model"]).expect(3);
    scratch.run(&["show", "no-such-model"]).expect(3);
}

#[test]
fn bench_measures_onnx_models_of_every_batch() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/clip/onnx/vision_model.onnx");
    let bench = ["bench", model, "-t", "1", "--no-limits", "-r", "1", "--batch", "1,2"];
    let ran = Scratch::new().run(&[&bench[..], &["--json"]].concat()).expect(0).json();
    assert_eq!((&ran["threads"], &ran["precision"]), (&1.into(), &"f32".into()), "{ran}");
    let shapes: Vec<_> =
        ran["rows"].as_array().unwrap().iter().map(|row| row["shapes"][0][0].clone()).collect();
    assert_eq!(shapes, [1, 2]);
    let ran = Scratch::new().run(&bench).expect(0);
    assert!(ran.stdout.contains("batch 2") && ran.stdout.contains("GFLOP/s"), "{}", ran.stdout);
    let ran = Scratch::new().run(&["bench", &stories(), "--precision", "bf16"]).expect(2);
    assert!(ran.stderr.contains("--precision"), "{}", ran.stderr);
}

#[test]
fn bench_measures_the_engine_on_pictures_beside_the_network() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/clip/onnx/vision_model.onnx");
    let pictures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/clip");
    let bench = ["bench", model, "--images", pictures, "-t", "1", "-r", "1"];
    let ran = Scratch::new().run(&[&bench[..], &["--json"]].concat()).expect(0).json();
    assert_eq!((&ran["time"]["pictures"], &ran["time"]["failed"]), (&1.into(), &0.into()), "{ran}");
    assert_eq!(ran["verb"], "embed", "{ran}");
    assert!(ran["share_of_network"].as_f64().is_some_and(|share| share > 0.0), "{ran}");
    let ran = Scratch::new().run(&bench).expect(0);
    assert!(ran.stdout.contains("network alone"), "{}", ran.stdout);
    Scratch::new().run(&["bench", model, "--images", "no-such-folder/*.png"]).expect(2);
    Scratch::new().run(&["bench", &stories(), "--images", pictures]).expect(2);
}
