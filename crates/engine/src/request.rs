//! What is asked of a language model, and what it answers.

use crate::{Constraint, EngineError, ToolUse};
use kun_text::ChatMessage;
use std::time::Duration;

/// Most entries of [`SamplingOptions::logit_bias`].
pub const MAX_LOGIT_BIAS: usize = 65_536;
/// Most stop strings of a request.
pub const MAX_STOP_STRINGS: usize = 64;
/// Longest stop string, in bytes.
pub const MAX_STOP_BYTES: usize = 4096;
/// Most tokens that [`GenerateRequest::logprobs`] may ask for.
pub const MAX_LOGPROBS: usize = 100;

/// What the model continues.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// A conversation, rendered by the model's chat template.
    Chat(Vec<ChatMessage>),
    /// Raw text; special tokens in it are plain characters. The model's beginning token is put before it.
    Text(String),
    /// Token ids as they are.
    Tokens(Vec<u32>),
}

/// How tokens are picked. The defaults sample from the model's own distribution at temperature 0.8.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingOptions {
    /// 0 picks the likeliest token always.
    pub temperature: f32,
    /// Keep the `top_k` likeliest; 0 keeps all.
    pub top_k: usize,
    /// Keep the likeliest that together reach this probability; 1 keeps all.
    pub top_p: f32,
    /// Keep those at least this fraction of the likeliest's probability; 0 keeps all.
    pub min_p: f32,
    /// Locally typical sampling (arXiv:2202.00666); 1 keeps all.
    pub typical_p: f32,
    /// Divides the logits of tokens already seen (arXiv:1909.05858); 1 does nothing.
    pub repetition_penalty: f32,
    /// Subtracted once per occurrence in the answer.
    pub frequency_penalty: f32,
    /// Subtracted once if the token occurs in the answer.
    pub presence_penalty: f32,
    /// How many last tokens the repetition penalty looks at; 0 looks at all.
    pub penalty_window_tokens: usize,
    /// Added to the logits of single tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Makes sampling repeatable.
    pub seed: Option<u64>,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        SamplingOptions {
            temperature: 0.8,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            penalty_window_tokens: 64,
            logit_bias: Vec::new(),
            seed: None,
        }
    }
}

/// One request for text.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateRequest {
    /// What is continued.
    pub prompt: Prompt,
    /// How tokens are picked.
    pub sampling: SamplingOptions,
    /// Most tokens of the answer; `None`: until the context is full.
    pub max_tokens: Option<usize>,
    /// Strings that end the answer and are not part of it.
    pub stop: Vec<String>,
    /// Go on at end-of-text tokens.
    pub ignore_end: bool,
    /// Give the log-probabilities of this many likeliest tokens with each token; `Some(0)`: of the token alone.
    pub logprobs: Option<usize>,
    /// Further template variables, such as `enable_thinking`.
    pub template_variables: Vec<(String, bool)>,
    /// What the answer must look like.
    pub constraint: Option<Constraint>,
    /// Tools that the model may call; for conversations only.
    pub tools: Option<ToolUse>,
    /// Which queue it waits in.
    pub class: Class,
    /// Whose share of the machine it takes, and whose prompts it may share cached keys and values with.
    pub tenant: Tenant,
}

/// Which queue a request waits in; interactive ones go before bulk ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Somebody waits for the answer.
    #[default]
    Interactive,
    /// Runs when nothing interactive waits.
    Bulk,
}

/// One user of the engine, such as an API key's digest. The default is the user of a program with one user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(pub [u8; 32]);

impl SamplingOptions {
    /// Checks every parameter against its range; a model of `vocab` tokens is asked.
    ///
    /// # Errors
    /// [`EngineError::Parameter`] with name, value and limit.
    pub fn check(&self, vocab: usize) -> Result<(), EngineError> {
        range("temperature", self.temperature, 0.0..=100.0)?;
        range("top_p", self.top_p, 0.0..=1.0)?;
        range("min_p", self.min_p, 0.0..=1.0)?;
        range("typical_p", self.typical_p, 0.0..=1.0)?;
        range("repetition_penalty", self.repetition_penalty, 0.01..=100.0)?;
        range("frequency_penalty", self.frequency_penalty, -100.0..=100.0)?;
        range("presence_penalty", self.presence_penalty, -100.0..=100.0)?;
        limit("logit_bias", "entries", self.logit_bias.len(), MAX_LOGIT_BIAS)?;
        for (id, bias) in &self.logit_bias {
            range("logit_bias", *bias, -10_000.0..=10_000.0)?;
            if *id as usize >= vocab {
                return Err(parameter("logit_bias", format!("token {id}, the model has {vocab}")));
            }
        }
        Ok(())
    }
}

impl GenerateRequest {
    /// A request with every default.
    pub fn new(prompt: Prompt) -> GenerateRequest {
        GenerateRequest {
            prompt,
            sampling: SamplingOptions::default(),
            max_tokens: None,
            stop: Vec::new(),
            ignore_end: false,
            logprobs: None,
            template_variables: Vec::new(),
            constraint: None,
            tools: None,
            class: Class::Interactive,
            tenant: Tenant::default(),
        }
    }

    /// Checks everything that shows without the model's tokenizer; a model of `vocab` tokens is asked.
    ///
    /// # Errors
    /// [`EngineError::Parameter`] with name, value and limit.
    pub fn check(&self, vocab: usize) -> Result<(), EngineError> {
        self.sampling.check(vocab)?;
        if self.max_tokens == Some(0) {
            return Err(parameter("max_tokens", "0, at least 1".to_owned()));
        }
        limit("logprobs", "tokens", self.logprobs.unwrap_or(0), MAX_LOGPROBS)?;
        limit("stop", "strings", self.stop.len(), MAX_STOP_STRINGS)?;
        for stop in &self.stop {
            if stop.is_empty() {
                return Err(parameter("stop", "an empty string".to_owned()));
            }
            limit("stop", "bytes", stop.len(), MAX_STOP_BYTES)?;
        }
        if let Some(tools) = &self.tools {
            tools.check()?;
        }
        limit("template_variables", "variables", self.template_variables.len(), 32)?;
        for (name, _) in &self.template_variables {
            let plain = name.len() <= 64
                && name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if !plain || RESERVED_VARIABLES.contains(&name.as_str()) {
                return Err(parameter("template_variables", format!("{name:?} cannot be set")));
            }
        }
        match &self.prompt {
            Prompt::Chat(messages) if messages.is_empty() => {
                Err(parameter("messages", "none, at least 1".to_owned()))
            }
            Prompt::Tokens(ids) => match ids.iter().find(|id| **id as usize >= vocab) {
                Some(id) => Err(parameter("prompt", format!("token {id}, the model has {vocab}"))),
                None => Ok(()),
            },
            Prompt::Chat(_) | Prompt::Text(_) => Ok(()),
        }
    }
}

/// What the engine itself gives to templates.
const RESERVED_VARIABLES: [&str; 7] =
    ["messages", "add_generation_prompt", "bos_token", "eos_token", "tools", "documents", "chat_template"];

pub(crate) fn parameter(name: &'static str, what: String) -> EngineError {
    EngineError::Parameter { name, what }
}

fn range(name: &'static str, value: f32, allowed: std::ops::RangeInclusive<f32>) -> Result<(), EngineError> {
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(parameter(name, format!("{value}, from {} to {}", allowed.start(), allowed.end())))
}

fn limit(name: &'static str, unit: &str, value: usize, most: usize) -> Result<(), EngineError> {
    if value <= most {
        return Ok(());
    }
    Err(parameter(name, format!("{value} {unit}, at most {most}")))
}

/// A token and its log-probability under the model's own distribution.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// Its id.
    pub id: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Natural logarithm.
    pub logprob: f32,
}

/// The score of one token of a given text.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenScore {
    /// Natural logarithm of its probability after all tokens before it.
    pub logprob: f32,
    /// The likeliest tokens at its place, likeliest first, if asked for.
    pub top: Vec<(u32, f32)>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it, or a stop string appeared.
    Stop,
    /// `max_tokens` or the context was reached.
    Length,
    /// The caller left.
    Cancelled,
}

/// Counts and times of one request, and the stop text that ended it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// Which of the request's stop texts ended the answer, if one did.
    pub stop_text: Option<String>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them whose keys and values were still there from an earlier request.
    pub cached_tokens: usize,
    /// Tokens of the answer.
    pub completion_tokens: usize,
    /// From the request to the first token.
    pub time_to_first_token: Duration,
    /// Time in prefill steps.
    pub prefill_time: Duration,
    /// Time in decode steps.
    pub decode_time: Duration,
    /// Decode steps: tokens picked after the first, the one that ended the answer included.
    pub decode_steps: usize,
    /// Tokens that were guessed, where guessing is on.
    pub guessed_tokens: usize,
    /// Guesses that were picked.
    pub right_guesses: usize,
}

/// What a stream of an answer gives, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A token was picked; `text` is what became final with it (perhaps empty).
    Token {
        /// Its id.
        id: u32,
        /// Final text.
        text: String,
        /// The token's own log-probability, if asked for.
        logprob: Option<TokenLogprob>,
        /// The likeliest tokens, if asked for.
        top_logprobs: Vec<TokenLogprob>,
    },
    /// The end, always last.
    Done {
        /// Why.
        reason: FinishReason,
        /// Text that had been held back.
        text: String,
        /// Counts and times.
        usage: Usage,
    },
}

/// Where the events of an answer go. Called on the model's worker thread: it must not block.
pub trait EventSink: Send {
    /// The request has left the queue: its prompt runs from now on.
    fn admitted(&mut self) {}
    /// The next event; `false` if nobody wants more, which cancels the answer.
    fn event(&mut self, event: Result<Event, EngineError>) -> bool;
}

impl EventSink for std::sync::mpsc::Sender<Result<Event, EngineError>> {
    fn event(&mut self, event: Result<Event, EngineError>) -> bool {
        self.send(event).is_ok()
    }
}
