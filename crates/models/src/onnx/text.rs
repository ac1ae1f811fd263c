//! Operators on text, and the few classic ones around it.

use super::call::Call;
use kun_graph::TensorOp;
use kun_graph::ops::text::{Normalize, TextOp};
use kun_tensor::Tensor;
use std::sync::Arc;

pub(super) fn import(call: &mut Call<'_, '_>) -> Result<bool, String> {
    match call.proto.op_type.as_str() {
        "StringConcat" => call.same(TensorOp::Text(TextOp::Concat)),
        "StringSplit" => {
            let delimiter = call.text("delimiter")?.filter(|d| !d.is_empty()).map(str::to_owned);
            let limit = call.int("maxsplit").and_then(|n| usize::try_from(n).ok());
            call.same(TensorOp::Text(TextOp::Split { delimiter, limit }))
        }
        "StringNormalizer" => {
            let normalize = Normalize {
                upper: match call.text_or("case_change_action", "NONE")? {
                    "UPPER" => Some(true),
                    "LOWER" => Some(false),
                    _ => None,
                },
                case_sensitive: call.flag("is_case_sensitive"),
                stop_words: call.texts("stopwords")?.unwrap_or_default(),
            };
            call.same(TensorOp::Text(TextOp::Normalize(normalize)))
        }
        _ => Ok(false),
    }
}

/// The few of `ai.onnx.ml`.
pub(super) fn import_ml(call: &mut Call<'_, '_>) -> Result<bool, String> {
    match call.proto.op_type.as_str() {
        "ArrayFeatureExtractor" => call.same(TensorOp::Text(TextOp::Features)),
        "Binarizer" => {
            let threshold = call.float_or("threshold", 0.0);
            call.same(TensorOp::Text(TextOp::Binarize(threshold)))
        }
        "LabelEncoder" => {
            let keys = labels(call, "keys")?.ok_or("no keys")?;
            let values = labels(call, "values")?.ok_or("no values")?;
            let default = match call.tensor("default_tensor", call.importer.file)? {
                Some(default) => default,
                None if values.as_i64().is_some() => Tensor::scalar(call.int_or("default_int64", -1)),
                None if values.as_f32().is_some() => Tensor::scalar(call.float_or("default_float", -0.0)),
                None => Tensor::scalar(call.text_or("default_string", "_Unused")?.to_owned()),
            };
            let labels =
                TextOp::Labels { keys: Arc::new(keys), values: Arc::new(values), default: Arc::new(default) };
            call.same(TensorOp::Text(labels))
        }
        _ => Ok(false),
    }
}

fn labels(call: &Call<'_, '_>, kind: &str) -> Result<Option<Tensor>, String> {
    if let Some(tensor) = call.tensor(&format!("{kind}_tensor"), call.importer.file)? {
        return Ok(Some(tensor));
    }
    if let Some(values) = call.ints(&format!("{kind}_int64s")) {
        return Ok(Some(Tensor::list(values.to_vec())));
    }
    if let Some(values) = call.floats(&format!("{kind}_floats")) {
        return Ok(Some(Tensor::list(values.to_vec())));
    }
    Ok(call.texts(&format!("{kind}_strings"))?.map(Tensor::list))
}
