//! Tiny random-weight encoder-decoders against the states and logits of transformers.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use kun_graph::{
    Backend, CompileOptions, CpuBackend, Inputs, KvOptions, KvType, Outputs, PAGE_TOKENS, Program,
    ReferenceBackend, Sequence, TensorRef,
};
use kun_models::seq2seq::{Seq2Seq, Seq2SeqOptions, load};
use kun_tensor::DType;
use kun_tensor::storage::Access;
use kun_testkit::{Tolerance, golden};
use std::sync::Arc;

/// What `tools/golden/tiny_seq2seq.py` writes.
#[derive(serde::Deserialize)]
struct Golden {
    encoder: EncoderGolden,
    decoder: DecoderGolden,
}

#[derive(serde::Deserialize)]
struct EncoderGolden {
    source: Vec<i32>,
    states: Vec<Vec<f32>>,
}

#[derive(serde::Deserialize)]
struct DecoderGolden {
    tokens: Vec<i32>,
    rows: Vec<usize>,
    logits: Vec<Vec<f32>>,
}

/// A folder, or `gguf/NAME.gguf`.
fn model(name: &str) -> Seq2Seq {
    let path = golden::testdata().join("seq2seq").join(name);
    let files = kun_formats::open(&path, Access::Mapped).unwrap_or_else(|e| panic!("{name}: {e:?}"));
    let options = Seq2SeqOptions { quantize: Some(DType::F32), max_source_tokens: None };
    load(Arc::new(files), &options).unwrap_or_else(|e| panic!("{name}: {e:?}"))
}

fn options(tokens: usize) -> CompileOptions {
    let kv = KvOptions { dtype: KvType::F32, pages: 4 };
    CompileOptions { max_tokens: tokens, max_rows: tokens, max_sequences: 2, threads: 2, kv }
}

fn indices(range: std::ops::Range<usize>) -> Vec<i32> {
    range.map(|i| i32::try_from(i).unwrap()).collect()
}

/// Everything that the encoder gives for a source, read twice in one batch; the second part.
fn encode<B: Backend>(backend: &B, model: &Seq2Seq, source: &[i32]) -> Vec<(String, Vec<f32>)> {
    let n = source.len();
    let mut program = backend.compile(&model.encoder, model.weights.as_ref(), &options(2 * n)).unwrap();
    let tokens = [source, source].concat();
    let first = model.info.first_position;
    let positions = indices(first.unwrap_or(0)..first.unwrap_or(0) + n);
    let (positions, shape) = ([positions.clone(), positions].concat(), [2 * n]);
    let mut tensors = vec![("tokens", TensorRef::I32(&tokens, &shape))];
    tensors.extend(first.map(|_| ("positions", TensorRef::I32(&positions, &shape))));
    let sequence = Sequence { start: 0, tokens: n, pages: &[] };
    let mut outputs = Outputs::default();
    program.run(&Inputs { tensors, sequences: &[sequence; 2] }, &mut outputs).unwrap();
    let outputs = outputs.tensors.into_iter();
    outputs.map(|(name, tensor)| (name, tensor.data[tensor.data.len() / 2..].to_vec())).collect()
}

fn check(backend: &impl Backend, tolerance: Tolerance) {
    for name in golden::SEQ2SEQ {
        let model = model(name);
        let beside = name.strip_suffix(".gguf").map(|name| format!("{name}.json"));
        let file = beside.unwrap_or_else(|| format!("{name}/golden.json"));
        let Golden { encoder, decoder } = golden::json(&golden::testdata().join("seq2seq").join(file));
        let sources = encode(backend, &model, &encoder.source);
        let (_, states) = sources.iter().find(|(name, _)| name == "states").unwrap();
        tolerance.assert(&format!("{name} states"), states, &encoder.states.concat());

        let count = decoder.tokens.len();
        let mut program = backend.compile(&model.decoder, model.weights.as_ref(), &options(count)).unwrap();
        let n = encoder.source.len();
        let shape = [n, model.info.source_width];
        for chunks in [vec![count], vec![1; count], vec![2, count - 2]] {
            let (mut start, mut page) = (0, 0u32);
            for chunk in chunks {
                let end = start + chunk;
                let kept: Vec<usize> =
                    (0..decoder.rows.len()).filter(|i| (start..end).contains(&decoder.rows[*i])).collect();
                let rows: Vec<i32> =
                    kept.iter().map(|i| i32::try_from(decoder.rows[*i] - start).unwrap()).collect();
                let first = model.info.first_position;
                let positions = indices(first.unwrap_or(0) + start..first.unwrap_or(0) + end);
                let spans = [0, i32::try_from(n).unwrap()].repeat(chunk);
                let (token_shape, row_shape, span_shape) = ([chunk], [rows.len()], [chunk, 2]);
                let mut tensors = vec![
                    ("tokens", TensorRef::I32(&decoder.tokens[start..end], &token_shape)),
                    ("rows", TensorRef::I32(&rows, &row_shape)),
                    ("spans", TensorRef::I32(&spans, &span_shape)),
                ];
                tensors.extend(first.map(|_| ("positions", TensorRef::I32(&positions, &token_shape))));
                let cross = sources.iter().filter(|(name, _)| name != "states");
                tensors.extend(cross.map(|(name, data)| (name.as_str(), TensorRef::F32(data, &shape))));
                assert!(end <= PAGE_TOKENS);
                let sequence = Sequence { start, tokens: chunk, pages: &[page] };
                let mut outputs = Outputs::default();
                program.run(&Inputs { tensors, sequences: &[sequence] }, &mut outputs).unwrap();
                let expected: Vec<f32> = kept.iter().flat_map(|i| decoder.logits[*i].clone()).collect();
                let label = format!("{name} tokens {start}..{end}");
                tolerance.assert(&label, &outputs.tensors["logits"].data, &expected);
                // Another continuation could part here.
                program.copy_page(page, (page + 1) % 4).unwrap();
                page = (page + 1) % 4;
                start = end;
            }
        }
    }
}

#[test]
fn reference_matches_transformers() {
    check(&ReferenceBackend, Tolerance::AbsoluteMax(3e-5));
}

#[test]
fn cpu_matches_transformers() {
    check(&CpuBackend::new(2).unwrap(), Tolerance::AbsoluteMax(1e-4));
}
