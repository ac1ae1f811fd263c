//! A few rows of a job, to tell what all of them will take.

use super::Checked;
use crate::function::Stop;
use crate::input::Plan;
use crate::{BulkError, Split};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Instant;

/// Rows sampled, at most.
const ROWS: usize = 200;
/// Splits that they are taken from.
const SPLITS: usize = 4;

/// What a job will take, by a sample.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Rows that were tried.
    pub sampled_rows: usize,
    /// Rows of them that failed.
    pub failed_rows: u64,
    /// Why the first of them did.
    pub first_error: Option<String>,
    /// Seconds to load models.
    pub load_seconds: f64,
    /// Rows a second, once loaded.
    pub rows_per_s: f64,
    /// Tokens a second.
    pub tokens_per_s: f64,
    /// Files of the input.
    pub files: usize,
    /// Bytes of the input.
    pub bytes: u64,
    /// All rows: counted, or about.
    pub total_rows: Option<u64>,
    /// Seconds that all rows will take.
    pub total_seconds: Option<f64>,
    /// The most memory that this process has taken, in bytes.
    pub peak_memory_bytes: Option<u64>,
}

impl Estimate {
    /// In words, a line each.
    pub fn words(&self) -> String {
        let mut lines = vec![
            format!("{} files, {:.1} MB", self.files, self.bytes as f64 / 1e6),
            format!(
                "{} rows tried: {:.1} rows/s, {:.0} tokens/s",
                self.sampled_rows, self.rows_per_s, self.tokens_per_s
            ),
        ];
        if let (Some(rows), Some(seconds)) = (self.total_rows, self.total_seconds) {
            let time = match seconds {
                ..60.0 => format!("{} s", seconds.ceil()),
                60.0..5400.0 => format!("{:.1} minutes", seconds / 60.0),
                _ => format!("{:.1} hours", seconds / 3600.0),
            };
            lines.push(format!("about {rows} rows in all: {time} on this machine"));
        }
        if let Some(bytes) = self.peak_memory_bytes {
            lines.push(format!("memory so far: {:.0} MB", bytes as f64 / 1e6));
        }
        if let Some(error) = &self.first_error {
            lines.push(format!("{} of the rows failed; the first: {error}", self.failed_rows));
        }
        lines.join("\n")
    }
}

impl Checked<'_> {
    /// Works on a few rows from several places of the input; writes nothing.
    ///
    /// # Errors
    /// As [`Checked::run`].
    pub fn sample(&self) -> Result<Estimate, BulkError> {
        let folder = std::env::temp_dir().join(format!("kun-sample-{}", std::process::id()));
        let folder = self.stores.folder(&folder.to_string_lossy())?;
        let estimate = self.sample_of(&self.plan(&folder, Some(ROWS), &Stop::default())?);
        folder.clear()?;
        estimate
    }

    fn sample_of(&self, plan: &Plan) -> Result<Estimate, BulkError> {
        let calls = self.calls(plan)?;
        let began = Instant::now();
        let pipeline = calls.open(self.job, self.found.format, &plan.schema, &BTreeMap::new())?;
        let load_seconds = began.elapsed().as_secs_f64();
        let reading = calls.reading(self.found.format, &plan.schema);
        let step = plan.splits.len().div_ceil(SPLITS).max(1);
        let chosen: Vec<&Split> = plan.splits.iter().step_by(step).collect();
        let (mut rows, mut errors, mut tokens, mut first, mut seconds) = (0, 0, 0, None, 0.0);
        let mut dropped = 0;
        for split in &chosen {
            let mut left = ROWS.div_ceil(chosen.len());
            for chunk in reading.open(self.stores, split)? {
                let chunk = chunk?;
                dropped += chunk.dropped;
                let chunk = super::split::slice_of(&chunk, left);
                let began = Instant::now();
                let done = pipeline.apply(&chunk, &Stop::default())?;
                seconds += began.elapsed().as_secs_f64();
                rows += done.batch.num_rows();
                (errors, tokens) = (errors + done.errors, tokens + done.tokens);
                first = first.or(done.first_error);
                left -= done.batch.num_rows();
                if left == 0 {
                    break;
                }
            }
        }
        let rate = |count: f64| if seconds > 0.0 { count / seconds } else { 0.0 };
        let bytes = plan.splits.iter().map(|split| split.bytes).fold(0, u64::saturating_add);
        let total_rows: Option<u64> = plan.splits.iter().map(|split| split.rows).sum();
        // A condition leaves about as many of all rows as of these.
        let share = rows as f64 / (rows as f64 + dropped as f64).max(1.0);
        let total_rows =
            total_rows.map(|total| if dropped > 0 { (total as f64 * share) as u64 } else { total });
        let rows_per_s = rate(rows as f64);
        Ok(Estimate {
            sampled_rows: rows,
            failed_rows: errors,
            first_error: first,
            load_seconds,
            rows_per_s,
            tokens_per_s: rate(tokens as f64),
            files: self.found.objects.len(),
            bytes,
            total_rows,
            total_seconds: total_rows.filter(|_| rows_per_s > 0.0).map(|total| total as f64 / rows_per_s),
            peak_memory_bytes: peak_memory_bytes(),
        })
    }
}

/// As Linux counts it.
fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
