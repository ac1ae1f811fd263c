//! How fast a model runs, and how close that is to what the machine can do.

pub mod bench;
pub mod machine;
pub mod onnx;
pub mod pictures;
pub mod texts;

pub use bench::{Bench, BenchOptions, Phase, Row, bench};
pub use machine::{Limits, Machine, machine};
pub use onnx::{OnnxBench, OnnxBenchOptions, OnnxRow, onnx};
pub use pictures::{PictureTime, look_at_pictures};
pub use texts::{TextCase, TextTime, embed_texts};
