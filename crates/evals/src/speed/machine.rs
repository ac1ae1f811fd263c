//! The machine and its limits, for reports.

use kun_engine::machine;
use serde::Serialize;
use std::time::Duration;

/// What a machine can do at most, with all threads asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Limits {
    /// Threads measured with.
    pub threads: usize,
    /// 10^9 bytes read per second from memory.
    pub memory_gb_per_s: f64,
    /// 10^9 f32 operations per second.
    pub f32_gflops: f64,
    /// 10^9 bf16 operations per second, where the machine has them.
    pub bf16_gflops: Option<f64>,
    /// 10^9 int8 operations per second, where the machine has them.
    pub int8_gops: Option<f64>,
    /// Nanoseconds in which a line of memory goes from one thread to another and back, where there are two: several times
    /// longer between cores that share no cache.
    pub round_trip_ns: Option<f64>,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machine {
    /// The processor's name, where the system tells it.
    pub cpu: Option<String>,
    /// The instruction set that kernels are chosen for.
    pub isa: &'static str,
    /// Every instruction-set level it has, worst to best.
    pub isa_levels: Vec<&'static str>,
    /// Physical cores that this process may use.
    pub cores: usize,
    /// Hardware threads that this process may use.
    pub threads: usize,
    /// Memory that this process may still take.
    pub available_bytes: Option<u64>,
    /// What it can do.
    pub limits: Limits,
}

/// Time for each quantity.
const MEASURE: Duration = Duration::from_millis(250);

impl Limits {
    /// Measures with `threads` threads; takes about a second.
    pub fn measure(threads: usize) -> Limits {
        let limits = machine::measure(threads, MEASURE);
        Limits {
            threads: limits.threads,
            memory_gb_per_s: limits.memory_bytes_per_s / 1e9,
            f32_gflops: limits.f32_operations_per_s / 1e9,
            bf16_gflops: limits.bf16_operations_per_s.map(|r| r / 1e9),
            int8_gops: limits.int8_operations_per_s.map(|r| r / 1e9),
            round_trip_ns: limits.round_trip.map(|time| time.as_secs_f64() * 1e9),
        }
    }
}

/// Describes and measures this machine; `threads` is `None` for one per physical core.
pub fn machine(threads: Option<usize>) -> Machine {
    let described = machine::describe();
    let limits = Limits::measure(threads.unwrap_or(described.cores));
    Machine {
        cpu: described.cpu,
        isa: described.isa,
        isa_levels: described.isa_levels,
        cores: described.cores,
        threads: described.threads,
        available_bytes: described.available_bytes,
        limits,
    }
}
