//! Places among the requests that run or wait, and how long a new request would wait.
//!
//! Whoever would wait too long is told at once: the decision needs nothing but counters and the times that earlier
//! answers took, so a refusal costs as little as the request's body.

use crate::App;
use crate::error::{Kind, Refusal};
use kun_engine::Tenant;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Requests that run or wait.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    total: usize,
    by_tenant: BTreeMap<Tenant, usize>,
    /// By model: each has its own worker.
    lines: BTreeMap<PathBuf, Line>,
    entered: u64,
}

/// The requests of one model.
#[derive(Debug, Default)]
struct Line {
    waiting: usize,
    /// When those that run had their turn.
    running: BTreeMap<u64, Instant>,
    /// How long an answer runs from its turn to its end, smoothed; none before the first has ended.
    run_time: Option<Duration>,
}

impl Line {
    /// How long the last of `count` newcomers waits, where `slots` run together.
    fn wait(&self, count: usize, slots: usize, now: Instant) -> Duration {
        let slots = slots.max(1);
        let free = slots.saturating_sub(self.running.len());
        let behind = (self.waiting + count).saturating_sub(free);
        if behind == 0 {
            return Duration::ZERO;
        }
        let usual = self.run_time.unwrap_or_default();
        let ages = self.running.values().map(|since| now.saturating_duration_since(*since));
        // What has run longer than usual is expected to run as long again.
        let left = ages.map(|age| if age < usual { usual - age } else { age });
        // Those who take the free slots have all of their time before them.
        let mut left: Vec<Duration> = left.chain(std::iter::repeat_n(usual, free)).collect();
        left.sort_unstable();
        let round =
            left.iter().sum::<Duration>().checked_div(left.len() as u32).unwrap_or_default().max(usual);
        // The first newcomers take the slots in the order in which they become free, the next ones a round later.
        let (rounds, slot) = ((behind - 1) / left.len(), (behind - 1) % left.len());
        round.saturating_mul(rounds as u32).saturating_add(left[slot])
    }

    fn ended(&mut self, took: Duration) {
        self.run_time = Some(match self.run_time {
            Some(before) => before.mul_f64(0.9) + took.mul_f64(0.1),
            None => took,
        });
    }
}

/// A place among the requests that run or wait; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    app: Arc<App>,
    tenant: Tenant,
    place: Place,
}

/// How far a request is.
#[derive(Debug)]
enum Place {
    /// It has a place; its model is not known yet, or has no turns.
    Reserved,
    /// It waits for its turn in the line of a model.
    Waiting(PathBuf),
    /// It runs.
    Running(PathBuf, u64),
}

impl App {
    /// Takes places for `count` answers, or says when to come again.
    pub(crate) fn reserve(self: &Arc<App>, tenant: Tenant, count: usize) -> Result<Vec<Permit>, Refusal> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(self.busy(Kind::Unavailable, "The server is stopping."));
        }
        let most = self.places();
        if count > most {
            let what = format!("`n` asks for {count} answers at once, at most {most} are allowed");
            return Err(Refusal::invalid("n", what).code("invalid_value"));
        }
        let most_of_one = self.most_of_one();
        let mut queue = self.queue();
        let own = queue.by_tenant.get(&tenant).copied().unwrap_or(0);
        let queue_is_full = queue.total + count > most;
        if queue_is_full || own + count > most_of_one {
            drop(queue);
            self.metrics.refused_busy.fetch_add(1, Ordering::Relaxed);
            let what = if queue_is_full {
                format!("Too many requests wait already: the server takes {most} together.")
            } else {
                format!("Too many requests of this key wait already: it may have {most_of_one} together.")
            };
            return Err(self.busy(Kind::TooMany, &what));
        }
        queue.total += count;
        *queue.by_tenant.entry(tenant).or_default() += count;
        drop(queue);
        Ok((0..count).map(|_| Permit { app: self.clone(), tenant, place: Place::Reserved }).collect())
    }

    /// Puts requests into the line of their model, or says at once that they would wait too long.
    pub(crate) fn line_up(&self, permits: &mut [Permit], model: &Path) -> Result<(), Refusal> {
        let most = self.options.limits.queue_time;
        let mut queue = self.queue();
        let line = queue.lines.entry(model.to_owned()).or_default();
        if line.wait(permits.len(), self.slots(), Instant::now()) > most {
            drop(queue);
            self.metrics.refused_busy.fetch_add(1, Ordering::Relaxed);
            let what = format!(
                "The request would wait too long for its turn: more than {} seconds.",
                most.as_secs_f32()
            );
            return Err(self.busy(Kind::TooMany, &what));
        }
        line.waiting += permits.len();
        for permit in permits {
            permit.place = Place::Waiting(model.to_owned());
        }
        Ok(())
    }

    /// A refusal with the time after which a place should be free.
    pub(crate) fn busy(&self, kind: Kind, message: &str) -> Refusal {
        let (queue, now) = (self.queue(), Instant::now());
        let wait = queue.lines.values().map(|line| line.wait(1, self.slots(), now)).max().unwrap_or_default();
        drop(queue);
        // Clients that were refused together should not come back together.
        let jitter =
            f64::from(std::time::UNIX_EPOCH.elapsed().unwrap_or_default().subsec_micros() % 1000) / 1000.0;
        let wait = wait.mul_f64(0.8 + 0.4 * jitter).clamp(Duration::from_secs(1), Duration::from_secs(60));
        Refusal { retry_after: Some(wait), ..Refusal::new(kind, message) }
    }

    /// Requests that may run or wait together.
    pub(crate) fn places(&self) -> usize {
        self.slots().saturating_mul(1 + self.options.limits.queue_per_slot)
    }

    /// Of those, requests of one key: with several keys no single one may fill the queue.
    pub(crate) fn most_of_one(&self) -> usize {
        if self.options.keys.is_empty() { self.places() } else { self.places().div_ceil(2) }
    }

    /// Requests that run or wait.
    pub(crate) fn in_flight(&self) -> usize {
        self.queue().total
    }

    /// Requests that wait for their turn.
    pub(crate) fn waiting(&self) -> usize {
        self.queue().lines.values().map(|line| line.waiting).sum()
    }
}

impl Permit {
    /// Its turn has come.
    pub(crate) fn runs(&mut self) {
        let Place::Waiting(model) = std::mem::replace(&mut self.place, Place::Reserved) else { return };
        let mut queue = self.app.queue();
        queue.entered += 1;
        let number = queue.entered;
        let line = queue.lines.entry(model.clone()).or_default();
        line.waiting = line.waiting.saturating_sub(1);
        line.running.insert(number, Instant::now());
        drop(queue);
        self.place = Place::Running(model, number);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut queue = self.app.queue();
        queue.total = queue.total.saturating_sub(1);
        if let Some(own) = queue.by_tenant.get_mut(&self.tenant) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                queue.by_tenant.remove(&self.tenant);
            }
        }
        match &self.place {
            Place::Reserved => {}
            Place::Waiting(model) => {
                if let Some(line) = queue.lines.get_mut(model) {
                    line.waiting = line.waiting.saturating_sub(1);
                }
            }
            Place::Running(model, number) => {
                if let Some(line) = queue.lines.get_mut(model)
                    && let Some(since) = line.running.remove(number)
                {
                    line.ended(since.elapsed());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Line;
    use std::time::{Duration, Instant};

    const SECOND: Duration = Duration::from_secs(1);

    fn line(now: Instant, waiting: usize, running: u64, age: Duration, run_time: Option<Duration>) -> Line {
        let running = (0..running).map(|number| (number, now - age)).collect();
        Line { waiting, running, run_time }
    }

    #[test]
    fn nobody_waits_while_a_slot_is_free() {
        let now = Instant::now() + 600 * SECOND;
        assert_eq!(line(now, 0, 0, SECOND, None).wait(4, 4, now), Duration::ZERO);
        assert_eq!(line(now, 0, 3, SECOND, Some(60 * SECOND)).wait(1, 4, now), Duration::ZERO);
        assert_eq!(line(now, 1, 2, SECOND, Some(60 * SECOND)).wait(1, 4, now), Duration::ZERO);
    }

    #[test]
    fn newcomers_take_the_slots_in_the_order_in_which_they_become_free() {
        let now = Instant::now() + 600 * SECOND;
        let full = |waiting| {
            let running = (1..=4).map(|n| (u64::from(n), now - n * SECOND)).collect();
            Line { waiting, running, run_time: Some(8 * SECOND) }
        };
        // Those that run have 4, 5, 6 and 7 seconds left.
        assert_eq!(full(0).wait(1, 4, now), 4 * SECOND);
        assert_eq!(full(0).wait(4, 4, now), 7 * SECOND);
        assert_eq!(full(3).wait(1, 4, now), 7 * SECOND);
        assert_eq!(full(5).wait(1, 4, now), (8 + 5) * SECOND, "a round later");
        // Two run, two slots are taken by those who wait: they have all their time before them.
        let half = line(now, 2, 2, SECOND, Some(8 * SECOND));
        assert_eq!(half.wait(1, 4, now), 7 * SECOND);
        assert_eq!(half.wait(3, 4, now), 8 * SECOND);
    }

    #[test]
    fn answers_that_run_longer_than_those_before_are_expected_to_go_on() {
        let now = Instant::now() + 600 * SECOND;
        assert_eq!(line(now, 0, 4, 40 * SECOND, Some(SECOND)).wait(1, 4, now), 40 * SECOND);
        assert_eq!(line(now, 4, 4, 40 * SECOND, None).wait(1, 4, now), 80 * SECOND);
        assert_eq!(line(now, 3, 4, Duration::ZERO, None).wait(1, 4, now), Duration::ZERO, "nothing is known");
    }

    #[test]
    fn the_time_of_an_answer_follows_what_is_measured() {
        let mut line = Line::default();
        line.ended(10 * SECOND);
        assert_eq!(line.run_time, Some(10 * SECOND));
        (0..100).for_each(|_| line.ended(SECOND));
        let run_time = line.run_time.unwrap();
        assert!(run_time >= SECOND && run_time < SECOND * 11 / 10, "{run_time:?}");
    }
}
