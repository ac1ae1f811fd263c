//! One of several given answers, by how likely a model finds each.

use crate::{ChatMessage, EngineError, GenerateRequest, LoadedModel, Prompt};
use kun_text::Special;

impl LoadedModel {
    /// For each of `answers`, the natural log-probability that the model gives it as its answer to `messages`.
    ///
    /// # Errors
    /// Those of template and tokenizer; [`EngineError::ContextExceeded`]; [`EngineError::Parameter`] for an answer without
    /// a token.
    pub fn choose(&self, messages: &[ChatMessage], answers: &[String]) -> Result<Vec<f32>, EngineError> {
        let prompt = self.prompt_tokens(&GenerateRequest::new(Prompt::Chat(messages.to_vec())))?;
        answers
            .iter()
            .map(|answer| {
                let own = self.tokenizer().encode(answer, Special::Plain)?;
                let tokens = [prompt.as_slice(), own.as_slice()].concat();
                Ok(self.score(&tokens, prompt.len())?.iter().sum())
            })
            .collect()
    }
}
