//! Prefill and decode rates.

use super::Limits;
use anyhow::{Context, ensure};
use kun_engine::{
    Engine, Event, GenerateRequest, GenerateStream, LoadOptions, LoadedModel, Prompt, SamplingOptions, Usage,
};
use serde::Serialize;
use std::path::Path;
use std::time::Instant;

/// What is measured.
#[derive(Clone, Debug, PartialEq)]
pub struct BenchOptions {
    /// Tokens of the prompt whose prefill is timed; 0 times none.
    pub prompt_tokens: usize,
    /// Tokens that are decoded; 0 times no decoding.
    pub decode_tokens: usize,
    /// Numbers of sequences decoded together.
    pub batch: Vec<usize>,
    /// Times that each rate is measured.
    pub repetitions: usize,
    /// How the model is loaded; context and sequences are set as the measurement needs.
    pub load: LoadOptions,
    /// Whether the machine's limits are measured too.
    pub limits: bool,
}

impl Default for BenchOptions {
    fn default() -> Self {
        BenchOptions {
            prompt_tokens: 512,
            decode_tokens: 128,
            batch: vec![1],
            repetitions: 5,
            load: LoadOptions::default(),
            limits: true,
        }
    }
}

/// What a rate is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Reading a prompt.
    Prefill,
    /// Writing, one token of each sequence a step.
    Decode,
}

/// One rate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What it is of.
    pub phase: Phase,
    /// Tokens of each sequence.
    pub tokens: usize,
    /// Sequences at once.
    pub sequences: usize,
    /// Median over the repetitions, of all sequences together.
    pub tokens_per_s: f64,
    /// Every repetition's, in order.
    pub repetitions: Vec<f64>,
    /// Share of what the machine's memory (decode) or arithmetic units (prefill) would allow, 1 at the limit.
    pub share_of_limit: Option<f64>,
    /// Which limit that is: `memory`, `int8`, `bf16` or `f32`.
    pub limit: Option<&'static str>,
}

/// A model's rates on this machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bench {
    /// The file or folder.
    pub model: String,
    /// Its architecture.
    pub architecture: String,
    /// Commonest type of its weights.
    pub quantization: String,
    /// Elements of its weights.
    pub parameters: u64,
    /// Compute threads.
    pub threads: usize,
    /// Time to load it, ready to run.
    pub load_ms: f64,
    /// Packed weights, in bytes.
    pub weights_bytes: u64,
    /// Bytes of weights, as stored, that one step reads.
    pub step_bytes: u64,
    /// Rates.
    pub rows: Vec<Row>,
    /// The machine's limits.
    pub limits: Option<Limits>,
}

/// Loads the model at `path` and measures it, telling `progress` of each row as it is done.
///
/// Prompts are pseudo-random tokens; decoding starts from a prompt of one token and picks the likeliest. A rate counts
/// whole steps: the program, picking the tokens and giving out their text.
///
/// # Errors
/// Those of loading and running the model.
pub fn bench(
    engine: &Engine,
    path: &Path,
    options: &BenchOptions,
    mut progress: impl FnMut(&Row),
) -> anyhow::Result<Bench> {
    ensure!(options.repetitions >= 1, "0 repetitions: at least 1");
    ensure!(!options.batch.contains(&0), "a batch of 0 sequences: at least 1");
    // A prompt of one token comes before the first that is decoded.
    let context = options.prompt_tokens.max(options.decode_tokens + 2);
    let load = LoadOptions {
        context_tokens: Some(context),
        max_sequences: Some(options.batch.iter().copied().max().unwrap_or(1)),
        ..options.load.clone()
    };
    let started = Instant::now();
    let model = engine.load(path, &load)?;
    let load_ms = started.elapsed().as_secs_f64() * 1e3;
    let limits = options.limits.then(|| Limits::measure(model.threads()));
    let mut rows = Vec::new();
    if options.prompt_tokens > 0 {
        rows.push(prefill_row(engine, &model, options, limits.as_ref())?);
        rows.last().into_iter().for_each(&mut progress);
    }
    for sequences in options.batch.iter().copied().filter(|_| options.decode_tokens > 0) {
        rows.push(decode_row(engine, &model, options, sequences, limits.as_ref())?);
        rows.last().into_iter().for_each(&mut progress);
    }
    let info = model.info();
    Ok(Bench {
        model: path.display().to_string(),
        architecture: info.architecture.clone(),
        quantization: info.quantization.clone(),
        parameters: info.parameters,
        threads: model.threads(),
        load_ms,
        weights_bytes: model.memory().weights_bytes as u64,
        step_bytes: model.cost().step_bytes,
        rows,
        limits,
    })
}

fn prefill_row(
    engine: &Engine,
    model: &LoadedModel,
    options: &BenchOptions,
    limits: Option<&Limits>,
) -> anyhow::Result<Row> {
    let count = options.prompt_tokens;
    // A new prompt each time: one that was read before would come out of the prefix cache.
    let mut seed = 0;
    let rates = repeat(options.repetitions, || {
        seed += 1;
        let usage = last_usage(engine.generate(model, request(&prompt(model, count, seed), 1))?)?;
        ensure!(usage.cached_tokens == 0, "{} tokens of a new prompt were cached", usage.cached_tokens);
        Ok(count as f64 / usage.prefill_time.as_secs_f64())
    })?;
    let mut row = row(Phase::Prefill, count, 1, rates);
    if let Some((name, per_second)) = limits.and_then(|l| peak(l, &model.info().quantization)) {
        let least_seconds = model.cost().prefill_operations(count) as f64 / per_second;
        row.share_of_limit = Some(row.tokens_per_s * least_seconds / count as f64);
        row.limit = Some(name);
    }
    Ok(row)
}

fn decode_row(
    engine: &Engine,
    model: &LoadedModel,
    options: &BenchOptions,
    sequences: usize,
    limits: Option<&Limits>,
) -> anyhow::Result<Row> {
    let tokens = options.decode_tokens;
    let rates = repeat(options.repetitions, || decode_rate(engine, model, sequences, tokens))?;
    let mut row = row(Phase::Decode, tokens, sequences, rates);
    if let Some(limits) = limits {
        let least_seconds = model.cost().step_bytes as f64 / (limits.memory_gb_per_s * 1e9);
        row.share_of_limit = Some(row.tokens_per_s / sequences as f64 * least_seconds);
        row.limit = Some("memory");
    }
    Ok(row)
}

/// Tokens per second of the steps in which all `sequences` decode.
fn decode_rate(engine: &Engine, model: &LoadedModel, sequences: usize, tokens: usize) -> anyhow::Result<f64> {
    model.take_decode_times();
    // The first token comes from the prefill.
    let requests = (0..sequences as u64).map(|i| request(&prompt(model, 1, i + 1), tokens + 1)).collect();
    for stream in engine.generate_together(model, requests)? {
        last_usage(stream)?;
    }
    let times = model.take_decode_times();
    let full = times.get(&sequences).context("the sequences were never decoded together")?;
    Ok(sequences as f64 * full.steps as f64 / full.time.as_secs_f64())
}

/// The arithmetic that weights of this type are multiplied in, and how much of it the machine does per second.
fn peak(limits: &Limits, quantization: &str) -> Option<(&'static str, f64)> {
    let dtype = kun_engine::DType::from_name(quantization)?;
    let (name, giga) = match (dtype, limits.bf16_gflops) {
        _ if dtype.is_quantized() => ("int8", limits.int8_gops?),
        (kun_engine::DType::BF16, Some(rate)) => ("bf16", rate),
        _ => ("f32", limits.f32_gflops),
    };
    Some((name, giga * 1e9))
}

fn row(phase: Phase, tokens: usize, sequences: usize, rates: Vec<f64>) -> Row {
    let tokens_per_s = median(&rates);
    Row { phase, tokens, sequences, tokens_per_s, repetitions: rates, share_of_limit: None, limit: None }
}

/// Runs once unmeasured, then `times` times.
fn repeat(times: usize, mut run: impl FnMut() -> anyhow::Result<f64>) -> anyhow::Result<Vec<f64>> {
    run()?;
    (0..times).map(|_| run()).collect()
}

/// The middle value, or the mean of the two in the middle.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { (sorted[middle - 1] + sorted[middle]) / 2.0 } else { sorted[middle] }
}

/// Pseudo-random tokens (Knuth's linear congruential generator).
fn prompt(model: &LoadedModel, tokens: usize, seed: u64) -> Vec<u32> {
    let vocab = model.info().vocab_size.max(1) as u64;
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % vocab) as u32
    };
    (0..tokens).map(next).collect()
}

fn request(tokens: &[u32], max_tokens: usize) -> GenerateRequest {
    GenerateRequest {
        sampling: SamplingOptions { temperature: 0.0, ..SamplingOptions::default() },
        max_tokens: Some(max_tokens),
        ignore_end: true,
        ..GenerateRequest::new(Prompt::Tokens(tokens.to_vec()))
    }
}

fn last_usage(stream: GenerateStream) -> anyhow::Result<Usage> {
    for event in stream {
        if let Event::Done { usage, .. } = event? {
            return Ok(usage);
        }
    }
    anyhow::bail!("the answer has no end")
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(&[7.0]), 7.0);
    }
}
