//! An ONNX file behind a worker, and what it says of itself.

use super::{Opened, VisionOptions};
use crate::onnx::{self, OnnxOptions, OnnxPass};
use crate::{DType, EngineError, PassModel};
use kun_tasks::describe::Port;
use std::path::Path;

pub(super) fn open(file: &Path, options: &VisionOptions) -> Result<Opened, EngineError> {
    let options = OnnxOptions {
        threads: options.threads,
        no_mmap: options.no_mmap,
        max_memory_bytes: options.max_memory_bytes,
        bf16: options.bf16,
        ..OnnxOptions::default()
    };
    let pass = OnnxPass::open(file, &options)?;
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
        _ => "other",
    };
    // Dimensions of 0 and below are some exporters' way to leave them open.
    let dim = |text: &String| text.parse::<usize>().ok().filter(|n| *n > 0);
    let shape = port.shape.iter().flatten().map(dim).collect();
    Port { name: port.name.clone(), shape, dtype: dtype.to_owned() }
}
