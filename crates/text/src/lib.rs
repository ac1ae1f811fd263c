//! Tokenizers, chat templates and the streaming of text. No tensors, no I/O.
#![forbid(unsafe_code)]

pub mod languages;
pub mod output;
pub mod seq2seq;
pub mod stream;
pub mod template;
pub mod tokenizer;

pub use languages::Language;
pub use output::{OutputParser, Piece, ToolFormat};
pub use seq2seq::{LanguageError, Seq2SeqTokenizer};
pub use stream::{StopReason, TextStream};
pub use template::{ChatMessage, ChatTemplate, RenderOptions, Role, TemplateError, ToolCall};
pub use tokenizer::{
    Encoding, Part, Pieces, Special, Tokenizer, TokenizerError, Vocabulary, characters,
    spm::SentencePieceModel,
};
