//! What the fuzz targets share: an allocator that counts, and the bound that each input must stay within.
#![forbid(unsafe_code)]

use kun_testkit::peak_memory::{CountingAllocator, abort_above};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Leaves panics that the code under test catches to it, where libFuzzer's hook ends the process at once (after a
/// backtrace, which takes more memory than an input may). A panic that nothing catches still ends the process.
pub fn allow_caught_panics() {
    std::panic::set_hook(Box::new(|_| {}));
}

/// Runs `work` on an input of `input_bytes`; the process ends if it takes more than 8 times that and 16 MiB.
pub fn bounded<T>(input_bytes: usize, work: impl FnOnce() -> T) -> T {
    within(input_bytes.saturating_mul(8).saturating_add(16 << 20), work)
}

/// Runs `work`; the process ends if it takes more than `bytes` of memory.
pub fn within<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    abort_above(Some(bytes));
    let value = work();
    abort_above(None);
    value
}
