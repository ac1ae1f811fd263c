//! How well documents answer a query.

use crate::EngineError;
use crate::encode::read::too_long;
use crate::encode::{EmbedOptions, Fitting, LoadedEncoder, Purpose, Truncated};
use crate::request::parameter;
use kun_formats::ModelFiles;
use kun_models::encoder::{Head, Judge};
use kun_tasks::scores::cosine;
use kun_text::{Encoding, Part, Special, Tokenizer};

/// How documents are ranked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RankOptions {
    /// Documents that are too long.
    pub fitting: Fitting,
    /// What the query wants of a document, for models that are told; `None`: [`INSTRUCTION`].
    pub instruction: Option<String>,
}

/// What Qwen3-Reranker's authors tell it where nobody says otherwise.
pub const INSTRUCTION: &str = "Given a web search query, retrieve relevant passages that answer the query";
/// What stands before the instruction, as the model was trained.
const BEFORE: &str = "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the \
    Instruct provided. Note that the answer can only be \"yes\" or \"no\".<|im_end|>\n<|im_start|>user\n";
/// What stands after the document: the model's thoughts are over, and its answer comes next.
const AFTER: &str = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n";

/// How well a document answers the query; more is better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// From 0 to 1 of a cross-encoder, the cosine of an embedder.
    pub score: f32,
    /// Whether the document was cut.
    pub truncated: Option<Truncated>,
}

impl LoadedEncoder {
    /// The score of each document, in their order. A cross-encoder reads query and document together; of an embedder, the
    /// vectors are compared.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] for a model that does neither. Per document: [`EngineError::Task`] if it is too long.
    pub fn rank(
        &self,
        query: &str,
        documents: &[String],
        options: &RankOptions,
    ) -> Result<Vec<Result<Score, EngineError>>, EngineError> {
        match self.info().head {
            Head::Embedding { .. } if options.instruction.is_some() => Err(untold()),
            Head::Embedding { .. } => self.compare(query, documents, options),
            Head::Sequence { labels: 1 } if self.info().instructed => self.judge(query, documents, options),
            Head::Sequence { labels: 1 } if options.instruction.is_some() => Err(untold()),
            Head::Sequence { labels: 1 } => {
                Ok(self.scored(self.each(documents, |text| self.read(query, Some(text), options.fitting))))
            }
            _ => {
                let what = "ranking takes an embedder, or a classifier with one label".to_owned();
                Err(EngineError::Mismatch { what })
            }
        }
    }

    /// The score of each pair that was read.
    fn scored(
        &self,
        read: Vec<Result<(Encoding, Option<Truncated>), EngineError>>,
    ) -> Vec<Result<Score, EngineError>> {
        let good: Vec<Encoding> =
            read.iter().filter_map(|read| read.as_ref().ok().map(|(encoding, _)| encoding.clone())).collect();
        let mut outputs = self.encode(&good).into_iter();
        let score = |read: Result<(Encoding, Option<Truncated>), EngineError>| {
            let (_, truncated) = read?;
            let logits = outputs.next().unwrap_or(Err(EngineError::Unloaded))?.data;
            let logit = logits.first().copied().unwrap_or(f32::NAN);
            Ok(Score { score: 1.0 / (1.0 + (-logit).exp()), truncated })
        };
        read.into_iter().map(score).collect()
    }

    /// Scores by a decoder that is asked whether each document answers the query.
    fn judge(
        &self,
        query: &str,
        documents: &[String],
        options: &RankOptions,
    ) -> Result<Vec<Result<Score, EngineError>>, EngineError> {
        let control = |text: &str| self.tokenizer().encode(text, Special::Parse);
        let (before, after) = (control(BEFORE)?, control(AFTER)?);
        let instruction = options.instruction.as_deref().unwrap_or(INSTRUCTION);
        let limit = self.info().max_tokens;
        let room = limit.saturating_sub(before.len() + after.len());
        let read = self.each(documents, |document| {
            let body = format!("<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}");
            let mut body = self.tokenizer().encode(&body, Special::Plain)?;
            let tokens = before.len() + body.len() + after.len();
            let mut truncated = None;
            if body.len() > room {
                if options.fitting == Fitting::Refuse {
                    return Err(too_long(tokens, limit));
                }
                body.truncate(room);
                truncated = Some(Truncated { tokens, kept: limit });
            }
            Ok((plain([before.as_slice(), &body, &after].concat()), truncated))
        });
        Ok(self.scored(read))
    }

    fn compare(
        &self,
        query: &str,
        documents: &[String],
        options: &RankOptions,
    ) -> Result<Vec<Result<Score, EngineError>>, EngineError> {
        let for_purpose = |purpose: &str| EmbedOptions {
            purpose: Purpose::Named(purpose.to_owned()),
            fitting: options.fitting,
            dimensions: None,
        };
        let query = self.embed(&[query.to_owned()], &for_purpose("query"))?.pop();
        let query = query.unwrap_or(Err(EngineError::Unloaded))?.vector;
        let documents = self.embed(documents, &for_purpose("document"))?;
        let score = |document: Result<crate::Embedding, EngineError>| {
            let document = document?;
            Ok(Score { score: cosine(&query, &document.vector), truncated: document.truncated })
        };
        Ok(documents.into_iter().map(score).collect())
    }
}

/// Tokens as they are, without any around them.
fn plain(ids: Vec<u32>) -> Encoding {
    let count = ids.len();
    Encoding {
        ids,
        types: vec![0; count],
        parts: vec![Part::First; count],
        offsets: vec![0..0; count],
        words: vec![0; count],
    }
}

fn untold() -> EngineError {
    parameter("instruction", "this model is not told what a query wants".to_owned())
}

/// Refuses a folder whose template puts queries and documents otherwise than Qwen3-Reranker's: its scores would mean nothing.
///
/// # Errors
/// [`EngineError::Unsuitable`].
pub(super) fn check_template(files: &ModelFiles) -> Result<(), EngineError> {
    let ModelFiles::HuggingFace { config, .. } = files else { return Ok(()) };
    let inner = || config.tokenizer_config.get("chat_template").and_then(|template| template.as_str());
    let known = config.chat_template.as_deref().or_else(inner).is_none_or(|text| text.contains("<Instruct>"));
    if known || !config.sentence_modules.iter().any(|module| module.kind == "LogitScore") {
        return Ok(());
    }
    let what = "the model's template for queries and documents is not supported".to_owned();
    Err(EngineError::Unsuitable { what })
}

/// The tokens that answer whether a document is what the query wants.
///
/// # Errors
/// [`EngineError::Mismatch`] for a tokenizer that has no token for either.
pub(super) fn yes_and_no(tokenizer: &Tokenizer) -> Result<Judge, EngineError> {
    let token = |word: &str| match tokenizer.encode(word, Special::Plain)?.as_slice() {
        [id] => Ok(*id),
        _ => Err(EngineError::Mismatch { what: format!("the model has no token `{word}` to rank by") }),
    };
    Ok(Judge { yes: token("yes")?, no: Some(token("no")?) })
}
