//! What is asked of a language model, and what it answers.

use kun_text::ChatMessage;
use std::time::Duration;

/// What the model continues.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// A conversation, rendered by the model's chat template.
    Chat(Vec<ChatMessage>),
    /// Raw text; special tokens in it are plain characters.
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

/// Counts and times of one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the answer.
    pub completion_tokens: usize,
    /// From the request to the first token.
    pub time_to_first_token: Duration,
    /// Time in prefill steps.
    pub prefill_time: Duration,
    /// Time in decode steps.
    pub decode_time: Duration,
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
