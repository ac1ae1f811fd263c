//! `kun bench`.

use super::App;
use super::pictures::inputs;
use crate::args::BenchArgs;
use crate::exit::Misuse;
use crate::terminal::human_bytes;
use anyhow::Context;
use kun_engine::cores::physical_cores;
use kun_engine::onnx::OnnxOptions;
use kun_engine::vision::{Looks, looks_at, verb_of};
use kun_engine::{EncodeOptions, VisionModel, VisionOptions};
use kun_evals::speed::{self, Bench, BenchOptions, Limits, OnnxBenchOptions, Phase, Row, TextCase, TextTime};
use serde_json::json;
use std::path::Path;

/// Measures a model's rates and prints them beside the machine's limits.
pub fn bench(app: &App, args: &BenchArgs) -> anyhow::Result<()> {
    if args.repetitions == 0 || args.batch.contains(&0) {
        return Err(Misuse("--repetitions and --batch must be at least 1".to_owned()).into());
    }
    if let Some(path) = &args.texts {
        return texts(app, args, path);
    }
    if let Some(images) = &args.images {
        return pictures(app, args, images);
    }
    if super::onnx::is_onnx(&args.model) {
        return onnx(app, args);
    }
    if args.precision.is_some() {
        return Err(Misuse("--precision goes with --texts or an ONNX model".to_owned()).into());
    }
    let model = app.fetch(&args.model)?;
    let options = BenchOptions {
        prompt_tokens: args.prompt_tokens,
        decode_tokens: args.decode_tokens,
        batch: args.batch.clone(),
        repetitions: args.repetitions,
        load: args.compute.options(),
        limits: !args.no_limits,
    };
    // Rows take minutes on large models, so each is told as it is done.
    let mut printed = Ok(());
    let measured = speed::bench(&app.engine, &model.path, &options, |row| match args.json {
        true => app.messages.note(&line(row)),
        false if printed.is_ok() => printed = app.output.line(&line(row)),
        false => {}
    })?;
    printed?;
    if args.json {
        app.output.json(&measured)
    } else {
        Ok(app.output.write(&summary(&model.name, &measured))?)
    }
}

/// Measures an ONNX model on made-up inputs.
fn onnx(app: &App, args: &BenchArgs) -> anyhow::Result<()> {
    let options = onnx_options(app, args)?;
    let mut printed = Ok(());
    let measured = speed::onnx(Path::new(&args.model), &options, |row| {
        let share = row
            .share_of_peak
            .map_or_else(String::new, |share| format!("  {:.0} % of the f32 peak", share * 100.0));
        let line = format!(
            "batch {:<4}{:>9.1}/s{:>10.2} ms  first {:>8.1} ms  {:>7.1} GFLOP/s{share}  {}",
            row.batch,
            row.items_per_s,
            row.median_ms,
            row.first_ms,
            row.gflops,
            human_bytes(row.memory_bytes)
        );
        match args.json {
            true => app.messages.note(&line),
            false if printed.is_ok() => printed = app.output.line(&line),
            false => {}
        }
    })?;
    printed?;
    if args.json {
        return app.output.json(&measured);
    }
    let limits =
        measured.limits.as_ref().map_or_else(String::new, |limits| format!("{}\n", limits_line(limits)));
    let model = format!(
        "{}, {} threads, {}, opened in {:.0} ms\n",
        args.model, measured.threads, measured.precision, measured.load_ms
    );
    Ok(app.output.write(&(model + &limits))?)
}

fn onnx_options(app: &App, args: &BenchArgs) -> anyhow::Result<OnnxBenchOptions> {
    Ok(OnnxBenchOptions {
        batch: args.batch.clone(),
        repetitions: args.repetitions,
        load: OnnxOptions {
            threads: args.compute.threads,
            no_mmap: args.compute.no_mmap,
            max_memory_bytes: args.compute.max_memory,
            bf16: super::onnx::is_bf16(app, args.precision)?,
            ..OnnxOptions::default()
        },
        limits: !args.no_limits,
    })
}

/// Measures how fast the engine answers about pictures, and the network alone.
fn pictures(app: &App, args: &BenchArgs, images: &str) -> anyhow::Result<()> {
    let files = inputs::expand(&[images.to_owned()])?;
    let alone = OnnxBenchOptions { batch: vec![1], limits: false, ..onnx_options(app, args)? };
    let options = VisionOptions {
        threads: args.compute.threads,
        max_memory_bytes: args.compute.max_memory,
        no_mmap: args.compute.no_mmap,
        bf16: alone.load.bf16,
        ..VisionOptions::default()
    };
    let found = app.fetch(&args.model)?;
    let verb = match looks_at(&found.path) {
        Some(Looks::Verb(verb)) => verb,
        Some(Looks::Unknown) => verb_of(&found.path, &options)?,
        _ => return Err(Misuse(format!("{} is no model that --images can measure", found.name)).into()),
    };
    let model = VisionModel::open(&found.path, verb, &options)?;
    let threads = options.threads.unwrap_or_else(physical_cores);
    let read = |at: usize| inputs::read(&files[at], inputs::Limits::default()).map(|decoded| decoded.image);
    let time = speed::look_at_pictures(&model, files.len(), threads, args.repetitions, read);
    let network = speed::onnx(model.file(), &alone, |_| ())?;
    let row = network.rows.first().context("the network was not run")?;
    let share = time.pictures_per_s / row.items_per_s;
    if args.json {
        return app.output.json(&json!({
            "model": found.name, "verb": verb.name(), "threads": threads, "precision": network.precision,
            "time": time, "network": row, "share_of_network": share,
        }));
    }
    let failed = match time.failed {
        0 => String::new(),
        failed => format!(", {failed} failed"),
    };
    app.output.line(&format!(
        "{:<16}{:>9.1} pictures/s  {} pictures in {:.2} s{failed}",
        verb.name(),
        time.pictures_per_s,
        time.pictures,
        time.seconds
    ))?;
    app.output.line(&format!(
        "{:<16}{:>9.1} pictures/s  {:.2} ms a run; {:.0} % of it is reached",
        "network alone",
        row.items_per_s,
        row.median_ms,
        share * 100.0
    ))?;
    Ok(())
}

/// Measures how fast an encoder reads texts.
fn texts(app: &App, args: &BenchArgs, path: &Path) -> anyhow::Result<()> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let cases: Vec<TextCase> = serde_json::from_slice(&bytes)
        .map_err(|error| Misuse(format!("{} is no list of cases: {error}", path.display())))?;
    let load = EncodeOptions {
        threads: args.compute.threads,
        precision: args.precision,
        max_memory_bytes: args.compute.max_memory,
        no_mmap: args.compute.no_mmap,
        ..EncodeOptions::default()
    };
    let found = app.fetch(&args.model)?;
    let model = app.engine.load_encoder(&found.path, &load, |_| {})?;
    let mut times = Vec::with_capacity(cases.len());
    for case in &cases {
        let time = speed::embed_texts(&model, case, args.repetitions)?;
        if !args.json {
            let TextTime { name, texts, tokens, seconds, texts_per_s } = &time;
            app.output.line(&format!(
                "{name:<24}{texts:>6} texts {tokens:>8} tokens {seconds:>9.4} s {texts_per_s:>9.1} texts/s"
            ))?;
        }
        times.push(time);
    }
    if args.json {
        let threads = model.threads();
        app.output.json(&json!({ "model": found.name, "threads": threads, "cases": times }))?;
    }
    Ok(())
}

fn summary(name: &str, bench: &Bench) -> String {
    let model = format!(
        "{name} ({}, {}), {} threads, loaded in {:.0} ms, weights {}\n",
        bench.architecture,
        bench.quantization,
        bench.threads,
        bench.load_ms,
        human_bytes(bench.weights_bytes)
    );
    let limits = bench.limits.as_ref().map(|limits| format!("{}\n", limits_line(limits)));
    model + &limits.unwrap_or_default()
}

/// One rate: `decode  128 tokens x  4     96.3 tokens/s   84 % of memory`.
fn line(row: &Row) -> String {
    let phase = match row.phase {
        Phase::Prefill => "prefill",
        Phase::Decode => "decode",
    };
    let share = match (row.share_of_limit, row.limit) {
        (Some(share), Some(limit)) => format!("{:>6.1} % of the {limit} limit", share * 100.0),
        _ => String::new(),
    };
    let text = format!(
        "{phase:<8}{:>6} tokens x {:<4}{:>10.2} tokens/s {share}",
        row.tokens, row.sequences, row.tokens_per_s
    );
    text.trim_end().to_owned()
}

/// The machine's limits in one line.
pub fn limits_line(limits: &Limits) -> String {
    let mut parts = vec![
        format!("memory {:.1} GB/s", limits.memory_gb_per_s),
        format!("f32 {:.0} GFLOP/s", limits.f32_gflops),
    ];
    parts.extend(limits.bf16_gflops.map(|rate| format!("bf16 {rate:.0} GFLOP/s")));
    parts.extend(limits.int8_gops.map(|rate| format!("int8 {rate:.0} GOP/s")));
    parts.extend(limits.round_trip_ns.map(|time| format!("thread to thread and back {time:.0} ns")));
    format!("limits with {} threads: {}", limits.threads, parts.join(", "))
}
