//! This machine and the most it can do, measured in about a second.

use crate::{budget, cores};
use kun_graph::Isa;
use kun_graph::peak::{self, Arithmetic};
use kun_tensor::storage::HugeBuffer;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a machine is.
#[derive(Clone, Debug, PartialEq)]
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
}

/// What a machine can do at most, all threads together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Threads measured with.
    pub threads: usize,
    /// Bytes read per second from memory on huge pages.
    pub memory_bytes_per_s: f64,
    /// f32 operations per second; a multiplication and an addition are two.
    pub f32_operations_per_s: f64,
    /// bf16 operations per second, where the machine has an instruction for them.
    pub bf16_operations_per_s: Option<f64>,
    /// int8 operations per second, where the machine has an instruction for them.
    pub int8_operations_per_s: Option<f64>,
    /// Time in which a line of memory goes from one thread to another and back, where there are two: several times longer
    /// between cores that share no cache.
    pub round_trip: Option<Duration>,
}

/// Describes this machine.
pub fn describe() -> Machine {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|l| l.strip_prefix("model name")?.trim_start().strip_prefix(':'));
    Machine {
        cpu: name.map(|n| n.trim().to_owned()),
        isa: Isa::detect().name(),
        isa_levels: Isa::available().into_iter().map(Isa::name).collect(),
        cores: cores::physical_cores(),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        available_bytes: budget::available_bytes(),
    }
}

/// Largest buffer that bandwidth is measured on: far larger than any cache.
const BUFFER_BYTES: usize = 256 << 20;
/// Rounds of a peak loop between two looks at the clock.
const ROUNDS: u64 = 100_000;

/// Measures the machine's limits with `threads` threads (at least 1), each quantity for about `time`; the best of
/// several passes counts, since other programs can only slow them.
pub fn measure(threads: usize, time: Duration) -> Limits {
    let threads = threads.max(1);
    let arithmetic = |kind| {
        let one = |rounds| peak::run(Isa::detect(), kind, rounds);
        one(1)?;
        Some(best_rate(threads, time, |_| one(ROUNDS).unwrap_or(0)))
    };
    Limits {
        threads,
        memory_bytes_per_s: memory_rate(threads, time),
        f32_operations_per_s: arithmetic(Arithmetic::F32).unwrap_or(0.0),
        bf16_operations_per_s: arithmetic(Arithmetic::Bf16),
        int8_operations_per_s: arithmetic(Arithmetic::Int8),
        round_trip: (threads > 1).then(|| round_trip(time / 4)),
    }
}

/// Time of a round trip of one line between two threads: the best of several hundred in a row, over `time`.
fn round_trip(time: Duration) -> Duration {
    const ROUNDS: u64 = 200;
    const STOP: u64 = u64::MAX;
    /// Looks before a thread offers its core, which the other may be waiting for.
    const LOOKS: u32 = 100_000;
    #[repr(align(128))]
    struct Line(AtomicU64);
    let line = Line(AtomicU64::new(0));
    let wait = |wanted: u64| {
        let mut looks = 0u32;
        loop {
            let now = line.0.load(Ordering::Acquire);
            if now == wanted || now == STOP {
                return now;
            }
            looks += 1;
            if looks.is_multiple_of(LOOKS) {
                std::thread::yield_now();
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut odd = 1;
            while wait(odd) == odd {
                line.0.store(odd + 1, Ordering::Release);
                odd += 2;
            }
        });
        let (mut even, mut best) = (0, Duration::MAX);
        let started = Instant::now();
        while started.elapsed() < time || best == Duration::MAX {
            let before = Instant::now();
            for _ in 0..ROUNDS {
                line.0.store(even + 1, Ordering::Release);
                even = wait(even + 2);
            }
            best = best.min(before.elapsed() / ROUNDS as u32);
        }
        line.0.store(STOP, Ordering::Release);
        best
    })
}

fn memory_rate(threads: usize, time: Duration) -> f64 {
    let room = budget::available_bytes().map_or(BUFFER_BYTES as u64, |free| free / 4);
    let bytes = BUFFER_BYTES.min(usize::try_from(room).unwrap_or(BUFFER_BYTES)).max(1 << 20);
    let Ok(mut buffer) = HugeBuffer::zeroed(bytes) else { return 0.0 };
    // Parts of one length: the amount of a pass is that of the first thread times the threads.
    let part = bytes / threads / 64 * 64;
    // Untouched memory is one shared page of zeros, which would be read from a cache.
    std::thread::scope(|scope| {
        for slice in buffer.as_mut_slice().chunks_mut(part) {
            scope.spawn(|| slice.fill(1));
        }
    });
    let parts: Vec<&[u8]> = buffer.as_slice().chunks(part).collect();
    best_rate(threads, time, |thread| {
        let own = parts.get(thread).copied().unwrap_or(&[]);
        std::hint::black_box(sum(own));
        own.len() as u64
    })
}

/// Sum of the 64-bit words.
fn sum(bytes: &[u8]) -> u64 {
    let mut lanes = [0u64; 8];
    for line in bytes.as_chunks::<64>().0 {
        for (lane, word) in lanes.iter_mut().zip(line.as_chunks::<8>().0) {
            *lane = lane.wrapping_add(u64::from_le_bytes(*word));
        }
    }
    lanes.into_iter().fold(0, u64::wrapping_add)
}

/// Runs `work` on all threads at once, over and over for `time`, and gives the best amount per second of one pass.
fn best_rate(threads: usize, time: Duration, work: impl Fn(usize) -> u64 + Sync) -> f64 {
    let barrier = Barrier::new(threads);
    let stop = AtomicBool::new(false);
    let started = Instant::now();
    let pass = |thread: usize| {
        barrier.wait();
        let amount = work(thread);
        barrier.wait();
        amount
    };
    std::thread::scope(|scope| {
        for thread in 1..threads {
            let (pass, stop, barrier) = (&pass, &stop, &barrier);
            scope.spawn(move || {
                loop {
                    barrier.wait();
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    pass(thread);
                }
            });
        }
        let mut best = 0.0f64;
        loop {
            stop.store(started.elapsed() >= time && best > 0.0, Ordering::Relaxed);
            barrier.wait();
            if stop.load(Ordering::Relaxed) {
                return best;
            }
            let before = Instant::now();
            let amount = pass(0) * threads as u64;
            best = best.max(amount as f64 / before.elapsed().as_secs_f64());
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{describe, measure, sum};
    use std::time::Duration;

    #[test]
    fn limits_are_those_of_a_machine() {
        for threads in [1, 2] {
            let limits = measure(threads, Duration::from_millis(40));
            assert!((1e8..1e13).contains(&limits.memory_bytes_per_s), "{limits:?}");
            assert!((1e8..1e15).contains(&limits.f32_operations_per_s), "{limits:?}");
            assert_eq!(limits.round_trip.is_some(), threads > 1);
            assert!(limits.round_trip.is_none_or(|time| time > Duration::ZERO), "{limits:?}");
        }
        let machine = describe();
        assert!(machine.isa_levels.contains(&machine.isa));
        assert!(machine.cores >= 1 && machine.threads >= machine.cores);
    }

    #[test]
    fn sums_every_word() {
        let bytes: Vec<u8> = (0..=255).cycle().take(640).collect();
        let words = bytes.chunks(8).map(|w| u64::from_le_bytes(w.try_into().unwrap()));
        assert_eq!(sum(&bytes), words.fold(0, u64::wrapping_add));
    }
}
