//! Conversations to prompts.

use crate::EngineError;
use crate::vocabulary::TextDescription;
use kun_text::{ChatMessage, ChatTemplate, RenderOptions, Special, Tokenizer};
use std::time::Duration;

/// Longest that rendering a conversation may take.
const RENDER_LIMIT: Duration = Duration::from_secs(2);

/// How a model is given conversations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChatFormat {
    /// By the template in its files.
    Template,
    /// By ChatML: it brings no template but knows `<|im_start|>` and `<|im_end|>`.
    ChatMl,
    /// As plain text, for models that were never taught to chat: a single message as it is, several as `User: ..`
    /// and `Assistant: ..` lines.
    Plain,
}

const CHAT_ML: &str = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

const PLAIN: &str = "{% if messages|length == 1 %}{{ messages[0].content }}{% else %}\
    {% for m in messages %}{{ m.role|capitalize + ': ' + m.content + '\\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}{% endif %}";

/// A model's way with conversations.
#[derive(Debug)]
pub(crate) struct Chat {
    pub(crate) format: ChatFormat,
    template: ChatTemplate,
    bos_token: String,
    eos_token: String,
    end_tokens: Vec<u32>,
}

impl Chat {
    /// Compiles the model's template, or the stand-in for a model without one.
    ///
    /// # Errors
    /// [`EngineError::Template`].
    fn new(text: TextDescription, tokenizer: &Tokenizer) -> Result<Chat, EngineError> {
        let knows = |token: &str| {
            tokenizer.encode(token, Special::Parse).is_ok_and(|ids| {
                ids.len() == 1 && tokenizer.encode(token, Special::Plain).is_ok_and(|p| p != ids)
            })
        };
        let (format, source) = match &text.template {
            Some(source) => (ChatFormat::Template, source.as_str()),
            None if knows("<|im_start|>") && knows("<|im_end|>") => (ChatFormat::ChatMl, CHAT_ML),
            None => (ChatFormat::Plain, PLAIN),
        };
        Ok(Chat {
            format,
            template: ChatTemplate::compile(source)?,
            bos_token: text.bos_token,
            eos_token: text.eos_token,
            end_tokens: text.end_tokens,
        })
    }

    /// The prompt of a conversation: rendered, encoded, begun as the model's texts begin.
    ///
    /// # Errors
    /// [`EngineError::Template`], [`EngineError::Tokenizer`].
    pub(crate) fn prompt(
        &self,
        tokenizer: &Tokenizer,
        messages: &[ChatMessage],
        variables: &[(String, bool)],
    ) -> Result<Vec<u32>, EngineError> {
        let options = RenderOptions {
            add_generation_prompt: true,
            bos_token: self.bos_token.clone(),
            eos_token: self.eos_token.clone(),
            variables: variables.iter().map(|(name, value)| (name.clone(), (*value).into())).collect(),
            time_limit: RENDER_LIMIT,
        };
        let rendered = self.template.render(messages, &options)?;
        let mut ids = tokenizer.encode_rendered(&rendered)?;
        // Some templates write the beginning token and some leave it to the tokenizer.
        let beginning = tokenizer.encode_prompt("", Special::Plain)?.first().copied();
        if let Some(bos) = beginning.filter(|b| tokenizer.bos() == Some(*b) && ids.first() != Some(b)) {
            ids.insert(0, bos);
        }
        Ok(ids)
    }

    /// Tokens that end an answer, sorted.
    pub(crate) fn end_tokens(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        let mut ids = [tokenizer.end_tokens(), &self.end_tokens].concat();
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}

impl TextDescription {
    /// Builds tokenizer and chat template.
    ///
    /// # Errors
    /// [`EngineError::Tokenizer`], [`EngineError::Template`].
    pub(crate) fn build(mut self) -> Result<(Tokenizer, Chat), EngineError> {
        let tokenizer = std::mem::take(&mut self.tokenizer).build()?;
        let chat = Chat::new(self, &tokenizer)?;
        Ok((tokenizer, chat))
    }
}
