//! A generation from a request's side: its place in the queue, its events, its end.

use crate::App;
use crate::app::Chosen;
use crate::error::{Kind, Refusal};
use crate::queue::Permit;
use crate::routes::Call;
use crate::trace::{Attribute, Trace};
use kun_engine::{
    Canceller, EngineError, Event, EventSink, FinishReason, GenerateRequest, OutputParser, Piece,
    TokenLogprob, Usage,
};
use ring::rand::{SecureRandom, SystemRandom};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::timeout;

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

enum Message {
    Admitted,
    Event(Result<Event, EngineError>),
}

struct Sink(UnboundedSender<Message>);

impl EventSink for Sink {
    fn admitted(&mut self) {
        let _ = self.0.send(Message::Admitted);
    }
    fn event(&mut self, event: Result<Event, EngineError>) -> bool {
        self.0.send(Message::Event(event)).is_ok()
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
    parser: OutputParser,
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
    Pieces {
        pieces: Vec<Piece>,
        logprob: Option<(TokenLogprob, Vec<TokenLogprob>)>,
    },
    End {
        reason: FinishReason,
        calls: usize,
        usage: Usage,
    },
}

impl Answer {
    /// Tokenizes, queues and waits for the turn.
    pub(crate) async fn start(
        app: &Arc<App>,
        permit: Permit,
        chosen: Chosen,
        request: GenerateRequest,
        trace: Option<Trace>,
    ) -> Result<Answer, Refusal> {
        let (sender, messages) = unbounded_channel();
        let queued = Instant::now();
        let (app2, model) = (app.clone(), chosen.model.clone());
        let noted =
            Noted { trace, asked: queued, waited: Duration::ZERO, model: chosen.name.clone(), usage: None };
        let (guard, parser, prompt_tokens) = Call::blocking(move || {
            let engine = app2.library.engine().clone();
            let started = engine.generate_into(&model, request, Box::new(Sink(sender)))?;
            Ok((
                Guard { canceller: started.canceller, app: app2, finished: false, noted },
                started.parser,
                started.prompt_tokens,
            ))
        })
        .await?;
        let mut answer =
            Answer { messages, parser, prompt_tokens, end: None, guard, _chosen: chosen, permit };
        // Whoever was let in was expected to have the turn in less than half of this time.
        let patience = app.options.limits.queue_time * 2 + LEAST_PATIENCE;
        match timeout(patience, answer.messages.recv()).await {
            Ok(Some(Message::Admitted)) => answer.permit.runs(),
            Ok(Some(Message::Event(Err(error)))) => return Err(error.into()),
            Ok(Some(Message::Event(Ok(_))) | None) => return Err(EngineError::Unloaded.into()),
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
    pub(crate) async fn next(&mut self) -> Option<Result<Step, Refusal>> {
        if self.guard.finished {
            return self.end.take().map(Ok);
        }
        let event = loop {
            match self.messages.recv().await {
                Some(Message::Admitted) => {}
                Some(Message::Event(event)) => break event,
                None => break Err(EngineError::Unloaded),
            }
        };
        Some(match event {
            Ok(Event::Token { text, logprob, top_logprobs, .. }) => {
                let pieces = self.parser.push(&text);
                Ok(Step::Pieces { pieces, logprob: logprob.map(|own| (own, top_logprobs)) })
            }
            Ok(Event::Done { reason, text, usage }) => {
                let mut pieces = self.parser.push(&text);
                pieces.extend(self.parser.finish());
                let calls = self.parser.calls();
                self.guard.finished = true;
                self.guard.app.metrics.answered(&usage);
                self.guard.noted.usage = Some(usage.clone());
                self.end = Some(Step::End { reason, calls, usage });
                Ok(Step::Pieces { pieces, logprob: None })
            }
            Err(error) => {
                self.guard.finished = true;
                Err(error.into())
            }
        })
    }
}

/// Several answers at once, their steps in the order in which they come.
pub(crate) struct Answers {
    steps: tokio::sync::mpsc::Receiver<(usize, Result<Step, Refusal>)>,
    prompt_tokens: usize,
    over: watch::Receiver<bool>,
    // Dropping the set ends its tasks, and with them the answers.
    _tasks: tokio::task::JoinSet<()>,
}

impl Answers {
    /// Starts `requests`, each with a place of its own, with one model.
    pub(crate) async fn start(
        call: &Call,
        chosen: &Chosen,
        mut permits: Vec<Permit>,
        requests: Vec<GenerateRequest>,
    ) -> Result<Answers, Refusal> {
        call.app.line_up(&mut permits, &chosen.path)?;
        let mut starting = tokio::task::JoinSet::new();
        for (index, (permit, request)) in permits.into_iter().zip(requests).enumerate() {
            let (app, chosen, trace) = (call.app.clone(), chosen.clone(), call.trace);
            starting.spawn(async move { (index, Answer::start(&app, permit, chosen, request, trace).await) });
        }
        let mut started = Vec::new();
        while let Some(result) = starting.join_next().await {
            match result {
                Ok((index, answer)) => started.push((index, answer?)),
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => return Err(EngineError::Unloaded.into()),
            }
        }
        let prompt_tokens = started.iter().map(|(_, answer)| answer.prompt_tokens).max().unwrap_or(0);
        let (sender, steps) = tokio::sync::mpsc::channel(64);
        let mut tasks = tokio::task::JoinSet::new();
        for (index, mut answer) in started {
            let sender = sender.clone();
            tasks.spawn(async move {
                while let Some(step) = answer.next().await {
                    if sender.send((index, step)).await.is_err() {
                        return;
                    }
                }
            });
        }
        let over = call.app.over.subscribe();
        Ok(Answers { prompt_tokens, steps, over, _tasks: tasks })
    }

    /// Tokens of the prompt.
    pub(crate) fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// The next step of any answer and the answer's index; none after the end of all. An error once a stopping server
    /// waits no longer.
    pub(crate) async fn next(&mut self) -> Option<(usize, Result<Step, Refusal>)> {
        tokio::select! {
            biased;
            step = self.steps.recv() => step,
            _ = self.over.wait_for(|over| *over) => {
                Some((0, Err(Refusal::new(Kind::Unavailable, "The server has stopped."))))
            }
        }
    }
}
