//! How much memory a piece of code takes at most, counted by the allocator.
//!
//! A test binary or fuzz target installs [`CountingAllocator`] with `#[global_allocator]` and asks [`peak_of`].

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};

/// Bytes in use by the whole process.
static IN_USE: AtomicIsize = AtomicIsize::new(0);
/// Above this the process ends, so that a fuzzer sees a crash.
static LIMIT: AtomicIsize = AtomicIsize::new(isize::MAX);

thread_local! {
    /// Bytes that this thread took, less those it gave back (of its own or another thread's).
    static TAKEN: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, counting bytes in use.
pub struct CountingAllocator;

fn grow(bytes: usize) {
    let bytes = bytes.cast_signed();
    let in_use = IN_USE.fetch_add(bytes, Relaxed).wrapping_add(bytes);
    if in_use > LIMIT.load(Relaxed) {
        // The report of the abort itself may allocate.
        LIMIT.store(isize::MAX, Relaxed);
        eprintln!("{in_use} bytes of memory are in use, more than this input may take");
        std::process::abort();
    }
    let taken = TAKEN.get().wrapping_add(bytes);
    TAKEN.set(taken);
    PEAK.set(PEAK.get().max(taken));
}

fn shrink(bytes: usize) {
    IN_USE.fetch_sub(bytes.cast_signed(), Relaxed);
    TAKEN.set(TAKEN.get().wrapping_sub(bytes.cast_signed()));
}

// SAFETY: every call goes to the system's allocator unchanged; counting does not allocate.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        shrink(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both blocks may exist while the content moves.
        grow(size);
        shrink(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Runs `work`; also gives the most bytes that this thread held at once while it ran, beyond those before.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = TAKEN.get();
    PEAK.set(before);
    let value = work();
    (value, PEAK.get().wrapping_sub(before).max(0).cast_unsigned())
}

/// Ends the process with an abort once all its threads together hold more than `bytes` beyond those of now;
/// `None` lifts the limit.
pub fn abort_above(bytes: Option<usize>) {
    let limit = bytes.map_or(isize::MAX, |bytes| IN_USE.load(Relaxed).saturating_add_unsigned(bytes));
    LIMIT.store(limit, Relaxed);
}
