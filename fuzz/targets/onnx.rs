//! Any bytes as an ONNX file: it is read, its tensors are decoded, and it becomes a graph or an error.
#![no_main]

use kun_formats::OnnxFile;
use kun_fuzz::within;

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    // A graph is larger than its message: a node with a long name holds it, its values and its operands.
    within(file.len() * 64 + (32 << 20), || {
        let Ok(file) = OnnxFile::parse(prost::bytes::Bytes::copy_from_slice(file)) else { return };
        if let Some(graph) = file.graph() {
            for tensor in &graph.initializer {
                let _ = file.tensor(tensor);
            }
        }
        if let Ok(model) = kun_models::onnx::import(file) {
            let _ = model.graph.validate();
        }
    });
});
