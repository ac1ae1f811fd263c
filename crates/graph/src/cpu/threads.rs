//! The compute pool: threads that stay hot between the steps of one token and sleep when there is nothing to do.

use crate::cpu::shared::{Job, Lent};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A value on cache lines of its own, so that threads spinning on it do not slow its neighbours; two lines, because
/// processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

/// How long an idle thread keeps looking for work before it sleeps.
const IDLE_SPIN: Duration = Duration::from_micros(150);
/// Looks at a barrier before a thread offers its core to others: a peer that late has lost its core.
const BARRIER_SPINS: u32 = 20_000;

/// A thread of the pool panicked, or a peer did and this thread stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a compute thread panicked")]
pub struct Panicked;

/// Threads that run one job at a time, all together.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    running: Mutex<()>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Number of the job in the upper bits, how many threads it takes in the lower [`ACTIVE_BITS`].
    ticket: Padded<AtomicU64>,
    job: Lent,
    finished: Padded<AtomicUsize>,
    arrived: Padded<AtomicUsize>,
    generation: Padded<AtomicUsize>,
    claimed: Padded<AtomicUsize>,
    aborted: AtomicBool,
    stop: AtomicBool,
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    /// Looks before yielding; low when there are more threads than cores.
    spins: u32,
}

const ACTIVE_BITS: u32 = 16;

/// One thread's view of the job that it runs with its peers.
#[derive(Debug)]
pub struct Worker<'a> {
    shared: &'a Shared,
    /// From 0; 0 is the caller of [`Pool::run`].
    pub index: usize,
    /// Threads in this job.
    pub threads: usize,
}

impl Pool {
    /// A pool of `threads` threads (at least 1), the caller of [`Pool::run`] being one of them.
    ///
    /// # Errors
    /// The system's, if it refuses a thread.
    pub fn new(threads: usize) -> std::io::Result<Pool> {
        let threads = threads.clamp(1, (1 << ACTIVE_BITS) - 1);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let spins = if threads > cores { 50 } else { BARRIER_SPINS };
        let shared = Arc::new(Shared { spins, ..Shared::default() });
        let mut pool = Pool { shared: Arc::clone(&shared), running: Mutex::new(()), workers: Vec::new() };
        for index in 1..threads {
            let shared = Arc::clone(&shared);
            let worker = std::thread::Builder::new()
                .name(format!("kun-compute-{index}"))
                .spawn(move || shared.serve(index))?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// Threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `body` on `threads` threads at once (at most [`Pool::threads`]) and waits for all of them.
    ///
    /// Callers from different threads wait for each other. `body` must not call `run` of the same pool.
    ///
    /// # Errors
    /// [`Panicked`] if `body` panicked on any thread; the pool stays usable.
    pub fn run(
        &self,
        threads: usize,
        body: impl Fn(&Worker<'_>) -> Result<(), Panicked> + Sync,
    ) -> Result<(), Panicked> {
        let threads = threads.clamp(1, self.threads());
        let shared = &*self.shared;
        let _turn = lock(&self.running);
        shared.finished.0.store(0, Ordering::Relaxed);
        shared.arrived.0.store(0, Ordering::Relaxed);
        shared.claimed.0.store(0, Ordering::Relaxed);
        shared.aborted.store(false, Ordering::Relaxed);
        let guarded = |index: usize| {
            let worker = Worker { shared, index, threads };
            if !matches!(catch_unwind(AssertUnwindSafe(|| body(&worker))), Ok(Ok(()))) {
                shared.aborted.store(true, Ordering::Release);
            }
        };
        let job: Job<'_> = &guarded;
        shared.job.lend(&job);
        if threads > 1 {
            shared.announce(threads);
        }
        job(0);
        let mut looks = 0;
        while shared.finished.0.load(Ordering::Acquire) < threads - 1 {
            shared.pause(&mut looks);
        }
        if shared.aborted.load(Ordering::Acquire) { Err(Panicked) } else { Ok(()) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        {
            let _asleep = lock(&self.shared.sleep);
            self.shared.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            // A worker catches the panics of jobs; it has nothing else to report.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn announce(&self, threads: usize) {
        let next = (self.ticket.0.load(Ordering::Relaxed) >> ACTIVE_BITS) + 1;
        // Sequentially consistent, as is the count of sleepers: either this thread sees a sleeper or the sleeper sees the
        // ticket before it sleeps.
        self.ticket.0.store(next << ACTIVE_BITS | threads as u64, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let _asleep = lock(&self.sleep);
            self.wake.notify_all();
        }
    }

    fn serve(&self, index: usize) {
        let mut last = 0;
        loop {
            let ticket = self.next_ticket(last);
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            last = ticket;
            if index < (ticket & ((1 << ACTIVE_BITS) - 1)) as usize {
                self.job.call(index);
                self.finished.0.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    fn next_ticket(&self, last: u64) -> u64 {
        let mut started: Option<Instant> = None;
        loop {
            for _ in 0..64 {
                let ticket = self.ticket.0.load(Ordering::Acquire);
                if ticket != last || self.stop.load(Ordering::Relaxed) {
                    return ticket;
                }
                std::hint::spin_loop();
            }
            if self.spins < BARRIER_SPINS || started.get_or_insert_with(Instant::now).elapsed() > IDLE_SPIN {
                break;
            }
        }
        let mut asleep = lock(&self.sleep);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        loop {
            let ticket = self.ticket.0.load(Ordering::SeqCst);
            if ticket != last || self.stop.load(Ordering::SeqCst) {
                self.sleepers.fetch_sub(1, Ordering::SeqCst);
                return ticket;
            }
            asleep = self.wake.wait(asleep).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn pause(&self, looks: &mut u32) {
        if *looks < self.spins {
            *looks += 1;
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

impl Worker<'_> {
    /// The next task of the current step, handed out once; tasks count from 0 after each barrier.
    pub fn claim(&self) -> usize {
        self.shared.claimed.0.fetch_add(1, Ordering::Relaxed)
    }

    /// The next task below `count`, if any is left.
    pub fn claim_below(&self, count: usize) -> Option<usize> {
        Some(self.claim()).filter(|&task| task < count)
    }

    /// Waits for all threads of the job; what they wrote before is seen after.
    ///
    /// # Errors
    /// [`Panicked`] if a peer will not come; the caller must return.
    pub fn barrier(&self) -> Result<(), Panicked> {
        let shared = self.shared;
        if self.threads == 1 {
            shared.claimed.0.store(0, Ordering::Relaxed);
            return Ok(());
        }
        // Stable until this thread itself arrives.
        let generation = shared.generation.0.load(Ordering::Relaxed);
        if shared.arrived.0.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            shared.arrived.0.store(0, Ordering::Relaxed);
            shared.claimed.0.store(0, Ordering::Relaxed);
            shared.generation.0.store(generation.wrapping_add(1), Ordering::Release);
            return Ok(());
        }
        let mut looks = 0;
        while shared.generation.0.load(Ordering::Acquire) == generation {
            if shared.aborted.load(Ordering::Relaxed) {
                return Err(Panicked);
            }
            shared.pause(&mut looks);
        }
        Ok(())
    }
}

fn lock(mutex: &Mutex<()>) -> MutexGuard<'_, ()> {
    // Nothing is protected but the turn itself, so a panic elsewhere leaves nothing half-done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_out_every_task_once_between_barriers() {
        for threads in [1, 2, 3, 5] {
            let pool = Pool::new(threads).unwrap();
            for round in 0..200 {
                let seen: Vec<AtomicUsize> = (0..50).map(|_| AtomicUsize::new(0)).collect();
                let active = round % threads + 1;
                pool.run(active, |worker| {
                    assert_eq!(worker.threads, active);
                    for step in 0..20 {
                        while let Some(task) = worker.claim_below(seen.len()) {
                            // A peer that is still in another step would see another count.
                            assert_eq!(seen[task].fetch_add(1, Ordering::Relaxed), step);
                        }
                        worker.barrier()?;
                    }
                    Ok(())
                })
                .unwrap();
                assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 20));
            }
        }
    }

    #[test]
    fn a_panic_on_any_thread_is_an_error_and_the_pool_goes_on() {
        let pool = Pool::new(3).unwrap();
        for unlucky in 0..3 {
            let result = pool.run(3, |worker| {
                assert_ne!(worker.index, unlucky, "on purpose");
                worker.barrier()?;
                worker.barrier()
            });
            assert_eq!(result, Err(Panicked));
            assert_eq!(pool.run(3, |worker| worker.barrier()), Ok(()));
        }
    }

    #[test]
    fn callers_on_many_threads_take_turns_and_sleepers_wake() {
        let pool = Pool::new(2).unwrap();
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for caller in 0..4 {
                let (pool, total) = (&pool, &total);
                scope.spawn(move || {
                    for round in 0..50 {
                        if round % 10 == caller {
                            // Long enough for the workers to fall asleep.
                            std::thread::sleep(Duration::from_millis(1));
                        }
                        pool.run(2, |_| {
                            total.fetch_add(1, Ordering::Relaxed);
                            Ok(())
                        })
                        .unwrap();
                    }
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 4 * 50 * 2);
    }
}
