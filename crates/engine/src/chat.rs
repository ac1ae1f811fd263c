//! Conversations to prompts.

use crate::EngineError;
use crate::tools::{self, ToolUse};
use crate::vocabulary::TextDescription;
use kun_text::{ChatMessage, ChatTemplate, RenderOptions, Special, Tokenizer, ToolFormat};
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

/// A conversation, ready for the model.
pub(crate) struct ChatPrompt {
    pub(crate) ids: Vec<u32>,
    /// Whether the template opened the model's thoughts.
    pub(crate) in_thoughts: bool,
}

/// A model's way with conversations.
#[derive(Debug)]
pub(crate) struct Chat {
    pub(crate) format: ChatFormat,
    /// How the model calls tools.
    pub(crate) tools: ToolFormat,
    /// The control token that opens a call, where there is one.
    pub(crate) tool_token: Option<u32>,
    /// Whether it writes its thoughts between `<think>` and `</think>`.
    pub(crate) thinks: bool,
    /// Whether the template tells the model of tools by itself.
    knows_tools: bool,
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
        let control = |token: &str| match tokenizer.encode(token, Special::Parse) {
            Ok(ids) if knows(token) => ids.first().copied(),
            _ => None,
        };
        let knows_tools = source.contains("tools");
        let tools = if knows_tools && control(ToolFormat::Mistral.opening()).is_some() {
            ToolFormat::Mistral
        } else if knows_tools && source.contains("<|start_header_id|>") && !source.contains("<tool_call>") {
            ToolFormat::Llama
        } else {
            ToolFormat::Hermes
        };
        Ok(Chat {
            format,
            tools,
            tool_token: control(tools.opening()),
            thinks: source.contains("<think>"),
            knows_tools,
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
        tools: Option<&ToolUse>,
        variables: &[(String, bool)],
    ) -> Result<ChatPrompt, EngineError> {
        let mut variables: Vec<(String, serde_json::Value)> =
            variables.iter().map(|(name, value)| (name.clone(), (*value).into())).collect();
        let spelt;
        let mut messages = messages;
        if self.knows_tools {
            variables.extend(tools.map(|tools| ("tools".to_owned(), tools.json())));
        } else if tools.is_some() || messages.iter().any(|m| !m.calls.is_empty() || m.answers.is_some()) {
            spelt = tools::spelt_out(messages, tools);
            messages = &spelt;
        }
        let options = RenderOptions {
            add_generation_prompt: true,
            bos_token: self.bos_token.clone(),
            eos_token: self.eos_token.clone(),
            variables,
            time_limit: RENDER_LIMIT,
        };
        let rendered = self.template.render(messages, &options)?;
        let in_thoughts =
            self.thinks && kun_text::template::unmark(&rendered).0.trim_end().ends_with("<think>");
        let mut ids = tokenizer.encode_rendered(&rendered)?;
        // Some templates write the beginning token and some leave it to the tokenizer.
        let beginning = tokenizer.encode_prompt("", Special::Plain)?.first().copied();
        if let Some(bos) = beginning.filter(|b| tokenizer.bos() == Some(*b) && ids.first() != Some(b)) {
            ids.insert(0, bos);
        }
        Ok(ChatPrompt { ids, in_thoughts })
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
