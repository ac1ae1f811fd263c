//! A job whose splits are done by a cluster.

use super::request::{Answer, End, Request, Sealed};
use super::submit::{Link, Standing, Submitted, fetch};
use super::{Token, failed, runtime};
use crate::progress::{Counts, Step};
use crate::run::{Checked, Phase, Report, RunOptions, Work};
use crate::store::{is_remote, local_path};
use crate::{BulkError, DoneSplit, Split, Status, job};
use ballista_core::serde::protobuf::PartitionLocation;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// The machines that do a job.
pub struct On {
    /// Host and port of the scheduler.
    pub scheduler: (String, u16),
    /// What the cluster knows its clients by.
    pub token: Option<Token>,
    /// The folder that relative paths begin at.
    pub base: PathBuf,
}

/// More tasks than this are dealt out as tasks of several splits.
const MAX_TASKS: usize = 32_768;
/// How often the scheduler is asked, the output looked at, and progress told.
const ASK_EVERY: Duration = Duration::from_millis(250);
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// Looking at the output may take a twentieth of the time.
const LOOKING_SHARE: u32 = 20;
/// A scheduler that does not answer for so long is away.
const AWAY_AFTER: Duration = Duration::from_secs(60);
/// Files that were written elsewhere may be seen late.
const SEEN_AFTER: Duration = Duration::from_secs(5);
/// A job in which nothing happens for so long is worth a word.
const QUIET: Duration = Duration::from_secs(60);
/// Rounds that do nothing, before the job is given up.
const FRUITLESS: u32 = 2;
/// An executor that cannot do a split holds its answer back: briefly at first, so that nobody waits to hear that no
/// executor can, and longer where others can.
const WAIT: Duration = Duration::from_millis(100);
const WAIT_FOR_OTHERS: Duration = Duration::from_secs(10);
/// When so small a share of the splits is open, those are dealt out once more after half as long again as splits
/// usually take: the machine that has them may be slow, or may have lost its answer.
const TAIL_SHARE: usize = 20;
const TAIL_WAIT: Duration = Duration::from_secs(30);
const COPIES: u32 = 3;
/// Answers that are asked for.
const MAX_ASKED: usize = 16;

/// Text that nobody else has made.
pub(super) fn random() -> String {
    use std::hash::{BuildHasher, RandomState};
    let numbers =
        [RandomState::new().hash_one(std::process::id()), RandomState::new().hash_one(Instant::now())];
    numbers.iter().map(|number| format!("{number:016x}")).collect()
}

impl Checked<'_> {
    /// As [`Checked::run`], with a cluster that does the splits; `note` tells people what is out of the ordinary.
    ///
    /// # Errors
    /// As [`Checked::run`], and [`BulkError::Cluster`] if there is no cluster or it cannot do the job.
    pub fn run_on(
        &self,
        on: &On,
        options: &RunOptions,
        tell: &(dyn Fn(&Status) + Sync),
        note: &dyn Fn(&str),
    ) -> Result<Report, BulkError> {
        self.run_by(options, tell, |work, done| Client::new(work, done, on, note)?.all())
    }
}

struct Client<'a> {
    /// For talk with other machines alone: stores wait by themselves, which nobody may do inside.
    runtime: Runtime,
    work: &'a Work<'a>,
    on: &'a On,
    note: &'a dyn Fn(&str),
    counts: Counts,
    request: Request,
    errors: (u64, u64),
    /// What finished splits took.
    seconds: Vec<f64>,
    noted: BTreeSet<String>,
    /// When the status was written last.
    kept: Option<Instant>,
}

/// What became of splits that were handed over.
enum Watched {
    /// All are done, whatever the scheduler says.
    Done,
    /// All were answered.
    Answered(Vec<PartitionLocation>),
    /// The scheduler has forgotten them, or says why they failed.
    Lost(String),
}

/// How a round of a job ended.
enum Round {
    /// Every split was answered, and the answers of those that are not done were asked for.
    Answered(Vec<Answer>),
    /// The scheduler has forgotten it, or says why it failed.
    Lost(String),
}

impl<'a> Client<'a> {
    fn new(
        work: &'a Work<'a>,
        done: &BTreeMap<String, DoneSplit>,
        on: &'a On,
        note: &'a dyn Fn(&str),
    ) -> Result<Client<'a>, BulkError> {
        let mut job = work.checked.job.clone();
        if !is_remote(&job.output.uri) {
            let slash = if work.place.single.is_none() { "/" } else { "" };
            let path = on.base.join(local_path(&job.output.uri)).display().to_string();
            job.output.uri = format!("{}{slash}", path.trim_end_matches('/'));
        }
        job.output.format = Some(work.place.format);
        // Executors read the plan, and no lists of files; the rows of a query are in a file of the plan.
        if job.input.query.is_none() {
            job.input.uri = vec!["(planned)".to_owned()];
        }
        let identity = work.place.stored_job()?.ok_or_else(|| failed("the job came and went"))?.0;
        let request = Request {
            run: random(),
            phase: Phase::Map,
            base: on.base.clone(),
            job,
            format: work.checked.found().format,
            identity,
        };
        let (rows, errors) = done.values().fold((0, 0), |(r, e), d| (r + d.rows, e + d.errors));
        let counts = work.counts(done);
        Ok(Client {
            runtime: runtime()?,
            work,
            on,
            note,
            counts,
            request,
            errors: (rows, errors),
            seconds: Vec::new(),
            noted: BTreeSet::new(),
            kept: None,
        })
    }

    fn status(&self) -> Status {
        let (rows, bytes) = self.work.totals();
        self.counts.status(self.work.plan.splits.len(), rows, bytes)
    }

    fn tell(&mut self) {
        let status = self.status();
        (self.work.tell)(&status);
        if self.kept.is_some_and(|kept| kept.elapsed() < KEEP_EVERY) {
            return;
        }
        self.kept = Some(Instant::now());
        if let Err(error) = self.work.keep_status(&status) {
            tracing::warn!(%error, "cannot write the status");
        }
    }

    fn say(&mut self, text: String) {
        if self.noted.insert(text.clone()) {
            (self.note)(&plain(&text));
        }
    }

    fn all(&mut self) -> Result<Status, BulkError> {
        let unnoted = Checked::unnoted(self.work)?;
        if !unnoted.is_empty() {
            self.phase(Phase::Survey, unnoted)?;
            Checked::combine_notes(self.work)?;
        }
        let pending: Vec<&Split> = {
            let done = self.work.place.done(&self.work.plan.splits)?;
            self.work.pending(&done)
        };
        self.phase(Phase::Map, pending)?;
        self.tell();
        Ok(self.status())
    }

    /// Deals splits out until all of them are done.
    fn phase(&mut self, phase: Phase, mut pending: Vec<&'a Split>) -> Result<(), BulkError> {
        self.request.phase = phase;
        let (mut fruitless, mut wait) = (0, WAIT);
        while !pending.is_empty() {
            let before = pending.len();
            let round = self.round(&mut pending, wait)?;
            if pending.is_empty() {
                return Ok(());
            }
            (fruitless, wait) =
                if pending.len() < before { (0, WAIT_FOR_OTHERS) } else { (fruitless + 1, WAIT) };
            let (reasons, hopeless) = match round {
                Round::Lost(why) => (vec![why], false),
                Round::Answered(answers) => {
                    let refused = answers.iter().all(|answer| answer.end == End::Refused);
                    (reasons(&answers), refused && !answers.is_empty())
                }
            };
            if fruitless >= FRUITLESS || (fruitless > 0 && hopeless) {
                let what = format!("{} splits could not be done: {}", pending.len(), reasons.join("; "));
                return Err(failed(plain(&what)));
            }
            for reason in reasons {
                self.say(format!("{reason} (its splits are dealt out again)"));
            }
        }
        Ok(())
    }

    /// Hands the splits over once, and watches until they are answered or done; `pending` keeps those that are not done.
    fn round(&mut self, pending: &mut Vec<&'a Split>, wait: Duration) -> Result<Round, BulkError> {
        let (host, port) = &self.on.scheduler;
        let mut link = self.runtime.block_on(Link::open(host, *port))?;
        let count = pending.len().min(MAX_TASKS);
        let mut tasks: Vec<Vec<&Split>> = vec![Vec::new(); count];
        for (at, split) in pending.iter().enumerate() {
            tasks[at % count].push(split);
        }
        let job = self.submit(&mut link, &tasks, wait)?;
        let mut copies = Vec::new();
        let watched = self.watch(&mut link, &job, pending, &mut copies);
        for copy in &copies {
            self.runtime.block_on(link.cancel(copy));
        }
        match &watched {
            // The answers are still to be had.
            Ok(Watched::Answered(_)) => {}
            // Whatever is still being done is of no more use.
            _ => self.runtime.block_on(link.cancel(&job)),
        }
        if let Err(BulkError::Stopped | BulkError::TooManyErrors { .. }) = &watched {
            // Executors look for this.
            self.work.place.cancel()?;
        }
        let locations = match watched? {
            Watched::Done => return Ok(Round::Answered(Vec::new())),
            Watched::Lost(why) => return Ok(Round::Lost(why)),
            Watched::Answered(locations) => locations,
        };
        let open: BTreeSet<usize> = pending.iter().map(|split| split.index).collect();
        let is_open = |location: &PartitionLocation| {
            let task = location.partition_id.as_ref().and_then(|id| tasks.get(id.partition_id as usize));
            task.is_some_and(|task| task.iter().any(|split| open.contains(&split.index)))
        };
        let asked = answers_of(locations.into_iter().filter(is_open).collect(), &open);
        let mut answers = self.runtime.block_on(asked);
        self.runtime.block_on(link.forget(&job));
        if answers.iter().any(|answer| answer.end == End::Done) {
            self.see_late(pending)?;
        }
        answers.retain(|answer| answer.end != End::Done);
        Ok(Round::Answered(answers))
    }

    fn submit(&self, link: &mut Link, tasks: &[Vec<&Split>], wait: Duration) -> Result<Submitted, BulkError> {
        let sealed = Sealed::new(&self.request, self.on.token.as_ref())?;
        let name = format!("kun map {}", self.work.place.uri);
        self.runtime.block_on(link.submit(tasks, sealed, wait, &name))
    }

    /// Half as long again as splits have taken.
    fn patience(&self) -> Duration {
        let mut seconds = self.seconds.clone();
        seconds.sort_by(f64::total_cmp);
        let usual = seconds.get(seconds.len() / 2).copied().unwrap_or(f64::MAX / 4.0);
        Duration::try_from_secs_f64(1.5 * usual).map_or(Duration::MAX / 16, |usual| usual.max(TAIL_WAIT))
    }

    fn watch(
        &mut self,
        link: &mut Link,
        job: &Submitted,
        pending: &mut Vec<&'a Split>,
        copies: &mut Vec<Submitted>,
    ) -> Result<Watched, BulkError> {
        let tail = (pending.len() / TAIL_SHARE).max(2);
        let mut tail_since = None;
        let mut heard = Instant::now();
        let mut look = Instant::now();
        let mut moved = Instant::now();
        let mut quiet = QUIET;
        loop {
            if self.work.options.stop.is_raised() {
                return Err(BulkError::Stopped);
            }
            if Instant::now() >= look {
                // `kun jobs cancel` wants the job to end.
                if self.work.place.is_cancelled() {
                    return Err(BulkError::Stopped);
                }
                let began = Instant::now();
                if self.settle(pending)? {
                    (moved, quiet) = (Instant::now(), QUIET);
                }
                look = Instant::now() + ASK_EVERY.max(began.elapsed() * LOOKING_SHARE);
                self.tell();
            }
            if pending.is_empty() {
                return Ok(Watched::Done);
            }
            match self.runtime.block_on(link.standing(job)) {
                Ok(Standing::Running) => heard = Instant::now(),
                Ok(Standing::Answered(locations)) => {
                    self.settle(pending)?;
                    return Ok(if pending.is_empty() { Watched::Done } else { Watched::Answered(locations) });
                }
                Ok(Standing::Failed(why)) => {
                    self.settle(pending)?;
                    return Ok(Watched::Lost(why));
                }
                Ok(Standing::Unknown) if heard.elapsed() > SEEN_AFTER => {
                    return Ok(Watched::Lost("the scheduler was started anew".to_owned()));
                }
                Ok(Standing::Unknown) => {}
                Err(error) if heard.elapsed() > AWAY_AFTER => return Err(error),
                Err(_) => {}
            }
            let made = u32::try_from(copies.len()).unwrap_or(COPIES);
            if pending.len() <= tail
                && made < COPIES
                && tail_since.get_or_insert_with(Instant::now).elapsed() > self.patience() * 2_u32.pow(made)
            {
                let tasks: Vec<Vec<&Split>> = pending.iter().map(|split| vec![*split]).collect();
                match self.submit(link, &tasks, WAIT) {
                    Ok(copy) => copies.push(copy),
                    Err(error) => tracing::warn!(%error, "cannot deal out the last splits once more"),
                }
            }
            if moved.elapsed() > quiet {
                let minutes = moved.elapsed().as_secs() / 60;
                self.say(format!(
                    "no split has ended for {minutes} min: long ones are at work, or no executor is (`kun cluster \
                     executor`); after Ctrl-C the same command goes on"
                ));
                quiet *= 4;
            }
            std::thread::sleep(ASK_EVERY);
        }
    }

    /// Waits for files that are there and not seen yet.
    fn see_late(&mut self, pending: &mut Vec<&'a Split>) -> Result<(), BulkError> {
        let began = Instant::now();
        loop {
            self.settle(pending)?;
            if pending.is_empty() || began.elapsed() > SEEN_AFTER {
                return Ok(());
            }
            std::thread::sleep(ASK_EVERY);
        }
    }

    /// Takes splits that are done off the list; says whether there were any.
    fn settle(&mut self, pending: &mut Vec<&'a Split>) -> Result<bool, BulkError> {
        let before = pending.len();
        if self.request.phase == Phase::Survey {
            let left: BTreeSet<usize> =
                Checked::unnoted(self.work)?.iter().map(|split| split.index).collect();
            pending.retain(|split| left.contains(&split.index));
            return Ok(pending.len() < before);
        }
        let done = self.work.place.done(pending.iter().copied())?;
        for split in pending.iter() {
            let Some(record) = done.get(&split.id) else { continue };
            let step = Step {
                rows: record.rows,
                errors: record.errors,
                tokens: record.tokens,
                dropped: record.dropped,
                ..Step::default()
            };
            self.seconds.push(record.seconds);
            self.errors = (self.errors.0 + record.rows, self.errors.1 + record.errors);
            self.counts.add(&step);
            self.counts.split_done(split.bytes);
        }
        pending.retain(|split| !done.contains_key(&split.id));
        let ((rows, errors), max_rate) = (self.errors, self.work.checked.job.errors.max_rate);
        if rows >= job::Errors::FEW_ROWS && errors as f64 > max_rate * rows as f64 {
            let column = &self.work.checked.job.errors.column;
            let first = format!("column `{column}` of the parts says why");
            return Err(BulkError::TooManyErrors { errors, rows, max_rate, first });
        }
        Ok(pending.len() < before)
    }
}

/// Some of the answers that lie at executors, about splits that are open.
async fn answers_of(locations: Vec<PartitionLocation>, open: &BTreeSet<usize>) -> Vec<Answer> {
    let is_open = |answer: &Answer| usize::try_from(answer.index).is_ok_and(|index| open.contains(&index));
    let (mut found, mut lost) = (Vec::new(), 0);
    for location in locations {
        match fetch(location).await {
            Ok(answers) => found.extend(answers.into_iter().filter(&is_open)),
            Err(reason) => {
                lost += 1;
                found.push(Answer { index: 0, end: End::Failed, reason, executor: "an executor".to_owned() });
            }
        }
        if found.len() >= MAX_ASKED || lost > 2 {
            break;
        }
    }
    found
}

/// Each reason once, with who gave it first.
fn reasons(answers: &[Answer]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for answer in answers {
        if seen.insert(&answer.reason) {
            found.push(format!("{}: {}", answer.executor, answer.reason));
        }
    }
    if found.is_empty() {
        found.push(
            "executors say that they are done, and their parts are not at the output: do all machines see the same \
             disk there?"
                .to_owned(),
        );
    }
    found
}

/// Without control characters: it comes from other machines.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
