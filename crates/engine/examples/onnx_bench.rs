//! Times an ONNX model for `benches/compare_onnx.py`: `onnx_bench MODEL THREADS[bf16] INPUT.npy ..`, inputs in the model's order.
//!
//! `profile N` on its input prints the least time of every step in N runs; `save FOLDER` writes the results as .npy files.
//!
//! Prints the milliseconds from opening the file to the end of the first run. Then every line on its input is a number of
//! runs, answered by the milliseconds of each, as a JSON list. The last line says the most memory that the process held.

use kun_engine::onnx::{OnnxOptions, OnnxPass, arrays};
use kun_tensor::Tensors;
use std::error::Error;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    // As every command of `kun` does.
    kun_engine::keep_freed_memory();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, threads, files @ ..] = &arguments[..] else {
        return Err("usage: onnx_bench MODEL THREADS INPUT.npy ..".into());
    };
    let files: Result<Vec<_>, _> = files.iter().map(|file| arrays::read(Path::new(file))).collect();
    let files = files?;
    let started = Instant::now();
    let bf16 = threads.ends_with("bf16");
    let threads = Some(threads.trim_end_matches("bf16").parse()?);
    let options = OnnxOptions { threads, bf16, ..OnnxOptions::default() };
    let mut pass = OnnxPass::open(Path::new(model), &options)?;
    let names: Vec<String> = pass.info().inputs.iter().map(|port| port.name.clone()).collect();
    let inputs: Tensors = names.into_iter().zip(files).collect();
    pass.infer(&inputs)?;
    let mut out = io::stdout().lock();
    writeln!(out, "{}", started.elapsed().as_secs_f64() * 1e3)?;
    out.flush()?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        if let Some(runs) = line.strip_prefix("profile ") {
            pass.set_profile(true);
            for _ in 0..runs.trim().parse::<usize>()? {
                pass.infer(&inputs)?;
            }
            for step in pass.profile() {
                let (us, gflop) = (step.least.as_secs_f64() * 1e6, step.operations as f64 / 1e3);
                let rate = gflop / us;
                writeln!(out, "{us:9.1} us {rate:7.1} GFLOP/s {} {} {}", step.kind, step.sizes, step.node)?;
            }
            pass.set_profile(false);
            continue;
        }
        if let Some(folder) = line.strip_prefix("save ") {
            for (index, (_, tensor)) in pass.infer(&inputs)?.iter().enumerate() {
                arrays::write(&Path::new(folder).join(format!("{index}.npy")), tensor)?;
            }
            continue;
        }
        let mut times = Vec::new();
        for _ in 0..line.trim().parse::<usize>()? {
            let started = Instant::now();
            pass.infer(&inputs)?;
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
        writeln!(out, "{times:?}")?;
        out.flush()?;
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    writeln!(out, "{}", peak.trim().trim_end_matches(" kB"))?;
    Ok(())
}
