//! Operators that make values from little.

use super::call::Call;
use kun_graph::TensorOp;
use kun_graph::ops::generate::{Distribution, WindowKind};
use kun_graph::ops::{Random, Window};
use kun_tensor::{DType, Tensor};
use std::sync::Arc;

pub(super) fn import(call: &mut Call<'_, '_>) -> Result<bool, String> {
    match call.proto.op_type.as_str() {
        "Constant" => {
            let value = constant(call)?;
            call.finish(TensorOp::Constant(Arc::new(value)), Vec::new())
        }
        "ConstantOfShape" => {
            let value = call.tensor("value", call.importer.file)?;
            let value = value.unwrap_or_else(|| Tensor::scalar(0.0f32));
            call.same(TensorOp::ConstantOfShape(Arc::new(value)))
        }
        "Range" => call.same(TensorOp::Range),
        "EyeLike" => {
            let (dtype, k) = (call.dtype("dtype")?, call.int_or("k", 0));
            call.same(TensorOp::EyeLike { dtype, k })
        }
        name @ ("RandomNormal" | "RandomNormalLike" | "RandomUniform" | "RandomUniformLike" | "Bernoulli"
        | "Multinomial") => {
            let random = random(call, name)?;
            call.same(TensorOp::Random(random))
        }
        name @ ("HannWindow" | "HammingWindow" | "BlackmanWindow") => {
            let window = Window {
                kind: match name {
                    "HannWindow" => WindowKind::Hann,
                    "HammingWindow" => WindowKind::Hamming,
                    _ => WindowKind::Blackman,
                },
                periodic: call.int_or("periodic", 1) != 0,
                dtype: call.dtype("output_datatype")?.unwrap_or(DType::F32),
            };
            call.same(TensorOp::Window(window))
        }
        "MelWeightMatrix" => {
            let dtype = call.dtype("output_datatype")?.unwrap_or(DType::F32);
            call.same(TensorOp::MelWeights(dtype))
        }
        "DFT" => {
            let mut inputs = call.inputs.clone();
            if call.version < 20 {
                let axis = call.int_or("axis", 1);
                inputs.resize(2, kun_graph::ValueId::ABSENT);
                inputs.push(call.constant(Tensor::scalar(axis)));
            }
            let (inverse, onesided) = (call.flag("inverse"), call.flag("onesided"));
            call.finish(TensorOp::Dft { inverse, onesided }, inputs)
        }
        "STFT" => {
            let onesided = call.int_or("onesided", 1) != 0;
            call.same(TensorOp::Stft { onesided })
        }
        _ => Ok(false),
    }
}

fn constant(call: &Call<'_, '_>) -> Result<Tensor, String> {
    if let Some(value) = call.tensor("value", call.importer.file)? {
        return Ok(value);
    }
    if let Some(value) = call.float("value_float") {
        return Ok(Tensor::scalar(value));
    }
    if let Some(values) = call.floats("value_floats") {
        return Ok(Tensor::list(values.to_vec()));
    }
    if let Some(value) = call.int("value_int") {
        return Ok(Tensor::scalar(value));
    }
    if let Some(values) = call.ints("value_ints") {
        return Ok(Tensor::list(values.to_vec()));
    }
    if let Some(value) = call.text("value_string")? {
        return Ok(Tensor::scalar(value.to_owned()));
    }
    if let Some(values) = call.texts("value_strings")? {
        return Ok(Tensor::list(values));
    }
    if let Some(sparse) = call.find("sparse_value").and_then(|a| a.sparse_tensor.as_deref()) {
        return call.importer.file.sparse_tensor(sparse).map_err(|e| e.chain());
    }
    Err("a constant without a value".into())
}

fn random(call: &Call<'_, '_>, name: &str) -> Result<Random, String> {
    let kind = match name {
        "RandomNormal" | "RandomNormalLike" => {
            Distribution::Normal { mean: call.float_or("mean", 0.0), scale: call.float_or("scale", 1.0) }
        }
        "RandomUniform" | "RandomUniformLike" => {
            Distribution::Uniform { low: call.float_or("low", 0.0), high: call.float_or("high", 1.0) }
        }
        "Bernoulli" => Distribution::Bernoulli,
        _ => Distribution::Multinomial { samples: call.count_or("sample_size", 1)? },
    };
    let default = match name {
        "RandomNormal" | "RandomUniform" => Some(DType::F32),
        "Multinomial" => Some(DType::I32),
        _ => None,
    };
    let shape = if call.has("shape") { Some(call.counts("shape")?) } else { None };
    Ok(Random { kind, dtype: call.dtype("dtype")?.or(default), shape, seed: call.float("seed") })
}
