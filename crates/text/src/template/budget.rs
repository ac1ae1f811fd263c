//! What a rendering may use: steps, bytes and time.

use std::time::{Duration, Instant};

use super::Failure;

/// Steps (nodes evaluated, list items visited) of one rendering.
const MAX_STEPS: u64 = 5_000_000;
/// Bytes that one rendering may allocate in all, beside a share for its input.
const BASE_BYTES: u64 = 48 << 20;
/// Bytes more for each byte of input: a long conversation is copied a few times on its way.
const BYTES_PER_INPUT_BYTE: u64 = 24;
/// Bytes that one rendering may allocate whatever its input.
const MAX_BYTES: u64 = 512 << 20;
/// Steps between two looks at the clock.
const STEPS_PER_LOOK: u64 = 512;

/// Counts down. Every allocation is charged before it is made and never credited back, so that what is alive at
/// any time is at most what was charged.
#[derive(Debug)]
pub(super) struct Budget {
    steps_left: u64,
    bytes_left: u64,
    deadline: Instant,
    time_limit: Duration,
}

impl Budget {
    pub fn new(input_bytes: usize, time_limit: Duration) -> Budget {
        let input = u64::try_from(input_bytes).unwrap_or(u64::MAX);
        Budget {
            steps_left: MAX_STEPS,
            bytes_left: input.saturating_mul(BYTES_PER_INPUT_BYTE).saturating_add(BASE_BYTES).min(MAX_BYTES),
            deadline: Instant::now() + time_limit.min(Duration::from_secs(3600)),
            time_limit,
        }
    }

    /// Charges one step.
    pub fn step(&mut self) -> Result<(), Failure> {
        self.steps(1)
    }

    /// Charges `count` steps.
    pub fn steps(&mut self, count: usize) -> Result<(), Failure> {
        let before = self.steps_left / STEPS_PER_LOOK;
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let Some(left) = self.steps_left.checked_sub(count) else {
            return Err(Failure::new(format!("more than {MAX_STEPS} steps")));
        };
        self.steps_left = left;
        if before != left / STEPS_PER_LOOK && Instant::now() >= self.deadline {
            return Err(Failure::new(format!("took longer than {} ms", self.time_limit.as_millis())));
        }
        Ok(())
    }

    /// Charges an allocation of `bytes`, and the time to fill it.
    pub fn allocate(&mut self, bytes: usize) -> Result<(), Failure> {
        let wanted = u64::try_from(bytes).unwrap_or(u64::MAX);
        let Some(left) = self.bytes_left.checked_sub(wanted) else {
            return Err(Failure::new(format!("needs {bytes} bytes more than the memory limit leaves")));
        };
        self.bytes_left = left;
        self.steps(bytes / 256 + 1)
    }

    /// Charges `count` items of `size` bytes.
    pub fn allocate_items(&mut self, count: usize, size: usize) -> Result<(), Failure> {
        self.allocate(count.saturating_mul(size))
    }
}
