//! A generation from a request's side: its place in the queue, its events, its end.

use crate::App;
use crate::app::Chosen;
use crate::error::{Kind, Refusal};
use crate::queue::Permit;
use crate::routes::{Call, out_of_patience};
use crate::trace::{Attribute, Trace};
use kun_engine::{
    Canceller, EngineError, Event, EventSink, FinishReason, GenerateRequest, OutputParser, Piece,
    TokenLogprob, Usage,
};
use ring::rand::{SecureRandom, SystemRandom};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};

/// How long everybody waits who was let in.
const LEAST_PATIENCE: Duration = Duration::from_secs(5);

/// Twenty-four letters and digits that no other answer has.
pub(crate) fn random_id() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0; 24];
    // Ids must differ, not be secret: without randomness they all read the same.
    let _ = SystemRandom::new().fill(&mut bytes);
    bytes.iter().map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).collect()
}

/// When the steps of an answer reach whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// Each as it comes.
    Stream,
    /// All at the end: nobody is woken for a token that nobody reads yet.
    Whole,
}

impl Delivery {
    pub(crate) fn streamed(stream: bool) -> Delivery {
        if stream { Delivery::Stream } else { Delivery::Whole }
    }
}

enum Message {
    Admitted,
    Events(Vec<Result<Event, EngineError>>),
}

struct Sink {
    to: UnboundedSender<Message>,
    delivery: Delivery,
    held: Vec<Result<Event, EngineError>>,
}

impl EventSink for Sink {
    fn admitted(&mut self) {
        let _ = self.to.send(Message::Admitted);
    }
    fn event(&mut self, event: Result<Event, EngineError>) -> bool {
        let goes_on = matches!(event, Ok(Event::Token { .. }));
        self.held.push(event);
        if goes_on && self.delivery == Delivery::Whole {
            return !self.to.is_closed();
        }
        self.to.send(Message::Events(std::mem::take(&mut self.held))).is_ok()
    }
}

/// What a span of an answer tells.
struct Noted {
    trace: Option<Trace>,
    asked: Instant,
    /// Time until the turn came.
    waited: Duration,
    model: String,
    usage: Option<Usage>,
}

impl Noted {
    fn tell(&self, app: &App, failed: bool) {
        let (Some(tracer), Some(trace)) = (app.tracer.get(), self.trace) else { return };
        let usage = self.usage.clone().unwrap_or_default();
        let about = [
            ("gen_ai.request.model", Attribute::Text(&self.model)),
            ("gen_ai.usage.input_tokens", Attribute::Count(usage.prompt_tokens as u64)),
            ("gen_ai.usage.output_tokens", Attribute::Count(usage.completion_tokens as u64)),
            ("kun.cached_tokens", Attribute::Count(usage.cached_tokens as u64)),
            ("kun.queue_us", Attribute::Count(self.waited.as_micros() as u64)),
            ("kun.prefill_us", Attribute::Count(usage.prefill_time.as_micros() as u64)),
            ("kun.decode_us", Attribute::Count(usage.decode_time.as_micros() as u64)),
        ];
        tracer.part(trace, "generate", self.asked, failed, &about);
    }
}

/// Cancels when dropped.
struct Guard {
    canceller: Canceller,
    app: Arc<App>,
    finished: bool,
    noted: Noted,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.finished {
            self.canceller.cancel();
            self.app.metrics.cancelled.fetch_add(1, Ordering::Relaxed);
        }
        self.noted.tell(&self.app, self.noted.usage.is_none());
    }
}

/// An answer in the making. Dropping it cancels it.
pub(crate) struct Answer {
    messages: UnboundedReceiver<Message>,
    /// Arrived and not yet looked at.
    events: VecDeque<Result<Event, EngineError>>,
    parser: OutputParser,
    thoughts: Thoughts,
    prompt_tokens: usize,
    /// Comes after the last pieces.
    end: Option<Step>,
    guard: Guard,
    /// Keeps the model loaded.
    _chosen: Chosen,
    permit: Permit,
}

/// The next of an answer.
#[derive(Debug)]
pub(crate) enum Step {
    /// What became final with a token; the pieces may be none. Log-probabilities if asked for.
    Pieces { pieces: Vec<Piece>, logprob: Option<(TokenLogprob, Vec<TokenLogprob>)> },
    End {
        reason: FinishReason,
        calls: usize,
        usage: Usage,
        /// Tokens of the answer that the model thought before it answered.
        thoughts: usize,
    },
}

/// Counts tokens of thoughts. One whose text is held back counts as what came before it.
#[derive(Debug, Default)]
struct Thoughts {
    inside: bool,
    tokens: usize,
}

impl Thoughts {
    /// A token, and what became certain with it.
    fn token(&mut self, pieces: &[Piece]) {
        if let Some(last) = pieces.last() {
            self.inside = matches!(last, Piece::Reasoning(_));
        }
        self.tokens += usize::from(self.inside);
    }
}

impl Answer {
    /// Tokenizes, queues and waits for the turn.
    pub(crate) async fn start(
        app: &Arc<App>,
        permit: Permit,
        chosen: Chosen,
        request: GenerateRequest,
        delivery: Delivery,
        trace: Option<Trace>,
    ) -> Result<Answer, Refusal> {
        let (to, messages) = unbounded_channel();
        let sink = Sink { to, delivery, held: Vec::new() };
        let queued = Instant::now();
        let (app2, model) = (app.clone(), chosen.model.clone());
        let noted =
            Noted { trace, asked: queued, waited: Duration::ZERO, model: chosen.name.clone(), usage: None };
        // Reading the prompt keeps its place to its end, also if the client leaves meanwhile.
        let (guard, parser, prompt_tokens, permit) = Call::blocking(move || {
            let engine = app2.library.engine().clone();
            let started = engine.generate_into(&model, request, Box::new(sink))?;
            Ok((
                Guard { canceller: started.canceller, app: app2, finished: false, noted },
                started.parser,
                started.prompt_tokens,
                permit,
            ))
        })
        .await?;
        let mut answer = Answer {
            messages,
            events: VecDeque::new(),
            parser,
            thoughts: Thoughts::default(),
            prompt_tokens,
            end: None,
            guard,
            _chosen: chosen,
            permit,
        };
        // Whoever was let in was expected to have the turn in less than half of this time.
        let patience = app.options.limits.queue_time * 2 + LEAST_PATIENCE;
        match timeout(patience, answer.messages.recv()).await {
            Ok(Some(Message::Admitted)) => answer.permit.runs(),
            Ok(Some(Message::Events(events))) => match events.into_iter().next() {
                Some(Err(error)) => return Err(error.into()),
                _ => return Err(EngineError::Unloaded.into()),
            },
            Ok(None) => return Err(EngineError::Unloaded.into()),
            Err(_) => {
                app.metrics.refused_busy.fetch_add(1, Ordering::Relaxed);
                return Err(app.busy(Kind::TooMany, "The request waited too long for its turn."));
            }
        }
        answer.guard.noted.waited = queued.elapsed();
        app.metrics.queued(answer.guard.noted.waited);
        Ok(answer)
    }

    /// The next step; none after the end.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Step, Refusal>>> {
        if self.guard.finished {
            return Poll::Ready(self.end.take().map(Ok));
        }
        let event = loop {
            if let Some(event) = self.events.pop_front() {
                break event;
            }
            match std::task::ready!(self.messages.poll_recv(context)) {
                Some(Message::Admitted) => {}
                Some(Message::Events(events)) => self.events.extend(events),
                None => break Err(EngineError::Unloaded),
            }
        };
        Poll::Ready(Some(match event {
            Ok(Event::Token { text, logprob, top_logprobs, .. }) => {
                let pieces = self.parser.push(&text);
                self.thoughts.token(&pieces);
                Ok(Step::Pieces { pieces, logprob: logprob.map(|own| (own, top_logprobs)) })
            }
            Ok(Event::Done { reason, text, usage }) => {
                let mut pieces = self.parser.push(&text);
                pieces.extend(self.parser.finish());
                let calls = self.parser.calls();
                self.guard.finished = true;
                self.guard.app.metrics.answered(&usage);
                self.guard.noted.usage = Some(usage.clone());
                self.end = Some(Step::End { reason, calls, usage, thoughts: self.thoughts.tokens });
                Ok(Step::Pieces { pieces, logprob: None })
            }
            Err(error) => {
                self.guard.finished = true;
                Err(error.into())
            }
        }))
    }
}

/// Several answers at once, their steps in the order in which they come.
pub(crate) struct Answers {
    /// Those that have not ended, by index.
    running: Vec<(usize, Answer)>,
    /// Whose turn it is to be asked first.
    turn: usize,
    prompt_tokens: usize,
    over: watch::Receiver<bool>,
    /// When the caller waits no longer.
    deadline: Option<tokio::time::Instant>,
}

impl Answers {
    /// Starts `requests`, each with a place of its own, with one model.
    pub(crate) async fn start(
        call: &Call,
        chosen: &Chosen,
        mut permits: Vec<Permit>,
        requests: Vec<GenerateRequest>,
        delivery: Delivery,
    ) -> Result<Answers, Refusal> {
        call.app.line_up(&mut permits, &chosen.path)?;
        let mut starting = tokio::task::JoinSet::new();
        for (index, (permit, request)) in permits.into_iter().zip(requests).enumerate() {
            let (app, chosen, trace) = (call.app.clone(), chosen.clone(), call.trace);
            starting.spawn(async move {
                (index, Answer::start(&app, permit, chosen, request, delivery, trace).await)
            });
        }
        let mut running = Vec::new();
        while let Some(result) = starting.join_next().await {
            match result {
                Ok((index, answer)) => running.push((index, answer?)),
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => return Err(EngineError::Unloaded.into()),
            }
        }
        let prompt_tokens = running.iter().map(|(_, answer)| answer.prompt_tokens).max().unwrap_or(0);
        Ok(Answers {
            running,
            turn: 0,
            prompt_tokens,
            over: call.app.over.subscribe(),
            deadline: call.deadline,
        })
    }

    /// Tokens of the prompt.
    pub(crate) fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// The next step of any answer and the answer's index; none after the end of all. An error once a stopping server or
    /// the caller waits no longer.
    pub(crate) async fn next(&mut self) -> Option<(usize, Result<Step, Refusal>)> {
        let Answers { running, turn, over, deadline, .. } = self;
        let late = async {
            match *deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            step = poll_fn(|context| poll_next(running, turn, context)) => step,
            _ = over.wait_for(|over| *over) => {
                Some((0, Err(Refusal::new(Kind::Unavailable, "The server has stopped."))))
            }
            () = late => Some((0, Err(out_of_patience()))),
        }
    }
}

/// The next step of any of `running`, asked in turn.
fn poll_next(
    running: &mut Vec<(usize, Answer)>,
    turn: &mut usize,
    context: &mut Context<'_>,
) -> Poll<Option<(usize, Result<Step, Refusal>)>> {
    let mut waiting = 0;
    while waiting < running.len() {
        *turn %= running.len();
        let (index, answer) = &mut running[*turn];
        match answer.poll_next(context) {
            Poll::Ready(Some(step)) => {
                let next = (*index, step);
                *turn += 1;
                return Poll::Ready(Some(next));
            }
            // Ended: its place is free.
            Poll::Ready(None) => drop(running.swap_remove(*turn)),
            Poll::Pending => (waiting, *turn) = (waiting + 1, *turn + 1),
        }
    }
    if running.is_empty() { Poll::Ready(None) } else { Poll::Pending }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_thoughts_are_counted() {
        let mut thoughts = Thoughts::default();
        let mut parser = OutputParser::new(None, true);
        for token in ["<think>", "a", " b", "</think>", "c", " d"] {
            thoughts.token(&parser.push(token));
        }
        assert_eq!(thoughts.tokens, 3, "`a`, ` b` and the mark after them");
    }
}
