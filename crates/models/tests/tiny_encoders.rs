//! Tiny random-weight encoders of every architecture and head against the outputs of transformers.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use kun_formats::ModelFiles;
use kun_graph::{
    Backend, CompileOptions, CpuBackend, Inputs, KvOptions, Outputs, Program, ReferenceBackend, Sequence,
    TensorRef,
};
use kun_models::encoder::{self, Encoder, EncoderOptions, Head, Judge, Pooling};
use kun_tensor::DType;
use kun_tensor::storage::Access;
use kun_testkit::{Tolerance, golden};
use std::sync::Arc;

const MODELS: &[&str] = &[
    "bert",
    "bert_sequence",
    "bert_tokens",
    "bert_span",
    "roberta_sequence",
    "xlm_roberta_tokens",
    "distilbert_sequence",
    "distilbert_span",
    "mpnet",
    "mpnet_sequence",
    "electra_sequence",
    "electra_tokens",
    "albert_sequence",
    "modernbert",
    "modernbert_sequence",
    "modernbert_tokens",
    "nomic_bert",
    "gte_sequence",
    "jina_v3",
    "deberta_v3_sequence",
    "deberta_v2_tokens",
    "qwen3_embedding",
    "mistral_embedding",
    "qwen3_sequence",
    "mistral_sequence",
    "qwen3_logit_score",
    "jina_v2",
    "sentence_cls",
    "sentence_mean",
    "sentence_max",
    "sentence_mean_sqrt_len_tokens",
    "sentence_weightedmean",
    "sentence_lasttoken",
];

/// Those of which `tools/golden/tiny_gguf_encoders.py` makes GGUF files.
const GGUF: &[&str] = &[
    "bert",
    "sentence_cls",
    "roberta_sequence",
    "nomic_bert",
    "jina_v2",
    "jina_v3",
    "modernbert",
    "qwen3_embedding",
    "qwen3_logit_score",
    "qwen3_sequence",
];

/// What `tools/golden/tiny_encoders.py` writes for one text.
#[derive(serde::Deserialize)]
struct Text {
    ids: Vec<i32>,
    types: Vec<i32>,
    output: Vec<f32>,
}

fn load(name: &str, options: &EncoderOptions) -> Encoder {
    load_path(&golden::testdata().join("encoders").join(name), options)
}

fn load_path(path: &std::path::Path, options: &EncoderOptions) -> Encoder {
    let name = path.display();
    let files = kun_formats::open(path, Access::Mapped).unwrap_or_else(|error| panic!("{name}: {error:?}"));
    encoder::load(Arc::new(files), options).unwrap_or_else(|error| panic!("{name}: {error:?}"))
}

fn texts(name: &str) -> Vec<Text> {
    golden::json(&golden::testdata().join("encoders").join(name).join("golden.json"))
}

/// Outputs of all texts in one batch, in their order.
fn run<B: Backend>(backend: &B, model: &Encoder, texts: &[Text]) -> Vec<f32> {
    let options = CompileOptions {
        max_tokens: 256,
        max_rows: 16,
        max_sequences: 16,
        threads: 2,
        kv: KvOptions::default(),
    };
    let mut program = backend
        .compile(&model.graph, model.weights.as_ref(), &options)
        .unwrap_or_else(|error| panic!("{error:?}"));
    let (mut tokens, mut types, mut positions, mut rows) = (vec![], vec![], vec![], vec![]);
    let mut sequences = Vec::new();
    for text in texts {
        let first = i32::try_from(model.info.first_position).unwrap();
        positions.extend((first..).take(text.ids.len()));
        let row = if model.info.row == Some(Pooling::Last) { text.ids.len() - 1 } else { 0 };
        rows.push(i32::try_from(tokens.len() + row).unwrap());
        tokens.extend(&text.ids);
        types.extend(&text.types);
        sequences.push(Sequence { start: 0, tokens: text.ids.len(), pages: &[] });
    }
    let (token_shape, row_shape) = ([tokens.len()], [rows.len()]);
    let all = [
        ("tokens", TensorRef::I32(&tokens, &token_shape)),
        ("positions", TensorRef::I32(&positions, &token_shape)),
        ("types", TensorRef::I32(&types, &token_shape)),
        ("rows", TensorRef::I32(&rows, &row_shape)),
    ];
    let reads = |wanted: &str| {
        model.graph.inputs.iter().any(|&id| model.graph.value(id).name.as_deref() == Some(wanted))
    };
    let tensors = all.into_iter().filter(|(name, _)| reads(name)).collect();
    let mut outputs = Outputs::default();
    program
        .run(&Inputs { tensors, sequences: &sequences }, &mut outputs)
        .unwrap_or_else(|error| panic!("{error:?}"));
    let (_, output) = outputs.tensors.into_iter().next().unwrap();
    assert_eq!(output.shape[1], model.info.output_width);
    output.data
}

fn check(backend: &impl Backend, options: &EncoderOptions, tolerance: Tolerance) {
    for name in MODELS {
        let (model, texts) = (load(name, options), texts(name));
        let expected: Vec<f32> = texts.iter().flat_map(|text| text.output.iter().copied()).collect();
        tolerance.assert(name, &run(backend, &model, &texts), &expected);
    }
}

#[test]
fn reference_outputs_match_transformers() {
    check(&ReferenceBackend, &EncoderOptions::default(), Tolerance::AbsoluteMax(2e-5));
}

#[test]
fn compiled_outputs_match_transformers() {
    check(&CpuBackend::new(2).unwrap(), &EncoderOptions::default(), Tolerance::AbsoluteMax(1e-4));
}

#[test]
fn gguf_files_give_what_the_folders_give() {
    for name in GGUF {
        let path = golden::testdata().join(format!("encoders/gguf/{name}.gguf"));
        let model = load_path(&path, &EncoderOptions::default());
        // llama.cpp reads every token as one of the first text; so do we, unless told otherwise.
        let texts = texts(name);
        let expected: Vec<f32> = texts.iter().flat_map(|text| text.output.iter().copied()).collect();
        Tolerance::AbsoluteMax(2e-5).assert(name, &run(&ReferenceBackend, &model, &texts), &expected);
        Tolerance::AbsoluteMax(1e-4).assert(
            name,
            &run(&CpuBackend::new(2).unwrap(), &model, &texts),
            &expected,
        );
    }
}

#[test]
fn a_decoder_judges_by_the_tokens_that_it_is_told() {
    let folder = golden::testdata().join("encoders/qwen3_reranker");
    let files = || Arc::new(kun_formats::open(&folder, Access::Mapped).unwrap());
    assert!(encoder::load(files(), &EncoderOptions::default()).is_err());
    let judge = |yes, no| EncoderOptions { judge: Some(Judge { yes, no }), ..EncoderOptions::default() };
    let model = encoder::load(files(), &judge(257, Some(258))).unwrap();
    assert_eq!((model.info.head, model.info.instructed), (Head::Sequence { labels: 1 }, true));
    // Tokens that the model has not.
    assert!(encoder::load(files(), &judge(100_000, None)).is_err());
    assert!(encoder::load(files(), &judge(u32::MAX, Some(u32::MAX))).is_err());
}

#[test]
fn bf16_stays_near() {
    let options = EncoderOptions { precision: Some(DType::BF16), ..EncoderOptions::default() };
    check(&CpuBackend::new(2).unwrap(), &options, Tolerance::Cosine(0.999));
}

#[test]
fn a_classifier_without_its_head_embeds() {
    let model = load("bert_sequence", &EncoderOptions { without_head: true, ..EncoderOptions::default() });
    assert_eq!((model.info.output_width, model.info.labels.len()), (16, 0));
}

#[test]
fn labels_and_limits_are_read() {
    let model = load("bert_sequence", &EncoderOptions::default());
    assert_eq!(model.info.labels, ["LABEL_0", "LABEL_1", "LABEL_2"]);
    assert_eq!((model.info.max_tokens, model.info.token_types), (48, 2));
    let model = load("roberta_sequence", &EncoderOptions::default());
    assert_eq!((model.info.max_tokens, model.info.first_position), (46, 2));
}

/// Every setting of every configuration replaced by values of the wrong kind or size: an answer or an error, never a
/// panic, and nothing large allocated on the way.
#[test]
fn hostile_settings_are_errors() {
    let hostile = [
        serde_json::json!(null),
        serde_json::json!(-1),
        serde_json::json!(0),
        serde_json::json!(1),
        serde_json::json!(3),
        serde_json::json!(u64::MAX),
        serde_json::json!(1e300),
        serde_json::json!("x"),
        serde_json::json!([]),
        serde_json::json!([[[]]]),
        serde_json::json!({}),
        serde_json::json!(true),
    ];
    let mut refused = 0;
    for name in MODELS {
        let folder = golden::testdata().join("encoders").join(name);
        let open = || kun_formats::open(&folder, Access::Mapped).unwrap();
        let keys: Vec<String> = match open() {
            ModelFiles::HuggingFace { config, .. } => {
                config.config.as_object().unwrap().keys().cloned().collect()
            }
            ModelFiles::Gguf(_) => unreachable!("these are folders"),
        };
        for key in keys {
            for value in &hostile {
                let mut files = open();
                if let ModelFiles::HuggingFace { config, .. } = &mut files {
                    config.config[&key] = value.clone();
                }
                refused += usize::from(encoder::load(Arc::new(files), &EncoderOptions::default()).is_err());
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}

#[test]
fn spare_and_missing_tensors_are_named() {
    let folder = golden::testdata().join("encoders/bert_sequence");
    let with = |change: &dyn Fn(&mut kun_formats::TensorTable)| {
        let mut files = kun_formats::open(&folder, Access::Mapped).unwrap();
        if let ModelFiles::HuggingFace { tensors, .. } = &mut files {
            change(tensors);
        }
        encoder::load(Arc::new(files), &EncoderOptions::default()).err().map(|error| error.to_string())
    };
    assert_eq!(with(&|_| {}), None);
    let spare = with(&|tensors| {
        let info = tensors.tensors["classifier.bias"].clone();
        tensors.tensors.insert("bert.encoder.layer.0.adapter.weight".to_owned(), info);
    });
    assert!(spare.unwrap().contains("adapter"));
    let missing = with(&|tensors| drop(tensors.tensors.remove("bert.pooler.dense.bias")));
    assert!(missing.unwrap().contains("bert.pooler.dense.bias"));
}
