//! Text to token ids and back.
//!
//! Vocabularies are Kun's own compact tables (150,000 tokens are ready in tens of milliseconds and some 15 MB); the
//! normalizers and pre-tokenizers of a `tokenizer.json` are those of the `tokenizers` crate. Both kinds of file share the
//! handling of added tokens: a text is first cut at them, then each plain piece is encoded.

mod added;
mod bpe;
mod charsmap;
mod encoding;
mod json;
mod merges;
mod pattern;
mod sentencepiece;
mod split;
pub mod spm;
mod tokens;
mod trie;
mod unigram;
mod wordpiece;

use std::ops::Range;

use added::{Added, Matcher, Piece};
use encoding::Joints;

pub use encoding::{Encoding, Part, Pieces, characters};

use crate::template;

/// A vocabulary as a GGUF file describes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vocabulary {
    /// `tokenizer.ggml.model`: `llama`, `gpt2`, `bert`, `t5`.
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
    /// Unigram: runs of spaces become one; `None`: they do.
    pub remove_extra_whitespaces: Option<bool>,
    /// Unigram: what characters are replaced by, as SentencePiece compiles it; empty if absent.
    pub charsmap: Vec<u8>,
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

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// How plain text becomes ids.
#[derive(Debug)]
enum Model {
    Bpe(bpe::Bpe),
    SentencePiece(sentencepiece::SentencePiece),
    WordPiece(wordpiece::WordPiece),
    Unigram(Box<spm::UnigramVocabulary>),
    Json(Box<json::Pipeline>),
}

/// Names of tokens that end a turn, by the convention of one family or another.
const END_NAMES: [&str; 17] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<|end_of_turn|>",
    "<|eot|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<｜end▁of▁sentence｜>",
];

/// Text to token ids and back.
#[derive(Debug)]
pub struct Tokenizer {
    model: Model,
    kinds: Vec<Kind>,
    control: Option<Matcher>,
    /// Control tokens by name, where the file names them apart from the vocabulary.
    control_names: Vec<(String, u32)>,
    user_defined: Option<Matcher>,
    /// Ids put before and after a prompt.
    before: Vec<u32>,
    after: Vec<u32>,
    /// How encoders are given one text or two.
    joints: Joints,
    bos: Option<u32>,
    eos: Option<u32>,
    unknown: Option<u32>,
    end_tokens: Vec<u32>,
}

fn invalid(what: impl Into<String>) -> TokenizerError {
    TokenizerError::Invalid { what: what.into() }
}

impl Tokenizer {
    /// From a `tokenizer.json` and, if present, the `tokenizer_config.json` beside it.
    ///
    /// # Errors
    /// [`TokenizerError::Invalid`].
    pub fn from_json(
        tokenizer: &[u8],
        config: Option<&serde_json::Value>,
    ) -> Result<Tokenizer, TokenizerError> {
        let mut file = json::read(tokenizer)?;
        let find = |text: &str| {
            file.added.iter().find(|t| t.content == text).map(|t| t.id).or_else(|| file.pipeline.find(text))
        };
        let named = |field: &str| {
            let value = config?.get(field)?;
            find(value.as_str().or_else(|| value.get("content")?.as_str())?)
        };
        let flag = |field: &str| config.and_then(|c| c.get(field)).and_then(serde_json::Value::as_bool);
        let (mut before, mut after) = file.around.clone();
        let bos = named("bos_token").or_else(|| named("cls_token")).or(before.first().copied());
        let eos = named("eos_token").or_else(|| named("sep_token"));
        let unknown = named("unk_token");
        match (flag("add_bos_token"), bos) {
            (Some(true), Some(bos)) if before.is_empty() => before.push(bos),
            (Some(false), Some(bos)) => before.retain(|&id| id != bos),
            _ => {}
        }
        match (flag("add_eos_token"), eos) {
            (Some(true), Some(eos)) if after.is_empty() => after.push(eos),
            (Some(false), Some(eos)) => after.retain(|&id| id != eos),
            _ => {}
        }
        let ends = named_ends(&find);
        let (mut control, mut user_defined) = (Vec::new(), Vec::new());
        for token in &file.added {
            let added = Added {
                text: token.content.clone(),
                id: token.id,
                strips_left: token.lstrip,
                strips_right: token.rstrip,
            };
            if token.special || ends.contains(&token.id) || [bos, eos].contains(&Some(token.id)) {
                file.kinds[token.id as usize] = Kind::Control;
                control.push(added);
            } else {
                user_defined.push(added);
            }
        }
        let mut tokenizer = Tokenizer {
            model: Model::Json(Box::new(file.pipeline)),
            kinds: file.kinds,
            control_names: control.iter().map(|token| (token.text.clone(), token.id)).collect(),
            control: Matcher::new(control)?,
            user_defined: Matcher::new(user_defined)?,
            joints: file.joints.unwrap_or_else(|| Joints::around(&before, &after)),
            before,
            after,
            bos,
            eos,
            unknown,
            end_tokens: eos.into_iter().chain(ends).collect(),
        };
        tokenizer.finish()?;
        Ok(tokenizer)
    }

    /// From a GGUF vocabulary.
    ///
    /// # Errors
    /// [`TokenizerError::Invalid`].
    pub fn from_vocabulary(mut vocabulary: Vocabulary) -> Result<Tokenizer, TokenizerError> {
        let mut kinds = kinds(&vocabulary)?;
        let ends = named_ends_of(&vocabulary.tokens);
        let find = |text: &str| (0u32..).zip(&vocabulary.tokens).find(|(_, t)| *t == text).map(|(id, _)| id);
        if vocabulary.model == "bert" {
            vocabulary.bos = vocabulary.bos.or_else(|| find("[CLS]"));
            vocabulary.sep = vocabulary.sep.or_else(|| find("[SEP]"));
            vocabulary.unk = vocabulary.unk.or_else(|| find("[UNK]"));
        } else if ["llama", "t5"].contains(&vocabulary.model.as_str()) && vocabulary.unk.is_none() {
            vocabulary.unk = (0u32..).zip(&kinds).find(|(_, k)| **k == Kind::Unknown).map(|(id, _)| id);
        }
        let (bos, eos) = (vocabulary.bos, vocabulary.eos);
        let named = [bos, eos, vocabulary.eot, vocabulary.sep, vocabulary.pad, vocabulary.unk];
        for id in named.into_iter().flatten().chain(ends.iter().copied()) {
            let count = kinds.len();
            let kind = kinds
                .get_mut(id as usize)
                .ok_or_else(|| invalid(format!("special token {id} of {count} tokens")))?;
            if matches!(kind, Kind::Normal | Kind::UserDefined) {
                *kind = Kind::Control;
            }
        }
        let added = |wanted: &[Kind]| {
            let ids = (0u32..).zip(&vocabulary.tokens).zip(&kinds);
            let found = ids.filter(|(_, kind)| wanted.contains(kind)).map(|((id, text), _)| Added {
                text: text.clone(),
                id,
                strips_left: false,
                strips_right: false,
            });
            Matcher::new(found.collect())
        };
        let control = added(&[Kind::Control, Kind::Unknown])?;
        let user_defined = added(&[Kind::UserDefined])?;
        let (add_bos, model) = match vocabulary.model.as_str() {
            "gpt2" => {
                let rule = split::Rule::named(&vocabulary.pre)?;
                (rule.add_bos, Model::Bpe(bpe::Bpe::new(&mut vocabulary, &rule, &kinds)?))
            }
            "llama" => {
                let model = sentencepiece::SentencePiece::new(&mut vocabulary, &kinds)?;
                (true, Model::SentencePiece(model))
            }
            "bert" => (true, Model::WordPiece(wordpiece::WordPiece::new(&mut vocabulary, &kinds)?)),
            "t5" => (false, Model::Unigram(Box::new(spm::UnigramVocabulary::new(&mut vocabulary, &kinds)?))),
            other => {
                let name: String = other.chars().take(60).collect();
                return Err(invalid(format!(
                    "tokenizer.ggml.model `{name}` is not known (gpt2, llama, bert, t5)"
                )));
            }
        };
        let closing = if vocabulary.model == "bert" { vocabulary.sep } else { eos };
        let add_eos = vocabulary.add_eos.unwrap_or(matches!(vocabulary.model.as_str(), "bert" | "t5"));
        let before: Vec<u32> = bos.filter(|_| vocabulary.add_bos.unwrap_or(add_bos)).into_iter().collect();
        let after: Vec<u32> = closing.filter(|_| add_eos).into_iter().collect();
        let mut tokenizer = Tokenizer {
            model,
            kinds,
            control,
            control_names: Vec::new(),
            user_defined,
            // Two texts of XLM-R have two tokens between them.
            joints: Joints::around(&before, &after).between(closing.filter(|_| vocabulary.model == "t5")),
            before,
            after,
            bos,
            eos,
            unknown: vocabulary.unk,
            end_tokens: eos.into_iter().chain(vocabulary.eot).chain(ends).collect(),
        };
        tokenizer.finish()?;
        Ok(tokenizer)
    }

    /// Checks the ids and tidies the list of end tokens.
    fn finish(&mut self) -> Result<(), TokenizerError> {
        self.end_tokens.sort_unstable();
        self.end_tokens.dedup();
        let named = self.before.iter().chain(&self.after).chain(&self.end_tokens).copied();
        match named.chain(self.joints.tokens()).find(|&id| id as usize >= self.kinds.len()) {
            Some(id) => Err(invalid(format!("special token {id} of {} tokens", self.kinds.len()))),
            None => Ok(()),
        }
    }

    /// Ids of `text`, without beginning or end tokens.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn encode(&self, text: &str, special: Special) -> Result<Vec<u32>, TokenizerError> {
        match special {
            Special::Parse => self.encode_outside(text, &[]),
            Special::Plain => self.encode_outside(text, std::slice::from_ref(&(0..text.len()))),
        }
    }

    /// Ids of a whole prompt: [`Tokenizer::encode`] plus the beginning and end tokens that the model was trained with.
    /// A prompt that already starts with the beginning token gets no second one.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn encode_prompt(&self, text: &str, special: Special) -> Result<Vec<u32>, TokenizerError> {
        let ids = self.encode(text, special)?;
        let opened = self.before.is_empty() || ids.starts_with(&self.before);
        let before = if opened { &[][..] } else { &self.before };
        Ok([before, &ids, &self.after].concat())
    }

    /// Ids of a text from [`template::ChatTemplate::render`], in which everything that users wrote is marked:
    /// special tokens are parsed, except where they touch marked text. The marks themselves leave no trace:
    /// words may reach across them, as in the text without marks.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn encode_rendered(&self, rendered: &str) -> Result<Vec<u32>, TokenizerError> {
        let (text, written_by_users) = template::unmark(rendered);
        self.encode_outside(&text, &written_by_users)
    }

    /// Ids of `text`, parsing control tokens only outside the `closed` ranges.
    fn encode_outside(&self, text: &str, closed: &[Range<usize>]) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 8);
        let mut result = Ok(());
        // SentencePiece puts a space before what opens the text or follows a special token.
        let mut opening = true;
        cut(self.control.as_ref(), text, closed, &mut |piece| match piece {
            Piece::Token { id, .. } => {
                ids.push(id);
                opening = true;
            }
            Piece::Text { text: plain, at } => {
                let mut starts = at == 0;
                cut(self.user_defined.as_ref(), plain, &[], &mut |piece| match piece {
                    Piece::Token { id, .. } => {
                        ids.push(id);
                        opening = true;
                        starts = false;
                    }
                    Piece::Text { text, .. } => {
                        if result.is_ok() {
                            result = self.encode_plain(text, opening, starts, &mut ids);
                        }
                        opening = false;
                        starts = false;
                    }
                });
            }
        });
        result.map(|()| ids)
    }

    fn encode_plain(
        &self,
        text: &str,
        opening: bool,
        starts: bool,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        match &self.model {
            Model::Bpe(bpe) => bpe.encode(text, ids),
            Model::SentencePiece(model) => model.encode(text, opening, ids),
            Model::WordPiece(model) => model.encode(text, ids),
            Model::Unigram(model) => return model.encode(text, ids),
            Model::Json(pipeline) => return pipeline.encode(text, starts, ids),
        }
        Ok(())
    }

    /// The text of `ids`; control tokens are left out; invalid UTF-8 becomes U+FFFD. The space that the model
    /// puts before the first word of a text (SentencePiece, WordPiece) is taken off again.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for &id in ids {
            bytes.extend_from_slice(&self.token_bytes(id));
        }
        let strips = match &self.model {
            Model::Bpe(_) => false,
            Model::SentencePiece(model) => model.space_prefix,
            Model::WordPiece(_) => true,
            Model::Unigram(model) => model.adds_space(),
            Model::Json(pipeline) => pipeline.strips_first_space,
        };
        let bytes = match bytes.strip_prefix(b" ") {
            Some(rest) if strips => rest,
            _ => &bytes,
        };
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// The bytes that token `id` adds to a running text (empty for control tokens and unknown ids).
    ///
    /// SentencePiece and WordPiece words carry the space before them, also at the beginning of a text, where
    /// [`Tokenizer::decode`] takes it off; an answer continues a text, so its stream keeps it.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        match self.kinds.get(id as usize) {
            None | Some(Kind::Control | Kind::Unknown) => return Vec::new(),
            Some(_) => {}
        }
        match &self.model {
            Model::Bpe(bpe) => bpe.tokens.bytes(id).to_vec(),
            Model::SentencePiece(model) => model.bytes(id),
            Model::WordPiece(model) => sentencepiece::unescape(model.tokens.bytes(id)),
            Model::Unigram(model) => sentencepiece::unescape(model.piece(id).as_bytes()),
            Model::Json(pipeline) => pipeline.bytes(id),
        }
    }

    /// Number of ids.
    pub fn vocab_size(&self) -> usize {
        self.kinds.len()
    }
    /// Control tokens that a `tokenizer.json` names, with their ids.
    pub fn control_tokens(&self) -> impl Iterator<Item = (&str, u32)> {
        self.control_names.iter().map(|(text, id)| (text.as_str(), *id))
    }
    /// Beginning of text.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }
    /// End of text.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }
    /// What stands for characters that the vocabulary lacks.
    pub fn unknown(&self) -> Option<u32> {
        self.unknown
    }
    /// Every token that ends an answer (end of text, end of turn), in ascending order.
    pub fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }
}

fn cut<'t>(
    matcher: Option<&Matcher>,
    text: &'t str,
    closed: &[Range<usize>],
    piece: &mut dyn FnMut(Piece<'t>),
) {
    match matcher {
        Some(matcher) => matcher.cut(text, closed, piece),
        None if text.is_empty() => {}
        None => piece(Piece::Text { text, at: 0 }),
    }
}

/// The ids of [`END_NAMES`]; `find` gives the id of a token's text.
fn named_ends(find: &dyn Fn(&str) -> Option<u32>) -> Vec<u32> {
    // In vocabularies with `<|return|>` and `<|call|>`, `<|end|>` ends a message, not the turn.
    let harmony = find("<|return|>").is_some() && find("<|call|>").is_some();
    END_NAMES.iter().filter(|name| !(harmony && **name == "<|end|>")).filter_map(|name| find(name)).collect()
}

fn named_ends_of(tokens: &[String]) -> Vec<u32> {
    let found: Vec<(&str, u32)> = (0u32..)
        .zip(tokens)
        .filter(|(_, text)| END_NAMES.contains(&text.as_str()))
        .map(|(id, text)| (text.as_str(), id))
        .collect();
    named_ends(&|name| found.iter().find(|(text, _)| *text == name).map(|(_, id)| *id))
}

fn kinds(vocabulary: &Vocabulary) -> Result<Vec<Kind>, TokenizerError> {
    let count = vocabulary.tokens.len();
    if count == 0 || u32::try_from(count).is_err() {
        return Err(invalid(format!("tokenizer.ggml.tokens has {count} entries")));
    }
    if vocabulary.types.is_empty() {
        return Ok(vec![Kind::Normal; count]);
    }
    if vocabulary.types.len() != count {
        let types = vocabulary.types.len();
        return Err(invalid(format!("tokenizer.ggml.token_type has {types} values for {count} tokens")));
    }
    let kind = |(id, value): (usize, &i32)| match value {
        1 => Ok(Kind::Normal),
        2 => Ok(Kind::Unknown),
        3 => Ok(Kind::Control),
        4 => Ok(Kind::UserDefined),
        0 | 5 => Ok(Kind::Unused),
        6 => Ok(Kind::Byte),
        other => Err(invalid(format!("tokenizer.ggml.token_type[{id}] is {other}, not 0 to 6"))),
    };
    vocabulary.types.iter().enumerate().map(kind).collect()
}

#[cfg(test)]
mod tests;
