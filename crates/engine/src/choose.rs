//! One of several given answers, by how likely a model finds each.

use crate::text::softmax;
use crate::{ChatMessage, Classified, EngineError, GenerateRequest, LoadedModel, Prompt, Role};
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

/// Labels to choose from, with how likely the model finds each when there is nothing to classify.
#[derive(Clone, Debug)]
pub struct Labels {
    names: Vec<String>,
    bias: Vec<f32>,
}

/// What there is nothing to classify in (arXiv:2102.09690).
const NO_CONTENT: &str = "N/A";

impl Labels {
    /// Asks the model once.
    ///
    /// # Errors
    /// Those of [`LoadedModel::choose`].
    pub fn new(model: &LoadedModel, names: &[String]) -> Result<Labels, EngineError> {
        let bias = model.choose(&question(NO_CONTENT, names), names)?;
        Ok(Labels { names: names.to_vec(), bias })
    }

    /// The labels.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Their probabilities for a text: how much likelier than without content the model finds each as its answer.
    ///
    /// # Errors
    /// Those of [`LoadedModel::choose`].
    pub fn scores(&self, model: &LoadedModel, text: &str) -> Result<Classified, EngineError> {
        let chosen = model.choose(&question(text, &self.names), &self.names)?;
        let gains: Vec<f32> = chosen.iter().zip(&self.bias).map(|(score, bias)| score - bias).collect();
        Ok(Classified { scores: softmax(&gains), truncated: None })
    }
}

fn question(text: &str, names: &[String]) -> Vec<ChatMessage> {
    let content = format!(
        "Which label fits the text best? Answer with the label only.\n\nLabels: {}\n\nText: {text}\n\nLabel:",
        names.join(", ")
    );
    vec![ChatMessage::new(Role::User, content)]
}
