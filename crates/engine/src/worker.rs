//! The thread of one loaded model: it owns the compiled program and runs one step after the other.

use crate::EngineError;
use crate::batcher::{Limits, Part, next_batch};
use crate::kv_cache::{Beginning, OutOfPages, PageCounts, PagePool};
use crate::queue::{DECODE_COST, Shares};
use crate::request::Class;
use crate::sampler::Scratch;
use crate::sequence::{Next, Sequence};
use crate::speculate::{self, Ask, Drafter, look_up};
use kun_graph::{Inputs, Outputs, Program, RunError, TensorRef};
use kun_text::Tokenizer;
use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Steps of one kind and the time they took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepTimes {
    /// How many.
    pub steps: u64,
    /// From the start of one to the start of the next, picking tokens included.
    pub time: Duration,
}

/// What a worker tells about itself.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    figures: Mutex<Figures>,
}

/// The figures behind [`Shared`].
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) pages: PageCounts,
    /// When the present step began; `None` between steps.
    pub(crate) step_started: Option<Instant>,
    /// Running sequences that were put back in line.
    pub(crate) preemptions: u64,
    /// Steps that did nothing but decode, by number of sequences.
    pub(crate) decode: BTreeMap<usize, StepTimes>,
}

impl Shared {
    pub(crate) fn figures(&self) -> MutexGuard<'_, Figures> {
        // Plain numbers: no panic can leave them half-written.
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything that the thread owns.
pub(crate) struct Worker {
    pub(crate) program: Box<dyn Program>,
    pub(crate) commands: Receiver<Vec<Sequence>>,
    pub(crate) limits: Limits,
    pub(crate) pages: PagePool,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) waiting: VecDeque<Sequence>,
    /// In the order in which they were admitted.
    pub(crate) running: Vec<Sequence>,
    pub(crate) shares: Shares,
    pub(crate) buffers: Buffers,
    /// Guesses at the next tokens.
    pub(crate) drafter: Option<Drafter>,
    /// Sequences that have arrived so far.
    pub(crate) arrived: u64,
}

/// Reused from step to step.
#[derive(Default)]
pub(crate) struct Buffers {
    tokens: Vec<i32>,
    positions: Vec<i32>,
    rows: Vec<i32>,
    outputs: Outputs,
    /// Of each thread that picks tokens.
    scratch: Mutex<Vec<Scratch>>,
}

impl Worker {
    /// Runs until the last sender of commands is gone and every sequence has ended.
    pub(crate) fn run(mut self) {
        while self.receive() {
            self.drop_cancelled();
            self.admit();
            if !self.running.is_empty() {
                self.shared.figures().step_started = Some(Instant::now());
                self.step();
            }
            let mut figures = self.shared.figures();
            figures.pages = self.pages.counts();
            figures.step_started = None;
        }
    }

    /// Takes new sequences, waiting for one if there is nothing else to do; `false` at the end.
    fn receive(&mut self) -> bool {
        if self.running.is_empty() && self.waiting.is_empty() {
            match self.commands.recv() {
                Ok(sequences) => self.arrive(sequences),
                Err(_) => return false,
            }
        }
        loop {
            match self.commands.try_recv() {
                Ok(sequences) => self.arrive(sequences),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return true,
            }
        }
    }

    fn arrive(&mut self, sequences: Vec<Sequence>) {
        for mut sequence in sequences {
            let active = self.running.iter().chain(&self.waiting).map(|s| s.tenant);
            self.shares.arrive(sequence.tenant, active);
            sequence.id = self.arrived;
            self.arrived += 1;
            self.waiting.push_back(sequence);
        }
    }

    fn drop_cancelled(&mut self) {
        if self.waiting.iter().any(Sequence::is_cancelled) {
            let (gone, waiting) =
                std::mem::take(&mut self.waiting).into_iter().partition(Sequence::is_cancelled);
            self.waiting = waiting;
            for sequence in Vec::<Sequence>::from(gone) {
                self.pages.release(sequence.cancel());
            }
        }
        for sequence in self.running.extract_if(.., |s| s.is_cancelled()) {
            self.pages.release(sequence.cancel());
        }
    }

    /// Lets sequences in, next in line first, while there is a place and pages for all of their tokens.
    fn admit(&mut self) {
        loop {
            let Some(next) = self.shares.next(self.waiting.iter().map(|s| (s.class, s.tenant))) else {
                return;
            };
            if self.running.len() >= self.limits.sequences {
                if self.make_way(next) {
                    continue;
                }
                return;
            }
            let Some(mut sequence) = self.waiting.remove(next) else { return };
            let (may_reuse, mut reused) = (sequence.may_reuse(), 0);
            if may_reuse {
                reused = self.pages.reuse(&mut sequence.table, sequence.tenant, &sequence.tokens);
            }
            // Every running answer needs a page of its own soon: without it they would push each other out.
            let spare = self.running.len();
            let missing = PagePool::pages_for(sequence.tokens.len()) - sequence.table.pages().len();
            if !self.running.is_empty() && missing + spare > self.pages.available() {
                self.pages.release(sequence.give_up_pages());
                self.waiting.insert(next, sequence);
                return;
            }
            if may_reuse {
                if let Some(Beginning { from, to, tokens }) =
                    self.pages.begin(&mut sequence.table, &sequence.tokens)
                    && self.program.copy_page(from, to).is_ok()
                {
                    reused += tokens;
                }
                sequence.reused(reused);
            }
            sequence.admitted();
            self.running.push(sequence);
        }
    }

    /// Puts bulk work back in line when interactive work waits; `false` if there is none.
    fn make_way(&mut self, next: usize) -> bool {
        let bulk = |s: &Sequence| s.class == Class::Bulk;
        if self.waiting.get(next).is_none_or(bulk) {
            return false;
        }
        let Some(youngest) = self.running.iter().rposition(bulk) else { return false };
        self.put_back(youngest);
        true
    }

    /// Takes a running sequence's pages; its tokens are computed again when it is next in line.
    fn put_back(&mut self, index: usize) {
        let mut sequence = self.running.remove(index);
        self.shared.figures().preemptions += 1;
        self.pages.release(sequence.give_up_pages());
        self.waiting.push_front(sequence);
    }

    /// The parts of the next step, with pages for all of their tokens; the youngest sequences are put back until
    /// there are enough.
    fn parts(&mut self) -> Vec<Part> {
        loop {
            let pending: Vec<_> = self.running.iter().map(Sequence::pending).collect();
            let mut parts = next_batch(&pending, self.limits);
            self.add_guesses(&mut parts);
            match parts.iter().try_for_each(|part| self.make_room(part)) {
                Ok(()) => return parts,
                // Nobody gives way to a guess.
                Err(OutOfPages) if self.running.iter().any(|s| !s.guesses.is_empty()) => {
                    self.running.iter_mut().for_each(|s| s.guesses.clear());
                }
                // A single sequence always fits: no context is longer than the cache.
                Err(OutOfPages) if self.running.len() > 1 => self.put_back(self.running.len() - 1),
                Err(OutOfPages) => return parts,
            }
        }
    }

    /// Guesses at what answers that decode will say next.
    fn guess(&mut self) {
        let Worker { drafter: Some(drafter), running, .. } = self else { return };
        running.iter_mut().for_each(|s| s.guesses.clear());
        if let Drafter::Model(model) = drafter {
            model.keep(&running.iter().map(|s| s.id).collect());
        }
        if running.len() > speculate::MOST_SEQUENCES {
            return;
        }
        let wanted: Vec<usize> = running.iter_mut().map(Sequence::wanted_guesses).collect();
        let asks: Vec<Ask<'_>> = running
            .iter()
            .zip(&wanted)
            .filter(|(_, most)| **most > 0)
            .map(|(s, most)| Ask { id: s.id, tokens: &s.tokens, most: *most })
            .collect();
        let guesses: Vec<Vec<u32>> = match drafter {
            _ if asks.is_empty() => return,
            Drafter::Lookup => asks.iter().map(|ask| look_up(ask.tokens, ask.most).to_vec()).collect(),
            Drafter::Model(model) => match model.guess(&asks) {
                Ok(guesses) => guesses,
                Err(error) => {
                    // Answers need no guesses.
                    tracing::warn!(%error, "the draft model failed; nothing is guessed any more");
                    self.drafter = None;
                    return;
                }
            },
        };
        let asking = running.iter_mut().zip(wanted).filter(|(_, most)| *most > 0);
        for ((sequence, _), guesses) in asking.zip(guesses) {
            sequence.guesses = guesses;
        }
    }

    /// Lengthens the parts of answers by their guesses, as far as the step has room.
    fn add_guesses(&mut self, parts: &mut [Part]) {
        let mut tokens = self.limits.tokens - parts.iter().map(|part| part.tokens).sum::<usize>();
        let mut rows = self.limits.rows - parts.iter().map(|part| part.rows.len()).sum::<usize>();
        for part in parts {
            let guesses = &mut self.running[part.sequence].guesses;
            guesses.truncate(tokens.min(rows));
            if !guesses.is_empty() {
                (tokens, rows) = (tokens - guesses.len(), rows - guesses.len());
                part.tokens += guesses.len();
                part.rows.end += guesses.len();
            }
        }
    }

    fn make_room(&mut self, part: &Part) -> Result<(), OutOfPages> {
        let sequence = &mut self.running[part.sequence];
        self.pages.extend(&mut sequence.table, sequence.cached + part.tokens)
    }

    fn step(&mut self) {
        let started = Instant::now();
        self.guess();
        let parts = self.parts();
        let only_decodes = parts.iter().all(|p| self.running[p.sequence].decodes());
        if let Err(error) = self.compute(&parts).and_then(|()| self.distribute(&parts, started)) {
            let error = Arc::new(error);
            for part in parts.iter().rev() {
                let sequence = self.running.remove(part.sequence);
                self.pages.release(sequence.fail(EngineError::Run(error.clone())));
            }
            return;
        }
        if only_decodes {
            let mut figures = self.shared.figures();
            let times = figures.decode.entry(parts.len()).or_default();
            times.steps += 1;
            times.time += started.elapsed();
        }
    }

    /// Runs the program over `parts`; the logits of their rows are in the outputs afterwards.
    fn compute(&mut self, parts: &[Part]) -> Result<(), RunError> {
        let buffers = &mut self.buffers;
        buffers.tokens.clear();
        buffers.positions.clear();
        buffers.rows.clear();
        for part in parts {
            let sequence = &self.running[part.sequence];
            let end = sequence.cached + part.tokens;
            let first = buffers.tokens.len();
            buffers.rows.extend(part.rows.clone().map(|r| (first + r) as i32));
            buffers.tokens.extend(sequence.upcoming(part.tokens).map(|id| id as i32));
            buffers.positions.extend((sequence.cached..end).map(|p| p as i32));
        }
        let sequences: Vec<kun_graph::Sequence<'_>> = parts
            .iter()
            .map(|part| {
                let sequence = &self.running[part.sequence];
                kun_graph::Sequence {
                    start: sequence.cached,
                    tokens: part.tokens,
                    pages: sequence.table.pages(),
                }
            })
            .collect();
        let (t, r) = ([buffers.tokens.len()], [buffers.rows.len()]);
        let inputs = Inputs {
            tensors: vec![
                ("tokens", TensorRef::I32(&buffers.tokens, &t)),
                ("positions", TensorRef::I32(&buffers.positions, &t)),
                ("rows", TensorRef::I32(&buffers.rows, &r)),
            ],
            sequences: &sequences,
        };
        self.program.run(&inputs, &mut buffers.outputs)
    }

    /// Gives every sequence its logits, several at once, and takes those that end out of the running ones.
    fn distribute(&mut self, parts: &[Part], started: Instant) -> Result<(), RunError> {
        struct Turn<'a> {
            part: &'a Part,
            sequence: &'a mut Sequence,
            logits: &'a mut [f32],
            next: Next,
        }
        let took = started.elapsed();
        let Worker { buffers, running, shares, tokenizer, .. } = self;
        let logits = match buffers.outputs.tensors.get_mut("logits") {
            Some(tensor) => tensor.data.as_mut_slice(),
            None => &mut [],
        };
        let width = logits.len().checked_div(buffers.rows.len()).unwrap_or(0);
        let mut rest = logits;
        let mut running = running.iter_mut().enumerate();
        let mut turns = Vec::with_capacity(parts.len());
        for part in parts {
            let (logits, others) = std::mem::take(&mut rest).split_at_mut(part.rows.len() * width);
            rest = others;
            let Some((_, sequence)) = running.find(|(index, _)| *index == part.sequence) else { continue };
            let cost = if sequence.decodes() { DECODE_COST } else { part.tokens as u64 };
            shares.serve(sequence.tenant, cost);
            turns.push(Mutex::new(Turn { part, sequence, logits, next: Next::Continues }));
        }
        let scratches = &buffers.scratch;
        self.program.share(turns.len(), &|task| {
            let mut turn = turns[task].lock().unwrap_or_else(PoisonError::into_inner);
            let Turn { part, sequence, logits, next } = &mut *turn;
            let spare = || scratches.lock().unwrap_or_else(PoisonError::into_inner);
            let mut scratch = spare().pop().unwrap_or_default();
            *next = sequence.advance(part.tokens, part.rows.clone(), logits, took, tokenizer, &mut scratch);
            spare().push(scratch);
        })?;
        let mut ended = Vec::new();
        for turn in turns {
            let Turn { part, sequence, next, .. } = turn.into_inner().unwrap_or_else(PoisonError::into_inner);
            self.pages.publish(&mut sequence.table, sequence.tenant, &sequence.tokens, sequence.cached);
            if next == Next::Finished {
                ended.push(part.sequence);
            }
        }
        for index in ended.into_iter().rev() {
            let sequence = self.running.remove(index);
            self.pages.release(sequence.table);
        }
        Ok(())
    }
}
