//! An ONNX file behind a worker, and what it says of itself.

use super::{Opened, VisionOptions};
use crate::onnx::{self, OnnxPass};
use crate::{DType, EngineError, PassModel};
use kun_tasks::describe::Port;
use std::path::Path;

pub(super) fn open(file: &Path, options: &VisionOptions) -> Result<Opened, EngineError> {
    let pass = OnnxPass::open(file, &options.into())?;
    let info = pass.info();
    let inputs = info.inputs.iter().map(port).collect();
    let outputs = info.outputs.iter().map(port).collect();
    let metadata = info.metadata.clone();
    let memory = pass.memory();
    Ok(Opened { model: PassModel::start(pass)?, inputs, outputs, metadata, memory })
}

fn port(port: &onnx::Port) -> Port {
    let dtype = match port.dtype {
        Some(DType::F16) => "float16",
        Some(DType::U8) => "uint8",
        Some(DType::F32) => "float32",
        Some(DType::I32) => "int32",
        _ => "other",
    };
    let rank = port.shape.as_ref().map_or(0, Vec::len);
    let shape = (0..rank).map(|axis| port.dim(axis)).collect();
    Port { name: port.name.clone(), shape, dtype: dtype.to_owned() }
}
