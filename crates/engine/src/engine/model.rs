//! A loaded model.

use super::Canceller;
use crate::EngineError;
use crate::chat::{Chat, ChatFormat, ChatPrompt};
use crate::constraint::{Grammars, Guide};
use crate::cost::StepCost;
use crate::fit::Fit;
use crate::kv_cache::PageCounts;
use crate::request::{Class, Tenant, parameter};
use crate::sequence::{Score, Sequence, Work};
use crate::tools::{self, ToolChoice};
use crate::worker::{Shared, StepTimes};
use crate::{GenerateRequest, Prompt, TokenScore};
use kun_graph::MemoryReport;
use kun_models::ModelInfo;
use kun_text::{OutputParser, Special, Tokenizer, ToolFormat};
use std::collections::BTreeMap;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

/// A loaded model: its worker thread owns the compiled program.
#[derive(Debug)]
pub struct LoadedModel {
    pub(super) fit: Fit,
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) chat: Chat,
    pub(super) grammars: OnceLock<Arc<Grammars>>,
    pub(super) end_tokens: Arc<[u32]>,
    pub(super) shared: Arc<Shared>,
    pub(super) threads: usize,
    pub(super) cost: StepCost,
    pub(super) commands: Option<Sender<Vec<Sequence>>>,
    pub(super) thread: Option<JoinHandle<()>>,
}

impl LoadedModel {
    /// The description.
    pub fn info(&self) -> &ModelInfo {
        &self.fit.model
    }

    /// What it takes.
    pub fn memory(&self) -> MemoryReport {
        self.fit.memory
    }

    /// What was measured before it was loaded.
    pub fn fit(&self) -> &Fit {
        &self.fit
    }

    /// Whether its worker has ended by a fault: it answers nothing any more.
    pub fn has_failed(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// How long the present step has run; `None` between steps.
    pub fn step_time(&self) -> Option<Duration> {
        self.shared.figures().step_started.map(|started| started.elapsed())
    }

    /// Context of one sequence, in tokens.
    pub fn context_tokens(&self) -> usize {
        self.fit.context_tokens
    }

    /// Compute threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// What a step costs at least.
    pub fn cost(&self) -> StepCost {
        self.cost
    }

    /// Whether the model file brings a chat template.
    pub fn has_chat_template(&self) -> bool {
        self.chat.format == ChatFormat::Template
    }

    /// Whether it may think before it answers, apart from the answer.
    pub fn thinks(&self) -> bool {
        self.chat.thinks
    }

    /// How conversations are put to the model.
    pub fn chat_format(&self) -> ChatFormat {
        self.chat.format
    }

    /// Tokens that end an answer, sorted.
    pub fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }

    /// Pages of the key/value cache.
    pub fn pages(&self) -> PageCounts {
        self.shared.figures().pages
    }

    /// How often a running answer gave its pages up for others and was computed again later.
    pub fn preemptions(&self) -> u64 {
        self.shared.figures().preemptions
    }

    /// Times of the steps since the last call that did nothing but decode, by number of sequences.
    pub fn take_decode_times(&self) -> BTreeMap<usize, StepTimes> {
        std::mem::take(&mut self.shared.figures().decode)
    }

    /// Ids of a raw prompt as [`crate::Prompt::Text`] gives them to the model.
    ///
    /// # Errors
    /// [`EngineError::Tokenizer`].
    pub fn tokenize(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        Ok(self.tokenizer.encode_prompt(text, Special::Plain)?)
    }

    /// Ids of a text alone, without beginning or end tokens.
    ///
    /// # Errors
    /// [`EngineError::Tokenizer`].
    pub fn tokenize_plain(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        Ok(self.tokenizer.encode(text, Special::Plain)?)
    }

    /// The text of `ids`, without control tokens.
    pub fn detokenize(&self, ids: &[u32]) -> String {
        self.tokenizer.decode(ids)
    }

    /// The texts of the tokens that begin and end texts, where the model has them.
    pub fn edge_tokens(&self) -> [Option<String>; 2] {
        let text = |wanted: Option<u32>| {
            let found = self.tokenizer.control_tokens().find(|(_, id)| Some(*id) == wanted);
            found.map(|(text, _)| text.to_owned())
        };
        [text(self.tokenizer.bos()), text(self.tokenizer.eos())]
    }

    /// The tokenizer.
    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// For each of `tokens[first..]`, the natural log-probability of that token after all before it, in one sequence from position 0.
    ///
    /// # Errors
    /// [`EngineError::Parameter`] if `first` is 0 or there is no token to score, [`EngineError::ContextExceeded`],
    /// [`EngineError::Run`].
    pub fn score(&self, tokens: &[u32], first: usize) -> Result<Vec<f32>, EngineError> {
        let scores = self.score_top(tokens, first, 0, &Canceller::default())?;
        Ok(scores.into_iter().map(|score| score.logprob).collect())
    }

    /// [`LoadedModel::score`] with the `top` likeliest tokens at every place; `canceller` ends it early.
    ///
    /// # Errors
    /// As [`LoadedModel::score`]; [`EngineError::Unloaded`] if it was cancelled.
    pub fn score_top(
        &self,
        tokens: &[u32],
        first: usize,
        top: usize,
        canceller: &Canceller,
    ) -> Result<Vec<TokenScore>, EngineError> {
        let vocab = self.fit.model.vocab_size;
        if !(1..tokens.len()).contains(&first) {
            let what = format!("{first} of {} tokens: the first scored needs one before it", tokens.len());
            return Err(parameter("first", what));
        }
        if let Some(id) = tokens.iter().find(|id| **id as usize >= vocab) {
            return Err(parameter("tokens", format!("token {id}, the model has {vocab}")));
        }
        let context_tokens = self.context_tokens();
        if tokens.len() - 1 > context_tokens {
            return Err(EngineError::ContextExceeded { prompt_tokens: tokens.len(), context_tokens });
        }
        let (reply, receiver) = channel();
        let score = Score { first, top, scores: Vec::with_capacity(tokens.len() - first), reply };
        let cancelled = canceller.cancelled.clone();
        let (class, tenant) = (Class::default(), Tenant::default());
        self.start(vec![Sequence::new(tokens.to_vec(), class, tenant, cancelled, Work::Score(score))])?;
        receiver.recv().unwrap_or(Err(EngineError::Unloaded))
    }

    pub(crate) fn prompt_tokens(&self, request: &GenerateRequest) -> Result<Vec<u32>, EngineError> {
        match self.prompt(request)?.ids {
            ids if ids.is_empty() => Err(parameter("prompt", "no tokens, at least 1".to_owned())),
            ids => Ok(ids),
        }
    }

    /// The bytes of a token; none for control tokens.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        self.tokenizer.token_bytes(id)
    }

    /// The prompt that asks for what stands between two texts; `None` if the model was not taught that.
    ///
    /// # Errors
    /// [`EngineError::Tokenizer`].
    pub fn fill_in_the_middle(&self, before: &str, after: &str) -> Result<Option<Vec<u32>>, EngineError> {
        const MARKS: [[&str; 3]; 3] = [
            ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
            ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"],
            ["<PRE>", "<SUF>", "<MID>"],
        ];
        for marks in MARKS {
            let ids = marks.map(|mark| self.tokenizer.encode(mark, Special::Parse));
            let [Ok(prefix), Ok(suffix), Ok(middle)] = ids else { continue };
            if [&prefix, &suffix, &middle].iter().all(|ids| ids.len() == 1) {
                let beginning = self.tokenizer.encode_prompt("", Special::Plain)?;
                let bos = beginning.first().copied().filter(|id| self.tokenizer.bos() == Some(*id));
                let (before, after) = (self.tokenize_plain(before)?, self.tokenize_plain(after)?);
                let all = [bos.into_iter().collect(), prefix, before, suffix, after, middle];
                return Ok(Some(all.concat()));
            }
        }
        Ok(None)
    }

    /// Tokens of a conversation, as [`crate::Engine::generate`] gives them to the model.
    ///
    /// # Errors
    /// [`EngineError::Template`], [`EngineError::Tokenizer`].
    pub fn chat_tokens(&self, request: &GenerateRequest) -> Result<Vec<u32>, EngineError> {
        Ok(self.prompt(request)?.ids)
    }

    fn prompt(&self, request: &GenerateRequest) -> Result<ChatPrompt, EngineError> {
        let plain = |ids| ChatPrompt { ids, in_thoughts: false };
        match &request.prompt {
            Prompt::Chat(messages) => {
                let tools = request.tools.as_ref().filter(|tools| tools.offered());
                let mut variables = request.template_variables.clone();
                // A grammar leaves no room for thoughts unless they were asked for.
                let silent =
                    request.constraint.is_some() || tools.is_some_and(|t| t.choice != ToolChoice::Auto);
                if self.chat.thinks && silent && variables.iter().all(|(name, _)| name != "enable_thinking") {
                    variables.push(("enable_thinking".to_owned(), false));
                }
                self.chat.prompt(&self.tokenizer, messages, tools, &variables)
            }
            Prompt::Text(text) => Ok(plain(self.tokenize(text)?)),
            Prompt::Tokens(ids) => Ok(plain(ids.clone())),
        }
    }

    /// The prompt's tokens, what takes the answer apart, and what holds it to a grammar.
    pub(super) fn prepare(
        &self,
        request: &GenerateRequest,
    ) -> Result<(Vec<u32>, OutputParser, Option<Guide>), EngineError> {
        let ChatPrompt { mut ids, in_thoughts } = self.prompt(request)?;
        if ids.is_empty() {
            return Err(parameter("prompt", "no tokens, at least 1".to_owned()));
        }
        let chat = matches!(request.prompt, Prompt::Chat(_));
        let tools = request.tools.as_ref().filter(|tools| chat && tools.offered());
        let format = self.chat.tools;
        let mut parser = OutputParser::new(tools.map(|_| format), chat && self.chat.thinks);
        if in_thoughts {
            parser = parser.in_thoughts();
        }
        let guide = match (tools, &request.constraint) {
            (None, None) => None,
            (Some(tools), constraint) => {
                let token = self.chat.tool_token.filter(|_| format == ToolFormat::Mistral);
                if let (Some(token), ToolChoice::Required | ToolChoice::Named(_)) = (token, &tools.choice) {
                    ids.push(token);
                    parser = parser.in_call();
                }
                Some(tools::guide(self.grammars()?, format, token, tools, constraint.as_ref())?)
            }
            (None, Some(constraint)) => {
                let matcher = self.grammars()?.matcher(constraint)?;
                Some(if in_thoughts {
                    Guide::after_thoughts(self.grammars()?, matcher)
                } else {
                    Guide::Whole(Box::new(matcher))
                })
            }
        };
        Ok((ids, parser, guide))
    }

    /// Made when the first grammar is asked for: large vocabularies take a moment.
    fn grammars(&self) -> Result<&Arc<Grammars>, EngineError> {
        if let Some(grammars) = self.grammars.get() {
            return Ok(grammars);
        }
        let grammars = Grammars::new(&self.tokenizer, self.fit.model.vocab_size, &self.end_tokens)?;
        Ok(self.grammars.get_or_init(|| Arc::new(grammars)))
    }

    pub(super) fn start(&self, sequences: Vec<Sequence>) -> Result<(), EngineError> {
        let commands = self.commands.as_ref().ok_or(EngineError::Unloaded)?;
        commands.send(sequences).map_err(|_| EngineError::Unloaded)
    }
}

impl Drop for LoadedModel {
    fn drop(&mut self) {
        // The worker ends once it has no more requests; streams that outlive the model are still answered.
        self.commands = None;
        if self.shared.figures().pages.in_use == 0
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}
