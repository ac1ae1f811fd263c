//! Some of several given answers, by how likely a model finds each.

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
    /// Each holds or not by itself.
    multi_label: bool,
    bias: Vec<f32>,
}

/// What there is nothing to classify in (arXiv:2102.09690).
const NO_CONTENT: &str = "N/A";

impl Labels {
    /// Labels of which one holds, or with `multi_label` any number. Asks the model about a text without content.
    ///
    /// # Errors
    /// Those of [`LoadedModel::choose`].
    pub fn new(model: &LoadedModel, names: &[String], multi_label: bool) -> Result<Labels, EngineError> {
        let mut labels = Labels { names: names.to_vec(), multi_label, bias: vec![0.0; names.len()] };
        labels.bias = labels.gains(model, NO_CONTENT)?;
        Ok(labels)
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
        let gains = self.gains(model, text)?;
        let scores = match self.multi_label {
            true => gains.iter().map(|gain| 1.0 / (1.0 + (-gain).exp())).collect(),
            false => softmax(&gains),
        };
        Ok(Classified { scores, truncated: None })
    }

    /// How much likelier than without content the model finds each label, or "yes" than "no" about each: logarithms.
    fn gains(&self, model: &LoadedModel, text: &str) -> Result<Vec<f32>, EngineError> {
        let found: Vec<f32> = if self.multi_label {
            let answers = ["Yes", "No"].map(str::to_owned);
            let gain = |name: &String| {
                Ok(match *model.choose(&question_of_one(text, name), &answers)? {
                    [yes, no] => yes - no,
                    _ => 0.0,
                })
            };
            self.names.iter().map(gain).collect::<Result<_, EngineError>>()?
        } else {
            model.choose(&question(text, &self.names), &self.names)?
        };
        Ok(found.iter().zip(&self.bias).map(|(found, bias)| found - bias).collect())
    }
}

fn question_of_one(text: &str, name: &str) -> Vec<ChatMessage> {
    let content = format!(
        "Text: {text}\n\nDoes the label \"{name}\" fit the text? Answer with Yes or No only.\n\nAnswer:"
    );
    vec![ChatMessage::new(Role::User, content)]
}

fn question(text: &str, names: &[String]) -> Vec<ChatMessage> {
    let content = format!(
        "Which label fits the text best? Answer with the label only.\n\nLabels: {}\n\nText: {text}\n\nLabel:",
        names.join(", ")
    );
    vec![ChatMessage::new(Role::User, content)]
}
