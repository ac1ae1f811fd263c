//! Every figure that `/metrics` tells, in the text format of Prometheus. None of them holds a client's text.

use kun_engine::Usage;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the buckets, in seconds.
const BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// Times, counted in buckets.
#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BUCKETS.len()],
    count: AtomicU64,
    sum_us: AtomicU64,
}

impl Histogram {
    fn add(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        for (bucket, bound) in self.buckets.iter().zip(BUCKETS) {
            if seconds <= bound {
                bucket.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    fn write(&self, name: &str, about: &str, out: &mut String) {
        let _ = writeln!(out, "# HELP {name} {about}\n# TYPE {name} histogram");
        for (bucket, bound) in self.buckets.iter().zip(BUCKETS) {
            let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {}", bucket.load(Ordering::Relaxed));
        }
        let count = self.count.load(Ordering::Relaxed);
        let sum = self.sum_us.load(Ordering::Relaxed) as f64 / 1e6;
        let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}");
    }
}

/// The figures of a server.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    duration: Histogram,
    first_token: Histogram,
    queue: Histogram,
    pub(crate) prompt_tokens: AtomicU64,
    pub(crate) cached_tokens: AtomicU64,
    pub(crate) completion_tokens: AtomicU64,
    guessed_tokens: AtomicU64,
    right_guesses: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    pub(crate) refused_busy: AtomicU64,
    pub(crate) connections_open: AtomicU64,
    pub(crate) connections_refused: AtomicU64,
    pub(crate) panics: AtomicU64,
}

/// Figures that are read off other parts when asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) in_flight: usize,
    pub(crate) waiting: usize,
    pub(crate) memory_used_bytes: u64,
    pub(crate) memory_budget_bytes: u64,
    pub(crate) longest_step: Duration,
    /// Name, pages in use, cached and free.
    pub(crate) pages: Vec<(String, [usize; 3])>,
}

impl Metrics {
    pub(crate) fn request(&self, route: &'static str, status: u16, time: Duration) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((route, status)).or_default() += 1;
        drop(requests);
        self.duration.add(time);
    }

    pub(crate) fn queued(&self, time: Duration) {
        self.queue.add(time);
    }

    pub(crate) fn answered(&self, usage: &Usage) {
        self.prompt_tokens.fetch_add(usage.prompt_tokens as u64, Ordering::Relaxed);
        self.completion_tokens.fetch_add(usage.completion_tokens as u64, Ordering::Relaxed);
        self.cached_tokens.fetch_add(usage.cached_tokens as u64, Ordering::Relaxed);
        self.guessed_tokens.fetch_add(usage.guessed_tokens as u64, Ordering::Relaxed);
        self.right_guesses.fetch_add(usage.right_guesses as u64, Ordering::Relaxed);
        if !usage.time_to_first_token.is_zero() {
            self.first_token.add(usage.time_to_first_token);
        }
    }

    /// All of it as text.
    pub(crate) fn text(&self, gauges: &Gauges) -> String {
        let mut out = String::new();
        let _ =
            writeln!(out, "# HELP kun_requests_total Requests answered.\n# TYPE kun_requests_total counter");
        for ((route, status), count) in self.requests.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = writeln!(out, "kun_requests_total{{route=\"{route}\",status=\"{status}\"}} {count}");
        }
        self.duration.write("kun_request_seconds", "Time until the answer began.", &mut out);
        self.first_token.write("kun_time_to_first_token_seconds", "Time until the first token.", &mut out);
        self.queue.write("kun_queue_seconds", "Time spent waiting for a turn.", &mut out);
        let counters = [
            ("kun_prompt_tokens_total", "Tokens of prompts.", &self.prompt_tokens),
            ("kun_cached_tokens_total", "Tokens of prompts found in the prefix cache.", &self.cached_tokens),
            ("kun_completion_tokens_total", "Tokens of answers.", &self.completion_tokens),
            ("kun_guessed_tokens_total", "Tokens that were guessed (--draft).", &self.guessed_tokens),
            ("kun_right_guesses_total", "Guesses that were picked.", &self.right_guesses),
            ("kun_cancelled_total", "Answers whose client left.", &self.cancelled),
            ("kun_refused_busy_total", "Requests refused because the queue was full.", &self.refused_busy),
            ("kun_connections_refused_total", "Connections closed at once.", &self.connections_refused),
            ("kun_panics_total", "Requests that failed by a fault of this program.", &self.panics),
        ];
        for (name, about, value) in counters {
            let value = value.load(Ordering::Relaxed);
            let _ = writeln!(out, "# HELP {name} {about}\n# TYPE {name} counter\n{name} {value}");
        }
        let connections = self.connections_open.load(Ordering::Relaxed);
        for (name, about, value) in [
            ("kun_connections", "Open connections.", connections),
            ("kun_requests_in_flight", "Answers running or waiting.", gauges.in_flight as u64),
            ("kun_requests_waiting", "Answers waiting for their turn.", gauges.waiting as u64),
            (
                "kun_step_seconds",
                "How long the present step of a model has run, the longest of all.",
                gauges.longest_step.as_secs(),
            ),
            ("kun_memory_used_bytes", "Memory of loaded models.", gauges.memory_used_bytes),
            ("kun_memory_budget_bytes", "Memory that models may take.", gauges.memory_budget_bytes),
        ] {
            let _ = writeln!(out, "# HELP {name} {about}\n# TYPE {name} gauge\n{name} {value}");
        }
        let _ = writeln!(
            out,
            "# HELP kun_cache_pages Pages of the key/value cache.\n# TYPE kun_cache_pages gauge"
        );
        for (model, pages) in &gauges.pages {
            // Names of models come from this disk; a quote in one must not end the label.
            let model = model.replace(['"', '\\', '\n'], "_");
            for (state, count) in ["in_use", "cached", "free"].iter().zip(pages) {
                let _ = writeln!(out, "kun_cache_pages{{model=\"{model}\",state=\"{state}\"}} {count}");
            }
        }
        out
    }
}
