//! Tokenizers, chat templates and the streaming of text. No tensors, no I/O.
#![forbid(unsafe_code)]

pub mod stream;
pub mod template;
pub mod tokenizer;

pub use stream::{StopReason, TextStream};
pub use template::{ChatMessage, ChatTemplate, RenderOptions, Role, TemplateError};
pub use tokenizer::{Encoding, Part, Pieces, Special, Tokenizer, TokenizerError, Vocabulary, characters};
