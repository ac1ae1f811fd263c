//! The initial values of an ONNX model, by name.

use kun_formats::OnnxFile;
use kun_formats::onnx::info;
use kun_formats::onnx::proto::TensorProto;
use kun_graph::{WeightError, WeightSource};
use kun_tensor::DType;
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

/// Weights of an ONNX file. They borrow from the mapped file, or lie in files beside it.
#[derive(Debug)]
pub struct OnnxWeights {
    pub(super) file: OnnxFile,
    pub(super) tensors: HashMap<String, TensorProto>,
}

impl OnnxWeights {
    fn find(&self, name: &str) -> Result<&TensorProto, WeightError> {
        self.tensors.get(name).ok_or_else(|| WeightError::Missing { name: name.to_owned() })
    }
}

impl WeightSource for OnnxWeights {
    fn info(&self, name: &str) -> Option<(DType, Vec<usize>)> {
        self.tensors.get(name).and_then(|tensor| info(tensor).ok())
    }

    fn rows(&self, name: &str, rows: Range<usize>) -> Result<Cow<'_, [u8]>, WeightError> {
        let read = |source: Box<dyn std::error::Error + Send + Sync>| WeightError::Read {
            name: name.to_owned(),
            source,
        };
        let tensor = self.find(name)?;
        let (_, shape) = info(tensor).map_err(|e| read(Box::new(e)))?;
        let bytes = self.file.bytes(tensor).map_err(|e| read(Box::new(e)))?;
        let all = if shape.len() < 2 { 1 } else { shape[0] };
        if rows == (0..all) {
            return Ok(bytes);
        }
        let row = bytes.len().checked_div(all).unwrap_or(0);
        if rows.start > rows.end || rows.end > all {
            return Err(read(format!("rows {rows:?} of {all}").into()));
        }
        let range = rows.start * row..rows.end * row;
        Ok(match bytes {
            Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[range]),
            Cow::Owned(bytes) => Cow::Owned(bytes[range].to_vec()),
        })
    }

    fn release(&self, name: &str) {
        if let Some(tensor) = self.tensors.get(name) {
            self.file.release(tensor);
        }
    }
}
