//! Text to token ids and back.

/// A vocabulary as a GGUF file describes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vocabulary {
    /// `tokenizer.ggml.model`: `llama`, `gpt2`, `bert`.
    pub model: String,
    /// `tokenizer.ggml.pre`: how byte-level BPE splits text first; empty if absent.
    pub pre: String,
    /// The tokens, by id.
    pub tokens: Vec<String>,
    /// Scores by id; empty if absent.
    pub scores: Vec<f32>,
    /// `tokenizer.ggml.token_type` by id (1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte); empty if absent.
    pub types: Vec<i32>,
    /// BPE merges, `left right`; empty if absent.
    pub merges: Vec<String>,
    /// Beginning of text.
    pub bos: Option<u32>,
    /// End of text.
    pub eos: Option<u32>,
    /// End of turn, where it differs.
    pub eot: Option<u32>,
    /// Unknown token.
    pub unk: Option<u32>,
    /// Separator (BERT).
    pub sep: Option<u32>,
    /// Padding.
    pub pad: Option<u32>,
    /// Whether [`Tokenizer::encode_prompt`] starts with `bos`; `None`: by the model's rule.
    pub add_bos: Option<bool>,
    /// Whether it ends with `eos`; `None`: by the model's rule.
    pub add_eos: Option<bool>,
    /// SentencePiece: a space before the first word; `None`: by the model's rule.
    pub add_space_prefix: Option<bool>,
}

/// What becomes of special tokens spelt out in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// They become their token: for text that a template wrote.
    Parse,
    /// They are plain characters: for text that a user wrote.
    Plain,
}

/// Why a tokenizer cannot be built or a text not be encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The description is wrong.
    #[error("tokenizer: {what}")]
    Invalid {
        /// Field, value and limit.
        what: String,
    },
    /// The text cannot be encoded.
    #[error("text cannot be encoded: {what}")]
    Encode {
        /// Why.
        what: String,
    },
}

/// Text to token ids and back.
#[derive(Debug)]
pub struct Tokenizer {}

impl Tokenizer {
    /// From a `tokenizer.json` and, if present, the `tokenizer_config.json` beside it.
    ///
    /// # Errors
    /// [`TokenizerError::Invalid`].
    pub fn from_json(
        tokenizer: &[u8],
        config: Option<&serde_json::Value>,
    ) -> Result<Tokenizer, TokenizerError> {
        let _ = (tokenizer, config);
        Ok(Tokenizer {})
    }
    /// From a GGUF vocabulary.
    ///
    /// # Errors
    /// [`TokenizerError::Invalid`].
    pub fn from_vocabulary(vocabulary: Vocabulary) -> Result<Tokenizer, TokenizerError> {
        let _ = vocabulary;
        Ok(Tokenizer {})
    }
    /// Ids of `text`, without beginning or end tokens.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn encode(&self, text: &str, special: Special) -> Result<Vec<u32>, TokenizerError> {
        let _ = (text, special);
        Ok(Vec::new())
    }
    /// Ids of a whole prompt: [`Tokenizer::encode`] plus the beginning and end tokens that the model was trained with.
    /// A prompt that already starts with the beginning token gets no second one.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn encode_prompt(&self, text: &str, special: Special) -> Result<Vec<u32>, TokenizerError> {
        self.encode(text, special)
    }
    /// Ids of a text in which [`crate::template::protect`] marked what a user wrote: special tokens are parsed, except inside marked text.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn encode_rendered(&self, rendered: &str) -> Result<Vec<u32>, TokenizerError> {
        self.encode(rendered, Special::Parse)
    }
    /// The text of `ids`; control tokens are left out; invalid UTF-8 becomes U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let _ = ids;
        String::new()
    }
    /// The bytes that token `id` adds to a text (empty for control tokens and unknown ids).
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        let _ = id;
        Vec::new()
    }
    /// Number of ids.
    pub fn vocab_size(&self) -> usize {
        0
    }
    /// Beginning of text.
    pub fn bos(&self) -> Option<u32> {
        None
    }
    /// End of text.
    pub fn eos(&self) -> Option<u32> {
        None
    }
    /// Every token that ends an answer (end of text, end of turn).
    pub fn end_tokens(&self) -> &[u32] {
        &[]
    }
}
