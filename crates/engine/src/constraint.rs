//! Answers held to a grammar: at every step, tokens that would leave it get no chance.

use crate::EngineError;
use crate::request::parameter;
use kun_text::Tokenizer;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, SimpleVob, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};

/// What an answer must look like.
#[derive(Clone, Debug, PartialEq)]
pub enum Constraint {
    /// A JSON value that this schema admits.
    JsonSchema(Value),
    /// Any JSON object.
    JsonObject,
    /// A text that this regular expression matches as a whole.
    Regex(String),
    /// A text of this grammar, in llguidance's dialect of Lark.
    Lark(String),
}

/// Longest schema, expression or grammar, in bytes.
pub const MAX_CONSTRAINT_BYTES: usize = 64 << 10;
/// Compiled grammars kept.
const KEPT: usize = 64;
/// White space between the parts of JSON: a line with its indentation, or a space. Without a bound a small model may
/// write nothing else.
const JSON_WHITE: &str = r"(\n {0,24}| )?";

/// The grammars of one model.
pub(crate) struct Grammars {
    factory: ParserFactory,
    /// Those compiled last, newest at the end.
    compiled: Mutex<Vec<(String, Matcher)>>,
}

impl std::fmt::Debug for Grammars {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Grammars")
    }
}

impl Grammars {
    /// For a tokenizer whose model gives `rows` logits.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] if the vocabulary has no end or cannot be arranged.
    pub(crate) fn new(tokenizer: &Tokenizer, rows: usize, ends: &[u32]) -> Result<Grammars, EngineError> {
        let failed = |what: String| EngineError::Mismatch { what: format!("constrained output: {what}") };
        let end = *ends.first().ok_or_else(|| failed("the vocabulary has no end token".to_owned()))?;
        let rows = u32::try_from(rows).map_err(|_| failed("too many tokens".to_owned()))?;
        let words: Vec<Vec<u8>> = (0..rows).map(|id| tokenizer.token_bytes(id)).collect();
        let trie = TokTrie::from(&TokRxInfo::new(rows, end), &words).with_eos_tokens(ends);
        let environment: llguidance::toktrie::TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory =
            ParserFactory::new_simple(&environment).map_err(|error| failed(error.to_string()))?;
        factory.quiet();
        let limits = factory.limits_mut();
        limits.max_lexer_states = 20_000;
        limits.initial_lexer_fuel = 2_000_000;
        limits.verbose_errors = false;
        Ok(Grammars { factory, compiled: Mutex::default() })
    }

    /// Compiles a constraint, or finds it compiled.
    ///
    /// # Errors
    /// [`EngineError::Parameter`] saying what cannot be held to.
    pub(crate) fn matcher(&self, constraint: &Constraint) -> Result<Matcher, EngineError> {
        let (key, grammar) = match constraint {
            Constraint::JsonSchema(schema) => (format!("j{schema}"), json_grammar(schema)),
            Constraint::JsonObject => ("o".to_owned(), json_grammar(&json!({ "type": "object" }))),
            Constraint::Regex(text) => (format!("r{text}"), TopLevelGrammar::from_regex(text)),
            Constraint::Lark(text) => (format!("l{text}"), TopLevelGrammar::from_lark(text.clone())),
        };
        let name = match constraint {
            Constraint::JsonSchema(_) | Constraint::JsonObject => "response_format",
            Constraint::Regex(_) => "regex",
            Constraint::Lark(_) => "grammar",
        };
        if key.len() > MAX_CONSTRAINT_BYTES * 8 {
            return Err(parameter(name, format!("{} bytes are too long", key.len())));
        }
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = compiled.iter().position(|(known, _)| *known == key) {
            let entry = compiled.remove(at);
            let matcher = entry.1.deep_clone();
            compiled.push(entry);
            return Ok(matcher);
        }
        drop(compiled);
        let mut matcher = Matcher::new(self.factory.create_parser(grammar));
        if let Some(error) = matcher.get_error() {
            return Err(parameter(name, format!("cannot be held to: {}", first_line(&error))));
        }
        // The first mask shows what only running the grammar shows.
        matcher.compute_mask_or_eos().map_err(|error| {
            parameter(name, format!("cannot be held to: {}", first_line(&error.to_string())))
        })?;
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        compiled.push((key, matcher.deep_clone()));
        if compiled.len() > KEPT {
            compiled.remove(0);
        }
        Ok(matcher)
    }

    /// Tokens that spell `bytes`, for feeding a matcher.
    pub(crate) fn spell(&self, bytes: &[u8]) -> Vec<u32> {
        self.factory.tok_env().tok_trie().greedy_tokenize(bytes)
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(300).collect()
}

fn json_grammar(schema: &Value) -> TopLevelGrammar {
    TopLevelGrammar::from_json_schema(with_options(schema))
}

/// The schema with our settings of the JSON grammar.
pub(crate) fn with_options(schema: &Value) -> Value {
    let mut schema = match schema {
        Value::Object(_) => schema.clone(),
        // `true` admits everything.
        _ => json!({}),
    };
    schema["x-guidance"] = json!({ "whitespace_pattern": JSON_WHITE, "coerce_one_of": true });
    schema
}

/// Holds one answer to its grammar.
pub(crate) enum Guide {
    /// From the first token on.
    Whole(Box<Matcher>),
    /// From a marker on: free text before it, and after what the grammar describes.
    After(Box<After>),
}

/// A grammar that begins where a marker appears in the text.
pub(crate) struct After {
    pub(crate) grammars: Arc<Grammars>,
    pub(crate) markers: Marker,
    /// Fresh, as it stands right after the marker.
    pub(crate) grammar: Matcher,
    /// While inside.
    pub(crate) inside: Option<Matcher>,
    /// Whether the marker may come again.
    pub(crate) repeats: bool,
    /// The end of the text so far, as long as the marker.
    pub(crate) tail: Vec<u8>,
    /// Bytes so far.
    pub(crate) seen: usize,
}

/// What begins a constrained part.
#[derive(Clone, Debug)]
pub(crate) struct Marker {
    pub(crate) text: &'static str,
    /// A control token that means the same and has no text.
    pub(crate) token: Option<u32>,
    /// Only at the very beginning of the answer.
    pub(crate) at_start: bool,
}

/// What a token did to the guide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guided {
    Continues,
    /// Nothing may follow.
    Complete,
}

impl Guide {
    /// The grammar begins when the thoughts that the prompt opened have ended.
    pub(crate) fn after_thoughts(grammars: &Arc<Grammars>, grammar: Matcher) -> Guide {
        let marker = Marker { text: "</think>", token: None, at_start: false };
        Guide::After(Box::new(After {
            grammars: grammars.clone(),
            markers: marker,
            grammar,
            inside: None,
            repeats: false,
            tail: Vec::new(),
            seen: 0,
        }))
    }

    /// The tokens that may come next; `None`: any.
    pub(crate) fn mask(&mut self) -> Result<Option<SimpleVob>, EngineError> {
        let matcher = match self {
            Guide::Whole(matcher) => matcher,
            Guide::After(after) => match &mut after.inside {
                Some(matcher) => matcher,
                None => return Ok(None),
            },
        };
        matcher.compute_mask_or_eos().map(Some).map_err(failed)
    }

    /// Follows a picked token whose text is `bytes`.
    pub(crate) fn follow(&mut self, id: u32, bytes: &[u8]) -> Result<Guided, EngineError> {
        match self {
            Guide::Whole(matcher) => {
                matcher.consume_token(id).map_err(failed)?;
                Ok(if matcher.is_stopped() { Guided::Complete } else { Guided::Continues })
            }
            Guide::After(after) => after.follow(id, bytes),
        }
    }
}

impl After {
    fn follow(&mut self, id: u32, bytes: &[u8]) -> Result<Guided, EngineError> {
        if let Some(matcher) = &mut self.inside {
            matcher.consume_token(id).map_err(failed)?;
            if !matcher.is_stopped() {
                return Ok(Guided::Continues);
            }
            self.inside = None;
            self.tail.clear();
            return Ok(if self.repeats { Guided::Continues } else { Guided::Complete });
        }
        if self.markers.token == Some(id) {
            self.inside = Some(self.grammar.deep_clone());
            return Ok(Guided::Continues);
        }
        for (at, byte) in bytes.iter().enumerate() {
            let first = self.seen == 0;
            if !(first && byte.is_ascii_whitespace()) {
                self.seen += 1;
            }
            self.tail.push(*byte);
            let marker = self.markers.text.as_bytes();
            if self.tail.len() > marker.len() {
                self.tail.remove(0);
            }
            if self.tail == marker && (!self.markers.at_start || self.seen == marker.len()) {
                let mut matcher = self.grammar.deep_clone();
                let rest = self.grammars.spell(&bytes[at + 1..]);
                // A token that holds the marker and something that the grammar forbids is plain text.
                if matcher.try_consume_tokens(&rest).is_ok_and(|count| count == rest.len()) {
                    self.inside = Some(matcher);
                    return Ok(Guided::Continues);
                }
            }
        }
        Ok(Guided::Continues)
    }
}

#[allow(clippy::needless_pass_by_value)]
fn failed(error: impl ToString) -> EngineError {
    EngineError::Parameter { name: "grammar", what: first_line(&error.to_string()) }
}

/// Takes every chance from tokens outside `mask`.
pub(crate) fn apply(mask: &SimpleVob, logits: &mut [f32]) {
    for (word, logits) in mask.as_slice().iter().zip(logits.chunks_mut(32)) {
        if *word == u32::MAX {
            continue;
        }
        for (bit, logit) in logits.iter_mut().enumerate() {
            if word & (1 << bit) == 0 {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}
