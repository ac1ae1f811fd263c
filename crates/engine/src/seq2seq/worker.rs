//! The thread of one loaded encoder-decoder: sources join and leave the batch between steps.

use super::pages::{NoPage, Pages, Table};
use super::search::Next;
use super::{Answer, Job};
use crate::EngineError;
use crate::sampler::Scratch;
use kun_graph::{Inputs, Outputs, PAGE_TOKENS, Program, RunError, Sequence, TensorRef};
use kun_models::seq2seq::Seq2SeqInfo;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

/// What programs were planned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Tokens that the encoder reads at once.
    pub(super) source_tokens: usize,
    /// Rows of a step of the decoder.
    pub(super) rows: usize,
}

/// An answer that is being written.
struct Active {
    job: Job,
    /// Rows of [`Worker::sources`].
    span: Range<usize>,
    /// By row of the search.
    tables: Vec<Table>,
    steps: usize,
}

/// Everything that the thread owns.
pub(super) struct Worker {
    pub(super) encoder: Box<dyn Program>,
    pub(super) decoder: Box<dyn Program>,
    pub(super) commands: Receiver<Job>,
    pub(super) info: Arc<Seq2SeqInfo>,
    pub(super) limits: Limits,
    pub(super) pages: Pages,
    /// Keys and values of all sources at work, by the names of the decoder's inputs.
    sources: Vec<(String, Vec<f32>)>,
    waiting: VecDeque<Job>,
    active: Vec<Active>,
    encoded: Outputs,
    outputs: Outputs,
    scratch: Scratch,
}

fn run_error(error: RunError) -> EngineError {
    EngineError::Run(Arc::new(error))
}

/// The same failure, for one more of those whom it meets.
fn again(error: &EngineError) -> EngineError {
    match error {
        EngineError::Run(error) => EngineError::Run(error.clone()),
        other => EngineError::Mismatch { what: other.to_string() },
    }
}

impl Worker {
    pub(super) fn new(
        encoder: Box<dyn Program>,
        decoder: Box<dyn Program>,
        commands: Receiver<Job>,
        info: Arc<Seq2SeqInfo>,
        limits: Limits,
        pages: usize,
    ) -> Worker {
        let names = (0..info.decoder_layers).flat_map(|i| [format!("keys.{i}"), format!("values.{i}")]);
        Worker {
            sources: names.map(|name| (name, Vec::new())).collect(),
            encoder,
            decoder,
            commands,
            info,
            limits,
            pages: Pages::new(pages),
            waiting: VecDeque::new(),
            active: Vec::new(),
            encoded: Outputs::default(),
            outputs: Outputs::default(),
            scratch: Scratch::default(),
        }
    }

    /// Runs until the last sender of jobs is gone and every answer is given.
    pub(super) fn run(mut self) {
        while self.receive() {
            self.drop_cancelled();
            self.admit();
            if !self.active.is_empty()
                && let Err(error) = self.step()
            {
                // The step is everybody's.
                for active in std::mem::take(&mut self.active) {
                    active.tables.into_iter().for_each(|table| self.pages.release(table));
                    active.job.answer(Err(again(&error)));
                }
                self.sources.iter_mut().for_each(|(_, data)| data.clear());
            }
        }
    }

    fn receive(&mut self) -> bool {
        if self.active.is_empty() && self.waiting.is_empty() {
            match self.commands.recv() {
                Ok(job) => self.waiting.push_back(job),
                Err(_) => return false,
            }
        }
        self.waiting.extend(self.commands.try_iter());
        true
    }

    fn drop_cancelled(&mut self) {
        let gone = |job: &Job| job.cancelled.load(Ordering::Relaxed);
        let (cancelled, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(gone);
        self.waiting = waiting;
        let cancelled: VecDeque<Job> = cancelled;
        cancelled.into_iter().for_each(|job| job.answer(Err(EngineError::Cancelled)));
        while let Some(at) = self.active.iter().position(|active| gone(&active.job)) {
            let active = self.remove(at);
            active.job.answer(Err(EngineError::Cancelled));
        }
    }

    /// Takes an answer out of the batch, with its pages and its source.
    fn remove(&mut self, at: usize) -> Active {
        let mut active = self.active.remove(at);
        std::mem::take(&mut active.tables).into_iter().for_each(|table| self.pages.release(table));
        let (width, span) = (self.info.source_width, active.span.clone());
        for (_, data) in &mut self.sources {
            data.drain(span.start * width..span.end * width);
        }
        for other in &mut self.active {
            if other.span.start >= span.end {
                other.span = other.span.start - span.len()..other.span.end - span.len();
            }
        }
        active
    }

    /// Encodes sources that wait, as long as their answers find rows and the encoder has room.
    fn admit(&mut self) {
        let mut rows: usize = self.active.iter().map(|active| active.job.search.most_rows()).sum();
        let (mut tokens, mut batch) = (0, Vec::new());
        while let Some(job) = self.waiting.front() {
            let beams = job.search.most_rows();
            if rows + beams > self.limits.rows || tokens + job.source.len() > self.limits.source_tokens {
                break;
            }
            rows += beams;
            tokens += job.source.len();
            batch.extend(self.waiting.pop_front());
        }
        if batch.is_empty() {
            return;
        }
        if let Err(error) = self.encode(&batch) {
            batch.into_iter().for_each(|job| job.answer(Err(again(&error))));
            return;
        }
        for (name, data) in &mut self.sources {
            if let Some(tensor) = self.encoded.tensors.get(name) {
                data.extend_from_slice(&tensor.data);
            }
        }
        let mut first = self.active.iter().map(|active| active.span.end).max().unwrap_or(0);
        for job in batch {
            let span = first..first + job.source.len();
            first = span.end;
            self.active.push(Active { job, span, tables: vec![Table::new()], steps: 0 });
        }
    }

    fn encode(&mut self, batch: &[Job]) -> Result<(), EngineError> {
        let tokens: Vec<i32> = batch.iter().flat_map(|job| &job.source).map(|id| *id as i32).collect();
        let first = self.info.first_position.unwrap_or(0);
        let positions: Vec<i32> =
            batch.iter().flat_map(|job| first..first + job.source.len()).map(|p| p as i32).collect();
        let shape = [tokens.len()];
        let mut tensors = vec![("tokens", TensorRef::I32(&tokens, &shape))];
        tensors.extend(self.info.first_position.map(|_| ("positions", TensorRef::I32(&positions, &shape))));
        let sequences: Vec<Sequence<'_>> =
            batch.iter().map(|job| Sequence { start: 0, tokens: job.source.len(), pages: &[] }).collect();
        self.encoder.run(&Inputs { tensors, sequences: &sequences }, &mut self.encoded).map_err(run_error)
    }

    /// One more token of every answer.
    fn step(&mut self) -> Result<(), EngineError> {
        let broken = |NoPage| EngineError::Mismatch { what: "more pages than were reserved".to_owned() };
        let first = self.info.first_position.unwrap_or(0);
        let (mut tokens, mut positions, mut spans) = (Vec::new(), Vec::new(), Vec::new());
        for active in &mut self.active {
            let at = active.job.search.len() - 1;
            for (token, table) in active.job.search.last_tokens().zip(&mut active.tables) {
                if table.len() == at / PAGE_TOKENS {
                    self.pages.extend(table).map_err(broken)?;
                }
                tokens.push(token as i32);
                let place =
                    if self.info.unplaced == Some(token) { first.saturating_sub(1) } else { first + at };
                positions.push(place as i32);
                spans.extend([active.span.start as i32, active.span.end as i32]);
            }
            active.steps += 1;
        }
        let sequences: Vec<Sequence<'_>> = self
            .active
            .iter()
            .flat_map(|active| {
                let start = active.job.search.len() - 1;
                active.tables.iter().map(move |pages| Sequence { start, tokens: 1, pages })
            })
            .collect();
        let t = tokens.len();
        let rows: Vec<i32> = (0..t as i32).collect();
        let width = self.info.source_width;
        let source_rows = self.sources.first().map_or(0, |(_, data)| data.len() / width);
        let (shape, span_shape, source_shape) = ([t], [t, 2], [source_rows, width]);
        let mut tensors = vec![
            ("tokens", TensorRef::I32(&tokens, &shape)),
            ("rows", TensorRef::I32(&rows, &shape)),
            ("spans", TensorRef::I32(&spans, &span_shape)),
        ];
        tensors.extend(self.info.first_position.map(|_| ("positions", TensorRef::I32(&positions, &shape))));
        tensors.extend(
            self.sources.iter().map(|(name, data)| (name.as_str(), TensorRef::F32(data, &source_shape))),
        );
        self.decoder.run(&Inputs { tensors, sequences: &sequences }, &mut self.outputs).map_err(run_error)?;
        drop(sequences);

        let mut logits = self.outputs.tensors.remove("logits").unwrap_or_default().data;
        let mut rest = logits.as_mut_slice();
        let vocab = self.info.model.vocab_size;
        let mut ended = Vec::new();
        for (index, active) in self.active.iter_mut().enumerate() {
            let cached = active.job.search.len();
            let (own, after) = rest.split_at_mut(active.tables.len() * vocab);
            rest = after;
            match active.job.search.advance(own, &mut self.scratch) {
                Ok(Next::Continue { parents }) => {
                    let tables = std::mem::take(&mut active.tables);
                    let parted = self.pages.part(tables, &parents, cached / PAGE_TOKENS);
                    let (tables, copies) = parted.map_err(broken)?;
                    active.tables = tables;
                    for (from, to) in copies {
                        self.decoder.copy_page(from, to).map_err(run_error)?;
                    }
                }
                Ok(Next::Done { tokens, score }) => ended.push((index, Ok((tokens, score)))),
                Err(error) => ended.push((index, Err(error))),
            }
        }
        for (index, result) in ended.into_iter().rev() {
            let active = self.remove(index);
            let (steps, source_tokens) = (active.steps, active.job.source.len());
            active.job.answer(result.map(|(tokens, score)| Answer { tokens, score, steps, source_tokens }));
        }
        Ok(())
    }
}
