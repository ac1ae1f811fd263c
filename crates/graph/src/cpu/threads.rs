//! The compute pool: threads that stay hot between the steps of one token and sleep when there is nothing to do.

use crate::cpu::shared::{Job, Lent};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A value on cache lines of its own, so that threads spinning on it do not slow its neighbours; two lines, because
/// processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

/// How long an idle thread keeps looking for work before it sleeps.
const IDLE_SPIN: Duration = Duration::from_micros(150);
/// Looks at a phase before a thread offers its core to others: a peer that late has lost its core.
const PHASE_SPINS: u32 = 20_000;

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
    /// Number of the job in the upper bits, how many threads it takes in the lower [`LOW_BITS`].
    ticket: Padded<AtomicU64>,
    job: Lent,
    /// Number of the job in the upper bits, [`CLOSED`], and the workers inside in the lower bits.
    gate: Padded<AtomicU64>,
    /// Number of the phase, from 1 in every job.
    phase: Padded<AtomicU64>,
    /// Of each thread's own tasks: number of the phase in the upper bits, how many are claimed in the lower [`LOW_BITS`].
    claimed: Box<[Padded<AtomicU64>]>,
    /// Tasks of the phase that are done.
    done: Padded<AtomicUsize>,
    aborted: AtomicBool,
    stop: AtomicBool,
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    /// Looks before yielding; low when there are more threads than cores.
    spins: u32,
}

const LOW_BITS: u32 = 32;
const LOW: u64 = (1 << LOW_BITS) - 1;
/// A job that workers may not enter any more.
const CLOSED: u64 = 1 << 31;

/// One thread's view of the job that it runs with its peers.
#[derive(Debug)]
pub struct Worker<'a> {
    shared: &'a Shared,
    /// From 0; 0 is the caller of [`Pool::run`].
    pub index: usize,
    /// Most threads in this job.
    pub threads: usize,
    phase: Cell<u64>,
}

impl Pool {
    /// A pool of `threads` threads (at least 1), the caller of [`Pool::run`] being one of them.
    ///
    /// # Errors
    /// The system's, if it refuses a thread.
    pub fn new(threads: usize) -> std::io::Result<Pool> {
        let threads = threads.clamp(1, 1 << 16);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let spins = if threads > cores { 50 } else { PHASE_SPINS };
        let claimed = (0..threads).map(|_| Padded::default()).collect();
        let shared = Arc::new(Shared { spins, claimed, ..Shared::default() });
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

    /// Runs `body` on up to `threads` threads at once (at most [`Pool::threads`]) and returns when all have left it.
    ///
    /// The caller always takes part. A worker that comes late finds the phases that are over and skips them; one that
    /// comes after the caller has finished does not enter at all. Callers from different threads wait for each other.
    /// `body` must not call `run` of the same pool.
    ///
    /// # Errors
    /// [`Panicked`] if `body` panicked on any thread; the pool stays usable.
    pub fn run(
        &self,
        threads: usize,
        body: impl Fn(&Worker<'_>) -> Result<(), Panicked> + Sync,
    ) -> Result<(), Panicked> {
        self.run_in(lock(&self.running), threads, body)
    }

    /// Runs `body` for every task below `tasks`: on up to `threads` threads, or on this one alone if the pool is busy, as
    /// waiting for others would take longer than what is asked for here.
    ///
    /// # Errors
    /// As for [`Pool::run`].
    pub fn share(&self, threads: usize, tasks: usize, body: impl Fn(usize) + Sync) -> Result<(), Panicked> {
        let turn = match self.running.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            Err(TryLockError::WouldBlock) => {
                (0..tasks).for_each(body);
                return Ok(());
            }
        };
        self.run_in(turn, threads.min(tasks), |worker| worker.phase(tasks, &body))
    }

    /// [`Pool::run`] by whoever has the turn.
    fn run_in(
        &self,
        _turn: MutexGuard<'_, ()>,
        threads: usize,
        body: impl Fn(&Worker<'_>) -> Result<(), Panicked> + Sync,
    ) -> Result<(), Panicked> {
        let threads = threads.clamp(1, self.threads());
        let shared = &*self.shared;
        shared.phase.0.store(1, Ordering::Relaxed);
        shared.claimed.iter().for_each(|claimed| claimed.0.store(0, Ordering::Relaxed));
        shared.done.0.store(0, Ordering::Relaxed);
        shared.aborted.store(false, Ordering::Relaxed);
        let guarded = |index: usize| {
            let worker = Worker { shared, index, threads, phase: Cell::new(1) };
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
        if threads > 1 {
            shared.gate.0.fetch_or(CLOSED, Ordering::AcqRel);
            let mut looks = 0;
            while shared.gate.0.load(Ordering::Acquire) & (CLOSED - 1) > 0 {
                shared.pause(&mut looks);
            }
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
        let number = (self.ticket.0.load(Ordering::Relaxed) >> LOW_BITS).wrapping_add(1) & LOW;
        self.gate.0.store(number << LOW_BITS, Ordering::Release);
        // Sequentially consistent, as is the count of sleepers: either this thread sees a sleeper or the sleeper sees the
        // ticket before it sleeps.
        self.ticket.0.store(number << LOW_BITS | threads as u64, Ordering::SeqCst);
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
            if index < (ticket & LOW) as usize && self.enter(ticket >> LOW_BITS) {
                self.job.call(index);
                self.gate.0.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    /// Enters job `number`, unless it is over.
    fn enter(&self, number: u64) -> bool {
        let open = |gate: u64| (gate >> LOW_BITS == number && gate & CLOSED == 0).then_some(gate + 1);
        self.gate.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, open).is_ok()
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
            if self.spins < PHASE_SPINS || started.get_or_insert_with(Instant::now).elapsed() > IDLE_SPIN {
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

    /// Claims one of the `count` own tasks that `thread` has in `phase`; none if all are claimed, as they are when the phase
    /// is over.
    fn next(&self, thread: usize, phase: u64, count: u64) -> Option<u64> {
        let claimed = &self.claimed[thread].0;
        let mut now = claimed.load(Ordering::Acquire);
        loop {
            // What is claimed of an earlier phase says that this one's have not begun.
            let index = match (now >> LOW_BITS).cmp(&phase) {
                std::cmp::Ordering::Less => 0,
                std::cmp::Ordering::Equal => now & LOW,
                std::cmp::Ordering::Greater => return None,
            };
            if index >= count {
                return None;
            }
            let after = phase << LOW_BITS | (index + 1);
            match claimed.compare_exchange_weak(now, after, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(index),
                Err(newer) => now = newer,
            }
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
    /// Runs `body` for every task below `tasks`, each on one of the job's threads, and returns when all are done; what
    /// they wrote is seen after. All threads must go through the same phases in the same order.
    ///
    /// Tasks are begun in about their order. The phase waits for tasks, not for threads: a thread that lost its core between
    /// two tasks holds nobody up, as others take over its own. So whatever depends on the memory of the phase must be done
    /// inside `body`.
    ///
    /// # Errors
    /// [`Panicked`] if a peer panicked; the caller must return.
    pub fn phase(&self, tasks: usize, body: impl FnMut(usize)) -> Result<(), Panicked> {
        let threads = self.threads;
        let own = |thread: usize| (tasks + threads - 1 - thread) / threads;
        self.claim(tasks, own, |thread, index| thread + index * threads, body)
    }

    /// [`Worker::phase`] whose tasks are neighbours in memory: the first ones are the first thread's own, and so on, so that
    /// phases over the same memory find most of it in their own core's cache.
    ///
    /// # Errors
    /// As for [`Worker::phase`].
    pub fn phase_by_place(&self, tasks: usize, body: impl FnMut(usize)) -> Result<(), Panicked> {
        self.phase_from(|thread| tasks * thread / self.threads, body)
    }

    /// [`Worker::phase_by_place`] where thread `i` has the tasks from `first(i)` to before `first(i + 1)` for its own;
    /// `first(threads)` is the number of tasks.
    ///
    /// # Errors
    /// As for [`Worker::phase`].
    pub fn phase_from(
        &self,
        first: impl Fn(usize) -> usize,
        body: impl FnMut(usize),
    ) -> Result<(), Panicked> {
        let own = |thread: usize| first(thread + 1) - first(thread);
        self.claim(first(self.threads), own, |thread, index| first(thread) + index, body)
    }

    /// Runs a phase in which thread `t` has `own(t)` tasks, of which `task(t, i)` is the `i`th.
    fn claim(
        &self,
        tasks: usize,
        own: impl Fn(usize) -> usize,
        task: impl Fn(usize, usize) -> usize,
        mut body: impl FnMut(usize),
    ) -> Result<(), Panicked> {
        let phase = self.phase.get();
        self.phase.set(phase + 1);
        if self.threads == 1 {
            (0..tasks).for_each(body);
            return Ok(());
        }
        let shared = self.shared;
        if tasks == 0 {
            // Whoever comes first ends an empty phase.
            let _ = shared.phase.0.compare_exchange(phase, phase + 1, Ordering::AcqRel, Ordering::Acquire);
            return Ok(());
        }
        let mut finished = 0;
        // Its own tasks, then what is left of the others'.
        for thread in (self.index..self.threads).chain(0..self.index) {
            let count = u64::try_from(own(thread)).ok().filter(|&n| n < LOW).expect("fewer than 2^32 tasks");
            while let Some(index) = shared.next(thread, phase, count) {
                body(task(thread, index as usize));
                finished += 1;
            }
        }
        if finished > 0 && shared.done.0.fetch_add(finished, Ordering::AcqRel) + finished == tasks {
            shared.done.0.store(0, Ordering::Relaxed);
            shared.phase.0.store(phase + 1, Ordering::Release);
            return Ok(());
        }
        let mut looks = 0;
        while shared.phase.0.load(Ordering::Acquire) == phase {
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
    fn runs_every_task_once_and_phases_one_after_the_other() {
        for threads in [1, 2, 3, 5] {
            let pool = Pool::new(threads).unwrap();
            for round in 0..200 {
                let seen: Vec<AtomicUsize> = (0..50).map(|_| AtomicUsize::new(0)).collect();
                let active = round % threads + 1;
                pool.run(active, |worker| {
                    assert_eq!(worker.threads, active);
                    for phase in 0..20 {
                        // A peer that is still in another phase would see another count.
                        let body = |task: usize| {
                            assert_eq!(seen[task].fetch_add(1, Ordering::Relaxed), phase);
                        };
                        match phase % 2 {
                            0 => worker.phase(seen.len(), body)?,
                            _ => worker.phase_by_place(seen.len(), body)?,
                        }
                        worker.phase(1, |_| ())?;
                        worker.phase(0, |_| unreachable!("there are no tasks"))?;
                    }
                    Ok(())
                })
                .unwrap();
                assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 20));
            }
        }
    }

    #[test]
    fn shared_tasks_run_once_though_the_pool_is_busy() {
        let pool = Pool::new(2).unwrap();
        let done: Vec<AtomicUsize> = (0..9).map(|_| AtomicUsize::new(0)).collect();
        let count = |task: usize| {
            done[task].fetch_add(1, Ordering::Relaxed);
        };
        pool.share(2, done.len(), count).unwrap();
        pool.run(2, |worker| {
            worker.phase(1, |_| {
                let ask = std::thread::scope(|scope| scope.spawn(|| pool.share(2, done.len(), count)).join());
                assert_eq!(ask.unwrap(), Ok(()));
            })
        })
        .unwrap();
        assert!(done.iter().all(|count| count.load(Ordering::Relaxed) == 2));
        assert_eq!(pool.share(2, 3, |task| assert_ne!(task, 1, "on purpose")), Err(Panicked));
        assert_eq!(pool.share(2, 0, |_| unreachable!("there are no tasks")), Ok(()));
    }

    #[test]
    fn a_panic_in_any_task_is_an_error_and_the_pool_goes_on() {
        let pool = Pool::new(3).unwrap();
        for unlucky in 0..30 {
            let result = pool.run(3, |worker| {
                worker.phase(30, |task| assert_ne!(task, unlucky, "on purpose"))?;
                worker.phase(30, |_| ())
            });
            assert_eq!(result, Err(Panicked));
            assert_eq!(pool.run(3, |worker| worker.phase(3, |_| ())), Ok(()));
        }
    }

    #[test]
    fn a_late_thread_does_not_hold_up_the_others() {
        let pool = Pool::new(2).unwrap();
        let late = Duration::from_millis(300);
        let done = AtomicUsize::new(0);
        pool.run(2, |worker| {
            if worker.index == 1 {
                std::thread::sleep(late);
                assert_eq!(done.load(Ordering::Relaxed), 100, "the caller went on alone");
            }
            for _ in 0..100 {
                worker.phase(1, |_| {
                    done.fetch_add(1, Ordering::Relaxed);
                })?;
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(done.load(Ordering::Relaxed), 100);
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
                        pool.run(2, |worker| {
                            worker.phase(2, |_| {
                                total.fetch_add(1, Ordering::Relaxed);
                            })
                        })
                        .unwrap();
                    }
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 4 * 50 * 2);
    }
}
