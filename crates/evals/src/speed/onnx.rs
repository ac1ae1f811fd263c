//! How fast an ONNX model runs.

use super::Limits;
use super::bench::median;
use anyhow::Context;
use kun_engine::cores::physical_cores;
use kun_engine::onnx::{OnnxOptions, OnnxPass};
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, Instant};

/// What is measured.
#[derive(Clone, Debug, PartialEq)]
pub struct OnnxBenchOptions {
    /// Lengths of the first dimension where a model leaves it open.
    pub batch: Vec<usize>,
    /// Runs that are timed, at least; short ones are repeated for half a second.
    pub repetitions: usize,
    /// How the model is loaded.
    pub load: OnnxOptions,
    /// Whether the machine's limits are measured too.
    pub limits: bool,
}

/// One batch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OnnxRow {
    /// Length of the first dimension, where the model leaves it open.
    pub batch: usize,
    /// Shapes of the inputs.
    pub shapes: Vec<Vec<usize>>,
    /// Runs that were timed.
    pub runs: usize,
    /// Milliseconds of the first run, in which the plan is made and weights are packed.
    pub first_ms: f64,
    /// Milliseconds of a run, the median.
    pub median_ms: f64,
    /// Milliseconds of the shortest run.
    pub least_ms: f64,
    /// Items per second at the median.
    pub items_per_s: f64,
    /// Bytes that weights and the values between inputs and outputs take.
    pub memory_bytes: u64,
    /// 10^9 operations per second at the median, a multiplication and an addition counted as two.
    pub gflops: f64,
    /// Their share of what the machine can do in f32, if that was measured.
    pub share_of_peak: Option<f64>,
}

/// A model's rates.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OnnxBench {
    /// Compute threads.
    pub threads: usize,
    /// What products are of: `f32` or `bf16`; int8 models keep their codes.
    pub precision: &'static str,
    /// Milliseconds to open the file.
    pub load_ms: f64,
    /// The machine's limits, if asked for.
    pub limits: Option<Limits>,
    /// One for each batch; one in all if the model fixes its shapes.
    pub rows: Vec<OnnxRow>,
}

/// Measures the model at `path` on made-up inputs; `done` hears of every row.
///
/// # Errors
/// If the model cannot be loaded or run.
pub fn onnx(
    path: &Path,
    options: &OnnxBenchOptions,
    mut done: impl FnMut(&OnnxRow),
) -> anyhow::Result<OnnxBench> {
    let threads = options.load.threads.unwrap_or_else(physical_cores);
    let limits = options.limits.then(|| Limits::measure(threads));
    let begun = Instant::now();
    let mut model = OnnxPass::open(path, &options.load)?;
    let load_ms = begun.elapsed().as_secs_f64() * 1e3;
    let mut rows: Vec<OnnxRow> = Vec::new();
    for &batch in &options.batch {
        let cost = model.cost_of(batch)?;
        if rows.iter().any(|row| row.shapes == cost.shapes) {
            continue;
        }
        let items = cost.shapes.first().and_then(|shape| shape.first()).copied().unwrap_or(1);
        let inputs = model.example_inputs(batch).context("inputs that cannot be made up")?;
        let mut timed = || -> anyhow::Result<f64> {
            let begun = Instant::now();
            model.infer(&inputs)?;
            Ok(begun.elapsed().as_secs_f64() * 1e3)
        };
        let (first_ms, begun, mut times) = (timed()?, Instant::now(), Vec::new());
        while times.len() < options.repetitions.max(1) || begun.elapsed() < Duration::from_millis(500) {
            times.push(timed()?);
        }
        let median_ms = median(&times);
        let gflops = cost.operations as f64 / 1e6 / median_ms;
        let row = OnnxRow {
            batch,
            shapes: cost.shapes,
            runs: times.len(),
            first_ms,
            median_ms,
            least_ms: times.iter().copied().fold(f64::INFINITY, f64::min),
            items_per_s: items as f64 * 1e3 / median_ms,
            memory_bytes: model.memory().bytes(),
            gflops,
            share_of_peak: limits.as_ref().map(|limits| gflops / limits.f32_gflops),
        };
        done(&row);
        rows.push(row);
    }
    let precision = if options.load.bf16 { "bf16" } else { "f32" };
    Ok(OnnxBench { threads, precision, load_ms, limits, rows })
}

#[cfg(test)]
mod tests {
    use super::{OnnxBenchOptions, onnx};
    use kun_engine::onnx::OnnxOptions;
    use std::path::Path;

    #[test]
    fn every_batch_of_a_model_of_open_size_is_measured() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/clip/onnx/vision_model.onnx");
        let load = OnnxOptions { threads: Some(1), ..OnnxOptions::default() };
        let options = OnnxBenchOptions { batch: vec![1, 3, 1], repetitions: 2, load, limits: false };
        let mut heard = 0;
        let found = onnx(&file, &options, |_| heard += 1).unwrap();
        assert_eq!((found.rows.len(), heard), (2, 2));
        assert_eq!((found.threads, found.precision), (1, "f32"));
        for (row, items) in found.rows.iter().zip([1, 3]) {
            assert_eq!(row.shapes[0][0], items);
            assert!(row.runs >= 2 && row.items_per_s > 0.0 && row.memory_bytes > 0);
            assert!(row.share_of_peak.is_none() && row.least_ms <= row.median_ms);
        }
    }
}
